"""The figures of lesson 03."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from lesson.diagram import architecture
from minicontrolnet.draw.figures import captions, grid, heat, styled

LOCKED = "lightgrey"
BY_PASS = ["gold", "orange", "tomato"]  # the backward pass in which a part first gets a gradient


def first_gradients(base: nn.Module, control: nn.Module, first: dict[str, int | None]) -> Figure:
    """The architecture. The colour of a part is the backward pass in which it first gets a gradient."""
    colours = {name: LOCKED if step is None else BY_PASS[step] for name, step in first.items()}
    return architecture(base, control, colours,
                        "First gradient: yellow at pass 0, orange at 1, red at 2, grey never")


@styled
def same_start(pictures: dict[str, Tensor], prompt: Tensor) -> Figure:
    """A row of pictures for each start of the output convolutions, before any training."""
    return grid(torch.cat(list(pictures.values())), len(prompt),
                "Before any training zero convs change nothing", captions(prompt), list(pictures))


@styled
def gradients_and_losses(norms: dict[str, list[float | None]], texts: dict[str, list[str]],
                         curves: dict[str, list[float]]) -> Figure:
    """The gradient norm of each part at each pass, and the training loss of each start."""
    figure = Figure()
    left, right = figure.subplots(1, 2)
    heat(left, norms, texts)
    left.set(xlabel="backward pass", title="Output zero convs wake first (norms)")
    for width, (name, losses) in zip((8, 5, 2), curves.items()):  # the first two lie on each other
        right.plot(losses, label=name, linewidth=width)
    right.set(xlabel="training step", ylim=(0, None), title="Loss, by the convs' start")
    right.legend()
    return figure
