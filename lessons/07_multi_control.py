# %% [markdown]
# # Lesson 07: How are several ControlNets used at once?
#
# Paper: Sec. 3.4 "Composing multiple ControlNets" and Fig. 6: their outputs are added
# to the base, with "no extra weighting". Read `compose` and `predictor` in
# minicontrolnet/sampling.py, `palette` in minicontrolnet/conditions.py.

# %%
import torch
from _lesson import options, predict, reveal, save_figure, save_results, table, verdict

from minicontrolnet import (CHANNELS, ControlNet, compose, detect_edges, figures,
                            held_out, load_base, load_control, mask_iou, mask_of,
                            paired, palette, palette_error, render, sample, weigh)

args = options("07_multi_control", steps=15, quick_steps=2, meaning="DDIM steps")
guess = predict("Two ControlNets were trained apart. How does a picture obey both?",
                a="their outputs are added, as they are",
                b="the mean of their outputs is added: two would be too strong",
                c="not at all, before a third one is trained on pairs of conditions")
base = load_base(device=args.device)

# %% [markdown]
# ## Two conditions
# An edge map says where the outline is, and nothing of colours. A palette, the means of
# a 4x4 grid, says colours, and not whether the shape is a star. But its sixteen squares
# also tell roughly where the light is: no two conditions here are wholly disjoint.
# There is no prompt in this lesson.

# %%
edge_net, palette_net = load_control("edge", base), load_control("palette", base)
truth, noise = held_out(4 if args.quick else 24, args.device, seed=10_000 + args.seed)
edges, colours = detect_edges(truth.image), palette(truth.image)

# %% [markdown]
# ## Composing is adding
# Thirteen sums, map by map. So any number of ControlNets can be added, in any order.
# One that is added twice counts twice, and one that was never trained, whose zero convs
# give 0, changes nothing. All three hold exactly.

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
# at the same place, so that each condition has its own say. Conflicting: the palette of
# another picture. A third ControlNet, such as a pose, would be one more pair.

# %%
scenes, shuffle = truth.scenes, torch.arange(len(noise)).roll(1)
other = scenes._replace(shape=scenes.shape[shuffle], colour=scenes.colour[shuffle],
                        background=scenes.background[shuffle])
asked = {"agreeing": colours, "recoloured": palette(render(other)[0].to(args.device)),
         "conflicting": colours[shuffle]}


def draw(*controls: tuple) -> torch.Tensor:
    return sample(base, "", noise, controls, steps=args.steps)


pictures = {"no control": draw(), "edge alone": draw((edge_net, edges))}
for case, wanted in asked.items():
    pictures[f"{case}: palette alone"] = draw((palette_net, wanted))
    pictures[f"{case}: sum"] = draw((edge_net, edges), (palette_net, wanted))
    pictures[f"{case}: mean"] = draw((edge_net, edges, 0.5), (palette_net, wanted, 0.5))

# %% [markdown]
# ## Followed?
# The outline by mask IoU, the palette by the mean difference of its 16 colours. In the
# last case no picture can follow both: what gives way?

# %%
iou, error = {}, {}
for name, images in pictures.items():
    iou[name] = mask_iou(mask_of(images), truth.mask)
    error[name] = palette_error(images, asked.get(name.split(":")[0], colours))
table([["no prompt", "IoU with the outline", "palette error"],
       *([k, f"{iou[k].mean():.2f}", f"{error[k].mean():.3f}"] for k in iou)])
reveal(guess, "a", because="the paper's rule: each learned what to add to the base.",
       b="a mean is strength 0.5 for each; the table has it.",
       c="these two never met before this lesson.")

# %% [markdown]
# ## Black is not nothing
# An edge map without a line says "here is no edge". No training showed that, and it
# changes the pictures all the same. No control means: leave the pair out.

# %%
black = draw((edge_net, torch.zeros_like(edges)))
moved = (black - pictures["no control"]).abs().mean().item()
print(f"\nan all-black edge map moves each value by {moved:.3f} on average")
save_results({"IoU": iou, "palette error": error, "black map moves values by": moved})
kept = paired(iou["agreeing: sum"] - iou["edge alone"])
taken = paired(error["edge alone"] - error["agreeing: sum"])
more = paired(iou["agreeing: sum"] - iou["agreeing: mean"])
place = paired(iou["agreeing: palette alone"] - iou["no control"])
verdict(f"the sum takes the palette: {taken.verdict}, its error is {taken} lower;",
        f"and keeps the outline: IoU {kept} against edge alone;",
        f"the sum keeps it better than the mean: {more.verdict}, IoU {more};",
        f"a palette tells the place: {place.verdict}, IoU {place}; n = {len(noise)}.")

# %%
cases, grid = ["agreeing", "agreeing", "recoloured", "conflicting"], []
for i, case in enumerate(cases):
    arms = ["edge alone", f"{case}: palette alone", f"{case}: sum", f"{case}: mean"]
    grid += [figures.enlarge(x[[i]], 4) for x in (edges, asked[case])]
    grid += [figures.outlined(pictures[arm][[i]], edges[[i]], 4) for arm in arms]
figure, ax = figures.plt.subplots()
figures.show(ax, torch.cat(grid), 6, "Two ControlNets are added, and both are followed",
             ["edges", "palette", "first alone", "second alone", "sum", "mean"], cases)
save_figure(figure)
print("\nExercises: 07a, 07b (python lessons/exercises)")
