"""What is wished for at the drawing board, and what follows from it; the window is in board.py.

A Wish is all that pictures are made from: a drawing and the numbers beside it. From it follow
the conditions, the pictures, the heat maps, and the command that draws the same.
"""

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from . import figures
from .conditions import palette, stick_figure
from .controlnet import ControlNet
from .diffusion import TIMESTEPS, q_sample
from .drawings import edges_from_drawing, trace
from .files import write_atomically
from .sampling import GUIDANCE, compose, sample, seeded_noise, weigh
from .shapes import COLOURS, DARK, SIZE, tokenize
from .unet import UNet

SHEET = 256  # the sheet's pixels a side; a drawing's file has as many
PEN, RUBBER = 5, 20  # their widths on the sheet
FIRST, FINAL = 3, 25  # steps of the first answer, and of the one that stays
COUNT = 4  # pictures, each from a noise of its own
MIDWAY = TIMESTEPS // 2  # the time at which controls are looked at
HUES = (torch.tensor(list(COLOURS.values())) * 255).round().byte()

Point = tuple[float, float]


class Stroke(NamedTuple):
    """A line drawn or rubbed out in one go."""

    points: tuple[Point, ...]  # x, y in pixels of the sheet
    rubs: bool = False


@dataclass(frozen=True, eq=False)  # equal is only what is the same
class Drawn:
    """What the mouse has made; undo goes back to the one before."""

    strokes: tuple[Stroke, ...] = ()
    cells: tuple[int | None, ...] = (None,) * 16  # of the palette: hues of the lit ones
    ground: int | None = None  # hue of the other cells
    pose: tuple[Point, Point] | None = None  # centre and tip in pixels of the picture
    paper: Image.Image | None = None  # what was on the sheet before


@dataclass(frozen=True, eq=False)
class Wish:
    """All that pictures are made from; the names are sample's."""

    drawn: Drawn = Drawn()
    kinds: tuple[str, ...] = ("edge", "palette", "pose")  # conditions that count, if drawn
    prompt: str = ""
    guidance_scale: float = GUIDANCE
    conditioning_scale: float = 1.0
    control_start: float = 0.0
    control_end: float = 1.0
    in_both: bool = False
    seed: int = 0


def paper_from(path: Path) -> Image.Image:
    """The lines found in the file of a drawing, as a sheet. Raises Problem if there are none."""
    return to_pil_image(1 - edges_from_drawing(path)[0]).resize((SHEET, SHEET), Image.Resampling.NEAREST)


def sheet(drawn: Drawn) -> Image.Image:
    """The drawing in black on white, as a file would hold it."""
    image = drawn.paper.copy() if drawn.paper else Image.new("L", (SHEET, SHEET), 255)
    pen = ImageDraw.Draw(image)
    for points, rubs in drawn.strokes:
        width, tone = (RUBBER, 255) if rubs else (PEN, 0)
        pen.line(points, tone, width, joint="curve")
        for x, y in (points[0], points[-1]):
            pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], tone)
    return image


def colours(drawn: Drawn) -> Image.Image | None:
    """The palette's 4x4 cells as a picture: lit ones, the others in the ground's dark hue."""
    if drawn.ground is None and set(drawn.cells) == {None}:
        return None
    ground = (DARK * HUES[drawn.ground or 0]).round().byte()
    cells = torch.stack([ground if hue is None else HUES[hue] for hue in drawn.cells])
    picture = rearrange(cells, "(y x) c -> c y x", x=4)
    return to_pil_image(picture).resize((SIZE, SIZE), Image.Resampling.NEAREST)


def figure_of(pose: tuple[Point, Point]) -> Tensor:
    """A pose's stick figure (1, 1, 64, 64)."""
    return stick_figure(*torch.tensor(pose)[:, None] * 2 / SIZE - 1)


@lru_cache(maxsize=8)  # while a slider moves, the drawing stays
def conditions_of(drawn: Drawn, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    """The conditions (1, c, 64, 64) of what was drawn. Raises Problem if the strokes are no lines."""
    found, ink, paint = {}, sheet(drawn), colours(drawn)
    if "edge" in kinds and ink.getextrema()[0] < 255:
        tone = pil_to_tensor(ink)[None] / 255
        found["edge"] = trace(tone.expand(-1, 3, -1, -1), torch.ones_like(tone)).edges
    if "palette" in kinds and paint:
        found["palette"] = palette(pil_to_tensor(paint)[None] / 255)
    if "pose" in kinds and drawn.pose:
        found["pose"] = figure_of(drawn.pose)
    return found


def fulfil(wish: Wish, base: UNet, nets: dict[str, ControlNet], steps: int) -> Tensor:
    """The pictures (COUNT, 3, 64, 64) of a wish, by as many steps. Raises Problem, as ``sample``."""
    controls = [(nets[kind], condition, wish.conditioning_scale)
                for kind, condition in conditions_of(wish.drawn, wish.kinds).items()]
    return sample(base, wish.prompt, seeded_noise(COUNT, wish.seed), controls, wish.guidance_scale, steps,
                  in_both=wish.in_both, control_start=wish.control_start, control_end=wish.control_end)


def save(wish: Wish, pictures: Tensor, folder: Path, weights: Sequence[str] = ()) -> Path:
    """Write the pictures, what was drawn, and the command that makes the same from it."""
    names = (folder / f"board_{number:03}.png" for number in itertools.count(1))
    out = next(name for name in names if not name.exists())
    conditions = conditions_of(wish.drawn, wish.kinds)
    words = ["sample", "--prompt", wish.prompt, "--count", COUNT, "--seed", wish.seed, "--steps", FINAL]
    for name in ("guidance_scale", "conditioning_scale", "control_start", "control_end"):
        words += [f"--{name.replace('_', '-')}", getattr(wish, name)]
    words += ["--in-both"] * wish.in_both
    for kind, image in (("edge", sheet(wish.drawn)), ("palette", colours(wish.drawn))):
        if kind in conditions:
            words += [f"--{kind}", out.with_stem(f"{out.stem}_{kind}")]
            with write_atomically(words[-1]) as file:
                image.save(file, format="png")
    if "pose" in conditions:
        words += ["--pose", *itertools.chain(*wish.drawn.pose)]
    words += [*weights, "--device", "cpu", "--out", out]
    with write_atomically(out.with_suffix(".txt")) as file:
        file.write(f"{shlex.join(map(str, ['python', '-m', 'minicontrolnet', *words]))}\n".encode())
    figures.save_sample(conditions, pictures, out, title=f'prompt: "{wish.prompt}"')
    return out


@torch.no_grad()
def heat_maps(wish: Wish, nets: dict[str, ControlNet], picture: Tensor) -> Tensor:
    """The 13 controls for one picture (3, 64, 64) midway as colours (13, 3, 64, 64).

    Each map is the mean size over its channels, from 0 (black) to its own largest (light).
    """
    t, prompt = torch.tensor([MIDWAY]), tokenize(wish.prompt)
    xt = q_sample(picture[None] * 2 - 1, t, seeded_noise(COUNT, wish.seed)[:1])
    controls = compose(*(weigh(nets[kind](xt, t, prompt, condition), wish.conditioning_scale)
                         for kind, condition in conditions_of(wish.drawn, wish.kinds).items()))
    sizes = [control.abs().mean(1, keepdim=True) for control in controls]
    grey = torch.cat([F.interpolate(size / size.max().clamp(min=1e-6), (SIZE, SIZE)) for size in sizes])
    return torch.from_numpy(figures.plt.colormaps["magma"](grey[:, 0].numpy())[..., :3]).movedim(-1, 1)
