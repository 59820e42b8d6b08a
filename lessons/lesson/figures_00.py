"""The figures of lesson 00."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet import SHAPES, Batch
from minicontrolnet.draw.figures import captions, grid, styled


@styled
def toy_world(truth: Batch, edges: Tensor) -> Figure:
    """Show one picture of each shape, above its edge map."""
    pick = one_of_each_shape(truth)
    rows = [truth.image[pick], edges[pick].expand(-1, 3, -1, -1)]
    return grid(torch.cat(rows), len(pick), "Every picture shows one bright shape on a dark background",
                captions(truth.prompt[pick]), ["picture", "edge map"])


@styled
def with_and_without(truth: Batch, edges: Tensor, without: Tensor, followed: Tensor) -> Figure:
    """Show for each shape a picture generated without an outline, the outline, and a picture generated with it."""
    pick = one_of_each_shape(truth)
    rows = [without[pick], edges[pick].expand(-1, 3, -1, -1), followed[pick]]
    return grid(torch.cat(rows), len(pick), "The outline decides where the shape is; the prompt decides the colours",
                captions(truth.prompt[pick]), ["prompt\nalone", "outline", "prompt and\noutline"])


def one_of_each_shape(truth: Batch) -> Tensor:
    """The index of the first picture of each shape that occurs."""
    first = []
    for shape in range(1, len(SHAPES) + 1):
        first += (truth.prompt[:, 1] == shape).nonzero()[:1, 0].tolist()
    return torch.tensor(first)
