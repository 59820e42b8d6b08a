"""When an arm begins to follow its condition: arms are compared after that."""

from torch import nn

from minicontrolnet import UNet, loss_of_condition

SHARE = 0.1  # of the base's own loss: the gap at which an arm is said to follow


def look(curves: dict, step: int, base: UNet, network: nn.Module, n: int) -> None:
    """Add held-out loss and shuffle gap at a step to curves["loss"] and ["gap"]."""
    loss, condition = loss_of_condition(base, network, "edge", n)
    own, neighbours = loss(condition).item(), loss(condition.roll(1, 0)).item()
    curves.setdefault("loss", {})[str(step)] = own
    curves.setdefault("gap", {})[str(step)] = neighbours - own


def onset(gap: dict[str, list[float]], base_loss: list[float]) -> list[str]:
    """The first step, for each seed, at which its gap is large enough; "-" if at none.

    gap: step -> a list over seeds, and base_loss: such a list, as in a record.
    """
    return [next((step for step, gaps in gap.items() if gaps[i] >= SHARE * loss), "-")
            for i, loss in enumerate(base_loss)]
