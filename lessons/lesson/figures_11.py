"""The figure of lesson 11."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet import describe, edge_f1
from minicontrolnet.draw.figures import outlined, show, styled


@styled
def strengths_and_windows(scales: dict[str, Tensor], windows: dict[str, Tensor], edges: Tensor,
                          shapes: Tensor, words: Tensor) -> Figure:
    """Two rows of pictures for conditioning scales, and two for the part of sampling that has control.

    shapes: prompts (n, 3) that name the outlines' shapes; words: those that the pictures were sampled with.
    """
    figure = Figure()
    above, below = figure.subplots(2, 1)
    titles = [f"Conditioning scale 1 follows: {mean_f1(scales['1'], edges)}",
              f"Control in the first half: {mean_f1(windows['first half'], edges)},"
              f" in the last half: {mean_f1(windows['last half'], edges)}"]
    left = []
    for i in (1, 2):
        outline = describe(shapes[[i]])[0].split()[1]
        word = describe(words[[i]])[0].split()[1]
        left.append(f"outline:\n{outline}\nword:\n{word}")
    for ax, strip, title in zip((above, below), (scales, windows), titles):
        tiles = [outlined(images[[i]].cpu(), edges[[i]].cpu()) for i in (1, 2) for images in strip.values()]
        names = [f"{name}\n{mean_f1(images, edges)}" for name, images in strip.items()]
        show(ax, torch.cat(tiles), len(strip), title, names, left)
    return figure


def mean_f1(images: Tensor, edges: Tensor) -> str:
    return f"F1 {edge_f1(images, edges).mean():.2f}"
