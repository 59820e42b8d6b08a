# %% [markdown]
# # Lesson 09: Is it control or luck, and how much data does it take?
#
# Suppose that somebody shows you a picture which fits its outline well. Has the ControlNet
# done its work, or was it luck? And did it need millions of training pictures, or fifty? In
# this lesson you
#
# 1. compare every score with a *floor* and a *ceiling* (Sec. 4.3, Tab. 2),
# 2. compute an interval for a difference, and learn what it covers and what it does not,
# 3. see how well a ControlNet works that has seen only 5, 50 or 500 pictures (Sec. 4.5, Fig. 10).
#
# It takes less than a minute. Then do exercise 09a, and read `edge_f1` in
# minicontrolnet/measure/pictures.py and `paired` in minicontrolnet/measure/intervals.py.

# %%
import os
import sys

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
from statistics import fmean

from lesson import Lesson, finding, load_results, table, with_interval
from lesson.figures_09 import ceiling_and_floor, few_pictures_suffice

from minicontrolnet import (detect_edges, edge_f1, held_out, load_base, load_control, mask_iou,
                            mask_of, paired, sample)

# %%
lesson = Lesson("09_evaluation", steps=32, quick_steps=4, meaning="pictures", least_steps=2)

guess = lesson.predict("A ControlNet is trained on the same 50 pictures again and again. How well"
                       " does it follow new outlines, compared with a ControlNet that gets new"
                       " pictures in every step?",
                       a="hardly at all, because it has learned its 50 pictures by heart",
                       b="about half as well",
                       c="nearly as well")

# %% [markdown]
# ## Between the floor and the ceiling
#
# The paper measures fidelity by detecting the condition again, in the generated picture (Tab.
# 2). We do the same with outlines. But a score such as "IoU 0.95" means little by itself. We
# need two other scores to compare it with:
#
# - The *ceiling* is the score of real pictures. We cannot expect more of generated ones.
# - The *floor* is the score of generated pictures against the *wrong* outlines. It is what luck
#   alone would give.

# %%
n = lesson.steps  # in this lesson, --steps counts pictures
base = load_base(device=lesson.device)
control = load_control("edge", base)
truth, noise = held_out(n, lesson.device, seed=10_000 + lesson.seed)
edges = detect_edges(truth.image)
ddim_steps = 2 if lesson.quick else 12
controlled = sample(base, truth.prompt, noise, [(control, edges)], steps=ddim_steps)
free = sample(base, truth.prompt, noise, steps=ddim_steps)

# %% [markdown]
# For the floor we compare each picture with the outline of its neighbour.

# %%
other_mask = truth.mask.roll(1, 0)
other_edges = edges.roll(1, 0)
measured = {"real pictures (ceiling)": (truth.image, truth.mask, edges),
            "with ControlNet": (controlled, truth.mask, edges),
            "without ControlNet": (free, truth.mask, edges),
            "wrong outlines (floor)": (controlled, other_mask, other_edges)}
iou = {}
rows = [["pictures", "IoU", "edge F1"]]
for name, (images, mask, outline) in measured.items():
    iou[name] = mask_iou(mask_of(images), mask)
    rows.append([name, f"{iou[name].mean():.2f}", f"{edge_f1(images, outline).mean():.2f}"])
table(rows)
lesson.save_figure(ceiling_and_floor(iou), "_ceiling_and_floor")

# %% [markdown]
# With ControlNet the score is near the ceiling and far from the floor. Without ControlNet the
# outline was never used, so this score is luck as well. It need not equal the floor: with so few
# pictures, luck varies. The last table of this lesson has another set of pictures, and there
# "no ControlNet" has another score.
#
# ## How sure are we?
#
# Every picture gives one difference: its IoU with the right outline minus that with the wrong
# one. Let m be the mean of these differences, and s their standard deviation. Then the *95 %
# interval* of the mean goes
#
#     from  m - t * s / sqrt(n)   to   m + t * s / sqrt(n)
#
# where n is the number of differences. Student's t is 2.04 for 32 differences, and 4.30 for
# only three. The interval becomes narrower if we measure more pictures. If we repeated the
# whole experiment many times with new pictures, about 95 of 100 such intervals would contain
# the true mean.

# %%
gain = paired(iou["with ControlNet"] - iou["wrong outlines (floor)"])
luck = "It is not only luck" if gain.low > 0 else "It may be luck"
lesson.verdict(f"{luck}: the IoU with ControlNet minus the floor is"
               f" {with_interval(gain, digits=2)} ({n} pictures).")

# %% [markdown]
# Be careful with the word "repeated". Only the *pictures* vary here. All of them come from one
# ControlNet, so the interval is about this one set of weights. A statement about the *method*
# needs several trainings. Then each training counts as one number, however many pictures it
# has generated.
#
# ## How many pictures does it take?
#
# The paper trains with 1,000, with 50,000 and with 3 million pictures. It reports that even with
# 1,000 pictures the training does not collapse, that is, the pictures stay good. And it reports
# that more pictures are better (Fig. 10). In our record every ControlNet takes the same number of
# training steps. Only the number of different pictures varies. For each number there are six
# trainings, and each training has a new random choice of pictures.

# %%
record = load_results("claim_19_few_pictures")
names = {"no control": "no ControlNet", "5": "5 pictures", "50": "50 pictures",
         "500": "500 pictures", "endless": "always new pictures",
         "real pictures": "real pictures (ceiling)"}
trained_iou = {}
rows = [["trained on", "IoU", "edge F1"]]
for arm, name in names.items():
    scores = record["numbers"][arm]
    trained_iou[name] = scores["IoU"]
    rows.append([name, f"{fmean(scores['IoU']):.2f}", f"{fmean(scores['F1']):.2f}"])
table(rows)

# %%
fifty = finding(record, "50 minus no control, IoU")
five_hundred = finding(record, "500 minus 50, IoU")
endless = finding(record, "endless minus 50, IoU")
lesson.verdict("IoU (six trainings):",
               f"50 pictures minus no ControlNet: {with_interval(fifty)}.",
               f"500 pictures minus 50: {with_interval(five_hundred)}.",
               f"Always new pictures minus 50: {with_interval(endless)}.")

# %% [markdown]
# Training on 50 pictures clearly helps. Six trainings cannot decide whether more than 50 help
# further: both of these intervals contain 0.

# %%
whole_gain = fmean(trained_iou["always new pictures"]) - fmean(trained_iou["no ControlNet"])
share = fifty.mean / whole_gain
answer = "c"
if share < 0.8:
    answer = "a" if share < 0.2 else "b"
lesson.reveal(guess, answer, f"with 50 pictures it gains {share:.0%} of what it gains with always new pictures.",
              a="it follows outlines that it has never seen.",
              b="it does better than that.",
              c="50 pictures are not enough here.")
lesson.save_figure(few_pictures_suffice(trained_iou))
print("\nEXERCISE  09a: python lessons/exercises")

# %% [markdown]
# Even with five pictures the training does not collapse. One possible reason is the locked base:
# it already knows what pictures look like, so a ControlNet only has to learn to read outlines.
# We have not measured whether this is the reason.
#
# Such small differences can fool us. An earlier version of this record said that 50 pictures
# are *better* than 500. But it had used the same 50 pictures for every training. With a new
# choice for every training, the difference is gone.
