"""Check a learner's answers in this process, and put them in place of the package's own functions.

Checking runs the code in the answers, so only check files that you would also run yourself.
"""

import ast
import faulthandler
import importlib
import inspect
import math
import signal
import sys
import threading
import traceback
from bdb import BdbQuit
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any, TextIO

from minicontrolnet.errors import Problem  # before torch, so that Ctrl-C is quiet while torch loads
from minicontrolnet.run.files import write_file
from exercises.probing import Exercise, Mistake, Observed, tensors_in

import torch
from torch import Tensor

HERE = Path(__file__).parent
ANSWERS = HERE.parents[1] / "answers"
COMMAND = "python lessons/exercises"
SECONDS = 60  # the time limit of one exercise
OURS = ("minicontrolnet", "experiments", "lesson", "answers_")  # modules in which --mine replaces functions
FILES = sorted(HERE.glob("ex[0-9][0-9]_*.py"))
EXERCISES = {value.id: value for path in FILES
             for value in vars(importlib.import_module(f"exercises.{path.stem}")).values()
             if isinstance(value, Exercise)}


def copy_stubs(answers: Path) -> None:
    """Write the files that the learner does not have yet. Existing files stay as they are."""
    for path in FILES:
        if not (answers / path.name).exists():
            imports = path.read_text(encoding="utf-8").split("\nfrom exercises.probing")[0]
            stubs = [e.stub() for e in EXERCISES.values() if e.file == path.name]
            write_file(answers / path.name, "\n\n".join([imports, *stubs]).encode())


def load(path: Path) -> ModuleType:
    """Run a learner's file as a new module. Raises Mistake if it is something else than Python code."""
    code = path.read_bytes()
    if code.lstrip().startswith(b"{") and b'"cells"' in code:
        raise Mistake(f"{path.name} is a notebook", "Save its code as a Python file.")
    if b"\0" in code:
        advice = "It is not plain text in UTF-8. Save it as UTF-8, or restore it."
        raise Mistake(f"{path.name} contains null bytes", advice)
    module = sys.modules[f"answers_{path.stem}"] = ModuleType(f"answers_{path.stem}")
    module.__file__ = str(path)
    exec(compile(code, str(path), "exec"), vars(module))
    return module


# %% Observations


def observe(exercise: Exercise, answer: Any, seed: int) -> Observed:
    """Everything that the check sees of an answer. An exception is an observation, too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)  # other numbers than those that the check uses
        try:
            return exercise.check(answer, torch.Generator().manual_seed(seed))
        except (Exception, SystemExit, OutOfTime) as error:
            return {"raised": error}


@lru_cache(None)
def known(id: str, seed: int, misconception: str = "") -> Observed:
    """The observations of the solution, or those of a known mistake."""
    exercise = EXERCISES[id]
    answer = exercise.wrong(misconception) if misconception else resolve_name(exercise.solution)
    return observe(exercise, answer, seed)


def equal(a: Any, b: Any) -> bool:
    """Whether two observations agree: numbers to 1e-9, float32 numbers to 1e-6."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        near = 1e-9 if a.dtype == torch.float64 else 1e-6
        alike = a.shape == b.shape and a.dtype == b.dtype
        return alike and torch.allclose(a, b, near, near, equal_nan=True)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, abs_tol=1e-9)
    if isinstance(a, BaseException):
        return type(a) is type(b) and str(a) == str(b)
    return type(a) is type(b) and bool(a == b)


def short(text: str) -> str:
    """The text on one line, cut off after 200 letters: an answer may return or raise anything."""
    text = " ".join(text.split())
    return text if len(text) < 200 else text[:200] + " ..."


def describe(value: Any) -> str:
    """An observation in words."""
    if isinstance(value, Tensor):
        limits = f", from {value.min():.3g} to {value.max():.3g}" if value.numel() else ""
        return f"{str(value.dtype)[6:]} of shape {tuple(value.shape)}{limits}"
    if isinstance(value, (list, tuple)) and tensors_in(value):
        return short(f"{len(value)} values: {'; '.join(map(describe, value))}")
    if isinstance(value, list) and all(isinstance(x, float) for x in value):
        return short(", ".join(f"{x:.3g}" for x in value))
    return short(f"{value:.4g}" if isinstance(value, float) else str(value))


def compare(name: str, yours: Any, wanted: Any) -> tuple[str, str]:
    """How two observations differ, and what this difference alone suggests."""
    if type(yours) is type(wanted) is list and len(yours) == len(wanted):
        i = next(i for i, pair in enumerate(zip(yours, wanted)) if not equal(*pair))
        if not isinstance(wanted[i], float):
            return compare(f"{name}, number {i + 1}", yours[i], wanted[i])
    cause = "This is none of the mistakes that we know. Compare your code with the docstring, word by word."
    if isinstance(yours, Tensor) and isinstance(wanted, Tensor):
        cause = "The shape or the dtype is not right. See the docstring, and torch.zeros_like(x)."
        if yours.shape == wanted.shape and yours.dtype == wanted.dtype:
            largest = (yours - wanted).abs().max()
            cause = f"The shape is right, but the values differ by up to {largest:.3g}."
    return f"{name}: {describe(yours)}; expected: {describe(wanted)}", cause


def explain_error(error: BaseException, path: Path) -> tuple[str, str]:
    """The learner's own line where an exception came from, if there is one, and the cause in words."""
    if isinstance(error, Mistake):
        return short(error.args[0]), error.args[1]
    message = str(error) or "an exception without a message"
    where = "the check"
    if isinstance(error, SyntaxError):
        line = f"line {error.lineno} of " if error.lineno else ""
        message = error.msg
        where = f"{line}{path.name}: {(error.text or '').strip()}".removesuffix(": ")
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename) == path:
            where = f"line {frame.lineno} of {path.name}: {frame.line}"
    if isinstance(error, OutOfTime):
        return short(f"no result after {error.args[0]} seconds, in {where}"), out_of_time(where == "the check")
    if isinstance(error, SystemExit):
        message = "Your code ends the whole program. Remove the exit()."
    if isinstance(error, BdbQuit):
        message = "Your code stops at a breakpoint(). Remove it."
    if isinstance(error, EOFError):
        message = "Your code waits for input, and there is none. Remove the input()."
    if "modified by an inplace operation" in message:
        message = "The backward pass needs a tensor that was changed in place (+=). Make a new one."
    if "leaf Variable that requires grad is being used in an in-place" in message:
        message = ("A trainable weight cannot be changed in place while gradients are recorded."
                   " Use nn.init.zeros_ or a similar function, or with torch.no_grad():")
    return short(f"{type(error).__name__} in {where}"), short(message.splitlines()[0])


# %% The time limit


class OutOfTime(BaseException):
    """An answer takes too long. This is not an Exception, so that no answer catches it by accident."""


def out_of_time(outside: bool) -> str:
    """The likely cause if time ran out, inside or outside of the learner's code."""
    if outside:
        return "Your code was not running, so the machine is probably busy. Check again once it is quiet."
    return "A loop there never ends, there is far too much to do, or your code waits for input()."


@contextmanager
def time_limit(seconds: int, log: TextIO | None = None) -> Iterator[None]:
    """Raise OutOfTime in the block after so many seconds.

    Python cannot raise it inside one long call of torch, and Windows has no alarm. So five seconds
    later the stack is written to ``log``, which is stderr by default, and the process ends.
    """

    def stop(*_: Any) -> None:
        raise OutOfTime(seconds)

    alarm = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    log = log or sys.__stderr__
    if log is not None:
        faulthandler.dump_traceback_later(seconds + 5, exit=True, file=log)
    if alarm:
        usual = signal.signal(signal.SIGALRM, stop)
        signal.alarm(seconds)
    try:
        yield
    finally:
        if alarm:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, usual)
        faulthandler.cancel_dump_traceback_later()


# %% The verdict


def failed(exercise: Exercise, result: str, cause: str, head: str = "not yet") -> str:
    return (f"{head}\n   result:       {result}\n   likely cause: {cause}\n   paper:        {exercise.paper}\n"
            f"   next:         {COMMAND} hint {exercise.id}")


def not_begun(exercise: Exercise, result: str = "This is still the stub.") -> str:
    """The message before anything is written. For a bug hunt it names the symptom, but not the cause."""
    symptom = exercise.task.removeprefix("Bug hunt: ").rstrip(".")
    task = f"Find out why {symptom}." if exercise.bugs else f"Write {exercise.name}."
    return failed(exercise, result, task, "not begun").replace("likely cause:", "to do:       ")


def mark(message: str) -> int | None:
    """1 if the message says that the exercise is passed, 0 if it is not, None if it is not begun."""
    return None if message.startswith("not begun") else int(message.startswith("passed"))


def is_stub(exercise: Exercise, path: Path) -> bool:
    """Whether the function in the file, apart from comments, is still that of the stub."""
    both = []
    for text in (path.read_bytes(), exercise.stub()):
        functions = [node for node in ast.parse(text).body if getattr(node, "name", "") == exercise.name]
        both.append([ast.dump(node) for node in functions[-1:]])
    return both[0] == both[1]


def diagnose(exercise: Exercise, yours: Observed, first: str, seed: int) -> str | None:
    """The known mistake that gives the same observations, at least up to the first one that is wrong."""
    names = list(yours)
    until_first = names[: names.index(first) + 1] if first in names else names
    for some in names, until_first:
        for misconception in exercise.mistakes:
            same = known(exercise.id, seed, misconception)
            if all(name in same and equal(yours[name], same[name]) for name in some):
                return misconception
    return None


def check(exercise: Exercise, answers: Path, seed: int = 0, seconds: int | None = None,
          log: TextIO | None = None) -> str:
    """Check one answer. Returns a message that starts with "passed", "not yet" or "not begun"."""
    path = answers / exercise.file
    if not path.exists():
        return not_begun(exercise, f"There is no file {path}. {COMMAND} makes it.")
    if not path.is_file():  # reading a pipe would wait for its other end
        return not_begun(exercise, f"{path} is not a plain file. Move it away, and {COMMAND} makes one.")
    wanted = known(exercise.id, seed)
    try:
        with time_limit(seconds or SECONDS, log):
            answer = getattr(load(path), exercise.name, None)
            if answer is None:
                raise Mistake(f"no {exercise.name} in {path.name}", "Keep the name that the function had.")
            yours = observe(exercise, answer, seed)
    except (Exception, SystemExit, OutOfTime) as error:
        yours = {"raised": error}
    differ = [name for name in wanted if not equal(yours.get(name), wanted[name])]
    first = next((name for name in differ if name not in exercise.remarks), None)
    if first is None:
        return ". A remark: ".join(["passed", *(exercise.remarks[name] for name in differ)])
    error = yours.get("raised")
    if isinstance(error, NotImplementedError) and str(error) == "write me" or not error and is_stub(exercise, path):
        return not_begun(exercise)
    result, cause = explain_error(error, path) if error else compare(first, yours.get(first), wanted[first])
    return failed(exercise, result, diagnose(exercise, yours, first, seed) or cause)


# %% Answers in place of the package's functions


def use_mine(answers: Path = ANSWERS) -> list[str]:
    """Put every answer that passes without a remark in place of the package's function. Returns lines to print."""
    if not answers.is_dir():
        raise Problem(f"{answers} is not a folder; give --mine the folder with your answers")
    if not any((answers / path.name).exists() for path in FILES):
        raise Problem(f"{answers} contains no answers (no {FILES[0].name} and so on); give --mine the folder with"
                      f" yours, which {COMMAND} makes")
    messages = {id: check(exercise, answers) for id, exercise in EXERCISES.items()}
    mine = [EXERCISES[id] for id, message in messages.items() if message == "passed"]
    mine.sort(key=lambda exercise: exercise.solution.count("."))  # classes before their methods
    for exercise in mine:
        replace(exercise, getattr(load(answers / exercise.file), exercise.name))
    yours = ", ".join(f"{exercise.id} {exercise.name}" for exercise in mine)
    others = ", ".join(id for id, message in messages.items() if message != "passed")
    return [f"--mine: these functions are yours: {yours or 'none yet'}",
            f"        these are the package's (not passed, or passed with a remark): {others or 'none'}"]


def replace(exercise: Exercise, yours: Any) -> None:
    """Put ``yours`` in place of the solution, in every module that imported it."""
    owner, name = exercise.solution.rsplit(".", 1)
    owner = resolve_name(owner)
    solution = resolve_name(exercise.solution)
    if inspect.isclass(owner):
        setattr(owner, name, yours)
        return
    for name, module in list(sys.modules.items()):
        if name == "__main__" or name.startswith(OURS):
            for key, value in list(vars(module).items()):
                if value is solution:
                    setattr(module, key, yours)
