"""The figure of lesson 05."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import captions, enlarge, outlined, show, styled


@styled
def convergence(outline: Tensor, strip: dict[int, Tensor], prompt: Tensor, losses: list[float],
                gaps: dict[int, float], wait: int, n: int) -> Figure:
    """Pictures during training, and below them the loss and the gap.

    outline (1, 1, 64, 64); strip: step -> two pictures, with the prompt (1, 3) and without words.
    gaps: step -> condition-shuffle gap on n pictures; wait: the step of its first tenth.
    """
    figure = Figure()
    axes = figure.subplot_mosaic("aa;bc", height_ratios=[5, 4])
    outlines = outline.expand(2, -1, -1, -1)
    columns = [enlarge(outlines, 4), *(outlined(images, outlines, 4) for images in strip.values())]
    show(axes["a"], torch.stack(columns, 1).flatten(0, 1), len(columns),
         f"Outlines begin to be followed at step {wait}: the gap tells",
         ["outline", *(f"step {step}" for step in strip)], [*captions(prompt), "no words"])
    show_loss(axes["b"], losses)
    axes["b"].plot(list(gaps), list(gaps.values()), "o-", color="C3", label=f"gap, n = {n}")
    axes["b"].legend(frameon=False, loc="upper right")
    above_0 = {step: gap for step, gap in gaps.items() if step > 0}  # a log scale has no 0
    axes["c"].plot(list(above_0), list(above_0.values()), "o-", color="C3")
    axes["c"].set(yscale="log", xlabel="training step", title="the gap's powers of ten")
    return figure


def show_loss(ax: Axes, losses: list[float]) -> None:
    """The loss of each training step, in grey."""
    ax.plot(range(1, len(losses) + 1), losses, color="0.65", lw=1.5, label="loss of each batch")
    ax.set(ylim=(0, 1.3 * max(losses)), xlabel="training step")
