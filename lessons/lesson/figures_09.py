"""The figure of lesson 09."""

from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minicontrolnet.draw.figures import styled


@styled
def sudden_and_few_pictures(endless: dict, iou: dict[str, list[float]], kept: float) -> Figure:
    """At the left how one arm of the record learns, at the right the mask IoU of all.

    iou: name -> a number for each seed. kept: what 50 pictures keep of the gain.
    """
    figure = Figure()
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    learning(left, endless)
    for i, (name, values) in enumerate(iou.items()):
        colour = {"s": "C1", "n": "0.4"}.get(name[0], "C0")  # from scratch; no control
        right.plot(values, [-i] * len(values), "o", ms=11, alpha=0.7, color=colour)
    right.set_yticks([-i for i in range(len(iou))], list(iou))
    right.set(xlabel="mask IoU, a dot a seed", xlim=(None, 1.02),
              title=f"50 pictures keep {kept:.0%}\nof the gain of endless ones")
    return figure


def learning(ax: Axes, arm: dict) -> None:
    """The shuffle gap and the share of clean pixels over the steps, for each seed."""
    clean = arm["on the way"]["clean pixels"]
    steps = [int(step) for step in arm["gap"]]
    seeds = range(len(arm["half"]))
    for seed in seeds:
        gap = [values[seed] for values in arm["gap"].values()]
        ax.plot(steps, [value / max(gap) for value in gap], "C0")
        ax.plot(steps, [values[seed] for values in clean.values()], "C2")
    half = fmean(arm["half"])
    ax.plot(steps, [1 - 0.5 ** (step / half) for step in steps], "--", c="0.6")
    ax.legend(ax.lines[-3:], ["shuffle gap / its highest", "share of clean pixels", "a gradual rise"],
              loc="lower right")
    ax.set(xlabel=f"training step, {len(seeds)} seeds", ylim=(-0.02, 1.05),
           title=f"Waits {min(arm['wait']):.0f} to {max(arm['wait']):.0f} steps, then follows;\n"
                 f"at the worst moment {min(map(min, clean.values())):.1%} of pixels are clean")
