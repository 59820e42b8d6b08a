"""The figures of lesson 04."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import enlarge, grid, styled


@styled
def recovered(edges: Tensor, maps: dict[str, Tensor], found: dict[str, Tensor], scores: dict[str, float]) -> Figure:
    """For one edge map: the map on the 16x16 grid, where it can be shown, and what was recovered from it."""
    names = ["stacked", "average", "every fourth", "learned"]
    hidden = torch.full_like(edges[:1], 0.5)  # the 32 channels of the learned map are no picture
    shown = [edges[:1], maps["average"][:1], maps["every fourth"][:1], hidden]
    tiles = [enlarge(tile, 64 // tile.shape[-1]) for tile in shown + [found[name][:1] for name in names]]
    return grid(torch.cat(tiles), 4, "Averaging and dropping pixels lose where the line is",
                [f"{name}\nF1 {scores[name]:.2f}" for name in names], ["map", "recovered\nfrom it"])


@styled
def followed(pictures: Tensor, arms: dict[str, dict]) -> Figure:
    """Pictures of the ControlNets of the record, with their outlines, a column for each encoder."""
    columns = pictures.unflatten(0, (len(arms), -1))[:, :3]
    below = []
    for how, arm in arms.items():
        name = how.replace(" ", "\n")
        below.append(f"{name}\nF1 {torch.tensor(arm['F1']).mean():.2f}")
    return grid(columns.transpose(0, 1).flatten(0, 1), len(arms),
                "After 180 steps, ControlNets follow the outline\nonly if their encoder keeps its position",
                below, [])
