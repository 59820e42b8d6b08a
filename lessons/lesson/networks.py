"""Networks that lessons and experiments compare with a ControlNet: other encoders of the condition, other copies."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicontrolnet import ConditionEncoder, ControlNet, UNet, to_eps, zero_conv
from minicontrolnet.controlnet import Controls
from minicontrolnet.unet import PATCH

# Three ways from 64x64 pixels to the 16x16 grid without learning. A patch has 4x4 pixels.
SHRINK = {"stacked": nn.PixelUnshuffle(PATCH),  # keeps all 16 pixels of a patch, as channels
          "average": nn.AvgPool2d(PATCH),  # keeps the mean of a patch
          "every fourth": nn.Upsample(scale_factor=1 / PATCH)}  # keeps one pixel of a patch


def encoder(how: str, c: int) -> nn.Module:
    """A condition encoder E of Eq. 4, (b, 1, 64, 64) -> (b, c, 16, 16).

    how: "learned", "shifted" (learned, with moved conditions), or one of SHRINK.

    Behind a fixed shrinking we put a 1x1 conv with a Gaussian start, a ReLU and the zero conv. With
    the zero conv alone, the learned encoder would also have the advantage of more channels.
    """
    if how == "learned":
        return ConditionEncoder(1, c)
    if how == "shifted":
        return nn.Sequential(RandomShift(), ConditionEncoder(1, c))
    lift = nn.Conv2d(PATCH**2 if how == "stacked" else 1, c, 1)
    nn.init.kaiming_normal_(lift.weight)
    return nn.Sequential(SHRINK[how], lift, nn.ReLU(), zero_conv(c))


class RandomShift(nn.Module):
    """Move each condition by up to one patch, so that the lines are right and their place is wrong."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, condition: Tensor) -> Tensor:
        shape = (len(condition), 2)
        shifts = torch.randint(-PATCH, PATCH + 1, shape, generator=self.generator)
        moved = [c.roll(shift, (1, 2)) for c, shift in zip(condition, shifts.tolist())]
        return torch.stack(moved)


def gaussian(base: UNet, std: float | None = None) -> ControlNet:
    """A ControlNet whose zero convs start as N(0, std^2). Without ``std``, the variance is 1 / fan_in."""
    control = ControlNet(base)
    for conv in [*control.zero_convs, control.condition_encoder.layers[-1]]:
        nn.init.normal_(conv.weight, std=std or conv.in_channels**-0.5)
    return control


class ConditionedUNet(nn.Module):
    """A rival of ControlNet: a UNet that takes the condition itself. All of its weights are trained.

    It is a copy of ``base`` with a condition encoder. The condition enters after the first
    convolution, as it does in a ControlNet.
    """

    def __init__(self, base: UNet, c_condition: int = 1):
        super().__init__()
        self.unet = copy.deepcopy(base).requires_grad_(True)
        self.prediction_type = base.prediction_type
        self.condition_encoder = ConditionEncoder(c_condition, base.encoder.channels[0])

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Tensor:
        emb = self.unet.embedding(t, prompt)          # (b, 128)
        features = self.condition_encoder(condition)  # (b, 32, 16, 16)
        *skips, middle = self.unet.encoder(xt, emb, features)
        output = self.unet.decoder(middle, skips, emb)  # (b, 3, 64, 64)
        return to_eps(output, xt, t, self.prediction_type)


class Lite(nn.Module):
    """ControlNet-lite (Fig. 8c): one convolution in place of each copied block."""

    def __init__(self, base: UNet):
        super().__init__()
        channels = base.encoder.channels
        convs = [nn.Conv2d(3 * PATCH**2, channels[0], 3, padding=1)]
        blocks = [*base.encoder.blocks, base.encoder.middle]
        for c_in, c_out, block in zip(channels[:-1], channels[1:], blocks, strict=True):
            halves = isinstance(block, nn.Conv2d)  # a downsampling
            stride = block.stride if halves else 1
            convs.append(nn.Conv2d(c_in, c_out, 3, stride, padding=1))
        self.convs = nn.ModuleList(convs)
        self.condition_encoder = ConditionEncoder(1, channels[0])
        self.zero_convs = nn.ModuleList(zero_conv(c) for c in channels)
        self.to(memory_format=torch.channels_last)

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor,
                condition: Tensor) -> Controls:
        features = self.condition_encoder(condition)           # (b, 32, 16, 16)
        h = self.convs[0](F.pixel_unshuffle(xt, PATCH))        # (b, 32, 16, 16)
        maps = [F.silu(h + features)]
        for conv in self.convs[1:]:
            maps.append(F.silu(conv(maps[-1])))
        return tuple(zero(h) for zero, h in zip(self.zero_convs, maps, strict=True))
