"""The figures of lesson 10."""

from statistics import fmean

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet import describe
from minicontrolnet.draw.figures import captions, enlarge, grid, outlined, styled

ERASED = 0.4  # how bright we draw the erased lines, from 0 (black) to 1 (white)


@styled
def on_the_sibling(edges: Tensor, on_base: Tensor, alone: Tensor, guided: Tensor, prompt: Tensor) -> Figure:
    """Pictures of the base and of its pale sibling, with the outlines on top."""
    n = min(6, len(edges))
    rows = [outlined(images[:n].cpu(), edges[:n].cpu(), 4) for images in (on_base, alone, guided)]
    left = ["the base,\nwith its\nControlNet", "the sibling,\nno ControlNet", "the sibling,\nwith the old\nControlNet"]
    return grid(torch.cat(rows), n, "The old ControlNet guides the sibling's shapes, and the style stays pale\n"
                "(magenta: the outline)", captions(prompt[:n].cpu()), left)


@styled
def on_the_stranger(pictures: Tensor, record: dict, prompt: Tensor) -> Figure:
    """Three prompts and their outlines: a column for each base and ControlNet, with its mean IoU below."""
    arms = record["rows of pictures"]
    each = dict(zip(arms, pictures.unflatten(0, (len(arms), -1))))
    below = {"base, its own ControlNet": "our base,\nits ControlNet",
             "stranger, no ControlNet": "stranger,\nno ControlNet",
             "stranger, the base's ControlNet": "stranger, the\nold ControlNet",
             "stranger, the moved ControlNet": "stranger, the\nmoved one",
             "stranger, its own ControlNet": "stranger,\nits own one"}
    n = len(prompt)
    columns = [each[arm][:n] for arm in below]
    texts = []
    for arm, text in below.items():
        texts.append(f"{text}\nIoU {fmean(record['numbers'][arm]['IoU']):.2f}")
    return grid(torch.stack(columns, 1).flatten(0, 1), len(columns),
                "On the stranger, the old ControlNet still helps, and the moved one hardly helps\n"
                "(magenta: the outline; IoU: the mean over 48 pictures)", texts, captions(prompt.cpu()))


@styled
def too_little(edges: Tensor, rest: Tensor, pictures: dict[str, Tensor], prompt: Tensor, wrong: Tensor,
               word_wins: Tensor) -> Figure:
    """Incomplete outlines, and the pictures that were generated for them with different words.

    word_wins (n,): whether the wrong word decides the shape.
    """
    rows = [enlarge((rest + ERASED * (edges - rest)).cpu(), 4)]
    rows += [outlined(images.cpu(), rest.cpu(), 4) for images in pictures.values()]
    below = []
    for right, words, wins in zip(captions(prompt.cpu()), describe(wrong.cpu()), word_wins.tolist()):
        shape = words.split()[1]
        below.append(f"{right}\nwrong: {shape}" + "\n(wins)" * wins)
    return grid(torch.cat(rows), len(rest), "If a part of the outline is missing, a wrong word can decide the shape\n"
                "(magenta: what is left of the outline; \"wins\": by the classifier)", below,
                ["the outline\n(grey: erased)", *(name.replace(" ", "\n", 1) for name in pictures)])
