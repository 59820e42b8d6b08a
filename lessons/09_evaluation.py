# %% [markdown]
# # Lesson 09: control or luck, sudden or gradual, and how many pictures does it take?
#
# Paper: Tab. 2 (conditions detected again), Sec. 3.3 and Fig. 4 (sudden convergence),
# Sec. 4.5 and Fig. 10 (few pictures), Sec. 4.3 (against training from scratch). Read
# `edge_f1` in minicontrolnet/metrics.py and `paired` in evaluation.py. Tab. 2 is
# measured live; the trainings are read from the record of
# lessons/experiments/09_evaluation.py, whose top says what was expected.

# %%
import math
from statistics import fmean

from _lesson import (figures, load_results, options, predict, reveal, save_figure,
                     table, verdict)

from experiments.measured import GRADUAL, apart, no_worse
from minicontrolnet import (detect_edges, edge_f1, held_out, load_base, load_control,
                            mask_iou, mask_of, paired, sample)

args = options("09_evaluation", steps=32, quick_steps=4, meaning="pictures drawn live")
guess = predict(
    "A ControlNet is trained on 50 pictures, not on endless new ones. How well does it"
    " follow outlines that it never saw?",
    a="hardly at all: it knows its 50 by heart",
    b="less than half as well as with endless pictures",
    c="at least half as well: what pictures look like, the base knows")

# %% [markdown]
# **Control or luck?** Draw with the outlines of held-out pictures, find mask and edges
# again in what was drawn, and compare. The ceiling is what the detectors find in real
# pictures, the floor compares with a neighbour's outline. The paper has the IoU of
# segmentations: .58 for real pictures, .35 for ControlNet, .32 for its lite form.

# %%
base = load_base(device=args.device)
control = load_control("edge", base)
truth, noise = held_out(args.steps, args.device)
edges, ddim_steps = detect_edges(truth.image), 2 if args.quick else 12
own = sample(base, truth.prompt, noise, [(control, edges)], steps=ddim_steps)
free = sample(base, truth.prompt, noise, steps=ddim_steps)
rows, iou = [["live", "mask IoU", "edge F1"]], {}
for name, images, roll in (("real pictures (ceiling)", truth.image, 0),
                           ("ControlNet", own, 0), ("no control", free, 0),
                           ("a neighbour's outline (floor)", own, 1)):
    iou[name] = mask_iou(mask_of(images), truth.mask.roll(roll, 0))
    f1 = edge_f1(images, edges.roll(roll, 0))
    rows.append([name, f"{iou[name].mean():.3f}", f"{f1.mean():.3f}"])
table(rows)
luck = paired(iou["ControlNet"] - iou["a neighbour's outline (floor)"])
verdict(f"control, not luck: {luck.verdict}, IoU {luck} over a neighbour's outline;",
        f"n = {args.steps} pictures of one ControlNet, the one that ships.")

# %% [markdown]
# **Sudden or gradual?** (Fig. 4.) That interval is about one set of weights. A claim
# about *training* needs several: from here on a number is one training seed's mean over
# the same 48 pictures, an interval is Student's over three seeds (t is 4.30). The
# shuffle gap of lesson 05: when has it done a tenth of its rise, and how long does it
# then take to the half? A gradual 1 - exp(-step / tau) waits .18 times as long as it
# then takes. The warm-up of the learning rate is a tenth of the steps: waiting that
# long is nothing.

# %%
record = load_results("09_evaluation")
arms, steps = record["numbers"], record["steps"]
endless, seeds = arms["endless"], range(len(arms["endless"]["IoU"]))
for what in ("wait", "half", "suddenness"):
    print(f"   {what}, a number for each seed:", *(f"{x:.1f}" for x in endless[what]))
sudden = paired([math.log(ratio / GRADUAL) for ratio in endless["suddenness"]])
waits = paired([wait - steps / 10 for wait in endless["wait"]])
verdict(f"more sudden than gradual: {sudden.verdict}, log of ratio to .18: {sudden};",
        f"waits beyond the warm-up: {waits.verdict}, {waits} steps;"
        f" {len(seeds)} seeds.")

# %% [markdown]
# **Good throughout?** The other half of Fig. 4: zero convs add no harmful noise, so
# pictures are good before the condition is followed, while it begins to be, and after.

# %%
clean = endless["on the way"]["clean pixels"]  # step -> a share for each seed
first, *_ = clean.values()  # step 1: still the base's pictures
worst = paired([min(at[seed] for at in clean.values()) - first[seed] for seed in seeds])
verdict(f"clean pixels never .02 below the base's: {no_worse(worst, 0.02)};"
        f" the worst of {len(clean)} moments is {worst}.")

# %% [markdown]
# **How many pictures?** (Fig. 10: 1k do not make it collapse, 50k and 3M are better.)
# Equal steps on 50, on 500, on endless new pictures. **From scratch?** (Sec. 4.3.) A
# UNet that takes the condition itself and trains all its weights, at equal and at four
# times as many steps. It has no branch without the condition, so against it the
# ControlNet's guidance has the condition in both branches, too.

# %%
arms["endless, in both"] = endless["in both branches"]
names = {"no control": "no control", "50": "50 pictures", "500": "500 pictures",
         "endless": "endless pictures", "endless, in both": "endless, in both branches",
         "scratch": f"scratch, {steps} steps",
         "scratch, longer": f"scratch, {4 * steps} steps"}
columns = ("IoU", "F1", "colours", "shapes", "clean pixels", "Frechet")
table([["means over seeds", *columns, "seeds"],
       *([name, *(f"{fmean(arms[arm][column]):.2f}" for column in columns),
          len(arms[arm]["IoU"])] for arm, name in names.items())])


def ahead(one, other, what="IoU"):
    return apart(arms[one][what], arms[other][what])


gain, dirt = ahead("50", "no control"), ahead("50", "no control", "clean pixels")
pairs = (("500", "50", "IoU"), ("endless", "500", "IoU"),
         ("endless, in both", "scratch", "IoU"),
         ("endless, in both", "scratch", "colours"),
         ("endless, in both", "scratch, longer", "IoU"))
verdict(f"50 pictures are followed: {gain.verdict}, IoU {gain} over no control;",
        f"and draw as cleanly, .02 allowed: {no_worse(dirt, 0.02)}, {dirt}.",
        *(f"{one} over {other}, {what}: {it.verdict}, {it}"
          for one, other, what in pairs for it in [ahead(one, other, what)]),
        f"{len(seeds)} seeds.")
kept = gain.mean / ahead("endless", "no control").mean
why = {"a": "it would draw its 50 outlines or ignore them all; this gain is more.",
       "b": "it keeps more: only the outline had to be learned.",
       "c": "50 pictures are too few here, even for a base that knows the rest."}
right = "a" if kept < 0.1 else "b" if kept < 0.5 else "c"
reveal(guess, right, f"of the IoU that endless pictures gain, 50 keep {kept:.0%}.",
       **{letter: text for letter, text in why.items() if letter != right})

# %%
figure, (left, right) = figures.plt.subplots(1, 2, width_ratios=[3, 2])
x = [int(step) for step in endless["gap"]]
for seed in seeds:
    gap, good = ([at[seed] for at in curve.values()]
                 for curve in (endless["gap"], clean))
    left.plot(x, [y / max(gap) for y in gap], "C0", x, good, "C2")
left.plot(x, [1 - 0.5 ** (step / fmean(endless["half"])) for step in x], "--", c="0.6")
left.legend(left.lines[-3:], ["shuffle gap / its highest", "share of clean pixels",
                              "a gradual rise"],
            loc="lower right")
left.set(xlabel=f"training step, {len(seeds)} seeds", ylim=(-0.02, 1.05),
         title=f"Waits {min(endless['wait']):.0f} to {max(endless['wait']):.0f} steps,"
               " then follows;\nat the worst moment"
               f" {min(map(min, clean.values())):.1%} of pixels are clean")
for i, arm in enumerate(names):
    right.plot(arms[arm]["IoU"], [-i] * len(arms[arm]["IoU"]), "o", ms=11, alpha=0.7,
               color={"s": "C1", "n": "0.4"}.get(arm[0], "C0"))
right.set_yticks([-i for i in range(len(names))], names.values())
right.set(xlabel="mask IoU, a dot a seed", xlim=(None, 1.02),
          title=f"50 pictures keep {kept:.0%}\nof the gain of endless ones")
save_figure(figure)
print("\nEXERCISES  09a: python lessons/exercises")
