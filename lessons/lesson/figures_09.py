"""The figures of lesson 09."""

from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import styled


@styled
def ceiling_and_floor(iou: dict[str, Tensor]) -> Figure:
    """The IoU of every picture as a dot, and the mean of each row as a line."""
    return dots({name: values.tolist() for name, values in iou.items()},
                "IoU with the outline (each dot is a picture, each line a mean)",
                "ControlNet's pictures are near the ceiling, and luck is far below")


@styled
def few_pictures_suffice(iou: dict[str, list[float]]) -> Figure:
    """The IoU of every training as a dot, for different numbers of training pictures.

    The best row comes first. A row with a single number is no training, so it has a line and no dot.
    """
    best_first = dict(reversed(iou.items()))
    return dots(best_first, "IoU with the outline (each dot is a training, each line a mean)",
                "Six trainings cannot distinguish 50 pictures from always new ones")


def dots(rows: dict[str, list[float]], label: str, title: str) -> Figure:
    """A row of dots for each name, and a short line at their mean."""
    figure = Figure(figsize=(12.8, 1.6 + 0.8 * len(rows)))
    axes = figure.subplots()
    for y, values in enumerate(rows.values()):
        mean = sum(values) / len(values)
        if len(values) > 1:
            axes.plot(values, [-y] * len(values), "o", markersize=11, alpha=0.5, color="C0")
        axes.plot([mean, mean], [-y - 0.3, -y + 0.3], color="C3")
    axes.set_yticks([-y for y in range(len(rows))], list(rows))
    axes.set(xlabel=label, xlim=(None, 1.02), title=title)
    return figure
