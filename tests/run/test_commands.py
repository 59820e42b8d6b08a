"""The commands as a person types them: right results, and one sentence where something is wrong."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from minicontrolnet import Problem, __main__, load_base, load_control
from minicontrolnet.__main__ import main
from minicontrolnet.files import in_use
from minicontrolnet.options import device, in_range, tell_problems

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def usual_excepthook(monkeypatch):
    """Commands install their own for the rest of the program; here that is one test."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def error_of(capsys, *words: object) -> str:
    """What a failing command says: the one sentence of a Problem, or argparse's."""
    with pytest.raises((SystemExit, Problem)) as end:
        main([str(word) for word in words])
    if isinstance(end.value, Problem):
        assert "\n" not in str(end.value)
        return str(end.value)
    assert end.value.code not in (0, None)
    return capsys.readouterr().err


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    """A triangle drawn by pen on a wide white sheet."""
    sheet = Image.new("RGB", (300, 200), "white")
    corners = [(150, 40), (215, 160), (85, 160), (150, 40), (215, 160)]
    ImageDraw.Draw(sheet).line(corners, fill="black", width=5, joint="curve")
    sheet.save(tmp_path / "triangle.png")
    return tmp_path / "triangle.png"


def test_sample_writes_the_same_picture_for_the_same_seed(tmp_path, drawing):
    words = ["sample", "--prompt", "Red triangle  on blue", "--edge", drawing, "--palette", drawing,
             "--count", 1, "--steps", 1, "--seed", 3]
    pictures = []
    for name in ("a.png", "b.png"):
        main([str(word) for word in [*words, "--out", tmp_path / "new" / name]])
        pictures.append((tmp_path / "new" / name).read_bytes())
    assert pictures[0] == pictures[1]
    width, height = Image.open(tmp_path / "new" / "a.png").size
    assert width > 800 and height > 300  # three panels, large enough to see


@pytest.mark.parametrize("words, said", [
    (["sample", "--prompt", "pink star"], "does not know"),
    (["sample", "--prompt", "star red"], "is not of the form"),
    (["sample", "--edge", "nowhere.png"], 'nowhere.png" does not exist'),
    (["sample", "--edge", "README.md"], "cannot be read as a picture"),
    (["sample", "--edge-from", "lessons"], "is a folder"),
    (["sample", "--edge", "a.png", "--edge-from", "b.png"], "not allowed with"),
    (["sample", "--count", "0"], "whole number from 1"),
    (["sample", "--steps", "-3"], "whole number from 1 to 1000"),
    (["sample", "--guidance-scale", "nan"], "is not a number from"),
    (["sample", "--device", "tpu"], "is not a device"),
    (["sample", "--colour", "red"], "unrecognized arguments"),
    (["sample", "--grid", "scale"], "there is no condition"),
    (["sample", "--pose", "32", "32", "32", "65"], "is not a number from 0 to 64"),
    (["sample", "--control-start", "0.5", "--control-end", "0.5"], "must be less than"),
    (["sample", "--base-weights", "nowhere.pt"], "nowhere.pt does not exist"),
    (["sample", "--out", "."], "is not the name of a .png file"),
    (["train", "depth"], "invalid choice"),
    (["train", "base", "--out", "base.txt"], "is not the name of a .pt file"),
    (["train", "base", "--out", ""], "is not the name of a .pt file"),
    (["train", "base", "--out", "README.md/base.pt"], "cannot write"),
    (["train", "base", "--out", "x" * 300 + ".pt"], "cannot write"),
    (["train", "edge", "--batch", "0"], "is not a whole number from 1"),
    (["train", "shapes", "--batch", "8", "--out", "outputs/8.pt"], "leave out --batch"),
    (["evaluate", "--base-weights", "nowhere.pt"], "nowhere.pt does not exist"),
    (["evaluate", "--base-weights", "README.md"], "cannot be read as weights"),
])
def test_bad_arguments_get_one_sentence(words, said, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert said in error_of(capsys, *words)


def test_a_problem_is_one_line_on_stderr_and_an_exit_code():
    command = [sys.executable, "-m", "minicontrolnet", "sample", "--prompt", "pink star"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_problems_and_ctrl_c_are_told_and_other_errors_keep_their_traceback(capsys):
    """A mistake of ours must not be hidden as if the user had made it."""
    tell_problems()
    told = []
    for error in (Problem("no such colour"), KeyboardInterrupt("stopped after step 3"),
                  KeyboardInterrupt(), ZeroDivisionError("ours")):
        sys.excepthook(type(error), error, None)
        told.append(capsys.readouterr().err)
    assert told[:3] == ["error: no such colour\n", "stopped after step 3\n", "interrupted\n"]
    assert "ZeroDivisionError: ours" in told[3] and "error: " not in told[3]


@pytest.mark.parametrize("text", ["0", "6", "2.5", "nan", "inf", "two", ""])
def test_a_number_out_of_range_is_told_in_words(text):
    """What was given, and what may be."""
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number from 1 to 5"):
        in_range(int, 1, 5)(text)
    assert [in_range(int, 1, 5)(good) for good in ("1", "5")] == [1, 5]
    assert in_range(float, -1, 1)("-0.5") == -0.5


def test_a_device_that_is_not_there_is_told():
    """auto is always something, tpu is nothing, and mps and cuda are not in one machine."""
    assert device("cpu") == torch.device("cpu") and device("auto").type in ("cpu", "cuda")
    with pytest.raises(argparse.ArgumentTypeError, match="give auto, cpu, cuda or mps"):
        device("tpu")
    with pytest.raises(argparse.ArgumentTypeError, match="this machine has no"):
        [device(name) for name in ("mps", "cuda")]


def test_sample_does_not_touch_what_it_cannot_replace(tmp_path, capsys):
    (tmp_path / "folder.png").mkdir()
    said = error_of(capsys, "sample", "--count", 1, "--steps", 1, "--out", tmp_path / "folder.png")
    assert "cannot write" in said and (tmp_path / "folder.png").is_dir()
    assert len(list(tmp_path.iterdir())) == 1


def test_what_you_trained_can_be_drawn_with(tmp_path, drawing):
    """Weights of one's own, a drawing, a pose, two prompts, and a strip of strengths."""
    files = {kind: str(tmp_path / f"{kind}.pt") for kind in ("base", "edge", "pose")}
    main(["train", "base", "--steps", "1", "--out", files["base"]])
    for kind in ("edge", "pose"):
        main(["train", kind, "--steps", "1", "--base-weights", files["base"], "--out", files[kind]])
    mine = [word for kind, file in files.items() for word in (f"--{kind}-weights", file)]
    out = tmp_path / "out.png"
    main(["sample", *mine, "--edge", str(drawing), "--pose", "32", "36", "36", "16", "--steps", "1",
          "--prompt", "red star", "--prompt", "", "--grid", "scale", "--in-both",
          "--control-end", "0.5", "--out", str(out)])
    assert min(Image.open(out).size) > 300


def test_train_writes_weights_that_load_and_never_overwrites_a_run(tmp_path, capsys):
    base, edge = str(tmp_path / "base.pt"), str(tmp_path / "edge.pt")
    train_edge = ["train", "edge", "--steps", "2", "--base-weights", base, "--out", edge]
    main(["train", "base", "--steps", "2", "--out", base])
    assert "give --resume" in error_of(capsys, "train", "base", "--steps", "2", "--out", base)
    main(train_edge)
    control = load_control("edge", load_base(base), edge)
    assert any(conv.weight.any() for conv in control.zero_convs)
    assert "fingerprint" in (tmp_path / "edge.txt").read_text()
    assert "holds edge, not the weights of a base" in error_of(
        capsys, "evaluate", "--base-weights", edge, "--count", 2)
    assert "network edge, not pose" in error_of(
        capsys, "train", "pose", *train_edge[2:], "--resume")
    assert "with base" in error_of(capsys, "train", "edge", "--steps", "2", "--out", edge, "--resume")
    assert "seed 0, not 1" in error_of(capsys, *train_edge, "--resume", "--seed", "1")
    assert "batch 16, not 8" in error_of(capsys, *train_edge, "--resume", "--batch", "8")
    with in_use(tmp_path / "edge.train.pt"):
        assert "another training is writing" in error_of(capsys, *train_edge, "--resume")
    main([*train_edge, "--resume"])


def test_an_outline_that_is_open_or_not_alone_gets_a_hint(tmp_path, capsys):
    """A single line encloses nothing, a shape in a frame is two; the picture is drawn all the same."""
    for corners, said in [([(40, 100), (160, 100)], "encloses nothing"), ([(60, 60), (140, 140)], ""),
                          ([(60, 60), (140, 140), (10, 10), (190, 190)], "2 separate lines")]:
        sheet = Image.new("L", (200, 200), 255)
        if said == "encloses nothing":
            ImageDraw.Draw(sheet).line(corners, fill=0, width=5)
        else:
            for pair in zip(corners[::2], corners[1::2]):
                ImageDraw.Draw(sheet).rectangle(pair, outline=0, width=5)
        sheet.save(tmp_path / "drawing.png")
        main(["sample", "--edge", str(tmp_path / "drawing.png"), "--count", "1", "--steps", "1",
              "--out", str(tmp_path / "out.png")])
        printed = capsys.readouterr().out
        assert ("hint" in printed) == bool(said) and said in printed


@pytest.mark.parametrize("pressed, said", [
    (KeyboardInterrupt("stopped after step 7 of 9"), "step 7 of 9; saved in .*--resume goes on"),
    (KeyboardInterrupt(), "^$")])
def test_ctrl_c_says_saved_only_if_it_was(pressed, said, tmp_path, monkeypatch):
    """The first Ctrl-C saves; the second one does not wait for that."""

    def interrupted(*given, **options):
        raise pressed

    monkeypatch.setattr(__main__, "train", interrupted)
    with pytest.raises(KeyboardInterrupt, match=said):
        main(["train", "shapes", "--out", str(tmp_path / "shapes.pt")])


def test_a_poor_terminal_and_a_backend_that_is_not_there(tmp_path):
    """Jupyter's shell names a backend that a virtual environment lacks; ASCII lacks a file's letter."""
    words = ["sample", "--count", "1", "--steps", "1", "--out", str(tmp_path / "\u00fc.png")]
    poor = {**os.environ, "MPLBACKEND": "module://nowhere.backend", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "minicontrolnet", *words], cwd=ROOT, env=poor,
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and "\\xfc.png" in done.stdout, done.stderr
    assert (tmp_path / "\u00fc.png").exists()


def test_evaluate_prints_finite_numbers(capsys):
    """The base alone, on two pictures."""
    main(["evaluate", "--count", "2", "--only"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("   ")[0] for line in lines] == [
        "prompt: real pictures (ceiling)", "prompt: base", "prompt: base, shape accuracy of each",
        "prompt: shuffled prompts (floor)"]
    assert "1.000" in lines[0] and not any("nan" in line or "inf" in line for line in lines)
