"""The figures of lesson 04."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import enlarge, grid, styled


@styled
def recovered(edges: Tensor, maps: dict[str, Tensor], found: dict[str, Tensor], scores: dict[str, float]) -> Figure:
    """Show one edge map on the 16x16 grid, where that is possible, and what was recovered from it."""
    names = ["stacked", "average", "every fourth", "learned"]
    hidden = torch.full_like(edges[:1], 0.5)  # the 32 channels of the learned map are no picture
    shown = [edges[:1], maps["average"][:1], maps["every fourth"][:1], hidden]
    tiles = [enlarge(tile, 64 // tile.shape[-1]) for tile in shown + [found[name][:1] for name in names]]
    figure = grid(torch.cat(tiles), 4, "Averaged or dropped pixels do not show exactly where the line was",
                  [f"{name}\nF1 {scores[name]:.2f}" for name in names], ["map", "recovered\nfrom it"])
    figure.axes[0].text(3.5 * 68 + 2, 36, "32 channels,\nwhich are\nno picture", ha="center", va="center")
    return figure


@styled
def followed(pictures: Tensor, arms: dict[str, dict]) -> Figure:
    """Show pictures of the ControlNets of the record, with their outlines, in a column for each encoder."""
    columns = pictures.unflatten(0, (len(arms), -1))[:, :3]
    below = []
    for how, arm in arms.items():
        name = how.replace(" ", "\n")
        below.append(f"{name}\nF1 {torch.tensor(arm['F1']).mean():.2f}")
    return grid(columns.transpose(0, 1).flatten(0, 1), len(arms),
                "After 180 steps, ControlNets follow the outline best\nif the encoder keeps where the line is",
                below, [])
