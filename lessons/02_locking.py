# %% [markdown]
# # Lesson 02: What is locked, what is copied, and what does training the base destroy?
# Sec. 1 and 3.1 say why to lock; Sec. 3.2 and Fig. 3 show the 13 connections and a
# step's cost. Read `lock`, `ControlNet` (controlnet.py), `Encoder` (unet.py). 1 minute.

# %%
import copy

import torch
from _lesson import options, predict, reveal, save_figure, save_results, table, verdict

from minicontrolnet import (ConditionedUNet, ControlNet, base_loss, colours_right,
                            condition_loss, control_loss, ddim, describe, detect_edges,
                            figures, fingerprint, load_base, load_classifier, paired,
                            random_batch, sample, seeded, shapes_right, speed, to_image,
                            train)
from minicontrolnet.diagram import architecture

args = options("02_locking", steps=150, quick_steps=2)
base = load_base(device=args.device)
mark = fingerprint(base.state_dict())
control = seeded(args.seed, ControlNet, base)

# %% [markdown]
# ## The 13 connections (Fig. 3)
# The copy is `copy.deepcopy` of the base's encoder with its middle. Its 13 outputs go
# through zero convs and are *added* to the base's 12 skips and middle. The decoder then
# *concatenates* each sum, as it always did with its skips: its weights fit as they are.

# %%
save_figure(architecture(base, control), "_architecture")
assert control.encoder.channels == base.encoder.channels and len(base.encoder.channels) == 13
assert base.decoder.levels[0][0].conv1.in_channels == sum(base.encoder.channels[-2:])

# %% [markdown]
# ## Locked is not detached
# The gradient must pass *through* the locked decoder to reach the copy. Where the graph
# is cut there, nothing can learn. Here PyTorch says so; with one trainable weight
# elsewhere it says nothing, and the copy never learns.

# %%
cut = lambda *inputs: base(*inputs[:3], [c.detach() for c in control(*inputs)])
try:
    condition_loss(cut, base, "edge", torch.Generator()).backward()
    raise AssertionError("a loss without a graph must not go backward")
except RuntimeError as error:
    print(f"\ndetached controls: RuntimeError: {str(error)[:55]} ...")

# %% [markdown]
# ## What the lock saves
# A true lock computes no gradient of a locked weight and keeps no graph of the base's
# encoder. The released code keeps none either, but its decoder's weights get gradients,
# which are thrown away. A "lock" that is only left out of the optimiser computes them
# all. The paper measured 1.34 in time and 1.23 in memory.

# %%
open_base, released, fresh = map(copy.deepcopy, (base, base, control))
open_base.requires_grad_(True), released.decoder.requires_grad_(True)
arms = {"the base itself": (open_base, base_loss)}
for name, under in {"ControlNet, locked": base, "the released code's way": released,
                    "nothing locked": open_base}.items():
    arms[name] = fresh, control_loss(under, "edge"), under
costs = speed.relative_costs(arms, rounds=1 if args.quick else 7)
table([["a training step of", "arithmetic", "time", "memory"],
       *([name, *(f"{x:.2f}" for x in row)] for name, row in costs.items())])
size = [sum(p.numel() for p in net.parameters()) / 1e6 for net in (base, control)]
print(f"   a condition: {size[1]:.2f} M weights ({2 * size[1]:.1f} MB in half precision);"
      f" another base: {size[0]:.2f} M ({2 * size[0]:.1f} MB)")

# %%
guess = predict("The base itself is trained on 100 pictures with outlines: circles and"
                " squares in four colours. For a purple star and its outline it draws",
                a="a purple star: it could do that before",
                b="the outline's shape in colours of the 100 pictures", c="noise")

# %% [markdown]
# ## Train the base, or a copy of it (Sec. 3.1)
# Both get the same 100 pictures, noise, steps and the learning rate of the base. The
# directly trained one takes the condition after its first conv, which is the same as
# concatenating it to the input. Only colours and shapes that are new are asked for.

# %%
generator = torch.Generator().manual_seed(args.seed)
n, ddim_steps = (4, 3) if args.quick else (32, 20)
noise = torch.randn(n, 3, 64, 64, generator=generator).to(args.device)
world = random_batch(1000, generator)
s = world.scenes
few = ((s.colour < 4) & (s.background < 4) & (s.shape < 2)).nonzero()[:100, 0]
new = ((s.colour > 3) & (s.background > 3) & (s.shape > 1)).nonzero()[:n, 0]
prompt = world.prompt[new].to(args.device)
edges = detect_edges(world.image[new]).to(args.device)


def next_batch(generator):
    pick = few[torch.randint(len(few), (16,), generator=generator)]
    return world.map(lambda x: x[pick])


draw = lambda *controls: sample(base, prompt, noise, controls, 1, ddim_steps)
direct_loss = lambda net, g: condition_loss(net, net, "edge", g, 0.5, next_batch)
before = draw()
direct = train(seeded(args.seed, ConditionedUNet, base).to(args.device), direct_loss,
               args.steps, lr=2e-3, seed=args.seed, progress="the base itself")
control = train(control, control_loss(base, "edge", 0.5, next_batch), args.steps,
                lr=2e-3, seed=args.seed, progress="a copy")
assert fingerprint(base.state_dict()) == mark  # byte for byte: that is what a lock buys
itself = ddim(lambda xt, t: direct(xt, t, prompt, edges), noise, ddim_steps)
drawn = {"before": before, "trained itself": to_image(itself),
         "locked": draw((control, edges))}
classifier, change = load_classifier().to(args.device), (draw() - before).abs()
assert not change.any()  # take the copy away, and the base draws as before
right = {name: [colours_right(images, prompt).float(),
                shapes_right(images, prompt, classifier).float()]
         for name, images in drawn.items()}
share = {name: {"right colours": c.mean().item(), "right shape": s.mean().item()}
         for name, (c, s) in right.items()}
table([["asked for what is new", *share["before"]],
       *([name, *(f"{x:.2f}" for x in own.values())] for name, own in share.items())])
reveal(guess, "b", because="what the 100 pictures do not show is forgotten.",
       a="nothing in its training asked it to keep what it knew.",
       c="it still draws clean pictures, like those of the 100.")
save_results({"costs": costs, "asked for what is new": share, "M weights": size})
kept = paired(right["locked"][0] - right["trained itself"][0])
verdict(f"{kept.verdict}: locked, more pictures keep the prompt's colours than trained"
        f" itself, {kept}, n = {n}, one seed; the locked base changed by exactly 0.")
figure, (left, bars) = figures.plt.subplots(1, 2, width_ratios=[3, 2])
rows = [edges.expand(-1, 3, -1, -1), *drawn.values(), change]
figures.show(left, torch.cat([images[:4] for images in rows]), 4,
             left=["outline", *drawn, "copy off\n- before"],
             below=[words.replace(" ", "\n", 2) for words in describe(prompt[:4])])
figures.bars(bars, share)
bars.set(ylabel=f"share of {n} pictures")
figure.suptitle("New colours, right: " + ", ".join(
    f"{name} {own['right colours']:.0%}" for name, own in share.items()))
save_figure(figure)
print("\nEXERCISES  python lessons/exercises check 02a, 02b")
