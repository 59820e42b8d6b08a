"""ControlNet: a locked base, a trainable copy of its encoder, and zero convs (Sec. 3.1-3.2)."""

import copy

import torch
from torch import Tensor, nn

from .unet import UNet

Controls = tuple[Tensor, ...]  # 13 maps, shallow to deep, the middle last


def lock(module: nn.Module) -> nn.Module:
    """Lock every parameter, for good (Fig. 2's padlock); returns the module.

    Locked is not detached: gradients still flow through the module to its inputs.
    """
    return module.eval().requires_grad_(False)  # eval() is for dropout and the like; here is none


def zero_conv(c: int) -> nn.Conv2d:
    """Z(.; Tz) of Eq. 2: a 1x1 conv that starts with weight 0 and bias 0."""
    conv = nn.Conv2d(c, c, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


class ConditionEncoder(nn.Module):
    """E of Eq. 4: from image space to the UNet's grid of patches; 0 before training.

    condition (b, c_in, 64, 64) in [0, 1] -> features (b, c_out, 16, 16).
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(c_in, 16, 4, stride=2, padding=1), nn.ReLU(),   # (b, 16, 32, 32)
            nn.Conv2d(16, c_out, 4, stride=2, padding=1), nn.ReLU(),  # (b, c_out, 16, 16)
            zero_conv(c_out),
        )
        for layer in (self.layers[0], self.layers[2]):
            nn.init.kaiming_normal_(layer.weight)  # Gaussian, as in Sec. 3.2

    def forward(self, condition: Tensor) -> Tensor:
        return self.layers(condition)


class ControlNet(nn.Module):
    """The trainable copy and its zero convs (Fig. 3b); all 13 controls start at 0 (Eq. 3).

    ``base`` is copied, never changed. The controls have the shapes of the base's skips and
    middle, to which UNet.forward adds them. ``c_condition``: 1 for an edge map, 3 for a palette.
    """

    def __init__(self, base: UNet, c_condition: int = 1):
        super().__init__()
        self.embedding = copy.deepcopy(base.embedding)  # of time and prompt: the encoder's blocks need it
        self.encoder = copy.deepcopy(base.encoder)      # with the middle block
        self.requires_grad_(True)  # the base that was copied may be locked
        self.c_condition = c_condition
        channels = self.encoder.channels
        self.condition_encoder = ConditionEncoder(c_condition, channels[0])
        self.zero_convs = nn.ModuleList(zero_conv(c) for c in channels)
        like = next(base.parameters())
        self.to(like.device, like.dtype, memory_format=torch.channels_last)

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Controls:
        """The condition enters once: the encoder adds features to its first map (Fig. 3b)."""
        emb = self.embedding(t, prompt)                # (b, 128)
        features = self.condition_encoder(condition)   # (b, 32, 16, 16)
        maps = self.encoder(xt, emb, features)         # 12 skips and the middle
        return tuple(zero(h) for zero, h in zip(self.zero_convs, maps, strict=True))


# %% Beside the paper's figure: gradients by hand, and what ControlNet is measured against


def zero_conv_gradients(
    x: Tensor, weight: Tensor, upstream: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What backward gives a 1x1 conv y = W x + b, by hand: dW (o, i), db (o,), dx (b, i, h, w).

    x (b, i, h, w), weight (o, i), upstream = dL/dy (b, o, h, w). Where W is 0, dx is 0 and dW
    is not: a zero conv learns, and lets no gradient through before it has (Sec. 3.1).
    """
    dw = torch.einsum("bohw, bihw -> oi", upstream, x)
    db = upstream.sum((0, 2, 3))
    dx = torch.einsum("oi, bohw -> bihw", weight, upstream)
    return dw, db, dx


class ConditionedUNet(nn.Module):
    """A UNet, not locked, that takes the condition itself: forward(xt, t, prompt, condition) -> eps.

    Features added after the first conv are what concatenating the condition to the input
    gives, since a conv of two stacked inputs is the sum of two convs.
    """

    def __init__(self, base: UNet, c_condition: int = 1):
        super().__init__()
        self.base = copy.deepcopy(base).requires_grad_(True)
        self.condition_encoder = ConditionEncoder(c_condition, base.encoder.channels[0])
        self.prediction_type = base.prediction_type

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Tensor:
        return self.base(xt, t, prompt, features=self.condition_encoder(condition))
