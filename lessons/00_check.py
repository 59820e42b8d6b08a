# %% [markdown]
# # Lesson 00: Does everything work on my machine?
#
# This lesson needs no preparation, and there is nothing to read first. In half a minute it
#
# 1. shows the toy world in which the whole course takes place,
# 2. checks the trained networks that come with the course,
# 3. measures how long the other lessons will take on your machine,
# 4. generates pictures with ControlNet and without it.
#
# If something goes wrong, send everything that it prints to your teacher, or open an issue.

# %%
import os
import platform
import sys
from importlib.metadata import version
from statistics import median

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
from lesson import Lesson, table
from lesson.figures_00 import toy_world, with_and_without

import torch
import torchvision

from minicontrolnet import (ControlNet, UNet, base_loss, colours_right, control_loss,
                            detect_edges, fingerprint, held_out, load_base, load_control,
                            mask_iou, mask_of, paired, sample, seeded)
from minicontrolnet.measure.cost import one_step, seconds

lesson = Lesson("00_check", steps=10, quick_steps=2, meaning="timed training steps")

# %% [markdown]
# ## The toy world
#
# Every picture is 64 pixels wide and shows one bright shape on a dark background. Its *prompt*
# names two colours and a shape, such as "red star on blue". The background is painted in a dark
# version of its colour, so a white background looks dark grey.
#
# The program paints these pictures itself, so we know everything about them: the prompt, the
# outline, and the *mask*, which says for each pixel whether it belongs to the shape.
#
# A *condition* is a picture that says what the prompt does not say. Here it is an *edge map*:
# the outline of the shape, white on black.

# %%
n = 4 if lesson.quick else 16
truth, noise = held_out(n, lesson.device)  # pictures that no network has been trained on
edges = detect_edges(truth.image)
lesson.save_figure(toy_world(truth, edges), "_world")

# %% [markdown]
# The first figure, 00_check_world.png, shows one picture of each shape with its edge map.
#
# ## The networks
#
# The *base* is a small diffusion model. It generates pictures from prompts. The *ControlNet* is
# a second network, which makes the base follow an edge map. Both are trained already.
#
# A *fingerprint* is a short code that is computed from all weights of a network. If another
# machine prints the same fingerprints, it has exactly the same networks.

# %%
base = load_base(device=lesson.device)
control = load_control("edge", base)
table([["what", "on this machine"],
       ["system", platform.platform(terse=True)],
       ["Python", platform.python_version()],
       ["torch, torchvision", f"{torch.__version__}, {torchvision.__version__}"],
       ["matplotlib", version("matplotlib")],
       ["device, threads", f"{lesson.device}, {torch.get_num_threads()}"],
       ["fingerprint of the base", fingerprint(base.state_dict())[:8]],
       ["fingerprint of the ControlNet", fingerprint(control.state_dict())[:8]]])

# %% [markdown]
# All weights were read without an error. A fingerprint identifies the weights of a network.
# Mention this table when you report a problem.
#
# ## How long will the lessons take?
#
# Most lessons spend their time on training. So we time a few training steps of the base and of
# a new ControlNet, each on 16 pictures. `seeded(0, UNet)` builds a UNet whose random weights
# come from the seed 0.

# %%
base_step = one_step(seeded(0, UNet).to(lesson.device), base_loss)
control_step = one_step(seeded(0, ControlNet, base), control_loss(base, "edge"))
base_times, control_times = seconds(base_step, control_step, rounds=lesson.steps)
here = median(control_times)
print(f"\na training step takes {median(base_times):.2f} s for the base"
      f" and {here:.2f} s for a ControlNet")

# %% [markdown]
# On another machine we measured how long such a step takes, and how long each lesson takes. If
# your step takes twice as long as ours, your lessons take about twice as long, too.

# %%
STEP_THERE = 0.08  # seconds for a training step of a ControlNet
LESSONS_THERE = {"00": 11, "01": 19, "02": 73, "03": 28, "04": 10, "05": 30, "06": 35,
                 "07": 26, "08": 7, "09": 5, "10": 28, "11": 21, "12": 63, "13": 58}  # seconds, one core
rows = [["lesson", "seconds, about"]]
for number, there in LESSONS_THERE.items():
    rows.append([number, round(there * here / STEP_THERE)])
table(rows)

# %% [markdown]
# These are estimates. Other programs that run at the same time make a lesson slower.
#
# ## Generating pictures, with an outline and without
#
# A diffusion model starts from random noise and turns it into a picture, step by step. This is
# called *sampling*, and lesson 01 explains it. We sample twice from the same prompts and the
# same noise: first with the base alone, then with the ControlNet and the outline of a real
# picture. What will be different?

# %%
guess = lesson.predict("What does the outline change in the generated pictures?",
                       a="nothing, because the prompt has said everything",
                       b="where the shape is, how large it is and how it is tilted",
                       c="everything, including the colours")

# %% [markdown]
# `sample` takes a list of ControlNets, each with its condition.

# %%
sampling_steps = 4 if lesson.quick else 25
without = sample(base, truth.prompt, noise, steps=sampling_steps)
followed = sample(base, truth.prompt, noise, [(control, edges)], steps=sampling_steps)
lesson.save_figure(with_and_without(truth, edges, without, followed))

# %% [markdown]
# 00_check.png shows the result. (Without an outline, some shapes are not clean. This comes from
# the base. Your machine works correctly.) We can also measure the result. The *IoU*
# (intersection over union) compares the generated shape with the true one. It is the area that
# both of them cover, divided by the area that at least one of them covers. 1 is a perfect fit.
# Two unrelated shapes have about 0.4 here, because the shapes are large and most of them cover
# the middle.

# %%
iou = {}
rows = [["generated from", "IoU with the true shape", "both colours right"]]
for name, images in {"the prompt": without, "the prompt and an outline": followed}.items():
    iou[name] = mask_iou(mask_of(images), truth.mask)
    right = colours_right(images, truth.prompt).float()
    rows.append([name, f"{iou[name].mean():.2f}", f"{right.mean():.0%}"])
table(rows)
lesson.reveal(guess, "b", "the prompt says nothing about the place, but an outline does.",
              a="the prompt names colours and a shape, and leaves the rest to the noise.",
              c="the colours come from the prompt, and an outline has no colours.")

# %% [markdown]
# A few pictures could show this by luck. So we compare picture by picture and compute a *95 %
# interval* for the mean difference. With infinitely many pictures we would know the true mean.
# We have only a few, and the interval shows where the true mean probably lies. If the whole
# interval lies above 0, we say that the difference is *shown*.

# %%
gain = paired(iou["the prompt and an outline"] - iou["the prompt"])
lesson.verdict(f"The outline raises the IoU by {gain.mean:.2f} (95 % interval {gain.low:.2f} to"
               f" {gain.high:.2f}, {n} pictures): {gain.verdict}. Your machine is ready.")

# %% [markdown]
# An outline says what the prompt leaves open. This course shows how a trained model can learn
# to follow outlines, although none of its weights changes. Lesson 01 begins with the model
# itself.
