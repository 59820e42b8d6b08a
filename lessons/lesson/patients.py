"""The seven ill patients of lesson 13. Each of these ControlNets has one bug that is easy to make.

Four of them learn wrongly. Each is a class that differs from ControlNet in one place, and you train it
to see its symptoms. Three have learned well and are used wrongly. There a condition, the order of the
controls or a base is spoilt.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from minicontrolnet import ControlNet, UNet, lock, zero_conv
from minicontrolnet.controlnet import Controls

# %% Patients that learn wrongly


class FrozenCopy(ControlNet):
    """Patient C. The base was locked before it was copied, and nobody unlocked the copy.

    A student project lost weeks to a frozen copy. The condition encoder and the zero convs still
    learn, so the loss falls a little.
    """

    def __init__(self, base: UNet, c_condition: int = 1):
        super().__init__(base, c_condition)
        self.embedding = copy.deepcopy(base.embedding)  # as locked as the base's own
        self.encoder = copy.deepcopy(base.encoder)


class SharedStorage(ControlNet):
    """Patient E. The sign = gives the base's own encoder a second name, where a copy was meant."""

    def __init__(self, base: UNet, c_condition: int = 1):
        super().__init__(base, c_condition)
        self.embedding = base.embedding
        self.encoder = base.encoder
        self.requires_grad_(True)


class Detached(ControlNet):
    """Patient A. A detach() that should have saved memory cuts the copy off from the loss."""

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Controls:
        emb = self.embedding(t, prompt)
        features = self.condition_encoder(condition)
        maps = self.encoder(xt, emb, features)
        return tuple(zero(h.detach()) for zero, h in zip(self.zero_convs, maps, strict=True))


class TwoZeroConvs(ControlNet):
    """Patient D. A second zero conv behind each of the 13, "to be on the safe side"."""

    def __init__(self, base: UNet, c_condition: int = 1):
        super().__init__(base, c_condition)
        pairs = [nn.Sequential(zero, zero_conv(zero.out_channels)) for zero in self.zero_convs]
        self.zero_convs = nn.ModuleList(pairs)


# %% Patients that have learned well and are used wrongly


def inverted(condition: Tensor) -> Tensor:
    """Patient G. Black lines on white paper, where training showed white lines on black."""
    return 1 - condition


class ReversedOrder(nn.Module):
    """Patient H. The decoder reads its skips from deep to shallow, and so somebody hands them over.

    Among maps of one shape a wrong order raises no error.
    """

    def __init__(self, control: ControlNet):
        super().__init__()
        self.control = control

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Controls:
        controls = self.control(xt, t, prompt, condition)
        waiting: dict[torch.Size, list[Tensor]] = {}
        for control in controls:
            waiting.setdefault(control.shape, []).append(control)
        return tuple(waiting[control.shape].pop() for control in controls)


@torch.no_grad()
def other_base(base: UNet) -> UNet:
    """Patient F is used with this base. It generates the same pictures, with its channels in another order.

    The meaning of a channel is an accident of training, so two equally good bases differ in it. We need
    not train a second base to show that. The encoder passes its maps on with the channels in
    reversed order, and everything that reads these maps expects them so. Groups of channels stay
    together, because GroupNorm works on them.
    """
    other = copy.deepcopy(base)
    _reverse_outputs(other.encoder.conv_in)
    middle = other.encoder.middle
    for block in [*other.encoder.blocks, middle.block1, middle.attention, middle.block2]:
        for layer in _readers(block):
            _reverse_inputs(layer)
        for layer in _writers(block):
            _reverse_outputs(layer)
    skips = reversed(other.encoder.channels[:-1])
    blocks = [block for level in other.decoder.levels for block in level]
    for block, skip in zip(blocks, skips, strict=True):
        for layer in _readers(block):
            _reverse_inputs(layer, last=skip)  # a block of the decoder reads its skip behind its own map
    for layer in _readers(blocks[0]):
        _reverse_inputs(layer, first=middle.block2.conv2.out_channels)
    return lock(other)


def _readers(block: nn.Module) -> list[nn.Module]:
    """The layers of a block that read the map which the block is given."""
    names = ("norm1", "conv1", "shortcut", "norm", "qkv")
    return [getattr(block, name) for name in names if hasattr(block, name)] or [block]


def _writers(block: nn.Module) -> list[nn.Module]:
    """The layers of a block whose outputs are added up to the map which the block returns."""
    return [getattr(block, name) for name in ("conv2", "shortcut", "out") if hasattr(block, name)] or [block]


def _reverse_outputs(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.copy_(parameter.flip(0))


def _reverse_inputs(layer: nn.Module, first: int | None = None, last: int | None = None) -> None:
    """Reverse the input channels of a convolution or a normalisation, or only its first or last ones."""
    channels = slice(None, first) if last is None else slice(-last, None)
    for parameter in layer.parameters():
        if parameter.dim() == 4:
            parameter[:, channels] = parameter[:, channels].flip(1)
        elif isinstance(layer, nn.GroupNorm):
            parameter[channels] = parameter[channels].flip(0)


# %% The waiting room, in an order that gives nothing away


class Patient(NamedTuple):
    """A base, a ControlNet, and how its owner prepares a condition for it."""

    base: UNet
    control: nn.Module
    prepare: Callable[[Tensor], Tensor]


def as_it_is(condition: Tensor) -> Tensor:
    return condition


IN_TRAINING = {"A": Detached, "B": ControlNet, "C": FrozenCopy, "D": TwoZeroConvs, "E": SharedStorage}

# The doctor should find these. B is healthy, but its short training may not be enough to tell.
BUGS = {"A": "detached control", "B": "", "C": "frozen copy", "D": "two zero convs in a row",
        "E": "shared storage", "F": "another base", "G": "inverted condition", "H": "reversed controls"}


def used_wrongly(base: UNet, control: ControlNet) -> dict[str, Patient]:
    """Three owners of the same trained ControlNet, who each make one mistake."""
    return {"F": Patient(other_base(base), control, as_it_is),
            "G": Patient(base, control, inverted),
            "H": Patient(base, ReversedOrder(control), as_it_is)}
