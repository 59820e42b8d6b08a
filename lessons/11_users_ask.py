# %% [markdown]
# # Lesson 11: What do users of ControlNet ask?
#
# Many people use ControlNet through a library that is called diffusers. The public issue
# trackers of ControlNet and of diffusers are full of good questions. We have collected those
# that come again and again. This lesson answers five of them by measuring. (CN 185 means issue
# 185 of the official ControlNet repository.)
#
# 1. What does the strength mean, and what happens above 1? (CN 185, 199)
# 2. When should control act, early or late? (diffusers 3770)
# 3. Can control act in one region only? (CN 270)
# 4. Is it better to train with larger batches, or for more steps? (CN 93, 527)
# 5. May I train the decoder, or leave out a part of the copy? (CN 52, 62, 360, 608)
#
# It takes about a minute. Then do exercise 11a, and read `control_window` and `mask_controls`
# in sampling.py.

# %%
import os
import sys
from statistics import fmean

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
from lesson import Lesson, finding, load_results, table, two_digits, with_interval
from lesson.figures_11 import in_a_region, strengths, windows

import torch

from minicontrolnet import (Control, conflicting, detect_edges, edge_f1, held_out, load_base,
                            load_classifier, load_control, off_palette, paired, pose_errors,
                            sample, shapes_right)

# %%
lesson = Lesson("11_users_ask", steps=16, quick_steps=4, meaning="pictures", least_steps=2)
n = lesson.steps  # in this lesson, --steps counts pictures
base = load_base(device=lesson.device)
control = load_control("edge", base)
classifier = load_classifier().to(lesson.device)
truth, noise = held_out(n, lesson.device, seed=10_000 + lesson.seed)
edges = detect_edges(truth.image)
ddim_steps = 2 if lesson.quick else 20

guess = lesson.predict("Each prompt names another shape than its outline shows. Control acts only in"
                       " the first half of sampling, or only in the second half. In which case do"
                       " the pictures follow the outlines better?",
                       a="in the first half, because the layout is decided there",
                       b="in the second half, because outlines are details",
                       c="about equally well, because each case has half of the steps")

# %% [markdown]
# ## 1. What does the strength mean?
#
# A ControlNet adds a control c_i to each of the 13 maps h_i that the decoder receives. The
# *strength* s, which diffusers calls `controlnet_conditioning_scale`, multiplies all of them:
#
#     h_i + s * c_i
#
# To see the strength at work we let words and outlines disagree. Each prompt names another
# shape than its outline shows. Which of the two shapes do we get? A classifier decides. We also
# measure how closely the edges follow the outline (edge F1).

# %%
words = conflicting(truth.prompt)


def scores(images):
    """How often we get the outline's shape and the word's shape, and the edge F1."""
    of_outline = shapes_right(images, truth.prompt, classifier).float().mean()
    of_word = shapes_right(images, words, classifier).float().mean()
    f1 = edge_f1(images, edges).mean()
    return [f"{of_outline:.0%}", f"{of_word:.0%}", f"{f1:.2f}"]


# %% [markdown]
# We also count the pixels that are *off the palette*. As in lesson 06, these are the pixels far
# from every colour of the toy world.

# %%
by_strength = {}
rows = [["control", "outline's shape", "word's shape", "edge F1", "off the palette"]]
for strength in (0, 0.25, 0.5, 1, 2):
    controls = [Control(control, edges, strength)]  # the tuple (control, edges) means strength 1
    images = sample(base, words, noise, controls, steps=ddim_steps)
    rows.append([f"strength {strength:g}", *scores(images), f"{off_palette(images).mean():.1%}"])
    by_strength[f"strength {strength:g}"] = images
table(rows)
lesson.save_figure(strengths(edges, by_strength, words), "_strength")

# %% [markdown]
# 11_users_ask_strength.png shows three of the outlines. At strength 0.25 the word still wins,
# and at 0.5 the outline wins in most pictures. The ControlNet was trained with strength 1. Is
# there anything to gain above 1, and does it do harm?

# %%
one = by_strength["strength 1"]
two = by_strength["strength 2"]
closer = paired(edge_f1(two, edges) - edge_f1(one, edges))
harm = paired(off_palette(two) - off_palette(one))
lesson.verdict(f"Strength 2 minus strength 1 ({n} pictures):",
               f"edge F1: {with_interval(closer)}.",
               f"pixels off the palette: {harm.mean:+.2%} ({harm.low:+.2%} to {harm.high:+.2%}),"
               f" {harm.verdict}.")

# %% [markdown]
# **Answer.** The strength decides how often the outline wins against the words. With so few
# pictures, we cannot show that a strength above 1 gains anything. At strength 2, the share of
# pixels off the palette is 0.1 percentage points higher than at strength 1. This is shown, but
# even then the share is below that without control. In lesson 06 it was a large *guidance*
# scale that did harm.
#
# ## 2. When should control act?
#
# Many programs can switch control on and off during sampling. Our `sample` has the options
# `control_start` and `control_end`, which are shares of the steps. With 0.2 and 1, for example,
# the first fifth of the steps has no control. The words and the outlines disagree again, and
# control acts in different parts of sampling. In the last column we measure how far the centre
# of each shape is from the centre of its outline.

# %%
parts = {"in the first fifth": (0, 0.2), "in the first half": (0, 0.5), "always": (0, 1),
         "after the first fifth": (0.2, 1), "in the second half": (0.5, 1)}
by_window = {"never": by_strength["strength 0"]}
for name, (start, end) in parts.items():
    by_window[name] = sample(base, words, noise, [(control, edges)], steps=ddim_steps,
                             control_start=start, control_end=end)

rows = [["control acts", "outline's shape", "word's shape", "edge F1", "pixels from its place"]]
for name, images in by_window.items():
    _, pixels = pose_errors(images, truth.scenes)
    rows.append([name, *scores(images), f"{pixels.nanmean():.1f}"])
table(rows)
lesson.save_figure(windows(edges, by_window, words))

# %%
first_half = edge_f1(by_window["in the first half"], edges)
second_half = edge_f1(by_window["in the second half"], edges)
halves = paired(first_half - second_half)
right = {"shown": "a", "contradicted": "b", "undecided": "c"}[halves.verdict]
lesson.reveal(guess, right, "the edge F1 of the first half minus that of the second half is"
              f" {halves.mean:+.2f} ({halves.low:+.2f} to {halves.high:+.2f}).",
              a="control in the first half alone does not fix the shape.",
              b="by then most shapes have their place, and control moves few of them.",
              c="the two halves do different work.")

# %% [markdown]
# 11_users_ask.png shows three of the outlines. Look at the column "in the first fifth". The
# word's shape is at the outline's place. So this control moves the shape, but it seldom changes
# which shape it is.
#
# Now compare the last two rows of the table. In both cases control acts in the second half of
# the steps. They differ only in the steps from 20 % to 50 %. With control there we get the
# outline's shape nearly always, and without it hardly ever. So in these steps most shapes are
# decided.
#
# **Answer.** Control should begin well before the middle of sampling, and go on to the end.
# Missing the first fifth costs little, because later control can still move the shape. But with
# control in the first half alone, the outline is followed less closely than with control in all
# steps.
#
# ## 3. Can control act in one region only?
#
# We choose a region by a mask, which is 1 where control should act and 0 elsewhere. The control
# maps are small grids, so the mask is shrunk to the size of each grid. Let m_i be the shrunk
# mask for the map c_i. We multiply the two, and add the product to the base's map h_i:
#
#     h_i + m_i * c_i
#
# `Control(..., region=mask)` does this. Here control acts in the left half of the picture only,
# and the prompts are the right ones.

# %%
left_half = torch.zeros(1, 1, 64, 64, device=lesson.device)
left_half[..., :32] = 1
nowhere = sample(base, truth.prompt, noise, steps=ddim_steps)
everywhere = sample(base, truth.prompt, noise, [Control(control, edges)], steps=ddim_steps)
in_left_half = sample(base, truth.prompt, noise, [Control(control, edges, region=left_half)],
                      steps=ddim_steps)
lesson.save_figure(in_a_region(edges, nowhere, everywhere, in_left_half, truth.prompt), "_region")

# %% [markdown]
# In 11_users_ask_region.png, look at the last row. Left of the white line the shapes follow
# their outlines, and right of it they need not. But compare this row with the row without
# control. The purple circle and the blue square have moved to the right. So the pictures have
# also changed where we add nothing. There are several ways in which this can happen:
#
# - In the next step, the base sees what control did in the left half, and continues the shape.
# - The decoder's convolutions look across the border.
# - On the deepest grid of 2x2 places, a convolution of 3x3 sees the whole picture.
# - The decoder's normalisation takes a mean over the whole map.
#
# **Answer.** Yes, we can add control in one region only. But its effect does not end at the
# border.
#
# ## 4. Larger batches, or more steps?
#
# The authors' guide (train.md) recommends larger batches. Its argument is this: the sudden
# convergence of lesson 05 comes at about the same *step* for every batch size. So each step
# should use more pictures. Our record compares 300 steps of 16 pictures with 1,200 steps of 4
# pictures. Both see 4,800 pictures, at the same learning rate. There are three trainings of
# each kind.

# %%
record = load_results("users_variants")
numbers = record["numbers"]
table([["trained for", "edge F1 of each training"],
       ["300 steps of 16", ", ".join(two_digits(numbers["as in the paper"]["F1"]))],
       ["1,200 steps of 4", ", ".join(two_digits(numbers["small batch"]["F1"]))]])

# %%
batches = finding(record, "300 steps of 16 minus 1,200 of 4, F1")
large = round(finding(record, "step of half the gap, batch of 16").mean)
small = round(finding(record, "step of half the gap, batch of 4").mean)
lesson.verdict("Claim: large batches are better. Edge F1, large minus small:"
               f" {with_interval(batches)}.",
               "The gap of lesson 05 reaches half of its final value:",
               f"with large batches after {large} steps, which is {16 * large:,} pictures;",
               f"with small batches after {small} steps, which is {4 * small:,} pictures.")

# %% [markdown]
# **Answer.** At this learning rate, many steps with small batches do a little better in our
# toy. The convergence does not come at the same step: with small batches it takes more steps,
# although it needs fewer pictures. Larger batches may allow a larger learning rate, but we have
# not tried that.
#
# ## 5. May I train the decoder, or leave out a part of the copy?
#
# Some users unlock the base's decoder and train it as well, and they report better results. The
# authors call this dangerous. Other users want to save computation, and there are two ideas.
# The first is to keep only the control of the middle block. The second is a copy that sees the
# prompt and the outline alone, without the noisy picture xt and the time t. Such a copy would
# have to run only once for each picture, and not in every step of sampling.

# %%
arms = {"no control": "no control", "13 controls, locked": "as in the paper",
        "decoder unlocked": "decoder unlocked", "middle block alone": "middle alone",
        "copy without xt and t": "without t and xt"}
rows = [["trained for 300 steps", "mean edge F1"]]
for name, arm in arms.items():
    rows.append([name, f"{fmean(numbers[arm]['F1']):.3f}"])
table(rows)

# %%
unlocked = finding(record, "unlocked minus locked, F1")
middle = finding(record, "all 13 minus the middle, F1")
full_copy = finding(record, "with t and xt minus without, F1")
shapes = finding(record, "locked minus unlocked, right shapes without control")
lesson.verdict("Edge F1 (three trainings of each kind):",
               f"decoder unlocked, minus locked: {with_interval(unlocked)}.",
               f"13 controls, minus the middle block's alone: {with_interval(middle)}.",
               f"full copy, minus the copy without xt and t: {with_interval(full_copy)}.",
               "And the share of right shapes when control is switched off again:",
               f"decoder locked, minus unlocked: {with_interval(shapes)}.")
print("\nEXERCISE  11a: python lessons/exercises")

# %% [markdown]
# **Answer.** Training the decoder helps a little here, the middle block alone is not enough,
# and a copy without xt and t may be enough.
#
# Is it dangerous to train the decoder? Our test can hardly show this. During this training the
# decoder saw the same kind of pictures as in the base's own training. So there was little that
# it could forget. With other pictures it could be different (lesson 02).
#
# The middle block's control alone does nothing that we can see: its F1 is the F1 of no control.
# Perhaps its grid of only 2x2 places is too small, or 300 steps are too few. We have not tested
# which reason is right.
#
# Three trainings cannot distinguish the copy without xt and t from the full copy. A network
# that reads the condition only once for each picture is also the idea of T2I-Adapter. You will
# meet it in lesson 12.
