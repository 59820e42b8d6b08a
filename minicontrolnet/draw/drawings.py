"""Your own files as conditions: line drawings of any pen, photos, palettes.

Nothing here is needed to understand ControlNet. A drawing goes through: read, shrink, even out
the light, find the ink, thin it to one line.
"""

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, affine, center_crop, pil_to_tensor, resize

from ..conditions import detect_edges, palette, spread
from ..errors import Problem
from ..measure.pictures import border
from ..shapes import SIZE


def read_image(path: str | Path, at_most: int = 512) -> tuple[Tensor, Tensor]:
    """Read any picture that Pillow reads, upright: colours (1, 3, h, w) and opacity (1, 1, h, w).

    Both are in [0, 1]; of an animation it is the first frame. Pictures of more than ``at_most``
    pixels a side are made smaller. Raises Problem if there is nothing to be read or to be seen.
    """
    if os.path.isdir(path):  # says no to a name too long for a file, where Path raises
        raise Problem(f'"{path}" is a folder; give the name of a PNG or JPEG file')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = _open_small(path, at_most)
    except FileNotFoundError:
        raise Problem(f'"{path}" does not exist; check the name of the picture') from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Problem(f'"{path}" has more than {Image.MAX_IMAGE_PIXELS // 10**6} million pixels;'
                      " make it smaller, 1000 pixels a side are plenty") from None
    except Exception as error:  # on a broken file Pillow may raise nearly anything
        raise Problem(f'"{path}" cannot be read as a picture, it may be broken or of another kind;'
                      " save it anew as PNG or JPEG") from error
    rgba = pil_to_tensor(picture)[None] / 255
    if rgba[:, 3].max() == 0:
        raise Problem(f'"{path}" is fully transparent; give a picture that shows something')
    return rgba[:, :3], rgba[:, 3:]


def _open_small(path: str | Path, at_most: int) -> Image.Image:
    """Open a picture in mode RGBA, upright, with at most ``at_most`` pixels a side."""
    with Image.open(path) as file:
        file.draft("RGB", (at_most, at_most))  # lets a JPEG of a phone be read small
        picture = ImageOps.exif_transpose(file)
    if picture.mode.startswith(("I", "F")):
        # Pillow would cut these greys off at 255: divide by the white that holds them.
        grey = picture.convert("F")
        high = grey.getextrema()[1]
        white = min(w for w in (1, 255, 65535, max(high, 1)) if w >= high)
        picture = grey.point(lambda value: value * (255 / white)).convert("L")
    # Pillow averages no pixels of mode 1 and P; L takes a quarter of RGBA's memory.
    picture = picture.convert("L" if picture.mode == "1" else "RGBA")
    picture.thumbnail((at_most, at_most), Image.Resampling.BOX)
    return picture.convert("RGBA")


class Drawing(NamedTuple):
    """A line drawing as an edge map, and by how much it had to be scaled for that."""

    edges: Tensor  # (1, 1, 64, 64), 0 or 1
    zoom: float  # 1: as drawn; the networks saw shapes of some sizes only


def edges_from_drawing(path: str | Path) -> Tensor:
    """An edge map (1, 1, 64, 64) from the file of a line drawing; see trace."""
    return trace(*read_image(path), name=str(path)).edges


def trace(colours: Tensor, opacity: Tensor, name: str = "the drawing") -> Drawing:
    """Trace a line drawing (1, 3, h, w), dark on light or light on dark, by any pen.

    Each stroke becomes one thin line. What is promised: one closed outline on a plain ground,
    its stroke at most 6 % of the picture. A drawing that is smaller or larger than the shapes
    of the toy world is scaled to their size. Raises Problem if there is no line, or a filled
    shape; ``name`` is what its sentence calls the drawing.
    """
    tone = _tone(_resize(_flatten(colours, opacity), 256))
    if _darken((_ink(tone, 161) > 0).float(), 37).any():
        raise Problem(f'"{name}" shows a filled shape, or a shadow, thumb or table, and no line drawing;'
                      " draw one closed outline with a thin pen, crop a photograph to evenly lit paper,"
                      " or use --edge-from for a picture")
    ink = _ink(tone, 65)
    frame = F.pad(torch.zeros_like(ink)[..., 1:-1, 1:-1], (1, 1, 1, 1), value=1.0)
    rim = spread(frame, ink > 0) > 0
    for ink in (ink.masked_fill(rim, -1), ink):  # a scanner's dark margin goes, if anything else is there
        fitted, zoom = _fit(_centre(ink))
        edges = _lines(fitted)
        if edges.sum() >= 16:
            return Drawing(edges.float(), zoom)
    raise Problem(f'"{name}" shows no line drawing: there is no thin and unbroken stroke on a plain ground;'
                  " draw one closed outline, half as wide as the sheet, with a dark pen on white, or use"
                  " --edge-from for a picture")


def doubt(edges: Tensor) -> str:
    """Why an edge map (1, 1, 64, 64) may be no single closed outline; "" if it is one.

    Gaps of up to 2 pixels count as closed.
    """
    walls = F.pad(_grow(edges > 0), (1, 1, 1, 1))
    areas, lines = (len(_label(mask).unique()) - 1 for mask in (~walls, walls))
    if areas == 1:
        return ("the line encloses nothing, or was too thick to be traced; close the outline and draw it with a"
                " pen of at most 6 % of the picture, or the pictures are guesses")
    if lines > 1:
        return f"there are {lines} separate lines, but the networks know one outline; is there a frame or a table?"
    return ""


def edges_from_picture(path: str | Path) -> Tensor:
    """An edge map (1, 1, 64, 64) of the edges that a detector finds in a picture.

    Raises Problem if there are none.
    """
    edges = _centre(detect_edges(_resize(_flatten(*read_image(path)), SIZE)))
    if edges.sum() < 4:
        raise Problem(f'"{path}" has no edges, it is of one colour; give a picture that shows something')
    return edges


def palette_from_picture(path: str | Path) -> Tensor:
    """The palette (1, 3, 64, 64) of a picture; around one that is not square, its border's median."""
    image = _resize(_flatten(*read_image(path)), SIZE)
    ground = border(image).median(-1).values[..., None, None]
    return palette(_centre(image - ground) + ground)


def _flatten(colours: Tensor, opacity: Tensor) -> Tensor:
    """Put a picture on paper: white, or black under a picture that is light itself."""
    own = (colours * opacity).sum() / (3 * opacity.sum())
    return colours * opacity + float(own < 0.5) * (1 - opacity)


def _resize(image: Tensor, size: int) -> Tensor:
    """Keep the proportions of (1, c, h, w), but make the longer side ``size``, the other 2 or more."""
    scale = size / max(image.shape[2:])
    return resize(image, [max(2, round(side * scale)) for side in image.shape[2:]], antialias=True)


def _centre(image: Tensor) -> Tensor:
    """Put (1, c, h, w) in the middle of a square of zeros."""
    return center_crop(image, [max(image.shape[2:])] * 2)


# %% From strokes to lines; masks are (1, 1, h, w) bool


def _tone(image: Tensor) -> Tensor:
    """A drawing (1, 3, h, w) in one channel (1, 1, h, w), its strokes darker than its paper."""
    image = _local_mean(_level(image), 3)
    # Strokes are few and far from the paper's tone, so they give each colour's skew its sign.
    skew = (image - _local_mean(image, 33)).pow(3).mean((2, 3), keepdim=True)
    return torch.where(skew > 0, -image, image).mean(1, keepdim=True)


def _ink(tone: Tensor, window: int) -> Tensor:
    """Above 0 where a drawing's tone (1, 1, h, w) is that of strokes, narrower than a window."""
    # Closing (brighten, then darken) wipes out all dark that is narrower than the window.
    paper = _darken(_brighten(_local_mean(tone, 3), window), window)
    strength = paper - tone
    noise = strength.median()
    strongest = strength.flatten().kthvalue(int(0.998 * strength.numel())).values
    return strength - (0.6 * noise + 0.4 * strongest).clamp(min=0.008 + 2 * noise)


# The outlines of the toy world lie at 0.38 to 0.63 of half a picture from their middle (root mean square).
NARROW, WIDE = 0.40, 0.56


def _fit(ink: Tensor) -> tuple[Tensor, float]:
    """Scale ink (1, 1, 256, 256), above 0 in strokes, to a size of the toy world's outlines.

    Returns the strokes, true or false, and the scale: 1 if none was needed.
    """
    thin = _thin(ink > 0)
    coarse = _largest(F.max_pool2d(thin.float(), 4) > 0)  # parts are found 30 times as fast
    y, x = (thin & (F.interpolate(coarse.float(), thin.shape[2:]) > 0))[0, 0].nonzero().T
    points = torch.stack([x, y], 1) + 0.5 - 128  # from the sheet's middle
    reach = (points - points.mean(0)).square().sum(1).mean().sqrt().item() / 128
    zoom = min(max(1.0, NARROW / reach), WIDE / reach) if len(points) else 1.0
    if zoom == 1:
        return thin, zoom
    low, high = points.amin(0), points.amax(0)
    room = (0.95 * 128 - (high - low) * zoom / 2).clamp(min=0)
    middle = (low + high) / 2
    move = middle.clamp(-room, room) - middle * zoom  # it stays where it is, but inside the sheet
    if zoom < 1:  # else thin strokes would fall between the points looked at
        ink = _brighten(ink, 3)
    return affine(ink, 0, move.tolist(), zoom, [0.0], InterpolationMode.BILINEAR) > 0, zoom


def _level(image: Tensor) -> Tensor:
    """Subtract the nearest quadratic surface from (1, c, h, w): a lamp's light, a lens's dark corners."""
    h, w = image.shape[2:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    terms = torch.stack([torch.ones(h, w), x, y, x * y, x * x, y * y], -1).flatten(0, 1)
    pixels = image[0].flatten(1).T
    return (pixels - terms @ torch.linalg.lstsq(terms, pixels).solution).T.view_as(image)


def _local_mean(image: Tensor, size: int) -> Tensor:
    rows = F.avg_pool2d(image, (1, size), 1, (0, size // 2), count_include_pad=False)
    return F.avg_pool2d(rows, (size, 1), 1, (size // 2, 0), count_include_pad=False)


def _brighten(image: Tensor, size: int) -> Tensor:
    rows = F.max_pool2d(image, (1, size), 1, (0, size // 2))
    return F.max_pool2d(rows, (size, 1), 1, (size // 2, 0))


def _darken(image: Tensor, size: int) -> Tensor:
    return -_brighten(-image, size)


def _lines(strokes: Tensor) -> Tensor:
    """Strokes (1, 1, 256, 256) as thin lines (1, 1, 64, 64): no specks, no spurs to 3 pixels."""
    middle = _thin(strokes).float()
    line = _thin(F.max_pool2d(middle, 256 // SIZE) > 0)
    pruned = line
    for _ in range(3):
        pruned = pruned & ~_ends(pruned)
    for _ in range(3):  # what still ends here was a true end, so it grows back
        pruned = pruned | (line & _grow(pruned & _ends(pruned)))
    return _largest(pruned)


def _largest(mask: Tensor) -> Tensor:
    """The parts of a mask that are not specks beside the largest one."""
    label = _label(mask)
    size = label.flatten().bincount()
    size[0] = 0
    return (size >= (0.15 * size.max()).clamp(min=8))[label]


def _around(mask: Tensor) -> Tensor:
    """The eight neighbours (8, 1, h, w) of each pixel of (1, 1, h, w), clockwise from the north."""
    steps = [(0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)]
    return torch.cat([F.pad(mask, (x, -x, y, -y)) for x, y in steps])


def _thin(ink: Tensor) -> Tensor:
    """The strokes' middle lines, one pixel wide (Zhang and Suen 1984)."""
    while True:
        before = ink
        for first in (True, False):
            ring = _around(ink)
            n, _, e, _, s, _, w, _ = ring
            count, rises = ring.sum(0), (~ring & ring.roll(-1, 0)).sum(0)
            open_side = ~(n & e & s) & ~(e & s & w) if first else ~(n & e & w) & ~(n & s & w)
            ink = ink & ~((count >= 2) & (count <= 6) & (rises == 1) & open_side)
        if torch.equal(ink, before):
            return ink


def _ends(line: Tensor) -> Tensor:
    return _around(line).sum(0) <= 1


def _grow(mask: Tensor) -> Tensor:
    return _brighten(mask.float(), 3) > 0


def _label(mask: Tensor) -> Tensor:
    """A number for each part of a mask that hangs together: (1, 1, h, w) integers, 0 outside."""
    return spread(torch.arange(1.0, mask.numel() + 1).view(mask.shape), mask).long()
