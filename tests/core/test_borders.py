"""Public functions refuse in one sentence what would otherwise be silently wrong."""

import copy
import functools
import itertools
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch

from minicontrolnet import (ConditionEncoder, Control, ControlNet, ShapeClassifier, Training, UNet, base_loss, cfg, compose, condition_of,
                            control_loss, control_window, ddim, ddim_step, ddim_steps, ddpm, ddpm_step, describe,
                            detect_edges, drop_words, eps_from_v, eps_from_x0, fingerprint, gap, guided, held_out, load_base, lock, loss_weight,
                            mask_controls, mask_iou, mask_of, noise_loss, palette, predictor, q_sample, random_batch, render, sample,
                            sample_steps, save_weights, seeded, seeded_noise, stick_figure, tip_of, to_image, tokenize, weigh,
                            x0_from_eps, zero_conv, zero_conv_gradients)
from minicontrolnet.conditions import roughen
from minicontrolnet.controlnet import OddRange
from minicontrolnet.measure.classifier import classifier_loss
from minicontrolnet.training import random_times_and_noise
from minicontrolnet.errors import Problem
from minicontrolnet.shapes import SHAPES, random_scenes

from conftest import fill_zeros

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


@pytest.mark.parametrize("seed", ["0", None, 1.0, True, 2**64, 2**32, 2**32 + 7, -1, np.uint64(2**63)])
def test_a_seed_is_a_whole_number_of_32_bits(seed):
    """torch's generator uses no more of it, so seed 2**32 + 7 would be seed 7."""
    with pytest.raises(Problem, match="the seed is"):
        seeded_noise(2, seed)
    with pytest.raises(Problem, match="the seed is"):
        seeded(seed, torch.nn.Linear, 1, 1)


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


@pytest.mark.parametrize("change, says", [({"colour": torch.tensor([-1, 0])}, "from 0 to 7"),
                                          ({"shape": torch.tensor([0, 4])}, "from 0 to 3"),
                                          ({"background": torch.tensor([99, 0])}, "from 0 to 7"),
                                          ({"radius": torch.tensor([-0.5, 0.5])}, "above 0"),
                                          ({"radius": torch.tensor([NAN, 0.5])}, "above 0"),
                                          ({"aspect": torch.tensor([0.0, 1.0])}, "above 0"),
                                          ({"angle": torch.tensor([NAN, 0.0])}, "not finite")])
def test_a_scene_that_cannot_be_painted_is_a_problem(batch, change, says):
    with pytest.raises(Problem, match=says):
        render(batch.scenes._replace(**change))


@pytest.mark.parametrize("generator", [None, 0, torch.Generator])
def test_chance_comes_from_a_generator(edges, generator):
    """With None torch would use its global generator, so nothing could be repeated."""
    with pytest.raises(Problem, match="the generator is"):
        random_batch(2, generator)
    with pytest.raises(Problem, match="the generator is"):
        roughen(edges, generator)
    with pytest.raises(Problem, match="the generator is"):
        drop_words(tokenize("star"), generator, 0.5, 0.5)
    with pytest.raises(Problem, match="the generator is"):
        random_times_and_noise(edges, generator)


@pytest.mark.parametrize("change", [lambda edges: edges * 255, lambda edges: edges * NAN, lambda edges: edges[0],
                                    lambda edges: edges.expand(-1, 3, -1, -1), lambda edges: edges.bool()])
def test_only_edge_maps_are_roughened(edges, change):
    with pytest.raises(Problem, match="the edge maps"):
        roughen(change(edges), torch.Generator())


def test_a_palette_is_that_of_a_picture_in_colour(batch):
    with pytest.raises(Problem, match="n, 3, h, w"):
        palette(batch.mask)


@pytest.mark.parametrize("pictures", [torch.full((1, 3, 4, 4), NAN), torch.full((1, 3, 4, 4), 200.0),
                                      torch.zeros(1, 3, 4, 4, dtype=torch.uint8), np.zeros((1, 3, 4, 4)), None])
def test_only_pictures_of_the_sampler_become_images(pictures):
    with pytest.raises(Problem, match="the pictures"):
        to_image(pictures)


def test_pictures_that_leave_the_range_a_little_are_clamped():
    assert to_image(torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5])).tolist() == [0, 0, 0.5, 1, 1]


# %% Your own condition


@pytest.mark.parametrize("condition", [lambda batch: None, lambda batch: batch.mask[:1],
                                       lambda batch: batch.mask > 0.5, lambda batch: batch.mask * NAN])
def test_a_function_returns_one_finite_condition_for_each_picture(batch, condition):
    with pytest.raises(Problem, match="the condition's function returned"):
        condition_of(condition, batch)


@pytest.mark.parametrize("condition", [lambda batch: batch.mask * 255, lambda batch: batch.x0])
def test_a_functions_condition_lies_from_0_to_1(batch, condition):
    with pytest.raises(Problem, match="values in .0, 1."):
        condition_of(condition, batch)


@pytest.mark.parametrize("condition", [lambda batch: torch.ones(2, 1, 65, 65), lambda batch: batch.mask[:, :0]])
def test_a_functions_condition_is_as_large_as_the_picture(batch, condition):
    with pytest.raises(Problem, match="2 pictures of 64 x 64"):
        condition_of(condition, batch)


def test_a_function_that_changes_its_batch_changes_nothing_else(shipped, batch):
    """It used to train on the changed pictures: this one on grey ones."""

    def changes(given):
        given.x0.zero_()
        given.prompt.zero_()
        given.scenes.centre.zero_()
        return given.mask

    before = copy.deepcopy(batch)
    assert torch.equal(condition_of(changes, batch), batch.mask)
    assert all(map(torch.equal, batch[:4], before[:4])) and all(map(torch.equal, batch.scenes, before.scenes))
    control = seeded(0, ControlNet, shipped.base)
    losses = []
    for kind in (changes, lambda given: given.mask):
        loss = control_loss(shipped.base, kind, next_batch=lambda generator: batch.map(lambda tensor: tensor.clone()))
        losses.append(loss(control, torch.Generator().manual_seed(0)).item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("change", [lambda images: images.movedim(1, -1), lambda images: images[:, :1]])
def test_edges_are_those_of_pictures_with_three_colours(batch, change):
    with pytest.raises(Problem, match="n, 3, h, w"):
        detect_edges(change(batch.image))


def test_a_condition_belongs_to_a_batch(batch):
    with pytest.raises(Problem, match="give a batch"):
        condition_of("edge", batch.image)


# %% Times and predictions


@pytest.mark.parametrize("t", [[-1, 0], [0, 1000], [0.0, 1.0], [True, False]])
def test_times_are_whole_numbers_from_0_to_999(batch, noise, t):
    with pytest.raises(Problem, match="times"):
        q_sample(batch.x0, torch.tensor(t), noise)


def test_there_is_a_time_for_each_picture(batch, noise):
    with pytest.raises(Problem, match="the times have the shape"):
        q_sample(batch.x0, torch.tensor([5, 6, 7]), noise)


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


def test_pictures_and_noise_are_never_broadcast(noise):
    t = torch.tensor([5, 6])
    one = noise[:1]
    for wrong in (lambda: q_sample(noise, t, one), lambda: q_sample(noise, t, 0.0),
                  lambda: noise_loss(lambda xt, t: xt, noise, t, one, "x0"),
                  lambda: ddim_step(one, noise, t, t - 1), lambda: ddim_step(one, noise, t, t - 1, clip=False),
                  lambda: ddpm_step(one, noise, t, noise), lambda: ddpm_step(noise, noise, t, one),
                  lambda: eps_from_v(one, noise, t), lambda: eps_from_x0(one, noise, t)):
        with pytest.raises(Problem, match="same shape"):
            wrong()


@pytest.mark.parametrize("x, weight, upstream", [((2, 3, 4, 4), (5, 3), (1, 5, 4, 4)),
                                                 ((2, 3, 4, 4), (5, 2), (2, 5, 4, 4)),
                                                 ((2, 3, 4, 4), (5, 3), (2, 5, 1, 1)),
                                                 ((2, 3, 4, 4), (5, 3, 1, 1), (2, 5, 4, 4))])
def test_gradients_by_hand_are_those_of_shapes_that_fit(x, weight, upstream):
    with pytest.raises(Problem, match="x, weight and upstream have the shapes"):
        zero_conv_gradients(torch.ones(x), torch.ones(weight), torch.ones(upstream))


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
    with pytest.warns(UserWarning, match="a region is black, or 0, everywhere"):
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


@pytest.mark.parametrize("n", [0, 1, 12, 14])
def test_there_are_13_controls(n):
    maps = [torch.ones(1, 1, 4, 4)] * n
    for use in (lambda: weigh(maps, 1.0), lambda: mask_controls(maps, torch.ones(1, 1, 4, 4))):
        with pytest.raises(Problem, match=f"there are {n} controls"):
            use()
    with pytest.raises(Problem, match="at least one ControlNet"):
        compose()


@pytest.mark.parametrize("t, prompt", [([5, 6, 7], "star"), ([5, 6], ["star"] * 3), (5, "star")])
def test_a_network_has_a_time_and_a_prompt_for_each_picture(base, control, noise, edges, t, prompt):
    for network, more in ((base, []), (control, [edges.double()])):
        with pytest.raises(Problem, match="times"):
            network(noise.double(), torch.tensor(t), tokenize(prompt), *more)


def test_a_network_takes_tokens_and_no_text(base, control, noise, edges):
    t = torch.tensor([5, 6])
    with pytest.raises(Problem, match="as tokenize makes them"):
        base(noise, t, "red star")
    with pytest.raises(Problem, match="as tokenize makes them"):
        control(noise, t, "red star", edges)


def test_one_time_and_one_prompt_are_those_of_all_pictures(base, noise):
    noise = noise.double()
    expected = base(noise, torch.tensor([5, 5]), tokenize(["star", "star"]))
    torch.testing.assert_close(base(noise, torch.tensor([5]), tokenize("star")), expected)


@pytest.mark.parametrize("change", [lambda e: e[:, :, :32], lambda e: torch.cat([e, e])])
def test_a_controlnet_has_a_condition_for_each_picture(control, noise, edges, change):
    control = control.float()
    with pytest.raises(Problem, match="conditions of the shape"):
        control(noise, torch.tensor([5, 6]), tokenize("star"), change(edges))


@pytest.mark.parametrize("use", [lambda base, control, batch: gap(base, control, "palette", n=2),
                                 lambda base, control, batch: predictor(base, batch.prompt, [(control, batch.image)])])
def test_a_condition_of_other_channels_is_told_wherever_it_is_given(base, control, batch, use):
    with pytest.raises(Problem, match="kind of condition that it was trained on"):
        use(base, control, batch)


@pytest.mark.parametrize("region", [torch.full((1, 1, 4, 4), 255.0), torch.full((1, 1, 4, 4), NAN),
                                    torch.ones(3, 1, 4, 4), torch.ones(1, 3, 4, 4)])
def test_a_region_is_a_mask_for_each_picture(region):
    with pytest.raises(Problem, match="region"):
        mask_controls([torch.ones(2, 1, 4, 4)] * 13, region)


def test_control_without_effect_is_told_by_both_samplers(base, control, noise, edges):
    for sampler in (sample, sample_steps):
        with pytest.warns(UserWarning, match="no effect") as told:
            sampler(base, "star", noise, [(control, edges)], guidance_scale=0, steps=1)
        assert told[0].filename == __file__  # the warning names the user's line


@pytest.mark.parametrize("given, wanted", [("pose", "edge"), ("edge", "pose")])
def test_a_condition_of_another_kind_is_told(shipped, batch, noise, given, wanted):
    base, control = shipped.base, shipped.controls[wanted]
    with pytest.warns(UserWarning, match=f"but the {wanted} ControlNet was trained"):
        sample(base, "", noise, [(control, condition_of(given, batch))], steps=1)


def small_square(side):
    """A filled white square (1, 1, 64, 64)."""
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 1 : side + 1, 1 : side + 1] = 1
    return mask


@pytest.mark.parametrize("change", [lambda batch: 1 - detect_edges(batch.image),
                                    lambda batch: (batch.mask > 0.5).float(),
                                    lambda batch: small_square(12)])
def test_an_edge_map_that_is_inverted_or_filled_is_told(shipped, batch, noise, change):
    with pytest.warns(UserWarning, match="inverted, or a filled shape"):
        sample(shipped.base, "", noise, [(shipped.controls["edge"], change(batch))], steps=1)


def test_thick_strokes_that_cross_are_no_filled_shape(shipped, recwarn):
    """Strokes of 4 pixels, and four of them meet in one point."""
    way = torch.arange(64)
    across, down = torch.meshgrid(way, way, indexing="ij")
    lines = [across - 32, down - 32, across - down, across + down - 64]
    star = torch.stack([line.abs() < 2 for line in lines]).any(0).float().view(1, 1, 64, 64)
    star[..., :20, :] = star[..., 44:, :] = 0
    sample(shipped.base, "", seeded_noise(1, 0), [(shipped.controls["edge"], star)], steps=1)
    assert not recwarn


@pytest.mark.parametrize("kind", ["edge", "pose", "palette"])
def test_a_condition_of_its_own_kind_is_not(shipped, batch, noise, kind, recwarn):
    sample(shipped.base, "", noise, [(shipped.controls[kind], condition_of(kind, batch))], steps=1)
    assert not recwarn


def test_numbers_are_checked_without_control_as_well(base, noise):
    with pytest.raises(Problem, match="control_start is -5"):
        sample(base, "star", noise, steps=1, control_start=-5)
    with pytest.raises(Problem, match="the noise has the type int64"):
        sample(base, "star", noise.long(), steps=1)


@pytest.mark.parametrize("build", [lambda: zero_conv(0), lambda: zero_conv("32"), lambda: ConditionEncoder(0, 32),
                                   lambda: ConditionEncoder(1, 0), lambda: UNet(c=0), lambda: UNet(c_emb=0)])
def test_a_network_has_channels(build):
    with pytest.raises(Problem, match="whole number of at least"):
        build()
    with pytest.raises(Problem, match="even number"):
        UNet(c_emb=7)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 99, "CPU", 1.5])
def test_a_device_that_is_not_there_is_a_problem(device):
    with pytest.raises(Problem, match="this machine has no device"):
        load_base(device=device)
    with pytest.raises(Problem, match="this machine has no device"):
        held_out(2, device)


# %% Training


def parabola(steps=2, lr=0.1, seed=0, size=2):
    """A training of a small network, which needs no pictures."""
    network = seeded(0, torch.nn.Linear, size, 1)
    return Training(network, lambda net, generator: net.weight.square().sum(), steps, lr=lr, seed=seed)


@pytest.mark.parametrize("other, wanted", [({"steps": 10}, "steps is 2, not 10"), ({"lr": 0.9}, "lr is 0.1, not 0.9"),
                                           ({"seed": 3}, "seed is 0, not 3"), ({"size": 3}, "another network")])
def test_a_state_belongs_to_the_run_that_saved_it(other, wanted):
    training = parabola(**other)
    before = copy.deepcopy(training.state_dict())
    started = parabola()
    next(iter(started))
    with pytest.raises(Problem, match=wanted):
        training.load_state_dict(started.state_dict())
    assert training.step == 0 and torch.equal(training.network.weight, before["network"]["weight"])


@pytest.mark.parametrize("part", ["network", "average", "optimiser", "schedule", "generator", "step"])
def test_a_state_is_complete(part):
    state = parabola().state_dict()
    del state[part]
    with pytest.raises(Problem, match=f"the state lacks {part};"):
        parabola().load_state_dict(state)
    for wrong in ({}, None, "run.pt"):
        with pytest.raises(Problem, match="the state lacks network, average"):
            parabola().load_state_dict(wrong)


def test_an_older_state_is_loaded():
    """It does not hold the arguments of its run."""
    started, whole, resumed = parabola(), parabola(), parabola()
    next(iter(started))
    state = started.state_dict()
    for name in ("steps", "lr", "seed"):
        del state[name]
    resumed.load_state_dict(state)
    assert [loss for _, loss in resumed] == [loss for _, loss in whole][1:]
    assert torch.equal(resumed.network.weight, whole.network.weight)


@pytest.mark.parametrize("network, kind", [(torch.nn.Linear(1, 1), "base"), (torch.nn.Linear(1, 1), "shapes"),
                                           (torch.nn.Linear(1, 1), "edge"), (UNet(widths=(32, 32, 32, 32)), "base"),
                                           (UNet(c=1), "base")])
def test_no_file_is_written_that_nothing_can_load(network, kind, tmp_path):
    with pytest.raises(Problem, match="give the network that belongs"):
        save_weights(network, kind, tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("prediction_type", ["eps", "v"])
def test_a_base_of_another_prediction_type_is_not_taken_for_ours(prediction_type, tmp_path):
    with pytest.raises(Problem, match=f"the base predicts {prediction_type}, but"):
        save_weights(UNet(prediction_type=prediction_type), "base", tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


def test_a_compiled_base_is_written(base, tmp_path):
    """torch.compile puts a prefix before each name, and load_base takes it away."""
    whole = load_base()
    save_weights(torch.nn.ModuleDict({"_orig_mod": whole}), "base", tmp_path / "base.pt")
    found = load_base(tmp_path / "base.pt").state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in whole.state_dict().items())


def test_a_state_does_not_change_when_training_goes_on():
    network = torch.nn.Linear(2, 1)
    training = Training(network, lambda net, generator: net.weight.square().sum(), 3, lr=0.1)
    next(iter(training))
    state = training.state_dict()
    before = copy.deepcopy(state)
    next(iter(training))
    assert not torch.equal(network.weight, before["network"]["weight"])
    assert torch.equal(state["network"]["weight"], before["network"]["weight"])
    assert torch.equal(state["average"]["module.weight"], before["average"]["module.weight"])
    moment = state["optimiser"]["state"][0]["exp_avg"]
    assert torch.equal(moment, before["optimiser"]["state"][0]["exp_avg"])


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


# %% Networks that cannot work, or do not fit each other


@pytest.mark.parametrize("widths", [(16, 32, 48, 48), (33, 64, 96, 96), (0, 0, 0, 0), (8, 8, 32), (8, 8, 8, 32.0)])
def test_widths_that_cannot_work_are_refused_when_the_unet_is_made(widths):
    with pytest.raises(Problem, match="width"):
        UNet(widths)


def test_other_widths_work():
    """Multiples of 8, and at the end of 32."""
    unet = UNet((24, 8, 40, 64))
    assert unet(torch.rand(2, 3, 64, 64), torch.tensor([1, 2]), tokenize(["", "star"])).shape == (2, 3, 64, 64)


def test_a_controlnet_for_other_channels_is_refused_in_training():
    base = UNet((8, 8, 8, 32), c_emb=8)
    with pytest.raises(Problem, match=r"has 3 channels and the ControlNet takes 1; .* ControlNet\(base, 3\)"):
        control_loss(base, "palette")(ControlNet(base), torch.Generator())
    assert control_loss(base, "palette")(ControlNet(base, 3), torch.Generator().manual_seed(0)) > 0


def test_a_loss_is_made_from_a_base_and_not_from_a_controlnet(control):
    with pytest.raises(Problem, match="the base is a ControlNet; give a UNet"):
        control_loss(control, "edge")


@pytest.mark.parametrize("change, says", [
    (lambda controls: controls[:12], "12 controls for 13 maps"),
    (lambda controls: [*controls, controls[0]], "14 controls for 13 maps"),
    (lambda controls: controls[::-1], "control 1 is of the shape .* from shallow to deep"),
    (lambda controls: [*controls[:12], None], "control 13 is NoneType"),
    (lambda controls: [torch.cat([control] * 2) for control in controls], "control 1 is of the shape"),
    (lambda controls: 3, "the controls are a int")])
def test_the_base_takes_13_controls_of_its_own_shapes(base, trained, inputs, condition, change, says):
    controls = trained(*inputs, condition)
    assert torch.equal(base(*inputs, (control for control in controls)), base(*inputs, controls))
    with pytest.raises(Problem, match=says):
        base(*inputs, change(controls))


def test_only_controls_of_the_same_base_are_composed(trained, inputs, condition):
    controls = trained(*inputs, condition)
    with pytest.raises(Problem, match="12 controls of one ControlNet and 13 of another"):
        compose(controls, controls[:12])


def test_guidance_compares_predictions_of_the_same_pictures(noise):
    """One prediction beside two pictures would be used for both, in either branch."""
    t = torch.tensor([500, 500])

    def whole(xt, t):
        return 0.5 * xt

    def first_alone(xt, t):
        return 0.25 * xt[:1]

    for branches in ((whole, first_alone), (first_alone, whole)):
        with pytest.raises(Problem, match="prediction has the shape"):
            cfg(*branches, 2.5)(noise, t)
    assert torch.equal(cfg(whole, lambda xt, t: 0.25 * xt, 2.0)(noise, t), 0.0 * noise)


@pytest.mark.parametrize("change, told", [
    (lambda edges: edges * 255, "from 0 to 255"), (lambda edges: edges * 2 - 1, "from -1 to 1"),
    (lambda edges: edges + NAN, "nan"), (lambda edges: edges.clone(), ""), (lambda edges: 1.001 * edges, "")])
def test_a_condition_in_another_range_is_told_wherever_it_enters(shipped, batch, noise, change, told):
    """``control`` is called directly here. It still works: some experiments give it other ranges."""
    edges = change(detect_edges(batch.image))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        controls = shipped.controls["edge"](noise, torch.tensor([500, 500]), batch.prompt, edges)
        assert len(controls) == 13
    messages = [str(warning.message) for warning in seen if warning.category is OddRange]
    assert len(messages) == bool(told) and all(told in message for message in messages)
    assert all(warning.filename == __file__ for warning in seen), "it names the line that called the network"


def test_no_condition_of_the_package_is_in_another_range(shipped, noise):
    """Edges are 0 or 1, palettes are colours, and poses are shares of pixels, in every precision that works."""
    batch, t = random_batch(2, torch.Generator().manual_seed(5)), torch.tensor([500, 500])
    with warnings.catch_warnings():
        warnings.simplefilter("error", OddRange)
        for kind, control in shipped.controls.items():
            control(noise, t, batch.prompt, condition_of(kind, batch))
        half = copy.deepcopy(shipped.controls["palette"]).bfloat16()
        half(noise.bfloat16(), t, batch.prompt, condition_of("palette", batch).bfloat16())


def test_bytes_are_no_prompt():
    for wrong in (b"red star", bytearray(b"red star")):
        with pytest.raises(Problem, match="the prompt is (bytearray\\()?b'red star'"):
            tokenize(wrong)


def test_held_out_pictures_have_values():
    with pytest.raises(Problem, match='on the device "meta" have no values'):
        held_out(2, "meta")


@pytest.mark.parametrize("part", [slice(5, 5), slice(70, 80), 3, None])
def test_a_part_of_a_batch_holds_pictures(part):
    """An empty part would end in a mean of nothing, which is nan."""
    unet = UNet((8, 8, 8, 32), c_emb=8)
    losses = [lambda: base_loss(unet, torch.Generator(), part=part),
              lambda: control_loss(unet, "edge", part=part)(ControlNet(unet), torch.Generator()),
              lambda: classifier_loss(ShapeClassifier(), torch.Generator(), part=part)]
    for loss in losses:
        with pytest.raises(Problem, match="the part of a batch of (16|64) pictures is"):
            loss()


# %% Precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_not_trained(dtype):
    """In bfloat16 the first losses are nan, and in float16 they grow."""
    base = UNet((8, 8, 8, 32), c_emb=8)
    for network in (UNet((8, 8, 8, 32), c_emb=8).to(dtype), ControlNet(base).to(dtype)):
        with pytest.raises(Problem, match=f"the weights are in {str(dtype)[6:]}.* train in float32"):
            Training(network, base_loss, 1, lr=1e-3)
    with pytest.raises(Problem, match="the ControlNet is in float32 and the base in bfloat16"):
        control_loss(base.bfloat16(), "edge")(ControlNet(UNet((8, 8, 8, 32), c_emb=8)), torch.Generator())


def test_training_works_under_autocast(batch):
    """This is what the refusal of half precision advises. The first loss is that of float32, within 1 %."""
    losses = []
    for enabled in (False, True):
        unet = seeded(0, UNet, (8, 8, 8, 32), c_emb=8)
        training = Training(unet, lambda unet, generator: base_loss(unet, generator, lambda _: batch), 2, lr=1e-3)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append([loss for _, loss in training])
        assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in unet.parameters())
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.01) and losses[1][1] == pytest.approx(losses[0][1], rel=0.3)


def test_float16_is_refused_by_every_equation_and_bfloat16_samples(shipped, batch, noise):
    t = torch.tensor([999, 5])
    for call in (q_sample, eps_from_v, eps_from_x0):
        args = (noise, t, noise) if call is q_sample else (noise, noise, t)
        with pytest.raises(Problem, match="float16, which cannot hold alpha_bar"):
            call(*(x.half() if x.is_floating_point() else x for x in args))
    with pytest.raises(Problem, match="float16"):
        copy.deepcopy(shipped.base).half()(noise.half(), t, batch.prompt)
    with pytest.raises(Problem, match="float16"):
        sample(copy.deepcopy(shipped.base).half(), batch.prompt, noise, steps=2)
    base, edge = (copy.deepcopy(network).bfloat16() for network in (shipped.base, shipped.controls["edge"]))
    half = sample(base, batch.prompt, noise, [(edge, detect_edges(batch.image))], steps=4)
    assert mask_iou(mask_of(half.float()), batch.mask).mean() > 0.8


def test_bfloat16_computes_what_float32_does(shipped, batch, noise):
    """At clean times the noise estimate was infinite or nan, and the weight of the loss 0 instead of 0.0126."""
    base = copy.deepcopy(shipped.base).bfloat16()
    x0, eps = batch.x0.bfloat16(), noise.bfloat16()
    for times in ([0, 5], [12, 13], [20, 500], [900, 999]):
        t = torch.tensor(times)
        for call in (lambda a, b: q_sample(a, t, b), lambda a, b: eps_from_x0(a, b, t), lambda a, b: eps_from_v(a, b, t),
                     lambda a, b: x0_from_eps(a, b, t), lambda a, b: ddpm_step(a, b, t, a)):
            assert torch.allclose(call(x0, eps).float(), call(x0.float(), eps.float()), rtol=0.01, atol=0.01)
        assert torch.equal(loss_weight(t, x0, "x0"), loss_weight(t, batch.x0, "x0"))
        assert base(eps, t, batch.prompt).isfinite().all()
    x0_half, x0_full = (list(ddim_steps(predictor(network, batch.prompt), start, [8, -1]))[0][1]
                        for network, start in ((base, eps), (shipped.base, noise)))
    assert (x0_half - x0_full).abs().mean() < 0.01
    losses = [control_loss(network, "edge", next_batch=lambda generator: batch)(edge, torch.Generator().manual_seed(0))
              for network, edge in ((base, copy.deepcopy(shipped.controls["edge"]).bfloat16()),
                                    (shipped.base, shipped.controls["edge"]))]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=0.1)


# %% What is yielded, and what is not refused but right


@pytest.mark.parametrize("start", [0.0, 0.4])
def test_the_yielded_pictures_may_be_changed(base, control, noise, edges, start):
    """Bringing the noisy picture to [0, 1] in place used to spoil all later steps."""
    control = fill_zeros(control)
    used = [(control, edges)]
    expected = [x0.clone() for _, x0 in sample_steps(base, "star", noise, used, steps=5, control_start=start)]
    for i, (xt, x0) in enumerate(sample_steps(base, "star", noise, used, steps=5, control_start=start)):
        assert torch.equal(x0, expected[i])
        xt.add_(1).div_(2)
        x0.zero_()


def test_a_step_ends_at_a_time_from_minus_1(noise):
    for after in (-2, -500, 1000):
        with pytest.raises(Problem, match="give times from -1 to 999"):
            ddim_step(noise, noise, torch.tensor([10, 10]), torch.tensor([5, after]))


def test_soft_edge_maps_are_not_roughened(edges):
    with pytest.raises(Problem, match="values between 0 and 1; give 0 or 1"):
        roughen(edges * 0.5, torch.Generator())


def test_weights_of_control_may_be_fractions_and_arrays():
    maps = [torch.ones(1, 1, 4, 4)] * 13
    assert weigh(maps, Fraction(1, 2))[0].mean() == 0.5
    assert weigh(maps, np.arange(13))[12].mean() == 12


def test_tensors_without_values_are_told(shipped, batch, noise, edges):
    """Torch's own words would be "Tensor.item() cannot be called on meta tensors"."""
    base, meta = shipped.base, torch.device("meta")
    used = [(shipped.controls["edge"], edges.to(meta))]
    region = [(shipped.controls["edge"], edges, 1.0, edges.to(meta))]
    scale = [(shipped.controls["edge"], edges, torch.ones(13, device=meta))]
    for call in (lambda: sample(base, "star", noise.to(meta)), lambda: sample(base, "star", noise, used),
                 lambda: sample(base, "star", noise, region), lambda: sample(base, "star", noise, scale),
                 lambda: sample(base, batch.prompt.to(meta), noise), lambda: detect_edges(batch.image.to(meta)),
                 lambda: roughen(edges.to(meta), torch.Generator()), lambda: to_image(noise.to(meta)),
                 lambda: describe(batch.prompt.to(meta)), lambda: fingerprint({"a": noise.to(meta)}),
                 lambda: condition_of(lambda given: given.mask.to(meta), batch),
                 lambda: save_weights(copy.deepcopy(base).to(meta), "base", "never.pt")):
        with pytest.raises(Problem, match='on the device "meta", where tensors have no values'):
            call()
    with meta, pytest.raises(Problem, match='on the device "meta"'):
        sample(base, "star", noise)


def test_outlines_are_a_list_of_outlines(batch):
    expected = render(batch.scenes)[0]
    assert torch.equal(render(batch.scenes, outlines=iter(SHAPES.values()))[0], expected)
    with pytest.raises(Problem, match="SHAPES.values()"):
        render(batch.scenes, outlines=SHAPES)
    double = batch.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor).scenes
    assert (render(double)[0] - expected).abs().max() < 1e-3


def test_one_module_is_locked_at_a_time(base):
    for wrong in ([base], torch.nn.Parameter(torch.ones(2))):
        with pytest.raises(Problem, match="give one network at a time"):
            lock(wrong)


def test_controls_are_composed_one_by_one(inputs, base, control, condition):
    controls = control(*inputs, condition)
    with pytest.raises(Problem, match=r"compose\(one, other\)"):
        compose([controls, controls])


def test_options_of_control_without_controls_are_told(shipped):
    for option in ({"in_both": True}, {"control_start": 0.5}, {"control_end": 0.5}):
        with pytest.warns(UserWarning, match="no effect without controls"):
            sample(shipped.base, "red star", torch.zeros(1, 3, 64, 64), steps=2, **option)


# %% What is told once, and what is refused before anything is told


def test_guidance_of_0_is_told_once_wherever_it_is_given(base, control, noise, edges):
    control = fill_zeros(control)
    used = [(control, edges)]
    calls = {"guided": lambda: guided(base, tokenize("red star"), used, 0),
             "steps": lambda: list(sample_steps(base, "red star", noise, used, 0, steps=2)),
             "sample": lambda: sample(base, "red star", noise, used, 0, steps=2, batch=1)}
    for call in calls.values():
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            call()
        assert ["guidance scale 0" in str(warning.message) for warning in seen] == [True]
        assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guided(base, tokenize("red star"), used, 0, in_both=True)
    with pytest.warns(UserWarning, match="guidance scale 0"):
        found = sample(base, "red star", noise.double(), used, 0, steps=2)
    assert torch.equal(found, sample(base, "red star", noise.double(), guidance_scale=0, steps=2))


@pytest.mark.parametrize("options, says", [
    ({"guidance_scale": torch.tensor(0.0)}, r"tensor\(0.\), a Tensor; give a finite number, such as .item"),
    ({"guidance_scale": 0, "in_both": 0}, "in_both is 0"), ({"guidance_scale": 0, "steps": 2.0}, "steps is 2.0, a float"),
    ({"guidance_scale": 0, "control_start": "a"}, "control_start is 'a', a str"),
    ({"guidance_scale": 0, "control_start": 0.6, "control_end": 0.5}, "no step has control")])
def test_a_refusal_comes_before_every_warning(base, control, noise, edges, options, says):
    for sampler in (sample, sample_steps):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(Problem, match=says):
                sampler(base, "star", noise, [(control, edges)], **{"steps": 2, **options})


def test_a_refused_value_takes_one_line():
    for wrong in (torch.rand(20, 20), UNet((8, 8, 8, 32), c_emb=8)):
        with pytest.raises(Problem, match="give a number from 0 to 1") as told:
            control_window(5, wrong)
        assert "\n" not in str(told.value) and len(str(told.value)) < 160


# %% Shapes and types at each door


@pytest.mark.parametrize("wrong, says", [
    (lambda noise: noise[0], r"the noise is \(3, 64, 64\); give a tensor \(b, c, h, w\)"),
    (lambda noise: noise[None], r"the noise is \(1, 2, 3, 64, 64\)"), (lambda noise: noise[:0], r"the noise is \(0, 3"),
    (lambda noise: noise.numpy(), "the noise is ndarray"), (lambda noise: noise.long(), "the noise has the type int64")])
def test_samplers_name_the_noise(noise, wrong, says):
    for call in (lambda x: ddim(lambda xt, t: 0.1 * xt, x, 2), lambda x: ddpm(lambda xt, t: 0.1 * xt, x, torch.Generator())):
        with pytest.raises(Problem, match=says):
            call(wrong(noise))
    with pytest.raises(Problem, match="the generator is None"):
        ddpm(lambda xt, t: 0.1 * xt, noise, None)


@pytest.mark.parametrize("change", [lambda x: x[0], lambda x: x[None].expand(2, -1, -1, -1, -1), lambda x: (x * 100).byte(),
                                    lambda x: x.to(torch.complex64)])
def test_equations_are_those_of_batches_of_numbers(noise, change):
    """Three pictures without a batch axis became nine, and in bytes alpha_bar was 0."""
    x = change(noise)
    t = torch.arange(len(x)) + 5
    for call in (q_sample, lambda a, t, b: x0_from_eps(a, b, t), lambda a, t, b: eps_from_x0(a, b, t),
                 lambda a, t, b: eps_from_v(a, b, t)):
        with pytest.raises(Problem, match=r"give floating point values of the shape \(b, c, h, w\)"):
            call(x, t, x)


def test_times_of_one_byte_are_no_mask(noise):
    x, t = noise.double(), torch.tensor([5, 200])
    assert torch.equal(q_sample(x, t.byte(), x), q_sample(x, t, x))


@pytest.mark.parametrize("change", [torch.Tensor.bool, torch.Tensor.long, lambda x: x.to(torch.complex64)])
def test_a_prediction_is_a_floating_point_number(noise, change):
    with pytest.raises(Problem, match="the model predicted (bool|int64|complex64)"):
        ddim(lambda xt, t: change(xt), noise, 2)


def test_both_branches_of_guidance_have_one_type(noise):
    t = torch.tensor([5, 6])
    with pytest.raises(Problem, match="unconditional prediction in float64 on cpu and the conditional one in float32"):
        cfg(lambda xt, t: xt.double(), lambda xt, t: xt, 2.0)(noise, t)
    for scale in (NAN, "2", True, None, torch.rand(64)):
        with pytest.raises(Problem, match="guidance_scale is"):
            cfg(lambda xt, t: xt, lambda xt, t: xt, scale)(noise, t)


@pytest.mark.parametrize("change, says", [
    (lambda x: x.float(), "the pictures in float32 on cpu and the weights of the network in float64"),
    (lambda x: x.long(), "the pictures in int64"), (lambda x: x[0], "the pictures have the shape"),
    (lambda x: x[:, :1], "the pictures have the shape"), (lambda x: x.movedim(1, -1), "the pictures have the shape"),
    (lambda x: x[..., :60], "multiples of 32"), (lambda x: x[:0], "give at least one"),
    (lambda x: x.numpy(), "the pictures are a ndarray")])
def test_a_network_takes_pictures_of_its_own_form(base, control, noise, edges, change, says):
    t, prompt = torch.tensor([5, 6]), tokenize(["star", "red"])
    for network, more in ((base, ()), (control, (edges.double(),))):
        with pytest.raises(Problem, match=says):
            network(change(noise.double()), t, prompt, *more)


@pytest.mark.parametrize("change, says", [
    (lambda x: (255 * x).byte(), "the conditions in uint8"), (lambda x: x.float(), "the conditions in float32"),
    (lambda x: x.expand(-1, 3, -1, -1), r"of the shape \(1, h, w\)"), (lambda x: x[0], r"of the shape \(1, h, w\)"),
    (lambda x: x.movedim(1, -1), r"of the shape \(1, h, w\)"), (lambda x: x[:0], "give at least one"),
    (lambda x: x.numpy(), "the conditions are a ndarray"), (lambda x: None, "the conditions are a NoneType")])
def test_a_controlnet_takes_conditions_of_its_own_form(control, noise, edges, change, says):
    given = change(edges.double())
    with pytest.raises(Problem, match=says):
        control(noise.double(), torch.tensor([5, 6]), tokenize("star"), given)
    with pytest.raises(Problem, match=says):
        control.condition_encoder(given)


@pytest.mark.parametrize("t, prompt, says", [
    ([1500, 1400], "star", "give times from 0 to 999"), ([-5, 6], "star", "give times from 0 to 999"),
    ([5.0, 6.0], "star", "the times are float32"), ([True, False], "star", "the times are bool")])
def test_a_controlnet_refuses_the_times_that_its_base_refuses(control, noise, edges, t, prompt, says):
    """They used to give controls of times that are in no training."""
    with pytest.raises(Problem, match=says):
        control(noise.double(), torch.tensor(t), tokenize(prompt), edges.double())


@pytest.mark.parametrize("prompt", [[[99, 0, 0]], [[-1, 0, 0]], [[0.0, 0.0, 0.0]], [[True, False, True]]])
def test_a_network_takes_tokens_of_the_vocabulary(base, noise, prompt):
    with pytest.raises(Problem, match="token"):
        base(noise.double(), torch.tensor([5]), torch.tensor(prompt))


def test_a_decoder_takes_the_skips_of_its_encoder(base, inputs):
    xt, t, prompt = inputs
    emb = base.embedding(t, prompt)
    *skips, middle = base.encoder(xt, emb)
    expected = base.decoder(middle, skips, emb)
    assert torch.equal(base.decoder(middle, iter(skips), emb), expected)
    for wrong in (skips[::-1], skips[:5], [*skips, middle], [skip[:, :8] for skip in skips]):
        with pytest.raises(Problem, match="the skips have .* from shallow to deep"):
            base.decoder(middle, wrong, emb)


@pytest.mark.parametrize("change", [torch.Tensor.float, torch.Tensor.long, lambda control: control.detach().numpy()])
def test_controls_have_the_type_of_the_maps(base, trained, inputs, condition, change):
    with pytest.raises(Problem, match="control 1 (in|is) (float32|int64|ndarray)"):
        base(*inputs, [change(control) for control in trained(*inputs, condition)])


def test_controls_on_other_grids_are_not_composed():
    one, other = [torch.ones(2, 2, 4, 4)] * 13, [torch.ones(2, 2, 1, 1)] * 13
    with pytest.raises(Problem, match="controls of different shapes"):
        compose(one, other)
    assert compose(one, [control[:1] for control in one])[0].mean() == 2
    with pytest.raises(Problem, match="different shapes"):
        compose(one, [torch.cat([control] * 2) for control in one])


def test_a_class_is_no_network(base, noise, edges):
    with pytest.raises(Problem, match="the base is a type"):
        sample(UNet, "star", noise, steps=1)
    with pytest.raises(Problem, match="the network of a control is a type"):
        sample(base, "star", noise, [(ControlNet, edges)], steps=1)


@pytest.mark.parametrize("change", [
    {"colour": torch.tensor([1])}, {"colour": torch.tensor([[1], [2]])}, {"radius": torch.tensor([0.5])},
    {"centre": torch.zeros(1, 2)}, {"centre": torch.zeros(2, 3)}, {"angle": [0.0, 0.0]},
    {"colour": torch.tensor([1.0, 2.0])}, {"shape": torch.tensor([True, False])},
    {"radius": torch.tensor([float("inf"), 0.5])}, {"aspect": torch.tensor([float("inf"), 1.0])}])
def test_each_field_of_scenes_has_a_value_for_each_picture(batch, change):
    """A field of one scene was used for all."""
    for use in (render, tip_of):
        with pytest.raises(Problem, match="of a scene is|of the scenes is"):
            use(batch.scenes._replace(**change))


@pytest.mark.parametrize("outlines", [[], [(3, NAN, 1.0, 0.0)] * 4, [(0, 0.5, 1.0, 0.0)] * 4])
def test_an_outline_is_made_of_points(batch, outlines):
    with pytest.raises(Problem, match="SHAPES.values()"):
        render(batch.scenes, outlines=outlines)


@pytest.mark.parametrize("prompt", [torch.ones(3, dtype=torch.long), torch.ones(2, 1, dtype=torch.long),
                                    torch.ones(2, 3), "red star"])
def test_words_are_dropped_from_tokens(prompt):
    """One prompt without a batch axis became three."""
    with pytest.raises(Problem, match="the tokens are"):
        drop_words(prompt, torch.Generator(), 0.5, 0.5)


def test_a_batch_has_as_many_of_everything(shipped, batch):
    """One prompt, or the condition of one image, was used for all pictures."""
    base = UNet((8, 8, 8, 32), c_emb=8)
    for change in (batch._replace(prompt=batch.prompt[:1]), batch.map(lambda tensor: tensor[:0])):
        with pytest.raises(Problem, match="pictures x0 and . prompts"):
            base_loss(base, torch.Generator(), lambda generator: change)
    with pytest.raises(Problem, match="2 pictures x0 and 1 conditions"):
        control_loss(shipped.base, "edge", next_batch=lambda generator: batch._replace(image=batch.image[:1]))(
            shipped.controls["edge"], torch.Generator())


@pytest.mark.parametrize("step", [99, -1, "1", None])
def test_a_state_is_that_after_a_step_of_the_run(step):
    with pytest.raises(Problem, match="the state is that after step"):
        parabola().load_state_dict(parabola().state_dict() | {"step": step})


@pytest.mark.parametrize("lr", [1e30, 101, 0, -1])
def test_a_rate_that_no_weight_survives_is_refused(lr):
    with pytest.raises(Problem, match="the learning rate is"):
        parabola(lr=lr)
    assert parabola(lr=100).averaged.weight.isfinite().all()


def test_a_roughened_map_keeps_its_type(edges):
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        found = roughen(edges.to(dtype), torch.Generator().manual_seed(0))
        assert found.dtype == dtype
        assert torch.equal(found.float(), roughen(edges, torch.Generator().manual_seed(0)))


def test_noise_of_rand_is_told(shipped):
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="torch.randn"):
        sample(shipped.base, "red star", noise, steps=1)


def test_networks_and_controls_in_the_wrong_place_are_told(shipped):
    base, control = shipped.base, shipped.controls["edge"]
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(Problem, match="is a UNet; give a ControlNet"):
        control_loss(base, "edge")(base, generator)
    with pytest.raises(Problem, match="is a ControlNet; give a UNet"):
        base_loss(control, generator)
    for controls in (0.5, torch.rand(4, 1, 64, 64), control):
        with pytest.raises(Problem, match="give all 13"):
            weigh(controls, 1.0)


def test_one_odd_edge_map_among_good_ones_is_told(shipped):
    truth, noise = held_out(16)
    edges = detect_edges(truth.image)
    edges[3] = 1 - edges[3]
    with pytest.warns(UserWarning, match="is it inverted"):
        sample(shipped.base, "", noise, [(shipped.controls["edge"], edges)], steps=1)


def test_a_long_value_in_the_place_of_a_name_is_told_in_a_line():
    truth = held_out(4)[0]
    with pytest.raises(Problem) as problem:
        control_loss(UNet(), detect_edges(truth.image))
    assert "\n" not in str(problem.value)


# %% What users of other libraries do by habit


@pytest.mark.parametrize("start, end, steps, window", [(3 * 0.1, 0.4, 10, (3, 4)), (0.2, 3 * 0.1, 20, (4, 6)),
                                                       (1 / 3, 2 / 3, 3, (1, 2)), (2 / 3, 1, 3, (2, 3))])
def test_a_share_that_is_rounded_means_the_step_that_was_meant(start, end, steps, window):
    """3 * 0.1 is a little more than 0.3, so by the digits step 3 of 10 would begin before it."""
    assert control_window(steps, start, end) == window


def test_windows_that_meet_share_no_step_and_leave_none():
    for steps in (5, 7, 10, 20, 25, 49):
        for parts in (2, 3, 5):
            borders = torch.linspace(0, 1, parts + 1, dtype=torch.float64).tolist()
            windows = [range(*control_window(steps, *pair)) for pair in itertools.pairwise(borders)]
            assert [step for window in windows for step in window] == list(range(steps))


def test_noise_that_is_scaled_is_told(shipped, noise):
    """Other samplers begin with noise times 14.6."""
    with pytest.warns(UserWarning, match="a standard deviation of 14"):
        sample(shipped.base, "star", noise * 14.6, steps=1)


@pytest.mark.parametrize("kind", ["edge", "palette", "pose"])
@pytest.mark.parametrize("scale", [0, 1 / 255])
def test_a_condition_that_shows_nothing_is_told(shipped, batch, noise, kind, scale):
    """It was not filled, or is a mask of 0 and 1 that was saved as bytes and read as a picture."""
    condition = condition_of(kind, batch)
    condition[1] *= scale
    with pytest.warns(UserWarning, match="a condition is black everywhere"):
        sample(shipped.base, "", noise, [(shipped.controls[kind], condition)], steps=1)


def test_a_region_of_bytes_is_told(shipped, batch, noise):
    region = torch.ones(1, 1, 64, 64) / 255
    with pytest.warns(UserWarning, match="a region is black"):
        sample(shipped.base, "", noise, [(shipped.controls["edge"], detect_edges(batch.image), 1.0, region)], steps=1)


def test_steps_do_not_see_what_happens_to_their_inputs_later(shipped, batch, noise):
    """A buffer is often filled anew for the next picture."""
    edges = detect_edges(batch.image)
    region = torch.ones(1, 1, 64, 64)
    tokens = batch.prompt.clone()
    given = noise.clone()
    steps = sample_steps(shipped.base, tokens, given, [(shipped.controls["edge"], edges, 1.0, region)], steps=2)
    wanted = sample_steps(shipped.base, batch.prompt, noise, [(shipped.controls["edge"], edges.clone())], steps=2)
    for tensor in (edges, region, tokens, given):
        tensor.zero_()
    for (xt, _), (right, _) in zip(steps, wanted, strict=True):
        assert torch.allclose(xt, right, atol=1e-5)


@pytest.mark.parametrize("change, told", [
    ({"centre": torch.tensor([[32.0, 32.0], [20.0, 40.0]])}, "the centre of a scene lies outside"),
    ({"radius": torch.tensor([20.0, 0.5])}, "a radius of the scenes is 20"),
    ({"angle": torch.tensor([90.0, 0.0])}, "more than a full turn"),
    ({"radius": torch.tensor([0.5])}, r"the radius of the scenes is \(1,\)")])
def test_scenes_in_pixels_or_degrees_are_refused(change, told):
    scenes = random_scenes(2, torch.Generator().manual_seed(0))
    with pytest.raises(Problem, match=told):
        render(scenes._replace(**change))


def test_what_should_be_a_function_and_is_none_is_named(base, noise):
    half = torch.zeros(1, 3, 64, 64)
    calls = [lambda: cfg(half, half, 2.0), lambda: ddim(None, noise, 2), lambda: ddpm(None, noise, torch.Generator()),
             lambda: Training(base, torch.tensor(1.0), 2, lr=1e-3),
             lambda: list(Training(ControlNet(base), control_loss(base, "edge", next_batch=random_batch(
                 2, torch.Generator().manual_seed(0))), 1, lr=1e-3)),
             lambda: list(Training(seeded(0, UNet), functools.partial(base_loss, next_batch=3), 1, lr=1e-3))]
    for call in calls:
        with pytest.raises(Problem, match="give a function, such as"):
            call()


def test_classes_networks_and_counts_are_not_mistaken_for_each_other(base, noise):
    with pytest.raises(Problem, match="give a network, such as ControlNet"):
        Training(ControlNet, control_loss(base, "edge"), 2, lr=1e-3)
    with pytest.raises(Problem, match="give the class"):
        seeded(0, base)
    with pytest.raises(Problem, match="such as ddim_times"):
        list(ddim_steps(lambda xt, t: xt, noise, 25))
    with pytest.raises(Problem, match="the widths are a int"):
        UNet(widths=32)


def test_a_controlnet_that_is_trained_further_may_get_any_condition(shipped, batch, noise, recwarn):
    """So nothing says any more that it wants edges."""
    control = copy.deepcopy(shipped.controls["edge"]).requires_grad_(True)
    Training(control, control_loss(shipped.base, "pose"), 1, lr=1e-3)
    sample(shipped.base, "", noise, [(control, condition_of("pose", batch))], steps=1)
    assert not recwarn


def test_an_iterator_that_is_used_up_is_told(shipped, batch, noise):
    """The second of two calls would sample without control."""
    controls = zip([shipped.controls["edge"]], [detect_edges(batch.image)])
    sample(shipped.base, "", noise, controls, steps=1)
    with pytest.raises(Problem, match="an iterator that holds nothing"):
        sample(shipped.base, "", noise, controls, steps=1)
    sample(shipped.base, "", noise, [], steps=1)
