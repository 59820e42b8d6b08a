# %% [markdown]
# # Lesson 13: Why does my ControlNet ignore its condition?
#
# This is the question that users of ControlNet ask most often, and no error message answers
# it. A ControlNet with a bug still trains, its loss still falls, and the locked base still
# generates good pictures. In this lesson eight patients come to a clinic. Seven of them have
# one bug each, and every one of these bugs really happened to somebody. You
#
# 1. watch their symptoms: the loss, the shuffle gap and the pictures,
# 2. write down your own diagnosis,
# 3. see what a doctor finds who examines the network itself.
#
# It takes about a minute on two cores. The doctor is the function `diagnose` in
# minicontrolnet/measure/diagnosis.py, and `python -m minicontrolnet doctor` examines your own
# weights. The patients are in lesson/patients.py; do not open that file before you have made
# your diagnoses.

# %%
import os
import sys
from itertools import islice

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # this folder, also under python -P
import torch
from lesson import Lesson, elsewhere, table
from lesson.figures_13 import charts, ward
from lesson.patients import BUGS, IN_TRAINING, Patient, as_it_is, used_wrongly
from tqdm import tqdm

from minicontrolnet import (Control, Training, control_loss, detect_edges, fingerprint, gap, held_out,
                            load_base, load_control, loss_of_condition, mask_iou, mask_of, sample,
                            seeded)
from minicontrolnet.measure.diagnosis import (NoisyBatch, cause_of, diagnose, noisy_batch,
                                              show_findings, verdict_of)

lesson = Lesson("13_clinic", steps=80, quick_steps=2)
n = 6 if lesson.quick else 16  # pictures for the gap and for the doctor
ddim_steps = 2 if lesson.quick else 8

guess = lesson.predict("Five ControlNets train on the same batches. Four of them have a bug. Can we tell "
                       "from their loss curves which one is healthy?",
                       a="yes, only the healthy one's loss falls",
                       b="hardly: they differ by less than one batch differs from the next",
                       c="yes, the loss of the sick ones grows")

# %% [markdown]
# ## The waiting room: five in training
#
# Patients A to E start from the same base and see the same 80 batches. Each gets a base of
# its own, because one of them will change it. Every 20 steps we measure the shuffle gap of
# lesson 05: the loss with another picture's outline, minus the loss with its own outline, on
# the same pictures and noise. It is 0 if the outline is ignored.

# %%
losses = {}
gaps = {}
patients = {}
for letter, build in IN_TRAINING.items():
    base = load_base(device=lesson.device)
    control = seeded(lesson.seed, build, base)
    training = Training(control, control_loss(base, "edge"), steps=3 * lesson.steps, lr=2e-3,
                        seed=lesson.seed)
    losses[letter] = []
    gaps[letter] = {}
    for step, loss in tqdm(islice(training, lesson.steps), letter, lesson.steps):
        losses[letter].append(loss)
        if step % 20 == 0 or step == lesson.steps:
            gaps[letter][step] = gap(base, control, "edge", n)
    patients[letter] = Patient(base, control, as_it_is)

# %% [markdown]
# ## Three that were trained well
#
# Patients F, G and H are the shipped edge ControlNet, which follows outlines well. Their
# owners use it, and each of them makes one mistake. `prepare` is what an owner does to an
# outline before the ControlNet sees it.

# %%
shipped_base = load_base(device=lesson.device)
patients |= used_wrongly(shipped_base, load_control("edge", shipped_base))

# %% [markdown]
# ## The symptoms
#
# For each patient we write down the loss on held-out pictures, with control and without
# (which is the base alone), the gap, and the mask IoU of what it generates. Two outlines that
# have nothing to do with each other still have an IoU of about 0.4.

# %%
truth, noise = held_out(8, lesson.device)
edges = detect_edges(truth.image)
two = [4, 5]  # the pictures that we show
with_control = {}
control_off = {}
symptoms = {}
for letter, (base, control, prepare) in patients.items():
    loss_with, outlines = loss_of_condition(base, control, "edge", n)
    own = loss_with(prepare(outlines)).item()
    other = loss_with(prepare(outlines.roll(1, 0))).item()
    images = sample(base, truth.prompt, noise, [Control(control, prepare(edges))], steps=ddim_steps)
    with_control[letter] = images[two]
    control_off[letter] = sample(base, truth.prompt[two], noise[two], steps=ddim_steps)
    iou = mask_iou(mask_of(images), truth.mask).mean().item()
    symptoms[letter] = {"loss": own, "gap": other - own, "IoU": iou}

rows = [["patient", "held-out loss", "shuffle gap", "mask IoU"]]
for letter, own in symptoms.items():
    rows.append([letter, f"{own['loss']:.4f}", f"{own['gap']:.1e}", f"{own['IoU']:.2f}"])
table(rows)
lesson.save_figure(charts(losses, gaps), "_charts")
lesson.save_figure(ward(edges[two], with_control, control_off, truth.prompt[two]))
lesson.reveal(guess, "b",
              because="a batch's loss is mostly noise that no network can predict, and the locked base "
                      "is good from the first step on. The gap compares the same pictures, noise and "
                      "times, so it shows the difference.",
              a="the first losses are the same for all of them: what moves the curves is the batches.",
              c="a locked base with weak control is never much worse than the base alone.")

# %% [markdown]
# ## Your diagnosis
#
# Look at the table and at both figures, and write down a letter for each bug:
#
# - The copy is frozen: only the condition encoder and the zero convs learn.
# - The copy shares its memory with the base, so training changes the base.
# - A detach() cuts the copy off from the loss.
# - There are two zero convs in a row.
# - The condition is inverted.
# - The controls are handed over in reversed order.
# - The ControlNet is used with another base than the one that it was trained on.
# - None of these: it is healthy.
#
# Some patients have the same symptoms. What would you measure next to tell them apart?

# %%
guess = lesson.predict("The gap of A and of D is exactly 0 at every step. Which measurement tells these two apart?",
                       a="train them longer: one of them will begin to follow",
                       b="which weights get a gradient: all of a zero conv's, or only its bias's",
                       c="the loss: one of them has a lower loss than the base alone")

# %% [markdown]
# ## The doctor's diagnosis
#
# The doctor does not look at curves. It needs one noisy batch, as a training step makes it,
# and then it asks the network itself. Does the copy share memory with the base? Do the
# weights ask for gradients, and in which order do gradients arrive? Has the copy moved from
# its start? Which zero convs are still 0? At last it tries treatments: it inverts the
# condition or reverses the order, and sees whether the loss falls.

# %%
mark = fingerprint(shipped_base.state_dict())
findings = {}
for letter, (base, control, prepare) in patients.items():
    outlines, batch = noisy_batch(base, "edge", n)
    findings[letter] = diagnose(base, control, prepare(outlines), batch, trained_on=mark)

rows = [["patient", "verdict", "cause"]]
for letter, found in findings.items():
    rows.append([letter, verdict_of(found), cause_of(found)])
table(rows)
if not lesson.quick:
    assert {letter: cause_of(found) for letter, found in findings.items()} == BUGS
lesson.reveal(guess, "b",
              because="a detach() lets all of the zero convs learn and nothing else. Two zero convs in a "
                      "row let only the outer bias learn.",
              a="with two zero convs in a row, nothing but the outer bias ever gets a gradient.",
              c="both are as good as the base alone.")

# %% [markdown]
# The whole report of one patient shows how the findings fit together. The first cause in the
# list explains the findings after it, which are its symptoms.

# %%
print("\nPatient D\n")
show_findings(findings["D"])

# %% [markdown]
# ## The wrong line, and the right one
#
# | patient | wrong | right |
# |---|---|---|
# | A | `zero(h.detach())` | `zero(h)`: lock the base, detach nothing |
# | C | `copy.deepcopy(base.encoder)` of a locked base | `self.requires_grad_(True)` after it |
# | D | `nn.Sequential(zero_conv(c), zero_conv(c))` | `zero_conv(c)` |
# | E | `self.encoder = base.encoder` | `copy.deepcopy(base.encoder)` |
# | F | any base of this architecture | the base of its training, or a fine-tuned sibling |
# | G | black lines on white | white lines on black, in [0, 1], as in training |
# | H | deep to shallow within a level | shallow to deep, the middle last |
#
# Patient C is the treacherous one. It does begin to follow outlines, only later and less well
# than B. Nobody would notice that if B did not stand beside it.

# %% [markdown]
# ## A ControlNet from elsewhere
#
# The doctor needs nothing of this package but two functions of this form:
#
#     base(xt, t, prompt, controls) -> output
#     control(xt, t, prompt, condition) -> a list of controls
#
# lesson/elsewhere.py has a small UNet with three skips for discs and squares, another noise
# schedule, and a ControlNet that returns a dictionary. Its author says: the loss falls, it
# even follows outlines a bit, but my friend's is much better. We write one adapter, and give
# the doctor a noisy batch of the author's own training.

# %%
unet = elsewhere.train_unet(10 if lesson.quick else 200)
theirs = elsewhere.train_control(unet, 5 if lesson.quick else 150)


def their_controls(xt, t, prompt, condition):
    output = theirs(xt, t, prompt, condition)
    return output["down"] + output["mid"]


generator = torch.Generator().manual_seed(lesson.seed)
x0, label, outline = elsewhere.pictures(32, generator)
xt, timestep, eps = elsewhere.noised(x0, generator)
batch = NoisyBatch(xt, timestep, prompt=label, target=eps)
report = diagnose(unet, their_controls, outline, batch, control_module=theirs)
print("\nThe ControlNet from elsewhere: findings that are not healthy\n")
show_findings([finding for finding in report if finding.verdict != "healthy"])
assert cause_of(report) == "frozen copy"

# %% [markdown]
# The copy stands still, although it asks for gradients and gets them. So the optimiser must
# hold other parameters, and indeed `train_control` makes the copy anew after the optimiser. A
# student project lost weeks to a bug of this kind. Note that the shuffle gap looks healthy
# here: zero convs and a hint encoder alone can learn something.

# %%
lesson.verdict(f"The doctor named the bugs of all {len(BUGS) - 1} patients, each from one batch of {n}"
               " pictures (one training seed).",
               f"After {lesson.steps} steps the gap of the healthy one is {symptoms['B']['gap']:.4f}, and that"
               f" of the frozen copy is {symptoms['C']['gap']:.4f}. The gaps of A and D are exactly 0.")
lesson.save_results({"losses": losses, "symptoms": symptoms, "gaps": gaps,
                     "causes": {letter: cause_of(found) for letter, found in findings.items()}})
print("\nEXERCISES  13a to 13d: python lessons/exercises")
