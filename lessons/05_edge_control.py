# %% [markdown]
# # Lesson 05: Does the copy learn to follow outlines suddenly or gradually?
#
# In this lesson we train an edge ControlNet, from the first step to the point where it follows
# outlines (Sec. 3.3). The paper reports something strange about such a training. For a long
# time the model ignores the condition, and then, "suddenly", it follows it (Fig. 4). You will
#
# 1. lock the base and make a copy that changes nothing at first,
# 2. find a measure that shows what the loss of a batch hides,
# 3. train the copy, and watch the loss and this measure.
#
# It takes about a minute. Then do exercises 05a to 05d, and read `control_loss` and `Training`
# in training.py.

# %%
import copy
import os
import sys

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
from lesson import Lesson, table
from lesson.curves import reached
from lesson.figures_05 import loss_and_gap, while_training

import torch
from tqdm import tqdm

from minicontrolnet import (ControlNet, Training, control_loss, describe, detect_edges, edge_f1,
                            fingerprint, held_out, load_base, loss_of_condition, mask_iou,
                            mask_of, paired, sample, seeded, shuffle_gap)

lesson = Lesson("05_edge_control", steps=150, quick_steps=4)

# %% [markdown]
# Before you read on, make a guess.

# %%
guess = lesson.predict("How will a new ControlNet begin to follow outlines?",
                       a="gradually: every step contributes about the same",
                       b="suddenly: nothing happens for a long time, and then a lot",
                       c="not at all in 150 steps, because its zero convolutions hardly learn")

# %% [markdown]
# ## Lock and copy
#
# The ControlNet contains a copy of the base's encoder and 13 zero convolutions (lessons 02 and
# 03). We also take some *held-out* pictures, which are not used for training, and detect their
# edges.

# %%
base = load_base(device=lesson.device)
mark = fingerprint(base.state_dict())  # to check later that nothing has changed the base
control = seeded(lesson.seed, ControlNet, base)

n = 5 if lesson.quick else 24
ddim_steps = 2 if lesson.quick else 8
truth, noise = held_out(n, lesson.device)
prompt = truth.prompt
edges = detect_edges(truth.image)

# %% [markdown]
# Before training, the ControlNet must change nothing. "Nothing" is meant literally: pictures
# with it and without it are equal bit for bit.

# %%
with_copy = sample(base, prompt[:4], noise[:4], [(control, edges[:4])], steps=2)
assert torch.equal(with_copy, sample(base, prompt[:4], noise[:4], steps=2))

# %% [markdown]
# ## What should we watch?
#
# The obvious answer is the loss (Eq. 5, weighted as in lesson 01). But the loss of a batch also
# depends on its pictures, their noise and their times, and these are different in every step.
# So a single loss says little about what the copy has learned.
#
# A model that uses its outlines should be worse with wrong ones. So we take held-out pictures,
# and choose their noise and their times t once. Then we compute the loss twice: once with the
# right outlines, and once with wrong ones, where each picture gets its neighbour's outline.
#
#     gap = loss with the wrong outlines - loss with the right outlines
#
# This is the *condition-shuffle gap*, or shuffle gap for short. It is 0 as long as the model
# ignores the outlines.

# %%
# `loss_with(outlines)` is the loss on 8 fixed pictures with any outlines; `outlines` are the right ones.
loss_with, outlines = loss_of_condition(base, control, "edge", n=8)
held_out_loss = {0: loss_with(outlines).item()}
gaps = {0: shuffle_gap(loss_with, outlines)}
print(f"before training the gap is {gaps[0]}")

# %% [markdown]
# An untrained ControlNet ignores the outlines completely.
#
# ## Training
#
# Every step paints 16 new pictures, picks noise and times for them, and predicts the noise
# through the locked base. Half of the prompts are empty (Sec. 3.3), so that the copy also
# learns what an outline means without words. The edge maps are made rough like a drawing, with
# thicker lines and small gaps, so that the ControlNet also follows drawings. The optimiser
# changes the ControlNet only.
#
# We want to see what happens on the way. So at six moments we generate two pictures for one
# outline: the first with its prompt, and the second with no prompt. With no prompt the colours
# are free, and may change from one moment to the next.

# %%
twice = [4, 4]  # picture number 4, two times
words = [describe(prompt)[4], ""]
strip = {0: sample(base, words, noise[twice], steps=ddim_steps)}
before = sample(base, prompt, noise, steps=ddim_steps)

# %% [markdown]
# Now we train. Every ten steps we also compute the gap and the loss on the held-out pictures.

# %%
losses = []
training = Training(copy.deepcopy(control), control_loss(base, "edge"), steps=lesson.steps,
                    lr=3e-3, seed=lesson.seed)
trained = training.averaged  # the moving average of the weights; it changes in every step below
# This is the same measure as above, now for the trained network.
loss_with, outlines = loss_of_condition(base, trained, "edge", n=8)
for step, loss in tqdm(training, "training"):
    losses.append(loss)
    if step % 10 == 0 or step == lesson.steps:
        gaps[step] = shuffle_gap(loss_with, outlines)
        held_out_loss[step] = loss_with(outlines).item()
    if step in {30, 50, 60, 80, lesson.steps}:
        strip[step] = sample(base, words, noise[twice], [(trained, edges[twice])], steps=ddim_steps)
assert fingerprint(base.state_dict()) == mark  # the base has not changed

# %% [markdown]
# ## Does it follow the outlines now?
#
# We generate pictures for all held-out outlines and measure them in two ways. The *IoU*
# compares the shape with the inside of the outline, and the *F1 score* compares its edges with
# the outline (lesson 04). For comparison we also score the pictures from before the training.
# To see which score chance alone gives, we compare the new pictures with the outlines of other
# pictures, too.

# %%
right = sample(base, prompt, noise, [(trained, edges)], steps=ddim_steps)
empty = sample(base, "", noise, [(trained, edges)], steps=ddim_steps)
measured = {"before training": (before, truth.mask, edges),
            "after training, right prompt": (right, truth.mask, edges),
            "after training, no prompt": (empty, truth.mask, edges),
            "against the wrong outlines": (right, truth.mask.roll(1, 0), edges.roll(1, 0))}
iou = {}
f1 = {}
rows = [["pictures", "IoU", "edge F1"]]
for name, (images, mask, outline) in measured.items():
    iou[name] = mask_iou(mask_of(images), mask)
    f1[name] = edge_f1(images, outline)
    rows.append([name, f"{iou[name].mean():.2f}", f"{f1[name].mean():.2f}"])
table(rows)

# %% [markdown]
# With no prompt, the trained ControlNet follows the outlines about as well as with the right
# prompt. Is the rise of the IoU more than chance?

# %%
gain = paired(iou["after training, right prompt"] - iou["before training"])
lesson.verdict(f"Training raised the IoU by {gain.mean:.2f} (95 % interval {gain.low:.2f} to"
               f" {gain.high:.2f}, {n} pictures, one seed): {gain.verdict}.")
lesson.save_figure(while_training(edges[4:5], strip, prompt[4:5]))

# %% [markdown]
# ## Suddenly or gradually?
#
# Look at 05_edge_control.png, where the magenta line is the outline. Cover everything to the
# right of step 30. Up to there, the training has changed hardly anything that you could see.
# Then it takes only a few dozen steps until the shape is in the right place.
#
# The gap puts numbers on this. Suppose that the gap rose along a straight line. Then it would
# reach a tenth of its final value after a tenth of the steps, and half of it after half of the
# steps. `reached` finds the steps where our curve does so. (We measured the gap every ten
# steps. Between two measurements, `reached` draws a straight line.)

# %%
tenth = reached(gaps, 0.1)
half = reached(gaps, 0.5)
print(f"the gap makes a tenth of its rise by step {tenth:.0f}; a straight line: {lesson.steps // 10}")
print(f"it makes half of its rise by step {half:.0f}; a straight line: {lesson.steps // 2}")

# %% [markdown]
# We call the rise sudden if two things hold. The gap needs more steps than a straight line for
# its first tenth. And from a tenth to a half it needs less than half as many steps as a
# straight line. (In 150 steps a straight line needs 60 steps for this part. So the gap must
# need fewer than 30.)

# %%
late_start = tenth > lesson.steps / 10
quick_rise = half - tenth < (lesson.steps / 2 - lesson.steps / 10) / 2
lesson.reveal(guess, "b" if late_start and quick_rise else "a",
              f"the gap reaches a tenth of its rise after {tenth:.0f} steps, and half of it only"
              f" {half - tenth:.0f} steps later.",
              a="at first there is nearly nothing to see.",
              b="the rise is not much faster than a straight line.",
              c="the weights are zero, but their gradients are not (lesson 03).")

# %% [markdown]
# With seed 0 the rise is sudden in this sense. (Claim 9 in CLAIMS.md has a stricter definition.
# By that one the rise is sudden, too.)
#
# Could we have seen it in the loss of the batches, too? This loss falls, but it also jumps from
# each batch to the next. How large are the two effects?

# %%
loss = torch.tensor(losses)
quarter = max(1, len(loss) // 4)
fall = loss[:quarter].mean() - loss[-quarter:].mean()
jump = loss.diff().abs().mean()
print(f"loss of the batches: it falls by {fall:.4f} from the first to the last quarter of the training,")
print(f"and from one batch to the next it jumps by {jump:.4f} on average")
print(f"loss on the same held-out pictures: {held_out_loss[0]:.4f} before training"
      f" and {held_out_loss[lesson.steps]:.4f} after it")
lesson.save_figure(loss_and_gap(losses, held_out_loss, gaps), "_curves")

# %% [markdown]
# A single jump is nearly as large as the whole fall. 05_edge_control_curves.png shows the jumps
# in grey. In single batches you can hardly see when the copy began to use its outlines. The
# black line is a mean of 20 batches, and it shows roughly when. If pictures, noise and times
# stay the same, the loss (blue) falls without such jumps. It begins to fall when the gap begins
# to rise. But it falls only by a fifth, so you have to look closely. The gap is easier to read,
# because its value 0 means that the outlines are ignored. (The blue line lies below the others.
# One reason is that no prompt of the held-out pictures is empty.)

# %%
lesson.save_results({"IoU": iou, "F1": f1, "gap": gaps, "tenth": tenth, "half": half,
                     "held-out loss": held_out_loss, "loss of each batch": losses})
print("\nEXERCISES  05a to 05d: python lessons/exercises")

# %% [markdown]
# ## Why does it wait?
#
# Why does the gap stay near 0 for so long? One may suspect the zero convolutions, because their
# outputs are 0 at first. But ControlNets that start from small random weights wait about as
# long, and those that start from large random weights wait longer (lesson 08).
#
# Perhaps the weights simply have to travel a fixed distance. Then four times the learning rate
# would need a quarter of the steps. In our measurement they needed about half of them. So this
# is not the whole reason, either. Claim 9 in [CLAIMS.md](CLAIMS.md) lists what we tried. We can
# describe the wait, but we do not know its cause.
