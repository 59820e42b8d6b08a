"""How certain a difference is: paired 95 % intervals by Student's t distribution."""

import math
import statistics
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import Problem, check_count, check_number, shorten


class Paired(NamedTuple):
    """The mean of paired differences, with its 95 % interval."""

    low: float
    mean: float
    high: float

    @property
    def verdict(self) -> str:
        """The verdict on the claim that the difference is positive."""
        if not self.low <= self.high or self.mean < self.low or self.mean > self.high:  # the mean may be nan
            raise Problem(f"the interval is {tuple(self)}; give low, mean and high in this order")
        if self.low > 0:
            return "shown"
        return "contradicted" if self.high < 0 else "undecided"

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} .. {self.high:+.3f})"


def paired(differences: Tensor | list[float]) -> Paired:
    """Student's 95 % interval for the mean of differences (n,), where n is at least 2.

    The differences must be independent, such as one for each training seed.
    If one difference is not finite, the interval is infinite and the claim is undecided.
    """
    values = numbers(differences, "the differences are").tolist()
    if len(values) < 2:
        raise Problem(f"the number of differences is {len(values)}; an interval needs at least 2")
    if not all(map(math.isfinite, values)):
        return Paired(-math.inf, math.nan, math.inf)
    mean = statistics.fmean(values)
    half = student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Paired(mean - half, mean, mean + half)


def numbers(given: Tensor | list, what_is: str) -> Tensor:
    """A list of numbers as a tensor (n,) of float64. A row of one number is that number.

    Raises Problem for anything else. ``what_is`` begins its sentence.
    """
    if hasattr(given, "filled"):
        raise Problem(f"{what_is} masked; give the values that are left, as x.compressed() returns them")
    try:
        found = torch.as_tensor(given)
        is_real = not found.is_complex() and not found.is_meta and found.dim() > 0
    except (TypeError, ValueError, RuntimeError):
        is_real = False
    if not is_real:
        raise Problem(f"{what_is} {shorten(repr(given))}; give a list of numbers")
    if found.numel() > len(found):
        raise Problem(f"{what_is} of the shape {tuple(found.shape)}; give one number for each independent unit, such as"
                      " the mean over the pictures of each training seed")
    return torch.as_tensor(given, dtype=torch.float64).flatten()


def student_t(freedom: int, share: float = 0.95) -> float:
    """The t for which ``share`` of Student's distribution lies between -t and t.

    We substitute t = sqrt(freedom) tan(angle). The density then becomes cos(angle)^(freedom - 1),
    which we integrate numerically, as far as it is not 0.
    """
    check_count("freedom", freedom)
    check_number("share", share, 0, 1)
    if share == 1:
        return math.inf
    end = min(math.pi / 2, 40 / math.sqrt(freedom))  # beyond t = 40 the density is about exp(-800)
    angle = torch.linspace(0, end, 1_000_001, dtype=torch.float64)
    inside = torch.cumulative_trapezoid(angle.cos() ** (freedom - 1), angle)
    where = int(torch.searchsorted(inside, share * inside[-1]))
    return math.sqrt(freedom) * math.tan(angle[where + 1])


def difference(one: list, other: list) -> Paired:
    """The interval of ``one`` minus ``other``, paired by training seed or by picture.

    A list of one number stands for every seed.
    """
    one = numbers(one, "one side is")
    other = numbers(other, "the other side is")
    if len(one) != len(other) and 1 not in {len(one), len(other)}:
        raise Problem(f"one side has {len(one)} numbers and the other one {len(other)}; give as many on both sides, or"
                      " 1 for all")
    return paired(one - other)


def no_worse(difference: Paired, margin: float) -> str:
    """The verdict on the claim that a difference is not below -margin."""
    check_number("the margin", margin, 0)
    if not isinstance(difference, Paired):
        raise Problem(f"the difference is {difference!r}; give an interval, such as paired or difference returns")
    return Paired(*(end + margin for end in difference)).verdict
