"""Claim 19: how many training pictures does a ControlNet need?

    python lessons/experiments/claim_19_few_pictures.py

It takes about 16 minutes on one core. The paper (Sec. 4.5, Fig. 10) reports that with 1,000 pictures the training
does not collapse, and that 50,000 and 3 million pictures give better results.

This was written down before the experiment ran. An earlier record had three training seeds. All of them used the same
draw of 50 and of 500 pictures, and the record called "more are better" contradicted. But a claim about data needs
several draws.

The arms are 5, 50, 500 and endless pictures. Each is trained for 360 steps of 16 at a rate of 1e-3, with the seeds 10
to 15, which were not used before. Every seed has a new draw of pictures. All arms are tested on the same 64 held-out
outlines.

We measure mask IoU and edge F1 with the right prompts. The unit is the training seed (six, t = 2.57).
- No collapse. Shown by: in IoU, 50 pictures minus no control is above 0. Refuted by: the interval is below 0. The arm
  with 5 pictures shows whether the measure can see a collapse at all.
- More are better. Shown by: in IoU, 500 minus 50 and endless minus 500 are both above 0. Refuted by: one of them is
  below 0. Otherwise undecided. F1 is printed beside IoU, and it decides nothing.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
import torch

from experiments.common import Evaluation, Findings, Record, minus, run
from minicontrolnet import Batch, ControlNet, Training, control_loss, fresh_batch, load_base, random_batch, seeded

SEEDS = range(10, 16)
ARMS = {"5": 5, "50": 50, "500": 500, "endless": None}
STEPS, BATCH = 360, 16


def only(n: int, draw: int):
    """Batches from n pictures that are always the same; another draw gives other pictures."""
    pictures = random_batch(n, torch.Generator().manual_seed(777 + draw))

    def next_batch(generator: torch.Generator) -> Batch:
        pick = torch.randint(n, (BATCH,), generator=generator)
        return pictures.map(lambda tensor: tensor[pick])

    return next_batch


def train(record: Record) -> None:
    base = load_base()
    evaluation = Evaluation(4 if record.quick else 64)
    steps = 2 if record.quick else STEPS
    if "no control" not in record.numbers:
        record.add("train", "no control", evaluation.scores(evaluation.sample(base, None)))
        record.add("train", "real pictures", evaluation.scores(evaluation.truth.image))
    for seed in SEEDS:
        for arm, n in ARMS.items():
            if seed in record.missing(arm, SEEDS):
                pictures = only(n, seed) if n else fresh_batch
                training = Training(seeded(seed, ControlNet, base), control_loss(base, "edge", next_batch=pictures),
                                    steps=steps, lr=1e-3, seed=seed)
                for _ in training:
                    pass
                images = evaluation.sample(base, training.averaged)
                wordless = evaluation.sample(base, training.averaged, "")
                record.add("train", arm, evaluation.scores(images) | {"no words": evaluation.scores(wordless)})


# %% What the record says


def findings(numbers: dict) -> Findings:
    """Differences between arms, paired by the training seed."""
    found = {}
    for one, other in (("50", "no control"), ("50", "5"), ("500", "50"), ("endless", "500"), ("endless", "50"),
                       ("endless", "5")):
        for score in ("IoU", "F1"):
            found[f"{one} minus {other}, {score}"] = minus(numbers[one][score], numbers[other][score])
    found["50 minus no control, clean pixels"] = minus(numbers["50"]["clean pixels"],
                                                       numbers["no control"]["clean pixels"])
    found["real minus endless, IoU"] = minus(numbers["real pictures"]["IoU"], numbers["endless"]["IoU"])
    found["endless minus no control, IoU"] = minus(numbers["endless"]["IoU"], numbers["no control"]["IoU"])
    return found


if __name__ == "__main__":
    run("claim_19_few_pictures", {"train": train}, findings)
