"""The architecture, the paper's Fig. 3, drawn from the real networks.

Its boxes, channels and grids come from a forward pass.
"""

from itertools import chain

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Circle, Rectangle
from torch import Tensor, nn

from minicontrolnet import ControlNet, UNet
from minicontrolnet.controlnet import Controls
from minicontrolnet.draw.figures import styled
from minicontrolnet.unet import Downsample, Middle, ResBlock

COLOURS = {"locked base": "lightgrey", "copy": "lightblue",
           "condition encoder": "palegreen", "zero conv at the input": "moccasin",
           "zero convs at the outputs": "moccasin"}
TITLE = "The copy's {} outputs are added to the locked base's {} skips and its middle block"
NAMES = {nn.Conv2d: "conv", ResBlock: "res", Downsample: "half", Middle: "mid"}
Map = tuple[str, Tensor]  # the name of a block, and its output
# Heights, and how far the copy is moved so that its lines pass the decoder's boxes.
ENCODER, ADD, DECODER, ZERO, COPY, CONDITION = 5.75, 5.0, 4.2, 3.15, 2.3, 0.95
ASIDE = 0.35
LEGEND = ('Numbers are channels. "half" is a conv of stride 2, "mid" the middle block.\n'
          "xt is the noisy picture, and eps is the predicted noise.\n"
          "The time t and the prompt enter every res and mid block.")


@styled
def architecture(base: UNet, control: ControlNet, colours: dict[str, str] = COLOURS,
                 title: str = TITLE) -> Figure:
    """Draw base and ControlNet and where they meet; ``colours`` has COLOURS' keys."""
    maps, controls, decoded = measure(base, control)
    figure = Figure(figsize=(12.8, 7.2))
    figure.set_layout_engine("none")  # places are given here, in inches
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 12.8), ylim=(0, 7.2))  # one inch is one unit
    ax.axis("off")
    title = title.format(len(controls), len(maps) - 1)
    ax.text(6.4, 6.95, title, ha="center", va="center", size=20)
    x = [2.6 + 0.7 * i + 0.2 * (i // 3) for i in range(len(maps))]
    for i, (name, h) in enumerate(maps):
        box(ax, x[i], ENCODER, f"{name}\n{h.shape[1]}", colours["locked base"])
        arrow(ax, (x[i], ENCODER - 0.3), (x[i], ADD + 0.12))
        plus(ax, x[i], ADD)
        if i % 3 == 1:
            ax.text(x[i], 6.35, "grid {} x {}".format(*h.shape[-2:]), ha="center")
    arrows(ax, [1.7, *x], ENCODER)
    draw_decoder(ax, x, decoded, colours["locked base"])
    draw_copy(ax, [place + ASIDE for place in x], maps, controls, control, colours)
    for place in x:
        arrow(ax, (place + ASIDE, ADD), (place + 0.12, ADD))
    label(ax, base, control)
    return figure


@torch.no_grad()
def measure(base: UNet, control: ControlNet) -> tuple[list[Map], Controls, list[Map]]:
    """Shallow to deep: the encoder's 13 maps, 13 controls, the decoder's 12 maps."""
    seen: list[Map] = []

    def note(module: nn.Module, inputs: tuple, h: Tensor) -> None:
        seen.append((NAMES[type(module)], h))

    blocks = [base.encoder.conv_in, *base.encoder.blocks, base.encoder.middle,
              *chain(*base.decoder.levels)]
    hooks = [block.register_forward_hook(note) for block in blocks]
    with next(base.parameters()).device:
        picture = torch.zeros(1, 3, 64, 64)
        condition = torch.zeros(1, control.c_condition, 64, 64)
        t = torch.zeros(1, dtype=torch.long)
        prompt = torch.zeros(1, 3, dtype=torch.long)
    base(picture, t, prompt)
    for hook in hooks:
        hook.remove()
    return seen[:13], control(picture, t, prompt, condition), seen[:12:-1]


def draw_decoder(ax: Axes, x: list[float], decoded: list[Map], colour: str) -> None:
    """From the middle at the right to eps at the left; each block takes one skip."""
    for place, (name, h) in zip(x, decoded):
        box(ax, place, DECODER, f"{name}\n{h.shape[1]}", colour, 0.42)
        arrow(ax, (place, ADD - 0.12), (place, DECODER + 0.3))
    for left, right in zip(x, x[1:]):
        arrow(ax, (right - 0.21, DECODER), (left + 0.21, DECODER))
    ax.plot([x[-1], x[-1], x[-1] - 0.25], [ADD - 0.12, DECODER, DECODER], "k", lw=1.5)
    arrow(ax, (x[0] - 0.21, DECODER), (2.0, DECODER))


def draw_copy(ax: Axes, x: list[float], maps: list[Map], controls: Controls,
              control: ControlNet, colours: dict[str, str]) -> None:
    """The copy, its zero convs above it, and the condition's way in from below."""
    places = [x[0] - 0.6, *x[1:]]  # room for the plus after the first conv
    arrows(ax, [1.25, places[0]], COPY)
    arrow(ax, (places[0] + 0.29, COPY), (x[0] - 0.12, COPY))
    arrows(ax, [x[0] - 0.15, *x[1:]], COPY)
    out = colours["zero convs at the outputs"]
    for i, ((name, h), c) in enumerate(zip(maps, controls)):
        box(ax, places[i], COPY, f"{name}\n{h.shape[1]}", colours["copy"])
        arrow(ax, (x[i], COPY + (0.3 if i else 0)), (x[i], ZERO - 0.2))
        box(ax, x[i], ZERO, f"{c.shape[1]}", out, height=0.4)
        # The decoder's arrow has a gap here, so that this line does not seem to lead into it.
        ax.plot([x[i], x[i]], [DECODER - 0.15, DECODER + 0.15], "white", lw=5, zorder=4)
        ax.plot([x[i], x[i]], [ZERO + 0.2, ADD], "k", lw=1.5, zorder=5)
    plus(ax, x[0], COPY)
    convs = control.condition_encoder.layers[::2]  # two, and a zero conv
    for i, (conv, name) in enumerate(zip(convs, ("conv", "conv", "zero"))):
        key = "condition encoder" if name == "conv" else "zero conv at the input"
        text = f"{name}\n{conv.out_channels}"
        box(ax, x[0] - 0.7 * (2 - i), CONDITION, text, colours[key])
    arrows(ax, [0.85, *(x[0] - 0.7 * i for i in (2, 1, 0))], CONDITION)
    arrow(ax, (x[0], CONDITION + 0.3), (x[0], COPY - 0.12))


def millions(module: nn.Module) -> str:
    """The number of a module's weights, such as "1.5 M"."""
    size = sum(parameter.numel() for parameter in module.parameters())
    return f"{size / 1e6:.1f} M"


def label(ax: Axes, base: UNet, control: ControlNet) -> None:
    """Write the names of the rows at the left, and a legend below."""
    for height, text in ((ENCODER, f"base encoder\n{millions(base.encoder)}, locked"),
                         (ADD, "13 sums: 12 skips\nand 1 middle"),
                         (ZERO, "13 zero convs"),
                         (DECODER, f"base decoder\n{millions(base.decoder)}, locked"),
                         (COPY, f"copy, {millions(control.encoder)},\ntrainable"),
                         (CONDITION, f"condition\n{control.c_condition}x64x64")):
        ax.text(0.1, height, text, va="center", size=16)
    for height in (ENCODER, DECODER):
        padlock(ax, 1.75, height - 0.15)
    ax.text(2.1, ENCODER + 0.15, "xt", ha="center", size=16)
    ax.text(1.65, COPY + 0.15, "xt", ha="center", size=16)
    ax.text(2.1, DECODER - 0.3, "eps", ha="center", va="top", size=16)
    ax.text(4.2, CONDITION, LEGEND, va="center", size=16)


def box(ax: Axes, x: float, y: float, text: str, colour: str, width: float = 0.58,
        height: float = 0.6) -> None:
    corner = (x - width / 2, y - height / 2)
    ax.add_patch(Rectangle(corner, width, height, fc=colour, ec="black"))
    ax.text(x, y, text, ha="center", va="center", size=16)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "lw": 1.5,
                                            "shrinkA": 0, "shrinkB": 0})


def arrows(ax: Axes, x: list[float], y: float) -> None:
    """Arrows from box to box."""
    for left, right in zip(x, x[1:]):
        arrow(ax, (left + 0.29, y), (right - 0.29, y))


def plus(ax: Axes, x: float, y: float) -> None:
    ax.add_patch(Circle((x, y), 0.12, fc="white", ec="black"))
    ax.text(x, y, "+", ha="center", va="center_baseline", size=16)


def padlock(ax: Axes, x: float, y: float) -> None:
    ax.add_patch(Rectangle((x - 0.11, y - 0.1), 0.22, 0.18, fc="black"))
    ax.add_patch(Arc((x, y + 0.08), 0.15, 0.24, theta1=0, theta2=180, lw=2.5))
