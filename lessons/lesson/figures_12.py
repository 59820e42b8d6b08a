"""Figures of lesson 12: how each method joins the base, its pictures, and cost against fidelity."""

from statistics import fmean
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from torch import Tensor

from minicontrolnet.draw.figures import grid, styled

LOCKED = "lightgrey"
TRAINED = "orange"
LOW_RANK = "moccasin"
CHANGES = "tab:blue"
ENCODER_X = (1.2, 4.2)
DECODER_X = (5.8, 8.8)
BESIDE = 1.8  # the height of what is beside the base


class Panel(NamedTuple):
    """How a method looks in a sketch."""

    name: str
    encoder: str = LOCKED
    decoder: str = LOCKED
    side: str = ""  # the colour of a network beside the base, if there is one
    size: float = 1.0  # of that network, relative to the base's encoder
    reads_xt: bool = False  # whether that network reads the noisy picture, too
    joins: str = ""  # where its arrows go: "decoder", "encoder", "both ways", "once" or "input"
    loss: str = ""  # what the edges of the predicted picture are compared for


PANELS = (
    Panel("ControlNet", side=TRAINED, reads_xt=True, joins="decoder"),
    Panel("Control-LoRA", side=LOW_RANK, reads_xt=True, joins="decoder"),
    Panel("T2I-Adapter", side=TRAINED, size=0.5, joins="encoder"),
    Panel("ControlNet-XS", side=TRAINED, size=0.3, reads_xt=True, joins="both ways"),
    Panel("ControlNeXt", encoder="part", side=TRAINED, size=0.3, joins="once"),
    Panel("fine-tuned base", encoder=TRAINED, decoder=TRAINED, joins="input"),
    Panel("ControlNet++", side=TRAINED, reads_xt=True, joins="decoder", loss="trains the copy"),
    Panel("training-free", loss="changes eps"),
)


@styled
def sketches() -> Figure:
    """One small sketch per method: grey is locked, orange is trained, pale orange is of low rank."""
    figure = Figure()
    figure.suptitle("The methods differ in what is trained (orange) and in where it joins the base\n"
                    "(pale orange: low rank; magenta square: the outline; blue: what the edge loss changes)", size=17)
    for axes, panel in zip(figure.subplots(2, 4).flat, PANELS):
        sketch(axes, panel)
    return figure


def sketch(axes: Axes, panel: Panel) -> None:
    """The base as an hourglass, and beside it what the method adds."""
    axes.set(xlim=(-1.6, 10.6), ylim=(-0.2, 8.2))
    axes.axis("off")
    axes.set_title(panel.name, size=16)
    left, right = ENCODER_X
    colour = LOCKED if panel.encoder == "part" else panel.encoder
    trapezoid(axes, left, right, 6.0, 1.8, 0.8, colour)
    if panel.encoder == "part":
        axes.add_patch(Rectangle((2.6, 5.0), 0.7, 2.0, facecolor=TRAINED, edgecolor="black"))
    trapezoid(axes, *DECODER_X, 6.0, 0.8, 1.8, panel.decoder)
    axes.text(-0.9, 6, "xt", ha="center", va="center", size=13)
    arrow(axes, (-0.4, 6), (left, 6))
    arrow(axes, (right, 6), (DECODER_X[0], 6))
    arrow(axes, (DECODER_X[1], 6), (10.4, 6))
    if panel.side:
        trapezoid(axes, left, right, BESIDE, 1.5 * panel.size, 0.7 * panel.size, panel.side)
        arrow(axes, (-0.5, BESIDE - 0.2), (left, BESIDE - 0.2))
    if panel.side or panel.joins == "input":
        outline(axes, -1.3, BESIDE - 0.6)
    if panel.reads_xt:
        arrow(axes, (-0.6, 5.5), (left, BESIDE + 0.8 * panel.size))
    joins(axes, panel)
    if panel.loss:
        axes.text(7.4, 2.3, "edge loss", ha="center", va="center", size=13,
                  bbox={"facecolor": "white", "edgecolor": "black"})
        axes.text(6.7, 0.6, panel.loss, ha="center", va="center", size=11, color=CHANGES)
        arrow(axes, (9.9, 5.9), (8.7, 2.9))
        outline(axes, 9.3, 0.2)
        arrow(axes, (9.5, 1.0), (8.7, 1.8))
        if panel.side:
            arrow(axes, (5.5, 2.2), (right + 0.1, BESIDE), CHANGES)
        else:
            arrow(axes, (7.6, 2.9), (9.4, 5.9), CHANGES)


def outline(axes: Axes, x: float, y: float) -> None:
    """A small square that stands for the outline."""
    axes.add_patch(Rectangle((x, y), 0.8, 0.8, facecolor="white", edgecolor="magenta", linewidth=2))


def joins(axes: Axes, panel: Panel) -> None:
    """The arrows from what is added to the base. Each begins and ends at the edge of a shape."""

    def top(x: float) -> float:
        """The upper edge of the network beside the base."""
        return BESIDE + panel.size * (1.5 - 0.8 * (x - ENCODER_X[0]) / 3)

    def below_encoder(x: float) -> float:
        return 4.2 + (x - ENCODER_X[0]) / 3

    if panel.joins == "decoder":
        for start, end in ((2.0, 8.2), (2.8, 7.4), (3.6, 6.6)):
            arrow(axes, (start, top(start)), (end, 5.2 - (end - DECODER_X[0]) / 3))
    if panel.joins in ("encoder", "both ways"):
        for x in (1.6, 2.4, 3.2, 4.0):
            arrow(axes, (x, top(x)), (x, below_encoder(x)), style="<->" if panel.joins == "both ways" else "->")
    if panel.joins == "once":
        arrow(axes, (2.3, top(2.3)), (2.3, below_encoder(2.3)))
    if panel.joins == "input":
        arrow(axes, (-0.5, BESIDE), (1.7, below_encoder(1.7)))


def trapezoid(axes: Axes, left: float, right: float, y: float, half_left: float, half_right: float,
              colour: str) -> None:
    corners = [(left, y - half_left), (left, y + half_left), (right, y + half_right), (right, y - half_right)]
    axes.add_patch(Polygon(corners, facecolor=colour, edgecolor="black"))


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = "black",
          style: str = "->") -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": style, "color": colour, "lw": 1.5, "shrinkA": 0,
                                              "shrinkB": 0})


COLUMNS = {
    "no control": "no\ncontrol",
    "training-free, 8 steps": "free,\n8 steps",
    "training-free, 25 steps": "free,\n25 steps",
    "ControlNet": "Control-\nNet",
    "ControlNet++": "Control-\nNet++",
    "Control-LoRA": "Control-\nLoRA",
    "T2I-Adapter": "T2I-\nAdapter",
    "ControlNet-XS": "Control-\nNet-XS",
    "ControlNeXt": "Control-\nNeXt",
    "fine-tuned base": "fine-\ntuned",
    "frozen copy": "frozen\ncopy",
}


def pictures_of(pictures: Tensor, names: list[str], title: str) -> Figure:
    """A column of four pictures per method: right, no and conflicting prompt, and colours that are new.

    The labels at the left are the prompts of the pictures that the record shows.

    pictures: four for each of ``names``, in the record's order.
    """
    rows = pictures.unflatten(0, (len(names), 4))
    columns = [rows[names.index(name)] for name in COLUMNS]
    left = ["white circle\non green", "no prompt", "white square\non green", "red star\non yellow"]
    return grid(torch.stack(columns, 1).flatten(0, 1), len(COLUMNS), title, list(COLUMNS.values()), left)


# where a method's name is written, in points from its hollow dot
ASIDE = {"ControlNet": (12, -6), "ControlNet++": (12, -16), "Control-LoRA": (-112, -6), "T2I-Adapter": (12, -6),
         "ControlNet-XS": (12, -6), "ControlNeXt": (12, -6), "fine-tuned base": (-120, -22), "frozen copy": (12, -6)}
APART = {"ControlNet": 0.97, "ControlNet++": 1.03}  # equally many weights; so we shift them to see both


@styled
def cost_and_fidelity(record: dict, title: str) -> Figure:
    """Trained weights against edge F1 after 150 steps (hollow) and after 600 (filled), a mean over seeds.

    A square stands for a method that changes the base.
    """
    figure = Figure()
    axes = figure.subplots()
    for name, place in ASIDE.items():
        x = record[name]["cost"]["trained"] * APART.get(name, 1)
        early, late = (fmean(record[name][step]["right"]["F1"]) for step in ("150", "600"))
        marker = "s" if any(record[name]["600"]["off"]["eps moved"]) else "o"
        axes.plot([x, x], [early, late], color="lightgrey", lw=2, zorder=0)
        colour = axes.scatter(x, late, 160, marker=marker).get_facecolor()[0]
        axes.scatter(x, early, 160, marker=marker, facecolor="white", edgecolor=[colour], linewidth=2)
        axes.annotate(name, (x, early), place, textcoords="offset points", size=15, color=colour)
    axes.set(xscale="log", xlabel="trained weights, which are stored for each condition (log scale)",
             ylabel="edge F1, right prompt", title=title)
    legend = ("hollow: after 150 steps", "filled: after 600 steps", "square: it changes the base",
              "ControlNet and ControlNet++ have", "equally many weights (shifted here)")
    axes.text(0.58, 0.04, "\n".join(legend), transform=axes.transAxes, size=15)
    axes.margins(x=0.12)
    return figure
