"""Exercises of lesson 13. Find the bugs and mend them, then run: python lessons/exercises check"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicontrolnet.conditions import _largest_of_four, check_edge_maps
from minicontrolnet.controlnet import zero_conv
from minicontrolnet.diffusion import to_eps
from minicontrolnet.errors import check_count, check_generator, check_input
from minicontrolnet.unet import PATCH, fitting

from exercises import ex05_edge_control
from exercises.probing import Observed, call, exercise, normal


@exercise(
    "13a", 5, "Sec. 3.1", "Bug hunt: gradients arrive, and the copy never moves.",
    "minicontrolnet.training.adamw",
    bugs=("AdamW(network.parameters()", "AdamW(copy.deepcopy(network).parameters()"),
    hints=(
        "Which weights does the optimiser change? Are they the ones that forward uses?",
        "An optimiser holds parameters, not names. A deepcopy has parameters of its own."),
    mistakes={
        "A deepcopy has parameters of its own. The optimiser changes those, and forward uses the others.":
            ("AdamW(network.parameters()", "AdamW(__import__('copy').deepcopy(network).parameters()"),
        "Only the first part of the network is trained.":
            ("AdamW(network.parameters()", "AdamW(next(network.children()).parameters()"),
        "The biases are not trained.":
            ("AdamW(network.parameters()", "AdamW([p for p in network.parameters() if p.dim() > 1]"),
        "The learning rate is another one than the one that was given.": ("lr=lr", "lr=1e-3"),
        "Adam has no decoupled weight decay. Use AdamW.": ("optim.AdamW", "optim.Adam"),
    })
def holding(adamw, generator: torch.Generator) -> Observed:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).double()
    for parameter in network.parameters():
        parameter.data = normal(generator, *parameter.shape)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimiser = call(adamw, network, 0.05)
    network(normal(generator, 4, 3)).square().sum().backward()
    optimiser.step()
    names = [name for name, _ in network.named_parameters()]
    moved = [not torch.equal(p, old) for p, old in zip(network.parameters(), before)]
    return {"weights that a step moves": [name for name, here in zip(names, moved) if here],
            "weights after a step": [parameter.detach() for parameter in network.parameters()]}


@exercise(
    "13b", 10, "Sec. 3.1", "Bug hunt: the copy learns, and ignores its condition.",
    "minicontrolnet.controlnet.ConditionEncoder",
    bugs=("zero_conv(c_out),", "zero_conv(c_out), zero_conv(c_out),"),
    hints=(
        "After some steps, which layers' weights have moved? Is there one of which only the bias has?",
        "The gradient of a weight contains its layer's input. What is the input of the last layer?"),
    mistakes={
        "Two zero convs in a row: the weight of neither ever moves.":
            ("zero_conv(c_out),", "zero_conv(c_out), zero_conv(c_out),"),
        "Without a zero conv at its end, the encoder disturbs the base at the start.":
            ("            zero_conv(c_out),\n", ""),
        "The zero conv is frozen, but it must learn.": ("zero_conv(c_out),", "zero_conv(c_out).requires_grad_(False),"),
        "The features do not depend on the condition.": "self.layers(condition * 0)",
        "The features are detached, so the encoder never learns.": "RIGHT.detach()",
    })
def stacking(build, generator: torch.Generator) -> Observed:
    encoder = call(build, 1, 8).double()
    condition = torch.rand(2, 1, 16, 16, generator=generator, dtype=torch.float64)
    target = normal(generator, 2, 8, 4, 4)
    before = call(encoder, condition)
    names = ["first", "second", "zero conv"]
    learn = [layer for layer in encoder.layers if isinstance(layer, nn.Conv2d)]
    start = [layer.weight.detach().clone() for layer in learn]
    for _ in range(4):
        encoder.zero_grad()
        loss = (call(encoder, condition) - target).square().sum()
        if loss.requires_grad:
            loss.backward()
        for parameter in encoder.parameters():
            if parameter.grad is not None:
                parameter.data -= 0.01 * parameter.grad
    moved = [name for name, layer, weight in zip(names, learn, start) if not torch.equal(layer.weight, weight)]
    last = encoder.layers[-1]
    other = call(encoder, condition.roll(1, 0))
    return {"shape of the features": tuple(before.shape),
            "features before training are 0": not before.any(),
            "a gradient reaches the encoder": before.requires_grad,
            "the last layer's bias moves": isinstance(last, nn.Conv2d) and bool(last.bias.any()),
            "layers whose weights move in four steps": moved,
            "another condition changes the features": not torch.equal(call(encoder, condition), other)}


@exercise(
    "13c", 10, "Sec. 3.2, Fig. 3", "Bug hunt: on this base a good ControlNet is bad.",
    "minicontrolnet.unet.UNet.forward",
    bugs=("zip(maps, controls,", "zip(maps, sorted(controls[::-1], key=lambda c: -c.shape[-1]),"),
    hints=(
        "No error is raised, so all shapes agree. Does that prove that each control meets its own map?",
        "The maps and the controls both go from shallow to deep, so nothing needs sorting."),
    mistakes={
        "Sorting by size exchanges the controls that have the same size.":
            ("zip(maps, controls,", "zip(maps, sorted(controls[::-1], key=lambda c: -c.shape[-1]),"),
        "The order is reversed, but maps and controls both go from shallow to deep.":
            ("maps, controls,", "maps, controls[::-1],"),
        "The middle block gets no control.": ("True)]", "True)][:-1] + maps[-1:]"),
        "The controls are not used at all.": ("h + control", "h"),
        "The controls are detached, so no ControlNet would learn.": ("h + control", "h + control.detach()"),
    })
def sorting(forward, generator: torch.Generator) -> Observed:
    return ex05_edge_control.adding.check(forward, generator)


@exercise(
    "13d", 10, "not in the paper", "Bug hunt: trained on these strokes, it follows no outline.",
    "minicontrolnet.conditions.roughen",
    bugs=("return strokes * (1", "return 1 - strokes * (1"),
    hints=(
        "Which number does a line have in training, and which number does it have in use?",
        "An edge map is 1 on the line and 0 elsewhere, in training and in use."),
    mistakes={
        "The condition is inverted: a line is 1 in an edge map, but training sees it as 0.":
            ("return strokes * (1", "return 1 - strokes * (1"),
        "The condition is in [-1, 1], as a picture is. It must be in [0, 1].": "2 * RIGHT - 1",
        "The condition is in [0, 255]. It must be in [0, 1].": "255 * RIGHT",
        "Only the holes are left of the lines.": ("strokes * (1 - ", "strokes * (0 + "),
        "There are no holes, but a pen leaves small gaps.": "strokes",
        "Each picture got another picture's edges.": "RIGHT.roll(1, 0)",
    })
def roughening(roughen, generator: torch.Generator) -> Observed:
    edges = (torch.rand(64, 1, 64, 64, generator=generator) > 0.97).float()
    rough = call(roughen, edges, generator)
    own = ((rough * edges).sum((1, 2, 3)) / edges.sum((1, 2, 3))).mean().item()
    return {"smallest and largest value": [rough.min().item(), rough.max().item()],
            "share of the picture that is line": round(rough.mean().item(), 3),
            "share of the own lines that is kept": round(own, 2),
            "the result": rough}
