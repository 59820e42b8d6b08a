"""Users ask: my data set has no captions. Can I train with empty prompts, or with one prompt for all pictures?

    python lessons/experiments/users_empty_prompts.py

It takes about 3 minutes on one core. The question is from the official repository's issues 93, 160, 246, 422, 506,
602 and 613.

This was written down before the experiment ran. There are two ControlNets on the locked base. In the training of one,
half of the prompts are empty (as in the paper); in the other, all are. They are trained for 250 steps of 16 at 1e-3,
with three seeds (60 to 62). We test them on 48 held-out outlines with the right prompts and without words, with
guidance 2.5 and 12 DDIM steps. One of the copies never sees a word, but the locked base still understands all words. So
we expect little loss.
- Empty prompts suffice when we use words. We take half minus all, in IoU with the right prompts. There is a loss if
  it is above 0. Otherwise none was seen, and the interval shows how large a loss we could have missed. The same
  difference in right colours shows whether the base still obeys.
- Empty prompts help when there are no words. We take all minus half, in IoU without words. Shown by: it is above 0.
  Refuted by: it is below 0.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
from experiments.common import Evaluation, Findings, Record, minus, run
from minicontrolnet import ControlNet, Training, control_loss, load_base, seeded

SEEDS, STEPS = range(60, 63), 250
ARMS = {"half empty": 0.5, "all empty": 1.0}


def train(record: Record) -> None:
    base, evaluation = load_base(), Evaluation(4 if record.quick else 48)
    for arm, drop in ARMS.items():
        for seed in record.missing(arm, SEEDS):
            training = Training(seeded(seed, ControlNet, base), control_loss(base, "edge", drop=drop),
                                steps=2 if record.quick else STEPS, lr=1e-3, seed=seed)
            for _ in training:
                pass
            images = evaluation.sample(base, training.averaged)
            wordless = evaluation.sample(base, training.averaged, "")
            record.add("train", arm, evaluation.scores(images) | {"no words": evaluation.scores(wordless)})


# %% What the record says


def findings(numbers: dict) -> Findings:
    """Differences between the arms, paired by the training seed."""
    half, empty = numbers["half empty"], numbers["all empty"]
    return {"half minus all, IoU": minus(half["IoU"], empty["IoU"]),
            "half minus all, right colours": minus(half["right colours"], empty["right colours"]),
            "all minus half, IoU without words": minus(empty["no words"]["IoU"], half["no words"]["IoU"])}


if __name__ == "__main__":
    run("users_empty_prompts", {"train": train}, findings)
