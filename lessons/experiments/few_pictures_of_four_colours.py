"""Lesson 08: five networks learn from 100 pictures in four of the eight colours. Which of them keep the other four?

    python lessons/experiments/few_pictures_of_four_colours.py

It takes about 9 minutes on one core. This was written down before any number was seen.

The paper (Sec. 1 and 4.3) says that the base's knowledge is kept, and used. The training data are 100 circles and
squares in four colours. We test on circles and squares in the other four, and on triangles and stars in them. The
prompts are right, and there is no guidance. There are three training seeds, each with its own 100 pictures.

We test in colours that the data never showed. The claim is shown if two things hold. ControlNet has the right colours
more often than a UNet from scratch and than the fine-tuned base. And it has a higher IoU than a copy with random
weights. The claim is refuted if ControlNet has the right colours less often, or a lower IoU.

At a rate of 2e-3 the fine-tuned base follows outlines more closely than the ControlNet does, so this compares them at
unequal fidelity. The fair comparison is in forgetting_at_equal_fidelity.py.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
import torch
from torch import Tensor, nn

from experiments.claims_13_14_16_17_figure_8 import predict_with, score, train_arm
from experiments.common import Findings, Predict, Record, Scores, minus, run
from lesson.networks import ConditionedUNet, Lite
from experiments.worlds import NEW_COLOURS, NEW_COLOURS_AND_SHAPES, SEEN, batches_from, part_of_the_world
from minicontrolnet import ControlNet, ShapeClassifier, UNet, ddim, detect_edges, load_base, load_classifier, to_image
from minicontrolnet.diffusion import Model
from minicontrolnet.draw import figures
from minicontrolnet.measure.scores import HELD_OUT

SEEDS, STEPS, FEW = range(3), 200, 100
TESTS = {"seen": SEEN, "new colours": NEW_COLOURS, "new colours and shapes": NEW_COLOURS_AND_SHAPES}


def random_copy(base: UNet) -> ControlNet:
    return ControlNet(UNet())


def from_scratch(base: UNet) -> ConditionedUNet:
    return ConditionedUNet(UNet())


ARMS = {"ControlNet": ControlNet, "random copy": random_copy, "lite": Lite, "from scratch": from_scratch,
        "base trained": ConditionedUNet}


def model_of(predict: Predict, prompt: Tensor, edges: Tensor) -> Model:
    def model(xt: Tensor, t: Tensor) -> Tensor:
        return predict(xt, t, prompt, edges)

    return model


def on_parts(base: UNet, network: nn.Module, n: int, classifier: ShapeClassifier,
             ddim_steps: int) -> tuple[Scores, Tensor]:
    """Scores on each part of the world, and four pictures: one of each part, and a second one of the last."""
    scores, row, predict = {}, [], predict_with(base, network)
    for i, (test, of) in enumerate(TESTS.items()):
        generator = torch.Generator().manual_seed(HELD_OUT + i)
        truth = part_of_the_world(n, generator, *of)
        noise = torch.randn(truth.x0.shape, generator=generator)
        edges = detect_edges(truth.image)
        images = to_image(ddim(model_of(predict, truth.prompt, edges), noise, ddim_steps))
        scores[test] = score(images, truth, classifier)
        row.append(figures.outlined(images, edges, 4)[: 1 + (i == 2)])
    return scores, torch.cat(row)


def train(record: Record) -> None:
    base, classifier = load_base(), load_classifier()
    steps, n, ddim_steps = (2, 2, 2) if record.quick else (STEPS, 24, 12)
    for arm, build in ARMS.items():
        for seed in record.missing(arm, SEEDS):
            few = batches_from(part_of_the_world(FEW, torch.Generator().manual_seed(1000 + seed), *SEEN))
            network = train_arm(base, build, steps, seed, next_batch=few)
            scores, row = on_parts(base, network, n, classifier, ddim_steps)
            if seed == SEEDS[0]:
                record.add_pictures(arm, row)
            record.add("train", arm, scores)


# %% What the record says


def findings(numbers: dict) -> Findings:
    """ControlNet minus the others on new colours, paired by the training seed."""
    own, test = numbers["ControlNet"], "new colours"
    found = {f"ControlNet minus {arm}, right colours": minus(own[test]["right colours"],
                                                             numbers[arm][test]["right colours"])
             for arm in ("from scratch", "base trained")}
    return found | {f"ControlNet minus {arm}, IoU": minus(own[test]["IoU"], numbers[arm][test]["IoU"])
                    for arm in ("random copy", "lite")}


if __name__ == "__main__":
    run("few_pictures_of_four_colours", {"train": train}, findings)
