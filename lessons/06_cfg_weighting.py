"""Lesson 06: where does control enter under guidance, and with which weight?

Paper: Sec. 3.4 "Classifier-free guidance resolution weighting" and Fig. 5. Read guide in
minicontrolnet/diffusion.py, weigh, paper_weights and released_weights in controlnet.py.
The paper's weights are 64 / h_i (1 shallow .. 8 deep), the released code's 0.825 ** (12 - i)
(0.1 .. 1). Divided by 8 the paper's are 1/8 .. 1, close to the code's.
"""

# %% Options and prediction
import torch
from _lesson import interval, options, predict, problems_in_one_sentence, result, save_figure, save_results, verdict_of

from minicontrolnet import (colours_right, detect_edges, guide, held_out, load_base, load_control, mask_iou,
                            mask_of, off_palette, paper_weights, predictor, released_weights, sample_in_batches, steer, to_image)
from minicontrolnet import figures

args = options(__doc__, steps=12, quick_steps=2, full_steps=25, meaning="DDIM steps of every picture")
predicted = predict(args, "Guidance pushes eps from the unconditional towards the conditional branch. With a strong"
                    " scale and control in the conditional branch alone:", [
                        "nothing changes: the outline is the same in both branches",
                        "guidance amplifies the control, too: right shape, wrong colours",
                        "control is cancelled: right colours, wrong shape"])

# %% The arms: is there control in the unconditional branch, and the weights of the 13 connections
PAPER = [w / 8 for w in paper_weights()]
MEAN = sum(PAPER) / 13
ARMS = {"both branches, 1": (True, 1.0), "conditional only, 1": (False, 1.0),
        "cond., paper 1..8": (False, paper_weights()), "cond., paper / 8": (False, PAPER),
        "cond., released code": (False, released_weights()),
        "cond., uniform, same mean": (False, MEAN), "cond., reversed order": (False, PAPER[::-1])}
SCALES = (1.0, 8.0) if args.quick else (1.0, 3.0, 8.0)


def exact_zeros(base, control, prompt, condition, noise) -> None:
    """Empty prompt, control in both branches: one function twice, so guidance changes nothing."""
    t, steered = torch.full((len(noise),), 700, device=noise.device), steer(control, condition)
    empty = predictor(base, torch.zeros_like(prompt), steered)
    apart = guide(empty, empty, 8.0)(noise, t) - empty(noise, t)
    two = predictor(base, torch.zeros_like(prompt).repeat(2, 1), steer(control, condition.repeat(2, 1, 1, 1)))
    uncond, cond = two(noise.repeat(2, 1, 1, 1), t.repeat(2)).chunk(2)
    batched = torch.lerp(uncond, cond, 8.0) - uncond
    assert apart.abs().max() == 0
    print(f"\nempty prompt, control in both: guidance 8 changes eps by {apart.abs().max():.0e} called apart,"
          f" by {batched.abs().max():.0e} called as one batch")


def experiment() -> None:
    base = load_base(device=args.device)
    control = load_control("edge", base)
    truth, noise = held_out(4 if args.quick else 32 if args.full else 8, seed=10_000 + args.seed)
    edges = detect_edges(truth.image)
    prompt, condition, noise = (x.to(args.device) for x in (truth.prompt, edges, noise))
    exact_zeros(base, control, prompt, condition, noise)

    def draw_with(words: torch.Tensor, in_both: bool, weights, scale: float) -> torch.Tensor:
        def model(part: slice):
            steered = steer(control, condition[part], weights)
            uncond = predictor(base, torch.zeros_like(words[part]), *([steered] if in_both else []))
            return guide(uncond, predictor(base, words[part], steered), scale)
        return sample_in_batches(model, noise, args.steps).cpu()

    pictures = {(arm, scale): draw_with(prompt, *how, scale) for arm, how in ARMS.items() for scale in SCALES}
    heading = ["full prompt", *(f"{what} at {scale:g}" for what in ("IoU", "colours", "off") for scale in SCALES)]
    rows = [heading] + [table_row(arm, [pictures[arm, scale] for scale in SCALES], truth) for arm in ARMS]
    rows += [table_row("real pictures (ceiling)", [to_image(truth.x0)] * len(SCALES), truth)]
    partial, empty = prompt * torch.tensor([1, 0, 0], device=prompt.device), torch.zeros_like(prompt)
    for name, words in (("colour word only", partial), ("empty prompt", empty))[args.quick :]:
        for arm in ("both branches, 1", "conditional only, 1", "cond., paper / 8")[: 2 if args.quick else 3]:
            few = {(f"{name}: {arm}", scale): draw_with(words, *ARMS[arm], scale) for scale in SCALES}
            rows.append(table_row(f"{name}: {arm}", list(few.values()), truth))
            pictures |= few
    conclude(rows, pictures, truth, edges)


def table_row(name: str, images: list[torch.Tensor], truth) -> list[str]:
    scores = [lambda x: mask_iou(mask_of(x), truth.mask), lambda x: colours_right(x, truth.prompt).float(), off_palette]
    return [name, *(f"{score(x).mean():.2f}" for score in scores for x in images)]


# %% Result and figure
def conclude(rows, pictures, truth, edges) -> None:
    strong = SCALES[-1]
    off = lambda arm: off_palette(pictures[arm, strong])
    low, mean, high = interval(off("conditional only, 1") - off("both branches, 1"))
    cure = interval(off("conditional only, 1") - off("cond., paper / 8"))
    order = interval(off("cond., reversed order") - off("cond., paper / 8"))
    iou = lambda arm: mask_iou(mask_of(pictures[f"empty prompt: {arm}", SCALES[1]]), truth.mask)
    gain = interval(iou("conditional only, 1") - iou("both branches, 1"))
    verdict = (f"failure {verdict_of(low, high)}: at guidance {strong:g} control in the conditional branch alone puts {mean:+.3f}"
               f" ({low:+.3f} .. {high:+.3f}) of the pixels off the palette;\n   cure by weighting {verdict_of(cure[0], cure[2])}"
               f" ({cure[1]:+.3f}); that the order matters, not mere weakening, {verdict_of(order[0], order[2])}"
               f" ({order[1]:+.3f}; {order[0]:+.3f} .. {order[2]:+.3f}); n = {len(truth.mask)}.\n   With the empty prompt"
               f" guidance {SCALES[1]:g} strengthens control in the conditional branch alone: {verdict_of(gain[0], gain[2])},"
               f" IoU {gain[1]:+.2f} ({gain[0]:+.2f} .. {gain[2]:+.2f}); in both branches it changes nothing.")
    save_results(args, "06_cfg_weighting", {row[0]: dict(zip(rows[0][1:], map(float, row[1:]))) for row in rows[1:]}
                 | {"off palette, conditional only - both": mean, "- weighted": cure[1], "reversed - weighted": order[1],
                    "empty prompt, IoU, conditional only - both": gain[1]})
    result(args, rows, verdict, "b)" if low > 0 else "not b) here: see the verdict", predicted)
    names = [*ARMS, "empty prompt: both branches, 1", "empty prompt: conditional only, 1"]
    figure, axes = figures.plt.subplots(1, len(SCALES), figsize=(5 * len(SCALES), 12.5))
    for ax, scale in zip(axes, SCALES):
        few = slice(0, 4)
        lines = figures.enlarge(edges[few], 2)
        grid = torch.cat([lines, *(figures.outlined(pictures[arm, scale][few], edges[few]) for arm in names)])
        figures.show(ax, grid, 4, f"guidance {scale:g}")
        side = lines.shape[-1] + 1
        ax.set_yticks([side * (i + 0.5) for i in range(len(names) + 1)],
                      ["outline", *(name.replace(": ", ":\n") for name in names)] if scale == SCALES[0] else [])
    figure.suptitle(f"Empty prompt: guidance strengthens control in one branch, not in both ({verdict_of(gain[0], gain[2])});\n"
                    f"colours burnt at guidance {strong:g}: {verdict_of(low, high)} ({mean:+.3f} of the pixels, n = {len(truth.mask)})")
    save_figure(args, figure, "06_cfg_weighting")


if __name__ == "__main__":
    with problems_in_one_sentence():
        experiment()
