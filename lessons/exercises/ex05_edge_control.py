"""Exercises of lesson 05. Write the functions, then run: python lessons/exercises check"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from minicontrolnet.controlnet import Controls, tell_odd_range
from minicontrolnet.diffusion import to_eps
from minicontrolnet.errors import check_generator, check_number
from minicontrolnet.measure.scores import check_several, one_number
from minicontrolnet.shapes import EMPTY, check_tokens
from minicontrolnet.unet import fitting

from exercises.probing import Observed, call, exercise, normal, reached_from, tiny


@exercise(
    "05a", 10, "Eq. 2, Fig. 3", "Bug hunt: this trains, and follows no outline.",
    "minicontrolnet.controlnet.ControlNet.forward",
    bugs=("(condition) ", "(condition).detach() ", "zero(h)", "zero(h.detach())"),
    hints=(
        "After a backward pass, which of the four parts have a gradient, and which of them need one?",
        "A part that is frozen still passes gradients on. Look for the place where a gradient is stopped."),
    mistakes={
        "The controls are detached, so nothing can be trained.": ("zero(h)", "zero(h).detach()"),
        "The maps are detached. The zero convs learn, but the copy never does.": ("zero(h)", "zero(h.detach())"),
        "The features are detached, so the condition encoder never learns.": ("(condition) ", "(condition).detach() "),
        "The controls go from deep to shallow, but the base adds the shallow ones first.": "RIGHT[::-1]",
        "The zero convs and the maps are paired in reversed order.": ("_convs, ", "_convs[::-1], "),
        "The prompt does not reach the copy.": ("(t, prompt)", "(t, prompt * 0)"),
        "The condition does not reach the copy.": ("emb, features)", "emb)"),
        "The middle block's control is missing. 12 skips and the middle make 13 controls.": "RIGHT[:-1]",
    })
def wiring(forward, generator: torch.Generator) -> Observed:
    _, control, inputs, condition = tiny(generator)
    controls = call(forward, control, *inputs, condition)
    loss = sum(c.square().sum() for c in controls)
    return {"number of controls": len(controls),
            "shapes from shallow to deep": [tuple(c.shape) for c in controls],
            "a gradient reaches": reached_from(loss, dict(control.named_children())),
            "the controls": [c.detach() for c in controls]}


@exercise(
    "05b", 10, "Sec. 3.2, Fig. 3", "Where the 13 controls enter the base.",
    "minicontrolnet.unet.UNet.forward",
    hints=(
        "Encode, add the controls, and decode. The last of the 13 maps is the middle block's.",
        "to_eps turns the decoder's output into eps."),
    remarks={
        "a gradient reaches the base": "Your forward is right, but it stops the gradients of the base, so no base"
                                       " could be trained with it."},
    mistakes={
        "Controls are added to the maps, not concatenated.": ("h + control", "torch.cat([h, control], 1)"),
        "Control must not enter the encoder. Add it to what the locked encoder outputs.":
            ("(xt, emb)", "(xt, emb, controls and controls[0])", "h + control", "h"),
        "The middle block gets no control.": ("True)]", "True)][:-1] + maps[-1:]"),
        "The skips get no control.": ("[h +", "maps[:-1] + [h +", "True)]", "True)][-1:]"),
        "You do not use the controls at all.": ("h + control", "h"),
        "Controls are added to the maps and do not replace them. A control of 0 must change nothing.":
            ("h + control", "control"),
        "Controls are added, not averaged. A control of 0 must change nothing.": ("h + control", "(h + control) / 2"),
        "Controls are added, not multiplied. A control of 0 must change nothing.": ("h + control", "h * control"),
        "The order is reversed. Both the maps and the controls go from shallow to deep.":
            ("maps, controls,", "maps, controls[::-1],"),
        "The controls are detached, so no ControlNet would learn.": ("h + control", "h + control.detach()"),
        "The prompt does not reach the base.": ("(t, prompt)", "(t, prompt * 0)"),
        "This is what the layers output (x0), but forward returns eps. See to_eps.": "output",
    })
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


@exercise(
    "05c", 10, "Sec. 3.3", "Replace half of the prompts by the empty one.",
    "minicontrolnet.training.drop_words",
    hints=(
        "One coin for each picture decides about the whole prompt. Three more coins decide about its words.",
        "Use torch.rand(n, 1) and torch.rand(n, 3). EMPTY is the token of a missing word."),
    mistakes={
        "You toss one coin for all prompts. Each picture needs its own.": ("rand(n, 1,", "rand(1, 1,"),
        "You toss a coin for each word, but whole is the probability that a whole prompt goes.":
            ("rand(n, 1,", "rand(n, 3,"),
        "The random numbers do not come from generator, so no run could be repeated.": ("r=generator", "r=None"),
        "The coins are the same at each call. Use generator as it is.":
            ("r=generator", "r=torch.Generator().manual_seed(0)"),
        "You always drop the first prompts. Toss a coin for each picture.":
            ("torch.rand(n, 1, generator=generator) >=", "torch.arange(n)[:, None] >= n *"),
        "You ignore each. It is the probability that a single word goes.": (">= each", ">= 0"),
        "Words become EMPTY, and every prompt stays in the batch.": "prompt[keep[:, 0]]",
        "You keep the words that should be dropped.": "torch.where(keep, EMPTY, prompt)",
    })
def dropping(drop_words, generator: torch.Generator) -> Observed:
    prompt = torch.randint(1, 5, (3000, 3), generator=generator)

    def gone(whole: float, each: float, seed: int | None = None) -> Tensor:
        own = generator if seed is None else torch.Generator().manual_seed(seed)
        return call(drop_words, prompt, own, whole, each) == EMPTY

    half, single = gone(0.5, 0.0), gone(0.0, 0.3)
    return {"prompts at whole=0, each=0": call(drop_words, prompt, generator, 0.0, 0.0),
            "words that go at whole=1": gone(1.0, 0.0),
            "at whole=0.5 all words of a prompt go together": torch.equal(half.any(1), half.all(1)),
            "share of words that go at whole=0.5": round(half.double().mean().item(), 1),
            "the same share in the first half of the batch": round(half[:1500].double().mean().item(), 1),
            "share of words that go at each=0.3": round(single.double().mean().item(), 1),
            "at each=0.3 all words of a prompt go together": torch.equal(single.any(1), single.all(1)),
            "equal seeds drop the same words": torch.equal(gone(0.5, 0.3, 1), gone(0.5, 0.3, 1)),
            "different seeds drop the same words": torch.equal(gone(0.5, 0.0, 1), gone(0.5, 0.0, 2))}


@exercise(
    "05d", 5, "not in the paper", "Does the model use its condition at all?",
    "minicontrolnet.measure.scores.shuffle_gap",
    hints=(
        "Subtract the loss with the true conditions from the loss with another picture's conditions.",
        "A random order may leave some conditions in their places. Rolling by one leaves none."),
    mistakes={
        "The sign is reversed. A condition that helps must give a positive gap.": "-RIGHT",
        "You shuffled nothing. Each picture kept its own condition.": (".roll(1, 0)", ".clone()"),
        "Flipping leaves the middle condition in its place. Roll them by one.": (".roll(1, 0)", ".flip(0)"),
        "A random order may leave some conditions in their places. Roll them by one.":
            (".roll(1, 0)", "[torch.randperm(len(condition))]"),
        "A black picture is not another picture's condition. Roll them by one.":
            ("condition.roll(1, 0)", "condition * 0"),
        "Noise is not another picture's condition. Roll them by one.":
            ("condition.roll(1, 0)", "torch.rand_like(condition)"),
        "Do not take the absolute value. A condition that misleads has a negative gap.": "abs(RIGHT)",
        "The gap is a difference, not a ratio.": (")) - loss", ")) / loss"),
        "This is a tensor with one number. .item() turns it into the float that the signature promises.":
            (".item()", ""),
        "Without a dimension, roll moves pixels between pictures. Use roll(1, 0).": (".roll(1, 0)", ".roll(1)"),
        "You moved the pixels inside each picture. Move whole conditions between pictures.":
            (".roll(1, 0)", ".roll(1, -1)"),
    })
def shuffling(shuffle_gap, generator: torch.Generator) -> Observed:
    five, ramp = normal(generator, 5, 1, 3, 3), normal(generator, 3, 3)

    def loss(c: Tensor) -> Tensor:  # how many pictures have another picture's condition
        same = (c[:, None] == five).flatten(2).all(2)
        return same.fill_diagonal_(False).double().sum() + (c * ramp).mean()

    def misled(c: Tensor) -> Tensor:
        return -loss(c)

    return {"gap, eight times": [call(shuffle_gap, loss, five.clone()) for _ in range(8)],
            "gap of a model that its condition misleads": call(shuffle_gap, misled, five.clone())}
