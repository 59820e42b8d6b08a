"""Exercises of lesson 05. Write the functions; then: python lessons/exercises check"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from minicontrolnet.controlnet import Controls
from minicontrolnet.diffusion import to_eps
from minicontrolnet.shapes import EMPTY

from exercises.probing import Observed, call, exercise, normal, reached_from, tiny


@exercise("05a", 10, "Eq. 2, Fig. 3", "Bug hunt: this trains, and follows no outline.",
          "minicontrolnet.controlnet.ControlNet.forward", bugs=(
    "(condition) ", "(condition).detach() ", "zero(h)", "zero(h.detach())"), hints=(
    "After backward, which of the four parts have a gradient, and which need one?",
    "Frozen is not the same as no gradient through it: see where one is stopped."),
          mistakes={
    "controls detached: there is nothing to train": ("zero(h)", "zero(h).detach()"),
    "maps detached: zero convs learn, the copy never": ("zero(h)", "zero(h.detach())"),
    "features detached: no outline comes in": ("(condition)", "(condition).detach()"),
    "the controls come deep to shallow: the base adds shallow first": "RIGHT[::-1]",
    "zero convs and maps are paired in reversed order": ("_convs, ", "_convs[::-1], "),
    "the prompt does not reach the copy": ("(t, prompt)", "(t, prompt * 0)"),
    "the condition does not reach the copy": ("emb, features)", "emb)"),
    "the middle's control is missing: 12 skips and 1 middle are 13": "RIGHT[:-1]"})
def wiring(forward, generator: torch.Generator) -> Observed:
    _, control, inputs, condition = tiny(generator)
    controls = call(forward, control, *inputs, condition)
    loss = sum(c.square().sum() for c in controls)
    return {"number of controls": len(controls),
            "shapes, shallow to deep": [tuple(c.shape) for c in controls],
            "a gradient reaches": reached_from(loss, dict(control.named_children())),
            "the controls": [c.detach() for c in controls]}


@exercise("05b", 10, "Sec. 3.2, Fig. 3", "Where the 13 controls enter the base.",
          "minicontrolnet.unet.UNet.forward", hints=(
    "Encode, add, decode; the last of the 13 maps is the middle.",
    "The decoder's output is read as eps by to_eps."), remarks={
    "a gradient reaches the base": "no base could be trained with it"}, mistakes={
    "added, not concatenated": ("h + control", "torch.cat([h, control], 1)"),
    "control entered the encoder: it is added to what the encoder puts out":
        ("(xt, emb)", "(xt, emb, controls and controls[0])", "h + control", "h"),
    "the middle block gets no control": ("True)]", "True)][:-1] + maps[-1:]"),
    "the skips get no control": ("[h +", "maps[:-1] + [h +", "True)]", "True)][-1:]"),
    "the controls are not used at all": ("h + control", "h"),
    "added, not put in its place: 0 changes nothing": ("h + control", "control"),
    "added, not averaged: 0 must change nothing": ("h + control", "(h + control) / 2"),
    "added, not multiplied: 0 must change nothing": ("h + control", "h * control"),
    "reversed: both go shallow to deep": ("maps, controls,", "maps, controls[::-1],"),
    "detached: no ControlNet would learn": ("h + control", "h + control.detach()"),
    "the prompt does not reach the base": ("(t, prompt)", "(t, prompt * 0)"),
    "that is what the layers put out (x0): forward promises eps, see to_eps": "output"})
def adding(forward, generator: torch.Generator) -> Observed:
    base, _, inputs, _ = tiny(generator)
    maps = base.encoder(inputs[0], base.embedding(*inputs[1:]))
    controls = nn.ParameterList(normal(generator, *h.shape) for h in maps)
    base.encoder.requires_grad_(True)
    eps = call(forward, base, *inputs, tuple(controls))
    reached = reached_from(eps, {"controls": controls, "base": base.encoder})
    return {"eps without controls": call(forward, base, *inputs).detach(),
            "eps with controls": eps.detach(),
            "a gradient reaches the controls": "controls" in reached,
            "a gradient reaches the base": "base" in reached}


@exercise("05c", 10, "Sec. 3.3", "Replace half of the prompts by the empty one.",
          "minicontrolnet.training.drop_words", hints=(
    "One coin a picture decides over the whole prompt; further ones over its words.",
    "torch.rand(n, 1) and torch.rand(n, 3); EMPTY stands for no word."), mistakes={
    "one coin for all: each picture needs its own": ("rand(n, 1,", "rand(1, 1,"),
    "one coin for each word: whole drops whole prompts": ("rand(n, 1,", "rand(n, 3,"),
    "not from generator: no run could be repeated": ("r=generator", "r=None"),
    "the same coins each time": ("r=generator", "r=torch.Generator().manual_seed(0)"),
    "always the first ones are dropped: toss a coin for each picture":
        ("torch.rand(n, 1, generator=generator) >=", "torch.arange(n)[:, None] >= n *"),
    "each is ignored: it drops single words, by own coins": (">= each", ">= 0"),
    "words become EMPTY: no prompt goes away": "prompt[keep[:, 0]]",
    "you keep the words that are to be dropped": "torch.where(keep, EMPTY, prompt)"})
def dropping(drop_words, generator: torch.Generator) -> Observed:
    prompt = torch.randint(1, 5, (3000, 3), generator=generator)

    def gone(whole: float, each: float, seed: int | None = None) -> Tensor:
        own = generator if seed is None else torch.Generator().manual_seed(seed)
        return call(drop_words, prompt, own, whole, each) == EMPTY

    half, single = gone(0.5, 0.0), gone(0.0, 0.3)
    return {"kept at 0, 0": call(drop_words, prompt, generator, 0.0, 0.0),
            "all gone at 1, 0": gone(1.0, 0.0),
            "at 0.5, 0 prompts go as a whole": torch.equal(half.any(1), half.all(1)),
            "gone at 0.5, 0": round(half.double().mean().item(), 1),
            "gone of the first half": round(half[:1500].double().mean().item(), 1),
            "gone at 0, 0.3": round(single.double().mean().item(), 1),
            "at 0, 0.3 words go together": torch.equal(single.any(1), single.all(1)),
            "one seed, same words": torch.equal(gone(0.5, 0.3, 1), gone(0.5, 0.3, 1)),
            "two seeds, same words": torch.equal(gone(0.5, 0.0, 1), gone(0.5, 0.0, 2))}


@exercise("05d", 5, "not in the paper", "Does the model use its condition at all?",
          "minicontrolnet.measure.scores.shuffle_gap", hints=(
    "The loss with another picture's condition, minus the loss with the own one.",
    "A random order may leave some in place; rolling by one leaves none."), mistakes={
    "the sign is reversed: a condition that helps must give a positive gap": "-RIGHT",
    "nothing was shuffled: each kept its own condition": (".roll(1, 0)", ".clone()"),
    "flipping leaves the middle one in its place: roll": (".roll(1, 0)", ".flip(0)"),
    "some may stay in place: roll": (".roll(1, 0)", "[torch.randperm(len(condition))]"),
    "black is not another's condition: roll": ("condition.roll(1, 0)", "condition * 0"),
    "noise is no condition": ("condition.roll(1, 0)", "torch.rand_like(condition)"),
    "no abs: a condition that misleads has a negative gap": "abs(RIGHT)",
    "a difference is wanted, not a ratio": (")) - loss", ")) / loss"),
    "a tensor with one number: .item() makes it the float promised": (".item()", ""),
    "without a dimension it moves pixels, too: roll(1, 0)": (".roll(1, 0)", ".roll(1)"),
    "pixels moved within a picture: swap conditions": (".roll(1, 0)", ".roll(1, -1)")})
def shuffling(shuffle_gap, generator: torch.Generator) -> Observed:
    five, ramp = normal(generator, 5, 1, 3, 3), normal(generator, 3, 3)

    def loss(c: Tensor) -> Tensor:  # how many have another picture's condition
        same = (c[:, None] == five).flatten(2).all(2)
        return same.fill_diagonal_(False).double().sum() + (c * ramp).mean()

    gaps = [call(shuffle_gap, loss, five.clone()) for _ in range(8)]
    return {"gap, eight times": gaps,
            "gap if it misleads": call(shuffle_gap, lambda c: -loss(c), five.clone())}
