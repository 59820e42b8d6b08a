"""Lesson 09: control or luck, sudden or gradual, and how many pictures does it take?

Paper: Tab. 2 (conditions detected again), Sec. 3.3 and Fig. 4 (sudden convergence), Sec. 4.5 and
Fig. 10 (1k, 50k and 3M training pictures), Sec. 4.3 (against a model trained on the condition from
the beginning). Read mask_iou and edge_f1 in minicontrolnet/metrics.py, ConditionedUNet in controlnet.py.
--full trains all networks and writes the result file; the default run reads it and measures the
weights that ship again, live. Learning rates: 1e-3 for a ControlNet, 2e-3 from scratch, as in the recipes of the weights.
"""

# %% Options and prediction
from statistics import fmean

import torch
from _lesson import (interval, load_results, options, predict, problems_in_one_sentence, result, save_figure, save_results,
                     verdict_of)
from torch import Tensor, nn

from minicontrolnet import (CHANNELS, ConditionedUNet, ControlNet, Draw, UNet, condition_loss, control_loss, detect_edges, draw,
                            edge_f1, held_out, load_base, load_control, loss_of_condition, mask_iou, mask_of, predictor,
                            sample_in_batches, seeded, steer, to_image, train)
from minicontrolnet import figures
from minicontrolnet.training import BATCH

args = options(__doc__, steps=600, quick_steps=2, full_steps=600, meaning="training steps of a network, with --full")
predicted = predict(args, "At equal steps a ControlNet sees 50 pictures, 500, or new ones all the time. With 50 it", [
    "learns nothing", "follows new outlines, if less well", "follows them as well: the base knows the rest"])
EVERY, SEEDS, LONGER = 30, (0, 1, 2), 4  # steps between two measurements; training seeds; (d) once more, this much longer


# %% Training on a few pictures, and a base that learns the condition from the beginning
def only(n: int):
    """Batches from n pictures, always the same."""
    every = draw(n, torch.Generator().manual_seed(777))

    def pictures(generator: torch.Generator) -> Draw:
        pick = torch.randint(n, (BATCH,), generator=generator)
        return every._replace(image=every.image[pick], x0=every.x0[pick], prompt=every.prompt[pick])

    return pictures


def conditioned_loss(network: ConditionedUNet, generator: torch.Generator) -> Tensor:
    """Eq. 5 with the condition as an input, words dropped as for a ControlNet."""
    return condition_loss(network, network, "edge", generator)


# %% What is measured: the same prompts, outlines and noise for every network, without guidance
class Test:
    """n held-out pictures and their outlines; scores of whatever draws them."""

    def __init__(self, n: int, steps: int):
        self.truth, self.noise = held_out(n)
        self.edges, self.steps = detect_edges(self.truth.image), steps
        self.prompt, self.condition = self.truth.prompt.to(args.device), self.edges.to(args.device)

    def draw(self, model) -> Tensor:
        """Pictures (n, 3, 32, 32) of model(xt, t, prompt, condition) -> eps."""
        bound = lambda part: lambda xt, t: model(xt, t, self.prompt[part], self.condition[part])
        return sample_in_batches(bound, self.noise.to(args.device), self.steps).cpu()

    def scores(self, images: Tensor, shift: int = 0) -> dict[str, list[float]]:
        """IoU and F1 with their own outlines, or with those of a neighbour."""
        return {"IoU": mask_iou(mask_of(images), self.truth.mask.roll(shift, 0)).tolist(),
                "F1": edge_f1(images, self.edges.roll(shift, 0)).tolist()}


def with_control(base: UNet, control: nn.Module):
    return lambda xt, t, prompt, condition: predictor(base, prompt, steer(control, condition))(xt, t)


def table_2(base: UNet, test: Test) -> dict[str, dict[str, list[float]]]:
    """(a): the weights that ship, between ceiling and floor."""
    own = test.draw(with_control(base, load_control("edge", base)))
    free = test.draw(lambda xt, t, prompt, condition: base(xt, t, prompt))
    return {"real pictures": test.scores(to_image(test.truth.x0)), "ControlNet": test.scores(own),
            "conditions shuffled": test.scores(own, 1), "no control": test.scores(free)}


# %% --full
def curve(base: UNet, seed: int, test: Test, small: Test) -> tuple[dict, dict]:
    """(b): a ControlNet's fidelity and held-out loss while it learns; its scores at the end."""
    steps, control = {"step": [], "IoU": [], "loss": []}, seeded(seed, ControlNet, base, CHANNELS["edge"]).to(args.device)

    def on_step(step: int, loss: float, network: nn.Module) -> None:
        if step == 1 or step % EVERY == 0:
            iou = small.scores(small.draw(with_control(base, network)))["IoU"]
            held, condition = loss_of_condition(base, network, "edge", 64)
            for name, value in zip(steps, (step, fmean(iou), held(condition).item())):
                steps[name].append(value)

    control = train(control, control_loss(base, "edge"), args.steps, lr=1e-3, seed=seed, on_step=on_step,
                    progress=f"(b) seed {seed}")
    return steps, test.scores(test.draw(with_control(base, control)))


def run_all(base: UNet, n: int = 96) -> None:
    test, small = Test(n, 12), Test(24, 12)
    numbers: dict = {"table": table_2(base, Test(n, 25)), "curves": [], "pictures": {}, "from scratch": {}}
    for seed in SEEDS:
        steps, scores = curve(base, args.seed + seed, test, small)
        numbers["curves"].append(steps)
        if seed == SEEDS[0]:
            numbers["pictures"]["unlimited"] = scores
    for count in (500, 50):
        control = seeded(args.seed, ControlNet, base, CHANNELS["edge"]).to(args.device)
        control = train(control, control_loss(base, "edge", pictures=only(count)), args.steps, lr=1e-3, seed=args.seed,
                        progress=f"(c) {count} pictures")
        numbers["pictures"][str(count)] = test.scores(test.draw(with_control(base, control)))
    for steps in (args.steps, LONGER * args.steps):
        network = seeded(args.seed, lambda: ConditionedUNet(UNet(), CHANNELS["edge"])).to(args.device)
        network = train(network, conditioned_loss, steps, lr=2e-3, seed=args.seed, progress=f"(d) {steps} steps")
        numbers["from scratch"][str(steps)] = test.scores(test.draw(network))
    rises = [rise(own) for own in numbers["curves"]]
    numbers["half of the rise at step"] = [half for _, half, _ in rises]
    numbers["10 to 90 % within"] = [high - low for low, _, high in rises]
    numbers["share of the rise in the steepest 60 steps"] = [steepest(own) for own in numbers["curves"]]
    save_results(args, "09_evaluation", numbers)


# %% The default run
def rise(curve: dict) -> tuple[float, float, float]:
    """Steps at which the IoU has done 10, 50 and 90 % of its rise, by linear interpolation."""
    low, high = curve["IoU"][0], max(curve["IoU"])
    found = []
    for share in (0.1, 0.5, 0.9):
        goal = low + share * (high - low)
        i = next(i for i, value in enumerate(curve["IoU"]) if value >= goal)
        (x0, x1), (y0, y1) = (curve[name][max(i - 1, 0) : i + 1] if i else curve[name][:1] * 2 for name in ("step", "IoU"))
        found.append(x0 + (x1 - x0) * (goal - y0) / max(y1 - y0, 1e-9))
    return tuple(found)


def steepest(curve: dict) -> float:
    """The share of the IoU's rise that two neighbouring intervals bring (60 steps of 600), the steepest ones."""
    iou = curve["IoU"]
    return max(b - a for a, b in zip(iou, iou[2:])) / (max(iou) - iou[0])


def row(name: str, scores: dict[str, list[float]]) -> list[str]:
    cells = [interval(torch.tensor(scores[what])) for what in ("IoU", "F1")]
    return [name, *("{1:.3f} ({0:.3f} .. {2:.3f})".format(*cell) for cell in cells), len(scores["IoU"])]


def experiment() -> None:
    base = load_base(device=args.device)
    if args.full:
        return run_all(base)
    shipped = load_results("09_evaluation")
    numbers, steps = shipped["numbers"], shipped["steps"]
    live = table_2(base, Test(4 if args.quick else 32, 2 if args.quick else 12))
    rows = [["what (95 % interval)", "mask IoU", "edge F1", "n"], *(row(f"live: {name}", own) for name, own in live.items()),
            *(row(f"(a) {name}, 25 DDIM steps", own) for name, own in numbers["table"].items()),
            *(row(f"(c) {name} pictures, {steps} steps", own) for name, own in numbers["pictures"].items()),
            *(row(f"(d) from scratch, {name} steps", own) for name, own in numbers["from scratch"].items())]
    apart = lambda a, b: interval(torch.tensor(a["IoU"]) - torch.tensor(b["IoU"]))
    say = lambda what, cell: f"{what}: {verdict_of(cell[0], cell[2])} ({cell[1]:+.3f}; {cell[0]:+.3f} .. {cell[2]:+.3f})"
    pictures, scratch = numbers["pictures"], numbers["from scratch"]
    half, width = numbers["half of the rise at step"], numbers["10 to 90 % within"]
    fall = [1 - own["loss"][-1] / own["loss"][0] for own in numbers["curves"]]
    sudden = numbers["share of the rise in the steepest 60 steps"]
    ends = [own["IoU"][-1] for own in numbers["curves"]]
    verdict = "\n   ".join([
        say("control, not luck: own outlines above shuffled ones", apart(live["ControlNet"], live["conditions shuffled"])) + ", live",
        f"half of the rise at step {fmean(half):.0f} ({min(half):.0f} .. {max(half):.0f} in {len(half)} seeds), 10 to 90 %"
        f" within {fmean(width):.0f} of {steps} steps; the steepest 60 bring {min(sudden):.0%} .. {max(sudden):.0%} of it",
        f"pictures and noise held fixed, the loss shows the jump, too ({min(fall):.0%} .. {max(fall):.0%} less at the end); the training loss hides it (lesson 05)",
        say("unlimited pictures above 50", apart(pictures["unlimited"], pictures["50"])),
        say("500 pictures above 50", apart(pictures["500"], pictures["50"])),
        *(say(f"ControlNet after {steps} steps above a UNet from scratch after {name}", apart(pictures["unlimited"], own))
          for name, own in scratch.items()),
        f"n = {len(pictures['50']['IoU'])} pictures; (c) and (d) are of one training seed, and the {len(half)} seeds of (b) end at IoU"
        f" {', '.join(f'{value:.2f}' for value in ends)}: small differences need more seeds."])
    low, _, high = apart(pictures["unlimited"], pictures["50"])
    followed = apart(pictures["50"], numbers["table"]["no control"])[0] > 0
    answer = "a)" if not followed else "b)" if low > 0 else "c)"
    result(args, rows, verdict, answer, predicted)
    draw_figure(numbers, steps)


def draw_figure(numbers: dict, steps: int) -> None:
    figure, (left, right) = figures.plt.subplots(1, 2, figsize=(16, 6.5))
    for i, own in enumerate(numbers["curves"]):
        left.plot(own["step"], own["IoU"], color="C0", label="mask IoU, one line a seed" if i == 0 else None)
        left.plot(own["step"], [value / own["loss"][0] for value in own["loss"]], color="grey",
                  label="held-out loss / its start" if i == 0 else None)
        left.axvline(numbers["half of the rise at step"][i], color="C0", ls=":", label="half of the rise" if i == 0 else None)
    sudden = numbers["share of the rise in the steepest 60 steps"]
    left.set(xlabel="training step", ylim=(0, 1.05), title=f"{min(sudden):.0%} .. {max(sudden):.0%} of the rise in 60 of {steps} steps")
    left.legend(fontsize=11, loc="lower right")
    groups = {**numbers["table"], **{f"{name} pictures" if name != "unlimited" else f"new pictures, {steps} steps": own for name, own in numbers["pictures"].items()},
              **{f"from scratch, {name} steps": own for name, own in numbers["from scratch"].items()}}
    for i, own in enumerate(groups.values()):
        low, middle, high = interval(torch.tensor(own["IoU"]))
        right.errorbar(middle, -i, xerr=[[middle - low], [high - middle]], fmt="o", color="C0", capsize=4)
    right.set_yticks([-i for i in range(len(groups))], groups)
    right.set(xlabel="mask IoU, 95 % interval", xlim=(0, 1.02), title="Between ceiling and floor")
    save_figure(args, figure, "09_evaluation")


if __name__ == "__main__":
    with problems_in_one_sentence():
        experiment()
