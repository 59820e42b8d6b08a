"""Which shape a picture shows: a small classifier, and a distance between sets of its features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import Problem, check_range, check_tensor
from ..shapes import SHAPES, SIZE, random_batch
from ..training import WHOLE, check_part
from .pictures import check_prompts, check_words, mask_of, mean_over


class ShapeClassifier(nn.Sequential):
    """Masks (n, 1, 64, 64) -> scores (n, 4) in the order of SHAPES.

    Masks are rounded to 0 or 1 first, so that faint noise on the background does not count.
    """

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),   # (n, 16, 16, 16)
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),  # (n, 32, 8, 8)
            nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU(),  # (n, 32, 4, 4)
            nn.Flatten(),
            nn.Linear(32 * 16, len(SHAPES)),
        )

    def forward(self, mask: Tensor) -> Tensor:
        return super().forward(self._rounded(mask))

    def features(self, mask: Tensor) -> Tensor:
        """The means (n, 32) of the last maps, which frechet_distance compares."""
        h = self._rounded(mask)
        for layer in list(self)[:-2]:
            h = layer(h)
        return h.mean((2, 3))

    def _rounded(self, mask: Tensor) -> Tensor:
        """Masks of 0 and 1 in the dtype of the weights, on the classifier's grid."""
        _check_masks(mask)
        return _standardise((mask > 0.5).to(self[0].weight.dtype))


def _check_masks(mask: Tensor) -> None:
    check_tensor("the masks", mask)
    if mask.dim() != 4 or mask.shape[1:] != (1, SIZE, SIZE) or not len(mask):
        raise Problem(f"the masks have the shape {tuple(mask.shape)}; give (n, 1, {SIZE}, {SIZE}), such as mask_of"
                      " returns for pictures")
    if not mask.isfinite().all():
        raise Problem("the masks have values that are not finite, which would count as no shape; mend them first")
    check_range("the masks", mask.float())


def _standardise(mask: Tensor, to: int = 32) -> Tensor:
    """Move, scale and shear each mask until its mean is in the centre and its covariance is round.

    So the classifier sees the outline alone, up to a rotation, on a grid of 32x32.
    """
    mean, x, y = mean_over(mask)
    mx = mean(x)
    my = mean(y)
    xx = mean(x * x) - mx**2
    xy = mean(x * y) - mx * my
    yy = mean(y * y) - my**2
    a = xx.clamp(min=1e-3).sqrt()  # the Cholesky factor of the covariance is [[a, 0], [b, c]]
    b = xy / a
    c = (yy - b**2).clamp(min=1e-3).sqrt()
    rows = [[2.8 * a, 0 * a, mx], [2.8 * b, 2.8 * c, my]]
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = F.affine_grid(theta, [len(mask), 1, to, to], align_corners=False)
    return F.grid_sample(mask, grid, align_corners=False)


def wobble(images: Tensor, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Distort images (n, c, h, w) smoothly, so that a circle becomes wobbly.

    No pixel moves by more than ``pixels`` (n,).

    A random field on a 6x6 grid is enlarged by bicubic interpolation and scaled so that its
    longest vector has this length.
    """
    n, _, h, w = images.shape
    check_range("the shares of the height by which pixels move", pixels.float() / h)
    field = F.interpolate(torch.randn(n, 2, 6, 6, generator=generator), (h, w), mode="bicubic")
    field = field / field.norm(dim=1, keepdim=True).amax((2, 3), keepdim=True)
    still = F.affine_grid(torch.eye(2, 3).repeat(n, 1, 1), [n, 1, h, w], align_corners=False)
    moved = still + (field * pixels.view(-1, 1, 1, 1) * 2 / h).movedim(1, -1)
    return F.grid_sample(images, moved, padding_mode="border", align_corners=False)


def classifier_loss(classifier: nn.Module, generator: torch.Generator, part: slice = WHOLE) -> Tensor:
    """Cross-entropy on the masks of 64 new, distorted pictures. The masks are detected, as in generated pictures."""
    batch = random_batch(64, generator)
    images = wobble(batch.image, 1.5 * torch.rand(64, generator=generator), generator)
    device = next(classifier.parameters()).device
    check_part(part, len(images))
    mask = mask_of(images)[part].to(device)
    return F.cross_entropy(classifier(mask), batch.scenes.shape[part].to(device))


def shapes_right(images: Tensor, prompt: Tensor, classifier: nn.Module) -> Tensor:
    """Whether (n,) the classifier finds the prompt's shape in the mask of each image.

    Raises Problem if a prompt names no shape.
    """
    check_prompts(images, prompt)
    check_words(prompt, [1], "shape")
    scores = classifier(mask_of(images))
    if scores.shape != (len(images), len(SHAPES)) or scores.isnan().any():
        raise Problem(f"the classifier returned the shape {tuple(scores.shape)} for {len(images)} pictures; let it"
                      f" return {len(SHAPES)} scores for each of them, and none that is nan")
    return scores.argmax(1) == prompt[:, 1] - 1


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The Frechet distance between two sets of features (n, d): FID's formula (Tab. 3) on other features.

    Both sets are treated as Gaussians with means m and covariances C:

        |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

    It is computed in float64. Small sets increase it, so compare sets of equal size.
    """
    for features in (a, b):
        check_tensor("the features", features)
    for features in (a, b):
        fits = features.dim() == 2 and len(features) > 1 and features.numel() and not features.is_complex()
        if not fits or not features.isfinite().all() or a.shape[1] != b.shape[-1]:
            raise Problem(f"the features have the shapes {tuple(a.shape)} and {tuple(b.shape)}; give two sets (n, d)"
                          " of finite numbers, with n of at least 2 and the same d")
    a = a.double()
    b = b.double()
    cov_a = torch.atleast_2d(a.T.cov())
    cov_b = torch.atleast_2d(b.T.cov())
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    means = (a.mean(0) - b.mean(0)).square().sum()
    return (means + cov_a.trace() + cov_b.trace() - 2 * cross).item()
