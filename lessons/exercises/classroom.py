"""Grade a class: a folder that holds a folder of answers for each student.

All answers are read before the first one runs. Each student's run in a process of their
own, in a scratch folder, with limits on time, memory and the size of files: what one
does harms no other's mark. It is no sandbox: an answer has the rights of who runs it.
"""

import csv
import io
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from exercises.checking import EXERCISES, FILES, verdicts
from minicontrolnet.files import Problem, write_atomically

SECONDS = 20  # that one exercise may take; a right answer takes about one
LARGEST = 1 << 20  # bytes of a file of answers
Answers = dict[str, bytes]  # the files of a student, by their names


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


def grade_one(answers: Answers, seed: int) -> dict[str, str]:
    """What check says of each exercise of one student."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for name, content in answers.items():
            (Path(folder) / name).write_bytes(content)
        return dict(verdicts(EXERCISES, Path(folder), seed, quiet=True,
                             seconds=SECONDS))


def grade_class(folder: Path, marks: Path | None, feedback: Path | None,
                seed: int) -> None:
    """Grade students, as many at a time as there are cores; marks come one by one."""
    students, rows = read_class(folder), {}
    pool = ThreadPoolExecutor(os.cpu_count())
    begun = {pool.submit(grade_one, answers, seed): name
             for name, answers in students.items()}
    try:
        for done in as_completed(begun):
            name, said = begun[done], done.result()
            rows[name] = {id: int(words.startswith("passed"))
                          for id, words in said.items()}
            result = f"{name}: {sum(rows[name].values())} of {len(said)} passed"
            print(result, flush=True)
            if feedback:
                write_feedback(feedback / f"{name}.md", f"{result} (seed {seed})", said)
            if marks:
                write_marks(marks, rows)
    finally:
        pool.shutdown(cancel_futures=True)


def write_marks(path: Path, rows: dict[str, dict[str, int]]) -> None:
    """A row for each student so far: name, sum, and 1 or 0 for each exercise."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["student", "passed", *EXERCISES])
    for name, own in sorted(rows.items()):
        table.writerow([name, sum(own.values()), *own.values()])
    with write_atomically(path) as file:
        file.write(text.getvalue().encode())


def write_feedback(path: Path, result: str, said: dict[str, str]) -> None:
    """One page for a student: what check says of each exercise."""
    parts = [f"# {result}"]
    parts += [f"## {id} {EXERCISES[id].task}\n\n    " + words.replace("\n", "\n    ")
              for id, words in said.items()]
    with write_atomically(path) as file:
        file.write(("\n\n".join(parts) + "\n").encode(errors="replace"))
