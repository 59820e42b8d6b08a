"""The capstone: what is wrong with a condition is told, and points follow what is measured."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from minicontrolnet import ControlNet, Problem, held_out, load_base, seeded
from minicontrolnet import Paired

RANDOM = "torch.rand(len(batch.mask), 1, 64, 64, generator=generator)"


sys.path.append(str(Path(__file__).parents[2] / "lessons"))

from exercises import capstone  # noqa: E402


def written(tmp_path, body, head="CHANNELS = 1"):
    path = tmp_path / "mine.py"
    path.write_text(f"import torch\n{head}\n\n\ndef condition(batch, generator):\n    {body}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("body, said", [
    ("return batch.image", "condition returns (1, 3, 64, 64) for 1 pictures; return a tensor (1, 1, 64, 64)"),
    ("return 1", "condition returns int"),
    ("return 2 * batch.mask", "values from 0 to 2"),
    ("return batch.mask / 0", "values from"),
    ("return torch.rand(len(batch.mask), 1, 64, 64)", "gives two results for the same"),
    ("return batch.mask.mul_(0.5)", "changes the batch"),
    ("return 0 * batch.mask", "is the same for every picture"),
    ("return batch.masks", "AttributeError in line 6 of mine.py: return batch.masks"),
    ("exit()", "your code ends the whole program"),
    ("return (", "SyntaxError"),
])
def test_what_is_wrong_is_one_sentence(body, said, tmp_path):
    """Of a condition that no ControlNet could learn from."""
    with pytest.raises(Problem) as found:
        capstone.read_condition(written(tmp_path, body))
    assert said in str(found.value) and "\n" not in str(found.value)


def test_other_files_are_told(tmp_path):
    """None, one without a condition, one with strange channels."""
    with pytest.raises(Problem, match="does not exist"):
        capstone.read_condition(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("", encoding="utf-8")
    with pytest.raises(Problem, match="CHANNELS"):
        capstone.read_condition(tmp_path / "empty.py")
    for channels in ("0", "'1'", "99"):
        with pytest.raises(Problem, match="whole number from 1 to 16"):
            capstone.read_condition(written(tmp_path, "return batch.mask", f"CHANNELS = {channels}"))


def test_a_condition_is_the_same_when_it_is_graded(tmp_path):
    """Random ones, too: without a generator each call begins at one state."""
    own = capstone.read_condition(written(tmp_path, f"return {RANDOM}"))
    truth, _ = held_out(3)
    assert own.channels == 1 and torch.equal(own.of(truth), own.of(truth))
    assert not torch.equal(own.of(truth), own.of(truth, torch.Generator().manual_seed(5)))


def test_points():
    """One each: used; better than no control; half of the way or more."""
    yes, no = Paired(0.1, 0.2, 0.3), Paired(-0.1, 0.0, 0.1)
    means = lambda iou, place: {"mask IoU": torch.tensor([iou]), "place error": torch.tensor([place])}
    free = means(0.4, 10.0)
    points = lambda used, iou, place, own: capstone.points(used, {"mask IoU": iou, "place error": place}, own, free)
    assert points(no, no, no, means(0.4, 10.0)) == 0
    assert points(yes, no, no, means(0.9, 1.0)) == 1
    assert points(yes, yes, no, means(0.6, 10.0)) == 2
    assert points(yes, yes, no, means(0.71, 10.0)) == 3
    assert points(yes, no, yes, means(0.4, 5.0)) == 3 and points(yes, no, yes, means(0.4, 5.1)) == 2


def test_better_is_up_for_iou_and_down_for_errors():
    """By real pictures against those of a neighbour."""
    truth, _ = held_out(6)
    own, other = (capstone.scores(truth.image.roll(i, 0), truth) for i in (0, 1))
    assert all(it.mean > 0 for it in capstone.compare(own, other).values())
    assert own["mask IoU"].min() > 0.99 and own["place error"].max() < 0.5


def test_from_the_template_to_the_grade(tmp_path, monkeypatch, capsys):
    """Two steps of training: an untrained copy earns nothing; all files are there."""
    monkeypatch.setattr(capstone, "ANSWERS", tmp_path / "answers")
    monkeypatch.setattr(capstone, "DDIM_STEPS", 2)
    capstone.main(["--steps", "2", "--count", "4", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert (tmp_path / "answers" / "capstone.py").exists() and "points: " in said
    found = json.loads((tmp_path / "capstone.json").read_text(encoding="utf-8"))
    assert found["points"] <= 1 and abs(found["shuffle gap"][1]) < 1e-3
    assert (tmp_path / "capstone.png").stat().st_size > 10_000
    assert math.isclose(found["scores"]["real pictures (ceiling)"]["mask IoU"], 1, abs_tol=0.01)


def test_untrained_it_is_not_used(tmp_path):
    """Zero convs: the gap is 0 and the pictures are the base's own."""
    own = capstone.read_condition(written(tmp_path, "return batch.mask"))
    base = load_base()
    measured, images = capstone.grade(base, seeded(0, ControlNet, base), own, *held_out(4), ddim_steps=2)
    assert measured["shuffle gap"] == (0, 0, 0) and measured["points"] == 0
    assert torch.equal(images["no control, no words"], images["condition, no words"])
