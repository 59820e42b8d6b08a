"""Lesson 03: can weights that are all zero learn?

Paper: Sec. 3.1, Eq. 2-3 and Fig. 2b; "isn't the gradient zero, too?" is the question that
the authors' FAQ answers. Read zero_conv and ControlNet in minicontrolnet/controlnet.py.
A zero conv y = W x + b, W = b = 0, with g = dL/dy: dL/dW = g x^T, dL/db = g, and
dL/dx = W^T g = 0. It learns, but at first it lets no gradient through to what stands before it.
"""

# %% Options and prediction
import copy

import torch
from _lesson import options, predict, problems_in_one_sentence, result, save_figure, save_results
from torch import nn

from minicontrolnet import (CHANNELS, ControlNet, control_loss, detect_edges, held_out, load_base,
                            predictor, sample_in_batches, seeded, steer, train, zero_conv, zero_conv_gradients)
from minicontrolnet import figures

args = options(__doc__, steps=30, quick_steps=1, full_steps=300)
DDIM = 3 if args.quick else 12  # sampling steps
predicted = predict(args, "Weight and bias of all zero convs are 0. At the first backward pass:", [
    "every gradient is 0: nothing can learn", "only the zero convs at the outputs have a gradient",
    "the whole copy has a gradient, and the base too"])


# %% One layer by hand, in float64
def one_layer() -> None:
    x, g = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(args.seed))
    x.requires_grad_()
    zero = zero_conv(3).double()
    (zero(x) * g).sum().backward()
    dw, db, dx = zero_conv_gradients(x.detach(), zero.weight.detach()[:, :, 0, 0], g)
    assert torch.allclose(zero.weight.grad[:, :, 0, 0], dw, atol=1e-12) and dw.any()  # the input, not 0
    assert torch.allclose(zero.bias.grad, db, atol=1e-12)
    assert x.grad.count_nonzero() == dx.count_nonzero() == 0  # W^T g with W = 0
    print("\none zero conv, float64: dL/dW = g x^T, dL/db = g, dL/dx = 0: as autograd says")

    pair = nn.Sequential(zero_conv(3), zero_conv(3)).double()
    for _ in range(5):
        ((pair(x) - 1) ** 2).sum().backward()
        with torch.no_grad():
            for parameter in pair.parameters():
                parameter -= 0.01 * parameter.grad
                parameter.grad = None
    moved = [f"{name} {'moved' if p.any() else 'still 0'}" for name, p in pair.named_parameters()]
    assert moved == ["0.weight still 0", "0.bias still 0", "1.weight still 0", "1.bias moved"]
    print("two in a row, 5 steps:", ", ".join(moved))
    print("   DISCUSS  with the copy between them both learn. What does the copy put out that they do not?")


# %% The whole network: which group wakes at which backward pass
def groups(base: nn.Module, control: ControlNet) -> dict[str, list[nn.Parameter]]:
    first, entry = control.condition_encoder.layers[:-1], control.condition_encoder.layers[-1]
    return {"locked base": list(base.parameters()), "condition encoder": list(first.parameters()),
            "zero conv at the input": list(entry.parameters()),
            "copy": [*control.embedding.parameters(), *control.encoder.parameters()],
            "zero convs at the outputs": list(control.zero_convs.parameters())}


def gradient_walk(base: nn.Module, passes: int = 4) -> dict[str, list[float | None]]:
    control = seeded(args.seed, ControlNet, base, CHANNELS["edge"]).to(args.device)
    optimiser = torch.optim.AdamW(control.parameters(), lr=1e-3)
    loss, generator = control_loss(base, "edge", drop=0.0), torch.Generator().manual_seed(args.seed)
    walk: dict[str, list[float | None]] = {name: [] for name in groups(base, control)}
    for _ in range(passes):
        optimiser.zero_grad()
        loss(control, generator).backward()
        for name, parameters in groups(base, control).items():
            grads = [p.grad for p in parameters if p.grad is not None]
            walk[name].append(torch.stack([g.norm() for g in grads]).norm().item() if grads else None)
        optimiser.step()
    waking = {name: next((i for i, norm in enumerate(norms) if norm), None) for name, norms in walk.items()}
    assert list(waking.values()) == [None, 2, 1, 1, 0], waking
    return walk


# %% What a start that is not zero does: damage at step 0, and the way back
def gaussian_start(base: nn.Module, std: float, truth, noise: torch.Tensor) -> tuple[list[float], torch.Tensor]:
    control = seeded(args.seed, ControlNet, base, CHANNELS["edge"]).to(args.device)
    generator = torch.Generator().manual_seed(args.seed)
    for conv in control.zero_convs:
        conv.weight.data = (std * torch.randn(conv.weight.shape, generator=generator)).to(args.device)
    steered = steer(copy.deepcopy(control), detect_edges(truth.image).to(args.device))
    pictures = sample_in_batches(lambda part: predictor(base, truth.prompt.to(args.device), steered), noise, DDIM).cpu()
    losses: list[float] = []
    train(control, control_loss(base, "edge"), args.steps, lr=1e-3, seed=args.seed,
          on_step=lambda step, loss, network: losses.append(loss), progress=f"std {std}")
    return losses, pictures


def experiment() -> None:
    one_layer()
    base = load_base(device=args.device)
    walk = gradient_walk(base)
    truth, noise = held_out(4)
    noise = noise.to(args.device)
    stds = (0.0, 0.02, 0.25) if args.quick else (0.0, 0.02, 0.1, 0.25)
    runs = {std: gaussian_start(base, std, truth, noise) for std in stds}
    free = sample_in_batches(lambda part: predictor(base, truth.prompt.to(args.device)), noise, DDIM).cpu()
    assert torch.equal(runs[0.0][1], free), "Eq. 3: at step 0 the whole sample is the base's"

    say = lambda norm: "None" if norm is None else "0" if norm == 0 else f"{norm:.1e}"
    rows = [["gradient norm at backward pass", "0", "1", "2", "3"]]
    rows += [[name, *map(say, norms)] for name, norms in walk.items()]
    rows += [["", "", "", "", ""], ["start of the output convs", "picture changed by", "first loss", "last loss", "x zero's"]]
    end = lambda std: sum(runs[std][0][-10:]) / len(runs[std][0][-10:])
    rows += [[f"N(0, {std}^2)", f"{(pictures - free).abs().mean():.3f}", f"{losses[0]:.3f}", f"{end(std):.3f}",
              f"{losses[0] / runs[0.0][0][0]:.2f}"] for std, (losses, pictures) in runs.items()]
    worst = max(runs)
    harm = runs[worst][0][0] / runs[0.0][0][0]
    verdict = (f"{'confirmed' if harm > 1.05 else 'undecided'}: zero convs wake at pass 0, the copy at 1, the condition"
               f" encoder at 2; y_c - y is exactly 0 at step 0, while a start of std {worst} multiplies the loss by"
               f" {harm:.1f} and after {args.steps} steps still by {end(worst) / end(0.0):.1f} (1 seed).")
    save_results(args, "03_zero_conv", {"gradient norms": walk, "loss over zero's": {
        f"{std}": {"first": losses[0] / runs[0.0][0][0], "last": end(std) / end(0.0)} for std, (losses, _) in runs.items()}})
    result(args, rows, verdict, "b) their input is not zero, so their weights' gradient is not", predicted)
    draw_figure(walk, say, truth, runs)


def draw_figure(walk, say, truth, runs) -> None:
    figure, (left, right) = figures.plt.subplots(1, 2, figsize=(15, 5.5), width_ratios=[3, 2])
    heat = torch.tensor([[norm or 0.0 for norm in norms] for norms in walk.values()])
    left.imshow(heat.clamp(min=1e-6).log10().where(heat > 0, torch.nan).numpy(), cmap="YlOrRd", aspect="auto", alpha=0.7)
    for i, norms in enumerate(walk.values()):
        for j, norm in enumerate(norms):
            left.text(j, i, say(norm), ha="center", va="center")
    left.set_yticks(range(len(walk)), walk)
    left.set_xticks(range(4))
    left.set(xlabel="backward pass", title="Gradient norms: zero convs wake first, the copy next")
    figures.show(right, torch.stack([pictures for _, pictures in runs.values()], 1).flatten(0, 1), len(runs),
                 "At step 0: exactly the base, or damaged")
    right.set_xticks([33 * (i + 0.5) for i in range(len(runs))], ["zero" if std == 0 else f"std {std}" for std in runs])
    save_figure(args, figure, "03_zero_conv")


if __name__ == "__main__":
    with problems_in_one_sentence():
        experiment()
