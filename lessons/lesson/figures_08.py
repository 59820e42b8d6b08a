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
def gaps(arms: dict[str, dict]) -> Figure:
    """The condition-shuffle gap of each variant during training, as means over seeds, on two scales.

    arms: name -> scores, where scores["gap"] is: step -> a list over seeds.
    """
    figure = Figure()
    left, right = figure.subplots(1, 2, sharex=True)
    for name, scores in arms.items():
        means = {int(step): sum(seeds) / len(seeds) for step, seeds in scores["gap"].items()}
        visible = {step: gap for step, gap in means.items() if gap > 1e-7}  # a log scale has no 0
        left.plot(list(means), list(means.values()), label=name)
        right.plot(list(visible), list(visible.values()), label=name)
    left.set(xlabel="training step", ylabel="condition-shuffle gap", ylim=(0, None),
             title="All four wait, and then rise steeply")
    right.set(xlabel="training step", yscale="log", title="A large start is ahead at first,\nand still waits longest")
    left.legend(frameon=False)
    return figure


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
    left = [f"{name}:\n{right:.0%} of new\ncolours right" for name, right in share.items()]
    return grid(pictures, 4, "Only networks with a locked base keep the other four colours",
                ["colours of\nthe training", "new colours", "new colours\nand shapes", "new colours\nand shapes"], left)
