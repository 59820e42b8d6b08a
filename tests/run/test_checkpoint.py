"""Checkpoints: a run goes on from its file as if nothing had happened, or one sentence says why it does not."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import ROOT, fill_zeros
from minicontrolnet.controlnet import ControlNet, lock
from minicontrolnet.errors import Problem
from minicontrolnet.run.checkpoint import Checkpoint, finish_step_on_ctrl_c, in_use
from minicontrolnet.run.files import load_file
from minicontrolnet.shapes import random_batch
from minicontrolnet.training import Training, control_loss, seeded

RUN = {"steps": 6, "seed": 0, "learning rate": 0.1, "base": "a"}
on_unix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks and signals")


def same(a, b):
    """Whether two nested states are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def toy_loss(network, generator):
    """A quick loss for a Linear layer, with new data at each step."""
    x = torch.rand(4, network.in_features, generator=generator)
    return (network(x) - 1).square().mean()


def toy(size=4, seed=0, steps=6):
    return Training(seeded(seed, nn.Linear, size, size), toy_loss, steps, lr=0.1)


def go(training, last=None):
    """Iterate to the end, or until step ``last`` is done. Returns the training."""
    for step, _ in training:
        if step == last:
            break
    return training


@pytest.fixture
def saved(tmp_path):
    """The file of a toy run of 6 steps that was stopped after 3."""
    path = tmp_path / "run.pt"
    Checkpoint(go(toy(), 3), path, RUN, "the command").save()
    return path


# %% Stop and go on


def test_a_stopped_run_goes_on_from_its_file(saved, tmp_path):
    """Network, average, optimiser, schedule, generator and step are those of a run without a break."""
    training = toy(seed=1)
    checkpoint = Checkpoint(training, saved, RUN)
    checkpoint.load()
    assert training.step == 3 and checkpoint.command == "the command"
    assert same(go(training).state_dict(), go(toy()).state_dict())


@pytest.mark.parametrize("locked", ["some", "all but one", "unused"])
def test_locked_and_unused_parameters_are_no_obstacle(locked, tmp_path):
    """Such a parameter has no moments in AdamW, neither before the break nor after it."""

    def training():
        network = nn.Sequential(*(seeded(i, nn.Linear, 4, 4) for i in range(3)))
        network.in_features = 4
        if locked != "unused":
            lock(network[0])
        if locked == "all but one":
            lock(network[2])
        if locked == "unused":
            network.forward = network[1].forward
        return Training(network, toy_loss, 6, lr=0.1)

    path = tmp_path / "run.pt"
    Checkpoint(go(training(), 3), path, RUN).save()
    resumed = training()
    Checkpoint(resumed, path, RUN).load()
    assert same(go(resumed).state_dict(), go(training()).state_dict())


@pytest.mark.parametrize("before, after", [(0, 2), (0, None), (None, 0)])
def test_a_run_with_other_locked_parameters_is_refused(before, after, tmp_path):
    def checkpoint(locked):
        network = nn.Sequential(*(seeded(i, nn.Linear, 4, 4) for i in range(3)))
        network.in_features = 4
        if locked is not None:
            lock(network[locked])
        return Checkpoint(go(Training(network, toy_loss, 6, lr=0.1), 3), tmp_path / "run.pt", RUN)

    checkpoint(before).save()
    with pytest.raises(Problem, match="locked other parameters"):
        checkpoint(after).load()


def test_a_file_from_before_that_check_is_still_read(saved):
    content = load_file(saved)
    del content["locked"]
    torch.save(content, saved)
    resumed = toy(seed=1)
    Checkpoint(resumed, saved, RUN).load()
    assert resumed.step == 3


def test_a_controlnet_goes_on_from_its_file(make_base, tmp_path):
    """Also where the new one starts with other weights."""
    base = lock(make_base((8, 8, 8, 32), torch.float32))

    def training(seed):
        network = fill_zeros(seeded(seed, ControlNet, base), seed)
        return Training(network, control_loss(base, "edge", next_batch=lambda g: random_batch(2, g)), 4, lr=1e-2)

    Checkpoint(go(training(0), 2), tmp_path / "run.pt", RUN).save()
    resumed = training(1)
    Checkpoint(resumed, tmp_path / "run.pt", RUN | {}).load()
    assert same(go(resumed).state_dict(), go(training(0)).state_dict())


def test_a_checkpoint_before_the_first_step_is_one(tmp_path):
    """AdamW has no moments yet."""
    path, training = tmp_path / "run.pt", toy(seed=1)
    Checkpoint(toy(), path, RUN).save()
    Checkpoint(training, path, RUN).load()
    assert same(go(training).state_dict(), go(toy()).state_dict())


def test_the_time_of_all_legs_counts(saved):
    """An hour before the break is an hour after it."""
    state = load_file(saved)
    torch.save({**state, "seconds": 3600.0}, saved)
    checkpoint = Checkpoint(toy(), saved, RUN)
    checkpoint.load()
    checkpoint.save()
    assert checkpoint.seconds >= load_file(saved)["seconds"] >= 3600


# %% What is refused


@pytest.mark.parametrize("write", [
    lambda path: path.write_text("not weights"),
    lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)),
    lambda path: torch.save([1, 2, 3], path),
    lambda path: torch.save({"kind": "base", "weights": {}}, path),
    lambda path: path.mkdir(),
    lambda path: None,  # there is no file
], ids=["text", "picture", "list", "weights", "folder", "nothing"])
def test_a_foreign_file_is_a_problem(write, tmp_path):
    """What training did not write is refused by its name, and the network stays as it was."""
    path, training = tmp_path / "foreign.pt", toy()
    write(path)
    with pytest.raises(Problem, match="foreign.pt"):
        Checkpoint(training, path, RUN).load()
    assert same(training.state_dict(), toy().state_dict())


@pytest.mark.parametrize("other", [lambda: toy(size=5), lambda: Training(
    nn.Sequential(seeded(0, nn.Linear, 4, 4)), toy_loss, 6, lr=0.1)], ids=["size", "structure"])
def test_the_state_of_another_network_is_a_problem(other, saved):
    training = other()
    with pytest.raises(Problem, match="run.pt"):
        Checkpoint(training, saved, RUN).load()
    assert same(training.state_dict(), other().state_dict())


@pytest.mark.parametrize("change", [{"steps": 7}, {"seed": 1}, {"learning rate": 0.2}, {"base": "b"}])
def test_runs_are_not_mixed(change, saved):
    """Another length, seed, rate or base: both values are named, and nothing is changed."""
    training = toy(seed=1)
    (name, value), = change.items()
    with pytest.raises(Problem) as caught:
        Checkpoint(training, saved, RUN | change).load()
    assert all(word in str(caught.value) for word in (name, str(value), str(RUN[name])))
    assert same(training.state_dict(), toy(seed=1).state_dict())


DAMAGES = {
    "a moment's shape": lambda state: state["optimiser"]["state"][0].update(exp_avg=torch.zeros(2)),
    "another moment's shape": lambda state: state["optimiser"]["state"][1].update(exp_avg_sq=torch.zeros(4, 4)),
    "a moment's step": lambda state: state["optimiser"]["state"][1].update(step="3"),
    "no moment": lambda state: state["optimiser"]["state"][0].pop("exp_avg"),
    "a moment of nothing": lambda state: state["optimiser"]["state"].update({7: state["optimiser"]["state"][0]}),
    "no moments": lambda state: state["optimiser"].update(state=None),
    "no groups": lambda state: state["optimiser"].update(param_groups=[]),
    "a weight is missing": lambda state: state["network"].pop("bias"),
    "a weight's type": lambda state: state["network"].update(bias=torch.zeros(4, dtype=torch.bfloat16)),
    "the average's count": lambda state: state["average"].update(n_averaged=[3]),
    "a short generator": lambda state: state.update(generator=torch.zeros(3)),
    "a wrong generator": lambda state: state["generator"].fill_(255),
    "a text for the step": lambda state: state.update(step="2"),
    "a step after the end": lambda state: state.update(step=7),
    "a negative step": lambda state: state.update(step=-1),
    "no average": lambda state: state.pop("average"),
    "no schedule": lambda state: state.pop("schedule"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_state_is_a_problem(damage, saved):
    """Moments of another shape would crash AdamW later; each is refused, and the training is as it was."""
    training, content = toy(seed=1), load_file(saved)
    damage(content["training"])
    torch.save(content, saved)
    with pytest.raises(Problem, match="run.pt"):
        Checkpoint(training, saved, RUN).load()
    assert same(training.state_dict(), toy(seed=1).state_dict())


@pytest.mark.parametrize("damage", [
    lambda content: content.update(seconds=None), lambda content: content.update(run=[]),
    lambda content: content.pop("run"), lambda content: content.pop("training"),
    lambda content: content.update(command=3), lambda content: content["run"].pop("base")])
def test_a_damaged_record_of_the_run_is_a_problem(damage, saved):
    training, content = toy(seed=1), load_file(saved)
    damage(content)
    torch.save(content, saved)
    with pytest.raises(Problem, match="run.pt"):
        Checkpoint(training, saved, RUN).load()
    assert same(training.state_dict(), toy(seed=1).state_dict())


def test_an_older_file_is_resumed(saved):
    """The training's state did not hold its steps, rate and seed, which the run holds as well."""
    training, content = toy(seed=1), load_file(saved)
    expected = toy(seed=1)
    Checkpoint(expected, saved, RUN).load()
    for name in ("steps", "lr", "seed"):
        del content["training"][name]
    torch.save(content, saved)
    Checkpoint(training, saved, RUN).load()
    assert training.step == content["training"]["step"] > 0
    assert same(go(training).state_dict(), go(expected).state_dict())


def test_two_trainings_do_not_mix(tmp_path):
    """Where a second one has written, the first one stops and leaves its file alone."""
    path = tmp_path / "run.pt"
    first, second = Checkpoint(go(toy(), 1), path, RUN), Checkpoint(go(toy(seed=1), 2), path, RUN | {"seed": 1})
    second.save()
    with pytest.raises(Problem, match="run.pt"):
        first.save()
    assert load_file(path)["run"]["seed"] == 1 and load_file(path)["training"]["step"] == 2
    go(second.training)
    second.save()
    assert load_file(path)["training"]["step"] == 6


# %% Ctrl-C


@pytest.fixture
def interruptible():
    """Python's own answer to Ctrl-C: a shell's background job starts with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@on_unix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_signal_is_noted_and_the_second_one_is_as_usual(name, interruptible):
    """Whoever presses twice does not wait for the save."""
    number, usual = getattr(signal, name), []
    before = signal.signal(number, lambda *_: usual.append(1))
    try:
        with finish_step_on_ctrl_c() as asked:
            assert not asked
            signal.raise_signal(number)
            assert asked == [number] and not usual
            signal.raise_signal(number)
            assert asked == [number] and usual == [1]
        signal.raise_signal(number)
        assert usual == [1, 1], "afterwards everything is as it was"
    finally:
        signal.signal(number, before)


def test_a_second_ctrl_c_interrupts_at_once(interruptible):
    with pytest.raises(KeyboardInterrupt), finish_step_on_ctrl_c():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@on_unix
def test_an_ignored_signal_stays_ignored():
    """nohup ignores SIGHUP, so that a training goes on when its terminal is closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with finish_step_on_ctrl_c() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert not asked
    finally:
        signal.signal(signal.SIGHUP, before)


@on_unix
@pytest.mark.slow
def test_ctrl_c_in_a_real_training(tmp_path):
    """The command as a person types it: it finishes the step, saves, ends with one line, and can be resumed."""
    words = ["train", "base", "--batch", "2", "--out", str(tmp_path / "base.pt"), "--steps"]
    command = [sys.executable, "-m", "minicontrolnet", *words]
    run = subprocess.Popen([*command, "100000"], cwd=ROOT, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        seen = ""
        while "%" not in seen:  # the bar at its start
            seen += run.stderr.read(1)
        time.sleep(2)
        run.send_signal(signal.SIGINT)
        _, error = run.communicate(timeout=300)
    finally:
        run.kill()
    assert run.returncode != 0 and "Traceback" not in error
    assert "--resume" in error.splitlines()[-1]
    assert 0 < load_file(tmp_path / "base.train.pt")["training"]["step"] < 100000
    assert [path.name for path in tmp_path.iterdir()] == ["base.train.pt"]


# %% One program at a time


HOLD = """
import sys, time
from pathlib import Path
from minicontrolnet.run.checkpoint import in_use
with in_use(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@on_unix
def test_a_file_in_use_is_refused(tmp_path):
    """One sentence says so; other files are free, and this one is when its holder has let it go."""
    path = tmp_path / "run.pt"
    with in_use(path):
        with pytest.raises(Problem, match="run.pt"), in_use(path):
            pass
        with in_use(tmp_path / "other.pt"):
            pass
    with in_use(path):
        assert [*tmp_path.iterdir()] == [tmp_path / ".run.pt.lock"]
    assert list(tmp_path.iterdir()) == []


@on_unix
@pytest.mark.slow
def test_a_file_is_free_when_the_process_that_used_it_was_killed(tmp_path):
    path = tmp_path / "run.pt"
    other = subprocess.Popen([sys.executable, "-c", HOLD, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Problem, match="run.pt"), in_use(path):
            pass
    finally:
        other.kill()
        other.wait()
    with in_use(path):
        pass


@on_unix
def test_a_removed_lock_is_not_held_by_two(tmp_path, monkeypatch):
    """Between opening and locking the file, its last holder removes it, and a third program makes a new one."""
    import minicontrolnet.run.checkpoint as checkpoint

    path, beside, third = tmp_path / "run.pt", tmp_path / ".run.pt.lock", []
    flock = checkpoint.fcntl.flock

    def late(file, how):
        if not third:
            third.append(None)
            beside.unlink()
            third[0] = in_use(path)
            third[0].__enter__()
        flock(file, how)

    monkeypatch.setattr(checkpoint.fcntl, "flock", late)
    with pytest.raises(Problem, match="run.pt"), in_use(path):
        pass
    third[0].__exit__(None, None, None)
    with in_use(path):
        pass


def test_a_file_is_free_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), in_use(tmp_path / "new" / "run.pt"):
            raise ZeroDivisionError
    assert list((tmp_path / "new").iterdir()) == []


# %% Killed at any moment


def train_and_save_often(path):
    """A training that saves after each step; it goes on from the file if there is one."""
    torch.set_num_threads(1)
    training = Training(nn.Linear(1000, 1000), toy_loss, 10_000, lr=1e-3)
    checkpoint = Checkpoint(training, path, RUN | {"steps": 10_000})
    if path.exists():
        checkpoint.load()
    for _ in training:
        checkpoint.save()


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    """Of three trainings, each killed, the file loads and the next one goes on from it."""
    path, moment, step = tmp_path / "run.pt", random.Random(0), 0
    processes = multiprocessing.get_context("spawn")
    for _ in range(3):
        before = path.stat().st_mtime_ns if path.exists() else 0
        child = processes.Process(target=train_and_save_often, args=[path])
        child.start()
        try:
            while not path.exists() or path.stat().st_mtime_ns == before:
                assert child.is_alive()
                time.sleep(0.01)
            time.sleep(moment.uniform(0, 0.4))
        finally:
            child.kill()
            child.join()
        state = load_file(path)["training"]
        assert state["step"] > step and state["network"]["weight"].isfinite().all()
        step = state["step"]


def test_a_run_need_not_record_its_steps(tmp_path):
    path = tmp_path / "run.pt"
    Checkpoint(go(toy(), 3), path, {"seed": 0}).save()
    training = toy()
    Checkpoint(training, path, {"seed": 0}).load()
    assert same(go(training).state_dict(), go(toy()).state_dict())
    with pytest.raises(Problem, match="a run whose rate is None, not 1"):
        Checkpoint(toy(), path, {"seed": 0, "rate": 1}).load()


def test_a_state_whose_file_was_removed_is_written_anew(tmp_path):
    path = tmp_path / "run.pt"
    checkpoint = Checkpoint(go(toy(), 3), path, RUN)
    checkpoint.save()
    path.unlink()
    checkpoint.save()
    assert load_file(path)["training"]["step"] == 3


@pytest.mark.parametrize("value", [np.float64(1), np.int64(1), Path("x"), float("nan")])
def test_a_run_that_could_not_be_read_again_is_refused_before_the_training(value, tmp_path):
    with pytest.raises(Problem, match="give tensors and plain values|give a number or a text"):
        Checkpoint(toy(), tmp_path / "run.pt", {"value": value})


def test_a_learning_rate_of_numpys_is_saved_as_a_plain_number(tmp_path):
    def training():
        return Training(seeded(0, nn.Linear, 4, 4), toy_loss, 6, lr=np.logspace(-3, -1, 3)[2])

    path = tmp_path / "run.pt"
    Checkpoint(go(training(), 3), path, RUN).save()
    resumed = training()
    Checkpoint(resumed, path, RUN).load()
    assert same(go(resumed).state_dict(), go(training()).state_dict())


def test_a_new_training_does_not_replace_a_state_that_it_has_not_loaded(saved):
    before = saved.read_bytes()
    with pytest.raises(Problem, match="go on from it by load"):
        Checkpoint(go(toy(), 1), saved, RUN).save()
    assert saved.read_bytes() == before


@pytest.mark.parametrize("run, said", [(RUN | {"steps": 2}, "whose steps is 6, not 2"), (RUN, "this training has only 2")])
def test_a_training_of_fewer_steps_than_the_state_has_is_no_damage(run, said, saved):
    with pytest.raises(Problem, match=said):
        Checkpoint(toy(steps=2), saved, run).load()


def test_a_relative_path_stays_the_same_file_in_another_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    checkpoint = Checkpoint(go(toy(), 1), Path("run.pt"), RUN)
    checkpoint.save()
    monkeypatch.chdir("elsewhere")
    checkpoint.save()
    assert (tmp_path / "run.pt").exists() and not Path("run.pt").exists()
