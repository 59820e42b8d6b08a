"""How well pictures obey their prompts and conditions; images are (n, 3, h, w) in [0, 1].

Each number is to be read between its ceiling (real pictures) and its floor (shuffled
conditions or prompts).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditions import detect_edges
from .parallel import own_part
from .shapes import COLOURS, DARK, SHAPES, Scenes, random_batch

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
    mean, x, y = _mean_over((mask_of(images) > 0.5).to(images))
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


def _mean_over(mask: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
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
    mean, x, y = _mean_over(mask)
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


def classifier_loss(classifier: nn.Module, generator: torch.Generator) -> Tensor:
    """Cross-entropy on the wobbly masks of 64 fresh pictures, found as in generated ones."""
    batch = random_batch(64, generator)
    images = wobble(batch.image, 1.5 * torch.rand(64, generator=generator), generator)
    mask, shape = own_part(classifier, mask_of(images), batch.scenes.shape)
    return F.cross_entropy(classifier(mask), shape)


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
