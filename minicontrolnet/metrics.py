"""How well a picture obeys its prompt and its condition."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditions import detect_edges
from .shapes import COLOURS


def _nearest_colour(images: Tensor) -> Tensor:
    """Index into COLOURS of each pixel's nearest colour: (b, 3, h, w) -> (b, h, w)."""
    palette = torch.tensor(list(COLOURS.values()), device=images.device)
    return ((images[:, None] - palette[None, :, :, None, None]) ** 2).sum(2).argmin(1)


def mask_of(images: Tensor) -> Tensor:
    """The shape's mask (b, 1, h, w), 0 or 1, in any picture (b, 3, h, w) in [0, 1].

    A pixel belongs to the shape if it is nearer to the second colour than to the ground's.
    The ground's is the border's median, the second the mean of the pixels far from it.
    """
    border = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)
    ground = border.median(-1).values[..., None, None]
    far = (images - ground).norm(dim=1, keepdim=True)
    weight = (far > 0.6 * far.amax(dim=(2, 3), keepdim=True)).float()
    second = (images * weight).sum((2, 3), True) / weight.sum((2, 3), True).clamp(min=1)
    contrast = (second - ground).norm(dim=1, keepdim=True)
    nearer = (images - second).norm(dim=1, keepdim=True) < far
    return (nearer & (contrast > 0.1)).float()


def mask_iou(mask: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union (b,) of two masks (b, 1, h, w), cut at one half."""
    a, b = mask > 0.5, truth > 0.5
    return (a & b).sum((1, 2, 3)) / (a | b).sum((1, 2, 3)).clamp(min=1)


def edge_f1(edges: Tensor, truth: Tensor) -> Tensor:
    """F1 (b,) of two edge maps (b, 1, h, w); an edge counts if the other has one within a pixel."""
    near = lambda e: F.max_pool2d(e, 3, stride=1, padding=1)
    share = lambda a, b: (a * near(b)).sum((1, 2, 3)) / a.sum((1, 2, 3)).clamp(min=1)
    precision, recall = share(edges, truth), share(truth, edges)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-6)


def colours_right(images: Tensor, prompt: Tensor) -> Tensor:
    """Whether (b,) the two most frequent colours are the prompt's, the ground's at the border."""
    nearest = _nearest_colour(images)
    counts = F.one_hot(nearest, len(COLOURS)).sum((1, 2))
    top = counts.topk(2).indices.sort(1).values
    wanted = prompt[:, [0, 2]] - 1
    border = torch.cat([nearest[:, 0], nearest[:, -1], nearest[:, :, 0], nearest[:, :, -1]], 1)
    ground = border.mode(1).values
    return (top == wanted.sort(1).values).all(1) & (ground == wanted[:, 1])


class ShapeClassifier(nn.Sequential):
    """Masks (b, 1, 32, 32) -> scores (b, 4) of the four shapes."""

    def __init__(self):
        conv = lambda c_in, c_out: [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), nn.ReLU()]
        super().__init__(*conv(1, 16), *conv(16, 32), *conv(32, 64), nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 4))
