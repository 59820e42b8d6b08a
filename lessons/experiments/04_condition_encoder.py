"""Which way from 64x64 pixels to the 16x16 grid is followed best? For lesson 04.

    python lessons/experiments/04_condition_encoder.py   (one core, about 10 minutes)

It writes outputs/04_condition_encoder.json and _pictures.png after each arm, and goes
on where it was cut off; lessons/results holds the copies that ship.

Written down before any number was seen:
- The paper (Sec. 3.2, Eq. 4) maps the condition to the feature space by a small conv
  net that is trained with the copy. It compares it with nothing.
- It would show here if the learned encoder is followed better than a fixed shrinking:
  edge F1, paired by training seed, Student's interval of three seeds above 0.
- It would be refuted if a fixed shrinking is followed better. An interval that holds 0
  decides nothing; its width says how large a difference could still hide.
All arms share pictures, noise, steps and, in each seed, the first weights of all but
the encoder. When an arm begins to follow is measured apart, by the shuffle gap.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from lesson import Lesson
from lesson.curves import look
from lesson.networks import encoder
from torch import Tensor
from tqdm import tqdm

from experiments.record import Record, Scores
from minicontrolnet import (Batch, Control, ControlNet, Training, UNet, control_loss, detect_edges,
                            edge_f1, held_out, load_base, mask_iou, mask_of, sample, seeded)
from minicontrolnet.draw.figures import outlined

ARMS = ("learned", "stacked", "average", "every fourth", "shifted")
SEEDS = 3  # training seeds
EVERY = 30  # steps between two looks


def with_encoder(base: UNet, how: str, seed: int) -> ControlNet:
    """A new ControlNet with one of the encoders; in a seed all else starts the same."""
    control = seeded(seed, ControlNet, base)
    control.condition_encoder = seeded(seed, encoder, how, base.encoder.channels[0])
    return control


def run(lesson: Lesson, base: UNet, how: str, seed: int, truth: Batch,
        noise: Tensor) -> tuple[Scores, Tensor]:
    """Train an arm with one seed: its scores, and four pictures with their outlines."""
    begin = time.process_time()
    control = with_encoder(base, how, seed).to(lesson.device)
    training = Training(control, control_loss(base, "edge"), lesson.steps, lr=2e-3, seed=seed)
    curves = {}
    look(curves, 0, base, control, n=len(noise) // 2)
    for step, loss in tqdm(training, f"{how}, seed {seed}"):
        if step % EVERY == 0 or step == lesson.steps:
            look(curves, step, base, training.averaged, n=len(noise) // 2)
    edges = detect_edges(truth.image)
    images = sample(base, truth.prompt, noise, [Control(training.averaged, edges)],
                    steps=2 if lesson.quick else 12).cpu()
    scores = {"F1": edge_f1(images, edges).mean().item(),
              "IoU": mask_iou(mask_of(images), truth.mask).mean().item(),
              "seconds of one core": time.process_time() - begin}
    return scores | curves, outlined(images[:4], edges[:4], 4)


def main() -> None:
    lesson = Lesson("04_condition_encoder", steps=180, quick_steps=2)
    base = load_base(device=lesson.device)
    record = Record(lesson, columns=4)
    truth, noise = held_out(4 if lesson.quick else 32)
    seeds = range(lesson.seed, lesson.seed + (2 if lesson.quick else SEEDS))
    for how in ARMS:
        if how not in record.numbers:
            runs = [run(lesson, base, how, seed, truth, noise) for seed in seeds]
            scores, rows = zip(*runs)
            record.add(how, list(scores), rows[0])


if __name__ == "__main__":
    main()
