"""The figures of lesson 13."""

from itertools import pairwise
from statistics import fmean

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import captions, enlarge, grid, outlined, styled

COLOURS = {"A": "C0", "B": "C2", "C": "C1", "D": "C4", "E": "C3"}
SMALLEST = 1e-5  # a smaller gap is about 0, since the loss itself is about 0.02


@styled
def charts(losses: dict[str, list[float]], gaps: dict[str, dict[int, float]]) -> Figure:
    """The losses at the left, and below them their differences from A's loss; the shuffle gaps at the right."""
    figure = Figure()
    axes = figure.subplot_mosaic([["losses", "gaps"], ["differences", "gaps"]])
    losses_of_batches(axes["losses"], losses)
    differences_from_a(axes["differences"], losses)
    shuffle_gaps(axes["gaps"], gaps)
    return figure


def losses_of_batches(axes: Axes, losses: dict[str, list[float]]) -> None:
    """The losses of A and E. Those of B, C and D would lie on A's."""
    for letter in ("A", "E"):
        values = losses[letter]
        axes.plot(range(1, len(values) + 1), values, color=COLOURS[letter], linewidth=1.5, label=letter)
    axes.set(ylabel="loss of a batch", title="A loss jumps from batch to batch")
    axes.tick_params(labelbottom=False)
    leave_room_above(axes, 0.25)
    axes.legend(loc="upper right", fontsize=13, ncols=2, handlelength=1, columnspacing=1)


def differences_from_a(axes: Axes, losses: dict[str, list[float]]) -> None:
    """The loss of each patient minus that of A on the same batch, and how much A's loss changes between two batches."""
    change = fmean(abs(late - early) for early, late in pairwise(losses["A"]))
    axes.axhspan(-change, change, color="0.9", label="usual change from\none batch to the next")
    for letter, values in losses.items():
        differences = [own - of_a for own, of_a in zip(values, losses["A"])]
        label = letter if letter != "A" else None  # A's difference from A is 0
        axes.plot(range(1, len(values) + 1), differences, color=COLOURS[letter], linewidth=2, label=label)
    axes.set(xlabel="training step", ylabel="loss minus A's loss", title="E is higher for a while, and B ends lowest")
    leave_room_above(axes, 0.6)
    axes.legend(loc="upper right", fontsize=12, ncols=2, handlelength=1, columnspacing=1)


def leave_room_above(axes: Axes, share: float) -> None:
    """Extend the y axis by this share of its length, so that the legend covers no curve."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + share * (high - low))


def shuffle_gaps(axes: Axes, gaps: dict[str, dict[int, float]]) -> None:
    """The shuffle gaps, on a log scale that is linear near 0, so that a gap of 0 has a place."""
    for letter, gap in gaps.items():
        label = letter if any(gap.values()) else f"{letter}: exactly 0"
        axes.plot(list(gap), list(gap.values()), "o-", color=COLOURS[letter], label=label)
    axes.set_yscale("symlog", linthresh=SMALLEST)
    axes.set(xlabel="training step", ylabel="shuffle gap\n(log scale, linear near 0)",
             title="Only the gaps of B, C and E grow")
    axes.legend(loc="center right", bbox_to_anchor=(1, 0.35), fontsize=14, handlelength=1)


@styled
def ward(edges: Tensor, with_control: dict[str, Tensor], control_off: dict[str, Tensor], prompt: Tensor) -> Figure:
    """A column for each patient: pictures with control in the upper rows, and its base alone in the lower rows."""
    columns = [enlarge(edges, 3)]
    columns += [outlined(images, edges, 3) for images in with_control.values()]
    below = [torch.ones_like(columns[0])]  # nothing stands below the outlines
    below += [enlarge(images, 3) for images in control_off.values()]
    rows = torch.cat([torch.stack(columns, dim=1), torch.stack(below, dim=1)])
    names = captions(prompt)
    title = "Some patients ignore the outline (magenta), and one base has changed"
    left = names + [f"{name},\ncontrol off" for name in names]
    return grid(rows.flatten(0, 1), len(columns), title, ["outline", *with_control], left)
