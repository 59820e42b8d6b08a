# %% [markdown]
# # Lesson 01: How does a small UNet draw from noise, and what can words not say?
# DDPM (Ho et al. 2020), DDIM (Song et al. 2021). The paper: Sec. 1, Eq. 5. One minute.

# %%
import os
import sys
from statistics import fmean

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # this folder, also under python -P
import torch
from lesson import Lesson, load_pictures, load_results, table
from lesson.figures_01 import noising_and_sampling, one_prompt_many_poses, targets

from minicontrolnet import (ALPHA_BAR, ddim_times, difference, eps_from_x0, held_out, load_base,
                            load_classifier, pose_errors, q_sample, sample, sample_steps,
                            shapes_right, to_image, x0_from_eps)

lesson = Lesson("01_ddpm", steps=25, quick_steps=3, meaning="DDIM steps")
base = load_base(device=lesson.device)
guess = lesson.predict('Many pictures of "red star on blue", each from its own noise. They',
                       a="are alike: the prompt says it all",
                       b="agree in colours and shape; place, size and tilt differ",
                       c="agree in nothing")

# %% [markdown]
# ## Noise, and what is learned (Eq. 5)
# x0 is a picture, its values in [-1, 1]. eps is noise of the same shape: each value is
# drawn from a Gaussian. The time t, 0 to 999, tells how noisy their mixture xt is:
# alpha_bar, the share of the picture's variance that is left, falls from 1 to 0. The
# network sees xt, t and the prompt, and guesses eps; the loss is the mean square of
# what it misses. Training draws a picture, a time and noise, and lowers that. To guess
# eps is to guess the picture, too: solve the mixture for x0 (`x0_from_eps`).

# %%
truth, noise = held_out(8 if lesson.quick else 64, lesson.device)
prompt = truth.prompt
t = torch.full_like(prompt[:, 0], 500)
xt = ALPHA_BAR[500].sqrt() * truth.x0 + (1 - ALPHA_BAR[500]).sqrt() * noise
assert torch.allclose(xt, q_sample(truth.x0, t, noise), atol=1e-6)
with torch.no_grad():
    eps = base(xt, t, prompt)
missed = (eps - noise).square().mean()
print(f"At t = 500 eps is missed by {missed:.3f}; a guess of 0 misses {noise.square().mean():.2f}")

# %% [markdown]
# ## Drawing is guessing, again and again (DDIM)
# Start with noise alone. Guess the picture, mix that with the guessed noise for a
# smaller t, guess again. At first the mean of all that may come is the best guess.

# %%
times = ddim_times(lesson.steps)  # from 999 down to -1, the clean picture
states = [noise]
guesses = []
for xt, x0 in sample_steps(base, prompt, noise, guidance_scale=1, steps=lesson.steps):
    states.append(xt)
    guesses.append(x0)
drawn = to_image(x0)  # sample returns this

# %%
t, t_next = (torch.full_like(prompt[:, 0], time) for time in times[:2])
with torch.no_grad():
    eps = base(noise, t, prompt)
x0 = x0_from_eps(eps, noise, t).clamp(-1, 1)
xt = q_sample(x0, t_next, eps_from_x0(x0, noise, t))
assert torch.allclose(xt, states[1], atol=1e-4)  # the first step, by hand
lesson.save_figure(noising_and_sampling(
    truth.x0[3], noise[3], [xt[3] for xt in states], [x0[3] for x0 in guesses], times, prompt[3]),
    "_noising")

# %% [markdown]
# ## Guidance (Ho and Salimans 2022)
# One prompt in ten was empty in training, so the network can guess without one, too. Go
# from that guess to the one with the prompt, and beyond: eps_empty + scale (eps_prompt
# - eps_empty). Shapes get clearer; a few stars have four tips all the same.

# %%
classifier = load_classifier()
sharper = sample(base, prompt, noise, guidance_scale=2.5, steps=lesson.steps)
for scale, images in {1: drawn, 2.5: sharper}.items():
    right = shapes_right(images.cpu(), prompt.cpu(), classifier).float().mean()
    print(f"guidance {scale}: the prompt's shape in {right:.0%} of {len(noise)}")

# %% [markdown]
# ## What words cannot say (Sec. 1)
# A pose is place, size and tilt. How far are drawn stars from one that is upright and
# in the middle? Stars of the data are tilted by up to 23 degrees, 11 on average.

# %%
stars = sample(base, "red star on blue", noise, steps=lesson.steps)
scenes = truth.scenes
upright = scenes._replace(shape=torch.full_like(scenes.shape, 3),
                          angle=torch.zeros_like(scenes.angle),
                          centre=torch.zeros_like(scenes.centre))
tilt, place = pose_errors(stars, upright)
print(f"tilted by {tilt.mean():.0f} degrees, {place.mean():.0f} pixels from the middle")
lesson.reveal(guess, "b", because="the noise chooses what the prompt leaves open.",
              a="three words leave room for every place, size and tilt: see the figure.",
              c="the words are obeyed; only what they do not say is free.")
lesson.save_figure(one_prompt_many_poses(stars))

# %% [markdown]
# ## What to put out (a first reader may skip this)
# This base puts out x0, read as eps by one formula (`to_eps`); v is another way. An
# error d of x0 is one of d sqrt(alpha_bar / (1 - alpha_bar)) in eps: Eq. 5, all errors
# of eps alike, counts small t most, where a picture is nearly done. So v and x0 have
# weights of their own (`loss_weight`). And eps of a patch is 48 numbers of noise, to go
# through 32 channels. lessons/experiments/01_ddpm.py compares four, after steps that
# suffice for colours and not for shapes (by chance 0.25 are right).

# %%
record = load_results("01_ddpm")
arms = record["numbers"]
scores = ["error of eps", "colour accuracy", "shape accuracy"]
rows = [["puts out", *scores]]
for name, arm in arms.items():
    rows.append([name, *(f"{fmean(arm[score]):.3f}" for score in scores)])
table(rows)

# %%
sentences = []
for one, other in [("x0", "x0 by Eq. 5"), ("x0 by Eq. 5", "eps")]:
    for score in ["clean pixels", "colour accuracy"]:
        more = difference(arms[one][score], arms[other][score])
        sentences.append(f"{one} less {other}, {score}: {more}, {more.verdict}")
seeds = len(arms["x0"]["clean pixels"])
lesson.verdict(f"After {record['steps']} steps, {seeds} seeds:", *sentences)
right_colours = {name: fmean(arm["colour accuracy"]) for name, arm in arms.items()}
lesson.save_figure(targets(load_pictures("01_ddpm"), right_colours, record["steps"]), "_targets")
print("\nEXERCISES  01a, 01b, 01c: python lessons/exercises")
