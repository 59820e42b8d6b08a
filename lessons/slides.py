"""Slides for a lecture: python lessons/slides.py [--out outputs/slides.pdf] [--quick]

There are sixteen pages of 16:9. Every number comes from a record in lessons/results or from
CLAIMS.md, or the program measures it while it makes the slides. Each page has a small text for the
speaker. Most of these texts say which lesson to run or to show, and what to ask the class.
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
# The lessons' package comes first: it says in one sentence if matplotlib does not start, and Ctrl-C is quiet.
from lesson import LESSONS, finding, load_pictures, load_results  # isort: skip
import matplotlib
import torch
from lesson.diagram import architecture
from lesson.figures_08 import PROMPTS
from lesson.figures_13 import differences_from_a, shuffle_gaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure, SubFigure
from torch import Tensor
from tqdm import tqdm

from exercises.checking import EXERCISES
from minicontrolnet import (Control, ControlNet, Paired, UNet, ddim_times, detect_edges, difference,
                            held_out, load_base, load_control, mask_iou, mask_of, palette, palette_error,
                            paper_weights, q_sample, sample, sample_steps, to_image, tokenize)
from minicontrolnet.draw import figures
from minicontrolnet.run.files import check_place, write_file
from minicontrolnet.run.options import file_to_write, read_words, report_problems

TITLE, TEXT, NOTE = 24, 20, 12  # points
STYLE = {"xtick.labelsize": 18, "ytick.labelsize": 18, "legend.fontsize": 18}


class Live(NamedTuple):
    """Eight held-out pictures with their outlines and noise, and the networks that generate from them."""

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
    """A slide with its title, a few lines of text, and a note. Returns it with its empty middle."""
    title = textwrap.fill(title, 57)
    wrapped = [part for line in lines for part in textwrap.wrap(line, 86)]
    note = textwrap.fill(note, 125)
    figure = Figure(figsize=(12.8, 7.2))
    figure.get_layout_engine().set(w_pad=0.2)  # inches
    top = 0.2 + 0.42 * (title.count("\n") + 1) + 0.38 * len(wrapped)  # inches
    bottom = 0.1 + 0.2 * (note.count("\n") + 1)
    head, body, foot = figure.subfigures(3, 1, height_ratios=[top, 7.2 - top - bottom, bottom])
    head.text(0.03, 1 - 0.15 / top, title, size=TITLE, weight="bold", va="top")
    head.text(0.03, 0, "\n".join(wrapped), size=TEXT, va="bottom", linespacing=1.25)
    foot.text(0.03, 0.5, note, size=NOTE, color="0.5", va="center")
    return figure, body


def numbers_of(record: str) -> dict:
    return load_results(record)["numbers"]


def phrase(interval: Paired, above: str, below: str, unclear: str) -> str:
    """One of three phrases: the interval is above 0, below 0, or it contains 0."""
    return {"shown": above, "contradicted": below, "undecided": unclear}[interval.verdict]


def dots(axes: Axes, scores: dict[str, list[float]]) -> None:
    """A row for each name, from the top; a dot for each training seed, each a little lower than the one before."""
    for i, values in enumerate(scores.values()):
        heights = torch.linspace(0.15, -0.15, len(values)) - i  # equal values stay apart
        axes.plot(values, heights, "o", ms=12, alpha=0.6, color=f"C{i}")
    axes.set_yticks([-i for i in range(len(scores))], scores)
    axes.margins(y=0.15)


# %% What it is


def cover(live: Live) -> Figure:
    figure, body = page(
        "ControlNet: a picture says what words cannot",
        "L. Zhang, A. Rao, M. Agrawala, ICCV 2023, arXiv 2302.05543",
        "We build ControlNet as a small program, for pictures with one shape each.",
        note="Run lessons/00_check.py, and then python -m minicontrolnet board.")
    controlled = sample(live.base, live.prompt, live.noise, [Control(live.edge, live.edges)], steps=live.steps)
    rows = torch.cat([live.edges[:6].expand(-1, 3, -1, -1), controlled[:6]])
    figures.show(body.subplots(), rows, 6, below=figures.captions(live.prompt[:6]),
                 left=["outline", "generated"])
    return figure


def problem(live: Live) -> Figure:
    words = "red star on blue"
    edges, mask, free, controlled = one_star(live, words)
    without = mask_iou(mask_of(free), mask).mean()
    with_outline = mask_iou(mask_of(controlled), mask).mean()
    figure, body = page(
        f'From eight noise samples, "{words}" gets eight poses; one outline fixes the pose',
        "The pose of a shape is its place, its size and its tilt. No word says it.",
        "The IoU says how well a shape fills its outline (magenta); 1 is perfect.",
        f"By words alone it is {without:.2f}, and with words and the outline it is {with_outline:.2f}.",
        note="Run lessons/01_ddpm.py. Ask: which longer prompt would fix the pose? (The IoU of two shapes is the area"
             " in both of them, divided by the area in at least one.)")
    rows = torch.cat([figures.enlarge(free, 4), figures.outlined(controlled, edges, 4)])
    figures.show(body.subplots(), rows, 8, left=["words\nalone", "words and\noutline"])
    return figure


def star_of(live: Live) -> int:
    """The number of the first picture that shows a star."""
    token = tokenize(["star"])[0, 1]
    return int((live.prompt[:, 1] == token).nonzero()[0])


def one_star(live: Live, words: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The outline and the mask of a star, and eight pictures: by words alone, and with the outline."""
    star = star_of(live)
    edges = live.edges[[star]].expand_as(live.edges)
    mask = live.masks[[star]].expand_as(live.masks)
    free = sample(live.base, words, live.noise, steps=live.steps)
    controlled = sample(live.base, words, live.noise, [Control(live.edge, edges)], steps=live.steps)
    return edges, mask, free, controlled


def noising(live: Live) -> Figure:
    figure, body = page(
        "A diffusion model starts from noise, and guesses the picture again and again",
        "First row: a real picture with noise. A larger time t means more noise.",
        "Second row: sampling, from noise alone. Third row: the model's guess at that time.",
        "After each guess we mix in slightly less noise, and the model guesses again.",
        note="Run lessons/01_ddpm.py. Ask: at which t is it decided what the picture shows?"
             " (xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps, where alpha_bar falls from 1 to 0 as t grows.)")
    rows, times = moments(live, columns=7 if live.steps > 6 else live.steps)
    figures.show(body.subplots(), rows, len(times), below=[f"t = {t}" for t in times],
                 left=["a real picture\nwith noise", "sampling", "the model's\nguess"])
    return figure


def moments(live: Live, columns: int) -> tuple[Tensor, list[int]]:
    """Three rows of pictures at a few times: a real picture with noise, sampling, and the predicted picture."""
    one = star_of(live)
    noise, real = live.noise[:1], live.images[[one]] * 2 - 1
    states, guesses = [noise], []
    for xt, x0 in sample_steps(live.base, live.prompt[[one]], noise, steps=live.steps):
        states.append(xt)
        guesses.append(x0)
    pick = torch.linspace(0, len(guesses) - 1, columns).round().int().tolist()
    times = [ddim_times(live.steps)[i] for i in pick]
    rows = [q_sample(real, torch.tensor([t]), noise) for t in times]
    rows += [states[i] for i in pick] + [guesses[i] for i in pick]
    return to_image(torch.cat(rows)), times


def diagram(live: Live) -> Figure:
    figure = architecture(live.base, live.edge, title="")
    title = f"We add the copy's {len(live.edge.zero_convs)} outputs to the locked base"
    figure.text(0.03, 1 - 0.15 / 7.2, title, size=TITLE, weight="bold", va="top")
    figure.text(0.01, 0.04, "Run lessons/02_locking.py. Read\nControlNet in controlnet.py aloud.",
                size=NOTE, color="0.5", va="center")
    return figure


def locking(live: Live) -> Figure:
    names = {"ControlNet": "locked", "base trained": "fine-tuned", "from scratch": "from scratch"}
    record = numbers_of("few_pictures_of_four_colours")
    scores = {name: record[arm]["new colours"] for arm, name in names.items()}
    colours = {name: score["right colours"] for name, score in scores.items()}
    figure, body = page(
        f"Fine-tuned at a high rate, the base paints {fmean(colours['fine-tuned']):.0%} of new colours right;"
        f" the locked base with a copy paints {fmean(colours['locked']):.0%}",
        "Each network saw 100 circles and squares in four colours.",
        f"The IoU is {fmean(scores['locked']['IoU']):.2f} for the locked base with its copy, and"
        f" {fmean(scores['fine-tuned']['IoU']):.2f} for the fine-tuned one.",
        "From scratch: a network of the same layers that starts from random weights.",
        note="Run lessons/02_locking.py, which compares the two where they follow equally well. That lesson uses"
             " another learning rate and other colours, so its numbers differ. The rate is 2e-3 here. At a lower rate"
             " fine-tuning forgets less. Ask: what does an exact guarantee give us?")
    show_locking(body, colours, [list(record).index(arm) for arm in names])
    return figure


def show_locking(body: SubFigure, colours: dict[str, list[float]], rows: list[int]) -> None:
    """Four pictures of each network, and the share of right colours in each training."""
    left, right = body.subplots(1, 2)
    pictures = load_pictures("few_pictures_of_four_colours", 256).unflatten(0, (-1, 4))
    below = ["seen", "new\ncolours", "new\nshapes,\ntoo", "new\nshapes,\ntoo"]
    figures.show(left, pictures[rows].flatten(0, 1), 4, below=below,
                 left=[name.replace(" ", "\n") for name in colours])
    dots(right, colours)
    right.set(xlim=(-0.05, 1.05), xlabel="share of new colours that are right,\none dot per seed")


def zero_conv(live: Live) -> Figure:
    figure, body = page(
        "Weights of zero can learn, because their gradient contains the input and not the weight",
        "The zero convolutions at the outputs get the first gradient, then the copy, and then the"
        " condition encoder. The locked base never gets one.",
        note="Run lessons/03_zero_conv.py. Ask: the weights of two zero convolutions in a row never learn. Why do"
             " these learn? (None: no gradient is computed for this part. 0: it is computed, and it is 0.)")
    left, right = body.subplots(1, 2, width_ratios=[2, 3])
    left.axis("off")
    formulas = ("$y = W x + b$,  $W = 0$,  $b = 0$", "$dL/dW = \\Sigma\\, g\\, x^T$  is not 0",
                "$dL/db = \\Sigma\\, g$  is not 0", "$dL/dx = W^T g$  is 0",
                "with  $g = dL/dy$,  and\na sum $\\Sigma$ over all pixels")
    left.text(0, 0.5, "\n\n".join(formulas), size=24, va="center")
    show_gradients(right, numbers_of("03_zero_conv")["gradient norms"])
    return figure


def show_gradients(axes: Axes, norms: dict[str, list[float | None]]) -> None:
    """A row for each part of the network, and a column for each training step."""
    figures.heat(axes, norms, {name: [rounded(norm) for norm in row] for name, row in norms.items()})
    axes.set_yticks(range(len(norms)), [textwrap.fill(name, 14) for name in norms])
    axes.set_xlabel("training step")
    axes.set_title("size of the gradient (read from the bottom up)")


def rounded(norm: float | None) -> str:
    """The size of a gradient to one digit. None means that no gradient was computed."""
    if norm is None:
        return "None"
    return f"{norm:.0e}" if norm else "0"


# %% How it learns


def dropped_prompts(live: Live) -> Figure:
    numbers = numbers_of("claim_08_dropped_prompts")
    half = numbers["half dropped"]["none"]["right colours"]
    none = numbers["none dropped"]["none"]["right colours"]
    learned = phrase(difference(half, none), "so the copy learns which colours belong to an outline",
                     "but the copy learns less from it", "and whether this helps is undecided")
    figure, body = page(
        f"Half of the training prompts are empty, {learned}",
        "In this experiment each shape has two colours of its own.",
        f"Without words, {fmean(half):.0%} of the pictures have these two."
        f" If no prompt was empty, {fmean(none):.0%} do.",
        note="Run lessons/05_edge_control.py, and show lessons/08_ablations.py. The last column shows the right"
             " colours. Ask: what can the copy read from an outline alone?")
    show_objective(*body.subplots(1, 2, width_ratios=[2, 3]))
    return figure


def show_objective(left: Axes, right: Axes) -> None:
    """Eq. 5 at the left, and at the right what two ControlNets paint for each kind of prompt."""
    left.axis("off")
    left.text(0, 0.5, "Eq. 5, with noisy $z_t$, time $t$,\nprompt $c_t$ and outline $c_f$:"
              "\n\n$\\|\\epsilon - \\epsilon_\\theta(z_t, t, c_t, c_f)\\|^2$\n\n"
              "Half of the time $c_t$ is empty.", size=22, va="center")
    pictures = load_pictures("claim_08_dropped_prompts", 256)
    figures.show(right, pictures, 4, below=[name.replace(" ", "\n") for name in PROMPTS],
                 left=["half of the\ntraining\nprompts\nempty", "none\nempty"])


def convergence(live: Live) -> Figure:
    record = load_results("claim_09_sudden_convergence")
    gaps = record["numbers"]["size 0"]["gap"]
    tenth = finding(record, "size 0: step of a tenth").mean
    half = finding(record, "size 0: step of a half").mean
    steps = max(int(step) for step in gaps)
    sudden = phrase(finding(record, "steepness of zeros minus 2"), "The gap rises suddenly",
                    "The gap rises gradually", "Whether the gap rises suddenly is undecided")
    figure, body = page(
        f"{sudden}: it needs {tenth:.0f} steps for a tenth of its rise, and {half - tenth:.0f} more for half of it",
        "The gap is the loss with another picture's outline minus the loss with its own.",
        f"A straight rise over {steps} steps needs {steps / 10:.0f} for a tenth, and then"
        f" {steps / 2 - steps / 10:.0f} more for half of it.",
        "At first the gap seems to be 0 on a linear scale. On a log scale it grows already.",
        note="Start lessons/05_edge_control.py, take a vote, and then show this slide. Ask: why do we not look at the"
             " loss of the batches?")
    show_gaps(body, gaps)
    return figure


def show_gaps(body: SubFigure, gaps: dict[str, list[float]]) -> None:
    """The gap over the training steps on two scales, a line for each seed. A log scale has no 0."""
    steps = [int(step) for step in gaps]
    for axes, scale in zip(body.subplots(1, 2), ("linear", "log")):
        for curve in zip(*gaps.values()):
            shown = [(step, gap) for step, gap in zip(steps, curve) if scale == "linear" or gap > 1e-7]
            axes.plot(*zip(*shown), color="C0", alpha=0.4, lw=2)
        axes.set(xlabel="training step", yscale=scale, title=f"{scale} scale, one line per seed")
    body.axes[0].set_ylabel("shuffle gap")


# %% How it is used


def guidance(live: Live) -> Figure:
    record = load_results("claims_10_11_guidance")
    off = {}
    for name, values in record["numbers"].items():
        off[name] = torch.tensor(values["off palette"]).mean().item()
    at_9 = phrase(finding(record, "harm, guidance 9, 20 steps"), "guidance 9 does harm", "guidance 9 does good",
                  "harm at guidance 9 is undecided")
    at_30 = off["one branch, guidance 30, 20 steps"]
    both = off["both branches, guidance 1, 20 steps"]
    figure, body = page(
        f"Control in one branch: {at_9}; at 30, {at_30:.0%} of the pixels are off the palette",
        "A pixel is off the palette if it is far from every colour of the toy world.",
        f"There is no prompt. With control in both branches, {both:.0%} are off at every scale.",
        "At guidance 30 the paper's weights (1 to 8) do more harm. Divided by 8, they do less.",
        note="Run lessons/06_cfg_weighting.py. Ask: how else could we avoid oversaturated colours? (Guidance amplifies"
             " the difference of two branches. Without a prompt they differ by the control alone.)")
    left, right = body.subplots(1, 2, width_ratios=[3, 4])
    show_harm(left, off, both)
    show_weights(right, live)
    return figure


def show_harm(axes: Axes, off: dict[str, float], both: float) -> None:
    """The share of pixels off the palette at each guidance scale, for three kinds of weights."""
    scales = [1, 2.5, 4, 6, 9, 12, 16, 23, 30]
    names = {"one branch": "one branch", "paper, 1 to 8": "paper's weights", "paper / 8": "divided by 8"}
    for arm, name in names.items():
        shares = [100 * off[f"{arm}, guidance {scale}, 20 steps"] for scale in scales]
        axes.plot(scales, shares, "o-", label=name)
    axes.axhline(100 * both, color="0.6", ls="--", label="both branches")
    axes.set(xlabel="guidance scale", ylabel="pixels off the palette in %", ylim=(0, None))
    axes.legend()


def show_weights(axes: Axes, live: Live) -> None:
    """Three outlines, and the pictures at guidance 30 with each kind of weights."""
    paper = paper_weights()
    weights = {"one\nbranch": 1.0, "paper's\nweights": paper, "divided\nby 8": [weight / 8 for weight in paper]}
    edges, noise = live.edges[:3], live.noise[:3]
    pictures = {"both\nbranches": sample(live.base, "", noise, [Control(live.edge, edges)], 30, live.steps,
                                         in_both=True)}
    for name, weight in weights.items():
        pictures[name] = sample(live.base, "", noise, [Control(live.edge, edges, weight)], 30, live.steps)
    columns = [figures.enlarge(edges, 4)]
    columns += [figures.outlined(images, edges, 4) for images in pictures.values()]
    figures.show(axes, torch.stack(columns, 1).flatten(0, 1), len(columns), title="guidance 30",
                 below=["outline", *pictures])


def several(live: Live) -> Figure:
    colours = palette(live.images)
    edge, wanted = Control(live.edge, live.edges), Control(live.palette, colours)
    below = ["edges", "palette"]
    columns = [figures.enlarge(condition[1:3], 4) for condition in (live.edges, colours)]
    for name, controls in {"edges alone": [edge], "palette alone": [wanted], "sum of both": [edge, wanted]}.items():
        images = sample(live.base, "", live.noise, controls, steps=live.steps)
        iou = mask_iou(mask_of(images), live.masks).mean()
        error = palette_error(images, colours).mean()
        below.append(f"{name}\nIoU {iou:.2f}\nerror {error:.3f}")
        columns.append(figures.outlined(images[1:3], live.edges[1:3], 4))
    figure, body = page(
        "To use two ControlNets, we add their outputs, and the sum follows both conditions",
        "There is no prompt. Edges give the outline (magenta), and a palette gives the colours.",
        "IoU 1: the shape fills its outline. Error 0: the colours are those of the palette.",
        note="Run lessons/07_multi_control.py, which also has conditions that disagree. A palette is the mean colour of"
             " each of 4x4 squares. These are eight pictures, so the numbers differ from those in CLAIMS.md."
             " Ask: where would a third ControlNet go?")
    figures.show(body.subplots(), torch.stack(columns, 1).flatten(0, 1), len(columns), below=below)
    return figure


# %% What holds

STATUSES = {"departed": "departed: we did\nsomething else", "exact": "exact: true by\nconstruction",
            "shown in the toy": "shown in\nthe toy", "contradicted in the toy": "contradicted\nin the toy"}
# What the toy shows in place of a claim. The keys are the claim's number and the part that CLAIMS.md names.
CONTRADICTED = {
    ("11", "as printed, at guidance 12 to 30"):
        "At guidance 12 to 30, the paper's weights put more pixels off the palette, and not fewer.",
    ("14", "it fails"):
        "Without a sufficient prompt, ControlNet-lite is behind, and it does not fail.",
    ("17", "the base is closer still, for masks"):
        "The masks of real pictures are closer to ControlNet's than to those of the base without control.",
    ("18", "the whole"):
        "A program can distinguish ControlNet's pictures from those of a fine-tuned base.",
}


def ablations(live: Live) -> Figure:
    record = numbers_of("claims_13_14_16_17_figure_8")
    names = {"zero convs": "zero convs", "N(0, 0.02^2)": "small Gaussian", "N(0, 1/fan_in)": "large Gaussian",
             "lite": "lite"}
    arms = {name: record[arm] for arm, name in names.items()}
    zero = arms["zero convs"]["none"]["IoU"]
    lines = []
    words = {}
    for name in list(arms)[1:]:
        interval = difference(arms[name]["none"]["IoU"], zero)
        words[name] = phrase(interval, "better than", "worse than", "not distinguished from")
        lines.append(f"{name} {interval}")
    figure, body = page(
        f"Large Gaussian convolutions are {words['large Gaussian']} zero ones, and lite is {words['lite']} ControlNet",
        "IoU without a prompt, minus that of zero convolutions (in brackets: 95 % intervals):",
        f"{', '.join(lines[:2])},", f"{lines[2]}.",
        note="Show lessons/08_ablations.py (Fig. 8 of the paper). Gaussian: the zero convolutions start with std 0.02"
             " (small) or 1 / sqrt(fan_in) (large). Lite: a convolution in place of each copied block. An insufficient"
             " prompt names the background only, and a conflicting one names another shape. Ask: what would a single"
             " seed have hidden?")
    show_arms(body, arms)
    return figure


def show_arms(body: SubFigure, arms: dict[str, dict]) -> None:
    """The IoU of each training, for four kinds of prompts."""
    kinds = ("none", "insufficient", "conflicting", "perfect")
    for axes, kind in zip(body.subplots(1, 4, sharey=True, sharex=True), kinds):
        dots(axes, {name: scores[kind]["IoU"] for name, scores in arms.items()})
        axes.set(title="no prompt" if kind == "none" else kind, xticks=[0.8, 0.9])
    body.supxlabel("IoU for four kinds of prompts, one dot per training seed", size=18)


def transfer(live: Live) -> Figure:
    sibling, stranger = load_results("claim_21_another_base"), load_results("claim_21_stranger")
    bases = {"our base": (stranger, "base, no ControlNet", "base, its own ControlNet"),
             "a sibling": (sibling, "sibling, no ControlNet", "sibling, the base's ControlNet"),
             "a stranger": (stranger, "stranger, no ControlNet", "stranger, the base's ControlNet")}
    iou = {}
    for base, (record, *arms) in bases.items():
        iou[base] = [fmean(record["numbers"][arm]["IoU"]) for arm in arms]
    at_home = fmean(sibling["numbers"]["base, its own ControlNet"]["IoU"])
    gain = finding(sibling, "A's ControlNet minus no control, IoU")
    style = finding(sibling, "A's ControlNet minus its own, pale colours")
    figure, body = page(
        f"On another base, without training, the IoU with the outline rises to {iou['a sibling'][1]:.2f} (a sibling)"
        f" and {iou['a stranger'][1]:.2f} (a stranger)",
        "A sibling is our base, trained further on pale pictures. A stranger had another start.",
        f"IoU on siblings, control minus none: {gain}.",
        f"Right pale colours, our ControlNet minus a sibling's own: {style}.",
        note="Run lessons/10_transfer.py. In brackets: 95 % intervals over three siblings. A sibling's own ControlNet"
             f" was trained on the sibling. The panel of the sibling has a ControlNet of 400 steps, which reaches"
             f" {at_home:.2f} on our base. The other two panels have the shipped one. So do not compare the panels."
             " Ask: why should a channel mean the same in two networks?")
    for axes, (base, (record, *arms)) in zip(body.subplots(1, 3), bases.items()):
        without, with_control = iou[base]
        figures.show(axes, two_of_each(record, arms), 2, f"{base}: IoU {without:.2f} to {with_control:.2f}",
                     left=["no\ncontrol", "control"] if base == "our base" else [])
    return figure


def two_of_each(record: dict, arms: list[str]) -> Tensor:
    """The last two of the four pictures in each row of a record of claim 21, with their outlines."""
    name = Path(record["command"].split()[1]).stem
    rows = record["rows of pictures"]
    if name == "claim_21_stranger":
        pictures = load_pictures(name, 192)  # its pictures have their outlines already
    else:
        edges = detect_edges(held_out(64)[0].image[:4])  # these 64 were used by the experiment
        pictures = figures.outlined(load_pictures(name, 64), edges.repeat(len(rows), 1, 1, 1))
    each = dict(zip(rows, pictures.unflatten(0, (len(rows), -1))))
    return torch.cat([each[arm][2:] for arm in arms])


def successors(live: Live) -> Figure:
    record = numbers_of("12_descendants")
    locked = {"ControlNet": "", "ControlNet++": "edge loss", "Control-LoRA": "low rank", "T2I-Adapter": "no copy",
              "ControlNet-XS": "narrow"}
    arms = locked | {"ControlNeXt": "one join", "fine-tuned base": "", "frozen copy": ""}
    trained = {name: record[name]["cost"]["trained"] for name in arms}
    f1 = {prompt: {name: record[name]["600"][prompt]["F1"] for name in arms} for prompt in ("right", "conflicting")}
    mean = {name: fmean(values) for name, values in f1["right"].items()}
    in_conflict = {name: fmean(values) for name, values in f1["conflicting"].items()}
    closest = max(in_conflict, key=in_conflict.get)
    colours = {name: fmean(record[name]["2000"]["new colours"]["colours"]) for name in arms}
    kept = sorted({f"{colours[name]:.0%}" for name in locked})
    free = {steps: fmean(record[f"training-free, {steps} steps"]["0"]["right"]["F1"]) for steps in (8, 25)}
    figure, body = page(
        f"Control-LoRA trains {trained['Control-LoRA'] / trained['ControlNet']:.0%} of ControlNet's weights, and has"
        f" an edge F1 of {mean['Control-LoRA']:.2f} (ControlNet: {mean['ControlNet']:.2f})",
        f"If prompt and outline conflict, the {closest} is closest to the outline ({in_conflict[closest]:.2f}).",
        f"After 2,000 steps it paints {colours['fine-tuned base']:.0%} of the unseen colours right. Locked bases paint"
        f" {' to '.join(kept)}.",
        "Training-free guidance follows the gradient of an edge loss.",
        f"Its edge F1 is {free[25]:.2f} in 25 sampling steps, and {free[8]:.2f} in 8.",
        note="Run lessons/12_descendants.py. Edge F1 compares the picture's edges with the outline; 1 is perfect."
             " ControlNet++ adds a second loss, which compares edges. Control-LoRA trains low-rank changes of the copy."
             " A T2I-Adapter reads the outline alone. ControlNet-XS is a narrow encoder beside the base's. ControlNeXt"
             " adds the outline at one place, and trains a part of the base. A frozen copy is a bug."
             " Ask: you have 40 styles and eight conditions. Which method do you choose?")
    for axes, (prompt, scores) in zip(body.subplots(1, 2, sharey=True), f1.items()):
        dots(axes, {f"{name} ({arms[name]})" if arms[name] else name: values for name, values in scores.items()})
        axes.set(xlim=(0.2, 1.05), title=f"{prompt} prompt")
    body.supxlabel("edge F1 after 600 training steps, one dot per seed", size=18)
    return figure


def clinic(live: Live) -> Figure:
    record = numbers_of("13_clinic")
    gaps = {letter: {int(step): gap for step, gap in each.items()} for letter, each in record["gaps"].items()}
    silent = [letter for letter, each in gaps.items() if not any(each.values())]
    figure, body = page(
        "One loss curve does not show whether a ControlNet is healthy: four of these have a bug",
        f"{' and '.join(silent)}: the part that reads the condition gets no gradient, and the gap is exactly 0.",
        "B: it is healthy. C: its copy is frozen, and its gap rises less than B's.",
        "E: training changes its base, too. For a while its loss is higher than the others'.",
        note="Run lessons/13_clinic.py, and show this slide after the vote. Lesson 13 calls the ControlNets patients."
             " python -m minicontrolnet doctor examines the network, and not the curves."
             " Ask: which patient would you have sent home as healthy?")
    left, right = body.subplots(1, 2)
    differences_from_a(left, record["losses"])
    shuffle_gaps(right, gaps)
    for axes in (left, right):
        for text in axes.get_legend().get_texts():
            text.set_size(16)  # the smallest size that can be read in a lecture hall
    return figure


def claims(live: Live) -> Figure:
    total, parts = parts_of_claims()
    count = Counter(status for _, status, _ in parts)
    against = count["contradicted in the toy"]
    figure, body = page(
        f"We split {total} claims into {len(parts)} parts: the toy shows {count['shown in the toy']} and"
        f" contradicts {against}",
        "A toy can show that a mechanism works. It is no evidence against the paper.",
        note="Show lessons/CLAIMS.md. Ask: which row would you not have believed?")
    left, right = body.subplots(1, 2, width_ratios=[3, 4])
    names = [status for status, _ in count.most_common()]
    bars = left.barh([-i for i in range(len(names))], [count[name] for name in names], color="C0")
    left.bar_label(bars, padding=6, size=18)
    left.margins(x=0.15)
    left.set_yticks([-i for i in range(len(names))], [STATUSES.get(name, name) for name in names])
    left.set_xlabel("parts of claims")
    right.axis("off")
    told = ["What we found instead (number of the claim):"]
    for number, status, what in parts:
        if status == "contradicted in the toy":
            told.append(textwrap.fill(f"{CONTRADICTED[number, what]} ({number})", 44))
    right.text(0.05, 0.95, "\n\n".join(told), size=18, va="top")
    return figure


def parts_of_claims() -> tuple[int, list[tuple[str, str, str]]]:
    """The number of claims in CLAIMS.md, and for each part of a claim: the claim's number, its status and its name."""
    text = (LESSONS / "CLAIMS.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d+)\]\([^)]*\) \| [^|]+ \| ([^|]+) \|", text, re.MULTILINE)
    parts = []
    for number, cell in rows:
        for part in cell.split("; "):
            status, what = re.fullmatch(r"([a-z ]+?)(?: \((.+)\))?", part.strip()).groups()
            parts.append((number, status, what or "the whole"))
    return len(rows), parts


def at_home(live: Live) -> Figure:
    minutes = sum(exercise.minutes for exercise in EXERCISES.values())
    figure, body = page(
        f"At home: {len(EXERCISES)} exercises check themselves ({minutes / 60:.0f} hours)",
        "pip install -r requirements.txt", "python lessons/exercises",
        "python lessons/03_zero_conv.py --mine   (a lesson with your own functions)",
        note="lessons/README.md explains the exercises. lessons/TEACHING.md has plans and grading.")
    axes = body.subplots()
    axes.axis("off")
    lines = ["For next week:"]
    for exercise in (EXERCISES[id] for id in ("05a", "05b", "06c", "07a")):
        lines.append(f"{exercise.id}   {exercise.task.rstrip('.')} ({exercise.minutes} minutes)")
    lines += ["The capstone: a condition of your own. First write down what you expect.",
              "Draw an outline: python -m minicontrolnet board"]
    axes.text(0.015, 0.95, "\n\n".join(lines), size=TEXT, va="top")
    return figure


# %% The file


SLIDES = (cover, problem, noising, diagram, locking, zero_conv, dropped_prompts, convergence, guidance, several,
          ablations, transfer, successors, clinic, claims, at_home)


def drawn(quick: bool) -> Iterator[Figure]:
    """The slides, one by one. With ``quick``, pictures are generated in few steps."""
    base = load_base()
    truth, noise = held_out(8)
    live = Live(base, load_control("edge", base), load_control("palette", base),
                truth.mask, truth.image, truth.prompt, detect_edges(truth.image), noise,
                steps=3 if quick else 25)
    for number, slide in enumerate(SLIDES, 1):
        with matplotlib.rc_context(STYLE):
            figure = slide(live)
        figure.text(0.98, 0.02, number, size=NOTE, color="0.5", ha="right")
        yield figure


@figures.styled
def as_pdf(quick: bool) -> bytes:
    """All slides as the bytes of a PDF file."""
    file = io.BytesIO()
    with PdfPages(file, metadata={"Title": "ControlNet", "CreationDate": None}) as pdf:
        for figure in tqdm(drawn(quick), "slides", len(SLIDES)):
            pdf.savefig(figure, dpi=200)
    return file.getvalue()


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python lessons/slides.py",
                                     description="Make slides for a lecture.")
    parser.add_argument("--out", type=file_to_write(".pdf"), metavar="FILE",
                        default=Path("outputs") / "slides.pdf", help="a .pdf file (default: outputs/slides.pdf)")
    parser.add_argument("--quick", action="store_true",
                        help="generate pictures in few sampling steps, to see the layout")
    args = read_words(parser, words)
    check_place(args.out)  # now, and not after minutes of work
    write_file(args.out, as_pdf(args.quick))
    print(args.out)


if __name__ == "__main__":
    report_problems()
    main()
