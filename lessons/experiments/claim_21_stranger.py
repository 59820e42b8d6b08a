"""Beside claim 21: does a ControlNet work on a base that was trained independently?

    python lessons/experiments/claim_21_stranger.py

It takes about 6 minutes on one core. This was written down before any number was seen.

B has the same architecture as the shipped base A, but another start and other training pictures. The paper claims
nothing about such bases. There is only one B, so the unit is the picture. B's own ControlNet, trained for 300 steps,
shows whether B can be controlled at all; it is no ceiling.

The tool tool_transfer_control.py in the authors' code adds the difference of the two bases to the copy
(github.com/lllyasviel/ControlNet, issue 13). It works if its IoU is above that of the ControlNet as it is.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
from torch import Tensor

from experiments.common import Evaluation, Findings, Record, minus, run
from experiments.transfer import moved
from minicontrolnet import (ControlNet, Training, UNet, base_loss, control_loss, load_base, load_control, lock,
                            mask_iou, mask_of, seeded)
from minicontrolnet.draw import figures

SEED, STEPS_OF_B, STEPS = 1, 1500, 300


def scores_of(images: Tensor, evaluation: Evaluation) -> dict:
    each = mask_iou(mask_of(images), evaluation.truth.mask)
    return evaluation.scores(images) | {"IoU of each": each}


def train(record: Record) -> None:
    if "stranger, its own ControlNet" in record.numbers:
        return
    a, evaluation = load_base(), Evaluation(4 if record.quick else 48)
    control = load_control("edge", a)
    training = Training(seeded(SEED, UNet), base_loss, steps=2 if record.quick else STEPS_OF_B, lr=2e-3, seed=SEED)
    for _ in training:
        pass
    b = lock(training.averaged)
    training = Training(seeded(SEED, ControlNet, b), control_loss(b, "edge"), steps=2 if record.quick else STEPS,
                        lr=1e-3, seed=SEED)
    for _ in training:
        pass
    arms = {"base, no ControlNet": (a, None), "base, its own ControlNet": (a, control),
            "stranger, no ControlNet": (b, None), "stranger, the base's ControlNet": (b, control),
            "stranger, the moved ControlNet": (b, moved(control, a, b)),
            "stranger, its own ControlNet": (b, training.averaged)}
    for arm, (base, network) in arms.items():
        images = evaluation.sample(base, network)
        record.add_pictures(arm, figures.outlined(images[:4], evaluation.edges[:4]))
        record.add("train", arm, scores_of(images, evaluation))


# %% What the record says


def findings(numbers: dict) -> Findings:
    """Differences over the pictures."""
    each = {arm: scores["IoU of each"][0] for arm, scores in numbers.items()}
    on_base, none_on_base = each["base, its own ControlNet"], each["base, no ControlNet"]
    old, moved_one = each["stranger, the base's ControlNet"], each["stranger, the moved ControlNet"]
    own, none = each["stranger, its own ControlNet"], each["stranger, no ControlNet"]
    return {"A: control minus none, IoU": minus(on_base, none_on_base),
            "B: control minus none, IoU": minus(old, none),
            "B: difference added minus as it is, IoU": minus(moved_one, old),
            "B: its own minus none, IoU": minus(own, none)}


if __name__ == "__main__":
    run("claim_21_stranger", {"train": train}, findings)
