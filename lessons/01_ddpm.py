# %% [markdown]
# # Lesson 01: How does a small UNet draw from noise, and what can words not say?
# Noising and sampling: DDPM (Ho et al. 2020). The paper: Sec. 1, Eq. 5. Read
# minicontrolnet/diffusion.py. One minute.

# %%
import torch
from _lesson import options, predict, reveal, save_figure, save_results, table, verdict

from minicontrolnet import (SHAPES, UNet, base_loss, describe, figures, held_out,
                            load_base, mask_of, off_palette, paired, q_sample,
                            random_batch, random_times_and_noise, sample, seeded,
                            to_image, train, x0_from_eps)

args = options("01_ddpm", steps=80, quick_steps=2)
base, ddim_steps = load_base(device=args.device), 3 if args.quick else 25
truth, noise = held_out(8 if args.quick else 32, args.device)

# %% [markdown]
# ## Noise, and what the network takes it for
# `q_sample` jumps to any time t: xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps. The
# network estimates eps, and each eps stands for a picture, the x0 estimate. At t = 950
# little but the prompt is left: the estimate is a mean of many pictures, a blur.

# %%
t = torch.tensor([20, 200, 400, 600, 800, 950], device=args.device)
x0, prompt, eps = (x[3].expand(6, *x[3].shape) for x in (truth.x0, truth.prompt, noise))
xt = q_sample(x0, t, eps)
with torch.no_grad():
    estimate = x0_from_eps(base(xt, t, prompt), xt, t)
save_figure(figures.grid(
    torch.cat([to_image(xt), to_image(estimate)]), 6,
    f'The larger t, the less of "{describe(prompt)[0]}" is left in xt',
    [f"t = {time}" for time in t.tolist()], ["xt", "x0\nestimate"]), "_noising")

# %% [markdown]
# ## A low Eq. 5 error is not a good picture
# eps, v and x0 are one formula apart (`to_eps`). Three networks differ in what they put
# out; each is trained on the error of Eq. 5 (`loss_weight`). An error d in x0 is one of
# d sqrt(alpha_bar / (1 - alpha_bar)) in eps: Eq. 5 enlarges errors at small t, where a
# picture is nearly done, and shrinks them at large t, where it is decided what to draw.
# And eps of a patch is 48 numbers of noise, to go through 32 channels; a picture is
# simpler (Li and He 2025).

# %%
t, eps = random_times_and_noise(truth.x0, torch.Generator().manual_seed(args.seed))
t, eps = t.to(args.device), eps.to(args.device)
xt, drawn, clean, errors = q_sample(truth.x0, t, eps), {}, {}, {}
for kind in ("eps", "v", "x0"):
    network = seeded(args.seed, UNet, prediction_type=kind).to(args.device)
    network = train(network, base_loss, args.steps, lr=2e-3, seed=args.seed,
                    progress=f"puts out {kind}")
    with torch.no_grad():
        found = network(xt, t, truth.prompt)
    error = (x0_from_eps(found, xt, t).clamp(-1, 1) - truth.x0)[t >= 500]  # noisy ones
    drawn[kind] = sample(network, truth.prompt, noise, (), 1, ddim_steps)
    clean[kind] = 1 - off_palette(drawn[kind])
    errors[kind] = {"Eq. 5: eps error": (found - eps).square().mean().item(),
                    "x0 error at t >= 500": error.square().mean().item(),
                    "clean pixels": clean[kind].mean().item()}
table([["puts out", *errors["x0"]],
       *([kind, *(f"{x:.3f}" for x in row.values())] for kind, row in errors.items())])
low = min(errors, key=lambda kind: errors[kind]["Eq. 5: eps error"])
most = max(errors, key=lambda kind: errors[kind]["clean pixels"])
gain = paired(clean[most] - clean[low])
verdict(f"{gain.verdict}: {most} draws more clean pixels than {low}, whose Eq. 5 error"
        f" is lowest: {gain}, {args.steps} steps, n = {len(noise)}, one seed.")
save_figure(figures.grid(
    torch.cat([pictures[:6] for pictures in drawn.values()]), 6,
    f"After {args.steps} steps {most} draws cleanest, {low} has the lowest Eq. 5 error",
    figures.captions(truth.prompt[:6]),
    [f"{kind}\n{x.mean():.0%} clean" for kind, x in clean.items()]), "_targets")
guess = predict('Many pictures of "red star on blue", each from its own noise. They',
                a="are alike: the prompt says it all",
                b="agree in colours and shape; place, size and tilt differ",
                c="agree in nothing")

# %% [markdown]
# ## What words cannot say (Sec. 1)
# A pose is place, size and tilt. A star's five tips tell its tilt: the mean of z^5 over
# the mask, z = x + iy from the centre, turns five times as far as the star.

# %%
def poses(mask: torch.Tensor) -> torch.Tensor:
    """x, y (pixels), area (%), tilt (degrees) of stars' masks (n, 64, 64): (n, 4)."""
    line, size = torch.arange(64) + 0.5, mask.sum((1, 2), True).clamp(min=1)
    x, y = ((mask * way).sum((1, 2), True) / size for way in (line, line[:, None]))
    z5 = (mask * torch.complex(line - x, line[:, None] - y) ** 5).sum((1, 2), True)
    tilt = (1j * z5).angle().rad2deg() / 5  # upright: z^5 is -i at each tip
    return torch.cat([x, y, 100 * size / 64**2, tilt], 1)[..., 0]


n, generator = 8 if args.quick else 64, torch.Generator().manual_seed(args.seed)
drawn = sample(base, "red star on blue", torch.randn(n, 3, 64, 64, generator=generator),
               (), 1, ddim_steps).cpu()  # without guidance: it narrows the choice
data = random_batch(8 * n, generator)
stars = (data.scenes.shape == list(SHAPES).index("star")).nonzero()[:n, 0]
spread = poses(mask_of(drawn)[:, 0]).std(0), poses(data.mask[stars, 0]).std(0)
table([["standard deviation of", "x, pixels", "y, pixels", "area, %", "tilt, degrees"],
       [f"{n} drawn stars", *(f"{s:.1f}" for s in spread[0])],
       [f"{len(stars)} stars of the data", *(f"{s:.1f}" for s in spread[1])]])
reveal(guess, "b", because="the noise chooses what the prompt leaves open.",
       a="three words leave room for every place, size and tilt: see the table.",
       c="the words are obeyed; only what they do not say is free.")
share = (spread[0] / spread[1]).tolist()
verdict(f"At one prompt place, size and tilt vary {min(share):.1f} to {max(share):.1f}"
        f" times as much as in the data (n = {n}).")
save_results(errors | {"spread of x, y, area, tilt over the data's": share})
figure, (left, right) = figures.plt.subplots(1, 2, width_ratios=[3, 2])
figures.show(left, drawn[:12], 4, 'One prompt, "red star on blue" ...')
for mask in mask_of(drawn[:6])[:, 0]:
    right.contour(mask, [0.5], colors=[f"C{len(right.collections)}"], linewidths=3)
right.set(title="... many poses (six outlines)", aspect="equal", xticks=[], yticks=[],
          xlim=(0, 63), ylim=(63, 0))
right.spines[:].set_visible(True)
save_figure(figure)
print("\nEXERCISES  01a, 01b, 01c: python lessons/exercises")
