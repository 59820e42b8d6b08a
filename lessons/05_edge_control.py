# %% [markdown]
# # Lesson 05: How does a copy learn to follow outlines, and does the loss tell?
# Sec. 3.3, Fig. 4, Eq. 5. A copy is trained live: one minute. After its exercises read
# `control_loss` and `train` in training.py, `shuffle_gap` in metrics.py.

# %%
import torch
from _lesson import options, predict, reveal, save_figure, save_results, table, verdict

from minicontrolnet import (ControlNet, control_loss, describe, detect_edges, edge_f1,
                            figures, fingerprint, gap, held_out, load_base,
                            loss_of_condition, mask_iou, mask_of, paired, sample,
                            seeded, train)

args = options("05_edge_control", steps=200, quick_steps=4)
guess = predict("How does a copy with zero convs begin to follow outlines?",
                a="step by step: each brings about as much as the one before",
                b="suddenly: for long nothing to be seen, then much in a few steps",
                c="not within these steps: weights that are zero hardly learn")

# %% [markdown]
# ## Lock and copy (Sec. 3.1)
# The copy starts from the base's weights, its zero convs from 0. So before training it
# must change nothing (Eq. 3): not almost nothing, whole pictures agree to the last bit.

# %%
base = load_base(device=args.device)
control, mark = seeded(args.seed, ControlNet, base), fingerprint(base.state_dict())
n, ddim_steps = (5, 2) if args.quick else (32, 12)
truth, noise = held_out(n, args.device)  # pictures that no training sees
edges = detect_edges(truth.image)
start = sample(base, truth.prompt, noise, [(control, edges)], steps=ddim_steps)
assert torch.equal(start, sample(base, truth.prompt, noise, steps=ddim_steps))

# %% [markdown]
# ## A ruler
# The loss of a batch depends on the times and noise drawn for it. So every ten steps we
# ask, on the same pictures and noise: how much larger is the loss if each picture gets
# its neighbour's outline? This condition-shuffle gap is 0 where outlines are ignored.
# A straight rise takes four times as long from its first tenth to its half as it waited
# for that tenth. We say "suddenly" if the wait is the longer of the two.

# %%
one = [4, 4]  # this outline is drawn on the way, with its prompt and without
prompts, losses, gaps, strip = [describe(truth.prompt[one])[0], ""], [], {}, {}
loss_with, outlines = loss_of_condition(base, control, "edge", n)
held_out_losses = [loss_with(outlines).item()]


def look(step: int, loss: float, network: ControlNet) -> None:
    losses.append(loss)
    if step % 10 == 0 or step == args.steps:
        gaps[step] = gap(base, network, "edge", n)
    if step in {0, 60, 80, 100, 140, args.steps}:
        strip[step] = sample(base, prompts, noise[one], [(network, edges[one])],
                             steps=ddim_steps)


# %% [markdown]
# ## Training
# Noise a batch, predict through the locked base, go down. Half of the prompts are empty
# (Sec. 3.3): the copy must read the outline. The rate warms up for 50 steps, then falls
# along a cosine, planned for three times as many steps.

# %%
look(0, float("nan"), control)
trained = train(control, control_loss(base, "edge"), 3 * args.steps, lr=2e-3,
                seed=args.seed, stop_at=args.steps, on_step=look, progress="training")
assert fingerprint(base.state_dict()) == mark  # locked
held_out_losses += [loss_of_condition(base, trained, "edge", n)[0](outlines).item()]

# %% [markdown]
# ## Are outlines followed, and did it come suddenly?
# Mask and edges are found again in what was drawn, and compared with the outline (mask
# IoU, edge F1). Floor: the outline of another picture. Ceiling: real pictures.
# Then read the gap's powers of ten: from the start it grows many times over in each 20
# steps, too small to be seen; what grows so crosses the threshold of sight suddenly.

# %%
right, empty = (sample(base, prompt, noise, [(trained, edges)], steps=ddim_steps)
                for prompt in (truth.prompt, ""))
drawn = {"step 0": (start, 0), "right prompt": (right, 0), "empty prompt": (empty, 0),
         "floor": (right, 1), "ceiling": (truth.image, 0)}
iou = {k: mask_iou(mask_of(x), truth.mask.roll(i, 0)) for k, (x, i) in drawn.items()}
f1 = {k: edge_f1(x, edges.roll(i, 0)) for k, (x, i) in drawn.items()}
table([[f"n = {n}", "mask IoU", "edge F1"],
       *([k, f"{iou[k].mean():.2f}", f"{f1[k].mean():.2f}"] for k in drawn)])
print("\ngap, every 20 steps:", *(f"{x:.1e}" for x in [*gaps.values()][::2]))
last, noisy = gaps[args.steps], torch.tensor(losses[1:])
wait, half = (min(s for s in gaps if gaps[s] >= share * last) for share in (0.1, 0.5))
rise = paired(iou["right prompt"] - iou["step 0"])
reveal(guess, "c" if rise.low <= 0.1 else "b" if wait > half - wait else "a",
       f"a tenth of the gap at step {wait}, half of it {half - wait} steps later; a"
       f" straight rise would have taken {4 * wait}.",
       a="almost nothing comes at first: see the gap.",
       b="the wait is not longer than the rise: see the gap.",
       c="the weights are 0, their gradients are not (lesson 03).")
verdict(f"Outlines are followed: {rise.verdict}, IoU {rise} by training, n = {n}; one"
        f" training seed, lesson 09 has more. On the same pictures and noise the loss"
        " fell from {:.4f} to {:.4f};".format(*held_out_losses) + " from batch to batch"
        f" it varies by {noisy.std():.4f}. A wrong outline costs {last:.4f}.")
save_results({"IoU": iou, "F1": f1, "gap": gaps, "tenth": wait, "half": half,
              "held-out loss, first and last": held_out_losses})
figure, axes = figures.plt.subplot_mosaic("aa;bc", height_ratios=[5, 4])
grid = [figures.enlarge(edges[one], 4),
        *(figures.outlined(images, edges[one], 4) for images in strip.values())]
figures.show(axes["a"], torch.stack(grid, 1).flatten(0, 1), len(grid),
             f"Outlines begin to be followed at step {wait}: the gap tells",
             ["outline", *(f"step {step}" for step in strip)],
             figures.captions(truth.prompt[one[:1]]) + ["no words"])
axes["b"].plot(losses, color="0.65", lw=1.5, label="loss of each batch")
axes["b"].set(ylim=(0, 1.3 * noisy.max()), xlabel="training step")
axes["c"].set(yscale="log", xlabel="training step", title="the gap's powers of ten")
for ax, first in ((axes["b"], 0), (axes["c"], 1)):  # a gap of 0 has no power of ten
    ax.plot(*zip(*[*gaps.items()][first:]), "o-", color="C3", label=f"gap, n = {n}")
axes["b"].legend(frameon=False, loc="upper right")
save_figure(figure)
print("\nEXERCISES  05a to 05d: python lessons/exercises")
