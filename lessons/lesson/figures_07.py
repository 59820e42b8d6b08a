"""The figure of lesson 07."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import enlarge, grid, outlined, styled


@styled
def cases(edges: Tensor, palettes: dict[str, Tensor], pictures: dict[str, Tensor], iou: float,
          error: float) -> Figure:
    """A row for each case: its two conditions, each alone, their sum and their mean.

    iou, error: the mask IoU and the palette error of the sum, where both conditions agree.
    """
    names = ["agreeing", "recoloured", "recoloured", "conflicting"]
    tiles = []
    for i, case in enumerate(names):
        arms = ["edge alone", f"{case}: palette alone", f"{case}: sum", f"{case}: mean"]
        tiles += [enlarge(edges[[i]], 4), enlarge(palettes[case][[i]], 4)]
        tiles += [outlined(pictures[arm][[i]], edges[[i]], 4) for arm in arms]
    return grid(torch.cat(tiles), 6,
                f"Sum, where both agree: IoU {iou:.2f}, palette error {error:.3f}, n = {len(edges)}",
                ["edges", "palette", "edge alone", "palette alone", "sum", "mean"], names)
