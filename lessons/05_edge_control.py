"""Lesson 05: does the copy learn to follow edges, and does the loss show it?

Paper: Sec. 3.3 and Fig. 4 (training), Eq. 1-5. Read control_loss and train in
minicontrolnet/training.py, ControlNet.forward in minicontrolnet/controlnet.py.
The base that ships is locked; a fresh ControlNet is trained here, live, by
fixed steps: about a minute on two cores (--full: the recipe of the shipped weights).
"""

# %% Options and prediction
import torch
from _lesson import interval, options, predict, problems_in_one_sentence, result, save_figure, save_results, verdict_of

from minicontrolnet import (CHANNELS, ControlNet, control_loss, detect_edges, edge_f1, fingerprint, gap, guided,
                            held_out, load_base, load_control, mask_iou, mask_of, predictor,
                            sample_in_batches, seeded, steer, to_image, train)
from minicontrolnet import figures

args = options(__doc__, steps=200, quick_steps=4, full_steps=4000)
CHOICES = ["the loss falls by half or more, and with it the outlines are followed",
           "the outlines are followed, though the loss hardly moves",
           "nothing: weights that are zero cannot learn"]
predicted = predict(args, f"After {args.steps} steps of training a zero-initialised copy:", CHOICES)


# %% The experiment
def experiment() -> None:
    base = load_base(device=args.device)  # locked: no gradient, no change
    before = fingerprint(base.state_dict())
    control = seeded(args.seed, ControlNet, base, CHANNELS["edge"]).to(args.device)

    truth, noise = held_out(8 if args.quick else 24)
    edges = detect_edges(truth.image)
    prompt, condition, noise = (x.to(args.device) for x in (truth.prompt, edges, noise))

    def draw_with(network: ControlNet) -> torch.Tensor:
        """The same prompts, outlines and noise every time; only the ControlNet differs."""
        model = lambda part: guided(base, prompt[part], 1.0, steer(network, condition[part]))
        return sample_in_batches(model, noise, steps=4 if args.quick else 12, batch=24).cpu()

    curve, losses, pictures = {}, [], {}

    def measure(step: int, network: ControlNet) -> None:
        pictures[step] = draw_with(network)
        iou, f1 = mask_iou(mask_of(pictures[step]), truth.mask), edge_f1(pictures[step], edges)
        curve[step] = {"IoU": iou, "F1": f1, "gap": gap(base, network, "edge", 8 if args.quick else 32)}

    marks = {round(args.steps * share) for share in ((1,) if args.quick else (0.4, 0.6, 0.8, 1))}

    def on_step(step: int, loss: float, network: ControlNet) -> None:
        losses.append(loss)
        if step in marks:
            measure(step, network)
            print(f"   step {step}: IoU {curve[step]['IoU'].mean():.2f}, loss {loss:.4f}", flush=True)

    measure(0, control)
    free = sample_in_batches(lambda part: predictor(base, prompt[part]), noise,
                             steps=4 if args.quick else 12, batch=24).cpu()
    assert torch.equal(free, pictures[0]), "a zero conv must change nothing before training (Eq. 3)"
    try:
        # A short run takes the first third of a longer run's learning rates: they must not fall yet.
        plan = args.steps if args.full else 3 * args.steps
        train(control, control_loss(base, "edge"), plan, lr=1e-3, seed=args.seed, stop_at=args.steps,
              on_step=on_step, progress="training the copy")
    except KeyboardInterrupt as stop:
        print(f"{stop}; going on with what there is")
    assert fingerprint(base.state_dict()) == before, "the locked base must not change"
    shipped = load_control("edge", base)
    pictures["shipped"] = draw_with(shipped)
    report(truth, edges, curve, losses, pictures, gap(base, shipped, "edge", 32))


# %% Result and figure
def report(truth, edges, curve, losses, pictures, shipped_gap) -> None:
    ceiling = to_image(truth.x0)
    last = max(curve)
    line = lambda name, images, mask, lines, gap_: [
        name, f"{mask_iou(mask_of(images), mask).mean():.2f}", f"{edge_f1(images, lines).mean():.2f}", gap_]
    rows = [["what", "mask IoU", "edge F1", "shuffle gap"]]
    rows += [line(f"after {s} steps", pictures[s], truth.mask, edges, f"{curve[s]['gap']:+.4f}") for s in curve]
    rows += [line("weights that ship", pictures["shipped"], truth.mask, edges, f"{shipped_gap:+.4f}"),
             line("ceiling: real pictures", ceiling, truth.mask, edges, ""),
             line("floor: outlines shuffled", pictures[last], truth.mask.roll(1, 0), edges.roll(1, 0), "")]
    low, mean, high = interval(curve[last]["IoU"] - curve[0]["IoU"])
    tenth = max(1, len(losses) // 4)
    fall = 1 - sum(losses[-tenth:]) / sum(losses[:tenth])
    verdict = (f"{verdict_of(low, high)}: {last} steps raise the IoU by {mean:.2f} (95 % interval {low:.2f} .. {high:.2f},"
               f" n = {len(truth.mask)}); the noisy loss fell by {fall:.0%} meanwhile.")
    save_results(args, "05_edge_control", {"loss fell by": fall, "IoU rose by": [low, mean, high],
                                           **{f"step {s}": {name: float(v.mean() if name != "gap" else v) for name, v in own.items()}
                                              for s, own in curve.items()}})
    result(args, rows, verdict, "b) the loss is mostly noise: measure fidelity" if fall < 0.5 else "a)", predicted)
    draw_figure(truth, edges, curve, losses, pictures,
                f"{last} steps: IoU {curve[0]['IoU'].mean():.2f} to {curve[last]['IoU'].mean():.2f}")


def draw_figure(truth, edges, curve, losses, pictures, title) -> None:
    figure, (top, below) = figures.plt.subplots(2, 1, figsize=(11, 10.5), height_ratios=[3, 2])
    few = slice(0, 5)
    columns = [figures.enlarge(edges[few], 2)]
    columns += [figures.outlined(images[few], edges[few]) for images in pictures.values()]
    figures.show(top, torch.stack(columns, 1).flatten(0, 1), len(columns), title)
    names = ["outline", *(f"step {s}" if s != "shipped" else s for s in pictures)]
    width = columns[0].shape[-1] + 1
    top.set_xticks([width * (i + 0.5) for i in range(len(names))], names)
    for name in ("F1", "IoU"):
        below.plot(list(curve), [scores[name].mean() for scores in curve.values()], "o-", label=f"{name} with the outline")
    ceiling, floor = edge_f1(to_image(truth.x0), edges), edge_f1(list(pictures.values())[-2], edges.roll(1, 0))
    below.axhline(ceiling.mean(), color="C0", ls=":", label="F1 of real pictures, and with shuffled outlines")
    below.axhline(floor.mean(), color="C0", ls=":")
    smooth = torch.tensor(losses).unfold(0, min(20, len(losses)), 1).mean(1)
    below.plot(range(len(losses) - len(smooth) + 1, len(losses) + 1), smooth / smooth[0], color="grey", label="loss / its start")
    below.set(xlabel="training step", ylabel="share", ylim=(0, None))
    below.legend(fontsize=11)
    save_figure(args, figure, "05_edge_control")


if __name__ == "__main__":
    with problems_in_one_sentence():
        experiment()
