"""From a picture to a condition: edge maps, palettes and poses.

Conditions are (b, c, 64, 64) in [0, 1], as large as the pictures: c is 1 for an edge map
(0 or 1) and for a pose (a stick figure), and 3 for a palette.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from .shapes import SIZE, Batch, tip_of

CHANNELS = {"edge": 1, "palette": 3, "pose": 1}
Kind = str | Callable[[Batch, torch.Generator | None], Tensor]  # a name above, or a function of your own


def condition_of(kind: Kind, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
    """The "edge" map, "palette" or "pose" of pictures; with a generator, edges look drawn by hand.

    Edges and palettes are found in the pictures. A pose is not: it is drawn from their scenes,
    as the paper's authors took human poses from a network made for that.
    """
    if callable(kind):
        return kind(batch, generator)
    if kind == "palette":
        return palette(batch.image)
    if kind == "pose":
        return stick_figure(batch.scenes.centre, tip_of(batch.scenes))
    edges = detect_edges(batch.image)
    return edges if generator is None else roughen(edges, generator)


# %% Detectors, for batches of any pictures


def detect_edges(images: Tensor, low: float = 0.15, high: float = 0.3) -> Tensor:
    """Canny's edges of any pictures (b, 3, h, w) in [0, 1] -> (b, 1, h, w), 0 or 1.

    The gradient is the largest over the colour channels: by luminance "red on purple" is lost.
    ``low`` and ``high`` are shares of each picture's steepest gradient.
    """
    gx, gy = _gradient(gaussian_blur(images, [3, 3], [0.7, 0.7]))
    strength, channel = torch.hypot(gx, gy).max(dim=1, keepdim=True)
    ridge = _is_ridge(strength, gx.gather(1, channel), gy.gather(1, channel))
    steepest = strength.amax(dim=(2, 3), keepdim=True)
    weak = ridge & (strength > (low * steepest).clamp(min=0.02))
    return spread((strength > high * steepest).float(), weak)  # hysteresis: what touches an edge is one


def spread(start: Tensor, mask: Tensor) -> Tensor:
    """Fill each part of masks (b, 1, h, w) that hangs together with the largest number that starts in it."""
    filled = start * mask
    while not torch.equal(grown := F.max_pool2d(filled, 3, stride=1, padding=1) * mask, filled):
        filled = grown
    return filled


def _gradient(images: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel's gradients along x and y, each (b, c, h, w), per channel."""
    x = F.pad(images, (1, 1, 1, 1), mode="replicate")
    dx, dy = (x[..., 2:] - x[..., :-2]) / 2, (x[..., 2:, :] - x[..., :-2, :]) / 2
    gx = (dx[..., :-2, :] + 2 * dx[..., 1:-1, :] + dx[..., 2:, :]) / 4
    gy = (dy[..., :-2] + 2 * dy[..., 1:-1] + dy[..., 2:]) / 4
    return gx, gy


def _is_ridge(strength: Tensor, gx: Tensor, gy: Tensor) -> Tensor:
    """Where the strength is largest along the gradient's direction (of eight)."""
    h, w = strength.shape[2:]
    padded = F.pad(strength, (1, 1, 1, 1))
    at = lambda dx, dy: padded[..., 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]
    flat, steep = gy.abs() < 0.4142 * gx.abs(), gx.abs() < 0.4142 * gy.abs()
    rising = gx * gy > 0
    pairs = [(flat, 1, 0), (steep, 0, 1), (~flat & ~steep & rising, 1, 1),
             (~flat & ~steep & ~rising, 1, -1)]
    # ">" on one side and ">=" on the other keep one pixel where two are equal.
    return sum(mask & (strength > at(dx, dy)) & (strength >= at(-dx, -dy)) for mask, dx, dy in pairs) > 0


def palette(images: Tensor) -> Tensor:
    """A very coarse colour map: the means of a 4x4 grid, (b, 3, h, w) -> the same shape."""
    coarse = F.adaptive_avg_pool2d(images, 4)
    return F.interpolate(coarse, size=images.shape[2:])


def stick_figure(centre: Tensor, tip: Tensor) -> Tensor:
    """A line of 2 pixels from centre (b, 2) to tip (b, 2), with a dot at the centre: (b, 1, 64, 64).

    Places are x and y in [-1, 1]. The share of a pixel that is covered is its value.
    """
    line = (torch.arange(SIZE, device=centre.device) + 0.5) * 2 / SIZE - 1
    pixels = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).flatten(0, 1)  # (4096, 2)
    away, bone = pixels - centre[:, None], (tip - centre)[:, None]
    along = (away * bone).sum(-1, True) / bone.square().sum(-1, True).clamp(min=1e-6)
    covered = lambda offset, radius: (radius + 0.5 - offset.norm(dim=-1) * SIZE / 2).clamp(0, 1)
    figure = torch.maximum(covered(away - along.clamp(0, 1) * bone, 1), covered(away, 3))
    return figure.view(-1, 1, SIZE, SIZE)


def roughen(edges: Tensor, generator: torch.Generator) -> Tensor:
    """Edge maps as a pen would draw them: a stroke of 1, 2 or 3 pixels, with small gaps."""
    b = len(edges)
    two = F.max_pool2d(F.pad(edges, (0, 1, 0, 1)), 2, stride=1)
    three = F.max_pool2d(edges, 3, stride=1, padding=1)
    width = torch.randint(3, (b, 1, 1, 1), generator=generator)
    strokes = torch.where(width == 0, edges, torch.where(width == 1, two, three))
    holes = torch.rand(b, 1, 16, 16, generator=generator) < 0.05 * torch.rand(b, 1, 1, 1, generator=generator)
    return strokes * (1 - F.interpolate(holes.float(), size=edges.shape[2:]))
