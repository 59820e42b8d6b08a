"""The record of lesson 12: its two tables, the same at other rates, and the verdicts on nine expectations."""

from statistics import fmean
from typing import NamedTuple

from minicontrolnet import paired

TRAINED = ("ControlNet", "ControlNet++", "Control-LoRA", "T2I-Adapter", "ControlNet-XS", "ControlNeXt",
           "fine-tuned base")
FLOOR = "frozen copy"
LATE = ("600", "2000")  # looks that also measure what is left of the base
FREE = {"training-free, 8 steps": 8, "training-free, 12 steps": 12, "training-free, 25 steps": 25}  # sampling steps
SAMPLING_STEPS = 12  # of the trained methods in the record
VARIANTS = {"T2I-Adapter": "T2I-Adapter, uniform times", "ControlNeXt": "ControlNeXt, early join"}
KEEP_THE_BASE = ("ControlNet", "Control-LoRA", "T2I-Adapter", "ControlNet-XS")  # and are no variant of another one
Row = list[object]


# %% The table


def values(record: dict, name: str, step: int | str, prompt: str, score: str = "F1") -> list[float]:
    """One score of a method after so many training steps: a number for each training seed."""
    return record[name][str(step)][prompt][score]


def mean_of(record: dict, name: str, step: str, prompt: str, score: str = "F1") -> str:
    """The mean of a score over the seeds, for a table; empty where it was not measured."""
    scores = record[name].get(step, {}).get(prompt)
    return f"{fmean(scores[score]):.2f}" if scores else ""


def operations(record: dict, name: str) -> tuple[float, float]:
    """Millions of operations per picture: of each sampling step, and once for all steps."""
    cost = record[name]["cost"]
    once = cost["of which once a picture"]
    return cost["MFLOP to sample"] - once, once


def cost_of_a_picture(record: dict, name: str) -> float:
    """Millions of operations for one picture, sampled as in the record.

    Trained methods have guidance by the prompt, so each step evaluates the base once more, without prompt and outline.
    Training-free guidance does without.
    """
    each, once = operations(record, name)
    if name in FREE:
        return FREE[name] * each + once
    unconditional = record["no control"]["cost"]["MFLOP to sample"]
    return SAMPLING_STEPS * (each + unconditional) + once


def keeps_the_base(record: dict, name: str) -> bool:
    """Whether the base is exactly what it was when control is off."""
    return not any(any(record[name][step]["off"]["eps moved"]) for step in LATE if step in record[name])


def both(record: dict, name: str, prompt: str, score: str) -> str:
    """The mean of a score after 600 and after 2,000 steps."""
    means = [fmean(record[name][step][prompt][score]) for step in LATE if step in record[name]]
    if score == "colours":
        return ", ".join(f"{mean:.0%}" for mean in means)
    return ", ".join(f"{mean:.2f}" for mean in means)


def cost_table(record: dict) -> list[Row]:
    """What every method trains, whether the base stays as it was, and millions of operations per picture."""
    rows: list[Row] = [["method", "trained", "base stays", "train", "step", "once", "picture"]]
    for name in (*TRAINED, FLOOR, *FREE):
        cost = record[name]["cost"]
        each, once = operations(record, name)
        stays = "yes" if name in FREE or keeps_the_base(record, name) else "no"
        train = "" if name in FREE else f"{cost['MFLOP to train']:.0f}"
        rows.append([name, f"{0 if name in FREE else cost['trained']:,}", stays, train, f"{each:.0f}", f"{once:.0f}",
                     f"{cost_of_a_picture(record, name):,.0f}"])
    return rows


def fidelity_table(record: dict) -> list[Row]:
    """How well every method follows, and what is left of the base."""
    rows: list[Row] = [["method", "150", "600", "2000", "conflict", "new colours", "control off", "palette"]]
    trained = []
    for name in TRAINED:
        trained += [name, VARIANTS[name]] if name in VARIANTS else [name]
    for name in (*trained, FLOOR):
        right = [mean_of(record, name, step, "right") for step in ("150", *LATE)]
        off = "unchanged" if keeps_the_base(record, name) else both(record, name, "off", "colours")
        palette = fmean(values(record, name, 600, "with palette", "palette error"))
        rows.append([name, *right, both(record, name, "conflicting", "F1"),
                     both(record, name, "new colours", "colours"), off, f"{palette:.3f}"])
    for name in FREE:
        right, conflict = (mean_of(record, name, "0", prompt) for prompt in ("right", "conflicting"))
        colours = fmean(values(record, name, 0, "new colours", "colours"))
        rows.append([name, "", right, "", conflict, f"{colours:.0%}", "unchanged", ""])
    right, conflict = (mean_of(record, "no control", "0", prompt) for prompt in ("right", "conflicting"))
    rows.append(["no control", "", right, "", conflict, "", "unchanged", ""])
    return rows


# %% The same at other learning rates, which experiments/12_descendants_rates.py measured on seed 0


USUAL_RATE = 1e-3  # of the record
PROMPTS = ("right", "none", "conflicting", "new colours")


def at_each_rate(record: dict, rates: dict, name: str) -> dict[float, dict]:
    """The scores of a method on seed 0, by learning rate, the usual rate included: after 600 steps, and early F1."""
    runs = {USUAL_RATE: record[name]}
    for arm, looks in rates.items():
        own, _, rate = arm.rpartition(" at ")
        if own == name:
            runs[float(rate)] = looks
    by_rate = {}
    for rate in sorted(runs):
        late = runs[rate]["600"]
        by_rate[rate] = {prompt: {score: seeds[0] for score, seeds in late[prompt].items()} for prompt in PROMPTS}
        by_rate[rate]["F1 after 150 steps"] = runs[rate]["150"]["right"]["F1"][0]
    return by_rate


def best_rate(by_rate: dict[float, dict]) -> float:
    """The rate with the largest F1 with the right prompt."""
    return max(by_rate, key=lambda rate: by_rate[rate]["right"]["F1"])


def rate_table(record: dict, rates: dict) -> list[Row]:
    """F1 of each method with the right prompt at each rate, and more about its best rate."""
    columns = sorted({float(arm.rpartition(" at ")[2]) for arm in rates} | {USUAL_RATE})
    names = [name for name in TRAINED if any(arm.rpartition(" at ")[0] == name for arm in rates)]
    heading = ["edge F1, seed 0", *(f"{rate:g}" for rate in columns), "best rate", "150 steps", "conflict",
               "new colours"]
    rows: list[Row] = [heading]
    for name in names:
        by_rate = at_each_rate(record, rates, name)
        best = by_rate[best_rate(by_rate)]
        f1 = [f"{by_rate[rate]['right']['F1']:.3f}" if rate in by_rate else "" for rate in columns]
        rows.append([name, *f1, f"{best_rate(by_rate):g}", f"{best['F1 after 150 steps']:.2f}",
                     f"{best['conflicting']['F1']:.2f}", f"{best['new colours']['colours']:.0%}"])
    return rows


def kept_at_each_rate(record: dict, rates: dict, name: str) -> str:
    """The share of right new colours after 600 steps at each rate, as one line."""
    by_rate = at_each_rate(record, rates, name)
    return ", ".join(f"{scores['new colours']['colours']:.0%} at {rate:g}" for rate, scores in by_rate.items())


# %% The nine expectations, which stand at the top of experiments/12_descendants.py


class Part(NamedTuple):
    """A part of an expectation: the differences, one for each seed, are above 0."""

    says: str
    differences: list[float]

    @property
    def verdict(self) -> str:
        if len(self.differences) < 2:
            return "undecided"
        verdict = paired(self.differences).verdict
        return "refuted" if verdict == "contradicted" else verdict  # the word in the experiment's head

    def __str__(self) -> str:
        if len(self.differences) < 2:
            return f"{self.says}: one seed"
        interval = paired(self.differences)
        touches_zero = min(abs(interval.low), abs(interval.high)) < 0.0005  # it would be printed as 0.000
        digits = 5 if touches_zero else 3
        mean, low, high = (f"{value:+.{digits}f}" for value in (interval.mean, interval.low, interval.high))
        return f"{self.says} {mean} ({low} .. {high})"


class Expectation(NamedTuple):
    """Something that was written down before the record was made."""

    says: str
    parts: list[Part]

    @property
    def verdict(self) -> str:
        """Shown if all of its parts are shown, refuted if one of them is refuted."""
        verdicts = [part.verdict for part in self.parts]
        if "refuted" in verdicts:
            return "refuted"
        return "undecided" if "undecided" in verdicts else "shown"

    @property
    def decided_by(self) -> Part:
        """The part that decides the verdict; if all are shown, the one with the smallest difference."""
        deciding = [part for part in self.parts if part.verdict == self.verdict]
        return min(deciding, key=lambda part: fmean(part.differences))


def minus(one: list[float], other: list[float]) -> list[float]:
    """Differences in pairs, for the seeds that both have."""
    return [a - b for a, b in zip(one, other)]


def expectations(record: dict) -> list[Expectation]:
    """The nine expectations, each with the differences that decide it."""

    def f1(name: str, step: str = "600", prompt: str = "right") -> list[float]:
        return values(record, name, step, prompt)

    def iou(name: str, step: str, prompt: str) -> list[float]:
        return values(record, name, step, prompt, "IoU")

    def above(one: str, other: str, step: str = "600", prompt: str = "right") -> Part:
        where = "" if step == "600" else f", {int(step):,} steps"
        if prompt == "conflicting":
            where += ", conflicting prompt"
        return Part(f"{one} minus {other}{where}", minus(f1(one, step, prompt), f1(other, step, prompt)))

    trained = [name for name in TRAINED if name != "ControlNet++"]  # the trial run had no ControlNet++
    cubic = minus(f1("T2I-Adapter"), f1("T2I-Adapter, uniform times"))
    normalised = minus(f1("ControlNeXt", "150"), f1("ControlNeXt, zero conv", "150"))
    lora = minus(f1("Control-LoRA"), f1("ControlNet"))
    floor = [above(name, FLOOR, step) for step in ("600", "2000") for name in TRAINED
             if step in record[name] and step in record[FLOOR]]
    colours = {name: values(record, name, "600", "new colours", "colours") for name in TRAINED}
    palette = {name: values(record, name, "600", "with palette", "palette error") for name in TRAINED}
    reward = above("ControlNet++", "ControlNet")
    reward_in_conflict = above("ControlNet++", "ControlNet", prompt="conflicting")
    lead = minus(iou("training-free, 25 steps", "0", "right"), iou("ControlNet", "600", "right"))
    return [
        Expectation("1  the order of our trial run: fine-tuned, ControlNeXt, ControlNet, XS, T2I-Adapter", [
            above("fine-tuned base", "ControlNet"), above("ControlNeXt", "ControlNet"),
            above("ControlNet", "ControlNet-XS"),
            *(above(name, "T2I-Adapter") for name in trained if name != "T2I-Adapter")]),
        Expectation("2  Control-LoRA is within 0.05 of ControlNet", [
            Part("ControlNet minus Control-LoRA, plus 0.05", [0.05 - one for one in lora]),
            Part("Control-LoRA minus ControlNet, plus 0.05", [0.05 + one for one in lora])]),
        Expectation("3  every method is above the frozen copy", floor),
        Expectation("4  a locked base keeps more of the new colours", [
            Part(f"right new colours: {name} minus fine-tuned base", minus(colours[name], colours["fine-tuned base"]))
            for name in KEEP_THE_BASE]),
        Expectation("5  the reward of ControlNet++ helps, and most in a conflict", [
            reward, reward_in_conflict,
            Part("what the reward adds in a conflict minus what it adds with the right prompt",
                 minus(reward_in_conflict.differences, reward.differences))]),
        Expectation("6  with 25 steps, and only then, training-free guidance is near ControlNet", [
            Part("mask IoU: 25 steps minus ControlNet, plus 0.05", [0.05 + one for one in lead]),
            Part("mask IoU: ControlNet minus 25 steps, both without words", minus(
                iou("ControlNet", "600", "none"), iou("training-free, 25 steps", "0", "none"))),
            Part("mask IoU: ControlNet minus 8 steps", minus(
                iou("ControlNet", "600", "right"), iou("training-free, 8 steps", "0", "right")))]),
        Expectation("7  a locked base composes better with the palette ControlNet", [
            Part(f"palette error: fine-tuned base minus {name}", minus(palette["fine-tuned base"], palette[name]))
            for name in KEEP_THE_BASE]),
        Expectation("8  two choices of the papers help: cubic times and cross normalisation", [
            Part("T2I-Adapter: cubic times minus uniform times", cubic),
            Part("ControlNeXt: cross normalisation minus zero conv, 150 steps", normalised)]),
        Expectation("9  ControlNeXt follows better if it trains more of the base", [
            above("ControlNeXt, whole encoder", "ControlNeXt")]),
    ]


def verdicts(record: dict) -> list[Row]:
    """The verdict on each expectation, and below it the part that decides."""
    rows: list[Row] = [["", "verdict", "what we expected, and the difference that decides"]]
    for expectation in expectations(record):
        number, _, says = expectation.says.partition("  ")
        rows += [[number, expectation.verdict, says], ["", "", f"   {expectation.decided_by}"]]
    return rows
