"""Beside claim 20: do words decide more, the more of an outline is missing?

    python lessons/experiments/words_on_erased_outlines.py

It takes about 2 minutes on one core, without any training. This was written down before any number was seen.

A part of the outline is erased. Or the outline has eight corners, between square and circle.

We take it as shown that words decide more if two things hold. The outline's shape is generated more often with its word
than without words. And the shape of a wrong word is generated more often, the more is erased. We wrote that it is
refuted if the word makes no difference. By the rule of CLAIMS.md, which is newer, no difference would be undecided.

These are the shipped weights, so the unit is the picture (48).
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
from experiments.common import Evaluation, Findings, Record, minus, run
from experiments.transfer import between, erase
from minicontrolnet import SHAPES, conflicting, held_out, load_base, load_control, mask_iou, mask_of, shapes_right
from minicontrolnet.draw import figures

ERASED = (0.0, 0.25, 0.4, 0.6)  # shares of a turn


def erased(record: Record) -> None:
    base, evaluation = load_base(), Evaluation(4 if record.quick else 48)
    control, truth = load_control("edge", base), evaluation.truth
    right, wrong = truth.prompt, conflicting(truth.prompt)
    for share in ERASED:
        edges = erase(evaluation.edges, truth.scenes.centre, share)
        for name, prompt in (("right word", right), ("no words", 0 * right), ("wrong word", wrong)):
            arm = f"{share:.0%} erased, {name}"
            if arm in record.numbers:
                continue
            images = evaluation.sample(base, control, prompt, edges=edges)
            own = shapes_right(images, right, evaluation.classifier).float()
            other = shapes_right(images, wrong, evaluation.classifier).float()
            record.add_pictures(arm, figures.outlined(images[:4], edges[:4]))
            record.add("erased", arm, {"outline's shape": own.mean().item(), "other shape": other.mean().item(),
                                       "IoU": mask_iou(mask_of(images), truth.mask).mean().item(),
                                       "outline's shape of each": own, "other shape of each": other})


def eight_corners(record: Record) -> None:
    """As which shapes the classifier sees pictures of one outline, for each prompt."""
    base, evaluation = load_base(), Evaluation(4 if record.quick else 48)
    control = load_control("edge", base)
    edges, mask = between(held_out(1)[0].scenes)
    for prompt in ("", "red on blue", *(f"red {shape} on blue" for shape in SHAPES)):
        arm = f"eight corners, {prompt or 'no words'}"
        if arm in record.numbers:
            continue
        images = evaluation.sample(base, control, prompt, edges=edges)
        seen = evaluation.classifier(mask_of(images)).argmax(1)
        scores = {shape: (seen == i).float().mean().item() for i, shape in enumerate(SHAPES)}
        scores["IoU"] = mask_iou(mask_of(images), mask.expand_as(images[:, :1])).mean().item()
        record.add_pictures(arm, figures.outlined(images[:4], edges.expand(4, -1, -1, -1)))
        record.add("eight corners", arm, scores)


# %% What the record says


def findings(numbers: dict) -> Findings:
    """How much the words matter: differences over the pictures."""
    own, other = "outline's shape of each", "other shape of each"
    return {"60% erased: its word minus no words": minus(numbers["60% erased, right word"][own][0],
                                                         numbers["60% erased, no words"][own][0]),
            "a wrong word's shape: 60% erased minus whole": minus(numbers["60% erased, wrong word"][other][0],
                                                                  numbers["0% erased, wrong word"][other][0])}


if __name__ == "__main__":
    run("words_on_erased_outlines", {"erased": erased, "eight corners": eight_corners}, findings)
