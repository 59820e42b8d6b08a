# %% [markdown]
# # Lesson 04: Why not just shrink the edge map?
#
# An edge map has 64x64 pixels. The UNet works on a much smaller grid of 16x16 patches (in
# Stable Diffusion: 512x512 pixels and a grid of 64x64). So the edge map has to become smaller
# before it can enter the copy. The paper trains a small convolutional network to do this, the
# *condition encoder* E (Sec. 3.2, Eq. 4):
#
#     features = E(condition)
#
# But one can shrink a picture without any network. What would we lose? In this lesson you
#
# 1. shrink edge maps in three simple ways, and count how many different patches are left,
# 2. train small networks to recover the outline from each version,
# 3. see what the choice means for a whole ControlNet.
#
# It takes half a minute. Then do exercise 04a, and read `ConditionEncoder` in
# minicontrolnet/controlnet.py.

# %%
import os
import sys
from statistics import fmean

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
from lesson import Lesson, finding, load_pictures, load_results, table, two_digits, with_interval
from lesson.figures_04 import followed, recovered
from lesson.networks import encoder

import torch
import torch.nn.functional as F
from torch import nn

from minicontrolnet import detect_edges, held_out, random_batch, seeded

lesson = Lesson("04_condition_encoder", steps=150, quick_steps=2)

# %% [markdown]
# Before you read on, make a guess.

# %%
guess = lesson.predict("From which 16x16 map can a network recover the outline best?",
                       a="from the average of each 4x4 patch",
                       b="from every fourth pixel of every fourth row",
                       c="from the features of a small convolutional network that was"
                         " trained for it")

# %% [markdown]
# ## Three ways to shrink
#
# All three ways divide the edge map into patches of 4x4 pixels.
#
# - *stacked* keeps all 16 pixels of a patch, as channels of a smaller map. So it loses nothing.
# - *average* keeps the mean of each patch.
# - *every fourth* keeps only the top left pixel of each patch.
#
# How many different patches are left in 64 edge maps?

# %%
edges = detect_edges(held_out(64)[0].image)      # (64, 1, 64, 64), 0 or 1
maps = {"stacked": F.pixel_unshuffle(edges, 4),  # (64, 16, 16, 16)
        "average": F.avg_pool2d(edges, 4),       # (64, 1, 16, 16)
        "every fourth": edges[:, :, ::4, ::4]}   # (64, 1, 16, 16)
for how, small in maps.items():
    patches = small.movedim(1, 3).flatten(0, 2)  # one row for each patch of each edge map
    print(f"{how}: {len(patches.unique(dim=0))} different patches")

# %% [markdown]
# An average shows how many pixels of the line are in a patch, but not where they are. Every
# fourth pixel is either black or white, so only two different patches are left. Most of a thin
# line lies between these pixels, so they show very little of it.
#
# ## What can be recovered?
#
# We train a network for each way of shrinking. It has two parts, which are trained together.
# The *encoder* turns the edge map into 32 channels on the 16x16 grid. The *decoder*, two
# convolutions, recovers the edge map from these channels.
#
# Each of the three simple ways is the beginning of an encoder, and two 1x1 convolutions follow.
# They do not look at neighbouring places. The fourth encoder, *learned*, is the condition
# encoder of our ControlNet.

# %%
def encoder_and_decoder(how: str) -> nn.Module:
    return nn.Sequential(
        encoder(how, 32),                            # (b, 32, 16, 16)
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),  # (b, 32, 16, 16)
        nn.Conv2d(32, 16, 3, padding=1),             # (b, 16, 16, 16)
        nn.PixelShuffle(4),                          # (b, 1, 64, 64)
    )


# %% [markdown]
# The network decides for each pixel whether it belongs to the line, so the loss is a binary
# cross-entropy. Few pixels belong to the line, so these count five times.

# %%
def train(network: nn.Module) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(lesson.seed)
    edge_weight = torch.tensor(5.0)
    for _ in range(lesson.steps):
        line = detect_edges(random_batch(16, generator).image)
        loss = F.binary_cross_entropy_with_logits(network(line), line, pos_weight=edge_weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


# %% [markdown]
# We measure the result by the *F1 score*. It combines two shares: how many of the recovered
# pixels are correct, and how many of the true pixels were found. 1 is perfect. Here a pixel is
# correct only if it is in exactly the right place.

# %%
recovered_maps = {}
scores = {}
rows = [["recovered from", "F1"]]
for how in ("learned", "stacked", "average", "every fourth"):
    network = seeded(lesson.seed, encoder_and_decoder, how)
    train(network)
    with torch.no_grad():
        found = (network(edges) > 0).float()  # above 0: more likely a line than not
    recovered_maps[how] = found
    scores[how] = (2 * (found * edges).sum() / (found.sum() + edges.sum())).item()
    rows.append([how, f"{scores[how]:.2f}"])
    if how == "learned":
        maps["learned"] = network[0](edges).detach()  # (64, 32, 16, 16)
table(rows)
lesson.save_figure(recovered(edges, maps, recovered_maps, scores), "_recovered")

# %% [markdown]
# 04_condition_encoder_recovered.png shows one of the edge maps. (The stacked map holds all of
# its pixels, so we show it as the edge map.)
#
# Look at the orange and the blue pixels in the lower row. The network marked the orange ones
# wrongly, and it missed the blue ones. In the loss, a missed pixel costs five times as much as
# a wrong one. So the network marks every pixel that is fairly likely to lie on a line, and the
# lines become too thick. With *every fourth* it often cannot tell that there is a line at all.
# These pixels are missed.
#
# Your guess was about three of the four ways. Which of these three has the highest score?

# %%
letters = {"average": "a", "every fourth": "b", "learned": "c"}
best = max(letters, key=scores.get)
lesson.reveal(guess, letters[best], f'"{best}" has the highest F1 score of the three, {scores[best]:.2f}.',
              a="an average shows that a line crosses a patch, but not where.",
              b="most of a thin line lies between the pixels that are kept.",
              c="it must first learn what to keep, and it had too few steps for that.")

# %% [markdown]
# With seed 0 the learned encoder does best. The stacked map, which loses nothing, is close to
# it. Neither is perfect after 150 steps. Now try `--steps 1000`. With seeds 0, 1 and 2, both
# then have a score above 0.9, and the *stacked* map is ahead of the learned one. The other two
# ways stay below 0.7, although these networks were trained for 1,000 steps, too.
#
# ## The encoder in the paper and in its code
#
# The paper's text describes four convolutions of 4x4 with stride 2 and ReLU. They would shrink
# 512 pixels to 32, although the text says 64. The released code has eight convolutions of 3x3,
# three of them with stride 2, which gives 64. The last of the eight starts at zero, like a zero
# convolution, but it is 3x3. Our encoder has two of the paper's convolutions, which shrink 64
# pixels to 16. A zero convolution follows.
#
# ## What does it mean for a ControlNet?
#
# A record in lessons/results has the answer. With each encoder we trained three ControlNets for
# 180 steps, from three seeds. A fifth encoder tests whether the position of a line matters.
# *Shifted* is the learned encoder, but each edge map is first moved at random by up to one
# patch. It is moved anew at every step of training and of sampling. So this encoder hardly ever
# sees a line in its right place.
#
# The edge F1 of a generated picture compares its edges with the outline. It is more lenient
# than the F1 above: an edge pixel counts as correct if the outline is at most one pixel away.

# %%
record = load_results("claim_06_condition_encoder")
encoders = record["numbers"]
rows = [["encoder", "edge F1: seed 0", "seed 1", "seed 2", "mean"]]
for how, scores_of_seeds in encoders.items():
    f1 = scores_of_seeds["F1"]
    rows.append([how, *two_digits(f1), f"{fmean(f1):.2f}"])
table(rows)
lesson.save_figure(followed(load_pictures("claim_06_condition_encoder", 256), encoders))

# %% [markdown]
# 04_condition_encoder.png shows pictures of all five, from one seed, with the outlines in
# magenta. The F1 below them is the mean of three seeds. Compare the first two columns with the
# other three.
#
# Here, too, *average* and *every fourth* have lower scores than *learned* and *stacked*. Their
# ControlNets begin to follow outlines later. With seed 1, neither of the two has begun after
# 180 steps. (We see this in the record by the shuffle gap, which lesson 05 explains.)
#
# Is the learned encoder really better than the others, or could it be luck? We take the
# difference for each seed, and compute a 95 % interval from these differences.

# %%
seeds = len(encoders["learned"]["F1"])
sentences = []
for how in ("stacked", "average", "every fourth", "shifted"):
    gain = finding(record, f"learned minus {how}, F1")
    sentences.append(f"{how}: {with_interval(gain)}")
lesson.verdict(f"Edge F1 of the learned encoder minus that of another one ({seeds} seeds, 95 % intervals):",
               *sentences)
print("\nEXERCISE  04a: python lessons/exercises")

# %% [markdown]
# *Shown* means that the whole interval is above 0, and *undecided* that it contains 0. So after
# 180 steps the learned encoder is ahead of the three that lose the position of the line. For
# *average* it is only just shown, because its interval begins just above 0. All of this shows
# how soon a ControlNet follows, and not how well it follows in the end.
#
# Three seeds cannot decide whether the learned encoder is better than stacking. So we have no
# evidence that the map must be learned. But the two best encoders have one thing in common:
# both keep the position of the line.
