"""Figures that can be projected in a lecture hall: grids of pictures, tables as heat maps, captions.

Every function that makes or saves a figure is ``styled``: it starts from matplotlib's own
defaults, whatever the user's settings are, and leaves those settings as they were. Nothing here
uses pyplot, so no window toolkit is needed.
"""

import io
import math
import os
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..errors import Problem, check_count, check_images
from ..shapes import describe

try:
    import matplotlib.style
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
except UnicodeDecodeError as error:  # a matplotlibrc or a style file; matplotlib has just printed its name
    raise Problem(f"matplotlib cannot read its settings ({error}); save the file that the line above names as UTF-8,"
                  " or remove it") from error
except OSError as error:
    raise Problem(f"matplotlib cannot start ({error}); make this file readable, or remove it") from error
except ValueError as error:
    backend = os.environ.get("MPLBACKEND")  # it may name a backend that does not exist
    advice = "correct MPLBACKEND or remove it" if backend else "correct matplotlib's settings file, matplotlibrc"
    raise Problem(f"matplotlib cannot start ({error}); {advice}") from error

# 16:9 at 1280 x 720 points of 1/100 inch: 18 point text is 25 pixels high on a 1280-pixel hall screen.
STYLE = {"figure.figsize": (12.8, 7.2), "figure.dpi": 100, "font.size": 18,
         "axes.titlesize": 18, "axes.labelsize": 18, "xtick.labelsize": 16,
         "ytick.labelsize": 16, "legend.fontsize": 16, "lines.linewidth": 3,
         "axes.spines.top": False, "axes.spines.right": False,
         "figure.constrained_layout.use": True}
LINE = 0.5  # threshold for an enlarged edge map: lines are about a pixel wide and unbroken where they are slanted
GAP = 4  # white pixels between the pictures of a grid
Made = TypeVar("Made")


def styled(function: Callable[..., Made]) -> Callable[..., Made]:
    """Run a function under the course's style, on top of matplotlib's defaults."""

    @wraps(function)
    def run(*args: Any, **options: Any) -> Made:
        with matplotlib.style.context(["default", STYLE]):
            return function(*args, **options)

    return run


def show(axes: Axes, images: Tensor, columns: int | None = None, title: str = "",
         below: Sequence[str] = (), left: Sequence[str] = ()) -> None:
    """Show images (n, 1 or 3, h, w) in [0, 1] as a grid. Each pixel is a square.

    ``below`` has a caption for each column, ``left`` one for each row.
    """
    from torchvision.utils import make_grid

    check_images("the images", images, channels=[1, 3])
    columns = columns or len(images)
    check_count("the number of columns", columns)
    rows = math.ceil(len(images) / columns)
    if len(below) not in {0, columns} or len(left) not in {0, rows}:
        raise Problem(f"there are {len(below)} captions below and {len(left)} at the left for {columns} columns and"
                      f" {rows} rows; give one for each column, and one for each row")
    pixels = make_grid(images.detach().cpu(), columns, padding=GAP, pad_value=1.0)
    axes.imshow(rearrange(pixels, "c h w -> h w c").numpy(), interpolation="nearest", origin="upper")
    height, width = images.shape[-2] + GAP, images.shape[-1] + GAP
    axes.set_xticks([width * (i + 0.5) + GAP / 2 for i in range(len(below))], below, parse_math=False)
    axes.set_yticks([height * (i + 0.5) + GAP / 2 for i in range(len(left))], left, parse_math=False)
    axes.tick_params(length=0)
    axes.set_title(title, parse_math=False)  # a dollar is a dollar
    axes.spines[:].set_visible(False)


@styled
def grid(images: Tensor, columns: int, title: str, below: Sequence[str], left: Sequence[str]) -> Figure:
    """A figure that shows only a grid of images (n, 1 or 3, h, w) in [0, 1]; see show.

    Its height follows from the grid, so that there are no wide margins.
    """
    check_images("the images", images, channels=[1, 3])
    check_count("the number of columns", columns)
    rows = math.ceil(len(images) / columns)
    longest = max((len(line) for text in left for line in text.split("\n")), default=0)
    beside = 0.16 * longest + 0.15  # inches for the texts at the left
    cell = min(2.4, (STYLE["figure.figsize"][0] - beside) / columns)
    lines = title.count("\n") + 1 + max((text.count("\n") + 1 for text in below), default=0)
    figure = Figure(figsize=(beside + cell * columns, cell * images.shape[2] / images.shape[3] * rows + 0.34 * lines))
    show(figure.subplots(), images, columns, title, below, left)
    make_room(figure)
    return figure


def make_room(figure: Figure, margin: float = 0.05) -> None:
    """Make a figure taller if its title or its captions do not fit. The margin is in inches.

    matplotlib leaves room for the texts before it fits pictures into their axes. Where the width
    limits the pictures, they then cover a part of this room and push the texts out.
    """
    figure.draw_without_rendering()
    inked = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    missing = max(margin - inked.y0, inked.y1 + margin - height)
    if missing > 0:
        figure.set_size_inches(width, height + 2 * missing)  # half of it goes above and half below


def captions(prompt: Tensor, lines: int = 2) -> list[str]:
    """Prompts (n, 3) as two or three lines of text each, for captions below narrow pictures."""
    if lines not in {2, 3}:
        raise Problem(f"lines is {lines!r}; give 2 or 3")
    two = [words.replace(" on", "\non") for words in describe(prompt)]
    return two if lines == 2 else [words.replace(" ", "\n", 1) for words in two]


def heat(axes: Axes, values: dict[str, list[float | None]], texts: dict[str, list[str]]) -> None:
    """A table with a row for each name. The larger a value, the darker its cell; 0 is white and None is grey.

    The colours go from the smallest positive value of this table to its largest one, on a log scale.
    """
    if {name: len(row) for name, row in values.items()} != {name: len(row) for name, row in texts.items()}:
        raise Problem(f"the rows of values are {', '.join(values)}, and those of texts {', '.join(texts)}; give both"
                      " the same names, and a text for each value")
    found = torch.tensor([value for row in values.values() for value in row if value is not None])
    if not (found.isfinite().all() and (found >= 0).all()):
        raise Problem("a value of the table is negative or not finite; give None for a cell without a value")
    rows = torch.tensor([[value or math.nan for value in row] for row in values.values()])
    darkest = math.log10(found.max()) if found.any() else 0.0
    palest = math.log10(found[found > 0].min()) if found.any() else 0.0
    axes.imshow(rows.log10().numpy(), cmap="YlOrRd", aspect="auto", alpha=0.5, origin="upper", vmax=darkest,
                vmin=palest if palest < darkest else darkest - 1)  # equal values are all dark
    for y, (name, row) in enumerate(values.items()):
        for x, (value, text) in enumerate(zip(row, texts[name])):
            axes.text(x, y, text, ha="center", va="center")
            if value is None:
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color="lightgrey"))
    axes.set_yticks(range(len(rows)), list(values))
    axes.set_xticks(range(rows.shape[1]))


def enlarge(images: Tensor, scale: int) -> Tensor:
    """Enlarge images (n, 1 or 3, h, w) to (n, 3, scale h, scale w). Each pixel becomes a square."""
    check_count("the scale", scale)
    return images.expand(-1, 3, -1, -1).repeat_interleave(scale, -1).repeat_interleave(scale, -2)


def outlined(images: Tensor, edges: Tensor, scale: int = 3) -> Tensor:
    """Enlarge images (n, 3, h, w) and draw edge maps or poses (n, 1, h, w) on them as magenta lines.

    A line is about one pixel of the picture wide, so the picture's own edge stays visible. No
    colour of the toy world looks like magenta.
    """
    check_images("the images", images)
    check_images("the edge maps", edges, channels=[1])
    magenta = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)
    line = F.interpolate(edges, scale_factor=scale, mode="bicubic") > LINE
    return torch.where(line.to(images.device), magenta.to(images), enlarge(images, scale))


@styled
def as_png(figure: Figure, crop: bool = False) -> bytes:
    """The figure as the bytes of a PNG file. ``crop`` removes the margins."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, bbox_inches="tight" if crop else None)
    return file.getvalue()


@styled
def samples(conditions: dict[str, Tensor], pictures: Tensor, columns: int | None = None,
            title: str = "", below: Sequence[str] = (), left: Sequence[str] = ()) -> Figure:
    """A figure with conditions (1, c, 64, 64) on the left and pictures (n, 3, 64, 64) on the right; see show."""
    check_images("the pictures", pictures, channels=[1, 3])
    rows = math.ceil(len(pictures) / columns) if columns else max(1, round(math.sqrt(len(pictures) / 2)))
    columns = columns or math.ceil(len(pictures) / rows)
    widths = [4.0] * len(conditions) + [max(4.0, 2.2 * columns) + (3.5 if left else 0)]
    figure = Figure(figsize=(sum(widths), max(4.5, 2.2 * rows + 0.8)))
    axes = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)
    for ax, (kind, condition) in zip(axes[0], conditions.items()):
        show(ax, condition, title=f"condition: {kind}")
    show(axes[0, -1], pictures, columns, title, below, left)
    make_room(figure)
    return figure
