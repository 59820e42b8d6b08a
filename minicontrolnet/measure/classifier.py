"""Which shape a picture shows: a small classifier, and a distance between sets of its features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..shapes import SHAPES, random_batch
from ..training import WHOLE
from .pictures import mask_of, mean_over


class ShapeClassifier(nn.Sequential):
    """Masks (n, 1, 64, 64) -> scores (n, 4) in the order of SHAPES.

    Masks are cut at one half, so that faint noise on the ground counts for nothing.
    """

    def __init__(self):
        conv = lambda c_in, c_out: [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), nn.ReLU()]
        super().__init__(*conv(1, 16), *conv(16, 32), *conv(32, 32), nn.Flatten(),
                         nn.Linear(32 * 16, len(SHAPES)))

    def forward(self, mask: Tensor) -> Tensor:
        return super().forward(_standardise((mask > 0.5).float()))

    def features(self, mask: Tensor) -> Tensor:
        """The means (n, 32) of the last maps: what a Frechet distance compares."""
        h = _standardise((mask > 0.5).float())
        for layer in list(self)[:-2]:
            h = layer(h)
        return h.mean((2, 3))


def _standardise(mask: Tensor, to: int = 32) -> Tensor:
    """Move, scale and shear each mask so that its mean is the centre and its covariance round.

    What is left to classify, on a grid of 32x32, is the outline up to a turn.
    """
    mean, x, y = mean_over(mask)
    mx, my = mean(x), mean(y)
    xx, xy, yy = mean(x * x) - mx**2, mean(x * y) - mx * my, mean(y * y) - my**2
    a = xx.clamp(min=1e-3).sqrt()  # Cholesky's factor of the covariance: [[a, 0], [b, c]]
    b, c = xy / a, (yy - (xy / a) ** 2).clamp(min=1e-3).sqrt()
    rows = [[2.8 * a, 0 * a, mx], [2.8 * b, 2.8 * c, my]]
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = F.affine_grid(theta, [len(mask), 1, to, to], align_corners=False)
    return F.grid_sample(mask, grid, align_corners=False)


def wobble(images: Tensor, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Move the pixels of images (n, c, h, w) smoothly, by up to ``pixels`` (n,): a wobbly circle.

    A random field on a grid of 6x6 is made smooth by bicubic interpolation; its largest vector
    has the length asked for.
    """
    n, _, h, w = images.shape
    field = F.interpolate(torch.randn(n, 2, 6, 6, generator=generator), (h, w), mode="bicubic")
    field = field / field.norm(dim=1, keepdim=True).amax((2, 3), keepdim=True)
    still = F.affine_grid(torch.eye(2, 3).repeat(n, 1, 1), [n, 1, h, w], align_corners=False)
    moved = still + (field * pixels.view(-1, 1, 1, 1) * 2 / h).movedim(1, -1)
    return F.grid_sample(images, moved, padding_mode="border", align_corners=False)


def classifier_loss(classifier: nn.Module, generator: torch.Generator, part: slice = WHOLE) -> Tensor:
    """Cross-entropy on the wobbly masks of 64 fresh pictures, found as in generated ones."""
    batch = random_batch(64, generator)
    images = wobble(batch.image, 1.5 * torch.rand(64, generator=generator), generator)
    device = next(classifier.parameters()).device
    mask = mask_of(images)[part].to(device)
    return F.cross_entropy(classifier(mask), batch.scenes.shape[part].to(device))


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
