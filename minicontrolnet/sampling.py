"""Using ControlNets: their strengths, several at once, guidance, and ``sample`` (Sec. 3.4)."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from .controlnet import ControlNet, Controls
from .diffusion import Model, cfg, ddim_steps, ddim_times
from .errors import (Problem, check_count, check_flag, check_images, check_number, check_same_type, check_seed,
                     check_tensor, dtype_name)
from .shapes import SIZE, check_tokens, to_image, tokenize
from .unet import PATCH, UNet

GUIDANCE = 2.5  # the scale for the shipped weights; lesson 06 shows others
MOST_LINES = 0.15  # the largest white share of an edge map whose strokes are at most 3 pixels wide
BLACK = 0.05  # a map with no larger value shows nothing, such as a mask of 0 and 1 that was saved as bytes
WIDEST = 9  # pixels: no white square of an edge map is as large, even where its strokes cross
N_CONTROLS = 13  # of 12 skips and the middle block
Scale = float | Sequence[float] | Tensor  # one strength for all 13 controls, or 13 weights


class Control(NamedTuple):
    """One ControlNet in use: the network, its condition, its strength and the region where it acts."""

    net: ControlNet
    condition: Tensor  # (n or 1, c, 64, 64) in [0, 1]
    scale: Scale = 1.0  # the strength: one number, or 13 weights from shallow to deep
    region: Tensor | None = None  # (n or 1, 1, 64, 64) in [0, 1]; None is the whole picture


def as_controls(controls: Iterable[Control]) -> list[Control]:
    """A list of Control; each may be given as a plain tuple. Raises Problem for anything else."""
    if isinstance(controls, (Control, str)) or not isinstance(controls, Iterable):
        raise Problem(f"controls is a {type(controls).__name__}; give a list of ControlNets with their conditions,"
                      " such as [(control, edges)]")
    found = []
    for control in controls:
        if not isinstance(control, (tuple, list)) or not 2 <= len(control) <= 4:
            raise Problem(f"an entry of controls is a {type(control).__name__}; give a list of (net, condition),"
                          " (net, condition, scale) or (net, condition, scale, region)")
        if not callable(control[0]) or isinstance(control[0], (UNet, type)):
            raise Problem(f"the network of a control is a {type(control[0]).__name__}; give a ControlNet, such as"
                          ' load_control("edge", base) returns')
        control = Control(*control)
        _check_channels(control)
        found.append(control)
    if not found and isinstance(controls, Iterator):
        raise Problem("controls is an iterator that holds nothing, perhaps since it was used before; give a list, such"
                      " as list(zip(nets, conditions))")
    return found


def _check_channels(control: Control) -> None:
    c = getattr(control.net, "c_condition", None)  # your own network need not have this attribute
    shape = getattr(control.condition, "shape", ())
    if c and len(shape) == 4 and shape[1] != c:
        raise Problem(f"a condition has the shape {tuple(shape)}, but this ControlNet needs (n, {c}, h, w); give the"
                      " kind of condition that it was trained on")


# %% The strength of control


def weigh(controls: Controls, scale: Scale) -> Controls:
    """Multiply the 13 controls by one strength, or each of them by its own weight."""
    controls = _all_13(controls)
    weights = scale_per_control(scale, len(controls))
    return tuple(control * weight for control, weight in zip(controls, weights))


def _all_13(controls: Iterable[Tensor]) -> Controls:
    """The controls as a tuple. Raises Problem unless there are 13."""
    if isinstance(controls, Tensor) or not isinstance(controls, Iterable):
        raise Problem(f"the controls are a {type(controls).__name__}; give all {N_CONTROLS}, as a ControlNet returns"
                      " them")
    controls = tuple(controls)
    if len(controls) != N_CONTROLS:
        raise Problem(f"there are {len(controls)} controls; give all {N_CONTROLS}, as a ControlNet returns them")
    return controls


def scale_per_control(scale: Scale, n: int = N_CONTROLS) -> list[float]:
    """The n numbers that a scale stands for. Raises Problem for another count, or for numbers that are not finite."""
    if isinstance(scale, Tensor):
        check_tensor("the weights of control", scale)
    weights = scale.tolist() if hasattr(scale, "tolist") else scale  # of a tensor, or of a numpy array
    weights = list(weights) if isinstance(weights, Sequence) and not isinstance(weights, str) else [weights] * n
    if len(weights) != n:
        raise Problem(f"there are {len(weights)} weights for {n} controls; give one number or {n} of them")
    for weight in weights:
        check_number("a weight of control", weight)
    return [float(weight) for weight in weights]


def paper_weights() -> list[float]:
    """CFG resolution weighting (Sec. 3.4): 64 / h_i in the paper, 16 / h_i on our grids. Both go from 1 to 8."""
    grids = [16, 8, 4, 2]
    return [16 / h for h in grids for _ in range(3)] + [16 / grids[-1]]


def guess_mode_weights() -> list[float]:
    """The "guess mode" of the released code: 0.825 ** (12 - i), from 0.1 (shallow) to 1 (the middle block).

    Guess mode is off by default. The default is 13 equal weights, with control in both branches of guidance.
    """
    return [0.825 ** (12 - i) for i in range(13)]


def compose(*several: Controls) -> Controls:
    """Combine several ControlNets: add their outputs, without extra weighting (Sec. 3.4, Fig. 6)."""
    if not several:
        raise Problem("there are no controls to compose; give those of at least one ControlNet")
    several = [tuple(controls) for controls in several]
    counts = sorted({len(controls) for controls in several})
    if not all(isinstance(control, Tensor) for controls in several for control in controls):
        raise Problem("a control is no tensor; give the controls of each ControlNet by themselves: compose(one, other)")
    if len(counts) > 1:
        raise Problem(f"there are {counts[0]} controls of one ControlNet and {counts[-1]} of another; give the controls"
                      " of ControlNets for the same base")
    for maps in zip(*several):
        numbers = {len(control) for control in maps}
        if len({control.shape[1:] for control in maps}) > 1 or len(numbers - {1}) > 1:
            raise Problem("two ControlNets have controls of different shapes; give those for the same base and"
                          " pictures")
    return tuple(sum(maps) for maps in zip(*several, strict=True))


def mask_controls(controls: Controls, region: Tensor) -> Controls:
    """Keep the 13 controls inside a region only: multiply each by a mask (b or 1, 1, h, w) in [0, 1].

    The mask is averaged down to each control's own grid. A cell that lies half inside the region
    keeps half of its control. Outside the region nothing is added. But control inside still acts
    there indirectly: convolutions look beyond the border, a cell of the deepest grid is a quarter
    of the picture, and each normalisation looks at the whole picture.
    """
    controls = _all_13(controls)
    check_images("the regions", region, channels=[1])
    if any(len(region) not in {1, len(control)} for control in controls):
        raise Problem(f"there are {len(region)} regions for {len(controls[0])} pictures; give one for all, or as many")
    masks = [F.adaptive_avg_pool2d(region, control.shape[2:]) for control in controls]
    return tuple(control * mask for control, mask in zip(controls, masks))


# %% Networks as models of diffusion


def predictor(base: UNet, prompt: Tensor, controls: Sequence[Control] = ()) -> Model:
    """The base with a prompt (n, 3) and any number of ControlNets, as a model(xt, t) -> eps."""
    check_tokens(prompt)
    controls = as_controls(controls)

    def model(xt: Tensor, t: Tensor) -> Tensor:
        weighed = []
        for net, condition, scale, region in controls:
            added = weigh(net(xt, t, prompt, condition), scale)
            weighed.append(added if region is None else mask_controls(added, region))
        return base(xt, t, prompt, compose(*weighed) if weighed else None)

    return model


def guided(base: UNet, prompt: Tensor, controls: Sequence[Control] = (),
           guidance_scale: float = GUIDANCE, in_both: bool = False) -> Model:
    """Classifier-free guidance from the empty prompt towards ``prompt``, with control.

    Control is in the conditional branch alone, so guidance amplifies control as well, and at a scale
    of 0 there is none. With ``in_both`` it is in both branches. With an empty prompt both branches
    are then the same, and guidance has nothing to amplify (Sec. 3.4; lesson 06 measures the choice).
    """
    check_number("guidance_scale", guidance_scale)
    check_flag("in_both", in_both)
    controls = as_controls(controls)
    cond = predictor(base, prompt, controls)
    tell_no_control(controls, guidance_scale, in_both)
    has_words = bool(prompt.any())  # EMPTY is 0
    branches_differ = has_words or (controls and not in_both)
    if guidance_scale == 1 or not branches_differ:
        return cond  # the other branch has no weight, or is the same: we need not compute it
    uncond = predictor(base, torch.zeros_like(prompt), controls if in_both else ())
    return cfg(uncond, cond, float(guidance_scale))


def tell_no_control(controls: Sequence[Control], guidance_scale: float, in_both: bool, stacklevel: int = 3) -> None:
    """Warn if there are controls, and only the branch without control counts."""
    if controls and guidance_scale == 0 and not in_both:
        warnings.warn("at guidance scale 0 only the unconditional branch counts, and it has no control, so the"
                      " conditions have no effect; choose another scale, or in_both=True", stacklevel=stacklevel)


# %% Sampling


def control_window(steps: int, start: float = 0.0, end: float = 1.0) -> tuple[int, int]:
    """The steps that have control, as a half-open range: the first one, and the one after the last one.

    Step i of 0, 1, ..., steps - 1 begins at the share i / steps of sampling, and it has control if
    start <= i / steps < end. These are compared to nine digits, since 3 * 0.1 is a little more than 0.3.
    Raises Problem if no step has control.
    """
    check_count("steps", steps)
    check_number("control_start", start, 0, 1)
    check_number("control_end", end, 0, 1)
    start, end = round(start, 9), round(end, 9)
    with_control = [i for i in range(steps) if start <= round(i / steps, 9) < end]
    if not with_control:
        raise Problem(f"no step has control: none of the {steps} steps begins between the shares"
                      f" {start:g} and {end:g} of sampling; choose a wider window or more steps")
    return with_control[0], with_control[-1] + 1


def sample_steps(base: UNet, prompt: str | Sequence[str] | Tensor, noise: Tensor,
                 controls: Iterable[Control] = (), guidance_scale: float = GUIDANCE, steps: int = 25,
                 *, in_both: bool = False, control_start: float = 0.0,
                 control_end: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
    """Sample one batch by DDIM. Yields xt and the predicted picture x0, both in [-1, 1], after each step.

    You may change what is yielded. The last x0 is the picture. The arguments are those of ``sample``.
    """
    tokens, noise, controls = _fitted(base, prompt, noise, controls)
    _check_options(controls, guidance_scale, steps, in_both, control_start, control_end)
    _tell_what_has_no_effect(controls, guidance_scale, in_both, (control_start, control_end))
    return _steps(base, tokens, noise, controls, guidance_scale, steps, in_both, control_start, control_end)


def _steps(base: UNet, tokens: Tensor, noise: Tensor, controls: list[Control], guidance_scale: float, steps: int,
           in_both: bool, control_start: float, control_end: float) -> Iterator[tuple[Tensor, Tensor]]:
    """``sample_steps`` with arguments that fit."""
    times = ddim_times(steps)
    if guidance_scale == 0 and not in_both:
        controls = []  # they have no effect, as the caller has been told
    model = guided(base, tokens, controls, guidance_scale, in_both)
    if not controls:
        return ddim_steps(model, noise, times)
    first, after = control_window(steps, control_start, control_end)
    if (first, after) == (0, steps):
        return ddim_steps(model, noise, times)
    bare = guided(base, tokens, (), guidance_scale)
    # n steps have n + 1 times. So each part ends at the time at which the next one begins.
    parts = [(bare, times[: first + 1]), (model, times[first : after + 1]), (bare, times[after:])]
    return _one_after_another(parts, noise)


def _one_after_another(parts: list[tuple[Model, list[int]]], xt: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Step through several parts of the times, each with a model of its own."""
    for model, times in parts:
        for xt, x0 in ddim_steps(model, xt, times):
            yield xt.clone(), x0  # as in ddim_steps


def sample(base: UNet, prompt: str | Sequence[str] | Tensor, noise: Tensor,
           controls: Iterable[Control] = (), guidance_scale: float = GUIDANCE, steps: int = 25,
           *, in_both: bool = False, control_start: float = 0.0, control_end: float = 1.0,
           batch: int = 16, progress: str | None = None) -> Tensor:
    """Turn noise (n, 3, 64, 64) into pictures (n, 3, 64, 64) in [0, 1] by DDIM.

    Sides that are other multiples of 32 work as well, but the shipped networks draw poor shapes at other sizes.

    prompt: one text for all pictures, one text for each, or tokens (n or 1, 3).
    controls: any number of Control(net, condition, scale, region); plain tuples of these are fine, too.
    guidance_scale: 1 is no guidance, 0 is the empty prompt.
    in_both: control in both branches of guidance, see ``guided``.
    control_start, control_end: the shares of the steps between which there is control.
    batch: how many pictures are computed at once. progress: a title for a progress bar.
    Raises Problem if prompts, conditions or numbers do not fit.
    """
    tokens, noise, controls = _fitted(base, prompt, noise, controls)
    check_count("batch", batch)
    if not (progress is None or isinstance(progress, str)):
        raise Problem(f"progress is {progress!r}; give a title for the progress bar, or None for no bar")
    _check_options(controls, guidance_scale, steps, in_both, control_start, control_end)
    _tell_what_has_no_effect(controls, guidance_scale, in_both, (control_start, control_end))
    done = []
    for i in tqdm(range(0, len(noise), batch), progress, disable=progress is None):
        part = slice(i, i + batch)
        here = [Control(net, condition[part], scale, None if region is None else region[part])
                for net, condition, scale, region in controls]
        for _, x0 in _steps(base, tokens[part], noise[part], here, guidance_scale, steps, in_both,
                            control_start, control_end):
            pass
        done.append(x0)
    return to_image(torch.cat(done))


def _tell_what_has_no_effect(controls: list[Control], guidance_scale: float, in_both: bool,
                             window: tuple[float, float]) -> None:
    """Warn where an argument cannot have the effect that was meant. ``stacklevel`` names the caller's caller."""
    if not controls and (in_both or window != (0, 1)):
        warnings.warn("in_both, control_start and control_end have no effect without controls", stacklevel=3)
    tell_no_control(controls, guidance_scale, in_both, stacklevel=4)
    if any(control.region is not None and control.region.max() < BLACK for control in controls):
        warnings.warn("a region is black, or 0, everywhere, so its control has no effect; make the mask white, or 1,"
                      " where control should act", stacklevel=3)
    for control in controls:
        brightest = control.condition.amax((1, 2, 3))
        kind = getattr(control.net, "kind", None)
        # In each picture the share of grey pixels, and of white ones. Edge maps in training have no grey pixels.
        soft = ((control.condition > 0.05) & (control.condition < 0.95)).float().mean((1, 2, 3))
        lines = (control.condition >= 0.95).float().mean((1, 2, 3))
        if (kind and (brightest < BLACK).any()) or 0 < brightest.max() < BLACK:
            warnings.warn(f"a condition is black everywhere (its largest value is {brightest.min().item():.4g}), so it"
                          " shows nothing; bring its values to [0, 1]", stacklevel=3)
        if kind == "edge" and (lines > MOST_LINES).any():
            warnings.warn(f"a condition is white on {lines.max().item():.0%} of its picture, but an edge map has thin"
                          " white lines on black; is it inverted, or a filled shape?", stacklevel=3)
        elif kind == "edge" and _has_filled_squares(control.condition):
            warnings.warn(f"a condition has a white square of {WIDEST} x {WIDEST} pixels, but an edge map has thin"
                          " white lines on black; is it inverted, or a filled shape?", stacklevel=3)
        if kind == "edge" and (soft > 0.3 * lines).any():
            warnings.warn("a condition has many values between 0 and 1, but the edge ControlNet was trained on edge"
                          " maps, which are 0 or 1; give an edge map, such as detect_edges returns", stacklevel=3)
        if kind == "pose" and ((lines > 0) & (soft == 0)).any():
            warnings.warn("a condition is 0 or 1 everywhere, like an edge map, but the pose ControlNet was trained"
                          " on stick figures with soft rims; give a pose, such as stick_figure returns", stacklevel=3)


def _has_filled_squares(condition: Tensor) -> bool:
    """Whether any condition (n, 1, h, w) has a white square that is too large for a stroke."""
    black = (condition < 0.95).float()
    return bool((F.max_pool2d(black, WIDEST, stride=1) == 0).any())


def seeded_noise(n: int, seed: int) -> Tensor:
    """The noise (n, 3, 64, 64) of a seed. A larger n adds noise at the end, and the first ones stay the same."""
    check_count("the number of pictures", n)
    check_seed(seed)
    generator = torch.Generator().manual_seed(int(seed))
    return torch.randn(n, 3, SIZE, SIZE, generator=generator, dtype=torch.float32)


# %% Checks of what ``sample`` is given


def _check_options(controls: list[Control], guidance_scale: float, steps: int, in_both: bool, start: float,
                   end: float) -> None:
    """Raise Problem for an option that cannot be used. This comes before any warning about the other ones."""
    check_number("guidance_scale", guidance_scale)
    check_flag("in_both", in_both)
    check_number("control_start", start, 0, 1)
    check_number("control_end", end, 0, 1)
    ddim_times(steps)
    if controls:
        control_window(steps, start, end)


def _fitted(base: UNet, prompt: str | Sequence[str] | Tensor, noise: Tensor,
            controls: Iterable[Control]) -> tuple[Tensor, Tensor, list[Control]]:
    """Copies of tokens, noise and controls, one for each picture, with the base's device and dtype.

    They are copies, because you may fill your tensors anew before the steps are taken. Raises Problem if they do not
    fit.
    """
    if not hasattr(base, "parameters") or isinstance(base, (ControlNet, type)):
        raise Problem(f"the base is a {type(base).__name__}; give a UNet, such as load_base() returns")
    weight = next(base.parameters())
    if weight.dtype == torch.float16:
        raise Problem("the base is in float16, which cannot hold alpha_bar at t = 999 (1.2e-9);"
                      " use float32 or bfloat16")
    _check_noise(noise)
    n = len(noise)
    tokens = _tokens_for(prompt, n).to(weight.device, copy=True)
    fitted = []
    for net, condition, scale, region in as_controls(controls):
        _check_alike(net, weight)
        _check_condition(net, condition, noise)
        scale_per_control(scale)
        if region is not None:
            _check_region(region, noise)
            region = region.expand(n, -1, -1, -1).to(weight.device, weight.dtype, copy=True)
        condition = condition.expand(n, -1, -1, -1).to(weight.device, weight.dtype, copy=True)
        fitted.append(Control(net, condition, scale, region))
    return tokens, noise.to(weight.device, weight.dtype, copy=True), fitted


def _check_noise(noise: Tensor) -> None:
    smallest = 8 * PATCH  # pixels: the deepest of the four grids then has one patch
    shape = tuple(noise.shape) if isinstance(noise, Tensor) else type(noise).__name__
    if not isinstance(noise, Tensor) or noise.dim() != 4 or noise.shape[1] != 3 or len(noise) == 0 or any(
            side == 0 or side % smallest for side in noise.shape[2:]):
        raise Problem(f"the noise is {shape}; give a tensor (n, 3, {SIZE}, {SIZE}), or for a base that was"
                      f" trained on another size one whose sides are multiples of {smallest}")
    if not noise.is_floating_point():
        raise Problem(f"the noise has the type {dtype_name(noise)}; give floating point values, such as"
                      " seeded_noise returns")
    check_tensor("the values of the noise", noise)
    if not noise.isfinite().all():
        raise Problem("the noise has values that are not finite; make it anew by torch.randn or seeded_noise")
    if noise.any() and noise.min() >= 0:
        warnings.warn("the noise has no negative values, so it is not Gaussian; give torch.randn and not torch.rand, or"
                      " use seeded_noise", stacklevel=4)
    elif noise.numel() > 1 and noise.std() > 1.5:
        warnings.warn(f"the noise has a standard deviation of {noise.std().item():.3g}, and sampling begins at one of"
                      " 1; give torch.randn as it is, or use seeded_noise", stacklevel=4)


def _tokens_for(prompt: str | Sequence[str] | Tensor, n: int) -> Tensor:
    """The tokens (n, 3) of one prompt for all pictures, or of one for each."""
    tokens = prompt if isinstance(prompt, Tensor) else tokenize(prompt)
    check_tokens(tokens)
    if len(tokens) not in {1, n}:
        raise Problem(f"there are {len(tokens)} prompts for {n} pictures; give one for all, or {n}")
    return tokens.expand(n, 3)


def _check_alike(net: ControlNet, weight: Tensor) -> None:
    """Raise Problem unless a ControlNet is on the base's device and has its dtype."""
    own = next(net.parameters(), weight) if hasattr(net, "parameters") else weight
    check_same_type("the ControlNet", own, "the base", weight)


def _check_condition(net: ControlNet, condition: Tensor, noise: Tensor) -> None:
    n, _, *size = noise.shape
    check_images("the conditions", condition)
    given = tuple(condition.shape)
    c = getattr(net, "c_condition", None) or given[1]  # your own network need not have this attribute
    if given not in {(1, c, *size), (n, c, *size)}:
        raise Problem(f"a condition has the shape {given}, but this ControlNet and the noise need"
                      f" {(n, c, *size)}, or {(1, c, *size)} for all pictures")


def _check_region(region: Tensor, noise: Tensor) -> None:
    n, _, *size = noise.shape
    check_images("the regions", region)
    given = tuple(region.shape)
    if given not in {(1, 1, *size), (n, 1, *size)}:
        raise Problem(f"a region has the shape {given}, but the noise needs {(n, 1, *size)}, or {(1, 1, *size)}"
                      " for all pictures")
