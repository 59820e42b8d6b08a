"""The figure of lesson 02."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import captions, grid, styled


@styled
def forgetting(edges: Tensor, pictures: dict[str, Tensor], change: Tensor, prompt: Tensor,
               share: dict[str, dict[str, float]], n: int) -> Figure:
    """A row for each network: what it generates for new colours and shapes.

    change: what the locked base generates without its copy, minus what it did before.
    share: the scores of each network; n: the number of pictures that they were measured on.
    """
    rows = [edges, *pictures.values(), change]
    tiles = [images[:8].expand(-1, 3, -1, -1) for images in rows]
    names = []
    for name, own in share.items():
        names.append(f"{name}\n{own['right colours']:.0%}, {own['IoU with the outline']:.2f}")
    return grid(torch.cat(tiles), len(tiles[0]),
                "New colours and shapes, asked for with an outline:"
                f" share of right colours, IoU (n = {n})",
                captions(prompt[:8], lines=3), ["outline", *names, "copy off\n- before"])
