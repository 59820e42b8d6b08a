"""How well pictures follow their prompts and conditions. Images are (n, 3, h, w) in [0, 1].

Compare each score with its ceiling (real pictures) and its floor (shuffled conditions or prompts).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..conditions import detect_edges
from ..shapes import COLOURS, DARK, SHAPES, Scenes

LIT = torch.tensor(list(COLOURS.values()))
PAINTS = torch.cat([LIT, DARK * LIT])  # (16, 3): all that a real picture is painted with


# %% The picture against its condition


def mask_of(images: Tensor) -> Tensor:
    """The share (n, 1, h, w) of each pixel that the shape covers, in any picture of two colours.

    The ground's colour is the border's median, the shape's the mean of the pixels far from it.
    Above one half a pixel is nearer to the shape's. Without a second colour the mask is 0.
    """
    ground = border(images).median(-1).values[..., None, None]
    far = (images - ground).norm(dim=1, keepdim=True)
    weight = (far > 0.6 * far.amax(dim=(2, 3), keepdim=True)).to(images.dtype)
    colour = (images * weight).sum((2, 3), True) / weight.sum((2, 3), True).clamp(min=1)
    axis = colour - ground
    length = axis.square().sum(1, True)
    share = ((images - ground) * axis).sum(1, True) / length.clamp(min=1e-6)
    return share.clamp(0, 1) * (length > 0.01)


def border(images: Tensor) -> Tensor:
    """The outermost pixels of (..., h, w) as (..., 2 h + 2 w)."""
    return torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)


def mask_iou(mask: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union (n,) of masks (n, 1, h, w), both cut at one half."""
    a, b = mask > 0.5, truth > 0.5
    return (a & b).sum((1, 2, 3)) / (a | b).sum((1, 2, 3)).clamp(min=1)


def edge_f1(images: Tensor, edges: Tensor) -> Tensor:
    """F1 (n,) of the edges detected in images (n, 3, h, w) against edge maps (n, 1, h, w).

    An edge counts if the other map has one within one pixel.
    """
    found = detect_edges(images)
    near = lambda e: F.max_pool2d(e, 3, stride=1, padding=1)
    share = lambda a, b: (a * near(b)).sum((1, 2, 3)) / a.sum((1, 2, 3)).clamp(min=1)
    precision, recall = share(found, edges), share(edges, found)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-6)


def palette_error(images: Tensor, palettes: Tensor) -> Tensor:
    """Mean absolute difference (n,) between the images' palettes and those asked for."""
    return (F.adaptive_avg_pool2d(images, 4) - F.adaptive_avg_pool2d(palettes, 4)).abs().mean((1, 2, 3))


def pose_errors(images: Tensor, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """How far off the poses of images are from their scenes': degrees (n,), pixels (n,).

    Place is the mean of the mask, cut at one half. Unstretched, a shape with p tips has equal
    second moments in all directions, so these give its stretch; then the p-th moment around
    its centre gives the tilt, up to turns of 360 / p degrees. A circle has no tilt: nan.
    """
    mean, x, y = mean_over((mask_of(images) > 0.5).to(images))
    place = torch.stack([mean(x), mean(y)], dim=1)
    x, y = (axis - mean(axis).view(-1, 1, 1, 1) for axis in (x, y))
    spread = [mean(axis**2).clamp(min=1e-6).sqrt().view(-1, 1, 1, 1) for axis in (x, y)]
    x, y = x / spread[0], y / spread[1]
    tips, _, _, turn = torch.tensor(list(SHAPES.values())).to(images)[scenes.shape].T
    away, around = torch.hypot(x, y) ** 2, torch.atan2(y, x) * tips.view(-1, 1, 1, 1)
    off = torch.atan2(mean(away * around.sin()), mean(away * around.cos())) - tips * (turn + scenes.angle)
    angle = scenes.angle + torch.atan2(off.sin(), off.cos()) / tips
    # Where the arrow from the centre to the tip points: the stretch turns it a little.
    lean = lambda angle, aspect: torch.atan2(angle.sin() * aspect, angle.cos()).rad2deg()
    degrees = lean(angle, (spread[0] / spread[1]).flatten()) - lean(scenes.angle, scenes.aspect)
    pixels = (place - scenes.centre).norm(dim=1) * images.shape[-1] / 2
    return degrees.abs().masked_fill(scenes.shape == list(SHAPES).index("circle"), torch.nan), pixels


def mean_over(mask: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """A function to the means (n,) over masks (n, 1, h, h), and the pixels' x and y in [-1, 1]."""
    weight = mask / mask.sum((2, 3), True).clamp(min=1e-6)
    line = (torch.arange(mask.shape[-1]).to(mask) + 0.5) * 2 / mask.shape[-1] - 1
    return lambda values: (weight * values).sum((1, 2, 3)), line.view(1, 1, 1, -1), line.view(1, 1, -1, 1)


# %% The picture against its prompt


def nearest_colour(images: Tensor) -> Tensor:
    """The index into PAINTS nearest to each pixel: (n, h, w)."""
    return (images[:, None] - PAINTS.to(images)[..., None, None]).square().sum(2).argmin(1)


def colours_right(images: Tensor, prompt: Tensor) -> Tensor:
    """Whether (n,) the two most frequent colours are the prompt's, the ground's at the border."""
    nearest = nearest_colour(images)
    two = F.one_hot(nearest, len(PAINTS)).sum((1, 2)).topk(2).indices.sort(1).values
    wanted = prompt[:, [0, 2]] - 1 + torch.tensor([0, len(COLOURS)], device=prompt.device)
    ground = border(nearest).mode(1).values
    return (two == wanted).all(1) & (ground == wanted[:, 1])


def off_palette(images: Tensor, reach: float = 0.2) -> Tensor:
    """The share (n,) of pixels farther than ``reach`` from every colour of the toy world.

    Burnt colours count, and so do the mixed pixels of outlines: real pictures are not at 0.
    """
    off = (images[:, None] - PAINTS.to(images)[..., None, None]).norm(dim=2).amin(1)
    return (off > reach).float().mean((1, 2))
