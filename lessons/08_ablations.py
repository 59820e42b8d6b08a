# %% [markdown]
# # Lesson 08: Which parts of ControlNet matter?
#
# By now you know the parts of ControlNet: a locked base, a copy of its encoder, and zero
# convolutions. And in training, half of the prompts are empty. Do we need all of this? To find
# out, we replace one part at a time and measure what we lose. Such an experiment is called an
# *ablation*. The paper has one in Sec. 4.2 and Fig. 8. In this lesson you
#
# 1. replace the zero convolutions and the copy, and test with four kinds of prompts (Fig. 8),
# 2. see what a copy learns from empty training prompts (Sec. 3.3),
# 3. find out which networks keep the colours that the training pictures do not show.
#
# Two trainings that differ only in their random seed give different results. So we need
# several seeds for each variant, and this takes too long for a lesson. We have trained them
# beforehand. Their numbers are *records* in lessons/results, and each record was made by a
# file in lessons/experiments, which explains the experiment. The page itself takes a few
# seconds. Then do exercise 08a, and read `gaussian` and `Lite` in lessons/lesson/networks.py.

# %%
import os
import sys

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
from lesson import (Lesson, finding, load_pictures, load_results, means, percent, table,
                    two_digits, with_interval)
from lesson.figures_08 import dropped_prompts, few_pictures, figure_8, gaps
from lesson.networks import Lite, gaussian

from minicontrolnet import (ControlNet, detect_edges, difference, held_out, load_base, sample,
                            seeded)

# %%
lesson = Lesson("08_ablations", steps=12, quick_steps=2, meaning="DDIM steps")

guess = lesson.predict("Several networks learn to follow outlines from 100 pictures, which show only"
                       " four of the eight colours. Which of them can still generate the other"
                       " four colours?",
                       a="all networks with a locked base, whatever their copy looks like",
                       b="only ControlNet, because its copy has the base's weights",
                       c="the fine-tuned base as well, because it knew all eight colours",
                       d="none, because nobody generates colours that are not in the data")

# %% [markdown]
# ## Four variants (Fig. 8)
#
# The first three variants differ only in the start of the 14 zero convolutions: the 13 that join
# the copy to the base, and the one behind the condition encoder. Write W for their weights:
#
#     zero convs:      W = 0
#     small Gaussian:  W ~ N(0, 0.02^2)
#     large Gaussian:  W ~ N(0, 1 / channels)
#
# With the large start, the outputs of such a convolution are about as large as its inputs.
#
# In the fourth variant, *lite*, the convolutions start at zero, but there is no copy. Each block
# of the copy is replaced by a single convolution, which starts from random weights and sees
# neither the time nor the prompt. The paper calls this variant ControlNet-lite.

# %%
base = load_base(device=lesson.device)
variants = {"zero convs": ControlNet(base),
            "small Gaussian": seeded(lesson.seed, gaussian, base, 0.02),
            "large Gaussian": seeded(lesson.seed, gaussian, base),
            "lite": seeded(lesson.seed, Lite, base)}

# %% [markdown]
# We put each variant on the base before any training. Which of them leave the base's pictures
# unchanged?

# %%
truth, noise = held_out(4, lesson.device, seed=10_000 + lesson.seed)
edges = detect_edges(truth.image)
alone = sample(base, truth.prompt, noise, guidance_scale=1, steps=lesson.steps)

rows = [["variant", "million weights", "mean change of a pixel before training"]]
for name, network in variants.items():
    network = network.to(lesson.device)
    images = sample(base, truth.prompt, noise, [(network, edges)], guidance_scale=1,
                    steps=lesson.steps)
    change = (images - alone).abs().mean()
    size = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    rows.append([name, f"{size:.2f}", f"{change:.4f}"])
table(rows)

# %% [markdown]
# Only the two variants that start at zero change nothing at all. With random weights, a larger
# start means a larger change.
#
# ## How well do they follow outlines after training?
#
# Each variant was trained for 400 steps with ten seeds. Then it was tested with four kinds of
# prompts:
#
# - *none*: the prompt is empty,
# - *insufficient*: it names only the colour of the background,
# - *conflicting*: it names another shape than the outline shows,
# - *perfect*: it names both colours and the right shape.

# %%
figure_8_record = load_results("claims_13_14_16_17_figure_8")
arms = {"zero convs": figure_8_record["numbers"]["zero convs"],
        "small Gaussian": figure_8_record["numbers"]["N(0, 0.02^2)"],
        "large Gaussian": figure_8_record["numbers"]["N(0, 1/fan_in)"],
        "lite": figure_8_record["numbers"]["lite"]}
prompts = ["none", "insufficient", "conflicting", "perfect"]

rows = [["IoU, prompt:", *prompts]]
for name, scores in arms.items():
    rows.append([name, *two_digits(means(scores, prompts, "IoU"))])
table(rows)

# %% [markdown]
# Some of these differences are small. So we pair the trainings by their seeds, and compute a
# 95 % interval of each difference, as in lesson 04. (Lesson 09 explains how this is done.)

# %%
zero = arms["zero convs"]["none"]["IoU"]
sentences = []
for name in ("small Gaussian", "large Gaussian", "lite"):
    more = difference(zero, arms[name]["none"]["IoU"])
    sentences.append(f"zero convs minus {name}: {with_interval(more)}.")
lesson.verdict(f"IoU without a prompt ({len(zero)} seeds):", *sentences)

# %% [markdown]
# A large random start costs fidelity, nearly as much as giving up the copy does. The paper
# reports the same. But ten seeds cannot distinguish a *small* random start from zeros.
#
# ## When do they begin to follow?
#
# In lesson 05 a ControlNet waited for some time, and then it followed its outlines suddenly. Do
# the zeros make it wait? If so, a random start would begin earlier. The record has the
# condition-shuffle gap of every training. This is the loss with another picture's outline minus
# the loss with the own one. We compare the steps at which it has risen by a tenth of its way.

# %%
wait = finding(figure_8_record, "wait of zero convs minus wait of N(0, 1/fan_in)")
lesson.verdict("Claim: zeros wait longer than the large Gaussian. Their step minus its step:"
               f" {with_interval(wait, digits=0)}.")
lesson.save_figure(gaps(arms), "_gaps")

# %% [markdown]
# The zeros begin *earlier*. Look at the figure: all four variants wait and then rise steeply, so
# waiting needs neither zeros nor a copy. The large random start has the largest gap for 50 steps,
# and then the zeros overtake it. Claim 9 in [CLAIMS.md](CLAIMS.md) tries more sizes of the start.
#
# ## Does lite fail?
#
# The paper says that lite fails if the prompt is missing or insufficient. This is about the
# *meaning* of the outline: does the network recognise what the outline shows? So we let a
# small classifier name the shape in each picture, and count how often it is the outline's shape.

# %%
rows = [["outline's shape, prompt:", *prompts]]
for name, scores in arms.items():
    rows.append([name, *percent(means(scores, prompts, "right shape"))])
table(rows)

shown = load_pictures("claims_13_14_16_17_figure_8", 256)
lesson.save_figure(figure_8(shown, figure_8_record["rows of pictures"]), "_figure_8")

# %% [markdown]
# Lite is behind wherever the prompt does not name the right shape, and a large random start is
# nearly as far behind. But lite does not *fail*: more than nine of ten shapes are right without
# a prompt, and about eight of ten with an insufficient one. So our toy agrees with the paper
# that these two are behind, and contradicts it on the word "fails". One possible reason is that
# a single outline on an empty background is easier to understand than the paper's drawings.
#
# ## Why are half of the training prompts empty?
#
# If the prompt always names the shape, the copy need not recognise it. If the prompt is empty,
# only the outline shows which shape it is. To test whether this makes a difference, we change
# the world: now each shape has two colours of its own. For example, every star is yellow on
# blue. We train two ControlNets there, one with half of the prompts empty (*half dropped*), the
# other with none (*none dropped*). Then we give them outlines and no prompt. Do they paint the
# star yellow?

# %%
dropped_record = load_results("claim_08_dropped_prompts")
dropped = dropped_record["numbers"]
rows = [["share of pictures, prompt:", *prompts]]
for name, scores in dropped.items():
    for measure in ("right shape", "right colours"):
        rows.append([f"{name}: {measure}", *percent(means(scores, prompts, measure))])
table(rows)

raised = finding(dropped_record, "half minus none, right colours without words")
lesson.verdict("Share of right colours without a prompt, half dropped minus none dropped"
               f" (three seeds): {with_interval(raised, digits=2)}.")
shown = load_pictures("claim_08_dropped_prompts", 256)
lesson.save_figure(dropped_prompts(shown, dropped), "_dropped")

# %% [markdown]
# Without a prompt both ControlNets follow the outline, and all shapes are right. But usually only
# the one that was trained with empty prompts also paints the colours that belong to the outline.
# To do this it must recognise the shape. About the other one we know less. It has never seen an
# empty prompt, so perhaps this unfamiliar input disturbs it.
#
# ## Which part protects the base's knowledge?
#
# This is the question of your prediction. Five networks were trained on the same 100 pictures,
# which show four of the eight colours:
#
# - *ControlNet*, as above,
# - *random copy*: a ControlNet whose copy starts from random weights,
# - *lite*, as above,
# - *fine-tuned base*: the base itself, trained with the outline as an extra input (lesson 02),
# - *from scratch*: the same, but it starts from random weights and not from the base.
#
# We test each of them with three kinds of prompts. They name the colours of the training
# ("seen"), or the other four colours ("new colours"), or new colours and new shapes. A picture
# counts if both of its colours are right, wherever its shape is.

# %%
few_record = load_results("few_pictures_of_four_colours")
names = {"ControlNet": "ControlNet", "random copy": "random copy", "lite": "lite",
         "base trained": "fine-tuned base", "from scratch": "from scratch"}
tests = ["seen", "new colours", "new colours and shapes"]
share = {}
rows = [["both colours right", *tests]]
for arm, name in names.items():
    shares = means(few_record["numbers"][arm], tests, "right colours")
    share[name] = shares[1]  # new colours
    rows.append([name, *percent(shares)])
table(rows)

# %%
locked = [share[name] for name in ("ControlNet", "random copy", "lite")]
answer = "d"
if share["ControlNet"] > 0.5:
    answer = "a" if min(locked) > 0.5 else "b"
lesson.reveal(guess, answer, "the locked base can still generate these colours, and here no copy spoils them.",
              a="not all networks with a locked base keep the colours here.",
              b="the random copy and lite keep the colours as well.",
              c="after fine-tuning it generates them much less often.",
              d="the locked base still knows what it knew before.")
shown = load_pictures("few_pictures_of_four_colours", 256)
order = [names[arm] for arm in few_record["rows of pictures"]]
lesson.save_figure(few_pictures(shown, order, share))
print("\nEXERCISE  08a: python lessons/exercises")

# %% [markdown]
# So each part has a task of its own. The *lock* keeps what the base knows. The *copy* follows
# more precisely than lite. The *zero start* leaves the first pictures unchanged. And the *empty
# prompts* teach the copy which colours belong to an outline, when no word says so. In one point
# our toy contradicts the paper: its lite does not fail.
