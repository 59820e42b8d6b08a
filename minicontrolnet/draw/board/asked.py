"""The page's requests: a drawing and some numbers, checked one by one.

The page sends JSON. ``read_asked`` turns it into an ``Asked`` or raises a Problem with one sentence,
so everything behind this file can rely on its values.
"""

import base64
import binascii
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...conditions import CHANNELS
from ...errors import Problem
from ...sampling import GUIDANCE
from ...shapes import COLOURS, SIZE, tokenize

FINAL = 25  # the steps of the pictures that stay, as in the ``sample`` command
COUNT = 4  # pictures, each from its own noise
CONNECTIONS = 13  # controls of a ControlNet: 12 skips and the middle block
TOOLS = ("pen", "eraser", "region", "outside")  # "region" paints the region of control, "outside" removes it
MOST_POINTS = 50_000

Point = tuple[float, float]


@dataclass(frozen=True)
class Stroke:
    """A line drawn in one go. Its points are x and y, each a share of the sheet from the upper left."""

    points: tuple[Point, ...]
    tool: str = "pen"


@dataclass(frozen=True)
class Asked:
    """Everything that the pictures depend on. A name that ``sample`` has as well means the same."""

    strokes: tuple[Stroke, ...] = ()
    paper: bytes = b""  # an edge map that lies under the strokes: 64 x 64 bits, row by row, or nothing
    cells: tuple[int | None, ...] = (None,) * 16  # of the palette: an index into COLOURS, or the background
    background: int | None = None  # the colour of the palette's other cells
    pose: tuple[Point, Point] | None = None  # the centre and the tip, in pixels of the picture
    outer: bool = True  # the ControlNet sees the outer outline of the drawing only
    kinds: tuple[str, ...] = tuple(CHANNELS)  # the ControlNets that are switched on
    connections: tuple[float, ...] = (1.0,) * CONNECTIONS  # a factor for each of the 13 controls
    look_at: int = 0  # the picture whose steps and controls are shown
    prompt: str = ""
    guidance_scale: float = GUIDANCE
    conditioning_scale: float = 1.0
    control_start: float = 0.0
    control_end: float = 1.0
    in_both: bool = False
    seed: int = 0
    steps: int = FINAL


def read_asked(sent: Any) -> Asked:
    """Check what a page has sent. Raises Problem for a value that makes no sense."""
    if not isinstance(sent, dict):
        raise Problem("the request is not a JSON object; reload the page of the board")
    unknown = set(sent) - set(READERS)
    if unknown:
        raise Problem(f"the request has a field {min(unknown)!r} that the board does not know; reload the page")
    asked = Asked(**{name: READERS[name](name, value) for name, value in sent.items()})
    tokenize(asked.prompt)
    if asked.control_start >= asked.control_end:
        raise Problem("control has to start before it ends; move one of the two sliders")
    if sum(len(stroke.points) for stroke in asked.strokes) > MOST_POINTS:
        raise Problem(f"the drawing has more than {MOST_POINTS:,} points; clear the sheet and draw again")
    return asked


# %% One reader for each kind of value


def _number(low: float, high: float) -> Callable[[str, Any], float]:
    def read(name: str, value: Any) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            raise Problem(f"{name} is {_short(value)}; it has to be a number from {low} to {high}")
        return float(value)

    return read


def _whole_number(low: int, high: int) -> Callable[[str, Any], int]:
    def read(name: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Problem(f"{name} is {_short(value)}; it has to be a whole number from {low} to {high}")
        return value

    return read


def _list_of(length: int, read_one: Callable[[str, Any], Any]) -> Callable[[str, Any], tuple]:
    def read(name: str, value: Any) -> tuple:
        if not isinstance(value, list) or len(value) != length:
            raise Problem(f"{name} is {_short(value)}; it has to be a list of {length} values")
        return tuple(read_one(name, one) for one in value)

    return read


def _or_none(read_one: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    def read(name: str, value: Any) -> Any:
        return None if value is None else read_one(name, value)

    return read


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise Problem(f"{name} is {_short(value)}; it has to be a text of at most 1000 letters")
    return value


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise Problem(f"{name} is {_short(value)}; it has to be true or false")
    return value


def _kinds(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one in CHANNELS for one in value):
        raise Problem(f"{name} is {_short(value)}; it has to be a list of names from {', '.join(CHANNELS)}")
    return tuple(kind for kind in CHANNELS if kind in value)


def _strokes(name: str, value: Any) -> tuple[Stroke, ...]:
    if not isinstance(value, list):
        raise Problem(f"{name} is {_short(value)}; it has to be a list of strokes")
    return tuple(_stroke(one) for one in value)


def _stroke(value: Any) -> Stroke:
    if not isinstance(value, dict) or value.get("tool") not in TOOLS:
        raise Problem(f"a stroke is {_short(value)}; it needs a tool, one of {', '.join(TOOLS)}")
    points = value.get("points")
    if not isinstance(points, list) or not points:
        raise Problem(f"the points of a stroke are {_short(points)}; they have to be a list of pairs x, y")
    return Stroke(tuple(_place("a point of a stroke", point) for point in points), value["tool"])


def _paper(name: str, value: Any) -> bytes:
    try:
        bits = base64.b64decode(_text(name, value), validate=True)
    except binascii.Error:
        bits = b"?"
    if len(bits) not in (0, SIZE * SIZE // 8):
        raise Problem(f"{name} is not an edge map of {SIZE} x {SIZE} bits; open the file again")
    return bits


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


_share = _number(0.0, 1.0)
_place = _list_of(2, _number(-1.0, 2.0))  # a stroke may leave the sheet
_hue = _or_none(_whole_number(0, len(COLOURS) - 1))
READERS: dict[str, Callable[[str, Any], Any]] = {
    "strokes": _strokes,
    "paper": _paper,
    "cells": _list_of(16, _hue),
    "background": _hue,
    "pose": _or_none(_list_of(2, _list_of(2, _number(0.0, float(SIZE))))),
    "outer": _switch,
    "kinds": _kinds,
    "connections": _list_of(CONNECTIONS, _number(0.0, 10.0)),
    "look_at": _whole_number(0, COUNT - 1),
    "prompt": _text,
    "guidance_scale": _number(-100.0, 100.0),
    "conditioning_scale": _number(-100.0, 100.0),
    "control_start": _share,
    "control_end": _share,
    "in_both": _switch,
    "seed": _whole_number(0, 2**31),
    "steps": _whole_number(1, 100),
}
