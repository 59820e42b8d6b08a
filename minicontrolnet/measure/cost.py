"""The cost of a training step, with and without ControlNet: time, arithmetic and memory (Sec. 3.2)."""

import copy
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ..conditions import CHANNELS
from ..controlnet import ControlNet, lock
from ..errors import Problem
from ..sampling import Control, sample
from ..training import Loss, adamw, base_loss, control_loss, find_gradients, seeded
from ..unet import UNet

KERNELS = ("conv", "mm", "scaled_dot_product")  # parts of the names of the expensive operations


def one_step(network: nn.Module, loss: Loss) -> Callable[[], None]:
    """A training step as a function without arguments: a new batch, forward, backward, AdamW."""
    generator = torch.Generator().manual_seed(0)
    optimiser = adamw(network, lr=1e-5)

    def step() -> None:
        find_gradients(network, loss, generator)
        optimiser.step()

    return step


def seconds(*functions: Callable[[], object], rounds: int = 15) -> list[list[float]]:
    """Time several functions in turn, so that a busy machine slows all of them. The first three rounds are dropped.

    Returns for each function its seconds in each round.
    """
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds + 3):
        for function, own in zip(functions, times):
            _wait_for_gpu()
            begin = time.perf_counter()
            function()
            _wait_for_gpu()
            own.append(time.perf_counter() - begin)
    return [own[3:] for own in times]


def _wait_for_gpu() -> None:
    """CUDA runs in the background, so a clock is right only after waiting for it."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@torch.inference_mode(False)  # the caller may have switched gradients off
def flops(network: nn.Module, loss: Loss) -> int:
    """The arithmetic of a loss and its backward pass: the number of additions and multiplications."""
    network = copy.deepcopy(network)  # the caller's network gets no gradients
    with FlopCounterMode(display=False) as counter:
        loss(network, torch.Generator().manual_seed(0)).backward()
    return counter.get_total_flops()


@torch.inference_mode(False)  # as above
def memory(network: nn.Module, loss: Loss, *locked: nn.Module) -> int:
    """The bytes of a step: weights, gradients and AdamW's two moments, and what autograd keeps for backward.

    locked: other modules that the loss uses. If their weights ask for gradients, these take
    memory as well, although nobody uses them.
    """
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = loss(network, torch.Generator().manual_seed(0))  # noqa: F841  (keeps the storages alive)
    size = 0
    for module in (network, *locked):
        for p in module.parameters():
            storages.pop(p.untyped_storage().data_ptr(), None)
            copies = 4 if module is network else 1 + p.requires_grad  # weight, gradient, two moments
            size += copies * p.numel() * p.element_size()
    return size + sum(storages.values())


def relative_costs(arms: dict[str, tuple], rounds: int) -> dict[str, list[float]]:
    """Arithmetic, time and memory of a training step of each arm, divided by those of the first arm.

    An arm is a network, its loss, and the locked modules that the loss uses. The networks stay as they are.
    """
    times = seconds(*(one_step(copy.deepcopy(network), loss) for network, loss, *_ in arms.values()), rounds=rounds)
    costs = []
    for (network, loss, *locked), own in zip(arms.values(), times):
        costs.append((flops(network, loss), statistics.median(own), memory(network, loss, *locked)))
    return {name: [a / b for a, b in zip(cost, costs[0])] for name, cost in zip(arms, costs)}


def share_in_kernels(step: Callable[[], None], rounds: int = 5) -> float:
    """The share of a step's time inside convolutions and matrix products."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(rounds):
            step()
    rows = profiled.key_averages()  # this takes longer than the steps
    heavy = [row for row in rows if row.key.startswith("aten::") and any(k in row.key for k in KERNELS)]
    total = sum(row.self_cpu_time_total for row in rows)
    if not total:
        raise Problem("the step computes nothing with torch; give a function that does, such as one_step returns")
    return sum(row.self_cpu_time_total for row in heavy) / total


# %% The speed table


def import_seconds(rounds: int = 5) -> float:
    """The median time to import this package once torch is imported."""
    code = ("from time import perf_counter as now; import torch;"
            " begin = now(); import minicontrolnet; print(now() - begin)")
    place = os.pathsep.join(filter(None, sys.path))  # the package may have been found on a path that was added
    runs = [subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": place}, capture_output=True,
                           text=True) for _ in range(rounds)]
    return statistics.median(float(run.stdout) for run in runs)


SIDE = 1024


def matrix_product(a: Tensor = torch.ones(SIDE, SIDE)) -> Tensor:
    """A matrix product, the fastest operation of a machine. We compare a training step with it."""
    return a @ a


def show_row(name: str, values: list[float], unit: str = "ms", scale: float = 1e3) -> None:
    """Print the median of values, and the range of their middle half."""
    values = list(values) * (2 if len(values) == 1 else 1)  # quantiles need two
    low, middle, high = (scale * q for q in statistics.quantiles(values, n=4))
    print(f"{name:44} {middle:8.2f} {unit}  ({low:.2f} .. {high:.2f})", flush=True)


def show_speed() -> None:
    """Measure everything in one run and print the table."""
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}")
    base = seeded(0, UNet)
    locked = lock(seeded(0, UNet))
    control = ControlNet(locked, CHANNELS["edge"])
    control_objective = control_loss(locked, "edge")
    steps = [one_step(base, base_loss), one_step(control, control_objective)]
    of_base, of_control, of_product = seconds(*steps, matrix_product)
    show_row("base training step, batch 16", of_base)
    show_row("edge ControlNet training step, batch 16", of_control)
    show_row("  ratio (the paper: 1.34)", [c / b for b, c in zip(of_base, of_control)], "", 1)
    show_memory(memory(base, base_loss), memory(control, control_objective, locked))
    speed = 2 * SIDE**3 / statistics.median(of_product)
    show_efficiency("base", flops(base, base_loss), of_base, speed)
    show_efficiency("ControlNet", flops(control, control_objective), of_control, speed)
    shares = [share_in_kernels(step) for step in steps]
    print(f"share of time in convolutions and matrix products: base {shares[0]:.0%}, ControlNet {shares[1]:.0%}")
    noise = torch.randn(16, 3, 64, 64)
    used = [Control(control, torch.zeros(16, 1, 64, 64))]
    times, = seconds(lambda: sample(locked, "red star on blue", noise, used), rounds=5)
    show_row("16 pictures, 25 DDIM steps, guidance, control", times, "s ", 1)
    print(f"import minicontrolnet, beyond torch: {import_seconds():.2f} s")


def show_memory(base: int, control: int) -> None:
    """Print the memory of a step of both networks in megabytes."""
    print(f"memory of a step: base {base / 1e6:.0f} MB, ControlNet {control / 1e6:.0f} MB,"
          f" ratio {control / base:.2f} (the paper: 1.23)")


def show_efficiency(name: str, arithmetic: int, times: list[float], speed: float) -> None:
    """Print the arithmetic of a step, and how fast it runs, as a share of this machine's matrix product."""
    share = arithmetic / statistics.median(times) / speed
    print(f"arithmetic of a step: {name} {arithmetic / 1e9:.1f} GFLOP, at {share:.2f} of the speed of a matrix product"
          f" ({speed / 1e9:.0f} GFLOP/s)")
