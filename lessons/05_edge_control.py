# %% [markdown]
# # Lesson 05: How does a copy learn to follow outlines, and does the loss tell?
# Sec. 3.3, Fig. 4, Eq. 5. A copy is trained live: one minute. After its exercises read
# `control_loss` and `train` in training.py, `shuffle_gap` in metrics.py.

# %%
import os
import sys
from itertools import islice

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # this folder, also under python -P
import torch
from lesson import Lesson, table
from lesson.figures_05 import convergence
from tqdm import tqdm

from minicontrolnet import (Control, ControlNet, Training, control_loss, describe, detect_edges,
                            edge_f1, fingerprint, held_out, load_base, loss_of_condition, mask_iou,
                            mask_of, paired, sample, seeded, shuffle_gap)

lesson = Lesson("05_edge_control", steps=200, quick_steps=4)
guess = lesson.predict("How does a copy with zero convs begin to follow outlines?",
                       a="step by step: each brings about as much as the one before",
                       b="suddenly: for long nothing to be seen, then much in a few steps",
                       c="not within these steps: weights that are zero hardly learn")

# %% [markdown]
# ## Lock and copy (Sec. 3.1)
# The copy starts from the base's weights, its zero convs from 0. So before training it
# must change nothing (Eq. 3): not almost nothing, whole pictures agree to the last bit.

# %%
base = load_base(device=lesson.device)
mark = fingerprint(base.state_dict())
control = seeded(lesson.seed, ControlNet, base)
n = 5 if lesson.quick else 32
ddim_steps = 2 if lesson.quick else 12
truth, noise = held_out(n, lesson.device)  # pictures that no training sees
edges = detect_edges(truth.image)
start = sample(base, truth.prompt, noise, [Control(control, edges)], steps=ddim_steps)
assert torch.equal(start, sample(base, truth.prompt, noise, steps=ddim_steps))

# %% [markdown]
# ## A ruler
# The loss of a batch depends on the times and noise drawn for it. So every ten steps we
# ask, on the same pictures and noise: how much larger is the loss if each picture gets
# its neighbour's outline? This condition-shuffle gap is 0 where outlines are ignored.
# A straight rise takes four times as long from its first tenth to its half as it waited
# for that tenth. We say "suddenly" if the wait is the longer of the two.

# %%
loss_with, outlines = loss_of_condition(base, control, "edge", n)
held_out_losses = [loss_with(outlines).item()]
gaps = {0: shuffle_gap(loss_with, outlines)}

# %% [markdown]
# ## Training
# Noise a batch, predict through the locked base, go down. Half of the prompts are empty
# (Sec. 3.3): the copy must read the outline. The rate warms up for 50 steps, then falls
# along a cosine, planned for three times as many steps.

# %%
training = Training(control, control_loss(base, "edge"), steps=3 * lesson.steps, lr=2e-3,
                    seed=lesson.seed)
loss_with, outlines = loss_of_condition(base, training.averaged, "edge", n)
one = [4, 4]  # we draw this outline on the way, with its prompt and without
prompts = [describe(truth.prompt[one])[0], ""]


def draw_one():
    control = Control(training.averaged, edges[one])
    return sample(base, prompts, noise[one], [control], steps=ddim_steps)


losses = []
strip = {0: draw_one()}
for step, loss in tqdm(islice(training, lesson.steps), "training", lesson.steps):
    losses.append(loss)
    if step % 10 == 0 or step == lesson.steps:
        gaps[step] = shuffle_gap(loss_with, outlines)
    if step in {60, 80, 100, 140, lesson.steps}:
        strip[step] = draw_one()
trained = training.averaged
assert fingerprint(base.state_dict()) == mark  # locked
held_out_losses.append(loss_with(outlines).item())

# %% [markdown]
# ## Are outlines followed, and did it come suddenly?
# Mask and edges are found again in what was drawn, and compared with the outline (mask
# IoU, edge F1). Floor: the outline of another picture. Ceiling: real pictures.
# Then read the gap's powers of ten: from the start it grows many times over in each 20
# steps, too small to be seen; what grows so crosses the threshold of sight suddenly.

# %%
right = sample(base, truth.prompt, noise, [Control(trained, edges)], steps=ddim_steps)
empty = sample(base, "", noise, [Control(trained, edges)], steps=ddim_steps)
drawn = {"step 0": (start, 0), "right prompt": (right, 0), "empty prompt": (empty, 0),
         "floor": (right, 1), "ceiling": (truth.image, 0)}
iou = {}
f1 = {}
rows = [[f"n = {n}", "mask IoU", "edge F1"]]
for name, (images, roll) in drawn.items():
    iou[name] = mask_iou(mask_of(images), truth.mask.roll(roll, 0))
    f1[name] = edge_f1(images, edges.roll(roll, 0))
    rows.append([name, f"{iou[name].mean():.2f}", f"{f1[name].mean():.2f}"])
table(rows)
print("\ngap, every 20 steps:", *(f"{gap:.1e}" for gap in list(gaps.values())[::2]))

# %%
last = gaps[lesson.steps]
wait = min(step for step, gap in gaps.items() if gap >= 0.1 * last)
half = min(step for step, gap in gaps.items() if gap >= 0.5 * last)
rise = paired(iou["right prompt"] - iou["step 0"])
sudden = wait > half - wait
answer = "c" if rise.low <= 0.1 else "b" if sudden else "a"
lesson.reveal(guess, answer,
              f"a tenth of the gap at step {wait}, half of it {half - wait} steps later; a"
              f" straight rise would have taken {4 * wait}.",
              a="almost nothing comes at first: see the gap.",
              b="the wait is not longer than the rise: see the gap.",
              c="the weights are 0, their gradients are not (lesson 03).")
first_loss, last_loss = held_out_losses
noisy = torch.tensor(losses).std()
lesson.verdict(f"Outlines are followed: {rise.verdict}, IoU {rise} by training, n = {n}; one"
               f" training seed, lesson 09 has more. On the same pictures and noise the loss"
               f" fell from {first_loss:.4f} to {last_loss:.4f}; from batch to batch"
               f" it varies by {noisy:.4f}. A wrong outline costs {last:.4f}.")
lesson.save_results({"IoU": iou, "F1": f1, "gap": gaps, "tenth": wait, "half": half,
                     "held-out loss, first and last": held_out_losses})
lesson.save_figure(convergence(edges[one[:1]], strip, truth.prompt[one[:1]], losses, gaps, wait, n))
print("\nEXERCISES  05a to 05d: python lessons/exercises")
