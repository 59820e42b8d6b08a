"""Exercises of lesson 04. Write the functions; then: python lessons/exercises check"""

import torch
from torch import Tensor, nn

from minicontrolnet.controlnet import zero_conv

from exercises.probing import Observed, call, exercise, normal, reached_from


@exercise("04a", 10, "Sec. 3.2, Eq. 4", "From image space to the UNet's grid.",
          "minicontrolnet.controlnet.ConditionEncoder", hints=(
    "A stride of 2 halves the grid; 64 to 16 are two halvings; zero_conv comes last.",
    "self.layers: 4x4 convs of stride 2 to 16 and c_out, ReLUs, zero conv."), remarks={
    "layers": "the shipped weights fit those of the second hint alone"}, mistakes={
    "as large as the image: two strides are 2": ("4, stride=2", "3, stride=1"),
    "without zero conv this disturbs an untrained copy": ("zero_conv(c_out),", ""),
    "two zeros in a row never learn: only the last may": ("kaiming_normal_", "zeros_"),
    "no gradient passes a last ReLU at 0": ("conv(c_out)", "conv(c_out), nn.ReLU()"),
    "without ReLU convs in a row are one linear map (Sec. 3.2)": (", nn.ReLU()", ""),
    "the paper halves four times, here it is two": ("zero", "nn.AvgPool2d(4), zero"),
    "the rim gets lost: a 4x4 conv of stride 2 needs padding=1": (", padding=1", "")})
def encoding(build, generator: torch.Generator) -> Observed:
    encoder, condition = call(build, 3, 32).double(), normal(generator, 2, 3, 32, 32)
    before = call(encoder, condition)
    convs = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    reached = reached_from(before, {"the last conv": convs[-1]}) if convs else "nothing"
    if convs:
        nn.init.constant_(convs[-1].weight, 0.1)
    after, of_mean = encoder(condition), encoder(condition.mean(0, keepdim=True))
    return {"shape for pictures of 32x32": tuple(before.shape),
            "features before training are 0": not before.any(),
            "the same for all pictures, later": torch.allclose(after[0], after[1]),
            "a gradient reaches": reached,
            "a linear map": torch.allclose(of_mean[0], after.mean(0)),
            "layers": {name: tuple(p.shape) for name, p in encoder.named_parameters()}}
