"""Every lesson runs from a plain clone in quick mode, and leaves what it must."""

import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from minicontrolnet import (ControlNet, Problem, detect_edges, figures, held_out,
                            tokenize)

ROOT = Path(__file__).parents[1]
LESSONS = sorted(path.stem for path in (ROOT / "lessons").glob("[0-9][0-9]_*.py"))


@pytest.mark.parametrize("script", LESSONS)
def test_lesson_runs_in_quick_mode(script, lesson_run):
    """It asks, answers, gives no verdict, and leaves a figure marked as quick."""
    done, folder = lesson_run(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and "Traceback" not in done.stderr
    assert done.stdout.index("\nPREDICT  ") < done.stdout.index("\nANSWER   ")
    assert "\nVERDICT  none: --quick is a smoke run" in done.stdout
    assert done.stdout.count("VERDICT") == done.stdout.count("VERDICT  none: --quick")
    assert [path.name for path in folder.iterdir()] == ["outputs"]
    left = {path.name for path in (folder / "outputs").iterdir()}
    assert f"{script}_quick.png" in left and all("_quick" in name for name in left)
    with Image.open(folder / "outputs" / f"{script}_quick.png") as figure:
        assert figure.width >= 1280 and figure.height >= 500


@pytest.mark.parametrize("script", LESSONS)
def test_a_lesson_names_its_own_file(script):
    """Its results and figures bear the name that it gives to options()."""
    source = (ROOT / "lessons" / f"{script}.py").read_text(encoding="utf-8")
    assert f'options("{script}"' in source


@pytest.mark.parametrize("words, said", [
    (["--steps", "0"], "whole number from 1"), (["--device", "tpu"], "is not a device"),
    (["--full"], "unrecognized arguments"), (["--answer", "maybe"], "invalid choice"),
    (["--out", "file/below"], "cannot write")])
def test_bad_options_get_one_sentence(words, said, tools, tmp_path, capsys):
    """No traceback, and nothing is written."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises((SystemExit, Problem)) as end:
        tools(*words)
    by_argparse = isinstance(end.value, SystemExit)
    told = capsys.readouterr().err if by_argparse else str(end.value)
    assert said in told
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_problem_ends_a_lesson_with_its_sentence(tmp_path):
    """In the process of its own that a lesson is."""
    (tmp_path / "file").write_text("mine")
    script = ROOT / "lessons" / f"{LESSONS[0]}.py"
    done = subprocess.run([sys.executable, str(script), "--out", "file/below"],
                          cwd=tmp_path, text=True, capture_output=True, timeout=120)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: cannot write")
    assert done.stderr.count("\n") == 1


# %% What the lessons share


def test_steps_are_the_lessons_own_or_those_asked_for(tools):
    """200, in quick mode 4, and 7 if somebody says so."""
    steps = lambda *words: tools(*words).args.steps
    assert steps() == 200 and steps("--quick") == 4
    assert steps("--steps", "7") == steps("--quick", "--steps", "7") == 7


@pytest.mark.parametrize("typed, letter", [("b", "b"), (" C) it fails", "c"), ("", ""), ("x", "")])
def test_a_prediction_waits_in_a_terminal(typed, letter, tools, monkeypatch, capsys):
    """The first letter counts; Enter skips."""
    lesson = tools()
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: typed)
    guess = lesson.predict("What falls?", a="the apple", b="the loss", c="the mask")
    assert guess == letter
    told = capsys.readouterr().out
    assert "PREDICT  What falls?\n   a) the apple\n" in told
    assert ("there is no choice x)" in told) == (typed == "x")


def test_a_prediction_may_be_an_option_or_missing(tools, monkeypatch, capsys):
    """--answer is told again; without a terminal, or any input, nobody waits."""
    monkeypatch.setattr("builtins.input", lambda question: pytest.fail("it waited"))
    assert tools("--answer", "a").predict("Why?", a="so", b="thus") == "a"
    assert "your answer: a" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", None)
    assert tools().predict("Why?", a="so", b="thus") == ""


PREDICTS = f"""import sys
sys.path.insert(0, {str(ROOT / "lessons")!r})
import _lesson
_lesson.options("05_edge_control", steps=200, quick_steps=4)
for question in "Why?", "How?":
    print("guess:", repr(_lesson.predict(question, a="so", b="thus")))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="select knows no pipes there")
def test_a_pipe_answers_and_nobody_waits_for_more(tmp_path):
    """In processes of their own: the pipe's other end stays open; there is no input at all."""
    begin = lambda stdin, **more: subprocess.Popen(
        [sys.executable, "-c", PREDICTS], cwd=tmp_path, stdin=stdin, stdout=subprocess.PIPE, text=True, **more)
    pipe, end = os.pipe()
    os.write(end, b"b\n")
    runs = begin(pipe), begin(None, preexec_fn=lambda: os.close(0))
    told = [process.communicate(timeout=240)[0] for process in runs]
    os.close(pipe), os.close(end)
    assert [process.returncode for process in runs] == [0, 0]
    guesses = [[line for line in text.splitlines() if line.startswith("guess:")] for text in told]
    assert guesses == [["guess: 'b'", "guess: ''"], ["guess: ''"] * 2]
    assert told[0].count("   your answer: b\n") == 1 and "your answer" not in told[1]


@pytest.mark.skipif(sys.platform == "win32", reason="select knows no pipes there")
@pytest.mark.parametrize("sent, guesses", [
    (b"b\na\n", ["b", "a"]), (b"b\n", ["b", ""]), (b"\nB", ["", "b"]), (b"", ["", ""]),
    (b"\xff\n" + 500 * b"a", ["", "a"])])
@pytest.mark.parametrize("closed", [True, False])
def test_a_line_for_each_question(sent, guesses, closed, tools, monkeypatch):
    """From a socket whose other end is closed, or stays open and may never say more."""
    lesson, (ours, theirs) = tools(), socket.socketpair()
    with ours, theirs, ours.makefile() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        theirs.sendall(sent)
        if closed:
            theirs.close()
        assert [lesson.predict("Why?", a="so", b="thus") for _ in guesses] == guesses


@pytest.mark.parametrize("place", [os.devnull, "."])
def test_input_that_says_nothing_is_passed_by(place, tools, monkeypatch):
    """An empty device; a folder in a file's place."""
    lesson, descriptor = tools(), os.open(place, os.O_RDONLY)
    with os.fdopen(os.dup(0)) as stdin:
        os.dup2(descriptor, stdin.fileno())
        monkeypatch.setattr(sys, "stdin", stdin)
        assert lesson.predict("Why?", a="so", b="thus") == ""
    os.close(descriptor)


def test_in_a_notebook_options_are_those_of_the_lesson_alone(tools, monkeypatch):
    """The kernel's own words are none; a cell that runs again begins anew."""
    lesson = tools("--quick", "--seed", "3")
    assert (lesson.args.quick, lesson.args.seed, lesson.args.steps) == (True, 3, 4)
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    again = lesson.options("05_edge_control", steps=200, quick_steps=4)
    assert (again.quick, again.seed, again.steps) == (False, 0, 200) and again is lesson.args
    monkeypatch.setattr(sys, "argv", ["lessons/05_edge_control.py", "--steps", "7"])
    assert lesson.options("05_edge_control", steps=200, quick_steps=4).steps == 7


def test_a_notebook_without_an_input_box_goes_on(tools, monkeypatch):
    """Such as one that a program runs: it refuses input()."""
    lesson = tools()
    monkeypatch.setitem(sys.modules, "ipykernel", sys)

    def refuse(question):
        raise NotImplementedError

    monkeypatch.setattr("builtins.input", refuse)
    assert lesson.predict("Why?", a="so", b="thus") == ""


def test_a_wrong_guess_is_answered_on_its_own(tools, capsys):
    """The right answer is told to all, the mistake to those who made it."""
    lesson = tools()
    for guess in ("a", "b", ""):
        lesson.reveal(guess, "b", because="it is so.", a="not so, since ...")
    said = capsys.readouterr().out
    mistaken, right, skipped = said.split("ANSWER   b) it is so.\n")[:3]
    assert "You said a): not so, since ..." in mistaken and right == skipped == ""


@pytest.mark.parametrize("right", ["a", "b"])
def test_where_numbers_decide_each_choice_has_its_sentence(right, tools, capsys):
    """The sentence of the right one is never told."""
    tools().reveal("a", right, "see the table.", a="the apple is red.", b="the loss is not.")
    said = capsys.readouterr().out
    assert said.endswith(f"ANSWER   {right}) see the table.\n")
    assert ("apple" in said) == (right == "b") and "the loss" not in said


def test_an_answer_of_a_smoke_run_says_so(tools, capsys):
    """Since its numbers may have chosen it."""
    tools("--quick").reveal("", "a", "see the table.")
    tools().reveal("", "a", "see the table.")
    said = "ANSWER   a) see the table."
    assert capsys.readouterr().out == f"{said} (Of a smoke run.)\n{said}\n"


def test_long_sentences_are_wrapped(tools, capsys):
    """At 88 characters, below their own beginning."""
    lesson = tools("--answer", "a")
    lesson.verdict("It is confirmed, " * 20)
    lesson.reveal(lesson.predict("Why? " * 40, a="so " * 60, b="thus"), "b", "it is. " * 30, a="no. " * 40)
    lines = capsys.readouterr().out.splitlines()
    assert 60 < max(map(len, lines)) <= 88
    assert all(line.startswith(("   ", "VERDICT  ", "PREDICT  ", "ANSWER   ")) for line in lines if line)


def test_a_smoke_run_has_no_verdict(tools, capsys):
    """Whatever the sentences say."""
    tools().verdict("confirmed: it helps;", "n = 3.")
    said = capsys.readouterr().out
    assert said == "\nVERDICT  confirmed: it helps;\n         n = 3.\n"
    tools("--quick").verdict("confirmed: it helps")
    assert "confirmed" not in capsys.readouterr().out


def test_a_table_has_columns(tools, capsys):
    """Each as wide as its widest cell; no blanks at the end of a line."""
    tools().table([["what", "IoU"], ["ControlNet", 0.9], ["no", ""]])
    said = capsys.readouterr().out
    assert said == "\n   what        IoU\n   ControlNet  0.9\n   no\n"


def test_results_and_pictures_are_saved_and_read_again(tools, monkeypatch):
    """Numbers as they were, tensors as lists, pictures to 1/255; how they were made."""
    lesson = tools("--seed", "3")
    pictures = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    numbers = {"IoU": 0.5, "steps": torch.tensor([1, 2])}
    lesson.save_results(numbers, pictures, columns=3)
    monkeypatch.setattr(lesson, "RESULTS", lesson.args.out)
    content = lesson.load_results("05_edge_control")
    assert content["numbers"] == {"IoU": 0.5, "steps": [1, 2]}
    assert (content["seed"], content["steps"]) == (3, 200)
    assert content["command"] == "python 05_edge_control.py --seed 3"
    assert (lesson.load_pictures("05_edge_control") - pictures).abs().max() < 1 / 255


@pytest.mark.parametrize("damaged", [
    None, b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b"{}",
    b'{"numbers": [], "command": "", "steps": 1}', b'{"numbers": {}, "command": ""}'])
def test_a_damaged_result_file_is_a_problem(damaged, tools, monkeypatch, tmp_path):
    """Missing, cut off, or something else: one sentence says how to get it back."""
    lesson = tools()
    monkeypatch.setattr(lesson, "RESULTS", tmp_path)
    if damaged is not None:
        (tmp_path / "04.json").write_bytes(damaged)
    with pytest.raises(Problem, match="04.json is missing or damaged; restore it"):
        lesson.load_results("04")


def test_numbers_that_a_record_lacks_are_a_problem(tools, monkeypatch, tmp_path):
    """At any depth, as in a record of another version."""
    lesson = tools()
    monkeypatch.setattr(lesson, "RESULTS", tmp_path)
    (tmp_path / "04.json").write_text(
        '{"numbers": {"learned": {"F1": [0.5]}}, "command": "", "steps": 1}')
    numbers = lesson.load_results("04")["numbers"]
    assert numbers == {"learned": {"F1": [0.5]}}
    for part in (numbers, numbers["learned"]):
        with pytest.raises(Problem, match="04.json is missing or damaged; restore it"):
            part["gap"]


@pytest.mark.parametrize("words, name", [([], "05_edge_control.png"),
                                         (["--quick"], "05_edge_control_quick.png")])
def test_a_figure_of_a_smoke_run_is_marked(words, name, tools):
    """By its name and by words across it; a true one has neither."""
    lesson, figure = tools(*words), figures.plt.figure()
    lesson.save_figure(figure)
    assert (lesson.args.out / name).is_file()
    marks = [text.get_text() for text in figure.texts]
    assert marks == ["--quick: no evidence"] * len(words)


# %% Figures


def test_outlined_draws_unbroken_lines_and_leaves_the_rest():
    """Magenta over every edge pixel's middle, and nowhere a pixel or more away from an edge."""
    batch, _ = held_out(4)
    edges = detect_edges(batch.image)
    drawn, plain = figures.outlined(batch.image, edges, 4), figures.enlarge(batch.image, 4)
    magenta = (drawn == torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)).all(1, keepdim=True)
    middle = magenta[..., 1::4, 1::4] & magenta[..., 2::4, 2::4]
    assert middle[edges > 0].all()
    far = torch.nn.functional.max_pool2d(edges, 3, stride=1, padding=1) == 0
    far = figures.enlarge(far.float(), 4)[:, :1] > 0
    assert not magenta[far].any() and far.float().mean() > 0.5
    assert torch.equal(drawn[~magenta.expand_as(drawn)], plain[~magenta.expand_as(drawn)])


def test_the_diagram_is_the_networks(make_base, tools):
    """Another network, another diagram: its channels, grids, and all its sums."""
    tools()
    architecture = importlib.import_module("_figures").architecture
    base = make_base((8, 16, 24, 32), dtype=torch.float32)
    figure = architecture(base, ControlNet(base, 3))
    texts = [text.get_text() for text in figure.axes[0].texts]
    figures.plt.close(figure)
    assert texts.count("+") == 14  # 13 for the controls, one for the condition
    grids = [text for text in texts if text.startswith("grid")]
    assert grids == [f"grid {n} x {n}" for n in (16, 8, 4, 2)]
    channels = [int(text) for text in texts if text.isdigit()]
    assert channels == base.encoder.channels  # the 13 zero convs
    assert texts.count("mid\n32") == 2 and "condition\n3x64x64" in texts


def test_captions_are_prompts_in_two_lines():
    """Of which any word may be missing."""
    prompt = tokenize(["red star on blue", "circle", ""])
    assert figures.captions(prompt) == ["red star\non blue", "circle", ""]
