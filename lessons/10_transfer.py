# %% [markdown]
# # Lesson 10: does a ControlNet work on a base that it has never seen?
#
# Paper: Sec. 4.5 and Fig. 12 (transfer to other models without training), Fig. 11 (an
# ambiguous condition without a prompt). Read `moved` and `erase` in
# lessons/experiments/transfer.py. A is the base that ships. A sibling A' was trained on
# from A in another style: the paper's case. B is a stranger, trained from another
# start; of such bases the paper claims nothing. The record was made by
# lessons/experiments/10_transfer.py, whose top says what was expected.

# %%
import copy
import os
import sys
from functools import partial
from statistics import fmean

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # this folder, also under python -P
import torch
from lesson import Lesson, load_pictures, load_results, table
from lesson.figures_10 import transfer_and_ambiguity
from lesson.styles import erase, pale_batch, unpale
from tqdm import tqdm

from minicontrolnet import (Control, Training, base_loss, colours_right, conflicting, detect_edges,
                            difference, edge_f1, held_out, load_base, load_classifier, load_control,
                            lock, mask_iou, mask_of, paired, sample, shapes_right)

lesson = Lesson("10_transfer", steps=60, quick_steps=2)
guess = lesson.predict(
    "A's ControlNet is put on B: the same layers, the same kind of pictures, another"
    " start. How much of what it gains on A does it gain on B?",
    a="at least half: the 13 places are the same",
    b="something, but less than half",
    c="nothing: what a channel means is an accident of the start")

# %% [markdown]
# **A sibling.** A copy of A is trained on in another style: each colour half way to
# white. Sixty steps are a taste of it, the recorded siblings had 300. A itself stays as
# it is.

# %%
a = load_base(device=lesson.device)
control = load_control("edge", a)
sibling = copy.deepcopy(a).requires_grad_(True)
training = Training(sibling, partial(base_loss, next_batch=pale_batch), lesson.steps, lr=5e-4,
                    seed=lesson.seed)
for step, loss in tqdm(training, "A', on pale pictures"):
    pass
sibling = lock(training.averaged)

# %% [markdown]
# **A's ControlNet on A', without training.** Its copy comes from A's encoder, its 13
# controls go into a decoder that has changed since. Are outlines followed, and do
# colours stay pale?

# %%
n = 4 if lesson.quick else 16
ddim_steps = 2 if lesson.quick else 12
truth, noise = held_out(n, lesson.device)
edges = detect_edges(truth.image)
iou = {}
rows = [["live, on A'", "mask IoU", "edge F1", "right colours, pale"]]
for name, controls in {"no control": [], "A's ControlNet": [Control(control, edges)]}.items():
    images = sample(sibling, truth.prompt, noise, controls, steps=ddim_steps)
    iou[name] = mask_iou(mask_of(images), truth.mask)
    f1 = edge_f1(images, edges)
    pale = colours_right(unpale(images), truth.prompt).float()
    rows.append([name, f"{iou[name].mean():.2f}", f"{f1.mean():.2f}", f"{pale.mean():.2f}"])
table(rows)
gain = paired(iou["A's ControlNet"] - iou["no control"])
lesson.verdict(f"followed on this A': {gain.verdict}, IoU {gain} over no control;"
               f" n = {n} pictures.")

# %% [markdown]
# **The record**: three siblings from three training seeds, and one B. Beside A's
# ControlNet as it is stand the author's own tool, which adds the difference of the two
# bases to the copy, and a ceiling: a ControlNet trained on that very base for 300
# steps.

# %%
arms = load_results("10_transfer")["numbers"]
ways = ("no control", "as it is", "difference added", "its own")
columns = ("IoU", "F1", "colours", "pale colours", "shapes")
rows = [["means", *columns, "bases"]]
for name, arm in arms.items():
    if name == "real, pale" or name.endswith(ways):
        rows.append([name, *(f"{fmean(arm[column]):.2f}" for column in columns), len(arm["IoU"])])
table(rows)


# %%
def over(base, way, other, what="IoU of each"):
    return difference(arms[f"{base}, {way}"][what], arms[f"{base}, {other}"][what])


sentences = []
for base, what in (("A'", "IoU"), ("B", "IoU of each")):  # over seeds; over pictures
    for way, other in [("as it is", "no control"), ("difference added", "as it is"),
                       ("its own", "as it is")]:
        more = over(base, way, other, what)
        sentences.append(f"on {base}, {way} over {other}: {more.verdict}, IoU {more}")
siblings = len(arms["A', as it is"]["IoU"])
lesson.verdict(*sentences, f"n = {siblings} siblings; of B one, 48 pictures.")

# %%
gains = {base: over(base, "as it is", "no control").mean for base in ("A", "A'", "B")}
siblings_keep = gains["A'"] / gains["A"]
b_keeps = gains["B"] / gains["A"]
right = "a" if b_keeps >= 0.5 else "b" if b_keeps > 0.1 else "c"
lesson.reveal(guess, right, f"B keeps {b_keeps:.0%} of the gain, siblings {siblings_keep:.0%}.",
              a="the places are the same, but the features there have other meanings in B.",
              b="more than that is left, or nothing at all: see the table.",
              c="something is left: the same layers learned the same pictures.")

# %% [markdown]
# **An ambiguous condition** (Fig. 11). Rub out 60 % of each outline. Without words the
# model has to guess what the rest belongs to; with words they decide. First live; the
# record has whole outlines beside it, others rubbed out less, and one with eight
# corners.

# %%
cut_edges = erase(edges, truth.scenes.centre, 0.6)
classifier = load_classifier().to(lesson.device)
prompts = {"no words": 0 * truth.prompt, "right word": truth.prompt,
           "wrong word": conflicting(truth.prompt)}
for name, prompt in prompts.items():
    images = sample(a, prompt, noise, [Control(control, cut_edges)], steps=ddim_steps)
    right = shapes_right(images, truth.prompt, classifier).float().mean()
    print(f"   60 % erased, {name}: the outline's own shape in {right:.0%} of {n}")

# %%
sentences = []
for name, share in {"whole outlines": "0%", "60 % erased": "60%"}.items():
    said = arms[f"{share} erased, right word"]["outline's shape of each"]
    unsaid = arms[f"{share} erased, no words"]["outline's shape of each"]
    helps = difference(said, unsaid)
    wrong = arms[f"{share} erased, wrong word"]["other shape"][0]
    sentences += [f"{name}, the word helps: {helps.verdict}, right shapes {helps}",
                  f"{name}, a wrong word wins in {wrong:.0%}"]
lesson.verdict(*sentences, "The unit is the picture, n = 48, of the weights that ship.")

# %%
pictures = dict(zip(arms, load_pictures("10_transfer", 192).unflatten(0, (len(arms), -1))))
iou = {}
for base in ("A", "A'", "B"):
    iou[base] = [fmean(arms[f"{base}, {way}"]["IoU"]) for way in ways[:2]]
right_shapes = [arms[f"60% erased, {word}"]["outline's shape"][0]
                for word in ("no words", "right word")]
lesson.save_figure(transfer_and_ambiguity(pictures, iou, (siblings_keep, b_keeps), right_shapes))
print("\nEXERCISES  10a: python lessons/exercises")
