"""Exercises of lesson 11. Write the functions, then run: python lessons/exercises check"""

import torch

from minicontrolnet.errors import Problem, check_count, check_number

from exercises.probing import Observed, call, exercise

WINDOWS = [(10, 0.0, 1.0), (10, 0.2, 0.5), (25, 0.1, 0.33), (8, 0.25, 0.4), (4, 0.6, 1.0)]


@exercise(
    "11a", 10, "not in the paper", "Control in a part of sampling alone.",
    "minicontrolnet.sampling.control_window",
    hints=(
        "List the steps that have control: those that begin at start or later, and before end.",
        "range(steps) and one condition make this list. Raise Problem if it is empty."),
    hide=("start <= i / steps < end",),
    mistakes={
        "Sampling starts from pure noise. Step 0 is at the share 0, not at 1.":
            ("round(i / steps, 9)", "1 - i / steps"),
        "A step that begins exactly at end has no control any more.": ("< end", "<= end"),
        "A step that begins exactly at start already has control.": ("start <=", "start <"),
        "The second number is the first step after the control, not the last step with control.":
            ("with_control[-1] + 1", "with_control[-1]"),
        "The second number is where control stops, not how many steps have control.":
            ("with_control[-1] + 1", "len(with_control)"),
        "What counts is where a step begins, not where it ends.":
            ("round(i / steps, 9)", "(i + 1) / steps"),
        "The last step begins before the share 1. Divide by steps, not by steps - 1.":
            ("round(i / steps, 9)", "i / (steps - 1)"),
        "int() rounds down, so a step that begins before start gets control.": "int(start * steps), int(end * steps)",
        "A window without any step must raise Problem.":
            ("if not with_control:", "if not with_control:\n        return 0, 0\n    if False:"),
    })
def part_of_sampling(control_window, generator: torch.Generator) -> Observed:
    seen = {}
    for steps, start, end in WINDOWS:
        window = call(control_window, steps, start, end)
        seen[f"first and after of {steps} steps from {start} to {end}"] = list(window)
    try:
        empty = call(control_window, 5, 0.9, 0.95)
    except Problem:
        empty = "Problem"
    return seen | {"result if no step has control": empty}
