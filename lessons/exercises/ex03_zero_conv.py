"""Exercises of lesson 03_zero_conv: write each function, then

    python lessons/exercises check 03a
"""

import torch
from torch import Tensor, nn


# 03a (5 min, Sec. 3.1, Fig. 2b): The 1x1 conv that everything starts from.
def zero_conv(c: int) -> nn.Conv2d:
    """Z(.; Tz) of Eq. 2: a 1x1 conv that starts with weight 0 and bias 0."""
    raise NotImplementedError("write me")


# 03b (10 min, Sec. 3.1, Eq. 2): The three gradients of a 1x1 conv, by hand.
def zero_conv_gradients(x: Tensor, weight: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What backward gives a 1x1 conv y = W x + b, by hand: dW (o, i), db (o,) and dx (b, i, h, w).

    x (b, i, h, w), weight (o, i), upstream = dL/dy (b, o, h, w). Where W is 0, dx is 0 and dW is not:
    a zero conv learns, and lets no gradient through before it has (Sec. 3.1).
    """
    raise NotImplementedError("write me")
