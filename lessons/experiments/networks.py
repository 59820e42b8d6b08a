"""Networks that experiments compare. Those that lessons use as well come from lesson.networks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lesson.networks import ConditionedUNet, encoder, gaussian  # noqa: F401
from minicontrolnet import ConditionEncoder, UNet, zero_conv
from minicontrolnet.controlnet import Controls
from minicontrolnet.unet import PATCH


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
