# %% [markdown]
# # Lesson 03: How can weights that are all zero learn?
#
# ControlNet joins its trainable copy to the locked base through *zero convolutions*: 1x1
# convolutions whose weights and biases start at zero (Sec. 3.1). At first their output is zero,
# so the base works as if the copy were not there. But if the weights are zero, aren't their
# gradients zero, too? In this lesson you
#
# 1. join a block and its copy by two zero convolutions (Eq. 2 and 3),
# 2. work out the gradients of one zero convolution by hand, and train it,
# 3. watch gradients reach one part of a ControlNet after another,
# 4. see what goes wrong when the convolutions start from random weights.
#
# It takes about a minute. Then do exercises 03a and 03b, and read `zero_conv` and `ControlNet`
# in minicontrolnet/controlnet.py.

# %%
import copy
import os
import sys
from collections.abc import Iterable

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
from lesson import Lesson, table
from lesson.figures_03 import first_gradients, from_zero, same_start

import torch
from torch import Tensor, nn
from tqdm import tqdm

from minicontrolnet import (ControlNet, Training, control_loss, detect_edges, held_out,
                            load_base, lock, loss_of_condition, sample, seeded, zero_conv,
                            zero_conv_gradients)

lesson = Lesson("03_zero_conv", steps=80, quick_steps=2)

# %% [markdown]
# Before you read on, make a guess.

# %%
guess = lesson.predict("Every zero convolution has weight 0 and bias 0. In the first backward"
                       " pass, which parameters get a gradient that is not zero?",
                       a="none, so nothing can ever learn",
                       b="only the zero convolutions at the copy's outputs",
                       c="all of the copy, and the base as well")

# %% [markdown]
# ## A block and its copy
#
# The paper first describes ControlNet for a single *block*: a part of a network, with weights
# Theta, that turns one map into another.
#
#     y = F(x; Theta)                                     (Eq. 1)
#
# We lock this block. Its copy, with weights Theta_c, is trainable and also gets the condition
# c. Two zero convolutions, Z1 and Z2, join the copy to the block:
#
#     y_c = F(x; Theta) + Z2(F(x + Z1(c); Theta_c))       (Eq. 2)
#
# Both output 0 before training, so y_c = y (Eq. 3). Let us check it with a convolution as the
# block.

# %%
generator = torch.Generator().manual_seed(lesson.seed)
x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator)
g = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator)  # for the next section
c = torch.ones_like(x)  # any condition will do

block = lock(seeded(lesson.seed, nn.Conv2d, 3, 3, 3, padding=1)).double()
its_copy = copy.deepcopy(block).requires_grad_(True)
z1 = zero_conv(3).double()
z2 = zero_conv(3).double()
y_c = block(x) + z2(its_copy(x + z1(c)))
assert torch.equal(y_c, block(x))  # Eq. 3, bit for bit

# %% [markdown]
# The copy is there and changes nothing yet. But how will it ever change anything?
#
# ## One zero convolution, by hand
#
# At each pixel a 1x1 convolution computes y = W x + b. Backpropagation goes from the loss L to
# the input, layer by layer. Write g for dL/dy, the gradient that reaches this convolution from
# the layers after it. The chain rule gives
#
#     dL/dW = g x^T        dL/db = g        dL/dx = W^T g
#
# For dL/dW and dL/db we add up all pixels. The gradient of W contains the *input* x and the
# gradient g, but not W itself. So it need not be zero, even though W is. The gradient of x does
# contain W, so it is zero. For now the layers before this one get a gradient of zero. Let us
# check that autograd agrees.

# %%
conv = zero_conv(3).double()
x.requires_grad_()
y = conv(x)
y.backward(g)

weight = conv.weight.detach()[:, :, 0, 0]
dw, db, dx = zero_conv_gradients(x.detach(), weight, g)  # the three formulas above
assert torch.allclose(conv.weight.grad[:, :, 0, 0], dw)
assert torch.allclose(conv.bias.grad, db)
assert torch.equal(x.grad, dx)
for name, gradient in (("dL/dW", dw), ("dL/db", db), ("dL/dx", dx)):
    print(f"largest entry of {name}: {gradient.abs().max():.1f}")

# %% [markdown]
# Two of the three gradients are not zero. So a zero convolution can learn, and we can watch it.
# Let it learn to swap the first two channels of its input.

# %%
conv = zero_conv(3).double()
x = x.detach()
target = x[:, [1, 0, 2]]
optimiser = torch.optim.SGD(conv.parameters(), lr=0.3)
for step in range(41):
    loss = (conv(x) - target).square().mean()
    if step % 10 == 0:
        print(f"step {step:2}: loss {loss.item():.3f}")
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

# %% [markdown]
# After one step the weights are no longer zero. From then on, this convolution is an ordinary
# layer.
#
# ## Why ControlNet never puts two in a row
#
# Suppose that one zero convolution directly follows another. Then training gets stuck. The
# second one has an input of zero, so its weight has a gradient of zero. The weight of the
# second one is zero, so everything in the first one has a gradient of zero. Only the second
# bias can move.

# %%
pair = nn.Sequential(zero_conv(3), zero_conv(3)).double()
optimiser = torch.optim.SGD(pair.parameters(), lr=0.3)
for _ in range(40):
    optimiser.zero_grad()
    loss = (pair(x) - target).square().mean()
    loss.backward()
    optimiser.step()

moved = [name for name, parameter in pair.named_parameters() if parameter.any()]
print("after 40 steps these parameters have moved:", moved)
assert moved == ["1.bias"]

# %% [markdown]
# "1.bias" is the bias of the second convolution; Python counts them as 0 and 1. A bias is the
# same for every input, so this pair can never learn to use its input.
#
# ## Gradients spread through a ControlNet, step by step
#
# A ControlNet has zero convolutions at its 13 outputs. It has one more at the end of its
# *condition encoder*, the small network that reads the outline (lesson 04). The copy of the
# base's encoder lies between them, and its outputs are not zero. So this is not the bad case
# above.
#
# In the first backward pass only the output convolutions have gradients that are not zero. Once
# their weights have moved, the copy has such gradients, and so does the zero convolution
# between the condition encoder and the copy. But the weight of this one is still zero. So the
# layers of the condition encoder before it must wait one step more.

# %%
base = load_base(device=lesson.device)  # locked: its weights ask for no gradient


def parts_of(control: ControlNet) -> dict[str, nn.Module]:
    return {"locked base": base,
            "condition encoder": control.condition_encoder.layers[:-1],
            "zero conv at the input": control.condition_encoder.layers[-1],
            "copy": nn.ModuleList([control.embedding, control.encoder]),  # embedding: of t and the prompt
            "zero convs at the outputs": control.zero_convs}


# %% [markdown]
# We measure the gradient of a part by its *norm*, the root of the sum of all squares. It is
# `None` if autograd has computed no gradient at all.

# %%
def norm_of(tensors: Iterable[Tensor]) -> float:
    return torch.cat([tensor.flatten() for tensor in tensors]).norm().item()


def gradient_norm(part: nn.Module) -> float | None:
    gradients = [p.grad for p in part.parameters() if p.grad is not None]
    if not gradients:
        return None
    return norm_of(gradients)


# %% [markdown]
# We take four training steps and write down the norms in each of them.

# %%
control = seeded(lesson.seed, ControlNet, base)
loss_of = control_loss(base, "edge", drop=0.0)  # keep all prompts
optimiser = torch.optim.AdamW(control.parameters())
for_batches = generator.clone_state()  # a copy: running this cell again gives the same batches
norms = {name: [] for name in parts_of(control)}
for step in range(4):
    optimiser.zero_grad()
    loss_of(control, for_batches).backward()
    for name, part in parts_of(control).items():
        norms[name].append(gradient_norm(part))
    optimiser.step()

# %% [markdown]
# In the table, 3e-07 means 0.0000003. Read it from the bottom up.

# %%
def written(norm: float | None) -> str:
    return f"{norm:.0e}" if norm else str(norm)  # None and 0.0 as they are


rows = [["norm of the gradient at step", 0, 1, 2, 3]]
for name, row in norms.items():
    rows.append([name, *(written(norm) for norm in row)])
table(rows)

# %% [markdown]
# The gradients arrive at step 0, 1 and 2. Note that `None` and 0 are different. The locked base
# has `None`: its weights ask for no gradient, so none was computed. The copy's first gradient
# was computed, and it is exactly zero.

# %%
assert norms["locked base"] == [None] * 4
first = {}
for name, row in norms.items():
    with_gradient = [step for step, norm in enumerate(row) if norm]  # neither None nor 0
    first[name] = with_gradient[0] if with_gradient else None
assert first == {"locked base": None, "zero convs at the outputs": 0, "copy": 1,
                 "zero conv at the input": 1, "condition encoder": 2}
lesson.save_figure(first_gradients(base, control, first), "_architecture")
lesson.reveal(guess, "b", because="dL/dW = g x^T, and g is not zero at the outputs. Behind them it is.",
              a="the derivative of W x with respect to W is x, and x is not zero.",
              c="nothing gets past a zero weight, and the base is locked.")

# %% [markdown]
# 03_zero_conv_architecture.png shows the same in the drawing of lesson 02. Follow the colours
# from the outputs back to the condition. Each zero convolution on this way delays the gradients
# of all parts before it by one step.
#
# ## What if the convolutions do not start at zero?
#
# With zero convolutions, an untrained ControlNet gives exactly the pictures of the base (Eq.
# 3). Now we start the 13 output convolutions from Gaussian weights instead, once with a small
# and once with a large standard deviation (std). What do the pictures look like before
# training?

# %%
for_weights = for_batches.clone_state()
starts = {}
for name, std in {"zero": 0.0, "std 0.02": 0.02, "std 0.25": 0.25}.items():
    starts[name] = seeded(lesson.seed, ControlNet, base)
    for conv in starts[name].zero_convs:
        nn.init.normal_(conv.weight, std=std, generator=for_weights)

# %% [markdown]
# We sample from the same noise with each of them. (With a guidance scale of 1, `sample` uses
# the prediction for the prompt as it is.)

# %%
truth, noise = held_out(4, lesson.device)
edges = detect_edges(truth.image)
steps = 3 if lesson.quick else 20
pictures = {"base alone": sample(base, truth.prompt, noise, guidance_scale=1, steps=steps)}
for name, control in starts.items():
    pictures[name] = sample(base, truth.prompt, noise, [(control, edges)], guidance_scale=1,
                            steps=steps)

assert torch.equal(pictures["zero"], pictures["base alone"])  # Eq. 3, bit for bit
lesson.save_figure(same_start(pictures, truth.prompt), "_step0")

# %% [markdown]
# 03_zero_conv_step0.png shows them. The zero start changes nothing, and the small one changes
# little. The large one destroys the pictures before training has begun.
#
# Does this damage last? We train all three on the same batches, and look at two things: the
# norm of the output convolutions' weights, and the loss on held-out pictures.
#
# `loss_of_condition` chooses held-out pictures, their noise and their times t once, and keeps
# them. It returns two things: a function that computes the loss for given outlines, and the
# true outlines. `control_loss` now empties half of the prompts, as in Sec. 3.3; lesson 05
# explains why. `Training` lets the learning rate fall to 0 during these steps.

# %%
n_pictures = 32  # for the held-out loss
losses = {}
sizes = {}
for name, start in starts.items():
    control = copy.deepcopy(start)
    loss_with, outlines = loss_of_condition(base, control, "edge", n_pictures)
    losses[name] = [loss_with(outlines).item()]
    sizes[name] = []
    training = Training(control, control_loss(base, "edge"), steps=lesson.steps, lr=2e-3,
                        seed=lesson.seed)
    for step, loss in tqdm(training, name):
        sizes[name].append(norm_of(control.zero_convs.parameters()))
        if step % 10 == 0 or step == lesson.steps:
            losses[name].append(loss_with(outlines).item())

# %% [markdown]
# The table shows the held-out loss, and the verdict compares the large start with zero.

# %%
lesson.save_figure(from_zero(sizes, losses, lesson.steps))
rows = [["the output convs start at", "held-out loss before", f"after {lesson.steps} steps"]]
for name, curve in losses.items():
    rows.append([name, f"{curve[0]:.4f}", f"{curve[-1]:.4f}"])
table(rows)
at_first = losses["std 0.25"][0] / losses["zero"][0]
at_last = losses["std 0.25"][-1] / losses["zero"][-1]
lesson.verdict(f"With a start at std 0.25, the held-out loss is {at_first:.1f} times that of the"
               f" zero start before training, and {at_last:.1f} times after {lesson.steps} steps"
               f" ({n_pictures} pictures, one seed).")

# %% [markdown]
# 03_zero_conv.png answers the question of this lesson for the whole network. In the left plot,
# the zero convolutions have left 0 after the first step. With seed 0 they grow for about 40
# steps, and then hardly. One reason is the learning rate: at step 40 it has fallen to half, and
# it goes on falling to 0. (With a constant rate the zero convolutions go on growing.)
#
# The right plot answers the question of this section. A zero start does no harm: the first
# pictures are those of the base, and the first loss is its loss. A large random start adds
# random maps at all 13 connections. After 80 steps most of this damage is repaired, but not all
# of it. The size of the random weights hardly changes (left plot). So the random maps probably
# stay, and the rest of the copy learns to work around them. We have not tested this.
#
# A small random start does little harm. In this one run its loss even ends a little below that
# of the zero start. Lesson 08 repeats this with ten seeds, and cannot distinguish the two. So
# the start should be *small*, and we have no evidence that it must be exactly zero. But zero is
# the one value that nobody has to tune.

# %%
lesson.save_results({"gradient norms": norms, "held-out loss": losses,
                     "size of the output convolutions": sizes})
print("\nEXERCISES  03a, 03b: python lessons/exercises")
