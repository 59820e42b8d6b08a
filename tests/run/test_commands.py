"""The commands as a person types them: right results, and one sentence where something is wrong."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from PIL import Image, ImageDraw, ImageOps

from conftest import ROOT
from minicontrolnet import Problem, UNet, condition_of, fingerprint, held_out, load_base, load_control, save_weights, seeded
from minicontrolnet.run import train, weights
from minicontrolnet.run.checkpoint import in_use
from minicontrolnet.run.cli import main, parser
from minicontrolnet.run.files import load_file
from minicontrolnet.run.sample import map_from_file
from minicontrolnet.run.options import device, in_range, report_problems
from minicontrolnet.training import Training


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


@pytest.mark.parametrize("words, names", [
    (["sample", "--prompt", "pink star"], "pink"),
    (["sample", "--prompt", "star red"], "star red"),
    (["sample", "--edge", "nowhere.png"], "nowhere.png"),
    (["sample", "--edge", "README.md"], "README.md"),
    (["sample", "--edge-from", "lessons"], "lessons"),
    (["sample", "--edge", "a.png", "--edge-from", "b.png"], "--edge"),
    (["sample", "--count", "0"], "--count"),
    (["sample", "--steps", "-3"], "-3"),
    (["sample", "--guidance-scale", "nan"], "nan"),
    (["sample", "--device", "tpu"], "tpu"),
    (["sample", "--colour", "red"], "--colour"),
    (["sample", "--grid", "scale"], "--grid"),
    (["sample", "--pose", "32", "32", "32", "65"], "65"),
    (["sample", "--control-start", "0.5", "--control-end", "0.5"], "--control-start"),
    (["sample", "--pose", "32", "36", "36", "16", "--steps", "2", "--control-start", "0.6", "--control-end", "0.9"],
     "2"),
    (["sample", "--base-weights", "nowhere.pt"], "nowhere.pt"),
    (["sample", "--out", "."], "--out"),
    (["train", "depth"], "depth"),
    (["train", "base", "--out", "base.txt"], "base.txt"),
    (["train", "base", "--out", ""], "--out"),
    (["train", "base", "--out", "README.md/base.pt"], "README.md/base.pt"),
    (["train", "base", "--out", "x" * 300 + ".pt"], "x" * 300),
    (["train", "edge", "--batch", "0"], "--batch"),
    (["train", "shapes", "--batch", "8", "--out", "outputs/8.pt"], "--batch"),
    (["evaluate", "--base-weights", "nowhere.pt"], "nowhere.pt"),
    (["evaluate", "--base-weights", "README.md"], "README.md"),
])
def test_bad_arguments_get_one_sentence(words, names, capsys, monkeypatch):
    """It names what was given."""
    monkeypatch.chdir(ROOT)
    assert names in error_of(capsys, *words)


def test_a_problem_is_one_line_on_stderr_and_an_exit_code():
    command = [sys.executable, "-m", "minicontrolnet", "sample", "--prompt", "pink star"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_problems_and_ctrl_c_become_one_line_and_other_errors_keep_their_traceback(capsys):
    """A mistake of ours must not be hidden as if the user had made it."""
    report_problems()
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
    with pytest.raises(argparse.ArgumentTypeError, match="from 1 to 5"):
        in_range(int, 1, 5)(text)
    assert [in_range(int, 1, 5)(good) for good in ("1", "5")] == [1, 5]
    assert in_range(float, -1, 1)("-0.5") == -0.5


def test_a_device_that_is_not_there_is_told():
    """auto is always something, tpu is nothing, and mps and cuda are not in one machine."""
    assert device("cpu") == torch.device("cpu") and device("auto").type in ("cpu", "cuda")
    with pytest.raises(argparse.ArgumentTypeError, match="tpu"):
        device("tpu")
    with pytest.raises(argparse.ArgumentTypeError, match="cuda|mps"):
        [device(name) for name in ("mps", "cuda")]


def test_sample_does_not_touch_what_it_cannot_replace(tmp_path, capsys):
    (tmp_path / "folder.png").mkdir()
    said = error_of(capsys, "sample", "--count", 1, "--steps", 1, "--out", tmp_path / "folder.png")
    assert "cannot write" in said and (tmp_path / "folder.png").is_dir()
    assert len(list(tmp_path.iterdir())) == 1


def test_what_you_trained_can_be_drawn_with(tmp_path, drawing):
    """Weights of one's own, a drawing, a pose, two prompts, and a strip of strengths."""
    files = {kind: str(tmp_path / f"{kind}.pt") for kind in ("base", "edge", "pose")}
    main(["train", "base", "--steps", "1", "--batch", "2", "--out", files["base"]])
    for kind in ("edge", "pose"):
        main(["train", kind, "--steps", "1", "--batch", "2", "--base-weights", files["base"],
              "--out", files[kind]])
    mine = [word for kind, file in files.items() for word in (f"--{kind}-weights", file)]
    out = tmp_path / "out.png"
    main(["sample", *mine, "--edge", str(drawing), "--pose", "32", "36", "36", "16", "--steps", "1",
          "--prompt", "red star", "--prompt", "", "--grid", "scale", "--in-both",
          "--control-end", "0.5", "--out", str(out)])
    assert min(Image.open(out).size) > 300


def test_train_writes_weights_that_load_and_never_overwrites_a_run(tmp_path, capsys):
    """Whatever does not belong to a run is refused, and named: another network, base, seed or batch."""
    base, edge = str(tmp_path / "base.pt"), str(tmp_path / "edge.pt")
    train_edge = ["train", "edge", "--steps", "2", "--batch", "2", "--base-weights", base, "--out", edge]
    main(["train", "base", "--steps", "2", "--batch", "2", "--out", base])
    assert "--resume" in error_of(capsys, "train", "base", "--steps", "2", "--out", base)
    main(train_edge)
    control = load_control("edge", load_base(base), edge)
    assert any(conv.weight.any() for conv in control.zero_convs)
    assert edge in error_of(capsys, "evaluate", "--base-weights", edge, "--count", 2)
    assert "network" in error_of(capsys, "train", "pose", *train_edge[2:], "--resume")
    assert "base" in error_of(capsys, "train", "edge", "--steps", "2", "--batch", "2", "--out", edge, "--resume")
    assert "seed" in error_of(capsys, *train_edge, "--resume", "--seed", "1")
    assert "batch" in error_of(capsys, *train_edge, "--resume", "--batch", "8")
    with in_use(tmp_path / "edge.train.pt"):
        assert "edge.train.pt" in error_of(capsys, *train_edge, "--resume")
    main([*train_edge, "--resume"])


def recorded_command(path):
    """The command that the text file beside weights lists."""
    first = path.with_suffix(".txt").read_text().splitlines()[0]
    assert first.startswith("command: ")
    return first.removeprefix("command: ")


def test_the_record_holds_the_words_that_were_given(tmp_path, monkeypatch):
    """These are main's words, not those of the program that called it, and a shell reads them as they were."""
    monkeypatch.setattr(sys, "argv", ["somebody", "else's", "words"])
    out = tmp_path / "my base.pt"
    words = ["train", "base", "--steps", "1", "--batch", "2", "--out", str(out)]
    main(words)
    assert shlex.split(recorded_command(out)) == ["python", "-m", "minicontrolnet", *words]


def test_the_record_of_a_resumed_run_is_the_command_that_started_it(tmp_path, monkeypatch):
    """Whoever repeats it gets the whole run, and not its last leg."""
    words = ["train", "base", "--steps", "4", "--batch", "2", "--out", str(tmp_path / "base.pt")]
    monkeypatch.setattr(train, "Training", stopped_at(2))
    with pytest.raises(KeyboardInterrupt):
        main(words)
    monkeypatch.undo()
    main([*words, "--res", "--device", "cpu"])
    assert shlex.split(recorded_command(tmp_path / "base.pt"))[3:] == words


def stopped_at(last):
    """A Training during whose step ``last`` somebody presses Ctrl-C."""

    class Interrupted(Training):
        def __iter__(self):
            for step, loss in super().__iter__():
                if step == last:
                    signal.raise_signal(signal.SIGTERM)
                yield step, loss

    return Interrupted


@pytest.mark.parametrize("what", ["base", "edge", "shapes"])
def test_a_command_stopped_and_resumed_equals_one_without_a_break(what, tmp_path, monkeypatch):
    """The weights and the whole state are equal bit for bit, but for the time."""
    batch = [] if what == "shapes" else ["--batch", "2"]
    for name in ("whole", "broken"):
        words = ["train", what, "--steps", "4", *batch, "--out", str(tmp_path / f"{name}.pt")]
        if name == "broken":
            monkeypatch.setattr(train, "Training", stopped_at(2))
            with pytest.raises(KeyboardInterrupt, match="step 2 of 4"):
                main(words)
            monkeypatch.undo()
            assert load_file(tmp_path / "broken.train.pt")["training"]["step"] == 2
            assert not (tmp_path / "broken.pt").exists(), "no weights before the end"
            words.append("--resume")
        main(words)
    whole, broken = (load_file(tmp_path / f"{name}.pt") for name in ("whole", "broken"))
    assert same(whole, broken)
    whole, broken = (load_file(tmp_path / f"{name}.train.pt")["training"] for name in ("whole", "broken"))
    assert same(whole, broken)


def test_a_run_is_saved_regularly(tmp_path, monkeypatch):
    """Every 500 steps, and at the end; so a power cut costs no more than that."""
    saved = []
    monkeypatch.setattr(train.Checkpoint, "save", lambda self: saved.append(self.training.step))
    monkeypatch.setattr(train, "base_loss", lambda network, generator, **options: quick_loss(network))
    for module in (train, weights):
        monkeypatch.setattr(module, "UNet", lambda: nn.Linear(2, 2))
    assert train.SAVE_EVERY == 500
    monkeypatch.setattr(train, "SAVE_EVERY", 5)
    main(["train", "base", "--steps", "12", "--out", str(tmp_path / "base.pt")])
    assert saved == [5, 10, 12]


def quick_loss(network):
    return (network.weight - 1).square().mean()


def test_training_can_start_from_the_weights_of_another_condition(tmp_path, shipped):
    """After one tiny step the layers are still close to the shipped ones; the first one is new where it must be."""
    for kind, source in [("pose", "edge"), ("palette", "edge")]:
        out = tmp_path / f"{kind}.pt"
        main(["train", kind, "--steps", "1", "--batch", "2", "--start-from", source, "--out", str(out)])
        found, start = load_control(kind, shipped.base, out).state_dict(), shipped.controls[source].state_dict()
        far = {name for name in start if found[name].shape != start[name].shape
               or (found[name] - start[name]).abs().max() > 0.01}
        assert far == (set() if kind == "pose" else {"condition_encoder.layers.0.weight"})


def test_a_start_that_was_trained_on_another_base_is_told(tmp_path, capsys):
    """A hint, as sample gives one, and the training goes on. With the start's own base there is none."""
    other = tmp_path / "other.pt"
    save_weights(seeded(0, UNet), "base", other)
    for name, words, told in (("a", ["--base-weights", str(other)], True), ("b", [], False)):
        out = tmp_path / f"{name}.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            main(["train", "edge", "--steps", "1", "--batch", "2", "--start-from", "edge", "--out", str(out), *words])
        said = capsys.readouterr().err
        assert ("hint: the edge ControlNet" in said and "trained on another base than this one" in said) == told
        assert out.exists()


def test_only_a_controlnet_starts_from_another_one(tmp_path, capsys):
    out = str(tmp_path / "out.pt")
    assert "--start-from" in error_of(capsys, "train", "base", "--start-from", "edge", "--out", out)
    for source in ("nowhere.pt", str(ROOT / "minicontrolnet" / "weights" / "base.pt")):
        assert source in error_of(capsys, "train", "edge", "--start-from", source, "--out", out)


def same(a, b):
    """Whether two nested contents are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("what, hint", [("line", True), ("square", False), ("square in a frame", True)])
def test_an_outline_that_is_open_or_not_alone_gets_a_hint(what, hint, tmp_path, capsys):
    """A single line encloses nothing, a shape in a frame is two; the picture is made all the same."""
    sheet = Image.new("L", (200, 200), 255)
    pen = ImageDraw.Draw(sheet)
    if what == "line":
        pen.line([(40, 100), (160, 100)], fill=0, width=5)
    else:
        pen.rectangle([(60, 60), (140, 140)], outline=0, width=5)
    if what == "square in a frame":
        pen.rectangle([(10, 10), (190, 190)], outline=0, width=5)
    sheet.save(tmp_path / "drawing.png")
    main(["sample", "--edge", str(tmp_path / "drawing.png"), "--count", "1", "--steps", "1",
          "--out", str(tmp_path / "out.png")])
    assert ("enclose" in capsys.readouterr().out) == hint
    assert (tmp_path / "out.png").exists()


@pytest.mark.parametrize("inverted", [False, True])
def test_a_drawing_whose_lower_half_is_inverted_gets_a_hint(inverted, tmp_path, capsys):
    """White on black below black on white: only one half is traced, and the border of the papers closes it."""
    sheet = Image.new("L", (256, 256), 255)
    ImageDraw.Draw(sheet).line([(128, 50), (200, 130), (128, 210), (56, 130), (128, 50), (200, 130)], fill=0, width=5)
    if inverted:
        sheet.paste(ImageOps.invert(sheet.crop((0, 130, 256, 256))), (0, 130))
    sheet.save(tmp_path / "drawing.png")
    main(["sample", "--edge", str(tmp_path / "drawing.png"), "--count", "1", "--steps", "1", "--plain",
          "--out", str(tmp_path / "out.png")])
    assert ("hint: a part of the drawing is inverted" in capsys.readouterr().out) == inverted


def test_a_loss_that_is_not_finite_names_the_last_good_state(tmp_path, monkeypatch, capsys):
    """The state that was saved before is still there, and the message says where."""
    calls = []

    def loss(network, generator, **options):
        calls.append(1)
        return quick_loss(network) * (torch.nan if len(calls) == 8 else 1)

    monkeypatch.setattr(train, "base_loss", loss)
    monkeypatch.setattr(train, "UNet", lambda: nn.Linear(2, 2))
    monkeypatch.setattr(train, "SAVE_EVERY", 5)
    out = tmp_path / "base.pt"
    assert str(tmp_path / "base.train.pt") in error_of(capsys, "train", "base", "--steps", "12", "--out", out)
    assert load_file(tmp_path / "base.train.pt")["training"]["step"] == 5 and not out.exists()


@pytest.mark.slow
def test_a_poor_terminal_and_a_backend_that_is_not_there(tmp_path):
    """Jupyter's shell names a backend that a virtual environment lacks; ASCII lacks a file's letter."""
    words = ["sample", "--count", "1", "--steps", "1", "--out", str(tmp_path / "\u00fc.png")]
    poor = {**os.environ, "MPLBACKEND": "module://nowhere.backend", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "minicontrolnet", *words], cwd=ROOT, env=poor,
                          capture_output=True, text=True)
    assert done.returncode == 0 and "\\xfc.png" in done.stdout, done.stderr
    assert (tmp_path / "\u00fc.png").exists()


@pytest.mark.slow
def test_a_backend_without_sense_is_told_before_any_work(tmp_path):
    words = ["sample", "--count", "1", "--steps", "1", "--out", str(tmp_path / "a.png")]
    done = subprocess.run([sys.executable, "-m", "minicontrolnet", *words], cwd=ROOT, capture_output=True,
                          text=True, env={**os.environ, "MPLBACKEND": "nonsense"})
    assert done.returncode == 1 and "MPLBACKEND" in done.stderr
    assert "Traceback" not in done.stderr and "sampling" not in done.stderr


def test_evaluate_prints_finite_numbers(capsys):
    """The base alone, on two pictures."""
    main(["evaluate", "--count", "2", "--only"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("   ")[0] for line in lines] == [
        "prompt: real pictures (ceiling)", "prompt: base", "prompt: base, shape accuracy of each",
        "prompt: shuffled prompts (floor)"]
    assert "1.000" in lines[0] and not any("nan" in line or "inf" in line for line in lines)


def test_options_without_a_condition_are_told(tmp_path, capsys):
    """They have no effect; the picture is that of the prompt alone."""
    main(["sample", "--count", "1", "--steps", "1", "--plain", "--out", str(tmp_path / "a.png"),
          "--conditioning-scale", "0.5", "--control-start", "0.2", "--in-both", "--pose-weights", str(weights.WEIGHTS / "edge.pt")])
    hint = capsys.readouterr().out
    for option in ("--conditioning-scale", "--control-start", "--in-both", "--pose-weights"):
        assert option in hint
    assert "--control-end" not in hint


@pytest.mark.parametrize("words", [["evaluate", "--count", "2", "--only"],
                                   ["sample", "--count", "1", "--steps", "1", "--plain", "--out", "a.png"]])
def test_weights_of_a_controlnet_that_takes_no_part_are_told(words, tmp_path, monkeypatch, capsys):
    """A hint names the option. A file that does not exist is refused, since its name is probably mistyped."""
    monkeypatch.chdir(tmp_path)
    assert "--pose-weights nope.pt does not exist" in error_of(capsys, *words, "--pose-weights", "nope.pt")
    assert not list(tmp_path.iterdir())
    main([*words, "--pose-weights", str(weights.WEIGHTS / "pose.pt")])
    assert "hint: --pose-weights has no effect" in capsys.readouterr().out
    main(words)
    assert "hint" not in capsys.readouterr().out


@pytest.mark.parametrize("words, says", [
    (["--guidance-scale", "1", "--prompt", "red", "--in-both", "--pose", "32", "36", "36", "16"], "--in-both"),
    (["--guidance-scale", "0", "--prompt", "red star"], "the prompt"),
    (["--guidance-scale", "5"], "--guidance-scale"),
    (["--guidance-scale", "1", "--prompt", "red", "--pose", "32", "36", "36", "16"], ""),
    (["--guidance-scale", "5", "--prompt", "red"], ""),
    (["--guidance-scale", "5", "--pose", "32", "36", "36", "16"], ""),
])
def test_guidance_that_cannot_be_seen_is_told(words, says, tmp_path, capsys):
    """Where there is a hint, the picture is the same without the option; where there is none, it is another one."""
    common = ["sample", "--count", "1", "--steps", "1", "--plain", "--out", str(tmp_path / "a.png")]
    main([*common, *words])
    said = capsys.readouterr().out
    assert f"{says} has no effect" in said if says else "hint" not in said
    picture = (tmp_path / "a.png").read_bytes()
    if "--in-both" in words:
        main([*common, *(word for word in words if word != "--in-both")])
    elif "--prompt" in words and says:
        main([*common, *(word.replace("red star", "blue circle") for word in words)])
    else:
        main([*common, "--guidance-scale", "2", *words[2:]])
    assert ((tmp_path / "a.png").read_bytes() == picture) == bool(says)


def test_the_folder_alone_starts_the_commands_as_well():
    """As python lessons/exercises does."""
    command = [sys.executable, "minicontrolnet", "sample", "--prompt", "pink star"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "pink" in done.stderr


def test_a_black_edge_map_is_told(tmp_path, capsys):
    Image.new("L", (64, 64)).save(tmp_path / "black.png")
    main(["sample", "--count", "1", "--steps", "1", "--plain", "--out", str(tmp_path / "a.png"),
          "--edge-map", str(tmp_path / "black.png")])
    assert "black everywhere" in capsys.readouterr().out


@pytest.mark.parametrize("words, says", [
    (["--conditioning-scale", "0", "--edge", "DRAWING"], "the conditions have no effect"),
    (["--connection-scales", *["0"] * 13, "--edge", "DRAWING"], "the conditions have no effect"),
    (["--pose", "32", "36", "32", "36"], "shows no direction"),
    (["--pose", "0.1", "0.2", "0.3", "0.4"], "shows no direction"),
    (["--pose", "32", "36", "36", "16"], ""),
])
def test_control_that_cannot_be_seen_is_told(words, says, tmp_path, capsys, drawing):
    words = [str(drawing) if word == "DRAWING" else word for word in words]
    main(["sample", "--count", "1", "--steps", "1", "--plain", "--out", str(tmp_path / "a.png"), *words])
    said = capsys.readouterr().out
    assert says in said if says else "hint" not in said


@pytest.mark.parametrize("words, says", [
    (["--guidance-scale", "0", "--edge", "DRAWING"], "at guidance scale 0"),
    (["--edge-map", "pose.png"], "the edge ControlNet was trained on edge maps"),
    (["--edge-map", "grey.png"], "the edge ControlNet was trained on edge maps"),
])
def test_what_sample_warns_of_is_a_hint_of_the_command(words, says, tmp_path, drawing, monkeypatch, capsys):
    pose = condition_of("pose", held_out(1)[0])[0, 0]
    Image.fromarray((pose * 255).byte().numpy()).save(tmp_path / "pose.png")
    Image.new("L", (64, 64), 128).save(tmp_path / "grey.png")
    monkeypatch.chdir(tmp_path)
    words = [str(drawing) if word == "DRAWING" else word for word in words]
    main(["sample", "--count", "1", "--steps", "1", "--plain", "--out", "a.png", *words])
    said = capsys.readouterr().err
    assert "hint: " in said and says in said


def test_a_scale_beside_a_grid_of_scales_is_told(tmp_path, capsys, drawing):
    main(["sample", "--grid", "scale", "--conditioning-scale", "2", "--steps", "1", "--plain", "--edge", str(drawing),
          "--out", str(tmp_path / "a.png")])
    assert "--conditioning-scale has no effect" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["base", "shapes"])
def test_a_base_is_not_trained_from_another_base(what, tmp_path, capsys):
    words = ["train", what, "--steps", "1", "--base-weights", "some.pt", "--out", tmp_path / "x.pt"]
    assert "--base-weights is for ControlNets" in error_of(capsys, *words)
    assert not list(tmp_path.iterdir())


def test_the_shipped_control_on_another_base_is_told(tmp_path, capsys):
    """The picture is made all the same. With the shipped base there is no hint."""
    save_weights(seeded(1, UNet), "base", tmp_path / "mine.pt")
    for words, told in ((["--base-weights", str(tmp_path / "mine.pt")], True), ([], False)):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            main(["sample", "--pose", "32", "36", "36", "16", "--count", "1", "--steps", "1", "--plain",
                  "--out", str(tmp_path / "a.png"), *words])
        said = capsys.readouterr().err
        assert ("hint: the pose ControlNet that ships was trained on another base than this one" in said) == told
        assert (tmp_path / "a.png").exists()


# %% Names of files as people type them


@pytest.mark.parametrize("option", ["--edge", "--edge-from", "--edge-map", "--palette", "--region", "--base-weights",
                                    "--edge-weights", "--out"])
def test_names_that_are_none_are_told(option, capsys):
    assert f"{option}: '' is empty" in error_of(capsys, "sample", option, "")
    for address in ("http://example.org/a.png", "file:///tmp/a.png"):
        assert f"{address!r} is an address; download the file first" in error_of(capsys, "sample", option, address)
    assert "has no value" in error_of(capsys, "sample", f"{option}=--")


@pytest.mark.parametrize("words", ["sample red star", "sample --prompt red star", "board --prompt red star on blue"])
def test_a_prompt_without_quotes_is_told_to_have_them(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "star" in said and 'in quotes, behind its option, such as --prompt "red' in said


def test_a_mistyped_option_has_nothing_to_do_with_quotes(capsys):
    with pytest.raises(SystemExit):
        main(["sample", "--promt", "red star"])
    assert "--promt" in (said := capsys.readouterr().err) and "quotes" not in said


def test_two_dashes_are_no_prompt(capsys):
    assert "'--prompt=--' has no value" in error_of(capsys, "sample", "--prompt=--")
    assert "'--seed=--' has no value" in error_of(capsys, "train", "edge", "--seed=--")


def test_a_tilde_is_the_home_folder(tmp_path, drawing, monkeypatch, capsys):
    """The shell leaves it in quotes and after =. It must not become a folder named ~."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    main(["sample", "--edge", "~/triangle.png", "--count", "1", "--steps", "1", "--plain", "--out=~/a.png"])
    assert (tmp_path / "a.png").exists() and not (tmp_path / "~").exists()
    assert str(tmp_path / "none.png") in error_of(capsys, "sample", "--edge", "~/none.png")


@pytest.mark.parametrize("name, says", [("~/a", "only a shell replaces ~"), ("http://x.org/a", "it is an address"),
                                        ("nowhere", "check the name")])
def test_names_given_to_functions_are_told_as_well(name, says):
    from minicontrolnet import edges_from_drawing

    for read in (edges_from_drawing, load_base):
        with pytest.raises(Problem, match=says):
            read(name)


@pytest.mark.parametrize("words", [["--edge", "a.png", "--edge", "b.png"],
                                   ["--pose", *"20 20 20 10".split(), "--pose", *"44 44 44 30".split()]])
def test_a_second_condition_of_a_kind_is_refused(words, capsys):
    assert "is given twice" in error_of(capsys, "sample", *words)


@pytest.mark.parametrize("pose, tilted", [("32 36 32 16", False), ("32 36 42 18", False), ("32 32 48 32", True),
                                          ("32 32 16 32", True), ("32 20 32 40", True)])
def test_a_pose_that_no_training_showed_is_told(pose, tilted, tmp_path, capsys):
    main(["sample", "--pose", *pose.split(), "--count", "1", "--steps", "1", "--out", str(tmp_path / "a.png")])
    assert ("hint: the pose is tilted by" in capsys.readouterr().out) == tilted


def test_a_line_drawing_for_the_edge_detector_gets_a_hint(tmp_path, drawing, capsys):
    words = ["--count", "1", "--steps", "1", "--plain", "--out", str(tmp_path / "a.png")]
    main(["sample", "--edge-from", str(drawing), *words])
    assert "hint: the picture looks like a line drawing" in capsys.readouterr().out
    main(["sample", "--edge", str(drawing), *words])
    assert "line drawing" not in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="links need rights there, and names are always Unicode")
@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9.pt"), "link.pt"])
def test_training_writes_through_a_dangling_link_and_under_any_name(name, tmp_path):
    """A name need not be UTF-8. The link stays, and what it points to is what was trained."""
    out = tmp_path / name
    if name == "link.pt":
        out.symlink_to(tmp_path / "new" / "edge.pt")
    main(["train", "edge", "--steps", "1", "--batch", "2", "--out", str(out)])
    assert out.is_symlink() == (name == "link.pt") and (name != "link.pt" or (tmp_path / "new" / "edge.pt").is_file())
    base = load_base()
    mark = out.with_suffix(".txt").read_text(encoding="utf-8").split("fingerprint: ")[1].split("\n")[0]
    assert fingerprint(load_file(out)["weights"]) == mark
    assert load_control("edge", base, out).kind == "edge"


def test_a_region_is_empty_where_its_picture_is_transparent(tmp_path):
    picture = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    picture.paste((255, 255, 255, 255), (0, 0, 32, 64))
    picture.save(tmp_path / "region.png")
    region = map_from_file(tmp_path / "region.png", 1)
    assert (region[..., :32] == 1).all() and (region[..., 32:] == 0).all()


def test_only_may_be_given_twice():
    for command in ("doctor", "evaluate"):
        args = parser().parse_args([command, "--only", "edge", "--only", "pose"])
        assert args.only == ["edge", "pose"]


def test_a_coloured_region_is_refused_and_a_grey_one_is_told(tmp_path, capsys):
    """A mask of a segmentation has a table of colours. Its red would be taken for grey, and its green for black."""
    mask = Image.new("P", (64, 64), 1)
    mask.putpalette([0, 0, 0, 128, 0, 0])
    mask.save(tmp_path / "classes.png")
    with pytest.raises(Problem, match="is coloured"):
        map_from_file(tmp_path / "classes.png", 1)
    Image.new("L", (64, 64), 127).save(tmp_path / "grey.png")
    edges = tmp_path / "edges.png"
    outline = Image.new("L", (64, 64))
    ImageDraw.Draw(outline).ellipse([12, 12, 52, 52], outline=255)
    outline.save(edges)
    main(["sample", "--edge-map", str(edges), "--region", str(tmp_path / "grey.png"), "--steps", "1", "--count", "1",
          "--plain", "--out", str(tmp_path / "out.png")])
    assert "hint: the region is grey, at most 0.50 of white" in capsys.readouterr().out
