"""Does a ControlNet work on a base that it has never seen? The record of lesson 10.

    python lessons/experiments/10_transfer.py   (one core, about 14 minutes)

It writes outputs/10_transfer.json and _pictures.png after each base, and goes on where
it was cut off; lessons/results holds the copies that ship.

Written down before any number was seen:
1. Transfer (Sec. 4.5, Fig. 12). The paper: ControlNet applies to community models made
   from the same Stable Diffusion, without training. Here A' is made from A by 300 steps
   on pale pictures, three times with three training seeds. It would show if A's
   ControlNet is followed on A' (IoU above no control) and pictures stay pale; refuted
   if it is not followed. Ceilings: real pale pictures, and a ControlNet trained on A'
   itself.
2. A stranger B, trained from another seed. The paper claims nothing of it. There is one
   B, its unit is the picture. B's own ControlNet tells whether B can be controlled at
   all.
3. The author's tool adds the difference of the two bases
   (github.com/lllyasviel/ControlNet, issue 13: replacing the base alone "MAY work but
   is WRONG", as his base was partly unlocked). It would show as IoU above that of the
   ControlNet as it is.
4. Ambiguity (Fig. 11). The paper: without a prompt the model interprets an ambiguous
   outline in several plausible ways. Here part of the outline is erased, or it has
   eight corners, between square and circle. It would show if a word decides more, the
   more is erased: the outline's shape with its word against none, and the shape of a
   wrong word. Refuted if the word makes no difference. These are the shipped weights:
   the unit is the picture.
"""

import copy
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from lesson import Lesson
from lesson.styles import erase, pale, pale_batch, unpale
from torch import Tensor, nn
from tqdm import tqdm

from experiments.measured import Arm, Test
from experiments.record import Record, Scores
from experiments.transfer import between, moved
from minicontrolnet import (SHAPES, Control, ControlNet, Training, UNet, base_loss, colours_right,
                            conflicting, control_loss, fresh_batch, held_out, load_base, load_control,
                            lock, mask_iou, mask_of, sample, seeded, shapes_right)
from minicontrolnet.draw.figures import outlined
from minicontrolnet.training import Loss

SEEDS = 3
STEPS_OF_B = 1500
ERASED = (0.0, 0.25, 0.4, 0.6)  # shares of the outline


# %% Transfer


def train(network: nn.Module, loss: Loss, steps: int, lr: float, seed: int, name: str) -> nn.Module:
    """Train a network and return the average of its weights."""
    training = Training(network, loss, steps, lr=lr, seed=seed)
    for step, _ in tqdm(training, name):
        pass
    return training.averaged


def sibling(base: UNet, steps: int, seed: int) -> UNet:
    """A': the base, trained on in the new style, at a quarter of the rate."""
    network = copy.deepcopy(base).requires_grad_(True)
    loss = partial(base_loss, next_batch=pale_batch)
    return lock(train(network, loss, steps, 5e-4, seed, f"A', seed {seed}"))


def stranger(lesson: Lesson, seed: int) -> UNet:
    """B: the same architecture, from another start and on other pictures."""
    network = seeded(seed, UNet).to(lesson.device)
    return lock(train(network, base_loss, 2 if lesson.quick else STEPS_OF_B, 2e-3, seed, "B"))


def own_control(base: UNet, batches: Callable, steps: int, seed: int) -> ControlNet:
    """A ceiling: a ControlNet trained on this very base."""
    loss = control_loss(base, "edge", next_batch=batches)
    return train(seeded(seed, ControlNet, base), loss, steps, 1e-3, seed, f"its own ControlNet, seed {seed}")


def scores_of(images: Tensor, test: Test) -> Scores:
    """Fidelity; right colours, in A's style and the pale one; each picture's IoU."""
    right = colours_right(unpale(images), test.truth.prompt).float().mean().item()
    each = mask_iou(mask_of(images), test.truth.mask).tolist()
    return {**test.follows(images), **test.obeys(images), "pale colours": right,
            "IoU of each": each}


def fidelity(base: UNet, control: ControlNet | None, test: Test) -> Arm:
    """What is drawn with right prompts."""
    controls = [Control(control, test.edges)] if control else []
    images = sample(base, test.truth.prompt, test.noise, controls, steps=test.steps)
    return scores_of(images, test), test.row(images)


def record_bases(record: Record, name: str, a: UNet, control: ControlNet,
                 batches: Callable, bases: Iterable[tuple[int, UNet]],
                 test: Test) -> None:
    """No control; A's ControlNet, as it is and with the difference; one of its own."""
    arms: dict[str, list[Arm]] = {}
    for seed, base in bases:
        ways = {"no control": None, "as it is": control,
                "difference added": moved(control, a, base),
                "its own": own_control(base, batches, record.lesson.steps, seed)}
        for way, network in ways.items():
            arms.setdefault(way, []).append(fidelity(base, network, test))
    for way, runs in arms.items():
        record.add(f"{name}, {way}", [scores for scores, _ in runs], runs[0][1])


# %% Ambiguity


def erased(base: UNet, control: ControlNet, share: float,
           test: Test) -> Iterator[tuple[str, Arm]]:
    """What part of an outline becomes: right word, no words, another shape's word."""
    edges = erase(test.edges, test.truth.scenes.centre, share)
    right, wrong = test.truth.prompt, conflicting(test.truth.prompt)
    for name, prompt in (("right word", right), ("no words", 0 * right),
                         ("wrong word", wrong)):
        images = sample(base, prompt, test.noise, [Control(control, edges)], steps=test.steps)
        own = shapes_right(images, right, test.classifier).float()
        other = shapes_right(images, wrong, test.classifier).float()
        scores = {"outline's shape": own.mean().item(),
                  "other shape": other.mean().item(),
                  "IoU": mask_iou(mask_of(images), test.truth.mask).mean().item(),
                  "outline's shape of each": own.tolist(),
                  "other shape of each": other.tolist()}
        row = outlined(images[:4], edges[:4])
        yield f"{share:.0%} erased, {name}", (scores, row)


def eight_corners(base: UNet, control: ControlNet,
                  test: Test) -> Iterator[tuple[str, Arm]]:
    """As which shapes the classifier sees pictures of one outline, for each prompt."""
    edges, mask = between(held_out(1)[0].scenes)
    edges = edges.to(test.noise.device)
    mask = mask.to(test.noise.device)
    for prompt in ("", "red on blue", *(f"red {shape} on blue" for shape in SHAPES)):
        images = sample(base, prompt, test.noise, [Control(control, edges)], steps=test.steps)
        seen = test.classifier(mask_of(images)).argmax(1)
        scores = {shape: (seen == i).float().mean().item()
                  for i, shape in enumerate(SHAPES)}
        iou = mask_iou(mask_of(images), mask.expand_as(images[:, :1]))
        scores["IoU"] = iou.mean().item()
        row = outlined(images[:4], edges.expand(4, -1, -1, -1))
        yield f"eight corners, {prompt or 'no words'}", (scores, row)


# %% All arms


def main() -> None:
    lesson = Lesson("10_transfer", steps=300, quick_steps=2)
    a = load_base(device=lesson.device)
    record = Record(lesson, columns=4)
    control = load_control("edge", a)
    test = Test(lesson, 4, 2) if lesson.quick else Test(lesson, 48, 12)
    if "A, as it is" not in record.numbers:
        real = pale(test.truth.image)
        arms = {"real, pale": (scores_of(real, test), test.row(real)),
                "A, no control": fidelity(a, None, test),
                "A, as it is": fidelity(a, control, test)}
        for name, (scores, row) in arms.items():
            record.add(name, [scores], row)
    for share in ERASED:
        if f"{share:.0%} erased, wrong word" not in record.numbers:
            for name, (scores, row) in erased(a, control, share, test):
                record.add(name, [scores], row)
    if f"eight corners, red {[*SHAPES][-1]} on blue" not in record.numbers:
        for name, (scores, row) in eight_corners(a, control, test):
            record.add(name, [scores], row)
    seeds = range(lesson.seed, lesson.seed + (2 if lesson.quick else SEEDS))
    if "A', its own" not in record.numbers:
        siblings = ((seed, sibling(a, lesson.steps, seed)) for seed in seeds)
        record_bases(record, "A'", a, control, pale_batch, siblings, test)
    if "B, its own" not in record.numbers:
        strangers = ((seed, stranger(lesson, seed)) for seed in [lesson.seed + 1])
        record_bases(record, "B", a, control, fresh_batch, strangers, test)


if __name__ == "__main__":
    main()
