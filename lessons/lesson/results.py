"""Records: the result files that ship in lessons/results."""

import json
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from minicontrolnet import Paired, paired
from minicontrolnet.errors import Problem

RESULTS = Path(__file__).resolve().parents[1] / "results"


def load_results(name: str) -> dict:
    """A shipped result file, such as "09_evaluation": its command, versions and numbers. Experiments add findings."""
    path = RESULTS / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not is_record(content):
        raise damaged(path)
    return content


def is_record(content: object) -> bool:
    """Whether a file's content has the parts that every record has: the command that made it, and numbers."""
    return isinstance(content, dict) and "command" in content and isinstance(content.get("numbers"), dict)


def finding(record: dict, name: str) -> Paired:
    """A difference that a record lists under its findings, with its 95 % interval over seeds or pictures."""
    return paired(record["findings"][name])


def means(scores: dict, tests: list[str], score: str) -> list[float]:
    """The mean over seeds of one score, for each of several tests."""
    return [fmean(scores[test][score]) for test in tests]


def load_pictures(name: str, side: int = 64) -> Tensor:
    """The pictures (n, 3, side, side) in [0, 1] beside a result file, row by row."""
    path = RESULTS / f"{name}_pictures.png"
    try:
        return read_pictures(path, side)
    except (OSError, ValueError, SyntaxError):  # PIL raises SyntaxError for some damaged files
        raise damaged(path) from None


def read_pictures(path: Path, side: int | None = None, columns: int | None = None) -> Tensor:
    """Cut a PNG into square pictures (n, 3, side, side) in [0, 1], row by row. Give the side or the columns."""
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))) / 255
    side = side or pixels.shape[1] // columns
    return rearrange(pixels, "(y h) (x w) c -> (y x) c h w", h=side, w=side)


def damaged(path: Path) -> Problem:
    name = path.stem.removesuffix("_pictures")
    return Problem(f"{path} is missing or damaged; restore it from the repository, or run"
                   f" python lessons/experiments/{name}.py and copy its output there")
