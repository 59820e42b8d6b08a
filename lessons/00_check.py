# %% [markdown]
# # Lesson 00: Is my machine ready?
# The whole project in a quarter of a minute: the toy world, the weights that ship, how
# long a training step takes here, and pictures that obey an outline. If something is
# wrong, send your teacher all that this prints. There is nothing to read first.

# %%
import os
import platform
import statistics
import sys

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # this folder, also under python -P
import matplotlib
import torch
import torchvision
from lesson import Lesson, table
from lesson.figures_00 import world_and_outlines

from minicontrolnet import (Control, ControlNet, UNet, base_loss, colours_right, control_loss,
                            detect_edges, fingerprint, held_out, load_base, load_control,
                            mask_iou, mask_of, paired, sample, seeded)
from minicontrolnet.measure import cost

lesson = Lesson("00_check", steps=10, quick_steps=2, meaning="timed training steps")

# %% [markdown]
# ## The toy world
# A picture is one lit shape on a dark ground, 64 x 64 pixels. Its prompt says two
# colours and a shape; a ground is its hue in the dark. A *condition* is a picture that
# says something else: an edge map, a coarse palette.

# %%
n = 4 if lesson.quick else 16
truth, noise = held_out(n, lesson.device)
edges = detect_edges(truth.image)

# %% [markdown]
# ## The weights
# The base draws what a prompt says. The edge ControlNet makes it follow an edge map.
# Machines that print the same fingerprints (eight letters) have the same weights.

# %%
base = load_base(device=lesson.device)
control = load_control("edge", base)
marks = [fingerprint(network.state_dict())[:8] for network in (base, control)]
table([["what", "here"],
       ["Python", f"{platform.python_version()}, {platform.platform(terse=True)}"],
       ["torch, torchvision", f"{torch.__version__}, {torchvision.__version__}"],
       ["matplotlib", matplotlib.__version__],
       ["device, threads", f"{lesson.device}, {torch.get_num_threads()}"],
       ["weights: base, edge", ", ".join(marks)]])

# %% [markdown]
# ## How long will the lessons take here?
# A training step of the base and one of a ControlNet, 16 pictures each, are timed in
# turn. The lessons were timed on one core; there a ControlNet step took REFERENCE s.

# %%
REFERENCE = 0.16
SECONDS = [17, 38, 94, 40, 17, 66, 51, 59, 25, 9, 24, 25]  # of the lessons 00 to 11
base_step = cost.one_step(seeded(0, UNet).to(lesson.device), base_loss)
control_step = cost.one_step(seeded(0, ControlNet, base), control_loss(base, "edge"))
times = cost.seconds(base_step, control_step, rounds=lesson.steps)
base_seconds, control_seconds = map(statistics.median, times)
print(f"\na training step: base {base_seconds:.3f} s, edge ControlNet {control_seconds:.3f} s")
here = [round(seconds * control_seconds / REFERENCE) for seconds in SECONDS]
table([["lesson", *(f"{i:02}" for i in range(len(SECONDS)))], ["seconds, about", *here]])
guess = lesson.predict("The same prompts and the same noise are drawn twice, the second time"
                       " each with an outline. What does the outline change?",
                       a="nothing: the prompt has said it all",
                       b="where the shape stands, its size and its tilt",
                       c="everything, the colours too")

# %% [markdown]
# ## Draw, and draw along an outline
# `sample` turns noise into pictures. IoU compares the drawn shape with the outline's
# inside: the area in both over the area in either. The verdict's interval is Student's
# of the paired differences, 95 %; "confirmed" means that it lies above 0.

# %%
ddim_steps = 4 if lesson.quick else 25
free = sample(base, truth.prompt, noise, steps=ddim_steps)
followed = sample(base, truth.prompt, noise, [Control(control, edges)], steps=ddim_steps)
iou = {}
rows = [[f"n = {n}", "mask IoU", "both colours right"]]
for name, images in {"prompt": free, "prompt and outline": followed}.items():
    iou[name] = mask_iou(mask_of(images), truth.mask)
    right = colours_right(images, truth.prompt).float()
    rows.append([name, f"{iou[name].mean():.2f}", f"{right.mean():.0%}"])
table(rows)
lesson.reveal(guess, "b", "words cannot say a pose; an outline can.",
              a="the prompt names colours and a shape; the place was the noise's choice.",
              c="the colours are the prompt's in both; an outline says nothing of colours.")
gain = paired(iou["prompt and outline"] - iou["prompt"])
lesson.verdict(f"{gain.verdict}: the outline moves the shape, IoU {gain}, n = {n}. Ready.")

# %%
means = [own.mean().item() for own in iou.values()]
lesson.save_figure(world_and_outlines(truth, edges, free, followed, means))
