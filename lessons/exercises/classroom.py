"""Grade a class: a folder that holds a folder of answers for each student.

All answers are read before the first one runs. Each student's run in a process of their
own, in a scratch folder, with limits on time, memory and the size of files: what one
does harms no other's mark. It is no sandbox: an answer has the rights of who runs it.
"""

import csv
import io
import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from exercises.checking import EXERCISES, FILES, mark, verdicts
from minicontrolnet.errors import Problem
from minicontrolnet.run.files import write_file

SECONDS = 20  # that one exercise may take; a right answer takes about one
LARGEST = 1 << 20  # bytes of a file of answers
POINTS = {"02b": 2, "05a": 2, "06c": 2}  # all others 1: "Marks" in lessons/README.md
Answers = dict[str, bytes]  # the files of a student, by their names
Marks = dict[str, int | None]  # by exercise, see ``mark``


def points(passed: Iterable[str]) -> int:
    """What the exercises that a student has passed are worth together."""
    return sum(POINTS.get(id, 1) for id in passed)


def read_class(folder: Path) -> dict[str, Answers]:
    """The answers of each student, by folder; raises Problem if none has any."""
    if not folder.is_dir():
        raise Problem(f"{folder} is no folder; give --class the folder of the class")
    students = {path.name: read_answers(path) for path in sorted(folder.iterdir())
                if path.is_dir() and not path.name.startswith(".")}
    if not any(students.values()):
        raise Problem(f"no folder in {folder} holds {FILES[0].name} and so on; give"
                      " --class the folder that holds a folder for each student")
    return students


def read_answers(folder: Path) -> Answers:
    """The files of a student; what is missing, huge or no plain file is left out."""
    paths = [folder / path.name for path in FILES]
    return {path.name: path.read_bytes() for path in paths
            if path.is_file() and path.stat().st_size <= LARGEST}


def grade_one(answers: Answers, seed: int, ids: list[str]) -> dict[str, str]:
    """What check says of these exercises of one student."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for name, content in answers.items():
            (Path(folder) / name).write_bytes(content)
        return dict(verdicts(ids, Path(folder), seed, quiet=True, seconds=SECONDS))


def grade_class(folder: Path, marks: Path | None, feedback: Path | None,
                seed: int, ids: list[str]) -> None:
    """Grade students, as many at a time as there are cores; marks come one by one."""
    students, rows = read_class(folder), {}
    pool = ThreadPoolExecutor(os.cpu_count())
    begun = {pool.submit(grade_one, answers, seed, ids): name
             for name, answers in students.items()}
    try:
        for done in as_completed(begun):
            name, said = begun[done], done.result()
            rows[name] = {id: mark(words) for id, words in said.items()}
            passed = sum(map(bool, rows[name].values()))
            result = f"{name}: {passed} of {len(said)} passed"
            print(result, flush=True)
            if feedback:
                write_feedback(feedback / f"{name}.md", f"{result} (seed {seed})", said)
            if marks:
                write_marks(marks, rows)
    finally:
        pool.shutdown(cancel_futures=True)


def write_marks(path: Path, rows: dict[str, Marks]) -> None:
    """A row for each student so far; what is not begun has an empty cell."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["student", "passed", *next(iter(rows.values())), "points"])
    for name, own in sorted(rows.items()):
        passed = [id for id in own if own[id]]
        table.writerow([name, len(passed), *own.values(), points(passed)])
    write_file(path, text.getvalue().encode())


def write_feedback(path: Path, result: str, said: dict[str, str]) -> None:
    """One page for a student: what check says of each exercise."""
    parts = [f"# {result}"]
    parts += [f"## {id} {EXERCISES[id].task}\n\n    " + words.replace("\n", "\n    ")
              for id, words in said.items()]
    write_file(path, ("\n\n".join(parts) + "\n").encode(errors="replace"))
