"""The figures of lesson 02."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import captions, grid, styled

Tests = dict[int, dict[str, Tensor]]  # step -> the images, their IoU and whether they have the right colours


@styled
def paths(results: dict[str, Tests]) -> Figure:
    """Plot each training as a path: how well outlines are followed, and how many colours are still right."""
    figure = Figure()
    axes = figure.subplots()
    for name, by_step in results.items():
        x = [tested["IoU"].mean().item() for tested in by_step.values()]
        y = [100 * tested["right colours"].mean().item() for tested in by_step.values()]
        axes.plot(x, y, "o-", markersize=10, label=name)
        axes.annotate(f"step {max(by_step)}", (x[-1], y[-1]), xytext=(8, 8), textcoords="offset points", size=16)
    axes.set(xlabel="follows the outline (IoU)", ylabel="pictures with both colours right, in %", ylim=(-5, 108),
             title="Fine-tuning learns to follow outlines and forgets colours;\n"
                   "the locked base with its copy forgets nothing")
    axes.legend()
    return figure


@styled
def forgetting(edges: Tensor, results: dict[str, Tests], prompt: Tensor, steps: int) -> Figure:
    """Show what each network generates for new colours and shapes at the end."""
    n = min(6, len(edges))
    rows = {"outline": edges.expand(-1, 3, -1, -1)}
    for name, by_step in results.items():
        rows.setdefault("base, before\ntraining", by_step[0]["images"])
        rows[name.replace(", ", ",\n")] = by_step[steps]["images"]
    tiles = [images[:n].cpu() for images in rows.values()]
    return grid(torch.cat(tiles), n, "The fine-tuned base has forgotten colours; the locked base with its copy has not",
                captions(prompt[:n].cpu()), list(rows))
