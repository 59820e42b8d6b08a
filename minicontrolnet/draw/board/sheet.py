"""From a drawing to the maps that the ControlNets see: edges, palette, pose and region.

The page knows its strokes, so no drawing is traced here: each stroke becomes a line of one pixel on
the 64 x 64 grid. That takes 1 ms, where tracing a picture of the strokes takes 100 to 300 ms.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from ...conditions import spread, stick_figure
from ...shapes import COLOURS, DARK, SIZE
from ..drawings import has_stray_lines, label
from .asked import Asked, Point, Stroke

ERASER, BRUSH = 5, 11  # widths in pixels of the 64 x 64 grid; the brush paints the region
MARGIN = 4  # pixels around the sheet, so that a drawing may touch its border
FEWEST = 8  # pixels of an edge map that counts as a drawing
NARROWEST = 0.25  # as the next line; the networks know 0.38 and more, and stray from the outline below this
WIDEST = 0.58  # of half a picture: how far, as a root mean square, the pixels of an outline may be from their mean
HUES = (torch.tensor(list(COLOURS.values())) * 255).round().byte()


class Place(NamedTuple):
    """Where the sheet lies in the picture: u of the sheet becomes (zoom * u + shift) of the picture."""

    zoom: float = 1.0
    shift: Point = (0.0, 0.0)


class Seen(NamedTuple):
    """The conditions that the ControlNets see."""

    conditions: dict[str, Tensor]  # "edge", "palette" and "pose", each (1, c, 64, 64)
    region: Tensor | None  # (1, 1, 64, 64), 1 where control acts; None is everywhere
    zoom: float  # of the drawing; below 1 it was larger than the shapes that the networks know


def see(asked: Asked) -> Seen:
    """The conditions of a drawing, for the ControlNets that are switched on."""
    place = place_of(asked)
    edges = edge_map(asked, place)
    conditions = {}
    if "edge" in asked.kinds and edges.sum() >= FEWEST:
        conditions["edge"] = outer_outline(edges) if asked.outer else edges
    colours = palette_map(asked)
    if "palette" in asked.kinds and colours is not None:
        conditions["palette"] = colours
    if "pose" in asked.kinds and asked.pose is not None:
        conditions["pose"] = stick_figure(*torch.tensor(asked.pose).view(2, 1, 2) * 2 / SIZE - 1)
    return Seen(conditions, region_map(asked, place), place.zoom)


def edge_map(asked: Asked, place: Place = Place()) -> Tensor:
    """The pen's strokes as lines of one pixel (1, 1, 64, 64), without the parts that were erased."""
    image = _paper(asked)
    for stroke in asked.strokes:
        if stroke.tool == "pen":
            _draw(image, stroke, 1, 255, place)
        elif stroke.tool == "eraser":
            _draw(image, stroke, ERASER * place.zoom, 0, place)
    return pil_to_tensor(image)[None] / 255


def region_map(asked: Asked, place: Place = Place()) -> Tensor | None:
    """The painted region (1, 1, 64, 64). It is None if nothing is painted, and then control acts everywhere."""
    image = Image.new("L", (SIZE, SIZE))
    for stroke in asked.strokes:
        if stroke.tool in ("region", "outside"):
            _draw(image, stroke, BRUSH * place.zoom, 255 if stroke.tool == "region" else 0, place)
    region = pil_to_tensor(image)[None] / 255
    return region if region.any() else None


def palette_map(asked: Asked) -> Tensor | None:
    """The palette's 4 x 4 cells (1, 3, 64, 64), or None if no cell is painted.

    Unpainted cells have the dark background colour.
    """
    if asked.background is None and set(asked.cells) == {None}:
        return None
    background = (DARK * HUES[asked.background or 0]).round().byte()
    cells = torch.stack([background if hue is None else HUES[hue] for hue in asked.cells])
    grid = rearrange(cells, "(y x) c -> 1 c y x", x=4)
    return grid.repeat_interleave(SIZE // 4, 2).repeat_interleave(SIZE // 4, 3) / 255


def place_of(asked: Asked) -> Place:
    """Shrink a drawing that is larger than the shapes of the toy world.

    The networks have seen shapes of some sizes only, and a house as large as the sheet falls apart.
    A small drawing is left as it is. The drawing stays where it is, as long as it fits.
    """
    edges = edge_map(asked)
    inked = (outer_outline(edges) if asked.outer else edges)[0, 0].nonzero()
    if asked.paper or len(inked) < FEWEST:
        return Place()
    points = (inked.flip(1) + 0.5) / SIZE  # x and y, as shares of the sheet
    reach = reach_of(points)
    if reach <= WIDEST:
        return Place()
    zoom = WIDEST / reach
    low, high = points.amin(0), points.amax(0)
    margin = 0.025 + (high - low) * zoom / 2  # the middle has to stay this far from the border
    middle = (low + high) / 2
    shift = middle.maximum(margin).minimum(1 - margin) - middle * zoom
    return Place(zoom, (shift[0].item(), shift[1].item()))


def reach_of(points: Tensor) -> float:
    """How far points (n, 2), as shares of the sheet, are from their mean: the root mean square, in halves of it."""
    return 2 * (points - points.mean(0)).square().sum(1).mean().sqrt().item()


def walls_of(edges: Tensor) -> Tensor:
    """The lines on a sheet with a margin of 4 pixels, so thick that a gap of 2 pixels is closed: (1, 1, 72, 72)."""
    return F.max_pool2d(F.pad(edges, [MARGIN] * 4), 3, stride=1, padding=1)


def outside_of(edges: Tensor) -> Tensor:
    """The part of a sheet that can be reached from its border, with a margin of 4 pixels: (1, 1, 72, 72).

    Gaps of 2 pixels count as closed.
    """
    walls = walls_of(edges)
    corner = torch.zeros_like(walls)
    corner[..., 0, 0] = 1
    return spread(corner, 1 - walls)


def is_closed(edges: Tensor) -> bool:
    """Whether an edge map encloses anything."""
    return not bool((outside_of(edges) + walls_of(edges)).all())


def count_shapes(edges: Tensor) -> int:
    """How many separate shapes the outlines of an edge map enclose; 0 if they are open."""
    around = 1 - outside_of(edges)
    inside = around - walls_of(edges)
    part = label(around > 0)  # lines, and what they enclose
    return len(part[inside > 0].unique())


def outer_outline(edges: Tensor) -> Tensor:
    """Only those lines that border on the outside, or all of them if they enclose nothing.

    The networks have seen shapes of one colour. The door and the windows of a house, or the line
    between its wall and its roof, would confuse them.
    """
    if not is_closed(edges):
        return edges
    beside_outside = F.max_pool2d(outside_of(edges), 5, stride=1, padding=2)
    return edges * beside_outside[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def advice(asked: Asked, seen: Seen) -> str:
    """One sentence for somebody whose drawing the networks may not understand; "" if there is none."""
    edges = seen.conditions.get("edge")
    if edges is None:
        return ""
    shapes = count_shapes(edges)
    if shapes == 0:
        return "The outline is still open. Close it, and the pictures will agree."
    if shapes > 1:
        return "The networks know pictures of one shape. Draw a single outline, and the pictures will agree."
    if has_stray_lines(edges):
        return "Some lines are not part of the closed outline, and the pictures may follow them. Erase them."
    if reach_of((edges[0, 0].nonzero() + 0.5) / SIZE) < NARROWEST:
        return "Your drawing is smaller than the shapes that the networks know. Draw it larger."
    if edges.sum() < 0.95 * edge_map(asked, place_of(asked)).sum():
        return ("The networks know shapes of one colour, so they see the outer line of your drawing only:"
                " a window or a door is left out.")
    if seen.zoom < 0.9:
        return (f"Your drawing is larger than the shapes that the networks know, so they see it at"
                f" {seen.zoom:.0%} of its size.")
    return ""


def drawing(asked: Asked, size: int = 512) -> Image.Image:
    """The sheet in black on white, as a person sees it."""
    image = Image.eval(_paper(asked).resize((size, size)), lambda value: 255 - value)
    pen = ImageDraw.Draw(image)
    for stroke in asked.strokes:
        if stroke.tool in ("pen", "eraser"):
            width = (1 if stroke.tool == "pen" else ERASER) * size // SIZE
            tone = 0 if stroke.tool == "pen" else 255
            points = [(x * size, y * size) for x, y in stroke.points]
            pen.line(points, tone, width, joint="curve")
            for x, y in (points[0], points[-1]):
                pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], tone)
    return image


def as_image(condition: Tensor) -> Image.Image:
    """A condition or a region (1, 1 or 3, 64, 64) as a picture file holds it."""
    return to_pil_image((condition[0] * 255).round().byte())


def paper_bits(edges: Tensor) -> bytes:
    """An edge map (1, 1, 64, 64) as the paper of an ``Asked``."""
    return as_image((edges > 0.5).float()).convert("1", dither=Image.Dither.NONE).tobytes()


def _paper(asked: Asked) -> Image.Image:
    if not asked.paper:
        return Image.new("L", (SIZE, SIZE))
    return Image.frombytes("1", (SIZE, SIZE), asked.paper).convert("L")


def _draw(image: Image.Image, stroke: Stroke, width: float, tone: int, place: Place) -> None:
    """Draw a stroke on the 64 x 64 grid. A point belongs to the pixel that it lies in."""
    (zoom, (right, down)), pen = place, ImageDraw.Draw(image)
    points = [(zoom * x + right, zoom * y + down) for x, y in stroke.points]
    if width <= 1:
        pixels = [(math.floor(x * SIZE), math.floor(y * SIZE)) for x, y in points]
        pen.line([*pixels, pixels[-1]], tone, 1)  # the last pixel again, because a line needs two
        return
    centres = [(x * SIZE - 0.5, y * SIZE - 0.5) for x, y in points]
    pen.line([*centres, centres[-1]], tone, round(width), joint="curve")
    for x, y in (centres[0], centres[-1]):
        pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], tone)
