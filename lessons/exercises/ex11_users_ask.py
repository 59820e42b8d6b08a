"""Exercises of lesson 11. Write the functions; then: python lessons/exercises check"""

import torch
from torch import Tensor

from minicontrolnet.diffusion import TIMESTEPS, Model

from exercises.probing import Observed, call, exercise, normal


@exercise("11a", 10, "not in the paper", "Control in a part of sampling alone.",
          "minicontrolnet.sampling.during", hints=(
    "Return a function of xt and t that calls one model or the other.",
    "Sampling begins at t = 999: its share is 1 - t / TIMESTEPS."), mistakes={
    "t runs from 999 to 0: a large t is the beginning":
        ("(TIMESTEPS - 0.5 - t[0].item())", "(t[0].item() + 0.5)"),
    "outside of the span it is the other model's turn":
        ("else otherwise)", "else model)"),
    "the two models are exchanged": ("(model if", "(otherwise if", "else otherwise",
                                     "else model"),
    "before start it is not its turn yet": ("start <= share < end", "share < end"),
    "from end on its turn is over": ("start <= share < end", "start <= share")})
def in_a_part(during, generator: torch.Generator) -> Observed:
    names, xt = {1: "with control", -1: "without"}, normal(generator, 2, 3, 4, 4)
    either = call(during, lambda xt, t: xt + 1, lambda xt, t: xt - 1, 0.25, 0.6)
    seen = {}
    for t in (999, 800, 700, 500, 300, 200, 0):
        change = (call(either, xt, torch.tensor([t, t])) - xt).mean().round().item()
        seen[f"at t = {t}"] = names.get(int(change), f"changed by {change}")
    return seen
