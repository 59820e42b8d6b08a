"""The toy world: pictures of one bright shape on a dark background, whose prompt, mask and outline are known exactly.

Each picture, its prompt and its mask are made from the same random scene. So we can measure
whether a model followed its prompt and its condition, and need not guess. A prompt names the
two colours and the shape. It cannot say where the shape is, how large it is, or how it is
tilted and stretched. ControlNet closes this gap (Sec. 1).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import Problem, check_count, check_generator, check_tensor, dtype_name, shorten

# Eight colours that match their names and that colour-blind readers can tell apart (a test checks
# this). No channel is 0 or 1. So guidance that is too strong can first push a colour past its true
# value, and we see that before anything is clipped.
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
DARK = 0.3  # a background is painted in 0.3 times its colour, so it is darker than every shape
SIZE = 64  # a picture is SIZE x SIZE pixels


class Outline(NamedTuple):
    """A polygon with ``points`` tips at radius 1 and, between two tips, a notch at radius ``notch``."""

    points: int
    notch: float
    scale: float  # makes the four shapes about equally large
    upright: float  # the first tip points right; by how many radians must the polygon turn to stand upright?


UP = -math.pi / 2  # y points down
SHAPES = {
    "circle": Outline(64, math.cos(math.pi / 64), 0.76, UP),  # 64 corners, round to within 0.1 %
    "square": Outline(4, math.cos(math.pi / 4), 0.95, math.pi / 4),
    "triangle": Outline(3, math.cos(math.pi / 3), 1.18, UP),
    "star": Outline(5, 0.45, 1.17, UP),
}
EMPTY = 0  # the token of a missing word
VOCABULARY_SIZES = (len(COLOURS) + 1, len(SHAPES) + 1, len(COLOURS) + 1)
SMALLEST, LARGEST, TILT = 0.5, 0.72, 0.4
LONGEST = 2  # no radius is larger, in halves of a picture: from any place it covers about everything


class Scenes(NamedTuple):
    """The contents of n pictures. Lengths are in units of half a picture, and y points down."""

    colour: Tensor  # (n,) index into COLOURS
    shape: Tensor  # (n,) index into SHAPES
    background: Tensor  # (n,) index into COLOURS; it is painted with DARK times this colour
    centre: Tensor  # (n, 2) x and y in [-1, 1]
    radius: Tensor  # (n,) SMALLEST .. LARGEST, before it is multiplied by the outline's scale
    angle: Tensor  # (n,) radians from upright, -TILT .. TILT
    aspect: Tensor  # (n,) width over height, exp(-0.2) .. exp(0.2)

    @property
    def prompt(self) -> Tensor:
        """The tokens (n, 3) of colour, shape and background. Token 0 is EMPTY, so each is an index plus 1."""
        return torch.stack([self.colour, self.shape, self.background], dim=1) + 1


def random_scenes(n: int, generator: torch.Generator) -> Scenes:
    """Choose n random scenes. Every shape lies wholly inside its picture."""
    check_count("the number of scenes", n)
    check_generator(generator)

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=generator, dtype=torch.float32)

    def choose(count: int) -> Tensor:
        return torch.randint(count, (n,), generator=generator)

    shape = choose(len(SHAPES))
    colour = choose(len(COLOURS))
    background = choose(len(COLOURS))
    radius = uniform(SMALLEST, LARGEST, n)
    aspect = uniform(-0.2, 0.2, n).exp()
    angle = uniform(-TILT, TILT, n)
    scale = torch.tensor([outline.scale for outline in SHAPES.values()])[shape]
    reach = radius * scale * aspect.sqrt().maximum(aspect.rsqrt())  # no point is farther from the centre
    room = (0.95 - reach).clamp(min=0).unsqueeze(1)
    centre = room * uniform(-1, 1, n, 2)
    return Scenes(colour, shape, background, centre, radius, angle, aspect)


def render(scenes: Scenes, size: int = SIZE,
           outlines: Sequence[Outline] = tuple(SHAPES.values())) -> tuple[Tensor, Tensor]:
    """Paint scenes. Returns pictures (n, 3, size, size) and masks (n, 1, size, size), both in [0, 1].

    A mask holds the share of each pixel that the shape covers. Below 32 pixels a side the shapes come out larger, since
    the soft rim is one pixel wide. scenes.shape is an index into ``outlines``. You may pass outlines of your own, such
    as one between a square and a circle.
    """
    check_count("the size", size)
    outlines = list(outlines)
    if not outlines or not all(isinstance(outline, (tuple, list)) for outline in outlines):
        raise Problem("the outlines are no list of Outline; give for example SHAPES.values()")
    check_scenes(scenes, len(outlines))
    device = scenes.radius.device
    numbers = torch.tensor(outlines)
    if not (numbers.isfinite().all() and (numbers[:, 0] >= 1).all()):
        raise Problem("an outline has no points, or a number that is not finite; give for example SHAPES.values()")
    outlines = numbers.to(device)[scenes.shape]
    points, notch, scale, upright = (column.view(-1, 1, 1) for column in outlines.unbind(1))
    radius = scenes.radius.view(-1, 1, 1) * scale
    turned = scenes._replace(angle=scenes.angle + upright.flatten())
    x, y = _own_frame(turned, size)
    distance = _outside(x, y, points, notch, radius)
    mask = (0.5 - distance * size / 2).clamp(0, 1).unsqueeze(1)  # half a picture is size / 2 pixels
    colours = torch.tensor(list(COLOURS.values()), dtype=mask.dtype, device=device)[:, :, None, None]
    return torch.lerp(DARK * colours[scenes.background], colours[scenes.colour], mask), mask


def check_scenes(scenes: Scenes, shapes: int = len(SHAPES)) -> None:
    """Raise Problem for an index that would count from the end, and for a length that would give an empty picture.

    A field of another shape would be broadcast in silence.
    """
    if not isinstance(scenes, Scenes):
        raise Problem(f"the scenes are a {type(scenes).__name__}; give scenes such as random_scenes or batch.scenes")
    lengths = [len(field) for field in scenes if isinstance(field, Tensor) and field.dim()]
    n = max(lengths, key=lengths.count, default=1)  # what most fields agree on, so that the odd one is blamed
    for name, field in zip(Scenes._fields, scenes):
        wanted = (n, 2) if name == "centre" else (n,)
        if not isinstance(field, Tensor) or tuple(field.shape) != wanted:
            raise Problem(f"the {name} of the scenes is {tuple(getattr(field, 'shape', ())) or type(field).__name__};"
                          f" give a tensor of the shape {wanted} for {n} scenes")
    if scenes.radius.is_meta:
        return  # tensors without values
    for name, count in (("colour", len(COLOURS)), ("shape", shapes), ("background", len(COLOURS))):
        index = getattr(scenes, name)
        if index.dtype != torch.long or ((index < 0) | (index >= count)).any():
            raise Problem(f"the {name} of a scene is {index.tolist()}; give indices (int64) from 0 to {count - 1}")
    if not all(((length > 0) & length.isfinite()).all() for length in (scenes.radius, scenes.aspect)):
        raise Problem("the radius or the aspect of a scene is not above 0, or not finite; give for example a radius of"
                      " 0.5 and an aspect of 1")
    if (scenes.radius > LONGEST).any():
        raise Problem(f"a radius of the scenes is {scenes.radius.max().item():.4g}; give it in halves of a picture,"
                      f" such as 0.5, and at most {LONGEST}")
    if not (scenes.centre.abs() <= 1).all():  # also true for nan
        raise Problem("the centre of a scene lies outside of the picture, or is not finite; give x and y in [-1, 1],"
                      " where a pixel p of 64 is (p + 0.5) / 32 - 1")
    if not (scenes.angle.abs() <= 2 * math.pi).all():
        raise Problem("the angle of a scene is more than a full turn, or is not finite; give radians, such as"
                      " math.radians(15)")


def _own_frame(scenes: Scenes, size: int) -> tuple[Tensor, Tensor]:
    """The x and y (n, size, size) of the pixel centres in the frame in which each shape is upright and unstretched."""
    line = (torch.arange(size, device=scenes.centre.device) + 0.5) * 2 / size - 1
    x = line.view(1, 1, -1) - scenes.centre[:, 0].view(-1, 1, 1)
    y = line.view(1, -1, 1) - scenes.centre[:, 1].view(-1, 1, 1)
    stretch = scenes.aspect.sqrt().view(-1, 1, 1)
    x = x / stretch
    y = y * stretch
    cos = scenes.angle.cos().view(-1, 1, 1)
    sin = scenes.angle.sin().view(-1, 1, 1)
    return cos * x + sin * y, cos * y - sin * x


def _outside(x: Tensor, y: Tensor, points: Tensor, notch: Tensor, radius: Tensor) -> Tensor:
    """The distance (n, h, w) of each place from the outline: positive outside and negative inside.

    It is in units of half a picture. We measure it at right angles to the nearest side, which is
    exact beside the sides, and close enough at the corners for a mask. x and y are measured before
    the shape is stretched. So the soft rim of a stretched shape is up to 10 % too wide or too narrow.

    The outline repeats itself: from each tip to the next notch it is a straight line, and the line
    from that notch to the next tip is its mirror image. So we fold the plane, like a fan, into the
    one sector between a tip at polar angle 0 and a notch at pi / points. There the outline is the
    line from the tip at (1, 0) to the notch, in units of the radius.
    """
    sector = math.pi / points
    polar = torch.atan2(y, x).abs() % (2 * sector)
    polar = torch.minimum(polar, 2 * sector - polar)
    length = torch.hypot(x, y) / radius
    notch_x = notch * torch.cos(sector)
    notch_y = notch * torch.sin(sector)
    # The line's normal is (notch_y, 1 - notch_x); we measure along it from the tip.
    along = (length * polar.cos() - 1) * notch_y + length * polar.sin() * (1 - notch_x)
    return along / torch.hypot(1 - notch_x, notch_y) * radius


def tip_of(scenes: Scenes) -> Tensor:
    """The end (n, 2) of an arrow that starts at each shape's centre and points up in its frame.

    Before the shape is stretched, the arrow is as long as its radius.

    The arrow shows place, size and tilt of every shape, even of a circle or a square.
    """
    check_scenes(scenes)
    stretch = scenes.aspect.sqrt()
    arrow = torch.stack([scenes.angle.sin() * stretch, -scenes.angle.cos() / stretch], dim=1)
    return scenes.centre + scenes.radius.unsqueeze(1) * arrow


class Batch(NamedTuple):
    """n random pictures and everything that is true of them."""

    image: Tensor  # (n, 3, 64, 64) in [0, 1]
    x0: Tensor  # the same pictures in [-1, 1], as the UNet sees them
    mask: Tensor  # (n, 1, 64, 64) in [0, 1]
    prompt: Tensor  # (n, 3) tokens
    scenes: Scenes

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Apply ``change`` to every tensor of the batch, including those of the scenes."""
        *tensors, scenes = self
        return Batch(*map(change, tensors), Scenes(*map(change, scenes)))


def random_batch(n: int, generator: torch.Generator) -> Batch:
    """Paint n random scenes. The same state of the generator gives the same pictures."""
    scenes = random_scenes(n, generator)
    image, mask = render(scenes)
    return Batch(image, image * 2 - 1, mask, scenes.prompt, scenes)


def to_image(pictures: Tensor) -> Tensor:
    """Bring pictures from the sampler's range [-1, 1] to [0, 1]. Values that leave it a little are clamped.

    Raises Problem for numbers that are not finite, and for values from 0 to 255: the sampler returns neither.
    """
    if not isinstance(pictures, Tensor) or not pictures.is_floating_point():
        found = dtype_name(pictures) if isinstance(pictures, Tensor) else type(pictures).__name__
        raise Problem(f"the pictures are {found}; give a floating point tensor with values in [-1, 1]")
    check_tensor("the pictures", pictures)
    if not pictures.isfinite().all():
        raise Problem("the pictures have values that are not finite; look for weights or strengths that are too large")
    if pictures.numel() and pictures.min() >= 0 and pictures.max() > 10:
        low, high = pictures.detach().aminmax()
        raise Problem(f"the pictures have values from {low.item():.4g} to {high.item():.4g}; give values in [-1, 1]")
    return ((pictures + 1) / 2).clamp(0, 1)


# %% Prompts


def tokenize(prompts: str | Sequence[str]) -> Tensor:
    """Turn prompts such as "red star on blue" into tokens (n, 3) for colour, shape and background.

    Any word may be missing: "star", "red", "on blue" and "" are prompts. The token of a missing
    word is EMPTY. Raises Problem for a word that the toy world does not know, or for one in the
    wrong place.
    """
    prompts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(prompts, Sequence) or isinstance(prompts, (bytes, bytearray)):
        raise Problem(f"the prompt is {shorten(repr(prompts))}, but it must be a text or a list of texts;"
                      f" {HOW_TO_PROMPT}")
    return torch.tensor([_tokens(prompt) for prompt in prompts], dtype=torch.long).reshape(-1, 3)


HOW_TO_PROMPT = (
    'write for example "red star on blue", where any word may be missing; the colours are '
    f"{', '.join(COLOURS)}; the shapes are {', '.join(SHAPES)}"
)


def _tokens(prompt: str) -> tuple[int, int, int]:
    if not isinstance(prompt, str):
        raise Problem(f"the prompt is {shorten(repr(prompt))}, but it must be a text; {HOW_TO_PROMPT}")
    words = prompt.lower().split()
    for word in words:
        if word not in {"on", *COLOURS, *SHAPES}:
            raise Problem(f'the prompt "{shorten(" ".join(words))}" contains "{shorten(word)}", a word that'
                          f" the toy world does not know; {HOW_TO_PROMPT}")
    on = words.index("on") if "on" in words else len(words)
    front = words[:on]
    back = words[on + 1 :]
    colour = front.pop(0) if front and front[0] in COLOURS else None
    shape = front.pop(0) if front and front[0] in SHAPES else None
    background = back.pop(0) if back and back[0] in COLOURS else None
    ends_with_on = on < len(words) and background is None
    if front or back or ends_with_on:
        raise Problem(f'the prompt "{shorten(" ".join(words))}" does not have the form "COLOUR SHAPE on COLOUR";'
                      f" {HOW_TO_PROMPT}")
    return _token(colour, COLOURS), _token(shape, SHAPES), _token(background, COLOURS)


def _token(word: str | None, table: dict) -> int:
    return EMPTY if word is None else list(table).index(word) + 1


def check_tokens(tokens: Tensor) -> None:
    """Raise Problem unless ``tokens`` are (n, 3), as tokenize makes them."""
    if not isinstance(tokens, Tensor):
        raise Problem(f"the tokens are a {type(tokens).__name__}; give a tensor (n, 3), as tokenize makes it")
    if tokens.dim() != 2 or tokens.shape[1] != 3 or tokens.dtype != torch.long:
        raise Problem(f"the tokens are {dtype_name(tokens)} of the shape {tuple(tokens.shape)}; give whole numbers"
                      " (int64) of the shape (n, 3), as tokenize makes them")
    check_tensor("the tokens", tokens)
    sizes = torch.tensor(VOCABULARY_SIZES, device=tokens.device)
    if ((tokens < 0) | (tokens >= sizes)).any():
        raise Problem(f"a token is outside of the vocabulary; the tokens of colour, shape and background go from 0 to"
                      f" {', '.join(str(size - 1) for size in VOCABULARY_SIZES)}")


def describe(prompt: Tensor) -> list[str]:
    """Turn tokens (n, 3) back into texts: the inverse of tokenize."""
    check_tokens(prompt)
    texts = []
    for colour, shape, background in prompt.tolist():
        words = []
        if colour:
            words.append(list(COLOURS)[colour - 1])
        if shape:
            words.append(list(SHAPES)[shape - 1])
        if background:
            words += ["on", list(COLOURS)[background - 1]]
        texts.append(" ".join(words))
    return texts
