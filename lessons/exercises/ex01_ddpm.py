"""Exercises of lesson 01. Write the functions; then: python lessons/exercises check"""

import torch
from torch import Tensor

from minicontrolnet.diffusion import Model, alpha_bar_at

from exercises.probing import Observed, call, exercise, normal


@exercise("01a", 5, "DDPM, Eq. 4; z_t of Eq. 5", "Noise a picture to time t at once.",
          "minicontrolnet.diffusion.q_sample", hints=(
    "xt is a weighted sum of x0 and eps; alpha_bar_at(t, x0) has a fitting shape.",
    "The squares of the two weights add up to 1: variances add."),
          hide=("sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps.",), mistakes={
    "alpha_bar is a variance, not an amplitude: take the roots": (".sqrt()", ""),
    "the root over the weight of x0 is missing": (".sqrt() * x0", " * x0"),
    "the root over the weight of eps is missing": (".sqrt() * eps", " * eps"),
    "the root of 1 - alpha_bar, not 1 minus the root": ("bar).sqrt()", "bar.sqrt())"),
    "the two weights are swapped: t = 0 would be all noise": ("= alpha", "= 1 - alpha"),
    "eps is what the network must find: use it": ("* eps", "* torch.randn_like(eps)"),
    "one time for all: each picture has its own, t is (b,)": ("at(t,", "at(t[:1],"),
    "a schedule of your own: the base knows the one of alpha_bar_at(t, x0)":
        ("alpha_bar_at(t, x0)", "1 - t.to(x0).view(-1, 1, 1, 1) / TIMESTEPS")})
def noising(q_sample, generator: torch.Generator) -> Observed:
    x0, eps = normal(generator, 4, 3, 8, 8), normal(generator, 4, 3, 8, 8)
    t = torch.tensor([3, 250, 600, 990])
    return {"xt": call(q_sample, x0, t, eps),
            "xt of float32": call(q_sample, x0.float(), t, eps.float())}


@exercise("01b", 5, "DDPM, Eq. 15", "From a noise estimate to its picture.",
          "minicontrolnet.diffusion.x0_from_eps", hints=(
    "Solve the line of q_sample for x0.",
    "First take the noise away, then undo the weight that x0 had."), mistakes={
    "the picture is faint: x0 was weighed, too": ("/ alpha_bar.sqrt()", ""),
    "the noise is added a second time: take it away": ("(xt -", "(xt +"),
    "divide the difference, not the noise alone": ("(xt", "xt", "eps)", "eps"),
    "divided by alpha_bar: the weight of x0 was its root": ("bar.sqrt()", "bar"),
    "both roots are missing: alpha_bar is a variance":
        (").sqrt()", ")", "bar.sqrt()", "bar"),
    "eps was weighed before it was added, and x0 too: see q_sample": "xt - eps",
    "eps and xt are swapped: eps is first": ("eps: Tensor, xt:", "xt: Tensor, eps:"),
    "you clamped: samplers may, Eq. 15 does not": "RIGHT.clamp(-1, 1)"})
def denoising(x0_from_eps, generator: torch.Generator) -> Observed:
    eps, xt = normal(generator, 3, 3, 8, 8), normal(generator, 3, 3, 8, 8)
    return {"x0": call(x0_from_eps, eps, xt, torch.tensor([3, 250, 900]))}


@exercise("01c", 5, "Sec. 3.4", "Classifier-free guidance, made of two models.",
          "minicontrolnet.diffusion.cfg", hints=(
    "Return a function of xt and t: uncond at scale 0, cond at 1, beyond it at 2.",
    "A line through two points; torch.lerp is exact at both of them."),
          hide=("eps_uncond + guidance_scale (eps_cond - eps_uncond).", "torch.lerp"), remarks={
    "exact at scale 1": "right, but by rounding inexact at scale 1, see torch.lerp",
    "exact for equal branches": "right, but by rounding inexact, see lerp"}, mistakes={
    "swapped: scale 0 is uncond": ("uncond: Model, cond", "cond: Model, uncond"),
    "scale the difference, not cond": ("lerp", "add", "t), guid", "t), alpha=guid"),
    "that is w of Ho and Salimans: our scale is w + 1": ("scale)", "scale + 1)"),
    "the unconditional branch is not used": ("lerp(uncond(xt, t), ", "mul("),
    "models are no numbers: return a function that calls both": "cond - uncond",
    "xt is not known yet: return a function of xt and t": ("lambda xt, t: ", "")})
def guidance(cfg, generator: torch.Generator) -> Observed:
    xt, t = normal(generator, 2, 3, 4, 4).float(), torch.tensor(7.3)

    def eps(scale: float, uncond: Model = torch.add) -> Tensor:
        return call(call(cfg, uncond, torch.div, scale), xt, t)

    return {**{f"eps at scale {scale}": eps(scale) for scale in (3.0, 0.0, 1.0)},
            "eps of equal branches": eps(3.3, torch.div),
            "exact at scale 1": torch.equal(eps(1.0), xt / t),
            "exact for equal branches": torch.equal(eps(3.3, torch.div), xt / t)}
