"""Exercises of lesson 01. Write the functions, then run: python lessons/exercises check"""

import torch
from torch import Tensor

from minicontrolnet.diffusion import Model, alpha_bar_at, lerp
from minicontrolnet.errors import check_function, check_same_shape

from exercises.probing import Observed, call, exercise, normal


@exercise(
    "01a", 5, "DDPM, Eq. 4; z_t of Eq. 5", "Noise a picture to time t at once.",
    "minicontrolnet.diffusion.q_sample",
    hints=(
        "xt is a weighted sum of x0 and eps. alpha_bar_at(t, x0) has a shape that fits both.",
        "Variances add, so the squares of the two weights add up to 1."),
    hide=("sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps.",),
    mistakes={
        "alpha_bar is a variance, not an amplitude. Take the square roots.": (".sqrt()", ""),
        "The weight of x0 lacks its square root.": (".sqrt() * x0", " * x0"),
        "The weight of eps lacks its square root.": (".sqrt() * eps", " * eps"),
        "The weight of eps is the root of 1 - alpha_bar, not 1 minus the root.": ("bar).sqrt()", "bar.sqrt())"),
        "The two weights are swapped, so the picture at t = 0 would be pure noise.": ("= alpha", "= 1 - alpha"),
        "Use the eps that you are given. The network must predict exactly this noise.":
            ("* eps", "* torch.randn_like(eps)"),
        "You use one time for all pictures. t has the shape (b,), so each picture has its own.": ("at(t,", "at(t[:1],"),
        "This is a noise schedule of your own. The base was trained with the one of alpha_bar_at(t, x0).":
            ("alpha_bar_at(t, x0)", "1 - t.to(x0).view(-1, 1, 1, 1) / TIMESTEPS"),
    })
def noising(q_sample, generator: torch.Generator) -> Observed:
    x0, eps = normal(generator, 4, 3, 8, 8), normal(generator, 4, 3, 8, 8)
    t = torch.tensor([3, 250, 600, 990])
    return {"xt": call(q_sample, x0, t, eps),
            "xt of float32": call(q_sample, x0.float(), t, eps.float())}


@exercise(
    "01b", 5, "DDPM, Eq. 15", "From a noise estimate to its picture.",
    "minicontrolnet.diffusion.x0_from_eps",
    hints=(
        "Solve the equation of q_sample for x0.",
        "First subtract the noise, and then divide by the weight of x0."),
    mistakes={
        "The picture is too faint. q_sample multiplied x0 by a weight, so divide by it.": ("/ alpha_bar.sqrt()", ""),
        "You add the noise a second time. Subtract it.": ("(xt -", "(xt +"),
        "Divide the whole difference, not only the noise.": ("(xt", "xt", "eps)", "eps"),
        "You divide by alpha_bar, but the weight of x0 was its square root.": ("bar.sqrt()", "bar"),
        "Both square roots are missing. alpha_bar is a variance.": (").sqrt()", ")", "bar.sqrt()", "bar"),
        "q_sample gave eps and x0 weights. Take both weights into account.": "xt - eps",
        "eps and xt are swapped. eps is the first argument.": ("eps: Tensor, xt:", "xt: Tensor, eps:"),
        "You clamp the picture. A sampler may do this, but Eq. 15 does not.": "RIGHT.clamp(-1, 1)",
    })
def denoising(x0_from_eps, generator: torch.Generator) -> Observed:
    eps, xt = normal(generator, 3, 3, 8, 8), normal(generator, 3, 3, 8, 8)
    return {"x0": call(x0_from_eps, eps, xt, torch.tensor([3, 250, 900]))}


@exercise(
    "01c", 5, "Sec. 3.4", "Classifier-free guidance, made of two models.",
    "minicontrolnet.diffusion.cfg",
    hints=(
        "Return a function of xt and t. At scale 0 it gives uncond, at scale 1 cond, and at scale 2 a point beyond"
        " cond.",
        "This is a line through two points. torch.lerp is exact at both of them."),
    hide=("eps_uncond + guidance_scale (eps_cond - eps_uncond).", "torch.lerp"),
    remarks={
        "exact at scale 1": "Your guidance is right, but rounding makes it inexact at scale 1. See torch.lerp.",
        "exact for equal branches": "Your guidance is right, but rounding makes it inexact where both branches agree."
                                    " See torch.lerp."},
    mistakes={
        "The two models are swapped. Scale 0 must give uncond.": ("uncond: Model, cond", "cond: Model, uncond"),
        "Multiply the difference by the scale, not cond alone.": ("lerp", "torch.add", "t), guid", "t), alpha=guid"),
        "This is the w of Ho and Salimans. Our scale is w + 1.": ("scale)", "scale + 1)"),
        "You do not use the unconditional branch.": ("lerp(uncond(xt, t), ", "torch.mul("),
        "Models are functions, not numbers. Return a function that calls both.": "cond - uncond",
        "xt is not known yet. Return a function of xt and t.": ("lambda xt, t: ", ""),
    })
def guidance(cfg, generator: torch.Generator) -> Observed:
    xt, t = normal(generator, 2, 3, 4, 4).float(), torch.tensor(7.3)

    def eps(scale: float, uncond: Model = torch.add) -> Tensor:
        return call(call(cfg, uncond, torch.div, scale), xt, t)

    seen = {f"eps at scale {scale}": eps(scale) for scale in (3.0, 0.0, 1.0)}
    return seen | {
        "eps of equal branches": eps(3.3, torch.div),
        "exact at scale 1": torch.equal(eps(1.0), xt / t),
        "exact for equal branches": torch.equal(eps(3.3, torch.div), xt / t)}
