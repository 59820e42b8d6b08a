"""Lesson 01: how does a small UNet draw from noise, and what can words not say?

Sources: DDPM (Ho et al. 2020) for noising and sampling; the ControlNet paper's Sec. 1 for the
motivation and Eq. 5 for the objective. Read q_sample, loss_weight and ddim in
minicontrolnet/diffusion.py. Three things a network may predict (eps, v, x0) are one formula
apart; at a small budget the choice decides. --full trains all three longer and writes the
result file that the default run reads; the default run trains two of them briefly, live.
"""

# %% Options and prediction
import torch
from _lesson import (interval, load_results, options, predict, problems_in_one_sentence, result, save_figure, save_results,
                     verdict_of)
from torch import Tensor, nn

from minicontrolnet import (UNet, base_loss, draw, draw_noise, draw_scenes, held_out, load_base, mask_of, off_palette,
                            predictor, q_sample, render, sample_in_batches, seeded, to_grid, to_image, tokenize, train,
                            x0_from_eps)
from minicontrolnet import figures

args = options(__doc__, steps=60, quick_steps=2, full_steps=400)
PROMPT = "red star on blue"
predicted = predict(args, f'Eight pictures of "{PROMPT}", each from its own noise. They', [
    "are alike: the prompt says it all", "agree in colour and differ in place, size and turn", "agree in nothing"])


# %% What the network predicts: the same network, steps, data and noise three times
def compare(targets: list[str], n: int) -> dict[str, dict[str, Tensor]]:
    """Train one UNet per target; per held-out picture, the errors of eps and x0 and the clean pixels."""
    truth, noise = held_out(n)
    t, eps = (x.to(args.device) for x in draw_noise(truth.x0, torch.Generator().manual_seed(args.seed)))
    x0, prompt, noise = (x.to(args.device) for x in (truth.x0, truth.prompt, noise))
    xt, scores = q_sample(x0, t, eps), {}
    for target in targets:
        network = train(seeded(args.seed, UNet, predicts=target).to(args.device), base_loss, args.steps, lr=2e-3,
                        seed=args.seed, progress=f"predicts {target}")
        with torch.no_grad():
            found = network(xt, t, prompt)
        drawn = sample_in_batches(lambda part: predictor(network, prompt[part]), noise, 4 if args.quick else 25)
        scores[target] = {"eps error": (found - eps).square().mean((1, 2, 3)).cpu(),
                          "x0 error": (x0_from_eps(found, xt, t).clamp(-1, 1) - x0).square().mean((1, 2, 3)).cpu(),
                          "clean pixels": 1 - off_palette(drawn).cpu()}
    return scores


# %% What words cannot say: where a shape stands and how large it is
def poses(masks: Tensor) -> Tensor:
    """Centre x, centre y in pixels and area in percent of the picture (n, 3) of masks (n, 1, 32, 32)."""
    line = torch.arange(masks.shape[-1]) + 0.5
    area = masks.sum((1, 2, 3)).clamp(min=1)
    x, y = ((masks * way).sum((1, 2, 3)) / area for way in (line, line[:, None]))
    return torch.stack([x, y, 100 * masks.mean((1, 2, 3))], 1)


def spread(base: nn.Module, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures of one prompt, and the poses (n, 3) of their shapes and of the data's."""
    generator = torch.Generator().manual_seed(args.seed)
    words = tokenize(PROMPT).repeat(n, 1)
    noise = torch.randn(n, 3, 32, 32, generator=generator).to(args.device)
    model = lambda part: predictor(base, words[part].to(args.device))  # guidance would narrow the choice
    pictures = sample_in_batches(model, noise, 4 if args.quick else 25).cpu()
    scenes, (colour, shape, background) = draw_scenes(16 * n, generator), words[0] - 1
    same = (scenes.shape == shape).nonzero()[:n, 0]  # drawn as this shape: the room to move depends on it
    scenes = type(scenes)(*(field[same] for field in scenes))
    scenes = scenes._replace(colour=colour.expand(n), background=background.expand(n))
    return pictures, poses(mask_of(pictures)), poses(mask_of(to_grid(render(scenes)[0])))


def experiment() -> None:
    base = load_base(device=args.device)
    live = compare(["eps", "v", "x0"] if args.full else ["eps", "x0"], 128 if args.full else 32)
    pictures, drawn, real = spread(base, 8 if args.quick else 64)

    shipped = load_results("01_ddpm")
    rows = [["network predicts", "steps", "eps error (Eq. 5)", "x0 error", "clean pixels"]]
    table = {target: {name: values.mean().item() for name, values in own.items()} for target, own in live.items()}
    for steps, scores in ((args.steps, table), (shipped["steps"], shipped["numbers"])):
        rows += [[target, steps, *(f"{own[name]:.3f}" for name in ("eps error", "x0 error", "clean pixels"))]
                 for target, own in scores.items()]
    rows += [[""] * 5, [f'spread at "{PROMPT}"', "n", "x, pixels", "y, pixels", "area, %"]]
    rows += [[name, len(pose), *(f"{s:.2f}" for s in pose.std(0))] for name, pose in (("base", drawn), ("data", real))]
    if args.full:
        save_results(args, "01_ddpm", table)
    low, mean, high = interval(live["x0"]["clean pixels"] - live["eps"]["clean pixels"])
    free = drawn[:, :2].std(0).mean() / real[:, :2].std(0).mean()
    verdict = (f"x0 beats eps after {args.steps} steps: {verdict_of(low, high)}, clean pixels {mean:+.2f} ({low:+.2f} .. {high:+.2f},"
               f" n = {len(live['x0']['clean pixels'])}, 1 seed).\n   At one prompt the place varies {free:.2f} times as much as in"
               f" the data (n = {len(drawn)}): words do not say it.")
    result(args, rows, verdict, "b)" if free > 0.5 else "not b) here: the pictures agree in place, too", predicted)
    print("   To discuss: which longer prompt would fix the pose?")
    draw_figure(base, pictures, f"One prompt, eight poses: the place varies {free:.2f} times as much as in the data")


# %% Figure: how noise becomes a picture, and what the words leave open
@torch.no_grad()
def draw_figure(base: nn.Module, pictures: Tensor, title: str) -> None:
    one = draw(1, torch.Generator().manual_seed(args.seed + 3))
    t = torch.tensor([20, 200, 400, 600, 800, 950])
    eps = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(args.seed))
    x0, eps = one.x0.repeat(6, 1, 1, 1), eps.repeat(6, 1, 1, 1)
    xt, prompt = q_sample(x0, t, eps), one.prompt.repeat(6, 1)
    device = args.device
    guess = x0_from_eps(base(xt.to(device), t.to(device), prompt.to(device)).cpu(), xt, t)
    figure, (top, below) = figures.plt.subplots(2, 1, figsize=(12, 7), height_ratios=[5, 2])
    figures.show(top, torch.cat([to_image(xt), to_image(guess)]), 6, "Noising, and what the network takes each for")
    top.set_xticks([33 * (i + 0.5) for i in range(6)], [f"t = {time}" for time in t.tolist()])
    top.set_yticks([16.5, 49.5], ["xt", "x0 estimate"])
    inside = mask_of(pictures[:8])
    grown = nn.functional.max_pool2d(inside, 3, stride=1, padding=1)
    lines = (grown > 0.5).float().sub((inside > 0.5).float()).sum(0, keepdim=True).clamp(max=1)
    overlaid = 1 - figures.enlarge(lines, 1)
    figures.show(below, torch.cat([pictures[:8], overlaid]), 9, title)
    below.set_xticks([33 * 4, 33 * 8.5], [f'eight pictures of "{PROMPT}"', "outlines"])
    save_figure(args, figure, "01_ddpm")


if __name__ == "__main__":
    with problems_in_one_sentence():
        experiment()
