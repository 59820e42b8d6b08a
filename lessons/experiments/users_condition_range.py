"""Users ask: why is the condition in [0, 1] when the picture is in [-1, 1], and what if it is not?

    python lessons/experiments/users_condition_range.py

It takes about 3 minutes on one core. The question is from the official repository's issues 112, 473 and 603, and from
diffusers 10821. This was written down before the experiment ran.

Part "live": the shipped edge ControlNet was trained in [0, 1]. By mistake we give it conditions in [-1, 1] or in [0,
255]. There are 48 held-out outlines with the right prompts, guidance 2.5 and 12 DDIM steps. The unit is the picture.
- The mistake does harm. Shown by: in edge F1, [0, 1] minus the other range is above 0. Refuted by: it is below 0.

Part "train": training and test have the same range, for 250 steps of 16 at 1e-3, with the seeds 60 to 62. The arm
with [0, 1] is the arm "half empty" of users_empty_prompts.py, which has the same seeds, data and steps.
- The range is a convention. We take two differences in F1: [0, 1] minus [-1, 1], and [0, 1] minus [0, 255]. A range is
  worse if its interval is above 0. Otherwise no harm was seen, and the interval shows how large a harm we could have
  missed.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
import torch
from torch import Tensor, nn

from experiments.common import Evaluation, Findings, Record, controlled, minus, run
from lesson.results import load_results
from minicontrolnet import (ControlNet, Training, condition_loss, edge_f1, load_base, load_control, mask_iou, mask_of,
                            off_palette, seeded)

SEEDS, STEPS = range(60, 63), 250
RANGES = {"[-1, 1]": (2.0, -1.0), "[0, 255]": (255.0, 0.0)}  # factor, offset


class OtherRange(ControlNet):
    """A ControlNet that gets its condition, which is in [0, 1], in another range."""

    factor, offset = 1.0, 0.0

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor):
        return super().forward(xt, t, prompt, condition * self.factor + self.offset)


def live(record: Record) -> None:
    base, evaluation = load_base(), Evaluation(4 if record.quick else 48)
    shipped = load_control("edge", base)
    for name, (factor, offset) in {"[0, 1]": (1.0, 0.0), **RANGES}.items():
        arm = f"shipped, given {name}"
        if arm not in record.numbers:
            control = OtherRange(base)
            control.load_state_dict(shipped.state_dict())
            control.factor, control.offset = factor, offset
            images = evaluation.sample(base, control)
            record.add("live", arm, {"F1": edge_f1(images, evaluation.edges), "clean pixels": 1 - off_palette(images),
                                     "IoU": mask_iou(mask_of(images), evaluation.truth.mask)})


def train(record: Record) -> None:
    base, evaluation = load_base(), Evaluation(4 if record.quick else 48)
    for name, (factor, offset) in RANGES.items():
        arm = f"trained in {name}"
        for seed in record.missing(arm, SEEDS):
            control = seeded(seed, OtherRange, base)
            control.factor, control.offset = factor, offset

            def loss(control: nn.Module, generator: torch.Generator) -> Tensor:
                return condition_loss(controlled(base, control), base, "edge", generator)

            training = Training(control, loss, steps=2 if record.quick else STEPS, lr=1e-3, seed=seed)
            for _ in training:
                pass
            images = evaluation.sample(base, training.averaged)
            wordless = evaluation.sample(base, training.averaged, "")
            record.add("train", arm, evaluation.scores(images) | {"no words": evaluation.scores(wordless)})


# %% What the record says


def findings(numbers: dict) -> Findings:
    """[0, 1] minus the other ranges: over the pictures for the shipped ControlNet, over seeds for the trained ones."""
    found = {}
    for name in RANGES:
        for score in ("F1", "IoU", "clean pixels"):
            found[f"by mistake: [0, 1] minus {name}, {score}"] = minus(
                numbers["shipped, given [0, 1]"][score][0], numbers[f"shipped, given {name}"][score][0])
    if all(f"trained in {name}" in numbers for name in RANGES):
        usual = load_results("users_empty_prompts")["numbers"]["half empty"]
        for name in RANGES:
            for score in ("F1", "IoU", "clean pixels"):
                found[f"trained: [0, 1] minus {name}, {score}"] = minus(usual[score],
                                                                        numbers[f"trained in {name}"][score])
    return found


if __name__ == "__main__":
    run("users_condition_range", {"live": live, "train": train}, findings)
