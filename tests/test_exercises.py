"""Every exercise proves itself: stubs fail, references pass, wrong answers are told what they show."""

import ast
import inspect
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "lessons"))

from exercises import checking  # noqa: E402
from exercises.__main__ import main  # noqa: E402
from exercises.catalogue import EXERCISES  # noqa: E402

every_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
CORE = ("03_zero_conv", "05_edge_control", "06_cfg_weighting", "07_multi_control")


def stub_node(exercise):
    tree = ast.parse(checking.stub_of(exercise).read_text())
    return next(node for node in tree.body if getattr(node, "name", "") == exercise.name)


def source_of_reference(exercise):
    """The reference's source as the learner would have written it: flat, under the stub's name."""
    reference = checking.reference_of(exercise)[2]
    source = textwrap.dedent(inspect.getsource(reference))
    return source.replace(f"def {reference.__name__}(", f"def {exercise.name}(", 1)


def write_references(answers):
    """A folder of answers in which every stub's body is the reference's source."""
    checking.copy_stubs(answers)
    for path in answers.glob("ex*.py"):
        text = path.read_text()
        for exercise in [e for e in EXERCISES if checking.stub_of(e).name == path.name]:
            stub = ast.get_source_segment(text, stub_node_in(text, exercise.name))
            text = text.replace(stub, source_of_reference(exercise).rstrip())
        module = sys.modules[checking.reference_of(exercise)[2].__module__]
        names = f"from {module.__name__} import *\n"
        path.write_text(names + text)


def stub_node_in(text, name):
    return next(node for node in ast.parse(text).body if getattr(node, "name", "") == name)


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    folder = tmp_path_factory.mktemp("references")
    write_references(folder)
    return folder


def test_ids_are_one_to_four_a_lesson_and_in_order():
    """14 to 18 in all; ids are the lesson's number and a letter."""
    ids = [exercise.id for exercise in EXERCISES]
    assert ids == sorted(set(ids)) and 14 <= len(ids) <= 18
    assert all(re.fullmatch(r"0[1-7][a-d]", id) for id in ids)
    assert all(checking.lesson_of(exercise).exists() for exercise in EXERCISES)


@every_exercise
def test_stub_fails_as_shipped(exercise, tmp_path):
    checking.copy_stubs(tmp_path)
    verdict = checking.check(exercise, tmp_path)
    assert not verdict.passed and f"hint {exercise.id}" in verdict.message


@every_exercise
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reference_passes(exercise, seed, references):
    verdict = checking.check(exercise, references, seed)
    assert verdict.passed, verdict.message


@every_exercise
def test_wrong_answers_fail_each_with_its_own_words(exercise, tmp_path, monkeypatch):
    """At least two; the message says what the learner got, the misconception, the paper, the next command."""
    assert len(exercise.wrongs) >= 2 and len({wrong.words for wrong in exercise.wrongs}) == len(exercise.wrongs)
    checking.copy_stubs(tmp_path)
    for wrong in exercise.wrongs:
        module = type(sys)("answers")
        setattr(module, exercise.name, wrong.answer)
        monkeypatch.setattr(checking, "load", lambda path: module)
        for seed in (0, 3):
            verdict = checking.check(exercise, tmp_path, seed)
            assert not verdict.passed and wrong.words in verdict.message, verdict.message
            order = [verdict.message.index(part) for part in ("it gave", "that shows", exercise.paper, "next:")]
            assert order == sorted(order)


@every_exercise
def test_stub_and_reference_agree_in_signature_and_docstring(exercise):
    stub, reference = stub_node(exercise), ast.parse(source_of_reference(exercise)).body[0]
    assert ast.get_docstring(stub) == ast.get_docstring(reference) is not None
    if isinstance(stub, ast.ClassDef):
        stub, reference = (next(n for n in node.body if getattr(n, "name", "") == "__init__") for node in (stub, reference))
    assert ast.unparse(stub.args) == ast.unparse(reference.args)
    returned = lambda node: ast.unparse(node.returns) if node.returns else ""
    assert returned(stub) == returned(reference)


def answer(folder, name, body):
    checking.copy_stubs(folder)
    (folder / name).write_text("import torch\nfrom minicontrolnet.diffusion import alpha_bar_at\n" + body)


@pytest.mark.parametrize("body, said", [
    ("def q_sample(x0, t, eps):\n    return x0 * undefined\n", "line 4 of ex01_ddpm.py: return x0 * undefined"),
    ("def q_sample(x0, t, eps)\n    return x0\n", "SyntaxError in line 3"),
    ("def q_sample(x0, t, eps):\n    x0 *= alpha_bar_at(t, x0).sqrt()\n    return x0\n", "in place"),
    ("def q_sample(x0, t, eps):\n    x0 * 2\n", "without a return"),
    ("def q_sample(x0, t, eps):\n    return x0[0]\n", "the shape is another one"),
    ("def q_sample(x0, t, eps):\n    return x0.float()\n", "the dtype is another one"),
    ("def q_sample(x0, t, eps):\n    return x0\n", "the largest difference is"),
    ("def other(x0, t, eps):\n    return x0\n", "keep the name"),
    ("def q_sample(x0):\n    return x0\n", "TypeError"),
    ("def q_sample(x0, t, eps):\n    raise SystemExit\n", "leave exit() out"),
    ("def q_sample(x0, t, eps):\n    raise NotImplementedError('by torch')\n", "NotImplementedError in line 4"),
    ("def q_sample(x0, t, eps):\n    return (x for x in x0)\n", "write tuple(... for ...)"),
    ("def q_sample(x0, t, eps):\n    a = alpha_bar_at(t, x0)\n"
     "    return (a.sqrt() * x0 + (1 - a).sqrt() * eps).double()\n", "result for float32"),
    ("def q_sample(x0, t, eps):\n    return x0 * float('nan')\n", "nan's"),
    ("\0", "SyntaxError in ex01_ddpm.py")])
def test_mistakes_are_told_by_the_learners_own_line(body, said, tmp_path):
    answer(tmp_path, "ex01_ddpm.py", body)
    verdict = checking.check(EXERCISES[0], tmp_path)
    assert not verdict.passed and said in verdict.message, verdict.message


def find(id):
    return next(exercise for exercise in EXERCISES if exercise.id == id)


def test_changing_a_tensor_within_a_tuple_is_told(tmp_path):
    answer(tmp_path, "ex07_multi_control.py", "def compose(*several):\n    several[0][0].zero_()\n    return several[0]\n")
    assert "in place" in checking.check(find("07a"), tmp_path).message


def test_an_encoder_of_another_size_passes_and_mine_leaves_it_out(tmp_path):
    """The shipped weights would not fit it; nothing is replaced, since no other answer is written."""
    body = source_of_reference(find("04a")).replace("16", "8")
    answer(tmp_path, "ex04_condition_encoder.py", "from minicontrolnet.controlnet import *\n" + body)
    assert checking.check(find("04a"), tmp_path).passed
    said = "\n".join(checking.use_mine(tmp_path))
    assert "none yet" in said and "04a passed, but the shipped weights have other layers" in said


def test_a_list_is_told_by_its_first_difference(tmp_path):
    """Not by 13 shapes or booleans, and weights are rounded: no line is longer than a few hundred letters."""
    answer(tmp_path, "ex06_cfg_weighting.py", "def released_weights():\n    return [0.825] * 13\n")
    said = checking.check(find("06b"), tmp_path).message
    assert "0.0994, 0.121" in said and max(map(len, said.splitlines())) < 250
    assert checking.first_difference("maps", [(1, 2), (3, 4)], [(1, 2), (3, 5)]) == ("maps, number 2 of 2", (3, 4), (3, 5))


@pytest.fixture
def go(tmp_path, capsys):
    """A function that runs the command with words; returns its exit status, and what it printed."""

    def go(*words):
        try:
            main(["--answers", str(tmp_path / "mine"), *map(str, words)])
            status = 0
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return go


def test_commands_from_nothing_to_a_mark(go, tmp_path):
    """The list, check, hint, solution and grade; progress survives and answers stay as they are."""
    status, said = go()
    assert status == 0 and "0 of 17 passed" in said and "next: 01a" in said
    path = tmp_path / "mine" / "ex03_zero_conv.py"
    path.write_text("from minicontrolnet import zero_conv  # my own\n")
    assert go("check", "03a")[0] == 0 and "1 of 17" in go()[1]
    assert go("check", "03b")[0] == 1
    assert go("hint", "03a")[1] != go("hint", "03a")[1]
    assert "nn.init.zeros_" in go("solution", "03a")[1]
    assert "--show" in str(go("solution", "01a")[0])
    assert "alpha_bar" in go("solution", "01a", "--show")[1]
    marks = tmp_path / "marks.json"
    assert go("grade", tmp_path / "mine", "--json", marks, "--seed", 7)[0] == 0
    assert json.loads(marks.read_text())["exercises"]["03a"] == {"passed": True, "message": "passed"}
    assert path.read_text() == "from minicontrolnet import zero_conv  # my own\n"


def test_only_reset_replaces_an_answer_and_it_keeps_a_backup(go, tmp_path):
    go()
    path = tmp_path / "mine" / "ex03_zero_conv.py"
    path.write_text("# my own\n")
    assert "ex03_zero_conv.backup1.py" in go("reset", "03a")[1]
    assert path.with_suffix(".backup1.py").read_text() == "# my own\n" and "my own" not in path.read_text()
    (tmp_path / "mine" / "progress.json").write_text('{"passed": ["01a", "99z"], "hints": {"01a": "x"}}')
    assert go("hint", "01a")[0] == 0 and "0 of 17" in go()[1]  # damaged: begun anew
    status, said = go("check", "99z")
    assert status == 2 and "is not an exercise" in said


@pytest.mark.parametrize("name", CORE)
def test_references_as_answers_give_the_lessons_numbers(name, references, tmp_path, lesson_run):
    """With every exercise solved, --mine --quick prints what the lesson prints without it."""
    words = [sys.executable, ROOT / "lessons" / f"{name}.py", "--quick", "--mine", references]
    mine = subprocess.run(list(map(str, words)), cwd=tmp_path, text=True, capture_output=True, timeout=240)
    assert mine.returncode == 0, mine.stderr
    whose, rest = mine.stdout.split("not passed: none\n", 1)
    assert all(exercise.id in whose for exercise in EXERCISES)
    assert rest.strip() == lesson_run(name)[0].stdout.strip()
