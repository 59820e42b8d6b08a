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

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
import torch
import torch.nn.functional as F
from lesson import Lesson, finding, load_pictures, load_results, table
from lesson.figures_04 import followed, recovered
from lesson.networks import encoder
from torch import Tensor, nn

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
# *Average* takes the mean of each patch of 4x4 pixels. *Every fourth* keeps one of its 16
# pixels. *Stacked* keeps all 16 as channels of a smaller map, so it loses nothing. How many
# different patches are left in 64 edge maps?

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
# fourth pixel is either black or white, so only two patches are left. It shows very little,
# because most of a thin line lies between these pixels.
#
# ## What can be recovered?
#
# Behind each map we put the same small decoder of two convolutions, which recovers the edge map.
# It is trained together with the layers that turn the map into 32 channels. For the three simple
# ways these are 1x1 convolutions, which do not look at neighbouring places. The fourth candidate,
# *learned*, is the condition encoder of our ControlNet, which also returns 32 channels.

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
# cross-entropy.

# %%
def recover(network: nn.Module) -> Tensor:
    """Train a network, and return the edge maps that it recovers for the held-out pictures."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(lesson.seed)
    edge_weight = torch.tensor(5.0)  # few pixels belong to the line, so these count five times
    for _ in range(lesson.steps):
        line = detect_edges(random_batch(16, generator).image)
        loss = F.binary_cross_entropy_with_logits(network(line), line, pos_weight=edge_weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return (network(edges) > 0).float()


# %% [markdown]
# We measure the result by the *F1 score*. It combines two shares: how many of the recovered
# pixels are correct, and how many of the true pixels were found. 1 is perfect. A pixel counts
# only if it is in exactly the right place.

# %%
recovered_maps = {}
scores = {}
rows = [["recovered from", "F1"]]
for how in ("learned", "stacked", "average", "every fourth"):
    found = recover(seeded(lesson.seed, encoder_and_decoder, how))
    recovered_maps[how] = found
    scores[how] = (2 * (found * edges).sum() / (found.sum() + edges.sum())).item()
    rows.append([how, f"{scores[how]:.2f}"])
table(rows)
lesson.save_figure(recovered(edges, maps, recovered_maps, scores), "_recovered")

# %% [markdown]
# 04_condition_encoder_recovered.png shows one of the edge maps. Which of your three choices
# has the highest score?

# %%
letters = {"average": "a", "every fourth": "b", "learned": "c"}
best = max(letters, key=scores.get)
lesson.reveal(guess, letters[best], f"the map called {best} has an F1 score of {scores[best]:.2f}.",
              a="an average says that a line crosses a patch, but not where.",
              b="most of a thin line lies between the pixels that are kept.",
              c="it must first learn what to keep, and it had too few steps for that.")

# %% [markdown]
# With seed 0 the learned encoder does best, and the stacked map, which loses nothing, is close to
# it. Neither is perfect after 150 steps. Try `--steps 1000`: then both come close to 1, and the
# other two do not.
#
# ## The encoder in the paper and in its code
#
# The paper's text describes four convolutions of 4x4 with stride 2 and ReLU. They would shrink
# 512 pixels to 32, although the text says 64. The released code has eight convolutions of
# 3x3, three of them with stride 2, which gives 64. The last of the eight is a zero
# convolution. Ours has two of the paper's convolutions, from 64 to 16, and then a zero
# convolution.
#
# ## What does it mean for a ControlNet?
#
# A record in lessons/results has the answer. With each encoder we trained three ControlNets
# for 180 steps. The encoder *shifted* is there for comparison. It is the learned one, but its
# edge maps are moved by up to one patch at random: they have the right lines in the wrong
# places.

# %%
record = load_results("claim_06_condition_encoder")
encoders = record["numbers"]
rows = [["encoder", "edge F1 of the pictures", "mask IoU"]]
for how, scores_of_seeds in encoders.items():
    f1 = torch.tensor(scores_of_seeds["F1"]).mean()
    iou = torch.tensor(scores_of_seeds["IoU"]).mean()
    rows.append([how, f"{f1:.2f}", f"{iou:.2f}"])
table(rows)
lesson.save_figure(followed(load_pictures("claim_06_condition_encoder", 256), encoders))

# %% [markdown]
# (In generated pictures, an edge pixel counts if it is at most one pixel away.) Here, too,
# averaging and dropping pixels are behind: after 180 steps they do no better than the shifted
# maps. They begin to follow later, and one of these trainings has not begun at all by then.
# 04_condition_encoder.png shows pictures of all five.
#
# Is the learned encoder really better than the others, or could it be luck? We take the
# difference for each random seed, and compute a 95 % interval from these differences.

# %%
seeds = len(encoders["learned"]["F1"])
sentences = []
for how in ("stacked", "average", "every fourth", "shifted"):
    gain = finding(record, f"learned minus {how}, F1")
    sentences.append(f"{how}: {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}), {gain.verdict}")
lesson.verdict(f"Edge F1 of the learned encoder minus that of another one ({seeds} seeds, 95 % intervals):",
               *sentences)
print("\nEXERCISE  04a: python lessons/exercises")

# %% [markdown]
# "Shown" means that the whole interval is above 0, and "undecided" that it contains 0. So
# after 180 steps the learned encoder is ahead of everything that loses the position of the
# line. (This says how soon a ControlNet follows, and not how well it follows in the end.)
# Three seeds cannot decide whether it is better than stacking, which loses nothing.
#
# So nothing here says that the map must be learned. The two best ways have one
# thing in common: they can keep *where* the line is.
