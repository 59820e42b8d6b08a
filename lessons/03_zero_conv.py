# %% [markdown]
# # Lesson 03: Can weights that are all zero learn?
# Sec. 3.1, Eq. 2-3 and Fig. 2b; "isn't the gradient zero, too?" is answered in the
# authors' FAQ. Read `zero_conv` and `ControlNet` in controlnet.py. 40 seconds.

# %%
import torch
from _lesson import options, predict, reveal, save_figure, save_results, table, verdict
from torch import nn

from minicontrolnet import (ControlNet, control_loss, describe, detect_edges, figures,
                            held_out, load_base, loss_of_condition, sample, seeded,
                            train, zero_conv, zero_conv_gradients)
from minicontrolnet.diagram import architecture

args = options("03_zero_conv", steps=60, quick_steps=2)
base = load_base(device=args.device)
guess = predict("Weight and bias of all zero convs are 0. At the first backward pass:",
                a="every gradient is 0: nothing can learn",
                b="only the zero convs at the outputs have a gradient",
                c="the whole copy has a gradient, and so has the base")

# %% [markdown]
# ## One zero conv by hand
# y = W x + b with W = b = 0, and g = dL/dy. Then dL/dW = g x^T holds the input, which is
# not 0, and not the weight; dL/db = g. But dL/dx = W^T g = 0: nothing gets through to
# what stands before. Here in float64, beside autograd.

# %%
generator = torch.Generator().manual_seed(args.seed)
x, g = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=generator)
conv = zero_conv(3).double()
(conv(x.requires_grad_()) * g).sum().backward()
dw, db, dx = zero_conv_gradients(x.detach(), conv.weight.detach()[:, :, 0, 0], g)
assert torch.allclose(conv.weight.grad[:, :, 0, 0], dw, atol=1e-12) and dw.all()
assert torch.allclose(conv.bias.grad, db, atol=1e-12)
assert x.grad.count_nonzero() == dx.count_nonzero() == 0
print("\none zero conv: dL/dW = g x^T, dL/db = g, dL/dx = 0, as autograd says")

# %% [markdown]
# ## Two in a row never learn
# The outer one sees an input of 0, so its weight stays 0, and so nothing gets through to
# the inner one. Only the outer bias moves.

# %%
pair = nn.Sequential(zero_conv(3), zero_conv(3)).double()
optimiser = torch.optim.SGD(pair.parameters(), lr=0.01)
for _ in range(5):
    optimiser.zero_grad()
    (pair(x.detach()) - 1).square().sum().backward()
    optimiser.step()
assert [name for name, p in pair.named_parameters() if p.any()] == ["1.bias"]
print("two in a row, five steps: the outer bias moved, nothing else did")
print("DISCUSS  With the copy between them both learn. What does it put out?")

# %% [markdown]
# ## The whole network: who wakes when
# A ControlNet has zero convs at its outputs and one behind the condition encoder; the
# copy stands between. A gradient of None is not one of 0: the locked base's weights ask
# for none, so none is computed. An exact 0 was computed, and will not stay.

# %%
control = seeded(args.seed, ControlNet, base)
entry, optimiser = control.condition_encoder.layers, torch.optim.AdamW(control.parameters())
groups = {"locked base": base, "condition encoder": entry[:-1],
          "zero conv at the input": entry[-1],
          "copy": nn.ModuleList([control.embedding, control.encoder]),
          "zero convs at the outputs": control.zero_convs}
norms, loss = {name: [] for name in groups}, control_loss(base, "edge", drop=0.0)
for _ in range(4):
    optimiser.zero_grad()
    loss(control, generator).backward()
    for name, group in groups.items():
        found = [p.grad.norm() for p in group.parameters() if p.grad is not None]
        norms[name].append(torch.stack(found).norm().item() if found else None)
    optimiser.step()
said = {name: ["None" if norm is None else f"{norm:.0e}" if norm else "0" for norm in row]
        for name, row in norms.items()}
waking = [next((i for i, norm in enumerate(row) if norm), None) for row in norms.values()]
table([["gradient norm at backward pass", *range(4)], *([k, *v] for k, v in said.items())])
assert waking == [None, 2, 1, 1, 0]
reveal(guess, "b", because="dL/dW is the input, not the weight.",
       a="the derivative of y = W x by W is x, and x is not 0.",
       c="dL/dx = W^T g is 0 as long as W is, and the base asks for no gradient at all.")
colours = {None: "lightgrey", 0: "gold", 1: "orange", 2: "tomato"}
save_figure(architecture(base, control, dict(zip(groups, map(colours.get, waking))),
                         "First gradient: yellow at pass 0, orange 1, red 2, grey never"),
            "_architecture")

# %% [markdown]
# ## What another start does (Eq. 3)
# With zero convs y_c = y: the first sample is the base's own, in every bit. A Gaussian
# start of the output convs puts noise on 13 maps before anything is learned. All starts
# train on the same batches; the loss is that of the same held-out pictures.

# %%
truth, noise = held_out(3, args.device)
n, ddim_steps = (16, 3) if args.quick else (32, 20)
drawn = {"base": sample(base, truth.prompt, noise, steps=ddim_steps)}
edges, curves, held_out_loss = detect_edges(truth.image), {}, {}
for name, std in {"zero": 0.0, "std 0.02": 0.02, "std 0.25": 0.25}.items():
    control = seeded(args.seed, ControlNet, base)
    for conv in control.zero_convs:
        conv.weight.data.copy_(std * torch.randn(conv.weight.shape, generator=generator))
    drawn[name] = sample(base, truth.prompt, noise, [(control, edges)], steps=ddim_steps)
    loss_with, condition = loss_of_condition(base, control, "edge", n)
    first, curves[name] = loss_with(condition).item(), []
    train(control, control_loss(base, "edge"), args.steps, lr=1e-3, seed=args.seed,
          on_step=lambda step, loss, _: curves[name].append(loss), progress=name)
    held_out_loss[name] = [first, loss_with(condition).item()]
assert torch.equal(drawn["zero"], drawn["base"])  # Eq. 3, for a whole sample
table([["start of the output convs", "held-out loss at first", f"after {args.steps} steps"],
       *([name, *(f"{x:.4f}" for x in pair)] for name, pair in held_out_loss.items())])
save_results({"gradient norms": norms, "held-out loss, first and last": held_out_loss})
first, last = (a / b for a, b in zip(held_out_loss["std 0.25"], held_out_loss["zero"]))
verdict(f"a start of std 0.25 multiplies the held-out loss by {first:.1f} at first and by"
        f" {last:.2f} after {args.steps} steps (n = {n}, one seed);",
        "with zero convs the first picture is the base's in every bit.")
figure, (left, right) = figures.plt.subplots(1, 2)
figures.heat(left, norms, said)
left.set(xlabel="backward pass", title="Zero convs wake first (norms)")
for name, curve in curves.items():
    right.plot(curve, label=name)
right.set(xlabel="training step", title="Loss: same batches, three starts", ylim=(0, None))
right.legend()
save_figure(figure)
figure, ax = figures.plt.subplots()
figures.show(ax, torch.cat(list(drawn.values())), 3, left=list(drawn),
             title="Before any training: zero convs change nothing, not one bit",
             below=[words.replace(" on", "\non") for words in describe(truth.prompt)])
save_figure(figure, "_step0")
print("\nEXERCISES  python lessons/exercises check 03a, 03b")
