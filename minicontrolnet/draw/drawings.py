"""Your own files as conditions: line drawings by any pen, photographs and palettes.

You can understand ControlNet without this file. ``trace`` turns a line drawing into an edge map in
four steps. It finds the strokes, removes what does not belong to the outline, brings the outline to
a size that the networks know, and thins it. A comment at each step says which drawings need it.
"""

import math
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize, resized_crop

from ..conditions import detect_edges, palette, spread
from ..errors import Problem, advice_on_missing, check_count, check_images, check_same_shape
from ..measure.pictures import border
from ..shapes import SIZE

# %% Reading

SMALLEST = 16  # pixels on each side of a picture: fewer do not show a shape


def read_image(path: str | Path, at_most: int = 512) -> tuple[Tensor, Tensor]:
    """Read any picture that Pillow can read: colours (1, 3, h, w) and opacity (1, 1, h, w), both in [0, 1].

    The picture is turned upright, and of an animation you get the first frame. A picture of more
    than ``at_most`` pixels a side is made smaller. Raises Problem if there is nothing to read or to see.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise Problem(f"the picture is a {type(path).__name__}; give the name of its file, such as drawing.png")
    check_count("at_most", at_most, low=SMALLEST)
    if os.path.isdir(path):
        raise Problem(f'"{path}" is a folder; give the name of a PNG or JPEG file')
    if not os.path.exists(path):
        raise Problem(f'the picture "{path}" does not exist; {advice_on_missing(path)}')
    if not os.path.isfile(path):  # to open a pipe would wait for somebody who writes to it
        raise Problem(f'"{path}" is a pipe or a device; save the picture to a file first')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                colours, opacity = _decode(file, at_most)
    except _BelowBlack as found:
        raise Problem(f'"{path}" has values from {found}, and below 0 we do not know what is black and what is white;'
                      " save it anew with values from 0 to 1") from None
    except PermissionError:
        raise Problem(f'"{path}" may not be read by you; change its permissions, or copy it') from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Problem(f'"{path}" has more than {Image.MAX_IMAGE_PIXELS // 10**6} million pixels;'
                      " make it smaller, 1000 pixels a side are plenty") from None
    except Exception as error:  # Pillow raises nearly every kind of exception on a broken file
        raise Problem(f'"{path}" cannot be read as a picture, it may be broken or of another kind;'
                      " save it anew as PNG or JPEG") from error
    if not colours.isfinite().all():
        raise Problem(f'"{path}" has pixels that are not finite numbers; save it anew as PNG')
    if opacity.max() == 0:
        raise Problem(f'"{path}" is fully transparent; give a picture that shows something')
    return colours.clamp(0, 1), opacity


class _BelowBlack(Exception):
    """A picture has numbers below 0. The text is their range."""


def _decode(file: Image.Image, at_most: int) -> tuple[Tensor, Tensor]:
    """The colours and the opacity of an open picture."""
    file.draft("RGB", (at_most, at_most))  # reads the photograph of a phone at a fraction of its size
    picture = ImageOps.exif_transpose(file)
    if picture.mode.startswith(("I", "F")):  # Pillow would cut these greys off at 255
        white = _white_of(file)
        grey = picture.convert("F")
        low, high = grey.getextrema()
        if -math.inf < low < -0.01 * white:  # what a filter leaves is nearer to 0
            raise _BelowBlack(f"{low:.4g} to {high:.4g}")
        grey.thumbnail((at_most, at_most), Image.Resampling.BOX)
        values = pil_to_tensor(grey)[None] / white
        if _tag(file, PHOTOMETRIC) == WHITE_IS_ZERO:
            values = 1 - values
        return values.expand(-1, 3, -1, -1), torch.ones_like(values)
    if picture.mode == "1":  # Pillow cannot average pixels of one bit; as RGBA they need four times the memory
        picture = picture.convert("L")
    if picture.mode != "L" or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    picture.thumbnail((at_most, at_most), Image.Resampling.BOX)
    rgba = pil_to_tensor(picture.convert("RGBA"))[None].float() / 255
    return rgba[:, :3], rgba[:, 3:]


BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
WHITE_IS_ZERO, SIGNED = 0, 2  # values of the last two


def _tag(file: Image.Image, number: int) -> int | None:
    """The value of a TIFF's tag; None if the file is no TIFF or has no such tag."""
    value = getattr(file, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) else value


def _white_of(file: Image.Image) -> float:
    """The value of white in a grey picture of mode I, I;16 or F."""
    bits = _tag(file, BITS_PER_SAMPLE) or 16  # a PNG, PGM or JPEG 2000 is read as 16 bits, whatever its depth
    if bits <= 16 and file.mode != "F":
        is_signed = _tag(file, SAMPLE_FORMAT) == SIGNED
        return 2 ** (bits - is_signed) - 1
    # Floating point numbers and 32 bits do not say what white is. Programs write [0, 1], or the values of 8 or 16 bits.
    high = file.convert("F").getextrema()[1]
    for white in (1, 2**8 - 1, 2**16 - 1):
        if high <= white:
            return white
    return 2 ** (31 if _tag(file, SAMPLE_FORMAT) == SIGNED else 32) - 1


# %% The conditions of a file

class Drawing(NamedTuple):
    """A line drawing as an edge map, and by how much the drawing was scaled."""

    edges: Tensor  # (1, 1, 64, 64), 0 or 1
    zoom: float  # 1: as drawn


def edges_from_drawing(path: str | Path) -> Tensor:
    """The edge map (1, 1, 64, 64) of the line drawing in a file; see trace."""
    return trace(*read_image(path), name=str(path)).edges


def edges_from_picture(path: str | Path) -> Tensor:
    """The edge map (1, 1, 64, 64) of the edges that a detector finds in a picture.

    Raises Problem if there are none.
    """
    colours, opacity = read_image(path)
    _check_size(colours, str(path))
    edges = _centre(detect_edges(_resize(_on_paper(colours, opacity), SIZE)))
    if edges.sum() < 4:
        raise Problem(f'"{path}" has no edges, it is of one colour; give a picture that shows something')
    return edges


def palette_from_picture(path: str | Path) -> Tensor:
    """The palette (1, 3, 64, 64) of a picture.

    A wide or high picture is made square in the most frequent colour of its border.
    """
    image = _resize(_on_paper(*read_image(path)), SIZE)
    around = _most_frequent(border(image))[..., None, None]
    inside = _centre(torch.ones_like(image)) > 0
    return palette(torch.where(inside, _centre(image), around))


def _most_frequent(colours: Tensor) -> Tensor:
    """The one (1, 3) of the colours (1, 3, n) around which they lie most densely.

    The median of each channel would be no colour of theirs: that of red, green and blue in equal shares is black.
    """
    points = colours[0].T
    near = torch.cdist(points, points) / 0.1  # the grain of a photograph makes one colour many
    density = (-near.square()).exp().sum(1)
    return points[density.argmax()][None]


def _check_size(colours: Tensor, name: str) -> None:
    """Raise Problem unless a picture (1, 3, h, w) is large enough in both directions to show a shape."""
    h, w = colours.shape[2:]
    if min(h, w) >= SMALLEST:
        return
    if max(h, w) >= 8 * min(h, w):
        long, short = ("wide", "high") if w > h else ("high", "wide")
        raise Problem(f'"{name}" is a strip, {max(h, w) / min(h, w):.0f} times as {long} as {short}; give a picture of'
                      " about a square, with the shape in it")
    raise Problem(f'"{name}" has only {w} x {h} pixels; give a picture with at least {SMALLEST} on each side')


def _on_paper(colours: Tensor, opacity: Tensor) -> Tensor:
    """Put a picture on white paper, or on black paper if the picture itself is light."""
    mean = (colours * opacity).sum() / (3 * opacity.sum())
    paper = float(mean < 0.5)
    return colours * opacity + paper * (1 - opacity)


def _resize(image: Tensor, size: int) -> Tensor:
    """Resize (1, c, h, w) so that its longer side has ``size`` pixels. The other side has at least 2."""
    scale = size / max(image.shape[2:])
    return resize(image, [max(2, round(side * scale)) for side in image.shape[2:]], antialias=True)


def _centre(image: Tensor) -> Tensor:
    """Put (1, c, h, w) in the middle of a square of zeros."""
    return center_crop(image, [max(image.shape[2:])] * 2)


# %% Tracing a line drawing; masks are (1, 1, h, w) bool

SHEET = 256  # the longer side of the drawing that we trace, in pixels
WINDOW = 49  # the paper's tone is averaged over so many pixels
SPECK = 0.2  # a part of the drawing that is smaller than this share of the largest part is dirt
# How far the outlines of the toy world reach from their middle (root mean square, in halves of a picture): what the
# networks follow well. Smaller and larger drawings are scaled.
REACH = 0.38, 0.58


def trace(colours: Tensor, opacity: Tensor, name: str = "the drawing") -> Drawing:
    """Trace a line drawing (1, 3, h, w), dark on light or light on dark, by any pen.

    We promise this for one closed outline on a plain background whose stroke is at most 6 % of the
    picture wide. A drawing that is smaller or larger than the shapes of the toy world is scaled to
    their size. Raises Problem if there is no line, or a filled shape. Its sentence calls the
    drawing ``name``.
    """
    check_images("the colours", colours, channels=[3])
    check_images("the opacity", opacity, channels=[1])
    if len(colours) != 1:
        raise Problem(f"there are {len(colours)} drawings; trace one at a time")
    check_same_shape("the opacity", opacity, "the colours", colours[:, :1])
    _check_size(colours, name)
    tone = _tone(_resize(_on_paper(colours, opacity), SHEET))
    strokes = _without_specks(_centre(_strokes(tone)))
    if _is_filled(_centre(tone), strokes):
        raise Problem(f'"{name}" shows a filled shape and no line drawing; draw one closed outline with a thin pen,'
                      " or use --edge-from for a picture")
    strokes, zoom = _to_known_size(strokes)
    # A pen of 6 % is 4 pixels wide in an edge map, and the networks would follow one of its two sides.
    edges = F.max_pool2d(_thin(strokes).float(), SHEET // SIZE)
    if edges.sum() < 16:
        raise Problem(f'"{name}" shows no line drawing: there is no thin and unbroken stroke on a plain background;'
                      " draw one closed outline, half as wide as the sheet, with a dark pen on white, or use"
                      " --edge-from for a picture")
    return Drawing(edges, zoom)


def _tone(sheet: Tensor) -> Tensor:
    """Reduce a drawing (1, 3, h, w) to one channel (1, 1, h, w) in which strokes are lighter than the paper."""
    # Strokes are few and differ much from the paper, so each channel is skewed towards them. A sign
    # for each channel, and not one for all, is what red ink on an equally bright green needs.
    skew = (sheet - _local_mean(sheet)).pow(3).mean((2, 3), keepdim=True)
    return (sheet * skew.sign()).mean(1, keepdim=True)


def _strokes(tone: Tensor) -> Tensor:
    """Where the tone (1, 1, h, w) of a drawing is that of strokes."""
    # We compare with the paper near by: a photograph has shadows, a gradient of light, dark corners.
    contrast = tone - _local_mean(tone)
    h, w = contrast.shape[2:]
    rim = min(WINDOW // 4, (min(h, w) - 1) // 2)  # here the window is cut off, so that a gradient looks like a stroke
    inside = contrast[..., rim : h - rim, rim : w - rim].flatten()
    strongest = inside.kthvalue(max(1, int(0.998 * len(inside)))).values
    noise = inside.abs().median()
    if strongest < max(6 * noise, 0.003):  # the photograph of a blank sheet, or one colour
        return torch.zeros_like(contrast, dtype=torch.bool)
    strokes = contrast > 0.4 * strongest
    # A scanner's dark margin, or the table beside the paper, goes if anything is left without it.
    frame = F.pad(torch.zeros_like(tone)[..., 1:-1, 1:-1], (1, 1, 1, 1), value=1.0)
    inner = strokes & ~(spread(frame, strokes) > 0)
    if inner.sum() > SHEET / 4 or noise > 0.001:
        return inner
    return strokes  # made on a computer, and its outline touches the border


def _local_mean(image: Tensor, size: int = WINDOW) -> Tensor:
    """The mean of the pixels (1, c, h, w) in a square window around each."""
    rows = F.avg_pool2d(image, (1, size), 1, (0, size // 2), count_include_pad=False)
    return F.avg_pool2d(rows, (size, 1), 1, (size // 2, 0), count_include_pad=False)


def _without_specks(strokes: Tensor) -> Tensor:
    """Remove the parts of (1, 1, 256, 256) that are much smaller than the largest one: dirt, and lines of the paper."""
    coarse = F.max_pool2d(strokes.float(), SHEET // SIZE) > 0
    part = label(coarse)
    size = part.flatten().bincount()
    size[0] = 0
    large = (size >= SPECK * size.max())[part]
    return strokes & (F.interpolate(large.float(), scale_factor=SHEET // SIZE) > 0)


def _is_filled(tone: Tensor, strokes: Tensor) -> bool:
    """Whether strokes (1, 1, h, w) are the border of a filled shape, so that what they surround has their tone."""
    surrounded = torch.ones_like(strokes)
    for side in (2, 3):
        before = strokes.cummax(side).values
        after = strokes.flip(side).cummax(side).values.flip(side)
        surrounded = surrounded & before & after
    wide = _grow(strokes)
    inside = surrounded & ~wide
    outside = _grow(strokes, 31) & ~surrounded & ~wide
    if not inside.any() or not outside.any():
        return False
    line = tone[strokes].median()
    paper = tone[outside].median()
    return bool(tone[inside].median() > 0.4 * paper + 0.6 * line)


def _to_known_size(strokes: Tensor) -> tuple[Tensor, float]:
    """Scale strokes (1, 1, 256, 256) to the size of the toy world's outlines. Returns them and the scale."""
    y, x = strokes[0, 0].nonzero().T
    if len(x) < 2:  # one pixel has no size
        return strokes, 1.0
    points = torch.stack([x, y], 1) + 0.5
    reach = points.var(0, correction=0).sum().sqrt().item() / (SHEET / 2)
    zoom = min(max(1.0, REACH[0] / reach), REACH[1] / reach)
    if zoom == 1:
        return strokes, zoom
    # The outline stays where it is, but inside the sheet and 2 % away from its border.
    low, high = points.amin(0), points.amax(0)
    middle = (low + high) / 2
    room = (0.02 * SHEET + zoom * (high - low) / 2).clamp(max=SHEET / 2)
    target = torch.minimum(torch.maximum(middle, room), SHEET - room)
    left, top = (middle - target / zoom).round().int().tolist()
    side = max(1, round(SHEET / zoom))
    scaled = resized_crop(strokes.float(), top, left, side, side, [SHEET, SHEET], antialias=True)
    return scaled > 0.3, zoom  # below one half, so that a thin stroke does not break


def _thin(strokes: Tensor) -> Tensor:
    """Thin strokes to their middle lines, one pixel wide (Zhang and Suen 1984)."""
    while True:
        before = strokes
        for first in (True, False):
            around = _neighbours(strokes)
            north, _, east, _, south, _, west, _ = around
            count = around.sum(0)
            rises = (~around & around.roll(-1, 0)).sum(0)  # 1: to remove the pixel tears nothing apart
            if first:
                at_border = ~(north & east & south) & ~(east & south & west)
            else:
                at_border = ~(north & east & west) & ~(north & south & west)
            strokes = strokes & ~((count >= 2) & (count <= 6) & (rises == 1) & at_border)
        if torch.equal(strokes, before):
            return strokes


def _neighbours(mask: Tensor) -> Tensor:
    """The eight neighbours (8, 1, h, w) of each pixel of (1, 1, h, w), clockwise from the north."""
    steps = [(0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)]
    return torch.cat([F.pad(mask, (x, -x, y, -y)) for x, y in steps])


def _grow(mask: Tensor, size: int = 3) -> Tensor:
    """The pixels with one of the mask's pixels in the square window around them."""
    return F.max_pool2d(mask.float(), size, stride=1, padding=size // 2) > 0


def label(mask: Tensor) -> Tensor:
    """A number for each connected part of a mask: (1, 1, h, w) integers, 0 outside."""
    return spread(torch.arange(1.0, mask.numel() + 1).view(mask.shape), mask).long()


# %% Hints

MOST_PIECES = 6  # of an outline: the gaps of a pen leave about three, and dashes leave more
STRAY = 0.15  # so much of a line may lie away from the enclosed area: the tips of a star do, and wide strokes
INNER = 0.15  # so much of the lines may lie inside the outline, apart from it: one small eye does no harm


def has_stray_lines(edges: Tensor) -> bool:
    """Whether an edge map (1, 1, 64, 64) has lines away from its closed outline, such as a part of a frame."""
    line = F.pad(edges > 0.5, (3, 3, 3, 3))
    area = label(~_grow(line))
    return _has_stray(line, (area > 0) & (area != area[0, 0, 0, 0]))


def _has_stray(line: Tensor, enclosed: Tensor) -> bool:
    stray = line & ~_grow(enclosed, 11)
    return bool(stray.sum() > STRAY * line.sum())


def hint_about(edges: Tensor) -> str:
    """Why an edge map (1, 1, 64, 64) may not be a single closed outline; "" if it is one.

    A gap of up to 2 pixels counts as closed.
    """
    check_images("the edge maps", edges, channels=[1])
    if len(edges) != 1:
        raise Problem(f"there are {len(edges)} edge maps; give one at a time")
    line = F.pad(edges > 0.5, (3, 3, 3, 3))  # so that the border closes no outline that it cuts
    walls = _grow(line)
    open_places = _grow(~walls, 7)
    if not open_places.all():
        return ("the lines lie too close together to be told apart; draw the outline alone, without hatching, and give"
                " the drawing of a thick pen to --edge and not to --edge-from")
    area = label(~walls)
    outside = area == area[0, 0, 0, 0]
    enclosed = (area > 0) & ~outside
    size = area[enclosed].bincount()
    areas = int((size >= 4).sum())
    if areas == 0:
        return ("the lines enclose nothing, so the pictures may not follow them; close the gaps of the outline, and"
                " draw all of it in one colour on plain paper, with a pen of at most 6 % of the picture")
    if areas > 1:
        return (f"the lines enclose {areas} areas, but the networks know one outline; draw the outline alone, and give"
                " the drawing of a thick pen to --edge and not to --edge-from")
    part = label(line)
    pieces = len(part.unique()) - 1  # 0 is the background
    if pieces > MOST_PIECES:
        return (f"the outline is broken into {pieces} pieces, and the pictures follow such dashes less closely; draw it"
                " in one unbroken line")
    if _has_stray(line, enclosed):
        return ("some lines are not part of the closed outline; is there a frame, a shadow or a table in the picture?")
    outer = part[line & _grow(outside, 5)].unique()
    inner = line & ~torch.isin(part, outer)
    if inner.sum() > INNER * line.sum():
        return ("some lines lie inside the outline, such as eyes or a pattern, but the networks know shapes of one"
                " colour, so the pictures may have holes there; use the outline alone")
    return ""


PEN = 17  # no stroke that we promise to trace is wider, in pixels of the sheet: 6 %, and a pixel of blur on each side
# A part of the drawing is lost if this share of the traced line is a border between two papers, and inverted strokes of
# that length lie beside it. When we chose the two, 65 of 71 drawings with a lost part had both, and 2 of 706 others.
BETWEEN, INVERTED = 0.1, 0.15


def hint_about_papers(colours: Tensor, opacity: Tensor) -> str:
    """Why only a part of a line drawing (1, 3, h, w) may have been traced: the other part is inverted; "" if none is.

    ``trace`` takes strokes that are all darker, or all lighter, than their paper. If half of the drawing is white on
    black, that half is missing, and the border between the two papers may close the other half to a wrong outline.
    """
    check_images("the colours", colours, channels=[3])
    check_images("the opacity", opacity, channels=[1])
    tone = _tone(_resize(_on_paper(colours, opacity), SHEET))
    taken = _without_specks(_centre(_strokes(tone)))
    # A stroke differs from the paper on both of its sides. A border between two papers differs on one side only.
    lighter = _centre(tone - _without_thin(tone))
    darker = _centre(-tone - _without_thin(-tone))
    between_papers = taken & (lighter < _centre(tone - _local_mean(tone)) / 2)
    strokes = taken & ~between_papers
    if between_papers.sum() < BETWEEN * taken.sum() or not strokes.any():
        return ""
    # The rim of a shadow is such a border too, but no strokes are inverted there.
    inverted = (darker > lighter[strokes].median() / 2) & ~_grow(strokes, PEN + 2)  # no gap of two strokes
    if _extent(inverted) < INVERTED * _extent(taken):
        return ""
    return ("a part of the drawing is inverted, such as bright strokes on dark paper beside dark strokes on bright"
            " paper, and only one kind of strokes was taken; draw all of it on one paper, or give a finished edge map"
            " to --edge-map")


def _without_thin(tone: Tensor) -> Tensor:
    """Remove from a tone (1, 1, h, w) what is lighter than the tone on both sides and thinner than a pen's stroke."""
    lowest = -F.max_pool2d(-tone, PEN, stride=1, padding=PEN // 2)
    return F.max_pool2d(lowest, PEN, stride=1, padding=PEN // 2)


def _extent(mask: Tensor) -> int:
    """How many pixels of an edge map a mask (1, 1, 256, 256) touches: about the length of its lines."""
    return int(F.max_pool2d(mask.float(), SHEET // SIZE).sum())


def is_line_drawing(path: str | Path, edges: Tensor) -> bool:
    """Whether a picture, whose detected edges are (1, 1, 64, 64), shows lines and no filled shape.

    A line has an edge on each of its two sides. So there are about twice as many edges as lines, and they are close
    to the lines.
    """
    try:
        lines = trace(*read_image(path)).edges
    except Problem:  # a filled shape, or most photographs
        return False
    near = (edges * _grow(lines, 5)).sum() / edges.sum()
    return bool(near > 0.75 and edges.sum() > 1.3 * lines.sum())
