# %% [markdown]
# # Lesson 07: How are several ControlNets used at once?
# Sec. 3.4 and Fig. 6. No prompt here. One minute. After its exercises read `compose`
# and `predictor` in minicontrolnet/sampling.py.

# %%
import os
import sys

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # this folder, also under python -P
import torch
from lesson import Lesson, table
from lesson.figures_07 import cases

from minicontrolnet import (CHANNELS, Control, ControlNet, compose, condition_of, detect_edges,
                            held_out, load_base, load_control, mask_iou, mask_of, paired, palette,
                            palette_error, pose_errors, render, sample, weigh)

lesson = Lesson("07_multi_control", steps=15, quick_steps=2, meaning="DDIM steps")
guess = lesson.predict("Two ControlNets were trained apart. Can both steer one picture?",
                       a="yes: their outputs are added, as they are",
                       b="only the mean of their outputs works: a sum is too strong",
                       c="no: a third one must be trained on pairs of conditions")
base = load_base(device=lesson.device)

# %% [markdown]
# ## Two conditions
# An edge map says where the outline is, and nothing of colours. A palette, the means of
# a 4x4 grid, says colours and roughly where the light is, not whether it is a star.

# %%
edge_net = load_control("edge", base)
palette_net = load_control("palette", base)
n = 4 if lesson.quick else 24
truth, noise = held_out(n, lesson.device, seed=10_000 + lesson.seed)
edges = detect_edges(truth.image)
colours = palette(truth.image)

# %% [markdown]
# ## Composing is adding
# Thirteen sums with "no extra weighting" (Sec. 3.4), in any order. What is added twice
# counts twice; what was never trained changes nothing: its zero convs give 0.

# %%
t = torch.full_like(truth.prompt[:, 0], 700)
empty = torch.zeros_like(truth.prompt)
with torch.no_grad():
    a = edge_net(noise, t, empty, edges)
    b = palette_net(noise, t, empty, colours)
    new = ControlNet(base, CHANNELS["edge"])(noise, t, empty, edges)
assert all(map(torch.equal, compose(a, b), compose(b, a)))
assert all(map(torch.equal, compose(a, a), weigh(a, 2)))
assert all(map(torch.equal, compose(a, b, new), compose(a, b)))

# %% [markdown]
# ## Three cases
# Agreeing: the palette of the same picture. Recoloured: another shape in other colours,
# at the same place, so that each has its own say. Conflicting: the palette of another
# picture. A mean of five would leave each a fifth: the edge alone at strength 0.2 tells
# what that costs. An edge map without a line is not "no control": it says "no edge".

# %%
def draw(*controls):
    return sample(base, "", noise, controls, steps=lesson.steps)


s = truth.scenes
other = s._replace(shape=s.shape.roll(1), colour=s.colour.roll(1),
                   background=s.background.roll(1))
recoloured, _ = render(other)
asked = {"agreeing": colours, "recoloured": palette(recoloured),
         "conflicting": colours.roll(1, 0)}
pictures = {"no control": draw(), "edge alone": draw(Control(edge_net, edges)),
            "edge at strength 0.2": draw(Control(edge_net, edges, 0.2))}
for case, wanted in asked.items():
    pictures[f"{case}: palette alone"] = draw(Control(palette_net, wanted))
    pictures[f"{case}: sum"] = draw(Control(edge_net, edges), Control(palette_net, wanted))
    pictures[f"{case}: mean"] = draw(Control(edge_net, edges, 0.5),
                                     Control(palette_net, wanted, 0.5))
moved = (draw(Control(edge_net, 0 * edges)) - pictures["no control"]).abs().mean()
print(f"\nan edge map without a line moves each value by {moved:.3f}")

# %% [markdown]
# ## Followed?
# Mask IoU tells of the outline, the mean difference of 16 colours of the palette. Each
# must be better than with the other condition alone.

# %%
iou = {}
error = {}
rows = [[f"no prompt, n = {n}", "IoU with the outline", "palette error"]]
for name, images in pictures.items():
    wanted = asked.get(name.split(":")[0], colours)
    iou[name] = mask_iou(mask_of(images), truth.mask)
    error[name] = palette_error(images, wanted)
    rows.append([name, f"{iou[name].mean():.2f}", f"{error[name].mean():.3f}"])
table(rows)

# %%
both = []
taken = {}
for way in ("sum", "mean"):
    taken[way] = paired(error["edge alone"] - error[f"agreeing: {way}"])
    kept = paired(iou[f"agreeing: {way}"] - iou["agreeing: palette alone"])
    if taken[way].low > 0 and kept.low > 0:
        both.append(way)
answer = "a" if "sum" in both else "b" if "mean" in both else "c"
lesson.reveal(guess, answer,
              f"both conditions are followed by: {' and '.join(both) or 'neither'}.",
              a="the sum does not follow both here.",
              b="the sum does, too; a mean is strength 0.5 for each.",
              c="these two never met before this lesson.")
less = paired(iou["agreeing: sum"] - iou["edge alone"])
lesson.verdict(f"The sum takes the palette: {taken['sum'].verdict}, error {taken['sum']} less"
               f" than with the edge alone (n = {n}, the networks that ship).",
               f"IoU, the sum less the edge alone: {less}. In conflict both give way:"
               f" IoU {iou['conflicting: sum'].mean():.2f}, palette error"
               f" {error['conflicting: sum'].mean():.3f}.")

# %% [markdown]
# ## The pose itself
# A stick from a shape's centre to its tip. How far off are tilt and place, wordless?

# %%
stick = Control(load_control("pose", base), condition_of("pose", truth))
three = draw(Control(edge_net, edges), Control(palette_net, colours), stick)
posed = {"no control": pictures["no control"], "pose": draw(stick), "all three": three}
for name, images in posed.items():
    degrees, pixels = pose_errors(images, truth.scenes)
    print(f"{name}: {degrees.nanmean():.1f} degrees, {pixels.mean():.1f} pixels")
lesson.save_results({"IoU": iou, "palette error": error, "black map moves values by": moved})
lesson.save_figure(cases(edges, asked, pictures, iou["agreeing: sum"].mean().item(),
                         error["agreeing: sum"].mean().item()))
print("\nEXERCISES  07a, 07b: python lessons/exercises")
