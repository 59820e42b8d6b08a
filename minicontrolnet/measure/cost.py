"""The speed table: what a training step costs here, with and without ControlNet (Sec. 3.2)."""

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
from ..sampling import Control, sample
from ..training import Loss, adamw, base_loss, control_loss, seeded
from ..unet import UNet

KERNELS = ("conv", "mm", "scaled_dot_product")  # what the names of the heavy operations contain


def one_step(network: nn.Module, loss: Loss) -> Callable[[], None]:
    """A training step as a function without arguments: draw, loss, backward, AdamW."""
    generator = torch.Generator().manual_seed(0)
    optimiser = adamw(network, lr=1e-5)

    def step() -> None:
        optimiser.zero_grad()
        loss(network, generator).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()

    return step


def seconds(*functions: Callable[[], None], rounds: int = 15) -> list[list[float]]:
    """Time functions in turn, so that a noisy machine treats them alike; drops three warm-ups."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds + 3):
        for function, own in zip(functions, times):
            begin = time.perf_counter()
            function()
            own.append(time.perf_counter() - begin)
    return [own[3:] for own in times]


def flops(network: nn.Module, loss: Loss) -> int:
    """The arithmetic of a loss and its backward pass: additions and multiplications, counted."""
    with FlopCounterMode(display=False) as counter:
        loss(network, torch.Generator().manual_seed(0)).backward()
    return counter.get_total_flops()


def memory(network: nn.Module, loss: Loss, *locked: nn.Module) -> int:
    """Bytes of a step: the weights, the trained ones' gradients and AdamW's two moments, the graph.

    The graph is what autograd keeps for the backward pass, each storage once. A module in
    ``locked`` whose weights do ask for gradients has gradients, too: thrown away.
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
            copies = 4 if module is network else 1 + p.requires_grad  # weight, gradient, moments
            size += copies * p.numel() * p.element_size()
    return size + sum(storages.values())


def relative_costs(arms: dict[str, tuple], rounds: int) -> dict[str, list[float]]:
    """Arithmetic, time and memory of a training step of each arm, over those of the first.

    An arm is a network, its loss, and the modules that the loss uses beside it.
    """
    times = seconds(*(one_step(network, loss) for network, loss, *_ in arms.values()), rounds=rounds)
    costs = [(flops(*arm[:2]), statistics.median(own), memory(*arm)) for arm, own in zip(arms.values(), times)]
    return {name: [a / b for a, b in zip(cost, costs[0])] for name, cost in zip(arms, costs)}


def share_in_kernels(step: Callable[[], None], rounds: int = 5) -> float:
    """The share of a step's time inside convolutions and matrix products."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(rounds):
            step()
    rows = profiled.key_averages()  # takes longer than the steps
    heavy = [row for row in rows if row.key.startswith("aten::") and any(k in row.key for k in KERNELS)]
    return sum(row.self_cpu_time_total for row in heavy) / sum(row.self_cpu_time_total for row in rows)


def import_seconds() -> float:
    """The median time of importing this package once torch and torchvision are there."""
    code = ("from time import perf_counter as now; import torch, torchvision;"
            " begin = now(); import minicontrolnet; print(now() - begin)")
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(5)]
    return statistics.median(float(run.stdout) for run in runs)


def show_speed() -> None:
    """Measure all in one run and print medians with the middle half's range."""
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}")

    def row(name: str, values: list[float], unit: str = "ms", scale: float = 1e3) -> None:
        low, middle, high = (scale * q for q in statistics.quantiles(values, n=4))
        print(f"{name:44} {middle:8.2f} {unit}  ({low:.2f} .. {high:.2f})", flush=True)

    base, locked = seeded(0, UNet), lock(seeded(0, UNet))
    control = ControlNet(locked, CHANNELS["edge"])
    arms = (base, base_loss), (control, control_loss(locked, "edge"), locked)
    steps = [one_step(*arm[:2]) for arm in arms]
    times = seconds(*steps)
    row("base training step, batch 16", times[0])
    row("edge ControlNet training step, batch 16", times[1])
    row("  ratio (the paper: 1.34)", [c / b for b, c in zip(*times)], "", 1)
    sizes = [memory(*arm) / 1e6 for arm in arms]
    print(f"memory of a step: base {sizes[0]:.0f} MB, ControlNet {sizes[1]:.0f} MB,"
          f" ratio {sizes[1] / sizes[0]:.2f} (the paper: 1.23)")
    print("share of time in convolutions and matrix products: base {:.0%}, ControlNet {:.0%}".format(
        *map(share_in_kernels, steps)))
    noise, edges = torch.randn(16, 3, 64, 64), torch.zeros(16, 1, 64, 64)
    draw = lambda: sample(locked, "red star on blue", noise, [Control(control, edges)])
    row("16 pictures, 25 DDIM steps, guidance, control", seconds(draw, rounds=5)[0], "s ", 1)
    print(f"import minicontrolnet, beyond torch and torchvision: {import_seconds():.2f} s")
