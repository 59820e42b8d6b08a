"""For lesson 10: pictures in another style, and outlines with a part missing."""

import math

import torch
from torch import Tensor

from minicontrolnet import Batch, fresh_batch


def pale(images: Tensor) -> Tensor:
    """Another style: each colour of images in [0, 1] is moved half of the way to white."""
    return images / 2 + 0.5


def unpale(images: Tensor) -> Tensor:
    """The inverse of pale. Colours that were not pale become darker than any in the toy world."""
    return (2 * images - 1).clamp(0, 1)


def pale_batch(generator: torch.Generator) -> Batch:
    """Training pictures in the pale style."""
    batch = fresh_batch(generator)
    return batch._replace(image=pale(batch.image), x0=batch.x0 / 2 + 0.5)


def erase(edges: Tensor, centre: Tensor, share: float, seed: int = 0) -> Tensor:
    """Erase edges (n, 1, h, w) in a sector around centre (n, 2), given as x and y in [-1, 1].

    The sector is ``share`` of a full turn wide. It begins at a random angle in each picture.
    """
    n, _, h, w = edges.shape
    start = torch.rand(n, 1, 1, generator=torch.Generator().manual_seed(seed)).to(edges)
    x = (torch.arange(w).to(edges) + 0.5) * 2 / w - 1
    y = (torch.arange(h).to(edges) + 0.5) * 2 / h - 1
    dx = x.view(1, 1, -1) - centre[:, 0].view(-1, 1, 1)
    dy = y.view(1, -1, 1) - centre[:, 1].view(-1, 1, 1)
    turns = torch.atan2(dy, dx) / (2 * math.pi)  # (n, h, w), from the x axis
    kept = (turns - start) % 1 >= share
    return edges * kept.unsqueeze(1)
