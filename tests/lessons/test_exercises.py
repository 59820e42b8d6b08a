"""Every exercise proves itself: stubs are not begun, solutions pass, and each known mistake is recognised."""

import argparse
import ast
import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch

from minicontrolnet import ControlNet, Problem, Training, control_loss, controlnet, lock

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "lessons"))

from exercises import checking, grading  # noqa: E402
from exercises.__main__ import advice, main  # noqa: E402
from exercises.checking import ANSWERS, EXERCISES, check, copy_stubs  # noqa: E402

every_exercise = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
# Mistakes that are wrong because they raise an exception, and a part of its message.
RAISES = {"01c Models are functions": "unsupported operand",
          "01c xt is not known yet": "'xt' is not defined",
          "03b Compute the gradients by hand": "does not require grad",
          "05b Controls are added to the maps, not concatenated": "the skips have [64",
          "05b The order is reversed": "size of tensor",
          "06c Pass the controls without a star": "ControlNet",
          "13c The order is reversed": "size of tensor",
          "08a You also change the prompts": "has other values than before"}


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """A folder in which each stub became the solution, under the file's imports."""
    folder = tmp_path_factory.mktemp("solved")
    copy_stubs(folder)
    for exercise in EXERCISES.values():
        path = folder / exercise.file
        stub = exercise.stub().split("\n", 1)[1]
        assert path.read_text().count(stub) == 1
        path.write_text(path.read_text().replace(stub, exercise.source()))
    return folder


def answer(folder, id, body):
    """Write an answer in place of a whole file; returns what check says of it."""
    imports = "import torch\n\n\nfrom minicontrolnet.diffusion import alpha_bar_at\n"
    (folder / EXERCISES[id].file).write_text(imports + body, encoding="utf-8")
    return check(EXERCISES[id], folder)


def with_edit(folder, id, old, new):
    """The solution with an edit, as an answer."""
    source = EXERCISES[id].source((old, new))
    module = resolve_name(EXERCISES[id].solution).__module__
    return answer(folder, id, f"from {module} import *\n{source}")


# %% Each exercise


def test_ids_are_one_to_four_a_lesson_and_in_order():
    """14 to 32 in all; ids are the lesson's number and a letter."""
    assert list(EXERCISES) == sorted(EXERCISES) and 14 <= len(EXERCISES) <= 32
    assert all(re.fullmatch(r"(0[1-9]|1[0-3])[a-d]", id) for id in EXERCISES)
    for exercise in EXERCISES.values():
        assert (ROOT / "lessons" / exercise.file.removeprefix("ex")).exists()


@every_exercise
def test_a_stub_is_not_begun(exercise, tmp_path):
    """Neither is a missing file."""
    copy_stubs(tmp_path)
    said = check(exercise, tmp_path)
    assert checking.mark(said) is None and f"hint {exercise.id}" in said
    (tmp_path / exercise.file).unlink()
    assert checking.mark(check(exercise, tmp_path)) is None


@pytest.mark.parametrize("id, seen", [
    ("02b", "Find out why this copy trains the base, too."),
    ("05a", "Find out why this trains, and follows no outline.")])
def test_a_bug_hunt_that_is_not_begun_gives_nothing_away(id, seen, tmp_path):
    """A comment begins nothing. A line of code does, and then the message names the cause."""
    copy_stubs(tmp_path)
    exercise = EXERCISES[id]
    path, stub = tmp_path / exercise.file, exercise.stub()
    text = path.read_text()
    path.write_text(text.replace(stub, f"{stub}    # and now?\n"))
    said = check(exercise, tmp_path)
    assert said.startswith("not begun") and seen in said and "still the stub" in said
    assert not any(words in said for words in exercise.mistakes)
    path.write_text(text.replace(stub, f"{stub}    pass\n"))
    said = check(exercise, tmp_path)
    assert said.startswith("not yet") and any(m in said for m in exercise.mistakes)
    path.write_text(text + exercise.source())  # below the stub, which is left as it was
    assert check(exercise, tmp_path) == "passed"


@pytest.mark.parametrize("id", ["02b", "03a", "05a"])
def test_a_first_hint_leads_by_a_question(id):
    """Where one sentence could be the whole solution; it names no function to call."""
    first = EXERCISES[id].hints[0]
    assert first.endswith("?") and not re.search(r"nn\.|copy\.|detach|zeros_", first)


@every_exercise
def test_the_solution_passes(exercise, solved):
    assert check(exercise, solved, seed=1) == "passed"


@every_exercise
def test_each_mistake_is_recognised(exercise, tmp_path, monkeypatch):
    """The message has the result, the misconception, the paper and the next command, in this order."""
    assert len(exercise.mistakes) >= 4
    (tmp_path / exercise.file).touch()
    for words in exercise.mistakes:
        module = type(sys)("answers")
        setattr(module, exercise.name, exercise.wrong(words))
        monkeypatch.setattr(checking, "load", lambda path: module)
        message = check(exercise, tmp_path)
        parts = ["not yet", "result: ", "likely cause: " + words, exercise.paper, "next: "]
        places = [message.find(part) for part in parts]
        assert -1 not in places and places == sorted(places), message
        assert words.endswith(".")


@every_exercise
def test_a_mistake_raises_only_where_it_should(exercise):
    """An edit that breaks the code would raise what no learner's mistake raises."""
    for words in exercise.mistakes:
        error = checking.known(exercise.id, 0, words).get("raised")
        name = f"{exercise.id} {words}"
        expected = [RAISES[start] for start in RAISES if name.startswith(start)]
        assert len(expected) == (error is not None), f"{name}: {error!r}"
        assert not expected or expected[0] in str(error), f"{name}: {error!r}"


def test_there_are_at_least_150_known_mistakes():
    assert sum(len(exercise.mistakes) for exercise in EXERCISES.values()) >= 150


@every_exercise
def test_stub_and_solution_agree_in_signature_and_docstring(exercise):
    """Except for the parts of the docstring that would give the answer away."""
    stub = ast.parse(exercise.stub()).body[0]
    solution = ast.parse(exercise.source()).body[0]
    wanted = ast.get_docstring(solution)
    for part in exercise.hide:
        assert part in wanted and part not in exercise.stub()
        wanted = wanted.replace(part, "...", 1)
    assert ast.get_docstring(stub) == wanted
    if isinstance(stub, ast.ClassDef):
        stub, solution = (next(n for n in c.body if isinstance(n, ast.FunctionDef))
                          for c in (stub, solution))
    assert ast.unparse(stub.args) == ast.unparse(solution.args)
    assert ast.dump(stub.returns or stub) == ast.dump(solution.returns or stub)


def test_the_bug_hunt_of_05a_trains_and_never_lets_the_condition_in(make_base):
    """As its title says, on a network whose levels differ in width: it runs."""
    base = lock(make_base(widths=(8, 16, 16, 32), dtype=torch.float32))
    names = vars(sys.modules["minicontrolnet.controlnet"]).copy()
    exec(EXERCISES["05a"].stub(), names)
    control = ControlNet(base)
    before = {name: p.clone() for name, p in control.named_parameters()}
    buggy = type("Buggy", (ControlNet,), {"forward": names["ControlNet_forward"]})
    control.__class__ = buggy
    for _ in Training(control, control_loss(base, "edge"), 2, lr=1e-3):
        pass
    gradients = {name.split(".")[0] for name, p in control.named_parameters()
                 if p.grad is not None}
    assert gradients == {"zero_convs"} and before


# %% Messages


@pytest.mark.parametrize("body, said", [
    ("def q_sample(x0, t, eps):\n    return x0 * undefined\n",
     "line 6 of ex01_ddpm.py: return x0 * undefined"),
    ("def q_sample(x0, t, eps)\n    return x0\n", "SyntaxError in line 5"),
    ("def q_sample(x0, t, eps):\n    x0 *= 2\n    return x0\n", "in place"),
    ("def q_sample(x0, t, eps):\n    x0 * 2\n", "without a return"),
    ("def q_sample(x0, t, eps):\n    return x0[0]\n", "The shape or the dtype is not right"),
    ("def q_sample(x0, t, eps):\n    return x0.float()\n", "The shape or the dtype is not right"),
    ("def q_sample(x0, t, eps):\n    return x0\n", "the values differ by up to"),
    ("def other(x0, t, eps):\n    return x0\n", "Keep the name"),
    ("def q_sample(x0):\n    return x0\n", "The function must take 3 inputs. Keep"),
    ("def q_sample(x0, t, eps, n):\n    return x0\n", "missing a required argument"),
    ("q_sample = 3\n", "3 is not a callable object"),
    ("def q_sample(x0, t, eps):\n    raise SystemExit\n", "Remove the exit()"),
    ("def q_sample(x0, t, eps):\n    raise NotImplementedError('it')\n", "in line 6"),
    ("def q_sample(x0, t, eps):\n    return (x for x in x0)\n", "tuple(... for ...)"),
    ("def q_sample(x0, t, eps):\n    a = alpha_bar_at(t, x0)\n"
     "    return (a.sqrt() * x0 + (1 - a).sqrt() * eps).double()\n", "xt of float32"),
    ("def q_sample(x0, t, eps):\n    return x0 * float('nan')\n", "by up to nan"),
    ("def q_sample(x0, t, eps):\n    return x0 + 1j\n", "complex128"),
    ("def q_sample(x0, t, eps):\n    return x0.to_sparse()\n", "sparse_coo"),
    ("def q_sample(x0, t, eps):\n    return x0.to('meta')\n", "on meta"),
    ("\0", "null bytes")])
def test_a_message_names_the_learners_own_line(body, said, tmp_path):
    assert said in answer(tmp_path, "01a", body)


def test_a_zero_conv_without_bias_is_named(tmp_path):
    """As a student writes it, not as the known mistake is made."""
    said = answer(tmp_path, "03a", "from torch import nn\ndef zero_conv(channels):\n"
                  "    layer = nn.Conv2d(channels, channels, 1, bias=False)\n"
                  "    layer.weight.data.fill_(0)\n    return layer\n")
    assert "The bias is missing. It starts at 0, and it learns." in said


@pytest.mark.parametrize("line", ["conv.weight.zero_()", "conv.weight[:] = 0"])
def test_zeroing_a_weight_while_gradients_are_recorded_has_a_way_out(line, tmp_path):
    """In words of ours, by the student's own line; torch speaks of a leaf Variable."""
    said = answer(tmp_path, "03a", "def zero_conv(c):\n    conv = torch.nn.Conv2d(c, c, 1)"
                  f"\n    {line}\n    return conv\n")
    assert f"line 7 of ex03_zero_conv.py: {line}" in said and "leaf" not in said
    assert "Use nn.init.zeros_ or a similar function, or with torch.no_grad():" in said


def test_a_pipe_in_the_place_of_answers_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "ex03_zero_conv.py")
    assert "is not a plain file" in checking.check(checking.EXERCISES["03a"], tmp_path)


def test_changing_a_tensor_within_a_tuple_is_noticed(tmp_path):
    body = "def compose(*several):\n    several[0][0].zero_()\n    return several[0]\n"
    assert "in place" in answer(tmp_path, "07a", body)


def test_lists_are_compared_up_to_their_first_difference(tmp_path):
    """Not by 13 shapes; weights are rounded, and no line is too long."""
    said = answer(tmp_path, "06b", "def guess_mode_weights():\n    return [0.5] * 13\n")
    assert "0.0994, 0.121" in said and max(map(len, said.splitlines())) < 250
    assert checking.compare("maps", [(1, 2), (3, 4)], [(1, 2), (3, 5)])[0] == (
        "maps, number 2: (3, 4); expected: (3, 5)")


@pytest.mark.parametrize("id, body, said", [
    ("07a", "compose(*maps):\n    total = ()\n    for own in maps:\n        total += own\n"
     "    return total", "two composed: 6 values: float64 of shape (2, 4, 8, 8), from"),
    ("07a", "compose(*maps):\n    return maps, maps", "two composed: [((tensor([[[["),
    ("06b", "guess_mode_weights():\n    return [0.5] * 10**5", "number of weights"),
    ("01a", "q_sample(x0, t, eps):\n    raise ValueError(x0.tolist())", "ValueError in"),
    ("01a", "q():\n    pass\nq_sample = torch.ones(40, 40)", "tensor([[1., 1., 1.")])
def test_whatever_an_answer_returns_the_message_is_short(id, body, said, tmp_path):
    """Tensors, many of them, nested, in an exception, or in place of the function."""
    lines = answer(tmp_path, id, f"def {body}\n").splitlines()
    assert said in lines[1] and len(lines) == 5 and max(map(len, lines)) < 500


@pytest.mark.parametrize("value", [[0.5] * 10**5, "x" * 10**5, "\n" * 300 + "x",
                                   [torch.ones(9, 9)] * 99, {"a": torch.ones(99)}])
def test_any_value_is_described_on_one_short_line(value):
    assert 0 < len(checking.describe(value)) < 210 and "\n" not in checking.describe(value)


@pytest.mark.parametrize("id, old, new", [
    ("01c", "lerp(uncond(xt, t), cond(xt, t), guidance_scale)",
     "uncond(xt, t) + guidance_scale * (cond(xt, t) - uncond(xt, t))"),
    ("01c", "lerp(uncond(xt, t), cond(xt, t), guidance_scale)",
     "(1 - guidance_scale) * uncond(xt, t) + guidance_scale * cond(xt, t)"),
    ("04a", "16, ", "24, "),
    ("05b", "self.encoder(xt, emb)", "[h.detach() for h in self.encoder(xt, emb)]")])
def test_right_answers_of_another_make_pass_with_a_remark(id, old, new, tmp_path):
    assert with_edit(tmp_path, id, old, new).startswith("passed. A remark: ")


@pytest.mark.parametrize("code", [
    "    weight.requires_grad_()\n    y = torch.einsum('oi, bihw -> bohw', weight, x)\n"
    "    y.backward(upstream)\n    return weight.grad, upstream.sum((0, 2, 3)), x\n",
    "    y = torch.einsum('oi, bihw -> bohw', weight, x)\n"
    "    return torch.autograd.grad(y, (weight, weight, x), upstream)\n"])
def test_gradients_by_hand_are_not_those_of_autograd(code, tmp_path):
    code = f"def zero_conv_gradients(x, weight, upstream):\n{code}"
    assert "Compute the gradients by hand" in answer(tmp_path, "03b", code)


# %% Answers that do harm


@pytest.mark.parametrize("where", ["function", "file"])
def test_an_endless_loop_is_reported_with_the_learners_line(where, tmp_path, monkeypatch):
    """In this process, although the answer catches every Exception."""
    monkeypatch.setattr(checking, "SECONDS", 1)
    loop = "while True:\n        try:\n            pass\n        except Exception:\n            pass\n"
    body = {"function": f"def q_sample(x0, t, eps):\n    {loop}", "file": f"if True:\n    {loop}"}[where]
    message = answer(tmp_path, "01a", body)
    assert re.search(r"no result after 1 seconds, in line [6-9] of ex01_ddpm.py", message)
    assert "A loop there never ends" in message


def test_time_that_runs_out_elsewhere_is_not_blamed_on_the_answer(tmp_path):
    """The exercise's own file has the same name. Only the answer's path is the learner's."""

    def message(folder):
        stack = ["Timeout (0:01:00)!", f'  File "{folder}/ex01_ddpm.py", line 7 in noising']
        return grading.stopped(EXERCISES["01a"], tmp_path, stack, 60)

    assert "line 7" in message(tmp_path.resolve()) and "never ends" in message(tmp_path.resolve())
    assert "busy" in message(checking.HERE) and "line 7" not in message(checking.HERE)


@pytest.mark.slow
def test_loops_and_exits_harm_no_other_exercise(tmp_path):
    """Each of them has a message of its own, and the exercises after it are checked."""
    copy_stubs(tmp_path)
    (tmp_path / "ex01_ddpm.py").write_text(
        "import os\n"
        "def q_sample(x0, t, eps):\n    while True:\n        pass\n"
        "def x0_from_eps(eps, xt, t):\n    os._exit(0)\n"
        "def cfg(uncond, cond, scale):\n    print('\"passed\"')\n    input()\n")
    (tmp_path / "ex02_locking.py").write_text("def lock(module):\n    sum(range(10**15))\n")
    messages = grading.verdicts(["01a", "01b", "01c", "02a", "03a"], tmp_path, seconds=5)
    assert re.search(r"after 5 seconds, in line [34] of ex01_ddpm.py", messages["01a"])
    assert "The program ended" in messages["01b"] and "os._exit()" in messages["01b"]
    assert "EOFError in line 9" in messages["01c"]
    assert re.search(r"after 5 seconds, in .*ex02_locking.py., line 2 in lock", messages["02a"]), "a long call in C"
    assert messages["03a"].startswith("not begun")


# %% Answers in place of the package's functions


def test_mine_needs_a_folder(tmp_path):
    with pytest.raises(Problem, match="is not a folder"):
        checking.use_mine(tmp_path / "typo")
    with pytest.raises(Problem, match="contains no answers .no ex01_ddpm.py and so on."):
        checking.use_mine(tmp_path)


def test_a_zero_conv_may_be_of_a_class_that_inherits_from_conv2d(tmp_path):
    """And one that inherits from something else may not."""
    body = ("from torch import nn\n\n\nclass Zero(nn.{}):\n    def __init__(self, c):\n        super().__init__({})\n"
            "        nn.init.zeros_(self.weight)\n        nn.init.zeros_(self.bias)\n\n\n"
            "def zero_conv(c):\n    return Zero(c)\n")
    assert answer(tmp_path, "03a", body.format("Conv2d", "c, c, 1")) == "passed"
    assert answer(tmp_path, "03a", body.format("Linear", "c, c")).startswith("not yet")


def test_answers_that_pass_take_the_place_of_the_packages_functions(tmp_path):
    """In every module that imported them. Others stay."""
    copy_stubs(tmp_path)
    imports = "from torch import nn\nfrom minicontrolnet.errors import check_count\n"
    answer(tmp_path, "03a", imports + EXERCISES["03a"].source())
    original = controlnet.zero_conv
    try:
        first, second = checking.use_mine(tmp_path)
        assert "03a zero_conv" in first and "01a" in second and "03b" in second and "03a" not in second
        assert controlnet.zero_conv is not original
        assert controlnet.zero_conv.__module__ == "answers_ex03_zero_conv"
        assert sys.modules["minicontrolnet"].zero_conv is controlnet.zero_conv
    finally:
        checking.replace(EXERCISES["03a"], original)
    assert controlnet.zero_conv is original and sys.modules["minicontrolnet"].zero_conv is original


@pytest.mark.slow
def test_a_lesson_with_all_solutions_as_mine_prints_the_same_numbers(solved, tmp_path):
    runs = []
    for mine in ([], ["--mine", solved]):
        runs.append(subprocess.run([sys.executable, ROOT / "lessons" / "05_edge_control.py", "--quick", *mine],
                                   cwd=tmp_path, text=True, capture_output=True, stdin=subprocess.DEVNULL))
        assert runs[-1].returncode == 0, runs[-1].stderr
    whose, rest = runs[1].stdout.split("passed with a remark): none\n", 1)
    assert all(id in whose for id in EXERCISES)
    assert rest.strip() == runs[0].stdout.strip()


# %% The commands


@pytest.fixture
def go(tmp_path, capsys, monkeypatch):
    """A function that runs the command. It returns the status and what was printed."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def go(*words):
        try:
            folder = [] if "grade" in words else ["--answers", str(tmp_path / "mine")]
            main([*folder, *map(str, words)])
            status, problem = 0, ""
        except SystemExit as stop:
            status, problem = stop.code, ""
        except Problem as error:
            status, problem = 1, str(error)
        printed = capsys.readouterr()
        return status, printed.out + printed.err + problem

    return go


def test_commands_from_nothing_to_a_solution(go, tmp_path):
    """The list, check, hint and solution. Progress is kept, and answers stay as they are."""
    status, said = go()
    assert status == 0 and f"0 of {len(EXERCISES)} passed" in said and "next: 01a" in said
    path = tmp_path / "mine" / "ex03_zero_conv.py"
    path.write_text(text := "from minicontrolnet import zero_conv\n")
    status, said = go("check", "03a")
    assert status == 0 and "lessons/03_zero_conv.py --mine" in said
    assert f"1 of {len(EXERCISES)}" in go()[1]
    status, said = go("check", "03b")
    assert status == 1 and "Keep the name" in said
    assert "05a ControlNet_forward: not begun" in go("check", "05a")[1]
    hints = [go("hint", "03a")[1] for _ in range(3)]
    assert hints[0] != hints[1] == hints[2]
    assert "nn.init.zeros_" in go("solution", "03a")[1]
    assert "--show" in go("solution", "01a")[1]
    assert "alpha_bar" in go("solution", "01a", "--show")[1]
    assert path.read_text() == text


@pytest.mark.slow
def test_a_folder_is_graded_and_nothing_in_it_changes(go, tmp_path):
    go()
    path = tmp_path / "mine" / "ex03_zero_conv.py"
    path.write_text(text := "from minicontrolnet import zero_conv\n")
    marks = tmp_path / "marks.json"
    status, said = go("grade", tmp_path / "mine", "--json", marks, "--seed", 7)
    assert status == 0 and "05a  not begun" in said and "03b  not passed" in said
    marks = json.loads(marks.read_text())
    assert marks["exercises"]["03a"] == {"passed": True, "message": "passed"}
    assert (marks["passed"], marks["of"], marks["seed"]) == (1, len(EXERCISES), 7)
    assert path.read_text() == text


def test_only_reset_replaces_an_answer_and_it_keeps_a_backup(go, tmp_path):
    """It first names the other exercises in the file."""
    go()
    path = tmp_path / "mine" / "ex03_zero_conv.py"
    path.write_text("# my own\n")
    status, said = go("reset", "03a")
    assert status == 1 and "03a, 03b" in said and path.read_text() == "# my own\n"
    assert "ex03_zero_conv.backup1.py" in go("reset", "03a", "--yes")[1]
    assert path.with_suffix(".backup1.py").read_text() == "# my own\n"
    assert "def zero_conv" in path.read_text()
    status, said = go("check", "99z")
    assert status == 2 and "there is no exercise '99z'" in said and go("hint")[0] == 2


def test_the_advice_of_each_command_names_the_folder_of_the_answers(go, tmp_path):
    """Typed as it stands, it acts on the same answers. For the usual folder no option is needed."""
    mine = str(tmp_path / "mine")
    assert f"check 01a --answers {mine}" in go()[1]
    path = tmp_path / "mine" / "ex03_zero_conv.py"
    path.write_text("from minicontrolnet import zero_conv\n")
    assert go("check", "03a")[1].rstrip().endswith(f"lessons/03_zero_conv.py --mine {mine}")
    assert go("check", "03b")[1].rstrip().endswith(f"hint 03b --answers {mine}")
    assert f"hint 03b --answers {mine}" in go("solution", "03b")[1]
    assert f"hint 03b --answers {mine}" in go("hint", "03b")[1]
    said = go("reset", "03a")[1]
    words = shlex.split(re.search(r"give python lessons/exercises (.+) \(it keeps", said)[1])
    main(words)
    assert "def zero_conv" in path.read_text()
    usual = argparse.Namespace(answers=ANSWERS)
    assert advice(usual, "hint 03a") == "python lessons/exercises hint 03a"


@pytest.mark.parametrize("words, says", [
    (["check", "03a", "--only", "05a"], "--only has no effect on check; it is for grade"),
    (["check", "03a", "--json", "a.json"], "--json has no effect on check; it is for grade"),
    (["hint", "03a", "--csv", "a.csv"], "--csv has no effect on hint; it is for grade --class"),
    (["hint", "03a", "--seed", "1"], "--seed has no effect on hint; it is for check or grade"),
    (["check", "03a", "--yes"], "--yes has no effect on check; it is for reset"),
    (["check", "--show"], "--show has no effect on check; it is for solution"),
    (["grade", "mine", "--csv", "a.csv"], "--csv has no effect on grade; it is for grade --class"),
    (["grade", "mine", "--feedback", "pages"], "--feedback has no effect on grade; it is for grade --class"),
    (["grade", "--answers", "mine"], "--answers has no effect on grade"),
    (["grade", "--class", ".", "--json", "a.json"], "--json has no effect on grade --class; it is for grade"),
    (["grade", "mine", "--class", "."], "grade takes one folder"),
    (["show", "03a"], "show lists all exercises"),
])
def test_options_without_an_effect_are_refused(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2 and says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_where_the_pages_should_go_is_told_before_any_work(go, tmp_path):
    (tmp_path / "class").mkdir()
    (tmp_path / "pages").write_text("mine")
    status, said = go("grade", "--class", tmp_path / "class", "--feedback", tmp_path / "pages")
    assert status == 1 and "pages is not a folder" in said and (tmp_path / "pages").read_text() == "mine"


def test_grading_never_writes_into_what_it_grades(go, tmp_path):
    """Not over a student's file, and not beside it."""
    go()
    progress = tmp_path / "mine" / "progress.json"
    before = progress.read_bytes()
    for words in (["grade", tmp_path / "mine", "--json", progress],
                  ["grade", "--class", tmp_path, "--csv", tmp_path / "mine" / "marks.csv"],
                  ["grade", "--class", tmp_path, "--feedback", tmp_path / "pages"]):
        status, said = go(*words)
        assert status == 1 and "grading changes nothing there" in said
    assert progress.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("damage", [
    '{"passed": ["99z"], "hints": {"01a": 1e999}}', "[]", "{", '{"passed": 3}',
    '{"passed": [[]], "hints": []}', "[" * 10**5])
def test_damaged_progress_starts_again(damage, go, tmp_path):
    go()
    (tmp_path / "mine" / "progress.json").write_text(damage)
    assert go("hint", "01a")[0] == 0 and f"0 of {len(EXERCISES)}" in go()[1]


def test_grading_the_folder_above_the_answers_is_refused(go, tmp_path):
    go()
    status, said = go("grade", tmp_path)
    assert status == 1 and "contains no answers" in said and "mine" in said
    status, said = go("grade", tmp_path / "nowhere")
    assert status == 1 and "nowhere is not a folder" in said


@pytest.mark.slow
def test_a_terminal_that_cannot_show_a_letter_of_the_answer(tmp_path):
    """It shows the letter's number in place of it."""
    copy_stubs(tmp_path)
    answer(tmp_path, "01a", "def q_sample(x0, t, eps):\n    return über\n")
    words = [sys.executable, ROOT / "lessons" / "exercises", "--answers", tmp_path]
    run = subprocess.run([*words, "check", "01a"], text=True, capture_output=True,
                         env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert "return \\xfcber" in run.stdout and "Traceback" not in run.stderr


def test_a_module_of_the_user_does_not_hide_the_exercises(tmp_path):
    (tmp_path / "exercises.py").write_text("# my notes")
    run = subprocess.run([sys.executable, ROOT / "lessons" / "exercises", "check", "03a", "--answers", tmp_path / "mine"],
                         text=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert "not begun" in run.stdout and not run.stderr


def test_the_folder_of_the_exercises_is_not_one_of_answers(capsys):
    with pytest.raises(SystemExit):
        main(["reset", "03a", "--yes", "--answers", str(ROOT / "lessons" / "exercises")])
    assert "give another folder" in capsys.readouterr().err
    assert (ROOT / "lessons" / "exercises" / "ex03_zero_conv.py").is_file()
