"""The figures of lesson 03."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from lesson.diagram import architecture
from minicontrolnet.draw.figures import captions, grid, styled

LOCKED = "lightgrey"
BY_STEP = ["gold", "orange", "tomato"]  # the step in which a part first gets a gradient
PLACES = {"zero convs at the outputs": (2.15, 3.08), "copy": (0.47, 1.74),  # of the words "step 0" and so on, in inches
          "condition encoder": (1.9, 0.4), "zero conv at the input": (2.95, 0.4)}


def first_gradients(base: nn.Module, control: nn.Module, first: dict[str, int | None]) -> Figure:
    """Draw the architecture. The colour of a part shows in which step it first gets a gradient."""
    colours = {name: LOCKED if step is None else BY_STEP[step] for name, step in first.items()}
    figure = architecture(base, control, colours,
                          "Gradients first arrive at step 0 (yellow), 1 (orange), 2 (red) or never (grey)")
    for name, (x, y) in PLACES.items():
        figure.axes[0].text(x, y, f"step {first[name]}", ha="center", size=16, weight="bold")
    return figure


@styled
def same_start(pictures: dict[str, Tensor], prompt: Tensor) -> Figure:
    """Show a row of pictures for each start of the output convolutions, before any training."""
    return grid(torch.cat(list(pictures.values())), len(prompt),
                "Before training, zero convolutions leave the base's pictures unchanged",
                captions(prompt), list(pictures))


@styled
def from_zero(sizes: dict[str, list[float]], losses: dict[str, list[float]], steps: int) -> Figure:
    """Plot the size of the output convolutions' weights, and the held-out loss, for each start.

    sizes: the norm after each training step. losses: the held-out loss before training and after
    every tenth step.
    """
    figure = Figure()
    left, right = figure.subplots(1, 2)
    looks = [*range(0, steps, 10), steps]
    for name, dashes in zip(sizes, ("-", "--", ":")):
        left.plot(range(1, len(sizes[name]) + 1), sizes[name], dashes, label=name)
        right.plot(looks[:len(losses[name])], losses[name], "o" + dashes)
    left.set(xlabel="training step\n(the learning rate falls to 0)", yscale="log",
             title="Zero convolutions\ngrow from the first step on",
             ylabel="norm of the output convolutions (log scale)")
    right.set(xlabel="training step\n(the learning rate falls to 0)", yscale="log",
              title="A large random start\nkeeps the loss higher", ylabel="held-out loss (log scale)")
    right.minorticks_off()
    right.set_yticks([0.02, 0.03, 0.05, 0.1], ["0.02", "0.03", "0.05", "0.1"])
    figure.legend(loc="outside lower center", ncols=len(sizes), title="the output convs start at")
    return figure
