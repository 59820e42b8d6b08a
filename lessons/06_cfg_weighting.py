# %% [markdown]
# # Lesson 06: Where does control enter under guidance, and with which weight?
# Sec. 3.4, Fig. 5: no prompt. One minute. After its exercises read `cfg` in
# diffusion.py; `guided`, `weigh`, `paper_weights`, `guess_mode_weights` in sampling.py.

# %%
import torch
from _lesson import options, predict, reveal, save_figure, save_results, table, verdict

from minicontrolnet import (cfg, detect_edges, edge_f1, figures, guess_mode_weights,
                            held_out, load_base, load_control, mask_iou, mask_of,
                            off_palette, paired, paper_weights, predictor, sample)

args = options("06_cfg_weighting", steps=4, quick_steps=1, meaning="DDIM steps")
guess = predict("No prompt, control in both branches. What does guidance 30 change?",
                a="the outline is followed more closely", b="nothing", c="colours burn")
base = load_base(device=args.device)
control = load_control("edge", base)
truth, noise = held_out(4 if args.quick else 24, args.device, seed=10_000 + args.seed)
edges, empty = detect_edges(truth.image), torch.zeros_like(truth.prompt)
SCALES = 4, 8, 16, 30  # of guidance

# %% [markdown]
# ## Control in both branches: no guidance at all
# Guidance (lesson 01) makes two guesses, its branches: it goes from the one without a
# prompt, the unconditional, through the one with it, the conditional, and beyond.
# Without a prompt they differ by nothing but the control. If both have it, they are one
# function, and guidance has nothing to strengthen: exactly, for every scale.

# %%
t = torch.full((len(noise),), 700, device=args.device)
both = predictor(base, empty, [(control, edges)])
for scale in SCALES:
    assert torch.equal(cfg(both, both, scale)(noise, t), both(noise, t))
reveal(guess, "b", f"both branches are one function; asserted for {SCALES}.",
       a="that is what control in one branch does, see below.",
       c="colours can only burn where the branches differ.")

# %% [markdown]
# ## Control in one branch, and the paper's weights
# Control in the conditional branch alone makes guidance "very strong" (Fig. 5c);
# `sample` has it so, at a mild 2.5. The paper's cure weighs each connection by 64 / h,
# h being its grid's width, 64 to 8; here 16 / h, 16 to 2: both 1 shallow to 8 deep. As
# printed that makes control stronger, though its text speaks of reducing; so both are
# tried, 1 to 8 and the same / 8. The released code has a *guess mode*, off by default,
# as has diffusers: 0.825 ** (12 - i), i = 0 shallow. The default of both: 13 equal
# weights, control in both branches.

# %%
PAPER = [weight / 8 for weight in paper_weights()]
ARMS = {"both branches": (True, 1.0), "one branch": (False, 1.0),
        "paper, 1 to 8": (False, paper_weights()), "paper / 8": (False, PAPER),
        "guess mode": (False, guess_mode_weights())}
for arm in list(ARMS)[2:]:
    print(f"{arm:<14}", *(f"{weight:.2f}" for weight in ARMS[arm][1]))

# %% [markdown]
# ## Is it the order, or mere weakening?
# Three arms tell: the same weights in reversed order; equal ones with the same mean;
# equal ones, as weak as the paper's are on the two larger grids. Two more have control
# on the larger, or on the smaller grids alone.

# %%
ARMS |= {"reversed": (False, PAPER[::-1]), "equal mean": (False, sum(PAPER) / 13),
         "equal, weak": (False, sum(PAPER[:6]) / 6),
         "larger grids": (False, [1.0] * 6 + [0.0] * 7),
         "smaller grids": (False, [0.0] * 6 + [1.0] * 7)}
pictures = {arm: {scale: sample(base, "", noise, [(control, edges, weights)], scale,
                                args.steps, in_both=in_both) for scale in SCALES}
            for arm, (in_both, weights) in ARMS.items()}

# %% [markdown]
# ## Burnt, or faithful?
# Burnt: the share of pixels whose colour is none of the toy world's, and the contrast
# (standard deviation of all values). Faithful: mask IoU and edge F1 with the outline.
# Guidance 30 and 4 steps are more than anybody would use: each step goes far, and what
# goes wrong shows. Four steps without guidance (both branches) are the zero of the
# scale: not all of their pixels are clean, either.

# %%
def measure(images: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"off palette": off_palette(images), "contrast": images.std((1, 2, 3)),
            "IoU": mask_iou(mask_of(images), truth.mask), "F1": edge_f1(images, edges)}


score = {arm: {scale: measure(images) for scale, images in at.items()}
         for arm, at in pictures.items()}
at_30 = {arm: at[30] for arm, at in score.items()} | {"real": measure(truth.image)}
table([["guidance 30", *at_30["real"]], *(
    [arm, *(f"{x.mean():.3f}" for x in own.values())] for arm, own in at_30.items())])
save_results(score)
off = {arm: own["off palette"] for arm, own in at_30.items()}
claims = {"control in one branch burns colours": ("one branch", "both branches"),
          "the paper's weights as printed cure that": ("one branch", "paper, 1 to 8"),
          "divided by 8 they cure it": ("one branch", "paper / 8"),
          "reversed they cure less": ("reversed", "paper / 8"),
          "their order cures, not weakness alone": ("equal, weak", "paper / 8")}
apart = {claim: paired(off[a] - off[b]) for claim, (a, b) in claims.items()}
tone = paired(at_30["equal, weak"]["contrast"] - at_30["paper / 8"]["contrast"])
verdict(f"Share of pixels off the palette, guidance 30, n = {len(noise)}:",
        *(f"{claim}: {more.verdict}, {more}" for claim, more in apart.items()),
        f"by contrast, their order cures: {tone.verdict}, {tone}")
figure, (left, right) = figures.plt.subplots(1, 2, width_ratios=[3, 2])
shown, grid = list(ARMS)[:5], [figures.enlarge(edges[:4], 4)]
grid += [figures.outlined(pictures[arm][30][:4], edges[:4], 4) for arm in shown]
burnt = [f"{off[arm].mean():.0%}" for arm in shown[1:4]]
figures.show(left, torch.stack(grid, 1).flatten(0, 1), 6,
             "Guidance 30 burns {} of the pixels, the paper's\nweights {}, and divided"
             " by 8 {}".format(*burnt) + f" (n = {len(noise)})",
             ["outline", *(arm.replace(" ", "\n", 1) for arm in shown)])
for arm in [*shown[:4], "equal, weak"]:
    means = [own["off palette"].mean().item() for own in score[arm].values()]
    right.plot(means, "o-", label=arm)
right.axhline(off["real"].mean(), color="0.6", ls=":", label="real pictures")
right.set_xticks(range(len(SCALES)), SCALES)
right.set(xlabel="guidance scale", ylabel="share of burnt pixels", ylim=(0, None))
right.legend(loc="upper left")
save_figure(figure)
print("\nEXERCISES  06a, 06b, 06c: python lessons/exercises")
