"""Sudden or gradual, how many pictures, and from scratch? The record of lesson 09.

    python lessons/experiments/09_evaluation.py   (one core, about 30 minutes)

It writes outputs/09_evaluation.json and _pictures.png after each arm, and goes on where
it was cut off; lessons/results holds the copies that ship.

Written down before any number was seen:
1. Sudden convergence (Sec. 3.3, Fig. 4). The paper: a condition is not learned
   gradually but followed abruptly, and pictures are good throughout. It would show here
   if the shuffle gap waits long and then rises fast: the steps to its first tenth, over
   those from there to its half, are .18 for 1 - exp(-step / tau) and more for a jump.
   Refuted by .18 or less. "Good throughout": at no measured step .02 fewer clean pixels
   than the base has; refuted by more.
2. Few pictures (Sec. 4.5, Fig. 10). The paper: 1k pictures do not make the training
   collapse, 50k and 3M give better results. Here 50, 500, endless. No collapse shows if
   with 50 pictures new outlines are followed better than without control (IoU), and
   pixels are as clean; refuted if not. That more is better shows in IoU and F1.
3. From scratch (Sec. 4.3). The paper: with a fraction of the data and the computing,
   ControlNet is close to an industrial model of depth. Here a UNet takes the condition
   itself and knows nothing, at equal steps and at four times as many. It would show if
   ControlNet is ahead at equal steps in fidelity and colours; refuted if the UNet is.
A ControlNet learns at 1e-3, a UNet from scratch at 2e-3, as the weights that ship did.
All arms are tested with the same pictures and noise, at guidance 2.5. For 3. guidance
has the condition in both of its branches, since a UNet from scratch has none without
it. The unit is the training seed.
"""

import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from lesson import Lesson
from lesson.curves import look, reached, suddenness
from torch import Tensor
from tqdm import tqdm

from experiments.measured import Arm, Test
from experiments.networks import ConditionedUNet
from experiments.record import Record, Scores
from minicontrolnet import (GUIDANCE, Batch, Control, ControlNet, Training, UNet, cfg, condition_loss,
                            control_loss, ddim, fresh_batch, load_base, random_batch, sample, seeded,
                            to_image)
from minicontrolnet.training import BATCH_SIZE, NextBatch

SEEDS = 3  # training seeds
EVERY = 20  # steps between two looks
LONGER = 4  # the long run of 3., in units of --steps


def only(n: int) -> NextBatch:
    """Batches drawn from n pictures, always the same."""
    pictures = random_batch(n, torch.Generator().manual_seed(777))

    def next_batch(generator: torch.Generator) -> Batch:
        pick = torch.randint(n, (BATCH_SIZE,), generator=generator)
        return pictures.map(lambda tensor: tensor[pick])

    return next_batch


# %% A ControlNet, and its curves


def draw(base: UNet, control: ControlNet | None, test: Test, prompt: Tensor,
         in_both: bool = False) -> Tensor:
    controls = [] if control is None else [Control(control, test.edges)]
    return sample(base, prompt, test.noise, controls, steps=test.steps, in_both=in_both)


def train_control(lesson: Lesson, base: UNet, pictures: NextBatch, seed: int, test: Test,
                  small: Test | None, name: str) -> Arm:
    """With ``small``, pictures are drawn on the way, too: are they good throughout?"""
    begin = time.process_time()
    curves = {}
    on_the_way = {}
    loss = control_loss(base, "edge", next_batch=pictures)
    training = Training(seeded(seed, ControlNet, base), loss, lesson.steps, lr=1e-3, seed=seed)
    control = training.averaged
    for step, _ in tqdm(training, f"{name}, seed {seed}"):
        if step == 1 or step % EVERY == 0 or step == lesson.steps:
            look(curves, step, base, control, n=4 if lesson.quick else 48)
            if small:
                images = draw(base, control, small, small.truth.prompt)
                scores = small.follows(images) | small.obeys(images)
                for what, value in scores.items():
                    on_the_way.setdefault(what, {})[str(step)] = value
    scores, row = test.scores(partial(draw, base, control, test))
    if small:  # this arm is also compared with a UNet from scratch
        both, _ = test.scores(partial(draw, base, control, test, in_both=True))
        curves |= {"on the way": on_the_way, "in both branches": both}
    gap = curves["gap"]
    more: Scores = {**curves, "wait": reached(gap, 0.1), "half": reached(gap, 0.5),
                    "suddenness": suddenness(gap),
                    "seconds of one core": time.process_time() - begin}
    return {**scores, **more}, row


# %% A UNet from scratch


def scratch_loss(network: ConditionedUNet, generator: torch.Generator) -> Tensor:
    """Eq. 5 with the condition as an input; half of the prompts are empty."""
    return condition_loss(network, network, "edge", generator)


def draw_from_scratch(network: ConditionedUNet, test: Test, prompt: Tensor) -> Tensor:
    empty = torch.zeros_like(prompt)

    def cond(xt: Tensor, t: Tensor) -> Tensor:
        return network(xt, t, prompt, test.edges)

    def uncond(xt: Tensor, t: Tensor) -> Tensor:
        return network(xt, t, empty, test.edges)

    model = cfg(uncond, cond, GUIDANCE) if prompt.any() else cond
    return to_image(ddim(model, test.noise, test.steps))


def train_from_scratch(lesson: Lesson, steps: int, seed: int, test: Test, name: str) -> Arm:
    begin = time.process_time()
    network = seeded(seed, lambda: ConditionedUNet(UNet())).to(lesson.device)
    training = Training(network, scratch_loss, steps, lr=2e-3, seed=seed)
    for step, loss in tqdm(training, f"{name}, seed {seed}"):
        pass
    network = training.averaged
    scores, row = test.scores(partial(draw_from_scratch, network, test))
    return {**scores, "seconds of one core": time.process_time() - begin}, row


# %% All arms


def main() -> None:
    lesson = Lesson("09_evaluation", steps=360, quick_steps=2)
    base = load_base(device=lesson.device)
    record = Record(lesson, columns=4)
    sizes = ((4, 2), (4, 2)) if lesson.quick else ((48, 12), (16, 10))
    test, small = (Test(lesson, n, ddim_steps) for n, ddim_steps in sizes)
    seeds = range(lesson.seed, lesson.seed + (2 if lesson.quick else SEEDS))

    def add(name: str, runs: list[Arm]) -> None:
        record.add(name, [scores for scores, _ in runs], runs[0][1])

    if "no control" not in record.numbers:
        image = test.truth.image
        scores = test.follows(image) | test.obeys(image)
        add("real pictures", [(scores, test.row(image))])
        add("no control", [test.scores(partial(draw, base, None, test))])
    sources = {"endless": fresh_batch, "500": only(500), "50": only(50)}
    for name, pictures in sources.items():
        if name not in record.numbers:
            way = small if name == "endless" else None
            add(name, [train_control(lesson, base, pictures, seed, test, way, name)
                       for seed in seeds])
    for name, steps in (("scratch", lesson.steps),
                        ("scratch, longer", LONGER * lesson.steps)):
        if name not in record.numbers:
            add(name, [train_from_scratch(lesson, steps, seed, test, name) for seed in seeds])


if __name__ == "__main__":
    main()
