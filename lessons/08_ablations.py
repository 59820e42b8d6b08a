# %% [markdown]
# # Lesson 08: Which parts of ControlNet matter?
#
# ControlNet has three parts: a locked base, a copy of its encoder, and zero convolutions. Its
# training has a trick, too: half of the prompts are empty. Do we need all of this? To find out,
# we replace one part at a time and measure what we lose. Such an experiment is called an
# *ablation*. The paper has one in Sec. 4.2 and Fig. 8. In this lesson you
#
# 1. replace the zero convolutions and the copy, and test with four kinds of prompts (Fig. 8),
# 2. see what a copy learns from empty training prompts (Sec. 3.3),
# 3. find out which networks keep the colours that the training pictures do not show.
#
# Two trainings that differ only in their random seed give different results. So we need several
# seeds for each variant, and that takes too long for a lesson. We trained all variants
# beforehand. Their numbers are *records* in lessons/results. Each record comes from a file in
# lessons/experiments, which explains the experiment. This page takes a few seconds. Then do
# exercise 08a, and read `gaussian` and `Lite` in lessons/lesson/networks.py.

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

lesson = Lesson("08_ablations", steps=12, quick_steps=2, meaning="DDIM steps")

# %% [markdown]
# Before you read on, make a guess. The last section gives the answer.

# %%
guess = lesson.predict("Several networks learn to follow outlines from 100 pictures, which show only"
                       " four of the eight colours. Which of them can still generate the other"
                       " four colours?",
                       a="every network with a locked base, whatever is added to it",
                       b="only ControlNet, because its copy starts with the base's weights",
                       c="every network that starts from the base, the fine-tuned base included",
                       d="none, because no network generates colours that its data lack")

# %% [markdown]
# ## Four variants (Fig. 8)
#
# The first three variants differ only in how the 14 zero convolutions start. There are 13 that
# join the copy to the base, and one at the end of the condition encoder. Write W for their
# weights:
#
#     zero convs:      W = 0
#     small Gaussian:  W ~ N(0, 0.02^2)
#     large Gaussian:  W ~ N(0, 1 / channels)
#
# The large start has a standard deviation of 0.10 to 0.18, because our convolutions have 96 to
# 32 channels. With it, the outputs of a convolution are about as large as its inputs.
#
# The fourth variant is called *lite* (in the paper: ControlNet-lite). Its 14 zero convolutions
# start at zero, but it has no copy. A single ordinary convolution takes the place of each
# copied block. These convolutions start from random weights, and they see neither the time nor
# the prompt.

# %%
base = load_base(device=lesson.device)
variants = {"zero convs": ControlNet(base),
            "small Gaussian": seeded(lesson.seed, gaussian, base, 0.02),
            "large Gaussian": seeded(lesson.seed, gaussian, base),  # by default 1 / channels
            "lite": seeded(lesson.seed, Lite, base)}

# %% [markdown]
# First we add each variant to the base without any training. Which of them leave the base's
# pictures unchanged?

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
# The two variants whose zero convolutions start at zero change nothing at all. The large
# Gaussian start changes the pictures more than the small one.
#
# ## How well do they follow outlines after training?
#
# We trained each variant for 400 steps with ten seeds. Then we tested it with four kinds of
# prompts:
#
# - *none*: the prompt is empty,
# - *insufficient*: it names only the colour of the background,
# - *conflicting*: it names another shape than the outline shows,
# - *perfect*: it names both colours and the right shape.

# %%
figure_8_record = load_results("claims_13_14_16_17_figure_8")
numbers = figure_8_record["numbers"]
arms = {"zero convs": numbers["zero convs"],  # our names, and the names of the record
        "small Gaussian": numbers["N(0, 0.02^2)"],
        "large Gaussian": numbers["N(0, 1/fan_in)"],
        "lite": numbers["lite"]}
prompts = ["none", "insufficient", "conflicting", "perfect"]

rows = [["IoU, prompt:", *prompts]]
for name, scores in arms.items():
    rows.append([name, *two_digits(means(scores, prompts, "IoU"))])
table(rows)

# %% [markdown]
# Some of these differences are small. So we compare trainings that have the same seed, and
# compute a 95 % interval of each difference, as in lesson 04. (Lesson 09 explains how.)

# %%
zero = arms["zero convs"]["none"]["IoU"]
sentences = []
for name in ("small Gaussian", "large Gaussian", "lite"):
    more = difference(zero, arms[name]["none"]["IoU"])
    sentences.append(f"zero convs minus {name}: {with_interval(more)}.")
lesson.verdict(f"IoU without a prompt ({len(zero)} seeds):", *sentences)

# %% [markdown]
# A large random start follows outlines less closely than zeros do. It loses nearly as much as
# lite, which has no copy. The paper reports the same. But ten seeds cannot distinguish a
# *small* random start from zeros.
#
# ## When do they begin to follow?
#
# In lesson 05 a ControlNet waited for some time, and then it followed its outlines suddenly. Is
# it the zeros that make it wait? If so, a random start should begin earlier. The record has the
# condition-shuffle gap of every training (lesson 05): the loss with another picture's outline
# minus the loss with the right outline. For each training we look for the step at which the gap
# reaches a tenth of its highest value.

# %%
wait = finding(figure_8_record, "wait of zero convs minus wait of N(0, 1/fan_in)")
lesson.verdict("Claim: zeros begin later than a large Gaussian start. Step at which zeros begin,"
               f" minus step at which the large Gaussian begins: {with_interval(wait, digits=0)}.")
lesson.save_figure(gaps(arms), "_gaps")

# %% [markdown]
# *Contradicted* means that the whole interval lies on the other side of 0. So the zeros begin
# *earlier*. 08_ablations_gaps.png shows the mean gaps. All four variants wait, and then their
# gaps rise steeply. So a wait needs neither zeros nor a copy. The right plot shows the same
# gaps on a log scale: the large random start is ahead for about 50 steps, and then the zeros
# overtake it. (Gaps below 1e-7 are not drawn.) Claim 9 in [CLAIMS.md](CLAIMS.md) tries more
# sizes of the start.
#
# ## Does lite fail?
#
# The paper says that lite fails if the prompt is missing or insufficient. Then only the outline
# can say which shape is meant. So the question is whether the network *recognises* the shape of
# the outline. A small classifier names the shape in each picture. We count how often this is
# the outline's shape.

# %%
rows = [["outline's shape, prompt:", *prompts]]
for name, scores in arms.items():
    rows.append([name, *percent(means(scores, prompts, "right shape"))])
table(rows)

shown = load_pictures("claims_13_14_16_17_figure_8", 256)
lesson.save_figure(figure_8(shown, figure_8_record["rows of pictures"]), "_figure_8")

# %% [markdown]
# 08_ablations_figure_8.png shows a star and a square. We did not select them: they are the
# first star and the first square of the test. Without a prompt they hardly show a difference,
# and the table counts many pictures.
#
# Wherever the prompt does not name the right shape, lite and the large Gaussian generate it
# less often than the zero convs do. But lite does not *fail*. Without a prompt, more than nine
# of ten of its shapes are right, and with an insufficient prompt about eight of ten. So in our
# toy both variants are behind, as in the paper. The word "fails" is contradicted. One possible
# reason is that a single outline on an empty background is easier to recognise than the
# drawings of the paper.
#
# The conflicting prompt is the hardest case, because it names a shape that is wrong. Even with
# zero convs, fewer than half of the pictures show the outline's shape. The shipped ControlNet
# of lesson 06 was trained ten times as long, and there the outline wins.
#
# ## Why are half of the training prompts empty?
#
# If the prompt always names the shape, the copy need not recognise it. If the prompt is empty,
# only the outline shows which shape it is. To test whether this makes a difference, we change
# the world: now each shape has two colours of its own. For example, every star is yellow on
# blue. In this world we trained two kinds of ControlNet, with three seeds each. In one kind
# half of the training prompts were empty (*half dropped*), and in the other none (*none
# dropped*). Then we gave them outlines and no prompt. Do they paint the star yellow?

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
# (A conflicting prompt names a wrong shape here, but the right colours.)
# 08_ablations_dropped.png shows one outline.
#
# Without a prompt, both kinds of ControlNet follow the outline, and all shapes are right. But
# the colours differ. ControlNets that were trained with empty prompts paint the colours that
# belong to the outline in 84 % of the pictures, and the others in 14 %. To paint them, a
# ControlNet must recognise the shape. The others never saw an empty prompt in training. So
# perhaps they recognise the shape as well, and the unfamiliar input disturbs their colours. We
# have not tested this.
#
# ## Which part protects the base's knowledge?
#
# This is the question of your prediction. We trained five networks on 100 pictures of circles
# and squares, for 200 steps at a rate of 2e-3, with three seeds. The pictures show four of the
# eight colours: white, orange, green and blue.
#
# - *ControlNet*, as above,
# - *random copy*: a ControlNet whose copy starts from random weights,
# - *lite*, as above,
# - *fine-tuned base*: the base itself, trained with the outline as an extra input (lesson 02),
# - *from scratch*: like the fine-tuned base, but all of its weights start at random.
#
# We test each network with three kinds of prompts. The first two ask for circles and squares:
# in the colours of the training ("seen"), or in the other four ("new colours"). The third asks
# for triangles and stars in the other four ("new colours and shapes"). A picture is good if
# both of its colours are right. To see whether the network steers at all, we also print its IoU
# for the last kind of prompt.

# %%
few_record = load_results("few_pictures_of_four_colours")
names = {"ControlNet": "ControlNet", "random copy": "random copy", "lite": "lite",
         "base trained": "fine-tuned base", "from scratch": "from scratch"}
tests = ["seen", "new colours", "new colours and shapes"]
share = {}
rows = [["both colours right", *tests, "IoU, new colours and shapes"]]
for arm, name in names.items():
    scores = few_record["numbers"][arm]
    shares = means(scores, tests, "right colours")
    share[name] = shares[1]  # new colours
    rows.append([name, *percent(shares), *two_digits(means(scores, tests[2:], "IoU"))])
table(rows)

# %% [markdown]
# 08_ablations.png shows one picture for each of the first two kinds of prompts, and two for the
# third.

# %%
locked = [share["ControlNet"], share["random copy"], share["lite"]]
if min(locked) > 0.5:
    answer = "c" if share["fine-tuned base"] > 0.5 else "a"
elif share["ControlNet"] > 0.5:
    answer = "b"
else:
    answer = "d"
lesson.reveal(guess, answer, "the locked base can still generate these colours, and here no copy spoils them.",
              a="not every network with a locked base keeps the colours here.",
              b="the random copy and lite keep the colours as well.",
              c="after this fine-tuning the base generates them much less often.",
              d="the locked base still knows what it knew before.")
shown = load_pictures("few_pictures_of_four_colours", 256)
order = [names[arm] for arm in few_record["rows of pictures"]]
lesson.save_figure(few_pictures(shown, order, share))
print("\nEXERCISE  08a: python lessons/exercises")

# %% [markdown]
# Lite keeps all colours, but after so few steps it follows outlines less closely than the two
# ControlNets. The fine-tuned base is the other way round: it follows outlines well, and it has
# lost most of the new colours. How much it loses depends on the rate and on the colours (lesson
# 02). A locked base itself cannot forget, whatever the rate and the colours are. With control,
# we have tested these colours at this rate only.
#
# ## What each part does
#
# The *lock* keeps what the base knows. The *copy* follows outlines more closely than lite,
# which is also smaller and sees neither the time nor the prompt. A copy that starts at random
# lies between the two. The *zero start* leaves the first pictures unchanged, and it beats a
# large random start. With *empty prompts* in training, a ControlNet paints the colours that
# belong to an outline, even if no word names them. In one point our toy contradicts the paper:
# ControlNet-lite is behind, but it does not fail.
