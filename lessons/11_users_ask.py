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
import os
import sys
from statistics import fmean

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # this folder, also under python -P
from lesson import Lesson, load_results, table
from lesson.curves import onset
from lesson.figures_11 import strengths_and_windows

from minicontrolnet import (Control, conflicting, detect_edges, difference, edge_f1, held_out,
                            load_base, load_classifier, load_control, off_palette, paired, sample,
                            shapes_right)

lesson = Lesson("11_users_ask", steps=16, quick_steps=4, meaning="pictures drawn live")
guess = lesson.predict(
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
base = load_base(device=lesson.device)
control = load_control("edge", base)
classifier = load_classifier().to(lesson.device)
truth, noise = held_out(lesson.steps, lesson.device)
edges = detect_edges(truth.image)
words = conflicting(truth.prompt)
ddim_steps = 2 if lesson.quick else 20


def judge(strip):
    """Print who wins; the shares of clean pixels and edge F1 of each picture."""
    rows = [["control", "outline's shape", "word's shape", "edge F1", "clean pixels"]]
    for name, images in strip.items():
        shares = (shapes_right(images, truth.prompt, classifier).float(),
                  shapes_right(images, words, classifier).float(),
                  edge_f1(images, edges), 1 - off_palette(images))
        rows.append([name, *(f"{x.mean():.2f}" for x in shares)])
    table(rows)


scales = {}
for scale in (0, 0.25, 0.5, 1, 1.5, 2):
    scales[f"{scale:g}"] = sample(base, words, noise, [Control(control, edges, scale)],
                                  steps=ddim_steps)
judge(scales)
burnt = paired(off_palette(scales["2"]) - off_palette(scales["1"]))
lesson.verdict(f"a scale of 2 draws fewer clean pixels than 1: {burnt.verdict}, {burnt};",
               f"n = {lesson.steps} pictures of the weights that ship.")

# %% [markdown]
# **When?** (control_guidance_start and _end; pull requests 2731 and 3770 of
# huggingface/diffusers.) The same words and outlines, with control in one part of
# sampling only. 0 is pure noise, 1 the finished picture.

# %%
parts = {"first 20 %": (0, 0.2), "first half": (0, 0.5),
         "always": (0, 1), "last 80 %": (0.2, 1), "last half": (0.5, 1)}
windows = {"never": scales["0"]}
for name, (start, end) in parts.items():
    windows[name] = sample(base, words, noise, [Control(control, edges)], steps=ddim_steps,
                           control_start=start, control_end=end)
judge(windows)
halves = paired(edge_f1(windows["first half"], edges) - edge_f1(windows["last half"], edges))
right = "a" if halves.mean > 0.05 else "b" if halves.mean < -0.05 else "c"
lesson.reveal(guess, right, f"edge F1, first half less last half: {halves}, n = {lesson.steps}.",
              a="where things are was not decided there: see the table.",
              b="by then the shape stands, and control finds little left to move.",
              c="the halves do different work: the layout is decided in one of them.")

# %% [markdown]
# **Accumulate gradients, or more steps at a small batch?** (CN 93, 527.) train.md:
# sudden convergence comes at the same step anyway, so make the steps before it larger.
# Four batches of 4, accumulated, are one of 16; both arms see equally many pictures.
# **Worse after longer training?** (ControlNet-v1-1-nightly 100: well after 15k steps,
# worse after 30k.) Look at the small batch after 300, 600 and 1200 steps. The rate is
# constant, as theirs.

# %%
record = load_results("11_users_ask")
arms = record["numbers"]
steps = record["steps"]
full = arms["as in the paper"]
small = arms["small batch"]
lengths = {steps: small["after 1"], 2 * steps: small["after 2"], 4 * steps: small}
columns = ("F1", "F1, no words", "IoU", "colours", "shapes", "clean pixels")
shown = {"no control": arms["no control"], f"{steps} steps of 16": full}
for count, arm in lengths.items():
    shown[f"{count} steps of 4"] = arm
for name in ("decoder unlocked", "middle alone", "without t and xt"):
    shown[name] = arms[name]
shown["unlocked, without control"] = arms["decoder unlocked"]["without control"]
rows = [["means over seeds", *columns, "seeds"]]
for name, arm in shown.items():
    rows.append([name, *(f"{fmean(arm[column]):.2f}" for column in columns), len(arm["F1"])])
table(rows)


def over(one, other, what="F1"):
    """One arm less another, and what that says."""
    more = difference(one[what], other[what])
    return f"{more.verdict}, {what} {more}"


halves = [fmean(arm["half"]) for arm in (full, small)]
lesson.verdict(f"{steps} steps of 16 follow better than {4 * steps} of 4:"
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
unlocked = arms["decoder unlocked"]
alone = unlocked["without control"]
lesson.verdict(f"unlocking follows better: {over(unlocked, full)};",
        "and harms the base without control:"
        f" {over(arms['no control'], alone, 'shapes')};",
        f"all 13 follow better than the middle: {over(full, arms['middle alone'])};",
        f"t and xt are needed: {over(full, arms['without t and xt'])};",
        f"n = {len(full['F1'])} seeds, compared after step"
        f" {', '.join(onset(full['gap'], full['loss']['1']))} (control sets in).")

# %%
lesson.save_figure(strengths_and_windows(scales, windows, edges, truth.prompt, words))
print("\nEXERCISES  11a: python lessons/exercises")
