"""Functions for the experiments of lesson 10: move a copy to another base, and make an outline with eight corners."""

import copy
import math

import torch
from torch import Tensor

from lesson.styles import erase, pale, pale_batch, unpale  # noqa: F401
from minicontrolnet import ControlNet, UNet, detect_edges, render
from minicontrolnet.shapes import Outline, Scenes

BETWEEN = Outline(4, 0.8, 0.9, math.pi / 4)  # eight corners; a square's notch: 0.71


def moved(control: ControlNet, old: UNet, new: UNet) -> ControlNet:
    """The copy plus the difference between the encoders of the new base and the old one."""
    control = copy.deepcopy(control)
    with torch.no_grad():
        for part in ("embedding", "encoder"):
            three = (getattr(net, part).parameters() for net in (control, old, new))
            for own, before, after in zip(*three, strict=True):
                own += after - before
    return control


def between(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """The edges and mask (1, 1, 64, 64) of an outline that is no shape of the world."""
    one = scenes._replace(shape=torch.zeros(1, dtype=torch.long),
                          centre=torch.zeros(1, 2), radius=torch.tensor([0.65]),
                          angle=torch.zeros(1), aspect=torch.ones(1))
    image, mask = render(one, outlines=[BETWEEN])
    return detect_edges(image), mask
