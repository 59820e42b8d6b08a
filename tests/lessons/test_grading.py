"""A class is graded: each student as if alone, whatever another one's answers do."""

import csv
import json
import os
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "lessons"))

from exercises import classroom  # noqa: E402
from exercises.__main__ import main  # noqa: E402
from exercises.checking import EXERCISES, copy_stubs, verdicts  # noqa: E402
from minicontrolnet import Problem  # noqa: E402

SOME = {id: EXERCISES[id] for id in ("01a", "01b", "03a", "07a")}
HOSTILE = {"exit": "import os; os._exit(0)", "memory": "x = bytearray(40 << 30)",
           "delete": "import shutil, pathlib; shutil.rmtree(pathlib.Path(__file__).parents[1] / 'good', True)",
           "holds on": "import os, time\nif os.fork() == 0:\n    os.setsid(); time.sleep(60)\nos._exit(1)"}


@pytest.fixture
def students(tmp_path):
    """A class of one who has all right, one who has nothing, and four hostile ones."""
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
          "--feedback", str(students / "pages"), "--seed", "5", "--only", *SOME])
    with open(students / "marks.csv", newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"good", "new", *HOSTILE}
    assert rows["good"]["passed"] == "4" and rows["new"]["passed"] == "0"
    assert list(rows["good"]) == ["student", "passed", *SOME, "points"]
    assert [rows["new"][id] for id in SOME] == [""] * 4, "not begun is not wrong"
    for name in ("exit", "memory", "holds on"):
        assert [rows[name][id] for id in SOME] == ["1", "1", "0", "1"], name
    alone = dict(verdicts(SOME, students / "class" / "good", 5))
    page = (students / "pages" / "good.md").read_text()
    assert "4 of 4 passed (seed 5)" in page and re.findall("## (...) ", page) == list(alone)
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


def test_a_student_alone_is_graded_in_some_exercises(students, capsys):
    """In the order of the exercises, each once; a word that is none is told in one sentence."""
    folder, marks = str(students / "class" / "new"), students / "marks.json"
    main(["grade", folder, "--only", "05A", "03a", "05a", "--json", str(marks)])
    said = capsys.readouterr().out
    assert said == "03a  not begun\n05a  not begun\n0 of 2 passed (seed 0)\n"
    assert list(json.loads(marks.read_text())["exercises"]) == ["03a", "05a"]
    for words in ([folder], ["--class", str(students / "class")]):
        with pytest.raises(SystemExit):
            main(["grade", *words, "--only", "03a", "99z"])
        assert "error: '99z' is no exercise; there are 01a, " in capsys.readouterr().err


def test_points_are_those_of_the_teachers_page(tmp_path):
    """One an exercise, two for those that it names, and their sum."""
    page = (Path(classroom.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    rule = re.search(r"one point an exercise, two for (.+?) \((\d+) points\)", page, re.S)
    twice = re.findall(r"\d\d[a-d]", rule[1])
    assert len(twice) == 3 and [id for id in EXERCISES if classroom.points([id]) == 2] == twice
    assert classroom.points(EXERCISES) == int(rule[2]) == len(EXERCISES) + len(twice)
    rows = {"b": {"03a": 1, "05a": 1, "06c": 0}, "a": {"03a": 0, "05a": None, "06c": 1}}
    classroom.write_marks(tmp_path / "marks.csv", rows)
    assert (tmp_path / "marks.csv").read_text().splitlines() == [
        "student,passed,03a,05a,06c,points", "a,1,0,,1,2", "b,2,1,1,0,3"]
