"""What the lessons share: options, predictions, tables, result files, figures' places.

Importing it also makes ``import minicontrolnet`` work from a plain clone.
"""

import argparse
import json
import os
import platform
import select
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import save_image

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from minicontrolnet import figures  # noqa: E402
from minicontrolnet.files import Problem, check_place, write_atomically  # noqa: E402
from minicontrolnet.options import device, in_range, tell_problems  # noqa: E402

RESULTS = HERE / "results"
ANSWERS = HERE.parent / "answers"
args = argparse.Namespace()  # filled by options(): one lesson runs in one process


def options(name: str, steps: int, quick_steps: int,
            meaning: str = "training steps") -> argparse.Namespace:
    """Read the options that every lesson has; ``name`` is its file's, without ".py".

    From here on a Problem and Ctrl-C end the lesson with a sentence, not a traceback.
    In a notebook ``sys.argv = ["03_zero_conv.py", "--quick"]`` in a cell before stands
    for the words typed in a terminal; without it the defaults hold.
    """
    parser = argparse.ArgumentParser(
        prog=f"python lessons/{name}.py",
        description="What it is about stands at the top of the file.")
    add = parser.add_argument
    add("--quick", action="store_true", help="a smoke run of seconds; no evidence")
    add("--seed", type=in_range(int, 0, 2**31), default=0)
    add("--steps", type=in_range(int, 1, 10**6), help=meaning)
    add("--device", type=device, default="auto", help="auto, cpu, cuda or mps")
    add("--out", type=Path, default=Path("outputs"), metavar="DIR")
    add("--mine", type=Path, nargs="?", const=ANSWERS, metavar="DIR",
        help="run with your answers to the exercises in place of the package's")
    add("--answer", choices=list("abcd"), help="your prediction")
    vars(args).clear()  # in a notebook this may run again, with other options
    kernels_own = in_notebook() and Path(sys.argv[0]).stem != name
    parser.parse_args([] if kernels_own else None, args)
    args.name = name
    if args.steps is None:
        args.steps = quick_steps if args.quick else steps
    tell_problems()
    if args.mine:
        from exercises.checking import use_mine
        print("\n".join(use_mine(args.mine.resolve())))
    check_place(args.out / f"{name}.png")  # better told now than after a minute's work
    return args


def in_notebook() -> bool:
    return "ipykernel" in sys.modules


def say(first: str, text: str) -> None:
    """Print text in lines of 88 characters, behind what ``first`` says."""
    print(textwrap.fill(text, 88, initial_indent=first,
                        subsequent_indent=" " * len(first)))


# %% The prediction


def predict(question: str, **choices: str) -> str:
    """Ask a multiple-choice question before its answer is measured; returns a letter.

    --answer b answers it; else a terminal or a notebook waits (Enter skips); of a pipe
    or a file a line is read for each question, if it is there. All else goes on.
    """
    print()
    say("PREDICT  ", question)
    for letter, choice in choices.items():
        say(f"   {letter}) ", choice)
    asked = in_notebook() or (sys.stdin is not None and sys.stdin.isatty())
    letter = args.answer or ""
    if asked and not letter:
        with suppress(NotImplementedError, EOFError):  # a notebook without an input box
            letter = first_letter(input("   your answer (Enter skips): "))
    elif letter := letter or first_letter(piped_line()):
        print(f"   your answer: {letter}")
    if letter and letter not in choices:
        print(f"   there is no choice {letter}), so it counts as skipped")
    return letter if letter in choices else ""


def first_letter(typed: str) -> str:
    return typed.strip().lower()[:1]


def piped_line() -> str:
    """The next line of standard input, as far as it is there: nobody is waited for.

    Empty where there is no such input, and on Windows, where select knows no pipes.
    """
    line = b""
    with suppress(AttributeError, OSError, ValueError):  # no input, or not a real file
        descriptor = sys.stdin.fileno()
        while len(line) < 100 and select.select([descriptor], [], [], 0)[0]:
            byte = os.read(descriptor, 1)  # no more: the rest is for the next question
            if byte in (b"", b"\n"):
                break
            line += byte
    return line.decode(errors="replace")


def reveal(guess: str, right: str, because: str, **wrong: str) -> None:
    """Tell the right answer and why, and what a wrong guess would have meant.

    Where numbers decide which choice is right, ``wrong`` has a sentence for each one;
    that of the right one is not told.
    """
    if guess in wrong and guess != right:
        say(f"   You said {guess}): ", wrong[guess])
    say(f"ANSWER   {right}) ", because + " (Of a smoke run.)" * args.quick)


# %% Results


def table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns; the first row is the heading."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    print()
    for row in rows:
        cells = (f"{cell!s:<{width}}" for cell, width in zip(row, widths))
        print("   " + "  ".join(cells).rstrip())


def verdict(*sentences: str) -> None:
    """Print what the numbers say, unless they come from a smoke run."""
    if args.quick:
        sentences = ("none: --quick is a smoke run, its numbers are no evidence",)
    print()
    for sentence, first in zip(sentences, ["VERDICT  ", *[" " * 9] * len(sentences)]):
        say(first, sentence)


def save_results(numbers: dict, pictures: Tensor | None = None,
                 columns: int = 8) -> None:
    """Write what was measured to the output folder; lessons/results has what ships.

    numbers: plain values and tensors, by name.
    pictures (n, 3, h, w) in [0, 1]: small ones that a later figure shows, in one PNG.
    """
    versions = (f"Python {platform.python_version()}, torch {torch.__version__},"
                f" {torch.get_num_threads()} threads")
    made = {"command": " ".join(["python", *sys.argv]), "seed": args.seed,
            "steps": args.steps, "versions": versions, "numbers": numbers}
    path = args.out / f"{file_name()}.json"
    with write_atomically(path) as file:
        file.write(json.dumps(made, indent=1, default=Tensor.tolist).encode())
    print(f"   results: {path}")
    if pictures is not None:
        beside = path.with_name(f"{file_name()}_pictures.png")
        with write_atomically(beside) as file:
            save_image(pictures, file, nrow=columns, padding=0, format="png")


def load_results(name: str) -> dict:
    """The result file that ships: command, seed, steps, versions, numbers."""
    path = RESULTS / f"{name}.json"
    problem = Problem(f"{path} is missing or damaged; restore it from the repository,"
                      f" or run python lessons/experiments/{name}.py, and copy what it"
                      " makes there")

    class Numbers(dict):
        """Tells the problem when a lesson looks for what is not there."""

        def __missing__(self, key: str) -> None:
            raise problem

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_hook=Numbers)
        content["numbers"].keys(), content["command"], content["steps"]
    except (OSError, ValueError, TypeError, AttributeError):
        raise problem from None
    return content


def load_pictures(name: str, side: int = 64) -> Tensor:
    """The pictures (n, 3, side, side) in [0, 1] beside a result file, row by row."""
    from einops import rearrange
    from minicontrolnet.drawings import read_image

    grid, _ = read_image(RESULTS / f"{name}_pictures.png", at_most=10**4)
    return rearrange(grid, "1 c (y h) (x w) -> (y x) c h w", h=side, w=side)


def save_figure(figure: Figure, which: str = "") -> None:
    """Write a lesson's figure to the output folder; a smoke run's is marked as such.

    which: what is added to the name of a second figure, such as "_architecture".
    """
    if args.quick:
        figure.text(0.5, 0.5, "--quick: no evidence", ha="center", va="center",
                    rotation=25, fontsize=60, color="grey", alpha=0.4)
    path = args.out / f"{file_name(which)}.png"
    figures.save(figure, path)
    print(f"   figure: {path}")


def file_name(which: str = "") -> str:
    return args.name + which + ("_quick" if args.quick else "")
