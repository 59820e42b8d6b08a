"""Claim 7: what should a network predict, and how should its errors be weighted?

    python lessons/experiments/claim_07_objective.py

It takes about 22 minutes on one core. This was written down before any number of these runs was seen. We had seen one
earlier run of 80 steps and one seed. Its shares of clean pixels were 90 % for x0, 49 % for x0 by Eq. 5, 31 % for v and
27 % for eps. (Some models predict v, which is a mixture of noise and picture.)

Eq. 5 weights all errors of eps alike. Our base predicts x0, and its errors have weights of their own (loss_weight in
diffusion.py). So two things differ at once, and we test them one by one:
- The weight matters. Shown by: x0 with its own weight is ahead of x0 by Eq. 5.
- The prediction matters. Shown by: x0 by Eq. 5 is ahead of eps. Both have the weights of Eq. 5.

The measures are right shapes and clean pixels, paired by the training seed. "Ahead" means that the interval over
three seeds is above 0. An interval below 0 refutes. An interval that contains 0 decides nothing.

All arms share the pictures, the noise and the steps. In each seed they also share the first weights.
"""

import sys
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
import torch

from experiments.common import Findings, Record, Scores, minus, run
from minicontrolnet import (Batch, Training, UNet, base_loss, held_out, load_classifier, off_palette, prompt_scores,
                            q_sample, random_times_and_noise, sample, seeded, x0_from_eps)

# The name of an arm -> what the network predicts, and whose weight its errors have.
ARMS = {"eps": ("eps", "eps"), "v": ("v", "v"), "x0 by Eq. 5": ("x0", "eps"), "x0": ("x0", "x0")}
SEEDS, STEPS = range(3), 500


@torch.no_grad()
def errors_of(network: UNet, truth: Batch) -> Scores:
    """The error of eps, weighted as in Eq. 5, and the error of x0 where noise prevails."""
    t, eps = random_times_and_noise(truth.x0, torch.Generator().manual_seed(0))
    xt = q_sample(truth.x0, t, eps)
    found = network(xt, t, truth.prompt)
    x0_error = (x0_from_eps(found, xt, t).clamp(-1, 1) - truth.x0)[t >= 500]
    return {"error of eps": (found - eps).square().mean().item(),
            "error of x0 at t >= 500": x0_error.square().mean().item()}


def train(record: Record) -> None:
    steps, n, ddim_steps = (2, 8, 2) if record.quick else (STEPS, 128, 25)
    truth, noise = held_out(n)
    classifier = load_classifier()
    for arm, (kind, weight) in ARMS.items():
        for seed in record.missing(arm, SEEDS):
            training = Training(seeded(seed, UNet, prediction_type=kind), partial(base_loss, weighted_as=weight),
                                steps=steps, lr=1e-3, seed=seed)
            for _ in training:
                pass
            images = sample(training.averaged, truth.prompt, noise, steps=ddim_steps)
            if seed == SEEDS[0]:
                record.add_pictures(arm, images[:6])
            record.add("train", arm, errors_of(training.averaged, truth)
                       | prompt_scores(images, truth.prompt, classifier)
                       | {"clean pixels": 1 - off_palette(images).mean().item()})


# %% What the record says


def findings(numbers: dict) -> Findings:
    """The effect of the weight and the effect of the prediction, paired by the training seed."""
    found = {}
    for score in ("clean pixels", "shape accuracy", "colour accuracy"):
        found[f"the weight, {score}"] = minus(numbers["x0"][score], numbers["x0 by Eq. 5"][score])
        found[f"the prediction, {score}"] = minus(numbers["x0 by Eq. 5"][score], numbers["eps"][score])
    return found


if __name__ == "__main__":
    run("claim_07_objective", {"train": train}, findings)
