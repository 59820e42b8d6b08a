"""The diffusion mathematics against the papers' formulas, in float64."""

import math

import pytest
import torch

from torch.nn.functional import avg_pool2d

from minicontrolnet.diffusion import (ALPHA_BAR, SHIFT, TIMESTEPS, cfg, ddim, ddim_step, ddim_steps, ddim_times,
                                      ddpm, ddpm_step, eps_from_v, eps_from_x0, loss_weight, noise_loss, q_sample,
                                      shift, to_eps, x0_from_eps)
from minicontrolnet.errors import Problem

ALL = torch.arange(TIMESTEPS)


def noise(*size, seed=0, dtype=torch.float64):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def f(time):
    """Nichol and Dhariwal's f, with time in [0, 1]."""
    return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2


def snr(alpha_bar):
    """The signal-to-noise ratio."""
    return alpha_bar / (1 - alpha_bar)


# The schedule from its formulas alone: the cosine with beta at most 0.999, its logSNR lowered.
COSINE = [f((t + 1) / TIMESTEPS) / f(0) for t in range(TIMESTEPS - 1)]
COSINE.append(COSINE[-1] * 0.001)
SHIFTED = [1 / (1 + math.exp(2 * math.log(1.4) - math.log(snr(a)))) for a in COSINE]
# The variances of the single steps.
BETA = [1 - now / before for before, now in zip([1.0, *SHIFTED], SHIFTED)]


def close(a, b, rtol=1e-9, atol=1e-12):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=a.dtype).expand_as(a), rtol=rtol, atol=atol)


# %% The schedule and the jump to time t


def test_alpha_bar_is_the_cosine_schedule_with_its_log_snr_lowered():
    """logSNR is that of the cosine, f(t + 1) / f(0) with beta at most 0.999, less 2 ln 1.4."""
    close(ALPHA_BAR, SHIFTED)
    lower = snr(torch.tensor(COSINE, dtype=torch.float64)).log() - snr(ALPHA_BAR).log()
    close(lower, 2 * math.log(1.4))
    assert SHIFT == 1.4 and ALPHA_BAR.shape == (TIMESTEPS,) and ALPHA_BAR.dtype == torch.float64


@pytest.mark.parametrize("s", [1, 2, 3])
def test_means_of_s_times_s_pixels_are_as_noisy_as_small_pictures(s):
    """After shift(s), the mean of a block of s x s pixels has the SNR that a pixel had before.

    The mean keeps a block of one colour, and turns noise of covariance I into I / s^2.
    """
    side = 2 * s
    pixels = torch.eye(side**2, dtype=torch.float64).view(side**2, 1, side, side)
    mean = avg_pool2d(pixels, s).flatten(1)  # (pixels, blocks): one column a block
    of_colour, of_noise = mean.sum(0), mean.T @ mean  # a factor; a covariance of the 4 means
    close(of_colour, 1.0)
    close(of_noise, torch.eye(4, dtype=torch.float64) / s**2)
    alpha_bar = torch.tensor(COSINE, dtype=torch.float64)
    shifted = shift(alpha_bar, s)
    signal, variance = shifted * of_colour[0] ** 2, (1 - shifted) * of_noise[0, 0]
    close(signal / variance, snr(alpha_bar))


def test_shifts_add_up():
    """No shift is s = 1; there and back again is none; 2 and then 3 is 6."""
    alpha_bar = torch.tensor(COSINE, dtype=torch.float64)
    close(shift(alpha_bar, 1.0), alpha_bar)
    close(shift(shift(alpha_bar, 1.4), 1 / 1.4), alpha_bar)
    close(shift(shift(alpha_bar, 2), 3), shift(alpha_bar, 6))


def test_alpha_bar_falls_strictly_from_almost_1_to_almost_0():
    """The picture only ever fades: 1 > alpha_bar > 0, also when rounded to float32."""
    assert (ALPHA_BAR.float().diff() < 0).all()
    assert 0.9999 < ALPHA_BAR[0] < 1 and 0 < ALPHA_BAR[-1] < 1e-6


def test_jump_equals_the_chain_of_single_steps():
    """q_sample's mean factor and variance are those of t + 1 steps of Eq. 1, iterated."""
    mean, variance, means, variances = 1.0, 0.0, [], []
    for beta in BETA:
        mean, variance = mean * math.sqrt(1 - beta), variance * (1 - beta) + beta
        means.append(mean)
        variances.append(variance)
    one, zero = torch.ones(TIMESTEPS, 1, 1, 1, dtype=torch.float64), torch.zeros(TIMESTEPS, 1, 1, 1)
    close(q_sample(one, ALL, zero).flatten(), means)
    close(q_sample(zero.double(), ALL, one).flatten() ** 2, variances)


def test_each_picture_of_a_batch_has_its_own_time():
    """A batch noised at mixed times equals its pictures noised one by one."""
    x0, eps, t = noise(3, 3, 4, 4), noise(3, 3, 4, 4, seed=1), torch.tensor([0, 500, 999])
    one_by_one = [q_sample(x0[i : i + 1], t[i : i + 1], eps[i : i + 1]) for i in range(3)]
    assert torch.equal(q_sample(x0, t, eps), torch.cat(one_by_one))


# %% eps, v and x0


def test_eps_x0_and_v_invert_each_other():
    """From xt, each of the true x0 and v gives back the true eps, and eps the true x0."""
    x0, eps = noise(TIMESTEPS, 1, 2, 2), noise(TIMESTEPS, 1, 2, 2, seed=1)
    xt, root = q_sample(x0, ALL, eps), ALPHA_BAR.view(-1, 1, 1, 1).sqrt()
    v = root * eps - (1 - root**2).sqrt() * x0
    close(eps_from_x0(x0, xt, ALL), eps)
    close(eps_from_v(v, xt, ALL), eps)
    close(x0_from_eps(eps, xt, ALL), x0)
    for prediction_type, output in {"eps": eps, "x0": x0, "v": v}.items():
        close(to_eps(output, xt, ALL, prediction_type), eps)


def test_conversions_keep_working_in_float32_at_both_ends():
    """At the first and the last time, x0 -> eps -> x0 is stable without float64."""
    x0, eps = noise(2, 3, 4, 4).float(), noise(2, 3, 4, 4, seed=1).float()
    t = torch.tensor([0, TIMESTEPS - 1])
    xt = q_sample(x0, t, eps)
    back = x0_from_eps(eps_from_x0(x0, xt, t), xt, t)
    assert (back - x0)[0].abs().max() < 1e-5 and (back - x0)[1].abs().max() < 0.05


# %% The objective


@pytest.mark.parametrize("prediction_type, weight", [
    ("eps", torch.ones(TIMESTEPS, dtype=torch.float64)),
    ("v", torch.ones(TIMESTEPS, dtype=torch.float64)),
    ("x0", (1 / (1 - ALPHA_BAR)).clamp(max=20)),
])
def test_weighted_noise_error_is_the_error_of_what_the_network_predicts(prediction_type, weight):
    """An error d in the output costs d^2 for eps and v, and d^2 min(20, 1 / (1 - alpha_bar)) for x0."""
    output, xt, d = (noise(TIMESTEPS, 1, 1, 1, seed=seed) for seed in range(3))
    error = to_eps(output + d, xt, ALL, prediction_type) - to_eps(output, xt, ALL, prediction_type)
    weighted = loss_weight(ALL, xt, prediction_type) * error**2
    close(weighted.flatten(), weight * d.flatten() ** 2, rtol=1e-7)


@pytest.mark.parametrize("prediction_type", ["eps", "v", "x0"])
def test_noise_loss_is_the_weighted_mean_square(prediction_type):
    """A perfect model has loss 0; one that is off by d everywhere the mean weight times d^2."""
    x0, eps, t = noise(4, 3, 4, 4), noise(4, 3, 4, 4, seed=1), torch.tensor([0, 100, 500, 999])
    assert noise_loss(lambda xt, t: eps, x0, t, eps, prediction_type) == 0
    off = noise_loss(lambda xt, t: eps + 0.5, x0, t, eps, prediction_type)
    close(off, loss_weight(t, x0, prediction_type).mean() * 0.25)


def test_noise_loss_shows_the_model_the_noised_picture():
    """The model is called once, with q_sample(x0, t, eps) and t."""
    x0, eps, t, seen = noise(2, 3, 4, 4), noise(2, 3, 4, 4, seed=1), torch.tensor([3, 600]), []
    noise_loss(lambda *given: seen.append(given) or given[0], x0, t, eps, "eps")
    [(xt, time)] = seen
    assert torch.equal(xt, q_sample(x0, t, eps)) and torch.equal(time, t)


# %% Guidance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_guidance_is_exact_where_it_must_be(dtype):
    """Scale 0 is the one branch and scale 1 the other; equal branches stay as they are."""
    a, b = noise(2, 3, 8, 8, dtype=dtype), 5 * noise(2, 3, 8, 8, seed=1, dtype=dtype)
    run = lambda uncond, cond, scale: cfg(lambda *_: uncond, lambda *_: cond, scale)(None, None)
    assert torch.equal(run(a, b, 0.0), a)
    assert torch.equal(run(a, b, 1.0), b)
    for scale in (-2.0, 0.3, 0.5, 2.0, 7.5):
        assert torch.equal(run(a, a.clone(), scale), a)


@pytest.mark.parametrize("scale", [-2.0, 0.3, 2.0, 7.5])
def test_guidance_follows_its_formula(scale):
    """eps_uncond + scale (eps_cond - eps_uncond), both branches at the same xt and t."""
    xt, t = noise(2, 3, 4, 4), torch.tensor([1, 2])
    guided = cfg(lambda xt, t: xt + t.view(-1, 1, 1, 1), lambda xt, t: 3 * xt, scale)(xt, t)
    uncond = xt + t.view(-1, 1, 1, 1)
    close(guided, uncond + scale * (3 * xt - uncond))


# %% Samplers


def test_ddpm_step_is_algorithm_2():
    """Without clipping, each step is Ho et al.'s line 4 with sigma^2 = beta_t, at all times."""
    xt, eps, z = (noise(TIMESTEPS, 1, 2, 2, seed=seed) for seed in range(3))
    expected, alpha_bar = torch.empty_like(xt), 1.0
    for t, beta in enumerate(BETA):
        alpha, alpha_bar = 1 - beta, alpha_bar * (1 - beta)
        mean = (xt[t] - beta / math.sqrt(1 - alpha_bar) * eps[t]) / math.sqrt(alpha)
        expected[t] = mean + (math.sqrt(beta) * z[t] if t > 0 else 0)
    close(ddpm_step(eps, xt, ALL, z, clip=False), expected, rtol=1e-8)


@pytest.mark.parametrize("clip", [False, True])
def test_no_noise_is_added_at_the_last_step(clip):
    """At t = 0 the noise z has no say, and at t = 1 it has."""
    xt, eps, z = (noise(2, 3, 4, 4, seed=seed) for seed in range(3))
    changed = ddpm_step(eps, xt, torch.tensor([0, 1]), z, clip) != ddpm_step(
        eps, xt, torch.tensor([0, 1]), 2 * z, clip)
    assert not changed[0].any() and changed[1].all()


def test_ddpm_keeps_standard_normal_pictures_standard_normal():
    """With pictures of N(0, 1) the ideal eps is sqrt(1 - alpha_bar) xt; steps keep variance 1."""
    one = torch.ones(TIMESTEPS, 1, 1, 1, dtype=torch.float64)
    zero = torch.zeros_like(one)
    eps = (1 - ALPHA_BAR).sqrt().view(-1, 1, 1, 1)
    from_xt = ddpm_step(eps, one, ALL, zero, clip=False)
    from_z = ddpm_step(zero, zero, ALL, one, clip=False)
    close((from_xt**2 + from_z**2)[1:], 1.0)


def test_ddim_step_is_the_closed_form():
    """From t to t - 1: Song et al.'s Eq. 13, written as a factor of xt and one of eps."""
    xt, eps, t = noise(TIMESTEPS - 1, 1, 2, 2), noise(TIMESTEPS - 1, 1, 2, 2, seed=1), ALL[1:]
    now, then = (ALPHA_BAR[time].view(-1, 1, 1, 1) for time in (t, t - 1))
    of_eps = (1 - then).sqrt() - (then * (1 - now) / now).sqrt()
    expected = (then / now).sqrt() * xt + of_eps * eps
    close(ddim_step(eps, xt, t, t - 1, clip=False)[0], expected, rtol=1e-7, atol=1e-9)


def test_ddim_steps_with_the_true_noise_stay_on_the_path():
    """With the true eps, any stride leads from q_sample at t to that at t_next, and -1 is x0."""
    x0, eps = noise(3, 1, 4, 4).clamp(-1, 1), noise(3, 1, 4, 4, seed=1)
    t, t_next = torch.tensor([999, 500, 30]), torch.tensor([400, 499, -1])
    stepped, guess = ddim_step(eps, q_sample(x0, t, eps), t, t_next)
    close(stepped[:2], q_sample(x0, t_next.clamp(min=0), eps)[:2], rtol=1e-7, atol=1e-9)
    close(stepped[2], x0[2])
    close(guess, x0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 7, 25, TIMESTEPS])
def test_ddim_with_a_perfect_denoiser_returns_the_picture(steps):
    """A model that knows x0 samples x0 from any noise, in any number of steps."""
    x0 = noise(2, 3, 4, 4).clamp(-1, 1)
    sampled = ddim(lambda xt, t: eps_from_x0(x0, xt, t), noise(2, 3, 4, 4, seed=1), steps)
    close(sampled, x0, rtol=0, atol=1e-9)


def test_ddpm_with_a_perfect_denoiser_returns_the_picture():
    """A model that knows x0 samples x0 in all steps of Algorithm 2, whatever the noise."""
    x0 = noise(1, 1, 2, 2).clamp(-1, 1)
    perfect = lambda xt, t: eps_from_x0(x0, xt, t)
    sampled = ddpm(perfect, noise(1, 1, 2, 2, seed=1), torch.Generator().manual_seed(3))
    close(sampled, x0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 25, 999, TIMESTEPS])
def test_ddim_visits_as_many_falling_times_as_asked(steps):
    """The first time is the last of the schedule, and each is lower than the one before."""
    times = []
    ddim(lambda xt, t: times.append(t.unique().item()) or xt, noise(2, 1, 1, 1), steps)
    assert ddim_times(steps) == [*times, -1]
    assert len(times) == steps and times[0] == TIMESTEPS - 1 and times[-1] >= 0
    assert all(a > b for a, b in zip(times, times[1:]))


def test_clipping_comes_after_guidance():
    """Branches inside [-1, 1] are guided outside and clipped; branches outside are guided inside."""
    xt = noise(1, 3, 4, 4)
    knows = lambda x0: lambda xt, t: eps_from_x0(torch.full_like(xt, x0), xt, t)
    close(ddim(cfg(knows(-0.5), knows(0.5), 4.0), xt, 5), 1.0)  # -0.5 + 4 * 1 = 3.5
    close(ddim(cfg(knows(3.0), knows(1.7), 2.0), xt, 5), 0.4)  # 3 - 2 * 1.3 = 0.4


def test_the_clipped_picture_has_the_noise_that_fits_it():
    """A clipped step is the step of a model that said the clipped x0 itself."""
    xt, t, t_next = noise(2, 3, 4, 4), torch.tensor([800, 200]), torch.tensor([700, 100])
    wild = 3 * noise(2, 3, 4, 4, seed=1)
    clipped, guess = ddim_step(eps_from_x0(wild, xt, t), xt, t, t_next)
    tame, _ = ddim_step(eps_from_x0(wild.clamp(-1, 1), xt, t), xt, t, t_next, clip=False)
    close(clipped, tame)
    close(guess, wild.clamp(-1, 1))


@pytest.mark.parametrize("steps", [0, -1, TIMESTEPS + 1])
def test_ddim_refuses_steps_out_of_range(steps):
    """The message names the number."""
    with pytest.raises(Problem, match=f"{steps}"):
        ddim(lambda xt, t: xt, noise(1, 1, 1, 1), steps)


def test_times_are_rounded_to_the_nearest():
    """Seven steps divide 1000 times into equal strides, rounded to the nearest whole number."""
    assert ddim_times(7) == [round(999 - 1000 * i / 7) for i in range(8)]
    assert ddim_times(3) == [999, 666, 332, -1]


def test_samplers_build_no_graph():
    """A network that requires gradients is sampled without any."""
    weight = torch.ones(1, requires_grad=True)

    def model(xt, t):
        return weight * xt

    assert not ddim(model, noise(1, 1, 1, 1).float(), 2).requires_grad
    assert not ddpm(model, noise(1, 1, 1, 1).float(), torch.Generator().manual_seed(0)).requires_grad
    for xt, x0 in ddim_steps(model, noise(1, 1, 1, 1).float(), [999, 500, -1]):
        assert not xt.requires_grad and not x0.requires_grad
        assert torch.is_grad_enabled(), "the consumer of the steps may still compute gradients"


def test_ddpm_takes_its_noise_from_its_generator():
    """Equal seeds give equal pictures, other seeds give others, and the global generator stays as it was."""

    def run(seed):
        return ddpm(lambda xt, t: 0.1 * xt, noise(1, 1, 2, 2), torch.Generator().manual_seed(seed))

    before = torch.random.get_rng_state()
    first = run(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(run(0), first) and not torch.equal(run(1), first)


def test_ddpm_is_algorithm_2_written_out():
    """All steps with z from the generator. Every x0 is clipped, and the picture comes from the last step."""
    start, generator, again = noise(1, 1, 2, 2), torch.Generator().manual_seed(4), torch.Generator().manual_seed(4)
    xt = start
    for t in reversed(range(TIMESTEPS)):
        z = torch.randn(1, 1, 2, 2, generator=again, dtype=torch.float64)
        a, before = SHIFTED[t], SHIFTED[t - 1] if t else 1.0
        x0 = ((xt - math.sqrt(1 - a) * (0.5 * xt)) / math.sqrt(a)).clamp(-1, 1)
        eps = (xt - math.sqrt(a) * x0) / math.sqrt(1 - a)
        mean = (xt - (1 - a / before) / math.sqrt(1 - a) * eps) / math.sqrt(a / before)
        xt = mean + (math.sqrt(1 - a / before) * z if t else 0)
    close(ddpm(lambda xt, t: 0.5 * xt, start, generator), xt, rtol=1e-6, atol=1e-6)


def test_the_iterator_yields_every_state_and_its_picture():
    """Its pairs are those of ddim_step, one after another, and ddim returns the last picture."""
    xt = start = noise(2, 1, 4, 4)
    times = ddim_times(4)
    found = list(ddim_steps(lambda xt, t: 0.3 * xt, start, times))
    for (state, picture), now, later in zip(found, times[:-1], times[1:], strict=True):
        t = torch.tensor([now, now])
        xt, x0 = ddim_step(0.3 * xt, xt, t, torch.tensor([later, later]))
        assert torch.equal(state, xt) and torch.equal(picture, x0)
    assert torch.equal(ddim(lambda xt, t: 0.3 * xt, start, 4), found[-1][1])


@pytest.mark.parametrize("name", ["xo", "epsilon", "", "X0"])
def test_an_unknown_prediction_type_is_a_problem(name):
    """It is never read as one of the others."""
    t, x = torch.tensor([3]), noise(1, 1, 2, 2)
    with pytest.raises(Problem, match=f"{name!r}"):
        loss_weight(t, x, name)
    with pytest.raises(Problem, match=f"{name!r}"):
        to_eps(x, x, t, name)


def test_a_model_may_change_its_input():
    xt = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    before = xt.clone()
    assert torch.equal(ddim(lambda x, t: x.mul_(0.5), xt, 4), ddim(lambda x, t: x * 0.5, before, 4))
    assert torch.equal(xt, before)
