"""The figures of lesson 10."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import captions, enlarge, grid, outlined, styled


@styled
def on_the_sibling(edges: Tensor, pictures: dict[str, Tensor], prompt: Tensor) -> Figure:
    """What the base and its pale sibling generate, with the outlines drawn on top."""
    n = min(6, len(edges))
    rows = [outlined(images[:n].cpu(), edges[:n].cpu(), 4) for images in pictures.values()]
    return grid(torch.cat(rows), n, "The old ControlNet guides the pale sibling as well", captions(prompt[:n].cpu()),
                [name.replace(", ", ",\n").replace("sibling alone", "sibling\nalone") for name in pictures])


@styled
def too_little(rest: Tensor, pictures: dict[str, Tensor], prompt: Tensor) -> Figure:
    """What is generated for the rest of an outline, with different words."""
    n = min(6, len(rest))
    rows = [enlarge(rest[:n].cpu(), 4)]
    rows += [outlined(images[:n].cpu(), rest[:n].cpu(), 4) for images in pictures.values()]
    return grid(torch.cat(rows), n, "Where the outline says too little, words decide", captions(prompt[:n].cpu()),
                ["what is left of\nthe outline", *(name.replace(" ", "\n", 1) for name in pictures)])
