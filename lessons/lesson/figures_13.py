"""The figures of lesson 13."""

import torch
from matplotlib.figure import Figure, FigureBase
from torch import Tensor

from minicontrolnet.draw.figures import captions, enlarge, grid, outlined, styled

COLOURS = {"A": "C0", "B": "C2", "C": "C1", "D": "C4", "E": "C3"}


@styled
def charts(losses: dict[str, list[float]], gaps: dict[str, dict[int, float]],
           figure: FigureBase | None = None) -> FigureBase:
    """The loss of each patient's batches on the left, and its shuffle gap on a log scale on the right.

    figure: an empty figure, or a part of one; a new one by default.
    """
    figure = figure or Figure()
    left, right = figure.subplots(1, 2)
    for width, (letter, values) in zip((9, 7, 5, 3, 1.5), losses.items()):  # the curves lie on each other
        style = "--" if letter == "D" else "-"  # D lies on A
        left.plot(range(1, len(values) + 1), values, style, color=COLOURS[letter], linewidth=width, label=letter)
    highest = max(max(values) for values in losses.values())
    left.set(xlabel="training step", ylabel="loss of the batch", ylim=(0, 1.1 * highest),
             title="The losses hardly differ ...")
    left.legend(ncols=5, handlelength=1)
    never = []
    for letter, gap in gaps.items():
        shown = {step: value for step, value in gap.items() if value > 0}
        if shown:
            right.plot(list(shown), list(shown.values()), "o-", color=COLOURS[letter], label=letter)
        else:
            never.append(letter)
    right.set(yscale="log", xlabel="training step", ylabel="shuffle gap (where above 0)",
              title="... but the shuffle gaps do")
    if never:
        right.plot([], [], " ", label=f"{' and '.join(never)}: exactly 0")
    right.legend()
    return figure


@styled
def ward(edges: Tensor, with_control: dict[str, Tensor], control_off: dict[str, Tensor], prompt: Tensor) -> Figure:
    """A column for each patient: pictures with control in the upper rows, and its base alone in the lower rows."""
    columns = [enlarge(edges, 3), *(outlined(images, edges, 3) for images in with_control.values())]
    nothing = torch.ones_like(columns[0])
    off = [nothing, *(enlarge(images, 3) for images in control_off.values())]
    rows = torch.cat([torch.stack(columns, dim=1), torch.stack(off, dim=1)])
    names = captions(prompt)
    return grid(rows.flatten(0, 1), len(columns), "Which patients ignore the outline (magenta)?",
                ["outline", *with_control], [*names, *(f"{name},\ncontrol off" for name in names)])
