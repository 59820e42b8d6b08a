"""Users ask: for a new condition, do I start from the base, or from a ControlNet for another condition?

    python lessons/experiments/users_new_condition.py

It takes about 2 minutes on one core. The question is from the official repository's issues 4, 233 and 337.

This was written down before the experiment ran. The new condition is the pose. One arm starts from a new copy of the
base with zero convs. The other starts from the shipped edge ControlNet, with all its weights, because it has the same
shapes. Both are trained for 150 steps of 16 at 1e-3, with three seeds (80 to 82). We test them after 50, 100 and 150
steps on 48 held-out poses, with the right prompts, guidance 2.5 and 12 DDIM steps. We measure mask IoU, and the error
of the place in pixels.
- An old ControlNet is a head start. Shown by: in IoU after 100 steps, from the edge ControlNet minus from the base is
  above 0. Refuted by: it is below 0. The other two moments are printed.
"""

import copy
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
from torch import nn

from experiments.common import Evaluation, Findings, Record, at_constant_rate, minus, run
from minicontrolnet import (ControlNet, Training, UNet, control_loss, load_base, load_control, pose_errors, sample,
                            seeded, stick_figure, tip_of)

SEEDS, STEPS, MOMENTS = range(80, 83), 150, (50, 100, 150)


def from_edge(base: UNet) -> ControlNet:
    return copy.deepcopy(load_control("edge", base)).requires_grad_(True)


ARMS = {"from the base": ControlNet, "from the edge ControlNet": from_edge}


def test(base: UNet, control: nn.Module, evaluation: Evaluation) -> dict:
    scenes = evaluation.truth.scenes
    pose = stick_figure(scenes.centre, tip_of(scenes))
    images = sample(base, evaluation.truth.prompt, evaluation.noise, [(control, pose)], steps=evaluation.ddim_steps)
    degrees, pixels = pose_errors(images, scenes)
    return evaluation.scores(images) | {"angle error": degrees.nanmean().item(), "place error": pixels.mean().item()}


def train(record: Record) -> None:
    base, evaluation = load_base(), Evaluation(8 if record.quick else 48)
    steps, moments = (2, (1, 2)) if record.quick else (STEPS, MOMENTS)
    for seed in SEEDS:
        for arm, build in ARMS.items():
            if seed not in record.missing(arm, SEEDS):
                continue
            control = seeded(seed, build, base)
            training = Training(control, control_loss(base, "pose"), steps=100 * STEPS, lr=1e-3, seed=seed)
            scores = {}
            for step, _ in at_constant_rate(training, steps):
                if step in moments:
                    scores[f"step {step}"] = test(base, training.averaged, evaluation)
            record.add("train", arm, scores)


# %% What the record says


def findings(numbers: dict) -> Findings:
    """The head start of an old ControlNet at each moment, paired by the training seed."""
    found, (base, edge) = {}, (numbers[arm] for arm in ARMS)
    for step in MOMENTS:
        at = f"step {step}"
        found[f"{at}: from edge minus from base, IoU"] = minus(edge[at]["IoU"], base[at]["IoU"])
        found[f"{at}: from base minus from edge, place error"] = minus(base[at]["place error"],
                                                                       edge[at]["place error"])
        found[f"{at}: from base minus from edge, angle error"] = minus(base[at]["angle error"],
                                                                       edge[at]["angle error"])
    return found


if __name__ == "__main__":
    run("users_new_condition", {"train": train}, findings)
