"""The commands as a person types them: right results, and one sentence where something is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from minicontrolnet import load_base, load_control
from minicontrolnet.__main__ import main
from minicontrolnet.training import load_file

ROOT = Path(__file__).parents[1]


def error_of(capsys, *words: object) -> str:
    """What a failing command says: no traceback, no exit code 0."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code not in (0, None)
    return end.value.code if isinstance(end.value.code, str) else capsys.readouterr().err


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
    (["train", "depth"], "invalid choice"),
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


def test_sample_does_not_touch_what_it_cannot_replace(tmp_path, capsys):
    (tmp_path / "folder.png").mkdir()
    said = error_of(capsys, "sample", "--count", 1, "--steps", 1, "--out", tmp_path / "folder.png")
    assert "cannot write" in said and (tmp_path / "folder.png").is_dir()
    assert len(list(tmp_path.iterdir())) == 1


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
    main([*train_edge, "--resume"])


def test_shipped_weights_are_locked_and_match_their_records():
    base = load_base()
    for kind in ("edge", "palette"):
        control = load_control(kind, base)
        assert not any(p.requires_grad for p in [*base.parameters(), *control.parameters()])
        assert all(conv.weight.abs().max() > 0 for conv in control.zero_convs)
    assert base.decoder.conv_out.weight.abs().max() > 0


def test_a_changed_weight_file_is_noticed(tmp_path, monkeypatch):
    from minicontrolnet import Problem, pretrained

    content = load_file(pretrained.WEIGHTS / "base.pt")
    content["weights"]["encoder.conv_in.bias"][0] += 1
    torch.save(content, tmp_path / "base.pt")
    (tmp_path / "base.txt").write_bytes((pretrained.WEIGHTS / "base.txt").read_bytes())
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    with pytest.raises(Problem, match="not the file that was shipped"):
        load_base()
