# %% [markdown]
# # Lesson 01: How does a small UNet draw from noise, and what can words not say?
# DDPM (Ho et al. 2020), DDIM (Song et al. 2021). The paper: Sec. 1, Eq. 5. One minute.

# %%
from statistics import fmean

import torch
from _lesson import (load_pictures, load_results, options, predict, reveal, save_figure,
                     table, verdict)

from experiments.measured import apart
from minicontrolnet import (ALPHA_BAR, TIMESTEPS, describe, eps_from_x0, figures,
                            held_out, load_base, load_classifier, mask_of, pose_errors,
                            q_sample, sample, shapes_right, to_image, x0_from_eps)

args = options("01_ddpm", steps=25, quick_steps=3, meaning="DDIM steps")
base, record = load_base(device=args.device), load_results("01_ddpm")
guess = predict('Many pictures of "red star on blue", each from its own noise. They',
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
truth, noise = held_out(8 if args.quick else 64, args.device)
x0, prompt, t = truth.x0, truth.prompt, torch.full_like(truth.prompt[:, 0], 500)
xt = ALPHA_BAR[500].sqrt() * x0 + (1 - ALPHA_BAR[500]).sqrt() * noise
assert torch.allclose(xt, q_sample(x0, t, noise), atol=1e-6)
with torch.no_grad():
    missed = [(eps - noise).square().mean() for eps in (base(xt, t, prompt), 0)]
print("At t = 500 eps is missed by {:.3f}; a guess of 0 misses {:.2f}".format(*missed))

# %% [markdown]
# ## Drawing is guessing, again and again (DDIM)
# Start with noise alone. Guess the picture, mix that with the guessed noise for a
# smaller t, guess again. At first the mean of all that may come is the best guess.

# %%
times, xt, seen = torch.linspace(TIMESTEPS - 1, -1, args.steps + 1).round(), noise, []
for now, then in zip(times.long(), times.long()[1:]):
    t, t_next = torch.full_like(t, now), torch.full_like(t, max(then, 0))
    with torch.no_grad():
        x0 = x0_from_eps(base(xt, t, prompt), xt, t).clamp(-1, 1)
    seen.append(torch.stack([q_sample(truth.x0, t, noise)[3], xt[3], x0[3]]))
    xt = q_sample(x0, t_next, eps_from_x0(x0, xt, t)) if then >= 0 else x0
drawn = sample(base, prompt, noise, (), 1, args.steps)
assert torch.allclose(to_image(xt), drawn, atol=1e-4)  # that is what `sample` does
pick = torch.linspace(0, args.steps - 1, 7).round().int().tolist()
save_figure(figures.grid(
    to_image(torch.stack([seen[i] for i in pick], 1).flatten(0, 1)), 7,
    f'Drawing "{describe(prompt[3:4])[0]}": each guess leaves less open',
    [f"t = {times[i]:.0f}" for i in pick],
    ["a picture,\nnoised: xt", "drawing:\nxt", "guess\nof x0"]), "_noising")

# %% [markdown]
# ## Guidance (Ho and Salimans 2022)
# One prompt in ten was empty in training, so the network can guess without one, too. Go
# from that guess to the one with the prompt, and beyond: eps_empty + scale (eps_prompt
# - eps_empty). Shapes get clearer; a few stars have four tips all the same.

# %%
sharper, classifier = sample(base, prompt, noise, steps=args.steps), load_classifier()
for scale, images in (1, drawn), (2.5, sharper):
    right = shapes_right(images.cpu(), prompt.cpu(), classifier).float().mean()
    print(f"guidance {scale}: the prompt's shape in {right:.0%} of {len(noise)}")

# %% [markdown]
# ## What words cannot say (Sec. 1)
# A pose is place, size and tilt. How far are drawn stars from one that is upright and
# in the middle? Stars of the data are tilted by up to 23 degrees, 11 on average.

# %%
stars, scenes = sample(base, "red star on blue", noise, steps=args.steps), truth.scenes
upright = scenes._replace(shape=3 + 0 * scenes.shape, angle=0 * scenes.angle,
                          centre=0 * scenes.centre)
tilt, place = pose_errors(stars, upright)
print(f"tilted by {tilt.mean():.0f} degrees, {place.mean():.0f} pixels from the middle")
reveal(guess, "b", because="the noise chooses what the prompt leaves open.",
       a="three words leave room for every place, size and tilt: see the figure.",
       c="the words are obeyed; only what they do not say is free.")
figure, (left, right) = figures.plt.subplots(1, 2, width_ratios=[3, 2])
figures.show(left, stars[:8], 4, 'One prompt, "red star on blue" ...')
for mask in mask_of(stars[:6].cpu())[:, 0]:
    right.contour(mask, [0.5], colors=[f"C{len(right.collections)}"], linewidths=3)
right.set(title="... many poses (six outlines)", aspect="equal", xticks=[], yticks=[],
          xlim=(0, 63), ylim=(63, 0))
right.spines[:].set_visible(True)
save_figure(figure)

# %% [markdown]
# ## What to put out (a first reader may skip this)
# This base puts out x0, read as eps by one formula (`to_eps`); v is another way. An
# error d of x0 is one of d sqrt(alpha_bar / (1 - alpha_bar)) in eps: Eq. 5, all errors
# of eps alike, counts small t most, where a picture is nearly done. So v and x0 have
# weights of their own (`loss_weight`). And eps of a patch is 48 numbers of noise, to go
# through 32 channels. lessons/experiments/01_ddpm.py compares four, after steps that
# suffice for colours and not for shapes (by chance 0.25 are right).

# %%
arms, keys = record["numbers"], ("error of eps", "colour accuracy", "shape accuracy")
mean = {arm: [fmean(own[key]) for key in keys] for arm, own in arms.items()}
table([["puts out", *keys], *([k, *(f"{x:.3f}" for x in v)] for k, v in mean.items())])
verdict(f"After {record['steps']} steps, {len(arms['x0'][keys[0]])} seeds:", *(
    f"{a} less {b}, {key}: {it}, {it.verdict}"
    for a, b in (("x0", "x0 by Eq. 5"), ("x0 by Eq. 5", "eps"))
    for key in ("clean pixels", keys[1]) for it in [apart(arms[a][key], arms[b][key])]))
left = [f"{arm}\n{own[1]:.0%}" for arm, own in mean.items()]
save_figure(figures.grid(
    load_pictures("01_ddpm"), 6, f"Right colours after {record['steps']} steps",
    figures.captions(held_out(128)[0].prompt[:6]), left), "_targets")
print("\nEXERCISES  01a, 01b, 01c: python lessons/exercises")
