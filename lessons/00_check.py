"""Lesson 00: is my machine ready?

Prints what a teacher needs to know when something is wrong: versions, device, the time of a
training step, and so the minutes that each lesson takes here; and draws a test picture.
"""

# %% Options and prediction
import platform
import statistics

import matplotlib
import torch
import torchvision
from _lesson import options, predict, problems_in_one_sentence, result, save_figure

from minicontrolnet import (CHANNELS, SHAPES, ControlNet, base_loss, control_loss, detect_edges, draw, fingerprint,
                            load_base, load_control, palette, predictor, sample_in_batches, seeded, tokenize, UNet)
from minicontrolnet import figures, speed

args = options(__doc__, steps=10, quick_steps=2, full_steps=40, meaning="timed steps")
predicted = predict(args, "A training step of the ControlNet, beside one of the base (the paper: 1.34 times its time):",
                    ["takes twice as long: there are two networks", "takes about as long", "takes a tenth"])
# Training steps, and batches of 16 pictures in 25 DDIM steps, by lesson: what its default run does.
WORK = {"01_ddpm": (130, 12), "02_locking": (240, 3), "03_zero_conv": (130, 3), "04_condition_encoder": (200, 2),
        "05_edge_control": (200, 10), "06_cfg_weighting": (0, 20), "07_multi_control": (0, 14), "08_ablations": (90, 0),
        "09_evaluation": (0, 4), "10_transfer": (60, 8)}


def experiment() -> None:
    base = load_base(device=args.device)
    networks = {kind: load_control(kind, base) for kind in CHANNELS}
    marks = ", ".join(f"{name} {fingerprint(net.state_dict())[:8]}" for name, net in {"base": base, **networks}.items())
    fresh = seeded(0, UNet).to(args.device), seeded(0, ControlNet, base, 1).to(args.device)
    losses = base_loss, control_loss(base, "edge")
    times = speed.seconds(*(speed.one_step(*pair) for pair in zip(fresh, losses)), rounds=args.steps)
    base_step, control_step = (statistics.median(own) for own in times)
    ratio = statistics.median(c / b for b, c in zip(*times))

    prompts = [f"{colour} {shape} on {ground}" for shape, colour, ground in zip(SHAPES, ["yellow", "black", "red", "cyan"],
                                                                               ["blue", "orange", "cyan", "purple"])]
    words = tokenize(prompts).to(args.device)
    noise = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(args.seed)).to(args.device)
    steps = 4 if args.quick else 25
    sample = lambda: sample_in_batches(lambda part: predictor(base, words[part]), noise, steps)
    sampling = statistics.median(speed.seconds(sample, rounds=2)[0]) * 25 / steps * 2.5  # from 4 to 16 pictures
    rows = [["what", "here"], ["Python", platform.python_version()], ["torch, torchvision", f"{torch.__version__}, {torchvision.__version__}"],
            ["matplotlib, backend", f"{matplotlib.__version__}, {matplotlib.get_backend()}"],
            ["system", f"{platform.system()} {platform.machine()}"], ["device, threads", f"{args.device}, {torch.get_num_threads()}"],
            ["weights", marks], ["base training step", f"{base_step * 1e3:.0f} ms"],
            ["ControlNet training step", f"{control_step * 1e3:.0f} ms"]]
    rows += [[f"about, {name}.py", f"{train * control_step + batches * sampling:.0f} s"] for name, (train, batches) in WORK.items()]
    verdict = (f"ready; a ControlNet step takes {ratio:.2f} of a base step's time here. If something is wrong, send"
               " your teacher this table and the last line that you see.")
    result(args, rows, verdict, "b) the locked base's encoder needs no backward pass" if 0.5 < ratio < 1.5 else f"{ratio:.2f}", predicted)
    draw_figure(sample().cpu(), prompts)


def draw_figure(pictures: torch.Tensor, prompts: list[str]) -> None:
    figure, (left, right) = figures.plt.subplots(1, 2, figsize=(12, 6))
    truth = draw(4, torch.Generator().manual_seed(args.seed))
    columns = truth.image, detect_edges(truth.image).expand(-1, 3, -1, -1), palette(truth.image)
    figures.show(left, torch.stack(columns, 1).flatten(0, 1), 3, "The toy world: picture, edges, palette")
    figures.show(right, pictures, 2, "The shipped base draws\n" + ", ".join(prompts[:2]) + ",\n" + ", ".join(prompts[2:]))
    save_figure(args, figure, "00_check")


if __name__ == "__main__":
    with problems_in_one_sentence():
        experiment()
