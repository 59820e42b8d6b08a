# %% [markdown]
# # Lesson 11: What do users of ControlNet ask?
#
# The public issue trackers of ControlNet and of diffusers, the library that many people use to
# run it, are full of good questions. We have collected those that come again and again. This
# lesson answers five of them by measuring. (CN 185 means issue 185 of the official ControlNet
# repository.)
#
# 1. What does the strength mean, and what happens above 1? (CN 185, 199)
# 2. When should control act, early or late? (diffusers 3770)
# 3. Can control act in one region only? (CN 270)
# 4. Is it better to train with larger batches, or for more steps? (CN 93, 527)
# 5. May I unlock the decoder, or leave out a part of the copy? (CN 52, 62, 360, 608)
#
# It takes about a minute. Then do exercise 11a, and read `control_window` and `mask_controls`
# in sampling.py.

# %%
import os
import sys

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
import torch
from lesson import Lesson, finding, load_results, table, two_digits, with_interval
from lesson.figures_11 import in_a_region, strengths, windows

from minicontrolnet import (Control, conflicting, detect_edges, edge_f1, held_out, load_base,
                            load_classifier, load_control, off_palette, paired, sample,
                            shapes_right)

# %%
lesson = Lesson("11_users_ask", steps=16, quick_steps=4, meaning="pictures", least_steps=2)
base = load_base(device=lesson.device)
control = load_control("edge", base)
classifier = load_classifier().to(lesson.device)
truth, noise = held_out(lesson.steps, lesson.device, seed=10_000 + lesson.seed)
edges = detect_edges(truth.image)
ddim_steps = 2 if lesson.quick else 20

guess = lesson.predict("Control acts only in the first half of sampling, or only in the second"
                       " half. In which case do the pictures follow the outlines better?",
                       a="in the first half, because there the layout is decided",
                       b="in the second half, because outlines are details",
                       c="we cannot tell, because half of the control is half of the control")

# %% [markdown]
# ## What does the strength mean?
#
# A ControlNet adds a control c_i to each of the 13 maps h_i that the decoder receives. The
# *strength* s, which diffusers calls `controlnet_conditioning_scale`, multiplies all of them:
#
#     h_i + s * c_i
#
# To see the strength at work we let words and outlines disagree. Each prompt names another
# shape than its outline shows. Which of the two shapes do we get? A classifier decides. We
# also measure how closely the edges follow the outline (edge F1), and how many pixels are *off
# the palette*. As in lesson 06, these are the pixels far from every colour of the toy world.

# %%
words = conflicting(truth.prompt)


def who_wins(pictures):
    rows = [["control", "outline's shape", "word's shape", "edge F1", "off the palette"]]
    for name, images in pictures.items():
        of_outline = shapes_right(images, truth.prompt, classifier).float().mean()
        of_word = shapes_right(images, words, classifier).float().mean()
        f1 = edge_f1(images, edges).mean()
        off = off_palette(images).mean()
        rows.append([name, f"{of_outline:.0%}", f"{of_word:.0%}", f"{f1:.2f}", f"{off:.1%}"])
    table(rows)


# %%
by_strength = {}
for strength in (0, 0.25, 0.5, 1, 1.5, 2):
    controls = [Control(control, edges, strength)]
    by_strength[f"strength {strength:g}"] = sample(base, words, noise, controls, steps=ddim_steps)
who_wins(by_strength)
lesson.save_figure(strengths(edges, by_strength, words), "_strength")

# %%
one = by_strength["strength 1"]
two = by_strength["strength 2"]
closer = paired(edge_f1(two, edges) - edge_f1(one, edges))
harm = paired(off_palette(two) - off_palette(one))
lesson.verdict(f"Strength 2 minus strength 1 ({lesson.steps} pictures):",
               f"edge F1: {with_interval(closer)}.",
               f"share of pixels off the palette: {with_interval(harm)}.")

# %% [markdown]
# A weak control loses against the word. At strength 1, which is what the ControlNet was trained
# with, the outline wins. Above 1 there is little left to gain here. There is little harm as well:
# hardly more pixels are off the palette. In lesson 06 it was a large *guidance* scale that did
# harm.
#
# ## When should control act?
#
# Many programs can switch control on and off during sampling. Our `sample` has the options
# `control_start` and `control_end`, which are shares of the steps. With 0.2 and 1, for example,
# the first fifth of the steps has no control. We keep the words and outlines that disagree, and
# let control act in different parts of sampling.

# %%
parts = {"in the first fifth": (0, 0.2), "in the first half": (0, 0.5), "always": (0, 1),
         "after the first fifth": (0.2, 1), "in the second half": (0.5, 1)}
by_window = {"never": by_strength["strength 0"]}
for name, (start, end) in parts.items():
    by_window[name] = sample(base, words, noise, [Control(control, edges)], steps=ddim_steps,
                             control_start=start, control_end=end)
who_wins(by_window)
lesson.save_figure(windows(edges, by_window, words))

# %%
first_half = edge_f1(by_window["in the first half"], edges)
second_half = edge_f1(by_window["in the second half"], edges)
halves = paired(first_half - second_half)
answer = {"shown": "a", "contradicted": "b", "undecided": "c"}[halves.verdict]
lesson.reveal(guess, answer, "the edge F1 of the first half minus that of the second half is"
              f" {halves.mean:+.2f} ({halves.low:+.2f} to {halves.high:+.2f}).",
              a="in the first half the layout was not decided for good.",
              b="by then most shapes have their place, and control moves few of them.",
              c="the two halves do different work.")

# %% [markdown]
# Look at the figure first. After control in the first fifth alone, the word's shape stands near
# the outline's place. So the first fifth is enough for the place, but hardly ever for the shape.
# Now compare the last two rows of the table. They differ only between the first fifth and the
# half, and there most shapes are decided. Control in the second half alone comes too late for
# most of them. To miss the first fifth costs little: later control can still move the shape.
#
# ## Can control act in one region only?
#
# Yes, we only have to multiply each control by a mask m_i, which is 1 where control should act
# and 0 elsewhere:
#
#     h_i + m_i * c_i
#
# The control maps are small grids, so the mask has to be shrunk to the size of each grid.
# `Control(..., region=mask)` does this. Here control acts in the left half of the picture only.

# %%
left_half = torch.zeros(1, 1, 64, 64, device=lesson.device)
left_half[..., :32] = 1
nowhere = sample(base, truth.prompt, noise, steps=ddim_steps)
everywhere = sample(base, truth.prompt, noise, [Control(control, edges)], steps=ddim_steps)
in_left_half = sample(base, truth.prompt, noise, [Control(control, edges, region=left_half)],
                      steps=ddim_steps)
lesson.save_figure(in_a_region(edges, nowhere, everywhere, in_left_half, truth.prompt), "_region")

# %% [markdown]
# Look at the figure. In the left half the shapes follow their outlines, and in the right half
# they need not. But compare it with the row without control: the circle and the square have moved
# to the right. There we add nothing, and still control acts indirectly. It has several ways. The
# decoder's convolutions look across the border, and on the deepest grid one place is half as wide
# as the picture. The decoder's normalisation even takes a mean over the whole map.
#
# ## Larger batches, or more steps?
#
# The authors' guide (train.md) recommends larger batches. Its argument is this: the sudden
# convergence of lesson 05 comes at about the same *step* for every batch size. So we should
# show more pictures in each step. Our record compares 300 steps of 16 pictures with 1,200 steps
# of 4 pictures, at the same learning rate. So both have seen equally many pictures. There are
# three trainings of each kind.

# %%
record = load_results("users_variants")
arms = {"300 steps of 16": "as in the paper", "1,200 steps of 4": "small batch"}
rows = [["trained for", "edge F1 of each training"]]
for name, arm in arms.items():
    rows.append([name, ", ".join(two_digits(record["numbers"][arm]["F1"]))])
table(rows)

# %%
batches = finding(record, "300 steps of 16 minus 1,200 of 4, F1")
large = finding(record, "step of half the gap, batch of 16").mean
small = finding(record, "step of half the gap, batch of 4").mean
lesson.verdict("Claim: large batches are better. Edge F1, large minus small:"
               f" {with_interval(batches)}.",
               "The gap of lesson 05 reaches half of its final value after"
               f" {large:.0f} steps with large batches, and after {small:.0f} with small ones.")

# %% [markdown]
# So in our toy many small steps do a little better. And the convergence does not come at the
# same step: with the small batches it takes more steps, although it needs fewer pictures.
#
# ## May I unlock the decoder, or leave out a part of the copy?
#
# Some users train the base's decoder as well, and report better results. The authors call this
# dangerous. Other users want to save computation, and there are two ideas. The first is to keep
# only the control of the middle block. The second is a copy that sees the outline alone, without
# the noisy picture xt and the time t. Such a copy would have to run only once for each picture,
# and not in every step of sampling.

# %%
findings = {"decoder unlocked minus locked": "unlocked minus locked, F1",
            "all 13 controls minus the middle block's alone": "all 13 minus the middle, F1",
            "copy with xt and t minus outline alone": "with t and xt minus without, F1"}
sentences = []
for name, key in findings.items():
    sentences.append(f"{name}: {with_interval(finding(record, key))}.")
lesson.verdict("Edge F1 (three trainings each):", *sentences)

# %%
harm = finding(record, "locked minus unlocked, right shapes without control")
lesson.verdict("Share of right shapes when control is switched off, locked minus unlocked:"
               f" {with_interval(harm)}.")
print("\nEXERCISE  11a: python lessons/exercises")

# %% [markdown]
# With the decoder unlocked, outlines are followed a little better. Our test can hardly show
# whether this does harm. The decoder was trained on the base's own kind of pictures, so there was
# little that it could forget. With other pictures it could be different (lesson 02).
#
# The middle block's control alone achieves hardly anything, perhaps because its grid has only 2x2
# places. But a copy that sees only the outline may well be enough: three trainings cannot
# distinguish it from the full one. A copy that sees only the outline is the idea of T2I-Adapter,
# which you will meet in lesson 12.
