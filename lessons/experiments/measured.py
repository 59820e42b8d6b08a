"""What lessons 09 to 11 measure: fidelity, obedience, and when a curve rises."""

import math
from collections.abc import Callable

import torch
from _lesson import args, figures
from torch import Tensor

from minicontrolnet import (Paired, colours_right, detect_edges, edge_f1,
                            frechet_distance, held_out, load_classifier, mask_iou,
                            mask_of, off_palette, paired, random_batch, shapes_right)

from .record import Scores

Arm = tuple[Scores, Tensor]  # scores, and a row of four pictures with their outlines


class Test:
    """Held-out pictures, their outlines and noise: the same for every network."""

    def __init__(self, n: int, ddim_steps: int):
        self.truth, self.noise = held_out(n, args.device)
        self.edges, self.steps = detect_edges(self.truth.image), ddim_steps
        self.classifier = load_classifier().to(args.device)
        others = random_batch(256, torch.Generator().manual_seed(778))
        self.features = self.classifier.features(mask_of(others.image.to(args.device)))

    def follows(self, images: Tensor) -> Scores:
        """Mask IoU and edge F1 with the outlines, means over pictures."""
        return {"IoU": mask_iou(mask_of(images), self.truth.mask).mean().item(),
                "F1": edge_f1(images, self.edges).mean().item()}

    def obeys(self, images: Tensor) -> Scores:
        """The shares of right colours, right shapes and clean pixels, and a distance.

        Clean is a pixel within 0.2 of a colour of the toy world. Frechet is the
        distance of the masks' features from those of 256 other real pictures (Tab. 3's
        formula).
        """
        right, features = self.truth.prompt, self.classifier.features(mask_of(images))
        shapes = shapes_right(images, right, self.classifier)
        return {"colours": colours_right(images, right).float().mean().item(),
                "shapes": shapes.float().mean().item(),
                "clean pixels": 1 - off_palette(images).mean().item(),
                "Frechet": frechet_distance(features, self.features)}

    def row(self, images: Tensor) -> Tensor:
        return figures.outlined(images[:4], self.edges[:4])

    def scores(self, draw: Callable[[Tensor], Tensor]) -> Arm:
        """Of draw(prompt) -> images, with the right prompts and with empty ones."""
        right, empty = draw(self.truth.prompt), draw(0 * self.truth.prompt)
        unsaid = {f"{name}, no words": value
                  for name, value in self.follows(empty).items()}
        return {**self.follows(right), **self.obeys(right), **unsaid}, self.row(right)


# %% Sudden convergence (Sec. 3.3, Fig. 4)

# 1 - exp(-step / tau) is at 10 % after .105 tau and at 50 % after .693 tau: it waits
# .18 of what it takes from the one to the other. A straight line waits .25 of it.
GRADUAL = math.log(1 / 0.9) / (math.log(2) - math.log(1 / 0.9))


def reached(curve: dict[str, float], share: float) -> float:
    """The step at which a curve has risen by ``share`` of its way to the highest.

    curve: step -> value; between two measured steps it is taken for a straight line.
    """
    steps, values = [float(step) for step in curve], list(curve.values())
    goal = values[0] + share * (max(values) - values[0])
    i = next(i for i, value in enumerate(values) if value >= goal)
    if i == 0:
        return steps[0]
    part = (goal - values[i - 1]) / (values[i] - values[i - 1])
    return steps[i - 1] + part * (steps[i] - steps[i - 1])


def suddenness(curve: dict[str, float]) -> float:
    """The wait for a curve's first tenth, over what it takes from there to its half."""
    wait, half = reached(curve, 0.1), reached(curve, 0.5)
    return wait / max(half - wait, 1e-9)


# %% Differences of two lists in a record


def apart(one: list[float], other: list[float]) -> Paired:
    """One score less another, paired by seed; one number stands for every seed."""
    n = max(len(one), len(other))
    one, other = (values * (n // len(values)) for values in (one, other))
    return paired([a - b for a, b in zip(one, other, strict=True)])


def no_worse(apart: Paired, margin: float) -> str:
    """The verdict on a difference that may be negative, but not below -margin."""
    return Paired(*(end + margin for end in apart)).verdict
