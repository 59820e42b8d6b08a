"""The figures of lesson 06."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import captions, enlarge, grid, outlined, styled


@styled
def one_branch_or_both(edges: Tensor, both: Tensor, one: dict[float, Tensor]) -> Figure:
    """Show three pictures with control in both branches, and in one branch at several guidance scales."""
    columns = [enlarge(edges[:3].cpu(), 4), outlined(both[:3].cpu(), edges[:3].cpu(), 4)]
    columns += [outlined(images[:3].cpu(), edges[:3].cpu(), 4) for images in one.values()]
    below = ["the outline", "both branches,\nany scale", *(f"one branch,\nscale {scale}" for scale in one)]
    return grid(torch.stack(columns, 1).flatten(0, 1), len(columns),
                "With control in one branch, a large guidance scale spoils the colours", below, [])


@styled
def harm_by_scale(harm: dict[str, dict[float, float]], both: float) -> Figure:
    """Plot the share of pixels off the palette at each guidance scale, for several weights of the connections.

    both: that share with control in both branches.
    """
    figure = Figure()
    axes = figure.subplots()
    for name, shares in harm.items():
        axes.plot(list(shares), [100 * share for share in shares.values()], "o-", label=name)
    axes.axhline(100 * both, color="0.6", ls="--", label="both branches")
    axes.set(xlabel="guidance scale", ylabel="pixels off the palette in %", ylim=(0, None),
             title="At large scales the paper's weights do harm,\nand the same weights divided by 8 help",
             xticks=list(next(iter(harm.values()))))
    axes.legend()
    return figure


@styled
def who_wins(edges: Tensor, words: Tensor, pictures: dict[str, Tensor]) -> Figure:
    """Show what each set of grids gives if the prompt (n, 3) names another shape than the outline shows."""
    n = min(6, len(edges))
    rows = [enlarge(edges[:n].cpu(), 4)]
    rows += [outlined(images[:n].cpu(), edges[:n].cpu(), 4) for images in pictures.values()]
    title = ("With control on the larger grids, the outline wins;\n"
             "with control on the smaller grids alone, the words win")
    return grid(torch.cat(rows), n, title, captions(words[:n].cpu()), ["the outline", *pictures])
