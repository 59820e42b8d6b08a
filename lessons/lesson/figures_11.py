"""The figures of lesson 11."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet.draw.figures import captions, enlarge, grid, outlined, styled


@styled
def strengths(edges: Tensor, pictures: dict[str, Tensor], words: Tensor) -> Figure:
    """Three outlines, and the pictures at each strength. The prompt at the left names another shape."""
    return conflict(edges, pictures, words, "The stronger the control, the more the outline wins against the word")


@styled
def windows(edges: Tensor, pictures: dict[str, Tensor], words: Tensor) -> Figure:
    """Three outlines, and the pictures with control in different parts of sampling."""
    return conflict(edges, pictures, words, "Control in the second half alone comes too late for these shapes")


def conflict(edges: Tensor, pictures: dict[str, Tensor], words: Tensor, title: str) -> Figure:
    """A row for each of three outlines, and a column for each way of using them."""
    columns = [enlarge(edges[:3].cpu(), 4)]
    columns += [outlined(images[:3].cpu(), edges[:3].cpu(), 4) for images in pictures.values()]
    below = ["the outline"]
    for name in pictures:
        below.append(name.replace("the first", "the\nfirst").replace("the second", "the\nsecond")
                     .replace("strength ", "strength\n"))
    left = [f"the words:\n{words}" for words in captions(words[:3].cpu())]
    return grid(torch.stack(columns, 1).flatten(0, 1), len(columns), f"{title}\n(magenta: the outline)", below, left)


@styled
def in_a_region(edges: Tensor, nowhere: Tensor, everywhere: Tensor, in_left_half: Tensor, prompt: Tensor) -> Figure:
    """Outlines, and pictures without control, with control everywhere, and in the left half only."""
    n = min(6, len(edges))
    rows = [enlarge(edges[:n].cpu(), 4)]
    rows += [outlined(images[:n].cpu(), edges[:n].cpu(), 4) for images in (nowhere, everywhere, in_left_half)]
    middle = rows[-1].shape[-1] // 2
    rows[-1][..., middle - 1:middle + 1] = 1.0  # a white line at the border of the region
    return grid(torch.cat(rows), n, "Control acts in the left half only, and the right half changes as well\n"
                "(magenta: the outline; white: the border)", captions(prompt[:n].cpu()),
                ["the outline", "no control", "control\neverywhere", "control left\nof the line"])
