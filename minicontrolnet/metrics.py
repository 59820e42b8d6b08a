"""How well pictures obey their prompts and conditions; images are (n, 3, h, w) in [0, 1].

Each number is to be read between its ceiling (real pictures) and its floor (shuffled
conditions or prompts).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditions import detect_edges
from .shapes import COLOURS, SHAPES, draw, to_image


# %% The picture against its condition


def mask_of(images: Tensor) -> Tensor:
    """The share (n, 1, h, w) of each pixel that the shape covers, in any picture of two colours.

    The ground's colour is the border's median, the shape's the mean of the pixels far from it.
    Above one half a pixel is nearer to the shape's. Without a second colour the mask is 0.
    """
    ground = _border(images).median(-1).values[..., None, None]
    far = (images - ground).norm(dim=1, keepdim=True)
    weight = (far > 0.6 * far.amax(dim=(2, 3), keepdim=True)).to(images.dtype)
    colour = (images * weight).sum((2, 3), True) / weight.sum((2, 3), True).clamp(min=1)
    axis = colour - ground
    length = axis.square().sum(1, True)
    share = ((images - ground) * axis).sum(1, True) / length.clamp(min=1e-6)
    return share.clamp(0, 1) * (length > 0.01)


def _border(images: Tensor) -> Tensor:
    """The outermost pixels of (..., h, w) as (..., 2 h + 2 w)."""
    return torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)


def mask_iou(mask: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union (n,) of masks (n, 1, h, w), both cut at one half."""
    a, b = mask > 0.5, truth > 0.5
    return (a & b).sum((1, 2, 3)) / (a | b).sum((1, 2, 3)).clamp(min=1)


def edge_f1(images: Tensor, edges: Tensor) -> Tensor:
    """F1 (n,) of the edges detected in images (n, 3, h, w) against edge maps (n, 1, 2 h, 2 w).

    Compared on the images' grid; an edge counts if the other map has one within one pixel.
    """
    found, wanted = detect_edges(images), F.max_pool2d(edges, 2)
    near = lambda e: F.max_pool2d(e, 3, stride=1, padding=1)
    share = lambda a, b: (a * near(b)).sum((1, 2, 3)) / a.sum((1, 2, 3)).clamp(min=1)
    precision, recall = share(found, wanted), share(wanted, found)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-6)


def palette_error(images: Tensor, palettes: Tensor) -> Tensor:
    """Mean absolute difference (n,) between the images' palettes and those asked for."""
    return (F.adaptive_avg_pool2d(images, 4) - F.adaptive_avg_pool2d(palettes, 4)).abs().mean((1, 2, 3))


# %% The picture against its prompt


def nearest_colour(images: Tensor) -> Tensor:
    """The index into COLOURS nearest to each pixel: (n, h, w)."""
    known = torch.tensor(list(COLOURS.values())).to(images)[None, :, :, None, None]
    return (images[:, None] - known).square().sum(2).argmin(1)


def colours_right(images: Tensor, prompt: Tensor) -> Tensor:
    """Whether (n,) the two most frequent colours are the prompt's, the ground's at the border."""
    nearest = nearest_colour(images)
    two = F.one_hot(nearest, len(COLOURS)).sum((1, 2)).topk(2).indices.sort(1).values
    wanted = prompt[:, [0, 2]] - 1
    ground = _border(nearest).mode(1).values
    return (two == wanted.sort(1).values).all(1) & (ground == wanted[:, 1])


def off_palette(images: Tensor, reach: float = 0.2) -> Tensor:
    """The share (n,) of pixels farther than ``reach`` from every colour of the toy world.

    Burnt colours count, and so do the mixed pixels of outlines: real pictures are not at 0.
    """
    known = torch.tensor(list(COLOURS.values())).to(images)[None, :, :, None, None]
    return ((images[:, None] - known).norm(dim=2).amin(1) > reach).float().mean((1, 2))


class ShapeClassifier(nn.Sequential):
    """Masks (n, 1, 32, 32) -> scores (n, 4) in the order of SHAPES."""

    def __init__(self):
        conv = lambda c_in, c_out: [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), nn.ReLU()]
        super().__init__(*conv(1, 16), *conv(16, 32), *conv(32, 32), nn.Flatten(),
                         nn.Linear(32 * 16, len(SHAPES)))

    def forward(self, mask: Tensor) -> Tensor:
        return super().forward(_standardise(mask))

    def features(self, mask: Tensor) -> Tensor:
        """The means (n, 32) of the last maps: what a Frechet distance compares."""
        h = _standardise(mask)
        for layer in list(self)[:-2]:
            h = layer(h)
        return h.mean((2, 3))


def _standardise(mask: Tensor) -> Tensor:
    """Move, scale and shear each mask so that its mean is the centre and its covariance round.

    What is left to classify is the outline up to a turn: 400 steps of training suffice.
    """
    size = mask.shape[-1]
    line = (torch.arange(size).to(mask) + 0.5) * 2 / size - 1
    weight = mask / mask.sum((2, 3), True).clamp(min=1e-6)
    mean = lambda values: (weight * values).sum((1, 2, 3))
    x, y = line.view(1, 1, 1, -1), line.view(1, 1, -1, 1)
    mx, my = mean(x), mean(y)
    xx, xy, yy = mean(x * x) - mx**2, mean(x * y) - mx * my, mean(y * y) - my**2
    a = xx.clamp(min=1e-3).sqrt()  # Cholesky's factor of the covariance: [[a, 0], [b, c]]
    b, c = xy / a, (yy - (xy / a) ** 2).clamp(min=1e-3).sqrt()
    rows = [[2.8 * a, 0 * a, mx], [2.8 * b, 2.8 * c, my]]
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = F.affine_grid(theta, list(mask.shape), align_corners=False)
    return F.grid_sample(mask, grid, align_corners=False)


def classifier_loss(classifier: nn.Module, generator: torch.Generator) -> Tensor:
    """Cross-entropy on the masks of 64 fresh pictures, found as in generated ones."""
    batch = draw(64, generator)
    return F.cross_entropy(classifier(mask_of(to_image(batch.x0))), batch.scenes.shape)


def shapes_right(images: Tensor, prompt: Tensor, classifier: nn.Module) -> Tensor:
    """Whether (n,) the classifier sees the prompt's shape in each image's mask."""
    return classifier(mask_of(images)).argmax(1) == prompt[:, 1] - 1


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Between two sets of features (n, d) taken for Gaussians: FID's formula on other features (Tab. 3).

    |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), in float64. Small sets raise it: compare equal n.
    """
    a, b = a.double(), b.double()
    values, vectors = torch.linalg.eigh(a.T.cov())
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.T.cov() @ root).clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace() - 2 * cross).item()


# %% The model itself


@torch.no_grad()
def shuffle_gap(loss_with: Callable[[Tensor], Tensor], condition: Tensor) -> float:
    """Loss with every condition given to its neighbour, minus the loss with its own.

    ``loss_with`` computes the loss for a condition (n, c, h, w), with the same noise and times
    at each call. Rolling by one leaves no condition in its place. 0: the condition is ignored.
    """
    return (loss_with(condition.roll(1, 0)) - loss_with(condition)).item()
