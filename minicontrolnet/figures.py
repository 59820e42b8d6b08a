"""Figures that can be projected: grids of pictures, and saving without a half-written file."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from .files import write_atomically
from .shapes import describe

try:
    plt.switch_backend(matplotlib.get_backend())
except ImportError:  # MPLBACKEND names one that cannot be loaded here; files need no window
    plt.switch_backend("agg")

# 16:9 at 1280 x 720 points of 1/100 inch: 18 point text is 25 pixels high on a 1280-pixel hall screen.
plt.rcParams.update({"figure.figsize": (12.8, 7.2), "figure.dpi": 100, "font.size": 18,
                     "axes.titlesize": 18, "axes.labelsize": 18, "xtick.labelsize": 16,
                     "ytick.labelsize": 16, "legend.fontsize": 16, "lines.linewidth": 3,
                     "axes.spines.top": False, "axes.spines.right": False,
                     "figure.constrained_layout.use": True})
LINE = 0.5  # of an enlarged edge map: above it lines are a pixel wide, and unbroken where they are slanted
GAP = 4  # white pixels between the pictures of a grid


def show(axes: plt.Axes, images: Tensor, columns: int | None = None, title: str = "",
         below: Sequence[str] = (), left: Sequence[str] = ()) -> None:
    """Show images (n, 1 or 3, h, w) in [0, 1] as a grid; each pixel is a square.

    ``below``: one caption for each column; ``left``: one for each row.
    """
    columns = columns or len(images)
    pixels = make_grid(images.detach().cpu(), columns, padding=GAP, pad_value=1.0)
    axes.imshow(rearrange(pixels, "c h w -> h w c").numpy(), interpolation="nearest")
    height, width = images.shape[-2] + GAP, images.shape[-1] + GAP
    axes.set_xticks([width * (i + 0.5) + GAP / 2 for i in range(len(below))], below)
    axes.set_yticks([height * (i + 0.5) + GAP / 2 for i in range(len(left))], left)
    axes.tick_params(length=0)
    axes.set_title(title)
    axes.spines[:].set_visible(False)


def grid(images: Tensor, columns: int, title: str, below: Sequence[str], left: Sequence[str]) -> Figure:
    """A figure of nothing but images (n, 1 or 3, h, w) in [0, 1]; see show."""
    figure, axes = plt.subplots()
    show(axes, images, columns, title, below, left)
    return figure


def captions(prompt: Tensor, lines: int = 2) -> list[str]:
    """Prompts (n, 3) as two or three lines each, to stand below narrow pictures."""
    two = [words.replace(" on", "\non") for words in describe(prompt)]
    return two if lines == 2 else [words.replace(" ", "\n", 1) for words in two]


def heat(axes: plt.Axes, values: dict[str, list[float | None]], texts: dict[str, list[str]]) -> None:
    """A table, a row for each name: the larger a value, the darker its cell; 0 is white, None grey."""
    rows = torch.tensor([[value or math.nan for value in row] for row in values.values()])
    axes.imshow(rows.log10().numpy(), cmap="YlOrRd", aspect="auto", alpha=0.5)
    for y, row in enumerate(texts.values()):
        for x, text in enumerate(row):
            axes.text(x, y, text, ha="center", va="center")
            if list(values.values())[y][x] is None:
                axes.add_patch(plt.Rectangle((x - 0.5, y - 0.5), 1, 1, color="lightgrey"))
    axes.set_yticks(range(len(rows)), list(values))
    axes.set_xticks(range(rows.shape[1]))


def enlarge(images: Tensor, scale: int) -> Tensor:
    """Images (n, 1 or 3, h, w) as (n, 3, scale h, scale w), each pixel a square."""
    return images.expand(-1, 3, -1, -1).repeat_interleave(scale, -1).repeat_interleave(scale, -2)


def outlined(images: Tensor, edges: Tensor, scale: int = 3) -> Tensor:
    """Images (n, 3, h, w), ``scale`` times as large, with edge maps (n, 1, h, w) as magenta lines.

    The line is about a pixel of the picture wide, so that the picture's own edge shows beside
    it; magenta is unlike every colour of the toy world.
    """
    magenta = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)
    line = F.interpolate(edges, scale_factor=scale, mode="bicubic") > LINE
    return torch.where(line.to(images.device), magenta.to(images), enlarge(images, scale))


def save(figure: Figure, path: Path, crop: bool = False) -> None:
    """Write a figure as PNG, all or nothing, ``crop``: without margins; in Jupyter it is shown inline, too."""
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=150, bbox_inches="tight" if crop else None)
    if "inline" not in matplotlib.get_backend().lower():
        plt.close(figure)


def save_sample(conditions: dict[str, Tensor], pictures: Tensor, path: Path, columns: int | None = None,
                title: str = "", below: Sequence[str] = (), left: Sequence[str] = ()) -> None:
    """The conditions (1, c, 64, 64) at the left, the pictures (n, 3, 64, 64) at the right; see show."""
    rows = math.ceil(len(pictures) / columns) if columns else max(1, round(math.sqrt(len(pictures) / 2)))
    columns = columns or math.ceil(len(pictures) / rows)
    widths = [4.0] * len(conditions) + [max(4.0, 2.2 * columns) + (3.5 if left else 0)]
    figure, axes = plt.subplots(1, len(widths), figsize=(sum(widths), max(4.5, 2.2 * rows + 0.8)),
                                width_ratios=widths, squeeze=False)
    for ax, (kind, condition) in zip(axes[0], conditions.items()):
        show(ax, condition, title=f"condition: {kind}")
    show(axes[0, -1], pictures, columns, title, below, left)
    save(figure, path, crop=True)
