# %% [markdown]
# # Lesson 07: How are several ControlNets used at once?
# Sec. 3.4 and Fig. 6. No prompt here. One minute. After its exercises read `compose`
# and `predictor` in minicontrolnet/sampling.py.

# %%
import torch
from _lesson import options, predict, reveal, save_figure, save_results, table, verdict

from minicontrolnet import (CHANNELS, ControlNet, compose, condition_of, detect_edges,
                            figures, held_out, load_base, load_control, mask_iou,
                            mask_of, paired, palette, palette_error, pose_errors,
                            render, sample, weigh)

args = options("07_multi_control", steps=15, quick_steps=2, meaning="DDIM steps")
guess = predict("Two ControlNets were trained apart. Can both steer one picture?",
                a="yes: their outputs are added, as they are",
                b="only the mean of their outputs works: a sum is too strong",
                c="no: a third one must be trained on pairs of conditions")
base = load_base(device=args.device)

# %% [markdown]
# ## Two conditions
# An edge map says where the outline is, and nothing of colours. A palette, the means of
# a 4x4 grid, says colours and roughly where the light is, not whether it is a star.

# %%
edge_net, palette_net = load_control("edge", base), load_control("palette", base)
truth, noise = held_out(4 if args.quick else 24, args.device, seed=10_000 + args.seed)
edges, colours = detect_edges(truth.image), palette(truth.image)

# %% [markdown]
# ## Composing is adding
# Thirteen sums with "no extra weighting" (Sec. 3.4), in any order. What is added twice
# counts twice; what was never trained changes nothing: its zero convs give 0.

# %%
t, empty = torch.full_like(truth.prompt[:, 0], 700), torch.zeros_like(truth.prompt)
with torch.no_grad():
    a = edge_net(noise, t, empty, edges)
    b = palette_net(noise, t, empty, colours)
    new = ControlNet(base, CHANNELS["edge"])(noise, t, empty, edges)
for ours, same in ((compose(a, b), compose(b, a)), (compose(a, a), weigh(a, 2)),
                   (compose(a, b, new), compose(a, b))):
    assert all(map(torch.equal, ours, same))

# %% [markdown]
# ## Three cases
# Agreeing: the palette of the same picture. Recoloured: another shape in other colours,
# at the same place, so that each has its own say. Conflicting: the palette of another
# picture. A mean of five would leave each a fifth: the edge alone at strength 0.2 tells
# what that costs. An edge map without a line is not "no control": it says "no edge".

# %%
s = truth.scenes
other = s._replace(shape=s.shape.roll(1), colour=s.colour.roll(1),
                   background=s.background.roll(1))
asked = {"agreeing": colours, "recoloured": palette(render(other)[0].to(args.device)),
         "conflicting": colours.roll(1, 0)}
draw = lambda *controls: sample(base, "", noise, controls, steps=args.steps)
pictures = {"no control": draw(), "edge alone": draw((edge_net, edges)),
            "edge at strength 0.2": draw((edge_net, edges, 0.2))}
for case, wanted in asked.items():
    pictures[f"{case}: palette alone"] = draw((palette_net, wanted))
    pictures[f"{case}: sum"] = draw((edge_net, edges), (palette_net, wanted))
    pictures[f"{case}: mean"] = draw((edge_net, edges, 0.5), (palette_net, wanted, 0.5))
moved = (draw((edge_net, 0 * edges)) - pictures["no control"]).abs().mean()
print(f"\nan edge map without a line moves each value by {moved:.3f}")

# %% [markdown]
# ## Followed?
# Mask IoU tells of the outline, the mean difference of 16 colours of the palette. Each
# must be better than with the other condition alone.

# %%
iou = {name: mask_iou(mask_of(images), truth.mask) for name, images in pictures.items()}
error = {name: palette_error(images, asked.get(name.split(":")[0], colours))
         for name, images in pictures.items()}
table([[f"no prompt, n = {len(noise)}", "IoU with the outline", "palette error"],
       *([k, f"{iou[k].mean():.2f}", f"{error[k].mean():.3f}"] for k in iou)])
both, taken = [], {}
for way in ("sum", "mean"):
    taken[way] = paired(error["edge alone"] - error[f"agreeing: {way}"])
    kept = paired(iou[f"agreeing: {way}"] - iou["agreeing: palette alone"])
    both += [way] if min(taken[way].low, kept.low) > 0 else []
reveal(guess, "a" if "sum" in both else "b" if "mean" in both else "c",
       f"both conditions are followed by: {' and '.join(both) or 'neither'}.",
       a="the sum does not follow both here.",
       b="the sum does, too; a mean is strength 0.5 for each.",
       c="these two never met before this lesson.")
less = paired(iou["agreeing: sum"] - iou["edge alone"])
verdict(f"The sum takes the palette: {taken['sum'].verdict}, error {taken['sum']} less"
        f" than with the edge alone (n = {len(noise)}, the networks that ship).",
        f"IoU, the sum less the edge alone: {less}. In conflict both give way:"
        f" IoU {iou['conflicting: sum'].mean():.2f}, palette error"
        f" {error['conflicting: sum'].mean():.3f}.")

# %% [markdown]
# ## The pose itself
# A stick from a shape's centre to its tip. How far off are tilt and place, wordless?

# %%
stick = load_control("pose", base), condition_of("pose", truth)
three = draw((edge_net, edges), (palette_net, colours), stick)
posed = {"no control": pictures["no control"], "pose": draw(stick), "all three": three}
for name, images in posed.items():
    degrees, pixels = pose_errors(images, truth.scenes)
    print(f"{name}: {degrees.nanmean():.1f} degrees, {pixels.mean():.1f} pixels")
save_results({"IoU": iou, "palette error": error, "black map moves values by": moved})
cases, grid = ["agreeing", "recoloured", "recoloured", "conflicting"], []
for i, case in enumerate(cases):
    arms = ["edge alone", f"{case}: palette alone", f"{case}: sum", f"{case}: mean"]
    grid += [figures.enlarge(x[[i]], 4) for x in (edges, asked[case])]
    grid += [figures.outlined(pictures[arm][[i]], edges[[i]], 4) for arm in arms]
best = [scores["agreeing: sum"].mean() for scores in (iou, error)]
save_figure(figures.grid(
    torch.cat(grid), 6, "Sum, where both agree:"
    f" IoU {best[0]:.2f}, palette error {best[1]:.3f}, n = {len(noise)}",
    ["edges", "palette", "edge alone", "palette alone", "sum", "mean"], cases))
print("\nEXERCISES  07a, 07b: python lessons/exercises")
