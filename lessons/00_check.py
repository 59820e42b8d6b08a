# %% [markdown]
# # Lesson 00: Is my machine ready?
#
# The whole project in a quarter of a minute: the toy world, the weights that ship, the time
# of a training step here, and a picture that obeys its outline. If something is wrong, send
# your teacher all that this prints. There is nothing to read first.

# %%
import platform
import statistics

import matplotlib
import torch
import torchvision
from _lesson import options, predict, reveal, save_figure, table, verdict

from minicontrolnet import (ControlNet, UNet, base_loss, colours_right, control_loss,
                            describe, detect_edges, figures, fingerprint, held_out,
                            load_base, load_control, mask_iou, mask_of, paired, palette,
                            sample, seeded, speed)

args = options("00_check", steps=10, quick_steps=2, meaning="timed training steps")

# %% [markdown]
# ## The toy world
# A picture is one lit shape on a dark ground, 64 x 64 pixels. Its prompt says two colours
# and a shape. Where the shape stands, how large it is and how it is tilted, no prompt can
# say. A *condition* is a picture that says it: an edge map, or a very coarse palette.

# %%
truth, noise = held_out(4 if args.quick else 16, args.device)
print("\nfour prompts:", ", ".join(describe(truth.prompt[:4])))
edges = detect_edges(truth.image)
world = torch.stack([truth.image, edges.expand(-1, 3, -1, -1), palette(truth.image)], 1)

# %% [markdown]
# ## The weights
# The base draws what a prompt says. The edge ControlNet makes it follow an edge map; the
# base itself is locked. A fingerprint names weights for good: two machines that print the
# same eight letters have the same weights.

# %%
base = load_base(device=args.device)
control = load_control("edge", base)
marks = [fingerprint(network.state_dict())[:8] for network in (base, control)]
table([["what", "here"],
       ["Python, system", f"{platform.python_version()}, {platform.platform(terse=True)}"],
       ["torch, torchvision", f"{torch.__version__}, {torchvision.__version__}"],
       ["matplotlib, window", f"{matplotlib.__version__}, {matplotlib.get_backend()}"],
       ["device, threads", f"{args.device}, {torch.get_num_threads()}"],
       ["weights: base, edge", ", ".join(marks)]])

# %% [markdown]
# ## How long will the lessons take here?
# One training step of the base and one of a ControlNet are timed in turn. The seconds of
# each lesson were measured on two cores where a ControlNet step took REFERENCE seconds;
# here they are scaled by the step.

# %%
REFERENCE = 0.125  # seconds
LESSONS = {"00_check": 15, "01_ddpm": 55, "02_locking": 60, "03_zero_conv": 45,
           "04_condition_encoder": 60, "05_edge_control": 60, "06_cfg_weighting": 60,
           "07_multi_control": 60, "08_ablations": 60, "09_evaluation": 60, "10_transfer": 60}
fresh = seeded(0, UNet).to(args.device), seeded(0, ControlNet, base)
losses = base_loss, control_loss(base, "edge")
times = speed.seconds(*map(speed.one_step, fresh, losses), rounds=args.steps)
base_step, control_step = map(statistics.median, times)
table([["training step of 16 pictures", "seconds"], ["base", f"{base_step:.3f}"],
       ["edge ControlNet", f"{control_step:.3f}"], ["", ""],
       ["lesson", "seconds, about"],
       *([name, round(s * control_step / REFERENCE)] for name, s in LESSONS.items())])

# %%
guess = predict("The same prompts and the same noise, drawn twice; the second time each with"
                " an outline. What does the outline change?",
                a="nothing: the prompt has said it all",
                b="where the shape stands, its size and its tilt",
                c="everything, the colours too")

# %% [markdown]
# ## Draw, and draw along an outline
# `sample` turns noise into pictures. IoU compares the drawn shape with the outline's inside:
# 1 if they agree in every pixel, about 0.4 for two shapes that know nothing of each other.

# %%
steps = 4 if args.quick else 25
free = sample(base, truth.prompt, noise, steps=steps)
obeyed = sample(base, truth.prompt, noise, [(control, edges)], steps=steps)
iou = [mask_iou(mask_of(images), truth.mask) for images in (free, obeyed)]
colours = [colours_right(images, truth.prompt).float().mean() for images in (free, obeyed)]
table([["16 pictures" if not args.quick else "4 pictures", "IoU", "both colours right"],
       ["prompt", f"{iou[0].mean():.2f}", f"{colours[0]:.2f}"],
       ["prompt and outline", f"{iou[1].mean():.2f}", f"{colours[1]:.2f}"]])
reveal(guess, "b", because="words cannot say a pose; an outline can.",
       a="the prompt names colours and a shape; the place was the noise's choice.",
       c="the colours are the prompt's in both; the outline says nothing of colours.")
gained = paired(iou[1] - iou[0])
verdict(f"{gained.verdict}: the outline moves the shape, IoU {gained},"
        f" n = {len(noise)}; ready.")

# %%
first = [(truth.prompt[:, 1] == shape).nonzero()[:1, 0] for shape in (1, 2, 3, 4)]
pick = torch.cat(first).cpu()  # one picture of each shape
figure, (left, right) = figures.plt.subplots(1, 2, width_ratios=[3, 4])
figures.show(left, world[:3].flatten(0, 1), 3, "The toy world",
             below=["picture", "edges", "palette"])
rows = torch.cat([images[pick].expand(-1, 3, -1, -1) for images in (free, edges, obeyed)])
figures.show(right, rows, len(pick), f"An outline moves the shape: IoU {iou[0].mean():.2f}"
             f" to {iou[1].mean():.2f}, n = {len(noise)}",
             below=[words.replace(" on", "\non").replace(" ", "\n", 1)
                    for words in describe(truth.prompt[pick])],
             left=["prompt", "outline", "both"])
save_figure(figure)
