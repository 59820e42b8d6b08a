# %% [markdown]
# # Lesson 08: what do zero convs, copy, base and dropped prompts buy?
#
# Paper: Sec. 4.2, Fig. 8; Sec. 3.3 (dropped prompts); Tab. 3 (FID); Sec. 1 (why lock).
# Read `gaussian` and `Lite` in lessons/experiments/networks.py; 08_ablations.py beside
# it trained 11 arms, three or ten seeds each, and says first what was expected.

# %%
from statistics import fmean

from _lesson import (figures, load_pictures, load_results, options, predict, reveal,
                     save_figure, table, verdict)

from experiments.measured import apart
from experiments.networks import gaussian
from experiments.onset import look, onset
from minicontrolnet import ControlNet, control_loss, load_base, seeded, train

args = options("08_ablations", steps=60, quick_steps=2)
guess = predict(
    "Networks learn to follow outlines from 100 pictures, in four of the eight colours."
    " Which of them paint the other four right?",
    a="all that stand on the locked base, whatever their copy",
    b="ControlNet, but not every other copy: it needs the base's weights",
    c="also the base itself, trained on the condition: it knew all eight",
    d="none: nobody paints what the control data lack")

# %% [markdown]
# ## The start
# With zero convs the whole begins as the base, exactly (Eq. 3). With Gaussian ones,
# N(0, 1/fan_in), what the copy puts out enters the base unasked. What does that cost?

# %%
base = load_base(device=args.device)
for name, build in {"zero convs": ControlNet, "N(0, 1/fan_in)": gaussian}.items():
    control, live = seeded(args.seed, build, base).to(args.device), {}
    look(live, 0, base, control, n=16)
    control = train(control, control_loss(base, "edge"), args.steps, lr=2e-3,
                    seed=args.seed, progress=name)
    look(live, args.steps, base, control, n=16)
    told = [f"{loss:.3f} at step {step}" for step, loss in live["loss"].items()]
    print(f"   {name}: held-out loss {', '.join(told)}")

# %% [markdown]
# ## Fig. 8: four arms, four kinds of prompt
# None; insufficient (the ground alone); conflicting (another shape's word); perfect.
# Lite has one conv in place of each copied block. The paper: Gaussian convs fall to
# about lite's level, and lite fails with the first two. 400 steps of training.

# %%
numbers = load_results("08_ablations")["numbers"]
kinds = ("none", "insufficient", "conflicting", "perfect")
fig8 = ("zero convs", "N(0, 1/fan_in)", "N(0, 0.02^2)", "lite")


def mean(arm: str, test: str, score: str) -> str:
    return f"{fmean(numbers[arm][test][score]):.3f}"


def less(one: str, other: str, test: str, score: str) -> str:
    """One arm less another, paired by training seed, and what that says."""
    it = apart(numbers[one][test][score], numbers[other][test][score])
    return f"{it.verdict}, {score} {it}"


bare = numbers["zero convs"]["loss"]["0"]  # the base's own
late = lambda step: float(step.replace("-", "inf"))  # "-" is never
begun = {arm: sorted(onset(numbers[arm]["gap"], bare), key=late) for arm in fig8}
table([["mask IoU", *kinds, "loss at 100", "follows from step, first and last seed"],
       *([arm, *(mean(arm, kind, "IoU") for kind in kinds), mean(arm, "loss", "100"),
          f"{seeds[0]}, {seeds[-1]}"] for arm, seeds in begun.items())])
first = less(*fig8[:2], "none", "IoU")
verdict(f"zero convs above N(0, 1/fan_in), no prompt: {first}",
        f"zero convs above N(0, 0.02^2): {less(fig8[0], fig8[2], 'none', 'IoU')}",
        f"zero convs above lite: {less(fig8[0], 'lite', 'none', 'IoU')}",
        f"N(0, 1/fan_in) above lite: {less(fig8[1], 'lite', 'none', 'IoU')}",
        f"lite less like real ones: {less('lite', fig8[0], 'all prompts', 'Frechet')}")

# %% [markdown]
# ## Dropped prompts (Sec. 3.3)
# In the control data of two more arms each shape has its own two colours: "yellow star
# on blue". Without a word, does the copy know the star by its outline, and paint it so?
# 2,000 steps; after 200 no copy had learned that.

# %%
half, never = "pairs, half dropped", "pairs, none dropped"
hue = "right colours"
rows = [[arm, *(mean(arm, kind, hue) for kind in kinds)] for arm in (half, never)]
table([[hue, *kinds], *rows])
taught = less(half, never, "none", hue)
verdict(f"half dropped above none, no prompt: {taught}")
drawn = load_pictures("08_ablations", 256).unflatten(0, (len(numbers), 4))
row = list(numbers).index(half)
below = ["no words", "ground", "wrong shape", "right"]
save_figure(figures.grid(
    drawn[row : row + 2].flatten(0, 1), 4, "Dropped prompts teach the copy an"
    f" outline's own colours: {taught.split(',')[0]}", below,
    [f"{arm[7:].replace(' ', chr(10))}\n{fmean(numbers[arm]['none'][hue]):.0%}"
     for arm in (half, never)]), "_dropped")

# %% [markdown]
# ## Few pictures, of a part of the world
# Five networks learn from 100 circles and squares in white, orange, green and blue.
# Then they are asked for the other colours, and for triangles and stars in those.

# %%
tests = ("seen", "new colours", "new colours and shapes")
few = [arm for arm in numbers if arm.startswith("few: ")]
for score in (hue, "right shape", "IoU", "clean pixels"):
    rows = [[arm[5:], *(mean(arm, test, score) for test in tests)] for arm in few]
    table([[score, *tests], *rows])
verdict("ControlNet above another, in new colours:",
        *(f"{arm[5:]}: {less(few[0], arm, tests[1], hue)}" for arm in few[1:]))
paint = {arm[5:]: fmean(numbers[arm][tests[1]][hue]) for arm in few}
right = ("d" if paint["ControlNet"] < 0.5 else "c" if paint["base trained"] > 0.5
         else "a" if min(paint["random copy"], paint["lite"]) > 0.5 else "b")
why = {"a": "a locked base is not enough: see the other copies.",
       "b": "the locked base paints; its colours survive any copy.",
       "c": "trained on four colours it forgets the others: so it is locked.",
       "d": "what the locked base knew, it still knows."}
del why[right]
reveal(guess, right, ", ".join(f"{arm} {x:.0%}" for arm, x in paint.items()), **why)

# %% [markdown]
# ## Where the toy differs from the paper (likely reasons, not measured)
# *Small Gaussian convs* are not told apart from zeros: they hardly disturb the base,
# and the copy has a gradient from the first step. *Lite* is behind and does not fail, a
# *random copy* is nearly as good: one outline on an empty ground is easily understood.

# %%
follow = {"confirmed": "they follow worse", "contradicted": "they follow better",
          "undecided": "the seeds disagree"}
keeps = dict(a="Only a locked base keeps", b="Only ControlNet keeps",
             c="Any base keeps", d="No network keeps")
figure, (left, panel) = figures.plt.subplots(1, 2)
figures.show(left, drawn[:4].flatten(0, 1), 4,
             f"Large Gaussian convs: {follow[first.split(',')[0]]}\n(IoU, no prompt)",
             below,
             [f"{arm}\n{mean(arm, 'none', 'IoU')}" for arm in fig8])
figures.show(panel, drawn[-5:].flatten(0, 1), 4,
             f"{keeps[right]} colours\n(right ones, of new colours)",
             ["seen", "new colours", "", "and shapes"],
             [f"{arm.replace(' ', chr(10), 1)}\n{x:.0%}" for arm, x in paint.items()])
save_figure(figure)
print("\nEXERCISES  08a: python lessons/exercises")
