"""Lesson 04: why not just shrink the edge map to the UNet's grid?

Paper: Sec. 3.2 and Eq. 4. Stable Diffusion works on a latent grid of 64 x 64, its conditions are
512 x 512 pixels: a small conv net E maps one to the other. Here no autoencoder exists; the 32 x 32
grid of 2x2 pixel means stands for the latent grid, and conditions are 64 x 64.
Read ConditionEncoder in minicontrolnet/controlnet.py. Paper and released code differ: four 4x4 convs of
stride 2, ReLU, 16-32-64-128 channels there (that is 512 -> 32, not the 64 it names); seven 3x3 convs,
three of stride 2 (512 -> 64), SiLU, in the code.
"""

# %% Options and prediction
import torch
import torch.nn.functional as F
from _lesson import interval, options, predict, problems_in_one_sentence, result, save_figure, verdict_of
from torch import Tensor, nn

from minicontrolnet import (CHANNELS, ConditionEncoder, ControlNet, control_loss, detect_edges, edge_f1, held_out, load_base,
                            mask_iou, mask_of, predictor, sample_in_batches, seeded, steer, train, zero_conv)
from minicontrolnet import figures

args = options(__doc__, steps=60, quick_steps=2, full_steps=600)
predicted = predict(args, "At equal steps, which condition is followed best?", [
    "the learned encoder's", "the average-pooled map", "every second pixel (nearest): simple and exact"])


# %% Three ways from 64 x 64 to 32 x 32, each ended by the same zero conv
class Shrink(nn.Module):
    """A fixed shrinking in the learned encoder's place: (b, 1, 64, 64) -> (b, c, 32, 32)."""

    def __init__(self, c: int, how: str):
        super().__init__()
        self.how = how
        self.lift = nn.Conv2d(1, c, 1)  # a choice of channels, without which a zero conv has one input
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


def experiment() -> None:
    sizes()
    base = load_base(device=args.device)
    truth, noise = held_out(8 if args.quick else 96 if args.full else 32)
    edges = detect_edges(truth.image)
    prompt, condition, noise = (x.to(args.device) for x in (truth.prompt, edges, noise))
    pictures = {}
    for arm in ("learned", "average", "nearest", "learned, shifted"):
        control = train(make(base, arm), control_loss(base, "edge"), args.steps, lr=2e-3, seed=args.seed, progress=arm)
        model = lambda part: predictor(base, prompt[part], steer(control, condition[part]))
        pictures[arm] = sample_in_batches(model, noise, 2 if args.quick else 12).cpu()
    score = {arm: (mask_iou(mask_of(x), truth.mask), edge_f1(x, edges)) for arm, x in pictures.items()}
    rows = [["encoder", "mask IoU", "edge F1", "learned - this (95 %)"]]
    apart = {arm: interval(score["learned"][0] - score[arm][0]) for arm in score}
    rows += [[arm, f"{iou.mean():.3f}", f"{f1.mean():.3f}", "" if arm == "learned" else "{:+.3f} .. {:+.3f}".format(*apart[arm][::2])]
             for arm, (iou, f1) in score.items()]
    low, mean, high = apart["average"]
    best = max(score, key=lambda arm: score[arm][0].mean())
    verdict = (f"{verdict_of(low, high)} that the learned encoder beats averaging after {args.steps} steps: IoU {mean:+.3f}"
               f" ({low:+.3f} .. {high:+.3f}), n = {len(edges)}, 1 seed; best here: {best}.")
    result(args, rows, verdict, {"learned": "a)", "average": "b)", "nearest": "c)"}.get(best, "none of them"), predicted)
    draw_figure(truth, edges, pictures, score, best)


def draw_figure(truth, edges, pictures, score, best) -> None:
    figure, (left, right) = figures.plt.subplots(1, 2, figsize=(14, 6.5), width_ratios=[2, 4])
    few, big = slice(0, 4), figures.enlarge
    columns = [big(edges[few], 2), *(big(shrink(edges[few], how), 4) for how in ("average", "nearest"))]
    figures.show(left, torch.stack(columns, 1).flatten(0, 1), 3, "A thin outline, shrunk")
    left.set_xticks([129 * (i + 0.5) for i in range(3)], ["64 x 64", "average", "nearest"])
    drawn = torch.stack([figures.outlined(x[few], edges[few]) for x in pictures.values()], 1).flatten(0, 1)
    figures.show(right, drawn, len(pictures), f"After {args.steps} steps the best is: {best}")
    right.set_xticks([129 * (i + 0.5) for i in range(len(score))],
                     [f"{arm}\nIoU {iou.mean():.2f}, F1 {f1.mean():.2f}" for arm, (iou, f1) in score.items()])
    save_figure(args, figure, "04_condition_encoder")


if __name__ == "__main__":
    with problems_in_one_sentence():
        experiment()
