"""What the experiments of lessons 09 to 11 measure: do pictures follow their outlines and prompts?"""

from collections.abc import Callable

import torch
from torch import Tensor

from lesson import Lesson
from minicontrolnet import (colours_right, detect_edges, edge_f1, frechet_distance, held_out,
                            load_classifier, mask_iou, mask_of, off_palette, random_batch, shapes_right)
from minicontrolnet.draw.figures import outlined

from .record import Scores

Arm = tuple[Scores, Tensor]  # scores, and a row of four pictures with their outlines


class Test:
    """Held-out pictures, their outlines and noise: the same for every network."""

    def __init__(self, lesson: Lesson, n: int, ddim_steps: int):
        self.truth, self.noise = held_out(n, lesson.device)
        self.edges = detect_edges(self.truth.image)
        self.steps = ddim_steps
        self.classifier = load_classifier().to(lesson.device)
        others = random_batch(256, torch.Generator().manual_seed(778))
        self.features = self.classifier.features(mask_of(others.image.to(lesson.device)))

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
        right = self.truth.prompt
        features = self.classifier.features(mask_of(images))
        shapes = shapes_right(images, right, self.classifier)
        return {"colours": colours_right(images, right).float().mean().item(),
                "shapes": shapes.float().mean().item(),
                "clean pixels": 1 - off_palette(images).mean().item(),
                "Frechet": frechet_distance(features, self.features)}

    def row(self, images: Tensor) -> Tensor:
        return outlined(images[:4], self.edges[:4])

    def scores(self, draw: Callable[[Tensor], Tensor]) -> Arm:
        """Of draw(prompt) -> images, with the right prompts and with empty ones."""
        right = draw(self.truth.prompt)
        empty = draw(0 * self.truth.prompt)
        unsaid = {f"{name}, no words": value
                  for name, value in self.follows(empty).items()}
        return {**self.follows(right), **self.obeys(right), **unsaid}, self.row(right)
