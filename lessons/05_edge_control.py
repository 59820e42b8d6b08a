# %% [markdown]
# # Lesson 05: Does the copy learn to follow outlines suddenly or gradually?
#
# In this lesson we train an edge ControlNet, from the first step to the point where it
# follows outlines (Sec. 3.3). The paper reports something strange about this training. For a
# long time the condition is ignored, and then, "suddenly", it is followed (Fig. 4). You will
#
# 1. lock the base and make a copy that changes nothing at first,
# 2. find a measure that shows what the loss hides,
# 3. train the copy and watch both.
#
# It takes about a minute. Then do exercises 05a to 05d, and read `control_loss` and
# `Training` in training.py.

# %%
import os
import sys

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
import torch
from lesson import Lesson, table
from lesson.figures_05 import loss_and_gap, while_training
from tqdm import tqdm

from minicontrolnet import (ControlNet, Training, control_loss, describe, detect_edges, edge_f1,
                            fingerprint, held_out, load_base, loss_of_condition, mask_iou,
                            mask_of, paired, sample, seeded, shuffle_gap)

lesson = Lesson("05_edge_control", steps=200, quick_steps=4)

guess = lesson.predict("How will a new ControlNet begin to follow outlines?",
                       a="gradually: every step contributes about the same",
                       b="suddenly: nothing happens for a long time, and then a lot",
                       c="not at all in 200 steps, because its zero convolutions hardly learn")

# %% [markdown]
# ## Lock and copy
#
# The ControlNet contains a copy of the base's encoder and 13 zero convolutions (lessons 02
# and 03). Before training it must change nothing, and "nothing" is meant literally: the
# pictures with the new ControlNet and those without it are equal bit for bit.

# %%
base = load_base(device=lesson.device)
mark = fingerprint(base.state_dict())
control = seeded(lesson.seed, ControlNet, base)

n = 5 if lesson.quick else 24
ddim_steps = 2 if lesson.quick else 8
truth, noise = held_out(n, lesson.device)  # pictures that are not used for training
prompt = truth.prompt
edges = detect_edges(truth.image)

with_copy = sample(base, prompt[:4], noise[:4], [(control, edges[:4])], steps=ddim_steps)
assert torch.equal(with_copy, sample(base, prompt[:4], noise[:4], steps=ddim_steps))

# %% [markdown]
# ## What should we watch?
#
# The obvious answer is the loss (Eq. 5). But the loss of a batch depends mostly on the noise
# and the times that were picked for it, and these are different in every step. So a single
# loss says little about what has been learned.
#
# We need a question that only a model which uses its outlines can answer. So we take held-out
# pictures, and fix their noise and times once and for all. Then we compute the loss twice:
# with the right outlines, and with every picture's outline given to its neighbour.
#
#     gap = loss with the wrong outlines - loss with the right outlines
#
# This is the *condition-shuffle gap*. If it is 0, the model ignores the outlines.

# %%
loss_with, outlines = loss_of_condition(base, control, "edge", n=16)
held_out_loss = {0: loss_with(outlines).item()}
gaps = {0: shuffle_gap(loss_with, outlines)}
print(f"before training the gap is {gaps[0]}")

# %% [markdown]
# ## Training
#
# Every step takes 16 new pictures, their noise and their times, and predicts the noise
# through the locked base. Half of the prompts are empty (Sec. 3.3), so that the copy cannot
# rely on the words. As in every training here, the edge maps are roughened like drawings. The
# optimiser changes the ControlNet only. Every ten steps we compute the gap, and at six
# moments we generate pictures for one outline, with its prompt and without words.

# %%
one = [4, 4]
words = [describe(prompt[one])[0], ""]
before = sample(base, prompt, noise, steps=ddim_steps)
strip = {0: sample(base, words, noise[one], steps=ddim_steps)}
losses = []

training = Training(control, control_loss(base, "edge"), steps=lesson.steps, lr=2e-3, seed=lesson.seed)
trained = training.averaged  # the moving average of the weights, which is better than the last ones
loss_with, outlines = loss_of_condition(base, trained, "edge", n=16)
for step, loss in tqdm(training, "training"):
    losses.append(loss)
    if step % 10 == 0 or step == lesson.steps:
        gaps[step] = shuffle_gap(loss_with, outlines)
        held_out_loss[step] = loss_with(outlines).item()
    if step in {50, 70, 90, 120, lesson.steps}:
        strip[step] = sample(base, words, noise[one], [(trained, edges[one])], steps=ddim_steps)
assert fingerprint(base.state_dict()) == mark  # the base has not changed

# %% [markdown]
# ## Does it follow the outlines now?
#
# We generate pictures for all held-out outlines and measure them in two ways. The *IoU*
# compares the shape with the inside of the outline, and the *F1 score* compares its edges
# with the outline. For comparison we also score the pictures from before the training, and
# those from after training against the wrong outlines.

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

# %%
gain = paired(iou["after training, right prompt"] - iou["before training"])
lesson.verdict(f"The ControlNet follows outlines: training raised the IoU by {gain.mean:.2f} (95 %"
               f" interval {gain.low:.2f} to {gain.high:.2f}, {n} pictures, one seed).")

# %% [markdown]
# Without words it follows outlines about as well, because half of its prompts were empty.
#
# ## Suddenly or gradually?
#
# Look at 05_edge_control.png, and cover the right half with your hand. Up to step 50 the
# training has changed nothing that you could see. Then it takes only a few dozen steps until
# the shape is in the right place. The gap puts numbers on this. Along a straight line it
# would reach a tenth of its final value after a tenth of the steps, and half after half of
# them.

# %%
final = gaps[lesson.steps]
tenth = min(step for step, gap in gaps.items() if gap >= 0.1 * final)
half = min(step for step, gap in gaps.items() if gap >= 0.5 * final)
print(f"a tenth of the final gap is reached at step {tenth}; a straight line: {lesson.steps // 10}")
print(f"half of it is reached at step {half}; a straight line: {lesson.steps // 2}")

late_start = tenth > lesson.steps / 10
quick_rise = half - tenth < (lesson.steps / 2 - lesson.steps / 10) / 2
lesson.reveal(guess, "b" if late_start and quick_rise else "a",
              f"the gap waits for {tenth} steps and then needs only {half - tenth} more to reach"
              " half of its final value.",
              a="at first there is nearly nothing to see.",
              b="the rise is not much faster than a straight line.",
              c="the weights are zero, but their gradients are not (lesson 03).")

# %% [markdown]
# So we see in our toy world what the paper describes. 05_edge_control_curves.png shows why
# one can miss it. The loss of the batches (grey) falls, but it jumps up and down by more than
# it falls. So it does not show when the copy began to use its outlines. On fixed pictures,
# noise and times the loss (blue) falls smoothly.

# %%
print(f"held-out loss: {held_out_loss[0]:.4f} before training"
      f" and {held_out_loss[lesson.steps]:.4f} after it")
print(f"standard deviation from batch to batch: {torch.tensor(losses).std():.4f}")
lesson.save_results({"IoU": iou, "F1": f1, "gap": gaps, "tenth": tenth, "half": half,
                     "held-out loss": held_out_loss, "loss of each batch": losses})
lesson.save_figure(loss_and_gap(losses, held_out_loss, gaps), "_curves")
lesson.save_figure(while_training(edges[one[:1]], strip, prompt[one[:1]]))
print("\nEXERCISES  05a to 05d: python lessons/exercises")

# %% [markdown]
# Why does it wait at all? It is tempting to blame the zero convolutions: they pass on nothing
# at first. But ControlNets that start from random weights wait just as long (lesson 08). The
# warm-up of the learning rate and the moving average delay it a little as well. We can
# describe the wait, but we do not know its cause. Claim 9 in [CLAIMS.md](CLAIMS.md) has what
# we measured.
