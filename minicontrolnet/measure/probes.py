"""The doctor's instruments: one noisy batch, a patient, and its gradients, copies and losses."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..conditions import Kind, condition_of
from ..diffusion import loss_weight, q_sample
from ..errors import Problem, check_number, check_seed, check_tensor
from ..shapes import random_batch
from ..training import WHOLE, moved, random_times_and_noise

PASSES = 4  # backward passes; the last part of a ControlNet gets its first gradient in pass 2
PICTURES = 4  # of the batch, for the backward passes
ENOUGH = 6  # pictures, with which a sign test can be sure of anything

Network = Callable[..., Any]


class NoisyBatch(NamedTuple):
    """The inputs of the base in one training step, and the target of its output."""

    xt: Tensor                     # (n, c, h, w), at least two pictures
    t: Tensor                      # (n,)
    prompt: Any                    # (n, ...), or whatever the base takes
    target: Tensor                 # of the shape of the base's output: eps, v or x0
    weight: Tensor | float = 1.0   # of the squared error; (n, 1, 1, 1)


class Case(NamedTuple):
    """Everything that the doctor knows about a patient."""

    base: Network
    control: Network
    condition: Tensor
    batch: NoisyBatch
    base_module: nn.Module | None
    control_module: nn.Module | None

    @property
    def modules(self) -> list[nn.Module]:
        return [module for module in (self.base_module, self.control_module) if module is not None]


def noisy_batch(base: nn.Module, kind: Kind, n: int = 16, seed: int = 10_000) -> tuple[Tensor, NoisyBatch]:
    """The conditions of n held-out pictures of our toy world, and their noisy batch."""
    check_seed(seed)
    if not hasattr(base, "prediction_type"):
        raise Problem(f"the base is a {type(base).__name__}; give a UNet, such as load_base() returns")
    generator = torch.Generator().manual_seed(int(seed))
    truth = random_batch(n, generator)
    t, eps = random_times_and_noise(truth.x0, generator)
    condition = condition_of(kind, truth)
    x0, t, eps, prompt, condition = moved(base, WHOLE, truth.x0, t, eps, truth.prompt, condition)
    weight = loss_weight(t, eps, base.prediction_type)
    return condition, NoisyBatch(q_sample(x0, t, eps), t, prompt, eps, weight)


def check_case(case: Case) -> None:
    """Raise Problem unless a batch has as many rows everywhere as there are conditions, and modules are used."""
    batch = case.batch
    if not isinstance(batch, NoisyBatch):
        raise Problem(f"the batch is a {type(batch).__name__}; give NoisyBatch(xt, t, prompt, target)")
    rows = {"conditions": case.condition, "noisy pictures": batch.xt, "times": batch.t, "targets": batch.target}
    if isinstance(batch.prompt, Tensor):
        rows["prompts"] = batch.prompt
    if isinstance(batch.weight, Tensor) and batch.weight.dim():
        rows["weights"] = batch.weight
    for name, tensor in rows.items():
        check_tensor(f"the {name}", tensor)
    counts = {name: len(tensor) if tensor.dim() else 1 for name, tensor in rows.items()}
    if len({*counts.values()}) > 1 or len(batch.xt) < 2:
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise Problem(f"there are {listed}; give one of each for at least 2 pictures, better 16")
    if not batch.target.isfinite().all():
        raise Problem("the targets have values that are not finite, so no loss can be compared; give finite ones")
    if not isinstance(batch.weight, Tensor):
        check_number("the weight", batch.weight)
    weight = torch.as_tensor(batch.weight)
    if weight.dim() not in {0, 4} or not ((weight > 0) & weight.isfinite()).all():
        raise Problem(f"the weight has the shape {tuple(weight.shape)} and values from {weight.min().item():.4g} to"
                      f" {weight.max().item():.4g}; give positive finite numbers, one or (n, 1, 1, 1)")
    for name, module in (("base_module", case.base_module), ("control_module", case.control_module)):
        if not isinstance(module, nn.Module | None):
            raise Problem(f"{name} is a {type(module).__name__}; give the network inside the function")
        if module is not None and any(x.is_inference() for x in module.parameters()):
            raise Problem(f"the weights of {name} were made inside torch.inference_mode(), so they can get no gradient;"
                          " load the network outside of it")


def check_modules(case: Case) -> None:
    """Raise Problem if a function does not use the module that was given for it. We fill its weights with nan and look.

    Nothing hides nan, not even a multiplication by 0.
    """
    controls = controls_of(case)

    def output() -> Tensor:
        return output_of(case, controls)

    def all_controls() -> tuple[Tensor, ...]:
        return controls_of(case)

    for name, function, module, run in (("base", case.base, case.base_module, output),
                                        ("control", case.control, case.control_module, all_controls)):
        if module is None or module is function or not [*module.parameters()]:
            continue
        with borrowed([module]), torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(math.nan)
            try:
                unused = not_finite(run()) == 0
            except Exception:  # a patient may refuse nan
                unused = False
        if unused:
            raise Problem(f"{name} does not use {name}_module: with other weights in it nothing changes; give the"
                          " network that the function calls")


def conditions_differ(case: Case) -> bool:
    return not torch.equal(case.condition, swapped(case.condition))


def usual(tensor: Any) -> Any:
    """A copy of a tensor that was made inside torch.inference_mode(); autograd cannot keep the original."""
    return tensor.clone() if isinstance(tensor, Tensor) and tensor.is_inference() else tensor


# %% Outputs and losses


@contextmanager
def borrowed(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Work on modules in eval mode. Afterwards every weight, gradient and flag is as it was before."""
    tensors = [x for module in modules for x in (*module.parameters(), *module.buffers())]
    before = [(x, x.detach().clone(), x.requires_grad, x.grad) for x in tensors]
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    for x in tensors:
        x.grad = None
    try:
        yield
    finally:
        for x, value, asks, grad in before:
            x.data.copy_(value)
            x.requires_grad_(asks)
            x.grad = grad
        for part, mode in modes:
            part.training = mode


def swapped(value: Any) -> Any:
    """Give every condition or prompt to the next picture, so that none stays in its place."""
    return value.roll(1, 0) if isinstance(value, Tensor) else [value[-1], *value[:-1]]


def first(batch: NoisyBatch, n: int) -> NoisyBatch:
    """The first n pictures of a batch."""
    several = len(batch.xt)

    def part(value: Any) -> Any:
        return value[:n] if hasattr(value, "__len__") and len(value) == several else value

    return NoisyBatch(*(part(value) if not isinstance(value, Tensor) or value.dim() else value for value in batch))


@torch.no_grad()
def controls_of(case: Case, condition: Tensor | None = None, prompt: Any = None) -> tuple[Tensor, ...]:
    """The controls for the case's condition and prompt, or for others."""
    condition = case.condition if condition is None else condition
    prompt = case.batch.prompt if prompt is None else prompt
    return tuple(case.control(case.batch.xt, case.batch.t, prompt, condition))


@torch.no_grad()
def output_of(case: Case, controls: Sequence[Tensor] | None, prompt: Any = None) -> Tensor:
    """The base's output for the case's noisy batch with these controls."""
    prompt = case.batch.prompt if prompt is None else prompt
    return case.base(case.batch.xt, case.batch.t, prompt, controls)


def loss_of(case: Case, output: Tensor) -> Tensor:
    """The loss (n,) of each picture."""
    return (case.batch.weight * (case.batch.target - output) ** 2).flatten(1).mean(1)


def losses(case: Case, controls: Sequence[Tensor]) -> Tensor:
    """The loss (n,) of each picture with these controls."""
    return loss_of(case, output_of(case, controls))


class Evidence(NamedTuple):
    """Controls, outputs and losses that several questions need. We compute them once."""

    controls: tuple[Tensor, ...]   # with each picture's own condition
    others: tuple[Tensor, ...]     # with another picture's condition
    output: Tensor                 # the base's output with these controls,
    output_others: Tensor          # with those of another picture's condition,
    output_off: Tensor             # and with controls of 0
    own: Tensor                    # the losses (n,) that belong to these outputs
    other: Tensor
    none: Tensor


def evidence_of(case: Case) -> Evidence:
    controls = controls_of(case)
    others = controls_of(case, swapped(case.condition))
    outputs = [output_of(case, given) for given in (controls, others, zeros(controls))]
    return Evidence(controls, others, *outputs, *(loss_of(case, output) for output in outputs))


def zeros(controls: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(torch.zeros_like(control) for control in controls)


def change(case: Case, a: Tensor, b: Tensor) -> float:
    """How far two outputs are apart: the root of the mean square, weighted as in the loss."""
    return (case.batch.weight * (a - b) ** 2).double().mean().sqrt().item()


def times_as_large(a: Tensor, b: Tensor) -> float:
    """How many times as large the losses a (n,) are as b (n,): the geometric mean over pictures."""
    logs = a.double().clamp(min=1e-30).log() - b.double().clamp(min=1e-30).log()
    return logs.mean().exp().item()


def surely_larger(a: Tensor, b: Tensor) -> bool:
    """Whether the losses a (n,) are larger than b (n,) on more pictures than chance allows.

    This is the sign test, at 2.5 %: for 16 pictures it takes 13. It minds no outliers, and losses
    of early and late times differ by far.
    """
    n = len(a)
    k = int((a > b).sum())
    return sum(math.comb(n, i) for i in range(k, n + 1)) < 0.025 * 2**n


def best_pairing(case: Case) -> tuple[Tensor, int]:
    """The smallest loss (n,) of each picture over all conditions of the batch, and how many prefer another's."""
    n = len(case.condition)
    paired = torch.stack([losses(case, controls_of(case, case.condition.roll(k, 0))) for k in range(n)])
    best = paired.min(0).values
    return best, int((paired[0] > best).sum())


def stretched(condition: Tensor, low: float, high: float) -> Tensor:
    """The condition, brought linearly from its own range to another one; if low > high it is inverted."""
    least, most = condition.min(), condition.max()
    return low + (high - low) * (condition - least) / (most - least).clamp(min=1e-12)


def not_finite(tensors: Sequence[Any]) -> int:
    """How many numbers are NaN or infinite."""
    return sum(int((~x.isfinite()).sum()) for x in tensors if isinstance(x, Tensor))


def have_default_weights(layers: Sequence[nn.Module]) -> bool:
    """Whether the layers' weights look as PyTorch makes them: even between two bounds that a layer's size gives."""
    weights = [layer.weight.detach() for layer in layers if getattr(layer, "weight", None) is not None]
    if not weights:
        return False
    scaled = torch.cat([(weight.abs() * weight[0].numel() ** 0.5).flatten().double() for weight in weights])
    return 0.95 < scaled.max().item() < 1.05 and 0.45 < scaled.mean().item() < 0.55


def difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The largest absolute difference of two lists of maps."""
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


def count(parameters: Sequence[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def all_tensors(values: Sequence[Any]) -> bool:
    return all(isinstance(value, Tensor) for value in values)


def is_untrained(controls: Sequence[Tensor]) -> bool:
    return not any(control.any() for control in controls)


# %% Layers, gradients and copies


def output_layers(case: Case) -> list[nn.Module | None]:
    """The layer that made each control; None where none did.

    We know it by the memory of its output. Some libraries multiply the controls by a strength of 1,
    which moves them to other memory. There we look for equal values, from the last layer backwards.
    """
    made = []  # holds on to the outputs, so that no memory is used twice

    def remember(layer: nn.Module, inputs: Any, output: Any) -> None:
        made.append((layer, output))

    layers = [m for m in case.control_module.modules() if not [*m.children()] and [*m.parameters()]]
    hooks = [layer.register_forward_hook(remember) for layer in layers]
    try:
        controls = controls_of(case)
    finally:
        for hook in hooks:
            hook.remove()
    made = [(layer, output) for layer, output in made if isinstance(output, Tensor)]
    places = {output.data_ptr(): layer for layer, output in made}
    found = [places.get(control.data_ptr()) for control in controls]
    rest = [(layer, output) for layer, output in made if layer not in found]
    for i in reversed(range(len(found))):
        equal = [pair for pair in rest if found[i] is None and torch.equal(pair[1], controls[i])]
        if equal:
            found[i] = equal[-1][0]
            rest.remove(equal[-1])
    return found


def first_gradients(case: Case) -> dict[str, int | None] | str:
    """For each tensor that asks, the first pass in which its gradient is not 0; without a graph, who cut it."""
    named = {name: p for name, p in case.control_module.named_parameters() if p.requires_grad}
    batch = first(case.batch, PICTURES)
    condition = case.condition[:PICTURES]
    optimiser = torch.optim.Adam(named.values(), lr=1e-3)
    woken: dict[str, int | None] = dict.fromkeys(named)
    for step in range(PASSES):
        controls = case.control(batch.xt, batch.t, batch.prompt, condition)
        error = batch.target - case.base(batch.xt, batch.t, batch.prompt, controls)
        loss = (batch.weight * error**2).mean()
        if not loss.requires_grad:
            return "base" if any(control.requires_grad for control in controls) else "ControlNet"
        optimiser.zero_grad()
        loss.backward()
        for name, parameter in named.items():
            if woken[name] is None and parameter.grad is not None and parameter.grad.any():
                woken[name] = step
        if None not in woken.values():
            break
        optimiser.step()
    return woken


def copies(control: nn.Module, base: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Pairs of a weight of the copy and the weight of the base that it began as.

    A part of the ControlNet is a copy if a part of the base has weights of the same names and
    shapes. A single layer must also have the same name, since many layers have the same shape.
    """
    there_shapes = _shapes_of_parts(base)
    here_shapes = _shapes_of_parts(control)
    there = [(name.split(".")[-1], part, there_shapes[name]) for name, part in base.named_modules()]

    def search(path: str, part: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
        own = here_shapes[path]
        name = path.split(".")[-1]
        same = [(other, theirs) for other, theirs, shapes in there if own and shapes == own]
        named = [theirs for other, theirs in same if other == name and not name.isdigit()]
        found = named or [theirs for _, theirs in same if len(own) > 2]
        if found:
            return [(part, found[0])]
        return [pair for name, child in part.named_children() for pair in search(f"{path}.{name}".strip("."), child)]

    pairs = search("", control)
    return [weights for own, theirs in pairs for weights in zip(own.parameters(), theirs.parameters())]


def _shapes_of_parts(module: nn.Module) -> dict[str, dict[str, torch.Size]]:
    """The names and shapes of the weights of each part of a network, by the part's path."""
    parts: dict[str, dict[str, torch.Size]] = {path: {} for path, _ in module.named_modules(remove_duplicate=False)}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        words = name.split(".")
        for i in range(len(words)):
            parts[".".join(words[:i])][".".join(words[i:])] = parameter.shape
    return parts
