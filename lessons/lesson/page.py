"""A run of a lesson: its options, its prediction, its verdict, and the files that it writes."""

import argparse
import io
import json
import os
import platform
import select
import sys
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from minicontrolnet import Paired
from minicontrolnet.draw.figures import Figure, as_png
from minicontrolnet.run.files import check_place, write_file
from minicontrolnet.run.options import any_path, device, in_range, read_words, report_problems

ANSWERS = Path(__file__).resolve().parents[2] / "answers"


class Lesson:
    """One run of a lesson or of an experiment.

    name: the name of its file without ".py". steps, quick_steps: how many steps it takes by
    default and with --quick. meaning: what --steps counts. least_steps: --steps refuses a smaller
    number, such as one picture where we need an interval over pictures.

    The options are attributes: ``seed``, ``steps``, ``quick``, ``device`` and ``out``. From here
    on, a Problem or Ctrl-C ends the lesson with one sentence.
    """

    def __init__(self, name: str, steps: int, quick_steps: int, meaning: str = "training steps",
                 least_steps: int = 1):
        args = read_options(name, meaning, least_steps)
        self.name = name
        self.seed: int = args.seed
        self.quick: bool = args.quick
        self.device: torch.device = args.device
        self.out: Path = args.out
        self.answer: str = args.answer or ""
        self.steps: int = args.steps or (quick_steps if self.quick else steps)
        report_problems()
        if args.mine:
            from exercises.checking import use_mine

            print("\n".join(use_mine(args.mine.resolve())))
        check_place(self.path(".png"))  # now, and not after a minute's work

    def path(self, ending: str, which: str = "") -> Path:
        """The path of an output file, such as ``path(".json")``. With --quick, its name contains "quick"."""
        quick = "_quick" if self.quick else ""
        return self.out / f"{self.name}{which}{quick}{ending}"

    # %% The prediction

    def predict(self, question: str, **choices: str) -> str:
        """Ask a multiple-choice question before its answer is measured. Returns a letter, or "".

        The option --answer b answers it. Otherwise we wait for an answer in a terminal or a
        notebook, where Enter skips the question. From a pipe or a file we read one line, if there is one.
        """
        print()
        say("PREDICT  ", question)
        for letter, choice in choices.items():
            say(f"   {letter}) ", choice)
        letter = self.answer
        waits = in_notebook() or (sys.stdin is not None and sys.stdin.isatty())
        if waits and not letter:
            with suppress(NotImplementedError, EOFError):  # a notebook without an input box
                letter = first_letter(input("   your answer (Enter skips): "))
        else:
            letter = letter or first_letter(piped_line())
            if letter:
                print(f"   your answer: {letter}")
        if letter and letter not in choices:
            print(f"   there is no choice {letter}), so it counts as skipped")
        return letter if letter in choices else ""

    def reveal(self, guess: str, right: str, because: str, **wrong: str) -> None:
        """Print the right answer and its reason. If the guess is wrong, first explain why.

        If the numbers decide which choice is right, ``wrong`` has a sentence for each choice.
        """
        if guess in wrong and guess != right:
            say(f"   You said {guess}): ", wrong[guess])
        if self.quick:
            because += " (This run is a smoke test.)"
        say(f"ANSWER   {right}) ", because)

    # %% What the numbers show

    def verdict(self, *sentences: str) -> None:
        """Print what the numbers show, unless they come from a smoke test."""
        if self.quick:
            sentences = ("left out, because a run with --quick is a smoke test; run the lesson without --quick"
                         " to see it",)
        print()
        label = "VERDICT  "
        for sentence in sentences:
            say(label, sentence)
            label = " " * len(label)

    def save_results(self, numbers: dict, pictures: Tensor | None = None, columns: int = 8) -> None:
        """Write numbers, and how they were measured, to the output folder as JSON.

        numbers: plain values and tensors, by name.
        pictures: (n, 3, h, w) in [0, 1], small ones for a later figure, in one PNG.
        """
        made = {
            "command": " ".join(["python", *sys.argv]),
            "seed": self.seed,
            "steps": self.steps,
            "versions": f"Python {platform.python_version()}, torch {torch.__version__},"
                        f" {torch.get_num_threads()} threads",
            "numbers": numbers,
        }
        path = self.path(".json")
        write_file(path, json.dumps(made, indent=1, default=Tensor.tolist).encode())
        print(f"   results: {path}")
        if pictures is not None:
            from torchvision.utils import save_image

            file = io.BytesIO()
            save_image(pictures, file, nrow=columns, padding=0, format="png")
            write_file(self.path("_pictures.png"), file.getvalue())

    def save_figure(self, figure: Figure, which: str = "") -> None:
        """Write a figure to the output folder, and show it in a notebook. With --quick it carries a warning.

        which: this is added to the name of a second figure, such as "_architecture".
        """
        if self.quick:
            figure.text(0.5, 0.5, "--quick: no evidence", ha="center", va="center", rotation=25,
                        fontsize=60, color="grey", alpha=0.4)
        path = self.path(".png", which)
        png = as_png(figure)
        write_file(path, png)
        if in_notebook():
            from IPython.display import Image, display

            display(Image(png, width=960))
        print(f"   figure: {path}")


def read_options(name: str, meaning: str, least_steps: int) -> argparse.Namespace:
    """Read the options that every lesson has.

    A notebook has no command line. There an earlier cell may set ``sys.argv``, for example to
    ``["03_zero_conv.py", "--quick"]``. Without such a cell we use the defaults.
    """
    parser = argparse.ArgumentParser(prog=f"python lessons/{name}.py",
                                     description="The top of the file explains what the lesson is about.")
    add = parser.add_argument
    add("--quick", action="store_true", help="a smoke test of a few seconds; its numbers are no evidence")
    add("--seed", type=in_range(int, 0, 2**31), default=0, help="the seed of all random numbers")
    add("--steps", type=in_range(int, least_steps, 10**6), help=f"the number of {meaning}")
    add("--device", type=device, default="auto", help="auto, cpu, cuda or mps")
    add("--out", type=any_path, default=Path("outputs"), metavar="DIR", help="where to save figures and numbers")
    add("--mine", type=any_path, nargs="?", const=ANSWERS, metavar="DIR",
        help="run with your own solutions of the exercises")
    add("--answer", choices=list("abcd"), help="your prediction")
    words_are_the_kernels = in_notebook() and Path(sys.argv[0]).stem != name
    return read_words(parser, [] if words_are_the_kernels else None)


def in_notebook() -> bool:
    return "ipykernel" in sys.modules


def say(label: str, text: str) -> None:
    """Print text in lines of 88 characters, behind a label."""
    print(textwrap.fill(text, 88, initial_indent=label, subsequent_indent=" " * len(label)))


def table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns. The first row is the heading."""
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows)]
    print()
    for row in rows:
        cells = [f"{cell!s:<{width}}" for cell, width in zip(row, widths)]
        print("   " + "  ".join(cells).rstrip())


def percent(values: Iterable[float]) -> list[str]:
    """Numbers such as 0.93 as "93%", for a table."""
    return [f"{value:.0%}" for value in values]


def with_interval(difference: Paired, digits: int = 3) -> str:
    """A difference, its 95 % interval and what it shows, such as "+0.48 (+0.47 to +0.49), shown"."""
    mean = f"{difference.mean:+.{digits}f}"
    low = f"{difference.low:+.{digits}f}"
    high = f"{difference.high:+.{digits}f}"
    return f"{mean} ({low} to {high}), {difference.verdict}"


def two_digits(values: Iterable[float]) -> list[str]:
    """Numbers with two digits after the point, for a table."""
    return [f"{value:.2f}" for value in values]


def first_letter(typed: str) -> str:
    return typed.strip().lower()[:1]


def piped_line() -> str:
    """The next line of standard input, or as much of it as is there now. We do not wait for more.

    Returns "" if there is no input, and on Windows, where select does not work with pipes.
    """
    line = b""
    with suppress(AttributeError, OSError, ValueError):  # there is no input, or it is not a real file
        descriptor = sys.stdin.fileno()
        while len(line) < 100 and select.select([descriptor], [], [], 0)[0]:
            byte = os.read(descriptor, 1)  # one byte at a time, because the rest is for the next question
            if byte in (b"", b"\n"):
                break
            line += byte
    return line.decode(errors="replace")
