"""How certain a difference is: paired 95 % intervals by Student's t distribution."""

import math
import statistics
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import Problem, check_count, check_number


class Paired(NamedTuple):
    """The mean of paired differences, with its 95 % interval."""

    low: float
    mean: float
    high: float

    @property
    def verdict(self) -> str:
        """The verdict on the claim that the difference is positive."""
        if self.low > 0:
            return "shown"
        return "contradicted" if self.high < 0 else "undecided"

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} .. {self.high:+.3f})"


def paired(differences: Tensor | list[float]) -> Paired:
    """Student's 95 % interval for the mean of differences (n,), where n is at least 2.

    If one difference is not finite, the interval is infinite and the claim is undecided.
    """
    values = torch.as_tensor(differences, dtype=torch.float64).flatten().tolist()
    if len(values) < 2:
        raise Problem(f"the number of differences is {len(values)}; an interval needs at least 2")
    if not all(map(math.isfinite, values)):
        return Paired(-math.inf, math.nan, math.inf)
    mean = statistics.fmean(values)
    half = student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Paired(mean - half, mean, mean + half)


def student_t(freedom: int, share: float = 0.95) -> float:
    """The t for which ``share`` of Student's distribution lies between -t and t.

    We substitute t = sqrt(freedom) tan(angle). The density then becomes cos(angle)^(freedom - 1),
    which we integrate numerically.
    """
    check_count("freedom", freedom)
    check_number("share", share, 0, 1)
    angle = torch.linspace(0, math.pi / 2, 1_000_001, dtype=torch.float64)
    inside = torch.cumulative_trapezoid(angle.cos() ** (freedom - 1), angle)
    where = int(torch.searchsorted(inside, share * inside[-1]))
    return math.sqrt(freedom) * math.tan(angle[where + 1])


def difference(one: list, other: list) -> Paired:
    """The interval of ``one`` minus ``other``, paired by training seed or by picture.

    A list of one number stands for every seed. Lists may be nested, such as pictures within seeds.
    """
    one = torch.as_tensor(one, dtype=torch.float64)
    other = torch.as_tensor(other, dtype=torch.float64)
    if len(one) != len(other) and 1 not in {len(one), len(other)}:
        raise Problem(f"there are {len(one)} and {len(other)} numbers; give as many on both sides, or 1 for all")
    return paired(one - other)


def no_worse(difference: Paired, margin: float) -> str:
    """The verdict on the claim that a difference is not below -margin."""
    check_number("the margin", margin, 0)
    return Paired(*(end + margin for end in difference)).verdict
