"""ControlNet: a locked base, a trainable copy of its encoder, and zero convs (Sec. 3)."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .diffusion import Model, guide, to_eps
from .errors import Problem
from .unet import UNet

Controls = tuple[Tensor, ...]


def lock(module: nn.Module) -> nn.Module:
    """Lock every parameter, for good (Fig. 2's padlock); returns the module.

    Locked is not detached: gradients still flow through the module to its inputs.
    """
    return module.eval().requires_grad_(False)


def zero_conv(c: int) -> nn.Conv2d:
    """Z(.; Tz) of Eq. 2: a 1x1 conv that starts with weight 0 and bias 0."""
    conv = nn.Conv2d(c, c, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def zero_conv_gradients(x: Tensor, weight: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What backward gives a 1x1 conv y = W x + b, by hand: dW (o, i), db (o,) and dx (b, i, h, w).

    x (b, i, h, w), weight (o, i), upstream = dL/dy (b, o, h, w). Where W is 0, dx is 0 and dW is not:
    a zero conv learns, and lets no gradient through before it has (Sec. 3.1).
    """
    dw = torch.einsum("bohw, bihw -> oi", upstream, x)
    db = upstream.sum((0, 2, 3))
    dx = torch.einsum("oi, bohw -> bihw", weight, upstream)
    return dw, db, dx


class ConditionEncoder(nn.Module):
    """E of Eq. 4: from image space to the UNet's first feature map.

    (b, c_in, 2 h, 2 w) in [0, 1] -> (b, c_out, h, w), 0 before training.
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(c_in, 16, 4, stride=2, padding=1), nn.ReLU(),  # (b, 16, h, w)
            nn.Conv2d(16, c_out, 3, padding=1), nn.ReLU(),  # (b, c_out, h, w)
            zero_conv(c_out),
        )
        for layer in self.layers[:3:2]:
            nn.init.kaiming_normal_(layer.weight)  # Gaussian, as in Sec. 3.2

    def forward(self, condition: Tensor) -> Tensor:
        return self.layers(condition)


class ControlNet(nn.Module):
    """The trainable copy and its zero convs: forward(xt, t, prompt, condition) -> controls.

    ``base`` is copied, never changed. ``controls`` are 13 maps with the shapes of the base's
    skips and middle, shallow to deep, middle last; all are 0 before training (Eq. 3).
    """

    def __init__(self, base: UNet, c_condition: int = 1):
        super().__init__()
        self.embedding = copy.deepcopy(base.embedding)
        self.encoder = copy.deepcopy(base.encoder)
        self.requires_grad_(True)  # the base that was copied may be locked
        channels = self.encoder.channels
        self.condition_encoder = ConditionEncoder(c_condition, channels[0])
        self.zero_convs = nn.ModuleList(zero_conv(c) for c in channels)
        like = next(base.parameters())
        self.to(like.device, like.dtype, memory_format=torch.channels_last)

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Controls:
        """13 controls, one for each map of the copy; the condition enters after its first conv."""
        emb = self.embedding(t, prompt)
        maps = self.encoder(xt, emb, self.condition_encoder(condition))
        return tuple(zero(h) for zero, h in zip(self.zero_convs, maps, strict=True))


class ConditionedUNet(nn.Module):
    """What ControlNet is measured against: a UNet, not locked, that takes the condition itself.

    forward(xt, t, prompt, condition) -> eps. Maps added after the first conv are what concatenating
    the condition to the input gives, since a conv of two stacked inputs is the sum of two convs.
    """

    def __init__(self, base: UNet, c_condition: int = 1):
        super().__init__()
        self.base = copy.deepcopy(base).requires_grad_(True)
        self.condition_encoder = ConditionEncoder(c_condition, base.encoder.channels[0])
        self.predicts = base.predicts

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Tensor:
        emb = self.base.embedding(t, prompt)
        *skips, middle = self.base.encoder(xt, emb, self.condition_encoder(condition))
        return to_eps(self.base.decoder(middle, skips, emb), xt, t, self.predicts)


# %% Using it: controls are plain tuples of 13 maps


def weigh(controls: Controls, weights: float | Sequence[float]) -> Controls:
    """Scale all 13 controls by one number (conditioning_scale) or each by its own (Sec. 3.4)."""
    if not isinstance(weights, Sequence):
        weights = [float(weights)] * len(controls)
    if len(weights) != len(controls):
        raise Problem(f"there are {len(weights)} weights for {len(controls)} controls;"
                      f" give one number or {len(controls)} of them")
    return tuple(control * weight for control, weight in zip(controls, weights))


def paper_weights() -> list[float]:
    """CFG resolution weighting (Sec. 3.4): 64 / h_i there, 32 / h_i on our grids; both are 1 .. 8."""
    grids = [32, 16, 8, 4]
    return [32 / h for h in grids for _ in range(3)] + [32 / grids[-1]]


def released_weights() -> list[float]:
    """What the released code does instead: 0.825 ** (12 - i), from 0.1 (shallow) to 1 (middle)."""
    return [0.825 ** (12 - i) for i in range(13)]


def compose(*several: Controls) -> Controls:
    """Several ControlNets: add their outputs, "no extra weighting" (Sec. 3.4, Fig. 6)."""
    return tuple(sum(maps) for maps in zip(*several, strict=True))


def steer(control: ControlNet, condition: Tensor,
          conditioning_scale: float | Sequence[float] = 1.0) -> Callable[..., Controls]:
    """A ControlNet with its condition and strength: a function (xt, t, prompt) -> controls."""
    return lambda xt, t, prompt: weigh(control(xt, t, prompt, condition), conditioning_scale)


def predictor(base: UNet, prompt: Tensor, *steered: Callable[..., Controls]) -> Model:
    """The base with a prompt and any number of steered ControlNets: a model(xt, t) -> eps."""

    def model(xt: Tensor, t: Tensor) -> Tensor:
        controls = compose(*(one(xt, t, prompt) for one in steered)) if steered else None
        return base(xt, t, prompt, controls)

    return model


def guided(base: UNet, prompt: Tensor, guidance_scale: float, *steered: Callable[..., Controls]) -> Model:
    """Classifier-free guidance between the bare base with the empty prompt and ``prompt`` with control.

    Control is in the conditional branch alone, so that guidance strengthens it; in both branches an
    empty prompt would leave guidance nothing to strengthen (Sec. 3.4; lesson 06 measures the choice).
    """
    cond = predictor(base, prompt, *steered)
    if guidance_scale == 1 or not (steered or prompt.any()):
        return cond  # the other branch counts for nothing, or is the same: spare it
    return guide(predictor(base, torch.zeros_like(prompt)), cond, guidance_scale)
