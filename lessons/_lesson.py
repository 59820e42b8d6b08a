"""What the lessons share: their options, the prediction, the result, the figure's place.

Importing it also makes ``import minicontrolnet`` work from a plain clone.
"""

import argparse
import json
import math
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.io import read_image
from torchvision.utils import save_image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from exercises import checking  # noqa: E402
from minicontrolnet import figures  # noqa: E402
from minicontrolnet.options import device, number, problems_in_one_sentence  # noqa: E402
from minicontrolnet.training import write_atomically  # noqa: E402


def options(doc: str, steps: int, quick_steps: int, full_steps: int, meaning: str = "training steps") -> argparse.Namespace:
    """Read the options that every lesson has; ``steps`` becomes the number for the mode chosen."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="a smoke run of seconds; no evidence")
    mode.add_argument("--full", action="store_true", help="the whole experiment")
    parser.add_argument("--seed", type=number(int, 0, 2**31), default=0)
    parser.add_argument("--steps", type=number(int, 1, 10**6), help=meaning)
    parser.add_argument("--device", type=device, default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--out", type=Path, default=Path("outputs"), metavar="DIR")
    parser.add_argument("--mine", type=Path, nargs="?", const=checking.ANSWERS, metavar="DIR",
                        help="run with your answers to the exercises in place of the package's functions")
    parser.add_argument("--ask", action="store_true", help="wait for your prediction")
    in_notebook = "ipykernel" in sys.modules
    args, _ = parser.parse_known_args([]) if in_notebook else (parser.parse_args(), None)
    if args.steps is None:
        args.steps = quick_steps if args.quick else full_steps if args.full else steps
    if args.mine:
        print("\n".join(checking.use_mine(args.mine.resolve())))
    probe = args.out / ".writable"  # better told now than after a minute's work
    with problems_in_one_sentence(), write_atomically(probe):
        pass
    probe.unlink()
    return args


def predict(args: argparse.Namespace, question: str, choices: Sequence[str]) -> str:
    """Print a multiple-choice question before anything runs; with --ask, wait for an answer."""
    print(f"\nPREDICT  {question}")
    for letter, choice in zip("abcd", choices):
        print(f"   {letter}) {choice}")
    if args.ask and sys.stdin.isatty():
        return input("   your answer: ").strip().lower()[:1]
    return ""


def result(args: argparse.Namespace, rows: Sequence[Sequence[str]], verdict: str, answer: str,
           predicted: str = "") -> None:
    """Print the table (its first row is the heading), the verdict and the answer."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    print("\nRESULT")
    for row in rows:
        print("   " + "  ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths)).rstrip())
    print(f"\n   {verdict}")
    if args.quick:
        print("   (--quick is a smoke run: these numbers are no evidence)")
    you = f"you said {predicted}); " if predicted else ""
    print(f"   PREDICT again: {you}the answer is {answer}")
    number = Path(sys.argv[0]).name[:2]
    ids = [exercise.id for exercise in checking.EXERCISES if exercise.id[:2] == number]
    if ids:
        print(f"   EXERCISES {', '.join(ids)}: python lessons/exercises check {ids[0]}")


def interval(differences: Tensor) -> tuple[float, float, float]:
    """Mean of paired differences (n,) and its 95 % interval: (low, mean, high)."""
    values = differences.flatten().tolist()
    mean = statistics.fmean(values)
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean, mean + half


def verdict_of(low: float, high: float) -> str:
    """What an interval says of a claim that the difference is positive."""
    return "confirmed" if low > 0 else "contradicted" if high < 0 else "undecided"


# %% Result files: what --full leaves, and what a default run reads

RESULTS = Path(__file__).parent / "results"


def save_results(args: argparse.Namespace, name: str, numbers: dict, pictures: Tensor | None = None, columns: int = 8) -> None:
    """Write what a run measured to the output folder; lessons/results holds the copies that ship.

    pictures (n, 3, h, w) in [0, 1]: small ones that a later figure shows, as one PNG file.
    """
    made = {"command": " ".join(["python", f"lessons/{name}.py", *sys.argv[1:]]), "seed": args.seed, "steps": args.steps,
            "versions": f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads"}
    path = args.out / f"{name}.json"
    with write_atomically(path) as file:
        file.write(json.dumps({**made, "numbers": numbers}, indent=1).encode())
    print(f"\n   results: {path}")
    if pictures is not None:
        with write_atomically(args.out / f"{name}_pictures.png") as file:
            save_image(pictures, file, nrow=columns, padding=1, pad_value=1.0, format="png")


def load_results(name: str) -> dict:
    """The result file that ships: command, seed, steps, versions, numbers."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def load_pictures(name: str) -> Tensor:
    """The pictures (1, 3, h, w) in [0, 1] beside a result file, one grid."""
    return read_image(str(RESULTS / f"{name}_pictures.png"))[None] / 255


def save_figure(args: argparse.Namespace, figure: Figure, name: str) -> None:
    """Write the lesson's figure to the output folder and print where it is."""
    path = args.out / f"{name}.png"
    figures.save(figure, path)
    print(f"   figure: {path}")
