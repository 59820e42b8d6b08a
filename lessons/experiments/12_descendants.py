"""Lesson 12: what do the successors of ControlNet cost on one base, and how well do they follow an outline?

    python lessons/experiments/12_descendants.py

It takes about 110 minutes on one core. It writes outputs/12_descendants.json and _pictures.png after each look. It
keeps every training in outputs/12_descendants_states. So a run that was cut off continues where it ended. The copies
that ship are in lessons/results.

**The question.** What do the successors of ControlNet cost, and how well do they follow an outline? All of them have
the same base, the same batches and the same number of steps. lesson/descendants.py has the methods. It says where each
of them departs from its paper.

**The measure.** Every arm trains with batches of 16 and with AdamW at 1e-3. The learning-rate schedule has 2,000 steps.
The training pictures show all four shapes, but only four of the eight colours. We look at the moving average of the
weights after 150, 300, 600 and 2,000 steps. A look generates 32 held-out pictures for each prompt in 12 DDIM steps.
Guidance is 2.5, and control is in the conditional branch alone. Each look measures the mask IoU and the edge F1, with
the right prompt and without a prompt. From 600 steps on, a look also measures

- IoU and F1 with a conflicting prompt, which names another shape,
- IoU, F1 and the share of right colours, where the right prompt has the four colours that control training never
  showed,
- the palette error, IoU and F1 without a prompt, when the palette ControlNet that ships is added.

We also measure how far eps moves from the base's when control is off, and the right colours of such pictures.

Training-free guidance needs no training. We generate its pictures in 8, 12 and 25 steps, and without guidance by the
prompt. A seed decides the initial weights, the batches, the 32 pictures and their noise. So we pair two arms by seed,
and give Student's 95 % interval over three seeds.

Lesson 12 counts the operations of a picture in two ways. A step of a trained method also evaluates the base without
prompt and outline, for guidance by the prompt. Training-free guidance does without this second evaluation. We put
unrounded numbers into these formulas:

    trained        picture = 12 * (step + the base's 194 million) + once
    training-free  picture = steps * step

Here "step" is one evaluation of base and method. For training-free guidance it is a forward and a backward pass of the
base. "once" is the cost of the layers that see only the outline, because these layers run once per picture.

If the time does not suffice, seeds 1 and 2 end after 600 steps, and the record says so.

A first run had 64 pictures per look. It was too slow, so we stopped it after the rows without training. We stopped a
second run after 150 steps of one arm, because we wanted to leave out two prompts of the early looks.

**What we expect, and what would refute it.** This was written down before any number was seen, with two exceptions.
Short pilots of up to 300 steps had checked the code. And an earlier prototype had an ordering on one seed, which this
record tests. "A above B" is shown by an interval above 0, and refuted by an interval below 0. Anything else is
undecided. We compare F1 with the right prompt after 600 steps, unless an item says something else.

1. The prototype's ordering holds. Fine-tuning is above ControlNet. ControlNeXt is above ControlNet. ControlNet is above
   ControlNet-XS. Every trained method is above T2I-Adapter.
2. Control-LoRA is close behind ControlNet. Their difference is within -.05 .. .05.
3. There is a floor. Every method is above the frozen copy, after 600 and after 2,000 steps.
4. The base's knowledge is kept. We look at right colours with control on, after 600 steps, in colours that training
   never showed. ControlNet, Control-LoRA, T2I-Adapter and ControlNet-XS have a larger share of them than fine-tuning.
   With control off, they have exactly the base's.
5. The reward of ControlNet++ raises F1. (It is a second loss, which compares edges.) It raises F1 most with a
   conflicting prompt.
6. Training-free guidance with the right prompt and 25 steps reaches an IoU within .05 of ControlNet's after 600 steps.
   Without a prompt, and with 8 steps, it is below ControlNet.
7. Conditions compose. With the palette ControlNet added, methods that leave the base unchanged have a smaller
   palette error than fine-tuning.
8. Two papers' own choices help, in two further arms of 600 steps. With T2I-Adapter's cubic times it trains more often
   at large t. Its F1 is then higher than with uniform times. Cross normalisation makes ControlNeXt's control as large
   as the maps that it is added to. After 150 steps F1 is higher with it than with a zero conv.
9. ControlNeXt's rank depends on how much of the base it trains. With the whole rest of the encoder trained it is above
   ControlNeXt as built here. The prototype trained about that much.

After 300 steps the arm of item 9 was not ahead of ControlNeXt, so we added one more arm. It is called "early join". It
puts the join behind the first conv, on the grid of 16x16, and trains the two blocks behind it. After 150 steps it is
behind ControlNeXt. From 300 steps on it is ahead, with fewer trained weights. One reason may be the skips: those of the
16x16 grid leave the encoder before the usual join, so they carry no outline. We have not tested this. With the whole
encoder trained, the mean is that of ControlNeXt to two digits.

The time sufficed. There are three seeds of every arm after 2,000 steps, and of the four ablations of items 8 and 9
after 600. Most arms ran in two sittings. The second one continued the states that the first had saved after 600
steps. lesson/record_12.py computes the verdicts, and 12_descendants_rates.py tries other learning rates.
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
# ruff: noqa: E402
import torch
from lesson import Lesson
from lesson import descendants as methods
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minicontrolnet import (Training, UNet, colours_right, conflicting, detect_edges,
                            edge_f1, load_base, load_control, mask_iou, mask_of, palette, palette_error,
                            seeded, x0_from_eps)
from minicontrolnet.controlnet import Controls
from minicontrolnet.draw.figures import outlined
from minicontrolnet.measure.scores import HELD_OUT
from minicontrolnet.training import BATCH_SIZE

LOOKS = (150, 300, 600, 2000)
SEEDS = (0, 1, 2)
FREE_STEPS = (8, 12, 25)


class Effort(NamedTuple):
    """How much is measured; a smoke run measures little."""

    looks: tuple[int, ...] = LOOKS
    stages: tuple[int, ...] = LOOKS[2:]  # looks that also measure what is left of the base
    seeds: tuple[int, ...] = SEEDS
    pictures: int = 32
    ddim_steps: int = 12
    free_steps: tuple[int, ...] = FREE_STEPS


SMOKE = Effort((2,), (2,), SEEDS[:2], pictures=2, ddim_steps=2, free_steps=(2,))


class Arm(NamedTuple):
    build: Callable[[UNet], nn.Module]
    cubic: bool = False
    reward: float = 0.0
    ablation: bool = False  # ends after 600 steps


ARMS = {
    "ControlNet": Arm(methods.controlnet),
    "ControlNet++": Arm(methods.controlnet, reward=methods.REWARD),
    "Control-LoRA": Arm(methods.control_lora),
    "T2I-Adapter": Arm(methods.T2IAdapter, cubic=True),
    "ControlNet-XS": Arm(methods.ControlNetXS),
    "ControlNeXt": Arm(methods.ControlNeXt),
    "fine-tuned base": Arm(methods.FineTuned),
    "frozen copy": Arm(methods.frozen_copy),
    "ControlNeXt, whole encoder": Arm(partial(methods.ControlNeXt, trained=range(4, 13)), ablation=True),
    "ControlNeXt, early join": Arm(partial(methods.ControlNeXt, trained=(1, 2), join=0), ablation=True),
    "ControlNeXt, zero conv": Arm(partial(methods.ControlNeXt, normalise=False), ablation=True),
    "T2I-Adapter, uniform times": Arm(methods.T2IAdapter, ablation=True),
}


# %% The pictures


class Test:
    """Held-out pictures in some colours, their outlines, palettes and noise."""

    def __init__(self, n: int, seed: int, colours: tuple[str, ...]):
        generator = torch.Generator().manual_seed(HELD_OUT + seed)
        self.truth = methods.part_of_world(n, generator, colours)
        self.edges = detect_edges(self.truth.image)
        self.palette = palette(self.truth.image)
        self.noise = torch.randn(self.truth.x0.shape, generator=generator)

    def scores(self, images: Tensor) -> dict[str, float]:
        return {"IoU": mask_iou(mask_of(images), self.truth.mask).mean().item(),
                "F1": edge_f1(images, self.edges).mean().item(),
                "colours": colours_right(images, self.truth.prompt).float().mean().item()}


# %% What is measured


def prompts(right: Tensor) -> dict[str, Tensor]:
    return {"right": right, "none": torch.zeros_like(right), "conflicting": conflicting(right)}


def generate(base: UNet, method: nn.Module, prompt: Tensor, test: Test, ddim_steps: int, others=()) -> Tensor:
    model = methods.guided_by(base, method, prompt, test.edges, others=others)
    return methods.generate(model, test.noise, ddim_steps)


@torch.no_grad()
def early_look(base: UNet, method: nn.Module, seen: Test, ddim_steps: int) -> dict:
    """The scores with the right prompt and with none."""
    two = list(prompts(seen.truth.prompt).items())[:2]
    return {name: seen.scores(generate(base, method, prompt, seen, ddim_steps)) for name, prompt in two}


@torch.no_grad()
def look(base: UNet, method: nn.Module, seen: Test, new: Test, ddim_steps: int) -> tuple[dict, Tensor]:
    """All scores of a method, and a picture for each of four prompts with its outline."""
    scores = {}
    row = []
    for name, prompt in prompts(seen.truth.prompt).items():
        images = generate(base, method, prompt, seen, ddim_steps)
        scores[name] = seen.scores(images)
        row.append(outlined(images[:1], seen.edges[:1], 4))
    images = generate(base, method, new.truth.prompt, new, ddim_steps)
    scores["new colours"] = new.scores(images)
    row.append(outlined(images[:1], new.edges[:1], 4))
    return scores, torch.cat(row)


@torch.no_grad()
def off_and_composed(base: UNet, palette_net: nn.Module, method: nn.Module, seen: Test, new: Test,
                     ddim_steps: int) -> dict:
    """The base when control is off, and the scores when the palette ControlNet's controls are added."""
    t = torch.linspace(0, 999, len(new.noise)).long()
    prompt = new.truth.prompt
    difference = method(base, new.noise, t, prompt) - base(new.noise, t, prompt)
    off = {"eps moved": difference.abs().max().item()}
    if off["eps moved"]:
        images = methods.generate(methods.control_off(base, method, prompt), new.noise, ddim_steps)
        off["colours"] = new.scores(images)["colours"]
    nothing = torch.zeros_like(seen.truth.prompt)
    images = generate(base, method, nothing, seen, ddim_steps, others=[(palette_net, seen.palette)])
    composed = seen.scores(images)
    composed["palette error"] = palette_error(images, seen.palette).mean().item()
    return {"off": off, "with palette": composed}


def cost(base: UNet, arm: Arm) -> dict[str, float]:
    """Trained weights, and millions of operations per picture: of a training and of a sampling step."""
    method = seeded(0, arm.build, base)
    loss = methods.following_loss(base, methods.seen_batch, arm.cubic, arm.reward)
    with FlopCounterMode(display=False) as training:
        loss(method, torch.Generator().manual_seed(0)).backward()
    batch = methods.seen_batch(torch.Generator().manual_seed(0)).map(lambda tensor: tensor[:1])
    outline = detect_edges(batch.image)
    with torch.no_grad(), FlopCounterMode(display=False) as sampling:
        method(base, batch.x0, torch.tensor([500]), batch.prompt, outline)
    with torch.no_grad(), FlopCounterMode(display=False) as once:
        read_outline(method, outline)
    return {"trained": sum(p.numel() for p in method.parameters() if p.requires_grad),
            "MFLOP to train": training.get_total_flops() / BATCH_SIZE / 1e6,
            "MFLOP to sample": sampling.get_total_flops() / 1e6,
            "of which once a picture": once.get_total_flops() / 1e6}


def read_outline(method: nn.Module, outline: Tensor) -> None:
    """Run the part of a method that sees the outline alone, and so runs once for all steps of sampling."""
    if isinstance(method, methods.T2IAdapter):
        method.features(outline)
    elif isinstance(method, methods.ControlNeXt):
        method.reader(outline)
    else:
        getattr(method, "control", method).condition_encoder(outline)


def cost_of_base(base: UNet) -> dict[str, float]:
    batch = methods.seen_batch(torch.Generator().manual_seed(0)).map(lambda tensor: tensor[:1])
    with torch.no_grad(), FlopCounterMode(display=False) as sampling:
        base(batch.x0, torch.tensor([500]), batch.prompt)
    return {"trained": 0, "MFLOP to train": 0, "MFLOP to sample": sampling.get_total_flops() / 1e6,
            "of which once a picture": 0}


def cost_of_guidance(base: UNet) -> dict[str, float]:
    """Training-free guidance: a forward and a backward pass of the base, as far down as xt."""
    batch = methods.seen_batch(torch.Generator().manual_seed(0)).map(lambda tensor: tensor[:1])
    t = torch.tensor([500])
    xt = batch.x0.clone().requires_grad_(True)
    with FlopCounterMode(display=False) as sampling:
        x0 = x0_from_eps(base(xt, t, batch.prompt), xt, t)
        methods.edge_loss(x0, detect_edges(batch.image)).sum().backward()
    return {"trained": 0, "MFLOP to train": 0, "MFLOP to sample": sampling.get_total_flops() / 1e6,
            "of which once a picture": 0}


def costs(base: UNet, effort: Effort) -> dict[str, dict[str, float]]:
    """The cost of every row of the record, in the record's order."""
    free = {f"training-free, {steps} steps": cost_of_guidance(base) for steps in effort.free_steps}
    trained = {name: cost(base, arm) for name, arm in ARMS.items()}
    return {"no control": cost_of_base(base), **free, **trained}


# %% The arms


class NoControl(nn.Module):
    """The base alone."""

    def forward(self, base: UNet, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor | None = None,
                controls: Controls | None = None) -> Tensor:
        return base(xt, t, prompt, controls)


def without_training(base: UNet, seed: int, effort: Effort) -> Iterator[tuple[str, dict, Tensor]]:
    """The base alone, and training-free guidance with several numbers of steps."""
    seen = Test(effort.pictures, seed, methods.SEEN)
    new = Test(effort.pictures, seed, methods.NEW)
    yield "no control", *look(base, NoControl(), seen, new, effort.ddim_steps)
    for steps in effort.free_steps:
        scores = {}
        row = []
        for name, prompt in prompts(seen.truth.prompt).items():
            images = methods.generate(methods.edge_guided(base, prompt, seen.edges), seen.noise, steps)
            scores[name] = seen.scores(images)
            row.append(outlined(images[:1], seen.edges[:1], 4))
        images = methods.generate(methods.edge_guided(base, new.truth.prompt, new.edges), new.noise, steps)
        scores["new colours"] = new.scores(images)
        row.append(outlined(images[:1], new.edges[:1], 4))
        yield f"training-free, {steps} steps", scores, torch.cat(row)


def run(base: UNet, palette_net: nn.Module, name: str, seed: int, until: int, effort: Effort,
        folder: Path) -> Iterator[tuple[int, dict, Tensor | None]]:
    """Train an arm with one seed up to a step; yields (step, scores, pictures) at each look."""
    arm = ARMS[name]
    method = seeded(seed, arm.build, base)
    loss = methods.following_loss(base, methods.seen_batch, arm.cubic, arm.reward)
    training = Training(method, loss, LOOKS[-1], lr=1e-3, seed=seed)
    path = folder / f"{name}_{seed}.pt"
    if path.exists():
        training.load_state_dict(torch.load(path, weights_only=True))
    seen = Test(effort.pictures, seed, methods.SEEN)
    new = Test(effort.pictures, seed, methods.NEW)
    begin = time.process_time()
    for step, _ in training:
        if step in effort.looks:
            seconds = time.process_time() - begin
            scores, row = early_look(base, training.averaged, seen, effort.ddim_steps), None
            if step in effort.stages:
                scores, row = look(base, training.averaged, seen, new, effort.ddim_steps)
                scores |= off_and_composed(base, palette_net, training.averaged, seen, new, effort.ddim_steps)
            if step == until:
                torch.save(training.state_dict(), path)
            yield step, scores | {"seconds": seconds}, row
            begin = time.process_time() - seconds
        if step == until:
            return


# %% The record


class Record:
    """numbers[arm][step][prompt][score] is a list over seeds; everything is saved after each look.

    done: the scores of each look by "arm, step, seed", from which a run that was cut off continues.
    """

    def __init__(self, lesson: Lesson):
        self.lesson = lesson
        self.folder = lesson.path("", "_states")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.costs, self.done, self.rows = {}, {}, {}
        if (self.folder / "record.pt").exists():
            self.done, self.rows = torch.load(self.folder / "record.pt", weights_only=True)

    def add(self, seed: int, scores: dict, row: Tensor | None, arm: str, step: str) -> None:
        self.done[f"{arm}; {step}; {seed}"] = scores
        if seed == 0 and row is not None:
            self.rows[arm] = row
        torch.save((self.done, self.rows), self.folder / "record.pt")
        self.save()
        print(f"{arm}, seed {seed}, step {step}: {scores['right']}", flush=True)

    def save(self) -> None:
        """Write the numbers, and a row of pictures for each arm in the same order."""
        numbers = self.numbers()
        rows = [self.rows[arm] for arm in numbers if arm in self.rows]
        self.lesson.save_results(numbers, torch.cat(rows) if rows else None, 4)

    def numbers(self) -> dict:
        numbers = {arm: {"cost": cost} for arm, cost in self.costs.items()}
        for key in sorted(self.done, key=lambda key: int(key.split("; ")[2])):
            arm, step, _ = key.split("; ")
            append(numbers.setdefault(arm, {}).setdefault(step, {}), self.done[key])
        return numbers


def append(lists: dict, scores: dict) -> None:
    for key, value in scores.items():
        if isinstance(value, dict):
            append(lists.setdefault(key, {}), value)
        else:
            lists.setdefault(key, []).append(value)


def plan(effort: Effort) -> Iterator[tuple[str, int, int]]:
    """Arms, seeds and last steps, the most important ones first: the time may not suffice for all."""
    rest = ["ControlNet++", "frozen copy"]
    ablations = [name for name, arm in ARMS.items() if arm.ablation]
    main = [name for name in ARMS if name not in rest + ablations]
    if effort == SMOKE:
        parts = [(list(ARMS), effort.seeds, 2)]
    else:
        parts = [(main + rest, SEEDS[:1], 600), (main, SEEDS[1:], 600), (rest[:1], SEEDS[1:], 600),
                 (ablations, SEEDS[:1], 600), (main, SEEDS[:1], 2000), (rest[1:], SEEDS[1:], 600),
                 (rest, SEEDS[:1], 2000), (ablations, SEEDS[1:], 600), (main + rest, SEEDS[1:], 2000)]
    for names, seeds, until in parts:
        for seed in seeds:
            for name in names:
                yield name, seed, until


def main() -> None:
    lesson = Lesson("12_descendants", steps=LOOKS[-1], quick_steps=2)
    effort = SMOKE if lesson.quick else Effort()
    base = load_base()
    palette_net = load_control("palette", base)
    record = Record(lesson)
    record.costs = costs(base, effort)
    for seed in effort.seeds:
        if f"no control; 0; {seed}" not in record.done:
            for name, scores, row in without_training(base, seed, effort):
                record.add(seed, scores, row, name, "0")
    for name, seed, until in plan(effort):
        if f"{name}; {until}; {seed}" not in record.done:
            for step, scores, row in run(base, palette_net, name, seed, until, effort, record.folder):
                record.add(seed, scores, row, name, str(step))


if __name__ == "__main__":
    main()
