"""Claims 13, 14, 16 and 17: zero convolutions, Gaussian ones, and ControlNet-lite (the paper's Fig. 8).

    python lessons/experiments/claims_13_14_16_17_figure_8.py

It takes about 52 minutes on one core. This was written down before any number was seen. Differences are paired by the
training seed, on the same pictures and noise.
- Sec. 4.2, Fig. 8b: with Gaussian instead of zero convolutions, ControlNet falls to about the level of
  ControlNet-lite. Shown by: in mask IoU without a prompt, zero minus Gaussian is above 0, and Gaussian minus lite is
  within -0.05 .. 0.05. Refuted by: Gaussian is ahead, or it is level with zero while lite is behind.
- Fig. 8c: lite fails with no prompt and with insufficient prompts. Shown by: in mask IoU, zero minus lite is above 0
  there. Refuted by: lite is ahead.
- Tab. 3: lite is farther from real pictures. Shown by: a larger Frechet distance of the masks' features. Refuted by:
  a smaller one.

This was changed after numbers were seen. A first run had 200 steps and three seeds. Its arms had begun to follow at
steps too far apart to be compared, so this one has 400 steps and 64 pictures. Three seeds became five, and then ten,
because the map had announced that ten seeds would decide the question of Tab. 3. Later, when all numbers were known, a
review showed that the allowance of 0.05 makes Gaussian level with zero as well. The map now asks instead whether
Gaussian is nearer to lite than to zero. "Fails" was split in two. Lite is behind in right shapes, which is what Fig. 8
shows. And lite fails if it generates no more right shapes than chance.

The pictures come from a later run of seed 0. At first they showed one circle, on which all variants looked alike. Now
they show the first star and the first square of the test. Where both runs have the same score, they differ by less than
0.001 in IoU.
"""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
import torch
from torch import Tensor, nn

from experiments.common import Findings, Predict, Record, Scores, controlled, minus, run
from lesson.networks import ConditionedUNet, Lite, gaussian
from lesson.curves import look, reached
from minicontrolnet import (SHAPES, Batch, ControlNet, ShapeClassifier, Training, UNet, condition_loss, conflicting,
                            detect_edges, edge_f1, frechet_distance, fresh_batch, held_out, load_base, load_classifier,
                            mask_iou, mask_of, off_palette, prompt_scores, sample, seeded)
from minicontrolnet.draw import figures
from minicontrolnet.measure.scores import HELD_OUT
from minicontrolnet.training import learning_rate, moving_average

SEEDS, STEPS, EVERY, PICTURES = range(10), 400, 20, 64


def small_gaussian(base: UNet) -> ControlNet:
    return gaussian(base, 0.02)


ARMS = {"zero convs": ControlNet, "N(0, 1/fan_in)": gaussian, "N(0, 0.02^2)": small_gaussian, "lite": Lite}


# %% Training an arm


def predict_with(base: UNet, network: nn.Module) -> Predict:
    """A UNet that takes the condition itself, or the base with a control."""
    return network if isinstance(network, ConditionedUNet) else controlled(base, network)


def train_arm(base: UNet, build: Callable[[UNet], nn.Module], steps: int, seed: int, drop: float = 0.5,
              next_batch: Callable = fresh_batch, on_step: Callable = lambda step, network: None) -> nn.Module:
    """Train a network of an arm at 2e-3, and return its averaged weights."""

    def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
        return condition_loss(predict_with(base, network), base, "edge", generator, drop, next_batch)

    training = Training(seeded(seed, build, base), loss, steps=steps, lr=2e-3, seed=seed)
    on_step(0, training.network)
    for step, _ in training:
        on_step(step, training.averaged)
    return training.averaged


# %% Measuring it


def prompts(full: Tensor) -> dict[str, Tensor]:
    """The four kinds of prompts of Fig. 8. An insufficient one names the background and nothing else."""
    return {"none": 0 * full, "insufficient": full * torch.tensor([0, 0, 1]), "conflicting": conflicting(full),
            "perfect": full}


def score(images: Tensor, truth: Batch, classifier: ShapeClassifier) -> Scores:
    """Compared with the outline, and with the true picture's colours and shape."""
    told = prompt_scores(images, truth.prompt, classifier)
    return {"IoU": mask_iou(mask_of(images), truth.mask).mean().item(),
            "F1": edge_f1(images, detect_edges(truth.image)).mean().item(),
            "clean pixels": 1 - off_palette(images).mean().item(),
            "right colours": told["colour accuracy"], "right shape": told["shape accuracy"]}


def with_prompts(base: UNet, control: nn.Module, truth: Batch, noise: Tensor, classifier: ShapeClassifier,
                 ddim_steps: int, shown: Sequence[int] = (0,)) -> tuple[Scores, Tensor]:
    """Scores for each kind of prompt, and a row of pictures with their outlines: all prompts for each index shown."""
    edges = detect_edges(truth.image)
    drawn = {kind: sample(base, words, noise, [(control, edges)], steps=ddim_steps)
             for kind, words in prompts(truth.prompt).items()}
    scores = {kind: score(images, truth, classifier) for kind, images in drawn.items()}
    others, _ = held_out(4 * len(noise), seed=HELD_OUT + 1)
    real = classifier.features(mask_of(others.image))
    features = classifier.features(mask_of(torch.cat(list(drawn.values()))))
    scores["all prompts"] = {"Frechet": frechet_distance(features, real)}
    row = torch.stack([images[i] for i in shown for images in drawn.values()])
    return scores, figures.outlined(row, edges[list(shown)].repeat_interleave(len(drawn), 0), 4)


def first_of_each(names: tuple[str, ...], truth: Batch) -> list[int]:
    """The index of the first picture of each of these shapes."""
    shapes = truth.scenes.shape.tolist()
    return [shapes.index(list(SHAPES).index(name)) for name in names]


def train(record: Record) -> None:
    base, classifier = load_base(), load_classifier()
    for arm in ARMS:
        for seed in record.missing(arm, SEEDS):
            train_one(record, base, arm, seed, classifier)


def train_one(record: Record, base: UNet, arm: str, seed: int, classifier: ShapeClassifier) -> None:
    steps, n, few, ddim_steps = (2, 2, 2, 2) if record.quick else (STEPS, PICTURES, 16, 12)
    curves: Scores = {}

    def on_step(step: int, network: nn.Module) -> None:
        if step % EVERY == 0 or step == steps:
            look(curves, step, base, network, n=few)

    network = train_arm(base, ARMS[arm], steps, seed, on_step=on_step)
    truth, noise = held_out(n)
    shown = (0, 1) if record.quick else first_of_each(("star", "square"), truth)
    scores, row = with_prompts(base, network, truth, noise, classifier, ddim_steps, shown)
    if seed == SEEDS[0]:
        record.add_pictures(arm, row)
    record.add("train", arm, scores | curves)


# %% What the record says


def rises(numbers: dict) -> Findings:
    """Claim 9: when each arm's gap has risen by a tenth and by a half of its way, and how steeply.

    The steepness is the power of time that rises from 10 to 50 % as fast. A warm-up and an average of the weights delay
    the start of a curve, and make it look steeper. "In effective steps" we take this out as far as we can: here time
    is the sum of the rates, averaged as the weights are. claim_09_sudden_convergence.py has neither.
    """
    found, passed = {}, effective_steps(STEPS)
    for arm in ARMS:
        gaps = [{step: values[seed] for step, values in numbers[arm]["gap"].items()} for seed in SEEDS]
        t10, t50 = ([reached(gap, share) for gap in gaps] for share in (0.1, 0.5))
        found[f"{arm}: step of a tenth"], found[f"{arm}: step of a half"] = t10, t50
        found[f"{arm}: steepness"] = [math.log(5) / math.log(late / early) for early, late in zip(t10, t50)]
        found[f"{arm}: steepness in effective steps"] = [
            math.log(5) / math.log(between(passed, late) / between(passed, early)) for early, late in zip(t10, t50)]
    found["steepness of zero convs in effective steps, minus 2"] = [
        value - 2 for value in found["zero convs: steepness in effective steps"]]
    found["wait of zero convs minus wait of N(0, 1/fan_in)"] = minus(
        found["zero convs: step of a tenth"], found["N(0, 1/fan_in): step of a tenth"])
    return found


def effective_steps(steps: int) -> list[float]:
    """For each step the sum of the rates so far, in units of the full rate, averaged as the weights are."""
    passed, rates = [torch.zeros(1, dtype=torch.float64)], 0.0
    for step in range(steps):
        rates += learning_rate(step, steps)
        now = torch.tensor([rates], dtype=torch.float64)
        average = passed[-1].clone() if step else now.clone()
        moving_average([average], [now], torch.tensor(step))
        passed.append(average)
    return [value.item() for value in passed]


def between(values: list[float], place: float) -> float:
    """The value at a place that need not be a whole number, on a straight line between its neighbours."""
    i = min(int(place), len(values) - 2)
    return values[i] + (place - i) * (values[i + 1] - values[i])


def findings(numbers: dict) -> Findings:
    """The numbers of CLAIMS.md that are no plain differences, and the results of the five fresh seeds alone."""
    zero, normal, lite = (numbers[arm] for arm in ("zero convs", "N(0, 1/fan_in)", "lite"))
    zero_iou, normal_iou, lite_iou = (arm["none"]["IoU"] for arm in (zero, normal, lite))
    fallen, rest = minus(zero_iou, normal_iou), minus(normal_iou, lite_iou)
    shapes = minus(zero["insufficient"]["right shape"], lite["insufficient"]["right shape"])
    distance = minus(lite["all prompts"]["Frechet"], zero["all prompts"]["Frechet"])
    nearer = minus(fallen, rest)
    zero_perfect, normal_perfect, lite_perfect = (arm["perfect"]["IoU"] for arm in (zero, normal, lite))
    return rises(numbers) | {"nearer to lite than to zero, IoU": nearer,
            "first five seeds: nearer to lite than to zero, IoU": nearer[:5],
            "fresh seeds: nearer to lite than to zero, IoU": nearer[5:],
            "nearer to lite than to zero, IoU, perfect prompt": minus(
                minus(zero_perfect, normal_perfect), minus(normal_perfect, lite_perfect)),
            "Gaussian's share of what lite loses, IoU": [fmean(fallen) / fmean(minus(zero_iou, lite_iou))],
            "a quarter minus lite's right shapes, no prompt": [0.25 - share for share in lite["none"]["right shape"]],
            "a quarter minus lite's right shapes, insufficient prompt": [
                0.25 - share for share in lite["insufficient"]["right shape"]],
            "lite minus zero, Frechet": distance,
            "fresh seeds: zero minus Gaussian, IoU": fallen[5:], "fresh seeds: Gaussian minus lite, IoU": rest[5:],
            "fresh seeds: zero minus lite, right shapes, insufficient prompt": shapes[5:],
            "fresh seeds: zero minus lite, IoU, perfect prompt": minus(zero_perfect, lite_perfect)[5:],
            "fresh seeds: lite minus zero, Frechet": distance[5:]}


if __name__ == "__main__":
    run("claims_13_14_16_17_figure_8", {"train": train}, findings)
