"""Lesson 10: does a ControlNet work on a base that it has never seen?

Paper: Sec. 4.5 and Fig. 12 (transfer to other bases without training), Fig. 11 (an ambiguous condition
without a prompt). Read ControlNet in minicontrolnet/controlnet.py, base_loss in training.py.
A: the base that ships, of which the edge ControlNet is a copy. A': A, trained on pale pictures. B: a base
trained from another seed, for 2000 steps (A: 12000). The author's own tool adds the difference of the two bases to the copy.
--full trains A' and B and writes the result file; the default run trains a shorter A' again, live.
"""

# %% Options and prediction
import copy
from functools import partial
from statistics import fmean

import torch
from _lesson import (interval, load_pictures, load_results, options, predict, problems_in_one_sentence, result, save_figure,
                     save_results, verdict_of)
from torch import Tensor

from minicontrolnet import (GUIDANCE, SHAPES, ControlNet, Draw, UNet, base_loss, detect_edges, edge_f1, fresh, guided, held_out,
                            load_base, load_classifier, load_control, lock, mask_iou, mask_of, off_palette, render,
                            sample_in_batches, seeded, steer, to_grid, tokenize, train)
from minicontrolnet import figures
from minicontrolnet.shapes import Outline

args = options(__doc__, steps=60, quick_steps=2, full_steps=600, meaning="training steps of A', the pale sibling")
predicted = predict(args, "The edge ControlNet of base A, put on a base B of another seed, without training:", [
    "works as on A: the architecture is the same", "works a little", "does nothing, or harm"])
STEPS_OF_B, DDIM = 2000, 12
BETWEEN = Outline(4, 0.8, 0.9)  # eight corners: between the square (notch 0.71) and the circle


# %% A' and B, and the difference of two bases added to a copy
def pale(generator: torch.Generator) -> Draw:
    """The toy world, each colour half way to white: x0 / 2 + 1 / 2."""
    batch = fresh(generator)
    return batch._replace(x0=batch.x0 / 2 + 0.5)


def sibling(base: UNet, steps: int) -> UNet:
    """A': the base, trained on pale pictures."""
    network = copy.deepcopy(base).requires_grad_(True)
    return lock(train(network, partial(base_loss, pictures=pale), steps, lr=5e-4, seed=args.seed, progress="A', pale pictures"))


def moved(control: ControlNet, old: UNet, new: UNet) -> ControlNet:
    """The copy plus what the new base's encoder differs by from the old one's."""
    control = copy.deepcopy(control)
    with torch.no_grad():
        for part in ("embedding", "encoder"):
            own, before, after = (getattr(network, part).parameters() for network in (control, old, new))
            for p, a, b in zip(own, before, after, strict=True):
                p += b - a
    return control


# %% Fidelity on each base
def fidelity(base: UNet, control: ControlNet | None, truth, noise: Tensor, edges: Tensor) -> tuple[Tensor, dict[str, list[float]]]:
    """What is drawn with right prompts; its IoU and F1 with the outlines, and how far from pale colours it is."""
    words = truth.prompt.to(args.device)
    steered = lambda part: [] if control is None else [steer(control, edges[part].to(args.device))]
    model = lambda part: guided(base, words[part], GUIDANCE, *steered(part))
    images = sample_in_batches(model, noise.to(args.device), 2 if args.quick else DDIM).cpu()
    scores = {"IoU": mask_iou(mask_of(images), truth.mask), "F1": edge_f1(images, edges),
              "not pale": off_palette(2 * images - 1)}
    return images, {name: values.tolist() for name, values in scores.items()}


def on_each(bases: dict[str, UNet], control: ControlNet, n: int) -> tuple[dict, Tensor]:
    """Every base with no control, with A's ControlNet as it is, and with the difference added."""
    truth, noise = held_out(n)
    edges, numbers, grid = detect_edges(truth.image), {}, []
    for name, base in bases.items():
        ways = {"no control": None, "as it is": control}
        if name != "A":
            ways["difference added"] = moved(control, bases["A"], base)
        for way, network in ways.items():
            images, numbers[f"{name}, {way}"] = fidelity(base, network, truth, noise, edges)
            grid.append(figures.outlined(images[:4], edges[:4], 2))
    return numbers, torch.cat(grid)


# %% Fig. 11: an outline between two shapes
def ambiguous(base: UNet, control: ControlNet, n: int) -> dict[str, dict[str, float]]:
    """What the classifier sees in n pictures of one outline, for several prompts (mean probabilities); and the IoU."""
    scenes = held_out(1)[0].scenes._replace(shape=torch.zeros(1, dtype=torch.long), centre=torch.zeros(1, 2),
                                            radius=torch.tensor([0.65]), angle=torch.tensor([0.5]), aspect=torch.ones(1))
    image, mask = render(scenes, outlines=[BETWEEN])
    edges, classifier = detect_edges(image).to(args.device), load_classifier()
    noise = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(args.seed)).to(args.device)
    see = lambda mask: classifier(mask).softmax(1).mean(0)
    numbers = {"the outline itself": dict(zip(SHAPES, see(to_grid(mask)).tolist()))}
    for prompt in ("", "red on blue", *(f"red {shape} on blue" for shape in SHAPES)):
        words = tokenize(prompt).to(args.device)
        model = lambda part: guided(base, words.expand(part.stop - part.start, 3), GUIDANCE, steer(control, edges))
        masks = mask_of(sample_in_batches(model, noise, 2 if args.quick else DDIM).cpu())
        numbers[f'"{prompt}"'] = dict(zip(SHAPES, see(masks).tolist())) | {"IoU": mask_iou(masks, to_grid(mask)).mean().item()}
    return numbers


def run_all(base: UNet, control: ControlNet, n: int = 96) -> None:
    b = lock(train(seeded(args.seed + 1, UNet).to(args.device), base_loss, STEPS_OF_B, lr=2e-3, seed=args.seed + 1, progress="B"))
    numbers, grid = on_each({"A": base, "A'": sibling(base, args.steps), "B": b}, control, n)
    save_results(args, "10_transfer", {"transfer": numbers, "ambiguous": ambiguous(base, control, 64)}, grid, 4)


# %% The default run
def experiment() -> None:
    base = load_base(device=args.device)
    control = load_control("edge", base)
    if args.full:
        return run_all(base, control)
    shipped = load_results("10_transfer")
    numbers, steps = shipped["numbers"], shipped["steps"]
    live, _ = on_each({"A": base, "A'": sibling(base, args.steps)}, control, 4 if args.quick else 16)
    row = lambda name, own: [name, *(f"{fmean(values):.3f}" for values in own.values()), len(own["IoU"])]
    rows = [["base, control", "mask IoU", "edge F1", "not pale", "n"]]
    rows += [row(f"live, {args.steps} steps: {name}", own) for name, own in live.items() if name != "A, no control"]
    rows += [row(f"{steps} steps: {name}", own) for name, own in numbers["transfer"].items()]
    rows += [[""] * 5, ["eight corners: seen as", "circle, square", "triangle, star", "IoU", ""]]
    share = lambda own, *names: ", ".join(f"{own[name]:.2f}" for name in names)
    rows += [[f"prompt {name}" if name[0] == '"' else name, share(own, "circle", "square"), share(own, "triangle", "star"),
              share(own, "IoU") if "IoU" in own else "", ""] for name, own in numbers["ambiguous"].items()]
    apart = lambda table, one, other, what="IoU": interval(torch.tensor(table[one][what]) - torch.tensor(table[other][what]))
    claims = {f"on A' the control works without training (live, n = {len(live['A, as it is']['IoU'])})": apart(live, "A', as it is", "A', no control"),
              "on A' it works without training": apart(numbers["transfer"], "A', as it is", "A', no control"),
              "on B masks follow without training": apart(numbers["transfer"], "B, as it is", "B, no control"),
              "on B edges follow without training (F1)": apart(numbers["transfer"], "B, as it is", "B, no control", "F1"),
              "on A' adding the difference helps": apart(numbers["transfer"], "A', difference added", "A', as it is"),
              "on B adding the difference helps": apart(numbers["transfer"], "B, difference added", "B, as it is")}
    verdict = "\n   ".join(f"{claim}: {verdict_of(low, high)} ({middle:+.3f}; {low:+.3f} .. {high:+.3f})"
                           for claim, (low, middle, high) in claims.items())
    unsaid = numbers["ambiguous"]['""']["IoU"]
    said = [own["IoU"] for name, own in numbers["ambiguous"].items() if "red" in name]
    verdict += (f"\n   Eight corners: with the colours said, the IoU is {min(said):.2f} .. {max(said):.2f} whatever shape the words name:"
                f" the outline decides; with no prompt {unsaid:.2f} (64 pictures each).")
    verdict += f"\n   n = {len(numbers['transfer']['A, as it is']['IoU'])} pictures, one sibling and one B."
    masks, edges = claims["on B masks follow without training"], claims["on B edges follow without training (F1)"]
    on_a = apart(numbers["transfer"], "A, as it is", "A, no control")[1]
    answer = "c)" if max(masks[0], edges[0]) <= 0 else "a)" if masks[1] > 0.8 * on_a else "b)"
    result(args, rows, verdict, answer, predicted)
    draw_figure(numbers)


def draw_figure(numbers: dict) -> None:
    figure, (left, right) = figures.plt.subplots(1, 2, figsize=(16, 9), width_ratios=[3, 2])
    names, grid = list(numbers["transfer"]), load_pictures("10_transfer")
    figures.show(left, grid, 1, "A's ControlNet on A, on its pale sibling A', on a stranger B")
    side = (grid.shape[-2] - 1) / len(names)
    left.set_yticks([side * (i + 0.5) for i in range(len(names))],
                    [f"{name}\nIoU {fmean(numbers['transfer'][name]['IoU']):.2f}" for name in names])
    bottom = torch.zeros(len(numbers["ambiguous"]))
    for shape in SHAPES:
        shares = torch.tensor([own[shape] for own in numbers["ambiguous"].values()])
        right.barh(range(len(shares)), shares.numpy(), left=bottom.numpy(), label=shape)
        bottom += shares
    right.set_yticks(range(len(numbers["ambiguous"])), [f"prompt {name}" if name[0] == '"' else name for name in numbers["ambiguous"]], fontsize=12)
    right.invert_yaxis()
    right.set(xlabel="mean probability, 64 pictures", title="One outline of eight corners: seen as")
    right.legend(fontsize=11, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    save_figure(args, figure, "10_transfer")


if __name__ == "__main__":
    with problems_in_one_sentence():
        experiment()
