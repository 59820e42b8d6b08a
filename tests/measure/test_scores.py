"""Scores and the table of scores: what each row compares, by hand, and the weights that ship."""

import re

import pytest
import torch

from conftest import fill_zeros
from minicontrolnet.conditions import CHANNELS, condition_of
from minicontrolnet.controlnet import ControlNet, lock
from minicontrolnet.diffusion import ALPHA_BAR, q_sample, x0_from_eps
from minicontrolnet.errors import Problem
from minicontrolnet.measure import scores
from minicontrolnet.measure.pictures import (colours_right, edge_f1, mask_iou, mask_of, palette_error, pose_errors)
from minicontrolnet.measure.classifier import shapes_right
from minicontrolnet.measure.scores import (HELD_OUT, condition_scores, conflicting, gap, held_out, loss_of_condition,
                                           prompt_scores, show_scores, shuffle_gap)
from minicontrolnet.sampling import sample
from minicontrolnet.shapes import SHAPES, describe, random_batch
from minicontrolnet.training import random_times_and_noise, seeded


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


def test_real_pictures_are_the_ceiling_and_shuffled_ones_the_floor(shipped):
    """Colour, shape, IoU, F1 at 1 and no palette error; less, and more, if shuffled."""
    truth, _ = held_out(64)
    neighbour = truth.map(lambda tensor: tensor.roll(1, 0))
    classifier = shipped.classifier
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


def test_scores_are_means_over_the_pictures(shipped):
    """Each is the measure of its name, averaged; a circle's angle is left out."""
    truth, _ = held_out(12)
    images = truth.image.roll(1, 3)
    iou = mask_iou(mask_of(images), truth.mask).mean().item()
    degrees, pixels = pose_errors(images, truth.scenes)
    wanted = {"edge": {"edge F1": edge_f1(images, condition_of("edge", truth)).mean()},
              "palette": {"palette error": palette_error(images, condition_of("palette", truth)).mean()},
              "pose": {"angle error": degrees[~degrees.isnan()].mean(), "place error": pixels.mean()}}
    for kind, others in wanted.items():
        assert condition_scores(kind, images, truth) == pytest.approx(
            {"mask IoU": iou} | {name: value.item() for name, value in others.items()})
    prompt = truth.prompt.roll(1, 0)
    assert prompt_scores(images, prompt, shipped.classifier) == pytest.approx({
        "colour accuracy": colours_right(images, prompt).double().mean().item(),
        "shape accuracy": shapes_right(images, prompt, shipped.classifier).double().mean().item()})


@pytest.mark.parametrize("kind", ["depth", "", "edges", None])
def test_a_condition_without_a_score_is_a_problem(kind):
    """An unknown name is never scored as another one."""
    truth, _ = held_out(2)
    with pytest.raises(Problem, match=repr(kind)):
        condition_scores(kind, truth.image, truth)
    with pytest.raises(Problem, match=repr(kind)):
        condition_of(kind, truth)


# %% The shuffle gap


def test_shuffle_gap_is_0_exactly_if_the_condition_is_ignored():
    """A loss that does not look at the condition, or sees equal ones, has no gap."""
    assert shuffle_gap(lambda condition: torch.tensor(3.0), torch.rand(8, 1, 4, 4)) == 0
    assert shuffle_gap(lambda condition: condition.mean(), torch.ones(8, 1, 4, 4)) == 0


def test_shuffle_gap_is_the_price_of_a_wrong_condition():
    """By hand: conditions 0, 1, 2, 3, of which each is given to the next, are off by 1, 1, 1 and 3."""
    condition = torch.arange(4.0).view(4, 1, 1, 1)
    loss = lambda given: (given - condition).square().mean() + 7
    assert shuffle_gap(loss, condition) == (1 + 1 + 1 + 9) / 4
    assert shuffle_gap(lambda given: -loss(given), condition) == -3


def test_shuffle_gap_builds_no_graph():
    """It is a measurement: no gradient is kept."""
    weight, graphs = torch.ones(1, requires_grad=True), []
    loss = lambda given: graphs.append((given * weight).mean()) or graphs[-1]
    shuffle_gap(loss, torch.ones(2, 1, 1, 1))
    assert not any(loss.requires_grad for loss in graphs)


@pytest.fixture
def tiny(make_base):
    """A tiny locked base in float32 for pictures of 64x64."""
    return lock(make_base((8, 8, 8, 32), torch.float32))


def test_the_gap_is_exactly_0_before_training(tiny):
    """Untrained, a ControlNet gives any condition the same loss; filled, it does not."""
    assert gap(tiny, ControlNet(tiny), "edge", n=4) == 0
    filled = fill_zeros(seeded(0, ControlNet, tiny))
    assert gap(tiny, filled, "edge", n=4) != 0


def test_the_gap_counts_as_many_pictures_as_asked_and_follows_its_seed(tiny):
    """By default there are 128 of the held-out seed."""
    control = fill_zeros(seeded(0, ControlNet, tiny))
    values = [gap(tiny, control, "edge", **options) for options in ({"n": 4}, {"n": 8}, {"n": 4, "seed": 5})]
    assert len(set(values)) == 3 and gap(tiny, control, "edge", n=4, seed=HELD_OUT) == values[0]
    assert gap(tiny, control, "edge") == gap(tiny, control, "edge", 128, HELD_OUT)
    with pytest.raises(Problem, match="1"):
        gap(tiny, control, "edge", n=1)


@pytest.mark.parametrize("kind", CHANNELS)
def test_the_loss_of_a_condition_by_hand(kind, tiny):
    """Eq. 5 with the weights of x0 on held-out pictures, their prompts, and one set of times and noises."""
    control = fill_zeros(seeded(0, ControlNet, tiny, CHANNELS[kind]))
    loss, condition = loss_of_condition(tiny, control, kind, n=4, seed=7)
    generator = torch.Generator().manual_seed(7)
    truth = random_batch(4, generator)
    t, eps = random_times_and_noise(truth.x0, generator)
    assert torch.equal(condition, condition_of(kind, truth))
    for given in (condition, condition.roll(1, 0)):
        xt = q_sample(truth.x0, t, eps)
        with torch.no_grad():
            x0 = x0_from_eps(tiny(xt, t, truth.prompt, control(xt, t, truth.prompt, given)), xt, t)
        weight = (1 / (1 - ALPHA_BAR[t])).clamp(max=20).view(-1, 1, 1, 1)
        by_hand = (weight * (x0 - truth.x0).double().square()).mean().item()
        assert loss(given).item() == pytest.approx(by_hand, rel=1e-4) and not loss(given).requires_grad
    assert loss(condition) == loss(condition.clone()) != loss(condition.roll(1, 0))


# %% The table


def numbers_of(text):
    """Row -> score -> number, of a printed table."""
    rows = {}
    for line in text.splitlines():
        name, values = line[:40].strip(), line[40:]
        rows[name] = {key: float(value) for key, value in re.findall(r"(\S.*?) (-?[\d.]+|nan|inf)(?:   |$)", values)}
    return rows


def test_each_row_of_the_table_compares_what_it_says(tiny, shipped, monkeypatch, capsys):
    """A sampler that answers each call with other pictures, and the scores of these pictures for each row."""
    n, answers = 12, {}
    truth, noise = held_out(n)
    controls = {kind: fill_zeros(seeded(i, ControlNet, tiny, c)) for i, (kind, c) in enumerate(CHANNELS.items())}
    words = {"right": truth.prompt, "empty": torch.zeros_like(truth.prompt), "conflicting": conflicting(truth.prompt)}

    def answer(base, prompt, given_noise, used=(), **options):
        assert base is tiny and torch.equal(given_noise, noise) and not {*options} - {"progress"}
        tokens = torch.zeros_like(truth.prompt) if isinstance(prompt, str) and prompt == "" else prompt
        [word] = [name for name, wanted in words.items() if torch.equal(tokens, wanted)]
        for control in used:
            [kind] = [kind for kind, net in controls.items() if net is control.net]
            assert torch.equal(control.condition, condition_of(kind, truth)) and control.scale == 1
        kinds = " + ".join(kind for control in used for kind, net in controls.items() if net is control.net)
        pictures = truth.image.clone()
        changed = 2 + len(answers) % 9
        other = random_batch(changed, torch.Generator().manual_seed(len(answers)))
        pictures[:changed] = other.image
        return answers.setdefault((kinds, word), pictures)

    monkeypatch.setattr(scores, "sample", answer)
    show_scores(tiny, controls, shipped.classifier, n)
    found = numbers_of(capsys.readouterr().out)

    def obeyed(images, prompt=truth.prompt):
        return prompt_scores(images, prompt, shipped.classifier)

    free = answers["", "right"]
    right = shapes_right(free, truth.prompt, shipped.classifier).double()
    wanted = {"prompt: real pictures (ceiling)": obeyed(truth.image),
              "prompt: base": obeyed(free),
              "prompt: base, shape accuracy of each": {
                  shape: right[truth.scenes.shape == i].mean().item() for i, shape in enumerate(SHAPES)},
              "prompt: shuffled prompts (floor)": obeyed(free, truth.prompt.roll(1, 0))}
    composed = {}
    for kind, net in controls.items():
        neighbour = truth.map(lambda tensor: tensor.roll(1, 0))
        own = {word: answers[kind, word] for word in words}
        wanted |= {
            f"{kind}: real pictures (ceiling)": condition_scores(kind, truth.image, truth),
            f"{kind}: ControlNet, right prompt": condition_scores(kind, own["right"], truth) | obeyed(own["right"]),
            f"{kind}: ControlNet, empty prompt": condition_scores(kind, own["empty"], truth),
            f"{kind}: ControlNet, conflicting prompt": condition_scores(kind, own["conflicting"], truth) | {
                "colour accuracy": colours_right(own["conflicting"], truth.prompt).double().mean().item()},
            f"{kind}: no control, right prompt": condition_scores(kind, free, truth),
            f"{kind}: shuffled conditions (floor)": condition_scores(kind, own["right"], neighbour),
            f"{kind}: condition-shuffle gap": {"loss": gap(tiny, net, kind)}}
        composed |= condition_scores(kind, answers[" + ".join(controls), "empty"], truth)
    wanted[" + ".join(controls) + ", empty prompt"] = composed
    assert found.keys() == wanted.keys() and len(answers) == 11
    for row, values in wanted.items():
        assert found[row] == pytest.approx(values, abs=6e-4), row
    assert len({tuple(values.values()) for values in wanted.values()}) > 20, "nearly every row has other numbers"


def test_the_table_of_two_pictures_has_finite_numbers(tiny, shipped, monkeypatch, capsys):
    """Some shapes do not occur among two pictures; with one ControlNet there is nothing to compose."""

    def quick(*given, progress):
        return sample(*given, steps=1)

    monkeypatch.setattr(scores, "sample", quick)
    show_scores(tiny, {"edge": fill_zeros(ControlNet(tiny))}, shipped.classifier, n=2)
    found = numbers_of(capsys.readouterr().out)
    assert len(found) == 4 + 7 and all(values for values in found.values())
    assert all(torch.tensor([*values.values()]).isfinite().all() for values in found.values())


# %% The weights that ship


def test_the_shipped_base_cleans_up_little_noise(shipped):
    """At t = 50 and 300 it sees its input: the mean square error of x0 is below 0.01.

    A training that diverged may end as a network that paints one grey blob for all.
    """
    (truth, eps), base = held_out(16), shipped.base
    for time in (50, 300):
        t = torch.full((16,), time)
        xt = q_sample(truth.x0, t, eps)
        with torch.no_grad():
            x0 = x0_from_eps(base(xt, t, truth.prompt), xt, t)
        assert (x0 - truth.x0).square().mean() < 0.01


def test_the_shipped_base_follows_its_prompts(shipped):
    """Of 16 held-out prompts, in 12 steps, at least 14 get right colours and shape."""
    (truth, noise), base = held_out(16), shipped.base
    pictures = sample(base, truth.prompt, noise, steps=12)
    right = colours_right(pictures, truth.prompt)
    right &= shapes_right(pictures, truth.prompt, shipped.classifier)
    assert right.sum() >= 14


@pytest.mark.parametrize("words", ["right", "empty"])
def test_pictures_by_the_shipped_weights_follow_their_outlines(words, shipped):
    """One picture of each shape, ten steps, with and without prompt: IoU over 0.9."""
    truth, noise = held_out(32)
    shape = truth.scenes.shape.tolist()
    one = [shape.index(i) for i in range(len(SHAPES))]
    truth, noise = truth.map(lambda tensor: tensor[one]), noise[one]
    base = shipped.base
    controls = [(shipped.controls["edge"], condition_of("edge", truth))]
    prompt = truth.prompt if words == "right" else ""
    pictures = sample(base, prompt, noise, controls, steps=10)
    assert mask_iou(mask_of(pictures), truth.mask).min() > 0.9
