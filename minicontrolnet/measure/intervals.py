"""How certain a difference is: paired 95 % intervals by Student's t distribution."""

import math
import statistics
from typing import NamedTuple

import torch
from torch import Tensor


class Paired(NamedTuple):
    """The mean of paired differences and its 95 % interval."""

    low: float
    mean: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval says of the claim that the difference is positive."""
        return "confirmed" if self.low > 0 else "contradicted" if self.high < 0 else "undecided"

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} .. {self.high:+.3f})"


def paired(differences: Tensor | list[float]) -> Paired:
    """Student's 95 % interval of the mean of differences (n,), n at least 2.

    A difference that is not finite makes the whole interval so: such a claim is undecided.
    """
    values = torch.as_tensor(differences, dtype=torch.float64).flatten().tolist()
    if not all(map(math.isfinite, values)):
        return Paired(-math.inf, math.nan, math.inf)
    mean = statistics.fmean(values)
    half = student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Paired(mean - half, mean, mean + half)


def student_t(freedom: int, share: float = 0.95) -> float:
    """The t that holds ``share`` of Student's distribution between -t and t.

    With t = sqrt(freedom) tan(angle) its density becomes cos(angle)^(freedom - 1).
    """
    angle = torch.linspace(0, math.pi / 2, 1_000_001, dtype=torch.float64)
    inside = torch.cumulative_trapezoid(angle.cos() ** (freedom - 1), angle)
    where = int(torch.searchsorted(inside, share * inside[-1]))
    return math.sqrt(freedom) * math.tan(angle[where + 1])
