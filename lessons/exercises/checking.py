"""Load a learner's answers, check them, and put them in the place of the package's own functions.

Checking runs the code in the answers: give it only files that you would run yourself.
"""

import importlib
import importlib.util
import inspect
import linecache
import math
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .catalogue import EXERCISES, Exercise, Mistake

HERE = Path(__file__).parent
ANSWERS = HERE.parents[1] / "answers"
COMMAND = "python lessons/exercises"


class Verdict(NamedTuple):
    passed: bool
    message: str  # without the exercise's name


# %% Files


def stub_of(exercise: Exercise) -> Path:
    """The file that an exercise is written in, as it ships."""
    return next(HERE.glob(f"ex{exercise.id[:2]}_*.py"))


def lesson_of(exercise: Exercise) -> Path:
    return next(HERE.parent.glob(f"{exercise.id[:2]}_*.py"))


def copy_stubs(answers: Path) -> None:
    """Copy the files that the learner does not have yet; what is there is never touched."""
    answers.mkdir(parents=True, exist_ok=True)
    for stub in sorted(HERE.glob("ex[0-9][0-9]_*.py")):
        if not (answers / stub.name).exists():
            shutil.copyfile(stub, answers / stub.name)


def reset(exercise: Exercise, answers: Path) -> Path | None:
    """Put the stub back in place of the exercise's file; returns the backup of what was there."""
    stub, backup = stub_of(exercise), None
    mine = answers / stub.name
    if mine.exists():
        number = 1
        while (backup := mine.with_suffix(f".backup{number}.py")).exists():
            number += 1
        mine.rename(backup)
    copy_stubs(answers)
    return backup


def load(path: Path) -> ModuleType:
    """Import a learner's file under a name of its own, afresh."""
    linecache.checkcache(str(path))
    spec = importlib.util.spec_from_file_location(f"answers_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def reference_of(exercise: Exercise) -> tuple[Any, str, Any]:
    """Where the reference stands (a module or a class), its name there, and itself."""
    module, *names = exercise.reference.split(".")
    owner = importlib.import_module(f"minicontrolnet.{module}")
    for name in names[:-1]:
        owner = getattr(owner, name)
    return owner, names[-1], getattr(owner, names[-1])


# %% Checking


def observe(exercise: Exercise, answer: Any, seed: int) -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # an answer that draws from the global generator draws the same each time
        return exercise.probe(answer, torch.Generator().manual_seed(seed))


@lru_cache
def expected(exercise: Exercise, seed: int) -> dict[str, Any]:
    """What is observed of the reference."""
    return observe(exercise, reference_of(exercise)[2], seed)


@lru_cache
def mistakes(exercise: Exercise, seed: int) -> list[tuple[dict[str, Any], str]]:
    """What is observed of each known wrong answer, and the words for it."""
    return [(observe(exercise, wrong.answer, seed), wrong.words) for wrong in exercise.wrongs]


def equal(a: Any, b: Any) -> bool:
    """Whether two observations agree: tensors in shape, dtype and to 1e-9 (float32: 1e-6)."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        near = 1e-9 if a.dtype == torch.float64 else 1e-6
        return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, near, near, equal_nan=True)
    if isinstance(a, Sequence) and isinstance(b, Sequence) and not isinstance(a, str):
        return len(a) == len(b) and all(map(equal, a, b))
    if type(a) is float and type(b) is float:
        return math.isclose(a, b, abs_tol=1e-9)
    return type(a) is type(b) and bool(a == b)


def say(value: Any) -> str:
    if isinstance(value, Tensor):
        numbers = f", from {value.min():.3g} to {value.max():.3g}" if value.numel() else ""
        return f"{str(value.dtype)[6:]} of shape {tuple(value.shape)}{numbers}"
    if isinstance(value, Sequence) and value and all(isinstance(x, float) for x in value):
        return ", ".join(f"{x:.3g}" for x in value)
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) < 200 else text[:200] + " ..."


def first_difference(name: str, yours: Any, wanted: Any) -> tuple[str, Any, Any]:
    """Of two lists of tensors or shapes, the first pair that differs; else both as they are."""
    for i, (a, b) in enumerate(zip(yours, wanted) if isinstance(wanted, list) else ()):
        if isinstance(b, (Tensor, tuple)) and len(yours) == len(wanted) and not equal(a, b):
            return f"{name}, number {i + 1} of {len(wanted)}", a, b
    return name, yours, wanted


def generic(yours: Any, wanted: Any) -> str:
    """What a difference shows when no known mistake explains it."""
    if isinstance(yours, Tensor) and isinstance(wanted, Tensor):
        if yours.shape != wanted.shape:
            return "the shape is another one: look at the shapes in the docstring"
        if yours.dtype != wanted.dtype:
            return "the dtype is another one: make new numbers from the inputs, as in x.new_zeros or torch.zeros_like"
        if yours.isnan().any():
            return "there are nan's in it: something was divided by 0, or a root was taken of a negative number"
        return f"the shape is right, the values are not; the largest difference is {(yours - wanted).abs().max():.3g}"
    return "not one of the mistakes that this check knows; compare with the docstring, one sentence at a time"


def check(exercise: Exercise, answers: Path, seed: int = 0) -> Verdict:
    """Check one answer: what it returned, which misconception that shows, the paper, what to do next."""
    path = answers / stub_of(exercise).name
    found, shows = "", ""
    try:
        if not path.exists():
            raise Mistake(f"no file {path}", f"{COMMAND} makes it")
        module = load(path)
        if not hasattr(module, exercise.name):
            raise Mistake(f"no {exercise.name} in {path.name}", "keep the name that the file came with")
        yours = observe(exercise, getattr(module, exercise.name), seed)
    except Mistake as mistake:
        found, shows = mistake.args
    except (Exception, SystemExit) as error:
        if isinstance(error, NotImplementedError) and str(error) == "write me":
            return Verdict(False, f"not begun: write {exercise.name} in {path}\n{advice(exercise)}")
        found, shows = blame(error, path)
    else:
        wanted = expected(exercise, seed)
        name = next((name for name in wanted if not equal(yours.get(name), wanted[name])), None)
        if name is None:
            return Verdict(True, "passed")
        what, a, b = first_difference(name, yours[name], wanted[name])
        found = f"{what}: {say(a)}; expected: {say(b)}"
        shows = diagnose(exercise, yours, name, seed) or generic(a, b)
    return Verdict(False, f"not yet\n   it gave:    {found}\n   that shows: {shows}\n{advice(exercise)}")


def diagnose(exercise: Exercise, yours: dict[str, Any], first: str, seed: int) -> str | None:
    """The words of the known wrong answer that makes the same observations, if there is one.

    Second best is one that agrees up to the first observation that is wrong: mistakes come in pairs.
    """
    names = list(yours)
    for looked_at in (names, names[: names.index(first) + 1]):
        for same, words in mistakes(exercise, seed):
            if all(equal(yours[name], same[name]) for name in looked_at):
                return words
    return None


def advice(exercise: Exercise) -> str:
    return f"   paper:      {exercise.paper}\n   next:       {COMMAND} hint {exercise.id}"


def blame(error: BaseException, path: Path) -> tuple[str, str]:
    """An exception, told by the learner's own line where there is one."""
    if isinstance(error, SyntaxError):
        line = f"line {error.lineno} of {path.name}: {(error.text or '').strip()}" if error.lineno else path.name
        return f"{type(error).__name__} in {line}", str(error.msg)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    where = f"line {frames[-1].lineno} of {path.name}: {frames[-1].line}" if frames else "the check: in the call, or with what came back"
    if isinstance(error, SystemExit):
        return f"SystemExit in {where}", "your code ends the whole program: leave exit() out"
    if "modified by an inplace operation" in str(error):
        return f"no backward pass: {type(error).__name__}", "you changed a tensor in place (+=) that backward still needs; make a new tensor"
    said = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__} in {where}", said or "an exception without a message"


# %% --mine: the learner's functions in place of the package's


def use_mine(answers: Path = ANSWERS) -> list[str]:
    """Put every answer that passes into the running program; returns what is whose, in lines to print."""
    mine, theirs, misfits = [], [], []
    for exercise in sorted(EXERCISES, key=lambda e: e.reference.count(".")):  # classes before their methods
        if not check(exercise, answers).passed:
            theirs.append(exercise.id)
            continue
        yours = getattr(sys.modules[f"answers_{stub_of(exercise).stem}"], exercise.name)
        if fits(exercise, yours) or lesson_of(exercise).name == Path(sys.argv[0]).name:
            replace(exercise, yours)
            mine.append(f"{exercise.id} {exercise.name}")
        else:
            misfits.append(exercise.id)
    return [f"--mine: yours are {', '.join(sorted(mine)) or 'none yet'}",
            *(f"        {id} passed, but the shipped weights have other layers: here the package's own runs" for id in misfits),
            f"        the package's own, because not passed: {', '.join(sorted(theirs)) or 'none'}"]


def fits(exercise: Exercise, yours: Any) -> bool:
    """Whether the shipped weights fit; only the condition encoder's layers are the learner's choice."""
    if exercise.reference != "controlnet.ConditionEncoder":
        return True
    shapes = lambda build: {name: p.shape for name, p in build(1, 16).state_dict().items()}
    return shapes(yours) == shapes(reference_of(exercise)[2])


def replace(exercise: Exercise, yours: Any) -> None:
    """Give the reference's name another meaning, wherever it was imported to."""
    owner, name, reference = reference_of(exercise)
    if inspect.isclass(owner):
        setattr(owner, name, yours)
        return
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] in ("minicontrolnet", "__main__") or module_name.startswith("answers_"):
            for key, value in list(vars(module).items()):
                if value is reference:
                    setattr(module, key, yours)


def grade(answers: Path, seed: int) -> dict[str, Any]:
    """Every exercise with passed and message, for a teacher's list."""
    verdicts = {exercise.id: check(exercise, answers, seed) for exercise in EXERCISES}
    return {"answers": str(answers), "seed": seed, "date": time.strftime("%Y-%m-%d"),
            "passed": sum(v.passed for v in verdicts.values()), "of": len(verdicts),
            "exercises": {id: verdict._asdict() for id, verdict in verdicts.items()}}
