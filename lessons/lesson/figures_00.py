"""The figure of lesson 00."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet import Batch, palette
from minicontrolnet.draw.figures import captions, show, styled


@styled
def world_and_outlines(truth: Batch, edges: Tensor, free: Tensor, followed: Tensor,
                       iou: list[float]) -> Figure:
    """The toy world at the left. At the right the same noise without an outline, and with one.

    free, followed: pictures without and with their outlines; iou: the mean mask IoU of both.
    """
    first = [(truth.prompt[:, 1] == shape).nonzero()[:1, 0] for shape in (1, 2, 3, 4)]
    pick = torch.cat(first).cpu()  # one picture of each shape
    figure = Figure()
    left, right = figure.subplots(1, 2, width_ratios=[3, 4])
    world = [truth.image, edges.expand(-1, 3, -1, -1), palette(truth.image)]
    show(left, torch.stack(world, 1)[pick[:3]].flatten(0, 1), 3, "The toy world",
         below=["picture", "edges", "palette"])
    rows = [images[pick].expand(-1, 3, -1, -1) for images in (free, edges, followed)]
    show(right, torch.cat(rows), len(pick),
         f"The outline moves the shape:\nIoU {iou[0]:.2f} to {iou[1]:.2f}, n = {len(free)}",
         captions(truth.prompt[pick], lines=3), ["prompt", "outline", "both"])
    return figure
