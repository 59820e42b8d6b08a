# %% [markdown]
# # Lesson 07: How do we use several ControlNets at once?
#
# An outline says where a shape is, but not which colours it has. A *palette* is a very coarse
# map of colours: it divides the picture into a 4x4 grid and shows the mean of each cell. It
# says which colours are where, but not whether the shape is a star. We have a ControlNet for
# each of the two conditions, and each was trained on its own. Can we use both for the same
# picture? The paper says that we only have to *add their outputs*, without any weights (Sec.
# 3.4, Fig. 6). In this lesson you
#
# 1. write this down, and check three things that follow from it,
# 2. try it where two conditions agree, and where they disagree,
# 3. add a third condition, a pose.
#
# All prompts are empty, so that every picture shows what the conditions do. It takes about a
# minute. Then do exercises 07a and 07b, and read `compose` and `predictor` in sampling.py.

# %%
import os
import sys

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
import torch
from lesson import Lesson, table
from lesson.figures_07 import three_cases, with_a_pose

from minicontrolnet import (CHANNELS, ControlNet, compose, condition_of, detect_edges, held_out,
                            load_base, load_control, mask_iou, mask_of, paired, palette,
                            palette_error, pose_errors, render, sample, weigh)

lesson = Lesson("07_multi_control", steps=15, quick_steps=2, meaning="DDIM steps")

# %% [markdown]
# We load both ControlNets, and take both conditions of the same held-out pictures.

# %%
base = load_base(device=lesson.device)
edge_net = load_control("edge", base)
palette_net = load_control("palette", base)

n = 4 if lesson.quick else 24
truth, noise = held_out(n, lesson.device, seed=10_000 + lesson.seed)
edges = detect_edges(truth.image)
colours = palette(truth.image)

# %% [markdown]
# Before you read on, make a guess.

# %%
guess = lesson.predict("Two ControlNets were trained separately. Can both steer the same picture?",
                       a="yes, if we add their outputs",
                       b="yes, if we average their outputs; the sum would be too strong",
                       c="no, a third network must be trained on pairs of conditions")

# %% [markdown]
# ## Composing is adding
#
# Every ControlNet returns 13 controls. `compose` adds the first to the first, the second to
# the second, and so on:
#
#     base(xt, t, prompt, controls = compose(edge_controls, palette_controls))
#
# Three things follow. The order does not matter. A condition that is added twice counts
# twice. And a ControlNet that has not been trained changes nothing, because its zero
# convolutions return 0.

# %%
t = torch.full((n,), 700, device=lesson.device)
empty = torch.zeros_like(truth.prompt)
new_net = ControlNet(base, CHANNELS["edge"])
with torch.no_grad():
    a = edge_net(noise, t, empty, edges)
    b = palette_net(noise, t, empty, colours)
    untrained = new_net(noise, t, empty, edges)

assert all(map(torch.equal, compose(a, b), compose(b, a)))
assert all(map(torch.equal, compose(a, a), weigh(a, 2)))
assert all(map(torch.equal, compose(a, b, untrained), compose(a, b)))

# %% [markdown]
# All three hold exactly, bit for bit.
#
# ## Conditions that agree, and conditions that do not
#
# We try the sum in three cases, and for comparison also the mean.
#
# - *same picture*: the outline and the palette come from the same picture, so they agree.
# - *other colours*: we repaint each picture in the colours and with the shape of another one, at
#   the same place. (By chance the shape may be the same.) So the palette asks for other colours,
#   and hints at another shape. The outline should decide the shape, and the palette the colours.
# - *other picture*: the palette comes from an unrelated picture. The two cannot both be
#   followed.

# %%
scenes = truth.scenes
other = scenes._replace(shape=scenes.shape.roll(1), colour=scenes.colour.roll(1),
                        background=scenes.background.roll(1))
repainted, _ = render(other)
palettes = {"same picture": colours,
            "other colours": palette(repainted),
            "other picture": colours.roll(1, 0)}

# %% [markdown]
# A strength of 0.5 for each ControlNet turns the sum into the mean.

# %%
def generate(*controls):
    return sample(base, "", noise, controls, steps=lesson.steps)


pictures = {"no control": generate(), "edges alone": generate((edge_net, edges))}
for case, wanted in palettes.items():
    pictures[f"{case}, palette alone"] = generate((palette_net, wanted))
    pictures[f"{case}, sum"] = generate((edge_net, edges), (palette_net, wanted))
    pictures[f"{case}, mean"] = generate((edge_net, edges, 0.5), (palette_net, wanted, 0.5))
lesson.save_figure(three_cases(edges, palettes, pictures))

# %% [markdown]
# 07_multi_control.png shows one picture of each case.
#
# ## Are both conditions followed?
#
# The IoU measures the outline. The *palette error* measures the colours: it is the mean
# difference between the palette of a picture and the one it should have, so 0 is perfect.

# %%
iou = {}
error = {}
rows = [["generated with", "IoU with the outline", "palette error"]]
for name, images in pictures.items():
    case = name.split(",")[0]
    iou[name] = mask_iou(mask_of(images), truth.mask)
    error[name] = palette_error(images, palettes.get(case, colours))
    rows.append([name, f"{iou[name].mean():.2f}", f"{error[name].mean():.3f}"])
table(rows)

# %% [markdown]
# Take the case in which both conditions come from the same picture. With the sum, the outline
# should be followed better than with the palette alone. And the colours should be nearer to the
# palette than with the outline alone.

# %%
takes_colours = paired(error["edges alone"] - error["same picture, sum"])
takes_outline = paired(iou["same picture, sum"] - iou["same picture, palette alone"])
sum_follows_both = takes_colours.low > 0 and takes_outline.low > 0
lesson.reveal(guess, "a" if sum_follows_both else "c",
              f"adding the palette lowers the palette error by {takes_colours.mean:.3f}, and adding"
              f" the outline raises the IoU by {takes_outline.mean:.2f}.",
              a="the sum does not follow both conditions here.",
              b="the sum is not too strong. Where the conditions agree, it is as good as the mean.",
              c="these two networks were never trained together.")

# %% [markdown]
# ## The sum or the mean?
#
# Where the conditions agree, the mean works about as well as the sum. Does it make any
# difference where they disagree?

# %%
sentences = []
for case in palettes:
    more = paired(iou[f"{case}, sum"] - iou[f"{case}, mean"])
    sentences.append(f"{case}: {more.mean:+.3f} ({more.low:+.3f} to {more.high:+.3f}), {more.verdict}")
lesson.verdict(f"IoU of the sum minus IoU of the mean ({n} pictures, 95 % intervals):", *sentences)

# %% [markdown]
# Where the palette contradicts the outline, the mean gives up more of the outline. (The table
# shows what it gains: a slightly smaller palette error.) A mean gives each condition half of
# its strength. With five conditions, each would be left with a fifth.
#
# ## A third condition: the pose
#
# The third condition shows the pose as a line. It starts with a dot at the centre of the shape
# and points to its top. Its ControlNet was trained on its own, too. We use it alone, and
# together with the other two.

# %%
pose_net = load_control("pose", base)
poses = condition_of("pose", truth)
all_three = [(edge_net, edges), (palette_net, colours), (pose_net, poses)]
with_pose = {"no control": pictures["no control"],
             "pose alone": generate((pose_net, poses)),
             "edges, palette and pose": generate(*all_three)}
lesson.save_figure(with_a_pose(poses, with_pose), "_pose")

# %% [markdown]
# In 07_multi_control_pose.png the poses are drawn over the pictures. We measure how far the
# tilt and the place of the shapes are from the right ones, in degrees and in pixels.

# %%
rows = [["generated with", "error of the tilt (degrees)", "error of the place (pixels)"]]
for name, images in with_pose.items():
    degrees, pixels = pose_errors(images, truth.scenes)
    rows.append([name, f"{degrees.nanmean():.1f}", f"{pixels.nanmean():.1f}"])  # nan: a circle has no tilt
table(rows)
lesson.save_results({"IoU": iou, "palette error": error})
print("\nEXERCISES  07a, 07b: python lessons/exercises")

# %% [markdown]
# The pose alone settles the place. About half of the error of the tilt is left. One reason is our
# measure: without words the shape is free, and we measure its tilt as if it were the true shape.
# All three conditions together leave hardly any error, but the outline shows the tilt, too.
# So networks that were trained separately can steer one picture. The lock helps to understand
# this: each of them has learned to steer exactly the same base.
