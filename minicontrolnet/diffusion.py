"""Diffusion as pure functions: noising, the objective, guidance and samplers.

This file knows a network only as a callable ``model(xt, t) -> eps``. Prompt, guidance and
control are inside that callable, so one sampler serves every lesson.

Shapes: x0, xt and eps are (b, c, h, w), with pictures in [-1, 1]. t is (b,), whole numbers in
[0, TIMESTEPS). Sources: DDPM (Ho et al. 2020), DDIM (Song et al. 2021), the cosine schedule
(Nichol and Dhariwal 2021), guidance (Ho and Salimans 2022).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral

import torch
from torch import Tensor

from .errors import (Problem, check_count, check_flag, check_function, check_generator, check_number, check_same_shape,
                     check_same_type, dtype_name, shorten)

Model = Callable[[Tensor, Tensor], Tensor]
TIMESTEPS = 1000
SHIFT = 1.4  # moves the noise schedule: our large plain shapes survive more noise than photographs do


def _cosine_alpha_bar() -> Tensor:
    """alpha_bar (TIMESTEPS,) in float64: the share of the picture's variance that is left at each t."""
    time = torch.arange(TIMESTEPS + 1, dtype=torch.float64) / TIMESTEPS
    f = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    alpha = (f[1:] / f[:-1]).clamp(min=0.001)  # beta is at most 0.999, as in the source
    return alpha.cumprod(0)


def shift(alpha_bar: Tensor, s: float) -> Tensor:
    """The schedule for pictures s times as large (Hoogeboom et al., "simple diffusion", 2023).

    The mean of s x s pixels keeps the picture and has 1 / s^2 of the noise's variance. So at the
    same alpha_bar a larger picture looks less noisy. To make it as noisy again we divide the
    signal-to-noise ratio alpha_bar / (1 - alpha_bar) by s^2. Solved for alpha_bar:
    """
    return alpha_bar / (alpha_bar + s**2 * (1 - alpha_bar))


ALPHA_BAR = shift(_cosine_alpha_bar(), SHIFT)


def alpha_bar_at(t: Tensor, like: Tensor) -> Tensor:
    """alpha_bar at times t (b,), as (b, 1, 1, 1) with the dtype and device of ``like``.

    bfloat16 would round 0.998 to 1. For it alpha_bar is in float32, and so is what we compute with it.
    """
    check_times(t)
    if like.dim() != 4 or not like.is_floating_point():
        raise Problem(f"the pictures are {dtype_name(like)} of the shape {tuple(like.shape)}; give floating point"
                      " values of the shape (b, c, h, w)")
    if like.dtype == torch.float16:
        raise Problem("the pictures are in float16, which cannot hold alpha_bar at t = 999 (1.2e-9); use float32 or"
                      " bfloat16")
    if t.dim() != 1 or len(t) not in {1, len(like)}:
        raise Problem(f"the times have the shape {tuple(t.shape)} for {len(like)} pictures; give one time for each")
    dtype = torch.float32 if like.dtype == torch.bfloat16 else like.dtype
    return ALPHA_BAR.to(dtype).to(like.device)[t.long()].view(-1, 1, 1, 1)


def check_times(t: Tensor, lowest: int = 0) -> None:
    """Raise Problem for times outside of [lowest, TIMESTEPS). A negative index would count from the end."""
    if not isinstance(t, Tensor) or t.is_floating_point() or t.is_complex() or t.dtype == torch.bool:
        found = dtype_name(t) if isinstance(t, Tensor) else t
        raise Problem(f"the times are {found}; give a tensor (b,) of whole numbers")
    on_cpu = t.device.type == "cpu" and not torch.compiler.is_compiling()  # a GPU would first finish all earlier work
    if on_cpu and ((t < lowest) | (t >= TIMESTEPS)).any():
        raise Problem(f"the times go from {t.min().item()} to {t.max().item()}; give times from {lowest} to"
                      f" {TIMESTEPS - 1}")


# %% Noising, and the three things that a network may predict


def q_sample(x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Noise x0 to time t in one jump: xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps."""
    check_same_shape("x0", x0, "eps", eps)
    alpha_bar = alpha_bar_at(t, x0)
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps


def x0_from_eps(eps: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """The picture that a noise estimate implies: q_sample solved for x0."""
    check_same_shape("eps", eps, "xt", xt)
    alpha_bar = alpha_bar_at(t, xt)
    return (xt - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()


def eps_from_x0(x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """The noise that a picture estimate implies: q_sample solved for eps."""
    check_same_shape("x0", x0, "xt", xt)
    alpha_bar = alpha_bar_at(t, xt)
    return (xt - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()


def eps_from_v(v: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """The noise that v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 implies (Salimans and Ho 2022)."""
    check_same_shape("v", v, "xt", xt)
    alpha_bar = alpha_bar_at(t, xt)
    return alpha_bar.sqrt() * v + (1 - alpha_bar).sqrt() * xt


def check_prediction_type(prediction_type: str) -> None:
    """Raise Problem unless a network can predict this."""
    if prediction_type not in ("eps", "v", "x0"):
        raise Problem(f'the prediction type is {prediction_type!r}; give "eps", "v" or "x0"')


def to_eps(output: Tensor, xt: Tensor, t: Tensor, prediction_type: str) -> Tensor:
    """Turn a network's raw output, which is "eps", "v" or "x0", into eps."""
    check_prediction_type(prediction_type)
    if prediction_type == "x0":
        return eps_from_x0(output, xt, t)
    if prediction_type == "v":
        return eps_from_v(output, xt, t)
    return output


# %% The objective


def loss_weight(t: Tensor, like: Tensor, prediction_type: str) -> Tensor:
    """The weight (b, 1, 1, 1) of the squared noise error at t. The paper's Eq. 5 has weight 1 everywhere.

    An error d in x0 is an error d sqrt(alpha_bar / (1 - alpha_bar)) in eps. At noisy times
    (large t) that factor is nearly 0, so Eq. 5 nearly ignores the times at which sampling
    decides what the picture shows. An error d in v is an error d sqrt(alpha_bar) in eps. So the
    weight 1 / alpha_bar turns the squared error of eps into that of v:

        "v":  |v error|^2 = |eps error|^2 / alpha_bar
        "x0": the same v error. Since |v error|^2 = |x0 error|^2 / (1 - alpha_bar), it gives the
              x0 error the weight 1 / (1 - alpha_bar). We clip that weight at 20, because it is
              huge at clean times. (Li and He, "Back to Basics", 2025, train x0 by the v
              error, and clip as well.)
    """
    check_prediction_type(prediction_type)
    alpha_bar = alpha_bar_at(t, like)
    if prediction_type == "eps":
        return torch.ones_like(alpha_bar)
    if prediction_type == "v":
        return 1 / alpha_bar
    # min(20, 1 / (1 - alpha_bar)) is the weight of the x0 error. In x0 an error of eps is
    # (1 - alpha_bar) / alpha_bar times as large, when squared; the product of both is:
    return (20 * (1 - alpha_bar)).clamp(max=1) / alpha_bar


def noise_loss(model: Model, x0: Tensor, t: Tensor, eps: Tensor, prediction_type: str) -> Tensor:
    """Eq. 5 with the weight above: the mean of weight |eps - model(xt, t)|^2, a scalar."""
    xt = q_sample(x0, t, eps).to(x0.dtype)
    error = eps - _predicted(model, xt, t)
    return (loss_weight(t, x0, prediction_type) * error**2).mean()


def _predicted(model: Model, xt: Tensor, t: Tensor) -> Tensor:
    """What the model predicts. Raises Problem for another shape, which would be broadcast in silence."""
    eps = model(xt.clone(), t)  # your own model may change its input; the step needs xt as it is
    if not isinstance(eps, Tensor) or eps.shape != xt.shape or not eps.is_floating_point():
        found = f"{dtype_name(eps)} {tuple(eps.shape)}" if isinstance(eps, Tensor) else type(eps).__name__
        raise Problem(f"the model predicted {found} for pictures of the shape {tuple(xt.shape)}; let it return the"
                      " noise of each picture, in the same shape")
    return eps


def _finite(eps: Tensor, t: int) -> Tensor:
    """Return a prediction. Raises Problem where it is not finite, so that nan never becomes a picture."""
    if not eps.isfinite().all():
        raise Problem(f"the model's prediction at t = {t} is not finite; look for weights, a strength or a guidance"
                      " scale that is far too large")
    return eps


# %% Guidance and samplers


def lerp(uncond: Tensor, cond: Tensor, scale: float) -> Tensor:
    """torch.lerp of two predictions. Raises Problem unless both have the same shape: one would be used for all."""
    check_number("guidance_scale", scale)
    check_same_shape("the unconditional prediction", uncond, "the conditional one", cond)
    check_same_type("the unconditional prediction", uncond, "the conditional one", cond)
    return torch.lerp(uncond, cond, scale)


def cfg(uncond: Model, cond: Model, guidance_scale: float) -> Model:
    """Classifier-free guidance: eps_uncond + guidance_scale (eps_cond - eps_uncond).

    torch.lerp computes this exactly at scale 0, at scale 1, and where both branches agree.
    """
    for model in (uncond, cond):
        check_function("a branch of guidance", model, "predictor(base, prompt), or use lerp for two tensors")
    return lambda xt, t: lerp(uncond(xt, t), cond(xt, t), guidance_scale)


def ddim_step(eps: Tensor, xt: Tensor, t: Tensor, t_next: Tensor, clip: bool = True) -> tuple[Tensor, Tensor]:
    """One deterministic DDIM step from t to t_next. Returns the next xt and the predicted picture x0.

    t_next = -1 stands for the clean picture, so the next xt is then x0 itself. With ``clip``, x0
    is clamped to [-1, 1] after guidance, and eps is computed anew from the clamped picture. (At
    t = 999, where alpha_bar is 1.2e-9, that changes eps by about 0.003 in float32 even where
    nothing was clamped.)
    """
    check_times(t_next, lowest=-1)
    check_flag("clip", clip)
    x0 = x0_from_eps(eps, xt, t)
    if clip:
        x0 = x0.clamp(-1, 1)
        eps = eps_from_x0(x0, xt, t)
    stepped = q_sample(x0, t_next.clamp(min=0), eps)
    return torch.where(t_next.view(-1, 1, 1, 1) >= 0, stepped, x0).to(xt.dtype), x0


def ddim_times(steps: int) -> list[int]:
    """The steps + 1 times of DDIM, from TIMESTEPS - 1 down to -1. Raises Problem for a bad count."""
    check_count("steps", steps)
    if steps > TIMESTEPS:
        raise Problem(f"steps is {steps}; give at most {TIMESTEPS}")
    return torch.linspace(TIMESTEPS - 1, -1, steps + 1).round().long().tolist()


def ddim_steps(model: Model, xt: Tensor, times: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Step xt (b, c, h, w) through ``times`` by DDIM. Yields xt and the predicted picture x0 after each step.

    No gradient passes through the steps. To differentiate a sample, call ddim_step in a loop of your own.

    Pass ``ddim_times(steps)`` as the times, or pass its parts one after another and change the
    model between them.
    """
    check_function("the model", model, "predictor(base, prompt)")
    if not isinstance(times, Iterable):
        raise Problem(f"the times are a {type(times).__name__}; give a list, such as ddim_times(25)")
    times = list(times)
    if not all(isinstance(time, Integral) for time in times):
        raise Problem(f"the times are {shorten(repr(times))}; give whole numbers, such as ddim_times(25)")
    _check_noise(xt)
    if any(later >= now for now, later in zip(times, times[1:])) or any(t < -1 or t >= TIMESTEPS for t in times):
        raise Problem(f"the times are {times}; give times that fall from at most {TIMESTEPS - 1} to at least -1")
    for now, later in zip(times, times[1:]):
        t = torch.full((len(xt),), now, device=xt.device)
        t_next = torch.full_like(t, later)
        with torch.no_grad():  # not around yield, or gradients would be off in the caller's code, too
            xt, x0 = ddim_step(_finite(_predicted(model, xt, t), now), xt, t, t_next)
        yield xt.clone(), x0  # you may change the copy; the next step needs xt as it is


def _check_noise(xt: Tensor) -> None:
    shape = tuple(xt.shape) if isinstance(xt, Tensor) else type(xt).__name__
    if not isinstance(xt, Tensor) or xt.dim() != 4 or not len(xt):
        raise Problem(f"the noise is {shape}; give a tensor (b, c, h, w), such as seeded_noise returns")
    if not xt.is_floating_point():
        raise Problem(f"the noise has the type {dtype_name(xt)}; give floating point values")


def ddim(model: Model, xt: Tensor, steps: int = 25) -> Tensor:
    """Turn noise xt into pictures (b, c, h, w) in [-1, 1] in ``steps`` DDIM steps, without gradients."""
    for _, x0 in ddim_steps(model, xt, ddim_times(steps)):
        pass
    return x0


def ddpm_step(eps: Tensor, xt: Tensor, t: Tensor, z: Tensor, clip: bool = True) -> Tensor:
    """One step of DDPM's Algorithm 2 from t to t - 1, with noise z and variance beta_t.

    Without ``clip`` this is exactly Algorithm 2. The last step adds no noise.
    """
    check_same_shape("eps", eps, "xt", xt)
    check_same_shape("z", z, "xt", xt)
    check_flag("clip", clip)
    alpha_bar = alpha_bar_at(t, xt)
    before = alpha_bar_at((t - 1).clamp(min=0), xt)
    before = torch.where(t.view(-1, 1, 1, 1) > 0, before, torch.ones_like(before))
    alpha = alpha_bar / before
    if clip:
        eps = eps_from_x0(x0_from_eps(eps, xt, t).clamp(-1, 1), xt, t)
    mean = (xt - (1 - alpha) / (1 - alpha_bar).sqrt() * eps) / alpha.sqrt()
    return (mean + torch.where(t.view(-1, 1, 1, 1) > 0, (1 - alpha).sqrt() * z, 0.0)).to(xt.dtype)


@torch.no_grad()
def ddpm(model: Model, xt: Tensor, generator: torch.Generator) -> Tensor:
    """Turn noise xt into pictures (b, c, h, w) in all TIMESTEPS steps of Algorithm 2."""
    check_function("the model", model, "predictor(base, prompt)")
    _check_noise(xt)
    check_generator(generator)
    for now in reversed(range(TIMESTEPS)):
        t = torch.full((len(xt),), now, device=xt.device)
        z = torch.randn(xt.shape, generator=generator, dtype=xt.dtype).to(xt.device)
        xt = ddpm_step(_finite(_predicted(model, xt, t), now), xt, t, z)
    return xt
