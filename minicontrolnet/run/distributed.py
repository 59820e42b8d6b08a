"""Several processes that train one network, by torch's own DistributedDataParallel. torchrun starts them.

Every process makes the whole batch from the same generator and computes its own part of it.
DistributedDataParallel averages the gradients before each step. The parts are equal, so the
average is the gradient of the whole batch, and the run equals that of one process, up to the order of the sums.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import Problem
from ..training import WHOLE, Loss


def rank() -> int:
    """The number of this process. Process 0 alone reads, writes and prints."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, if it did. On CUDA each process uses a GPU of its own."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    if device.type == "cuda":
        if int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
            raise Problem(f"torchrun started more processes than there are GPUs ({torch.cuda.device_count()});"
                          " give --nproc-per-node that number, or --device cpu")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    yield
    dist.destroy_process_group()


def own_part(batch: int) -> slice:
    """The part of a batch that this process computes. Raises Problem if the batch cannot be divided equally."""
    k = processes()
    if k == 1:
        return WHOLE
    if batch % k:
        raise on_every_rank(Problem(f"a batch of {batch} pictures cannot be divided equally among {k} processes;"
                                    " give --batch a multiple of their number"))
    return slice(rank() * batch // k, (rank() + 1) * batch // k)


def shared(loss: Loss, network: nn.Module) -> Loss:
    """The loss, computed through DistributedDataParallel, so that backward averages the gradients.

    ``network`` stays the module whose parameters are trained. With one process nothing changes.
    """
    if processes() == 1:
        return loss
    parallel = DistributedDataParallel(network)
    parallel.prediction_type = getattr(network, "prediction_type", None)  # base_loss reads it

    def shared_loss(network: nn.Module, generator: torch.Generator) -> Tensor:
        return loss(parallel, generator)

    return shared_loss


def any_rank(event: bool) -> bool:
    """Whether an event happened in at least one process: all have to stop after the same step."""
    if processes() == 1:
        return event
    count = torch.tensor(int(event))
    dist.all_reduce(count)
    return bool(count)


def rank_zero(work: Callable[..., Any], *args: Any) -> Any:
    """Let process 0 alone do ``work(*args)``. All return its result, or all end with its Problem.

    So no process waits for another one that has ended because it could not read or write a file.
    """
    done: list[Any] = [None, None]
    if rank() == 0:
        try:
            done[0] = work(*args)
        except Problem as problem:
            done[1] = problem
    if processes() > 1:
        dist.broadcast_object_list(done)
    if done[1]:
        raise on_every_rank(done[1])
    return done[0]


def on_every_rank(error: BaseException) -> BaseException:
    """The exception for an error that every process has: process 0 reports it, and the others only end."""
    return error if rank() == 0 else SystemExit(1)
