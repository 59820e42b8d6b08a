"""Diffusion as pure functions: noising, the objective, guidance, samplers.

Everything here knows the network only as a callable ``model(xt, t) -> eps``. Prompt,
guidance and control come in as closures, so one sampler serves every lesson.
Shapes: x0, xt, eps are (b, c, h, w), pictures in [-1, 1]; t is (b,) of whole numbers
in [0, TIMESTEPS). Sources: DDPM (Ho et al. 2020), DDIM (Song et al. 2021), the cosine
schedule (Nichol and Dhariwal 2021), guidance (Ho and Salimans 2022).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

Model = Callable[[Tensor, Tensor], Tensor]
TIMESTEPS = 1000
SHIFT = 1.4  # of the noise schedule: our pictures look less noisy than those it was made for


def _cosine_alpha_bar() -> Tensor:
    """alpha_bar (TIMESTEPS,) in float64: what is left of the picture's variance at each t."""
    time = torch.arange(TIMESTEPS + 1, dtype=torch.float64) / TIMESTEPS
    f = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    alpha = (f[1:] / f[:-1]).clamp(min=0.001)  # beta at most 0.999, as in the source
    return alpha.cumprod(0)


def shift(alpha_bar: Tensor, s: float) -> Tensor:
    """The schedule for pictures s times as large (Hoogeboom et al., "simple diffusion", 2023).

    The mean of s x s pixels keeps the picture and has 1 / s^2 of the noise's variance, so a
    larger picture looks less noisy at the same alpha_bar. To make it as noisy again, divide the
    signal-to-noise ratio alpha_bar / (1 - alpha_bar) by s^2: logSNR - 2 ln s. Solved for alpha_bar:
    """
    return alpha_bar / (alpha_bar + s**2 * (1 - alpha_bar))


ALPHA_BAR = shift(_cosine_alpha_bar(), SHIFT)


def alpha_bar_at(t: Tensor, like: Tensor) -> Tensor:
    """alpha_bar at times t (b,), as (b, 1, 1, 1) with the dtype and device of ``like``."""
    return ALPHA_BAR.to(like.dtype).to(like.device)[t].view(-1, 1, 1, 1)


# %% Noising, and the three things that a network may predict


def q_sample(x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Noise x0 to time t in one jump: xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps."""
    alpha_bar = alpha_bar_at(t, x0)
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps


def x0_from_eps(eps: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """The picture that the noise estimate stands for (q_sample solved for x0)."""
    alpha_bar = alpha_bar_at(t, xt)
    return (xt - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()


def eps_from_x0(x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """The noise that the picture estimate stands for (q_sample solved for eps)."""
    alpha_bar = alpha_bar_at(t, xt)
    return (xt - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()


def eps_from_v(v: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """The noise for v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans and Ho 2022)."""
    alpha_bar = alpha_bar_at(t, xt)
    return alpha_bar.sqrt() * v + (1 - alpha_bar).sqrt() * xt


def to_eps(output: Tensor, xt: Tensor, t: Tensor, prediction_type: str) -> Tensor:
    """Read a network's raw output, which is "eps", "v" or "x0", as eps."""
    if prediction_type == "eps":
        return output
    return {"x0": eps_from_x0, "v": eps_from_v}[prediction_type](output, xt, t)


# %% The objective


def loss_weight(t: Tensor, like: Tensor, prediction_type: str) -> Tensor:
    """The weight (b, 1, 1, 1) of the noise error at t; all ones is the paper's Eq. 5.

    An error d in x0 is an error d sqrt(alpha_bar / (1 - alpha_bar)) in eps, so Eq. 5 all but
    ignores early, noisy times, where the network must decide what to draw. An error in v is
    one of sqrt(alpha_bar) in eps, hence

        "v":  |v error|^2 = |eps error|^2 / alpha_bar
        "x0": the same, and (1 - alpha_bar) |v error|^2 = |x0 error|^2, so the weight on the
              x0 error is 1 / (1 - alpha_bar), clipped at 20 after Li and He ("Back to Basics", 2025).
    """
    alpha_bar = alpha_bar_at(t, like)
    if prediction_type == "eps":
        return torch.ones_like(alpha_bar)
    if prediction_type == "v":
        return 1 / alpha_bar
    return (20 * (1 - alpha_bar)).clamp(max=1) / alpha_bar


def noise_loss(model: Model, x0: Tensor, t: Tensor, eps: Tensor, prediction_type: str) -> Tensor:
    """Eq. 5 with the weight above: the mean of weight |eps - model(xt, t)|^2, a scalar."""
    xt = q_sample(x0, t, eps)
    error = eps - model(xt, t)
    return (loss_weight(t, x0, prediction_type) * error**2).mean()


# %% Guidance and samplers


def cfg(uncond: Model, cond: Model, guidance_scale: float) -> Model:
    """Classifier-free guidance: eps_uncond + scale (eps_cond - eps_uncond).

    Written as lerp, which is exact at scale 0, at 1, and where both branches agree.
    """
    return lambda xt, t: torch.lerp(uncond(xt, t), cond(xt, t), guidance_scale)


def ddim_step(eps: Tensor, xt: Tensor, t: Tensor, t_next: Tensor, clip: bool = True) -> Tensor:
    """One deterministic DDIM step from t to t_next, where -1 stands for the picture itself.

    With ``clip`` the estimate of x0 is held in [-1, 1], after guidance, and eps follows it.
    """
    x0 = x0_from_eps(eps, xt, t)
    if clip:
        x0 = x0.clamp(-1, 1)
        eps = eps_from_x0(x0, xt, t)
    stepped = q_sample(x0, t_next.clamp(min=0), eps)
    return torch.where(t_next.view(-1, 1, 1, 1) >= 0, stepped, x0)


def ddpm_step(eps: Tensor, xt: Tensor, t: Tensor, z: Tensor, clip: bool = True) -> Tensor:
    """One step of DDPM's Algorithm 2 from t to t - 1, with noise z and variance beta_t.

    Without ``clip`` this is Algorithm 2 to the letter; no noise is added at the last step.
    """
    alpha_bar, before = alpha_bar_at(t, xt), alpha_bar_at((t - 1).clamp(min=0), xt)
    before = torch.where(t.view(-1, 1, 1, 1) > 0, before, torch.ones_like(before))
    alpha = alpha_bar / before
    if clip:
        eps = eps_from_x0(x0_from_eps(eps, xt, t).clamp(-1, 1), xt, t)
    mean = (xt - (1 - alpha) / (1 - alpha_bar).sqrt() * eps) / alpha.sqrt()
    return mean + torch.where(t.view(-1, 1, 1, 1) > 0, (1 - alpha).sqrt() * z, 0.0)


@torch.no_grad()
def ddim(model: Model, xt: Tensor, steps: int = 25, progress: bool = False) -> Tensor:
    """Turn noise xt into pictures (b, c, h, w) in [-1, 1] in ``steps`` DDIM steps."""
    if not 1 <= steps <= TIMESTEPS:
        raise ValueError(f"steps is {steps}; give a whole number from 1 to {TIMESTEPS}")
    times = torch.linspace(TIMESTEPS - 1, -1, steps + 1).round().long().tolist()
    for now, then in tqdm(list(zip(times, times[1:])), "DDIM", disable=not progress, leave=False):
        t, t_next = (torch.full((len(xt),), time, device=xt.device) for time in (now, then))
        xt = ddim_step(model(xt, t), xt, t, t_next)
    return xt


@torch.no_grad()
def ddpm(model: Model, xt: Tensor, generator: torch.Generator, progress: bool = False) -> Tensor:
    """Turn noise xt into pictures (b, c, h, w) in all TIMESTEPS steps of Algorithm 2."""
    for now in tqdm(reversed(range(TIMESTEPS)), "DDPM", TIMESTEPS, disable=not progress, leave=False):
        t = torch.full((len(xt),), now, device=xt.device)
        z = torch.randn(xt.shape, generator=generator, dtype=xt.dtype).to(xt.device)
        xt = ddpm_step(model(xt, t), xt, t, z)
    return xt
