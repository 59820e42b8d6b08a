"""The capstone: a wrong condition gets one sentence, and the points follow from what is measured."""

import io
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minicontrolnet import ControlNet, Problem, held_out, load_base, seeded
from minicontrolnet import Paired

RANDOM = "torch.rand(len(batch.mask), 1, 64, 64, generator=generator)"


LESSONS = Path(__file__).parents[2] / "lessons"
sys.path.append(str(LESSONS))

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
    ("batch.scenes.centre.zero_(); return batch.mask", "changes the batch"),
    ("return batch.mask * 1.001", "values from"),
    ("return batch.mask * float('nan')", "values from nan"),
    ("return 0 * batch.mask", "is the same for every picture"),
    ("return batch.mask.roll(1, 0)", "depends on the other pictures"),
    ("return batch.mask.sort(0).values", "depends on the other pictures"),
    ("return batch.mask / len(batch.mask)", "depends on the other pictures"),
    ("return batch.mask * (torch.arange(len(batch.mask)).view(-1, 1, 1, 1) % 2)", "on its place among them"),
    ("return batch.mask * (torch.arange(len(batch.mask)).view(-1, 1, 1, 1) < 15)", "on its place among them"),
    ("return batch.masks", "AttributeError in line 6 of mine.py: return batch.masks"),
    ("input()", "Remove the input()"),
    ("exit()", "Your code ends the whole program. Remove the exit(); correct"),
    ("return (", "SyntaxError"),
])
def test_what_is_wrong_is_one_sentence(body, said, tmp_path, monkeypatch):
    """No ControlNet could learn from such a condition."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(Problem) as found:
        capstone.read_condition(written(tmp_path, body))
    assert said in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize("body", ["return batch.mask * torch.rand(len(batch.mask), 1, 1, 1, generator=generator)",
                                  "return torch.nn.functional.avg_pool2d(batch.mask, 17, stride=1, padding=8)",
                                  "return batch.mask.bool()"])
def test_a_condition_of_each_picture_alone_is_accepted(body, tmp_path):
    """Also if it is random: then the pictures of a batch get other random numbers than a picture alone."""
    capstone.read_condition(written(tmp_path, body))


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="there is no alarm")
@pytest.mark.parametrize("body, head", [("while True: pass", "CHANNELS = 1"), ("return batch.mask", "while True: pass")])
def test_a_loop_without_end_is_told_with_its_line(body, head, tmp_path, monkeypatch):
    """In the function, and outside of it."""
    monkeypatch.setattr(capstone, "SECONDS", 1)
    with pytest.raises(Problem, match="no result after 1 seconds, in line . of mine.py: while True: pass"):
        capstone.read_condition(written(tmp_path, body, head))


def test_a_value_above_one_by_rounding_is_clamped(tmp_path):
    own = capstone.read_condition(written(tmp_path, "return batch.mask * 1.0000002"))
    truth, _ = held_out(3)
    assert own.of(truth).max() == 1


def test_a_condition_cannot_spoil_its_own_grading(tmp_path):
    """It passes the check, and later it changes its batch in place. Our batch stays as it is."""
    own = capstone.read_condition(written(
        tmp_path, "if len(batch.mask) > 16: batch.scenes.centre.zero_()\n    return batch.mask"))
    truth, _ = held_out(17)
    before = truth.map(torch.clone)
    with pytest.raises(Problem, match="changes the batch"):
        own.of(truth)
    assert all(map(torch.equal, capstone.tensors_of(before), capstone.tensors_of(truth)))


def test_a_condition_that_fails_later_ends_with_a_sentence(tmp_path):
    truth, _ = held_out(17)
    for late, message in (("raise ValueError('six')", "ValueError in line 6"), ("return -batch.mask", "values from -1")):
        own = capstone.read_condition(written(tmp_path, f"if len(batch.mask) > 16: {late}\n    return batch.mask"))
        with pytest.raises(Problem, match=message):
            own.of(truth)


def test_the_file_may_have_any_ending(tmp_path):
    path = written(tmp_path, "return batch.mask")
    assert capstone.read_condition(path.rename(tmp_path / "mine.txt")).channels == 1


def test_random_conditions_differ_from_batch_to_batch_in_training(tmp_path, monkeypatch):
    """Their random numbers come from the generator of the training."""
    own = capstone.read_condition(written(tmp_path, f"return {RANDOM}"))
    seen = []
    monkeypatch.setattr(capstone, "control_loss", lambda base, kind: seen.append(kind) or (lambda *_: kind(truth)))
    monkeypatch.setattr(capstone, "Training", lambda net, loss, steps, **_: [loss(net, generator) for _ in range(steps)])
    truth, _ = held_out(3)
    generator = torch.Generator().manual_seed(1)
    states = []
    original = capstone.Own.of

    def of(self, batch, generator=None):
        states.append(original(self, batch, generator))
        return states[-1]

    monkeypatch.setattr(capstone.Own, "of", of)
    with pytest.raises(AttributeError):  # a list has no averaged weights
        capstone.train(load_base(), own, steps=2, seed=0)
    assert len(states) == 2 and not torch.equal(*states)


def test_other_files_are_refused(tmp_path):
    """There is no file, or it is a folder, or it has no condition, or strange channels."""
    with pytest.raises(Problem, match="does not exist"):
        capstone.read_condition(tmp_path / "none.py")
    with pytest.raises(Problem, match="is a folder"):
        capstone.read_condition(tmp_path)
    (tmp_path / "empty.py").write_text("", encoding="utf-8")
    with pytest.raises(Problem, match="empty.py has no CHANNELS"):
        capstone.read_condition(tmp_path / "empty.py")
    for text in ("CHANNELS = 1", "CHANNELS = 1\ncondition = 3", "CHANNELS = 1\ndef Condition(batch, generator): pass"):
        (tmp_path / "empty.py").write_text(text, encoding="utf-8")
        with pytest.raises(Problem, match="empty.py has no function condition"):
            capstone.read_condition(tmp_path / "empty.py")
    for name in ("mine.ipynb", "named_as_code.py"):
        (tmp_path / name).write_text('{"cells": [null]}', encoding="utf-8")
        with pytest.raises(Problem, match=f"{name} is a notebook"):
            capstone.read_condition(tmp_path / name)
    (tmp_path / "wide.py").write_text("CHANNELS = 1\n", encoding="utf-16")  # as Windows writes it by >
    with pytest.raises(Problem, match="wide.py contains null bytes: .* Save it as UTF-8"):
        capstone.read_condition(tmp_path / "wide.py")
    for channels in ("0", "'1'", "99"):
        with pytest.raises(Problem, match="whole number from 1 to 16"):
            capstone.read_condition(written(tmp_path, "return batch.mask", f"CHANNELS = {channels}"))


@pytest.mark.parametrize("docstring", ["", "...", "My condition: corners.\n\nI expect (written before training): ...\n",
                                       "TO DO", capstone.TEMPLATE.split('"""')[1],
                                       capstone.TEMPLATE.split('"""')[1].replace("a blurred mask.", "corners.")])
def test_nothing_is_trained_without_an_expectation(docstring, tmp_path):
    """There is none, or dots, or the template's own."""
    path = written(tmp_path, "return batch.mask")
    path.write_text(f'"""{docstring}"""\n{path.read_text()}', encoding="utf-8")
    with pytest.raises(Problem, match="no expectation of your own"):
        capstone.main([str(path), "--steps", "1", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_an_expectation_in_any_language_is_enough_and_the_template_may_be_tried(tmp_path):
    for text in ("I expect a mask IoU above 0.7, since edges remain.", "预期：形状的位置正确，但是认不出是哪种形状。"):
        path = written(tmp_path, "return batch.mask")
        path.write_text(f'"""{text}"""\n{path.read_text()}', encoding="utf-8")
        capstone.check_expectation(capstone.read_condition(path))
    path.write_text(capstone.TEMPLATE, encoding="utf-8")
    capstone.check_expectation(capstone.read_condition(path))


@pytest.mark.slow
def test_an_expectation_is_also_read_where_python_drops_docstrings(tmp_path):
    path = written(tmp_path, "return batch.mask")
    path.write_text(f'"""I expect a mask IoU above 0.7."""\n{path.read_text()}', encoding="utf-8")
    code = ("import pathlib, sys; from exercises.capstone import check_expectation, read_condition;"
            " check_expectation(read_condition(pathlib.Path(sys.argv[1])))")
    done = subprocess.run([sys.executable, "-OO", "-c", code, path], cwd=LESSONS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_condition_is_the_same_when_it_is_graded(tmp_path):
    """A random one, too: without a generator each call starts from the same state."""
    own = capstone.read_condition(written(tmp_path, f"return {RANDOM}"))
    truth, _ = held_out(3)
    assert own.channels == 1 and torch.equal(own.of(truth), own.of(truth))
    assert not torch.equal(own.of(truth), own.of(truth, torch.Generator().manual_seed(5)))


def test_points():
    """One if it is used, one if it is better than no control, one if it comes half of the way."""
    yes, no = Paired(0.1, 0.2, 0.3), Paired(-0.1, 0.0, 0.1)
    means = lambda iou, place: {"mask IoU": torch.tensor([iou]), "place error": torch.tensor([place])}
    free = means(0.4, 10.0)
    points = lambda used, iou, place, own: capstone.points(used, {"mask IoU": iou, "place error": place}, own, free)
    assert points(no, no, no, means(0.4, 10.0)) == 0
    assert points(yes, no, no, means(0.9, 1.0)) == 1
    assert points(yes, yes, no, means(0.6, 10.0)) == 2
    assert points(yes, yes, no, means(0.71, 10.0)) == 3
    assert points(yes, no, yes, means(0.4, 5.0)) == 3 and points(yes, no, yes, means(0.4, 5.1)) == 2


def test_a_picture_without_a_shape_scores_no_better_than_the_worst():
    """The middle of an empty picture is near the place of many shapes."""
    truth = held_out(16)[0]
    blank = capstone.scores(torch.full_like(truth.image, 0.5), truth)
    is_circle = truth.scenes.shape == 0
    assert (blank["place error"] == 32).all() and not blank["mask IoU"].any()
    assert (blank["tilt error"][~is_circle] == 45).all() and not blank["tilt error"][is_circle].any()
    real = capstone.scores(truth.image, truth)
    assert real["place error"].max() < 1 and real["tilt error"].max() < 3


def test_better_is_up_for_iou_and_down_for_errors():
    """We compare real pictures with those of a neighbour."""
    truth, _ = held_out(6)
    own, other = (capstone.scores(truth.image.roll(i, 0), truth) for i in (0, 1))
    assert all(it.mean > 0 for it in capstone.compare(own, other).values())
    assert own["mask IoU"].min() > 0.99 and own["place error"].max() < 0.5


def test_from_the_template_to_the_grade(tmp_path, monkeypatch, capsys):
    """After two steps of training the condition earns no point for its use, and all files are there."""
    monkeypatch.setattr(capstone, "ANSWERS", tmp_path / "answers")
    monkeypatch.setattr(capstone, "DDIM_STEPS", 2)
    words = ["--steps", "2", "--count", "4", "--out", str(tmp_path)]
    capstone.main(words)
    assert (tmp_path / "answers" / "capstone.py").exists()
    assert not (tmp_path / "capstone.json").exists(), "first the student writes a condition"
    capstone.main(words)
    assert "points: " in capsys.readouterr().out
    found = json.loads((tmp_path / "capstone.json").read_text(encoding="utf-8"))
    assert found["points"] <= 1 and abs(found["shuffle gap"][1]) < 1e-3
    assert (tmp_path / "capstone.png").stat().st_size > 10_000
    assert math.isclose(found["scores"]["real pictures (ceiling)"]["mask IoU"], 1, abs_tol=0.01)


def test_untrained_it_is_not_used(tmp_path):
    """The zero convs are 0, so the gap is 0 and the pictures are the base's own."""
    own = capstone.read_condition(written(tmp_path, "return batch.mask"))
    base = load_base()
    measured, images = capstone.grade(base, seeded(0, ControlNet, base), own, *held_out(4), ddim_steps=2)
    assert measured["shuffle gap"] == (0, 0, 0) and measured["points"] == 0
    assert torch.equal(images["no control, no words"], images["condition, no words"])
