"""Slides for a lecture: python lessons/slides.py [--out outputs/slides.pdf] [--quick]

Sixteen pages of 16:9. Every number is read from results or CLAIMS.md, or measured here;
titles follow the verdicts. The small line below each page is for the speaker: which
lesson to run, what to ask.
"""

import argparse
import io
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
import matplotlib
import torch
import torch.nn.functional as F
from lesson import LESSONS, load_pictures, load_results
from lesson.diagram import architecture
from lesson.results import RESULTS
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure, SubFigure
from torch import Tensor
from tqdm import tqdm

from exercises.checking import EXERCISES
from minicontrolnet import (Control, ControlNet, Paired, UNet, detect_edges, difference, held_out,
                            load_base, load_control, mask_iou, mask_of, paired, palette,
                            paper_weights, sample, tokenize)
from minicontrolnet.draw import figures
from minicontrolnet.run.files import check_place, write_file
from minicontrolnet.run.options import file_to_write, report_problems

TITLE, TEXT, NOTE = 24, 20, 12  # points
FIGURE_8, GUIDANCE_RECORD = "claims_13_14_16_17_figure_8", "claims_10_11_guidance"
STYLE = {"xtick.labelsize": 18, "ytick.labelsize": 18, "legend.fontsize": 18}


class Live(NamedTuple):
    """What pictures are drawn with: 8 held-out pictures, their outlines and noise."""

    base: UNet
    edge: ControlNet
    palette: ControlNet
    masks: Tensor
    images: Tensor
    prompt: Tensor
    edges: Tensor
    noise: Tensor
    steps: int


def page(title: str, *lines: str, note: str) -> tuple[Figure, SubFigure]:
    """A slide with its title, at most three lines, a note; and what is left."""
    title = textwrap.fill(title, 62)
    lines = [part for line in lines for part in textwrap.wrap(line, 86)]
    figure = Figure(figsize=(12.8, 7.2))
    figure.get_layout_engine().set(w_pad=0.2)  # inches
    top = 0.2 + 0.42 * (title.count("\n") + 1) + 0.38 * len(lines)  # inches
    head, body, foot = figure.subfigures(3, 1, height_ratios=[top, 6.9 - top, 0.3])
    head.text(0.03, 1 - 0.15 / top, title, size=TITLE, weight="bold", va="top")
    head.text(0.03, 0, "\n".join(lines), size=TEXT, va="bottom", linespacing=1.25)
    foot.text(0.03, 0.5, note, size=NOTE, color="0.5", va="center")
    return figure, body


def numbers_of(name: str) -> dict:
    """The numbers of a record: "07" for a lesson's own, or the name of an experiment."""
    name, = (path.stem for path in RESULTS.glob(f"{name}*.json"))
    return load_results(name)["numbers"]


def finding(record: str, name: str) -> Paired:
    """The interval of what an experiment found."""
    return paired(load_results(record)["findings"][name])


def tell(it: Paired, yes: str, no: str, unclear: str) -> str:
    """What a difference says, as one of three phrases."""
    return {"confirmed": yes, "contradicted": no, "undecided": unclear}[it.verdict]


# %% What it is


def cover(live: Live) -> Figure:
    figure, body = page(
        "ControlNet: a picture says what words cannot",
        "L. Zhang, A. Rao, M. Agrawala, ICCV 2023, arXiv 2302.05543",
        "Here as a small program, in a world of one shape a picture",
        note="python lessons/00_check.py; then python -m minicontrolnet board")
    drawn = sample(live.base, live.prompt, live.noise, [Control(live.edge, live.edges)],
                   steps=live.steps)
    rows = torch.cat([live.edges[:6].expand(-1, 3, -1, -1), drawn[:6]])
    figures.show(body.subplots(), rows, 6, below=figures.captions(live.prompt[:6]),
                 left=["outline", "drawn"])
    return figure


def problem(live: Live) -> Figure:
    star = int((live.prompt[:, 1] == tokenize(["star"])[0, 1]).nonzero()[0])
    words, edges = "red star on blue", live.edges[[star]].expand_as(live.edges)
    rows = [sample(live.base, words, live.noise, controls, steps=live.steps)
            for controls in ([], [Control(live.edge, edges)])]
    mask = live.masks[[star]].expand_as(live.masks)
    iou = [mask_iou(mask_of(images), mask).mean() for images in rows]
    figure, body = page(
        f'"{words}": eight noises, eight poses. With one outline, one pose',
        "No word fixes place, size and tilt: the noise chooses them.",
        f"Mask IoU with the outline: {iou[0]:.2f} by words alone, {iou[1]:.2f} with it"
        f" (n = {len(edges)}).",
        note="python lessons/01_ddpm.py. Ask: which longer prompt would fix the pose?")
    rows[1] = figures.outlined(rows[1], edges, 4)
    figures.show(body.subplots(), torch.cat([figures.enlarge(rows[0], 4), rows[1]]), 8,
                 left=["words", "and an\noutline"])
    return figure


def diagram(live: Live) -> Figure:
    title = "{} outputs of the copy are added to the locked base's {} skips and middle"
    figure = architecture(live.base, live.edge, title=title)
    figure.text(0.01, 0.035, "python lessons/02_locking.py\nRead controlnet.py aloud",
                size=NOTE, color="0.5", va="center")
    return figure


def locking(live: Live) -> Figure:
    record = numbers_of("02")
    arms, costs = record["asked for what is new"], record["costs"]["ControlNet, locked"]
    colours = {arm: own["right colours"] for arm, own in arms.items()}
    iou = {arm: own["IoU with the outline"] for arm, own in arms.items()}
    figure, body = page(
        f"Trained itself, the base paints {colours['trained itself']:.0%} of the new"
        f" colours right; locked, with a copy, {colours['locked + copy']:.0%}",
        "Both learn from 100 pictures in four colours; the other four are asked for."
        f" New shapes, too; one seed. IoU: before {iou['before']:.2f}, itself"
        f" {iou['trained itself']:.2f}, copy {iou['locked + copy']:.2f}.",
        f"A locked step has {costs[0]:.2f} of the base's own arithmetic, {costs[2]:.2f}"
        " of its memory.",
        note="python lessons/02_locking.py. Ask: what does an exact 0 buy that a small"
             " learning rate does not?")
    ax = body.subplots()
    for shift, what in enumerate(("IoU with the outline", "right colours")):
        at = [i + 0.36 * shift for i in range(len(arms))]
        bars = ax.barh(at, [own[what] for own in arms.values()], 0.34, label=what)
        ax.bar_label(bars, fmt="{:.2f}", padding=6, size=18)
    ax.set_yticks([i + 0.18 for i in range(len(arms))], arms)
    ax.set(xlim=(0, 1.1), xlabel="share of pictures asked for what is new")
    ax.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1), reverse=True)
    return figure


def zero_conv(live: Live) -> Figure:
    norms = numbers_of("03")["gradient norms"]
    text = lambda x: "None" if x is None else f"{x:.0e}" if x else "0"
    first = {name: next((i for i, x in enumerate(row) if x), None)
             for name, row in norms.items()}
    order = sorted({i for i in first.values() if i is not None})
    figure, body = page(
        "Weights of zero learn: their gradient holds the input, not the weight",
        f"They wake at backward pass {', '.join(map(str, order))}: the outputs first;"
        " the locked base never.",
        note="python lessons/03_zero_conv.py. Ask: two zero convs in a row never learn;"
             " why do these?")
    left, right = body.subplots(1, 2, width_ratios=[2, 3])
    left.axis("off")
    formulas = ("$y = W x + b$,  $W = 0$,  $b = 0$", "$dL/dW = g\\, x^T$  is not 0",
                "$dL/db = \\Sigma\\, g$  is not 0", "$dL/dx = W^T g$  is 0",
                "with  $g = dL/dy$")
    left.text(0, 0.5, "\n\n".join(formulas), size=24, va="center")
    figures.heat(right, norms, {name: [*map(text, row)] for name, row in norms.items()})
    right.set_yticks(range(len(norms)), [textwrap.fill(name, 14) for name in norms])
    right.set_xlabel("backward pass")
    right.set_title("norm of the gradient")
    return figure


def encoder(live: Live) -> Figure:
    arms = numbers_of("claim_06_condition_encoder")
    rest = list(arms)[1:]
    more = {arm: difference(arms["learned"]["F1"], arms[arm]["F1"]) for arm in rest}
    say = lambda verdict: ", ".join(arm for arm in rest
                                    if more[arm].verdict == verdict) or "none"
    figure, body = page(
        tell(more["average"], "An average of patches forgets where the line runs; a"
             " learned encoder does not", "An average of patches is enough here",
             "A learned encoder is not told apart from an average of patches"),
        f"The learned encoder follows better than: {say('confirmed')}.",
        f"Not told apart from it: {say('undecided')}. Better than it:"
        f" {say('contradicted')}.",
        note="python lessons/04_condition_encoder.py. An early difference says how"
             " soon, not how well in the end.")
    left, right = body.subplots(1, 2, width_ratios=[4, 3])
    edges = live.edges[:2]
    maps = [edges, F.avg_pool2d(edges, 4), edges[:, :, ::4, ::4]]
    tiles = [figures.enlarge(x, 256 // x.shape[-1]) for x in maps]
    figures.show(left, torch.stack(tiles, 1).flatten(0, 1), 3,
                 below=["64 x 64", "average", "every\nfourth"])
    dots(right, {arm: own["F1"] for arm, own in arms.items()})
    right.set(xlabel="edge F1, a dot a seed", xlim=(0, 1.05))
    return figure


def dots(ax: Axes, scores: dict[str, list[float]]) -> None:
    """A row for each name, from above; a dot for each seed."""
    for i, values in enumerate(scores.values()):
        ax.plot(values, [-i] * len(values), "o", ms=12, alpha=0.6, color=f"C{i}")
    ax.set_yticks([-i for i in range(len(scores))], scores)
    ax.margins(y=0.15)


# %% How it learns


def training(live: Live) -> Figure:
    iou = {name: fmean(each) for name, each in numbers_of("05")["IoU"].items()}
    pairs = [numbers_of("claim_08_dropped_prompts")[f"{arm} dropped"]["none"]["right colours"]
             for arm in ("half", "none")]
    learned = tell(difference(*pairs), "It learns to.", "It learns less than without.",
                   "Whether it must is undecided.")
    figure, body = page(
        "Half of the prompts are emptied: the copy has to read the outline",
        f"{learned} Where each shape has colours of its own, right ones without a word:"
        f" half dropped {fmean(pairs[0]):.0%}, none dropped {fmean(pairs[1]):.0%}.",
        f"After 200 steps, mask IoU: {iou['right prompt']:.2f} with words,"
        f" {iou['empty prompt']:.2f} without; untrained {iou['step 0']:.2f}.",
        note="python lessons/05_edge_control.py, 08_ablations.py. Ask: what is the loss"
             " mostly made of?")
    left, right = body.subplots(1, 2, width_ratios=[2, 3])
    left.axis("off")
    left.text(0, 0.5, "Eq. 5, on noisy $z_t$, time $t$,\nprompt $c_t$, outline $c_f$:"
              "\n\n$\\|\\epsilon - \\epsilon_\\theta(z_t, t, c_t, c_f)\\|^2$\n\n"
              "$c_t$ is empty half of the time", size=22, va="center")
    rows = [live.edges[:4].expand(-1, 3, -1, -1)]
    rows += [sample(live.base, prompt, live.noise[:4], [Control(live.edge, live.edges[:4])],
                    steps=live.steps) for prompt in (live.prompt[:4], "")]
    figures.show(right, torch.cat(rows), 4, left=["outline", "words", "no words"],
                 below=figures.captions(live.prompt[:4], lines=3))
    return figure


def convergence(live: Live) -> Figure:
    gaps = numbers_of(FIGURE_8)["zero convs"]["gap"]
    wait, half, steep = (finding(FIGURE_8, f"zero convs: {what}").mean
                         for what in ("step of a tenth", "step of a half", "steepness in effective steps"))
    sudden = finding(FIGURE_8, "steepness of zero convs in effective steps, minus 2")
    figure, body = page(
        tell(sudden, f"Sudden convergence: {wait:.0f} steps for a tenth of the rise, and"
             f" {half - wait:.0f} more for half of it",
             "Outlines are followed step by step", "Sudden or gradual: undecided"),
        "The shuffle gap: how much larger the loss is with a neighbour's outline. Ten seeds.",
        f"It rises like the {steep:.1f}th power of time; a parabola has 2. We can describe it, and do"
        " not know why.",
        note="python lessons/05_edge_control.py, 45 s; start it, vote, then show this.")
    steps = [int(step) for step in gaps]
    for ax, scale in zip(body.subplots(1, 2), ("linear", "log")):
        for values in zip(*gaps.values()):
            ax.plot(steps, [value if value > 0 or scale == "linear" else float("nan") for value in values],
                    color="C0", alpha=0.5)
        ax.set(xlabel="training step", yscale=scale, title=f"{scale} scale")
    body.axes[0].set_ylabel("shuffle gap")
    return figure


# %% How it is used


def guidance(live: Live) -> Figure:
    record = numbers_of(GUIDANCE_RECORD)

    def share(arm: str, scale: int) -> str:
        return f"{fmean(record[f'{arm}, guidance {scale}, 20 steps']['off palette'][0]):.0%}"

    harm = {scale: finding(GUIDANCE_RECORD, f"harm, guidance {scale}, 20 steps") for scale in (9, 30)}
    figure, body = page(
        "No prompt, control in one branch: at guidance 30 "
        + tell(harm[30], "it oversaturates colours", "colours are cleaner", "the harm is undecided")
        + f" ({share('one branch', 30)} of the pixels)",
        f"At guidance 9 the harm is {tell(harm[9], 'there', 'the other way', 'undecided')}: {harm[9]} of the pixels."
        " In both branches guidance changes nothing, exactly.",
        f"The paper's weights as printed: {share('paper, 1 to 8', 30)} at guidance 30. Divided by 8:"
        f" {share('paper / 8', 30)}.",
        note="python lessons/06_cfg_weighting.py. Ask: what else than weights would lessen the harm?")
    paper = paper_weights()
    arms = {"both branches": (True, 1.0), "one branch": (False, 1.0),
            "paper, 1 to 8": (False, paper),
            "paper / 8": (False, [weight / 8 for weight in paper])}
    n, columns = 3, [figures.enlarge(live.edges[:3], 4)]
    for in_both, weights in arms.values():
        drawn = sample(live.base, "", live.noise[:n],
                       [Control(live.edge, live.edges[:n], weights)], 30, live.steps, in_both=in_both)
        columns.append(figures.outlined(drawn, live.edges[:n], 4))
    figures.show(body.subplots(), torch.stack(columns, 1).flatten(0, 1), len(columns),
                 below=["outline", *(arm.replace(" ", "\n", 1) for arm in arms)])
    return figure


def several(live: Live) -> Figure:
    record = numbers_of("07")
    means = {what: {way: fmean(each) for way, each in ways.items()}
             for what, ways in record.items() if isinstance(ways, dict)}
    error, iou = record["palette error"], record["IoU"]
    gains = (difference(error["edge alone"], error["agreeing: sum"]),
             difference(iou["agreeing: sum"], iou["agreeing: palette alone"]))
    weakest = min(gains, key=lambda it: it.low)
    figure, body = page(
        "Two ControlNets that never met: their sum " + tell(
            weakest, "follows both", "does not follow both", "may not follow both"),
        *(f"{name}: IoU with the outline {means['IoU'][way]:.2f}, palette error"
          f" {means['palette error'][way]:.3f}" for name, way in
          {"Edge alone": "edge alone", "Palette alone": "agreeing: palette alone",
           "Sum": "agreeing: sum"}.items()),
        note="python lessons/07_multi_control.py. Ask: where would a third one go?")
    edges, colours, noise = live.edges[:3], palette(live.images[:3]), live.noise[:3]
    pairs = [Control(live.edge, edges), Control(live.palette, colours)]
    columns = [figures.enlarge(x, 4) for x in (edges, colours)]
    for controls in ([pairs[0]], [pairs[1]], pairs):
        drawn = sample(live.base, "", noise, controls, steps=live.steps)
        columns.append(figures.outlined(drawn, edges, 4))
    figures.show(body.subplots(), torch.stack(columns, 1).flatten(0, 1), len(columns),
                 below=["edges", "palette", "edge\nalone", "palette\nalone", "sum"])
    return figure


# %% What holds


def ablations(live: Live) -> Figure:
    record, kinds = numbers_of(FIGURE_8), ("none", "insufficient", "conflicting", "perfect")
    arms = ("zero convs", "N(0, 1/fan_in)", "N(0, 0.02^2)", "lite")
    over = {arm: difference(record["zero convs"]["none"]["IoU"], record[arm]["none"]["IoU"])
            for arm in arms[1:]}
    say = lambda it: tell(it, "worse", "better", "not told apart")
    figure, body = page(
        "Against zero convs: large Gaussian convs are"
        f" {say(over['N(0, 1/fan_in)'])}, lite is {say(over['lite'])}",
        *(f"Zero convs minus {arm}, no prompt: IoU {it}"
          for arm, it in over.items()),
        note="python lessons/08_ablations.py (Fig. 8). Ask: what would one seed have"
             " hidden?")
    for ax, kind in zip(body.subplots(1, 4, sharey=True, sharex=True), kinds):
        dots(ax, {arm: record[arm][kind]["IoU"] for arm in arms})
        ax.set_title(f"prompt: {kind}")
    body.supxlabel("mask IoU, a dot a training seed", size=18)
    return figure


def few_pictures(live: Live) -> Figure:
    record = numbers_of("few_pictures_of_four_colours")
    arms = list(record)
    paint = {arm: fmean(record[arm]["new colours"]["right colours"]) for arm in arms}
    own, itself = paint["ControlNet"], paint["base trained"]
    figure, body = page(
        f"From 100 pictures in four colours: ControlNet paints {own:.0%} of the other"
        f" four right, the fine-tuned base {itself:.0%}",
        "What the locked base knew, it still knows. The copy only has to learn"
        " outlines. Three seeds, shapes that were seen, one rate.",
        note="python lessons/08_ablations.py, lessons/02_locking.py. Ask: who would"
             " collect a million pictures for one condition?")
    left, right = body.subplots(1, 2, width_ratios=[5, 6])
    pictures = load_pictures("few_pictures_of_four_colours", 256).unflatten(0, (len(record), -1))
    shown = [arm for arm in arms if arm not in ("random copy", "lite")]
    rows = [pictures[list(record).index(arm)] for arm in shown]
    figures.show(left, torch.cat(rows), len(rows[0]),
                 below=["seen", "new", "new", "new,\nshapes too"],
                 left=[arm.replace(" ", "\n", 1) for arm in shown])
    dots(right, {arm: record[arm]["new colours"]["right colours"] for arm in arms})
    right.set(xlim=(-0.05, 1.05), xlabel="right colours, a dot a seed")
    return figure


def transfer(live: Live) -> Figure:
    arms, ways = numbers_of("10"), ("no control", "as it is")
    bases = {"A": "A itself", "A'": "a sibling", "B": "a stranger"}
    iou = {base: [fmean(arms[f"{base}, {way}"]["IoU"]) for way in ways]
           for base in bases}
    gains = {bases[base]: after - before for base, (before, after) in iou.items()}
    keeps = {who: gain / gains["A itself"] for who, gain in gains.items()}
    pale = difference(arms["A', as it is"]["pale colours"],
                 arms["A', no control"]["pale colours"])
    figure, body = page(
        f"On another base, untrained: a sibling keeps {keeps['a sibling']:.0%} of the"
        f" gain in IoU, a stranger {keeps['a stranger']:.0%}",
        "The sibling was trained on from A, in pale; the stranger from another start.",
        f"The sibling's pale style {tell(pale, 'gains', 'suffers', 'may suffer')}:"
        f" right and pale, {pale}.",
        note="python lessons/10_transfer.py. Ask: why should channel 17 mean the same"
             " in two networks?")
    pictures = load_pictures("10_transfer", 192).unflatten(0, (len(arms), -1))
    at = {arm: i for i, arm in enumerate(arms)}
    grid = [pictures[at[f"{base}, {way}"]][i] for way in ways for base in bases
            for i in (1, 2)]
    below = [text for base, who in bases.items()
             for text in (who, "IoU {:.2f}\nto {:.2f}".format(*iou[base]))]
    figures.show(body.subplots(), torch.stack(grid), 6, "", below, ["without", "with"])
    return figure


def successors(live: Live) -> Figure:
    record = numbers_of("12")
    locked = ("ControlNet", "ControlNet++", "Control-LoRA", "T2I-Adapter", "ControlNet-XS")
    arms = (*locked, "ControlNeXt", "fine-tuned base", "frozen copy")
    share = record["Control-LoRA"]["cost"]["trained"] / record["ControlNet"]["cost"]["trained"]
    free = {steps: fmean(record[f"training-free, {steps} steps"]["0"]["right"]["F1"]) for steps in (8, 25)}
    new = {name: fmean(record[name]["600"]["new colours"]["colours"]) for name in arms}
    figure, body = page(
        f"After ControlNet: {share:.0%} of the weights follow almost as well",
        f"Without training, by the gradient of an edge loss: F1 {free[25]:.2f} with 25 steps, {free[8]:.2f} with 8.",
        f"New colours right: fine-tuned base {new['fine-tuned base']:.0%}, with a locked base at least"
        f" {min(new[name] for name in locked):.0%}.",
        note="python lessons/12_descendants.py. Ask: 40 styles and eight conditions, which method?")
    left, right = body.subplots(1, 2, sharey=True)
    for axes, prompt in ((left, "right"), (right, "conflicting")):
        dots(axes, {name: record[name]["600"][prompt]["F1"] for name in arms})
        axes.set(xlim=(0.2, 1.05), xlabel=f"edge F1, {prompt} prompt")
    return figure


def claims(live: Live) -> Figure:
    text = (LESSONS / "CLAIMS.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d+)\]\(#claim-\d+\) \| [^|]+ \| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE)
    parts = [(number, *re.fullmatch(r"([a-z ]+?)(?: \((.+)\))?", part).groups())
             for number, cell in rows for part in cell.split("; ")]
    count = Counter(status for _, status, _ in parts)
    against = [f"{part or 'the whole'} ({number})" for number, status, part in parts
               if status == "contradicted in the toy"]
    figure, body = page(
        f"{len(rows)} claims of the paper, {len(parts)} parts:"
        f" {count['shown in the toy']} shown in the toy, {count['contradicted in the toy']} contradicted",
        *textwrap.wrap(f"Contradicted: {', '.join(against) or 'none'}.", 82)[:2],
        "A toy can show a mechanism, and fail to; it is no proof against the paper.",
        note="lessons/CLAIMS.md has the interval behind each status. Ask: which row"
             " would you not have believed?")
    ax, count = body.subplots(), dict(count.most_common())
    bars = ax.barh([-i for i in range(len(count))], count.values(), color="C0")
    ax.bar_label(bars, padding=6, size=18)
    ax.set_yticks([-i for i in range(len(count))], count)
    ax.set_xlabel("parts of claims")
    return figure


def at_home(live: Live) -> Figure:
    homework = [EXERCISES[id] for id in ("05a", "05b", "06c", "07a")]
    figure, body = page(
        f"At home: {len(EXERCISES)} exercises that check themselves,"
        f" {sum(e.minutes for e in EXERCISES.values())} minutes in all",
        "pip install -r requirements.txt", "python lessons/exercises",
        "python lessons/03_zero_conv.py --mine   (a lesson with your own functions)",
        note="lessons/README.md: plans, grading. The project: a condition of your own.")
    ax = body.subplots()
    ax.axis("off")
    told = [f"{e.id}   {e.task} ({e.minutes} minutes)" for e in homework]
    told += ["The project: a condition of your own; what you expect, written before",
             "Draw: python -m minicontrolnet board"]
    ax.text(0, 0.95, "For next week:\n\n" + "\n\n".join(told), size=TEXT, va="top")
    return figure


# %% The file


SLIDES = (cover, problem, diagram, locking, zero_conv, encoder, training, convergence,
          guidance, several, ablations, few_pictures, transfer, successors, claims, at_home)


def drawn(quick: bool) -> Iterator[Figure]:
    """The slides, one by one; ``quick``: live pictures take few sampling steps."""
    base, (truth, noise) = load_base(), held_out(8)
    live = Live(base, load_control("edge", base), load_control("palette", base),
                truth.mask, truth.image, truth.prompt, detect_edges(truth.image), noise,
                steps=3 if quick else 25)
    for number, slide in enumerate(SLIDES, 1):
        with matplotlib.rc_context(STYLE):
            figure = slide(live)
        figure.text(0.98, 0.02, number, size=NOTE, color="0.5", ha="right")
        yield figure


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python lessons/slides.py",
                                     description="Make slides for a lecture.")
    parser.add_argument("--out", type=file_to_write(".pdf"), metavar="FILE",
                        default=Path("outputs") / "slides.pdf")
    parser.add_argument("--quick", action="store_true",
                        help="pictures of few sampling steps, in seconds")
    args = parser.parse_args(words)
    check_place(args.out)  # now, and not after minutes of work
    write_file(args.out, as_pdf(args.quick))
    print(args.out)


@figures.styled
def as_pdf(quick: bool) -> bytes:
    """All slides as the bytes of a PDF file."""
    file = io.BytesIO()
    with PdfPages(file, metadata={"Title": "ControlNet", "CreationDate": None}) as pdf:
        for figure in tqdm(drawn(quick), "slides", len(SLIDES)):
            pdf.savefig(figure, dpi=200)
    return file.getvalue()


if __name__ == "__main__":
    report_problems()
    main()
