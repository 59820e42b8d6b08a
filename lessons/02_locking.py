# %% [markdown]
# # Lesson 02: What is locked, what is copied, what does training the base destroy?
# Sec. 1, 3.1: why to lock. Sec. 3.2, Fig. 3: 13 connections, and what a step costs.
# After its exercises read `lock` and `ControlNet` in minicontrolnet/controlnet.py.

# %%
import copy

import torch
from _figures import architecture
from _lesson import options, predict, reveal, save_figure, save_results, table, verdict

from minicontrolnet import (ConditionedUNet, ControlNet, base_loss, colours_right,
                            condition_loss, control_loss, ddim, detect_edges, figures,
                            fingerprint, load_base, load_classifier, mask_iou,
                            mask_of, paired, random_batch, sample, seeded, shapes_right,
                            speed, to_image, train)

args = options("02_locking", steps=200, quick_steps=2)
base = load_base(device=args.device)
control, mark = seeded(args.seed, ControlNet, base), fingerprint(base.state_dict())

# %% [markdown]
# ## The 13 connections (Fig. 3)
# A UNet's encoder shrinks the grid, 16, 8, 4, 2 wide; the middle works on the smallest;
# the decoder grows it back, and gets the encoder's maps of each size, the skips. The
# copy is `copy.deepcopy` of the base's encoder with its middle. Its 13 outputs go
# through zero convs and are *added* to the base's 12 skips and middle. The decoder then
# *concatenates* each sum, as it always did with its skips: its weights fit as they are.

# %%
save_figure(architecture(base, control), "_architecture")
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
cut = lambda *inputs: base(*inputs[:3], [c.detach() for c in control(*inputs)])
assert not condition_loss(cut, base, "edge", torch.Generator()).requires_grad
unlocked, released, fresh = map(copy.deepcopy, (base, base, control))
unlocked.requires_grad_(True), released.decoder.requires_grad_(True)
arms = {"the base itself": (unlocked, base_loss),
        "ControlNet, locked": (fresh, control_loss(base, "edge"), base),
        "the released code's way": (fresh, control_loss(released, "edge"), released),
        "nothing locked": (fresh, control_loss(unlocked, "edge"), unlocked)}
costs = speed.relative_costs(arms, rounds=1 if args.quick else 7)
table([["a training step of", "arithmetic", "time", "memory"],
       *([name, *(f"{x:.2f}" for x in row)] for name, row in costs.items())])
size = [sum(p.numel() for p in net.parameters()) / 1e6 for net in (base, control)]
print("   weights: base {:.2f} M; each condition adds {:.2f} M".format(*size))
guess = predict("The base itself is trained on 100 pictures with outlines, in four of"
                " the eight colours. Then it is asked for others. It draws",
                a="those: it knew them before", b="the four of the 100 pictures")

# %% [markdown]
# ## Train the base, or a copy of it (Sec. 3.1)
# Both get the same 100 circles and squares, noise, steps (the first third of a plan, so
# the bar ends there) and rate. The base itself takes the condition after its first
# conv. Then other colours and shapes are asked for: what is kept, and are outlines
# followed (mask IoU)? Without its copy the base draws as before.

# %%
generator = torch.Generator().manual_seed(args.seed)
n, ddim_steps = (8, 3) if args.quick else (32, 12)
noise = torch.randn(n, 3, 64, 64, generator=generator).to(args.device)
world = random_batch(1000, generator)
s, take = world.scenes, lambda pick: world.map(lambda x: x[pick])
few = ((s.colour < 4) & (s.background < 4) & (s.shape < 2)).nonzero()[:100, 0]
new = take(((s.colour > 3) & (s.background > 3) & (s.shape > 1)).nonzero()[:n, 0])
prompt, edges = new.prompt.to(args.device), detect_edges(new.image).to(args.device)
next_batch = lambda g: take(few[torch.randint(len(few), (16,), generator=g)])
own_loss = lambda net, g: condition_loss(net, net, "edge", g, 0.5, next_batch)
plan = {"steps": 3 * args.steps, "stop_at": args.steps, "lr": 2e-3, "seed": args.seed}
itself = train(seeded(args.seed, ConditionedUNet, base).to(args.device), own_loss,
               progress="the base itself", **plan)
control = train(control, control_loss(base, "edge", 0.5, next_batch), progress="a copy",
                **plan)
assert fingerprint(base.state_dict()) == mark  # byte for byte: that is what a lock buys
draw = lambda *controls: sample(base, prompt, noise, controls, 1, ddim_steps)
model = lambda xt, t: itself(xt, t, prompt, edges)
drawn = {"before": draw(), "trained itself": to_image(ddim(model, noise, ddim_steps)),
         "locked + copy": draw((control, edges))}
change = (draw() - drawn["before"]).abs()
assert not change.any()
classifier = load_classifier().to(args.device)
mask = new.mask.to(args.device)
right = {name: {"right colours": colours_right(images, prompt).float(),
                "right shape": shapes_right(images, prompt, classifier).float(),
                "IoU with the outline": mask_iou(mask_of(images), mask)}
         for name, images in drawn.items()}
share = {name: {k: x.mean().item() for k, x in own.items()}
         for name, own in right.items()}
table([[f"asked for what is new, n = {n}", *share["before"]],
       *([name, *(f"{x:.2f}" for x in own.values())] for name, own in share.items())])
copied, (colours, _, iou) = right["locked + copy"], share["before"]
kept = paired(copied[colours] - right["trained itself"][colours])
more = paired(copied[iou] - right["before"][iou])
reveal(guess, "b" if kept.low > 0 else "a", "see the table, right colours.",
       a="nothing in its training asked it to keep what it knew.",
       b="so few steps made it forget but little.")
verdict(f"IoU: trained itself {share['trained itself'][iou]:.2f}, and its colours are"
        f" lost; locked + copy {share['locked + copy'][iou]:.2f}.",
        f"{kept.verdict}: locked, more pictures have the prompt's colours than trained"
        f" itself, {kept}, n = {n}, one seed; the locked base changed by exactly 0.",
        f"{more.verdict}: it follows outlines of shapes that it never saw, IoU {more}.")
save_results({"costs": costs, "asked for what is new": share, "M weights": size})
rows = [images[:8].expand(-1, 3, -1, -1) for images in (edges, *drawn.values(), change)]
told = [f"{name}\n{own[colours]:.0%}, {own[iou]:.2f}" for name, own in share.items()]
save_figure(figures.grid(
    torch.cat(rows), 8, "New colours and shapes, asked for with an outline:"
    f" share of right colours, IoU (n = {n})",
    figures.captions(prompt[:8], lines=3), ["outline", *told, "copy off\n- before"]))
print("\nEXERCISES  02a, 02b: python lessons/exercises")
