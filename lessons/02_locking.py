# %% [markdown]
# # Lesson 02: What is locked, what is copied, what does training the base destroy?
# Sec. 1, 3.1: why to lock. Sec. 3.2, Fig. 3: 13 connections, and what a step costs.
# After its exercises read `lock` and `ControlNet` in minicontrolnet/controlnet.py.

# %%
import copy
import os
import sys
from itertools import islice

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # this folder, also under python -P
import torch
from lesson import Lesson, table
from lesson.diagram import architecture
from lesson.figures_02 import forgetting
from lesson.networks import ConditionedUNet
from tqdm import tqdm

from minicontrolnet import (Control, ControlNet, Training, base_loss, colours_right,
                            condition_loss, control_loss, ddim, detect_edges, fingerprint,
                            load_base, load_classifier, mask_iou, mask_of, paired,
                            random_batch, sample, seeded, shapes_right, to_image)
from minicontrolnet.measure import cost

lesson = Lesson("02_locking", steps=200, quick_steps=2)
base = load_base(device=lesson.device)
control = seeded(lesson.seed, ControlNet, base)
mark = fingerprint(base.state_dict())

# %% [markdown]
# ## The 13 connections (Fig. 3)
# A UNet's encoder shrinks the grid, 16, 8, 4, 2 wide; the middle works on the smallest;
# the decoder grows it back, and gets the encoder's maps of each size, the skips. The
# copy is `copy.deepcopy` of the base's encoder with its middle. Its 13 outputs go
# through zero convs and are *added* to the base's 12 skips and middle. The decoder then
# *concatenates* each sum, as it always did with its skips: its weights fit as they are.

# %%
lesson.save_figure(architecture(base, control), "_architecture")
assert control.encoder.channels == base.encoder.channels  # of 13 maps
assert base.decoder.levels[0][0].conv1.in_channels == sum(base.encoder.channels[-2:])

# %% [markdown]
# ## Locked is not detached, and what a lock saves
# The gradient must pass *through* the locked decoder to reach the copy. Cut the graph
# there, and nothing learns: `backward()` is an error, unless a weight elsewhere is
# trainable. A true lock computes no gradient of a locked weight, and keeps no graph of
# the base's encoder; the released code computes the decoder's and throws them away. The
# paper measured 1.34 in time; here it is less: the larger half, the decoder, is locked.

# %%
def cut(xt, t, prompt, condition):
    controls = [c.detach() for c in control(xt, t, prompt, condition)]
    return base(xt, t, prompt, controls)


assert not condition_loss(cut, base, "edge", torch.Generator()).requires_grad

# %%
unlocked = copy.deepcopy(base).requires_grad_(True)
released = copy.deepcopy(base)
released.decoder.requires_grad_(True)
fresh = copy.deepcopy(control)
arms = {"the base itself": (unlocked, base_loss),
        "ControlNet, locked": (fresh, control_loss(base, "edge"), base),
        "the released code's way": (fresh, control_loss(released, "edge"), released),
        "nothing locked": (fresh, control_loss(unlocked, "edge"), unlocked)}
costs = cost.relative_costs(arms, rounds=1 if lesson.quick else 7)
rows = [["a training step of", "arithmetic", "time", "memory"]]
for name, row in costs.items():
    rows.append([name, *(f"{x:.2f}" for x in row)])
table(rows)
size = [sum(p.numel() for p in net.parameters()) / 1e6 for net in (base, control)]
print(f"   weights: base {size[0]:.2f} M; each condition adds {size[1]:.2f} M")
guess = lesson.predict("The base itself is trained on 100 pictures with outlines, in four of"
                       " the eight colours. Then it is asked for others. It draws",
                       a="those: it knew them before", b="the four of the 100 pictures")

# %% [markdown]
# ## Train the base, or a copy of it (Sec. 3.1)
# Both get the same 100 circles and squares, noise, steps (the first third of a plan, so
# the bar ends there) and rate. The base itself takes the condition after its first
# conv. Then other colours and shapes are asked for: what is kept, and are outlines
# followed (mask IoU)? Without its copy the base draws as before.

# %%
generator = torch.Generator().manual_seed(lesson.seed)
n = 8 if lesson.quick else 32
ddim_steps = 3 if lesson.quick else 12
noise = torch.randn(n, 3, 64, 64, generator=generator).to(lesson.device)
world = random_batch(1000, generator)
s = world.scenes
seen = (s.colour < 4) & (s.background < 4) & (s.shape < 2)
unseen = (s.colour > 3) & (s.background > 3) & (s.shape > 1)
few = world.map(lambda x: x[seen][:100])
new = world.map(lambda x: x[unseen][:n].to(lesson.device))
prompt = new.prompt
edges = detect_edges(new.image)


def next_batch(generator):
    pick = torch.randint(100, (16,), generator=generator)
    return few.map(lambda x: x[pick])


# %%
def own_loss(network, generator):
    return condition_loss(network, network, "edge", generator, next_batch=next_batch)


def train(network, loss, name):
    training = Training(network, loss, steps=3 * lesson.steps, lr=2e-3, seed=lesson.seed)
    for step, loss in tqdm(islice(training, lesson.steps), name, lesson.steps):
        pass
    return training.averaged


itself = seeded(lesson.seed, ConditionedUNet, base).to(lesson.device)
itself = train(itself, own_loss, "the base itself")
control = train(control, control_loss(base, "edge", next_batch=next_batch), "a copy")
assert fingerprint(base.state_dict()) == mark  # byte for byte: that is what a lock buys

# %%
def model(xt, t):
    return itself(xt, t, prompt, edges)


drawn = {"before": sample(base, prompt, noise, (), 1, ddim_steps),
         "trained itself": to_image(ddim(model, noise, ddim_steps)),
         "locked + copy": sample(base, prompt, noise, [Control(control, edges)], 1, ddim_steps)}
change = (sample(base, prompt, noise, (), 1, ddim_steps) - drawn["before"]).abs()
assert not change.any()

# %%
classifier = load_classifier().to(lesson.device)
scores = {}
for name, images in drawn.items():
    scores[name] = {"right colours": colours_right(images, prompt).float(),
                    "right shape": shapes_right(images, prompt, classifier).float(),
                    "IoU with the outline": mask_iou(mask_of(images), new.mask)}
share = {name: {score: x.mean().item() for score, x in own.items()}
         for name, own in scores.items()}
rows = [[f"asked for what is new, n = {n}", *share["before"]]]
for name, own in share.items():
    rows.append([name, *(f"{x:.2f}" for x in own.values())])
table(rows)

# %%
copied = scores["locked + copy"]
kept = paired(copied["right colours"] - scores["trained itself"]["right colours"])
more = paired(copied["IoU with the outline"] - scores["before"]["IoU with the outline"])
iou = {name: own["IoU with the outline"] for name, own in share.items()}
lesson.reveal(guess, "b" if kept.low > 0 else "a", "see the table, right colours.",
              a="nothing in its training asked it to keep what it knew.",
              b="so few steps made it forget but little.")
lesson.verdict(f"IoU: trained itself {iou['trained itself']:.2f}, and its colours are"
               f" lost; locked + copy {iou['locked + copy']:.2f}.",
               f"{kept.verdict}: locked, more pictures have the prompt's colours than trained"
               f" itself, {kept}, n = {n}, one seed; the locked base changed by exactly 0.",
               f"{more.verdict}: it follows outlines of shapes that it never saw, IoU {more}.")
lesson.save_results({"costs": costs, "asked for what is new": share, "M weights": size})
lesson.save_figure(forgetting(edges, drawn, change, prompt, share, n))
print("\nEXERCISES  02a, 02b: python lessons/exercises")
