"""Lesson 08: what do the zero start, the full copy, the base's weights and the dropped prompts buy?

Paper: Sec. 4.2 and Fig. 8 (zero convs, Gaussian-initialised convs, ControlNet-lite, each with no,
insufficient, conflicting and perfect prompts). The copy of a random initialisation is not in the
paper: it isolates what the base's weights buy. Read ControlNet in minicontrolnet/controlnet.py.
--full trains every arm with two seeds and writes the result file that the default run reads; the
default run trains the first steps of two arms again, live.
"""

# %% Options and prediction
from statistics import fmean

import torch
import torch.nn.functional as F
from _lesson import (interval, load_pictures, load_results, options, predict, problems_in_one_sentence, result, save_figure,
                     save_results, verdict_of)
from torch import Tensor, nn

from minicontrolnet import (GUIDANCE, SHAPES, ConditionEncoder, ControlNet, UNet, control_loss, detect_edges, edge_f1,
                            frechet_distance, guided, held_out, load_base, load_classifier, loss_of_condition, mask_iou, mask_of,
                            predictor, sample_in_batches, seeded, steer, to_image, train, zero_conv)
from minicontrolnet import figures

PLAN = 400  # steps of every arm; a shorter run takes the first of them
args = options(__doc__, steps=40, quick_steps=2, full_steps=PLAN)
predicted = predict(args, f"After {PLAN} steps with the full copy, Gaussian-initialised convs in place of zero convs", [
    "catch up: training repairs the start", "follow the outlines less well than zero convs",
    "follow them better: they have a gradient from the first step"])


# %% The arms
class Lite(nn.Module):
    """ControlNet-lite (Fig. 8c): one conv layer in place of each copied block; 13 controls, as ControlNet's."""

    def __init__(self, base: UNet):
        super().__init__()
        c, convs = base.encoder.channels, [nn.Conv2d(3, base.encoder.channels[0], 3, padding=1)]
        for (c_in, c_out), block in zip(zip(c, c[1:]), [*base.encoder.blocks, base.encoder.middle]):
            stride = block.stride if isinstance(block, nn.Conv2d) else 1  # a downsampling is a conv
            convs.append(nn.Conv2d(c_in, c_out, 3, stride, padding=1))
        self.convs = nn.ModuleList(convs)
        self.condition_encoder = ConditionEncoder(1, c[0])
        self.zero_convs = nn.ModuleList(map(zero_conv, c))
        self.to(memory_format=torch.channels_last)

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor, condition: Tensor) -> tuple[Tensor, ...]:
        maps = [F.silu(self.convs[0](xt) + self.condition_encoder(condition))]
        for conv in self.convs[1:]:
            maps.append(F.silu(conv(maps[-1])))
        return tuple(zero(h) for zero, h in zip(self.zero_convs, maps, strict=True))


def gaussian(base: UNet, std: float | None) -> ControlNet:
    """A ControlNet whose zero convs start as N(0, std^2); None: std^2 = 1 / fan_in."""
    control = ControlNet(base)
    for conv in [*control.zero_convs, control.condition_encoder.layers[-1]]:
        nn.init.normal_(conv.weight, std=conv.in_channels**-0.5 if std is None else std)
    return control


ARMS = {"zero convs": ControlNet, "N(0, 1/fan_in)": lambda base: gaussian(base, None),
        "N(0, 0.02^2)": lambda base: gaussian(base, 0.02), "lite": Lite,
        "random copy": lambda base: ControlNet(UNet()), "no dropped prompts": ControlNet}
LIVE = ["zero convs", "N(0, 1/fan_in)"]


# %% What is measured: four kinds of prompt for the same outlines and noise
def prompts(full: Tensor) -> dict[str, Tensor]:
    """Fig. 8's kinds: nothing, what leaves the object out, another shape, all three words."""
    other = full.clone()
    other[:, 1] = full[:, 1] % len(SHAPES) + 1
    return {"none": 0 * full, "insufficient": full * torch.tensor([0, 0, 1]), "conflicting": other, "perfect": full}


def measure(base: UNet, control: nn.Module, truth, noise: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Per kind of prompt, what is drawn and the IoU (n,) with the outline's inside."""
    condition, pictures = detect_edges(truth.image).to(args.device), {}
    for kind, words in prompts(truth.prompt).items():
        words = words.to(args.device)
        model = lambda part: guided(base, words[part], GUIDANCE, steer(control, condition[part]))
        pictures[kind] = sample_in_batches(model, noise.to(args.device), 12).cpu()
    return pictures, {kind: mask_iou(mask_of(images), truth.mask) for kind, images in pictures.items()}


@torch.no_grad()
def change_at_step_0(base: UNet, control: nn.Module, truth, noise: Tensor) -> float:
    """Mean |y_c - y| over mean |y|, of eps at t = 500 (Eq. 3: 0 for zero convs)."""
    t, prompt = torch.full((len(noise),), 500, device=args.device), truth.prompt.to(args.device)
    xt, steered = noise.to(args.device), steer(control, detect_edges(truth.image).to(args.device))
    y, y_c = predictor(base, prompt)(xt, t), predictor(base, prompt, steered)(xt, t)
    return ((y_c - y).abs().mean() / y.abs().mean()).item()


def train_arm(base: UNet, arm: str, seed: int, truth, noise: Tensor) -> tuple[nn.Module, dict[str, float]]:
    """Train an arm; how far it moved the output at step 0, and held-out losses over the base's own."""
    control = seeded(seed, ARMS[arm], base).to(args.device)
    numbers = {"change at step 0": change_at_step_0(base, control, truth, noise)}

    def loss_of(network: nn.Module) -> float:
        loss, condition = loss_of_condition(base, network, "edge", 16 if args.quick else 64)
        return loss(condition).item()

    bare = loss_of(seeded(0, ControlNet, base).to(args.device))  # zero convs at step 0 are the base alone
    numbers["loss at step 0"] = loss_of(control) / bare

    def on_step(step: int, loss: float, network: nn.Module) -> None:
        if step in (40, args.steps):
            numbers[f"loss at step {step}"] = loss_of(network) / bare

    drop = 0.0 if arm == "no dropped prompts" else 0.5
    control = train(control, control_loss(base, "edge", drop), PLAN, lr=1e-3, seed=seed, stop_at=args.steps,
                    on_step=on_step, progress=f"{arm}, seed {seed}")
    return control, numbers


# %% --full: every arm, two seeds
def run_all(base: UNet, seeds: tuple[int, ...] = (0, 1), n: int = 48) -> None:
    truth, noise = held_out(n)
    edges, classifier, numbers, grid = detect_edges(truth.image), load_classifier(), {}, []
    # Other pictures than the held-out ones: what the drawn masks are to look like.
    real = classifier.features(mask_of(to_image(held_out(2 * n, 1)[0].x0)))
    for arm in ARMS:
        own: dict = {kind: [] for kind in prompts(truth.prompt)} | {"F1": [], "runs": []}
        features = []
        for seed in seeds:
            control, run = train_arm(base, arm, args.seed + seed, truth, noise)
            pictures, iou = measure(base, control, truth, noise)
            for kind, values in iou.items():
                own[kind] += values.tolist()
            own["F1"] += edge_f1(pictures["perfect"], edges).tolist()
            own["runs"].append(run)
            features.append(classifier.features(mask_of(pictures["perfect"])))
            if seed == seeds[0]:
                grid += [figures.outlined(images[2:3], edges[2:3], 2) for images in pictures.values()]
        own["Frechet distance"] = frechet_distance(torch.cat(features), real)
        numbers[arm] = own
    save_results(args, "08_ablations", numbers, torch.cat(grid), 4)


# %% The default run: the shipped table, and two arms' first steps again
def against(numbers: dict, arm: str, kind: str) -> tuple[str, list[float]]:
    """What zero convs less an arm come to in each training seed; a verdict only if all seeds agree."""
    by_seed = [torch.tensor(numbers[name][kind]).unflatten(0, (len(numbers[name]["runs"]), -1)) for name in ("zero convs", arm)]
    cells = [interval(apart) for apart in by_seed[0] - by_seed[1]]
    verdicts = {verdict_of(low, high) for low, _, high in cells}
    return verdicts.pop() if len(verdicts) == 1 else "undecided", [mean for _, mean, _ in cells]


def experiment() -> None:
    base = load_base(device=args.device)
    if args.full:
        return run_all(base)
    truth, noise = held_out(4 if args.quick else 16)
    live = {arm: train_arm(base, arm, args.seed, truth, noise)[1] for arm in LIVE}
    shipped = load_results("08_ablations")
    numbers, steps = shipped["numbers"], shipped["steps"]
    rows = [[f"mask IoU after {steps} steps", *prompts(truth.prompt), "perfect: F1", "Frechet", "moved at 0"]]
    rows += [[arm, *(f"{fmean(own[kind]):.3f}" for kind in prompts(truth.prompt)), f"{fmean(own['F1']):.3f}",
              f"{own['Frechet distance']:.2f}", f"{fmean(run['change at step 0'] for run in own['runs']):.3f}"]
             for arm, own in numbers.items()]
    rows += [[""] * 8, ["loss / the base's", "step 0", f"step {args.steps}", "shipped: 0", "shipped: 40", "", "", ""]]
    rows += [[f"live: {arm}", f"{own['loss at step 0']:.2f}", f"{own[f'loss at step {args.steps}']:.2f}",
              *(f"{numbers[arm]['runs'][0][f'loss at step {step}']:.2f}" for step in (0, 40)), "", "", ""] for arm, own in live.items()]
    assert live["zero convs"]["change at step 0"] == 0, "Eq. 3"
    lines = []
    for arm in list(numbers)[1:]:
        found = {kind: against(numbers, arm, kind) for kind in prompts(truth.prompt)}
        lines.append(f"{arm}: " + ", ".join(f"{kind} {said} ({', '.join(f'{m:+.2f}' for m in means)})"
                                            for kind, (said, means) in found.items()))
    verdict = (f"zero convs follow the outline better than the arm below (IoU apart, of each of {len(numbers['lite']['runs'])} training"
               f" seeds;\n   n = {len(numbers['lite']['none']) // len(numbers['lite']['runs'])} pictures, the same for all;"
               " undecided where the seeds disagree)\n   " + "\n   ".join(lines))
    said, _ = against(numbers, "N(0, 1/fan_in)", "perfect")
    answer = {"confirmed": "b)", "contradicted": "c)"}.get(said, "a), or too close to tell")
    result(args, rows, verdict, answer, predicted)
    ours, theirs = (fmean(numbers[arm]["perfect"]) for arm in LIVE)
    draw_figure(numbers, f"Zero convs above N(0, 1/fan_in), perfect prompt: {said}, IoU {ours:.2f} against {theirs:.2f}")


def draw_figure(numbers: dict, title: str) -> None:
    figure, (left, right) = figures.plt.subplots(1, 2, figsize=(15, 8), width_ratios=[3, 4])
    kinds = list(prompts(torch.zeros(1, 3, dtype=torch.long)))
    heat = torch.tensor([[fmean(own[kind]) for kind in kinds] for own in numbers.values()])
    left.imshow(heat.numpy(), cmap="YlGn", aspect="auto", vmin=0.3, vmax=1)
    for i, row in enumerate(heat.tolist()):
        for j, value in enumerate(row):
            left.text(j, i, f"{value:.2f}", ha="center", va="center")
    left.set_xticks(range(4), kinds, rotation=20)
    left.set_yticks(range(len(numbers)), numbers)
    left.set_title("mask IoU with the outline")
    figures.show(right, load_pictures("08_ablations"), 1, "one outline, the same noise")
    side = (right.get_xlim()[1] - 1) / 4
    right.set_xticks([side * (j + 0.5) for j in range(4)], kinds, rotation=20)
    figure.suptitle(title)
    save_figure(args, figure, "08_ablations")


if __name__ == "__main__":
    with problems_in_one_sentence():
        experiment()
