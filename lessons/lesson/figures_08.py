"""The figures of lesson 08."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import grid, show, styled

PROMPTS = ["no words", "ground", "wrong shape", "right"]


@styled
def dropped_prompts(pictures: dict[str, Tensor], right_colours: dict[str, float], verdict: str) -> Figure:
    """Four pictures of each arm, one for each kind of prompt; the share of right colours without a word."""
    left = []
    for arm, share in right_colours.items():
        name = arm.removeprefix("pairs, ").replace(" ", "\n")
        left.append(f"{name}\n{share:.0%}")
    return grid(torch.cat([pictures[arm] for arm in right_colours]), 4,
                f"Dropped prompts teach the copy an outline's own colours: {verdict}", PROMPTS, left)


@styled
def starts_and_few_pictures(pictures: dict[str, Tensor], iou: dict[str, float], paint: dict[str, float],
                            titles: tuple[str, str]) -> Figure:
    """At the left the arms of Fig. 8, at the right those that saw few pictures; four pictures of each arm.

    iou: arm -> mask IoU without a prompt. paint: arm -> share of right colours among the new ones.
    """
    figure = Figure()
    left, right = figure.subplots(1, 2)
    show(left, torch.cat([pictures[arm] for arm in iou]), 4, titles[0], PROMPTS,
         [f"{arm}\n{value:.3f}" for arm, value in iou.items()])
    names = []
    for arm, share in paint.items():
        names.append(f"{arm.replace(' ', chr(10), 1)}\n{share:.0%}")
    show(right, torch.cat([pictures[f"few: {arm}"] for arm in paint]), 4, titles[1],
         ["seen", "new colours", "", "and shapes"], names)
    return figure
