"""Options that the commands and the lessons share, and how a problem is told."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import torch

from .files import Problem


def in_range(kind: type, low: float, high: float) -> Callable[[str], float]:
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


def file_to_write(ending: str) -> Callable[[str], Path]:
    """An argparse type: the name of a file with this ending, such as ".png"."""

    def parse(text: str) -> Path:
        if Path(text).suffix.lower() != ending:
            raise argparse.ArgumentTypeError(f"{text!r} is not the name of a {ending} file")
        return Path(text)

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


def tell_problems() -> None:
    """From now on a Problem and Ctrl-C end the program with one sentence, not with a traceback.

    A terminal that lacks a letter, of a file's name say, gets its number instead.
    """
    for stream in sys.stdout, sys.stderr:  # a notebook's have no such method
        getattr(stream, "reconfigure", dict)(errors="backslashreplace")
    usual = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, Problem):
            print(f"error: {error}", file=sys.stderr)
        elif issubclass(kind, KeyboardInterrupt):
            print(str(error) or "interrupted", file=sys.stderr)
        else:
            usual(kind, error, trace)

    sys.excepthook = tell
