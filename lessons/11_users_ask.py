# %% [markdown]
# # Lesson 11: what ControlNet's users ask
#
# Questions that return in the trackers, each answered by a small measured run. CN
# stands for github.com/lllyasviel/ControlNet, train.md for its docs/train.md. Read
# `sample` and `weigh` in minicontrolnet/sampling.py. What is asked about sampling is
# measured live; what is asked about training is read from the record of
# lessons/experiments/11_users_ask.py, whose top says what was expected. The answers are
# those of a toy: they show how to ask.

# %%
from statistics import fmean

import torch
from _lesson import (figures, load_results, options, predict, reveal, save_figure,
                     table, verdict)

from experiments.measured import apart
from experiments.onset import onset
from minicontrolnet import (conflicting, describe, detect_edges, edge_f1, held_out,
                            load_base, load_classifier, load_control, off_palette,
                            paired, sample, shapes_right)

args = options("11_users_ask", steps=16, quick_steps=4, meaning="pictures drawn live")
guess = predict(
    "Control acts only in the first half of sampling, or only in the second. When are"
    " outlines followed better?",
    a="in the first half: there it is decided where things are",
    b="in the second half: outlines are details, and details come last",
    c="alike: half of the control is half of the control")

# %% [markdown]
# **How strong?** (CN 185 asks what the scale means, CN 199 for a dial from 0 to 2.) It
# multiplies all 13 controls. To see it work, words and outlines disagree here: each
# prompt names another shape than its outline has. Who wins?

# %%
base = load_base(device=args.device)
control, classifier = load_control("edge", base), load_classifier().to(args.device)
truth, noise = held_out(args.steps, args.device)
edges, words = detect_edges(truth.image), conflicting(truth.prompt)
ddim_steps = 2 if args.quick else 20


def judge(strip):
    """Print who wins; the shares of clean pixels and edge F1 of each picture."""
    rows = [["control", "outline's shape", "word's shape", "edge F1", "clean pixels"]]
    for name, images in strip.items():
        shares = (shapes_right(images, truth.prompt, classifier).float(),
                  shapes_right(images, words, classifier).float(),
                  edge_f1(images, edges), 1 - off_palette(images))
        rows.append([name, *(f"{x.mean():.2f}" for x in shares)])
    table(rows)


scales = {f"{scale:g}": sample(base, words, noise, [(control, edges, scale)],
                               steps=ddim_steps) for scale in (0, 0.25, 0.5, 1, 1.5, 2)}
judge(scales)
burnt = paired(off_palette(scales["2"]) - off_palette(scales["1"]))
verdict(f"a scale of 2 draws fewer clean pixels than 1: {burnt.verdict}, {burnt};",
        f"n = {args.steps} pictures of the weights that ship.")

# %% [markdown]
# **When?** (control_guidance_start and _end; pull requests 2731 and 3770 of
# huggingface/diffusers.) The same words and outlines, with control in one part of
# sampling only. 0 is pure noise, 1 the finished picture.

# %%
parts = {"never": (0, 0), "first 20 %": (0, 0.2), "first half": (0, 0.5),
         "always": (0, 1), "last 80 %": (0.2, 1), "last half": (0.5, 1)}
windows = {name: sample(base, words, noise, [(control, edges)], steps=ddim_steps,
                        control_start=start, control_end=end)
           for name, (start, end) in parts.items()}
judge(windows)
halves = paired(edge_f1(windows["first half"], edges)
                - edge_f1(windows["last half"], edges))
why = {"a": "where things are was not decided there: see the table.",
       "b": "by then the shape stands, and control finds little left to move.",
       "c": "the halves do different work: the layout is decided in one of them."}
right = "a" if halves.mean > 0.05 else "b" if halves.mean < -0.05 else "c"
reveal(guess, right, f"edge F1, first half less last half: {halves}, n = {args.steps}.",
       **{letter: why[letter] for letter in why if letter != right})

# %% [markdown]
# **Accumulate gradients, or more steps at a small batch?** (CN 93, 527.) train.md:
# sudden convergence comes at the same step anyway, so make the steps before it larger.
# Four batches of 4, accumulated, are one of 16; both arms see equally many pictures.
# **Worse after longer training?** (ControlNet-v1-1-nightly 100: well after 15k steps,
# worse after 30k.) Look at the small batch after 300, 600 and 1200 steps. The rate is
# constant, as theirs.

# %%
record = load_results("11_users_ask")
arms, steps = record["numbers"], record["steps"]
full, small = arms["as in the paper"], arms["small batch"]
lengths = {steps: small["after 1"], 2 * steps: small["after 2"], 4 * steps: small}
columns = ("F1", "F1, no words", "IoU", "colours", "shapes", "clean pixels")
rows = {"no control": arms["no control"], f"{steps} steps of 16": full,
        **{f"{count} steps of 4": own for count, own in lengths.items()},
        **{name: arms[name] for name in ("decoder unlocked", "middle alone",
                                         "without t and xt")},
        "unlocked, without control": arms["decoder unlocked"]["without control"]}
table([["means over seeds", *columns, "seeds"],
       *([name, *(f"{fmean(own[column]):.2f}" for column in columns), len(own["F1"])]
         for name, own in rows.items())])


def over(one, other, what="F1"):
    """One arm less another, and what that says."""
    it = apart(one[what], other[what])
    return f"{it.verdict}, {what} {it}"


halves = [fmean(own["half"]) for own in (full, small)]
verdict(f"{steps} steps of 16 follow better than {4 * steps} of 4:"
        f" {over(full, small)};",
        f"half of the rise at step {halves[0]:.0f} of 16, at {halves[1]:.0f} of 4;",
        f"{4 * steps} steps of 4 are worse than {2 * steps}:"
        f" {over(lengths[2 * steps], small)}; n = {len(full['F1'])} seeds.")

# %% [markdown]
# **Unlock the decoder?** (CN 52, 360, 608: "turns out to improve model performance
# significantly"; train.md: dangerous if the data are not good enough.) **The middle
# alone?** (diffusers 5070; train.md: where computing is scarce.) **Does the copy need t
# and xt?** (CN 62, ctrlora 22.) Without them it would run once for a picture.

# %%
unlocked, alone = arms["decoder unlocked"], rows["unlocked, without control"]
verdict(f"unlocking follows better: {over(unlocked, full)};",
        "and harms the base without control:"
        f" {over(arms['no control'], alone, 'shapes')};",
        f"all 13 follow better than the middle: {over(full, arms['middle alone'])};",
        f"t and xt are needed: {over(full, arms['without t and xt'])};",
        f"n = {len(full['F1'])} seeds, compared after step"
        f" {', '.join(onset(full['gap'], full['loss']['1']))} (control sets in).")

# %%
figure, axes = figures.plt.subplots(2, 1)
mean = lambda images: f"F1 {edge_f1(images, edges).mean():.2f}"
for ax, strip, title in (
        (axes[0], scales, f"Conditioning scale 1 follows: {mean(scales['1'])}"),
        (axes[1], windows, f"Control in the first half: {mean(windows['first half'])},"
         f" in the last half: {mean(windows['last half'])}")):
    some = [figures.outlined(images[[i]].cpu(), edges[[i]].cpu())
            for i in (1, 2) for images in strip.values()]
    f1 = [f"{name}\n{mean(images)}" for name, images in strip.items()]
    said = [f"outline:\n{describe(truth.prompt[[i]])[0].split()[1]}\nword:"
            f"\n{describe(words[[i]])[0].split()[1]}" for i in (1, 2)]
    figures.show(ax, torch.cat(some), len(strip), title, f1, said)
save_figure(figure)
print("\nEXERCISES  11a: python lessons/exercises")
