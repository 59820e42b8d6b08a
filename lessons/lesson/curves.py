"""Curves over training steps: when does a ControlNet begin to follow its condition, and how suddenly?"""

import math

from torch import nn

from minicontrolnet import UNet, loss_of_condition

SHARE = 0.1  # a ControlNet follows once its gap is this share of the base's own loss

# The suddenness of 1 - exp(-step / tau), which is a gradual curve. It reaches 10 % after 0.105 tau
# and 50 % after 0.693 tau, so its suddenness is 0.18. That of a straight line is 0.25.
GRADUAL = math.log(1 / 0.9) / (math.log(2) - math.log(1 / 0.9))


def look(curves: dict, step: int, base: UNet, network: nn.Module, n: int) -> None:
    """Add the held-out loss and the shuffle gap at a step to curves["loss"] and curves["gap"]."""
    loss_with, condition = loss_of_condition(base, network, "edge", n)
    own = loss_with(condition).item()
    neighbours = loss_with(condition.roll(1, 0)).item()
    curves.setdefault("loss", {})[str(step)] = own
    curves.setdefault("gap", {})[str(step)] = neighbours - own


def onset(gap: dict[str, list[float]], base_loss: list[float]) -> list[str]:
    """For each seed, the first step at which its gap is large enough, or "-" if there is none.

    gap: for each step a list over the seeds, as in a record.
    base_loss: a list over the seeds.
    """
    first = []
    for seed, loss in enumerate(base_loss):
        steps = [step for step, gaps in gap.items() if gaps[seed] >= SHARE * loss]
        first.append(steps[0] if steps else "-")
    return first


def reached(curve: dict[str, float], share: float) -> float:
    """The step at which a curve has risen by ``share`` of its way to its highest value.

    curve: step -> value. Between two measured steps we take it for a straight line.
    """
    steps = [float(step) for step in curve]
    values = list(curve.values())
    goal = values[0] + share * (max(values) - values[0])
    i = next(i for i, value in enumerate(values) if value >= goal)
    if i == 0:
        return steps[0]
    part = (goal - values[i - 1]) / (values[i] - values[i - 1])
    return steps[i - 1] + part * (steps[i] - steps[i - 1])


def suddenness(curve: dict[str, float]) -> float:
    """How long a curve waits for its first tenth, divided by how long it takes from there to its half."""
    wait = reached(curve, 0.1)
    half = reached(curve, 0.5)
    return wait / max(half - wait, 1e-9)
