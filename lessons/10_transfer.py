# %% [markdown]
# # Lesson 10: Does a ControlNet work on a base that it has never seen?
#
# There are thousands of versions of Stable Diffusion. Most of them were fine-tuned from the
# same original, in another style. Must we train a new ControlNet for each of them? The paper
# says no: it puts its ControlNets on such versions without any further training (Sec. 4.5,
# Fig. 12). That is surprising. The copy was made from another encoder, and now its outputs
# enter a decoder that has changed. In this lesson you
#
# 1. fine-tune a *sibling* of our base in another style, and put the old ControlNet on it,
# 2. see what happens on a *stranger*, a base that was trained from another random start,
# 3. give the model an outline with a part missing, and see how it completes the shape (Fig. 11).
#
# It takes about a minute. Then do exercise 10a, and read `erase` in lessons/lesson/styles.py.

# %%
import copy
import os
import sys
from functools import partial
from statistics import fmean

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
import torch
from lesson import Lesson, finding, load_pictures, load_results, table, with_interval
from lesson.figures_10 import on_the_sibling, on_the_stranger, too_little
from lesson.styles import erase, pale_batch, pale_share
from tqdm import tqdm

from minicontrolnet import (Training, base_loss, conflicting, detect_edges, held_out, load_base,
                            load_classifier, load_control, lock, mask_iou, mask_of, paired,
                            sample, shapes_right)

# %%
lesson = Lesson("10_transfer", steps=60, quick_steps=2)
base = load_base(device=lesson.device)
control = load_control("edge", base)
n = 4 if lesson.quick else 16
ddim_steps = 2 if lesson.quick else 12
truth, noise = held_out(n, lesson.device, seed=10_000 + lesson.seed)
edges = detect_edges(truth.image)

guess = lesson.predict("We put the ControlNet on a stranger. This base has the same layers and was"
                       " trained on the same kind of pictures, but from another random start. How"
                       " much of the ControlNet's effect is left?",
                       a="nearly all of it, because the 13 connections are in the same places",
                       b="about half of it",
                       c="none of it, because the two bases share no features")

# %% [markdown]
# ## A sibling in another style
#
# We make a sibling: we duplicate the base, and train the duplicate a little further on pale
# pictures. In these, every colour is moved half of the way to white:
#
#     pale colour = (colour + white) / 2
#
# The base itself stays as it is.

# %%
sibling = copy.deepcopy(base).requires_grad_(True)
pale_loss = partial(base_loss, next_batch=pale_batch)
training = Training(sibling, pale_loss, steps=lesson.steps, lr=5e-4, seed=lesson.seed)
for step, loss in tqdm(training, "the sibling"):
    pass
sibling = lock(training.averaged)

# %% [markdown]
# Now the old ControlNet meets the new base. Do the pictures follow the outlines, and do they
# stay pale? We call a pixel pale if its red, its green and its blue are all at least 0.4. The
# share of such pixels is the last column.

# %%
pairs = [(control, edges)]
pictures = {"the base, with ControlNet": sample(base, truth.prompt, noise, pairs, steps=ddim_steps),
            "the sibling alone": sample(sibling, truth.prompt, noise, steps=ddim_steps),
            "the sibling, with ControlNet": sample(sibling, truth.prompt, noise, pairs, steps=ddim_steps)}
iou = {}
rows = [["pictures", "IoU with the outline", "pale pixels"]]
for name, images in pictures.items():
    iou[name] = mask_iou(mask_of(images), truth.mask)
    rows.append([name, f"{iou[name].mean():.2f}", f"{pale_share(images).mean():.0%}"])
table(rows)

# %% [markdown]
# Each picture gives one difference, so we can compute an interval (lesson 09). In the figure the
# outlines are drawn on top of the pictures, in magenta.

# %%
gain = paired(iou["the sibling, with ControlNet"] - iou["the sibling alone"])
lesson.verdict("IoU on the sibling, with the old ControlNet minus without:"
               f" {with_interval(gain, digits=2)} ({n} pictures, one sibling).")
lesson.save_figure(on_the_sibling(edges, pictures, truth.prompt), "_sibling")

# %% [markdown]
# Look at the sibling alone. The short fine-tuning has changed its style, and it has also damaged
# its shapes: some are only blobs of colour. Even so, the pictures follow the outlines much more
# closely with the old ControlNet, and they stay pale. One possible reason is that the sibling
# inherits the meaning of each channel from our base. We have not tested this reason.
#
# But would a ControlNet that was trained on the sibling itself be better? Our record has three
# siblings, which were trained for longer. It compares both kinds of ControlNet, after equally
# many training steps. Here the last column is the share of pictures in which both pale colours
# are the right ones.

# %%
sibling_record = load_results("claim_21_another_base")
# In this record A is our base, and A' is a sibling.
arms = {"no ControlNet": "A', no control", "the old ControlNet": "A', A's ControlNet",
        "its own ControlNet": "A', its own"}
rows = [["on the sibling", "IoU with the outline", "right pale colours"]]
for name, arm in arms.items():
    scores = sibling_record["numbers"][arm]
    rows.append([name, f"{fmean(scores['IoU']):.2f}", f"{fmean(scores['pale colours']):.0%}"])
table(rows)

# %% [markdown]
# The old ControlNet follows outlines nearly as well as the sibling's own, and as many pictures
# have the right pale colours. Claim 21 in [CLAIMS.md](CLAIMS.md) has the intervals.
#
# ## A stranger
#
# A stranger has the same layers, but it was trained from another random start. The random start
# decides what each channel comes to mean. So we would expect that channel 17 of one network has
# little to do with channel 17 of the other. The paper claims nothing for this case. Our record
# has one stranger. It was trained for 1,500 steps and our base for 10,000, so it is also a weaker
# model: without control, fewer than half of its shapes are right.
#
# A tool of the authors can move a ControlNet to another base. It adds the difference of the two
# bases to the copy:
#
#     moved copy = old copy + (encoder of the new base - encoder of the old base)
#
# So the copy keeps what it has learned, and gets the new base's encoder underneath. We compare
# three ControlNets on the stranger: the old one, the moved one, and its own. Its own was trained
# on the stranger itself, for a short time.

# %%
stranger_record = load_results("claim_21_stranger")
# In this record A is our base, and B is the stranger.
arms = {"the base, no ControlNet": "A, no control", "the base, its ControlNet": "A, as it is",
        "the stranger, no ControlNet": "B, no control",
        "the stranger, the old ControlNet": "B, as it is",
        "the stranger, the moved ControlNet": "B, difference added",
        "the stranger, its own ControlNet": "B, its own"}
rows = [["on", "IoU with the outline"]]
for name, arm in arms.items():
    rows.append([name, f"{fmean(stranger_record['numbers'][arm]['IoU']):.2f}"])
table(rows)

# %% [markdown]
# The stranger follows outlines best with its own ControlNet. With the old one it follows them
# less closely, but clearly better than with none. With the moved one hardly any of this gain is
# left.
# Here are the same results as differences with their intervals.

# %%
shown = load_pictures("claim_21_stranger", 192)
lesson.save_figure(on_the_stranger(shown, stranger_record["rows of pictures"]), "_stranger")
on_base = finding(stranger_record, "A: control minus none, IoU")
on_stranger = finding(stranger_record, "B: control minus none, IoU")
moved = finding(stranger_record, "B: difference added minus as it is, IoU")
lesson.verdict("IoU (48 pictures, one stranger):",
               f"On its own base, ControlNet minus none: {with_interval(on_base)}.",
               f"On the stranger, ControlNet minus none: {with_interval(on_stranger)}.",
               f"Claim: moving helps. On the stranger, moved minus old: {with_interval(moved)}.")

# %%
kept = on_stranger.mean / on_base.mean
answer = "b"
if not 0.2 < kept < 0.8:
    answer = "a" if kept >= 0.8 else "c"
lesson.reveal(guess, answer, f"on the stranger it gains {on_stranger.mean:.2f} of IoU, and on its own"
              f" base {on_base.mean:.2f}.",
              a="the places are the same, and still much of the effect is lost.",
              b="it is not about half.",
              c="a part of it is left, although we do not know why.")

# %% [markdown]
# Why is half of the effect lost? The other meanings of the channels are one possible reason. The
# weaker base is another: even the stranger's own ControlNet gains less there than the old one
# gains on our base. One stranger cannot separate the two.
#
# Moving the ControlNet does harm here. The tool is meant for siblings, whose weights differ
# only a little. The weights of two strangers are far apart, so their difference is not a small
# correction.
#
# ## An outline with a part missing
#
# Now we go back to our own base, and ask a different question. What does it draw if the outline
# is incomplete? We stand at the centre of each shape and erase everything within 60 % of a
# full turn. Without words the model has to guess what the remaining lines belong to, as in Fig.
# 11 of the paper. With words it can use the lines and the words. We try the right word and a
# wrong one, and a classifier names the shape that comes out. The last column counts the shape of
# the wrong word in every row, for comparison.

# %%
classifier = load_classifier().to(lesson.device)
rest = erase(edges, truth.scenes.centre, 0.6, seed=lesson.seed)
wrong = conflicting(truth.prompt)
prompts = {"no words": torch.zeros_like(truth.prompt), "the right word": truth.prompt,
           "a wrong word": wrong}
generated = {}
rows = [["60 % erased, and", "the outline's shape", "the wrong word's shape"]]
for name, prompt in prompts.items():
    images = sample(base, prompt, noise, [(control, rest)], steps=ddim_steps)
    of_outline = shapes_right(images, truth.prompt, classifier).float().mean()
    of_word = shapes_right(images, wrong, classifier).float().mean()
    rows.append([name, f"{of_outline:.0%}", f"{of_word:.0%}"])
    generated[name] = images
table(rows)

# %% [markdown]
# Do not trust the table too much, because it counts only a few pictures. A record has 48, and it
# also has the same test with whole outlines. We ask it two questions. Does the right word help to
# find the outline's shape? And does a wrong word win more often once a part is missing?

# %%
erased_record = load_results("words_on_erased_outlines")
own = finding(erased_record, "60% erased: its word minus no words")
other = finding(erased_record, "a wrong word's shape: 60% erased minus whole")
lesson.verdict("Shares of 48 pictures:",
               f"the outline's shape, the right word minus no words: {with_interval(own, 2)}.",
               f"the wrong word's shape, 60 % erased minus whole: {with_interval(other, 2)}.")
lesson.save_figure(too_little(rest, generated, truth.prompt, wrong))
print("\nEXERCISE  10a: python lessons/exercises")

# %% [markdown]
# So both answers are yes. With the shipped ControlNet, a wrong word hardly ever wins against a
# whole outline (lesson 06). If a part of the outline is missing, words begin to matter. An
# outline and a prompt are two sources of information, and each of them can decide what the other
# leaves open.
