"""The figures of lesson 08."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import grid, styled

PROMPTS = ["no prompt", "background\nalone", "wrong\nshape", "perfect\nprompt"]


@styled
def figure_8(pictures: Tensor, names: list[str]) -> Figure:
    """Four pictures of each variant, one for each kind of prompt, with their outlines."""
    return grid(pictures, 4, "All variants follow the outline; they differ in how precisely", PROMPTS,
                [name.replace(" ", "\n") for name in names])


@styled
def dropped_prompts(pictures: Tensor, numbers: dict[str, dict]) -> Figure:
    """Four pictures of each ControlNet, one for each kind of prompt."""
    left = []
    for arm, scores in numbers.items():
        share = torch.tensor(scores["none"]["right colours"]).mean()
        name = arm.replace(" ", "\n")
        left.append(f"{name}\n{share:.0%} right\nwithout words")
    return grid(pictures, 4, "Empty prompts in training teach the copy which colours an outline has", PROMPTS, left)


@styled
def few_pictures(pictures: Tensor, share: dict[str, float]) -> Figure:
    """Four pictures of each network; the last three ask for what was not in its training."""
    left = [f"{arm}\n{right:.0%} right" for arm, right in share.items()]
    return grid(pictures, 4, "Only networks on the locked base keep the other four colours",
                ["colours of\nthe training", "new colours", "new colours", "new colours\nand shapes"], left)
