"""Training the base and a ControlNet: the objective (Eq. 5, weighted), and the loop as an iterator."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .conditions import Kind, check_kind, condition_of, roughen
from .controlnet import ControlNet
from .diffusion import TIMESTEPS, noise_loss
from .errors import Problem, check_count, check_function, check_generator, check_number, check_seed, dtype_name
from .shapes import EMPTY, Batch, check_tokens, random_batch
from .unet import UNet

BATCH_SIZE = 16
Loss = Callable[[nn.Module, torch.Generator], Tensor]  # (network, generator) -> a scalar
NextBatch = Callable[[torch.Generator], Batch]
WHOLE = slice(None)


# %% What is learned: Eq. 5 with diffusion.loss_weight, for the base and for a ControlNet


def drop_words(prompt: Tensor, generator: torch.Generator, whole: float, each: float) -> Tensor:
    """Replace words of prompts (n, 3) by EMPTY, the token of a missing word.

    With probability ``whole`` a prompt loses all of its words. Every word of the other prompts is
    lost with probability ``each``.
    """
    check_number("the share of dropped prompts", whole, 0, 1)
    check_number("the share of dropped words", each, 0, 1)
    check_generator(generator)
    check_tokens(prompt)
    n = len(prompt)
    keep = torch.rand(n, 1, generator=generator) >= whole
    keep = keep & (torch.rand(n, 3, generator=generator) >= each)
    return torch.where(keep, prompt, EMPTY)


def random_times_and_noise(x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random times t (n,), and noise eps with the shape of x0 (n, c, h, w).

    We divide [0, TIMESTEPS) into n equal parts and choose one time in each. Over many batches this
    is the uniform distribution, and every single batch has early and late times.
    """
    check_generator(generator)
    n = len(x0)
    t = (torch.arange(n) + torch.rand(n, generator=generator, dtype=torch.float32)) * TIMESTEPS / n
    t = t.long().clamp(max=TIMESTEPS - 1)  # float32 may round n - 1 + 0.99999998 up to n
    return t, torch.randn(x0.shape, generator=generator, dtype=torch.float32)


def fresh_batch(generator: torch.Generator) -> Batch:
    """A batch of new pictures. Lessons 02 and 10 train on other ones."""
    return random_batch(BATCH_SIZE, generator)


def base_loss(unet: UNet, generator: torch.Generator, next_batch: NextBatch = fresh_batch,
              weighted_as: str | None = None, part: slice = WHOLE) -> Tensor:
    """The weighted Eq. 5 for the base. Single words are dropped as well, so that the base also learns "star" alone.

    weighted_as: the prediction type whose loss_weight is used; by default the network's own.
    part: the part of the batch that counts, if several processes share it.
    """
    if not hasattr(unet, "prediction_type"):
        raise Problem(f"the network to be trained is a {type(unet).__name__}; give a UNet, or a network of your own"
                      " that has a prediction_type")
    batch = _checked_batch(next_batch, generator)
    prompt = drop_words(batch.prompt, generator, whole=0.1, each=0.03)
    t, eps = random_times_and_noise(batch.x0, generator)
    x0, t, eps, prompt = moved(unet, part, batch.x0, t, eps, prompt)

    def model(xt: Tensor, t: Tensor) -> Tensor:
        return unet(xt, t, prompt)

    return noise_loss(model, x0, t, eps, weighted_as or unet.prediction_type)


def condition_loss(model: Callable[..., Tensor], unet: nn.Module, kind: Kind, generator: torch.Generator,
                   drop: float = 0.5, next_batch: NextBatch = fresh_batch, part: slice = WHOLE) -> Tensor:
    """The weighted Eq. 5 for a model(xt, t, prompt, condition) -> eps.

    unet: the network inside the model, for its device and its prediction type.
    kind: the condition. Edge maps are roughened, so that drawings are followed as well.
    drop: the share of prompts that are replaced by the empty one (Sec. 3.3: one half).
    """
    batch = _checked_batch(next_batch, generator)
    condition = condition_of(kind, batch)
    if len(condition) != len(batch.x0):
        raise Problem(f"the batch has {len(batch.x0)} pictures x0 and {len(condition)} conditions; give an image and a"
                      " scene for each x0")
    if kind == "edge":
        condition = roughen(condition, generator)
    prompt = drop_words(batch.prompt, generator, whole=drop, each=0.0)
    t, eps = random_times_and_noise(batch.x0, generator)
    x0, t, eps, prompt, condition = moved(unet, part, batch.x0, t, eps, prompt, condition)

    def with_words_and_condition(xt: Tensor, t: Tensor) -> Tensor:
        return model(xt, t, prompt, condition)

    return noise_loss(with_words_and_condition, x0, t, eps, unet.prediction_type)


def _checked_batch(next_batch: NextBatch, generator: torch.Generator) -> Batch:
    """The next batch. Raises Problem unless there is one, with pictures and prompts as networks take them."""
    check_function("next_batch", next_batch, "fresh_batch")
    try:
        batch = next_batch(generator)
    except StopIteration:
        raise Problem("next_batch has no more batches; let it begin again, for example by itertools.cycle") from None
    if not isinstance(batch, Batch):
        raise Problem(f"next_batch returned a {type(batch).__name__}; let it return a Batch, as random_batch does")
    check_tokens(batch.prompt)
    if not len(batch.x0) == len(batch.prompt) > 0:
        raise Problem(f"the batch has {len(batch.x0)} pictures x0 and {len(batch.prompt)} prompts; give as many"
                      " of both")
    low, high = batch.x0.aminmax()
    if max(-low, high) > 2:
        raise Problem(f"x0 of the batch goes from {low.item():.4g} to {high.item():.4g}; give pictures in [-1, 1], such"
                      " as image * 2 - 1 for an image in [0, 1]")
    image = batch.image
    if low >= 0 and image is not None and torch.equal(batch.x0, image):
        warnings.warn("x0 of the batch equals its image in [0, 1]; networks learn from image * 2 - 1", stacklevel=2)
    elif isinstance(image, Tensor) and image.shape == batch.x0.shape and (batch.x0 - image * 2 + 1).abs().max() > 0.5:
        warnings.warn("x0 of the batch shows other pictures than its image, in which edges and palettes are detected;"
                      " change both together", stacklevel=2)
    return batch


def control_loss(base: UNet, kind: Kind, drop: float = 0.5, next_batch: NextBatch = fresh_batch,
                 part: slice = WHOLE) -> Loss:
    """The weighted Eq. 5 for a ControlNet, through the locked base. The arguments are those of condition_loss."""
    check_kind(kind)
    if not hasattr(base, "prediction_type"):
        raise Problem(f"the base is a {type(base).__name__}; give a UNet, such as load_base() returns, and give the"
                      " ControlNet to the loss")

    def loss(control: ControlNet, generator: torch.Generator) -> Tensor:

        def model(xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> Tensor:
            _check_fits(control, condition)
            return base(xt, t, prompt, control(xt, t, prompt, condition))

        return condition_loss(model, base, kind, generator, drop, next_batch, part)

    return loss


def _check_fits(control: nn.Module, condition: Tensor) -> None:
    """Raise Problem unless the ControlNet has the dtype of the base, and takes conditions of so many channels."""
    if isinstance(control, UNet):
        raise Problem("the network to be trained is a UNet; give a ControlNet, such as ControlNet(base)")
    own = next(control.parameters(), condition) if hasattr(control, "parameters") else condition
    if own.dtype != condition.dtype:
        raise Problem(f"the ControlNet is in {dtype_name(own)} and the base in {dtype_name(condition)}; bring both"
                      " together by .to(torch.float32)")
    channels = condition.shape[1]
    wanted = getattr(control, "c_condition", channels)  # your own network need not have this attribute
    if wanted != channels:
        raise Problem(f"the condition has {channels} channels and the ControlNet takes {wanted}; make it by"
                      f" ControlNet(base, {channels}), or give another kind of condition")


def moved(network: nn.Module, part: slice, *tensors: Tensor) -> list[Tensor]:
    """A part of each tensor on the device of the network. Floating point values get the network's dtype."""
    weight = next(network.parameters())
    check_part(part, len(tensors[0]))
    found = []
    for tensor in tensors:
        dtype = weight.dtype if tensor.is_floating_point() else tensor.dtype
        found.append(tensor[part].to(weight.device, dtype))
    return found


def check_part(part: slice, n: int) -> None:
    """Raise Problem unless ``part`` is a slice that leaves some of n pictures."""
    if not isinstance(part, slice) or not range(n)[part]:
        raise Problem(f"the part of a batch of {n} pictures is {part!r}; give a slice that leaves at least one of them,"
                      f" such as slice(0, {n})")


# %% The loop


class Training:
    """Train a network by iterating: ``for step, loss in Training(network, loss, steps, lr=...): ...``.

    After each step it yields the number of steps that are done, and the loss before the step. To
    stop early, leave the loop; to go on, iterate again. ``averaged`` is the network to use afterwards:
    it holds the moving average of the weights. A run that was saved with ``state_dict`` and loaded
    into a new Training goes on as if it had never been interrupted, bit for bit.

    loss: a function of the network and a generator, which returns the scalar to be minimised.
    steps: the length of the whole run, on which the learning rate depends.
    Raises Problem if the loss or its gradient is not finite, and leaves the weights as they were.
    """

    def __init__(self, network: nn.Module, loss: Loss, steps: int, *, lr: float, seed: int = 0):
        _check_training(network, loss, steps, lr)
        check_seed(seed)
        if isinstance(network, ControlNet):
            network.kind = None  # it may now learn another condition than the one that it was loaded for
        self.network = network
        self.loss = loss
        self._steps = steps
        self._lr = float(lr)  # numpy has numbers of its own, and a checkpoint holds plain ones
        self.seed = seed
        self.step = 0  # how many are done
        self.generator = torch.Generator().manual_seed(int(seed))
        self.optimiser = adamw(network, self.lr)
        self.schedule = LambdaLR(self.optimiser, lambda step: learning_rate(step, steps))
        self.average = AveragedModel(network, multi_avg_fn=moving_average)

    @property
    def steps(self) -> int:
        """The length of the whole run. It is fixed, since the learning rate depends on it."""
        return self._steps

    @property
    def lr(self) -> float:
        """The highest learning rate. It is fixed, since the optimiser and its schedule hold it as well."""
        return self._lr

    def __len__(self) -> int:
        """How many steps are left."""
        return self.steps - self.step

    def __iter__(self) -> Iterator[tuple[int, float]]:
        while self.step < self.steps:
            self._check_parameters()
            loss = self._find_gradients()
            self.optimiser.step()
            self.schedule.step()
            self.average.update_parameters(self.network)
            self.step += 1
            yield self.step, loss.item()

    def _find_gradients(self) -> Tensor:
        """The gradients of the next step. After an interruption, such as Ctrl-C, this step begins anew."""
        before = self.generator.get_state()
        try:
            return find_gradients(self.network, self.loss, self.generator)
        except Problem:
            raise  # this batch has a fault, so the next attempt gets another one
        except BaseException:
            self.generator.set_state(before)
            raise

    def _check_parameters(self) -> None:
        """Raise Problem if a part of the network was replaced or added, since the optimiser does not hold it."""
        held = {id(parameter) for group in self.optimiser.param_groups for parameter in group["params"]}
        if {id(parameter) for parameter in self.network.parameters()} != held:
            raise Problem("the network has other parameters than when this Training was made, and its optimiser would"
                          " not move the new ones; make a new Training after every change of the network")

    @property
    def averaged(self) -> nn.Module:
        """The network with the moving average of the weights. It changes as training goes on."""
        return self.average.module.eval()

    def _parts(self) -> dict[str, Any]:
        return {"network": self.network, "average": self.average, "optimiser": self.optimiser,
                "schedule": self.schedule}

    def _run(self) -> dict[str, int | float]:
        """The arguments that a run must share with the one that it goes on from."""
        return {"steps": int(self.steps), "lr": float(self.lr), "seed": int(self.seed)}

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything that is needed to go on: tensors and plain values."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"generator": self.generator.get_state(), "step": self.step}
        state |= self._run()
        return copy.deepcopy(state)  # torch's states share their memory with the training, which goes on

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state. Network, loss, steps, rate and seed must be those of the run that saved the state.

        Raises Problem, and changes nothing, where they differ. The loss cannot be compared.
        """
        self._check_state(state)
        state = copy.deepcopy(state)  # torch's optimiser would go on in the tensors of the caller
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.step = state["step"]

    def _check_state(self, state: dict[str, Any]) -> None:
        wanted = [*self._parts(), "generator", "step"]
        missing = [name for name in wanted if not isinstance(state, dict) or name not in state]
        if missing:
            raise Problem(f"the state lacks {', '.join(missing)}; give what state_dict of a Training returned")
        for name, own in self._run().items():
            saved = state.get(name, own)  # older states do not hold them
            if saved != own:
                raise Problem(f"the state belongs to a run whose {name} is {saved}, not {own}; make the Training with"
                              " the arguments of the run that saved it")
        if state["step"] not in range(self.steps + 1):
            raise Problem(f"the state is that after step {state['step']!r} of {self.steps}; give what state_dict of a"
                          " Training returned")
        if _shapes(state["network"]) != _shapes(self.network.state_dict()):
            raise Problem("the state belongs to another network; make the Training with a network whose weights have"
                          " the same names and shapes")


def _shapes(weights: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(weight, "shape", None) for name, weight in weights.items()}


def _check_training(network: nn.Module, loss: Loss, steps: int, lr: float) -> None:
    if not isinstance(network, nn.Module):
        raise Problem(f"the network is a {type(network).__name__}; give a network, such as ControlNet(base)")
    check_function("the loss", loss, 'control_loss(base, "edge")')
    check_count("steps", steps)
    check_number("the learning rate", lr)
    if not 0 < lr <= 100:
        raise Problem(f"the learning rate is {lr!r}; give a positive number, such as 1e-3")
    half = [p for p in network.parameters() if p.requires_grad and p.dtype in (torch.float16, torch.bfloat16)]
    if half:
        raise Problem(f"the weights are in {dtype_name(half[0])}, in which small updates are rounded away and clean"
                      " pictures give nan; train in float32 by network.float(), and inside torch.autocast to save time")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise Problem("every parameter of the network is locked, so there is nothing to train; unlock it first"
                      " by network.requires_grad_(True)")


def find_gradients(network: nn.Module, loss: Loss, generator: torch.Generator) -> Tensor:
    """Run forward and backward on a new batch and clip the gradients to norm 1. Returns the loss.

    Raises Problem if the loss or a gradient is not finite.
    """
    network.zero_grad()
    value = loss(network, generator)
    if not isinstance(value, Tensor) or value.dim() or not value.requires_grad:
        raise Problem("the loss must be a scalar tensor that depends on the network; return for example the mean of"
                      " the squared error, and train outside of no_grad")
    value.backward()
    if all(parameter.grad is None for parameter in network.parameters()):
        raise Problem("the loss does not depend on the network, so nothing would be learned; compute it with the"
                      " network that it is given")
    norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    if not (value.isfinite() and norm.isfinite()):
        raise Problem(f"the loss is {value.item()} and the norm of its gradient is {norm.item()}, so training"
                      " stopped before this step; try a smaller learning rate or another seed")
    return value


def adamw(network: nn.Module, lr: float) -> torch.optim.AdamW:
    """The optimiser of every training. Where the device has it, one fused kernel does the update."""
    on_mps = next(network.parameters()).device.type == "mps"
    return torch.optim.AdamW(network.parameters(), lr=lr, fused=not on_mps)


def learning_rate(step: int, steps: int) -> float:
    """The share of the full rate at a step: a warm-up of 50 steps, then a cosine down to 0.

    A run of fewer than 500 steps warms up during its first tenth.
    """
    warm_up = min(50, steps / 10)
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return min(1, (step + 1) / warm_up) * cosine


def moving_average(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
    """An exponential moving average over 100 steps.

    At first it spans fewer steps, so that the untrained start soon has no share in it.
    """
    decay = min(0.99, float((1 + count) / (10 + count)))
    get_ema_multi_avg_fn(decay)(averaged, current, count)


# %% New networks

_ONE_AT_A_TIME = RLock()  # building a network may build another one


def seeded(seed: int, build: Callable[..., nn.Module], *args: Any, **options: Any) -> nn.Module:
    """Build a module whose initial weights come from a seed. torch's global generator stays as it is.

    Threads build one after another, since they share that generator.
    """
    check_seed(seed)
    if isinstance(build, nn.Module) or not callable(build):
        raise Problem(f"what to build is a {type(build).__name__}; give the class, such as seeded(0, ControlNet, base)")
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        return build(*args, **options)
