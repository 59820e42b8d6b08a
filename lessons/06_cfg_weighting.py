# %% [markdown]
# # Lesson 06: Where should control enter, and how strongly?
#
# Guidance (lesson 01) computes every prediction twice: once with the prompt, and once with the
# empty prompt. We call these two computations the *conditional branch* and the *unconditional
# branch*. Guidance amplifies the difference between their predictions:
#
#     eps = eps_uncond + guidance_scale * (eps_cond - eps_uncond)
#
# Lesson 01 wrote eps_prompt and eps_empty. The new names are better here, because the branches
# can now differ in more than the prompt. Suppose that we add a ControlNet. Should it act on
# both branches, or on the conditional branch alone? And should all of its 13 connections be
# equally strong? The paper discusses these questions in Sec. 3.4 and Fig. 5. It does so for
# pictures that have *no prompt*, only an edge map. In this lesson you
#
# 1. see what control in both branches does,
# 2. see what control in one branch does, at four guidance scales,
# 3. reweight the 13 connections, as the paper and its code do,
# 4. let the words and the outline disagree, and see which of them wins.
#
# It takes about a minute. Then do exercises 06a to 06c, and read `guided` and `weigh` in
# sampling.py.

# %%
import os
import sys

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
from lesson import Lesson, table, two_digits
from lesson.figures_06 import harm_by_scale, one_branch_or_both, who_wins

import torch

from minicontrolnet import (cfg, conflicting, detect_edges, edge_f1, guess_mode_weights, held_out,
                            load_base, load_classifier, load_control, off_palette, paired,
                            paper_weights, predictor, sample, shapes_right)

lesson = Lesson("06_cfg_weighting", steps=20, quick_steps=2, meaning="DDIM steps")

# %% [markdown]
# We use the trained edge ControlNet, and the outlines of held-out pictures.

# %%
base = load_base(device=lesson.device)
control = load_control("edge", base)
n = 4 if lesson.quick else 16
truth, noise = held_out(n, lesson.device, seed=10_000 + lesson.seed)
edges = detect_edges(truth.image)
SCALES = [4, 9, 16, 30]  # guidance scales; the released code uses 9

# %% [markdown]
# Before you read on, make a guess.

# %%
guess = lesson.predict("There is no prompt, and control acts on both branches. We raise the"
                       " guidance scale from 1 to 30. What changes?",
                       a="the pictures follow the outline more closely",
                       b="nothing at all",
                       c="the colours become oversaturated")

# %% [markdown]
# ## Control in both branches
#
# Without a prompt, both branches get the same input: the same noisy picture, the empty prompt
# and the same outline. So they compute the same prediction, and the difference between the two
# is zero. Guidance has nothing to amplify. The paper says that this removes guidance
# completely.
#
# We can check it exactly. `predictor` builds each branch as a function of xt and t, and `cfg`
# combines the two branches by the formula above.

# %%
empty = torch.zeros_like(truth.prompt)
t = torch.full((n,), 700, device=lesson.device)
conditional = predictor(base, empty, [(control, edges)])  # the prompt is empty, too
unconditional = predictor(base, empty, [(control, edges)])
for scale in SCALES:
    guided = cfg(unconditional, conditional, scale)
    assert torch.equal(guided(noise, t), conditional(noise, t))

# %% [markdown]
# The guided prediction equals the conditional one bit for bit, at every scale.

# %%
lesson.reveal(guess, "b", "both branches are the same function, so every scale gives the same picture.",
              a="guidance can only amplify a difference between the branches, and there is none here.",
              c="guidance can only amplify a difference between the branches, and there is none here.")

# %% [markdown]
# ## Control in one branch
#
# If control acts on the conditional branch alone, the branches differ by exactly what the
# ControlNet adds. So guidance amplifies the control itself. `sample` does this by default, with
# a small scale of 2.5. The paper says that without a prompt, control in one branch makes
# guidance "very strong".
#
# Guidance that is too strong pushes colours to the limits of what a pixel can show. They become
# *oversaturated*. To measure this, we count the pixels that are far from every colour of the
# toy world. We say that these pixels are *off the palette*.

# %%
def generate(scale, weights=1.0, in_both=False):
    return sample(base, "", noise, [(control, edges, weights)], scale, lesson.steps,
                  in_both=in_both)


both = generate(9, in_both=True)  # the same for every guidance scale
one = {scale: generate(scale) for scale in SCALES}
lesson.save_figure(one_branch_or_both(edges, both, one), "_branches")

# %% [markdown]
# 06_cfg_weighting_branches.png shows some of the pictures. (The colours may change from column
# to column, because no prompt fixes them. This does not count as harm.) The table gives two
# averages: the share of pixels off the palette, and how closely the outline is followed (edge
# F1, where 1 is perfect).

# %%
def scores(images):
    return [f"{off_palette(images).mean():.1%}", f"{edge_f1(images, edges).mean():.2f}"]


rows = [["control in", "guidance scale", "pixels off the palette", "edge F1"],
        ["both branches", "any", *scores(both)]]
for scale, images in one.items():
    rows.append(["one branch", scale, *scores(images)])
table(rows)

# %% [markdown]
# Even good pictures have a few such pixels: a pixel on an outline mixes two colours, so it is
# far from both and is counted. With control in one branch, a scale of 30 spoils the pictures.
# But hardly anybody uses so large a scale. Does control in one branch do harm at smaller
# scales, too? We compare each picture with the same picture under control in both branches.

# %%
rows = [["guidance scale", "more pixels off the palette", "95 % interval", "harm"]]
for scale in SCALES:
    more = paired(off_palette(one[scale]) - off_palette(both))
    rows.append([scale, f"{more.mean:+.2%}", f"{more.low:+.2%} to {more.high:+.2%}", more.verdict])
table(rows)
lesson.verdict(f"At a scale of {scale}, control in one branch puts {more.mean:.1%} more of the pixels off the"
               f" palette than control in both branches ({n} pictures): {more.verdict}.")

# %% [markdown]
# Here we have few pictures, so the harm at some scales stays undecided. A record of more
# pictures finds harm from a scale of 12 on, and it cannot decide at 9 (claim 10 in
# [CLAIMS.md](CLAIMS.md)).
#
# ## Weights for the 13 connections
#
# The paper's remedy is called *CFG resolution weighting*. (CFG is short for classifier-free
# guidance.) Control stays in one branch. The output of each of the 13 connections is multiplied
# by a weight that depends on its grid of h x h places:
#
#     w = 64 / h        for grids of 64, 32, 16 and 8 in Stable Diffusion
#
# So the largest grid gets the weight 1, and the smallest gets 8. Our grids have 16 to 2 places
# on a side, so we use 16 / h, which gives the same weights.
#
# None of these weights is below 1. So they make control *stronger*, which seems odd as a
# remedy. The paper speaks of "reducing the CFG guidance strength". We read this as a smaller
# guidance scale, used together with the weights. We look at the weights alone, at every scale.
# We also try two lists that make control weaker. The first is the paper's list divided by 8,
# which is our idea and not the paper's. The second comes from the authors' released code, where
# it is called *guess mode*.

# %%
weights = {"one branch, unweighted": [1.0] * 13,
           "the paper's weights": paper_weights(),
           "the paper's weights / 8": [weight / 8 for weight in paper_weights()],
           "guess mode": guess_mode_weights()}
grids = [16] * 3 + [8] * 3 + [4] * 3 + [2] * 4  # the last one is the middle block
rows = [["grid", *grids]]
for name, row in weights.items():
    rows.append([name, *two_digits(row)])
table(rows)

# %% [markdown]
# The weights go from the largest grid on the left to the middle block on the right. We generate
# pictures with each list, at all four scales.

# %%
pictures = {"one branch, unweighted": one}
for name in ("the paper's weights", "the paper's weights / 8", "guess mode"):
    pictures[name] = {scale: generate(scale, weights[name]) for scale in SCALES}

# %% [markdown]
# How many pixels are still off the palette?

# %%
harm = {}
rows = [["pixels off the palette at guidance", *SCALES]]
for name, by_scale in pictures.items():
    harm[name] = {scale: off_palette(images).mean().item() for scale, images in by_scale.items()}
    percentages = [f"{share:.1%}" for share in harm[name].values()]
    rows.append([name, *percentages])
table(rows)
lesson.save_figure(harm_by_scale(harm, off_palette(both).mean().item()), "_weights")

# %% [markdown]
# As they stand in the paper, the weights make things worse at large scales. The two lists of
# smaller weights help there. But do the pictures still follow the outline?

# %%
rows = [["edge F1 at guidance", *SCALES]]
for name, by_scale in pictures.items():
    f1 = [edge_f1(images, edges).mean() for images in by_scale.values()]
    rows.append([name, *two_digits(f1)])
table(rows)

# %% [markdown]
# At a guidance scale of 4, small weights follow the outline much less closely than unweighted
# control. At a scale of 30 it is the other way round: there unweighted control spoils the
# pictures, and small weights save them.
#
# This raises two questions. The first is whether the *order* of the weights helps, or only
# their small size. We tried both on more pictures, at a scale of 30 (claim 11 in
# [CLAIMS.md](CLAIMS.md)). One list was the paper's divided by 8, the other had 13 equal weights
# with the same mean. The equal weights already remove most of the pixels off the palette. The
# paper's order removes a few more.
#
# The second question is whether we need any weights, or whether a smaller guidance scale is
# enough. On the same pictures we compared settings that follow the outline equally well. Then
# unweighted control at a smaller scale has nearly as few pixels off the palette as weighted
# control at a larger one. So in this toy world the simplest remedy is a smaller guidance scale.
#
# ## Which wins, the words or the outline?
#
# The weights also let us switch control off on some of the grids. That answers another
# question: on which grids does the outline enter the picture? It is often said that the small,
# deep grids carry the meaning of a picture, and the large ones its details. We test it with a
# conflict. The prompt asks for one shape, and the outline shows another one. Control acts on
# the larger grids alone (16 and 8), on the 8 x 8 grid alone, or on the smaller grids alone (4
# and 2).

# %%
guess = lesson.predict('The prompt says "square", the outline shows a circle, and control acts on the'
                       " smaller grids alone. What will we see?",
                       a="the circle of the outline",
                       b="a square, as if there were no outline",
                       c="something in between")

# %% [markdown]
# A weight of 0 switches a connection off. The guidance scale is the default one, and control
# acts on one branch. For comparison we also generate pictures without any control.

# %%
acts_on = {"no control": [0.0] * 13,
           "all grids": [1.0] * 13,
           "larger grids": [1.0] * 6 + [0.0] * 7,
           "8 x 8 alone": [0.0] * 3 + [1.0] * 3 + [0.0] * 7,
           "smaller grids": [0.0] * 6 + [1.0] * 7}
words = conflicting(truth.prompt)  # the same colours, but another shape than the outline's
disagree = {}
for name, row in acts_on.items():
    disagree[name] = sample(base, words, noise, [(control, edges, row)], steps=lesson.steps)
lesson.save_figure(who_wins(edges, words, disagree))

# %% [markdown]
# 06_cfg_weighting.png shows the pictures. A small classifier names their shapes.

# %%
classifier = load_classifier().to(lesson.device)
wins = {}
rows = [["control on", "shows the outline's shape", "shows the word's shape"]]
for name, images in disagree.items():
    of_outline = shapes_right(images, truth.prompt, classifier).float().mean()
    of_word = shapes_right(images, words, classifier).float().mean()
    wins[name] = [of_outline.item(), of_word.item()]
    rows.append([name, f"{of_outline:.0%}", f"{of_word:.0%}"])
table(rows)

# %% [markdown]
# Your prediction was about the last row.

# %%
of_outline, of_word = wins["smaller grids"]
answer = "c"
if of_word > 0.8:
    answer = "b"
if of_outline > 0.8:
    answer = "a"
lesson.reveal(guess, answer, f"{of_word:.0%} of the pictures show the word's shape, and"
              f" {of_outline:.0%} the outline's.",
              a="the smaller grids alone do not carry the outline here.",
              b="the outline's shape still wins in some pictures.",
              c="nearly all pictures show one of the two shapes.")
lesson.save_results({"harm": harm, "both branches": off_palette(both).mean().item(),
                     "whose shape": wins})
print("\nEXERCISES  06a, 06b, 06c: python lessons/exercises")

# %% [markdown]
# With control on the larger grids, the outline wins. With control on the smaller grids alone,
# the words win, and the pictures look much like those without control. The 8 x 8 grid alone is
# the most interesting case. Look at its row in the figure: some pictures have the shape of the
# *words*, moved towards the *outline*, such as the first one. About a quarter show neither
# shape. So control on this grid blends the two. Control on the smaller grids alone changes
# hardly anything here. We have not tested what the base itself keeps on them.
#
# A record of 64 pictures agrees (words_against_grids). With the 8 x 8 grid alone, pictures that
# show the shape of the words still cover the outline's shape better than without control. With
# the smaller grids, we find no trace of the outline. All this holds for one ControlNet, which
# was trained with all of its 13 connections.
