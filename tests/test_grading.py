"""A class is graded: each student as if alone, whatever another one's answers do."""

import csv
import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "lessons"))

from exercises import classroom  # noqa: E402
from exercises.__main__ import main  # noqa: E402
from exercises.checking import EXERCISES, copy_stubs, verdicts  # noqa: E402
from minicontrolnet import Problem  # noqa: E402

SOME = {id: EXERCISES[id] for id in ("01a", "01b", "03a", "07a")}
HOSTILE = {"exit": "import os; os._exit(0)", "memory": "x = bytearray(40 << 30)",
           "delete": "import shutil, pathlib; shutil.rmtree(pathlib.Path(__file__).parents[1] / 'good', True)",
           "holds on": "import os, time\nif os.fork() == 0:\n    os.setsid(); time.sleep(60)\nos._exit(1)"}


@pytest.fixture
def students(tmp_path, monkeypatch):
    """A class of one who has all right, one who has nothing, and four hostile ones."""
    monkeypatch.setattr(classroom, "EXERCISES", SOME)
    for name in ("good", "new", *HOSTILE):
        folder = tmp_path / "class" / name
        folder.mkdir(parents=True)
        copy_stubs(folder)
        if name == "new":
            continue
        for exercise in SOME.values():
            path = folder / exercise.file
            path.write_text(path.read_text().replace(exercise.stub().split("\n", 1)[1], exercise.source()))
        path = folder / EXERCISES["03a"].file
        path.write_text(HOSTILE.get(name, "") + "\n" + path.read_text())
    (tmp_path / "class" / "readme.txt").write_text("no student")
    return tmp_path


@pytest.mark.skipif(os.name == "nt", reason="no fork, no memory limit")
def test_a_class_is_graded_as_each_student_alone(students, capsys):
    """Marks, a page for each; who ends, fills or hangs on harms 03a of his own alone."""
    main(["grade", "--class", str(students / "class"), "--csv", str(students / "marks.csv"),
          "--feedback", str(students / "pages"), "--seed", "5"])
    with open(students / "marks.csv", newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"good", "new", *HOSTILE}
    assert rows["good"]["passed"] == "4" and rows["new"]["passed"] == "0"
    for name in ("exit", "memory", "holds on"):
        assert [rows[name][id] for id in SOME] == ["1", "1", "0", "1"], name
    alone = dict(verdicts(SOME, students / "class" / "good", 5))
    page = (students / "pages" / "good.md").read_text()
    assert "4 of 4 passed (seed 5)" in page and all(f"## {id} " in page for id in alone)
    assert {id: rows["good"][id] for id in alone} == dict.fromkeys(alone, "1")
    assert "the program ended" in (students / "pages" / "exit.md").read_text()


def test_what_is_no_class_is_told(tmp_path):
    """No folder, no student in it, none with answers."""
    with pytest.raises(Problem, match="is no folder"):
        classroom.read_class(tmp_path / "none")
    with pytest.raises(Problem, match="no folder in"):
        classroom.read_class(tmp_path)
    (tmp_path / "one").mkdir()
    with pytest.raises(Problem, match="no folder in"):
        classroom.read_class(tmp_path)


def test_a_file_that_is_none_or_huge_is_left_out(tmp_path):
    """A folder in its place, a link to a device, a megabyte too many."""
    names = [path.name for path in classroom.FILES]
    (tmp_path / names[0]).mkdir()
    (tmp_path / names[1]).write_bytes(b" " * (classroom.LARGEST + 1))
    (tmp_path / names[2]).write_bytes(b"x = 1")
    assert classroom.read_answers(tmp_path) == {names[2]: b"x = 1"}
