"""Exercises of lesson 04. Write the functions, then run: python lessons/exercises check"""

import torch
from torch import Tensor, nn

from minicontrolnet.controlnet import zero_conv
from minicontrolnet.errors import check_count, check_input
from minicontrolnet.unet import PATCH

from exercises.probing import Observed, call, exercise, normal, reached_from


@exercise(
    "04a", 10, "Sec. 3.2, Eq. 4", "From image space to the UNet's grid.",
    "minicontrolnet.controlnet.ConditionEncoder",
    hints=(
        "A stride of 2 halves the grid, and 64 to 16 needs two of them. A zero conv comes last.",
        "self.layers holds 4x4 convs of stride 2 to 16 and to c_out channels, each with a ReLU, and a zero conv."),
    remarks={
        "layers": "Your encoder is right, but the shipped weights only fit the layers of the second hint."},
    mistakes={
        "The output is as large as the image. You need two convs of stride 2.": ("4, stride=2", "3, stride=1"),
        "Without a zero conv the features disturb the copy before training.": ("zero_conv(c_out),", ""),
        "Two layers of zeros in a row never learn. Only the last one may start at 0.": ("kaiming_normal_", "zeros_"),
        "No gradient passes a ReLU whose input is 0. Nothing may follow the zero conv.":
            ("conv(c_out)", "conv(c_out), nn.ReLU()"),
        "Without a ReLU between them, several convs are one linear map (Sec. 3.2).": (", nn.ReLU()", ""),
        "The paper halves the grid four times. Here it is two times.": ("zero", "nn.AvgPool2d(4), zero"),
        "The border of the picture is lost. A 4x4 conv of stride 2 needs padding=1.": (", padding=1", ""),
    })
def encoding(build, generator: torch.Generator) -> Observed:
    encoder, condition = call(build, 3, 32).double(), normal(generator, 2, 3, 32, 32)
    before = call(encoder, condition)
    convs = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    reached = reached_from(before, {"the last conv": convs[-1]}) if convs else "nothing"
    if convs:
        nn.init.constant_(convs[-1].weight, 0.1)
    after, of_mean = encoder(condition), encoder(condition.mean(0, keepdim=True))
    return {"shape for pictures of 32x32": tuple(before.shape),
            "the features before training are 0": not before.any(),
            "later they are the same for all pictures": torch.allclose(after[0], after[1]),
            "a gradient reaches": reached,
            "a linear map": torch.allclose(of_mean[0], after.mean(0)),
            "layers": {name: tuple(p.shape) for name, p in encoder.named_parameters()}}
