"""The figures of lesson 13."""

from itertools import pairwise
from statistics import fmean

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import captions, enlarge, grid, outlined, styled

COLOURS = {"A": "C0", "B": "C2", "C": "C1", "D": "C4", "E": "C3"}


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
    for letter, values in losses.items():
        axes.plot(range(1, len(values) + 1), values, color=COLOURS[letter], linewidth=1.5)
    axes.set(ylabel="loss of a batch", title="Only E's loss stands out")
    axes.tick_params(labelbottom=False)


def differences_from_a(axes: Axes, losses: dict[str, list[float]]) -> None:
    """The loss of each patient minus that of A on the same batch, and how much A's loss changes between two batches."""
    change = fmean(abs(late - early) for early, late in pairwise(losses["A"]))
    axes.axhspan(-change, change, color="0.9", label="usual change from\none batch to the next")
    for letter, values in losses.items():
        differences = [own - of_a for own, of_a in zip(values, losses["A"])]
        axes.plot(range(1, len(values) + 1), differences, color=COLOURS[letter], linewidth=2)
    axes.set(xlabel="training step", ylabel="loss minus A's loss")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.5 * (high - low))  # room for the legend
    axes.legend(loc="upper right", fontsize=13)


def shuffle_gaps(axes: Axes, gaps: dict[str, dict[int, float]]) -> None:
    """The shuffle gaps that are above 0, since a log scale has no place for the others."""
    for letter, gap in gaps.items():
        shown = {step: value for step, value in gap.items() if value > 0}
        label = f"{letter}: exactly 0"
        if shown:
            missing = [str(step) for step in gap if step not in shown]
            label = f"{letter} (below 0 at step {', '.join(missing)})" if missing else letter
        axes.plot(list(shown), list(shown.values()), "o-", color=COLOURS[letter], label=label)
    axes.set(yscale="log", xlabel="training step", ylabel="shuffle gap (log scale)",
             title="The shuffle gaps differ much more")
    axes.legend(loc="lower right", fontsize=14, handlelength=1)


@styled
def ward(edges: Tensor, with_control: dict[str, Tensor], control_off: dict[str, Tensor], prompt: Tensor) -> Figure:
    """A column for each patient: pictures with control in the upper rows, and its base alone in the lower rows."""
    columns = [enlarge(edges, 3), *(outlined(images, edges, 3) for images in with_control.values())]
    nothing = torch.ones_like(columns[0])
    off = [nothing, *(enlarge(images, 3) for images in control_off.values())]
    rows = torch.cat([torch.stack(columns, dim=1), torch.stack(off, dim=1)])
    names = captions(prompt)
    title = "Some patients ignore the outline (magenta), and one base has changed"
    left = [*names, *(f"{name},\ncontrol off" for name in names)]
    return grid(rows.flatten(0, 1), len(columns), title, ["outline", *with_control], left)
