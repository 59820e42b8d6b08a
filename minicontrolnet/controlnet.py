"""ControlNet: a locked base, a trainable copy of its encoder, and zero convolutions (Sec. 3.1 and 3.2)."""

import copy
import warnings

import torch
from torch import Tensor, nn

from .errors import Problem, check_count, check_input
from .unet import PATCH, UNet

Controls = tuple[Tensor, ...]  # 13 maps, from shallow to deep, with the middle block's last


def lock(module: nn.Module) -> nn.Module:
    """Lock every parameter (Fig. 2's padlock) and return the module.

    Locked does not mean detached: gradients still flow through the module to its inputs.
    """
    if not isinstance(module, nn.Module):
        raise Problem(f"the module is a {type(module).__name__}; give one network at a time, such as lock(base)")
    return module.eval().requires_grad_(False)  # eval() switches off dropout and the like; this network has none


def zero_conv(c: int) -> nn.Conv2d:
    """Z(.; Theta_z) of Eq. 2: a 1x1 convolution whose weight and bias start at 0."""
    check_count("the number of channels", c)
    conv = nn.Conv2d(c, c, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


class ConditionEncoder(nn.Module):
    """E of Eq. 4 maps the condition from image space to the UNet's grid of patches.

    It turns a condition (b, c_in, 64, 64) in [0, 1] into features (b, c_out, 16, 16). It has two of
    the paper's four convolutions, and then a zero convolution, as the authors' code has. So before
    training the features are 0.
    """

    def __init__(self, c_in: int, c_out: int):
        check_count("c_in", c_in)
        check_count("c_out", c_out)
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(c_in, 16, 4, stride=2, padding=1), nn.ReLU(),   # (b, 16, 32, 32)
            nn.Conv2d(16, c_out, 4, stride=2, padding=1), nn.ReLU(),  # (b, c_out, 16, 16)
            zero_conv(c_out),
        )
        for layer in (self.layers[0], self.layers[2]):
            nn.init.kaiming_normal_(layer.weight)  # Gaussian weights, as in Sec. 3.2

    def forward(self, condition: Tensor) -> Tensor:
        check_input("the conditions", condition, self, self.layers[0].in_channels, multiple=PATCH)
        return self.layers(condition)


class OddRange(UserWarning):
    """A ControlNet gets a condition whose values are not in [0, 1]."""


def tell_odd_range(condition: Tensor) -> None:
    """Warn of a condition outside of [0, 1], such as one of bytes. ControlNet.forward calls this at each step.

    It takes about 0.1 % of the ControlNet's time. A GPU would first have to finish all earlier work, so there only
    ``sample`` checks.
    """
    if condition.device.type != "cpu" or torch.compiler.is_compiling():
        return
    low, high = condition.detach().aminmax()
    if not (-1e-2 <= low and high <= 1 + 1e-2):  # also true for nan; bfloat16 rounds to 1 / 256
        warnings.warn(f"the condition has values from {low.item():.4g} to {high.item():.4g}, and ControlNets are"
                      " trained in [0, 1]; bring it there, for example by x / 255 for bytes or (x + 1) / 2 for [-1, 1]",
                      OddRange, stacklevel=5)  # the line that called the network, two calls of torch further up


class ControlNet(nn.Module):
    """The trainable copy and its zero convolutions (Fig. 3b). All 13 controls start at 0 (Eq. 3).

    ``base`` is copied and never changed. The controls have the shapes of the base's skips and of
    its middle block's output, and UNet.forward adds them there. ``c_condition`` is the number of
    channels of the condition: 1 for an edge map, 3 for a palette.
    """

    def __init__(self, base: UNet, c_condition: int = 1):
        check_count("c_condition", c_condition)
        if not hasattr(base, "decoder"):
            raise Problem(f"the base is a {type(base).__name__}; give a UNet, such as load_base() returns")
        super().__init__()
        self.embedding = copy.deepcopy(base.embedding)  # of time and prompt: the encoder's blocks need it
        self.encoder = copy.deepcopy(base.encoder)      # this includes the middle block
        self.requires_grad_(True)  # the copy learns, although the base may be locked
        self.c_condition = c_condition
        self.kind: str | None = None  # the name of its condition, if the weights come from a file
        channels = self.encoder.channels
        self.condition_encoder = ConditionEncoder(c_condition, channels[0])
        self.zero_convs = nn.ModuleList(zero_conv(c) for c in channels)
        like = next(base.parameters())
        self.to(like.device, like.dtype, memory_format=torch.channels_last)

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Controls:
        """xt (b, 3, 64, 64), t (b,), prompt (b, 3), condition (b, c, 64, 64) in [0, 1] -> 13 controls.

        The condition enters once: the encoder adds the features to its first map (Fig. 3b).
        """
        emb = self.embedding(t, prompt)                # (b, 128)
        features = self.condition_encoder(condition)   # (b, 32, 16, 16)
        tell_odd_range(condition)
        maps = self.encoder(xt, emb, features)         # 12 skips and the middle
        return tuple(zero(h) for zero, h in zip(self.zero_convs, maps, strict=True))


# %% The gradients of a zero convolution, by hand


def zero_conv_gradients(x: Tensor, weight: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a 1x1 convolution y = W x + b, by hand: dW (o, i), db (o,), dx (b, i, h, w).

    The arguments are x (b, i, h, w), weight (o, i) and upstream = dL/dy (b, o, h, w). Where W is 0,
    dx is 0. But dW contains x and the upstream gradient, and not W, so it need not be 0. So a zero
    convolution can learn if its input is not 0. Until its weights have moved, it passes no gradient to
    the layers before it. (See the supplement of the paper, and the FAQ of the authors' code.)
    """
    have_dims = x.dim() == 4 and weight.dim() == 2
    if not have_dims or weight.shape[1] != x.shape[1] or upstream.shape != (len(x), len(weight), *x.shape[2:]):
        raise Problem(f"x, weight and upstream have the shapes {tuple(x.shape)}, {tuple(weight.shape)} and"
                      f" {tuple(upstream.shape)}; give (b, i, h, w), (o, i) and (b, o, h, w)")
    dw = torch.einsum("bohw, bihw -> oi", upstream, x)
    db = upstream.sum((0, 2, 3))
    dx = torch.einsum("oi, bohw -> bihw", weight, upstream)
    return dw, db, dx
