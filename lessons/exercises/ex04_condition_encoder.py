"""Exercises of lesson 04_condition_encoder: write each function, then

    python lessons/exercises check 04a
"""

from torch import Tensor, nn

from minicontrolnet.controlnet import zero_conv


# 04a (10 min, Sec. 3.2, Eq. 4): From image space to the UNet's grid.
class ConditionEncoder(nn.Module):
    """E of Eq. 4: from image space to the UNet's first feature map.

    (b, c_in, 2 h, 2 w) in [0, 1] -> (b, c_out, h, w), 0 before training.
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        raise NotImplementedError("write me")

    def forward(self, condition: Tensor) -> Tensor:
        return self.layers(condition)
