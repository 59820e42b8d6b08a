"""Public functions refuse in one sentence what would otherwise be silently wrong."""

import numpy as np
import pytest
import torch

from minicontrolnet import (Control, ControlNet, Training, condition_of, control_window, ddim, ddim_steps, ddpm_step,
                            describe, detect_edges, drop_words, guided, mask_controls, noise_loss, q_sample,
                            random_batch, render, sample, sample_steps, seeded, seeded_noise, stick_figure, tokenize,
                            weigh)
from minicontrolnet.errors import Problem

NAN = float("nan")


@pytest.fixture(scope="module")
def batch():
    return random_batch(2, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def noise():
    return seeded_noise(2, 0)


@pytest.fixture
def control(base):
    return seeded(0, ControlNet, base)


@pytest.fixture(scope="module")
def edges(batch):
    return detect_edges(batch.image)


# %% Numbers


@pytest.mark.parametrize("low, high", [(NAN, 0.3), (0.5, 0.1), (-1, 0.3), (0.1, float("inf")), ("a", 0.3)])
def test_thresholds_of_edges_rise_from_0_to_1(batch, low, high):
    with pytest.raises(Problem, match="give a number from"):
        detect_edges(batch.image, low, high)


def test_a_picture_of_one_pixel_has_no_edges_to_detect():
    with pytest.raises(Problem, match="at least 2x2"):
        detect_edges(torch.rand(1, 3, 1, 1))


@pytest.mark.parametrize("size", [0, -4, 63.5, True])
def test_a_size_is_a_whole_number(batch, size):
    with pytest.raises(Problem, match="whole number"):
        render(batch.scenes, size)


def test_whole_numbers_of_numpy_are_whole_numbers():
    assert torch.equal(seeded_noise(np.int64(2), np.int64(3)), seeded_noise(2, 3))


@pytest.mark.parametrize("seed", ["0", None, 1.0, True, 2**64, -(2**63) - 1])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(Problem, match="the seed is"):
        seeded_noise(2, seed)


@pytest.mark.parametrize("share", [NAN, 2.0, -0.1, True, "1"])
def test_shares_of_dropped_words_go_from_0_to_1(batch, share):
    with pytest.raises(Problem, match="from 0 to 1"):
        drop_words(batch.prompt, torch.Generator(), share, 0.0)


@pytest.mark.parametrize("start, end", [(NAN, 1.0), (-1, 1.0), (0.0, 2), ("0", 1.0), (0.0, True)])
def test_the_window_of_control_lies_from_0_to_1(start, end):
    with pytest.raises(Problem, match="from 0 to 1"):
        control_window(25, start, end)


@pytest.mark.parametrize("scale", [1e39, NAN, True, "2", None])
def test_guidance_is_a_finite_number(base, noise, scale):
    with pytest.raises(Problem, match="guidance_scale is"):
        sample(base, "star", noise, guidance_scale=scale, steps=1)


def test_numbers_of_numpy_are_numbers(base, noise):
    expected = sample(base, "star", noise, guidance_scale=2.5, steps=1)
    assert torch.equal(sample(base, "star", noise, guidance_scale=np.float32(2.5), steps=1), expected)


@pytest.mark.parametrize("no", ["no", None, 0])
def test_a_text_is_no_flag(base, batch, no):
    with pytest.raises(Problem, match="True or False"):
        guided(base, batch.prompt, in_both=no)


# %% Tokens and places


@pytest.mark.parametrize("tokens", [torch.zeros(1, 3), torch.full((1, 3), -1), torch.full((1, 3), 99),
                                    torch.ones(1, 3, dtype=torch.bool), torch.zeros(3, dtype=torch.long), [[0, 0, 0]]])
def test_only_tokens_are_described(tokens):
    with pytest.raises(Problem):
        describe(tokens)


def test_a_place_outside_of_the_picture_gives_no_empty_pose():
    with pytest.raises(Problem, match="outside"):
        stick_figure(torch.tensor([[32, 32]]), torch.tensor([[36, 16]]))  # pixels
    with pytest.raises(Problem, match="not finite"):
        stick_figure(torch.full((1, 2), NAN), torch.zeros(1, 2))
    with pytest.raises(Problem, match="same shape"):
        stick_figure(torch.zeros(1, 2), torch.zeros(2, 2))


# %% Your own condition


@pytest.mark.parametrize("condition", [lambda batch: None, lambda batch: batch.mask[:1],
                                       lambda batch: batch.mask > 0.5, lambda batch: batch.mask * NAN])
def test_a_function_returns_one_finite_condition_for_each_picture(batch, condition):
    with pytest.raises(Problem, match="the condition's function returned"):
        condition_of(condition, batch)


# %% Times and predictions


@pytest.mark.parametrize("t", [[-1, 0], [0, 1000], [0.0, 1.0], [True, False]])
def test_times_are_whole_numbers_from_0_to_999(batch, noise, t):
    with pytest.raises(Problem, match="times"):
        q_sample(batch.x0, torch.tensor(t), noise)


def test_a_negative_time_is_not_counted_from_the_end(noise):
    with pytest.raises(Problem, match="from -1"):
        ddpm_step(noise, noise, torch.tensor([-1, -1]), noise)


@pytest.mark.parametrize("times", [[0, 999], [1000, -1], [999, -2], [5, 5]])
def test_times_of_ddim_fall(noise, times):
    with pytest.raises(Problem, match="times that fall"):
        list(ddim_steps(lambda xt, t: xt, noise, times))


def test_times_of_ddim_may_be_an_iterator(noise):
    *_, (_, x0) = ddim_steps(lambda xt, t: xt, noise, iter([999, 500, -1]))
    *_, (_, expected) = ddim_steps(lambda xt, t: xt, noise, [999, 500, -1])
    assert torch.equal(x0, expected)


def test_a_prediction_is_never_broadcast(batch, noise):
    with pytest.raises(Problem, match="same shape"):
        ddim(lambda xt, t: xt[:1], noise, 2)
    with pytest.raises(Problem, match="same shape"):
        noise_loss(lambda xt, t: xt[:, :1], batch.x0, torch.tensor([5, 6]), noise, "eps")


def test_nan_never_becomes_a_picture(base, control, noise, edges):
    with pytest.raises(Problem, match="not finite"):
        ddim(lambda xt, t: xt * NAN, noise, 2)
    with pytest.raises(Problem, match="floating point"):
        ddim(lambda xt, t: xt, noise.long(), 2)
    strong = seeded(0, ControlNet, base)
    torch.nn.init.constant_(strong.zero_convs[0].bias, float("inf"))
    with pytest.raises(Problem, match="not finite"):
        sample(base, "star", noise, [(strong, edges)], steps=2)


# %% Controls


def test_controls_are_a_list_of_networks_with_conditions(base, control, noise, edges):
    for wrong in [None, Control(control, edges), (control, edges), {"edge": (control, edges)}, "edge", [control],
                  [(control,)], [(base, edges)], [("edge", edges)], [(control, edges, 1.0, None, None)]]:
        with pytest.raises(Problem, match="control"):
            sample_steps(base, "star", noise, wrong, steps=1)


def test_a_region_that_is_empty_is_told(base, control, noise, edges):
    with pytest.warns(UserWarning, match="region is 0 everywhere"):
        sample(base, "star", noise, [(control, edges, 1.0, torch.zeros(1, 1, 64, 64))], steps=1)


def test_networks_of_another_dtype_are_a_problem(base, control, noise, edges):
    with pytest.raises(Problem, match="both together"):
        sample(base, "star", noise, [(seeded(0, ControlNet, base).bfloat16(), edges)], steps=1)


def test_a_controlnet_is_no_base(control, noise):
    for wrong in (control, None):
        with pytest.raises(Problem, match="give a UNet"):
            sample(wrong, "star", noise, steps=1)
    with pytest.raises(Problem, match="give a UNet"):
        ControlNet(control)


def test_controls_may_be_an_iterator():
    maps = [torch.full((1, 1, 4, 4), float(i)) for i in range(13)]
    region = torch.ones(1, 1, 4, 4)
    for found in (weigh(iter(maps), 1.0), mask_controls(iter(maps), region)):
        assert [value.mean().item() for value in found] == list(range(13))


# %% Training


@pytest.mark.parametrize("loss", [lambda network, generator: 1.0, lambda network, generator: None,
                                  lambda network, generator: torch.ones(2, requires_grad=True),
                                  lambda network, generator: network.weight.sum().detach(),
                                  lambda network, generator: torch.ones((), requires_grad=True) * 2])
def test_a_loss_is_a_scalar_that_depends_on_the_network(loss):
    training = Training(torch.nn.Linear(1, 1), loss, 1, lr=1e-3)
    with pytest.raises(Problem, match="the loss"):
        next(iter(training))


@pytest.mark.parametrize("lr", ["1e-3", True, None, NAN])
def test_a_learning_rate_is_a_number(lr):
    with pytest.raises(Problem, match="the learning rate is"):
        Training(torch.nn.Linear(1, 1), lambda network, generator: None, 1, lr=lr)


def test_the_empty_prompt_is_described():
    assert describe(tokenize("")) == [""]
