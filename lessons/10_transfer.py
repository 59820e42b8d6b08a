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
from functools import partial
from statistics import fmean

import torch
from _lesson import (figures, load_pictures, load_results, options, predict, reveal,
                     save_figure, table, verdict)

from experiments.transfer import erase, pale_batch, unpale
from minicontrolnet import (base_loss, colours_right, conflicting, detect_edges,
                            edge_f1, held_out, load_base, load_classifier,
                            load_control, lock, mask_iou, mask_of, paired, sample,
                            shapes_right, train)

args = options("10_transfer", steps=60, quick_steps=2)
guess = predict(
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
a = load_base(device=args.device)
control = load_control("edge", a)
sibling = copy.deepcopy(a).requires_grad_(True)
sibling = lock(train(sibling, partial(base_loss, next_batch=pale_batch), args.steps,
                     lr=5e-4, seed=args.seed, progress="A', on pale pictures"))

# %% [markdown]
# **A's ControlNet on A', without training.** Its copy comes from A's encoder, its 13
# controls go into a decoder that has changed since. Are outlines followed, and do
# colours stay pale?

# %%
n, ddim_steps = (4, 2) if args.quick else (16, 12)
truth, noise = held_out(n, args.device)
edges = detect_edges(truth.image)
rows, iou = [["live, on A'", "mask IoU", "edge F1", "right colours, pale"]], {}
for name, controls in {"no control": [], "A's ControlNet": [(control, edges)]}.items():
    images = sample(sibling, truth.prompt, noise, controls, steps=ddim_steps)
    iou[name] = mask_iou(mask_of(images), truth.mask)
    pale = colours_right(unpale(images), truth.prompt).float()
    f1 = edge_f1(images, edges)
    rows.append([name, *(f"{x.mean():.2f}" for x in (iou[name], f1, pale))])
table(rows)
gain = paired(iou["A's ControlNet"] - iou["no control"])
verdict(f"followed on this A': {gain.verdict}, IoU {gain} over no control;"
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
bases = [name for name in arms if name.endswith(ways)]
table([["means", *columns, "bases"],
       *([name, *(f"{fmean(arms[name][column]):.2f}" for column in columns),
          len(arms[name]["IoU"])] for name in ["real, pale", *bases])])


def over(base, way, other, what="IoU of each"):
    one, other = (torch.tensor(arms[f"{base}, {way}"][what]) for way in (way, other))
    return paired(one - other)


says, siblings = [], len(arms["A', as it is"]["IoU"])
for base, what in (("A'", "IoU"), ("B", "IoU of each")):  # over seeds; over pictures
    for way, other in zip(ways[1:], ("no control", "as it is", "as it is")):
        apart = over(base, way, other, what)
        says.append(f"on {base}, {way} over {other}: {apart.verdict}, IoU {apart}")
verdict(*says, f"n = {siblings} siblings; of B one, 48 pictures.")
gains = [over(base, "as it is", "no control").mean for base in ("A", "A'", "B")]
siblings_keep, b_keeps = (gain / gains[0] for gain in gains[1:])
why = {"a": "the places are the same, but the features there have other meanings in B.",
       "b": "more than that is left, or nothing at all: see the table.",
       "c": "something is left: the same layers learned the same pictures."}
right = "a" if b_keeps >= 0.5 else "b" if b_keeps > 0.1 else "c"
reveal(guess, right,
       f"B keeps {b_keeps:.0%} of the gain, siblings {siblings_keep:.0%}.",
       **{letter: why[letter] for letter in why if letter != right})

# %% [markdown]
# **An ambiguous condition** (Fig. 11). Rub out 60 % of each outline. Without words the
# model has to guess what the rest belongs to; with words they decide. First live; the
# record has whole outlines beside it, others rubbed out less, and one with eight
# corners.

# %%
cut_edges = erase(edges, truth.scenes.centre, 0.6)
classifier = load_classifier().to(args.device)
prompts = {"no words": 0 * truth.prompt, "right word": truth.prompt,
           "wrong word": conflicting(truth.prompt)}
for name, prompt in prompts.items():
    images = sample(a, prompt, noise, [(control, cut_edges)], steps=ddim_steps)
    right = shapes_right(images, truth.prompt, classifier).float().mean()
    print(f"   60 % erased, {name}: the outline's own shape in {right:.0%} of {n}")
whole, cut = ({word: arms[f"{share} erased, {word}"] for word in prompts}
              for share in ("0%", "60%"))
says = []
for name, part in {"whole outlines": whole, "60 % erased": cut}.items():
    said, unsaid = (torch.tensor(part[word]["outline's shape of each"])
                    for word in ("right word", "no words"))
    says.append(f"{name}, the word helps: {paired(said - unsaid).verdict},"
                f" right shapes {paired(said - unsaid)}")
    wrong = part["wrong word"]["other shape"][0]
    says.append(f"{name}, a wrong word wins in {wrong:.0%}")
verdict(*says, "The unit is the picture, n = 48, of the weights that ship.")

# %%
figure, (left, right) = figures.plt.subplots(1, 2, width_ratios=[4, 3])
row = dict(zip(arms, load_pictures("10_transfer", 192).unflatten(0, (len(arms), -1))))
grid = [row[f"{base}, {way}"][i] for base in ("A", "A'", "B") for i in (1, 2)
        for way in ways[:2]]
means = [[fmean(arms[f"{base}, {way}"]["IoU"]) for way in ways[:2]]
         for base in ("A", "A'", "B")]
figures.show(left, torch.stack(grid), 4, f"Of the gain in IoU siblings keep"
             f" {siblings_keep:.0%}, a stranger {b_keeps:.0%}", ["without", "with"] * 2,
             [f"{base}\n{mean[0]:.2f}\nto {mean[1]:.2f}"
              for base, mean in zip(("A", "sibling\nA'", "stranger\nB"), means)])
grid = [row[f"{share} erased, {word}"][2] for share in ("0%", "40%", "60%")
        for word in prompts]
grid += [row[f"eight corners, {words}"][2]
         for words in ("no words", "red square on blue", "red star on blue")]
seen = [cut[word]["outline's shape"][0] for word in ("no words", "right word")]
figures.show(right, torch.stack(grid), 3, f"60 % erased: {seen[0]:.0%} right shapes\n"
             f"without words, {seen[1]:.0%} with", ["no words", "right", "wrong"],
             ["whole", "40 %\nerased", "60 %\nerased", "eight\ncorners"])
save_figure(figure)
print("\nEXERCISES  10a: python lessons/exercises")
