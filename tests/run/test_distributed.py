"""Several processes train as one: the same weights, and all of them stop together, whichever has a reason."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn

from conftest import ROOT, fill_zeros
from minicontrolnet.controlnet import ControlNet, lock
from minicontrolnet.errors import Problem
from minicontrolnet.measure.classifier import ShapeClassifier, classifier_loss
from minicontrolnet.run import distributed
from minicontrolnet.run.checkpoint import Checkpoint
from minicontrolnet.run.files import load_file
from minicontrolnet.run.train import run, share_state
from minicontrolnet.shapes import random_batch
from minicontrolnet.training import WHOLE, Training, base_loss, control_loss, seeded
from minicontrolnet.unet import UNet

KINDS = ["base", "edge", "palette", "pose", "shapes"]
BATCH = 8
needs_gloo = pytest.mark.skipif(not dist.is_available() or os.name == "nt", reason="gloo is missing")


# %% One process is the usual case


def test_one_process_needs_no_group():
    """Then every function of the module does the plain thing."""
    loss = object()
    assert (distributed.rank(), distributed.processes()) == (0, 1)
    assert distributed.own_part(15) == WHOLE
    assert distributed.shared(loss, nn.Linear(1, 1)) is loss
    assert distributed.any_rank(True) and not distributed.any_rank(False)
    assert distributed.rank_zero(max, 3, 5) == 5
    with pytest.raises(Problem):
        distributed.rank_zero(share_a_problem)
    with distributed.process_group(torch.device("cpu")):
        assert not dist.is_initialized()


def share_a_problem():
    raise Problem("as one process has it")


@pytest.mark.parametrize("n, parts", [(2, [slice(0, 8), slice(8, 16)]), (1, [WHOLE]),
                                      (4, [slice(0, 4), slice(4, 8), slice(8, 12), slice(12, 16)])])
def test_the_parts_of_a_batch_are_equal_and_cover_it(n, parts, monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: n)
    for i, part in enumerate(parts):
        monkeypatch.setattr(distributed, "rank", lambda i=i: i)
        assert distributed.own_part(16) == part


@pytest.mark.parametrize("rank, error", [(0, Problem), (1, SystemExit)])
def test_a_batch_that_cannot_be_divided_is_a_problem(rank, error, monkeypatch):
    """One process reports it, and the others just end."""
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    with pytest.raises(error):
        distributed.own_part(15)


# %% What one of two processes does


def tiny_base():
    return fill_zeros(seeded(0, UNet, (8, 8, 8, 32), c_emb=16))


def training_of(kind, seed=0, seen=None):
    """A training of a tiny network in float64 for 3 steps of 8 pictures."""
    pictures, part = partial(random_batch, BATCH), distributed.own_part(BATCH)
    if kind == "base":
        network, loss = tiny_base(), partial(base_loss, next_batch=pictures, part=part)
    elif kind == "shapes":
        network = seeded(seed, ExactClassifier)
        loss = partial(classifier_loss, part=distributed.own_part(64))
    else:
        base = lock(tiny_base())
        network = seeded(seed, ControlNet, base, 3 if kind == "palette" else 1)
        loss = control_loss(base, kind, next_batch=pictures, part=part)

    def note(module, given):
        if seen is not None:
            seen.append(len(given[0]))
        return tuple(x.double() if x.is_floating_point() else x for x in given)  # edge maps are in float32

    network.register_forward_pre_hook(note)
    return Training(network, distributed.shared(loss, network), 3, lr=1e-2)


class ExactClassifier(ShapeClassifier):
    """The classifier in float64."""

    def forward(self, mask):
        with torch.no_grad():
            exact = torch.nn.functional.interpolate((mask > 0.5).double(), scale_factor=0.5)
        return nn.Sequential.forward(self, exact)


def trained(kind):
    """The weights and their average after a training, and how many pictures this process saw in each step."""
    seen = []
    training = training_of(kind, seen=seen)
    for _ in training:
        pass
    return {"network": training.network.state_dict(), "average": training.averaged.state_dict()}, seen


def resumed(path):
    """The weights of an edge ControlNet that was stopped after 2 steps, and that another one took up."""
    first = training_of("edge")
    checkpoint = Checkpoint(first, path, {"steps": 3})
    for step, _ in first:
        if step == 2:
            break
    distributed.rank_zero(checkpoint.save)
    second = training_of("edge", seed=1)
    distributed.rank_zero(Checkpoint(second, path, {"steps": 3}).load)
    share_state(second)
    for _ in second:
        pass
    return {"network": second.network.state_dict(), "average": second.averaged.state_dict()}


def toy(path, spoil=lambda value, step: value):
    """Train one layer for 4 steps by the loop of the train command; ``spoil`` may change the loss of a step."""
    steps = iter(range(1, 5))

    def loss(network, generator):
        return spoil((network(torch.rand(4, 3, generator=generator)) - 1).square().mean(), next(steps))

    network = seeded(0, nn.Linear, 3, 3)
    training = Training(network, distributed.shared(loss, network), 4, lr=0.1)
    run(training, Checkpoint(training, path, {"steps": 4}), SimpleNamespace(what="toy", steps=4, state=path))


def ending(work, *args):
    """How ``work`` ends: the name of its error and its text."""
    try:
        work(*args)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def one_of_two(rank, folder):
    """Everything that two processes go through together. It is always the second one that has the trouble."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    second, found = rank == 1, {}

    def press(value, step):
        if second and step == 2:
            signal.raise_signal(signal.SIGINT)
        return value

    def nan(value, step):
        return value * (torch.nan if second and step == 3 else 1)

    def leave(value, step):
        return os._exit(3) if second and step == 2 else value

    found["whole"] = {kind: trained(kind) for kind in KINDS}
    found["resumed"] = resumed(folder / "edge.pt")
    found["stop"] = ending(toy, folder / "run.pt", press)
    found["nan"] = ending(toy, folder / "nan.pt", nan)
    found["save"] = ending(toy, folder)
    found["load"] = ending(distributed.rank_zero, load_file, folder / "nowhere.pt")
    found["odd"] = ending(distributed.own_part, 15)
    torch.save(found, folder / f"found.{rank}")
    found["alone"] = ending(toy, folder / "alone.pt", leave)
    torch.save(found, folder / f"found.{rank}")
    os._exit(0)  # the other process is gone, so the group cannot be closed


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, the first one's and the second one's, and where their files are."""
    folder, spawn = tmp_path_factory.mktemp("two"), multiprocessing.get_context("spawn")
    children = [spawn.Process(target=one_of_two, args=(rank, folder)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(600)
        child.kill()
    assert [child.exitcode for child in children] == [0, 3], "one of them waited for ever, or failed"
    return *(load_file(folder / f"found.{rank}") for rank in range(2)), folder


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# %% The tests


@needs_gloo
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one(kind, two, float64):
    """Each sees one half of the pictures. Their weights and averages equal each other's, and those of one process
    up to the order of sums.
    """
    one, seen = trained(kind)
    (first, halves), (second, _) = two[0]["whole"][kind], two[1]["whole"][kind]
    batch = 64 if kind == "shapes" else BATCH
    assert seen == [batch] * 3 and halves == [batch // 2] * 3
    start = training_of(kind).network.state_dict()
    for part, weights in one.items():
        for name, weight in weights.items():
            assert torch.equal(first[part][name], second[part][name]), name
            torch.testing.assert_close(first[part][name], weight, rtol=0, atol=1e-10)
    moved = [not torch.equal(weight, one["network"][name]) for name, weight in start.items()]
    assert sum(moved) > 0.7 * len(moved)


@needs_gloo
@pytest.mark.slow
def test_a_resumed_run_of_two_processes_equals_one_without_a_break(two):
    """Bit for bit, and the second process takes up what the first one has read."""
    for found in two[:2]:
        whole, _ = found["whole"]["edge"]
        for part, weights in whole.items():
            assert all(torch.equal(weight, found["resumed"][part][name]) for name, weight in weights.items())


@needs_gloo
@pytest.mark.slow
@pytest.mark.parametrize("trouble, first", [
    ("stop", "KeyboardInterrupt: .*step 2 of 4"), ("nan", "Problem: .*nan"), ("save", "Problem: "),
    ("load", "Problem: .*nowhere.pt"), ("odd", "Problem: .*15")])
def test_a_trouble_of_one_process_stops_both_and_is_reported_once(trouble, first, two):
    """Ctrl-C or NaN in the second process, a file that the first one cannot write or read, an odd batch."""
    assert re.match(first, two[0][trouble]) and two[1][trouble] == "SystemExit: 1"


@needs_gloo
@pytest.mark.slow
def test_the_step_of_ctrl_c_is_saved(two):
    assert load_file(two[2] / "run.pt")["training"]["step"] == 2


@needs_gloo
@pytest.mark.slow
def test_a_process_whose_other_is_gone_does_not_wait(two):
    """The second one dies without a word in step 2: the first one has an error, and is not silent."""
    assert two[0]["alone"] not in ("no error", "SystemExit: 1") and "alone" not in two[1]


@needs_gloo
@pytest.mark.slow
def test_torchrun_stops_on_ctrl_c_and_one_process_goes_on(tmp_path):
    """The command as a person types it: all stop after the same step, one reports it, and one state is left."""
    words = ["-m", "minicontrolnet", "train", "base", "--batch", "2", "--out", str(tmp_path / "base.pt"),
             "--steps", "20000"]
    both = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    error, step = interrupted(both)
    assert error.count("--resume") == 1, error
    path = tmp_path / "base.train.pt"
    assert load_file(path)["training"]["step"] == step > 0 and list(tmp_path.iterdir()) == [path]
    _, later = interrupted([sys.executable, *words, "--resume"])
    assert later > step and load_file(path)["training"]["step"] == later


def interrupted(command):
    """Start a training, press Ctrl-C when its bar moves, and return its errors and the step it stopped after."""
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        seen = ""
        while "%" not in seen and process.poll() is None:  # the bar at its start
            seen += process.stderr.read(1)
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=600)[1]
    finally:
        process.kill()
    step, = re.findall(r"after step (\d+) of 20000", error)
    return error, int(step)
