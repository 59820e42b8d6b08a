"""Exercises of lesson 11. Write the functions; then: python lessons/exercises check"""

import torch

from minicontrolnet.errors import Problem

from exercises.probing import Observed, call, exercise

WINDOWS = [(10, 0.0, 1.0), (10, 0.2, 0.5), (25, 0.1, 0.33), (8, 0.25, 0.4), (4, 0.6, 1.0)]


@exercise("11a", 10, "not in the paper", "Control in a part of sampling alone.",
          "minicontrolnet.sampling.control_window", hints=(
    "List the steps that have control: those that begin at start or later, and before"
    " end.",
    "range(steps) and a condition make the list; an empty list raises Problem."),
          hide=("start <= i / steps < end",), mistakes={
    "sampling starts at pure noise: step 0 is at the share 0, not at 1":
        ("start <= i / steps < end", "start <= 1 - i / steps < end"),
    "the step that begins exactly at end has no control any more": ("< end", "<= end"),
    "the step that begins exactly at start has control already": ("start <=", "start <"),
    "the second number is the first step without control, not the last one with it":
        ("with_control[-1] + 1", "with_control[-1]"),
    "the second number is a step, not the number of steps":
        ("with_control[-1] + 1", "len(with_control)"),
    "a step counts by where it begins, not by where it ends":
        ("start <= i / steps < end", "start <= (i + 1) / steps < end"),
    "the last step begins before the share 1: divide by steps, not by steps - 1":
        ("start <= i / steps < end", "start <= i / (steps - 1) < end"),
    "a step that begins before start has no control: int() rounds down":
        "int(start * steps), int(end * steps)",
    "a window without a step is the user's mistake: raise Problem":
        ("if not with_control:", "if not with_control:\n        return 0, 0\n    if not 1:")})
def part_of_sampling(control_window, generator: torch.Generator) -> Observed:
    seen = {f"steps of {steps} from {start} to {end}":
            list(call(control_window, steps, start, end)) for steps, start, end in WINDOWS}
    try:
        empty = call(control_window, 5, 0.9, 0.95)
    except Problem:
        empty = "Problem"
    return seen | {"where no step has control": empty}
