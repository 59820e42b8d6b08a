"""What lesson 10 changes: the style of the pictures, the copy, the outline."""

import copy
import math

import torch
from torch import Tensor

from minicontrolnet import Batch, ControlNet, UNet, detect_edges, fresh_batch, render
from minicontrolnet.shapes import Outline, Scenes

BETWEEN = Outline(4, 0.8, 0.9, math.pi / 4)  # eight corners; a square's notch: 0.71


def pale(images: Tensor) -> Tensor:
    """Another style: each colour of images in [0, 1] half way to white."""
    return images / 2 + 0.5


def unpale(images: Tensor) -> Tensor:
    """The inverse; what was not pale becomes darker than the toy world has it."""
    return (2 * images - 1).clamp(0, 1)


def pale_batch(generator: torch.Generator) -> Batch:
    """What A' is trained on."""
    batch = fresh_batch(generator)
    return batch._replace(image=pale(batch.image), x0=batch.x0 / 2 + 0.5)


def moved(control: ControlNet, old: UNet, new: UNet) -> ControlNet:
    """The copy plus what the new base's encoder differs by from the old one's."""
    control = copy.deepcopy(control)
    with torch.no_grad():
        for part in ("embedding", "encoder"):
            three = (getattr(net, part).parameters() for net in (control, old, new))
            for own, before, after in zip(*three, strict=True):
                own += after - before
    return control


def erase(edges: Tensor, centre: Tensor, share: float, seed: int = 0) -> Tensor:
    """Rub out edges (n, 1, h, w) in a sector around centre (n, 2).

    It is ``share`` of a turn wide and begins at a random angle of each picture's own.
    A centre is x and y in [-1, 1].
    """
    n, _, h, w = edges.shape
    start = torch.rand(n, 1, 1, generator=torch.Generator().manual_seed(seed)).to(edges)
    x, y = ((torch.arange(side).to(edges) + 0.5) * 2 / side - 1 for side in (w, h))
    dx = x.view(1, 1, -1) - centre[:, 0].view(-1, 1, 1)
    dy = y.view(1, -1, 1) - centre[:, 1].view(-1, 1, 1)
    turns = torch.atan2(dy, dx) / (2 * math.pi)  # (n, h, w), from the x axis
    return edges * ((turns - start) % 1 >= share).unsqueeze(1)


def between(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """The edges and mask (1, 1, 64, 64) of an outline that is no shape of the world."""
    one = scenes._replace(shape=torch.zeros(1, dtype=torch.long),
                          centre=torch.zeros(1, 2), radius=torch.tensor([0.65]),
                          angle=torch.zeros(1), aspect=torch.ones(1))
    image, mask = render(one, outlines=[BETWEEN])
    return detect_edges(image), mask
