"""The exercises, one plain list. The package is the solution: an exercise names its reference there.

A probe runs a function on fresh inputs and returns what it observed. An answer is right if its
observations equal the reference's. If they equal those of a known wrong answer, that one's words
tell the misconception. Zero convs hide every wiring error, so probes fill them with random numbers.
"""

import copy
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minicontrolnet import controlnet, diffusion, metrics, training, unet
from minicontrolnet.diffusion import alpha_bar_at, to_eps

Probe = Callable[[Any, torch.Generator], dict[str, Any]]


class Mistake(Exception):
    """Something that is wrong whatever the exercise: what was found, and what it shows."""


class Wrong(NamedTuple):
    answer: Any  # a plausible wrong answer, run beside the learner's
    words: str  # what it shows; no other wrong answer of the exercise has the same


class Exercise(NamedTuple):
    id: str
    reference: str  # below minicontrolnet
    paper: str
    minutes: int
    task: str
    probe: Probe
    hints: tuple[str, str]
    wrongs: tuple[Wrong, ...]

    @property
    def name(self) -> str:
        """The function's name in the learner's file: a method is CLASS_method there."""
        return "_".join(self.reference.split(".")[1:])


# %% Inputs for the probes


def normal(generator: torch.Generator, *size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*size, generator=generator, dtype=dtype)


def filled(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """The module in float64 with random numbers in every parameter."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * normal(generator, *parameter.shape))
    return module


def tiny(generator: torch.Generator) -> tuple[unet.UNet, tuple[Tensor, Tensor, Tensor], Tensor]:
    """A tiny locked base, its inputs (xt, t, prompt) and an edge map."""
    base = controlnet.lock(filled(unet.UNet((8, 8, 8, 8), c_emb=8), generator))
    inputs = normal(generator, 2, 3, 16, 16), torch.tensor([250, 600]), torch.tensor([[1, 2, 3], [8, 4, 0]])
    return base, inputs, torch.rand(2, 1, 32, 32, generator=generator, dtype=torch.float64)


def reached_from(output: Tensor, modules: list[nn.Module]) -> list[bool]:
    """Whether a backward pass from the output moves something in each module."""
    if output.requires_grad:
        output.sum().backward()
    return [any(p.grad is not None and bool(p.grad.any()) for p in module.parameters()) for module in modules]


def call(function: Callable, *inputs: Any) -> Any:
    """Call a function; it must return something and leave its inputs as they were."""
    tensors = lambda x: [x] if isinstance(x, Tensor) else list(x) if isinstance(x, tuple) else []
    before = [[tensor.clone() for tensor in tensors(x)] for x in inputs]
    output = function(*inputs)
    for i, (x, was) in enumerate(zip(inputs, before)):
        if not all(map(torch.equal, tensors(x), was)):
            raise Mistake(f"input number {i + 1} has other values than before the call",
                          "you changed an input in place (+=, a name that ends in _): callers still need it; make a new tensor")
    if output is None:
        raise Mistake("None", "a function ends without a return")
    if isinstance(output, Generator):
        raise Mistake("a generator", "(... for ...) is not a tuple yet: write tuple(... for ...)")
    return output


# %% 01: noising and guidance


def probe_noising(function: Callable, generator: torch.Generator) -> dict[str, Any]:
    a, b = normal(generator, 4, 3, 8, 8), normal(generator, 4, 3, 8, 8)
    t = torch.tensor([3, 250, 600, 990])
    return {"result": call(function, a, t, b), "result for float32": call(function, a.float(), t, b.float())}


def probe_x0(function: Callable, generator: torch.Generator) -> dict[str, Any]:
    eps, xt = normal(generator, 3, 3, 8, 8), normal(generator, 3, 3, 8, 8)
    return {"x0": call(function, eps, xt, torch.tensor([3, 250, 900]))}


def probe_guide(function: Callable, generator: torch.Generator) -> dict[str, Any]:
    xt, t = normal(generator, 2, 3, 4, 4, dtype=torch.float32), torch.tensor([10, 500])
    uncond, cond = lambda xt, t: 0.3 * xt + 0.1, lambda xt, t: xt.sin() / 3 + t.view(-1, 1, 1, 1) / 999
    at = {scale: call(call(function, uncond, cond, scale), xt, t) for scale in (0.0, 1.0, 3.0)}
    return {"eps at scale 3": at[3.0], "eps at scale 0": at[0.0], "eps at scale 1": at[1.0],
            "at scale 1 equal to the conditional branch in every bit": torch.equal(at[1.0], cond(xt, t)),
            "where both branches agree, equal to them in every bit":
                torch.equal(call(call(function, cond, cond, 3.3), xt, t), cond(xt, t))}


# %% 02: lock and copy


def probe_lock(function: Callable, generator: torch.Generator) -> dict[str, Any]:
    inner = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    module = nn.Sequential(inner, nn.Linear(3, 2))
    module.own = nn.Parameter(torch.ones(2))  # not in a child
    module = filled(module, generator)
    locked, x = call(function, module), normal(generator, 4, 3).requires_grad_()
    output = locked(x) if isinstance(locked, nn.Module) else None
    return {"parameters that still ask for a gradient": sum(p.requires_grad for p in module.parameters()),
            "the module itself comes back": locked is module,
            "a gradient flows through it to its input": output is not None and output.requires_grad,
            "in training mode": module.training}


def probe_copy(build: Callable, generator: torch.Generator) -> dict[str, Any]:
    base, inputs, condition = tiny(generator)
    control = build(base, 1)
    own = {p.data_ptr() for p in control.parameters()}
    controls = call(control, *inputs, condition)
    found = {"parameters of the base that the copy shares": sum(p.data_ptr() in own for p in base.parameters()),
             "parameters of the base that became trainable": sum(p.requires_grad for p in base.parameters()),
             "parameters of the copy that are locked": sum(not p.requires_grad for p in control.parameters()),
             "the copy starts with the base's weights":
                 all(map(torch.equal, control.encoder.parameters(), base.encoder.parameters())),
             "shapes of the controls": [tuple(c.shape) for c in controls],
             "controls before training are 0": not any(c.any() for c in controls)}
    controls = filled(control, generator)(*inputs, condition)
    found["the condition changes the controls"] = not torch.equal(controls[-1], control(*inputs, 1 - condition)[-1])
    return found


def shares(*parts: str) -> Callable[..., nn.Module]:
    def build(base: unet.UNet, c_condition: int = 1) -> nn.Module:
        control = controlnet.ControlNet(base, c_condition)
        for part in parts:
            setattr(control, part, getattr(base, part))
        return control.requires_grad_(True)

    return build


def without_zero_convs(base: unet.UNet, c_condition: int = 1) -> nn.Module:
    control = controlnet.ControlNet(base, c_condition)
    control.zero_convs = nn.ModuleList(nn.Identity() for _ in control.zero_convs)
    return control


def still_locked(base: unet.UNet, c_condition: int = 1) -> nn.Module:
    control = controlnet.ControlNet(base, c_condition)
    control.embedding.requires_grad_(False)
    control.encoder.requires_grad_(False)
    return control


def twelve(base: unet.UNet, c_condition: int = 1) -> nn.Module:
    control = controlnet.ControlNet(base, c_condition)
    control.forward = lambda *inputs: controlnet.ControlNet.forward(control, *inputs)[:-1]
    return control


# %% 03: zero convs


def probe_zero_conv(function: Callable, generator: torch.Generator) -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        conv = call(function, 5)
    if not isinstance(conv, nn.Conv2d):
        raise Mistake(type(conv).__name__, "an nn.Conv2d is wanted: return the layer itself")
    found = {name: tuple(p.shape) for name, p in conv.named_parameters()}
    return {"parameters": found, "weight is 0": not conv.weight.any(),
            "bias is 0": conv.bias is None or not conv.bias.any(),
            "trainable": all(p.requires_grad for p in conv.parameters()),
            "shape that comes from (1, 5, 6, 6)": tuple(conv(torch.zeros(1, 5, 6, 6)).shape)}


def conv_but(change: Callable[[nn.Conv2d], None]) -> Callable[[int], nn.Conv2d]:
    """A zero conv with one thing wrong."""

    def build(c: int) -> nn.Conv2d:
        conv = controlnet.zero_conv(c)
        change(conv)
        return conv

    return build


def probe_gradients(function: Callable, generator: torch.Generator) -> dict[str, Any]:
    x, upstream, weight = normal(generator, 2, 3, 4, 4), normal(generator, 2, 5, 4, 4), normal(generator, 5, 3)
    zero = call(function, x, torch.zeros(5, 3, dtype=torch.float64), upstream)
    some = call(function, x, weight, upstream)
    for output in (zero, some):
        if not isinstance(output, (tuple, list)) or len(output) != 3:
            raise Mistake(f"{type(output).__name__}", "three gradients are wanted: return dW, db, dx")
    names = ("dW", "db", "dx")
    return {**{f"{name} where the weight is 0": g for name, g in zip(names, zero)},
            **{f"{name} for a random weight": g for name, g in zip(names, some)}}


def gradients(dw_scale: float = 1.0, transpose: bool = True, db: bool = True, order: tuple[int, ...] = (0, 1, 2)) -> Callable:
    def wrong(x: Tensor, weight: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
        dx = torch.einsum("oi, bohw -> bihw", weight, upstream) if transpose else upstream[:, : x.shape[1]].clone()
        all_db = upstream.sum((0, 2, 3)) if db else torch.ones_like(upstream[0, :, 0, 0])
        three = dw_scale * torch.einsum("bohw, bihw -> oi", upstream, x), all_db, dx
        return tuple(three[i] for i in order)

    return wrong


# %% 04: the condition encoder


def probe_encoder(build: Callable, generator: torch.Generator) -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        encoder = build(3, 8).double()
    condition = torch.rand(2, 3, 32, 32, generator=generator, dtype=torch.float64)
    before = call(encoder, condition)
    convs = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    reached = reached_from(before, convs[-1:])
    if convs:
        nn.init.constant_(convs[-1].weight, 0.1)
    after, of_mean = encoder(condition), encoder(condition.mean(0, keepdim=True))
    return {"shape of the features": tuple(before.shape), "features before training are 0": not before.any(),
            "once the last conv is not 0, pictures differ": bool((after[0] - after[1]).abs().max() > 1e-6),
            "a gradient reaches the last conv": all(reached),
            "the mean of two pictures gives the mean of their features": torch.allclose(of_mean[0], after.mean(0))}


def encoder_of(*make: Callable[[int, int], nn.Module]) -> Callable[[int, int], nn.Module]:
    return lambda c_in, c_out: nn.Sequential(*(m(c_in, c_out) for m in make))


def zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


HALVE = lambda c_in, c_out: nn.Conv2d(c_in, 16, 4, stride=2, padding=1)
KEEP = lambda c_in, c_out: nn.Conv2d(c_in, 16, 3, padding=1)
RELU = lambda c_in, c_out: nn.ReLU()
LIFT = lambda c_in, c_out: nn.Conv2d(16, c_out, 3, padding=1)
ZERO = lambda c_in, c_out: controlnet.zero_conv(c_out)


# %% 05: wiring, dropped prompts, the shuffle gap


def probe_control(function: Callable, generator: torch.Generator) -> dict[str, Any]:
    base, inputs, condition = tiny(generator)
    control = filled(controlnet.ControlNet(base, 1), generator)
    controls = call(function, control, *inputs, condition)
    parts = dict(control.named_children())
    reached = reached_from(sum(c.square().sum() for c in controls), list(parts.values()))
    return {"number of controls": len(controls), "shapes, shallow to deep": [tuple(c.shape) for c in controls],
            "a gradient reaches": ", ".join(name for name, yes in zip(parts, reached) if yes) or "nothing",
            "the controls": [c.detach() for c in controls]}


controls_of = controlnet.ControlNet.forward


def reversed_convs(control: nn.Module, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> tuple[Tensor, ...]:
    emb = control.embedding(t, prompt)
    maps = control.encoder(xt, emb, control.condition_encoder(condition))
    return tuple(zero(h) for zero, h in zip(reversed(control.zero_convs), maps))


def detached_maps(control: nn.Module, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> tuple[Tensor, ...]:
    maps = control.encoder(xt, control.embedding(t, prompt), control.condition_encoder(condition))
    return tuple(zero(h.detach()) for zero, h in zip(control.zero_convs, maps))


def without_condition(control: nn.Module, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> tuple[Tensor, ...]:
    maps = control.encoder(xt, control.embedding(t, prompt))
    return tuple(zero(h) for zero, h in zip(control.zero_convs, maps))


class Recorder(nn.Module):
    """Stands in the decoder's place: notes what arrives, decodes it if it can."""

    def __init__(self, decoder: nn.Module):
        super().__init__()
        self.decoder, self.channels = decoder, []

    def forward(self, middle: Tensor, skips: list[Tensor], emb: Tensor) -> Tensor:
        self.channels = [h.shape[1] for h in (*skips, middle)]
        fits = self.channels == [8] * 13
        return self.decoder(middle, list(skips), emb) if fits else torch.zeros(len(middle), 3, 16, 16, dtype=middle.dtype)


def probe_unet(function: Callable, generator: torch.Generator) -> dict[str, Any]:
    base, inputs, _ = tiny(generator)
    base.decoder = Recorder(base.decoder)
    maps = base.encoder(inputs[0], base.embedding(*inputs[1:]))
    controls = tuple(normal(generator, *h.shape) for h in maps)
    plain, steered = call(function, base, *inputs, None), call(function, base, *inputs, controls)
    found = {"channels that reach the decoder": base.decoder.channels, "eps without controls": plain,
             "eps with controls": steered}
    controls = nn.ParameterList(base.requires_grad_(True).encoder(inputs[0], base.embedding(*inputs[1:])))
    names, parts = ("the controls", "the embedding", "the encoder"), [controls, base.embedding, base.encoder]
    reached = reached_from(function(base, *inputs, tuple(controls)), parts)
    found["a gradient reaches"] = ", ".join(name for name, yes in zip(names, reached) if yes) or "nothing"
    return found


def unet_with(change: Callable[[list[Tensor], tuple[Tensor, ...]], list[Tensor]], read: bool = True) -> Callable:
    """UNet.forward with another way of joining maps and controls."""

    def forward(base: nn.Module, xt: Tensor, t: Tensor, prompt: Tensor, controls: Any = None) -> Tensor:
        emb = base.embedding(t, prompt)
        maps = base.encoder(xt, emb)
        *skips, middle = maps if controls is None else change(maps, controls)
        output = base.decoder(middle, skips, emb)
        return to_eps(output, xt, t, base.predicts) if read else output

    return forward


ADD = lambda maps, controls: [h + c for h, c in zip(maps, controls)]


def into_encoder(base: nn.Module, xt: Tensor, t: Tensor, prompt: Tensor, controls: Any = None) -> Tensor:
    emb = base.embedding(t, prompt)
    *skips, middle = base.encoder(xt, emb, None if controls is None else controls[0])
    return to_eps(base.decoder(middle, skips, emb), xt, t, base.predicts)


def probe_drop(function: Callable, generator: torch.Generator) -> dict[str, Any]:
    prompt = torch.randint(1, 5, (3000, 3), generator=generator)
    drop = lambda whole, each: call(function, prompt, generator, whole, each)
    half, single = drop(0.5, 0.0) == 0, drop(0.0, 0.3) == 0
    if half.shape != prompt.shape:
        raise Mistake(f"shape {tuple(half.shape)} for prompts {tuple(prompt.shape)}", "words become EMPTY: no prompt goes away")
    near = lambda share, goal: bool(abs(share.double().mean() - goal) < 0.06)
    seeded = lambda seed: call(function, prompt, torch.Generator().manual_seed(seed), 0.5, 0.0)
    return {"at 0, 0": drop(0.0, 0.0), "at 1, 0": drop(1.0, 0.0),
            "at 0.5, 0 a prompt is dropped whole or not at all": torch.equal(half.any(1), half.all(1)),
            "at 0.5, 0 about half are dropped": near(half.all(1), 0.5),
            "at 0, 0.3 about 0.3 of the words are dropped": near(single, 0.3),
            "at 0, 0.3 some prompts lose only some words": bool((single.any(1) & ~single.all(1)).any()),
            "the same seed drops the same": torch.equal(seeded(1), seeded(1)),
            "another seed drops others": not torch.equal(seeded(1), seeded(2))}


def drop_with(rows: bool, columns: bool) -> Callable:
    def wrong(prompt: Tensor, generator: torch.Generator, whole: float, each: float) -> Tensor:
        size = (len(prompt) if rows else 1, 3 if columns else 1)
        keep = torch.rand(size, generator=generator) >= whole
        return prompt * (keep & (torch.rand(prompt.shape, generator=generator) >= each))

    return wrong


def probe_gap(function: Callable, generator: torch.Generator) -> dict[str, Any]:
    truth = torch.rand(2, 1, 6, 6, generator=generator, dtype=torch.float64)  # of two, each other's is the only derangement
    five = torch.rand(5, 1, 2, 2, generator=generator, dtype=torch.float64)
    distance = lambda c: (c - truth).square().mean()
    own = []
    found = {"gap": call(function, lambda c: distance(c) + 0.5, truth.clone()),
             "gap of a model that ignores its condition": call(function, lambda c: truth.mean(), truth.clone()),
             "gap of a model that its condition misleads": call(function, lambda c: 0.5 - distance(c), truth.clone())}
    call(function, lambda c: own.append(float(sum(map(torch.equal, c, five)))) or c.mean(), five.clone())
    return {**found, "of 5 pictures, how many had their own condition, call by call": sorted(own)}


# %% 06: weights and guidance


def probe_weights(function: Callable, generator: torch.Generator) -> dict[str, Any]:
    weights = call(function)
    if not isinstance(weights, (list, tuple)):
        raise Mistake(type(weights).__name__, "a list of 13 numbers is wanted: a tensor has .tolist()")
    return {"number of weights": len(weights), "weights": [float(w) for w in weights]}


def probe_guided(function: Callable, generator: torch.Generator) -> dict[str, Any]:
    base, (xt, t, prompt), condition = tiny(generator)
    network = filled(controlnet.ControlNet(base, 1), generator)
    one, two = (controlnet.steer(network, c) for c in (condition, 1 - condition))
    empty, prompt = torch.zeros_like(prompt), prompt.clamp(min=1)
    with torch.no_grad():
        eps = lambda words, scale, *several: call(call(function, base, words, scale, *several), xt, t)
        return {"eps at scale 0": eps(prompt, 0.0, one), "eps at scale 1": eps(prompt, 1.0, one),
                "eps at scale 3": eps(prompt, 3.0, one), "eps at scale 3, two controls": eps(prompt, 3.0, one, two),
                "eps at scale 3, no control": eps(prompt, 3.0), "eps at scale 3, empty prompt": eps(empty, 3.0, one)}


def guided_with(uncond: tuple[bool, bool], cond: tuple[bool, bool], most: int | None = None) -> Callable:
    """A guided whose two branches have (the prompt, control) or not, and at most so many controls."""
    def wrong(base: nn.Module, prompt: Tensor, guidance_scale: float, *steered: Callable) -> Callable:
        branch = lambda words, control: controlnet.predictor(base, prompt * words, *(steered[:most] if control else ()))
        return diffusion.guide(branch(*uncond), branch(*cond), guidance_scale)

    return wrong


# %% 07: composition and its measure


def probe_compose(function: Callable, generator: torch.Generator) -> dict[str, Any]:
    several = [tuple(normal(generator, 2, 4, s, s) for s in (8, 4, 2)) for _ in range(3)]
    two, one = call(function, *several[:2]), call(function, several[0])
    return {"shapes": [tuple(c.shape) for c in two], "two composed": list(two), "one alone": list(one),
            "three composed": list(call(function, *several))}


def probe_iou(function: Callable, generator: torch.Generator) -> dict[str, Any]:
    a, b = (torch.rand(4, 1, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    nothing = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    number = lambda *masks: call(function, *masks).float()
    return {"IoU, one for each picture": number(a, b), "of a mask with itself": number(a, a),
            "of two empty masks": number(nothing, nothing)}


EXERCISES = [
    Exercise("01a", "diffusion.q_sample", "DDPM, Eq. 4; here Eq. 5's z_t", 5, "Noise a picture to time t in one jump.", probe_noising,
             ("xt is a weighted sum of x0 and eps; alpha_bar_at(t, x0) has the shape to multiply with.",
              "The squares of the two weights add up to 1: variances add, amplitudes do not."), (
        Wrong(lambda x0, t, eps: alpha_bar_at(t, x0) * x0 + (1 - alpha_bar_at(t, x0)) * eps,
              "alpha_bar is a variance, and you used it as an amplitude: take the square roots"),
        Wrong(lambda x0, t, eps: (1 - alpha_bar_at(t, x0)).sqrt() * x0 + alpha_bar_at(t, x0).sqrt() * eps,
              "you swapped the two weights: at t = 0 there would be only noise"),
        Wrong(lambda x0, t, eps: alpha_bar_at(t, x0).sqrt() * x0 + (1 - alpha_bar_at(t, x0).sqrt()) * eps,
              "the second weight is the root of 1 - alpha_bar, not 1 minus the root"),
        Wrong(lambda x0, t, eps: alpha_bar_at(t, x0).sqrt() * x0 + (1 - alpha_bar_at(t, x0)).sqrt() * torch.randn_like(x0),
              "you drew noise of your own: use eps, for eps is what the network must find"))),
    Exercise("01b", "diffusion.x0_from_eps", "DDPM, Eq. 15", 5, "From a noise estimate to the picture it stands for.", probe_x0,
             ("Solve the line of q_sample for x0.", "First take the noise away, then undo the weight that x0 had."), (
        Wrong(lambda eps, xt, t: xt - (1 - alpha_bar_at(t, xt)).sqrt() * eps,
              "the noise is gone but the picture is still faint: x0 had the weight sqrt(alpha_bar), divide by it"),
        Wrong(lambda eps, xt, t: (xt + (1 - alpha_bar_at(t, xt)).sqrt() * eps) / alpha_bar_at(t, xt).sqrt(),
              "you added the noise a second time: it is to be taken away"),
        Wrong(lambda eps, xt, t: xt - (1 - alpha_bar_at(t, xt)).sqrt() / alpha_bar_at(t, xt).sqrt() * eps,
              "only the noise is divided by sqrt(alpha_bar): put the difference in brackets"),
        Wrong(lambda eps, xt, t: diffusion.x0_from_eps(xt, eps, t), "eps and xt are swapped: here eps is the first input"),
        Wrong(lambda eps, xt, t: diffusion.x0_from_eps(eps, xt, t).clamp(-1, 1), "you clamped: that is a choice of samplers, not part of Eq. 15"))),
    Exercise("01c", "diffusion.guide", "Sec. 3.4", 5, "Classifier-free guidance as a function of two models.", probe_guide,
             ("Return a function of xt and t.", "At scale 1 it must be the conditional branch in every bit; see torch.lerp."), (
        Wrong(lambda uncond, cond, s: lambda xt, t: torch.lerp(cond(xt, t), uncond(xt, t), s),
              "the branches are swapped: scale 0 must give the unconditional one"),
        Wrong(lambda uncond, cond, s: lambda xt, t: uncond(xt, t) + s * cond(xt, t),
              "guidance scales the difference of the branches, not the conditional branch itself"),
        Wrong(lambda uncond, cond, s: lambda xt, t: uncond(xt, t) + s * (cond(xt, t) - uncond(xt, t)),
              "the right formula, but rounding makes it inexact at scale 1: torch.lerp is exact there"),
        Wrong(lambda uncond, cond, s: lambda xt, t: (1 - s) * uncond(xt, t) + s * cond(xt, t),
              "the right formula, but rounding makes it inexact where both branches agree: torch.lerp is exact there"),
        Wrong(lambda uncond, cond, s: lambda xt, t: (1 + s) * cond(xt, t) - s * uncond(xt, t),
              "that is w of Ho and Salimans, one less than our scale: here scale 0 is unconditional and 1 conditional"),
        Wrong(lambda uncond, cond, s: lambda xt, t: s * cond(xt, t), "the unconditional branch is not used"))),
    Exercise("02a", "controlnet.lock", "Sec. 3.1, Fig. 2", 5, "Lock a module for good.", probe_lock,
             ("nn.Module has one method for this, and it reaches all inner modules.",
              "Do not stop gradients in forward: the controls behind it need them."), (
        Wrong(lambda module: module.eval(), "not locked: eval() changes dropout and the like, module.requires_grad = False changes nothing"),
        Wrong(lambda module: module.requires_grad_(False), "still in training mode: dropout would make the locked model noisy"),
        Wrong(lambda module: controlnet.lock(copy.deepcopy(module)), "you locked a copy: the module that was given stays open"),
        Wrong(lambda module: blocked(module), "locked is not detached: no gradient flows through, so the controls would never learn"))),
    Exercise("02b", "controlnet.ControlNet", "Sec. 3.1, Fig. 2-3", 10, "Bug hunt: this copy trains the base as well.", probe_copy,
             ("What does = do with a module, and what does copy.deepcopy do?", "A deep copy of something locked is locked, too."), (
        Wrong(shares("embedding", "encoder"),
              "the copy shares its storage with the base: training one trains the other; it must be a deep copy"),
        Wrong(shares("embedding"), "the encoder is a copy, the embedding is still the base's own: copy both"),
        Wrong(shares("encoder"), "the embedding is a copy, the encoder is still the base's own: copy both"),
        Wrong(without_zero_convs, "the maps leave without their zero convs: the base is disturbed before any training"),
        Wrong(still_locked, "the copy is still locked, as the base that it was copied from: it must ask for gradients"),
        Wrong(twelve, "the middle block's output is missing: there are 12 skips and 1 middle, 13 controls"))),
    Exercise("03a", "controlnet.zero_conv", "Sec. 3.1, Fig. 2b", 5, "The 1x1 conv that everything starts from.", probe_zero_conv,
             ("nn.Conv2d with kernel size 1; then nn.init.", "Both of its parameters start at 0, and both learn."), (
        Wrong(conv_but(lambda conv: nn.init.uniform_(conv.bias, 0.1, 0.2)),
              "only the weight is zero: nn.Conv2d starts its bias at random, so the output would not be 0"),
        Wrong(conv_but(lambda conv: nn.init.normal_(conv.weight, std=0.02)),
              "a small Gaussian is not zero: harmful noise enters at step 0 (lesson 03 measures it)"),
        Wrong(conv_but(lambda conv: conv.requires_grad_(False)), "zero is not frozen: it must ask for gradients to ever leave 0"),
        Wrong(lambda c: zeroed(nn.Conv2d(c, c, 3, padding=1)), "the kernel is not 1x1: a zero conv mixes channels, not places"),
        Wrong(conv_but(lambda conv: conv.register_parameter("bias", None)),
              "the bias is missing: it is 0 at first, too, and learns"))),
    Exercise("03b", "controlnet.zero_conv_gradients", "Sec. 3.1, Eq. 2", 10, "The three gradients of a 1x1 conv, by hand.", probe_gradients,
             ("y = W x + b at every place of every picture; sum what each place contributes.",
              "einsum: dW is upstream times x summed over b, h, w; dx is W transposed times upstream."), (
        Wrong(gradients(dw_scale=0.0), "that the weight is 0 does not make its gradient 0: dW is the input times upstream"),
        Wrong(gradients(dw_scale=1 / 32), "dW is a sum over pictures and places, you took the mean"),
        Wrong(gradients(dw_scale=1 / 2), "dW is a sum over pictures, you took the mean over the batch"),
        Wrong(gradients(db=False), "dy/db is 1, but db is dL/db: the sum of upstream over pictures and places"),
        Wrong(gradients(order=(2, 0, 1)), "the order is another one: return dW, db, dx"),
        Wrong(gradients(transpose=False), "dx goes through the weight: where W = 0 it is 0, so nothing before a zero conv learns at first"))),
    Exercise("04a", "controlnet.ConditionEncoder", "Sec. 3.2, Eq. 4", 10, "From image space to the UNet's grid.", probe_encoder,
             ("Stride 2 halves the grid; zero_conv comes last.", "The layers before the zero conv keep their random start. The shipped weights fit a 4x4 conv to 16 channels, ReLU,"
              " a 3x3 conv, ReLU and the zero conv."), (
        Wrong(encoder_of(KEEP, RELU, LIFT, RELU, ZERO), "the grid stayed as large as the image: one conv needs stride 2"),
        Wrong(encoder_of(HALVE, RELU, LIFT, RELU), "without a zero conv at the end the condition disturbs the copy before any training"),
        Wrong(encoder_of(lambda i, o: zeroed(HALVE(i, o)), RELU, lambda i, o: zeroed(LIFT(i, o)), RELU, ZERO),
              "all layers are zero: two zeros in a row never learn, only the last conv may start at 0"),
        Wrong(encoder_of(HALVE, RELU, LIFT, RELU, ZERO, RELU), "no gradient passes a ReLU at 0: after the zero conv it would never learn"),
        Wrong(encoder_of(HALVE, LIFT, ZERO), "without ReLU between them, convs in a row are one linear map (Sec. 3.2 has ReLUs)"),
        Wrong(encoder_of(HALVE, RELU, *[lambda i, o: HALVE(16, 16), RELU] * 3, LIFT, RELU, ZERO),
              "the grid is too small: the image is twice as wide as the grid, so one stride of 2 is enough"))),
    Exercise("05a", "controlnet.ControlNet.forward", "Eq. 2, Fig. 3", 10, "Bug hunt: this training runs, and learns nothing.", probe_control,
             ("Frozen is not the same as no gradient through it.", "zip the zero convs and the maps, both from shallow to deep."), (
        Wrong(lambda *x: tuple(c.detach() for c in controls_of(*x)), "the controls are detached: training runs in silence and nothing is learned"),
        Wrong(detached_maps, "the maps are detached: the zero convs learn, the copy behind them never does"),
        Wrong(lambda *x: controls_of(*x)[::-1], "both are reversed, so the controls come deep to shallow: the base adds them shallow first"),
        Wrong(lambda control, xt, t, prompt, c: controls_of(control, xt, t, prompt * 0, c), "the prompt does not reach the copy"),
        Wrong(reversed_convs, "zero convs and maps are paired in reversed order: both go from shallow to deep"),
        Wrong(without_condition, "the condition does not reach the copy: its features are added after the first conv"),
        Wrong(lambda *x: controls_of(*x)[:-1], "the middle's control is missing: 12 skips and 1 middle are 13"))),
    Exercise("05b", "unet.UNet.forward", "Sec. 3.2, Fig. 3", 10, "Where the 13 controls enter the base.", probe_unet,
             ("Encode, add, decode; the last of the 13 maps is the middle.", "The decoder's output is read as eps by to_eps."), (
        Wrong(unet_with(lambda maps, controls: [torch.cat(pair, 1) for pair in zip(maps, controls)]),
              "controls are added, not concatenated: the locked decoder has no weights for more channels"),
        Wrong(into_encoder, "control entered the base's encoder: it is added to the encoder's outputs, so that the base itself stays as it was"),
        Wrong(unet_with(lambda maps, controls: [*ADD(maps[:-1], controls[:-1]), maps[-1]]), "the middle block gets no control"),
        Wrong(unet_with(lambda maps, controls: [*maps[:-1], maps[-1] + controls[-1]]), "the middle gets its control, the 12 skips get none"),
        Wrong(unet_with(lambda maps, controls: maps), "the controls are not used at all"),
        Wrong(unet_with(lambda maps, controls: [h * c for h, c in zip(maps, controls)]),
              "controls are added, not multiplied: controls of 0 must change nothing"),
        Wrong(unet_with(lambda maps, controls: [h + c.detach() for h, c in zip(maps, controls)]),
              "the controls are detached: no ControlNet would ever learn"),
        Wrong(unet_with(ADD, read=False), "that is what the layers put out (x0 here): forward promises eps, see to_eps"))),
    Exercise("05c", "training.drop_words", "Sec. 3.3", 10, "Replace half of the prompts by the empty one.", probe_drop,
             ("One coin for each picture decides over the whole prompt; further coins over its words.",
              "torch.rand(n, 1) and torch.rand(n, 3); EMPTY takes the place of a word."), (
        Wrong(drop_with(rows=False, columns=False), "one coin was tossed for the whole batch: each picture needs its own"),
        Wrong(drop_with(rows=True, columns=True), "whole must drop whole prompts: you tossed a coin for each word"),
        Wrong(lambda prompt, generator, whole, each: training.drop_words(prompt, None, whole, each),
              "the coins are not drawn from generator: no run could be repeated"),
        Wrong(lambda prompt, generator, whole, each: training.drop_words(prompt, torch.Generator().manual_seed(0), whole, each),
              "the coins fall the same way at every call: draw them from the generator that was given"),
        Wrong(lambda prompt, generator, whole, each: prompt - training.drop_words(prompt, generator, whole, each),
              "reversed: you keep the words that are to be dropped"))),
    Exercise("05d", "metrics.shuffle_gap", "Sec. 3.3", 5, "Does the model use its condition at all?", probe_gap,
             ("The loss with another picture's condition, minus the loss with the own one.",
              "A random permutation may leave some in place; rolling by one leaves none."), (
        Wrong(lambda loss, c: (loss(c) - loss(c.roll(1, 0))).item(), "the sign is reversed: a condition that helps must give a positive gap"),
        Wrong(lambda loss, c: (loss(c) - loss(c.clone())).item(), "every condition kept its own picture: nothing was shuffled"),
        Wrong(lambda loss, c: (loss(c.flip(0)) - loss(c)).item(), "flipping leaves the middle condition in its place: roll"),
        Wrong(lambda loss, c: (loss(c[torch.randperm(len(c))]) - loss(c)).item(), "a random order may leave some in place: roll"),
        Wrong(lambda loss, c: (loss(torch.zeros_like(c)) - loss(c)).item(), "a black condition is not a wrong one: give each its neighbour's"),
        Wrong(lambda loss, c: abs(loss(c.roll(1, 0)) - loss(c)).item(), "no abs: a condition that misleads has a negative gap"),
        Wrong(lambda loss, c: loss(c.roll(1, 0)) - loss(c), "a tensor with one number: .item() makes it the float that is promised"),
        Wrong(lambda loss, c: (loss(c.roll(1, -1)) - loss(c)).item(), "you moved pixels within a picture: swap conditions between pictures"))),
    Exercise("06a", "controlnet.paper_weights", "Sec. 3.4", 5, "The paper's w_i for our 13 connections.", probe_weights,
             ("Three connections on each of the grids 32, 16, 8, 4, then the middle.", "32 / h here is what 64 / h is in the paper."), (
        Wrong(lambda: controlnet.paper_weights()[::-1], "reversed: deep maps are small, so 1 / h makes their weight large"),
        Wrong(lambda: controlnet.paper_weights()[:-1], "the middle block is a connection, too: 12 + 1 = 13"),
        Wrong(lambda: [w / 8 for w in controlnet.paper_weights()], "those are normalised to at most 1; the paper's run from 1 to 8"),
        Wrong(lambda: [2 * w for w in controlnet.paper_weights()], "64 is the paper's largest grid; ours is 32, so the first weight is 1"),
        Wrong(lambda: [1 / w for w in controlnet.paper_weights()], "upside down: w = 32 / h, so small grids get large weights"),
        Wrong(lambda: [1.0, 2.0, 4.0, 8.0], "one weight for each connection: the 4 grids have 3 each, and there is the middle"),
        Wrong(lambda: [1.0] * 4 + [2.0] * 3 + [4.0] * 3 + [8.0] * 3, "a downsampled map stands on the smaller grid: it has that grid's weight"),
        Wrong(lambda: [*controlnet.paper_weights()[:-1], 16.0], "the middle stands on the same 4x4 grid as the last skips: 32 / 4"))),
    Exercise("06b", "controlnet.released_weights", "released code, not in the paper", 5, "What is 0.825?", probe_weights,
             ("0.825 to a power that falls from 12 at the shallowest to 0 at the middle.", "i counts from 0 (shallow) to 12 (middle)."), (
        Wrong(lambda: controlnet.released_weights()[::-1], "reversed: the middle keeps its whole strength, shallow maps are weakened"),
        Wrong(lambda: [0.825 ** (13 - i) for i in range(13)], "off by one: the middle's weight is exactly 1"),
        Wrong(lambda: controlnet.released_weights()[:12], "12 skips and the middle make 13 weights"),
        Wrong(lambda: controlnet.released_weights()[1:] + [1 / 0.825], "off by one: i starts at 0, and no weight is above 1"),
        Wrong(lambda: [0.825 * (12 - i) for i in range(13)], "a power, not a product: 0.825 ** (12 - i)"))),
    Exercise("06c", "controlnet.guided", "Sec. 3.4, Fig. 5", 10, "Guidance with control in the conditional branch.", probe_guided,
             ("predictor makes a branch, guide joins two.", "The unconditional branch is the base alone, with the empty prompt."), (
        Wrong(guided_with((False, True), (True, True)), "control is in both branches: with an empty prompt they agree, and guidance changes nothing"),
        Wrong(guided_with((False, True), (True, False)), "control is in the unconditional branch alone: guidance pushes away from it"),
        Wrong(guided_with((True, True), (False, False)), "the branches are swapped: guidance pushes away from prompt and control"),
        Wrong(guided_with((True, True), (True, True)), "guidance is left out: the prompt's branch alone"),
        Wrong(guided_with((True, False), (True, True)), "the unconditional branch has the prompt: guidance would strengthen control and not the words"),
        Wrong(guided_with((False, False), (True, True), 1), "only the first ControlNet is used: pass all of them on"))),
    Exercise("07a", "controlnet.compose", "Sec. 3.4, Fig. 6", 5, "Several ControlNets at once.", probe_compose,
             ("Add map by map; any number of ControlNets.", "zip(*several) gives the first maps of all, then the second ones."), (
        Wrong(lambda *several: tuple(sum(maps) / len(maps) for maps in zip(*several)), "that is the mean: each condition would lose strength; the paper adds"),
        Wrong(lambda *several: tuple(torch.cat(maps, 1) for maps in zip(*several)), "added, not concatenated: the base's maps keep their channels"),
        Wrong(lambda *several: several[-1], "the last ControlNet wins and the others are lost"),
        Wrong(lambda *several: sum(several, ()), "+ puts tuples one behind the other: add map by map"),
        Wrong(lambda *several: tuple(torch.stack(maps).amax(0) for maps in zip(*several)), "that is the maximum: the paper adds"))),
    Exercise("07b", "metrics.mask_iou", "Sec. 4.2, Tab. 2", 5, "How well does a shape fill its outline?", probe_iou,
             ("Cut both masks at one half, then count pixels for each picture.", "Two empty masks have no union: do not divide by 0."), (
        Wrong(lambda a, b: ((a > 0.5) & (b > 0.5)).sum((1, 2, 3)) / (b > 0.5).sum((1, 2, 3)).clamp(min=1),
              "that is recall: a mask that fills the whole picture would score 1"),
        Wrong(lambda a, b: torch.minimum(a, b).sum((1, 2, 3)) / torch.maximum(a, b).sum((1, 2, 3)).clamp(min=1), "the masks must be cut at one half first"),
        Wrong(lambda a, b: 2 * ((a > 0.5) & (b > 0.5)).sum((1, 2, 3)) / ((a > 0.5).sum((1, 2, 3)) + (b > 0.5).sum((1, 2, 3))).clamp(min=1),
              "that is the Dice score: IoU divides by the union"),
        Wrong(lambda a, b: ((a > 0.5) == (b > 0.5)).double().mean((1, 2, 3)), "that is accuracy: ground that both leave empty counts, too"),
        Wrong(lambda a, b: ((a > 0.5) & (b > 0.5)).sum((1, 2, 3)) / ((a > 0.5).sum((1, 2, 3)) + (b > 0.5).sum((1, 2, 3))).clamp(min=1),
              "the overlap is counted twice below the line: the union is a | b"),
        Wrong(lambda a, b: ((a > 0.5) & (b > 0.5)).sum((1, 2, 3)) / ((a > 0.5) | (b > 0.5)).sum((1, 2, 3)), "0 / 0: two empty masks have no union"),
        Wrong(lambda a, b: torch.where((a + b).flatten(1).any(1), metrics.mask_iou(a, b), 1.0), "by our convention two empty masks score 0: drawing nothing earns nothing"))),
]


def blocked(module: nn.Module) -> nn.Module:
    """Locked, and detached as well."""
    forward = module.eval().requires_grad_(False).forward
    module.forward = torch.no_grad()(forward)
    return module
