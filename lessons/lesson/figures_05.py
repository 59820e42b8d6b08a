"""The figures of lesson 05."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import captions, enlarge, grid, outlined, styled


@styled
def while_training(outline: Tensor, strip: dict[int, Tensor], prompt: Tensor) -> Figure:
    """Show pictures of one outline during training.

    outline (1, 1, 64, 64); strip: step -> two pictures, one with the prompt (1, 3) and one with no prompt.
    """
    outlines = outline.expand(2, -1, -1, -1)
    columns = [enlarge(outlines, 4)]
    for images in strip.values():
        columns.append(outlined(images.cpu(), outlines.cpu(), 4))
    return grid(torch.stack([column.cpu() for column in columns], 1).flatten(0, 1), len(columns),
                "At first hardly anything changes, and then the picture follows the outline",
                ["the outline", *(f"step {step}" for step in strip)], [*captions(prompt), "no prompt"])


@styled
def loss_and_gap(losses: list[float], held_out_loss: dict[int, float], gaps: dict[int, float]) -> Figure:
    """Plot the loss of each batch and on held-out pictures, and the condition-shuffle gap."""
    figure = Figure()
    left, right = figure.subplots(1, 2, sharex=True, gridspec_kw={"wspace": 0.1})
    means = [sum(losses[i:i + 20]) / 20 for i in range(len(losses) - 19)]
    left.plot(range(1, len(losses) + 1), losses, color="0.7", lw=1.5, label="loss of each batch")
    left.plot(range(10, 10 + len(means)), means, color="0.2", lw=2, label="mean of 20 batches")
    left.plot(list(held_out_loss), list(held_out_loss.values()), color="C0", label="loss on held-out pictures")
    left.set(ylim=(0, None), xlabel="training step", ylabel="loss",
             title="Single batches hide\nwhen outlines are learned")
    left.legend(frameon=False)
    right.plot(list(gaps), list(gaps.values()), "o-", color="C3", label="the gap")
    steps = max(gaps)
    right.plot([0, steps], [0, gaps[steps]], "--", color="0.6", lw=2, label="a straight line")
    right.set(ylim=(0, None), xlabel="training step", ylabel="condition-shuffle gap",
              title="The condition-shuffle gap shows\nwhen outlines are learned")
    right.legend(frameon=False)
    return figure
