# %% [markdown]
# # Lesson 04: Why not just shrink the edge map to the UNet's grid?
# Sec. 3.2, Eq. 4. Stable Diffusion draws on a grid of 64x64, a condition has 512x512
# pixels: a small conv net E, trained with the copy, maps one to the other. Here 64x64
# pixels meet a 16x16 grid. Read `ConditionEncoder` in minicontrolnet/controlnet.py.

# %%
import os
import sys
from statistics import fmean

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # this folder, also under python -P
import torch
import torch.nn.functional as F
from lesson import Lesson, load_pictures, load_results, table
from lesson.curves import onset
from lesson.figures_04 import read_back_and_followed
from lesson.networks import encoder
from torch import Tensor, nn

from minicontrolnet import detect_edges, difference, held_out, random_batch, seeded

lesson = Lesson("04_condition_encoder", steps=150, quick_steps=2)
guess = lesson.predict("From which 16x16 map can a small net best read the outline back?",
                       a="the average of each 4x4 patch",
                       b="every fourth pixel of every fourth row",
                       c="32 channels of a learned conv net, the paper's way")

# %% [markdown]
# ## What can be read back?
# Three ways to shrink learn nothing: how many kinds of 4x4 patches do they tell apart?
# "Stacked" keeps the 16 pixels as channels. Then each encoder, with its zero conv, is
# followed by two convs that guess the outline; all learn together. What an encoder
# lost, nobody finds again. A pixel counts only at its exact place: F1, 1 is perfect.

# %%
edges = detect_edges(held_out(64)[0].image)      # (64, 1, 64, 64), 0 or 1
maps = {"stacked": F.pixel_unshuffle(edges, 4),  # (64, 16, 16, 16)
        "average": F.avg_pool2d(edges, 4),       # (64, 1, 16, 16)
        "every fourth": edges[:, :, ::4, ::4]}   # (64, 1, 16, 16)
for name, small in maps.items():
    patches = small.movedim(1, 3).flatten(0, 2)  # a row for each patch of each picture
    print(f"   {name}: {len(patches.unique(dim=0))} kinds of patches")


def read_back(how: str) -> Tensor:
    """Train an encoder and a reader; what they make of the held-out outlines."""
    network = nn.Sequential(
        encoder(how, 32), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),  # (b, 32, 16, 16)
        nn.Conv2d(32, 16, 3, padding=1), nn.PixelShuffle(4))           # (b, 1, 64, 64)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(lesson.seed)
    rare = torch.tensor(5.0)  # few pixels are edges, so these count more
    for _ in range(lesson.steps):
        line = detect_edges(random_batch(16, generator).image)
        loss = F.binary_cross_entropy_with_logits(network(line), line, pos_weight=rare)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return (network(edges) > 0).float()


# %%
read = {}
exact = {}
for how in ("learned", *maps):
    read[how] = seeded(lesson.seed, read_back, how)
    right = (read[how] * edges).sum().item()
    exact[how] = 2 * right / (read[how].sum() + edges.sum()).item()
table([["encoder", "exact F1"], *([how, f"{f1:.3f}"] for how, f1 in exact.items())])
letters = {"average": "a", "every fourth": "b", "learned": "c"}
lesson.reveal(guess, letters[max(letters, key=exact.get)],
              f"see the table: exact F1 after {lesson.steps} steps, one seed.",
              a="an average tells that a line goes through a patch, not where.",
              b="most of a thin line slips through between the pixels.",
              c="it has to learn first what to keep, and had too few steps.")

# %% [markdown]
# ## The paper's encoder is not that of its released code
# Text: four 4x4 convs of stride 2, ReLU: 512 pixels become 32, though it names 64.
# Code: eight 3x3 convs, three of stride 2, SiLU, the last one zero: 512 become 64.
# Ours: two of the text's convs, 64 to 16, then a zero conv.

# %% [markdown]
# ## Does it matter to a ControlNet?
# lessons/experiments/04_condition_encoder.py trained one with each encoder and several
# seeds. "Shifted": each outline is moved by up to one patch before the encoder sees it.

# %%
record = load_results("04_condition_encoder")
arms = record["numbers"]
learned = arms["learned"]
rows = [["encoder", "edge F1", "mask IoU", "follows from step, of each seed"]]
for how, arm in arms.items():
    steps = ", ".join(onset(arm["gap"], learned["loss"]["0"]))
    rows.append([how, f"{fmean(arm['F1']):.3f}", f"{fmean(arm['IoU']):.3f}", steps])
table(rows)
sentences = []
for how in list(arms)[1:]:
    more = difference(learned["F1"], arms[how]["F1"])
    sentences.append(f"than {how}: {more.verdict}, edge F1 {more}")
lesson.verdict(f"The learned one follows better ({record['steps']} steps, {len(learned['F1'])} seeds)",
               *sentences)
lesson.save_figure(read_back_and_followed(edges, maps, read, exact, load_pictures(lesson.name, 256),
                                          arms, record["steps"]))
print("\nEXERCISES  04a: python lessons/exercises")
