"""From a picture to a condition: edge maps and palettes, of toy pictures and of your files.

Conditions are (b, c, 64, 64) in [0, 1], twice as large as the UNet's grid: c is 1 for an
edge map (0 or 1) and 3 for a palette.
"""

import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur, pil_to_tensor, resize

from .errors import Problem

SIZE = 64
CHANNELS = {"edge": 1, "palette": 3}


def condition_of(kind: str, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The "edge" map or "palette" of images; edges look drawn by hand if a generator is given."""
    if kind == "palette":
        return palette(images)
    edges = detect_edges(images)
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
    edges = weak & (strength > high * steepest)
    while True:  # hysteresis: weak edges count where they touch an edge
        grown = (F.max_pool2d(edges.float(), 3, stride=1, padding=1) > 0) & weak
        if torch.equal(grown, edges):
            return edges.float()
        edges = grown


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


def roughen(edges: Tensor, generator: torch.Generator) -> Tensor:
    """Edge maps as a pen would draw them: a stroke of 1, 2 or 3 pixels, with small gaps."""
    b = len(edges)
    two = F.max_pool2d(F.pad(edges, (0, 1, 0, 1)), 2, stride=1)
    three = F.max_pool2d(edges, 3, stride=1, padding=1)
    width = torch.randint(3, (b, 1, 1, 1), generator=generator)
    strokes = torch.where(width == 0, edges, torch.where(width == 1, two, three))
    holes = torch.rand(b, 1, 16, 16, generator=generator) < 0.05 * torch.rand(b, 1, 1, 1, generator=generator)
    return strokes * (1 - F.interpolate(holes.float(), size=edges.shape[2:]))


# %% Your files


def read_image(path: str | Path) -> tuple[Tensor, Tensor]:
    """Read any picture that Pillow reads, upright: colours (1, 3, h, w) and opacity (1, 1, h, w).

    Both are in [0, 1]; of an animation it is the first frame. Pictures over 1024 pixels a side
    are made smaller. Raises Problem if there is no picture to be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                file.draft("RGB", (1024, 1024))  # lets a JPEG of a phone be read small
                picture = ImageOps.exif_transpose(_eight_bit(file))
    except FileNotFoundError:
        raise Problem(f"{path} does not exist; check the name of the picture") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Problem(f"{path} has more than {Image.MAX_IMAGE_PIXELS // 10**6} million pixels;"
                      " make it smaller, 1000 pixels a side are plenty") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise Problem(f"{path} cannot be read as a picture; give a PNG or JPEG file") from error
    picture.thumbnail((1024, 1024), Image.Resampling.BOX)
    rgba = pil_to_tensor(picture.convert("RGBA"))[None] / 255
    return rgba[:, :3], rgba[:, 3:]


def _eight_bit(picture: Image.Image) -> Image.Image:
    """16-bit and float greys by their own range; Pillow would cut them off at 255."""
    if not picture.mode.startswith(("I", "F")):
        picture.load()
        return picture
    grey = picture.convert("F")
    low, high = grey.getextrema()
    return grey.point(lambda value: (value - low) * (255 / max(high - low, 1e-6))).convert("L")


def edges_from_drawing(path: str | Path) -> Tensor:
    """An edge map (1, 1, 64, 64) from a line drawing: dark on light or light on dark, any pen.

    Each stroke becomes one thin line. What is promised: one closed outline on a plain ground.
    Raises Problem if there is no line.
    """
    colours, opacity = read_image(path)
    grey = _letterbox(_flatten(colours, opacity).mean(1, keepdim=True), 256)
    ink = _ink(grey)
    if not 20 <= ink.sum() <= 0.6 * ink.numel():
        raise Problem(f"{path} shows no line drawing: there is no stroke on a plain ground; draw one"
                      " closed outline with a dark pen on white, or use --edge-from for a picture")
    return F.max_pool2d(_thin(ink).float(), 256 // SIZE)


def edges_from_picture(path: str | Path) -> Tensor:
    """An edge map (1, 1, 64, 64) of the edges that a detector finds in a picture."""
    edges = detect_edges(_image_space(path))
    if edges.sum() < 4:
        raise Problem(f"{path} has no edges: it is of one colour; give a picture that shows something")
    return edges


def palette_from_picture(path: str | Path) -> Tensor:
    """The palette (1, 3, 64, 64) of a picture."""
    return palette(_image_space(path))


def _image_space(path: str | Path) -> Tensor:
    return _letterbox(_flatten(*read_image(path)), SIZE)


def _flatten(colours: Tensor, opacity: Tensor) -> Tensor:
    """Put a picture on paper: white, or black under a picture that is light itself."""
    if opacity.min() == 1:
        return colours
    own = (colours * opacity).sum() / (3 * opacity.sum()).clamp(min=1e-6)
    return colours * opacity + float(own < 0.5) * (1 - opacity)


def _letterbox(image: Tensor, size: int) -> Tensor:
    """Fit an image (1, c, h, w) into a square, its border's median colour around it."""
    h, w = image.shape[2:]
    scale = size / max(h, w)
    new = [max(1, round(h * scale)), max(1, round(w * scale))]
    border = torch.cat([image[..., 0, :], image[..., -1, :], image[..., 0], image[..., -1]], -1)
    canvas = border.median(-1).values[..., None, None].expand(-1, -1, size, size).clone()
    top, left = (size - new[0]) // 2, (size - new[1]) // 2
    canvas[..., top : top + new[0], left : left + new[1]] = resize(image, new, antialias=True)
    return canvas


def _ink(grey: Tensor) -> Tensor:
    """Where a drawing (1, 1, h, w) has strokes (bool), whatever the paper's tone and shadows."""
    paper = gaussian_blur(grey, [129, 129], [32.0, 32.0])
    contrast = grey - grey.median()
    sign = 1 if (contrast**3).mean() > 0 else -1
    strength = sign * (grey - paper)
    strongest = strength.flatten().kthvalue(int(0.995 * strength.numel())).values
    return strength > (0.4 * strongest).clamp(min=0.06)


def _thin(ink: Tensor) -> Tensor:
    """The strokes' middle lines, one pixel wide (Zhang and Suen 1984): (1, 1, h, w) bool."""
    while True:
        before = ink
        for first in (True, False):
            padded = F.pad(ink, (1, 1, 1, 1))
            h, w = ink.shape[2:]
            # The eight neighbours, clockwise from the north.
            ring = [padded[..., y : y + h, x : x + w]
                    for y, x in [(0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0)]]
            n, _, e, _, s, _, w_, _ = ring
            count = sum(r.int() for r in ring)
            rises = sum((~a & b).int() for a, b in zip(ring, [*ring[1:], ring[0]]))
            open_side = ~(n & e & s) & ~(e & s & w_) if first else ~(n & e & w_) & ~(n & s & w_)
            ink = ink & ~((count >= 2) & (count <= 6) & (rises == 1) & open_side)
        if torch.equal(ink, before):
            return ink
