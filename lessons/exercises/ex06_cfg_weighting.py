"""Exercises of lesson 06_cfg_weighting: write each function, then

    python lessons/exercises check 06a
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minicontrolnet.controlnet import Controls, predictor
from minicontrolnet.diffusion import Model, guide
from minicontrolnet.unet import UNet


# 06a (5 min, Sec. 3.4): The paper's w_i for our 13 connections.
def paper_weights() -> list[float]:
    """CFG resolution weighting (Sec. 3.4): 64 / h_i there, 32 / h_i on our grids; both are 1 .. 8."""
    raise NotImplementedError("write me")


# 06b (5 min, released code, not in the paper): What is 0.825?
def released_weights() -> list[float]:
    """What the released code does instead: 0.825 ** (12 - i), from 0.1 (shallow) to 1 (middle)."""
    raise NotImplementedError("write me")


# 06c (10 min, Sec. 3.4, Fig. 5): Guidance with control in the conditional branch.
def guided(base: UNet, prompt: Tensor, guidance_scale: float, *steered: Callable[..., Controls]) -> Model:
    """Classifier-free guidance between the bare base with the empty prompt and ``prompt`` with control.

    Control is in the conditional branch alone, so that guidance strengthens it; in both branches an
    empty prompt would leave guidance nothing to strengthen (Sec. 3.4; lesson 06 measures the choice).
    """
    raise NotImplementedError("write me")
