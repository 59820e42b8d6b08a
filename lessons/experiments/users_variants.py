"""Users ask about variants of the training: should I change the batch, unlock the decoder, or simplify the copy?

    python lessons/experiments/users_variants.py

It takes about 20 minutes on one core. CN is github.com/lllyasviel/ControlNet, and train.md is its docs/train.md. This
was written down before any number was seen. Each answer is judged over three training seeds.
1. Should I accumulate gradients, or take more steps with a small batch (CN 93, 527)? According to train.md, the sudden
   convergence comes at the same step anyway, so one should use larger batches until then. Shown by: with equally many
   pictures, 300 steps of 16 have a higher F1 than 1,200 steps of 4, and both begin to follow at about the same step.
   Refuted by: the opposite.
2. Should I unlock the decoder, sd_locked=False (CN 52, 360, 608)? According to CN 608 it "turns out to improve model
   performance significantly". According to train.md it is dangerous if the data are not good enough, and needs a
   lower rate. A gain is a higher F1. A harm is a base that generates worse pictures than before, without control. Our
   training data are the base's own full world, and the rate is not lowered, so harm can hardly show here.
3. Is the middle block's control enough, only_mid_control (diffusers 5070)? According to train.md it helps where
   computing is scarce. Shown by: at equal steps, an F1 near that of all 13 controls.
4. Does it get worse after longer training (ControlNet-v1-1-nightly 100)? Shown by: 1,200 steps of 4 have a lower F1
   than 600.
5. Does the copy need t (CN 62) and xt (ctrlora 22)? It does not if F1 is as high without them.

We did not write down what would refute items 2 to 5.

The rate stays at 1e-3, as in the released code, so every length is a fair place to stop. We test the averaged
weights.
"""

import copy
import sys
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
import torch
from torch import Tensor, nn

from experiments.common import Evaluation, Findings, Record, Scores, at_constant_rate, minus, run
from lesson.curves import look, reached
from minicontrolnet import ControlNet, Training, UNet, condition_loss, load_base, lock, random_batch, seeded, weigh
from minicontrolnet.controlnet import Controls
from minicontrolnet.draw import figures

SEEDS, STEPS, BATCH, SMALL = range(3), 300, 16, 4


# %% What is trained: a base and a ControlNet on it


class Pair(nn.Module):
    """A copy of the base, locked except perhaps for its decoder, and a ControlNet on it."""

    def __init__(self, base: UNet, kind: type[ControlNet] = ControlNet, unlock: bool = False):
        super().__init__()
        self.base, self.control = lock(copy.deepcopy(base)), kind(base)
        self.base.decoder.requires_grad_(unlock)


class OnlyMiddle(ControlNet):
    """The middle gets a control, and the 12 skips get none."""

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Controls:
        return weigh(super().forward(xt, t, prompt, condition), [0.0] * 12 + [1.0])


class ConditionAlone(ControlNet):
    """The copy sees neither t nor xt, so its controls are the same at each step."""

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Controls:
        return super().forward(0 * xt, 0 * t, prompt, condition)


ARMS = {"as in the paper": Pair, "small batch": Pair, "decoder unlocked": partial(Pair, unlock=True),
        "middle alone": partial(Pair, kind=OnlyMiddle), "without t and xt": partial(Pair, kind=ConditionAlone)}


def pair_loss(size: int, pair: Pair, generator: torch.Generator) -> Tensor:
    """Eq. 5 for a Pair with ``size`` pictures at a time."""

    def model(xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Tensor:
        return pair.base(xt, t, prompt, pair.control(xt, t, prompt, condition))

    return condition_loss(model, pair.base, "edge", generator, next_batch=partial(random_batch, size))


# %% Measuring it


def scores_of(evaluation: Evaluation, base: UNet, control: nn.Module | None) -> tuple[Scores, Tensor]:
    images = evaluation.sample(base, control)
    return evaluation.scores(images), images


def train(record: Record) -> None:
    base, evaluation = load_base(), Evaluation(4 if record.quick else 32)
    if "no control" not in record.numbers:
        scores, images = scores_of(evaluation, base, None)
        record.add_pictures("no control", figures.outlined(images[:4], evaluation.edges[:4]))
        record.add("train", "no control", scores)
    for arm in ARMS:
        for seed in record.missing(arm, SEEDS):
            train_arm(record, base, evaluation, arm, seed)


def train_arm(record: Record, base: UNet, evaluation: Evaluation, arm: str, seed: int) -> None:
    """Train one arm with one seed. The small batch is tested on its way, too."""
    curves, after = {}, {}
    longer = BATCH // SMALL if arm == "small batch" else 1
    short = 2 if record.quick else STEPS
    steps = longer * short
    training = Training(seeded(seed, ARMS[arm], base), partial(pair_loss, BATCH // longer), steps=100 * steps, lr=1e-3,
                        seed=seed)
    for step, _ in at_constant_rate(training, steps):
        pair = training.averaged
        if step == 1 or step % (20 * longer) == 0 or step == steps:
            look(curves, step, pair.base, pair.control, n=4 if record.quick else 32)
        if step < steps and step in (short, 2 * short):
            after[f"after {step // short}"], _ = scores_of(evaluation, pair.base, pair.control)
    scores, images = scores_of(evaluation, pair.base, pair.control)
    if arm == "decoder unlocked":
        after["without control"], _ = scores_of(evaluation, pair.base, None)
    if seed == SEEDS[0]:
        record.add_pictures(arm, figures.outlined(images[:4], evaluation.edges[:4]))
    record.add("train", arm, {**scores, **after, **curves, "half": reached(curves["gap"], 0.5)})


# %% What the record says


def findings(numbers: dict) -> Findings:
    """Differences between arms, paired by the training seed."""
    usual, small, unlocked = (numbers[arm] for arm in ("as in the paper", "small batch", "decoder unlocked"))
    return {"300 steps of 16 minus 1,200 of 4, F1": minus(usual["F1"], small["F1"]),
            "600 steps of 4 minus 1,200, F1": minus(small["after 2"]["F1"], small["F1"]),
            "unlocked minus locked, F1": minus(unlocked["F1"], usual["F1"]),
            "locked minus unlocked, right shapes without control": minus(
                numbers["no control"]["right shapes"], unlocked["without control"]["right shapes"]),
            "all 13 minus the middle, F1": minus(usual["F1"], numbers["middle alone"]["F1"]),
            "with t and xt minus without, F1": minus(usual["F1"], numbers["without t and xt"]["F1"]),
            "step of half the gap, batch of 16": usual["half"], "step of half the gap, batch of 4": small["half"]}


if __name__ == "__main__":
    run("users_variants", {"train": train}, findings)
