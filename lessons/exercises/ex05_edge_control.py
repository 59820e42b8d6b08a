"""Exercises of lesson 05_edge_control: write each function, then

    python lessons/exercises check 05a
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minicontrolnet.controlnet import Controls
from minicontrolnet.diffusion import to_eps
from minicontrolnet.shapes import EMPTY


# 05a (10 min, Eq. 2, Fig. 3): Bug hunt: this training runs, and learns nothing.
def ControlNet_forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Controls:
    """13 controls, one for each map of the copy; the condition enters after its first conv."""
    emb = self.embedding(t, prompt)
    maps = self.encoder(xt, emb, self.condition_encoder(condition))
    return tuple(zero(h).detach() for zero, h in zip(reversed(self.zero_convs), maps, strict=True))


# 05b (10 min, Sec. 3.2, Fig. 3): Where the 13 controls enter the base.
def UNet_forward(self, xt: Tensor, t: Tensor, prompt: Tensor,
            controls: tuple[Tensor, ...] | None = None) -> Tensor:
    """Encode, add the controls to the 13 maps, decode; what comes out is read as eps."""
    raise NotImplementedError("write me")


# 05c (10 min, Sec. 3.3): Replace half of the prompts by the empty one.
def drop_words(prompt: Tensor, generator: torch.Generator, whole: float, each: float) -> Tensor:
    """Replace words of prompts (n, 3) by EMPTY: all three with chance ``whole``, else each."""
    raise NotImplementedError("write me")


# 05d (5 min, Sec. 3.3): Does the model use its condition at all?
def shuffle_gap(loss_with: Callable[[Tensor], Tensor], condition: Tensor) -> float:
    """Loss with every condition given to its neighbour, minus the loss with its own.

    ``loss_with`` computes the loss for a condition (n, c, h, w), with the same noise and times
    at each call. Rolling by one leaves no condition in its place. 0: the condition is ignored.
    """
    raise NotImplementedError("write me")
