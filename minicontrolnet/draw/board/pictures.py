"""The pictures that follow a drawing, step by step, and the controls behind them."""

import base64
import io
from collections.abc import Iterator
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from ...controlnet import ControlNet, Controls
from ...errors import check_count, check_range
from ...sampling import Control, compose, mask_controls, sample_steps, seeded_noise, weigh
from ...shapes import to_image
from ...unet import UNet
from .asked import COUNT, FINAL, Asked
from .sheet import Seen, advice, as_image, see


class Watched:
    """A ControlNet that remembers its last controls, so that they can be looked at."""

    def __init__(self, net: ControlNet):
        self.net = net
        self.controls: Controls | None = None  # for the four pictures

    def __call__(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Controls:
        self.controls = self.net(xt, t, prompt, condition)
        return self.controls


class Step(NamedTuple):
    """The state of sampling after one DDIM step, as people see it."""

    number: int  # 1, 2, ...
    xt: Tensor  # (4, 3, 64, 64) in [0, 1]: what the sampler holds
    pictures: Tensor  # (4, 3, 64, 64) in [0, 1]: the predicted x0
    heat: list[Tensor]  # 13 maps (h, w) in [0, 1]: the size of each control; empty if there was none


def follow(asked: Asked, seen: Seen, base: UNet, nets: dict[str, ControlNet]) -> Iterator[Step]:
    """Sample the four pictures of a drawing. The last step's are those of ``sample``, bit for bit."""
    watched = [Watched(nets[kind]) for kind in seen.conditions]
    controls = []
    for net, condition in zip(watched, seen.conditions.values()):
        controls.append(Control(net, condition, strength(asked), seen.region))
    if asked.steps < FINAL and not _has_control(asked):
        controls = []  # a preview of a few steps can miss a narrow window
    options = {}
    if controls:
        options = {"in_both": asked.in_both, "control_start": asked.control_start, "control_end": asked.control_end}
    steps = sample_steps(base, asked.prompt, seeded_noise(COUNT, asked.seed), controls, asked.guidance_scale,
                         asked.steps, **options)
    for number, (xt, x0) in enumerate(steps, start=1):
        yield Step(number, to_image(xt), to_image(x0), heat_maps(asked, seen, watched))
        for net in watched:
            net.controls = None


def _has_control(asked: Asked) -> bool:
    return any(asked.control_start <= i / asked.steps < asked.control_end for i in range(asked.steps))


def strength(asked: Asked) -> float | list[float]:
    """The strength of the 13 controls, as ``sample`` computes it from its two options."""
    if set(asked.connections) == {1.0}:
        return asked.conditioning_scale
    return [asked.conditioning_scale * factor for factor in asked.connections]


def heat_maps(asked: Asked, seen: Seen, watched: list[Watched]) -> list[Tensor]:
    """How large each of the 13 controls is, for one picture: 13 maps (h, w) in [0, 1].

    A map is the mean absolute value over the channels. We divide it by the largest value that it
    would have at strength 1, so it becomes darker when its slider is moved down.
    """
    added = [net.controls for net in watched if net.controls is not None]
    if not added:
        return []
    sizes = []
    largest = []
    for controls, raw in zip(_weighed(asked, seen, added), compose(*added)):
        sizes.append(controls[asked.look_at].abs().mean(0))
        largest.append(raw[asked.look_at].abs().mean(0).max().clamp(min=1e-6))
    return [(size / most).clamp(0, 1) for size, most in zip(sizes, largest)]


def _weighed(asked: Asked, seen: Seen, added: list[Controls]) -> Controls:
    weighed = [weigh(controls, strength(asked)) for controls in added]
    if seen.region is not None:
        weighed = [mask_controls(controls, seen.region) for controls in weighed]
    return compose(*weighed)


# %% As messages to the page


def messages(asked: Asked, base: UNet, nets: dict[str, ControlNet]) -> Iterator[dict]:
    """The messages to the page while pictures are made: one for each step."""
    seen = see(asked)
    for step in follow(asked, seen, base, nets):
        message = {"step": step.number, "steps": asked.steps, "pictures": as_text(row(step.pictures)),
                   "noisy": as_text(as_image(step.xt[asked.look_at, None])),
                   "heat": [_bytes(size) for size in step.heat]}
        if step.number == 1:
            edges = seen.conditions.get("edge")
            message["edges"] = None if edges is None else as_text(as_image(edges))
            message["zoom"] = seen.zoom
        if step.number == asked.steps:
            message["advice"] = advice(asked, seen)
        yield message


def row(pictures: Tensor, columns: int = COUNT) -> Image.Image:
    """The pictures (n, 3, 64, 64) side by side, without margins; after ``columns`` of them a new row."""
    check_count("the number of columns", columns)
    return to_pil_image(to_bytes(make_grid(pictures, columns, padding=0)))


def to_bytes(pictures: Tensor) -> Tensor:
    """Values in [0, 1] as whole numbers from 0 to 255. Raises Problem for others, since bytes would wrap around."""
    check_range("the pictures", pictures)
    return (pictures * 255).round().clamp(0, 255).to(torch.uint8)


def as_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def as_text(image: Image.Image) -> str:
    return base64.b64encode(as_png(image)).decode()


def _bytes(size: Tensor) -> str:
    return base64.b64encode(to_bytes(size).numpy().tobytes()).decode()
