"""Exercises of lesson 06. Write the functions; then: python lessons/exercises check"""

from collections.abc import Sequence

import torch
from torch import Tensor

from minicontrolnet.diffusion import Model, cfg
from minicontrolnet.sampling import GUIDANCE, Control, predictor
from minicontrolnet.unet import UNet

from exercises.probing import Observed, call, exercise, tiny


def weighting(function, generator: torch.Generator) -> Observed:
    weights = call(function)
    return {"number of weights": len(weights), "weights": [float(w) for w in weights],
            "it is a list": isinstance(weights, (list, tuple))}


paper = exercise(
    "06a", 5, "Sec. 3.4", "The paper's w_i for our 13 connections.",
    "minicontrolnet.sampling.paper_weights", weighting, (
    "Three connections on each of the grids 16, 8, 4, 2, then the middle.",
    "16 / h here is what 64 / h is in the paper."), {
    "reversed: deep maps are small, so 1 / h makes their weight large": "RIGHT[::-1]",
    "the middle block is a connection, too: 12 + 1 = 13": "RIGHT[:-1]",
    "those are at most 1; the paper's run from 1 to 8": "[w / 8 for w in RIGHT]",
    "the paper's largest grid is 64, ours is 16, w_1 is 1": ("16 /", "64 /"),
    "upside down: small grids get large weights": "[1 / w for w in RIGHT]",
    "one a connection: 3 on each grid, and the middle": "[1.0, 2.0, 4.0, 8.0]",
    "a downsampled map has its own, smaller grid's weight": "RIGHT[:1] + RIGHT[:-1]",
    "the middle stands on the same grid as the last skips": "RIGHT[:-1] + [16.0]",
    "a list is wanted, not a tensor": "torch.tensor(RIGHT)"})()

guess_mode = exercise(
    "06b", 5, "released code", "Guess mode's 13 weights, powers of 0.825.",
    "minicontrolnet.sampling.guess_mode_weights", weighting, (
    "The power falls from 12 at the shallowest to 0 at the middle.",
    "i counts from 0 (shallow) to 12."), hide=("0.825 ** (12 - i)",), mistakes={
    "reversed: the middle keeps its strength, shallow maps lose theirs": "RIGHT[::-1]",
    "off by one: the middle's weight is exactly 1": "[0.825 * w for w in RIGHT]",
    "12 skips and the middle make 13 weights": "RIGHT[1:]",
    "off by one: i starts at 0, no weight is above 1": "[w / 0.825 for w in RIGHT]",
    "a power, not a product: **": "[0.825 * (12 - i) for i in range(13)]",
    "that is the default, not guess mode": "[1.0] * 13"})()


@exercise("06c", 10, "Sec. 3.4, Fig. 5", "Guidance, control in one branch or both.",
          "minicontrolnet.sampling.guided", hints=(
    "predictor makes a branch, cfg joins two.",
    "The unconditional one has no prompt, and control only with in_both."), mistakes={
    "control is in both branches, always: see in_both": ("if in_both else ()", ""),
    "with in_both control is in the other branch, too": ("if in_both", "if False"),
    "in_both is read the wrong way round": ("if in_both", "if not in_both"),
    "control is in the wrong branch": ("t, controls)", "t)", "if in_both else ()", ""),
    "control is not used at all": ("prompt, controls)", "prompt)"),
    "swapped: guidance leads away from the prompt": "cfg(cond, uncond, guidance_scale)",
    "guidance is left out: that is the prompt's branch alone": "cond",
    "the unconditional branch has no prompt": ("torch.zeros_like(prompt)", "prompt"),
    "pass on all, not one": ("prompt, controls)", "prompt, controls[:1])"),
    "pass controls without a star": ("prompt, controls)", "prompt, *controls)")})
def guiding(guided, generator: torch.Generator) -> Observed:
    base, network, (xt, t, prompt), condition = tiny(generator)
    one, two = Control(network, condition), Control(network, 1 - condition, 0.5)

    @torch.no_grad()
    def eps(words: Tensor, controls: list, *more: float) -> Tensor:
        return call(call(guided, base, words, controls, *more), xt, t)

    return {**{f"eps at scale {s}": eps(prompt, [one], s) for s in (0.0, 1.0, 3.0)},
            "eps at scale 3, control in both": eps(prompt, [one], 3.0, True),
            "eps at scale 3, two controls": eps(prompt, [one, two], 3.0),
            "eps at scale 3, no control": eps(prompt, [], 3.0),
            "eps at scale 3, empty prompt": eps(prompt * 0, [one], 3.0)}
