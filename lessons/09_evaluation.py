# %% [markdown]
# # Lesson 09: Is it control or luck, and how much data does it take?
#
# Suppose that somebody shows you a generated picture that fits its outline well. Did the
# ControlNet do this, or was it luck? And did the ControlNet need millions of training pictures,
# or only fifty? In this lesson you
#
# 1. compare every score with a *floor* and a *ceiling* (Sec. 4.3, Tab. 2),
# 2. compute an interval for a difference, and learn what it covers and what it does not,
# 3. test ControlNets that have seen only 5, 50 or 500 pictures (Sec. 4.5, Fig. 10).
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

# In this lesson the option --steps counts pictures.
lesson = Lesson("09_evaluation", steps=32, quick_steps=4, meaning="pictures", least_steps=2)

# %% [markdown]
# Before you read on, make a guess.

# %%
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
# compare it with two other scores:
#
# - The *ceiling* is the score of real pictures. Generated pictures can hardly do better.
# - The *floor* is the score of the ControlNet's pictures against the *wrong* outlines. No
#   picture was made for these outlines, so the floor shows what luck alone gives.

# %%
n = lesson.steps
base = load_base(device=lesson.device)
control = load_control("edge", base)
truth, noise = held_out(n, lesson.device, seed=10_000 + lesson.seed)
edges = detect_edges(truth.image)
ddim_steps = 2 if lesson.quick else 12
controlled = sample(base, truth.prompt, noise, [(control, edges)], steps=ddim_steps)
free = sample(base, truth.prompt, noise, steps=ddim_steps)

# %% [markdown]
# For the floor we compare each picture with the outline of its neighbour. We also score the
# pictures that the base generates without ControlNet.

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
# 09_evaluation_ceiling_and_floor.png shows the IoU of every picture. With ControlNet, the
# scores are near the ceiling and far from the floor. (The edge F1 even reaches the ceiling,
# because it forgives errors of one pixel.)
#
# The pictures without ControlNet never used the outline, either. Still their score is above the
# floor. We see two possible reasons: their prompts name the right shape, and the base puts its
# shapes near the middle, where most outlines are. So a floor is only a rough guide to luck.
#
# ## How sure are we?
#
# Every picture gives one difference: its IoU with the right outline minus its IoU with the
# wrong one. Let m be the mean of these n differences, and s their standard deviation. Then the
# *95 % interval* of the mean goes
#
#     from  m - k * s / sqrt(n)   to   m + k * s / sqrt(n)
#
# The factor k comes from Student's t distribution. It is 2.04 for 32 differences, and 4.30 for
# only three. If we measure more pictures, the interval becomes narrower. If we repeated the
# whole experiment many times with new pictures, about 95 of 100 such intervals would contain
# the true mean.

# %%
gain = paired(iou["with ControlNet"] - iou["wrong outlines (floor)"])
luck = "It is not only luck" if gain.low > 0 else "It may be luck"
lesson.verdict(f"{luck}: the IoU with ControlNet minus the floor is"
               f" {with_interval(gain, digits=2)} ({n} pictures).")

# %% [markdown]
# Be careful with the word "repeated". Only the pictures and their noise vary here. All pictures
# come from one ControlNet, so the interval is about this one set of weights. A statement about
# the *method* needs several trainings. Then each training counts as one number, however many
# pictures it has generated.
#
# ## How many pictures does it take?
#
# The paper trains with 1,000, with 50,000 and with 3 million pictures. It reports that the
# training does not collapse even with 1,000 pictures: it still generates a recognisable
# picture. And it reports that more pictures are better (Fig. 10).
#
# In our record every ControlNet is trained for 360 steps of 16 pictures. Only the number of
# *different* pictures varies: 5, 50, 500, or new pictures in every step, which makes 5,760. For
# each number there are six trainings, and each of them has a new random choice of pictures. The
# last column of the table shows whether the pictures stay clean. It is the share of *clean*
# pixels, which are near a colour of the toy world. (Lesson 06 counted the others.)

# %%
record = load_results("claim_19_few_pictures")
names = {"no control": "no ControlNet", "5": "5 pictures", "50": "50 pictures",
         "500": "500 pictures", "endless": "always new pictures",
         "real pictures": "real pictures (ceiling)"}
trained_iou = {}
rows = [["trained on", "IoU", "edge F1", "clean pixels"]]
for arm, name in names.items():
    scores = record["numbers"][arm]
    trained_iou[name] = scores["IoU"]
    clean = fmean(scores["clean pixels"])
    rows.append([name, f"{fmean(scores['IoU']):.2f}", f"{fmean(scores['F1']):.2f}", f"{clean:.0%}"])
table(rows)

# %% [markdown]
# Each of these numbers is a mean over trainings. They are lower than those above: these
# ControlNets were trained for 360 steps and not for 4,000, and the pictures are others. Do 50
# pictures help, and do more pictures help further?

# %%
fifty = finding(record, "50 minus no control, IoU")
five_hundred = finding(record, "500 minus 50, IoU")
endless = finding(record, "endless minus 50, IoU")
lesson.verdict("IoU (six trainings):",
               f"50 pictures minus no ControlNet: {with_interval(fifty)}.",
               f"500 pictures minus 50: {with_interval(five_hundred)}.",
               f"Always new pictures minus 50: {with_interval(endless)}.")

# %% [markdown]
# Training on 50 pictures clearly helps. Six trainings cannot decide whether more pictures help
# further, because the last two intervals contain 0.
#
# Small differences can mislead us. An earlier version of this record said that 50 pictures are
# *better* than 500. But it had used the same 50 pictures in every training. With a new choice
# in every training, the difference is gone. 09_evaluation.png shows each training as a dot.

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
# Even with five pictures the training does not collapse. The pixels are as clean as with more
# pictures, and the mean IoU is 0.86. One of the six trainings is clearly below the others. The
# paper sees no collapse either, with 1,000 pictures. A possible reason is the locked base. It
# already knows what pictures look like, so a ControlNet only has to learn to read outlines. We
# have not tested this.
