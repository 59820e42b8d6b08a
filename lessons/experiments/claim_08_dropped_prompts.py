"""Claim 8: what does dropping half of the prompts teach?

    python lessons/experiments/claim_08_dropped_prompts.py

It takes about 30 minutes on one core. This was written down before any number was seen.

The paper (Sec. 3.3) says: if half of the prompts are empty, the copy learns to read the meaning from the condition.
In the training data here, and nowhere else, each shape has two colours of its own. We train with half of the prompts
dropped and with none dropped, with three training seeds.

The claim is shown if, without a prompt, dropping gives more pictures that have the colours of their shape. It is
refuted if dropping gives fewer of them.

This was changed after numbers were seen: a first run had 200 steps. After these no copy had learned the pairs of
colours. So this run has 2,000 steps.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
import torch

from experiments.claims_13_14_16_17_figure_8 import train_arm, with_prompts
from experiments.common import Findings, Record, minus, run
from experiments.worlds import in_pairs
from minicontrolnet import Batch, ControlNet, held_out, load_base, load_classifier, random_scenes

SEEDS, STEPS = range(3), 2000
ARMS = {"half dropped": 0.5, "none dropped": 0.0}


def next_batch(generator: torch.Generator) -> Batch:
    return in_pairs(random_scenes(16, generator))


def train(record: Record) -> None:
    base, classifier = load_base(), load_classifier()
    steps, n, ddim_steps = (2, 2, 2) if record.quick else (STEPS, 64, 12)
    for arm, drop in ARMS.items():
        for seed in record.missing(arm, SEEDS):
            network = train_arm(base, ControlNet, steps, seed, drop, next_batch)
            truth, noise = held_out(n)
            scores, row = with_prompts(base, network, in_pairs(truth.scenes), noise, classifier, ddim_steps)
            if seed == SEEDS[0]:
                record.add_pictures(arm, row)
            record.add("train", arm, scores)


# %% What the record says


def findings(numbers: dict) -> Findings:
    """Half minus none, paired by the training seed."""
    half, none = numbers["half dropped"], numbers["none dropped"]
    return {"half minus none, right colours without words": minus(half["none"]["right colours"],
                                                                  none["none"]["right colours"]),
            "half minus none, IoU with the right prompt": minus(half["perfect"]["IoU"], none["perfect"]["IoU"])}


if __name__ == "__main__":
    run("claim_08_dropped_prompts", {"train": train}, findings)
