"""Exercises of lesson 02_locking: write each function, then

    python lessons/exercises check 02a
"""

import copy

import torch
from torch import Tensor, nn

from minicontrolnet.controlnet import ConditionEncoder, Controls, zero_conv
from minicontrolnet.unet import UNet


# 02a (5 min, Sec. 3.1, Fig. 2): Lock a module for good.
def lock(module: nn.Module) -> nn.Module:
    """Lock every parameter, for good (Fig. 2's padlock); returns the module.

    Locked is not detached: gradients still flow through the module to its inputs.
    """
    raise NotImplementedError("write me")


# 02b (10 min, Sec. 3.1, Fig. 2-3): Bug hunt: this copy trains the base as well.
class ControlNet(nn.Module):
    """The trainable copy and its zero convs: forward(xt, t, prompt, condition) -> controls.

    ``base`` is copied, never changed. ``controls`` are 13 maps with the shapes of the base's
    skips and middle, shallow to deep, middle last; all are 0 before training (Eq. 3).
    """

    def __init__(self, base: UNet, c_condition: int = 1):
        super().__init__()
        self.embedding = base.embedding
        self.encoder = base.encoder
        self.requires_grad_(True)  # the base that was copied may be locked
        channels = self.encoder.channels
        self.condition_encoder = ConditionEncoder(c_condition, channels[0])
        self.zero_convs = nn.ModuleList(zero_conv(c) for c in channels)
        like = next(base.parameters())
        self.to(like.device, like.dtype, memory_format=torch.channels_last)

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Controls:
        emb = self.embedding(t, prompt)
        maps = self.encoder(xt, emb, self.condition_encoder(condition))
        return tuple(zero(h) for zero, h in zip(self.zero_convs, maps, strict=True))
