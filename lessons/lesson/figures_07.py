"""The figures of lesson 07."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import enlarge, grid, outlined, styled


@styled
def three_cases(edges: Tensor, palettes: dict[str, Tensor], pictures: dict[str, Tensor]) -> Figure:
    """Show a row for each case: its two conditions, each of them alone, their sum and their mean."""
    tiles = []
    for i, (case, wanted) in enumerate(palettes.items()):
        edge = edges[[i]].cpu()
        tiles += [enlarge(edge, 4), enlarge(wanted[[i]].cpu(), 4)]
        for name in ("edges alone", f"{case}, palette alone", f"{case}, sum", f"{case}, mean"):
            tiles.append(outlined(pictures[name][[i]].cpu(), edge, 4))
    return grid(torch.cat(tiles), 6, "The sum follows both conditions, as far as they agree",
                ["edges", "palette", "edges\nalone", "palette\nalone", "sum", "mean"],
                [case.replace(" ", "\n") for case in palettes])


@styled
def with_a_pose(pose: Tensor, pictures: dict[str, Tensor]) -> Figure:
    """Show poses (n, 1, 64, 64), and below them the pictures of each set of conditions with the poses on top."""
    n = min(6, len(pose))
    rows = [enlarge(pose[:n].cpu(), 4)]
    rows += [outlined(images[:n].cpu(), pose[:n].cpu(), 4) for images in pictures.values()]
    names = [name.replace(" and", "\nand") for name in pictures]
    return grid(torch.cat(rows), n, "The pose decides where the shape is,\nand mostly how it is tilted", [],
                ["the pose", *names])
