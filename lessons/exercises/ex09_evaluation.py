"""Exercises of lesson 09. Write the functions; then: python lessons/exercises check"""

import math
import statistics

import torch
from torch import Tensor

from minicontrolnet.measure.intervals import Paired, student_t

from exercises.probing import Observed, call, exercise, normal


@exercise("09a", 10, "not in the paper", "How sure is a difference of three seeds?",
          "minicontrolnet.measure.intervals.paired", hints=(
    "The mean, and t times its standard error to both sides; student_t gives t.",
    "The mean's standard error is the standard deviation over the root of n."),
          mistakes={
    "1.96 is for many values: with three, Student's t is 4.30":
        ("student_t(len(values) - 1)", "1.96"),
    "n values leave n - 1 degrees of freedom": ("(len(values) - 1)", "(len(values))"),
    "that is how one value spreads, not their mean": (" / math.sqrt(len(values))", ""),
    "divide the squares by n - 1: the mean was found from the same values":
        ("statistics.stdev", "statistics.pstdev"),
    "a difference that is not finite decides nothing":
        ("-math.inf, math.nan, math.inf", "0.1, 0.2, 0.3")})
def how_sure(paired, generator: torch.Generator) -> Observed:
    few, many = normal(generator, 3) + 1, normal(generator, 24)
    broken = [1.0, 1.1, math.inf]
    return {"low, mean, high of three": list(call(paired, few.tolist())),
            "of 24": list(call(paired, many)),
            "the verdict if one is infinite": call(paired, broken).verdict}
