# %% [markdown]
# # Lesson 06: Where does control enter under guidance, and with which weight?
# Sec. 3.4, Fig. 5: no prompt. One minute. After its exercises read `cfg` in
# diffusion.py; `guided`, `weigh`, `paper_weights`, `guess_mode_weights` in sampling.py.

# %%
import os
import sys

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # this folder, also under python -P
import torch
from lesson import Lesson, table
from lesson.figures_06 import guidance

from minicontrolnet import (Control, cfg, detect_edges, edge_f1, guess_mode_weights, held_out,
                            load_base, load_control, mask_iou, mask_of, off_palette, paired,
                            paper_weights, predictor, sample)

lesson = Lesson("06_cfg_weighting", steps=4, quick_steps=1, meaning="DDIM steps")
guess = lesson.predict("No prompt, control in both branches. What does guidance 30 change?",
                       a="the outline is followed more closely", b="nothing", c="colours burn")
base = load_base(device=lesson.device)
control = load_control("edge", base)
n = 4 if lesson.quick else 24
truth, noise = held_out(n, lesson.device, seed=10_000 + lesson.seed)
edges = detect_edges(truth.image)
empty = torch.zeros_like(truth.prompt)
SCALES = 4, 8, 16, 30  # of guidance

# %% [markdown]
# ## Control in both branches: no guidance at all
# Guidance (lesson 01) makes two guesses, its branches: it goes from the one without a
# prompt, the unconditional, through the one with it, the conditional, and beyond.
# Without a prompt they differ by nothing but the control. If both have it, they are one
# function, and guidance has nothing to strengthen: exactly, for every scale.

# %%
t = torch.full((n,), 700, device=lesson.device)
both = predictor(base, empty, [Control(control, edges)])
for scale in SCALES:
    assert torch.equal(cfg(both, both, scale)(noise, t), both(noise, t))
lesson.reveal(guess, "b", f"both branches are one function; asserted for {SCALES}.",
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
pictures = {}
for arm, (in_both, weights) in ARMS.items():
    pictures[arm] = {}
    for scale in SCALES:
        pictures[arm][scale] = sample(base, "", noise, [Control(control, edges, weights)], scale,
                                      lesson.steps, in_both=in_both)

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


scores = {}
for arm, by_scale in pictures.items():
    scores[arm] = {scale: measure(images) for scale, images in by_scale.items()}
at_30 = {arm: by_scale[30] for arm, by_scale in scores.items()}
at_30["real"] = measure(truth.image)
rows = [["guidance 30", *at_30["real"]]]
for arm, own in at_30.items():
    rows.append([arm, *(f"{x.mean():.3f}" for x in own.values())])
table(rows)
lesson.save_results(scores)

# %%
claims = {"control in one branch burns colours": ("one branch", "both branches"),
          "the paper's weights as printed cure that": ("one branch", "paper, 1 to 8"),
          "divided by 8 they cure it": ("one branch", "paper / 8"),
          "reversed they cure less": ("reversed", "paper / 8"),
          "their order cures, not weakness alone": ("equal, weak", "paper / 8")}
sentences = []
for claim, (one, other) in claims.items():
    more = paired(at_30[one]["off palette"] - at_30[other]["off palette"])
    sentences.append(f"{claim}: {more.verdict}, {more}")
tone = paired(at_30["equal, weak"]["contrast"] - at_30["paper / 8"]["contrast"])
lesson.verdict(f"Share of pixels off the palette, guidance 30, n = {n}:", *sentences,
               f"by contrast, their order cures: {tone.verdict}, {tone}")

# %%
shown = {arm: pictures[arm][30] for arm in list(ARMS)[:5]}
off = {}
for arm in [*list(ARMS)[:4], "equal, weak"]:
    off[arm] = {scale: own["off palette"].mean().item() for scale, own in scores[arm].items()}
lesson.save_figure(guidance(edges, shown, off, at_30["real"]["off palette"].mean().item(), n))
print("\nEXERCISES  06a, 06b, 06c: python lessons/exercises")
