# %% [markdown]
# # Lesson 02: What does fine-tuning destroy?
#
# We have a model that generates pictures from prompts, and we want it to follow outlines as
# well. The obvious way is *fine-tuning*: give the model the outline as an additional input,
# and train all of its weights a little further. The paper warns against it (Sec. 1): for many
# conditions there are few data, so the model sees the same pictures again and again, and may
# forget what it knew. ControlNet *locks* the model instead, and trains a copy of one half of
# it (Sec. 3.1 and 3.2). In this lesson you
#
# 1. fine-tune the base on 100 pictures in four of its eight colours,
# 2. lock the base and train a copy of its encoder on the same 100 pictures,
# 3. compare what both still know about the other four colours.
#
# It takes about a minute. Then do exercises 02a and 02b, and read `lock` and `ControlNet` in
# minicontrolnet/controlnet.py.

# %%
import copy
import os
import sys

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
import torch
from lesson import Lesson, finding, load_results, table
from lesson.diagram import architecture
from lesson.figures_02 import forgetting, paths
from lesson.networks import ConditionedUNet
from tqdm import tqdm

from minicontrolnet import (ControlNet, Training, base_loss, colours_right, condition_loss,
                            control_loss, ddim, detect_edges, fingerprint, load_base, mask_iou,
                            mask_of, paired, predictor, random_batch, seeded, to_image)
from minicontrolnet.measure.cost import relative_costs

lesson = Lesson("02_locking", steps=200, quick_steps=2)
base = load_base(device=lesson.device)  # locked: none of its weights can be trained
mark = fingerprint(base.state_dict())

guess = lesson.predict("We fine-tune the base on 100 pictures that show only four of the eight colours"
                       " it knows. Then we ask it for the other four. What will it generate?",
                       a="the colours we ask for, since it knew them before",
                       b="more and more often the four colours of the 100 pictures")

# %% [markdown]
# ## The data
#
# We paint 1000 pictures of the toy world and keep 100 of them. All of these show a circle or
# a square, and only the first four colours. For the test we keep pictures whose shape and
# colours differ from all of these: triangles and stars in the other four colours.

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


def next_batch(generator):
    pick = torch.randint(100, (16,), generator=generator)
    return few.map(lambda tensor: tensor[pick])


# %% [markdown]
# ## The first way: fine-tune the base
#
# `ConditionedUNet` is a copy of the whole base with one addition: a small network turns the
# outline into features, which are added after the first convolution. Nothing in it is locked.

# %%
fine_tuned = seeded(lesson.seed, ConditionedUNet, base).to(lesson.device)
slowly = seeded(lesson.seed, ConditionedUNet, base).to(lesson.device)  # for a lower learning rate


def fine_tuning_loss(network, generator):
    return condition_loss(network, network, "edge", generator, next_batch=next_batch)


# %% [markdown]
# ## The second way: lock it, and train a copy
#
# A UNet has two halves. The *encoder* works on a grid of 16x16 patches of the picture and
# shrinks it to 2x2 in several blocks, and the *decoder* enlarges it again. At every size the
# decoder also gets the encoder's output, through *skip connections*. There are 12 of them,
# and one more output in the middle.
#
# ControlNet copies the encoder (`copy.deepcopy`) and gives the outline to the copy. The copy
# has the same 13 outputs, and these are *added* to the 13 of the base. They pass through
# *zero convolutions* first, which output 0 at the start of training (lesson 03). The base
# itself stays as it is.

# %%
control = seeded(lesson.seed, ControlNet, base)
copied_loss = control_loss(base, "edge", next_batch=next_batch)
assert control.encoder.channels == base.encoder.channels
lesson.save_figure(architecture(base, control), "_architecture")

# %% [markdown]
# The figure shows both networks. Everything grey is locked.
#
# ## Train them, and test them on the way
#
# The test asks for the new shapes and colours, with their outlines. It measures two things:
# how well the outline is followed (IoU, 1 is perfect), and in how many pictures both colours
# are right.

# %%
def test(model):
    images = to_image(ddim(model, noise, 2 if lesson.quick else 10))
    iou = mask_iou(mask_of(images), new.mask)
    right = colours_right(images, new.prompt).float()
    return images, iou, right


def test_fine_tuned(network):
    return test(lambda xt, t: network(xt, t, new.prompt, edges))


def test_control(network):
    return test(predictor(base, new.prompt, [(network, edges)]))


# %% [markdown]
# All get the same pictures and the same number of steps. A smaller learning rate might forget
# less, so we fine-tune a second time at half of the rate.

# %%
arms = {"fine-tuned": (fine_tuned, fine_tuning_loss, 1e-3, test_fine_tuned),
        "fine-tuned, low rate": (slowly, fine_tuning_loss, 5e-4, test_fine_tuned),
        "locked, with a copy": (control, copied_loss, 1e-3, test_control)}
looks = [step for step in (40, 80, 120, 160) if step < lesson.steps] + [lesson.steps]
before = test(predictor(base, new.prompt))
results = {}
for name, (network, loss, rate, test_network) in arms.items():
    results[name] = {0: before}
    training = Training(network, loss, steps=lesson.steps, lr=rate, seed=lesson.seed)
    for step, _ in tqdm(training, name):
        if step in looks:
            results[name][step] = test_network(training.averaged)
assert fingerprint(base.state_dict()) == mark  # the base has not changed by a single bit

# %%
rows = [["", "step", "follows the outline (IoU)", "both colours right"]]
for name, by_step in results.items():
    for step, (_, iou, right) in by_step.items():
        rows.append([name, step, f"{iou.mean():.2f}", f"{right.mean():.0%}"])
table(rows)

# %% [markdown]
# ## A fair comparison
#
# It would not be fair to compare the last rows alone. A network that has hardly learned to
# follow outlines has of course not forgotten much. So we compare the networks *at equal
# fidelity*: at the moments when they follow the outline equally well. The figure
# 02_locking_paths.png draws each training as a path. Further right means better fidelity, and
# further down means more forgetting. The verdict below compares the last points, where the
# fine-tuned base and the copy follow nearly equally well.

# %%
lesson.save_figure(paths(results), "_paths")
pictures, iou, right = results["fine-tuned"][lesson.steps]
pictures, copied_iou, copied_right = results["locked, with a copy"][lesson.steps]
lost = paired(copied_right - right)
lesson.reveal(guess, "b" if lost.low > 0 else "a", "see the column of right colours.",
              a="nothing in the 100 pictures reminded it of the other colours.",
              b="in so few steps it has forgotten little.")
lesson.verdict(f"After {lesson.steps} steps both follow the outline, with an IoU of {iou.mean():.2f} (fine-tuned)"
               f" and {copied_iou.mean():.2f} (locked). With the locked base, {lost.mean:.0%} more of the"
               f" pictures have the right colours (95 % interval {lost.low:.0%} to {lost.high:.0%}, {n}"
               " pictures, one seed).")

# %% [markdown]
# The smaller rate forgets more slowly, but it also learns to follow outlines more slowly. At
# the same IoU the locked base has lost nothing.
#
# ## Does fine-tuning always forget?
#
# No. A record in lessons/results trained longer at still smaller rates, with three random
# seeds. The table shows how many pictures have the right colours when the IoU first reaches
# 0.7.

# %%
record = load_results("forgetting_at_equal_fidelity")
rows = [["trained", "rate", "both colours right at an IoU of 0.7"]]
for side, rates in {"fine-tuned": ["0.002", "0.0006", "0.0002"], "ControlNet": ["0.001", "0.0006"]}.items():
    for rate in rates:
        share = finding(record, f"{side}, rate {rate}, right colours at IoU 0.7").mean
        rows.append([side, rate, f"{share:.0%}"])
table(rows)
at_08 = finding(record, "ControlNet minus fine-tuned, right colours at IoU 0.8")
lesson.verdict(f"At an IoU of 0.8, the best rate of each: ControlNet minus fine-tuned {at_08.mean:+.2f}"
               f" ({at_08.low:+.2f} to {at_08.high:+.2f}, three seeds), {at_08.verdict}.")

# %% [markdown]
# At the base's own rate fine-tuning forgets quickly. At a fifth of it, with more patience, it
# hardly forgets anything in our toy world up to this IoU. So the argument for the lock is not
# that fine-tuning must destroy the model. It is that a locked base cannot be destroyed, at
# any rate, and that nobody has to find out which rate is still safe.
#
# ## Switch the copy off
#
# There is one more thing that only a locked base can do. Without its copy it generates
# exactly the pictures that it generated before, bit for bit.

# %%
again = test(predictor(base, new.prompt))
assert torch.equal(again[0], before[0])
lesson.save_figure(forgetting(edges, results, new.prompt, lesson.steps))

# %% [markdown]
# So one base can serve many conditions. Each adds only its own copy.
#
# ## Locked does not mean detached
#
# The copy's gradient has to pass *through* the locked decoder. If we cut the graph there
# (`detach`), the loss no longer depends on the copy, and nothing is learned.

# %%
def detached(xt, t, prompt, condition):
    controls = [c.detach() for c in control(xt, t, prompt, condition)]
    return base(xt, t, prompt, controls)


loss = condition_loss(detached, base, "edge", torch.Generator())
assert not loss.requires_grad  # loss.backward() would be an error

# %% [markdown]
# ## What does a training step cost?
#
# A lock also saves work: we need no gradients of locked weights, and the base's encoder needs
# no graph at all. The authors' released code computes the gradients of the decoder's weights
# and discards them. The table compares the number of operations, time and memory with a step
# that trains the base itself.

# %%
unlocked = copy.deepcopy(base).requires_grad_(True)
released = copy.deepcopy(base)
released.decoder.requires_grad_(True)
fresh = copy.deepcopy(control)
costs = relative_costs({
    "the base itself": (unlocked, base_loss),
    "ControlNet, base locked": (fresh, control_loss(base, "edge"), base),
    "ControlNet, the released code's way": (fresh, control_loss(released, "edge"), released),
    "ControlNet, nothing locked": (fresh, control_loss(unlocked, "edge"), unlocked),
}, rounds=1 if lesson.quick else 5)
rows = [["a training step of", "arithmetic", "time", "memory"]]
for name, row in costs.items():
    rows.append([name, *(f"{ratio:.2f}" for ratio in row)])
table(rows)

# %% [markdown]
# The paper reports 1.34 times the time and 1.23 times the memory for its network on one GPU.
# Ours is cheaper than training the base. The two cannot be compared directly: the networks
# differ, and the paper does not say how its decoder was treated.

# %%
sizes = {name: sum(p.numel() for p in network.parameters()) / 1e6
         for name, network in (("base", base), ("ControlNet", control))}
print(f"the base has {sizes['base']:.2f} M weights, and each condition adds {sizes['ControlNet']:.2f} M")
scores = {name: {step: {"IoU": iou.mean().item(), "right colours": right.mean().item()}
                 for step, (_, iou, right) in by_step.items()} for name, by_step in results.items()}
lesson.save_results({"costs": costs, "tests": scores, "million weights": sizes})
print("\nEXERCISES  02a, 02b: python lessons/exercises")
