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
# Shrinking a picture needs no network at all. What would we lose? In this lesson you
#
# 1. shrink edge maps in three simple ways and count how many different patches are left,
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
# different kinds of patches are left in 64 edge maps?

# %%
edges = detect_edges(held_out(64)[0].image)      # (64, 1, 64, 64), 0 or 1
maps = {"stacked": F.pixel_unshuffle(edges, 4),  # (64, 16, 16, 16)
        "average": F.avg_pool2d(edges, 4),       # (64, 1, 16, 16)
        "every fourth": edges[:, :, ::4, ::4]}   # (64, 1, 16, 16)
for name, small in maps.items():
    patches = small.movedim(1, 3).flatten(0, 2)  # one row for each patch of each edge map
    print(f"{name}: {len(patches.unique(dim=0))} different patches")

# %% [markdown]
# An average shows how many pixels of the line are in a patch, but not where they are. Every
# fourth pixel shows very little, because most of a thin line lies between these pixels.
#
# ## What can be recovered?
#
# We put a small network of two convolutions after each map and train it to recover the edge
# map. The three simple ways have nothing to learn themselves, except for one 1x1 convolution
# that gives all of them 32 channels. The fourth candidate is the condition encoder of our
# ControlNet.

# %%
def recover(how: str) -> Tensor:
    """Train an encoder and a decoder. Returns the recovered edge maps of the held-out pictures."""
    network = nn.Sequential(
        encoder(how, 32),                            # (b, 32, 16, 16)
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),  # (b, 32, 16, 16)
        nn.Conv2d(32, 16, 3, padding=1),             # (b, 16, 16, 16)
        nn.PixelShuffle(4),                          # (b, 1, 64, 64)
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(lesson.seed)
    edge_weight = torch.tensor(5.0)  # few pixels are edges, so these count five times
    for _ in range(lesson.steps):
        line = detect_edges(random_batch(16, generator).image)
        loss = F.binary_cross_entropy_with_logits(network(line), line, pos_weight=edge_weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return (network(edges) > 0).float()


# %% [markdown]
# We measure the result with the *F1 score*. It combines how many of the recovered pixels are
# correct and how many of the true pixels were found. 1 is perfect. A pixel counts only if it
# is in exactly the right place.

# %%
recovered_maps = {}
scores = {}
rows = [["recovered from", "F1"]]
for how in ("learned", "stacked", "average", "every fourth"):
    found = seeded(lesson.seed, recover, how)
    recovered_maps[how] = found
    scores[how] = (2 * (found * edges).sum() / (found.sum() + edges.sum())).item()
    rows.append([how, f"{scores[how]:.2f}"])
table(rows)

# %%
letters = {"average": "a", "every fourth": "b", "learned": "c"}
best = max(letters, key=scores.get)
lesson.reveal(guess, letters[best], f"the F1 score of the {best} map is {scores[best]:.2f}.",
              a="an average says that a line crosses a patch, but not where.",
              b="most of a thin line lies between the pixels that are kept.",
              c="it must first learn what to keep, and it had too few steps for that.")
lesson.save_figure(recovered(edges, maps, recovered_maps, scores), "_recovered")

# %% [markdown]
# The learned encoder does well, and so does the stacked map, which loses nothing.
#
# ## The encoder in the paper and in its code
#
# The text describes four convolutions of 4x4 with stride 2 and ReLU. They would shrink 512
# pixels to 32, although the text says 64. The released code has eight convolutions of 3x3,
# three of them with stride 2; the last one is a zero convolution. That gives 64. Ours has two
# of the paper's convolutions, from 64 to 16, and then a zero convolution.
#
# ## What does it mean for a ControlNet?
#
# A record in lessons/results has the answer. For each encoder we trained a ControlNet with
# three random seeds, for a short time. The candidate *shifted* is there for comparison: its
# edge maps are moved by up to one patch at random, so they have the right lines in the wrong
# places.

# %%
record = load_results("claim_06_condition_encoder")
arms = record["numbers"]
rows = [["encoder", "edge F1 of the pictures", "mask IoU"]]
for how, arm in arms.items():
    rows.append([how, f"{torch.tensor(arm['F1']).mean():.2f}", f"{torch.tensor(arm['IoU']).mean():.2f}"])
table(rows)

# %% [markdown]
# (For generated pictures, an edge pixel counts if it is at most one pixel away.) Here, too,
# averaging and dropping pixels lose the outline. They do no better than the shifted maps. Is
# the learned encoder really better than the others, or could it be luck? We take the
# differences for each random seed, and compute a 95 % interval from them.

# %%
seeds = len(arms["learned"]["F1"])
sentences = []
for how in ("stacked", "average", "every fourth", "shifted"):
    gain = finding(record, f"learned minus {how}, F1")
    sentences.append(f"The F1 of the learned encoder minus that of {how}: {gain.mean:+.2f}"
                     f" ({gain.low:+.2f} to {gain.high:+.2f}), {gain.verdict}.")
lesson.verdict(f"After 180 steps, with {seeds} seeds and 95 % intervals:", *sentences)
lesson.save_figure(followed(load_pictures("claim_06_condition_encoder", 256), arms))
print("\nEXERCISE  04a: python lessons/exercises")

# %% [markdown]
# "Shown" means that the whole interval is above 0, and "undecided" that it contains 0. So
# the learned encoder beats everything that loses the position of the line. Three seeds cannot
# decide whether it is better than stacking, which loses nothing. The conclusion is not that
# the map must be learned, but that it must keep *where* the line is.
