"""A class is graded: each student as if alone, whatever the answers of another one do."""

import csv
import json
import os
import re
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "lessons"))

from exercises import grading  # noqa: E402
from exercises.__main__ import main  # noqa: E402
from exercises.checking import EXERCISES, copy_stubs  # noqa: E402
from minicontrolnet import Problem  # noqa: E402

SOME = {id: EXERCISES[id] for id in ("01a", "01b", "03a", "07a")}
HOSTILE = {"exit": "import os; os._exit(0)", "memory": "x = bytearray(40 << 30)",
           "delete": "import shutil, pathlib; shutil.rmtree(pathlib.Path(__file__).parents[1] / 'good', True)",
           "holds on": "import os, time\nif os.fork() == 0:\n    os.setsid(); time.sleep(60)\nos._exit(1)"}


@pytest.fixture
def students(tmp_path):
    """A class: one student with right answers, one with none, and four hostile ones."""
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


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no fork, no memory limit")
def test_a_class_is_graded_as_each_student_alone(students, capsys):
    """There are marks and a page for each. A hostile student fails 03a, and nobody else does."""
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
    alone = grading.verdicts(SOME, students / "class" / "good", 5)
    page = (students / "pages" / "good.md").read_text()
    assert "4 of 4 passed (seed 5)" in page and re.findall("## (...) ", page) == list(alone)
    assert {id: rows["good"][id] for id in alone} == dict.fromkeys(alone, "1")
    assert "The program ended" in (students / "pages" / "exit.md").read_text()


def test_a_folder_that_is_not_a_class_is_refused(tmp_path):
    """There is no folder, or no student in it, or no student has answers."""
    with pytest.raises(Problem, match="is not a folder"):
        grading.read_class(tmp_path / "none")
    with pytest.raises(Problem, match="no folder in"):
        grading.read_class(tmp_path)
    (tmp_path / "one").mkdir()
    with pytest.raises(Problem, match="no folder in"):
        grading.read_class(tmp_path)


def test_a_file_or_a_name_in_the_place_of_a_folder_is_told(tmp_path):
    (tmp_path / "ex03_zero_conv.py").write_text("x = 1")
    for name in ("ex03_zero_conv.py", "none"):
        with pytest.raises(Problem, match=f"{name} is not a folder"):
            main(["grade", str(tmp_path / name)])


def test_things_that_are_not_files_and_huge_files_are_left_out(tmp_path):
    """A folder with the name of a file, and a file with a megabyte too much."""
    names = [path.name for path in grading.FILES]
    (tmp_path / names[0]).mkdir()
    (tmp_path / names[1]).write_bytes(b" " * (grading.LARGEST + 1))
    (tmp_path / names[2]).write_bytes(b"x = 1")
    assert grading.read_answers(tmp_path) == {names[2]: b"x = 1"}


def test_what_lies_in_another_place_is_named(tmp_path, capsys, monkeypatch):
    """Answers in a folder below, under another name or in an archive, and things beside the students' folders."""
    name = EXERCISES["03a"].file
    for place in (f"good/{name}", f"below/answers/{name}", f"large/{name.upper()}", "packed/work.zip", "late.zip",
                  ".hidden/x.py"):
        path = tmp_path / "class" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1")
    monkeypatch.setattr(grading, "grade_one", lambda files, *given: {
        "03a": "passed" if name in files else "not begun: There is no file /scratch/x"})
    grading.grade_class(tmp_path / "class", None, tmp_path / "pages", 0, ["03a"])
    said = capsys.readouterr().out
    assert said.startswith("left out, since each student needs a folder: .hidden, late.zip\n")
    pages = {path.stem: path.read_text() for path in (tmp_path / "pages").iterdir()}
    for student, found in (("below", f"answers/{name}"), ("large", name.upper()), ("packed", "work.zip")):
        told = f"There is no {name} in {student}. We found {found}:"
        assert told in said and told in pages[student] and "/scratch" not in pages[student]
        assert "not begun" in pages[student]
    assert said.count("We found") == 3 and "We found" not in pages["good"]


OTHER_NAMES = ["ex03_zero_conv (1).py", "ex03_zero_conv-2.py", "Jane Doe_12345_assignsubmission_file_ex03_zero_conv.py",
               "ex03_zero_conv.py.txt", "ex3.py", "Exercise 03 Jane.py", "03_zero_conv.py", "ex03_zero_conv.ipynb"]
NO_ANSWERS = ["ex13_clinic (1).py", "ex03 notes.pdf", "index3.py", ".ex03_zero_conv.py", "ex030.py", "ex03_zero_conv.py"]


def test_names_that_downloads_and_people_make_of_an_answers_name(tmp_path):
    for name in OTHER_NAMES + NO_ANSWERS:
        (tmp_path / name).write_text("x = 1")
        assert grading.looks_like(tmp_path / name, "ex03_zero_conv.py") == (name in OTHER_NAMES), name
    assert not grading.looks_like(tmp_path, "ex03_zero_conv.py")


def test_an_answer_under_another_name_is_named(tmp_path, capsys, monkeypatch):
    """One where the right name is missing, one beside it, and a whole class that cannot be graded so."""
    place = tmp_path / "class" / "jane"
    place.mkdir(parents=True)
    (place / "ex03_zero_conv (1).py").write_text("x = 1")
    (place / "ex03_zero_conv-2.py").write_text("x = 1")
    for words in ([str(place)], ["--class", str(tmp_path / "class")], ["--class", str(tmp_path)]):
        with pytest.raises(Problem, match=r"ex03_zero_conv( \(1\)|-2)\.py: an answer needs the name ex03_zero_conv\.py"):
            main(["grade", *words])
    copy_stubs(place)
    (place / "ex03_zero_conv.py").unlink()
    (place / "ex05_edge_control (1).py").write_text("x = 1")
    (place / "ex04_condition_encoder.backup1.py").write_text("x = 1")
    monkeypatch.setattr(grading, "run_worker", lambda ids, *_: '"not begun"\n' * len(ids))
    for words in ([str(place)], ["--class", str(tmp_path / "class")]):
        main(["grade", *words])
        said = capsys.readouterr().out
        assert "We found ex03_zero_conv (1).py, ex03_zero_conv-2.py: put the right one" in said
        assert "We graded ex05_edge_control.py, and not ex05_edge_control (1).py" in said and "backup" not in said


def test_the_marks_of_another_time_become_one_backup(tmp_path, monkeypatch, capsys):
    """The file is written after each student, and only the first time there is something to keep."""
    for name in "abc":
        copy_stubs(tmp_path / "class" / name)
    (tmp_path / "marks.csv").write_text("edited by hand")
    monkeypatch.setattr(grading, "grade_one", lambda *given: {"03a": "passed"})
    grading.grade_class(tmp_path / "class", tmp_path / "marks.csv", None, 0, ["03a"])
    assert (tmp_path / "marks.backup1.csv").read_text() == "edited by hand"
    assert len(list(tmp_path.glob("marks*"))) == 2 and capsys.readouterr().out.count("backup") == 1
    assert len((tmp_path / "marks.csv").read_text().splitlines()) == 4


@pytest.mark.slow
def test_a_student_alone_is_graded_in_some_exercises(students, capsys):
    """In the order of the exercises, each once. An unknown exercise is an error of one sentence."""
    folder, marks = str(students / "class" / "new"), students / "marks.json"
    main(["grade", folder, "--only", "05A", "03a", "05a", "--json", str(marks)])
    said = capsys.readouterr().out
    assert said == "03a  not begun\n05a  not begun\n0 of 2 passed (seed 0)\n"
    assert list(json.loads(marks.read_text())["exercises"]) == ["03a", "05a"]
    for words in ([folder], ["--class", str(students / "class")]):
        with pytest.raises(SystemExit):
            main(["grade", *words, "--only", "03a", "99z"])
        assert "error: there is no exercise '99z'; there are 01a, " in capsys.readouterr().err


def test_points_are_those_of_the_teachers_page(tmp_path):
    """One for each exercise, two for those that the page names, and their sum."""
    page = (Path(grading.__file__).parents[1] / "TEACHING.md").read_text(encoding="utf-8")
    rule = re.search(r"gives one point, and (.+?) give two", page, re.S)
    twice = re.findall(r"\d\d[a-d]", rule[1])
    assert twice and [id for id in EXERCISES if grading.points([id]) == 2] == twice
    assert grading.points(EXERCISES) == len(EXERCISES) + len(twice)
    rows = {"b": {"03a": 1, "05a": 1, "06c": 0}, "a": {"03a": 0, "05a": None, "06c": 1}}
    grading.write_marks(tmp_path / "marks.csv", rows)
    assert (tmp_path / "marks.csv").read_text().splitlines() == [
        "student,passed,03a,05a,06c,points", "a,1,0,,1,2", "b,2,1,1,0,3"]


def test_a_folder_name_in_any_encoding_gets_its_marks_and_its_page(tmp_path):
    """Its bytes need not be UTF-8. The files stay readable as UTF-8 all the same."""
    name = os.fsdecode(b"caf\xe9")
    grading.write_marks(tmp_path / "marks.csv", {name: {"03a": 1}, "good": {"03a": 0}})
    assert "caf\\udce9,1,1,1" in (tmp_path / "marks.csv").read_text(encoding="utf-8").splitlines()
    grading.write_feedback(tmp_path / f"{name}.md", name, {"03a": "not yet: \ud800"})
    assert "\\ud800" in (tmp_path / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.skipif(os.name == "nt", reason="names there have no such letters")
def test_a_line_feed_in_a_folder_name_breaks_no_line(tmp_path, capsys, monkeypatch):
    """One line in the terminal, one heading, and one row of marks that reads as the folder's name."""
    name = "a\n# b\x1b[2J"
    copy_stubs(tmp_path / "class" / name)
    monkeypatch.setattr(grading, "grade_one", lambda *given: {"03a": "passed"})
    grading.grade_class(tmp_path / "class", tmp_path / "marks.csv", tmp_path / "pages", 0, ["03a"])
    assert capsys.readouterr().out == "a\\n# b\\x1b[2J: 1 of 1 passed\n"
    (page,) = (tmp_path / "pages").iterdir()
    assert page.read_text(encoding="utf-8").splitlines()[0] == "# a\\n# b\\x1b[2J: 1 of 1 passed (seed 0)"
    with open(tmp_path / "marks.csv", newline="", encoding="utf-8") as file:
        assert [row["student"] for row in csv.DictReader(file)] == [name]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="names there are always Unicode")
def test_a_class_with_a_folder_name_in_latin_1_is_graded_to_its_end(tmp_path, capsys):
    for name in (os.fsdecode(b"caf\xe9"), "zoe"):
        copy_stubs(tmp_path / "class" / name)
    main(["grade", "--class", str(tmp_path / "class"), "--csv", str(tmp_path / "marks.csv"),
          "--feedback", str(tmp_path / "pages"), "--only", "03a"])
    assert len((tmp_path / "marks.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert len(list((tmp_path / "pages").iterdir())) == 2


@pytest.mark.slow
def test_a_slow_start_of_python_costs_no_answer_its_time(tmp_path, monkeypatch):
    """The time limit of an answer begins when its check begins."""
    copy_stubs(tmp_path / "answers")
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(4)\n")
    monkeypatch.setattr(grading.os, "pathsep", f"{os.pathsep}{tmp_path}{os.pathsep}")
    messages = grading.verdicts(["03a"], tmp_path / "answers", seconds=2)
    assert messages["03a"].startswith("not begun")


def test_answers_that_stop_for_a_person_are_told_in_words(tmp_path):
    """They debug, ask, or end the program. Nobody types anything while they are graded."""
    stops = {"01a": "breakpoint()", "03a": "input('how many? ')", "05a": "import pdb; pdb.set_trace()", "07a": "quit()"}
    says = {"01a": "Your code stops at a breakpoint()", "03a": "Remove the input()",
            "05a": "Your code stops at a breakpoint()", "07a": "Your code ends the whole program"}
    copy_stubs(tmp_path)
    for id, line in stops.items():
        path = tmp_path / EXERCISES[id].file
        path.write_text(f"{line}\n{path.read_text()}")
    messages = grading.verdicts(stops, tmp_path, quiet=True)
    for id, sentence in says.items():
        assert sentence in messages[id] and messages[id].startswith("not yet"), id


def test_a_thread_that_an_answer_leaves_running_does_not_hold_up_the_grading(tmp_path):
    copy_stubs(tmp_path)
    path = tmp_path / EXERCISES["03a"].file
    path.write_text("import threading, time\nthreading.Thread(target=time.sleep, args=[600]).start()\n" + path.read_text())
    begun = time.monotonic()
    assert set(grading.verdicts(["03a"], tmp_path)) == {"03a"}
    assert time.monotonic() - begun < 300


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1", "@SUM(1)", "\tx"])
def test_a_folder_name_is_no_formula_for_a_spreadsheet(name, tmp_path):
    """An apostrophe before it marks it as text; other names stay as they are."""
    grading.write_marks(tmp_path / "marks.csv", {name: {"03a": 1}, "a=b": {"03a": 0}})
    with open(tmp_path / "marks.csv", newline="", encoding="utf-8") as file:
        students = {row["student"]: row["passed"] for row in csv.DictReader(file)}
    assert students == {f"'{name}": "1", "a=b": "0"}


WRITES = """
import pathlib
beside = pathlib.Path(__file__).parent
(beside / "cache.txt").write_text("x")
(beside / "ex03_zero_conv.py").write_text("raise RuntimeError('gone')")
"""


@pytest.mark.slow
def test_answers_that_write_beside_themselves_change_nothing_there(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "ex03_zero_conv.py").write_text("x = 1")
    (folder / "ex01_ddpm.py").write_text(WRITES)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    main(["grade", str(folder), "--only", "01a", "03a"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_answers_may_read_data_that_lies_beside_them(tmp_path, capsys):
    """So one folder, and a class, give the same marks. Messages name the student's own folder."""
    student = tmp_path / "class" / "ada"
    student.mkdir(parents=True)
    (student / "mine.txt").write_text(EXERCISES["03a"].source().replace(EXERCISES["03a"].solution, "zero_conv"))
    (student / "ex03_zero_conv.py").write_text(
        "import pathlib\nfrom torch import nn\nfrom minicontrolnet.errors import check_count\n"
        'exec((pathlib.Path(__file__).parent / "mine.txt").read_text())\n'
        "def zero_conv_gradients(*arguments):\n    raise FileNotFoundError(__file__)\n")
    main(["grade", str(student), "--only", "03a", "03b"])
    assert "03a  passed" in capsys.readouterr().out
    main(["grade", "--class", str(tmp_path / "class"), "--feedback", str(tmp_path / "pages"), "--only", "03a", "03b"])
    assert "ada: 1 of 2 passed" in capsys.readouterr().out
    assert str(student) in (tmp_path / "pages" / "ada.md").read_text()


def test_a_damaged_record_of_progress_is_kept_and_told(tmp_path, capsys):
    (tmp_path / "progress.json").write_text('{"pass')
    main(["--answers", str(tmp_path)])
    assert "your progress begins anew" in capsys.readouterr().out
    assert (tmp_path / "progress.backup1.json").read_text() == '{"pass'


def test_an_answer_under_another_name_is_told_by_check(tmp_path, capsys):
    (tmp_path / "ex03_zero_conv (1).py").write_text("x = 1")
    with pytest.raises(SystemExit):
        main(["check", "03a", "--answers", str(tmp_path)])
    assert "there is also ex03_zero_conv (1).py" in capsys.readouterr().out
