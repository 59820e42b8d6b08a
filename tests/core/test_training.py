"""Training: what is learned, by hand, and a loop that can be stopped anywhere."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from conftest import fill_zeros
from minicontrolnet.conditions import condition_of, detect_edges, palette, roughen, stick_figure
from minicontrolnet.controlnet import ControlNet, lock
from minicontrolnet.diffusion import ALPHA_BAR, TIMESTEPS, eps_from_x0
from minicontrolnet.errors import Problem
from minicontrolnet.measure.scores import held_out
from minicontrolnet.sampling import seeded_noise
from minicontrolnet.shapes import random_batch, tip_of
from minicontrolnet.training import (BATCH_SIZE, Training, base_loss, condition_loss, control_loss, drop_words,
                                     find_gradients, fresh_batch, learning_rate, moving_average,
                                     random_times_and_noise, seeded)

SMALL = (8, 8, 8, 32)


def generator(seed=0):
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


def run(training):
    """Iterate to the end. Returns the losses."""
    return [loss for _, loss in training]


def toy_loss(network, generator):
    """A quick loss for a Linear layer, with new data at each step."""
    x = torch.rand(4, network.in_features, generator=generator).to(network.weight.dtype)
    return (network(x) - 1).square().mean()


def toy(size=4, seed=0):
    """A Linear layer from a seed."""
    return seeded(seed, nn.Linear, size, size)


# %% Words, times and noise


def test_drop_words_drops_as_often_as_asked():
    """A share ``whole`` of the prompts loses all; of the other words a share ``each`` is lost."""
    n = 40_000
    dropped = drop_words(torch.full((n, 3), 4), generator(), whole=0.1, each=0.2) == 0
    error = 5 * 0.5 / math.sqrt(n)  # five standard errors at most
    for word in range(3):
        assert share(dropped[:, word]) == pytest.approx(0.1 + 0.9 * 0.2, abs=error)
    assert share(dropped.all(1)) == pytest.approx(0.1 + 0.9 * 0.2**3, abs=error)
    assert share(dropped.sum(1) == 1) == pytest.approx(0.9 * 3 * 0.2 * 0.8**2, abs=error)


def share(event):
    return event.float().mean().item()


def test_drop_words_keeps_the_other_words_and_its_input():
    """Chance 0 keeps all, chance 1 drops all, and what is kept stays in its place."""
    prompt = torch.randint(1, 5, (1000, 3), generator=generator())
    before = prompt.clone()
    assert torch.equal(drop_words(prompt, generator(), 0.0, 0.0), prompt)
    assert not drop_words(prompt, generator(), 1.0, 0.0).any()
    assert not drop_words(prompt, generator(), 0.0, 1.0).any()
    some = drop_words(prompt, generator(), 0.2, 0.3)
    assert torch.equal(some[some != 0], prompt[some != 0]) and torch.equal(prompt, before)


def test_whole_prompts_are_dropped_wholly():
    """With ``each`` at 0, a prompt is complete or empty."""
    count = (drop_words(torch.ones(1000, 3, dtype=torch.long), generator(), whole=0.5, each=0.0) != 0).sum(1)
    assert set(count.tolist()) == {0, 3}


def test_noise_covers_the_times_evenly():
    """Cut in 16 parts, the times have one in each; the noise is standard normal."""
    t, eps = random_times_and_noise(torch.zeros(16, 3, 32, 32), generator())
    assert t.dtype == torch.long and torch.equal(t * 16 // TIMESTEPS, torch.arange(16))
    assert abs(eps.mean()) < 0.03 and abs(eps.std() - 1) < 0.03


def test_each_picture_has_a_time_of_its_own_choice():
    """Within their parts the times are uniform: their mean is the middle, and they do not move together."""
    many = generator()
    places = torch.stack([random_times_and_noise(torch.zeros(4, 1), many)[0] % 250 for _ in range(1000)]).float()
    assert (places.mean(0) - 124.5).abs().max() < 5 * 72 / 1000**0.5
    assert (torch.corrcoef(places.T) - torch.eye(4)).abs().max() < 5 / 1000**0.5
    assert places.min() < 5 and places.max() > 244


@pytest.mark.parametrize("n", [1, 2, 16, 128])
def test_times_stay_below_the_last_even_if_rounded_up(n, monkeypatch):
    """The largest number that torch.rand can draw gives a time that exists."""
    monkeypatch.setattr(torch, "rand", lambda *size, **options: torch.full(size, 1 - 2**-24))
    assert random_times_and_noise(torch.zeros(n, 1), generator())[0].max() == TIMESTEPS - 1


# %% The objective by hand


class Spy(nn.Module):
    """A network that notes what it is given and returns half of xt."""

    def __init__(self, prediction_type="x0"):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.prediction_type = prediction_type
        self.given = []

    def forward(self, *given):
        self.given.append(given)
        return 0.5 * self.weight * given[0]


def exact_batch(generator):
    """A fresh batch whose x0 is in float64, so that a loss can be computed exactly."""
    batch = fresh_batch(generator)
    return batch._replace(x0=batch.x0.double())


def prompts_only(n):
    """A function to batches of n complete prompts with pictures of one pixel."""

    def next_batch(generator):
        batch = random_batch(1, generator)
        prompt = torch.randint(1, 5, (n, 3), generator=generator)
        return batch._replace(x0=torch.zeros(n, 1, 1, 1, dtype=torch.float64), prompt=prompt)

    return next_batch


def eq_5(x0, t, eps, model_eps, prediction_type):
    """The squared error of what the network predicts, from the papers' formulas; x0's has a weight up to 20."""
    alpha_bar = ALPHA_BAR[t].view(-1, 1, 1, 1)
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    xt = signal * x0 + noise * eps
    if prediction_type == "eps":
        return (model_eps - eps).square().mean()
    guess = (xt - noise * model_eps) / signal
    if prediction_type == "v":
        return (signal * (model_eps - eps) - noise * (guess - x0)).square().mean()
    return ((1 / (1 - alpha_bar)).clamp(max=20) * (guess - x0).square()).mean()


@pytest.mark.parametrize("kind", ["edge", "palette", "pose"])
@pytest.mark.parametrize("prediction_type", ["x0", "v", "eps"])
def test_the_loss_of_a_condition_by_hand(kind, prediction_type):
    """Eq. 5 on a batch, its condition, half of its prompts, its times and its noise, in this order."""
    base, model, random = Spy(prediction_type), Spy(), generator(3)
    loss = condition_loss(model, base, kind, random, next_batch=exact_batch)
    again = generator(3)
    batch = exact_batch(again)
    condition = {"edge": lambda: roughen(detect_edges(batch.image), again),
                 "palette": lambda: palette(batch.image),
                 "pose": lambda: stick_figure(batch.scenes.centre, tip_of(batch.scenes))}[kind]()
    prompt = drop_words(batch.prompt, again, 0.5, 0.0)
    t, eps = random_times_and_noise(batch.x0, again)
    xt = ALPHA_BAR[t].view(-1, 1, 1, 1).sqrt() * batch.x0 + (1 - ALPHA_BAR[t]).view(-1, 1, 1, 1).sqrt() * eps
    [given] = model.given
    assert torch.allclose(given[0], xt) and torch.equal(given[1], t)
    assert torch.equal(given[2], prompt) and torch.equal(given[3], condition)
    torch.testing.assert_close(loss.detach(), eq_5(batch.x0, t, eps, 0.5 * xt, prediction_type))
    assert torch.equal(random.get_state(), again.get_state())


def test_edges_are_roughened_in_training_alone():
    """A drawing is rough, too; the detector itself stays exact."""
    batch = fresh_batch(generator(3))
    model = Spy()
    condition_loss(model, Spy(), "edge", generator(3))
    assert not torch.equal(model.given[0][3], detect_edges(batch.image))
    assert torch.equal(condition_of("edge", batch), detect_edges(batch.image))


def test_your_own_function_of_a_batch_is_a_condition():
    """It is handed on as it is."""
    model = Spy()
    condition_loss(model, Spy(), lambda batch: 0.5 * batch.mask, generator(3))
    assert torch.equal(model.given[0][3], 0.5 * fresh_batch(generator(3)).mask)


@pytest.mark.parametrize("weighted_as", [None, "x0", "v", "eps"])
@pytest.mark.parametrize("prediction_type", ["x0", "v"])
def test_the_loss_of_the_base_by_hand(prediction_type, weighted_as):
    """Eq. 5 with the network's own weight, or with another one if that is asked for."""
    unet, random, again = Spy(prediction_type), generator(3), generator(3)
    loss = base_loss(unet, random, exact_batch, weighted_as)
    batch = exact_batch(again)
    prompt = drop_words(batch.prompt, again, 0.1, 0.03)
    t, eps = random_times_and_noise(batch.x0, again)
    [given] = unet.given
    assert torch.equal(given[1], t) and torch.equal(given[2], prompt) and len(given) == 3
    torch.testing.assert_close(loss.detach(), eq_5(batch.x0, t, eps, 0.5 * given[0], weighted_as or prediction_type))
    assert torch.equal(random.get_state(), again.get_state())


def test_base_and_controlnet_are_given_the_same():
    """Both see the same xt, t and prompt; the base gets the ControlNet's controls, and that one the condition."""

    class Control(Spy):
        def forward(self, *given):
            super().forward(*given)
            return "controls"

    base, control = Spy(), Control()
    control_loss(base, "palette", next_batch=exact_batch)(control, generator(5))
    [(xt, t, prompt, controls)] = base.given
    [given] = control.given
    assert controls == "controls"
    assert all(torch.equal(a, b) for a, b in zip((xt, t, prompt), given))
    assert torch.equal(given[3], palette(fresh_batch(generator(5)).image))
    assert prompt.any(), "some prompts are complete"


@pytest.mark.parametrize("options, empty", [({}, 0.5), ({"drop": 0.0}, 0.0), ({"drop": 1.0}, 1.0),
                                            ({"drop": 0.2}, 0.2)])
def test_a_controlnet_learns_with_the_share_of_empty_prompts_that_was_asked_for(options, empty):
    """Prompts are complete or empty; by default one half is empty (Sec. 3.3)."""
    control = Spy()
    control_loss(Spy(), lambda batch: batch.x0, next_batch=prompts_only(4000), **options)(control, generator())
    words = (control.given[0][2] != 0).sum(1)
    assert set(words.tolist()) <= {0, 3}
    assert share(words == 0) == pytest.approx(empty, abs=5 * 0.5 / 4000**0.5 if 0 < empty < 1 else 0)


def test_the_base_learns_all_kinds_of_prompts():
    """One in ten is empty. Of the others a share of 1 - 0.97^3 lacks words: "star" alone is known, too."""
    base, n = Spy(), 10_000
    base_loss(base, generator(), prompts_only(n))
    words = (base.given[0][2] != 0).sum(1)
    error = 5 * 0.3 / n**0.5
    assert share(words == 0) == pytest.approx(0.1, abs=error)
    assert share((words == 1) | (words == 2)) == pytest.approx(0.9 * (1 - 0.97**3), abs=error)


def test_training_sees_sixteen_fresh_pictures_a_step():
    assert BATCH_SIZE == 16
    one, two = fresh_batch(generator()), fresh_batch(generator())
    assert len(one.x0) == 16 and torch.equal(one.x0, two.x0)
    base = Spy()
    base_loss(base, generator())
    control = Spy()
    control_loss(base, "edge")(control, generator())
    assert control.given[0][0].shape == (16, 3, 64, 64) and control.given[0][3].shape == (16, 1, 64, 64)
    assert base.given[0][0].shape == (16, 3, 64, 64)


@pytest.mark.parametrize("what", ["base", "control"])
def test_the_mean_loss_of_equal_parts_is_the_loss_of_the_batch(what):
    """Each part is computed with the same pictures, times and noise as the whole."""

    def loss(part):
        if what == "base":
            return base_loss(Spy(), generator(2), exact_batch, part=part)
        return control_loss(Spy(), "edge", next_batch=exact_batch, part=part)(Spy(), generator(2))

    whole = loss(slice(None)).detach()
    parts = torch.stack([loss(slice(0, 8)), loss(slice(8, 16))]).detach()
    torch.testing.assert_close(parts.mean(), whole)
    assert parts[0] != parts[1]


def test_a_perfect_network_has_no_loss():
    """It knows the pictures of the generator's next batch."""
    batch = exact_batch(generator(4))

    class Perfect(Spy):
        def forward(self, xt, t, prompt):
            return eps_from_x0(batch.x0, xt, t)

    assert base_loss(Perfect(), generator(4), exact_batch) < 1e-9


def test_loss_goes_down_on_a_fixed_batch(make_base):
    """Thirty steps on the same four pictures lower their loss by a fifth."""

    def fixed(network, _):
        return base_loss(network, generator(), lambda generator: random_batch(4, generator))

    losses = run(Training(make_base(SMALL, torch.float32), fixed, 30, lr=1e-2))
    assert len(losses) == 30 and losses[-1] < 0.8 * losses[0]


# %% The loop


def test_learning_rate_by_its_formula():
    """A warm-up of 50 steps, or a tenth of a short run, times a cosine that falls to 0."""
    for steps in (1, 10, 200, 499, 501, 4000):
        warm_up = 50 if steps >= 500 else steps / 10
        for step in range(0, steps, max(1, steps // 97)):
            expected = min(1, (step + 1) / warm_up) * math.cos(math.pi / 2 * step / steps) ** 2
            assert learning_rate(step, steps) == pytest.approx(expected)
    rates = [learning_rate(step, 4000) for step in range(4000)]
    assert rates[0] == pytest.approx(1 / 50) and rates.index(max(rates)) == 49 and rates[-1] < 1e-6


def test_the_loop_is_adamw_with_clipped_gradients_written_out():
    """Ten steps by the formulas of Loshchilov and Hutter, in float64, and the moving average of the weights.

    Gradients longer than 1 are shortened to 1. Rates follow the schedule. Decay is 0.01.
    """
    network, random, lengths = nn.Linear(3, 2).double(), generator(0), []
    weight = torch.cat([network.weight.detach(), network.bias.detach()[:, None]], 1).clone()
    first = second = torch.zeros_like(weight)
    steps, lr, average = 10, 0.1, None

    def loss(network, generator):
        x = torch.rand(4, 3, generator=generator).double()
        return 2 * (network(x) - 1).square().mean()

    training = Training(network, loss, steps, lr=lr, seed=0)
    for step, value in training:
        x = torch.cat([torch.rand(4, 3, generator=random).double(), torch.ones(4, 1).double()], 1)
        error = x @ weight.T - 1
        assert value == pytest.approx(2 * error.square().mean().item())
        gradient = 4 * error.T @ x / error.numel()
        lengths.append(gradient.norm().item())
        gradient = gradient / max(1.0, gradient.norm().item() + 1e-6)
        rate = lr * min(1, step / (steps / 10)) * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        weight = weight * (1 - rate * 0.01)
        weight = weight - rate * first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        decay = step / (9 + step)
        average = weight if average is None else decay * average + (1 - decay) * weight
        found = torch.cat([network.weight.detach(), network.bias.detach()[:, None]], 1)
        torch.testing.assert_close(found, weight, rtol=1e-5, atol=1e-7)
        mean = torch.cat([training.averaged.weight.detach(), training.averaged.bias.detach()[:, None]], 1)
        torch.testing.assert_close(mean, average, rtol=1e-5, atol=1e-7)
    assert max(lengths) > 1.2 and min(lengths) < 0.9, "some gradients are clipped, and some are not"


@pytest.mark.parametrize("size, expected", [(5.0, 1.0), (0.25, 0.25)])
def test_gradients_are_clipped_to_norm_1(size, expected):
    """A long gradient is shortened over all parameters together, and a short one is left as it is."""
    network = toy()

    def loss(network, generator):
        return size * (network.weight.sum() + network.bias.sum()) / 20**0.5

    value = find_gradients(network, loss, generator())
    norm = torch.cat([p.grad.flatten() for p in network.parameters()]).norm().item()
    assert norm == pytest.approx(expected, rel=1e-4) and value == loss(network, None)
    find_gradients(network, loss, generator())
    assert network.bias.grad.norm().item() == pytest.approx(expected * 0.2**0.5, rel=1e-4), "the old ones are gone"


@pytest.mark.parametrize("count, decay", [(1, 2 / 11), (10, 11 / 20), (800, 801 / 810), (891, 0.99), (5000, 0.99)])
def test_the_average_spans_100_steps_at_most(count, decay):
    """Early in a run it forgets faster, by (1 + n) / (10 + n)."""
    average, current = [torch.tensor([3.0])], [torch.tensor([7.0])]
    moving_average(average, current, torch.tensor(count))
    assert average[0].item() == pytest.approx(decay * 3 + (1 - decay) * 7, rel=1e-5)


def test_the_averaged_network_is_apart_and_in_eval_mode():
    """It is not the network that is trained, and it does not share its weights."""
    network = toy()
    training = Training(network, toy_loss, 20, lr=0.1)
    run(training)
    assert not training.averaged.training and network.training
    assert training.averaged is not network and not torch.equal(training.averaged.weight, network.weight)


def test_steps_are_counted_from_one_and_the_rest_is_known():
    """Whoever leaves the loop may iterate again, and the run goes on from there."""
    training = Training(toy(), toy_loss, 5, lr=0.1)
    assert len(training) == 5
    seen = []
    for step, loss in training:
        seen.append(step)
        assert isinstance(loss, float)
        if step == 2:
            break
    assert len(training) == 3
    seen += [step for step, _ in training]
    assert seen == [1, 2, 3, 4, 5] and len(training) == 0 and list(training) == []


def test_a_break_changes_no_bit():
    """To leave the loop and to iterate again is to iterate once."""
    whole, broken = (Training(toy(), toy_loss, 6, lr=0.1) for _ in range(2))
    run(whole)
    for step, _ in broken:
        if step == 2:
            break
    run(broken)
    assert same(broken.state_dict(), whole.state_dict())


def test_equal_seeds_train_equal_networks():
    """The seed decides the run, whatever the global generator does."""

    def trained(**options):
        training = Training(toy(), toy_loss, 5, lr=0.1, **options)
        run(training)
        return training.averaged.state_dict()

    first = trained()
    torch.rand(1)
    assert same(first, trained(seed=0)) and not same(first, trained(seed=1))


@pytest.mark.parametrize("what", ["base", "edge", "palette", "pose"])
def test_a_run_that_was_saved_and_loaded_equals_one_without_a_break(what, make_base):
    """Planned for 4 steps, left after 2, loaded by another network: all is equal to the last bit."""
    base = lock(make_base(SMALL, torch.float32))

    def four(generator):
        return random_batch(4, generator)

    def training(seed):
        if what == "base":
            return Training(make_base(SMALL, torch.float32, seed), lambda *given: base_loss(*given, four), 4, lr=1e-2)
        network = fill_zeros(seeded(seed, ControlNet, base, 3 if what == "palette" else 1), seed)
        return Training(network, control_loss(base, what, next_batch=four), 4, lr=1e-2)

    whole, broken, other = training(0), training(0), training(1)
    losses = run(whole)
    for step, _ in broken:
        if step == 2:
            break
    other.load_state_dict(copy.deepcopy(broken.state_dict()))
    assert run(other) == losses[2:]
    assert same(other.state_dict(), whole.state_dict())


def test_a_network_with_locked_or_unused_parameters_is_trained_and_goes_on():
    """The optimiser knows no moments of these; a state without them is loaded all the same."""

    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = toy(), toy(seed=1)
            self.locked = lock(toy(seed=2))

        def forward(self, x):
            return self.locked(self.used(x))

    def loss(network, generator):
        return (network(torch.rand(4, 4, generator=generator)) - 1).square().mean()

    whole, broken, other = (Training(Partly(), loss, 4, lr=0.1) for _ in range(3))
    run(whole)
    next(iter(broken))
    other.load_state_dict(broken.state_dict())
    run(other)
    assert same(other.state_dict(), whole.state_dict())
    assert same(whole.network.locked.state_dict(), toy(seed=2).state_dict())
    assert not same(whole.network.used.state_dict(), toy().state_dict())


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_the_run(what, value):
    """With NaN or infinity nothing is changed: neither the weights, nor their average, nor the count."""
    network, first = toy(), True

    def broken(network, generator):
        if first:
            return toy_loss(network, generator)
        if what == "loss":
            return toy_loss(network, generator) * float(value)
        slope = 1 if value == "inf" else 0  # a root's slope at 0 is infinite; times 0 it is NaN
        weight = network.weight
        return (slope * (weight - weight.detach())).sum().sqrt()

    training = Training(network, broken, 6, lr=0.1)
    next(iter(training))
    before, first = copy.deepcopy(training.state_dict()), False
    with pytest.raises(Problem, match=value):
        run(training)
    after = training.state_dict()
    assert all(same(before[part], after[part]) for part in before if part != "generator")


@pytest.mark.parametrize("steps", [0, -1, 2.5, "3", None])
def test_a_length_that_is_no_number_of_steps_is_a_problem(steps):
    with pytest.raises(Problem, match="steps"):
        Training(toy(), toy_loss, steps, lr=0.1)


@pytest.mark.parametrize("lr", [0, -0.1, math.inf, math.nan])
def test_a_rate_that_is_no_positive_number_is_a_problem(lr):
    with pytest.raises(Problem, match="learning rate"):
        Training(toy(), toy_loss, 3, lr=lr)


def test_a_locked_network_is_a_problem():
    """There is nothing to train."""
    with pytest.raises(Problem, match="locked"):
        Training(lock(toy()), toy_loss, 3, lr=0.1)


# %% New networks


def test_seeded_depends_on_its_seed_alone():
    """The global generator goes on as if nothing had been built."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = seeded(5, nn.Linear, 3, 2, bias=False)
    assert torch.equal(torch.random.get_rng_state(), before) and first.bias is None
    torch.manual_seed(2)
    assert torch.equal(seeded(5, nn.Linear, 3, 2, bias=False).weight, first.weight)
    assert not torch.equal(seeded(6, nn.Linear, 3, 2).weight, first.weight)


@pytest.mark.parametrize("change", [lambda net: net.append(nn.Linear(2, 2)), lambda net: net.__setitem__(0, nn.Linear(2, 2))])
def test_a_network_that_was_changed_needs_a_new_training(change):
    """The optimiser holds the parameters of the network as it was."""
    network = nn.Sequential(nn.Linear(2, 2))
    training = Training(network, lambda net, generator: net(torch.ones(1, 2)).square().mean(), steps=3, lr=1e-2)
    change(network)
    with pytest.raises(Problem, match="make a new Training"):
        next(iter(training))


@pytest.mark.parametrize("change, said", [
    (lambda batch: batch._replace(x0=batch.image * 255), "in \\[-1, 1\\]"),
    (lambda batch: batch._replace(prompt=["red star"]), "as tokenize makes"), (tuple, "returned a tuple"),
    (lambda batch: batch._replace(scenes=None), "has no scenes")])
def test_a_batch_that_no_training_can_use_is_a_problem(change, said, make_base):
    base = make_base(dtype=torch.float32)
    loss = control_loss(base, "pose", next_batch=lambda generator: change(random_batch(2, generator)))
    with pytest.raises(Problem, match=said):
        loss(ControlNet(base, 3), torch.Generator())


def test_pictures_in_the_range_of_images_are_told(make_base):
    with pytest.warns(UserWarning, match="image \\* 2 - 1"):
        base_loss(make_base(dtype=torch.float32), torch.Generator(), next_batch=lambda generator: (
            batch := random_batch(2, generator))._replace(x0=batch.image))


def test_a_rate_without_bounds_is_a_problem():
    """One step of it would leave weights that are not finite, and no further step would find them."""
    with pytest.raises(Problem, match="learning rate"):
        Training(nn.Linear(2, 2), lambda net, generator: net.weight.sum(), 1, lr=1e38)


# %% What students do with a Training


def tiny_training(seed=0, steps=6, loss=None):
    network = seeded(seed, nn.Linear, 4, 4)
    return Training(network, loss or noisy_loss, steps, lr=1e-2)


def noisy_loss(network, generator):
    return (network(torch.rand(4, 4, generator=generator)) - 1).square().mean()


def losses_of(training):
    return [loss for _, loss in training]


def test_a_state_can_be_loaded_again_and_again():
    """Training on must not change the caller's copy, as it would if the optimiser went on in its tensors."""
    training = tiny_training()
    for step, _ in training:
        if step == 3:
            break
    state = training.state_dict()
    rest = losses_of(training)
    for _ in range(3):
        again = tiny_training(seed=1)
        again.load_state_dict(state)
        assert losses_of(again) == rest


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_step_that_was_interrupted_begins_anew(error):
    """A notebook's stop button may raise inside the loss, after it has used the generator."""
    asked = []

    def interrupted(network, generator):
        asked.append(1)
        loss = noisy_loss(network, generator)
        if len(asked) == 3:
            raise error
        return loss

    training = tiny_training(loss=interrupted)
    losses = []
    with pytest.raises(error):
        for _, loss in training:
            losses.append(loss)
    assert losses + losses_of(training) == losses_of(tiny_training())


def test_length_and_rate_of_a_run_are_fixed():
    """The optimiser and the schedule hold them as well, and a new number would not reach these."""
    training = tiny_training()
    for name in ("lr", "steps"):
        with pytest.raises(AttributeError, match="no setter|can't set"):
            setattr(training, name, 1)


def test_threads_build_the_networks_of_their_seeds():
    """They share torch's global generator."""
    def build(seed):
        return seeded(seed, nn.Linear, 64, 64).weight

    wanted = [build(seed) for seed in range(16)]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(build, range(16)))
    assert all(map(torch.equal, found, wanted)) and torch.equal(torch.get_rng_state(), before)


def test_a_network_may_build_another_one_from_a_seed():
    assert seeded(0, lambda: nn.Sequential(seeded(1, nn.Linear, 4, 4)))[0].weight.equal(seeded(1, nn.Linear, 4, 4).weight)


def test_a_seed_means_the_same_for_every_default_dtype():
    """Half of the numbers that float64 would take from the generator."""
    def drawn():
        generator = torch.Generator().manual_seed(0)
        batch = random_batch(2, generator)
        t, eps = random_times_and_noise(batch.x0, generator)
        rough = roughen(detect_edges(batch.image.float()), generator)
        return [batch.image.float(), t, eps, rough, seeded_noise(1, 0), held_out(1)[1]]

    wanted = drawn()
    torch.set_default_dtype(torch.float64)
    try:
        found = drawn()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, wanted, strict=True))


def test_batches_that_come_to_an_end_are_told(base):
    batches = iter([random_batch(2, torch.Generator().manual_seed(0))])
    training = Training(ControlNet(base), control_loss(base, "edge", next_batch=lambda generator: next(batches)), 2, lr=1e-3)
    with pytest.raises(Problem, match="has no more batches"):
        losses_of(training)


def test_pictures_that_are_changed_without_their_image_are_told(base, recwarn):
    """The edges are detected in the image, so they would belong to other pictures than x0."""
    def flipped(generator):
        batch = random_batch(2, generator)
        return batch._replace(x0=batch.x0.flip(0))

    def both(generator):
        batch = random_batch(2, generator)
        return batch._replace(x0=batch.x0.flip(-1), image=batch.image.flip(-1), mask=batch.mask.flip(-1))

    control_loss(base, "edge", next_batch=both)(ControlNet(base), torch.Generator().manual_seed(0))
    assert not recwarn
    with pytest.warns(UserWarning, match="shows other pictures than its image"):
        control_loss(base, "edge", next_batch=flipped)(ControlNet(base), torch.Generator().manual_seed(0))
