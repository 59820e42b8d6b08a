"""How an experiment is kept: a mean for each training seed, saved after each arm."""

import json

import torch
from _lesson import args, figures, file_name, save_results
from einops import rearrange
from torch import Tensor

Scores = dict[str, "float | Scores"]


class Record:
    """The finished arms, on their way to and from outputs/NAME.json and its pictures.

    numbers[arm] holds for each score a list over the training seeds; pictures[arm] is a
    row of square pictures, of the first seed. A run that was cut off goes on after its
    last finished arm if seed and steps agree.
    """

    def __init__(self, columns: int):
        self.columns, self.numbers, self.pictures = columns, {}, {}
        path = args.out / f"{file_name()}.json"
        drawn = path.with_name(f"{path.stem}_pictures.png")
        if not (path.exists() and drawn.exists()):
            return
        made = json.loads(path.read_text(encoding="utf-8"))
        if (made["seed"], made["steps"]) != (args.seed, args.steps):
            return
        grid = torch.tensor(figures.plt.imread(drawn))
        side = grid.shape[1] // columns
        rows = rearrange(grid, "(y h) (x w) c -> y x c h w", h=side, w=side)
        self.pictures = dict(zip(made["numbers"], rows))  # one row less if cut off here
        self.numbers = {arm: made["numbers"][arm] for arm in self.pictures}
        print(f"   already recorded: {', '.join(self.numbers)}")

    def add(self, arm: str, runs: list[Scores], row: Tensor) -> None:
        self.numbers[arm], self.pictures[arm] = by_seed(runs), row.cpu()
        rows = torch.cat(list(self.pictures.values()))
        save_results(self.numbers, rows, self.columns)


def by_seed(runs: list) -> dict | list:
    """Turn a list of equal, nested dicts into one whose numbers are lists over it."""
    if not isinstance(runs[0], dict):
        return runs
    return {key: by_seed([run[key] for run in runs]) for key in runs[0]}
