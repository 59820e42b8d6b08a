"""Options that the commands and the lessons share, and how a problem is reported."""

import argparse
import errno
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from ..conditions import CHANNELS
from ..errors import Problem, advice_on_missing


def in_range(kind: type, low: float, high: float) -> Callable[[str], float]:
    """An argparse type: a number from low to high."""

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


class Once(argparse.Action):
    """Store a value, and refuse a second one: of two drawings argparse would drop the first without a word."""

    def __call__(self, parser, namespace, values, option_string=None):
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string} is given twice; give one condition of each kind")
        setattr(namespace, self.dest, values)


def any_path(text: str) -> Path:
    """An argparse type: the name of a file or a folder.

    A ~ at its beginning is the home folder, also where the shell leaves it, as in --edge=~/drawing.png.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is empty; give the name of a file or a folder")
    if re.match(r"[A-Za-z]{2,}://", text):
        raise argparse.ArgumentTypeError(f"{text!r} is an address; download the file first, and give its name on this"
                                         " machine")
    return Path(os.path.expanduser(text))


def file_to_write(ending: str) -> Callable[[str], Path]:
    """An argparse type: the name of a file with this ending, such as ".png"."""

    def parse(text: str) -> Path:
        found = any_path(text)
        if found.suffix.lower() != ending:
            raise argparse.ArgumentTypeError(f"{text!r} is not the name of a {ending} file")
        return found

    return parse


def read_words(parser: argparse.ArgumentParser, words: list[str] | None) -> argparse.Namespace:
    """Parse a command line; None is the program's own. argparse takes ``--prompt=--`` for an option without a value."""
    for word in sys.argv[1:] if words is None else words:
        if word.startswith("--") and word.endswith("=--"):
            parser.error(f"{word!r} has no value, since -- is none; write the value after the =")
    args, left = parser.parse_known_args(words)
    if left:
        advice = ""
        if not any(word.startswith("-") for word in left):  # the shell cuts a text at its spaces
            example = ', behind its option, such as --prompt "red star on blue"' if hasattr(args, "prompt") else ""
            advice = f"; leave out what does not belong here, and put a text with spaces in quotes{example}"
        parser.error(f"unrecognized arguments: {' '.join(left)}{advice}")
    return args


def hint_at_idle_weights(args: argparse.Namespace, kinds: Iterable[str], advice: str) -> None:
    """Print a hint about weights that are given for ControlNets which do not take part.

    Raises Problem if such a file does not exist: its name is probably mistyped.
    """
    idle = {f"--{kind}-weights": getattr(args, f"{kind}_weights") for kind in CHANNELS if kind not in kinds}
    idle = {option: path for option, path in idle.items() if path}
    for option, path in idle.items():
        if not os.path.exists(path):
            raise Problem(f"{option} {path} does not exist; {advice_on_missing(path)}, or leave the option out")
    if idle:
        verb = "has" if len(idle) == 1 else "have"
        print(f"hint: {', '.join(idle)} {verb} no effect; {advice}")


def device(text: str) -> torch.device:
    """An argparse type: auto (CUDA if there is any, else the CPU), cpu, cuda or mps."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = ("cuda" if available["cuda"] else "cpu") if text == "auto" else text
    if name not in available:
        raise argparse.ArgumentTypeError(f"{text!r} is not a device; give auto, cpu, cuda or mps")
    if not available[name]:
        raise argparse.ArgumentTypeError(f"this machine has no {name!r} device; give --device cpu")
    return torch.device(name)


def report_problems() -> None:
    """From now on a Problem or Ctrl-C ends the program with one sentence, not with a traceback.

    Warnings become one line that starts with "hint:". A letter that the terminal cannot show is
    replaced by its number. A stream that is closed is replaced by one that goes nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))
        elif hasattr(stream, "reconfigure"):  # a notebook's streams have no such method
            stream.reconfigure(errors="backslashreplace")
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as during the imports, see interrupts.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    usual = sys.excepthook

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, Problem):
            print(f"error: {error}", file=sys.stderr)
        elif issubclass(kind, KeyboardInterrupt):
            print(str(error) or "interrupted", file=sys.stderr)
        elif issubclass(kind, BrokenPipeError):  # such as in "... | head -1": the reader has seen enough
            close_stdout()
        elif issubclass(kind, OSError) and error.errno == errno.ENOSPC:
            close_stdout()
            print(f"error: cannot write the output ({error}); free some space", file=sys.stderr)
        else:
            usual(kind, error, trace)

    sys.excepthook = report
    warnings.showwarning = _show_hint


def close_stdout() -> None:
    """Send standard output nowhere, so that Python does not fail a second time when it flushes at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_hint(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
    print(f"hint: {message}", file=sys.stderr)
