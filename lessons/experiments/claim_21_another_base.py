"""Claim 21: does a ControlNet work on another base that was made from the same one?

    python lessons/experiments/claim_21_another_base.py

It takes about 6 minutes on one core. The paper (Sec. 4.5, Fig. 12) says that a ControlNet can be applied to community
models that were made from the same Stable Diffusion, without training.

This was written down before the experiment ran. An earlier record compared A's shipped ControlNet (4,000 steps) with
one that the sibling A' had trained for 300 steps, and called the latter a ceiling. It was none. Here both are trained
for the same 400 steps of 16 at 1e-3, with the same training seed.

A is the shipped base. A' is A after 300 steps on pale pictures (half way to white) at 5e-4. There are three seeds (50
to 52). These are the arms on A':
- no control,
- A's ControlNet as it is,
- the same, with the difference of the bases added to the copy (as the tool tool_transfer_control.py in the authors'
  code does),
- the sibling's own ControlNet.
Where it makes sense, we measure an arm on A as well, to see what A's ControlNet reaches at home. There are 64
held-out outlines with the right prompts, 12 DDIM steps and guidance 2.5. The unit is the training seed.
- Outlines are followed. Shown by: on A', in IoU, A's ControlNet minus no control is above 0. Refuted by: it is below
  0.
- The style is kept. "Style" is the share of pictures with the right colours of the pale world. We take A's ControlNet
  minus the sibling's own, on A'. Shown by: the interval is above -0.05, which is the one margin of this experiment.
  Refuted by: it is below -0.05. The arm without control is printed for comparison.
- The cost of moving. We take own minus A's ControlNet, on A', in IoU, and the same for the difference added. This is
  printed without a rule, because the paper makes no claim about it.
"""

import copy
import sys
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
from torch import Tensor, nn

from experiments.common import Evaluation, Findings, Record, minus, run
from experiments.transfer import moved, pale_batch, unpale
from minicontrolnet import (ControlNet, Training, UNet, base_loss, colours_right, control_loss, fresh_batch, load_base,
                            lock, seeded)

SEEDS, SIBLING, STEPS = range(50, 53), 300, 400


def trained(network: nn.Module, loss, steps: int, rate: float, seed: int) -> nn.Module:
    training = Training(network, loss, steps=steps, lr=rate, seed=seed)
    for _ in training:
        pass
    return training.averaged


def make_sibling(base: UNet, seed: int, steps: int) -> UNet:
    network = copy.deepcopy(base).requires_grad_(True)
    return lock(trained(network, partial(base_loss, next_batch=pale_batch), steps, 5e-4, seed))


def control_of(base: UNet, seed: int, steps: int, next_batch=fresh_batch) -> ControlNet:
    loss = control_loss(base, "edge", next_batch=next_batch)
    return trained(seeded(seed, ControlNet, base), loss, steps, 1e-3, seed)


def scores_of(images: Tensor, evaluation: Evaluation) -> dict:
    pale = colours_right(unpale(images), evaluation.truth.prompt).float().mean().item()
    return evaluation.scores(images) | {"pale colours": pale}


def train(record: Record) -> None:
    a, evaluation = load_base(), Evaluation(4 if record.quick else 64)
    sibling_steps, steps = (2, 2) if record.quick else (SIBLING, STEPS)
    for seed in SEEDS:
        if seed not in record.missing("sibling, its own ControlNet", SEEDS):
            continue
        sibling = make_sibling(a, seed, sibling_steps)
        control, own = control_of(a, seed, steps), control_of(sibling, seed, steps, pale_batch)
        arms = {"base, no ControlNet": (a, None), "base, its own ControlNet": (a, control),
                "sibling, no ControlNet": (sibling, None), "sibling, the base's ControlNet": (sibling, control),
                "sibling, the moved ControlNet": (sibling, moved(control, a, sibling)),
                "sibling, its own ControlNet": (sibling, own)}
        for arm, (base, network) in arms.items():
            images = evaluation.sample(base, network)
            if seed == SEEDS[0]:
                record.add_pictures(arm, images[:4])
            record.add("train", arm, scores_of(images, evaluation))


# %% What the record says


def findings(numbers: dict) -> Findings:
    """Differences on the sibling, paired by the training seed."""
    arms = {"no control": "sibling, no ControlNet", "A's ControlNet": "sibling, the base's ControlNet",
            "difference added": "sibling, the moved ControlNet", "its own": "sibling, its own ControlNet"}
    found = {}
    for one, other in (("A's ControlNet", "no control"), ("A's ControlNet", "its own"), ("its own", "no control"),
                       ("difference added", "A's ControlNet"), ("difference added", "its own")):
        for score in ("IoU", "pale colours"):
            difference = minus(numbers[arms[one]][score], numbers[arms[other]][score])
            found[f"{one} minus {other}, {score}"] = difference
    return found


if __name__ == "__main__":
    run("claim_21_another_base", {"train": train}, findings)
