"""Grade other people's answers: one folder, or a class with a folder of answers for each student.

Every folder is checked by a process of its own, in a scratch folder. There are limits on time, memory
and the size of files, so one student's answers cannot harm another's mark. We read all answers of a
class before the first of them runs. This is not a sandbox: an answer has the rights of the person who runs it.
"""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

import torch

from exercises.checking import EXERCISES, FILES, HERE, SECONDS, check, failed, mark, not_begun, out_of_time
from exercises.probing import Exercise
from minicontrolnet.errors import Problem
from minicontrolnet.run.files import write_and_keep, write_file

SECONDS_IN_CLASS = 20  # the time limit of one exercise; a right answer takes about one
AT_ONCE = min(4, os.cpu_count() or 1)  # students that are checked at the same time
LARGEST = 1 << 20  # bytes of a file of answers
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
MEMORY = 4 << 30  # bytes that answers may use
FILE = 100 << 20  # bytes of a file that they may write
POINTS = {"02b": 2, "05a": 2, "06c": 2, "13b": 2, "13c": 2}  # all others 1: see "Marks" in lessons/TEACHING.md


# %% One folder, checked by a process that an answer may end or fill


def verdicts(ids: Iterable[str], answers: Path, seed: int = 0, quiet: bool = False,
             seconds: int = SECONDS) -> dict[str, str]:
    """The message for each exercise. With ``quiet`` nobody sees what the answers print."""
    ids = list(ids)
    messages = {}
    while ids:
        *lines, rest = run_worker(ids, answers, seed, quiet, seconds).split("\n")
        done = [json.loads(line) for line in lines if line.startswith('"')]
        messages.update(zip(ids, done))
        ids = ids[len(done):]
        if ids:  # this exercise ended the process, so we continue after it
            id = ids.pop(0)
            messages[id] = stopped(EXERCISES[id], answers, lines, seconds)
    return messages


def run_worker(ids: list[str], answers: Path, seed: int, quiet: bool, seconds: int) -> str:
    """Run ``work`` in a process. Returns the messages that it writes, or the stack where time ran out."""
    words = [sys.executable, "-m", "exercises.grading", answers.resolve(), seed, seconds, *ids]
    paths = os.pathsep.join(map(str, HERE.parents[:2]))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        results = Path(scratch) / "results"  # a file, because an answer could hold a pipe open for ever
        with open(results, "wb") as file:
            process = subprocess.Popen(
                list(map(str, words)), stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.DEVNULL if quiet else None, cwd=scratch,
                env={**os.environ, "PYTHONPATH": paths}, start_new_session=True)
        try:  # the worker itself watches the time; this long limit is for a worker that was stopped
            process.wait(timeout=600 + len(ids) * (seconds + 10))
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(OSError, AttributeError):  # the process may have started others
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
        return results.read_text(encoding="utf-8", errors="replace")


def work(answers: str, seed: str, seconds: str, *ids: str) -> None:
    """Check answers in this process and print each message as a line of JSON."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the answers print is not a result
    with suppress(ImportError, ValueError, OSError):  # Windows has no such limits
        import resource
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
    torch.set_num_threads(1)  # two threads that wait for one core are slower than one
    for id in ids:
        message = check(EXERCISES[id], Path(answers), int(seed), int(seconds), log=results)
        print(json.dumps(message), file=results, flush=True)


def stopped(exercise: Exercise, answers: Path, stack: list[str], seconds: int) -> str:
    """The message for an answer that ended the process, or for a call that did not come back in time."""
    if not any("Timeout" in line for line in stack):
        return failed(exercise, "The program ended.",
                      "Remove os._exit() and the like. Or does your code use too much memory?")
    own = str((answers / exercise.file).resolve())  # the exercise's own file has the same name
    lines = [line.strip() for line in stack if own in line]
    where = lines[0] if lines else "the check"
    return failed(exercise, f"no result after {seconds} seconds, in {where}", out_of_time(not lines))


# %% A class


def read_class(folder: Path) -> dict[str, dict[str, bytes]]:
    """The files of each student, by the names of their folders. Raises Problem if there are none."""
    if not folder.is_dir():
        raise Problem(f"{folder} is not a folder; give --class the folder of the class")
    students = {path.name: read_answers(path) for path in sorted(folder.iterdir()) if is_student(path)}
    if not any(path.name in files for files in students.values() for path in FILES):
        raise Problem(f"no folder in {folder} contains {FILES[0].name} and so on; give --class the folder that"
                      f" contains a folder for each student{hint_at_names(folder)}")
    return students


def is_student(path: Path) -> bool:
    """Whether this is the folder of a student."""
    return path.is_dir() and not path.name.startswith(".")


def read_answers(folder: Path) -> dict[str, bytes]:
    """The files in a student's folder, by name: the answers, and data that they may read.

    Files that are hidden, huge or not plain are left out.
    """
    paths = [path for path in sorted(folder.iterdir()) if is_small_file(path) and not path.name.startswith(".")]
    return {path.name: path.read_bytes() for path in paths}


def is_small_file(path: Path) -> bool:
    """Whether this is a plain file that is not huge."""
    return path.is_file() and path.stat().st_size <= LARGEST


def missing_files(folder: Path) -> dict[str, str]:
    """The files that a student did not hand in, with a sentence about each. It names what lies in another place."""
    below = files_below(folder)
    packed = [path.name for path in below if path.name.lower().endswith(ARCHIVES)]
    missing = {}
    for name in (path.name for path in FILES):
        if is_small_file(folder / name):
            continue
        near = [str(path.relative_to(folder)) for path in below if path.name.lower() == name]
        similar = [str(path.relative_to(folder)) for path in below if looks_like(path, name)]
        if name in near:
            found = f"{name} is not a plain file, or is larger than 1 MiB."
        elif near or similar:
            names = near[:1] or similar
            it = "it" if len(names) == 1 else "the right one"
            found = (f"There is no {name} in {folder.name}. We found {', '.join(names)}: put {it} into the folder"
                     f" itself, as {name}.")
            if any(other.endswith(".ipynb") for other in names):
                found += " Save the code of a notebook as a Python file."
        elif packed:
            found = f"There is no {name} in {folder.name}. We found {packed[0]}: unpack it in the folder itself."
        else:
            found = f"There is no {name} in {folder.name}."
        missing[name] = as_line(found)
    return missing


def files_below(folder: Path) -> list[Path]:
    """The paths in a folder and in two levels of folders below it, the nearest first."""
    return [path for pattern in ("*", "*/*", "*/*/*") for path in sorted(folder.glob(pattern))]


def looks_like(path: Path, name: str) -> bool:
    """Whether a file has another name than ``name``, but one that a browser, Moodle or a person makes of it.

    For ex03_zero_conv.py these are "ex03_zero_conv (1).py", "Jane Doe_12_file_ex03_zero_conv.py",
    "ex03_zero_conv.py.txt", "ex3.py" and the like, and its notebook.
    """
    other = path.name.lower()
    is_hidden = other.startswith(".") or "__MACOSX" in path.parts
    if path.name == name or is_hidden or not other.endswith((".py", ".py.txt", ".ipynb")) or not path.is_file():
        return False
    number = f"(?<![a-z0-9])ex(ercise)?[^a-z0-9]?0?{int(name[2:4])}(?![0-9])"
    return name[2:-3] in other or bool(re.search(number, other))


def hint_at_names(folder: Path) -> str:
    """For a folder without any answer: the end of a sentence about a file that looks like one, or ""."""
    for path in files_below(folder):
        for name in (path.name for path in FILES):
            if looks_like(path, name):
                return f"; we found {as_line(str(path.relative_to(folder)))}: an answer needs the name {name}"
    return ""


def is_told(why: str) -> bool:
    """Whether a teacher should hear of a missing file: there is something in its place, or in another one."""
    return "We found" in why or "is not a plain file" in why


def copies_of(name: str, folder: Path) -> list[str]:
    """The files in a folder that may be meant as ``name``, but have another name. Backups are none."""
    paths = [path for path in sorted(folder.glob("*")) if looks_like(path, name)]
    return [path.name for path in paths if ".backup" not in path.name]


def not_graded(folder: Path) -> list[str]:
    """A sentence for each answer of which there are copies. Backups, which "reset" makes, are none."""
    told = []
    for name in (path.name for path in FILES):
        copies = copies_of(name, folder)
        if copies and (folder / name).is_file():
            told.append(as_line(f"We graded {name}, and not {', '.join(copies)}."))
    return told


def with_missing_files(messages: dict[str, str], missing: dict[str, str]) -> dict[str, str]:
    """The messages, where those about a missing file speak of the folder that was handed in."""
    told = {}
    for id, message in messages.items():
        exercise = EXERCISES[id]
        told[id] = not_begun(exercise, missing[exercise.file]) if exercise.file in missing else message
    return told


def grade_one(files: dict[str, bytes], folder: Path, seed: int, ids: list[str], quiet: bool = True,
              seconds: int = SECONDS_IN_CLASS) -> dict[str, str]:
    """The messages for one student. The answers run in a copy of the folder, so they cannot change what is there."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        for name, content in files.items():
            (Path(scratch) / name).write_bytes(content)
        messages = verdicts(ids, Path(scratch), seed, quiet, seconds)
    return {id: message.replace(os.path.realpath(scratch), str(folder)) for id, message in messages.items()}


def grade_class(folder: Path, marks: Path | None, feedback: Path | None, seed: int, ids: list[str]) -> None:
    """Grade all students, a few at a time. The file of marks is complete after each of them."""
    students = read_class(folder)
    missing = {name: missing_files(folder / name) for name in students}
    left_out = [as_line(path.name) for path in sorted(folder.iterdir()) if not is_student(path)]
    if left_out:
        print(f"left out, since each student needs a folder: {', '.join(left_out)}")
    rows = {}
    pool = ThreadPoolExecutor(AT_ONCE)
    begun = {pool.submit(grade_one, files, folder / name, seed, ids): name for name, files in students.items()}
    try:
        for done in as_completed(begun):
            name = begun[done]
            messages = with_missing_files(done.result(), missing[name])
            rows[name] = {id: mark(message) for id, message in messages.items()}
            passed = sum(map(bool, rows[name].values()))
            print(f"{as_line(name)}: {passed} of {len(messages)} passed", flush=True)
            for file in dict.fromkeys(EXERCISES[id].file for id in messages):
                why = missing[name].get(file, "")
                if is_told(why):
                    print(f"   {why}", flush=True)
            for sentence in not_graded(folder / name):
                print(f"   {sentence}", flush=True)
            if feedback:
                title = f"{as_line(name)}: {passed} of {len(messages)} passed (seed {seed})"
                write_feedback(feedback / f"{name}.md", title, messages)
            if marks:
                write_marks(marks, rows, again=len(rows) > 1)
    finally:
        pool.shutdown(cancel_futures=True)


def points(passed: Iterable[str]) -> int:
    """The points for the exercises that a student has passed."""
    return sum(POINTS.get(id, 1) for id in passed)


def write_marks(path: Path, rows: dict[str, dict[str, int | None]], again: bool = False) -> None:
    """Write a row for each student so far. An exercise that is not begun has an empty cell.

    again: the file that is there has the rows so far, so it becomes no backup.
    """
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["student", "passed", *next(iter(rows.values())), "points"])
    for name, own in sorted(rows.items()):
        passed = [id for id in own if own[id]]
        table.writerow([as_text(name), len(passed), *own.values(), points(passed)])
    write = write_file if again else write_and_keep
    write(path, text.getvalue().encode(errors="backslashreplace"))  # a name may be in any encoding


def as_line(name: str) -> str:
    """A name on one line: a folder's name may contain line feeds and other letters that control a terminal."""
    return "".join(letter if ord(letter) >= 32 and letter != "\x7f" else repr(letter)[1:-1] for letter in name)


def as_text(name: str) -> str:
    """A name that a spreadsheet does not take for a formula: an apostrophe marks it as text."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def write_feedback(path: Path, title: str, messages: dict[str, str]) -> None:
    """Write a page for one student: the message for each exercise."""
    parts = [f"# {title}"]
    for id, message in messages.items():
        parts.append(f"## {id} {EXERCISES[id].task}\n\n    " + message.replace("\n", "\n    "))
    write_and_keep(path, ("\n\n".join(parts) + "\n").encode(errors="backslashreplace"))


if __name__ == "__main__":
    work(*sys.argv[1:])
    os._exit(0)  # at once: Python would wait for a thread that an answer has left running
