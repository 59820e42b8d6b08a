"""The figure of lesson 04."""

from statistics import fmean

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import enlarge, show, styled


@styled
def read_back_and_followed(edges: Tensor, maps: dict[str, Tensor], read: dict[str, Tensor],
                           exact: dict[str, float], pictures: Tensor, arms: dict[str, dict],
                           steps: int) -> Figure:
    """At the left an outline on the grid and what was read back; at the right what ControlNets drew.

    maps, read: for each encoder, outlines on the grid and read back; exact: their F1.
    pictures (n, 3, 256, 256): four of each arm of the record.
    """
    figure = Figure()
    left, right = figure.subplots(1, 2, width_ratios=[3, 4])
    names = ["learned", "average", "every fourth"]
    tiles = [edges, maps["average"], maps["every fourth"]] + [read[name] for name in names]
    tiles = [enlarge(tile[:1], 64 // tile.shape[-1]) for tile in tiles]
    show(left, torch.cat(tiles), 3, "One outline, on the grid and read back",
         [f"{name}\nF1 {exact[name]:.2f}" for name in names], ["map", "read\nback"])
    below = [f"{name.split()[-1]}\n{fmean(arm['F1']):.2f}" for name, arm in arms.items()]
    columns = pictures.unflatten(0, (len(arms), -1)).transpose(0, 1).flatten(0, 1)
    show(right, columns, len(arms), f"Drawn by ControlNets after {steps} steps (edge F1)", below)
    return figure
