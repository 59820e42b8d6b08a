"""Exercises of lesson 07. Write the functions, then run: python lessons/exercises check"""

import torch
from torch import Tensor

from minicontrolnet.controlnet import Controls
from minicontrolnet.errors import Problem, check_images, check_tensor

from exercises.probing import Observed, call, exercise, normal


@exercise(
    "07a", 5, "Sec. 3.4, Fig. 6", "Several ControlNets at once.",
    "minicontrolnet.sampling.compose",
    hints=(
        "Add the controls map by map, for any number of ControlNets.",
        "zip(*several) gives the first maps of all ControlNets, then the second ones, and so on."),
    mistakes={
        "This is the mean, so each ControlNet loses strength. Only add.": ("(maps)", "(maps) / len(maps)"),
        "Dividing by the square root keeps the variance, but each ControlNet loses strength. Only add.":
            ("(maps)", "(maps) / len(maps) ** 0.5"),
        "This is the product, so a control of 0 silences all others. Only add.":
            ("sum(maps)", "torch.stack(maps).prod(0)"),
        "Controls are not concatenated. Only add.": ("sum(maps)", "torch.cat(maps, 1)"),
        "This is the maximum. Only add.": ("sum(maps)", "torch.stack(maps).amax(0)"),
        "The last ControlNet wins, and the others are lost.": "several[-1]",
        "+ joins two tuples into a longer one. Add map by map.": "sum(several, ())",
    })
def composing(compose, generator: torch.Generator) -> Observed:
    several = [tuple(normal(generator, 2, 4, h, h) for h in (8, 4, 2)) for _ in "abc"]
    return {"two composed": list(call(compose, *several[:2])),
            "one alone": list(call(compose, several[0])),
            "three composed": list(call(compose, *several))}


@exercise(
    "07b", 5, "Sec. 4.3, Tab. 2", "How well does a shape fill its outline?",
    "minicontrolnet.measure.pictures.mask_iou",
    hints=(
        "Compare both masks with one half, and then count pixels for each picture.",
        "Two empty masks have no union, so take care not to divide by 0."),
    mistakes={
        "This is recall. A mask that fills the whole picture would score 1.": ("(a | b)", "b"),
        "Compare the masks with one half before you count.":
            (" > 0.5", "", "(a & b)", "a.minimum(b)", "(a | b)", "a.maximum(b)"),
        "This is the Dice score. IoU divides by the union.": "2 * RIGHT / (1 + RIGHT)",
        "This is accuracy, which also counts the empty background.": "(a == b).double().mean((1, 2, 3))",
        "The overlap counts twice in your union. The union is a | b.": "RIGHT / (1 + RIGHT)",
        "You divide 0 by 0. Two empty masks have no union.": (".clamp(min=1)", ""),
        "Two empty masks score 0 here, so that an empty picture earns nothing.":
            "torch.where((a | b).flatten(1).any(1), RIGHT, 1.0)",
    })
def overlapping(mask_iou, generator: torch.Generator) -> Observed:
    a, b = normal(generator, 2, 4, 1, 8, 8).sigmoid()
    return {"IoU of each picture": call(mask_iou, a, b).float(),
            "IoU of a mask with itself": call(mask_iou, a, a).float(),
            "IoU of two empty masks": call(mask_iou, *torch.zeros(2, 1, 1, 8, 8)).float()}
