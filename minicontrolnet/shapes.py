"""The toy world: one lit shape on a dark ground, and its exact answers.

A picture, its prompt and its mask come from the same draw, so whether a model
obeyed is measured and not guessed. A prompt names the two colours and the shape.
Where the shape stands, how large it is, how it is tilted and stretched is free
in the picture and cannot be said: that gap is what ControlNet closes (Sec. 1).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .files import Problem

# Eight hues that look like their words and stay apart for colour-blind eyes (tested). No
# channel is 0 or 1, so guidance that overshoots shows before it is clipped.
COLOURS = {
    "white": (0.93, 0.93, 0.93),
    "orange": (0.95, 0.50, 0.09),
    "cyan": (0.24, 0.83, 0.95),
    "green": (0.16, 0.66, 0.34),
    "yellow": (0.95, 0.87, 0.10),
    "blue": (0.25, 0.42, 0.95),
    "red": (0.86, 0.24, 0.17),
    "purple": (0.62, 0.45, 0.83),
}
DARK = 0.3  # a ground is its hue in the dark: each shape is brighter than any ground
SIZE = 64  # a picture is SIZE x SIZE pixels


class Outline(NamedTuple):
    """A star-shaped polygon: ``points`` tips at radius 1, notches at radius ``notch``."""

    points: int
    notch: float
    scale: float  # makes the four shapes about equally large
    turn: float  # radians from a tip pointing right to the shape standing upright


UP = -math.pi / 2  # y points down
SHAPES = {
    "circle": Outline(64, math.cos(math.pi / 64), 0.76, UP),  # 64 corners: round to 0.1 %
    "square": Outline(4, math.cos(math.pi / 4), 0.95, math.pi / 4),
    "triangle": Outline(3, math.cos(math.pi / 3), 1.18, UP),
    "star": Outline(5, 0.45, 1.17, UP),
}
EMPTY = 0  # the token of a word that is missing
VOCABULARY_SIZES = (len(COLOURS) + 1, len(SHAPES) + 1, len(COLOURS) + 1)
SMALLEST, LARGEST, TILT = 0.5, 0.72, 0.4


class Scenes(NamedTuple):
    """What is in n pictures; lengths are in units of half a picture, y points down."""

    colour: Tensor  # (n,) index into COLOURS
    shape: Tensor  # (n,) index into SHAPES
    background: Tensor  # (n,) index into COLOURS; the ground has this hue in the dark
    centre: Tensor  # (n, 2) x and y in [-1, 1]
    radius: Tensor  # (n,) SMALLEST .. LARGEST, before the outline's own scale
    angle: Tensor  # (n,) radians from upright, -TILT .. TILT
    aspect: Tensor  # (n,) width over height, exp(-0.2) .. exp(0.2)

    @property
    def prompt(self) -> Tensor:
        """The tokens (n, 3) of colour, shape and background."""
        return torch.stack([self.colour, self.shape, self.background], dim=1) + 1


def random_scenes(n: int, generator: torch.Generator) -> Scenes:
    """Draw n scenes at random; every shape lies wholly inside its picture."""

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=generator)

    def choose(count: int) -> Tensor:
        return torch.randint(count, (n,), generator=generator)

    shape, colour, background = choose(len(SHAPES)), choose(len(COLOURS)), choose(len(COLOURS))
    radius, aspect = uniform(SMALLEST, LARGEST, n), uniform(-0.2, 0.2, n).exp()
    angle = uniform(-TILT, TILT, n)
    scale = torch.tensor([outline.scale for outline in SHAPES.values()])[shape]
    reach = radius * scale * aspect.sqrt().maximum(aspect.rsqrt())
    room = (0.95 - reach).clamp(min=0).unsqueeze(1)
    return Scenes(colour, shape, background, room * uniform(-1, 1, n, 2), radius, angle, aspect)


def render(scenes: Scenes, size: int = SIZE,
           outlines: Sequence[Outline] = tuple(SHAPES.values())) -> tuple[Tensor, Tensor]:
    """Paint scenes: pictures (n, 3, size, size) and masks (n, 1, size, size), both in [0, 1].

    A mask holds the share of each pixel that the shape covers. ``outlines`` are what the
    indices in scenes.shape mean; lesson 10 draws one that is no shape of the toy world.
    """
    outlines = torch.tensor(outlines)[scenes.shape]
    points, notch, scale, turn = (column.view(-1, 1, 1) for column in outlines.unbind(1))
    radius = scenes.radius.view(-1, 1, 1) * scale
    x, y = _own_frame(scenes._replace(angle=scenes.angle + turn.flatten()), size)
    # Fold the plane into one sector, from a tip at angle 0 to a notch at pi / points:
    # there the outline is one straight line from (1, 0) to the notch.
    sector = math.pi / points
    turn = torch.atan2(y, x).abs() % (2 * sector)
    turn = torch.minimum(turn, 2 * sector - turn)
    length = torch.hypot(x, y) / radius
    notch_x, notch_y = notch * torch.cos(sector), notch * torch.sin(sector)
    normal = torch.hypot(1 - notch_x, notch_y)
    distance = (length * turn.cos() - 1) * notch_y + length * turn.sin() * (1 - notch_x)
    pixels = distance / normal * radius * size / 2
    mask = (0.5 - pixels).clamp(0, 1).unsqueeze(1)
    lit = torch.tensor(list(COLOURS.values()))[:, :, None, None]
    return torch.lerp(DARK * lit[scenes.background], lit[scenes.colour], mask), mask


def tip_of(scenes: Scenes) -> Tensor:
    """Where an arrow of length radius from the centre, upright in its shape, ends: (n, 2).

    It tells place, size and tilt, whatever the shape: a circle and a square have it, too.
    """
    stretch = scenes.aspect.sqrt()
    arrow = torch.stack([scenes.angle.sin() * stretch, -scenes.angle.cos() / stretch], dim=1)
    return scenes.centre + scenes.radius.unsqueeze(1) * arrow


class Batch(NamedTuple):
    """n random pictures and all that is true of them."""

    image: Tensor  # (n, 3, 64, 64) in [0, 1]
    x0: Tensor  # the same in [-1, 1], as the UNet sees it
    mask: Tensor  # (n, 1, 64, 64) in [0, 1]
    prompt: Tensor  # (n, 3) tokens
    scenes: Scenes

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with every tensor changed, those in the scenes too."""
        *tensors, scenes = self
        return Batch(*map(change, tensors), Scenes(*map(change, scenes)))


def random_batch(n: int, generator: torch.Generator) -> Batch:
    """Paint n scenes drawn at random; the same generator state gives the same pictures."""
    scenes = random_scenes(n, generator)
    image, mask = render(scenes)
    return Batch(image, image * 2 - 1, mask, scenes.prompt, scenes)


def to_image(pictures: Tensor) -> Tensor:
    """From the sampler's [-1, 1] to [0, 1]."""
    return ((pictures + 1) / 2).clamp(0, 1)


def _own_frame(scenes: Scenes, size: int) -> tuple[Tensor, Tensor]:
    """Pixel centres (n, size, size) as x and y in each shape's own, unturned frame."""
    line = (torch.arange(size) + 0.5) * 2 / size - 1
    x = line.view(1, 1, -1) - scenes.centre[:, 0].view(-1, 1, 1)
    y = line.view(1, -1, 1) - scenes.centre[:, 1].view(-1, 1, 1)
    stretch = scenes.aspect.sqrt().view(-1, 1, 1)
    x, y = x / stretch, y * stretch
    cos, sin = scenes.angle.cos().view(-1, 1, 1), scenes.angle.sin().view(-1, 1, 1)
    return cos * x + sin * y, cos * y - sin * x


def tokenize(prompts: str | list[str]) -> Tensor:
    """Turn prompts such as "red star on blue" into tokens (n, 3): colour, shape, background.

    Any word may be missing ("star", "red", "on blue", "" are prompts); its token is EMPTY.
    Raises Problem for a word outside the vocabulary, or one that stands in the wrong place.
    """
    prompts = [prompts] if isinstance(prompts, str) else prompts
    return torch.tensor([_tokens(prompt) for prompt in prompts], dtype=torch.long).reshape(-1, 3)


def _tokens(prompt: str) -> tuple[int, int, int]:
    words = prompt.lower().split()
    for word in words:
        if word not in {"on", *COLOURS, *SHAPES}:
            raise Problem(
                f'the prompt "{_shorten(" ".join(words))}" has the word "{_shorten(word)}", which the toy'
                f" world does not know; {HOW_TO_PROMPT}"
            )
    on = words.index("on") if "on" in words else len(words)
    front, back = words[:on], words[on + 1 :]
    colour = front.pop(0) if front and front[0] in COLOURS else None
    shape = front.pop(0) if front and front[0] in SHAPES else None
    background = back.pop(0) if back and back[0] in COLOURS else None
    if front or back or (on < len(words) and background is None):
        raise Problem(
            f'the prompt "{_shorten(" ".join(words))}" is not of the form "COLOUR SHAPE on COLOUR";'
            f" {HOW_TO_PROMPT}"
        )
    index = lambda word, table: EMPTY if word is None else list(table).index(word) + 1
    return index(colour, COLOURS), index(shape, SHAPES), index(background, COLOURS)


HOW_TO_PROMPT = (
    'write for example "red star on blue", where any word may be missing; colours: '
    f"{', '.join(COLOURS)}; shapes: {', '.join(SHAPES)}"
)


def _shorten(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def describe(prompt: Tensor) -> list[str]:
    """The inverse of tokenize: tokens (n, 3) to strings."""
    colours, shapes = ["", *COLOURS], ["", *SHAPES]
    return [
        " ".join(filter(None, [colours[c], shapes[s], f"on {colours[b]}" if b else ""]))
        for c, s, b in prompt.tolist()
    ]
