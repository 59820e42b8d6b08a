"""Training: what is learned, a loop that can be stopped anywhere, and files that never lie."""

import math
import multiprocessing
import random
import signal
import sys
import time

import pytest
import torch
from torch import nn

from minicontrolnet import training
from minicontrolnet.controlnet import ControlNet, lock
from minicontrolnet.diffusion import TIMESTEPS, alpha_bar_at
from minicontrolnet.files import Problem, load_file
from minicontrolnet.training import (base_loss, control_loss, drop_words, fresh_batch, learning_rate,
                                     random_times_and_noise, train)

SMALL = (8, 8, 8, 32)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def same(a, b):
    """Whether two nested states are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def kept(path):
    """All that a checkpoint holds, save for the time that it took."""
    return {name: part for name, part in load_file(path).items() if name != "seconds"}


def toy_loss(network, generator):
    """A quick loss for a Linear layer, new data at each step."""
    x = torch.rand(4, network.in_features, generator=generator)
    return (network(x) - 1).square().mean()


@pytest.fixture
def toy():
    """A function that builds a Linear layer from a seed."""

    def build(size=4, seed=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Linear(size, size)

    return build


@pytest.fixture
def checkpoint(toy, tmp_path):
    """The file of a run of 6 steps that was stopped after 3."""
    path = tmp_path / "run.pt"
    train(toy(), toy_loss, 6, lr=0.1, path=path, stop_at=3)
    return path


# %% What is learned


def test_drop_words_drops_as_often_as_asked():
    """A share ``whole`` of the prompts loses all; of the other words a share ``each`` is lost."""
    n = 40_000
    dropped = drop_words(torch.full((n, 3), 5), seeded(), whole=0.1, each=0.2) == 0
    share = lambda event: event.float().mean().item()
    error = 5 * 0.5 / math.sqrt(n)  # five standard errors at most
    for word in range(3):
        assert share(dropped[:, word]) == pytest.approx(0.1 + 0.9 * 0.2, abs=error)
    assert share(dropped.all(1)) == pytest.approx(0.1 + 0.9 * 0.2**3, abs=error)
    assert share(dropped.sum(1) == 1) == pytest.approx(0.9 * 3 * 0.2 * 0.8**2, abs=error)


def test_drop_words_keeps_the_other_words_and_its_input():
    """Chance 0 keeps all, chance 1 drops all, and what is kept stays in its place."""
    prompt = torch.randint(1, 5, (1000, 3), generator=seeded())
    before = prompt.clone()
    assert torch.equal(drop_words(prompt, seeded(), 0.0, 0.0), prompt)
    assert not drop_words(prompt, seeded(), 1.0, 0.0).any()
    assert not drop_words(prompt, seeded(), 0.0, 1.0).any()
    some = drop_words(prompt, seeded(), 0.2, 0.3)
    assert torch.equal(some[some != 0], prompt[some != 0]) and torch.equal(prompt, before)


def test_whole_prompts_are_dropped_wholly():
    """With ``each`` at 0, a prompt is complete or empty."""
    count = (drop_words(torch.ones(1000, 3), seeded(), whole=0.5, each=0.0) != 0).sum(1)
    assert set(count.tolist()) == {0, 3}


def test_noise_covers_the_times_evenly():
    """Cut in 16 parts, the times have one in each; the noise is standard normal."""
    t, eps = random_times_and_noise(torch.zeros(16, 3, 32, 32), seeded())
    assert t.dtype == torch.long and torch.equal(t * 16 // TIMESTEPS, torch.arange(16))
    assert abs(eps.mean()) < 0.03 and abs(eps.std() - 1) < 0.03


@pytest.mark.parametrize("n", [1, 2, 16, 128])
def test_times_stay_below_the_last_even_if_rounded_up(n, monkeypatch):
    """The largest number that torch.rand can draw gives a time that exists."""
    monkeypatch.setattr(torch, "rand", lambda *size, generator: torch.full(size, 1 - 2**-24))
    assert random_times_and_noise(torch.zeros(n, 1), seeded())[0].max() == TIMESTEPS - 1


def test_control_learns_with_half_of_the_prompts_empty(make_base):
    """The base and the ControlNet see the same prompts: complete or empty, half and half."""
    base, prompts = lock(make_base(SMALL, torch.float32)), []

    def spy(xt, t, prompt, condition):
        prompts.append(prompt)
        assert condition.shape == (16, 1, 64, 64) and xt.shape == (16, 3, 64, 64)

    loss, generator = control_loss(base, "edge"), seeded()
    for _ in range(8):
        loss(spy, generator)
    words = (torch.cat(prompts) != 0).sum(1)
    assert set(words.tolist()) == {0, 3} and 40 < (words == 0).sum() < 88


def test_the_base_learns_all_kinds_of_prompts(make_base):
    """Most are whole, some empty, and some lack single words: "star" alone is known, too."""
    base, prompts, generator = make_base(SMALL, torch.float32), [], seeded()
    base.forward = lambda xt, t, prompt: prompts.append(prompt) or xt
    for _ in range(20):
        base_loss(base, generator)
    words = (torch.cat(prompts) != 0).sum(1)
    assert (words == 3).sum() > 200 and 10 < (words == 0).sum() < 100
    assert 5 < ((words == 1) | (words == 2)).sum() < 100


def test_losses_train_on_the_pictures_they_are_given(make_base):
    """Fresh pictures by default; given others, base and ControlNet see those and no more."""
    base, seen = lock(make_base(SMALL, torch.float32)), []
    grey = lambda generator: fresh_batch(generator)._replace(x0=torch.zeros(16, 3, 64, 64))

    class Spy:
        prediction_type = "x0"

        def __call__(self, xt, t, prompt, condition=None):
            seen.append((xt, t))
            return xt

        parameters = staticmethod(base.parameters)

    base_loss(Spy(), seeded(), next_batch=grey)
    xt, t = seen[0]
    noise = xt / (1 - alpha_bar_at(t, xt)).sqrt()
    assert noise.std() == pytest.approx(1, abs=0.02)  # nothing but noise: x0 was 0
    seen.clear()

    def spy(xt, t, prompt, condition):
        seen.append((xt, t))

    control_loss(base, "edge", next_batch=grey)(spy, seeded())
    xt, t = seen[0]
    assert (xt / (1 - alpha_bar_at(t, xt)).sqrt()).std() == pytest.approx(1, abs=0.02)


def test_loss_goes_down_on_a_fixed_batch(make_base, monkeypatch):
    """Thirty steps on the same four pictures lower their loss by a fifth."""
    monkeypatch.setattr(training, "BATCH_SIZE", 4)
    losses = []
    train(make_base(SMALL, torch.float32), lambda network, _: base_loss(network, seeded()), 30,
          lr=1e-2, on_step=lambda step, loss, average: losses.append(loss))
    assert len(losses) == 30 and losses[-1] < 0.8 * losses[0]


# %% The loop


def test_learning_rate_rises_over_50_steps_and_falls_to_0():
    """It starts at 1/50 (in a run under 500 steps at 10/steps), peaks there, stays within (0, 1]."""
    for steps in (1, 10, 200, 4000):
        rates = [learning_rate(step, steps) for step in range(steps)]
        assert all(0 < rate <= 1 for rate in rates)
        assert rates[0] == pytest.approx(min(1, max(1 / 50, 10 / steps)))
    assert rates.index(max(rates)) == 49 and max(rates) > 0.999 and rates[-1] < 1e-6
    assert rates[:50] == sorted(rates[:50]) and rates[49:] == sorted(rates[49:], reverse=True)


def test_train_returns_the_moving_average(toy):
    """The result forgets its start by (1 + n) / (10 + n) a step, and at most by 0.99."""
    network, history = toy(), []
    average = train(network, toy_loss, 20, lr=0.1,
                    on_step=lambda *_: history.append(network.weight.detach().clone()))
    by_hand = history[0]
    for n, weight in enumerate(history[1:], start=1):
        decay = min(0.99, (1 + n) / (10 + n))
        by_hand = decay * by_hand + (1 - decay) * weight
    torch.testing.assert_close(average.weight.detach(), by_hand)
    assert not torch.equal(average.weight, network.weight) and not average.training


def test_equal_seeds_train_equal_networks(toy):
    """The seed decides the run, whatever the global generator does."""
    a = train(toy(), toy_loss, 5, lr=0.1)
    torch.rand(1)
    assert same(a.state_dict(), train(toy(), toy_loss, 5, lr=0.1).state_dict())
    assert not same(a.state_dict(), train(toy(), toy_loss, 5, lr=0.1, seed=1).state_dict())


@pytest.mark.parametrize("what", ["base", "edge", "palette"])
def test_a_run_that_was_stopped_equals_one_without_a_break(what, make_base, tmp_path, monkeypatch):
    """Planned 4 steps, stopped at 2 and resumed by another network: all is equal to the last bit."""
    monkeypatch.setattr(training, "BATCH_SIZE", 4)
    base = lock(make_base(SMALL, torch.float32))

    def run(seed, path, **options):
        torch.manual_seed(seed)
        if what == "base":
            network, loss = make_base(SMALL, torch.float32, seed), base_loss
        else:
            network = ControlNet(base, c_condition=1 if what == "edge" else 3)
            loss = control_loss(base, what)
        average = train(network, loss, 4, lr=1e-2, path=path, **options)
        return {"network": network.state_dict(), "average": average.state_dict()}

    whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
    unbroken = run(0, whole)
    halfway = run(0, broken, stop_at=2)
    assert not same(halfway, unbroken)
    assert same(run(1, broken, resume=True), unbroken)
    assert same(kept(broken), kept(whole))  # with the optimiser and the generator


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_step_saves_and_can_be_resumed(number, toy, tmp_path):
    """Interrupted in step 2 by Ctrl-C or kill, the run is saved there, and goes on as if nothing had happened."""
    whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
    before = signal.getsignal(number)
    train(toy(), toy_loss, 5, lr=0.1, path=whole)
    interrupt = lambda step, *_: signal.raise_signal(number) if step == 2 else None
    with pytest.raises(KeyboardInterrupt, match="step 2 of 5"):
        train(toy(), toy_loss, 5, lr=0.1, path=broken, on_step=interrupt)
    assert load_file(broken)["step"] == 2 and signal.getsignal(number) is before
    train(toy(seed=1), toy_loss, 5, lr=0.1, path=broken, resume=True)
    assert same(kept(broken), kept(whole))


@pytest.fixture
def interruptible():
    """Python's own answer to Ctrl-C: a shell's background job starts with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_interrupts_at_once(toy, tmp_path, interruptible):
    """Whoever presses twice does not wait for the save."""

    def twice(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(toy(), toy_loss, 5, lr=0.1, path=tmp_path / "run.pt", on_step=twice)
    assert list(tmp_path.iterdir()) == [] and signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_the_run(what, value, toy, checkpoint):
    """NaN or infinity: the step is named, the file and the weights stay as they were."""
    network, saved = toy(), checkpoint.read_bytes()

    def broken(network, generator):
        if what == "loss":
            return toy_loss(network, generator) * float(value)
        slope = 1 if value == "inf" else 0  # a root's slope at 0 is infinite; times 0 it is NaN
        weight = network.weight
        return (slope * (weight - weight.detach())).sum().sqrt()

    said = f"loss is {value}" if what == "loss" else f"loss is 0.0 and its gradient's norm {value}"
    with pytest.raises(Problem, match=f"{said}.*step 4"):
        train(network, broken, 6, lr=0.1, path=checkpoint, resume=True)
    assert checkpoint.read_bytes() == saved
    assert same(dict(network.state_dict()), dict(load_file(checkpoint)["network"]))


# %% Checkpoints


def train_and_save_often(path):
    """A training of which most time goes into saving; goes on from the file if there is one."""
    torch.set_num_threads(1)
    first = load_file(path)["step"] if path.exists() else 0
    for step in range(first, 10_000):
        train(nn.Linear(1000, 1000), toy_loss, 10_000, lr=1e-3, path=path, resume=step > 0,
              stop_at=step + 1)


def test_a_process_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path, request):
    """Of 3 (or --kills) trainings, each killed, the file loads and the next one goes on from it."""
    path, moment, step = tmp_path / "run.pt", random.Random(0), 0
    processes = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    for _ in range(request.config.getoption("--kills")):
        before = path.stat().st_mtime_ns if path.exists() else 0
        child = processes.Process(target=train_and_save_often, args=[path])
        child.start()
        try:
            deadline = time.monotonic() + 60
            while not path.exists() or path.stat().st_mtime_ns == before:
                assert child.is_alive() and time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(moment.uniform(0, 0.4))
        finally:
            child.kill()
            child.join()
        state = load_file(path)
        assert state["step"] > step and state["network"]["weight"].isfinite().all()
        step = state["step"]


@pytest.mark.parametrize("write", [
    lambda path: path.write_text("not weights"),
    lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)),
    lambda path: torch.save([1, 2, 3], path),
    lambda path: torch.save({"kind": "base", "weights": {}}, path),
    lambda path: path.mkdir(),
    lambda path: None,  # there is no file
], ids=["text", "picture", "list", "weights", "folder", "nothing"])
def test_a_foreign_checkpoint_is_a_problem(write, toy, tmp_path):
    """What training did not write is refused by its name, and the network stays as it was."""
    path, network = tmp_path / "foreign.pt", toy()
    write(path)
    with pytest.raises(Problem, match="foreign.pt"):
        train(network, toy_loss, 6, lr=0.1, path=path, resume=True)
    assert same(network.state_dict(), toy().state_dict())


def test_a_checkpoint_of_another_network_or_run_is_a_problem(toy, checkpoint, make_base, tmp_path):
    """Another width, another architecture or another number of steps is refused."""
    for network in toy(size=5), make_base(SMALL):
        with pytest.raises(Problem, match="of another network"):
            train(network, toy_loss, 6, lr=0.1, path=checkpoint, resume=True)


@pytest.mark.parametrize("change, said", [
    ({"steps": 7}, "steps 6, not 7"), ({"seed": 1}, "seed 0, not 1"),
    ({"lr": 0.2}, "learning rate 0.1, not 0.2"), ({"run": {"base": "b"}}, "base a, not b")])
def test_resume_refuses_to_mix_runs(change, said, toy, tmp_path):
    """Another length, seed, rate or base: both are named, and nothing is taken up."""
    network, how = toy(seed=1), {"steps": 6, "lr": 0.1, "path": tmp_path / "run.pt", "run": {"base": "a"}}
    train(toy(), toy_loss, **how, stop_at=3)
    with pytest.raises(Problem, match=said):
        train(network, toy_loss, **how | change, resume=True)
    assert same(network.state_dict(), toy(seed=1).state_dict())


def test_the_time_of_all_legs_counts(toy, checkpoint):
    """An hour before the break is an hour after it."""
    state = load_file(checkpoint)
    torch.save({**state, "seconds": 3600.0}, checkpoint)
    train(toy(), toy_loss, 6, lr=0.1, path=checkpoint, resume=True)
    assert 3600 < load_file(checkpoint)["seconds"] < 3660


def test_two_trainings_do_not_mix(toy, tmp_path):
    """Where a second one has written, the first one stops and leaves its file alone."""
    path = tmp_path / "run.pt"

    def second(step, *_):
        if step == 2:
            train(toy(seed=1), toy_loss, 4, lr=0.1, seed=1, path=path)

    with pytest.raises(Problem, match="another training writes"):
        train(toy(), toy_loss, 6, lr=0.1, path=path, on_step=second)
    assert load_file(path)["run"]["seed"] == 1 and load_file(path)["step"] == 4


@pytest.mark.parametrize("damage", [
    lambda state: state["moments"][0].update(exp_avg=torch.zeros(2)),
    lambda state: state["moments"][1].update(exp_avg_sq=torch.zeros(4, 4)),
    lambda state: state["moments"][1].update(step="3"),
    lambda state: state["moments"][0].pop("exp_avg"),
    lambda state: state.update(moments=None),
    lambda state: state["network"].pop("bias"),
    lambda state: state["network"].update(bias=torch.zeros(4, dtype=torch.bfloat16)),
    lambda state: state["average"].update(n_averaged=[3]),
    lambda state: state.update(generator=torch.zeros(3)),
    lambda state: state["generator"].fill_(255),
    lambda state: state.update(step="2"),
    lambda state: state.update(step=7),
    lambda state: state.update(seconds=None),
    lambda state: state.update(run=[]),
    lambda state: state.pop("average"),
])
def test_a_checkpoint_with_wrong_parts_is_a_problem(damage, toy, checkpoint):
    """Moments of another shape would crash AdamW; all is refused, and the network is as it was."""
    network, state = toy(seed=1), load_file(checkpoint)
    damage(state)
    torch.save(state, checkpoint)
    with pytest.raises(Problem, match="no state of this training"):
        train(network, toy_loss, 6, lr=0.1, path=checkpoint, resume=True)
    assert same(network.state_dict(), toy(seed=1).state_dict())
