# %% [markdown]
# # Lesson 00: Is my machine ready?
# The whole project in a quarter of a minute: the toy world, the weights that ship, how
# long a training step takes here, and pictures that obey an outline. If something is
# wrong, send your teacher all that this prints. There is nothing to read first.

# %%
import platform
import statistics

import matplotlib
import torch
import torchvision
from _lesson import options, predict, reveal, save_figure, table, verdict

from minicontrolnet import (ControlNet, UNet, base_loss, colours_right, control_loss,
                            detect_edges, figures, fingerprint, held_out, load_base,
                            load_control, mask_iou, mask_of, paired, palette, sample,
                            seeded, speed)

args = options("00_check", steps=10, quick_steps=2, meaning="timed training steps")

# %% [markdown]
# ## The toy world
# A picture is one lit shape on a dark ground, 64 x 64 pixels. Its prompt says two
# colours and a shape; a ground is its hue in the dark. A *condition* is a picture that
# says something else: an edge map, a coarse palette.

# %%
n = 4 if args.quick else 16
truth, noise = held_out(n, args.device)
edges = detect_edges(truth.image)

# %% [markdown]
# ## The weights
# The base draws what a prompt says. The edge ControlNet makes it follow an edge map.
# Machines that print the same fingerprints (eight letters) have the same weights.

# %%
base = load_base(device=args.device)
control = load_control("edge", base)
marks = [fingerprint(network.state_dict())[:8] for network in (base, control)]
table([["what", "here"],
       ["Python", f"{platform.python_version()}, {platform.platform(terse=True)}"],
       ["torch, torchvision", f"{torch.__version__}, {torchvision.__version__}"],
       ["matplotlib, window", f"{matplotlib.__version__}, {matplotlib.get_backend()}"],
       ["device, threads", f"{args.device}, {torch.get_num_threads()}"],
       ["weights: base, edge", ", ".join(marks)]])

# %% [markdown]
# ## How long will the lessons take here?
# A training step of the base and one of a ControlNet, 16 pictures each, are timed in
# turn. The lessons were timed on one core; there a ControlNet step took REFERENCE s.

# %%
REFERENCE = 0.16
SECONDS = [17, 38, 94, 40, 17, 66, 51, 59, 25, 9, 24, 25]  # of the lessons 00 to 11
fresh = seeded(0, UNet).to(args.device), seeded(0, ControlNet, base)
losses = base_loss, control_loss(base, "edge")
times = speed.seconds(*map(speed.one_step, fresh, losses), rounds=args.steps)
steps = [statistics.median(own) for own in times]
print(f"\na training step: base {steps[0]:.3f} s, edge ControlNet {steps[1]:.3f} s")
table([["lesson", *(f"{i:02}" for i in range(len(SECONDS)))],
       ["seconds, about", *(round(s * steps[1] / REFERENCE) for s in SECONDS)]])
guess = predict("The same prompts and the same noise are drawn twice, the second time"
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
ddim_steps = 4 if args.quick else 25
free = sample(base, truth.prompt, noise, steps=ddim_steps)
obeyed = sample(base, truth.prompt, noise, [(control, edges)], steps=ddim_steps)
iou = [mask_iou(mask_of(images), truth.mask) for images in (free, obeyed)]
right = [colours_right(images, truth.prompt).float() for images in (free, obeyed)]
table([[f"n = {n}", "mask IoU", "both colours right"], *(
    [name, f"{own.mean():.2f}", f"{share.mean():.0%}"]
    for name, own, share in zip(("prompt", "prompt and outline"), iou, right))])
reveal(guess, "b", "words cannot say a pose; an outline can.",
       a="the prompt names colours and a shape; the place was the noise's choice.",
       c="the colours are the prompt's in both; an outline says nothing of colours.")
gain = paired(iou[1] - iou[0])
verdict(f"{gain.verdict}: the outline moves the shape, IoU {gain}, n = {n}. Ready.")

# %%
where = [(truth.prompt[:, 1] == shape).nonzero()[:1, 0] for shape in (1, 2, 3, 4)]
pick = torch.cat(where).cpu()  # one picture of each shape
figure, (left, right) = figures.plt.subplots(1, 2, width_ratios=[3, 4])
world = [truth.image, edges.expand(-1, 3, -1, -1), palette(truth.image)]
figures.show(left, torch.stack(world, 1)[pick[:3]].flatten(0, 1), 3, "The toy world",
             below=["picture", "edges", "palette"])
drawn = [images[pick].expand(-1, 3, -1, -1) for images in (free, edges, obeyed)]
figures.show(right, torch.cat(drawn), len(pick), "The outline moves the shape:\n"
             f"IoU {iou[0].mean():.2f} to {iou[1].mean():.2f}, n = {n}",
             figures.captions(truth.prompt[pick], lines=3),
             ["prompt", "outline", "both"])
save_figure(figure)
