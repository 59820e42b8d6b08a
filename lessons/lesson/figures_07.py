"""The figures of lesson 07."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import enlarge, grid, outlined, styled


@styled
def three_cases(edges: Tensor, sources: dict[str, Tensor], palettes: dict[str, Tensor],
                pictures: dict[tuple[str, str], Tensor]) -> Figure:
    """Show a row for each case: its two conditions, each of them alone, their sum and their mean.

    sources: the pictures that the palettes come from.
    """
    tiles = []
    for i, (case, wanted) in enumerate(palettes.items()):
        edge = edges[[i]].cpu()
        tiles += [enlarge(condition[[i]].cpu(), 4) for condition in (edges, sources[case], wanted)]
        for key in (("same picture", "edges alone"), (case, "palette alone"), (case, "sum"), (case, "mean")):
            tiles.append(outlined(pictures[key][[i]].cpu(), edge, 4))
    return grid(torch.cat(tiles), 7, "The sum follows both conditions, as far as they agree\n(magenta: the outline)",
                ["edges", "picture of\nthe palette", "palette", "edges\nalone", "palette\nalone", "sum", "mean"],
                [case.replace(" ", "\n") for case in palettes])


@styled
def with_a_pose(pose: Tensor, pictures: dict[str, Tensor]) -> Figure:
    """Show poses (n, 1, 64, 64), and below them the pictures of each set of conditions with the poses on top."""
    n = min(6, len(pose))
    rows = [enlarge(pose[:n].cpu(), 4)]
    rows += [outlined(images[:n].cpu(), pose[:n].cpu(), 4) for images in pictures.values()]
    names = [name.replace(" and", "\nand") for name in pictures]
    return grid(torch.cat(rows), n, "The pose decides where the shape is, and partly how it is tilted\n"
                "(magenta: the pose)", [], ["the pose", *names])
