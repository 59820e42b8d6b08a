"""Lesson 04: why not just shrink the edge map to the UNet's grid?

Paper: Sec. 3.2 and Eq. 4. Stable Diffusion works on a latent grid of 64 x 64, its conditions are
512 x 512 pixels: a small conv net E maps one to the other. Here no autoencoder exists; the 32 x 32
grid of 2x2 pixel means stands for the latent grid, and conditions are 64 x 64.
Read ConditionEncoder in minicontrolnet/controlnet.py. Paper and released code differ: four 4x4 convs of
stride 2, ReLU, 16-32-64-128 channels there (that is 512 -> 32, not the 64 it names); seven 3x3 convs,
three of stride 2 (512 -> 64), SiLU, in the code. --full trains all arms and writes the result file that
the default run reads; the default run trains the first steps of two arms again, live.
"""

# %% Options and prediction
from statistics import fmean

import torch
import torch.nn.functional as F
from _lesson import (interval, load_pictures, load_results, options, predict, problems_in_one_sentence, result, save_figure,
                     save_results, verdict_of)
from torch import Tensor, nn

from minicontrolnet import (CHANNELS, ConditionEncoder, ControlNet, control_loss, detect_edges, edge_f1, held_out, load_base,
                            mask_iou, mask_of, predictor, sample_in_batches, seeded, steer, train, zero_conv)
from minicontrolnet import figures

PLAN = 400  # steps of every arm; a shorter run takes the first of them
ARMS = ("learned", "average", "nearest", "learned, shifted")
args = options(__doc__, steps=100, quick_steps=2, full_steps=PLAN)
predicted = predict(args, "At equal steps, which condition is followed best?", [
    "the learned encoder's", "the average-pooled map", "every second pixel (nearest): simple and exact"])


# %% Three ways from 64 x 64 to 32 x 32, each ended by the same zero conv; and one spoilt by a shift
class Shrink(nn.Module):
    """A fixed shrinking in the learned encoder's place: (b, 1, 64, 64) -> (b, c, 32, 32)."""

    def __init__(self, c: int, how: str):
        super().__init__()
        self.how = how
        self.lift = nn.Conv2d(1, c, 1)  # a choice of channels, without which a zero conv has one input
        nn.init.kaiming_normal_(self.lift.weight)  # as the learned one; torch's own start, half of it in
        nn.init.zeros_(self.lift.bias)  # the bias, takes several times as many steps to wake
        self.zero = zero_conv(c)

    def forward(self, condition: Tensor) -> Tensor:
        return self.zero(F.relu(self.lift(shrink(condition, self.how))))


def shrink(condition: Tensor, how: str) -> Tensor:
    return F.avg_pool2d(condition, 2) if how == "average" else F.interpolate(condition, scale_factor=0.5)


class Shifted(nn.Module):
    """The learned encoder behind a random shift of up to 4 pixels: the right lines at a wrong place."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder, self.generator = encoder, torch.Generator().manual_seed(args.seed)

    def forward(self, condition: Tensor) -> Tensor:
        shifts = torch.randint(-4, 5, (len(condition), 2), generator=self.generator).tolist()
        return self.encoder(torch.stack([c.roll(shift, (1, 2)) for c, shift in zip(condition, shifts)]))


def make(base: nn.Module, arm: str) -> ControlNet:
    control = seeded(args.seed, ControlNet, base, CHANNELS["edge"])
    c = base.encoder.channels[0]
    if arm in ("average", "nearest"):
        control.condition_encoder = seeded(args.seed, Shrink, c, arm)
    if arm == "learned, shifted":
        control.condition_encoder = Shifted(control.condition_encoder)
    return control.to(args.device)


# %% The two encoders of paper and code, side by side, by their sizes alone
def sizes() -> None:
    paper = [nn.Conv2d(a, b, 4, 2, 1) for a, b in zip([3, 16, 32, 64], [16, 32, 64, 128])]
    code = [nn.Conv2d(a, b, 3, s, 1) for a, b, s in [(3, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 96, 2), (96, 96, 1),
                                                     (96, 256, 2), (256, 320, 1)]]
    ours = [layer for layer in ConditionEncoder(1, 16).layers if isinstance(layer, nn.Conv2d)]
    print()
    for name, layers, c, size in (("paper's text", paper, 3, 512), ("released code", code, 3, 512), ("ours", ours, 1, 64)):
        x, trace = torch.zeros(1, c, size, size, device="meta"), [f"{c} x {size}"]
        for layer in layers:
            x = layer.to("meta")(x)
            trace.append(f"{x.shape[1]} x {x.shape[2]}")
        print(f"   {name:14} {' > '.join(trace)}")


# %% The experiment: the arms differ in the encoder alone (the learned one also sees more than 2x2 pixels)
def train_arms(base: nn.Module, arms: tuple[str, ...], n: int) -> tuple[dict[str, dict[str, list[float]]], Tensor]:
    """Each arm's IoU and F1 per picture, and four pictures of each."""
    truth, noise = held_out(n)
    edges, numbers, grid = detect_edges(truth.image), {}, []
    prompt, condition, noise = (x.to(args.device) for x in (truth.prompt, edges, noise))
    for arm in arms:
        control = train(make(base, arm), control_loss(base, "edge"), PLAN, lr=2e-3, seed=args.seed, stop_at=args.steps,
                        progress=arm)
        model = lambda part: predictor(base, prompt[part], steer(control, condition[part]))
        images = sample_in_batches(model, noise, 2 if args.quick else 12).cpu()
        numbers[arm] = {"IoU": mask_iou(mask_of(images), truth.mask).tolist(), "F1": edge_f1(images, edges).tolist()}
        grid.append(figures.outlined(images[:4], edges[:4], 2))
    return numbers, torch.stack(grid, 1).flatten(0, 1)


def kept(n: int) -> dict[str, list[float]]:
    """The share of outline pixels that the small map still shows at their place, per picture."""
    edges = detect_edges(held_out(n)[0].image)
    shown = lambda how: F.interpolate(shrink(edges, how), scale_factor=2.0) > 0
    return {how: ((shown(how) * edges).sum((1, 2, 3)) / edges.sum((1, 2, 3))).tolist() for how in ("average", "nearest")}


def experiment() -> None:
    sizes()
    base = load_base(device=args.device)
    if args.full:
        numbers, grid = train_arms(base, ARMS, 96)
        return save_results(args, "04_condition_encoder", {"arms": numbers, "kept": kept(96)}, grid, len(ARMS))
    shipped = load_results("04_condition_encoder")
    live, _ = train_arms(base, ARMS[:2], 4 if args.quick else 16)
    rows = [["encoder", "steps", "mask IoU", "edge F1", "learned - this (95 %)"]]
    apart = {}
    for name, steps, arms in (("live: ", args.steps, live), ("", shipped["steps"], shipped["numbers"]["arms"])):
        for arm, own in arms.items():
            apart[name + arm] = interval(torch.tensor(arms["learned"]["IoU"]) - torch.tensor(own["IoU"]))
            rows.append([name + arm, steps, *(f"{fmean(own[what]):.3f}" for what in ("IoU", "F1")),
                         "" if arm == "learned" else "{:+.3f} .. {:+.3f}".format(*apart[name + arm][::2])])
    lost = {how: fmean(shares) for how, shares in kept(32).items()}
    score = {arm: sum(own["IoU"]) for arm, own in shipped["numbers"]["arms"].items()}
    best = max(score, key=score.get)
    verdict = "\n   ".join(f"{verdict_of(*apart[arm][::2])} that the learned encoder beats {what} (IoU {apart[arm][1]:+.3f})"
                           for arm, what in (("average", "averaging"), ("nearest", "every second pixel"), ("learned, shifted", "itself behind a random shift")))
    verdict += (f"; n = {len(shipped['numbers']['arms']['learned']['IoU'])}, 1 seed; best: {best}."
                f"\n   Of the outline's pixels averaging keeps {lost['average']:.0%} (paler), every second pixel {lost['nearest']:.0%}.")
    result(args, rows, verdict, {"learned": "a)", "average": "b)", "nearest": "c)"}.get(best, "none of them"), predicted)
    draw_figure(shipped, best)


def draw_figure(shipped: dict, best: str) -> None:
    figure, (left, right) = figures.plt.subplots(1, 2, figsize=(16, 7.5), width_ratios=[3, 4])
    edges = detect_edges(held_out(len(shipped["numbers"]["arms"]["learned"]["IoU"]))[0].image[:4])  # as at the right
    columns = [figures.enlarge(edges, 2), *(figures.enlarge(shrink(edges, how), 4) for how in ("average", "nearest"))]
    figures.show(left, torch.stack(columns, 1).flatten(0, 1), 3, "A thin outline, shrunk")
    left.set_xticks([129 * (i + 0.5) for i in range(3)], ["64 x 64", "average", "nearest"])
    grid = load_pictures("04_condition_encoder")
    figures.show(right, grid, 1, f"After {shipped['steps']} steps the best is: {best}")
    side = (grid.shape[-1] - 1) / len(ARMS)
    right.set_xticks([side * (i + 0.5) for i in range(len(ARMS))],
                     [f"{arm.replace(', ', chr(10))}\nIoU {fmean(own['IoU']):.2f}" for arm, own in shipped["numbers"]["arms"].items()])
    save_figure(args, figure, "04_condition_encoder")


if __name__ == "__main__":
    with problems_in_one_sentence():
        experiment()
