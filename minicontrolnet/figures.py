"""Figures that can be projected: grids of pictures, and saving without a half-written file."""

import math
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
from einops import rearrange
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from .training import write_atomically

plt.rcParams.update({"font.size": 14, "axes.spines.top": False, "axes.spines.right": False,
                     "figure.constrained_layout.use": True})


def show(axes: plt.Axes, images: Tensor, columns: int | None = None, title: str = "") -> None:
    """Show one or many images (n, 1 or 3, h, w) in [0, 1] as a grid, each pixel a square."""
    grid = make_grid(images.detach().cpu(), columns or len(images), padding=1, pad_value=1.0)
    axes.imshow(rearrange(grid, "c h w -> h w c").numpy(), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=14)
    axes.spines[:].set_visible(False)


def enlarge(images: Tensor, scale: int) -> Tensor:
    """Images (n, 1 or 3, h, w) as (n, 3, scale h, scale w), each pixel a square."""
    return images.expand(-1, 3, -1, -1).repeat_interleave(scale, -1).repeat_interleave(scale, -2)


def outlined(images: Tensor, edges: Tensor, scale: int = 4) -> Tensor:
    """Images (n, 3, h, w) with edge maps (n, 1, 2 h, 2 w) drawn over them, ``scale`` times as large."""
    magenta = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)  # unlike every colour of the toy world
    return torch.where(enlarge(edges, scale // 2) > 0.5, magenta, enlarge(images, scale))


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, all or nothing; in Jupyter it is shown inline, too."""
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=110)
    if "inline" not in matplotlib.get_backend().lower():
        plt.close(figure)


def save_sample(conditions: dict[str, Tensor], pictures: Tensor, prompt: str, path: Path) -> None:
    """The conditions (1, c, 64, 64) at the left, the pictures (n, 3, 32, 32) at the right."""
    rows = max(1, round(math.sqrt(len(pictures) / 2)))
    columns = math.ceil(len(pictures) / rows)
    widths = [4.5] * len(conditions) + [max(4.5, 2.2 * columns)]
    figure, axes = plt.subplots(1, len(widths), figsize=(sum(widths), max(4.5, 2.2 * rows) + 0.5),
                                width_ratios=widths, squeeze=False)
    for ax, (kind, condition) in zip(axes[0], conditions.items()):
        show(ax, condition, title=f"condition: {kind}")
    show(axes[0, -1], pictures, columns, f'prompt: "{prompt}"')
    save(figure, path)
