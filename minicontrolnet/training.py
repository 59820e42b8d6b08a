"""One loop trains the base and every ControlNet, and goes on where it was stopped."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from .conditions import condition_of
from .controlnet import ControlNet
from .diffusion import TIMESTEPS, noise_loss
from .files import Problem, load_file, save_file
from .parallel import agreed, first_does, in_any_process, mean_over_processes, own_part, rank
from .shapes import EMPTY, Batch, random_batch
from .unet import UNet

BATCH_SIZE = 16
Loss = Callable[[nn.Module, torch.Generator], Tensor]  # a network, randomness -> a scalar
NextBatch = Callable[[torch.Generator], Batch]


# %% What is learned: Eq. 5, for the base and for a ControlNet


def drop_words(prompt: Tensor, generator: torch.Generator, whole: float, each: float) -> Tensor:
    """Replace words of prompts (n, 3) by EMPTY, the token of a missing word.

    With probability ``whole`` a prompt loses all its words; every word of the others is lost
    with probability ``each``.
    """
    n = len(prompt)
    keep = torch.rand(n, 1, generator=generator) >= whole
    keep = keep & (torch.rand(n, 3, generator=generator) >= each)
    return torch.where(keep, prompt, EMPTY)


def random_times_and_noise(x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Times t (n,) and noise eps, shaped like x0 (n, c, h, w).

    [0, TIMESTEPS) is cut into n equal parts, and one time is drawn from each: over many batches
    that is uniform, and a single batch holds early and late times alike.
    """
    n = len(x0)
    t = (torch.arange(n) + torch.rand(n, generator=generator)) * TIMESTEPS / n
    t = t.long().clamp(max=TIMESTEPS - 1)  # float32 may round n - 1 + 0.99999998 up to n
    return t, torch.randn(x0.shape, generator=generator)


def fresh_batch(generator: torch.Generator) -> Batch:
    """A batch that no training saw before; lessons 09 and 10 train on other pictures."""
    return random_batch(BATCH_SIZE, generator)


def base_loss(unet: UNet, generator: torch.Generator, next_batch: NextBatch = fresh_batch,
              weighted_as: str | None = None) -> Tensor:
    """Eq. 5 for the base. Words are dropped singly too, so that "star" alone is known.

    ``weighted_as``: whose loss_weight; by default that of what the network puts out.
    """
    batch = next_batch(generator)
    prompt = drop_words(batch.prompt, generator, whole=0.1, each=0.03)
    t, eps = random_times_and_noise(batch.x0, generator)
    x0, t, eps, prompt = own_part(unet, batch.x0, t, eps, prompt)
    return noise_loss(lambda xt, t: unet(xt, t, prompt), x0, t, eps, weighted_as or unet.prediction_type)


def condition_loss(model: Callable[..., Tensor], unet: nn.Module, kind: str, generator: torch.Generator,
                   drop: float = 0.5, next_batch: NextBatch = fresh_batch) -> Tensor:
    """Eq. 5 for a model(xt, t, prompt, condition) -> eps; ``unet`` tells the device and what is predicted."""
    batch = next_batch(generator)
    condition = condition_of(kind, batch, generator)
    prompt = drop_words(batch.prompt, generator, whole=drop, each=0.0)
    t, eps = random_times_and_noise(batch.x0, generator)
    x0, t, eps, prompt, c = own_part(unet, batch.x0, t, eps, prompt, condition)
    return noise_loss(lambda xt, t: model(xt, t, prompt, c), x0, t, eps, unet.prediction_type)


def control_loss(base: UNet, kind: str, drop: float = 0.5, next_batch: NextBatch = fresh_batch) -> Loss:
    """Eq. 5 through the locked base. Half of the prompts are empty (Sec. 3.3)."""

    def loss(control: ControlNet, generator: torch.Generator) -> Tensor:
        model = lambda xt, t, prompt, condition: base(xt, t, prompt, control(xt, t, prompt, condition))
        return condition_loss(model, base, kind, generator, drop, next_batch)

    return loss


# %% The loop


def train(network: nn.Module, loss: Loss, steps: int, *, lr: float, seed: int = 0,
          path: Path | None = None, resume: bool = False, run: dict[str, Any] | None = None,
          stop_at: int | None = None, on_step: Callable[[int, float, nn.Module], None] | None = None,
          progress: str | None = None) -> nn.Module:
    """Train ``network`` for ``steps`` steps and return the moving average of its weights.

    loss: called with the network and a generator, returns a scalar to be lowered.
    lr: AdamW's rate, see learning_rate.
    path, resume: where all that is needed to go on is saved every 500 steps, and whether to
        go on from there. A run that was stopped and resumed equals one without a break.
    run: what else tells this run from others, such as its base; all of it must agree to resume.
    on_step: called after each step with its number, its loss and the averaged network.
    Raises Problem if the loss or its gradient is not finite. Ctrl-C or ``kill`` finishes the step
    in hand, saves, and raises KeyboardInterrupt.
    """
    generator, optimiser = torch.Generator().manual_seed(seed), adamw(network, lr)
    average = AveragedModel(network, multi_avg_fn=moving_average)
    state = State(network, average, optimiser, generator, path,
                  {"steps": steps, "seed": seed, "learning rate": lr, "batch": BATCH_SIZE, **(run or {})})
    first, end = state.load() if resume else 0, steps if stop_at is None else min(stop_at, steps)
    bar = tqdm(range(first, end), progress, steps, initial=first, disable=progress is None or rank() > 0,
               mininterval=1 if os.isatty(2) else 15)
    with finish_step_on_ctrl_c() as asked_to_stop, bar:
        for step in bar:
            for group in optimiser.param_groups:
                group["lr"] = lr * learning_rate(step, steps)
            value, norm = find_gradients(network, loss, generator)
            _check_finite(value, norm, step, path if resume or step >= 500 else None)
            optimiser.step()
            average.update_parameters(network)
            if on_step:
                on_step(step + 1, value.item(), average.module)
            stop = in_any_process(bool(asked_to_stop))  # Ctrl-C from here on waits for the next step
            if path and (stop or step + 1 == end or (step + 1) % 500 == 0):
                state.save(step + 1)
            if stop:
                raise agreed(KeyboardInterrupt(f"stopped after step {step + 1} of {steps}"))
    return average.module.eval()


def find_gradients(network: nn.Module, loss: Loss, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Leave in the network the gradients of a new batch, clipped; returns the loss and their norm before."""
    network.zero_grad()
    value = loss(network, generator)
    value.backward()
    value = mean_over_processes(value, network)
    return value, nn.utils.clip_grad_norm_(network.parameters(), 1.0)


def adamw(network: nn.Module, lr: float) -> torch.optim.AdamW:
    """The optimiser of every training; one fused kernel where the device has it."""
    return torch.optim.AdamW(network.parameters(), lr=lr, fused=next(network.parameters()).device.type != "mps")


def learning_rate(step: int, steps: int) -> float:
    """The share of the full rate at a step: a warm-up of 50 steps, and a cosine down to 0.

    A run of less than 500 steps warms up during its first tenth.
    """
    warm_up = min(50, steps / 10)
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return min(1, (step + 1) / warm_up) * cosine


def moving_average(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
    """Exponential moving average over 100 steps, over fewer at first so that a short run counts."""
    decay = min(0.99, float((1 + count) / (10 + count)))
    get_ema_multi_avg_fn(decay)(averaged, current, count)


def _check_finite(loss: Tensor, norm: Tensor, step: int, path: Path | None) -> None:
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        kept = f"the last good state is in {path}" if path else "nothing was saved yet"
        raise agreed(Problem(f"the loss is {loss.item()} and its gradient's norm {norm.item()} at step"
                             f" {step + 1}, so training stopped; {kept}; try another seed"))


@contextmanager
def finish_step_on_ctrl_c() -> Iterator[list[int]]:
    """Yield a list that the first Ctrl-C or ``kill`` fills; the second one interrupts as usual."""
    asked: list[int] = []
    before: dict[int, Any] = {}

    def as_usual() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        as_usual()

    with suppress(ValueError):  # not the main thread, as in some notebooks: Ctrl-C stays as it is
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    try:
        yield asked
    finally:
        as_usual()


# %% Files


class State:
    """All that a run consists of, on its way to and from the file at ``path``."""

    def __init__(self, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer,
                 generator: torch.Generator, path: Path | None, run: dict[str, Any]):
        self.network, self.average, self.optimiser = network, average, optimiser
        self.generator, self.path, self.run = generator, path, run
        self.begun, self.stamp = time.perf_counter(), self._stamp()

    def _stamp(self) -> int | None:
        """Another number each time that the file is replaced."""
        return self.path.stat().st_mtime_ns if self.path and self.path.exists() else None

    def content(self, step: int) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "average": self.average.state_dict(),
                "moments": self.optimiser.state_dict()["state"], "generator": self.generator.get_state(),
                "step": step, "seconds": time.perf_counter() - self.begun, "run": self.run}

    def save(self, step: int) -> None:
        first_does(lambda: self._write(step))

    def _write(self, step: int) -> None:
        if self._stamp() != self.stamp:
            raise Problem(f"another training writes to {self.path}, so this one stopped; its state is left"
                          " alone; give each training an --out of its own")
        save_file(self.content(step), self.path)
        self.stamp = self._stamp()

    def load(self) -> int:
        """Take up the state in the file; returns how many steps were done."""
        found = first_does(self._read)
        self.generator.set_state(found["generator"])
        self.network.load_state_dict(found["network"])
        self.average.load_state_dict(found["average"])
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": found["moments"], "param_groups": groups})
        self.begun -= found["seconds"]
        return found["step"]

    def _read(self) -> dict[str, Any]:
        """The file's content, if it belongs to this run; else Problem."""
        found, ours = load_file(self.path), self.content(0)
        # AdamW crashes if moments have another shape than their weight. It has none before step 1.
        ours["moments"] = {i: {"step": torch.zeros((), dtype=torch.float32), "exp_avg": weight, "exp_avg_sq": weight}
                           for i, weight in enumerate(self.network.parameters())}
        try:
            if not _alike(found, ours) or not 0 <= found["step"] <= found["run"]["steps"]:
                raise ValueError("other parts, types or shapes")
            torch.Generator().set_state(found["generator"])
        except (RuntimeError, ValueError) as error:
            raise Problem(f"{self.path} is no state of this training, it is damaged or of another network;"
                          " resume with the command that began it") from error
        for name, value in self.run.items():
            if found["run"][name] != value:
                raise Problem(f"{self.path} belongs to a run with {name} {found['run'][name]}, not {value};"
                              " resume with the command that began it, or start anew with another --out")
        return found


def _alike(a: Any, b: Any) -> bool:
    """Whether two nested states agree in names and types, and their tensors in shape and dtype."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    return type(a) is type(b)
