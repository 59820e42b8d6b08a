# %% [markdown]
# # Lesson 03: Can weights that are all zero learn?
# Sec. 3.1, Eq. 2-3 and Fig. 2b; the authors' FAQ answers "is the gradient zero, too?"
# After 03a read `zero_conv`, `ControlNet` in minicontrolnet/controlnet.py. 40 seconds.

# %%
import os
import sys

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # this folder, also under python -P
import torch
from lesson import Lesson, table
from lesson.figures_03 import first_gradients, gradients_and_losses, same_start
from torch import nn
from tqdm import tqdm

from minicontrolnet import (Control, ControlNet, Training, control_loss, detect_edges, held_out,
                            load_base, loss_of_condition, sample, seeded, zero_conv,
                            zero_conv_gradients)

lesson = Lesson("03_zero_conv", steps=60, quick_steps=2)
base = load_base(device=lesson.device)
guess = lesson.predict("All zero convs have weight 0 and bias 0. At the first backward pass",
                       a="every gradient is 0: nothing can learn",
                       b="only the zero convs at the outputs have a gradient other than 0",
                       c="the whole copy has one, and so has the base")

# %% [markdown]
# ## One zero conv by hand, and two in a row
# y = W x + b with W = b = 0, and g = dL/dy. Then dL/dW = g x^T holds the input, which
# is not 0, and not the weight. dL/db is the sum of g. But dL/dx = W^T g = 0: nothing
# gets through. Of two in a row the outer one's input is 0, so its weight stays 0, and
# so the inner one learns nothing. Only the outer bias moves.

# %%
generator = torch.Generator().manual_seed(lesson.seed)
x, g = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=generator)
conv = zero_conv(3).double()
y = conv(x.requires_grad_())
y.backward(g)
dw, db, dx = zero_conv_gradients(x.detach(), conv.weight.detach()[:, :, 0, 0], g)
assert torch.allclose(conv.weight.grad[:, :, 0, 0], dw, atol=1e-12) and dw.all()
assert torch.allclose(conv.bias.grad, db, atol=1e-12) and db.all()
assert not x.grad.any() and not dx.any()

# %%
pair = nn.Sequential(zero_conv(3), zero_conv(3)).double()
optimiser = torch.optim.SGD(pair.parameters(), lr=0.01)
for _ in range(5):
    optimiser.zero_grad()
    loss = (pair(x.detach()) - 1).square().sum()
    loss.backward()
    optimiser.step()
assert [name for name, p in pair.named_parameters() if p.any()] == ["1.bias"]

# %% [markdown]
# ## The whole network: who wakes when
# A ControlNet has zero convs at its outputs and one behind the condition encoder; the
# copy stands between. A gradient of None is not one of 0: the locked base's weights ask
# for none, so none is computed. An exact 0 was computed, and will not stay.

# %%
control = seeded(lesson.seed, ControlNet, base)
parts = {"locked base": base,
         "condition encoder": control.condition_encoder.layers[:-1],
         "zero conv at the input": control.condition_encoder.layers[-1],
         "copy": nn.ModuleList([control.embedding, control.encoder]),
         "zero convs at the outputs": control.zero_convs}


def gradient_norm(part):
    gradients = [p.grad for p in part.parameters() if p.grad is not None]
    return nn.utils.get_total_norm(gradients).item() if gradients else None


optimiser = torch.optim.AdamW(control.parameters())
loss_of = control_loss(base, "edge", drop=0.0)
norms = {name: [] for name in parts}
for _ in range(4):
    optimiser.zero_grad()
    loss_of(control, generator).backward()
    for name, part in parts.items():
        norms[name].append(gradient_norm(part))
    optimiser.step()

# %%
def text(norm):
    if norm is None:
        return "None"
    return f"{norm:.0e}" if norm else "0"


texts = {name: [text(norm) for norm in row] for name, row in norms.items()}
rows = [["gradient at backward pass", 0, 1, 2, 3]]
rows += [[name, *row] for name, row in texts.items()]
table(rows)
first = {}
for name, row in norms.items():
    first[name] = next((i for i, norm in enumerate(row) if norm), None)
assert list(first.values()) == [None, 2, 1, 1, 0]
lesson.reveal(guess, "b", because="dL/dW holds the input, not the weight.",
              a="the derivative of y = W x by W is x, and x is not 0.",
              c="dL/dx = W^T g is 0 as long as W is; and the base asks for no gradient.")
lesson.save_figure(first_gradients(base, control, first), "_architecture")

# %% [markdown]
# ## What another start does (Eq. 3)
# With zero convs y_c = y: the first pictures are the base's own, in every bit. Output
# convs that start Gaussian put noise on 13 maps. All starts train on the same batches,
# too few to follow an outline yet (lesson 05): a loss that stays says nothing of zeros.

# %%
truth, noise = held_out(4, lesson.device)
edges = detect_edges(truth.image)
ddim_steps = 3 if lesson.quick else 20
n = 32  # pictures for the held-out loss
losses = {}
curves = {}
drawn = {"base": sample(base, truth.prompt, noise, (), 1, ddim_steps)}

# %%
for name, std in {"zero": 0.0, "std 0.02": 0.02, "std 0.25": 0.25}.items():
    control = seeded(lesson.seed, ControlNet, base)
    for conv in control.zero_convs:
        nn.init.normal_(conv.weight, std=std, generator=generator)
    drawn[name] = sample(base, truth.prompt, noise, [Control(control, edges)], 1, ddim_steps)
    loss_with, condition = loss_of_condition(base, control, "edge", n)
    before = loss_with(condition).item()
    training = Training(control, control_loss(base, "edge"), lesson.steps, lr=1e-3, seed=lesson.seed)
    curves[name] = [loss for step, loss in tqdm(training, name)]
    losses[name] = [before, loss_with(condition).item()]

# %%
assert torch.equal(drawn["zero"], drawn["base"])  # Eq. 3, for whole samples
rows = [["output convs start", "held-out loss at first", f"after {lesson.steps} steps"]]
for name, (before, after) in losses.items():
    rows.append([name, f"{before:.4f}", f"{after:.4f}"])
table(rows)
at_first, at_last = (a / b for a, b in zip(losses["std 0.25"], losses["zero"]))
lesson.verdict(f"A start of std 0.25 multiplies the held-out loss by {at_first:.2f} at first, by"
               f" {at_last:.2f} at last; n = {n}, one seed.")
lesson.save_figure(same_start(drawn, truth.prompt), "_step0")
lesson.save_figure(gradients_and_losses(norms, texts, curves))
lesson.save_results({"gradient norms": norms, "held-out loss, first and last": losses})
print("\nEXERCISES  03a, 03b: python lessons/exercises")
