"""What ControlNet's users ask, as far as it takes training: the record of lesson 11.

    python lessons/experiments/11_users_ask.py   (one core, about 17 minutes)

It writes outputs/11_users_ask.json and _pictures.png after each arm, and goes on where
it was cut off; lessons/results holds the copies that ship.

CN is github.com/lllyasviel/ControlNet, train.md its docs/train.md. Written down before
any number was seen; each answer is judged over three training seeds:
1. Accumulate gradients, or more steps at a small batch (CN 93, 527)? train.md: sudden
   convergence comes at the same step anyway, so make the steps before it larger. It
   would show here, at equal pictures, if 300 steps of 16 have a higher F1 than 1200
   steps of 4, and if both begin to follow at about the same step; refuted by the
   opposite.
2. Unlock the decoder, sd_locked=False (CN 52, 360, 608)? CN 608: it "turns out to
   improve model performance significantly"; train.md: dangerous if the data are not
   good enough. A gain is a higher F1; a damage is a base that without control draws
   worse than before.
3. The middle alone, only_mid_control (huggingface/diffusers 5070)? train.md: helps
   where computing is scarce. It would show as an F1 near that of all 13 at equal steps.
4. Worse after longer training (lllyasviel/ControlNet-v1-1-nightly 100: well after 15k
   steps, worse after 30k)? It would show as a lower F1 after 1200 steps of 4 than after
   600.
5. Does the copy need t (CN 62) and xt (xyfJASON/ctrlora 22)? Without them it runs once
   for a picture, not once a step. They are not needed if F1 is as high without. The
   rate stays at 1e-3, as in the released code it stays, so that every length is a fair
   stop; what is tested is the average of the weights, as always here.
"""

import copy
import sys
import time
from functools import partial
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from lesson import Lesson
from lesson.curves import look, reached
from torch import Tensor, nn
from tqdm import tqdm

from experiments.measured import Arm, Test
from experiments.record import Record, Scores
from minicontrolnet import (Control, ControlNet, Training, UNet, condition_loss, load_base, lock,
                            random_batch, sample, seeded, weigh)
from minicontrolnet.controlnet import Controls
from minicontrolnet.training import BATCH_SIZE, Loss

SEEDS = 3  # training seeds
SMALL = 4  # pictures in a small batch
CONSTANT = 100  # a plan this much longer, cut short: the rate stays above .999


# %% What is trained: a base and a ControlNet on it


class Pair(nn.Module):
    """A copy of the base, locked or all but its decoder, and a ControlNet on it."""

    def __init__(self, base: UNet, kind: type[ControlNet] = ControlNet,
                 unlock: bool = False):
        super().__init__()
        self.base = lock(copy.deepcopy(base))
        self.control = kind(base)
        self.base.decoder.requires_grad_(unlock)


class OnlyMiddle(ControlNet):
    """The 12 skips get no control, the middle does."""

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor,
                condition: Tensor) -> Controls:
        controls = super().forward(xt, t, prompt, condition)
        return weigh(controls, [0.0] * 12 + [1.0])


class ConditionAlone(ControlNet):
    """The copy sees neither t nor xt: its controls are the same at each step."""

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor,
                condition: Tensor) -> Controls:
        return super().forward(0 * xt, 0 * t, prompt, condition)


ARMS = {"as in the paper": Pair, "small batch": Pair,
        "decoder unlocked": partial(Pair, unlock=True),
        "middle alone": partial(Pair, kind=OnlyMiddle),
        "without t and xt": partial(Pair, kind=ConditionAlone)}


def loss_in_batches(size: int) -> Loss:
    """Eq. 5 for a Pair, ``size`` pictures at a time; half of the prompts are empty."""

    def loss(pair: Pair, generator: torch.Generator) -> Tensor:
        def model(xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Tensor:
            return pair.base(xt, t, prompt, pair.control(xt, t, prompt, condition))

        return condition_loss(model, pair.base, "edge", generator,
                              next_batch=partial(random_batch, size))

    return loss


# %% What is measured


def draw(base: UNet, control: ControlNet | None, test: Test, prompt: Tensor) -> Tensor:
    controls = [] if control is None else [Control(control, test.edges)]
    return sample(base, prompt, test.noise, controls, steps=test.steps)


def run(lesson: Lesson, base: UNet, arm: str, seed: int, test: Test) -> Arm:
    """Train an arm with one seed; the small batch is measured on its way, too."""
    begin = time.process_time()
    curves = {}
    after = {}
    longer = BATCH_SIZE // SMALL if arm == "small batch" else 1
    steps = longer * lesson.steps
    training = Training(seeded(seed, ARMS[arm], base), loss_in_batches(BATCH_SIZE // longer),
                        CONSTANT * steps, lr=1e-3, seed=seed)
    pair = training.averaged
    for step, _ in tqdm(islice(training, steps), f"{arm}, seed {seed}", steps):
        if step == 1 or step % (20 * longer) == 0 or step == steps:
            look(curves, step, pair.base, pair.control, n=4 if lesson.quick else 32)
        if step < steps and step in (lesson.steps, 2 * lesson.steps):
            on_the_way = partial(draw, pair.base, pair.control, test)
            after[f"after {step // lesson.steps}"], _ = test.scores(on_the_way)
    scores, row = test.scores(partial(draw, pair.base, pair.control, test))
    if arm == "decoder unlocked":
        after["without control"], _ = test.scores(partial(draw, pair.base, None, test))
    more: Scores = {**curves, "half": reached(curves["gap"], 0.5),
                    "seconds of one core": time.process_time() - begin}
    return {**scores, **after, **more}, row


def main() -> None:
    lesson = Lesson("11_users_ask", steps=300, quick_steps=2)
    base = load_base(device=lesson.device)
    record = Record(lesson, columns=4)
    test = Test(lesson, 4, 2) if lesson.quick else Test(lesson, 32, 12)
    seeds = range(lesson.seed, lesson.seed + (2 if lesson.quick else SEEDS))
    if "no control" not in record.numbers:
        scores, row = test.scores(partial(draw, base, None, test))
        record.add("no control", [scores], row)
    for arm in ARMS:
        if arm not in record.numbers:
            runs = [run(lesson, base, arm, seed, test) for seed in seeds]
            record.add(arm, [scores for scores, _ in runs], runs[0][1])


if __name__ == "__main__":
    main()
