"""Several processes that train one network together; torchrun starts them.

Each draws the whole batch from the same generator and takes its own part; gradients are averaged
before every step. With one process all this does nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .files import Problem


def rank() -> int:
    """The number of this process: 0 is the first, which alone reads, writes and prints."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, if it did; on CUDA each has a GPU of its own."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    if device.type == "cuda":
        if int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
            raise Problem(f"torchrun started more processes than there are GPUs, {torch.cuda.device_count()};"
                          " give --nproc-per-node that number, or --device cpu")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    yield
    dist.destroy_process_group()


def own_part(module: nn.Module, *batch: Tensor) -> list[Tensor]:
    """This process's equal part of a batch, moved to where a module's parameters are."""
    n, k, device = len(batch[0]), processes(), next(module.parameters()).device
    if n % k:
        raise agreed(Problem(f"a batch of {n} pictures cannot be divided equally among {k} processes;"
                             " give --batch a multiple of their number"))
    return [tensor.chunk(k)[rank()].to(device) for tensor in batch]


def mean_over_processes(loss: Tensor, network: nn.Module) -> Tensor:
    """Replace each process's gradients by their mean; returns the mean loss.

    Parts are equal, so these are the whole batch's.
    """
    if processes() == 1:
        return loss
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    message = torch.cat([part.flatten() for part in (*gradients, loss.detach())])
    dist.all_reduce(message)  # one message is faster than one for each of 200 tensors
    *means, loss = (message / processes()).split([part.numel() for part in (*gradients, loss)])
    for gradient, mean in zip(gradients, means):
        gradient.copy_(mean.view_as(gradient))
    return loss.squeeze()


def in_any_process(event: bool) -> bool:
    """Whether an event happened in one process at least: all must stop after the same step."""
    if processes() > 1:
        count = torch.tensor(int(event))
        dist.all_reduce(count)
        return bool(count)
    return event


def first_does(work: Callable[[], Any]) -> Any:
    """Let the first process alone do ``work``; all return its result, or end with its Problem.

    So no process waits for one that has left because a file could not be read or written.
    """
    done = [None, None]
    if rank() == 0:
        try:
            done[0] = work()
        except Problem as problem:
            done[1] = problem
    if processes() > 1:
        dist.broadcast_object_list(done)
    if done[1]:
        raise agreed(done[1])
    return done[0]


def agreed(error: BaseException) -> BaseException:
    """What to raise if all processes have the same error: the first one tells it, the others end."""
    return error if rank() == 0 else SystemExit(1)
