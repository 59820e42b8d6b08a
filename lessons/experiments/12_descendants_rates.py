"""Does the ordering of lesson 12's methods depend on the learning rate?

    python lessons/experiments/12_descendants_rates.py

It takes about 16 minutes on one core. It writes outputs/12_descendants_rates.json, and continues it if it exists. One
part is one method at one rate: --part "Control-LoRA at 0.002".

**The question.** 12_descendants.py trains every method at one rate, 1e-3. A rate may suit one method and harm another,
and LoRA is usually trained at a larger one. So here we train each method at two more rates. Then we compare the methods
again, each at its own best rate.

**The measure.** Everything is as in 12_descendants.py with seed 0. That includes the initial weights, the batches, the
learning-rate schedule of 2,000 steps, and the 32 held-out pictures with their noise. The rates are 5e-4 and 2e-3. Seed
0 of 12_descendants.json is the run at 1e-3. We look after 150 and after 600 steps. A method's best rate is the one with
the largest F1 with the right prompt after 600 steps. If the best rate is the largest of the three, we also run 4e-3. If
it is the smallest, we also run 2.5e-4.

**What we expect, and what would refute it.** This was written down before any of these runs. There is one seed, so
nothing here is "shown". A prediction holds or fails on this seed. A difference of F1 below .01 is a tie, and a tie
counts neither way.

1. The ordering does not depend on the rate. Take all pairs of methods whose difference in F1 with the right prompt is
   decided at 1e-3, by an interval over three seeds that excludes 0. When both methods are at their best rates, every
   such pair has the same sign. It fails if one pair changes its sign.
2. LoRA's best rate is above 1e-3. It fails if its best rate is 1e-3 or smaller.
3. How much fine-tuning forgets depends on the rate. At 5e-4 it has a larger share of right colours than at 2e-3, in
   colours that training never showed. It fails otherwise.
4. Against a conflicting prompt, T2I-Adapter and the fine-tuned base are above ControlNet, each at its best rate. It
   fails if one of them is below.

**What we found.** All four predictions hold on this seed. For four methods 4e-3 was the best rate, so a still larger
one might be better. Three of the six pairs of item 1 are ties at the best rates. They are the pairs without
ControlNeXt.
"""

import importlib
import sys
from functools import partial
from itertools import combinations
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
from experiments.common import Findings, Record, minus, run
from lesson import descendants as methods
from lesson import load_results
from lesson.record_12 import USUAL_RATE, at_each_rate, best_rate
from minicontrolnet import Training, load_base, paired, seeded

descendants = importlib.import_module("experiments.12_descendants")  # its name begins with a digit

METHODS = ("ControlNet", "Control-LoRA", "T2I-Adapter", "ControlNet-XS", "ControlNeXt", "fine-tuned base")
RATES = (5e-4, 2e-3)
FURTHER = (2.5e-4, 4e-3)  # if the best rate is at an end
SEED = 0
STEPS = 600
TIE = 0.01


def arm_of(name: str, rate: float) -> str:
    return f"{name} at {rate:g}"


def train(name: str, rate: float, record: Record) -> None:
    """Train one method at one rate, and look at it after 150 and after 600 steps."""
    arm = arm_of(name, rate)
    if arm in record.numbers or rate in FURTHER and not is_asked_for(name, rate, record.numbers):
        return
    base = load_base()
    build, cubic, reward, _ = descendants.ARMS[name]
    steps, pictures, ddim_steps = (4, 2, 2) if record.quick else (STEPS, 32, 12)
    seen = descendants.Test(pictures, SEED, methods.SEEN)
    new = descendants.Test(pictures, SEED, methods.NEW)
    loss = methods.following_loss(base, methods.seen_batch, cubic, reward)
    training = Training(seeded(SEED, build, base), loss, descendants.LOOKS[-1], lr=rate, seed=SEED)
    for step, _ in training:
        if step == steps // 4:
            early = descendants.early_look(base, training.averaged, seen, ddim_steps)
        if step == steps:
            break
    scores, _ = descendants.look(base, training.averaged, seen, new, ddim_steps)
    record.add(arm, arm, {"F1": scores["right"]["F1"], "150": early, "600": scores})


# %% What the record says


def usual_record() -> dict:
    """The numbers of 12_descendants.json, whose seed 0 is the run at the usual rate."""
    return load_results("12_descendants")["numbers"]


def is_asked_for(name: str, rate: float, numbers: dict) -> bool:
    """Whether the best of the three rates is the neighbour of this further one."""
    if any(arm_of(name, own) not in numbers for own in RATES):
        return False
    by_rate = at_each_rate(usual_record(), numbers, name)
    three = {own: by_rate[own] for own in (USUAL_RATE, *RATES)}
    return best_rate(three) == (min(RATES) if rate < USUAL_RATE else max(RATES))


def decided_pairs() -> list[tuple[str, str]]:
    """Pairs of methods, the better one first, whose difference over the seeds of 12_descendants.json excludes 0."""
    usual = usual_record()
    f1 = {name: usual[name][str(STEPS)]["right"]["F1"] for name in METHODS}
    pairs = []
    for one, other in combinations(METHODS, 2):
        interval = paired(minus(f1[one], f1[other]))
        if interval.low > 0:
            pairs.append((one, other))
        elif interval.high < 0:
            pairs.append((other, one))
    return pairs


def findings(numbers: dict) -> Findings:
    """Each method's best rate and its F1 there, and the differences that the predictions are about."""
    missing = [arm_of(name, rate) for name in METHODS for rate in RATES if arm_of(name, rate) not in numbers]
    if missing:
        raise KeyError(missing[0])
    found = {name: at_each_rate(usual_record(), numbers, name) for name in METHODS}
    best = {name: found[name][best_rate(found[name])] for name in METHODS}
    said = {f"best rate, {name}": [best_rate(found[name])] for name in METHODS}
    for better, worse in decided_pairs():
        difference = best[better]["right"]["F1"] - best[worse]["right"]["F1"]
        said[f"at the best rates: {better} minus {worse}, F1"] = [difference]
    slow, fast = (found["fine-tuned base"][rate]["new colours"]["colours"] for rate in RATES)
    said["fine-tuned at 5e-4 minus at 2e-3, right new colours"] = [slow - fast]
    for name in ("T2I-Adapter", "fine-tuned base"):
        difference = best[name]["conflicting"]["F1"] - best["ControlNet"]["conflicting"]["F1"]
        said[f"at the best rates: {name} minus ControlNet, F1 with a conflicting prompt"] = [difference]
    return said


PARTS = {arm_of(name, rate): partial(train, name, rate) for rate in (*RATES, *FURTHER) for name in METHODS}

if __name__ == "__main__":
    run("12_descendants_rates", PARTS, findings)
