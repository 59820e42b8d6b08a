"""Exercises of lesson 07. Write the functions; then: python lessons/exercises check"""

import torch
from torch import Tensor

from minicontrolnet.controlnet import Controls

from exercises.probing import Observed, call, exercise, normal


@exercise("07a", 5, "Sec. 3.4, Fig. 6", "Several ControlNets at once.",
          "minicontrolnet.sampling.compose", hints=(
    "Add map by map; any number of ControlNets.",
    "zip(*several) gives the first maps of all, then the second ones."), mistakes={
    "the mean, so each loses strength: only add": ("(maps)", "(maps) / len(maps)"),
    "that keeps the variance: only add": ("(maps)", "(maps) / len(maps) ** 0.5"),
    "a product, 0 silences all: only add": ("sum(maps)", "torch.stack(maps).prod(0)"),
    "not concatenated: only add": ("sum(maps)", "torch.cat(maps, 1)"),
    "that is the maximum: only add": ("sum(maps)", "torch.stack(maps).amax(0)"),
    "the last ControlNet wins and the others are lost": "several[-1]",
    "+ puts tuples one behind the other: add map by map": "sum(several, ())"})
def composing(compose, generator: torch.Generator) -> Observed:
    several = [tuple(normal(generator, 2, 4, h, h) for h in (8, 4, 2)) for _ in "abc"]
    return {"two composed": list(call(compose, *several[:2])),
            "one alone": list(call(compose, several[0])),
            "three composed": list(call(compose, *several))}


@exercise("07b", 5, "Sec. 4.3, Tab. 2", "How well does a shape fill its outline?",
          "minicontrolnet.measure.pictures.mask_iou", hints=(
    "Cut both masks at one half, then count pixels for each picture.",
    "Two empty masks have no union: do not divide by 0."), mistakes={
    "that is recall: a mask that fills the picture would score 1": ("(a | b)", "b"),
    "the masks must be cut at one half first":
        (" > 0.5", "", "(a & b)", "a.minimum(b)", "(a | b)", "a.maximum(b)"),
    "that is the Dice score: IoU divides by the union": "2 * RIGHT / (1 + RIGHT)",
    "that is accuracy: empty ground counts, too": "(a == b).double().mean((1, 2, 3))",
    "the overlap counts twice: the union is a | b": "RIGHT / (1 + RIGHT)",
    "0 / 0: two empty masks have no union": (".clamp(min=1)", ""),
    "two empty masks score 0 here: drawing nothing earns nothing":
        "torch.where((a | b).flatten(1).any(1), RIGHT, 1.0)"})
def overlapping(mask_iou, generator: torch.Generator) -> Observed:
    a, b = normal(generator, 2, 4, 1, 8, 8).sigmoid()
    return {"IoU, one for each picture": call(mask_iou, a, b).float(),
            "of a mask with itself": call(mask_iou, a, a).float(),
            "of two empty masks": call(mask_iou, *torch.zeros(2, 1, 1, 8, 8)).float()}
