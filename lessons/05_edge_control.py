# %% [markdown]
# # Lesson 05: How does a copy learn to follow outlines, and does the loss tell?
#
# Paper: Sec. 3.3 and Fig. 4 ("sudden convergence"), Eq. 5. Read `control_loss` and
# `train` in minicontrolnet/training.py, `shuffle_gap` in minicontrolnet/metrics.py. A
# copy is trained here, live, from zero: 200 steps, half a minute on two cores.

# %%
import torch
from _lesson import options, predict, reveal, save_figure, save_results, table, verdict

from minicontrolnet import (CHANNELS, ControlNet, control_loss, describe, detect_edges,
                            edge_f1, figures, fingerprint, gap, held_out, load_base,
                            mask_iou, mask_of, paired, sample, seeded, train)

args = options("05_edge_control", steps=200, quick_steps=4)
guess = predict("How does a copy with zero convs begin to follow outlines?",
                a="step by step: a little better from the first step on",
                b="suddenly: at first not at all, then within a few dozen steps",
                c="never: weights that are zero cannot learn")

# %% [markdown]
# ## Lock and copy (Sec. 3.1)
# The copy starts from the base's weights, its zero convs from 0. So before training it
# must change nothing (Eq. 3): not almost nothing, whole pictures agree to the last bit.

# %%
base = load_base(device=args.device)
control = seeded(args.seed, ControlNet, base, CHANNELS["edge"])
n, ddim_steps = (4, 2) if args.quick else (32, 12)
truth, noise = held_out(n, args.device)  # pictures that no training sees
edges = detect_edges(truth.image)
free = sample(base, truth.prompt, noise, steps=ddim_steps)
start = sample(base, truth.prompt, noise, [(control, edges)], steps=ddim_steps)
assert torch.equal(free, start)
print(f"\nlargest change by the untrained copy: {(start - free).abs().max():g}")

# %% [markdown]
# ## A ruler
# The loss of a batch depends on the times and the noise drawn for it. So every ten
# steps we ask, on the same pictures and noise: how much larger is the loss if each
# picture gets its neighbour's outline? This condition-shuffle gap is 0 as long as
# outlines are ignored. Now and then one outline is drawn, with its prompt and without.

# %%
one = [4 % n] * 2
words = describe(truth.prompt[one])[0]
losses, gaps, strip = [], {}, {}


def look(step: int, loss: float, network: ControlNet) -> None:
    losses.append(loss)
    if step % 10 == 0 or step == args.steps:
        gaps[step] = gap(base, network, "edge", n)
    if step in {0, 60, 80, 100, 140, args.steps}:
        strip[step] = sample(base, [words, ""], noise[one], [(network, edges[one])],
                             steps=ddim_steps)


# %% [markdown]
# ## Training
# Noise a batch, predict through the locked base, go down. Half of the prompts are empty
# (Sec. 3.3), so that the copy must read the outline. The learning rate falls along a
# cosine; 200 steps are the first third of a longer plan, so it stays high.

# %%
look(0, float("nan"), control)
trained = train(control, control_loss(base, "edge"), 3 * args.steps, lr=2e-3,
                seed=args.seed, stop_at=args.steps, on_step=look, progress="training")
assert fingerprint(base.state_dict()) == fingerprint(load_base().state_dict())  # locked

# %% [markdown]
# ## Are outlines followed?
# Mask and edges are found again in what was drawn, and compared with the outline (mask
# IoU, edge F1). Floor: the outline of another picture. Ceiling: real pictures.

# %%
right = sample(base, truth.prompt, noise, [(trained, edges)], steps=ddim_steps)
empty = sample(base, "", noise, [(trained, edges)], steps=ddim_steps)
drawn = {"step 0": (start, 0), "right prompt": (right, 0), "empty prompt": (empty, 0),
         "floor": (right, 1), "ceiling": (truth.image, 0)}
iou = {k: mask_iou(mask_of(x), truth.mask.roll(i, 0)) for k, (x, i) in drawn.items()}
f1 = {k: edge_f1(x, edges.roll(i, 0)) for k, (x, i) in drawn.items()}
table([[f"n = {n}", "mask IoU", "edge F1"],
       *([k, f"{iou[k].mean():.2f}", f"{f1[k].mean():.2f}"] for k in drawn)])

# %% [markdown]
# ## Sudden?
# A gradual rise, 1 - exp(-step / tau), waits for its first tenth a fifth as long as it
# then takes to the half. Here it is the other way round. Read the gap's powers of ten:
# it grows from the start, by about the same factor each time, and that looks sudden.

# %%
print("\ngap, every 20 steps:", *(f"{x:.0e}" for x in [*gaps.values()][::2]))
last, noisy = gaps[args.steps], torch.tensor(losses[1:])
wait, half = (min(s for s in gaps if gaps[s] >= share * last) for share in (0.1, 0.5))
reveal(guess, "b", because=f"a tenth of the gap at step {wait}, half of it at {half}.",
       a="that is a gradual rise; here almost nothing comes at first.",
       c="the weights are 0, their gradients are not (lesson 03).")
rise = paired(iou["right prompt"] - iou["step 0"])
sudden = "confirmed" if rise.low > 0 and wait > half - wait else "undecided"
verdict(f"outlines are followed: {rise.verdict}, IoU {rise} by training, n = {n};",
        f"suddenly: {sudden}, a tenth at step {wait}, half {half - wait} steps later.",
        f"the loss varies by {noisy.std():.4f} between batches, the gap is {last:.4f}.")
save_results({"IoU": iou, "F1": f1, "gap": gaps, "tenth": wait, "half": half})

# %%
figure, (top, below) = figures.plt.subplots(2, 1, height_ratios=[5, 3])
grid = [figures.enlarge(edges[one], 4),
        *(figures.outlined(images, edges[one], 4) for images in strip.values())]
figures.show(top, torch.stack(grid, 1).flatten(0, 1), len(grid),
             f"At step {wait} the copy begins to follow outlines, hidden by its loss",
             ["outline", *(f"step {step}" for step in strip)],
             [words.replace(" on", "\non"), "no words"])
below.plot(losses, color="0.65", lw=1.5, label="loss of each batch (Eq. 5)")
below.plot(*zip(*gaps.items()), "o-", color="C3", label=f"shuffle gap, n = {n}")
below.set(xlabel="training step", ylabel="loss", ylim=(0, 1.3 * noisy.max()))
below.legend(frameon=False, ncols=2, loc="upper right")
save_figure(figure)
print("\nExercises: 05a to 05d (python lessons/exercises)")
