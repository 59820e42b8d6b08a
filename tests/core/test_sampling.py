"""Using a ControlNet: weights, several at once, guidance, and sample() (Sec. 3.4)."""

import pytest
import torch

from minicontrolnet.diffusion import ALPHA_BAR, ddim_step
from minicontrolnet.errors import Problem
from minicontrolnet.sampling import (Control, compose, control_window, guess_mode_weights, guided,
                                     paper_weights, predictor, sample, sample_steps, seeded_noise, weigh)
from minicontrolnet.shapes import tokenize

WORDS = ["red star on blue", "circle"]


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b))


@pytest.fixture
def noise(inputs):
    """Noise (2, 3, 32, 32) in float64."""
    return inputs[0]


@pytest.fixture
def quick(base, noise):
    """sample() of two pictures in two steps, with the given controls and options."""

    def run(*controls, prompt=WORDS, **options):
        return sample(base, prompt, noise, controls, **{"steps": 2, **options})

    return run


@pytest.fixture
def counted(trained):
    """The trained ControlNet as a function that notes its conditions and times."""

    def call(xt, t, prompt, condition):
        call.times.append(t[0].item())
        call.conditions.append(condition)
        return trained(xt, t, prompt, condition)

    call.times, call.conditions = [], []
    return call


# %% Weights, and several ControlNets


def test_weigh_scales_each_control_by_its_own_number(trained, inputs, condition):
    """One number is 13 equal ones, and weights multiply."""
    controls = trained(*inputs, condition)
    weights = [i / 4 for i in range(13)]
    assert equal(weigh(controls, weights), [c * w for c, w in zip(controls, weights)])
    assert equal(weigh(controls, 0.5), weigh(controls, [0.5] * 13))
    assert equal(weigh(weigh(controls, 0.5), 2.0), controls)
    assert equal(weigh(controls, 1), controls)


def test_compose_adds_and_nothing_more(base, trained, inputs, condition):
    """One alone stays as it is, the order is free, and c + c is 2 c."""
    xt, t, prompt = inputs
    a, b = trained(xt, t, prompt, condition), trained(xt, t, prompt, 1 - condition)
    assert equal(compose(a), a) and equal(compose(a, b), compose(b, a))
    assert equal(compose(a, b), [x + y for x, y in zip(a, b)])
    assert equal(compose(a, a), weigh(a, 2.0))
    together = predictor(base, prompt, [Control(trained, condition), Control(trained, 1 - condition)])
    assert torch.equal(together(xt, t), base(xt, t, prompt, compose(a, b)))


def test_resolution_weights(base, inputs):
    """The paper's double from grid to grid; guess mode's grow evenly from 0.1 to 1."""
    xt, t, prompt = inputs
    grids = [h.shape[-1] for h in base.encoder(xt, base.embedding(t, prompt))]
    assert paper_weights() == [grids[0] / h for h in grids]
    assert (paper_weights()[0], paper_weights()[-1]) == (1, 8)
    guess = torch.tensor(guess_mode_weights(), dtype=torch.float64)
    assert len(guess) == 13 and guess[-1] == 1
    assert guess[0].item() == pytest.approx(0.1, abs=0.01)
    torch.testing.assert_close(guess[1:] * 0.825, guess[:-1])


@pytest.mark.parametrize("count", [1, 12, 14])
def test_wrong_numbers_of_weights_or_controls_raise(trained, inputs, condition, count):
    """Neither weigh nor compose drops or invents a control."""
    controls = trained(*inputs, condition)
    with pytest.raises(Problem, match=f"{count} weights for 13 controls"):
        weigh(controls, [1.0] * count)
    with pytest.raises(ValueError):
        compose(controls, (controls * 2)[:count])


# %% Predictor and guidance


def test_predictor_without_a_controlnet_is_the_base(base, inputs):
    """With a prompt alone, the model is the base."""
    xt, t, prompt = inputs
    assert torch.equal(predictor(base, prompt)(xt, t), base(xt, t, prompt))


def test_strength_0_is_the_base_and_1_the_plain_sum(base, trained, inputs, condition):
    """To the last bit, for one number and for 13; in between it is neither."""
    xt, t, prompt = inputs
    run = lambda *scale: predictor(base, prompt, [Control(trained, condition, *scale)])(xt, t)
    free = base(xt, t, prompt)
    plain = base(xt, t, prompt, trained(xt, t, prompt, condition))
    assert all(torch.equal(run(zero), free) for zero in (0, 0.0, [0.0] * 13))
    assert all(torch.equal(run(one), plain) for one in (1, 1.0, [1.0] * 13))
    assert torch.equal(run(), plain)
    assert not torch.isclose(run(0.5), plain).all()
    assert not torch.isclose(plain, free).all()


def test_a_strength_of_13_numbers_weighs_each_control(base, trained, inputs, condition):
    """Only the middle: as if the other 12 controls were 0."""
    xt, t, prompt = inputs
    controls = trained(xt, t, prompt, condition)
    middle = (*[0 * c for c in controls[:-1]], controls[-1])
    model = predictor(base, prompt, [Control(trained, condition, [0.0] * 12 + [1.0])])
    assert torch.equal(model(xt, t), base(xt, t, prompt, middle))


@pytest.mark.parametrize("in_both", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guided_has_control_in_the_conditional_branch(base, trained, inputs, condition,
                                                      scale, in_both):
    """It is eps_uncond + scale (eps_cond - eps_uncond), also where a branch is spared.

    With in_both, control is in the other branch, too.
    """
    xt, t, prompt = inputs
    for words in (prompt, 0 * prompt):
        for controls in ([Control(trained, condition)], []):
            uncond = predictor(base, 0 * prompt, controls if in_both else [])(xt, t)
            cond = predictor(base, words, controls)(xt, t)
            model = guided(base, words, controls, scale, in_both)
            torch.testing.assert_close(model(xt, t), uncond + scale * (cond - uncond))


# %% sample()


@pytest.mark.parametrize("in_both", [False, True])
def test_sample_is_ddim_written_out(base, trained, noise, condition, in_both):
    """Five steps by hand: guidance, x0 clipped to [-1, 1], its noise, the next time."""
    prompt, xt = tokenize(WORDS), noise
    alpha_bars = [ALPHA_BAR[t] for t in (999, 799, 599, 399, 199)] + [torch.tensor(1.0)]
    for t, now, then in zip((999, 799, 599, 399, 199), alpha_bars, alpha_bars[1:]):
        t = torch.tensor([t, t])
        cond = base(xt, t, prompt, trained(xt, t, prompt, condition))
        control = trained(xt, t, 0 * prompt, condition) if in_both else None
        uncond = base(xt, t, 0 * prompt, control)
        eps = uncond + 3.0 * (cond - uncond)
        x0 = ((xt - (1 - now).sqrt() * eps) / now.sqrt()).clamp(-1, 1)
        eps = (xt - now.sqrt() * x0) / (1 - now).sqrt()
        xt = then.sqrt() * x0 + (1 - then).sqrt() * eps
    controls = [(trained, condition)]
    pictures = sample(base, WORDS, noise, controls, 3.0, 5, in_both=in_both)
    torch.testing.assert_close(pictures, (xt + 1) / 2, rtol=0, atol=1e-9)
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert ((pictures > 0) & (pictures < 1)).float().mean() > 0.1  # not all is clipped


def test_prompts_may_be_a_text_a_list_or_tokens(quick):
    """One text for all pictures, a text for each, or tokens (n, 3)."""
    same = quick(prompt="red star on blue")
    assert torch.equal(same, quick(prompt=["red star on blue"] * 2))
    assert torch.equal(quick(), quick(prompt=tokenize(WORDS)))
    assert torch.equal(quick()[0], same[0])
    assert not torch.isclose(quick()[1], same[1]).all()


def test_a_condition_may_be_given_once_for_all_pictures(quick, trained, condition):
    """(1, c, h, w) is n times the same, and each picture has its own otherwise."""
    once, each = quick((trained, condition[:1])), quick((trained, condition))
    assert torch.equal(once, quick((trained, condition[[0, 0]])))
    assert torch.equal(once[0], each[0])
    assert not torch.isclose(once[1], each[1]).all()


@pytest.mark.parametrize("batch", [1, 2])
def test_pictures_do_not_depend_on_the_batch_size(base, trained, batch):
    """Three pictures with their own prompts and conditions, in batches with a rest."""
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(3, 3, 32, 32, generator=generator).double()
    controls = [(trained, torch.rand(3, 1, 32, 32, generator=generator).double())]
    words = ["star", "", "cyan circle on green"]
    run = lambda batch: sample(base, words, noise, controls, steps=3, batch=batch)
    assert (run(batch) - run(16)).abs().max() < 1e-5


def test_strength_weighs_in_sample(quick, trained, condition):
    """0 is the base to the last bit, 13 ones are no weights, two halves are a whole."""
    plain = quick((trained, condition))
    assert torch.equal(quick((trained, condition, 0.0)), quick())
    assert torch.equal(quick((trained, condition, [1.0] * 13)), plain)
    half = (trained, condition, 0.5)
    assert torch.equal(quick(half, half), plain)
    assert not torch.isclose(quick((trained, condition, paper_weights())), plain).all()


@pytest.mark.parametrize("in_both", [False, True])
def test_control_from_start_to_end_is_all_of_it(quick, trained, condition, in_both):
    """The shares 0 to 1 change no bit, and the two halves differ."""

    def run(start, end):
        return quick((trained, condition), in_both=in_both, control_start=start, control_end=end)

    assert torch.equal(run(0.0, 1.0), quick((trained, condition), in_both=in_both))
    assert not torch.isclose(run(0.5, 1.0), run(0.0, 0.5)).all()


@pytest.mark.parametrize("steps", [1, 3, 10, 16, 25, 80])
def test_control_lasts_from_its_start_to_its_end(steps):
    """Step i of n begins at the share i / n, and has control if that is at least the start and below the end."""
    for first in range(steps):
        for after in range(first + 1, steps + 1):
            assert control_window(steps, first / steps, after / steps) == (first, after)
    assert control_window(25, 0.28, 0.6) == (7, 15)
    assert control_window(4, 0.1, 0.6) == (1, 3)


@pytest.mark.parametrize("start, end", [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5), (0.6, 0.4), (0.55, 0.7)])
def test_a_window_without_a_step_is_a_problem(quick, trained, condition, start, end):
    """No step of two begins there, so the picture would have no control at all."""
    with pytest.raises(Problem, match="no step has control"):
        quick((trained, condition), control_start=start, control_end=end)


@pytest.mark.parametrize("in_both", [False, True])
def test_outside_of_its_window_sampling_is_that_of_the_base_with_guidance(base, trained, noise, condition, in_both):
    """Four steps by hand: the base's own, two with control, the base's own; guidance is in all of them."""
    tokens, times, xt = tokenize(WORDS), [999, 749, 499, 249, -1], noise
    for i, (now, later) in enumerate(zip(times, times[1:])):
        controls = [Control(trained, condition)] if i in (1, 2) else []
        t, t_next = torch.tensor([now, now]), torch.tensor([later, later])
        cond = predictor(base, tokens, controls)(xt, t)
        uncond = predictor(base, 0 * tokens, controls if in_both else [])(xt, t)
        xt, x0 = ddim_step(uncond + 3.0 * (cond - uncond), xt, t, t_next)
    pictures = sample(base, WORDS, noise, [(trained, condition)], 3.0, 4, in_both=in_both,
                      control_start=0.25, control_end=0.75)
    torch.testing.assert_close(pictures, (x0 + 1) / 2, rtol=0, atol=1e-9)


def test_sample_has_control_from_its_start_to_its_end(quick, counted, condition):
    """Steps 2 and 3 of 4 are those between a quarter and three quarters."""
    quick((counted, condition), steps=4, control_start=0.25, control_end=0.75)
    assert counted.times == [749, 499]
    assert all(torch.equal(seen, condition) for seen in counted.conditions)


@pytest.mark.parametrize("shape", [
    (2, 1, 64, 64), (2, 1, 32, 31),  # size
    (2, 3, 32, 32), (1, 3, 32, 32),  # channels
    (3, 1, 32, 32), (0, 1, 32, 32), (1, 32, 32), (32,),  # number
])
def test_a_condition_that_does_not_fit_gets_one_sentence(quick, trained, shape):
    """It names the shape that was given."""
    with pytest.raises(Problem) as caught:
        quick((trained, torch.zeros(shape, dtype=torch.float64)))
    message = str(caught.value)
    assert str(shape) in message and "\n" not in message


@pytest.mark.parametrize("prompt", [["star"] * 3, [], tokenize(["star"] * 3)])
def test_a_wrong_number_of_prompts_gets_one_sentence(quick, prompt):
    """It names both numbers."""
    with pytest.raises(Problem, match=f"{len(prompt)} prompts for 2 pictures"):
        quick(prompt=prompt)


def test_sampling_builds_no_graph(quick, trained, condition):
    """Also with a ControlNet in training, whose weights ask for gradients."""
    assert all(p.requires_grad for p in trained.parameters())
    assert not quick((trained, condition)).requires_grad


def test_steps_yield_the_way_to_the_picture(base, trained, noise, condition):
    """As many pairs as steps; sample returns the last picture; gradients are the consumer's own business."""
    controls = [(trained, condition)]
    found = list(sample_steps(base, WORDS, noise, controls, 3.0, steps=3))
    assert len(found) == 3 and all(xt.shape == x0.shape == noise.shape for xt, x0 in found)
    assert torch.equal(sample(base, WORDS, noise, controls, 3.0, steps=3), ((found[-1][1] + 1) / 2).clamp(0, 1))
    assert torch.equal(*found[-1]), "after the last step the state is the picture"
    assert not torch.isclose(*found[0]).all()


def test_noise_depends_on_its_seed_alone():
    """Equal seeds give equal noise, other seeds give others, and more pictures begin with the same ones."""
    torch.manual_seed(1)
    first = seeded_noise(2, seed=0)
    torch.manual_seed(2)
    assert first.shape == (2, 3, 64, 64) and torch.equal(seeded_noise(3, seed=0)[:2], first)
    assert not torch.isclose(seeded_noise(2, seed=1), first).all()
    assert abs(seeded_noise(16, 3).mean()) < 0.02 and abs(seeded_noise(16, 3).std() - 1) < 0.02


def test_the_weights_of_the_paper_and_of_guess_mode():
    """Sec. 3.4: 64 / h for Stable Diffusion's grids; the released code: 0.825 to the power 12 - i."""
    assert paper_weights() == [1] * 3 + [2] * 3 + [4] * 3 + [8] * 4
    assert guess_mode_weights() == pytest.approx([0.825**k for k in range(12, -1, -1)])
