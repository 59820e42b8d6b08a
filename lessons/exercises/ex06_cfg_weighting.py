"""Exercises of lesson 06. Write the functions, then run: python lessons/exercises check"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from minicontrolnet.diffusion import Model, cfg
from minicontrolnet.errors import check_flag, check_number
from minicontrolnet.sampling import GUIDANCE, Control, as_controls, predictor, tell_no_control
from minicontrolnet.unet import UNet

from exercises.probing import Observed, call, exercise, tiny


def weighting(function, generator: torch.Generator) -> Observed:
    weights = call(function)
    return {"number of weights": len(weights), "weights": [float(w) for w in weights],
            "it is a list": isinstance(weights, (list, tuple))}


paper = exercise(
    "06a", 5, "Sec. 3.4", "The paper's w_i for our 13 connections.",
    "minicontrolnet.sampling.paper_weights",
    hints=(
        "There are three connections on each of the grids 16, 8, 4 and 2, and then the middle block.",
        "16 / h here corresponds to 64 / h in the paper."),
    mistakes={
        "The order is reversed. Deep maps are small, so 1 / h makes their weights large.": "RIGHT[::-1]",
        "The middle block is a connection, too. 12 skips and the middle make 13 weights.": "RIGHT[:-1]",
        "Your weights are at most 1, but the paper's go from 1 to 8.": "[w / 8 for w in RIGHT]",
        "The paper's largest grid is 64, but ours is 16. The first weight is 1.": ("16 /", "64 /"),
        "This is upside down. Small grids get large weights.": "[1 / w for w in RIGHT]",
        "Give one weight for each connection: three for each grid, and one for the middle block.":
            "[1.0, 2.0, 4.0, 8.0]",
        "A downsampled map has the weight of its own, smaller grid.": "RIGHT[:1] + RIGHT[:-1]",
        "The middle block has the same grid as the last skips, so it has the same weight.": "RIGHT[:-1] + [16.0]",
        "Return a list, not a tensor.": "torch.tensor(RIGHT)",
    })(weighting)

guess_mode = exercise(
    "06b", 5, "released code", "Guess mode's 13 weights, powers of 0.825.",
    "minicontrolnet.sampling.guess_mode_weights",
    hints=(
        "The exponent falls from 12 at the shallowest map to 0 at the middle block.",
        "Let i count from 0 (shallow) to 12 (middle)."),
    hide=("0.825 ** (12 - i)",),
    mistakes={
        "The order is reversed. The middle block keeps its strength, and shallow maps lose theirs.": "RIGHT[::-1]",
        "The exponents are too large by 1. The middle block's weight is exactly 1.": "[0.825 * w for w in RIGHT]",
        "12 skips and the middle block make 13 weights.": "RIGHT[1:]",
        "The exponents are too small by 1. No weight is above 1.": "[w / 0.825 for w in RIGHT]",
        "Use powers (**), not products.": "[0.825 * (12 - i) for i in range(13)]",
        "13 equal weights are the default, not guess mode.": "[1.0] * 13",
    })(weighting)


@exercise(
    "06c", 10, "Sec. 3.4, Fig. 5", "Guidance, control in one branch or both.",
    "minicontrolnet.sampling.guided",
    hints=(
        "predictor makes one branch, and cfg combines two.",
        "The unconditional branch has no prompt. It has control only with in_both."),
    mistakes={
        "Control is always in both branches. See in_both.": ("if in_both else ()", ""),
        "With in_both the unconditional branch has control, too.": ("if in_both", "if False"),
        "You read in_both the wrong way round.": ("if in_both", "if not in_both"),
        "Control is in the wrong branch.": ("t, controls)", "t)", "if in_both else ()", ""),
        "You do not use control at all.": ("prompt, controls)", "prompt)"),
        "The branches are swapped, so guidance leads away from the prompt.": "cfg(cond, uncond, guidance_scale)",
        "There is no guidance. This is the branch with the prompt alone.": "cond",
        "The unconditional branch must not have the prompt.": ("torch.zeros_like(prompt)", "prompt"),
        "Pass on all controls, not only the first one.": ("prompt, controls)", "prompt, controls[:1])"),
        "Pass the controls without a star.": ("prompt, controls)", "prompt, *controls)"),
    })
def guiding(guided, generator: torch.Generator) -> Observed:
    base, network, (xt, t, prompt), condition = tiny(generator)
    one, two = Control(network, condition), Control(network, 1 - condition, 0.5)

    @torch.no_grad()
    def eps(words: Tensor, controls: list, *more: float) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # at scale 0 control has no effect, as it should be
            return call(call(guided, base, words, controls, *more), xt, t)

    seen = {f"eps at scale {scale}": eps(prompt, [one], scale) for scale in (0.0, 1.0, 3.0)}
    return seen | {
        "eps at scale 3, with control in both branches": eps(prompt, [one], 3.0, True),
        "eps at scale 3, with two controls": eps(prompt, [one, two], 3.0),
        "eps at scale 3, without control": eps(prompt, [], 3.0),
        "eps at scale 3, with an empty prompt": eps(prompt * 0, [one], 3.0)}
