"""The figures of lesson 04."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import enlarge, grid, styled


RIGHT, WRONG, MISSED = (1.0, 1.0, 1.0), (1.0, 0.6, 0.0), (0.3, 0.5, 1.0)  # white, orange and blue


@styled
def recovered(edges: Tensor, maps: dict[str, Tensor], found: dict[str, Tensor], scores: dict[str, float]) -> Figure:
    """Show one edge map on the 16x16 grid, in each way, and below it what was recovered from it."""
    i = int(edges.sum((1, 2, 3)).argmax())  # the longest outline has the most pixels to recover
    shown = {"learned": four_channels(maps["learned"][i]), "stacked": edges[[i]], "average": maps["average"][[i]],
             "every fourth": maps["every fourth"][[i]]}
    tiles = [enlarge(tile, 64 // tile.shape[-1]) for tile in shown.values()]
    tiles += [right_or_wrong(found[how][[i]], edges[[i]]) for how in shown]
    below = [f"{how}\nF1 {scores[how]:.2f}" for how in shown]
    return grid(torch.cat(tiles), len(shown), "Averaged or dropped pixels do not show exactly where the line was\n"
                "(lower row: white pixels are right, orange wrong, blue missed)", below,
                ["the map\n(of learned:\n4 channels\nof 32)", "recovered\nfrom it"])


def four_channels(features: Tensor) -> Tensor:
    """Show the four channels (32, 16, 16) that vary most, each from black to white, in one tile (1, 1, 32, 32)."""
    most = features.std((1, 2)).topk(4).indices
    channels = features[most]
    low, high = channels.amin((1, 2), keepdim=True), channels.amax((1, 2), keepdim=True)
    channels = (channels - low) / (high - low).clamp(min=1e-6)
    rows = [torch.cat([channels[0], channels[1]], 1), torch.cat([channels[2], channels[3]], 1)]
    return torch.cat(rows)[None, None]


def right_or_wrong(found: Tensor, truth: Tensor) -> Tensor:
    """Colour the pixels of a recovered edge map (1, 1, 64, 64) by whether they are right."""
    picture = torch.zeros(1, 3, 64, 64)
    for colour, where in ((RIGHT, found * truth), (WRONG, found * (1 - truth)), (MISSED, (1 - found) * truth)):
        picture += where * torch.tensor(colour).view(3, 1, 1)
    return picture


@styled
def followed(pictures: Tensor, arms: dict[str, dict]) -> Figure:
    """Show pictures of the ControlNets of the record, with their outlines, in a column for each encoder."""
    columns = pictures.unflatten(0, (len(arms), -1))[:, :3]
    below = [f"{how}\nF1 {torch.tensor(arm['F1']).mean():.2f}" for how, arm in arms.items()]
    return grid(columns.transpose(0, 1).flatten(0, 1), len(arms), "After 180 steps, ControlNets follow the outline"
                " (magenta) best\nif the encoder keeps the position of the line", below, [])
