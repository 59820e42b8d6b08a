# %% [markdown]
# # Lesson 03: Can weights that are all zero learn?
# Sec. 3.1, Eq. 2-3 and Fig. 2b; the authors' FAQ answers "is the gradient zero, too?"
# After 03a read `zero_conv`, `ControlNet` in minicontrolnet/controlnet.py. 40 seconds.

# %%
import torch
from _figures import architecture
from _lesson import options, predict, reveal, save_figure, save_results, table, verdict
from torch import nn

from minicontrolnet import (ControlNet, control_loss, detect_edges, figures, held_out,
                            load_base, loss_of_condition, sample, seeded, train,
                            zero_conv, zero_conv_gradients)

args = options("03_zero_conv", steps=60, quick_steps=2)
base = load_base(device=args.device)
guess = predict("All zero convs have weight 0 and bias 0. At the first backward pass",
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
generator = torch.Generator().manual_seed(args.seed)
x, g = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=generator)
conv = zero_conv(3).double()
(conv(x.requires_grad_()) * g).sum().backward()
dw, db, dx = zero_conv_gradients(x.detach(), conv.weight.detach()[:, :, 0, 0], g)
for by_autograd, by_hand in ((conv.weight.grad[:, :, 0, 0], dw), (conv.bias.grad, db)):
    assert torch.allclose(by_autograd, by_hand, atol=1e-12) and by_hand.all()
assert not x.grad.any() and not dx.any()
pair = nn.Sequential(zero_conv(3), zero_conv(3)).double()
optimiser = torch.optim.SGD(pair.parameters(), lr=0.01)
for _ in range(5):
    optimiser.zero_grad()
    (pair(x.detach()) - 1).square().sum().backward()
    optimiser.step()
assert [name for name, p in pair.named_parameters() if p.any()] == ["1.bias"]

# %% [markdown]
# ## The whole network: who wakes when
# A ControlNet has zero convs at its outputs and one behind the condition encoder; the
# copy stands between. A gradient of None is not one of 0: the locked base's weights ask
# for none, so none is computed. An exact 0 was computed, and will not stay.

# %%
control = seeded(args.seed, ControlNet, base)
optimiser = torch.optim.AdamW(control.parameters())
entry = control.condition_encoder.layers
groups = {"locked base": base,
          "condition encoder": entry[:-1], "zero conv at the input": entry[-1],
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
text = lambda norm: "None" if norm is None else f"{norm:.0e}" if norm else "0"
said = {name: [text(norm) for norm in row] for name, row in norms.items()}
table([["gradient at backward pass", *range(4)], *([k, *v] for k, v in said.items())])
waking = [next((i for i, x in enumerate(row) if x), None) for row in norms.values()]
assert waking == [None, 2, 1, 1, 0]
reveal(guess, "b", because="dL/dW holds the input, not the weight.",
       a="the derivative of y = W x by W is x, and x is not 0.",
       c="dL/dx = W^T g is 0 as long as W is; and the base asks for no gradient.")
colours = dict(zip(groups, ("lightgrey", "tomato", "orange", "orange", "gold")))
save_figure(architecture(base, control, colours, "First gradient: yellow at pass 0,"
                         " orange at 1, red at 2, grey never"), "_architecture")

# %% [markdown]
# ## What another start does (Eq. 3)
# With zero convs y_c = y: the first pictures are the base's own, in every bit. Output
# convs that start Gaussian put noise on 13 maps. All starts train on the same batches,
# too few to follow an outline yet (lesson 05): a loss that stays says nothing of zeros.

# %%
(truth, noise), ddim_steps, n = held_out(4, args.device), 3 if args.quick else 20, 32
edges, lost, curves = detect_edges(truth.image), {}, {}
drawn = {"base": sample(base, truth.prompt, noise, (), 1, ddim_steps)}
for name, std in {"zero": 0.0, "std 0.02": 0.02, "std 0.25": 0.25}.items():
    control = seeded(args.seed, ControlNet, base)
    for conv in control.zero_convs:
        start = torch.randn(conv.weight.shape, generator=generator)
        conv.weight.data.copy_(std * start)
    drawn[name] = sample(base, truth.prompt, noise, [(control, edges)], 1, ddim_steps)
    loss_with, condition = loss_of_condition(base, control, "edge", n)
    lost[name], curves[name] = [loss_with(condition).item()], []
    train(control, control_loss(base, "edge"), args.steps, lr=1e-3, seed=args.seed,
          on_step=lambda step, loss, _: curves[name].append(loss), progress=name)
    lost[name].append(loss_with(condition).item())
assert torch.equal(drawn["zero"], drawn["base"])  # Eq. 3, for whole samples
table([["output convs start", "held-out loss at first", f"after {args.steps} steps"],
       *([name, *(f"{x:.4f}" for x in both)] for name, both in lost.items())])
by = [f"{a / b:.2f}" for a, b in zip(lost["std 0.25"], lost["zero"])]
verdict(f"A start of std 0.25 multiplies the held-out loss by {by[0]} at first, by"
        f" {by[1]} at last; n = {n}, one seed.")
save_figure(figures.grid(
    torch.cat(list(drawn.values())), 4, "Before any training zero convs change nothing",
    figures.captions(truth.prompt), [*drawn]), "_step0")
figure, (left, right) = figures.plt.subplots(1, 2)
figures.heat(left, norms, said)
left.set(xlabel="backward pass", title="Output zero convs wake first (norms)")
for width, (name, curve) in zip((8, 5, 2), curves.items()):
    right.plot(curve, label=name, lw=width)
right.set(xlabel="training step", ylim=(0, None), title="Loss, by the convs' start")
right.legend()
save_figure(figure)
save_results({"gradient norms": norms, "held-out loss, first and last": lost})
print("\nEXERCISES  03a, 03b: python lessons/exercises")
