"""The figures of lesson 08."""

from statistics import fmean

from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import grid, styled

PROMPTS = ["no prompt", "background\nalone", "wrong\nshape", "perfect\nprompt"]
VARIANTS = {"zero convs": "zero\nconvs", "N(0, 1/fan_in)": "large\nGaussian", "N(0, 0.02^2)": "small\nGaussian",
            "lite": "lite"}


@styled
def figure_8(pictures: Tensor, arms: list[str]) -> Figure:
    """Four pictures of each variant, one for each kind of prompt, with their outlines."""
    return grid(pictures, 4, "All variants follow the outline; they differ in how precisely", PROMPTS,
                [VARIANTS[arm] for arm in arms])


@styled
def dropped_prompts(pictures: Tensor, numbers: dict[str, dict]) -> Figure:
    """Four pictures of each ControlNet, one for each kind of prompt."""
    left = []
    for arm, scores in numbers.items():
        share = fmean(scores["none"]["right colours"])
        name = arm.replace(" ", "\n")
        left.append(f"{name}:\n{share:.0%} right\nwith no prompt")
    return grid(pictures, 4, "Empty training prompts teach the copy which colours an outline has", PROMPTS, left)


@styled
def few_pictures(pictures: Tensor, share: dict[str, float]) -> Figure:
    """Four pictures of each network. The first has colours of the training, and the others have not."""
    left = [f"{name}\n{right:.0%} right" for name, right in share.items()]
    return grid(pictures, 4, "Only networks with a locked base keep the other four colours",
                ["colours of\nthe training", "new colours", "new colours\nand shapes", "new colours\nand shapes"], left)
