"""Options that the commands and the lessons share, and how a problem is told."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from .errors import Problem


def number(kind: type, low: float, high: float) -> Callable[[str], float]:
    """An argparse type: a number from low to high, said in words where it is not."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            noun = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun} from {low} to {high}")
        return value

    return parse


def device(text: str) -> torch.device:
    """An argparse type: auto (CUDA if there is one, else CPU), cpu, cuda or mps."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = ("cuda" if there["cuda"] else "cpu") if text == "auto" else text
    if name not in there:
        raise argparse.ArgumentTypeError(f"{text!r} is not a device; give auto, cpu, cuda or mps")
    if not there[name]:
        raise argparse.ArgumentTypeError(f"this machine has no {name!r} device; give --device cpu")
    return torch.device(name)


@contextmanager
def problems_in_one_sentence() -> Iterator[None]:
    """End the program with a sentence, not a traceback, where the user can mend the problem."""
    try:
        yield
    except Problem as problem:
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt as interrupt:
        print(interrupt or "interrupted", file=sys.stderr)
        sys.exit(130)
