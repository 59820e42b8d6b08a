"""The figures of lesson 08."""

from statistics import fmean

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import grid, styled

PROMPTS = ["no prompt", "insufficient:\nbackground alone", "conflicting:\nwrong shape", "perfect prompt"]
SHORT = ["no prompt", "insufficient", "conflicting", "perfect"]
VARIANTS = {"zero convs": "zero\nconvs", "N(0, 0.02^2)": "small\nGaussian", "N(0, 1/fan_in)": "large\nGaussian",
            "lite": "lite"}


FAINT = 1e-7  # a log scale has no 0, so we leave out smaller gaps


@styled
def figure_8(pictures: Tensor, arms: list[str]) -> Figure:
    """Eight pictures of each variant, a star and a square for each kind of prompt, with their outlines."""
    each = dict(zip(arms, pictures.unflatten(0, (len(arms), -1))))
    rows = [each[arm] for arm in VARIANTS]
    return grid(torch.cat(rows), 8, "All four variants follow these outlines, unless the prompt names another shape\n"
                "(magenta: the outline; one training of each variant)", 2 * SHORT, list(VARIANTS.values()))


@styled
def gaps(arms: dict[str, dict]) -> Figure:
    """The condition-shuffle gap of each variant during training, as means over seeds, on two scales.

    arms: name -> scores, where scores["gap"] is: step -> a list over seeds.
    """
    figure = Figure()
    left, right = figure.subplots(1, 2, sharex=True)
    for name, scores in arms.items():
        means = {int(step): sum(seeds) / len(seeds) for step, seeds in scores["gap"].items()}
        visible = {step: gap for step, gap in means.items() if gap > FAINT}
        left.plot(list(means), list(means.values()), label=name)
        right.plot(list(visible), list(visible.values()), label=name)
    left.set(xlabel="training step", ylabel="condition-shuffle gap", ylim=(0, None),
             title="All four stay near 0 at first,\nand then rise steeply")
    right.set(xlabel="training step", ylabel="the same gap (log scale)", yscale="log",
              title="A large Gaussian is ahead at first,\nand the zeros overtake it")
    left.legend(frameon=False)
    return figure


@styled
def dropped_prompts(pictures: Tensor, numbers: dict[str, dict]) -> Figure:
    """Four pictures of each ControlNet, one for each kind of prompt."""
    left = []
    for arm, scores in numbers.items():
        share = fmean(scores["none"]["right colours"])
        dropped = arm.removesuffix(" dropped")  # "half" or "none"
        left.append(f"{dropped} of the prompts\nempty in training:\n{share:.0%} right colours\nwith no prompt")
    return grid(pictures, 4, "With empty prompts in training, the copy paints the colours that belong to the shape\n"
                "(magenta: the outline; the last column shows the right colours)", PROMPTS, left)


@styled
def few_pictures(pictures: Tensor, arms: list[str], share: dict[str, float]) -> Figure:
    """Four pictures of each network. The first has colours of the training, and the others have not.

    arms: the names of the rows of pictures. share: name -> the share of pictures with both colours right, if the
    prompt names new colours. The figure has its order.
    """
    each = dict(zip(arms, pictures.unflatten(0, (len(arms), -1))))
    left = [name.replace(" ", "\n") + f"\n{right:.0%} of new\ncolours right" for name, right in share.items()]
    return grid(torch.cat([each[name] for name in share]), 4,
                "Networks with a locked base (first three rows) keep the other four colours,\n"
                "even where they miss the outline (magenta)",
                ["colours of\nthe training", "new colours", "new colours\nand shapes", "new colours\nand shapes"], left)
