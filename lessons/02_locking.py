"""Lesson 02: what is locked, what is copied, and what does training the base itself destroy?

Paper: Sec. 1 and 3.1 (why lock), Sec. 3.2 and Fig. 3 (the 13 connections; +34 % time, +23 %
memory per step). Read lock and ControlNet in minicontrolnet/controlnet.py, Encoder in unet.py.
A dozen pictures of stars, with their edges, train (a) the base itself and (b) a locked base's
copy. Then the condition is taken away: what can the base still draw?
"""

# %% Options and prediction
import copy
import statistics

import torch
from _lesson import options, predict, problems_in_one_sentence, result, save_figure, save_results
from torch import Tensor, nn

from minicontrolnet import (CHANNELS, GUIDANCE, SHAPES, ConditionedUNet, ControlNet, detect_edges, draw, draw_noise,
                            fingerprint, guided, held_out, load_base, noise_loss, predictor, sample_in_batches, seeded, tokenize, train)
from minicontrolnet import figures, speed

args = options(__doc__, steps=80, quick_steps=2, full_steps=600)
predicted = predict(args, "The base is trained on a dozen conditioned stars, half of the time without the condition."
                    " Asked for a square, it then draws:", [
                        "a square, as before", "something worse, or a star", "nothing but noise"])


# %% The same dozen pictures, noise and times for both arms
def stars(n: int) -> tuple[Tensor, Tensor, Tensor]:
    batch = draw(12 * n, torch.Generator().manual_seed(args.seed))
    pick = (batch.scenes.shape == list(SHAPES).index("star")).nonzero()[:n, 0]
    return tuple(x[pick].to(args.device) for x in (batch.x0, batch.prompt, detect_edges(batch.image)))


def few_loss(base: nn.Module, few: tuple[Tensor, Tensor, Tensor]):
    """Eq. 5 on the few pictures, for either arm; half of the conditions are black."""
    def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
        x0, prompt, edges = few
        t, eps = (x.to(args.device) for x in draw_noise(x0, generator))
        keep = (torch.rand(len(x0), 1, 1, 1, generator=generator) < 0.5).to(args.device)
        if isinstance(network, ConditionedUNet):
            model = lambda xt, t: network(xt, t, prompt, edges * keep)
        else:
            model = lambda xt, t: base(xt, t, prompt, network(xt, t, prompt, edges * keep))
        return noise_loss(model, x0, t, eps, base.predicts)
    return loss


@torch.no_grad()
def plain_loss(base: nn.Module, x0: Tensor, prompt: Tensor) -> float:
    """The base's loss without any condition, at fixed noise and times."""
    t, eps = (x.to(args.device) for x in draw_noise(x0, torch.Generator().manual_seed(1)))
    return noise_loss(predictor(base, prompt), x0, t, eps, base.predicts).item()


def frozen_is_not_detached(base: nn.Module, control: ControlNet, few) -> None:
    x0, prompt, edges = few
    t, eps = (x.to(args.device) for x in draw_noise(x0, torch.Generator().manual_seed(1)))
    detached = lambda xt, t: base(xt, t, prompt, tuple(c.detach() for c in control(xt, t, prompt, edges)))
    try:
        noise_loss(detached, x0, t, eps, base.predicts).backward()
        raise AssertionError("a loss without a graph must not go backward")
    except RuntimeError as error:
        print(f"\ndetached controls, or no_grad around the locked base:\n   RuntimeError: {error}")
    print("   Worse, because silent: with one trainable weight elsewhere it runs, and the copy never learns.")


def costs(base: nn.Module, control: ControlNet, direct: ConditionedUNet, few) -> list[list[str]]:
    """Time and memory of a step: the base itself, a true lock, and a lock left out of the optimiser."""
    omitted = copy.deepcopy(base).requires_grad_(True)
    arms = {"train the base itself": (direct, few_loss(base, few), ()), "ControlNet, locked": (control, few_loss(base, few), (base,)),
            "\"lock\" = left out of the optimiser": (control, few_loss(omitted, few), (omitted,))}
    times = speed.seconds(*(speed.one_step(network, loss) for network, loss, _ in arms.values()), rounds=1 if args.quick else 7)
    middle = [statistics.median(own) for own in times]
    size = [speed.memory(*arm[:2], *arm[2]) for arm in arms.values()]
    return [["a training step costs", "time", "memory"], *([name, f"{m / middle[0]:.2f}", f"{s / size[0]:.2f}"]
            for name, m, s in zip(arms, middle, size)), ["the paper, ControlNet / base", "1.34", "1.23"]]


def experiment() -> None:
    base = load_base(device=args.device)
    before = fingerprint(base.state_dict())
    few, (truth, noise) = stars(12), held_out(24 if args.quick else 64)
    direct = seeded(args.seed, ConditionedUNet, base).to(args.device)
    control = seeded(args.seed, ControlNet, base, CHANNELS["edge"]).to(args.device)
    print("\nthe 13 connections; x3 in Fig. 3 is the first conv or a downsampling, and two residual blocks")
    maps = control(few[0], torch.zeros(12, dtype=torch.long, device=args.device), *few[1:])
    print("   " + ", ".join(f"{tuple(m.shape[1:])}" for m in maps))
    frozen_is_not_detached(base, control, few)
    price = costs(base, seeded(0, ControlNet, base, 1).to(args.device), seeded(0, ConditionedUNet, base).to(args.device), few)
    direct, control = (train(network, few_loss(base, few), args.steps, lr=1e-3, seed=args.seed, progress=name)
                       for network, name in ((direct, "direct"), (control, "locked copy")))
    assert fingerprint(base.state_dict()) == before  # true by construction; it is what the lock buys

    bases = {"before": base, "base trained itself": direct.base, "locked, with a copy": base}
    rows = [["base's loss, no condition", *(f"{shape}" for shape in SHAPES), "the few stars"]]
    x0, prompt = truth.x0.to(args.device), truth.prompt.to(args.device)
    losses = {name: [plain_loss(b, x0[k], prompt[k]) for k in (truth.scenes.shape == i for i in range(4))]
              + [plain_loss(b, *few[:2])] for name, b in bases.items()}
    rows += [[name, *(f"{value:.4f}" for value in own)] for name, own in losses.items()]
    rows += [[""] * 6, *([*row, "", "", ""] for row in price)]
    others = lambda name: sum(losses[name][:3]) / sum(losses["before"][:3])
    forgot = others("base trained itself")
    save_results(args, "02_locking", {"losses": losses, "elsewhere": {name: others(name) for name in bases},
                                      "time": {row[0]: float(row[1]) for row in price[1:]},
                                      "memory": {row[0]: float(row[2]) for row in price[1:]}})
    verdict = (f"{'confirmed' if forgot > 1.1 else 'undecided'}: {args.steps} steps on 12 stars multiply the base's loss on the"
               f" three other shapes by {forgot:.2f} and on those stars by {losses['base trained itself'][4] / losses['before'][4]:.2f};"
               f"\n   locked: by {others('locked, with a copy'):.2f}, same fingerprint: the change is exactly 0 (1 seed).")
    result(args, rows, verdict, "b)" if forgot > 1.1 else "not b) yet: more --steps", predicted)
    draw_figure(bases, noise, f"trained on 12 stars, the base forgets: its loss elsewhere x {forgot:.1f}")


def draw_figure(bases, noise, title) -> None:
    words = [f"{colour} {shape} on {ground}" for shape, colour, ground in zip(SHAPES, ["yellow", "black", "red", "cyan"],
                                                                             ["blue", "orange", "cyan", "purple"])]
    prompt, few_steps = tokenize(words * 2).to(args.device), 4 if args.quick else 20
    drawn = [sample_in_batches(lambda part: guided(b, prompt[part], GUIDANCE), noise[:8].to(args.device), few_steps).cpu()
             for b in bases.values()]
    figure, ax = figures.plt.subplots(figsize=(14, 6.6))
    figures.show(ax, torch.cat(drawn), 8, title)
    ax.set_yticks([33 * (i + 0.5) for i in range(3)], ["before", "base\ntrained itself", "locked,\nwith a copy"])
    ax.set_xticks([33 * (i + 0.5) for i in range(8)], [word.replace(" on", "\non") for word in words * 2])
    save_figure(args, figure, "02_locking")


if __name__ == "__main__":
    with problems_in_one_sentence():
        experiment()
