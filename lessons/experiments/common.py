"""The parts that all experiments share: held-out pictures, a record that can be resumed, and the command line."""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import save_image

from minicontrolnet import (GUIDANCE, Training, UNet, colours_right, detect_edges, edge_f1, held_out, load_classifier,
                            mask_iou, mask_of, off_palette, paired, sample, shapes_right)
from minicontrolnet.run.options import any_path, read_words, report_problems

Scores = dict[str, "float | list | Scores"]
Findings = dict[str, list[float]]  # the name of a difference or a score -> a number for each seed or picture
Predict = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (xt, t, prompt, condition) -> eps


# %% Measuring


class Evaluation:
    """Held-out pictures, their outlines and noise. They are the same for every network that is compared."""

    def __init__(self, n: int, ddim_steps: int = 12):
        self.truth, self.noise = held_out(n)
        self.edges, self.ddim_steps = detect_edges(self.truth.image), ddim_steps
        self.classifier = load_classifier()

    def sample(self, base: UNet, control: nn.Module | None, prompt: Tensor | str | None = None,
               guidance_scale: float = GUIDANCE, in_both: bool = False, edges: Tensor | None = None) -> Tensor:
        """Generate a picture for each outline. Without a prompt the right prompts are used."""
        prompt = self.truth.prompt if prompt is None else prompt
        edges = self.edges if edges is None else edges
        controls = [] if control is None else [(control, edges)]
        return sample(base, prompt, self.noise, controls, guidance_scale, self.ddim_steps, in_both=in_both)

    def scores(self, images: Tensor) -> Scores:
        """Means over pictures: is the outline followed, is the prompt obeyed, are the pixels clean?

        A clean pixel is within 0.2 of a colour of the toy world.
        """
        truth = self.truth
        return {"IoU": mask_iou(mask_of(images), truth.mask).mean().item(),
                "F1": edge_f1(images, self.edges).mean().item(),
                "right colours": colours_right(images, truth.prompt).float().mean().item(),
                "right shapes": shapes_right(images, truth.prompt, self.classifier).float().mean().item(),
                "clean pixels": 1 - off_palette(images).mean().item()}


# %% Training


def controlled(base: UNet, control: nn.Module) -> Predict:
    """The base with a control, as one model of the picture, the time, the prompt and the condition."""

    def predict(xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Tensor:
        return base(xt, t, prompt, control(xt, t, prompt, condition))

    return predict


def at_constant_rate(training: Training, steps: int) -> Iterator[tuple[int, float]]:
    """The first steps of a training that is planned to be a hundred times as long.

    After its warm-up of 50 steps the rate stays above 0.999 of the full one, so every length is a fair place to stop.
    """
    return islice(training, steps)


# %% The record


class Record:
    """The measurements of an experiment so far: numbers[arm][score] is a list over the training seeds.

    It is written after every arm and seed. An experiment that was interrupted continues from the file.
    """

    def __init__(self, name: str, folder: Path, quick: bool):
        self.name, self.quick, self.begun = name, quick, time.process_time()
        self.path = folder / f"{name}{'_quick' * quick}.json"
        self.numbers, self.minutes, self.rows, self.findings = {}, {}, [], {}
        if self.path.exists():
            found = json.loads(self.path.read_text(encoding="utf-8"))
            self.numbers, self.minutes, self.rows = found["numbers"], found["minutes"], found["rows of pictures"]

    def missing(self, arm: str, seeds: range) -> list[int]:
        """The seeds of an arm that are still to be run, in order."""
        seeds = seeds[:2] if self.quick else seeds
        if arm not in self.numbers:
            return list(seeds)
        return list(seeds)[len(first_list(self.numbers[arm])):]

    def add_pictures(self, arm: str, images: Tensor) -> None:
        """Append pictures as a row of NAME_pictures.png; the record lists the arms of its rows."""
        path = self.path.with_name(f"{self.path.stem}_pictures.png")
        rows = [pil_to_tensor(Image.open(path)) / 255] if self.rows else []
        self.rows.append(arm)
        row = rearrange(images, "n c h w -> c h (n w)")
        self.write()
        save_image(torch.cat([*rows, row], 1), path)

    def add(self, part: str, arm: str, scores: Scores) -> None:
        """Append the scores of the arm's next seed, and write the file. A live part has one run, and it is kept."""
        if part == "live" and arm in self.numbers:
            return
        append(self.numbers.setdefault(arm, {}), scores)
        now = time.process_time()
        self.minutes[part] = round(self.minutes.get(part, 0) + (now - self.begun) / 60, 2)
        self.begun = now
        self.write()
        print(f"   {time.strftime('%H:%M:%S')} {part}: {arm}, {flat(scores)}", flush=True)

    def write(self) -> None:
        made = {"command": f"python lessons/experiments/{self.name}.py", "minutes": self.minutes,
                "versions": f"Python {platform.python_version()}, torch {torch.__version__}, one thread",
                "rows of pictures": self.rows, "findings": self.findings, "numbers": self.numbers}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(made, default=rounded), encoding="utf-8")

    def conclude(self, findings: Findings) -> None:
        """Write the findings into the record, and print each with its mean or its 95 % interval."""
        self.findings = rounded_all(findings)
        self.write()
        for name, values in self.findings.items():
            print(f"   {name}: {paired(values) if len(values) > 1 else values[0]}")


def rounded_all(findings: Findings) -> Findings:
    return {name: [round(value, 6) for value in values] for name, values in findings.items()}


def append(lists: dict, scores: Scores) -> None:
    for name, value in scores.items():
        if isinstance(value, dict):
            append(lists.setdefault(name, {}), value)
        else:
            lists.setdefault(name, []).append(rounded(value))


def rounded(value: float | Tensor | list) -> float | list:
    """Six digits are enough for a record."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 6)


def minus(one: list[float], other: list[float]) -> list[float]:
    """Differences in pairs; a list of one number stands for every pair."""
    other = other * len(one) if len(other) == 1 else other
    one = one * len(other) if len(one) == 1 else one
    return [a - b for a, b in zip(one, other, strict=True)]


def first_list(numbers: dict | list) -> list:
    return numbers if isinstance(numbers, list) else first_list(next(iter(numbers.values())))


def flat(scores: Scores) -> str:
    """The scores that are plain numbers, in one line for the log."""
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items() if isinstance(value, float))


# %% The command line


def run(name: str, parts: dict[str, Callable[[Record], None]], findings: Callable[[dict], Findings]) -> None:
    """Run one part of an experiment, or all of them one after the other, and print what the record shows.

    The part "findings" runs nothing. If the record is not complete yet, a sentence says so.
    """
    parser = argparse.ArgumentParser(prog=f"python lessons/experiments/{name}.py")
    parser.add_argument("--part", choices=[*parts, "findings"], help="run this part only")
    parser.add_argument("--quick", action="store_true", help="a smoke test of seconds; its numbers mean nothing")
    parser.add_argument("--out", type=any_path, default=Path("outputs"), metavar="DIR",
                        help="where NAME.json is; a record that is already there is continued")
    args = read_words(parser, None)
    report_problems()
    torch.set_num_threads(1)
    record = Record(name, args.out, args.quick)
    for part in [args.part] if args.part else parts:
        if part in parts:
            print(f"{name}, part {part}", flush=True)
            parts[part](record)
    print(f"results: {record.path}; minutes of one core: {record.minutes}")
    try:
        record.conclude(findings(record.numbers))
    except (KeyError, IndexError, ValueError) as missing:
        print(f"the record is not complete yet, so it shows nothing ({missing!r})")
