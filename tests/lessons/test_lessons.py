"""Every lesson runs in quick mode and leaves what it must, and what lessons share does what it says."""

import contextlib
import importlib
import io
import json
import os
import re
import runpy
import socket
import subprocess
import sys
import traceback
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from matplotlib.figure import Figure

from conftest import LESSONS
from minicontrolnet import ControlNet, Paired, Problem

NAMES = sorted(path.stem for path in LESSONS.glob("[0-9][0-9]_*.py"))
SLOW = [pytest.param(name, marks=() if name.startswith("03") else pytest.mark.slow) for name in NAMES]


def run_lessons(folder, names):
    """Run lessons one after another in this process, as scripts, and write what each of them printed to JSON.

    One process is enough for all of them: most of the time of a script goes into importing torch.
    """
    told = {}
    for name in names:
        place = Path(folder) / name
        place.mkdir()
        os.chdir(place)
        sys.argv = [str(LESSONS / f"{name}.py"), "--quick"]
        output, error = io.StringIO(), ""
        with contextlib.redirect_stdout(output):
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
            except BaseException:
                error = traceback.format_exc()
        told[name] = {"output": output.getvalue(), "error": error}
        for module in [m for m in sys.modules if m.split(".")[0] in ("lesson", "experiments", "exercises")]:
            del sys.modules[module]
    (Path(folder) / "told.json").write_text(json.dumps(told))


@pytest.fixture(scope="session")
def quick_runs(request, tmp_path_factory):
    """Name -> what a lesson printed in quick mode, its error, and its folder: of all that are tested now."""
    items = [item for item in request.session.items if "quick_runs" in getattr(item, "fixturenames", ())]
    names = sorted({item.callspec.params["name"] for item in items
                    if not any(mark.name == "skip" for mark in item.iter_markers())})
    folder = tmp_path_factory.mktemp("lessons")
    code = (f"import sys; sys.path[:0] = {sys.path!r}; import test_lessons;"
            f" test_lessons.run_lessons({str(folder)!r}, {names!r})")
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    told = json.loads((folder / "told.json").read_text())
    return {name: (run["output"], run["error"], folder / name) for name, run in told.items()}


@pytest.mark.parametrize("name", SLOW)
def test_a_lesson_runs_in_quick_mode(name, quick_runs):
    """It asks, answers, says that its verdict is left out, and leaves a figure that is marked as quick."""
    output, error, folder = quick_runs[name]
    assert not error
    assert "PREDICT  " in output and output.index("PREDICT  ") < output.index("ANSWER   ")
    assert output.count("VERDICT  left out") == output.count("VERDICT") >= 1
    assert [path.name for path in folder.iterdir()] == ["outputs"]
    left = {path.name for path in (folder / "outputs").iterdir()}
    assert f"{name}_quick.png" in left and all("_quick" in name for name in left)
    with Image.open(folder / "outputs" / f"{name}_quick.png") as figure:
        assert figure.width > 500


@pytest.mark.slow
def test_a_problem_ends_a_lesson_with_its_sentence(tmp_path):
    """In the process of its own that a lesson is."""
    (tmp_path / "file").write_text("mine")
    done = subprocess.run([sys.executable, str(LESSONS / f"{NAMES[0]}.py"), "--out", "file/below"],
                          cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode != 0 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_backend_that_does_not_exist_is_told_in_one_sentence(name, tmp_path):
    """The figures are imported before a lesson begins, and must not end it with a traceback."""
    done = subprocess.run([sys.executable, str(LESSONS / f"{name}.py"), "--quick"], cwd=tmp_path, text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, env=os.environ | {"MPLBACKEND": "nonsense"})
    assert done.returncode != 0 and done.stderr.startswith("error: matplotlib cannot start")
    assert done.stderr.count("\n") == 1 and "correct MPLBACKEND" in done.stderr and not done.stdout


# %% Options, predictions and answers


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """A function that begins a lesson with some options."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(LESSONS))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def begin(*words, **options):
        monkeypatch.setattr(sys, "argv", ["05_edge_control.py", *words])
        return importlib.import_module("lesson").Lesson("05_edge_control", steps=150, quick_steps=4, **options)

    return begin


@pytest.mark.parametrize("words, names", [
    (["--steps", "0"], "--steps"), (["--device", "tpu"], "tpu"), (["--full"], "--full"),
    (["--answer", "maybe"], "maybe"), (["--out", "file/below"], "file/below")])
def test_bad_options_get_one_sentence(words, names, begin, tmp_path, capsys):
    """It names what was given, and nothing is written."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises((SystemExit, Problem)) as end:
        begin(*words)
    by_argparse = isinstance(end.value, SystemExit)
    assert names in (capsys.readouterr().err if by_argparse else str(end.value))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_steps_are_the_lessons_own_or_those_asked_for(begin):
    assert begin().steps == 150 and begin("--quick").steps == 4
    assert begin("--steps", "7").steps == begin("--quick", "--steps", "7").steps == 7


def test_a_lesson_may_need_more_than_one_step(begin, capsys):
    """Such as two pictures for an interval: fewer are refused before any work, and the sentence says from where."""
    assert begin("--steps", "2", least_steps=2).steps == 2
    with pytest.raises(SystemExit):
        begin("--steps", "1", least_steps=2)
    assert "'1' is not a whole number from 2 to 1000000" in capsys.readouterr().err


@pytest.mark.parametrize("typed, letter", [("b", "b"), (" C) it fails", "c"), ("", ""), ("x", "")])
def test_a_prediction_waits_in_a_terminal(typed, letter, begin, monkeypatch, capsys):
    """The first letter counts; Enter skips."""
    lesson = begin()
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: typed)
    assert lesson.predict("What falls?", a="the apple", b="the loss", c="the mask") == letter
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("What falls?", "a) the apple", "b) the loss", "c) the mask"))


def test_a_prediction_may_be_an_option_or_missing(begin, monkeypatch, capsys):
    """--answer is printed; without a terminal, or without any input, nobody waits."""
    monkeypatch.setattr("builtins.input", lambda question: pytest.fail("it waited"))
    assert begin("--answer", "a").predict("Why?", a="so", b="thus") == "a"
    assert "your answer: a" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", None)
    assert begin().predict("Why?", a="so", b="thus") == ""


@pytest.mark.skipif(sys.platform == "win32", reason="select does not work with pipes there")
@pytest.mark.parametrize("sent, guesses", [
    (b"b\na\n", ["b", "a"]), (b"b\n", ["b", ""]), (b"\nB", ["", "b"]), (b"", ["", ""]),
    (b"\xff\n" + 500 * b"a", ["", "a"])])
@pytest.mark.parametrize("closed", [True, False])
def test_a_line_for_each_question(sent, guesses, closed, begin, monkeypatch):
    """From a socket whose other end is closed, or stays open and may never say more."""
    lesson, (ours, theirs) = begin(), socket.socketpair()
    with ours, theirs, ours.makefile() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        theirs.sendall(sent)
        if closed:
            theirs.close()
        assert [lesson.predict("Why?", a="so", b="thus") for _ in guesses] == guesses


@pytest.mark.parametrize("place", [os.devnull, "."])
def test_input_that_says_nothing_is_passed_by(place, begin, monkeypatch):
    """An empty device; a folder in a file's place."""
    lesson, descriptor = begin(), os.open(place, os.O_RDONLY)
    with os.fdopen(os.dup(0)) as stdin:
        os.dup2(descriptor, stdin.fileno())
        monkeypatch.setattr(sys, "stdin", stdin)
        assert lesson.predict("Why?", a="so", b="thus") == ""
    os.close(descriptor)


def test_in_a_notebook_options_are_those_of_the_lesson_alone(begin, monkeypatch):
    """The kernel's own words are none; those of the cell before are."""
    lesson = begin("--quick", "--seed", "3")
    assert (lesson.quick, lesson.seed, lesson.steps) == (True, 3, 4)
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    again = type(lesson)
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    lesson = again("05_edge_control", steps=150, quick_steps=4)
    assert (lesson.quick, lesson.seed, lesson.steps) == (False, 0, 150)
    monkeypatch.setattr(sys, "argv", ["lessons/05_edge_control.py", "--steps", "7"])
    assert again("05_edge_control", steps=150, quick_steps=4).steps == 7


def test_a_notebook_without_an_input_box_goes_on(begin, monkeypatch):
    """Such as one that a program runs: it refuses input()."""
    lesson = begin()
    monkeypatch.setitem(sys.modules, "ipykernel", sys)

    def refuse(question):
        raise NotImplementedError

    monkeypatch.setattr("builtins.input", refuse)
    assert lesson.predict("Why?", a="so", b="thus") == ""


def test_a_wrong_guess_is_answered_on_its_own(begin, capsys):
    """Everybody reads the right answer, and who was wrong reads why, before it."""
    lesson = begin()
    printed = []
    for guess in ("a", "b", ""):
        lesson.reveal(guess, "b", because="it is so.", a="not so, since ...")
        printed.append(capsys.readouterr().out)
    assert all("b) it is so." in text for text in printed)
    assert ["not so" in text for text in printed] == [True, False, False]
    assert printed[0].index("not so") < printed[0].index("it is so")


@pytest.mark.parametrize("right", ["a", "b"])
def test_where_numbers_decide_each_choice_has_its_sentence(right, begin, capsys):
    """The sentence of the right one is never printed."""
    begin().reveal("a", right, "see the table.", a="the apple is red.", b="the loss is not.")
    printed = capsys.readouterr().out
    assert f"{right}) see the table." in printed
    assert ("apple" in printed) == (right == "b") and "the loss" not in printed


def test_a_smoke_test_has_no_verdict_and_says_so(begin, capsys):
    """Its numbers may have chosen the answer, too."""
    begin().verdict("shown: it helps;", "n = 3.")
    assert "shown: it helps;" in capsys.readouterr().out
    quick = begin("--quick")
    quick.verdict("shown: it helps")
    quick.reveal("", "a", "see the table.")
    printed = capsys.readouterr().out
    assert "shown" not in printed and "smoke test" in printed.split("ANSWER")[1]


@pytest.mark.parametrize("ends, printed", [((0.1, 0.2, 0.3), "+0.20 (+0.10 to +0.30), shown"),
                                           ((-0.3, -0.2, -0.1), "-0.20 (-0.30 to -0.10), contradicted"),
                                           ((-0.1, 0.0, 0.1), "+0.00 (-0.10 to +0.10), undecided")])
def test_a_difference_has_its_interval_and_what_it_shows(ends, printed, begin):
    begin()
    assert importlib.import_module("lesson").with_interval(Paired(*ends), digits=2) == printed


def test_a_table_has_columns(begin, capsys):
    begin()
    importlib.import_module("lesson").table([["what", "IoU"], ["ControlNet", 0.9], ["no", ""]])
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line.split() for line in lines] == [["what", "IoU"], ["ControlNet", "0.9"], ["no"]]
    assert lines[0].index("IoU") == lines[1].index("0.9")


# %% Results and figures


def test_results_and_pictures_are_saved_and_read_again(begin, monkeypatch):
    """Numbers as they were, tensors as lists, pictures to 1/255; and how they were made."""
    lesson = begin("--seed", "3")
    results = importlib.import_module("lesson.results")
    pictures = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    lesson.save_results({"IoU": 0.5, "steps": torch.tensor([1, 2])}, pictures, columns=3)
    monkeypatch.setattr(results, "RESULTS", lesson.out)
    content = results.load_results("05_edge_control")
    assert content["numbers"] == {"IoU": 0.5, "steps": [1, 2]}
    assert (content["seed"], content["steps"]) == (3, 150)
    assert content["command"] == "python 05_edge_control.py --seed 3"
    assert (results.load_pictures("05_edge_control") - pictures).abs().max() < 1 / 255


def test_the_record_of_lesson_13_shows_what_its_page_says(begin):
    """The doctor names every bug. E's loss is the highest from step 20 to 60, and B's the lowest in the last 20 steps."""
    begin()
    numbers = importlib.import_module("lesson.results").load_results("13_clinic")["numbers"]
    assert numbers["causes"] == importlib.import_module("lesson.patients").BUGS
    losses = numbers["losses"]
    others = [min(batch) for batch in zip(*(losses[letter] for letter in "ACDE"))]
    assert all(b < other for b, other in zip(losses["B"][-20:], others[-20:], strict=True))
    others = [max(batch) for batch in zip(*(losses[letter] for letter in "ABCD"))]
    assert all(e > other for e, other in zip(losses["E"][19:60], others[19:60], strict=True))
    jumps = [abs(late - early) for early, late in pairwise(losses["A"])]
    for letter in "BCD":  # the differences stay inside the grey band
        assert all(abs(own - a) < sum(jumps) / len(jumps) for own, a in zip(losses[letter], losses["A"], strict=True))
    for letter in "ABCDE":
        assert sum(losses[letter][-20:]) < sum(losses[letter][:20])
        assert abs(numbers["gaps"][letter]["20"]) < 1e-5
    symptoms = numbers["symptoms"]
    assert symptoms["F"]["gap"] < 0 < symptoms["G"]["gap"] and symptoms["H"]["loss"] > symptoms["B"]["loss"]
    assert max(symptoms, key=lambda letter: symptoms[letter]["loss"]) == "G"


@pytest.mark.parametrize("damaged", [
    None, b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b"{}",
    b'{"numbers": [], "command": ""}', b'{"numbers": {}}'])
def test_a_damaged_result_file_is_a_problem(damaged, begin, monkeypatch, tmp_path):
    """Missing, cut off, or something else: one sentence names it."""
    begin()
    results = importlib.import_module("lesson.results")
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    if damaged is not None:
        (tmp_path / "04.json").write_bytes(damaged)
        (tmp_path / "04_pictures.png").write_bytes(damaged)
    with pytest.raises(Problem, match="04.json"):
        results.load_results("04")
    with pytest.raises(Problem, match="04"):
        results.load_pictures("04")


@pytest.mark.parametrize("words, name", [([], "05_edge_control.png"), (["--quick"], "05_edge_control_quick.png")])
def test_a_figure_of_a_smoke_run_is_marked(words, name, begin):
    """By its name, and by words across it; a real one has neither."""
    lesson, figure = begin(*words), Figure()
    lesson.save_figure(figure)
    assert (lesson.out / name).is_file() and len(figure.texts) == len(words)


def test_the_diagram_is_the_networks(make_base, begin):
    """Another network, another diagram: its channels, its grids, and all its sums."""
    begin()
    diagram = importlib.import_module("lesson.diagram")
    base = make_base((8, 16, 24, 32), dtype=torch.float32)
    figure = diagram.architecture(base, ControlNet(base, 3))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("+") == 14  # 13 for the controls, one for the condition
    assert [int(n) for text in texts for n in re.findall(r"^grid (\d+)", text)] == [16, 8, 4, 2]
    assert [int(text) for text in texts if text.isdigit()] == base.encoder.channels  # the 13 zero convs
