# %% [markdown]
# # Lesson 06: Where does control enter under guidance, and with which weight?
#
# Paper: Sec. 3.4 "Classifier-free guidance resolution weighting" and Fig. 5, where
# there is no prompt. Read `cfg` in minicontrolnet/diffusion.py; `guided`, `weigh`,
# `paper_weights` and `guess_mode_weights` in minicontrolnet/sampling.py.

# %%
import torch
from _lesson import options, predict, reveal, save_figure, save_results, table, verdict

from minicontrolnet import (cfg, detect_edges, edge_f1, figures, guess_mode_weights,
                            held_out, load_base, load_control, mask_iou, mask_of,
                            off_palette, paired, paper_weights, predictor, sample)

args = options("06_cfg_weighting", steps=4, quick_steps=1, meaning="DDIM steps")
guess = predict("No prompt, control in both branches. What does guidance 16 change?",
                a="the outline is followed more closely", b="nothing", c="colours burn")
base = load_base(device=args.device)
control = load_control("edge", base)
truth, noise = held_out(4 if args.quick else 32, args.device, seed=10_000 + args.seed)
edges, empty = detect_edges(truth.image), torch.zeros_like(truth.prompt)

# %% [markdown]
# ## Control in both branches: no guidance at all
# Guidance goes from the unconditional branch through the conditional one, and beyond.
# Without a prompt they differ by nothing but the control. Added to both, it leaves one
# function twice, and guidance nothing to strengthen: exactly, for every scale.

# %%
t = torch.full((len(noise),), 700, device=args.device)
both = predictor(base, empty, [(control, edges)])
for scale in (2, 4, 8, 16):
    assert torch.equal(cfg(both, both, scale)(noise, t), both(noise, t))
reveal(guess, "b", because="both branches are one function; asserted for 2, 4, 8, 16.",
       a="that is what control in one branch does, see below.",
       c="colours can only burn where the branches differ.")

# %% [markdown]
# ## Control in one branch, and the paper's weights
# Control in the conditional branch alone makes guidance "very strong" (Fig. 5c);
# `sample` has it so, at a mild 2.5. The paper's cure weighs connection i by 64 / h_i,
# h_i being its grid's width: 1 shallow to 8 deep; we divide by 8. The released code's
# *guess mode*, off by default, has 0.825 ** (12 - i); diffusers has `guess_mode`, too.
# The default of both is 13 equal weights and control in both branches.

# %%
PAPER = [weight / 8 for weight in paper_weights()]
ARMS = {"both branches": (True, 1.0), "one branch": (False, 1.0),
        "paper / 8": (False, PAPER), "guess mode": (False, guess_mode_weights())}
for arm in ("paper / 8", "guess mode"):
    print(f"{arm:<10}", *(f"{weight:.2f}" for weight in ARMS[arm][1]))

# %% [markdown]
# ## Is it the order, or mere weakening?
# Three arms tell: the same weights reversed; equal ones of the same mean; equal ones as
# weak as the paper's on the two larger grids. Two more: the larger and the smaller
# grids alone.

# %%
ARMS |= {"reversed": (False, PAPER[::-1]), "equal mean": (False, sum(PAPER) / 13),
         "equal, weak": (False, sum(PAPER[:6]) / 6),
         "larger grids": (False, [1.0] * 6 + [0.0] * 7),
         "smaller grids": (False, [0.0] * 6 + [1.0] * 7)}


def draw(arm: str, scale: float) -> torch.Tensor:
    controls = [(control, edges, ARMS[arm][1])]
    return sample(base, "", noise, controls, scale, args.steps, in_both=ARMS[arm][0])


# %% [markdown]
# ## Burnt, or faithful?
# Burnt: the share of pixels whose colour is none of the toy world's, and the contrast
# (the standard deviation of all values). Faithful: mask IoU and edge F1 with the
# outline. Few sampling steps make burning visible, since each of them goes far.

# %%
def measure(images: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"off palette": off_palette(images), "contrast": images.std((1, 2, 3)),
            "IoU": mask_iou(mask_of(images), truth.mask), "F1": edge_f1(images, edges)}


scales = {arm: (2, 4, 8, 16) for arm in ("one branch", "paper / 8", "equal, weak")}
pictures = {arm: {scale: draw(arm, scale) for scale in scales.get(arm, [16])}
            for arm in ARMS} | {"real pictures": {16: truth.image}}
score = {arm: {scale: measure(images) for scale, images in drawn.items()}
         for arm, drawn in pictures.items()}
rows = [[arm, *(f"{x.mean():.3f}" for x in at[16].values())]
        for arm, at in score.items()]
table([["guidance 16", "off palette", "contrast", "IoU", "F1"], *rows])
save_results(score)
off = {arm: at[16]["off palette"] for arm, at in score.items()}
failure = paired(off["one branch"] - off["both branches"])
cure, order, weak = (paired(off[arm] - off["paper / 8"])
                     for arm in ("one branch", "reversed", "equal, weak"))
less, weighed = score["one branch"][4], score["paper / 8"][16]
verdict(f"control in one branch burns colours: {failure.verdict}, {failure};",
        f"the paper's weights cure it: {cure.verdict}, {cure};",
        f"reversed they do not: {order.verdict}, {order};",
        f"equal, but as weak, they do not: {weak.verdict}, {weak};",
        f"guidance 4, no weights: F1 {paired(less['F1'] - weighed['F1'])} higher.",
        f"The others: difference of the share off the palette at 16, n = {len(noise)}.")

# %%
figure, (left, right) = figures.plt.subplots(1, 2, width_ratios=[5, 4])
few, shown = slice(4), list(ARMS)[:4]
grid = [figures.enlarge(edges[few], 4)]
grid += [figures.outlined(pictures[arm][16][few], edges[few], 4) for arm in shown]
figures.show(left, torch.stack(grid, 1).flatten(0, 1), 5,
             f"Guidance 16 burns {off['one branch'].mean():.0%} of the pixels,"
             f"\nwith weights {off['paper / 8'].mean():.0%} (n = {len(noise)})",
             ["outline", *(arm.replace(" ", "\n", 1) for arm in shown)])
for arm in scales:
    means = [[x[k].mean() for x in score[arm].values()] for k in ("F1", "off palette")]
    right.plot(*means, "o-", label=arm)
right.set(xlabel="edge F1", ylabel="share of pixels off the palette", ylim=(0, None))
right.legend(title="guidance 2, 4, 8, 16")
save_figure(figure)
print("\nExercises: 06a, 06b, 06c (python lessons/exercises)")
