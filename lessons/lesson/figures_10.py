"""The figure of lesson 10."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import show, styled

WAYS = ("no control", "as it is")
WORDS = ("no words", "right word", "wrong word")


@styled
def transfer_and_ambiguity(pictures: dict[str, Tensor], iou: dict[str, list[float]], keeps: tuple[float, float],
                           right_shapes: tuple[float, float]) -> Figure:
    """At the left pictures by three bases, at the right pictures of erased outlines.

    pictures: arm -> four pictures. iou: base -> mask IoU without and with A's ControlNet.
    keeps: the share of the gain that siblings and the stranger keep. right_shapes: the share of
    right shapes without words and with them, at 60 % erased.
    """
    figure = Figure()
    left, right = figure.subplots(1, 2, width_ratios=[4, 3])
    tiles = []
    for base in ("A", "A'", "B"):
        tiles += [pictures[f"{base}, {way}"][i] for i in (1, 2) for way in WAYS]
    names = {"A": "A", "A'": "sibling\nA'", "B": "stranger\nB"}
    show(left, torch.stack(tiles), 4, f"Of the gain in IoU siblings keep {keeps[0]:.0%}, a stranger {keeps[1]:.0%}",
         ["without", "with"] * 2,
         [f"{names[base]}\n{before:.2f}\nto {after:.2f}" for base, (before, after) in iou.items()])
    show_erased(right, pictures, right_shapes)
    return figure


def show_erased(ax: Axes, pictures: dict[str, Tensor], right_shapes: tuple[float, float]) -> None:
    tiles = [pictures[f"{share} erased, {word}"][2] for share in ("0%", "40%", "60%") for word in WORDS]
    for words in ("no words", "red square on blue", "red star on blue"):
        tiles.append(pictures[f"eight corners, {words}"][2])
    show(ax, torch.stack(tiles), 3,
         f"60 % erased: {right_shapes[0]:.0%} right shapes\nwithout words, {right_shapes[1]:.0%} with",
         ["no words", "right", "wrong"], ["whole", "40 %\nerased", "60 %\nerased", "eight\ncorners"])
