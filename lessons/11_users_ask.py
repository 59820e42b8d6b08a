# %% [markdown]
# # Lesson 11: What do users of ControlNet ask?
#
# The public issue trackers of ControlNet are full of good questions. We have collected those
# that come again and again, and this lesson answers five of them by measuring. (CN 185 means
# issue 185 of the official repository.)
#
# 1. What does the strength mean, and what happens above 1? (CN 185, 199)
# 2. When should control act, early or late? (diffusers 2731, 3770)
# 3. Can control act in one region only? (CN 270)
# 4. Is it better to train with larger batches, or for more steps? (CN 93, 527)
# 5. May I unlock the decoder, or leave out part of the copy? (CN 52, 62, 360, 608)
#
# It takes about a minute. Then do exercise 11a, and read `control_window` and `mask_controls`
# in sampling.py.

# %%
import os
import sys

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
import torch
from lesson import Lesson, finding, load_results, table, two_digits
from lesson.figures_11 import in_a_region, strengths, windows

from minicontrolnet import (Control, conflicting, detect_edges, edge_f1, held_out, load_base,
                            load_classifier, load_control, off_palette, paired, sample, shapes_right)

lesson = Lesson("11_users_ask", steps=16, quick_steps=4, meaning="pictures generated live")
base = load_base(device=lesson.device)
control = load_control("edge", base)
classifier = load_classifier().to(lesson.device)
truth, noise = held_out(lesson.steps, lesson.device)
edges = detect_edges(truth.image)
ddim_steps = 2 if lesson.quick else 20

guess = lesson.predict("Control acts only in the first half of sampling, or only in the second half. When are"
                       " outlines followed better?",
                       a="in the first half, because there the layout is decided",
                       b="in the second half, because outlines are details",
                       c="equally well, because half of the control is half of the control")

# %% [markdown]
# ## What does the strength mean?
#
# The strength (`conditioning_scale`) multiplies all 13 controls. To see it at work, we let
# words and outlines disagree: each prompt names another shape than its outline shows. Whose
# shape do we get?

# %%
words = conflicting(truth.prompt)


def who_wins(pictures):
    rows = [["control", "outline's shape", "word's shape", "edge F1", "oversaturated pixels"]]
    for name, images in pictures.items():
        of_outline = shapes_right(images, truth.prompt, classifier).float().mean()
        of_word = shapes_right(images, words, classifier).float().mean()
        rows.append([name, f"{of_outline:.0%}", f"{of_word:.0%}", f"{edge_f1(images, edges).mean():.2f}",
                     f"{off_palette(images).mean():.1%}"])
    table(rows)


# %%
by_scale = {}
for scale in (0, 0.25, 0.5, 1, 1.5, 2):
    by_scale[f"strength {scale:g}"] = sample(base, words, noise, [Control(control, edges, scale)], steps=ddim_steps)
who_wins(by_scale)
lesson.save_figure(strengths(edges, by_scale, words), "_strength")
harm = paired(off_palette(by_scale["strength 2"]) - off_palette(by_scale["strength 1"]))
lesson.verdict(f"A strength of 2 gives more oversaturated pixels than 1: {harm.mean:+.1%} (95 % interval"
               f" {harm.low:+.1%} to {harm.high:+.1%}, {lesson.steps} pictures), {harm.verdict}.")

# %% [markdown]
# A little control is not enough against the word. At 1, which is what training has seen, the
# outline wins.
#
# ## When should control act?
#
# Many programs can switch control on and off during sampling (`control_start` and
# `control_end`, as shares of the steps). We use the same words and outlines, and different
# parts of sampling.

# %%
by_window = {"never": by_scale["strength 0"]}
for name, (start, end) in {"in the first fifth": (0, 0.2), "in the first half": (0, 0.5), "always": (0, 1),
                           "after the first fifth": (0.2, 1), "in the second half": (0.5, 1)}.items():
    by_window[name] = sample(base, words, noise, [Control(control, edges)], steps=ddim_steps, control_start=start,
                             control_end=end)
who_wins(by_window)

# %%
halves = paired(edge_f1(by_window["in the first half"], edges) - edge_f1(by_window["in the second half"], edges))
answer = "a" if halves.low > 0 else "b" if halves.high < 0 else "c"
lesson.reveal(guess, answer, f"the edge F1 of the first half minus that of the second is {halves.mean:+.2f}"
              f" ({halves.low:+.2f} to {halves.high:+.2f}).",
              a="in the first half the layout was not decided for good.",
              b="by then the shape is in its place, and control finds little to move.",
              c="the two halves do different work.")
lesson.save_figure(windows(edges, by_window, words))

# %% [markdown]
# In the first steps the model decides where things are, and in the last ones how they look.
# Control that starts late cannot move a shape.
#
# ## Can control act in one region only?
#
# Yes. Multiply the 13 controls by a mask that has been shrunk to their grids (`Control(...,
# region=mask)`). Here the outline counts only in the left half of the picture.

# %%
left_half = torch.zeros(1, 1, 64, 64, device=lesson.device)
left_half[..., :32] = 1
everywhere = sample(base, truth.prompt, noise, [Control(control, edges)], steps=ddim_steps)
on_the_left = sample(base, truth.prompt, noise, [Control(control, edges, region=left_half)], steps=ddim_steps)
lesson.save_figure(in_a_region(edges, everywhere, on_the_left, truth.prompt), "_region")

# %% [markdown]
# On the left the shape follows its outline. On the right the model completes it as it likes.
# The border is soft, because convolutions look across it.
#
# ## Larger batches or more steps?
#
# train.md, the authors' guide, recommends larger batches. Its reason is that the sudden
# convergence comes at the same *step* for every batch size, so each step should see more
# pictures. A record compares 300 steps of 16 pictures with 1,200 steps of 4, so that both see
# equally many pictures.

# %%
record = load_results("users_variants")
arms = record["numbers"]
rows = [["trained", "edge F1 in each training"]]
for name, arm in {"300 steps of 16": "as in the paper", "1,200 steps of 4": "small batch"}.items():
    rows.append([name, ", ".join(two_digits(arms[arm]["F1"]))])
table(rows)
batches = finding(record, "300 steps of 16 minus 1,200 of 4, F1")
lesson.verdict(f"F1 of the large batches minus the small ones: {batches.mean:+.3f} ({batches.low:+.3f} to"
               f" {batches.high:+.3f}), {batches.verdict}.")

# %% [markdown]
# Many small steps do a little better here. We had also expected that both begin to follow at
# the same step. That failed: the large batches reached half of their final gap after 161
# steps, and the small ones after 430.
#
# ## May I unlock the decoder, or leave out part of the copy?
#
# Some users unlock the base's decoder as well and report better results; the authors call it
# dangerous. Others want to save computation. They use the middle block's control alone, or a
# copy that does not see the noisy picture and the time. Such a copy could run once for a
# picture, and not in every step.

# %%
findings = {"the decoder unlocked, minus locked": "unlocked minus locked, F1",
            "all 13 controls, minus the middle block alone": "all 13 minus the middle, F1",
            "the copy with t and xt, minus without": "with t and xt minus without, F1"}
rows = [["edge F1 of", "difference", "95 % interval", ""]]
for name, key in findings.items():
    more = finding(record, key)
    rows.append([name, f"{more.mean:+.3f}", f"{more.low:+.3f} to {more.high:+.3f}", more.verdict])
table(rows)
harm = finding(record, "locked minus unlocked, right shapes without control")
lesson.verdict(f"Without control, unlocking costs {harm.mean:.3f} of the right shapes ({harm.low:+.3f} to"
               f" {harm.high:+.3f}): {harm.verdict}.")
print("\nEXERCISE  11a: python lessons/exercises")

# %% [markdown]
# With the decoder unlocked, outlines are followed a little better. Our test can hardly show
# its harm: the decoder was trained on the base's own pictures, so there was little to forget
# (lesson 02 shows what happens with other pictures). The middle block alone does nothing
# here. A copy that sees only the outline is not seen to follow worse. That is the idea of
# T2I-Adapter (lesson 12).
