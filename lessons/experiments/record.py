"""How an experiment is recorded: a list over the training seeds for each score, saved after each arm."""

import json

import torch
from einops import rearrange
from torch import Tensor

from lesson import Lesson
from lesson.results import read_pictures

Scores = dict[str, "float | Scores"]


class Record:
    """The finished arms, kept in outputs/NAME.json and NAME_pictures.png.

    numbers[arm] holds for each score a list over the training seeds. pictures[arm] is a row of
    ``columns`` square pictures, those of the first seed. A run that was interrupted goes on after
    its last finished arm, if seed and steps are the same.
    """

    def __init__(self, lesson: Lesson, columns: int):
        self.lesson = lesson
        self.columns = columns
        self.numbers: dict[str, dict] = {}
        self.pictures: dict[str, Tensor] = {}
        path = lesson.path(".json")
        beside = lesson.path("_pictures.png")
        if path.exists() and beside.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if (found["seed"], found["steps"]) == (lesson.seed, lesson.steps):
                self._load(found["numbers"], read_pictures(beside, columns=columns))

    def _load(self, numbers: dict[str, dict], pictures: Tensor) -> None:
        rows = rearrange(pictures, "(y x) c h w -> y x c h w", x=self.columns)
        self.pictures = dict(zip(numbers, rows))  # the last arm's row may be missing
        self.numbers = {arm: numbers[arm] for arm in self.pictures}
        print(f"   already recorded: {', '.join(self.numbers)}")

    def add(self, arm: str, runs: list[Scores], row: Tensor) -> None:
        """Add an arm: the scores of each training seed, and the pictures of the first one."""
        self.numbers[arm] = by_seed(runs)
        self.pictures[arm] = row.cpu()
        rows = torch.cat(list(self.pictures.values()))
        self.lesson.save_results(self.numbers, rows, self.columns)


def by_seed(runs: list) -> dict | list:
    """Turn a list of equal, nested dicts into one dict whose values are lists."""
    if not isinstance(runs[0], dict):
        return runs
    return {key: by_seed([run[key] for run in runs]) for key in runs[0]}
