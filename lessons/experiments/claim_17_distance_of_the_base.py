"""Claim 17: does control increase the distance from real pictures?

    python lessons/experiments/claim_17_distance_of_the_base.py

It takes about one minute on one core, without any training. Tab. 3 of the paper has an FID of 15.27 for ControlNet
and 17.92 for its lite form, but 6.09 for Stable Diffusion without any control. The arms of Fig. 8 test the order of
the first two. This experiment asks about the third.

This was written down before the experiment ran. There are six sets of 128 held-out pictures (seeds 10,100 to 10,105).
For each set the base samples from the prompts. The shipped edge ControlNet samples from the same prompts and noise, and
from the outlines. Guidance is 2.5, with 12 DDIM steps. The measure is the Frechet distance between the shape
classifier's features of their masks and those of 128 other real pictures. It is not FID, because this classifier sees
masks only. Small sets of pictures raise this distance.
- Control increases the distance from real pictures. Shown by: ControlNet minus base is above 0 over the six sets
  (t = 2.57). Refuted by: it is below 0.

We expect the opposite of the paper. In this toy an outline comes from a real picture, and the base generates shapes
less exactly than an outline shows them.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
from experiments.common import Findings, Record, minus, run
from minicontrolnet import (detect_edges, frechet_distance, held_out, load_base, load_classifier, load_control, mask_of,
                            sample)

SETS, SIZE = range(10_100, 10_106), 128


def live(record: Record) -> None:
    base, classifier = load_base(), load_classifier()
    control, n = load_control("edge", base), 8 if record.quick else SIZE
    for seed in SETS:
        if seed not in record.missing("ControlNet", SETS):
            continue
        truth, noise = held_out(n, seed=seed)
        others, _ = held_out(n, seed=seed + 1000)
        real = classifier.features(mask_of(others.image))
        arms = {"real pictures": truth.image, "base": sample(base, truth.prompt, noise, steps=12),
                "ControlNet": sample(base, truth.prompt, noise, [(control, detect_edges(truth.image))], steps=12)}
        for arm, images in arms.items():
            distance = frechet_distance(classifier.features(mask_of(images)).detach(), real.detach())
            record.add("live", arm, {"Frechet": distance})


# %% What the record says


def findings(numbers: dict) -> Findings:
    """Differences over the sets of pictures."""
    distance = {arm: numbers[arm]["Frechet"] for arm in ("real pictures", "base", "ControlNet")}
    return {"ControlNet minus base": minus(distance["ControlNet"], distance["base"]),
            "ControlNet minus real": minus(distance["ControlNet"], distance["real pictures"])}


if __name__ == "__main__":
    run("claim_17_distance_of_the_base", {"live": live}, findings)
