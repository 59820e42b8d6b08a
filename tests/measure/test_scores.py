"""The scores, how sure a difference is, and whether the weights that ship obey."""

import math
import re
import subprocess
import sys

import pytest
import torch

from conftest import fill_zeros
from minicontrolnet import evaluation, speed, training
from minicontrolnet.conditions import CHANNELS, condition_of
from minicontrolnet.controlnet import ControlNet, lock
from minicontrolnet.diffusion import q_sample, x0_from_eps
from minicontrolnet.evaluation import (Paired, condition_scores, conflicting, gap,
                                       held_out, loss_of_condition, paired,
                                       prompt_scores, show_scores, student_t)
from minicontrolnet.metrics import colours_right, mask_iou, mask_of, shapes_right
from minicontrolnet.pretrained import load_base, load_classifier, load_control
from minicontrolnet.sampling import sample
from minicontrolnet.shapes import SHAPES, describe, random_batch
from minicontrolnet.unet import UNet

NAN, INF = math.nan, math.inf


def numbers(text):
    """All that a table prints as a number: finite, none is nan or inf."""
    assert not re.search(r"\b(nan|inf)\b", text), text
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


# %% How sure a difference is


@pytest.mark.parametrize("freedom, t", [(1, 12.706), (2, 4.303), (5, 2.571),
                                        (30, 2.042)])
def test_student_t_by_the_tables(freedom, t):
    """The two-sided 95 % quantiles that every table of Student's distribution has."""
    assert student_t(freedom) == pytest.approx(t, abs=5e-4)


@pytest.mark.parametrize("share, t", [(0.8, 1.476), (0.9, 2.015), (0.99, 4.032)])
def test_student_t_of_other_shares(share, t):
    """With 5 degrees of freedom."""
    assert student_t(5, share) == pytest.approx(t, abs=5e-4)


def test_paired_by_hand():
    """1, 2, 3 have the mean 2 and the deviation 1: 2 -+ 4.303 / sqrt(3)."""
    interval = paired([1.0, 2.0, 3.0])
    assert interval == pytest.approx((2 - 2.484, 2, 2 + 2.484), abs=1e-3)
    assert str(interval) == "+2.000 (-0.484 .. +4.484)"
    assert paired(torch.tensor([[1.0], [2.0], [3.0]])) == interval
    wide = paired([0.0, 1.0])  # 12.706 times the standard error, which is a half
    assert wide == pytest.approx((0.5 - 6.353, 0.5, 0.5 + 6.353), abs=1e-3)


@pytest.mark.parametrize("differences, verdict", [
    ([1.0, 1.1, 0.9], "confirmed"), ([-1.0, -1.1, -0.9], "contradicted"),
    ([1.0, 2.0, 3.0], "undecided"), ([0.0, 0.0], "undecided"),
    ([0.2, 0.2], "confirmed"),
])
def test_a_claim_is_decided_if_its_interval_leaves_out_0(differences, verdict):
    """Above 0 it is confirmed, below 0 contradicted, with 0 inside undecided."""
    assert paired(differences).verdict == verdict


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_difference_that_is_not_finite_decides_nothing(bad):
    """However clear the others are; two infinities of opposite signs, too."""
    for differences in ([1.0, 1.1, 0.9, 1.0, bad], [-1.0, -1.1, bad], [INF, -INF]):
        interval = paired(differences)
        assert interval.verdict == "undecided"
        assert (interval.low, interval.high) == (-INF, INF)
        assert math.isnan(interval.mean)


def test_95_of_100_intervals_hold_the_mean():
    """Of 2000 sets of 4 normal numbers, 95 % have 0 inside (5 standard errors)."""
    sets = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)).double()
    half = student_t(3) * sets.std(1) / 2
    inside = (sets.mean(1).abs() < half).double().mean().item()
    assert inside == pytest.approx(0.95, abs=0.025)
    low, mean, high = paired(sets[0])
    assert high - mean == pytest.approx(half[0].item()) == pytest.approx(mean - low)
    assert Paired(0.1, 0.2, 0.3).verdict == "confirmed"


# %% Held-out pictures and their scores


def test_held_out_pictures_are_always_the_same_and_not_those_of_training():
    """Pictures and noise depend on their seed alone."""
    truth, noise = held_out(4)
    again, same_noise = held_out(4)
    assert torch.equal(truth.image, again.image) and torch.equal(noise, same_noise)
    assert noise.shape == (4, 3, 64, 64)
    assert not torch.equal(held_out(4, seed=1)[1], noise)
    trained = random_batch(4, torch.Generator().manual_seed(0))
    assert not torch.equal(trained.image, truth.image)


def test_conflicting_prompts_name_another_shape():
    """Only the shape's word is wrong, and every shape is named instead of another."""
    prompt = held_out(64)[0].prompt
    other = conflicting(prompt)
    assert torch.equal(other[:, [0, 2]], prompt[:, [0, 2]])
    assert (other[:, 1] != prompt[:, 1]).all()
    assert set(other[:, 1].tolist()) == {1, 2, 3, 4}
    assert describe(conflicting(torch.tensor([[7, 4, 6]]))) == ["red circle on blue"]


def test_real_pictures_are_the_ceiling_and_shuffled_ones_the_floor():
    """Colour, shape, IoU, F1 at 1 and no palette error; less, and more, if shuffled."""
    truth, _ = held_out(64)
    neighbour = truth.map(lambda tensor: tensor.roll(1, 0))
    classifier = load_classifier()
    assert set(prompt_scores(truth.image, truth.prompt, classifier).values()) == {1.0}
    below = prompt_scores(truth.image, neighbour.prompt, classifier)
    assert below["colour accuracy"] < 0.1 and below["shape accuracy"] < 0.5
    score = lambda kind: (condition_scores(kind, truth.image, truth),
                          condition_scores(kind, truth.image, neighbour))
    edges, floor = score("edge")
    assert edges["mask IoU"] > 0.99 and edges["edge F1"] == 1
    assert floor["mask IoU"] < 0.5 and floor["edge F1"] < 0.5
    colours, floor = score("palette")
    assert colours["palette error"] < 1e-6 < 0.1 < floor["palette error"]


# %% The tables


@pytest.fixture
def tiny(make_base):
    """A tiny locked base in float32 for pictures of 64x64."""
    return lock(make_base((8, 8, 8, 32), torch.float32))


def test_the_gap_is_exactly_0_before_training(tiny):
    """Untrained, a ControlNet gives any condition the same loss; filled, it doesn't."""
    untrained = ControlNet(tiny)
    assert gap(tiny, untrained, "edge", n=4) == 0
    loss, condition = loss_of_condition(tiny, fill_zeros(ControlNet(tiny)), "edge", n=4)
    assert torch.equal(condition, condition_of("edge", random_batch(
        4, torch.Generator().manual_seed(evaluation.HELD_OUT))))
    assert loss(condition) == loss(condition.clone()) != loss(condition.roll(1, 0))


def test_evaluate_prints_every_row_with_finite_numbers(tiny, monkeypatch, capsys):
    """Tiny networks, two pictures, two steps; some shapes do not occur among two."""
    quick = lambda *given, progress: sample(*given, steps=2)
    monkeypatch.setattr(evaluation, "sample", quick)
    controls = {kind: fill_zeros(ControlNet(tiny, c)) for kind, c in CHANNELS.items()}
    show_scores(tiny, controls, load_classifier(), n=2)
    lines = capsys.readouterr().out.splitlines()
    assert all(numbers(line) for line in lines)
    for kind in CHANNELS:
        own = [line for line in lines if line.startswith(f"{kind}: ")]
        assert len(own) == 7 and sum("prompt" in line for line in own) == 4
        assert sum("conflicting" in line for line in own) == 1
    assert [line for line in lines if line.startswith(" + ".join(CHANNELS))]
    assert sum("1.000" in line and "ceiling" in line for line in lines) >= 2


def test_speed_prints_every_row_with_finite_numbers(monkeypatch, capsys):
    """Tiny networks, small batches, few rounds, one import."""
    seconds, share, run = speed.seconds, speed.share_in_kernels, subprocess.run
    imported = []

    def import_once(command, **options):
        if command[0] != sys.executable:
            return run(command, **options)
        imported.extend([] if imported else [run(command, **options)])
        return imported[0]

    monkeypatch.setattr(subprocess, "run", import_once)
    monkeypatch.setattr(speed, "UNet", lambda: UNet((8, 8, 8, 32), c_emb=16))
    monkeypatch.setattr(speed, "seconds", lambda *f, rounds=0: seconds(*f, rounds=2))
    monkeypatch.setattr(speed, "share_in_kernels", lambda step: share(step, rounds=1))
    monkeypatch.setattr(training, "BATCH_SIZE", 2)
    monkeypatch.setattr(speed, "sample", lambda *given: sample(*given, steps=2))
    speed.show_speed()
    said = capsys.readouterr().out
    found = numbers(said)
    assert len(found) > 12 and min(found) >= 0
    for row in ("base training step", "ControlNet training step", "ratio", "memory",
                "share of time", "16 pictures", "import minicontrolnet"):
        assert row in said


# %% The weights that ship


def test_the_shipped_base_cleans_up_little_noise():
    """At t = 50 and 300 it sees its input: the mean square error of x0 is below 0.01.

    A training that diverged may end as a network that paints one grey blob for all.
    """
    (truth, eps), base = held_out(16), load_base()
    for time in (50, 300):
        t = torch.full((16,), time)
        xt = q_sample(truth.x0, t, eps)
        with torch.no_grad():
            x0 = x0_from_eps(base(xt, t, truth.prompt), xt, t)
        assert (x0 - truth.x0).square().mean() < 0.01


def test_the_shipped_base_draws_what_its_prompts_say():
    """Of 16 held-out prompts, in 12 steps, at least 14 get right colours and shape."""
    (truth, noise), base = held_out(16), load_base()
    pictures = sample(base, truth.prompt, noise, steps=12)
    right = colours_right(pictures, truth.prompt)
    right &= shapes_right(pictures, truth.prompt, load_classifier())
    assert right.sum() >= 14


@pytest.mark.parametrize("words", ["right", "empty"])
def test_pictures_by_the_shipped_weights_follow_their_outlines(words):
    """One picture of each shape, ten steps, with and without prompt: IoU over 0.9."""
    truth, noise = held_out(32)
    shape = truth.scenes.shape.tolist()
    one = [shape.index(i) for i in range(len(SHAPES))]
    truth, noise = truth.map(lambda tensor: tensor[one]), noise[one]
    base = load_base()
    controls = [(load_control("edge", base), condition_of("edge", truth))]
    prompt = truth.prompt if words == "right" else ""
    pictures = sample(base, prompt, noise, controls, steps=10)
    assert mask_iou(mask_of(pictures), truth.mask).min() > 0.9
