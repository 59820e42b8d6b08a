"""From a picture to a condition: edge maps, palettes and poses.

A condition is (b, c, 64, 64) in [0, 1], as large as the picture. An edge map has c = 1 channel
and the values 0 and 1. A palette has c = 3. A pose has c = 1 and shows a stick figure.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import Problem, check_generator, check_images, check_number, check_tensor, dtype_name, shorten
from .shapes import SIZE, Batch, tip_of

CHANNELS = {"edge": 1, "palette": 3, "pose": 1}
Kind = str | Callable[[Batch], Tensor]  # one of the names above, or a function of your own


def condition_of(kind: Kind, batch: Batch) -> Tensor:
    """The condition (b, c, 64, 64) of a batch: "edge", "palette", "pose", or what your own function returns.

    Edges and palettes are detected in the pictures. A pose is drawn from the scenes instead; the
    paper's authors took their human poses from a network made for that. Your own function gets a
    copy of the batch, so it may change what it is given. Raises Problem for an unknown name.
    """
    check_kind(kind)
    if not isinstance(batch, Batch):
        raise Problem(f"the batch is a {type(batch).__name__}; give a batch, such as random_batch or held_out returns")
    if not callable(kind):
        return CONDITIONS[kind](batch)
    condition = kind(batch.map(Tensor.clone))
    _check_own(condition, len(batch.x0), batch.x0.shape[2:])
    return condition


def check_kind(kind: Kind) -> None:
    """Raise Problem unless ``kind`` is the name of a condition or a function."""
    known = isinstance(kind, str) and kind in CONDITIONS
    if not (known or callable(kind)):
        raise Problem(f"there is no condition {shorten(repr(kind))}; give one of {', '.join(CONDITIONS)}, or a function"
                      " that takes a batch and returns its conditions")


def check_edge_maps(edges: Tensor) -> None:
    """Raise Problem unless ``edges`` are maps (n, 1, h, w) of 0 and 1."""
    check_images("the edge maps", edges, channels=[1])
    if not ((edges == 0) | (edges == 1)).all():
        raise Problem("the edge maps have values between 0 and 1; give 0 or 1, such as detect_edges returns, for"
                      " example by (x > 0.5).float()")


def _check_own(condition: Tensor, n: int, size: torch.Size) -> None:
    """Raise Problem unless a function of your own returned n conditions, each as large as its picture."""
    if not isinstance(condition, Tensor):
        raise Problem(f"the condition's function returned a {type(condition).__name__}; let it return a tensor"
                      " (n, c, h, w)")
    h, w = size
    fits = condition.dim() == 4 and len(condition) == n and condition.shape[2:] == size and condition.shape[1] > 0
    if not fits or not condition.is_floating_point():
        raise Problem(f"the condition's function returned {dtype_name(condition)} of the shape"
                      f" {tuple(condition.shape)} for {n} pictures of {h} x {w}; let it return floating point values"
                      f" ({n}, c, {h}, {w})")
    check_tensor("the condition's values", condition)
    if not condition.isfinite().all():
        raise Problem("the condition's function returned values that are not finite; check its divisions")
    low, high = condition.aminmax()
    if low < -1e-4 or high > 1 + 1e-4:
        raise Problem(f"the condition's function returned values from {low.item():.4g} to {high.item():.4g}; let it"
                      " return values in [0, 1], as the first layer expects")


def _edges_of(batch: Batch) -> Tensor:
    return detect_edges(batch.image)


def _palette_of(batch: Batch) -> Tensor:
    return palette(batch.image)


def _pose_of(batch: Batch) -> Tensor:
    if batch.scenes is None:
        raise Problem("the batch has no scenes, so its poses are unknown; give a batch of painted pictures, or your own"
                      " condition as a function of the batch")
    return stick_figure(batch.scenes.centre, tip_of(batch.scenes))


CONDITIONS: dict[str, Callable[[Batch], Tensor]] = {"edge": _edges_of, "palette": _palette_of, "pose": _pose_of}

# %% Edges


def detect_edges(images: Tensor, low: float = 0.15, high: float = 0.3) -> Tensor:
    """Detect the edges of any pictures (b, 3, h, w) in [0, 1] as Canny (1986) does. Returns (b, 1, h, w), 0 or 1.

    ``low`` and ``high`` are the two thresholds, as shares of each picture's steepest gradient.
    The gradient is taken in the colour channel where it is largest. In a photograph two colours
    may be equally bright, and a grey picture would lose the edge between them. A gradient below
    0.02 never counts, so a picture that is plain but for rounding errors has no edges.
    """
    check_images("the images", images, channels=[3])
    check_number("low", low, 0, 1)
    check_number("high", high, low, 1)
    if min(images.shape[2:]) < 2:
        raise Problem(f"the images have the shape {tuple(images.shape)}; edges need at least 2x2 pixels")
    gx, gy = _gradient(_blur(images))
    strength, channel = torch.hypot(gx, gy).max(dim=1, keepdim=True)
    ridge = _is_ridge(strength, gx.gather(1, channel), gy.gather(1, channel))
    steepest = strength.amax(dim=(2, 3), keepdim=True)
    strong = (strength >= high * steepest).to(images.dtype)
    weak = ridge & (strength > (low * steepest).clamp(min=0.02))
    return spread(strong, weak)  # hysteresis: a weak edge counts if it touches a strong one


def spread(start: Tensor, mask: Tensor) -> Tensor:
    """Fill each connected part of masks (b, 1, h, w) with the largest value that ``start`` has in it."""
    filled = start * mask
    while True:
        grown = _largest_of_nine(filled) * mask
        if torch.equal(grown, filled):
            return filled
        filled = grown


def _largest_of_four(images: Tensor) -> Tensor:
    """The maximum of each 2x2 window of (b, 1, h + 1, w + 1): max_pool2d with stride 1, in a seventh of its time."""
    rows = torch.maximum(images[..., 1:, :], images[..., :-1, :])
    return torch.maximum(rows[..., 1:], rows[..., :-1])


def _largest_of_nine(images: Tensor) -> Tensor:
    """The maximum of the 3x3 window around each pixel of (b, 1, h, w): two windows of 2x2, one after the other."""
    padded = F.pad(images, (1, 1, 1, 1), value=-math.inf)
    return _largest_of_four(_largest_of_four(padded))


def _blur(images: Tensor, sigma: float = 0.7) -> Tensor:
    """Convolve images (b, c, h, w) with a 3x3 Gaussian. This equals torchvision's gaussian_blur bit for bit.

    We write these lines ourselves because importing torchvision takes longer than all the rest.
    """
    line = torch.linspace(-1, 1, 3, dtype=images.dtype, device=images.device)
    line = torch.exp(-0.5 * (line / sigma) ** 2)
    line = line / line.sum()
    kernel = torch.outer(line, line).view(1, 1, 3, 3)
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded.flatten(0, 1).unsqueeze(1), kernel).view_as(images)


def _gradient(images: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel's gradients along x and along y, each (b, c, h, w), for each channel."""
    x = F.pad(images, (1, 1, 1, 1), mode="replicate")
    dx = (x[..., 2:] - x[..., :-2]) / 2
    dy = (x[..., 2:, :] - x[..., :-2, :]) / 2
    gx = (dx[..., :-2, :] + 2 * dx[..., 1:-1, :] + dx[..., 2:, :]) / 4
    gy = (dy[..., :-2] + 2 * dy[..., 1:-1] + dy[..., 2:]) / 4
    return gx, gy


def _is_ridge(strength: Tensor, gx: Tensor, gy: Tensor) -> Tensor:
    """Where the strength (b, 1, h, w) is a maximum along the gradient, whose direction is rounded to one of eight."""
    h, w = strength.shape[2:]
    padded = F.pad(strength, (1, 1, 1, 1))

    def moved(dx: int, dy: int) -> Tensor:
        return padded[..., 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]

    tan = 0.4142  # of 22.5 degrees: half of the angle between two of the eight directions
    flat = gy.abs() < tan * gx.abs()
    steep = gx.abs() < tan * gy.abs()
    diagonal = ~flat & ~steep
    rising = gx * gy > 0
    ridge = torch.zeros_like(flat)
    for here, dx, dy in [(flat, 1, 0), (steep, 0, 1), (diagonal & rising, 1, 1), (diagonal & ~rising, 1, -1)]:
        # ">" on one side and ">=" on the other keep one pixel where two neighbours are equal.
        ridge = ridge | (here & (strength > moved(dx, dy)) & (strength >= moved(-dx, -dy)))
    return ridge


def roughen(edges: Tensor, generator: torch.Generator) -> Tensor:
    """Make edge maps (b, 1, h, w) look hand-drawn: strokes of 1, 2 or 3 pixels, with small gaps.

    Training sees such maps, so that a ControlNet also follows a drawing.
    """
    check_edge_maps(edges)
    check_generator(generator)
    b = len(edges)
    two = _largest_of_four(F.pad(edges, (0, 1, 0, 1)))  # a stroke of 2 pixels; it grows to the left and up
    three = _largest_of_four(F.pad(two, (1, 0, 1, 0)))  # and back to the right and down
    width = torch.randint(3, (b, 1, 1, 1), generator=generator)
    strokes = torch.where(width == 0, edges, torch.where(width == 1, two, three))
    # Each map loses 0 to 5 % of its cells of 4x4 pixels: the first random number picks the cells, the second the share.
    places = torch.rand(b, 1, 16, 16, generator=generator, dtype=torch.float32)
    holes = places < 0.05 * torch.rand(b, 1, 1, 1, generator=generator, dtype=torch.float32)
    return strokes * (1 - F.interpolate(holes.to(edges.dtype), size=edges.shape[2:]))


# %% Palettes and poses


def palette(images: Tensor) -> Tensor:
    """A very coarse map of colours: the mean of each cell of a 4x4 grid. (b, 3, h, w) -> the same shape."""
    check_images("the images", images, channels=[3])
    coarse = F.adaptive_avg_pool2d(images, 4)
    return F.interpolate(coarse, size=images.shape[2:])


def stick_figure(centre: Tensor, tip: Tensor) -> Tensor:
    """Draw a line of 2 pixels from centre (b, 2) to tip (b, 2), with a dot at the centre: (b, 1, 64, 64).

    Places are x and y in [-1, 1]. The value of a pixel is the share of it that is covered.
    """
    _check_places(centre, tip)
    axis = (torch.arange(SIZE, device=centre.device) + 0.5) * 2 / SIZE - 1
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).flatten(0, 1)  # (4096, 2)
    from_centre = pixels - centre[:, None]  # (b, 4096, 2)
    line = (tip - centre)[:, None]          # (b, 1, 2)
    # The nearest point of the line lies at this share of its length: 0 is the centre, and 1 is the tip.
    share = (from_centre * line).sum(-1, True) / line.square().sum(-1, True).clamp(min=1e-6)
    stick = _covered(from_centre - share.clamp(0, 1) * line, radius=1)
    dot = _covered(from_centre, radius=3)
    return torch.maximum(stick, dot).view(-1, 1, SIZE, SIZE)


def _check_places(centre: Tensor, tip: Tensor) -> None:
    if not (isinstance(centre, Tensor) and isinstance(tip, Tensor)) or centre.shape != tip.shape or (
            centre.shape[1:] != (2,)):
        raise Problem("centre and tip must be two tensors of the same shape (b, 2); give x and y in [-1, 1]")
    if centre.is_meta:
        return  # tensors without values
    if not (centre.abs().le(1).all() and tip.isfinite().all()):  # a tip may lie outside; a centre may not
        raise Problem("the centre lies outside of the picture, or a place is not finite; give x and y in [-1, 1],"
                      " where a pixel p of 64 is (p + 0.5) / 32 - 1")


def _covered(offset: Tensor, radius: float) -> Tensor:
    """The share (b, k) of pixels at ``offset`` (b, k, 2) that a disc or line of this radius, in pixels, covers."""
    return (radius + 0.5 - offset.norm(dim=-1) * SIZE / 2).clamp(0, 1)
