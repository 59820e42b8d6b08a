# %% [markdown]
# # Lesson 02: What does fine-tuning destroy?
#
# We have a model that generates pictures from prompts, and we want it to follow outlines as
# well. The obvious way is *fine-tuning*: give the model the outline as an additional input, and
# train all of its weights a little further. The paper warns against it (Sec. 1). For many
# conditions there is little data, so the model sees the same pictures again and again, and may
# forget what it knew. ControlNet *locks* the model instead: its weights are never changed
# again. Only a copy of its encoder and a few small new layers are trained (Sec. 3.1 and 3.2).
# In this lesson you
#
# 1. fine-tune the base on 100 pictures in four of its eight colours,
# 2. lock the base and train a copy of its encoder on the same 100 pictures,
# 3. compare what the two still know about the other four colours.
#
# It takes about a minute. Then do exercises 02a and 02b, and read `lock` and `ControlNet` in
# minicontrolnet/controlnet.py.

# %%
import copy
import os
import sys

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
from lesson import Lesson, finding, load_results, table, two_digits
from lesson.diagram import architecture
from lesson.figures_02 import forgetting, paths
from lesson.networks import ConditionedUNet

import torch
from tqdm import tqdm

from minicontrolnet import (ControlNet, Training, base_loss, colours_right, condition_loss,
                            control_loss, ddim, detect_edges, difference, fingerprint, load_base, mask_iou,
                            mask_of, paired, predictor, random_batch, seeded, to_image)
from minicontrolnet.measure.cost import relative_costs

lesson = Lesson("02_locking", steps=200, quick_steps=2)

# %% [markdown]
# Before you read on, make a guess.

# %%
guess = lesson.predict("We fine-tune the base on 100 pictures that show only four of the eight"
                       " colours it knows. Then we ask it for the other four. What will it"
                       " generate?",
                       a="the colours we ask for, since it knew them before",
                       b="more and more often the four colours of the 100 pictures")

# %% [markdown]
# ## The base and the data
#
# `load_base` returns the base in the locked state. We note its fingerprint, so that we can
# check later whether anything has changed it.

# %%
base = load_base(device=lesson.device)
mark = fingerprint(base.state_dict())

# %% [markdown]
# We paint 1000 pictures of the toy world and keep 100 of them for training. All of these show a
# circle or a square in the first four colours: white, orange, cyan and green. For the test we
# keep pictures that share no shape and no colour with them: triangles and stars in yellow,
# blue, red and purple.

# %%
generator = torch.Generator().manual_seed(lesson.seed)
world = random_batch(1000, generator)
scenes = world.scenes
is_known = (scenes.colour < 4) & (scenes.background < 4) & (scenes.shape < 2)
is_new = (scenes.colour > 3) & (scenes.background > 3) & (scenes.shape > 1)

n = 8 if lesson.quick else 24
few = world.map(lambda tensor: tensor[is_known][:100])
new = world.map(lambda tensor: tensor[is_new][:n].to(lesson.device))
edges = detect_edges(new.image)
noise = torch.randn(n, 3, 64, 64, generator=generator).to(lesson.device)

# %% [markdown]
# A training step takes 16 of the 100 pictures at random.

# %%
def next_batch(generator):
    pick = torch.randint(100, (16,), generator=generator)
    return few.map(lambda tensor: tensor[pick])


# %% [markdown]
# ## The first way: fine-tune the base
#
# `ConditionedUNet` is a copy of the whole base with one addition: a small network turns the
# outline into features, which are added after the first convolution. Nothing in it is locked.
# With a smaller learning rate it might forget less. So we make two such networks, one for each
# rate.

# %%
fine_tuned = seeded(lesson.seed, ConditionedUNet, base).to(lesson.device)
slowly = seeded(lesson.seed, ConditionedUNet, base).to(lesson.device)


def fine_tuning_loss(network, generator):
    # The first argument predicts the noise. The second is the UNet inside it: the loss depends on
    # what this UNet outputs (lesson 01). A fine-tuned network is itself this UNet.
    return condition_loss(network, network, "edge", generator, next_batch=next_batch)


# %% [markdown]
# ## The second way: lock it, and train a copy
#
# Our base is a *UNet*, a network with two halves. It cuts the picture into *patches* of 4x4
# pixels, which gives a grid of 16x16 places. The *encoder* shrinks this grid to 2x2 in several
# blocks, and the *decoder* enlarges it again. The encoder has 13 outputs. Twelve of them are
# *skip connections*, which go directly to the decoder's block of the same size. The last one
# comes from the *middle block*, on the smallest grid.
#
# ControlNet copies the encoder (`copy.deepcopy`) and gives the outline to the copy. The copy
# has the same 13 outputs, and these are *added* to the 13 of the base. They pass through *zero
# convolutions* first, which output 0 at the start of training (lesson 03). The base itself
# stays as it is.

# %%
control = seeded(lesson.seed, ControlNet, base)
copied_loss = control_loss(base, "edge", next_batch=next_batch)
assert control.encoder.channels == base.encoder.channels
lesson.save_figure(architecture(base, control), "_architecture")

# %% [markdown]
# 02_locking_architecture.png shows both networks. Everything grey is locked.
#
# ## Train them, and test them on the way
#
# The test asks for the new shapes and colours, with their outlines. It measures how well the
# outline is followed (IoU, 1 is perfect), and in how many pictures both colours are right. A
# colour is right if it is nearer to the colour of the prompt than to the other seven. So it may
# have shifted a little and still count.

# %%
def test(model):
    images = to_image(ddim(model, noise, 2 if lesson.quick else 10))
    iou = mask_iou(mask_of(images), new.mask)
    right = colours_right(images, new.prompt).float()
    return {"images": images, "IoU": iou, "right colours": right}


def test_fine_tuned(network):
    return test(lambda xt, t: network(xt, t, new.prompt, edges))


def test_control(network):
    return test(predictor(base, new.prompt, [(network, edges)]))


# %% [markdown]
# Before training, all three networks generate what the base generates, because their new layers
# end with zero convolutions. Then we test each of them every 40 steps. `averaged` is the
# network with a moving average of its weights, which usually gives better pictures than the
# last weights.

# %%
before = test(predictor(base, new.prompt))
test_steps = [step for step in (40, 80, 120, 160) if step < lesson.steps] + [lesson.steps]
results = {}


def train_and_test(name, network, loss, rate, test_network):
    results[name] = {0: before}
    training = Training(copy.deepcopy(network), loss, steps=lesson.steps, lr=rate,
                        seed=lesson.seed)
    for step, _ in tqdm(training, name):
        if step in test_steps:
            results[name][step] = test_network(training.averaged)


# %% [markdown]
# All three get the same pictures and the same number of steps. The rate of 1e-3 is that of the
# base's own training. During a training it falls to 0.

# %%
train_and_test("fine-tuned", fine_tuned, fine_tuning_loss, 1e-3, test_fine_tuned)
train_and_test("fine-tuned, low rate", slowly, fine_tuning_loss, 5e-4, test_fine_tuned)
train_and_test("locked, with a copy", control, copied_loss, 1e-3, test_control)
assert fingerprint(base.state_dict()) == mark  # the base has not changed by a single bit

# %% [markdown]
# Each row of the table is one test.

# %%
rows = [["trained", "step", "follows the outline (IoU)", "both colours right"]]
for name, by_step in results.items():
    for step, tested in by_step.items():
        iou = tested["IoU"].mean()
        right = tested["right colours"].mean()
        rows.append([name, step, f"{iou:.2f}", f"{right:.0%}"])
table(rows)
lesson.save_figure(forgetting(edges, results, new.prompt, lesson.steps))

# %% [markdown]
# 02_locking.png shows the pictures of the last tests.
#
# ## A fair comparison
#
# It would not be fair to compare the last rows alone. A network that has learned less has often
# forgotten less, too. So we compare the networks *at equal fidelity*: at the moments when they
# follow the outline equally well. 02_locking_paths.png shows each training as a path. Further
# right means better fidelity, and further down means more forgetting. So compare points of the
# paths that lie above each other.

# %%
lesson.save_figure(paths(results), "_paths")
tuned = results["fine-tuned"][lesson.steps]
copied = results["locked, with a copy"][lesson.steps]
lost = paired(copied["right colours"] - tuned["right colours"])
lesson.reveal(guess, "b" if lost.low > 0 else "a", "see the last column of the table.",
              a="nothing in the 100 pictures reminded it of the other colours.",
              b="in so few steps it has forgotten little.")

# %% [markdown]
# The last points of two paths, fine-tuned and locked, are good ones to compare if their IoU is
# nearly equal. In how many pictures does only one of the two have the right colours?

# %%
only_locked = int((copied["right colours"] > tuned["right colours"]).sum())
only_tuned = int((tuned["right colours"] > copied["right colours"]).sum())
lesson.verdict(f"After {lesson.steps} steps the IoU is {copied['IoU'].mean():.2f} for the locked base with"
               f" its copy, and {tuned['IoU'].mean():.2f} for the fine-tuned base.",
               f"In {only_locked} of {n} pictures, only the locked base with its copy has the right colours.",
               f"In {only_tuned} of {n}, only the fine-tuned base has them (one seed).")

# %% [markdown]
# Now follow the path of the smaller rate. Does it forget less because it is gentler, or only
# because it has learned less? Look for two points of the fine-tuned paths that lie above each
# other. With seed 0 both paths have a point at an IoU of 0.57. There the smaller rate has kept
# more of the colours, so in this run it is gentler. But it forgets as well.
#
# ## Does fine-tuning always forget?
#
# No. A record in lessons/results repeats this experiment with three seeds. There the learning
# rate stays constant during training. And we also try another choice of the four colours: the
# pictures show blue instead of cyan, and the test asks for cyan instead of blue. The table
# gives the share of pictures with the right colours at the moment when the IoU first reaches
# 0.6.

# %%
record = load_results("forgetting_at_equal_fidelity")
rows = [["trained", "rate", "the pictures show", "both colours right at an IoU of 0.6"]]
for trained, rate, shown, name in [
        ("fine-tuned", "1e-3", "cyan", "the lesson's colours, constant rate"),
        ("fine-tuned", "2e-3", "blue", "fine-tuned, rate 0.002"),
        ("fine-tuned", "1e-3", "blue", "the record's colours, constant rate"),
        ("fine-tuned", "6e-4", "blue", "fine-tuned, rate 0.0006"),
        ("ControlNet", "1e-3", "blue", "ControlNet, rate 0.001")]:
    right = finding(record, f"{name}, right colours at IoU 0.6")
    rows.append([trained, rate, shown, f"{right.mean:.0%}"])
table(rows)

# %% [markdown]
# A higher rate makes fine-tuning forget more. And here it matters even more which colours the
# pictures show, although we exchanged only one of them. Do three seeds suffice to show the
# effect of this exchange?

# %%
with_blue = record["findings"]["the record's colours, constant rate, right colours at IoU 0.6"]
with_cyan = record["findings"]["the lesson's colours, constant rate, right colours at IoU 0.6"]
kept = difference(with_blue, with_cyan)
lesson.verdict(f"Share of right colours, with blue minus with cyan: {kept.mean:+.2f}",
               f"(95 % interval {kept.low:+.2f} to {min(kept.high, 1):+.2f}, three seeds): {kept.verdict}.")

# %% [markdown]
# We only asked whether the colours matter, in whichever direction. So *shown* means here that
# the interval lies on one side of 0. If it contained 0, we would write *undecided*. With the
# colours of the pictures, those of the test change as well. We do not know which of the two
# matters, or why.
#
# With blue and a low rate, fine-tuning has kept all colours, just as the ControlNet has. So the
# argument for the lock is not that fine-tuning must destroy the model. How much it destroys
# depends on the data and on the rate, and nobody knows it beforehand. The weights of a locked
# base stay as they are in any case.
#
# ## Switch the copy off
#
# The lock has one more advantage. Without its copy the locked base generates exactly the
# pictures that it generated before, bit for bit.

# %%
now = test(predictor(base, new.prompt))
assert torch.equal(now["images"], before["images"])

# %% [markdown]
# So one base can serve many conditions, and each of them only adds its own copy.
#
# ## Locked does not mean detached
#
# The copy's gradient has to pass *through* the locked decoder. We call the 13 outputs of the
# zero convolutions the *controls*. If we cut the graph there (`detach`), no gradient reaches
# the copy, and nothing is learned.

# %%
def detached(xt, t, prompt, condition):
    controls = [c.detach() for c in control(xt, t, prompt, condition)]
    return base(xt, t, prompt, controls)


loss = condition_loss(detached, base, "edge", torch.Generator())
assert not loss.requires_grad  # loss.backward() would be an error

# %% [markdown]
# So we lock the base by `requires_grad_(False)`. We must not run its decoder under `no_grad`,
# or detach the controls.
#
# ## What does a training step cost?
#
# A lock also saves work. We need no gradients of locked weights. The base's encoder needs no
# graph at all, because nothing that is trained lies before it. The authors' released code locks
# less: it computes the gradients of the decoder's weights, and then discards them. We count the
# arithmetic, the time and the memory of a training step, and divide them by those of a step
# that trains the base itself.

# %%
unlocked = copy.deepcopy(base).requires_grad_(True)
half_locked = copy.deepcopy(base)
half_locked.decoder.requires_grad_(True)
fresh = copy.deepcopy(control)
costs = relative_costs({  # the network to train, its loss, and for a ControlNet the base that it controls
    "the base itself": (unlocked, base_loss),
    "ControlNet, base locked": (fresh, control_loss(base, "edge"), base),
    "ControlNet, the released code's way": (fresh, control_loss(half_locked, "edge"), half_locked),
    "ControlNet, nothing locked": (fresh, control_loss(unlocked, "edge"), unlocked),
}, rounds=1 if lesson.quick else 5)
rows = [["a training step of", "arithmetic", "time", "memory"]]
for name, row in costs.items():
    rows.append([name, *two_digits(row)])
table(rows)

# %% [markdown]
# In our network a ControlNet's step needs less arithmetic and less memory than a step of the
# base. The paper reports 1.34 times the time and 1.23 times the memory for its network on one
# GPU. The two cannot be compared directly: the networks differ, and the paper does not say how
# its decoder was treated.
#
# One more cost is the size of the copy.

# %%
sizes = {}
for name, network in {"base": base, "ControlNet": control}.items():
    sizes[name] = sum(p.numel() for p in network.parameters()) / 1e6
print(f"the base has {sizes['base']:.2f} million weights,"
      f" and each condition adds {sizes['ControlNet']:.2f} million")

# %% [markdown]
# At the end we save the numbers of this run. CLAIMS.md refers to them.

# %%
scores = {}
for name, by_step in results.items():
    scores[name] = {}
    for step, tested in by_step.items():
        scores[name][step] = {"IoU": tested["IoU"].mean().item(),
                              "right colours": tested["right colours"].mean().item()}
lesson.save_results({"costs": costs, "tests": scores, "million weights": sizes})
print("\nEXERCISES  02a, 02b: python lessons/exercises")
