"""Exercises of lesson 09. Write the functions, then run: python lessons/exercises check"""

import math
import statistics

import torch
from torch import Tensor

from minicontrolnet.measure.intervals import Paired, numbers, student_t

from exercises.probing import Observed, call, exercise, normal


@exercise(
    "09a", 10, "not in the paper", "How sure is a difference over three seeds?",
    "minicontrolnet.measure.intervals.paired",
    hints=(
        "The interval reaches from the mean by t standard errors to both sides. student_t gives t.",
        "The standard error of the mean is the standard deviation divided by the square root of n."),
    mistakes={
        "1.96 is for many values. For three values, Student's t is 4.30.": ("student_t(len(values) - 1)", "1.96"),
        "n values leave n - 1 degrees of freedom.": ("(len(values) - 1)", "(len(values))"),
        "This is how much single values spread. Their mean spreads less.": (" / math.sqrt(len(values))", ""),
        "Divide the sum of squares by n - 1, because the mean comes from the same values.":
            ("statistics.stdev", "statistics.pstdev"),
        "A difference that is not finite decides nothing, so the interval must be infinite.":
            ("-math.inf, math.nan, math.inf", "0.1, 0.2, 0.3"),
    })
def how_sure(paired, generator: torch.Generator) -> Observed:
    few, many = normal(generator, 3) + 1, normal(generator, 24)
    broken = [1.0, 1.1, math.inf]
    return {"low, mean and high of three values": list(call(paired, few.tolist())),
            "low, mean and high of 24 values": list(call(paired, many)),
            "the verdict if one value is infinite": call(paired, broken).verdict}
