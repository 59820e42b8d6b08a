"""The one exception that a person is meant to read, and the checks of what public functions are given."""

import os
import re
from collections.abc import Callable, Sequence
from numbers import Integral, Real

import torch
from torch import Tensor, nn


LARGEST = 3.4e38  # about the largest number in float32


class Problem(ValueError):
    """Something that the user can mend. Its text is one sentence: what was given, what is expected, what to do next."""


def advice_on_missing(path: str | os.PathLike) -> str:
    """What to do about a file that does not exist."""
    text = os.fspath(path)
    if re.match(r"[A-Za-z]{2,}:/", text):  # Path makes "http:/" of "http://"
        return "it is an address, so download the file first, and give its name on this machine"
    if text.startswith("~"):
        return "only a shell replaces ~ by your home folder, so write that folder's name"
    return "check the name"


def shorten(text: str, length: int = 60) -> str:
    """The text on one line of at most this length."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."


def _told(value: object, kind: type) -> str:
    """A value for a message, with its type where that is not the one that is meant: a tensor is no number."""
    if value is None or isinstance(value, kind) and not isinstance(value, bool):
        return repr(value)
    return f"{shorten(repr(value))}, a {type(value).__name__}"


def check_count(name: str, value: int, low: int = 1) -> None:
    """Raise Problem unless ``value`` is a whole number of at least ``low``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
        raise Problem(f"{name} is {_told(value, Integral)}; give a whole number of at least {low}")


def check_number(name: str, value: float, low: float = -LARGEST, high: float = LARGEST) -> None:
    """Raise Problem unless ``value`` is a number from ``low`` to ``high``."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and low <= value <= high):  # also true for nan
        wanted = f"number from {low:g} to {high:g}"
        if high == LARGEST:
            wanted = "finite number" if low == -LARGEST else f"finite number of at least {low:g}"
        raise Problem(f"{name} is {_told(value, Real)}; give a {wanted}"
                      + (", such as .item() returns" if isinstance(value, Tensor) else ""))


def check_flag(name: str, value: bool) -> None:
    """Raise Problem unless ``value`` is True or False. A text such as "no" would count as True."""
    if not isinstance(value, bool):
        raise Problem(f"{name} is {shorten(repr(value))}; give True or False")


def check_seed(seed: int) -> None:
    """Raise Problem unless this seed differs from every other one. Of larger ones torch would use the last 32 bits."""
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise Problem(f"the seed is {seed!r}; give a whole number from 0 to {2**32 - 1}, such as 0")


def check_function(name: str, function: Callable, such_as: str) -> None:
    """Raise Problem unless ``function`` can be called. ``such_as`` is an example of one."""
    if not callable(function):
        raise Problem(f"{name} is a {type(function).__name__}; give a function, such as {such_as}")


def check_generator(generator: torch.Generator) -> None:
    """Raise Problem unless ``generator`` is one of torch's. With None, torch would use its global generator."""
    if not isinstance(generator, torch.Generator):
        raise Problem(f"the generator is {generator!r}; give a generator, such as torch.Generator().manual_seed(0)")


def check_device(device: str | torch.device) -> None:
    """Raise Problem unless this machine has the device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise Problem(f"this machine has no device {device!r}; give \"cpu\", or the name of a device that torch"
                      " finds, such as \"cuda\" or \"mps\"") from error


def dtype_name(tensor: Tensor) -> str:
    """The type of a tensor's values, without torch's prefix: "float32" for torch.float32."""
    return str(tensor.dtype).removeprefix("torch.")


def check_tensor(name: str, tensor: Tensor) -> None:
    """Raise Problem unless ``tensor`` is a tensor that holds values. One on the device "meta" holds none."""
    if not isinstance(tensor, Tensor):
        raise Problem(f"{name} are a {type(tensor).__name__}; give a tensor, for example by torch.as_tensor")
    if tensor.is_meta:
        raise Problem(f'{name} are on the device "meta", where tensors have no values; give them on another device')


def check_same_shape(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise Problem unless two tensors have the same shape. Torch would broadcast the smaller one in silence."""
    shapes = [tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__ for given in (tensor, other)]
    if shapes[0] != shapes[1] or not isinstance(tensor, Tensor):
        raise Problem(f"{name} has the shape {shapes[0]} and {other_name} has {shapes[1]}; give two tensors of the"
                      " same shape")


def check_same_type(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise Problem unless two tensors have the same dtype and device. Inside torch.autocast the dtypes may differ."""
    fits = tensor.device == other.device and (tensor.dtype == other.dtype or _in_autocast(other.device.type))
    if not fits:
        raise Problem(f"{name} in {dtype_name(tensor)} on {tensor.device} and {other_name} in {dtype_name(other)} on"
                      f" {other.device} do not fit each other; bring both together by .to()")


def _in_autocast(device: str) -> bool:
    try:
        return torch.is_autocast_enabled(device)
    except RuntimeError:  # a device that has no autocast
        return False


def check_input(name: str, given: Tensor, network: nn.Module, channels: int, multiple: int) -> None:
    """Raise Problem unless ``given`` is (n, channels, h, w) with the network's dtype, on its device.

    h and w must be multiples of ``multiple``. Torch's own words would come from a layer inside.
    """
    if not isinstance(given, Tensor):
        raise Problem(f"{name} are a {type(given).__name__}; give a tensor (n, {channels}, h, w)")
    fits = given.dim() == 4 and len(given) > 0 and given.shape[1] == channels
    if not fits or any(side < 1 or side % multiple for side in given.shape[2:]):
        raise Problem(f"{name} have the shape {tuple(given.shape)}; give at least one of the shape ({channels}, h, w),"
                      f" as (n, {channels}, h, w), where h and w are multiples of {multiple}")
    check_same_type(name, given, "the weights of the network", next(network.parameters()))


def check_images(name: str, images: Tensor, channels: Sequence[int] | None = None) -> None:
    """Raise Problem unless ``images`` is (n, c, h, w), floating point, finite and in [0, 1].

    ``channels``: which c are allowed; any by default. Values may leave [0, 1] by rounding errors.
    """
    check_tensor(name, images)
    if images.dim() != 4 or (channels and images.shape[1] not in channels):
        c = " or ".join(map(str, channels)) if channels else "c"
        raise Problem(f"{name} have the shape {tuple(images.shape)}; give a tensor of the shape (n, {c}, h, w)")
    if not images.is_floating_point():
        raise Problem(f"{name} have the type {dtype_name(images)}; give floating point values in [0, 1],"
                      " for example by x / 255 for bytes")
    if not images.numel():
        raise Problem(f"{name} have the shape {tuple(images.shape)}, so there are none; give at least one picture")
    check_range(name, images)


def check_range(name: str, values: Tensor) -> None:
    """Raise Problem unless the values lie in [0, 1]. They may leave it by rounding errors."""
    if not values.isfinite().all():
        raise Problem(f"{name} have values that are not finite; find out where nan or inf comes from, for example from"
                      " a division by 0")
    low, high = values.detach().aminmax()
    if not (-1e-4 <= low and high <= 1 + 1e-4):
        raise Problem(f"{name} have values from {low.item():.4g} to {high.item():.4g}; bring them to [0, 1],"
                      " for example by x / 255 for bytes or (x + 1) / 2 for [-1, 1]")
