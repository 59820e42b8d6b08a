"""Check a learner's answers, and put them in place of the package's own functions.

Checking runs the code in the answers: give it only files that you would run yourself.
"""

import ast
import faulthandler
import importlib.util
import inspect
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from exercises.probing import Exercise, Mistake, Observed, tensors_in
from minicontrolnet.errors import Problem
from minicontrolnet.run.files import write_file

HERE = Path(__file__).parent
ANSWERS = HERE.parents[1] / "answers"
COMMAND = "python lessons/exercises"
SECONDS = 60  # that one exercise may take
MEMORY, FILE = 4 << 30, 100 << 20  # bytes that it may take, and write to a file
OURS = ("minicontrolnet", "experiments", "answers_")  # modules that --mine changes
FILES = sorted(HERE.glob("ex[0-9][0-9]_*.py"))
EXERCISES = {value.id: value for path in FILES for value in
             vars(importlib.import_module(f"exercises.{path.stem}")).values()
             if isinstance(value, Exercise)}


def copy_stubs(answers: Path) -> None:
    """Write the files that the learner does not have yet; no other is touched."""
    for path in FILES:
        if not (answers / path.name).exists():
            head = path.read_text(encoding="utf-8").split("\nfrom exercises.probing")[0]
            stubs = [e.stub() for e in EXERCISES.values() if e.file == path.name]
            write_file(answers / path.name, "\n\n".join([head, *stubs]).encode())


def load(path: Path) -> Any:
    """Import a learner's file under a name of its own, afresh."""
    spec = importlib.util.spec_from_file_location(f"answers_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def observe(exercise: Exercise, answer: Any, seed: int) -> Observed:
    """What the check sees of an answer; an exception is an observation, too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)  # other numbers than those that the check draws
        try:
            return exercise.check(answer, torch.Generator().manual_seed(seed))
        except (Exception, SystemExit) as error:
            return {"raised": error}


@lru_cache(None)
def known(id: str, seed: int, words: str = "") -> Observed:
    """What is seen of the solution, or of the mistake with these words."""
    exercise = EXERCISES[id]
    answer = exercise.wrong(words) if words else exercise.find()[1]
    return observe(exercise, answer, seed)


def equal(a: Any, b: Any) -> bool:
    """Whether two observations agree: numbers to 1e-9, those of float32 to 1e-6."""
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
    """One line, cut where it is long: answers may put out anything."""
    text = " ".join(text.split())
    return text if len(text) < 200 else text[:200] + " ..."


def say(value: Any) -> str:
    if isinstance(value, Tensor):
        ends = f", from {value.min():.3g} to {value.max():.3g}" if value.numel() else ""
        return f"{str(value.dtype)[6:]} of shape {tuple(value.shape)}{ends}"
    if isinstance(value, (list, tuple)) and tensors_in(value):
        return short(f"{len(value)} values: {'; '.join(map(say, value))}")
    if isinstance(value, list) and all(isinstance(x, float) for x in value):
        return short(", ".join(f"{x:.3g}" for x in value))
    return short(f"{value:.4g}" if isinstance(value, float) else str(value))


def compare(name: str, yours: Any, wanted: Any) -> tuple[str, str]:
    """Two observations that differ, and what their difference shows by itself."""
    if type(yours) is type(wanted) is list and len(yours) == len(wanted):
        i = next(i for i, pair in enumerate(zip(yours, wanted)) if not equal(*pair))
        if not isinstance(wanted[i], float):
            return compare(f"{name}, number {i + 1}", yours[i], wanted[i])
    shows = "no mistake that is known here: compare with the docstring, word by word"
    if isinstance(yours, Tensor) and isinstance(wanted, Tensor):
        shows = "another shape or dtype: see the docstring, and torch.zeros_like(x)"
        if yours.shape == wanted.shape and yours.dtype == wanted.dtype:
            largest = (yours - wanted).abs().max()
            shows = f"the shape is right, the values are not, by up to {largest:.3g}"
    return f"{name}: {say(yours)}; expected: {say(wanted)}", shows


def explain_error(error: BaseException, path: Path) -> tuple[str, str]:
    """An exception, told by the learner's own line where there is one."""
    if isinstance(error, Mistake):
        return tuple(map(short, error.args))
    said, where = str(error) or "an exception without a message", "the check"
    if isinstance(error, SyntaxError):
        line = f"line {error.lineno} of " if error.lineno else ""
        said, where = error.msg, f"{line}{path.name}: {(error.text or '').strip()}"
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename) == path:
            where = f"line {frame.lineno} of {path.name}: {frame.line}"
    if isinstance(error, SystemExit):
        said = "your code ends the whole program: leave exit() out"
    if "modified by an inplace operation" in said:
        said = "backward needs a tensor that was changed in place (+=): make a new one"
    if "leaf Variable that requires grad is being used in an in-place" in said:
        said = ("a weight that learns cannot be changed in place while gradients are"
                " recorded: use nn.init.zeros_ or such, or with torch.no_grad():")
    first = said.splitlines()[0]
    return short(f"{type(error).__name__} in {where}"), short(first)


def diagnose(exercise: Exercise, yours: Observed, first: str, seed: int) -> str | None:
    """The mistake of which the same is seen, if only up to the first difference."""
    names = list(yours)
    for seen in names, names[: names.index(first) + 1] if first in names else names:
        for words in exercise.mistakes:
            same = known(exercise.id, seed, words)
            if all(name in same and equal(yours[name], same[name]) for name in seen):
                return words
    return None


def failed(exercise: Exercise, found: str, shows: str, head: str = "not yet") -> str:
    """What it gave, which misconception that shows, the paper, what to do next."""
    return (f"{head}\n   it gave:    {found}\n   that shows: {shows}\n   paper:      "
            f"{exercise.paper}\n   next:       {COMMAND} hint {exercise.id}")


def not_begun(exercise: Exercise, found: str = "the stub") -> str:
    """What is to be done; of a bug hunt what is seen, and nothing of the cause."""
    seen = exercise.task.removeprefix("Bug hunt: ").rstrip(".")
    todo = f"{seen}: find out why" if exercise.bugs else f"write {exercise.name}"
    return failed(exercise, found, f"nothing yet; {todo}", "not begun")


def mark(said: str) -> int | None:
    """1 if check says that it passed, 0 if not yet, None if it is not begun."""
    return None if said.startswith("not begun") else int(said.startswith("passed"))


def untouched(exercise: Exercise, path: Path) -> bool:
    """Whether the code in the file, comments aside, is still that of the stub."""
    own, stub = ([ast.dump(node) for node in ast.parse(text).body
                  if getattr(node, "name", "") == exercise.name]
                 for text in (path.read_bytes(), exercise.stub()))
    return own[-1:] == stub


def check(exercise: Exercise, answers: Path, seed: int = 0) -> str:
    """Check one answer in this process; ``mark`` reads what comes of it."""
    path = answers / exercise.file
    if not path.exists():
        return not_begun(exercise, f"no file {path}; {COMMAND} makes it")
    try:
        answer = getattr(load(path), exercise.name, None)
        if answer is None:
            raise Mistake(f"no {exercise.name} in {path.name}", "keep the name it has")
        yours = observe(exercise, answer, seed)
    except (Exception, SystemExit) as error:
        yours = {"raised": error}
    error, wanted = yours.get("raised"), known(exercise.id, seed)
    differ = [name for name in wanted if not equal(yours.get(name), wanted[name])]
    first = next((name for name in differ if name not in exercise.remarks), None)
    if first is None:
        remarks = [exercise.remarks[name] for name in differ]
        return "; a remark: ".join(["passed", *remarks])
    stub = isinstance(error, NotImplementedError) and str(error) == "write me"
    if stub or not error and untouched(exercise, path):
        return not_begun(exercise)
    found, shows = (explain_error(error, path) if error else
                    compare(first, yours.get(first), wanted[first]))
    return failed(exercise, found, diagnose(exercise, yours, first, seed) or shows)


def verdicts(ids: Iterable[str], answers: Path, seed: int = 0, quiet: bool = False,
             seconds: int | None = None) -> Iterator[tuple[str, str]]:
    """Each (id, what check says), from a process that an answer may hang, fill or end.

    It works in a scratch folder; with ``quiet`` nobody sees what answers print.
    """
    seconds = seconds or SECONDS
    ids, paths = list(ids), os.pathsep.join(map(str, HERE.parents[:2]))
    while ids:
        words = ["-m", "exercises.checking", answers.resolve(), seed, seconds, *ids]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            results = Path(scratch) / "results"  # a pipe could be held open for ever
            with open(results, "wb") as file:
                process = subprocess.Popen(
                    [sys.executable, *map(str, words)], stdin=subprocess.DEVNULL,
                    stdout=file, stderr=subprocess.DEVNULL if quiet else None,
                    cwd=scratch, env={**os.environ, "PYTHONPATH": paths},
                    start_new_session=True)
            stack = ""
            try:
                for line in lines_of(results, process, seconds + 15):
                    if line.startswith('"') and ids:
                        yield ids.pop(0), json.loads(line)
                    else:
                        stack += line
            except KeyboardInterrupt:
                now = f"interrupted while {ids[0]} was checked"
                raise KeyboardInterrupt(now) from None
            finally:
                kill(process)
        if ids:  # it ended before its time; go on behind the exercise that did it
            exercise = EXERCISES[ids.pop(0)]
            yield exercise.id, stopped(exercise, answers, stack, seconds)


def lines_of(results: Path, process: subprocess.Popen,
             patience: float) -> Iterator[str]:
    """The lines that a process writes to a file, until it ends or is silent long."""
    heard, rest = time.monotonic(), ""
    with open(results, encoding="utf-8", errors="replace") as file:
        while True:
            ended = process.poll() is not None  # asked first, so that nothing is missed
            *lines, rest = (rest + file.read()).split("\n")
            for line in lines:
                heard = time.monotonic()
                yield f"{line}\n"
            if ended or time.monotonic() - heard > patience:
                return
            time.sleep(0.02)


def kill(process: subprocess.Popen) -> None:
    """End a process and, where the system has groups of them, what it started."""
    with suppress(OSError, AttributeError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def stopped(exercise: Exercise, answers: Path, stack: str, seconds: int) -> str:
    """An answer that ended the process, or did not come to an end."""
    if "Timeout" not in stack:
        return failed(exercise, "the program ended, or hung for good",
                      "leave os._exit() and such out; or it asked for too much memory")
    own = str((answers / exercise.file).resolve())  # the exercise has the same name
    lines = [line.strip() for line in stack.splitlines() if own in line]
    if not lines:
        return failed(exercise, f"no end after {seconds} seconds, outside of your code",
                      f"most likely a busy machine; once it is quiet: {COMMAND} check"
                      f" {exercise.id}")
    return failed(exercise, f"no end after {seconds} seconds: {lines[0]}",
                  "a loop there never ends, or there is far too much to do")


def work(answers: str, seed: str, seconds: str, *ids: str) -> None:
    """Print each verdict as a line of JSON; where time is up, the stack, and end."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what answers print is no result
    set_limits()
    torch.set_num_threads(1)  # two that wait for one core are slower than one
    for id in ids:
        faulthandler.dump_traceback_later(int(seconds), exit=True, file=results)
        said = check(EXERCISES[id], Path(answers), int(seed))
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(said), file=results, flush=True)


def set_limits() -> None:
    """At most MEMORY bytes of data and FILE bytes a file, where the system can."""
    with suppress(ImportError, ValueError, OSError):  # Windows has none
        import resource
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))


def use_mine(answers: Path = ANSWERS) -> list[str]:
    """Put every answer that passes without a remark in place; returns what to print."""
    if not answers.is_dir():
        raise Problem(f"{answers} is no folder; give --mine the one with your answers")
    said = dict(verdicts(EXERCISES, answers))
    mine = [EXERCISES[id] for id in said if said[id] == "passed"]
    modules = {name: load(answers / name) for name in {e.file for e in mine}}
    for exercise in sorted(mine, key=lambda e: e.solution.count(".")):  # classes first
        replace(exercise, getattr(modules[exercise.file], exercise.name))
    yours = ", ".join(f"{exercise.id} {exercise.name}" for exercise in mine)
    others = ", ".join(id for id, words in said.items() if words != "passed")
    return [f"--mine: yours are {yours or 'none yet'}",
            f"        the package's (not passed, or with a remark): {others or 'none'}"]


def replace(exercise: Exercise, yours: Any) -> None:
    """Give the solution's name another meaning, wherever it was imported to."""
    owner, solution = exercise.find()
    if inspect.isclass(owner):
        setattr(owner, exercise.solution.split(".")[-1], yours)
        return
    for name, module in list(sys.modules.items()):
        if name == "__main__" or name.startswith(OURS):
            for key, value in list(vars(module).items()):
                if value is solution:
                    setattr(module, key, yours)


if __name__ == "__main__":
    work(*sys.argv[1:])
