"""The figure of lesson 06."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import enlarge, outlined, show, styled


@styled
def guidance(edges: Tensor, pictures: dict[str, Tensor], off: dict[str, dict[float, float]],
             real: float, n: int) -> Figure:
    """At the left pictures at guidance 30; at the right the share of burnt pixels at each scale.

    pictures: arm -> pictures at guidance 30. off: arm -> guidance scale -> share of pixels off the
    palette, a mean over n pictures; real: that share in real pictures.
    """
    figure = Figure()
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    columns = [enlarge(edges[:4], 4), *(outlined(images[:4], edges[:4], 4) for images in pictures.values())]
    burnt = [f"{off[arm][30]:.0%}" for arm in ("one branch", "paper, 1 to 8", "paper / 8")]
    show(left, torch.stack(columns, 1).flatten(0, 1), len(columns),
         f"Guidance 30 burns {burnt[0]} of the pixels, the paper's\nweights {burnt[1]}, and divided"
         f" by 8 {burnt[2]} (n = {n})", ["outline", *(arm.replace(" ", "\n", 1) for arm in pictures)])
    for arm, shares in off.items():
        right.plot(list(shares.values()), "o-", label=arm)
    right.axhline(real, color="0.6", ls=":", label="real pictures")
    scales = list(off["one branch"])
    right.set_xticks(range(len(scales)), scales)
    right.set(xlabel="guidance scale", ylabel="share of burnt pixels", ylim=(0, None))
    right.legend(loc="upper left")
    return figure
