"""Users ask: for two conditions, do I stack their channels, train two ControlNets together, or add two trained apart?

    python lessons/experiments/users_two_conditions.py

It takes about 5 minutes on one core. The question is from the official repository's issues 14, 271 and 544. The paper
(Sec. 3.4) adds the outputs.

This was written down before the experiment ran. The conditions are an outline and a palette. Every arm has 200 steps
of 16 at 1e-3, half of the prompts empty, and three seeds (70 to 72). These are the arms:
- "sum": an edge and a palette ControlNet are each trained alone for 200 steps, and their outputs are added.
- "stacked": one ControlNet has four channels.
- "joint": two ControlNets, whose outputs are added already in training.

We test them on 48 held-out pictures without words, with guidance 2.5 and 12 DDIM steps. We measure mask IoU and
palette error with both conditions, and mask IoU with the outline alone. With the outline alone, "stacked" gets zeros
for the palette, and the other arms leave the palette ControlNet out.
- Training together is better with both conditions. Shown by: stacked minus sum is above 0 in IoU, or sum minus
  stacked is above 0 in palette error; the same for joint. Refuted by: the opposite.
- Only the sum can be taken apart. Shown by: in IoU with the outline alone, sum minus stacked is above 0, and so is
  sum minus joint. Refuted by: it is below 0.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
import torch
from torch import Tensor, nn

from experiments.common import Evaluation, Findings, Record, minus, run
from minicontrolnet import (ControlNet, Training, UNet, compose, detect_edges, drop_words, fresh_batch, load_base,
                            noise_loss, palette, palette_error, random_times_and_noise, roughen, sample, seeded)

SEEDS, STEPS = range(70, 73), 200


class Two(nn.Module):
    """An edge and a palette ControlNet; the condition has four channels, the outline first."""

    c_condition = 4

    def __init__(self, edge: nn.Module, colours: nn.Module):
        super().__init__()
        self.edge, self.colours = edge, colours

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor):
        return compose(self.edge(xt, t, prompt, condition[:, :1]), self.colours(xt, t, prompt, condition[:, 1:]))


def joint(base: UNet) -> Two:
    return Two(ControlNet(base, 1), ControlNet(base, 3))


def train_on(channels: slice, network: nn.Module, base: UNet, steps: int, seed: int) -> nn.Module:
    """Train a network on some of the four channels: the outline is the first, the palette the other three."""

    def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
        batch = fresh_batch(generator)
        edges = roughen(detect_edges(batch.image), generator)
        condition = torch.cat([edges, palette(batch.image)], 1)[:, channels]
        prompt = drop_words(batch.prompt, generator, whole=0.5, each=0.0)
        t, eps = random_times_and_noise(batch.x0, generator)

        def model(xt: Tensor, t: Tensor) -> Tensor:
            return base(xt, t, prompt, network(xt, t, prompt, condition))

        return noise_loss(model, batch.x0, t, eps, base.prediction_type)

    training = Training(network, loss, steps=steps, lr=1e-3, seed=seed)
    for _ in training:
        pass
    return training.averaged


def measure(base: UNet, network: nn.Module, outline_alone: tuple[nn.Module, Tensor], evaluation: Evaluation) -> dict:
    colours = palette(evaluation.truth.image)
    both = torch.cat([evaluation.edges, colours], 1)
    images = sample(base, "", evaluation.noise, [(network, both)], steps=evaluation.ddim_steps)
    alone = sample(base, "", evaluation.noise, [outline_alone], steps=evaluation.ddim_steps)
    error = {"palette error": palette_error(images, colours).mean().item()}
    return evaluation.scores(images) | error | {"outline alone": evaluation.scores(alone)}


def train(record: Record) -> None:
    base, evaluation = load_base(), Evaluation(4 if record.quick else 48)
    steps = 2 if record.quick else STEPS
    edges, everything = evaluation.edges, slice(None)
    for seed in SEEDS:
        if seed in record.missing("sum", SEEDS):
            edge = train_on(slice(1), seeded(seed, ControlNet, base, 1), base, steps, seed)
            colours = train_on(slice(1, 4), seeded(seed, ControlNet, base, 3), base, steps, seed)
            record.add("train", "sum", measure(base, Two(edge, colours), (edge, edges), evaluation))
        if seed in record.missing("stacked", SEEDS):
            stacked = train_on(everything, seeded(seed, ControlNet, base, 4), base, steps, seed)
            no_palette = torch.cat([edges, torch.zeros(len(edges), 3, 64, 64)], 1)
            record.add("train", "stacked", measure(base, stacked, (stacked, no_palette), evaluation))
        if seed in record.missing("joint", SEEDS):
            two = train_on(everything, seeded(seed, joint, base), base, steps, seed)
            record.add("train", "joint", measure(base, two, (two.edge, edges), evaluation))


# %% What the record says


def findings(numbers: dict) -> Findings:
    """The sum against the two ways to train both at once, paired by the training seed."""
    found, added = {}, numbers["sum"]
    for arm in ("stacked", "joint"):
        other = numbers[arm]
        found[f"{arm} minus sum, IoU"] = minus(other["IoU"], added["IoU"])
        found[f"sum minus {arm}, palette error"] = minus(added["palette error"], other["palette error"])
        found[f"outline alone: sum minus {arm}, IoU"] = minus(added["outline alone"]["IoU"],
                                                             other["outline alone"]["IoU"])
    return found


if __name__ == "__main__":
    run("users_two_conditions", {"train": train}, findings)
