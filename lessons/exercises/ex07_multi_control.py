"""Exercises of lesson 07_multi_control: write each function, then

    python lessons/exercises check 07a
"""

import torch
from torch import Tensor

from minicontrolnet.controlnet import Controls


# 07a (5 min, Sec. 3.4, Fig. 6): Several ControlNets at once.
def compose(*several: Controls) -> Controls:
    """Several ControlNets: add their outputs, "no extra weighting" (Sec. 3.4, Fig. 6)."""
    raise NotImplementedError("write me")


# 07b (5 min, Sec. 4.2, Tab. 2): How well does a shape fill its outline?
def mask_iou(mask: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union (n,) of masks (n, 1, h, w), both cut at one half."""
    raise NotImplementedError("write me")
