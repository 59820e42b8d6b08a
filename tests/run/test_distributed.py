"""Several processes train as one: the same weights, and all stop together, whoever has a reason."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from conftest import fill_zeros
from minicontrolnet import UNet, seeded
from minicontrolnet.controlnet import ControlNet, lock
from minicontrolnet.files import load_file
from minicontrolnet.shapes import random_batch
from minicontrolnet.training import base_loss, control_loss, train

ROOT = Path(__file__).parents[1]
KINDS = {"base": None, "edge": 1, "palette": 3, "pose": 1}
pytestmark = pytest.mark.skipif(not dist.is_available() or os.name == "nt", reason="no gloo there")


# %% What one of the processes does


def tiny_base():
    return fill_zeros(seeded(0, UNet, (8, 8, 8, 32), c_emb=16))


def trained(kind, seed=0, **options):
    """Train a tiny network for 3 steps of 16 pictures: the weights, and how many pictures it saw a step."""
    if kind == "base":
        network, loss = tiny_base(), base_loss
    else:
        base = lock(tiny_base())
        network, loss = seeded(seed, ControlNet, base, KINDS[kind]), control_loss(base, kind)
    seen = []

    def note(module, given):
        seen.append(len(given[0]))
        return tuple(x.double() if x.is_floating_point() else x for x in given)  # edge maps are float32

    network.register_forward_pre_hook(note)
    average = train(network, loss, 3, lr=1e-2, **options)
    return {"network": network.state_dict(), "average": average.state_dict()}, seen


def toy(spoil=lambda value, step: value, **options):
    """Train one layer for 4 steps; ``spoil`` may change the loss of one."""
    steps = iter(range(1, 5))

    def loss(network, generator):
        return spoil((network(torch.rand(4, 3, generator=generator)) - 1).square().mean(), next(steps))

    train(seeded(0, nn.Linear, 3, 3), loss, 4, lr=0.1, **options)


def fifteen_pictures():
    train(tiny_base(), partial(base_loss, next_batch=partial(random_batch, 15)), 1, lr=1e-2)


def ending(work, *args, **options):
    """How ``work`` ends: its error's name and what that says."""
    try:
        work(*args, **options)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def one_of_two(rank, folder):
    """All that two processes go through together; it is always the second one that has the trouble."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    second, edge, found = rank == 1, folder / "edge.pt", {}
    press = lambda step, *_: signal.raise_signal(signal.SIGINT) if second and step == 2 else None
    nan = lambda value, step: value * (torch.nan if second and step == 3 else 1)
    leave = lambda value, step: os._exit(3) if second and step == 2 else value
    found["whole"] = {kind: trained(kind) for kind in KINDS}
    trained("edge", path=edge, stop_at=2)
    found["resumed"], _ = trained("edge", seed=1, path=edge, resume=True)
    found["stop"] = ending(toy, path=folder / "run.pt", on_step=press)
    found["nan"] = ending(toy, nan)
    found["save"] = ending(toy, path=folder)
    found["load"] = ending(toy, path=folder / "nowhere.pt", resume=True)
    found["15"] = ending(fifteen_pictures)
    torch.save(found, folder / f"found.{rank}")
    found["alone"] = ending(toy, leave)
    torch.save(found, folder / f"found.{rank}")
    os._exit(0)  # the other one is gone: no good-bye


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, the first one's and the second one's, and where their files are."""
    folder, spawn = tmp_path_factory.mktemp("two"), multiprocessing.get_context("spawn")
    children = [spawn.Process(target=one_of_two, args=(rank, folder)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        child.kill()
    assert [child.exitcode for child in children] == [0, 3], "one of them waited for ever, or failed"
    return *(load_file(folder / f"found.{rank}") for rank in range(2)), folder


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# %% The tests


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one(kind, two, float64):
    """Each sees 8 of 16 pictures; their weights and averages equal each other's, and those of one process
    up to the order of sums."""
    one, seen = trained(kind)
    (first, halves), (second, _) = two[0]["whole"][kind], two[1]["whole"][kind]
    start = tiny_base() if kind == "base" else seeded(0, ControlNet, tiny_base(), KINDS[kind])
    assert seen == [16] * 3 and halves == [8] * 3
    for part, weights in one.items():
        for name, weight in weights.items():
            assert torch.equal(first[part][name], second[part][name]), name
            torch.testing.assert_close(first[part][name], weight, rtol=0, atol=1e-10)
    moved = [not torch.equal(weight, one["network"][name]) for name, weight in start.state_dict().items()]
    assert sum(moved) > 0.9 * len(moved)


def test_a_resumed_run_of_two_processes_equals_one_without_a_break(two):
    """To the last bit, and the second process takes up what the first one read."""
    for found in two[:2]:
        whole, _ = found["whole"]["edge"]
        for part, weights in whole.items():
            assert all(torch.equal(weight, found["resumed"][part][name]) for name, weight in weights.items())


@pytest.mark.parametrize("trouble, said", [
    ("stop", "KeyboardInterrupt: stopped after step 2 of 4"),
    ("nan", "Problem: the loss is nan .* at step 3"),
    ("save", "Problem: cannot write .* it is no plain file"),
    ("load", "Problem: .*nowhere.pt does not exist"),
    ("15", "Problem: a batch of 15 pictures .* 2 processes; give --batch")])
def test_a_trouble_of_one_process_stops_both_and_is_told_once(trouble, said, two):
    """Ctrl-C or NaN in the second process, a file that the first one cannot write or read, an odd batch."""
    assert re.match(said, two[0][trouble]) and two[1][trouble] == "SystemExit: 1"


def test_the_step_of_ctrl_c_is_saved(two):
    assert load_file(two[2] / "run.pt")["step"] == 2


def test_a_process_whose_other_is_gone_does_not_wait(two):
    """The second one dies without a word in step 2: an error in the first, not silence."""
    assert two[0]["alone"] not in ("no error", "SystemExit: 1") and "alone" not in two[1]


def test_torchrun_stops_on_ctrl_c_and_one_process_goes_on(tmp_path):
    """The command as a person types it: all stop after the same step, one tells it, and one state is left."""
    words = ["train", "base", "--steps", "10000", "--batch", "2", "--out", str(tmp_path / "base.pt")]
    run = subprocess.Popen([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                            "-m", "minicontrolnet", *words], cwd=ROOT, text=True, stderr=subprocess.PIPE)
    try:
        while run.stderr.read(1) not in ("%", ""):  # the bar at its start
            pass
        time.sleep(3)  # both processes are in the loop, on a busy machine too
        run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=60)[1]
    finally:
        run.kill()
    assert said.count("with --resume goes on") == 1, said
    step, = map(int, re.findall(r"stopped after step (\d+) of 10000", said))
    path, mine = tmp_path / "base.train.pt", {"network": "base", "batch": 2}
    assert load_file(path)["step"] == step and list(tmp_path.iterdir()) == [path]
    train(UNet(), partial(base_loss, next_batch=partial(random_batch, 2)), 10000, lr=1e-3, path=path,
          resume=True, run=mine, stop_at=step + 1)
    assert load_file(path)["step"] == step + 1
