"""Claim 20: what does a ControlNet make of an ambiguous outline when there are no words?

    python lessons/experiments/claim_20_ambiguous_outlines.py

It takes about one minute on one core, without any training. The paper (Fig. 11) says that without a prompt the model
interprets the content of an ambiguous condition, in several plausible ways. (A reviewer found that "in several
plausible ways" is ours. The caption says: "the results look like the model tries to interpret input shapes".)

This was written down before the experiment ran. An earlier record decided this by what words do, but the claim is about
pictures without words. Here a sector of each outline is erased: 0, 25, 40 or 60 % of a full turn. One outline lies
between square and circle. There are 24 held-out outlines with eight noises each, so 192 pictures for each share. The
shipped edge ControlNet generates them without a prompt, in 12 DDIM steps with guidance 2.5. The unit is the outline
(24).

Four measures decide together, at 60 % erased. All four have to hold for "shown", and if one of them is refuted, the
claim is refuted:
1. Clean: the clean pixels minus those of the base without a prompt and without control. Shown by: the interval is
   above -0.02. Refuted by: it is below -0.02.
2. Classifiable: the share of pictures whose shape the classifier names with a probability of at least 0.9, minus one
   half. Shown by: it is above 0. Refuted by: it is below 0. The share among real pictures is printed as the ceiling.
3. The rest is followed: the share of the remaining edges that the picture has within one pixel, minus the same for
   the outline of the next picture. Shown by: it is above 0. Refuted by: it is below 0.
4. More than one reading. A reading of an outline is a shape that the classifier names with at least 0.9 in two or
   more of its eight pictures. We take the readings at 60 % erased minus the readings of the whole outline. Shown by:
   it is above 0. Refuted by: it is below 0.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.common import Findings, Record, minus, run
from experiments.transfer import between, erase
from minicontrolnet import (SHAPES, detect_edges, held_out, load_base, load_classifier, load_control, mask_of,
                            off_palette, sample)

OUTLINES, NOISES, SURE = 24, 8, 0.9
SHARES = (0.0, 0.25, 0.4, 0.6)


def recall(images: Tensor, edges: Tensor) -> Tensor:
    """The share (n,) of edges that the pictures have within one pixel."""
    near = F.max_pool2d(detect_edges(images), 3, stride=1, padding=1)
    return (edges * near).sum((1, 2, 3)) / edges.sum((1, 2, 3)).clamp(min=1)


def reading(images: Tensor, edges: Tensor, classifier, n: int) -> dict:
    """Means over the noises of each of n outlines, and how often each shape was named for sure.

    Pictures are ordered by outline, all noises of one after the other.
    """
    sure, named = classifier(mask_of(images)).softmax(1).max(1)
    counts = F.one_hot(named, len(SHAPES)) * (sure >= SURE).long()[:, None]
    other = edges.roll(len(images) // n, 0) if n > 1 else edges
    per_outline = {"clean pixels": 1 - off_palette(images), "classifiable": (sure >= SURE).float(),
                   "remaining edges followed": recall(images, edges), "neighbour's edges": recall(images, other)}
    scores = {name: values.view(n, -1).mean(1) for name, values in per_outline.items()}
    return scores | {"named": counts.view(n, -1, len(SHAPES)).sum(1)}


def live(record: Record) -> None:
    base, classifier = load_base(), load_classifier()
    control = load_control("edge", base)
    n, noises = (4, 2) if record.quick else (OUTLINES, NOISES)
    truth, _ = held_out(n)
    noise = torch.randn(n * noises, 3, 64, 64, generator=torch.Generator().manual_seed(20))
    outline = detect_edges(truth.image)

    def repeat(tensor: Tensor) -> Tensor:
        return tensor.repeat_interleave(noises, 0)

    for share in SHARES:
        edges = repeat(erase(outline, truth.scenes.centre, share))
        images = sample(base, "", noise, [(control, edges)], steps=12)
        record.add("live", f"{share:.0%} erased", reading(images, edges, classifier, n))
    free = sample(base, "", noise, steps=12)
    record.add("live", "no control", reading(free, repeat(outline), classifier, n))
    record.add("live", "real pictures", reading(repeat(truth.image), repeat(outline), classifier, n))
    edges = between(truth.scenes._replace(**{name: field[:1] for name, field in truth.scenes._asdict().items()}))[0]
    edges = edges.expand(len(noise), -1, -1, -1)
    images = sample(base, "", noise, [(control, edges)], steps=12)
    record.add("live", "eight corners", reading(images, edges, classifier, 1))


# %% What the record says


def readings(counts: list[list[int]]) -> list[float]:
    """How many shapes were named in two or more pictures, for each outline."""
    return [float(sum(count >= 2 for count in outline)) for outline in counts]


def findings(numbers: dict) -> Findings:
    """The four measures that decide, over the outlines, at every share that is erased."""
    found = {}
    whole = readings(numbers["0% erased"]["named"][0])
    for share in SHARES:
        arm = f"{share:.0%} erased"
        run = numbers[arm]
        found[f"{arm}: clean pixels minus the base's"] = minus(run["clean pixels"][0],
                                                              numbers["no control"]["clean pixels"][0])
        found[f"{arm}: classifiable minus one half"] = [value - 0.5 for value in run["classifiable"][0]]
        found[f"{arm}: edges followed minus a neighbour's"] = minus(run["remaining edges followed"][0],
                                                                    run["neighbour's edges"][0])
        found[f"{arm}: readings"] = readings(run["named"][0])
        if share:
            found[f"{arm}: more than one reading"] = [float(number > 1) for number in found[f"{arm}: readings"]]
            found[f"{arm}: readings minus those of the whole"] = minus(readings(run["named"][0]), whole)
            found[f"{arm}: the outline's own shape among those named"] = [own_shape(run, numbers["real pictures"])]
    free = readings(numbers["no control"]["named"][0])
    return found | {"no control: readings": free, "no control: more than one reading": [float(n > 1) for n in free]}


def own_shape(run: dict, real: dict) -> float:
    """Of all pictures that are named for sure, the share with the name that the real picture has."""
    right = sum(counts[truth.index(max(truth))] for counts, truth in zip(run["named"][0], real["named"][0]))
    return right / sum(map(sum, run["named"][0]))


if __name__ == "__main__":
    run("claim_20_ambiguous_outlines", {"live": live}, findings)
