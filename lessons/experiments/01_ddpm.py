"""What should a network put out, and how should its errors be weighed? For lesson 01.

    python lessons/experiments/01_ddpm.py   (one core, about 22 minutes)

It writes outputs/01_ddpm.json and _pictures.png after each arm, and goes on where it
was cut off; lessons/results holds the copies that ship.

Written down before any number was seen of these runs; one of 80 steps and one seed had
been, in which x0 had 90 % clean pixels, x0 by Eq. 5 49 %, v 31 % and eps 27 %:
- Eq. 5 weighs all errors of eps alike. Here the base puts out x0, and its errors have
  weights of their own (loss_weight in diffusion.py). So two things differ at once.
- That the weight matters would show if x0 with its own weight is ahead of x0 by Eq. 5;
  that what is put out matters, if x0 by Eq. 5 is ahead of eps, which is Eq. 5, too:
  right shapes and clean pixels, paired by training seed, Student's interval of three
  seeds above 0.
- It would be refuted by an interval below 0. One that holds 0 decides nothing.
All arms share pictures, noise, steps and, in each seed, the first weights.
"""

import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from lesson import Lesson
from torch import Tensor
from tqdm import tqdm

from experiments.record import Record, Scores
from minicontrolnet import (Batch, Training, UNet, base_loss, held_out, load_classifier, off_palette,
                            prompt_scores, q_sample, random_times_and_noise, sample, seeded, x0_from_eps)

ARMS = {"eps": ("eps", "eps"), "v": ("v", "v"), "x0 by Eq. 5": ("x0", "eps"),
        "x0": ("x0", "x0")}  # what is put out, and whose weight its errors have
SEEDS = 3


def errors_of(network: UNet, truth: Batch) -> Scores:
    """The error of eps, all alike as in Eq. 5, and that of x0 where noise prevails."""
    t, eps = random_times_and_noise(truth.x0.cpu(), torch.Generator().manual_seed(0))
    t = t.to(truth.x0.device)
    eps = eps.to(truth.x0.device)
    xt = q_sample(truth.x0, t, eps)
    with torch.no_grad():
        found = network(xt, t, truth.prompt)
    x0_error = (x0_from_eps(found, xt, t).clamp(-1, 1) - truth.x0)[t >= 500]
    return {"error of eps": (found - eps).square().mean().item(),
            "error of x0 at t >= 500": x0_error.square().mean().item()}


def run(lesson: Lesson, arm: str, seed: int, truth: Batch, noise: Tensor) -> tuple[Scores, Tensor]:
    """Train an arm with one seed: its scores, and what it draws."""
    begin = time.process_time()
    kind, weight = ARMS[arm]
    network = seeded(seed, UNet, prediction_type=kind).to(lesson.device)
    training = Training(network, partial(base_loss, weighted_as=weight), lesson.steps, lr=1e-3, seed=seed)
    for step, loss in tqdm(training, f"{arm}, seed {seed}"):
        pass
    network = training.averaged
    images = sample(network, truth.prompt, noise, steps=2 if lesson.quick else 25)
    scores = prompt_scores(images, truth.prompt, load_classifier().to(lesson.device))
    return {**errors_of(network, truth), **scores,
            "clean pixels": 1 - off_palette(images).mean().item(),
            "seconds of one core": time.process_time() - begin}, images[:6]


def main() -> None:
    lesson = Lesson("01_ddpm", steps=500, quick_steps=2)
    record = Record(lesson, columns=6)
    truth, noise = held_out(8 if lesson.quick else 128, lesson.device)
    seeds = range(lesson.seed, lesson.seed + (2 if lesson.quick else SEEDS))
    for arm in ARMS:
        if arm not in record.numbers:
            scores, rows = zip(*(run(lesson, arm, seed, truth, noise) for seed in seeds))
            record.add(arm, list(scores), rows[0])


if __name__ == "__main__":
    main()
