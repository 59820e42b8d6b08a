"""Exercises of lesson 01_ddpm: write each function, then

    python lessons/exercises check 01a
"""

import torch
from torch import Tensor

from minicontrolnet.diffusion import Model, alpha_bar_at


# 01a (5 min, DDPM, Eq. 4; here Eq. 5's z_t): Noise a picture to time t in one jump.
def q_sample(x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Noise x0 to time t in one jump: xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps."""
    raise NotImplementedError("write me")


# 01b (5 min, DDPM, Eq. 15): From a noise estimate to the picture it stands for.
def x0_from_eps(eps: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """The picture that the noise estimate stands for (q_sample solved for x0)."""
    raise NotImplementedError("write me")


# 01c (5 min, Sec. 3.4): Classifier-free guidance as a function of two models.
def guide(uncond: Model, cond: Model, guidance_scale: float) -> Model:
    """Classifier-free guidance: eps_uncond + scale (eps_cond - eps_uncond).

    Written as lerp, which is exact at scale 0, at 1, and where both branches agree.
    """
    raise NotImplementedError("write me")
