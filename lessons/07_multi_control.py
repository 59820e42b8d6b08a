"""Lesson 07: is adding two ControlNets enough?

Paper: Sec. 3.4 "Composing multiple ControlNets" and Fig. 6: outputs are added, "no extra
weighting". Read compose, steer and predictor in minicontrolnet/controlnet.py.
The two conditions: an edge map, and a palette (the means of a 4x4 grid). A palette says
something about places, too: sixteen coarse squares show roughly where the shape is.
"""

# %% Options and prediction
import torch
from _lesson import interval, options, predict, problems_in_one_sentence, result, save_figure, save_results, verdict_of

from minicontrolnet import (GUIDANCE, compose, detect_edges, guided, held_out, load_base, load_control, mask_iou, mask_of,
                            palette, palette_error, render, sample_in_batches, steer, to_image, weigh)
from minicontrolnet import figures

args = options(__doc__, steps=20, quick_steps=2, full_steps=25, meaning="DDIM steps of every picture")
predicted = predict(args, "Edge and palette ControlNets were trained apart. Their outputs, added, with an empty prompt:", [
    "both conditions are followed about as well as alone", "the two disturb each other: take the mean instead",
    "the later one wins"])


# %% The experiment
def experiment() -> None:
    base = load_base(device=args.device)
    edge_net, palette_net = load_control("edge", base), load_control("palette", base)
    truth, noise = held_out(4 if args.quick else 96 if args.full else 16, seed=10_000 + args.seed)
    noise = noise.to(args.device)
    empty = torch.zeros_like(truth.prompt).to(args.device)
    edges, colours = (f(truth.image).to(args.device) for f in (detect_edges, palette))
    other = colours.roll(1, 0)  # the palette of another picture: other colours, other place

    def draw_with(*steered_of) -> torch.Tensor:
        model = lambda part: guided(base, empty[part], GUIDANCE, *(one(part) for one in steered_of))
        return sample_in_batches(model, noise, args.steps).cpu()

    edge = lambda part: steer(edge_net, edges[part])
    agreeing, conflicting = (lambda part, p=p: steer(palette_net, p[part]) for p in (colours, other))

    def scaled(scale: float, second) -> torch.Tensor:
        """The sum, scaled: 1 is the paper's, 0.5 the mean."""
        both = lambda part: lambda *x: weigh(compose(edge(part)(*x), second(part)(*x)), scale)
        return draw_with(both)

    nothing = draw_with()
    black = draw_with(lambda part: steer(edge_net, torch.zeros_like(edges[part])))
    arms = {"no control": nothing, "edge alone": draw_with(edge), "palette alone": draw_with(agreeing),
            "agreeing: sum (the paper)": draw_with(edge, agreeing), "agreeing: mean": scaled(0.5, agreeing),
            "agreeing: 0.75 sum": scaled(0.75, agreeing), "conflicting: sum": draw_with(edge, conflicting),
            "conflicting: mean": scaled(0.5, conflicting)}
    rows = [["empty prompt", "IoU with the outline", "palette error"]]
    for name, images in [*arms.items(), ("real pictures (ceiling)", to_image(truth.x0))]:
        asked = other if name.startswith("conflicting") else colours
        rows.append([name, f"{mask_iou(mask_of(images), truth.mask).mean():.3f}",
                     f"{palette_error(images, asked.cpu()).mean():.4f}"])
    iou = {name: mask_iou(mask_of(images), truth.mask) for name, images in arms.items()}
    error = {name: palette_error(images, colours.cpu()) for name, images in arms.items()}
    both, edge_alone = "agreeing: sum (the paper)", "edge alone"
    shape = interval(iou[both] - iou[edge_alone] + 0.05)  # not worse than alone by more than 0.05
    colour = interval(error[edge_alone] - error[both])
    mean = interval(iou[both] - iou["agreeing: mean"])
    verdict = (f"{verdict_of(min(shape[0], colour[0]), min(shape[2], colour[2]))}: the sum keeps the outline (IoU {shape[1] - 0.05:+.3f}"
               f" against edge alone) and takes the palette (error {-colour[1]:+.3f});\n   against the mean the sum's IoU"
               f" is {mean[1]:+.3f} ({mean[0]:+.3f} .. {mean[2]:+.3f}); n = {len(truth.mask)}. An all-black edge map"
               f" moves pixels by {(black - nothing).abs().mean():.3f}: it is a condition, not none.")
    save_results(args, "07_multi_control", {row[0]: {"IoU": float(row[1]), "palette error": float(row[2])} for row in rows[1:]}
                 | {"black map moves pixels by": (black - nothing).abs().mean().item()})
    finding = verdict_of(min(shape[0], colour[0]), min(shape[2], colour[2]))
    result(args, rows, verdict, "a)" if finding == "confirmed" else f"{finding}: see the verdict", predicted)
    draw_figure(base, edge_net, palette_net, truth, arms, edges.cpu(), other.cpu(), finding)


# %% Figure: outlines x recoloured palettes, and a row of conflicts
def draw_figure(base, edge_net, palette_net, truth, arms, edges, other, finding: str) -> None:
    n = 4
    few = truth.scenes._replace(**{k: v[:n] for k, v in truth.scenes._asdict().items()})
    noise = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(args.seed))
    big = lambda x: figures.enlarge(x, 2)
    rows = [torch.cat([torch.ones(1, 3, 128, 128), big(edges[:n])])]
    for colour, ground in ((4, 7), (3, 1), (0, 2)):
        image, _ = render(few._replace(colour=torch.full((n,), colour), background=torch.full((n,), ground)))
        steered = [steer(net, c.to(args.device)) for net, c in ((edge_net, edges[:n]), (palette_net, palette(image)))]
        empty = torch.zeros(n, 3, dtype=torch.long, device=args.device)
        drawn = sample_in_batches(lambda part: guided(base, empty, GUIDANCE, *steered), noise.to(args.device), args.steps).cpu()
        rows.append(torch.cat([big(palette(image)[:1]), figures.outlined(drawn, edges[:n])]))
    rows.append(torch.cat([torch.ones(1, 3, 128, 128), big(other[:n])]))
    rows.append(torch.cat([torch.ones(1, 3, 128, 128), figures.outlined(arms["conflicting: sum"][:n], edges[:n])]))
    figure, ax = figures.plt.subplots(figsize=(9.5, 11))
    figures.show(ax, torch.cat(rows), n + 1,
                 f"Edge + palette, added, empty prompt: both followed? {finding}, n = {len(truth.mask)}")
    ax.set_yticks([129 * (i + 0.5) for i in range(6)],
                  ["outline", "palette 1", "palette 2", "palette 3", "conflicting\npalette", "outline +\nconflict"])
    save_figure(args, figure, "07_multi_control")


if __name__ == "__main__":
    with problems_in_one_sentence():
        experiment()
