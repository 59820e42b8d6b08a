"""Claim 6: does a ControlNet need a learned condition encoder?

    python lessons/experiments/claim_06_condition_encoder.py

It takes about 8 minutes on one core. This was written down before any number was seen.

The paper (Sec. 3.2, Eq. 4) maps the condition to the feature space by a small convolutional network, which is trained
with the copy. The paper compares this network with nothing.

We compare the learned encoder with fixed ways of shrinking the condition. The measure is edge F1, paired by the
training seed. The claim is shown if learned minus fixed has an interval above 0 over three seeds. It is refuted if a
fixed shrinking is followed better. An interval that contains 0 decides nothing. Its width shows how large a difference
could still be hidden.

All arms share the pictures, the noise and the steps. In each seed they also share all first weights, except those of
the encoder. The condition-shuffle gap shows when an arm begins to follow.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
from experiments.common import Findings, Record, Scores, minus, run
from lesson.networks import encoder
from lesson.curves import look
from minicontrolnet import (ControlNet, Training, UNet, control_loss, detect_edges, edge_f1, held_out, load_base,
                            mask_iou, mask_of, sample, seeded)
from minicontrolnet.draw import figures

ARMS = ("learned", "stacked", "average", "every fourth", "shifted")
SEEDS, STEPS, EVERY = range(3), 180, 30


def with_encoder(base: UNet, how: str, seed: int) -> ControlNet:
    """A new ControlNet with one of the encoders. Everything else starts the same in each seed."""
    control = seeded(seed, ControlNet, base)
    control.condition_encoder = seeded(seed, encoder, how, base.encoder.channels[0])
    return control


def train(record: Record) -> None:
    base = load_base()
    for how in ARMS:
        for seed in record.missing(how, SEEDS):
            train_one(record, base, how, seed)


def train_one(record: Record, base: UNet, how: str, seed: int) -> None:
    steps, n, ddim_steps = (2, 4, 2) if record.quick else (STEPS, 32, 12)
    truth, noise = held_out(n)
    edges = detect_edges(truth.image)
    curves: Scores = {}
    control = with_encoder(base, how, seed)
    training = Training(control, control_loss(base, "edge"), steps=steps, lr=2e-3, seed=seed)
    look(curves, 0, base, control, n=n // 2)
    for step, _ in training:
        if step % EVERY == 0 or step == steps:
            look(curves, step, base, training.averaged, n=n // 2)
    images = sample(base, truth.prompt, noise, [(training.averaged, edges)], steps=ddim_steps)
    if seed == SEEDS[0]:
        record.add_pictures(how, figures.outlined(images[:4], edges[:4], 4))
    record.add("train", how, {"F1": edge_f1(images, edges).mean().item(),
                              "IoU": mask_iou(mask_of(images), truth.mask).mean().item(), **curves})


# %% What the record says


def findings(numbers: dict) -> Findings:
    """Learned minus each other encoder in edge F1, paired by the training seed."""
    return {f"learned minus {how}, F1": minus(numbers["learned"]["F1"], numbers[how]["F1"]) for how in ARMS[1:]}


if __name__ == "__main__":
    run("claim_06_condition_encoder", {"train": train}, findings)
