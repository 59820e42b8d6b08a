# %% [markdown]
# # Lesson 12: What came after ControlNet?
#
# ControlNet was the first of a large family. Its successors promise the same control with
# fewer weights, less arithmetic, or no training at all. Their papers use different bases,
# data and measures, so it is hard to say which one to use. Here all of them stand on the same
# small base, see the same pictures, and train for the same number of steps. In this lesson
# you
#
# 1. build seven relatives of ControlNet, in 15 to 40 lines each,
# 2. train three of them, and control the base once without any training,
# 3. read a table of costs and fidelity, and choose a method for a budget.
#
# It takes about a minute. Keep lesson/descendants.py open: every method there says what it
# trains, what it locks, and where it joins the base. Then do exercises 12a, 12b and 12c.

# %%
import os
import sys
from statistics import fmean

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # this folder, also under python -P
import torch
from lesson import Lesson, load_pictures, load_results, table
from lesson import descendants as methods
from lesson.figures_12 import cost_and_fidelity, pictures_of, sketches
from torch import nn
from tqdm import tqdm

from minicontrolnet import (Training, colours_right, detect_edges, difference, edge_f1, load_base,
                            mask_iou, mask_of, q_sample, seeded, x0_from_eps)

lesson = Lesson("12_descendants", steps=120, quick_steps=2)
base = load_base(device=lesson.device)
ddim_steps = 2 if lesson.quick else 12

guess = lesson.predict(
    "One method trains nothing. At each of 25 sampling steps it asks which change of the noise "
    "would bring the predicted picture's edges nearer to the outline, and makes that change. "
    "With the right prompt, how well does it follow the outline?",
    a="hardly better than the prompt alone: the base never learned what an outline is",
    b="about as well as a ControlNet after 600 training steps",
    c="better than any trained method, because it looks at the outline at each step")

# %% [markdown]
# ## One way to call them all
#
# A method is a module that holds what is trained. We call it with the base as an argument:
# `method(base, xt, t, prompt, condition)` returns eps. Without a condition, control is off.
# So we can ask three questions of every method before any training. How many weights does it
# train? Does it start at the base, as ControlNet does? And is the base still there when
# control is off?

# %%
generator = torch.Generator().manual_seed(lesson.seed)
batch = methods.part_of_world(16, generator, methods.SEEN).map(lambda x: x.to(lesson.device))
edges = detect_edges(batch.image)
noise = torch.randn(batch.x0.shape, generator=generator).to(lesson.device)
t = torch.full((16,), 500, device=lesson.device)
rows = [["before training", "trained weights", "start moves eps by"]]


@torch.no_grad()
def introduce(name: str, method: nn.Module) -> None:
    """Add a method to the table."""
    moved = method(base, noise, t, batch.prompt, edges) - base(noise, t, batch.prompt)
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    rows.append([name, f"{trained:,}", f"{moved.abs().max():.2g}"])


introduce("ControlNet", seeded(lesson.seed, methods.controlnet, base))
lesson.save_figure(sketches(), "_sketches")

# %% [markdown]
# The sketches show the whole family. The square is the outline. Arrows that end at the right
# half are added after the encoder has finished. Arrows that end at the left half change what
# the rest of the encoder computes.
#
# ## Control-LoRA: the copy is the base plus a low-rank difference
#
# ControlNet copies the encoder and trains the copy. But the copy stays close to the base, so
# perhaps a small correction is enough. Control-LoRA locks each weight matrix W of the copy,
# and trains two thin matrices:
#
#     W + B A        with A of rank 4, and B = 0 at the start
#
# CtrLoRA goes one step further. It trains one full ControlNet on several conditions, and then
# such a correction for each new one.

# %%
lora = seeded(lesson.seed, methods.control_lora, base)
layer = lora.control.encoder.blocks[0].conv1
low_rank = layer.parametrizations.weight[0]
locked = layer.parametrizations.weight.original
print(f"a locked conv: {locked.numel():,} weights")
print(f"its correction: B {tuple(low_rank.b.shape)} times A {tuple(low_rank.a.shape)},"
      f" {low_rank.a.numel() + low_rank.b.numel():,} weights")
assert torch.equal(layer.weight, locked)  # B is 0
introduce("Control-LoRA", lora)

# %% [markdown]
# ## T2I-Adapter: read the outline once per picture
#
# A ControlNet runs at every step of sampling, because its copy reads the noisy picture.
# T2I-Adapter is a small pyramid that reads the outline alone. So it runs once per picture. It
# adds one map per level inside the base's encoder.
#
# Its paper found that control matters most at early, noisy steps. Its training prefers them:
# it replaces a uniform t by (1 - (t / T)^3) T.

# %%
adapter = seeded(lesson.seed, methods.T2IAdapter, base)
for join, features in zip(adapter.JOINS, adapter.features(edges)):
    print(f"after layer {join:2}: add {tuple(features.shape[1:])}")
cubic = methods.cubic_times(torch.arange(1000))
print(f"{(cubic >= 500).float().mean():.0%} of the cubic times are above 500")
introduce("T2I-Adapter", adapter)

# %% [markdown]
# ## ControlNet-XS: talk at every layer
#
# ControlNet's copy sees what its controls did only at the next step of sampling. The authors
# of ControlNet-XS call this delayed feedback, and they cure it. Their controller is narrow,
# and at each layer it hears the base and answers at once:
#
#     narrow = narrow + from_base(wide)
#     wide = wide_layer(wide, emb)
#     narrow = narrow_layer(narrow, emb)
#     wide = wide + to_base(narrow)            a zero conv
#
# Because the base does the heavy work, the controller can be small.

# %%
xs = seeded(lesson.seed, methods.ControlNetXS, base)
print("channels of the base's maps:      ", base.encoder.channels)
print("channels of the controller's maps:", xs.encoder.channels)
introduce("ControlNet-XS", xs)

# %% [markdown]
# ## ControlNeXt: one join, and a start that is not zero
#
# ControlNeXt gives up the copy. Four convs read the outline, and the result is added at one
# place of the encoder. A small part of the base behind it is trained. The authors also give
# up the zero start, because zero convs learn slowly. Instead, *cross normalisation* gives the
# control the mean and the spread of the maps that it joins.

# %%
main = 1 + 2 * torch.randn(1, 32, 8, 8, generator=generator)
control = torch.rand(1, 32, 8, 8, generator=generator) / 100
aligned = methods.cross_normalise(control, main)
for name, maps in {"main": main, "control": control, "aligned": aligned}.items():
    print(f"{name:8} mean {maps.mean():6.3f}, spread {maps.std():6.3f}")
introduce("ControlNeXt", seeded(lesson.seed, methods.ControlNeXt, base))

# %% [markdown]
# ## Two neighbours: the base fine-tuned, and a reward
#
# The oldest idea is to train the base itself, with the outline as a second input. It is the
# rival that ControlNet's paper argues against. Lesson 02 showed what it forgets.
#
# ControlNet++ keeps ControlNet's network, and adds a term to the loss. From the picture that
# one step predicts we extract the edges again, and penalise their distance from the outline.
# Our base predicts pictures, so this term costs almost nothing.

# %%
introduce("fine-tuned base", seeded(lesson.seed, methods.FineTuned, base))
xt = q_sample(batch.x0, t, noise)
with torch.no_grad():
    predicted = x0_from_eps(base(xt, t, batch.prompt), xt, t)
print(f"edge loss of real pictures:          {methods.edge_loss(batch.x0, edges).mean():.3f}")
print(f"edge loss of the base's predictions: {methods.edge_loss(predicted, edges).mean():.3f}")
introduce("floor: a frozen copy", seeded(lesson.seed, methods.frozen_copy, base))
table(rows)

# %% [markdown]
# Two methods do not start at the base: T2I-Adapter's random weights move eps a little, and
# cross normalisation moves it a lot. The last row is a floor. Its copy is locked, so only its
# zero convs learn. It is a bug that real projects had for weeks.
#
# ## Control without training
#
# The edge loss has a gradient with respect to the noisy picture xt. Training-free guidance
# follows it at each step of sampling:
#
#     eps + strength * |eps| * gradient / |gradient|
#
# No weight changes. But each step needs a backward pass through the base.

# %%
def scores(images, truth, outlines):
    """Mask IoU, edge F1, and the share of right colours."""
    values = (mask_iou(mask_of(images), truth.mask), edge_f1(images, outlines),
              colours_right(images, truth.prompt).float())
    return [f"{value.mean():.2f}" for value in values]


rows = [["right prompt, 16 pictures", "IoU", "F1", "right colours"]]
for steps in (2, 3) if lesson.quick else (8, 25):
    model = methods.edge_guided(base, batch.prompt, edges)
    images = methods.generate(model, noise, steps)
    rows.append([f"training-free, {steps} steps", *scores(images, batch, edges)])
table(rows)

# %% [markdown]
# ## Train three of them
#
# We train ControlNet, T2I-Adapter and the base itself for the same 120 steps, on pictures in
# four of the eight colours. Then we prompt for the other four. Does the outline still arrive,
# and are the new colours still there?

# %%
new = methods.part_of_world(16, generator, methods.NEW).map(lambda x: x.to(lesson.device))
new_edges = detect_edges(new.image)
live = {"ControlNet": (methods.controlnet, False),
        "T2I-Adapter": (methods.T2IAdapter, True),
        "fine-tuned base": (methods.FineTuned, False)}
rows = [["new colours, 16 pictures", "IoU", "F1", "right colours"]]
for name, (build, cubic) in live.items():
    method = seeded(lesson.seed, build, base).to(lesson.device)
    loss = methods.following_loss(base, methods.seen_batch, cubic)
    training = Training(method, loss, lesson.steps, lr=1e-3, seed=lesson.seed)
    for _ in tqdm(training, name):
        pass
    with torch.no_grad():
        model = methods.guided_by(base, training.averaged, new.prompt, new_edges)
        images = methods.generate(model, noise, ddim_steps)
    rows.append([f"{name}, {lesson.steps} steps", *scores(images, new, new_edges)])
table(rows)

# %% [markdown]
# One seed and 120 steps do not decide anything. For that we have a record.
#
# ## The same 600 steps for everybody
#
# The record of lessons/experiments/12_descendants.py trained the methods with three seeds
# (the floor with one), on the same batches, in four of the eight colours. We wrote down
# beforehand, at its top, what we expected. Costs are millions of operations per picture and
# sampling step. The base alone needs 194.

# %%
record = load_results("12_descendants")["numbers"]
order = ["ControlNet", "ControlNet++", "Control-LoRA", "T2I-Adapter", "ControlNet-XS",
         "ControlNeXt", "fine-tuned base", "frozen copy"]


def mean_f1(name, step, prompt):
    return f"{fmean(record[name][step][prompt]['F1']):.2f}"


rows = [["edge F1", "trained", "MFLOP", "150", "300", "600", "no prompt", "conflicting"]]
for name in order:
    cost = record[name]["cost"]
    by_step = [mean_f1(name, step, "right") for step in ("150", "300", "600")]
    others = [mean_f1(name, "600", prompt) for prompt in ("none", "conflicting")]
    rows.append([name, f"{cost['trained']:,}", f"{cost['MFLOP to sample']:.0f}", *by_step, *others])
for name in ("training-free, 8 steps", "training-free, 25 steps"):
    numbers = [mean_f1(name, "0", prompt) for prompt in ("right", "none", "conflicting")]
    rows.append([name, "0", "", "", "", *numbers])
table(rows)


# %% [markdown]
# A mean hides the spread between seeds. So we compare each method with ControlNet, seed by
# seed, and print the 95 % interval of the difference. If it contains 0, three seeds do not
# decide.

# %%
def minus_controlnet(name, step, prompt):
    """A method's F1 minus ControlNet's after 600 steps, paired by seed."""
    own = record[name][step][prompt]["F1"]
    other = record["ControlNet"]["600"][prompt]["F1"]
    seeds = min(len(own), len(other))
    return difference(own[:seeds], other[:seeds])


rows = [["F1 minus ControlNet's", "right prompt", "conflicting prompt", "seeds"]]
for name in order[1:]:
    seeds = len(record[name]["600"]["right"]["F1"])
    if seeds > 1:
        differences = [minus_controlnet(name, "600", prompt) for prompt in ("right", "conflicting")]
        rows.append([name, *differences, seeds])
free = minus_controlnet("training-free, 25 steps", "0", "right")
rows.append(["training-free, 25 steps", free,
             minus_controlnet("training-free, 25 steps", "0", "conflicting"), 3])
table(rows)

# %%
right = "a"
if free.mean > -0.05:
    right = "c" if free.low > 0 else "b"
lesson.reveal(
    guess, right, because=f"its edge F1 minus ControlNet's is {free}, and without control F1 is"
    f" {mean_f1('no control', '0', 'right')}. The base knows what pictures look like, and the gradient chooses one.",
    a="the base need not know outlines. The edge loss does, and its gradient passes through the base.",
    b="see the interval.",
    c="it looks at the outline at each step, but 25 small pushes are less than a trained network.")

# %% [markdown]
# ControlNeXt is the surprise. Our prototype had it first, and here it is behind. Does it
# train too little of the base, or does its one join come too late? Two more arms, with one
# seed, ask that: one trains the whole encoder behind the join, the other joins right behind
# the first conv, on the grid of 16x16.

# %%
rows = [["edge F1, one seed", "trained", "150", "300", "600"]]
for name in ("ControlNeXt", "ControlNeXt, whole encoder", "ControlNeXt, early join"):
    by_step = []
    for step in ("150", "300", "600"):
        by_step.append(f"{record[name][step]['right']['F1'][0]:.2f}" if step in record[name] else "")
    rows.append([name, f"{record[name]['cost']['trained']:,}", *by_step])
table(rows)

# %% [markdown]
# The join decides, and not the number of trained weights. On the grid of 8x8 a line of one
# pixel is blurred, and the decoder's skips from the larger grid never see it.
#
# ## What is left of the base?
#
# Fidelity is half of the question. The other half is what a method does to the base. Can it
# still paint colours that control training never showed? Is it unchanged when control is off?
# And can another ControlNet join? For the last question we add the palette ControlNet that
# ships, give no prompt, and measure how far the colours are off.

# %%
rows = [["after 600 steps", "new colours right", "control off", "palette error, both"]]
for name in order:
    own = record[name]["600"]
    off = "the base, exactly"
    if any(own["off"]["eps moved"]):
        off = f"{fmean(own['off']['colours']):.0%} of new colours"
    rows.append([name, f"{fmean(own['new colours']['colours']):.0%}", off,
                 f"{fmean(own['with palette']['palette error']):.3f}"])
table(rows)

# %% [markdown]
# The lock guarantees one thing: when control is off, the base is exactly what it was. In this
# record the methods that lock the base also kept every colour. Beside the palette ControlNet
# most of them disturb its colours little; T2I-Adapter does so most. The fine-tuned base
# follows at least as well as ControlNet, even against a conflicting prompt. It pays with some
# of its colours.
#
# ## Which one would you choose?
#
# - **No data, no time to train, but a measure with a gradient:** training-free guidance, with
#   25 steps or more.
# - **Many conditions to store:** Control-LoRA. Its files are a tenth as large, and it follows
#   almost as well. It is no cheaper to run.
# - **Cheap sampling:** ControlNet-XS adds 5 % to each step. T2I-Adapter adds nothing after
#   the first step, and it learns early.
# - **Words and outline that disagree:** T2I-Adapter, or a ControlNet trained with the reward
#   of ControlNet++.
# - **A measure with a gradient, and time to train:** add the reward. It costs nothing at
#   sampling, and the same network needs about half the steps.
# - **One condition for ever, and nothing else to keep:** fine-tune the base.
#
# This order belongs to this toy. A different base, rate or number of steps may change it, and
# every method here is a small version of its paper.

# %%
lesson.verdict(
    f"Control-LoRA minus ControlNet: F1 {minus_controlnet('Control-LoRA', '600', 'right')}, with"
    f" {record['Control-LoRA']['cost']['trained'] / record['ControlNet']['cost']['trained']:.0%} of the weights;",
    f"T2I-Adapter minus ControlNet: F1 {minus_controlnet('T2I-Adapter', '600', 'right')} with the right prompt,"
    f" {minus_controlnet('T2I-Adapter', '600', 'conflicting')} with a conflicting one;",
    f"fine-tuned base: {fmean(record['fine-tuned base']['600']['new colours']['colours']):.0%} of the new colours"
    f" are right, ControlNet {fmean(record['ControlNet']['600']['new colours']['colours']):.0%}.")

# %%
ASIDE = {"ControlNet": (14, -4), "ControlNet++": (14, 6), "Control-LoRA": (-128, -4), "T2I-Adapter": (14, -4),
         "ControlNet-XS": (14, -4), "ControlNeXt": (14, -4), "fine-tuned base": (-20, -26), "frozen copy": (14, -4)}
title = "After 600 steps most methods follow equally well; they differ in price and speed"
lesson.save_figure(cost_and_fidelity(record, title, ASIDE))
pictures = load_pictures("12_descendants", 256)
title = "The outline decides, except without control and with a frozen copy"
measured = [name for name in record if len(record[name]) > 1]  # not the cost alone
lesson.save_figure(pictures_of(pictures, measured, title), "_grid")
print("\nEXERCISES  12a, 12b, 12c: python lessons/exercises")
