"""Using it: weights, several ControlNets, guidance, and sample() (Sec. 3.4)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from .controlnet import ControlNet, Controls
from .diffusion import TIMESTEPS, Model, cfg, ddim
from .files import Problem
from .shapes import SIZE, to_image, tokenize
from .unet import UNet

GUIDANCE = 2.5  # of the weights that ship; lesson 06 shows others
Scale = float | Sequence[float]  # one number for all controls, or 13
Conditioned = tuple[ControlNet, Tensor] | tuple[ControlNet, Tensor, Scale]


def weigh(controls: Controls, weights: Scale) -> Controls:
    """Multiply the 13 controls by one number (conditioning_scale), or each by its own."""
    if not isinstance(weights, Sequence):
        weights = [float(weights)] * len(controls)
    if len(weights) != len(controls):
        raise Problem(f"there are {len(weights)} weights for {len(controls)} controls;"
                      f" give one number or {len(controls)} of them")
    return tuple(control * weight for control, weight in zip(controls, weights))


def paper_weights() -> list[float]:
    """CFG resolution weighting (Sec. 3.4): w_i = 64 / h_i there, 16 / h_i on our grids; both 1 .. 8."""
    grids = [16, 8, 4, 2]
    return [16 / h for h in grids for _ in range(3)] + [16 / grids[-1]]


def guess_mode_weights() -> list[float]:
    """The released code's "guess mode", off by default: 0.825 ** (12 - i), 0.1 shallow to 1 middle.

    Its default is 13 equal weights and control in both branches of guidance.
    """
    return [0.825 ** (12 - i) for i in range(13)]


def compose(*several: Controls) -> Controls:
    """Several ControlNets: add their outputs, "no extra weighting" (Sec. 3.4, Fig. 6)."""
    return tuple(sum(maps) for maps in zip(*several, strict=True))


def predictor(base: UNet, prompt: Tensor, controls: Sequence[Conditioned] = ()) -> Model:
    """The base with a prompt and any number of ControlNets, as a model(xt, t) -> eps."""

    def model(xt: Tensor, t: Tensor) -> Tensor:
        weighed = []
        for net, condition, *scale in controls:  # scale: [] or [strength]
            added = net(xt, t, prompt, condition)
            weighed.append(weigh(added, *scale) if scale else added)
        return base(xt, t, prompt, compose(*weighed) if weighed else None)

    return model


def guided(base: UNet, prompt: Tensor, controls: Sequence[Conditioned] = (),
           guidance_scale: float = GUIDANCE, in_both: bool = False) -> Model:
    """Classifier-free guidance from the empty prompt towards ``prompt``, with control.

    Control is in the conditional branch alone, so that guidance strengthens it too. With
    ``in_both`` it is in both branches: then an empty prompt leaves guidance nothing to
    strengthen (Sec. 3.4; lesson 06 measures the choice).
    """
    cond = predictor(base, prompt, controls)
    has_words = bool(prompt.any())  # EMPTY is 0
    if guidance_scale == 1 or not (has_words or (controls and not in_both)):
        return cond  # the other branch counts for nothing, or is the same: spare it
    uncond = predictor(base, torch.zeros_like(prompt), controls if in_both else ())
    return cfg(uncond, cond, guidance_scale)


def during(model: Model, otherwise: Model, start: float, end: float) -> Model:
    """``model`` from the share ``start`` of sampling to ``end``, else the other; 0 is pure noise."""

    def either(xt: Tensor, t: Tensor) -> Tensor:
        share = (TIMESTEPS - 0.5 - t[0].item()) / TIMESTEPS  # ddim rounds its times to whole ones
        return (model if start <= share < end else otherwise)(xt, t)

    return either


def seeded_noise(n: int, seed: int) -> Tensor:
    """The noise (n, 3, 64, 64) that a seed gives, for the command and the board alike."""
    return torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def check_fit(tokens: Tensor, noise: Tensor, controls: Sequence[Conditioned]) -> None:
    """Raise Problem unless there is one prompt and condition for all pictures, or one for each."""
    n, _, *size = noise.shape
    if len(tokens) not in {1, n}:
        raise Problem(f"there are {len(tokens)} prompts for {n} pictures; give one for all, or {n}")
    for net, condition, *_ in controls:
        given = tuple(condition.shape)
        c = getattr(net, "c_condition", None) or given[1]  # a network of your own need not tell
        if given not in {(1, c, *size), (n, c, *size)}:
            raise Problem(f"a condition has the shape {given}, but this ControlNet and the noise need"
                          f" {(n, c, *size)}, or {(1, c, *size)} for all pictures")


def sample(base: UNet, prompt: str | list[str] | Tensor, noise: Tensor,
           controls: Sequence[Conditioned] = (), guidance_scale: float = GUIDANCE, steps: int = 25,
           *, in_both: bool = False, control_start: float = 0.0, control_end: float = 1.0,
           batch: int = 16, progress: str | None = None) -> Tensor:
    """Turn noise (n, 3, 64, 64) into pictures (n, 3, 64, 64) in [0, 1] by DDIM.

    prompt: one for all, or one for each picture; or tokens (n, 3).
    controls: pairs (ControlNet, condition) or triples (ControlNet, condition, strength), where
        a condition (n or 1, c, 64, 64) is in [0, 1] and a strength is one number or 13.
    in_both: control in both branches of guidance, see guided.
    control_start, control_end: the shares of the steps between which there is control.
    Raises Problem if prompts or conditions do not fit the noise.
    """
    device, n = next(base.parameters()).device, len(noise)
    tokens = prompt if isinstance(prompt, Tensor) else tokenize(prompt)
    check_fit(tokens, noise, controls)
    tokens, noise = tokens.expand(n, 3).to(device), noise.to(device)
    controls = [(net, condition.expand(n, -1, -1, -1).to(device), *scale)
                for net, condition, *scale in controls]
    done = []
    for i in tqdm(range(0, n, batch), progress, disable=progress is None):
        part = slice(i, i + batch)
        here = [(net, condition[part], *scale) for net, condition, *scale in controls]
        model = guided(base, tokens[part], here, guidance_scale, in_both)
        if controls and (control_start, control_end) != (0, 1):
            bare = guided(base, tokens[part], (), guidance_scale)
            model = during(model, bare, control_start, control_end)
        done.append(ddim(model, noise[part], steps))
    return to_image(torch.cat(done))
