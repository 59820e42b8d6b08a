"""The figures of lesson 10."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet import describe
from minicontrolnet.draw.figures import captions, enlarge, grid, outlined, styled

STRANGER = {"B, no control": "no\nControlNet", "B, as it is": "the old\nControlNet",
            "B, difference added": "the moved\nControlNet", "B, its own": "its own\nControlNet"}


@styled
def on_the_sibling(edges: Tensor, pictures: dict[str, Tensor], prompt: Tensor) -> Figure:
    """Pictures of the base and of its pale sibling, with the outlines on top."""
    n = min(6, len(edges))
    rows = [outlined(images[:n].cpu(), edges[:n].cpu(), 4) for images in pictures.values()]
    left = [name.replace(", ", ",\n").replace("sibling alone", "sibling\nalone") for name in pictures]
    return grid(torch.cat(rows), n, "The short fine-tuning has damaged the sibling's shapes,\n"
                "and the old ControlNet still guides them (magenta: the outline)",
                captions(prompt[:n].cpu()), left)


@styled
def on_the_stranger(pictures: Tensor, arms: list[str]) -> Figure:
    """Pictures of the stranger: four columns, a row for each ControlNet, with the outlines on top."""
    each = dict(zip(arms, pictures.unflatten(0, (len(arms), -1))))
    rows = [each[arm] for arm in STRANGER]
    return grid(torch.cat(rows), len(rows[0]), "On a stranger, the old ControlNet still helps,\n"
                "and moving it does harm (magenta: the outline)",
                (), list(STRANGER.values()))


@styled
def too_little(rest: Tensor, pictures: dict[str, Tensor], prompt: Tensor, wrong: Tensor) -> Figure:
    """Incomplete outlines, and the pictures that were generated for them with different words."""
    n = min(6, len(rest))
    rows = [enlarge(rest[:n].cpu(), 4)]
    rows += [outlined(images[:n].cpu(), rest[:n].cpu(), 4) for images in pictures.values()]
    below = []
    for right, words in zip(captions(prompt[:n].cpu()), describe(wrong[:n].cpu())):
        shape = words.split()[1]
        below.append(f"{right}\nwrong: {shape}")
    return grid(torch.cat(rows), n, "If a part of the outline is missing, words begin to matter\n"
                "(magenta: what is left of the outline)", below,
                ["what is left of\nthe outline", *(name.replace(" ", "\n", 1) for name in pictures)])
