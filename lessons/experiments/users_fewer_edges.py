"""Users ask: how many of an outline's edges does a ControlNet need?

    python lessons/experiments/users_fewer_edges.py

It takes less than a minute on one core, without any training. This was written down before the experiment ran.

We delete cells of 4x4 pixels at random from the outline: none, 25, 50, 75 and 90 % of them. In training up to 5 % of
the cells were missing. The shipped edge ControlNet follows 64 held-out outlines, with the right prompts and without
words, with guidance 2.5 and 12 DDIM steps. We measure mask IoU, and edge F1 with the whole outline. The unit is the
picture.
- Half of the edges are enough with the right prompt. We take whole minus half, in IoU. There is a loss if it is above
  0, and its size is the answer.
- Words help where edges are missing. We measure how much IoU is lost when 75 % is deleted. From the loss without words
  we subtract the loss with the right prompt. Shown by: it is above 0. Refuted by: it is below 0.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.common import Evaluation, Findings, Record, minus, run
from minicontrolnet import edge_f1, load_base, load_control, mask_iou, mask_of, off_palette, shapes_right

DELETED = (0.0, 0.25, 0.5, 0.75, 0.9)


def delete(edges: Tensor, share: float) -> Tensor:
    """Delete a random share of the cells of 4x4 pixels."""
    generator = torch.Generator().manual_seed(9)
    kept = torch.rand(len(edges), 1, 16, 16, generator=generator) >= share
    return edges * F.interpolate(kept.float(), size=edges.shape[2:])


def live(record: Record) -> None:
    base, evaluation = load_base(), Evaluation(4 if record.quick else 64)
    control, truth = load_control("edge", base), evaluation.truth
    for words, prompt in (("right prompt", None), ("no words", "")):
        for share in DELETED:
            arm = f"{words}, {share:.0%} deleted"
            if arm not in record.numbers:
                images = evaluation.sample(base, control, prompt, edges=delete(evaluation.edges, share))
                shapes = shapes_right(images, truth.prompt, evaluation.classifier).float()
                record.add("live", arm, {"IoU": mask_iou(mask_of(images), truth.mask),
                                         "F1": edge_f1(images, evaluation.edges), "right shapes": shapes,
                                         "clean pixels": 1 - off_palette(images)})


# %% What the record says


def findings(numbers: dict) -> Findings:
    """The loss from deleting edges, over the pictures."""
    found = {}
    for share in DELETED[1:]:
        for words in ("right prompt", "no words"):
            whole, rest = (numbers[f"{words}, {part:.0%} deleted"]["IoU"][0] for part in (0, share))
            found[f"{words}: IoU lost by deleting {share:.0%}"] = minus(whole, rest)
        lost = f"IoU lost by deleting {share:.0%}"
        found[f"lost without words minus lost with them, {share:.0%} deleted"] = minus(
            found[f"no words: {lost}"], found[f"right prompt: {lost}"])
    return found


if __name__ == "__main__":
    run("users_fewer_edges", {"live": live}, findings)
