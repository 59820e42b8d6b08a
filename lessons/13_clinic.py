# %% [markdown]
# # Lesson 13: Why does my ControlNet ignore its condition?
#
# Users of ControlNet often ask this question, and no error message answers it. A ControlNet
# with a bug may train without an error. Its loss may fall, and the locked base still generates
# good pictures.
#
# In this lesson eight patients come to a clinic. One of them is healthy. Each of the other
# seven has one bug, and all of these bugs are easy to make. You will
#
# 1. look at the symptoms: the loss, the pictures and the shuffle gap,
# 2. write down your own diagnosis,
# 3. compare it with the diagnosis of a doctor who examines the network itself.
#
# It takes about a minute. Then do exercises 13a to 13d. The patients are in lesson/patients.py;
# open this file only after your own diagnosis.

# %%
import os
import sys
import warnings
from itertools import islice

sys.path.insert(0, os.path.dirname(sys.argv[0]))  # finds the folder of the lessons
from lesson import Lesson, elsewhere, table
from lesson.figures_13 import charts, ward
from lesson.patients import BUGS, IN_TRAINING, Patient, as_it_is, used_wrongly

import torch
from tqdm import tqdm

from minicontrolnet import (Control, ControlNet, Training, control_loss, detect_edges, fingerprint,
                            gap, held_out, load_base, load_control, loss_of_condition, mask_iou,
                            mask_of, sample, seeded)
from minicontrolnet.measure.diagnosis import (NoisyBatch, cause_of, diagnose, noisy_batch,
                                              show_findings, verdict_of)

lesson = Lesson("13_clinic", steps=80, quick_steps=2)
n = 6 if lesson.quick else 16  # pictures for the gap and for the doctor
ddim_steps = 2 if lesson.quick else 8

from_losses = lesson.predict("Five ControlNets are in training, and four of them have a bug. You see the loss"
                             " curve of one of them. Does this curve tell you whether it is the healthy one?",
                             a="yes: only the healthy one's loss falls",
                             b="no: the loss jumps from batch to batch, and hides the bug",
                             c="yes: the losses of all sick ones grow")

# %% [markdown]
# ## The first symptom: the loss
#
# Patients A to E are in training. They start from the same base, and they see the same 80
# batches. Every 20 steps we also measure the shuffle gap of lesson 05. It is the loss with
# another picture's outline, minus the loss with the picture's own outline. A ControlNet that
# ignores its outline has a gap of 0.
#
# Each patient gets a base of its own, because one of the bugs changes the base.

# %%
losses = {letter: [] for letter in IN_TRAINING}
gaps = {letter: {} for letter in IN_TRAINING}
patients = {}
for letter, build in IN_TRAINING.items():
    base = load_base(device=lesson.device)
    control = seeded(lesson.seed, build, base)
    # The learning rate falls to 0 over `steps`. We plan three times as many steps as we take, so
    # that the rate stays high in those that we see.
    training = Training(control, control_loss(base, "edge"), steps=3 * lesson.steps, lr=2e-3,
                        seed=lesson.seed)
    for step, loss in tqdm(islice(training, lesson.steps), letter, lesson.steps):
        losses[letter].append(loss)
        if step % 20 == 0 or step == lesson.steps:
            gaps[letter][step] = gap(base, control, "edge", n)
    patients[letter] = Patient(base, control, as_it_is)

# %% [markdown]
# All five have finished. The upper left plot of 13_clinic_charts.png shows the losses of A and
# E. Each of them jumps from batch to batch. The losses of B, C and D would lie close to that of A.
#
# All five see the same batches, so we can compare them batch by batch. The lower left plot
# shows each patient's loss minus A's loss on the same batch. The grey band is a measure of the
# jumps. It shows how much A's loss changes from one batch to the next, on average. The shuffle
# gaps are on the right.

# %%
lesson.save_figure(charts(losses, gaps), "_charts")
lesson.reveal(from_losses, "b",
              because="A, B, C and D differ by less than the usual change from batch to batch. We see their"
                      " differences only because all five train on the same batches.",
              a="on average, the last 20 losses of each patient are lower than its first 20.",
              c="only E's loss grows for a while, and then it falls again.")

# %% [markdown]
# From step 20 to step 60 the loss of E is higher than those of the others. So E is suspicious.
# In the last 20 steps B has the lowest loss on every batch. The difference is smaller than the
# grey band, so B's curve alone would not show it. If you train a ControlNet of your own, you
# have no second patient on the same batches.
#
# The gap needs no second patient, because it always uses the same pictures, noise and times. At
# step 20 all five gaps are still about 0. Later they differ clearly: those of A and D stay
# exactly 0, and the other three grow at different speeds.
#
# ## The second symptom: the pictures
#
# Patients F, G and H are the ControlNet that ships with this package. It has learned well, and
# each of its three owners makes one mistake in using it. We now let all eight patients generate
# pictures. `prepare` is what an owner does to an outline before the ControlNet sees it.

# %%
shipped_base = load_base(device=lesson.device)
patients |= used_wrongly(shipped_base, load_control("edge", shipped_base))

truth, noise = held_out(8, lesson.device)
edges = detect_edges(truth.image)
with_control = {}
control_off = {}
for letter, patient in patients.items():
    controls = [Control(patient.control, patient.prepare(edges))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning about the condition would give a patient away
        with_control[letter] = sample(patient.base, truth.prompt, noise, controls, steps=ddim_steps)
    control_off[letter] = sample(patient.base, truth.prompt, noise, steps=ddim_steps)

SHOWN = [2, 0]  # a star and a circle
upper = {letter: images[SHOWN] for letter, images in with_control.items()}
lower = {letter: images[SHOWN] for letter, images in control_off.items()}
lesson.save_figure(ward(edges[SHOWN], upper, lower, truth.prompt[SHOWN]))

# %% [markdown]
# 13_clinic.png has a column for each patient. In the two upper rows, look for patients that
# ignore the outline. In the two lower rows control is switched off, so the patient's base alone
# generates the pictures. If one column differs from the others there, something has changed the
# base of this patient.
#
# ## The third symptom: the numbers
#
# On held-out pictures we measure the loss, the gap, and the mask IoU of the generated pictures.
# For comparison the last row has the base without any ControlNet. Its IoU is not 0, because two
# shapes overlap even if they are independent of each other.

# %%
symptoms = {}
rows = [["patient", "held-out loss", "shuffle gap", "mask IoU"]]
for letter, patient in patients.items():
    loss_with, outlines = loss_of_condition(patient.base, patient.control, "edge", n)
    own = loss_with(patient.prepare(outlines)).item()
    other = loss_with(patient.prepare(outlines.roll(1, 0))).item()  # each picture gets another one's outline
    iou = mask_iou(mask_of(with_control[letter]), truth.mask).mean().item()
    symptoms[letter] = {"loss": own, "gap": other - own, "IoU": iou}
    rows.append([letter, f"{own:.4f}", f"{other - own:.4f}", f"{iou:.2f}"])

untrained = seeded(lesson.seed, ControlNet, shipped_base)  # its zero convs are 0, so it changes nothing
loss_with, outlines = loss_of_condition(shipped_base, untrained, "edge", n)
iou = mask_iou(mask_of(control_off["H"]), truth.mask).mean()  # the base of H is the shipped one
rows.append(["no ControlNet", f"{loss_with(outlines):.4f}", "", f"{iou:.2f}"])
table(rows)

# %% [markdown]
# The gap of F is negative. So for F the loss is even a little lower with the wrong outline than
# with the right one.
#
# The numbers alone name no bug. If the gap is small, the patient may have a bug, or it may only
# have trained for a short time. And a patient with a high IoU may still have a bug.
#
# ## Your diagnosis
#
# Write down one letter for each line:
#
# - The copy is frozen. Only the condition encoder and the zero convs learn.
# - The copy shares its memory with the base, so training changes the base.
# - A `detach()` cuts the copy off from the loss.
# - There are two zero convs in a row.
# - The condition is inverted.
# - The controls come in the wrong order: among controls with the same channels and grid, the
#   order is reversed.
# - The ControlNet is used with another base than in its training. (This base may even generate
#   exactly the same pictures. Renumber its channels in all layers, and it computes the same.
#   But then the controls are added to the wrong channels.)
# - None of these: the patient is healthy.
#
# Some patients have the same symptoms. You need one more measurement to distinguish them.

# %%
a_or_d = lesson.predict("The gap of A and of D is exactly 0 at every step. Which measurement tells these"
                        " two apart?",
                        a="train them longer: one of them will begin to follow",
                        b="see which weights get a gradient: the two bugs stop it at different places",
                        c="the loss: one of them has a lower loss than the base alone")

# %% [markdown]
# ## The doctor's diagnosis
#
# The doctor does not look at curves. It gets the base and the ControlNet with all their
# weights, and one noisy batch, as a training step makes it. It also gets the fingerprint of the
# base for which the ControlNet was made. Then it examines the networks:
#
# - Does the copy share memory with the base?
# - Is the base the right one?
# - In which order do gradients arrive?
# - Which zero convs are still 0?
# - Has the copy moved from its start?
#
# Finally it tries treatments. For example, it inverts the condition or reverses the order of
# the controls, and checks whether the loss falls.
#
# The doctor is the function `diagnose`. It returns a list of findings, and the causes come
# before the symptoms that they explain.

# %%
right_base = fingerprint(shipped_base.state_dict())  # all eight were made for this base
findings = {}
rows = [["patient", "verdict", "cause"]]
for letter, patient in patients.items():
    outlines, batch = noisy_batch(patient.base, "edge", n)
    findings[letter] = diagnose(patient.base, patient.control, patient.prepare(outlines), batch,
                                trained_on=right_base)
    rows.append([letter, verdict_of(findings[letter]), cause_of(findings[letter])])
table(rows)
lesson.reveal(a_or_d, "b",
              because="in A, the 13 zero convs at the outputs learn, with their weights and biases. They come after"
                      " the detach(), and nothing before it learns. In D, only the biases of the outer zero convs"
                      " learn.",
              a="neither can. In both of them no gradient ever reaches the condition encoder, through which"
                " the outline enters.",
              c="see the table of symptoms: both have nearly the same loss as the base alone.")

# %% [markdown]
# How many did you get right? These are the symptoms:
#
# | patient | symptom |
# |---|---|
# | A, D | The gap is exactly 0, and the pictures are nearly those of the base alone. |
# | B | It is the healthy one. Of A to E it has the largest gap and the highest IoU. |
# | C | It begins to follow, but its gap grows more slowly than B's. |
# | E | With control off, its pictures are different from the others. Its base has changed. |
# | F | Its loss is higher than that of the base alone. Its gap is below 0. |
# | G | Its loss is the highest of all. But its gap is above 0. |
# | H | Its pictures follow. But its loss is hardly lower than that of the base alone. |
#
# C is hard to find. Without B to compare with, it would look like a healthy ControlNet after a
# shorter training. H is hard, too. It was trained to the end and B was not, so H should have a
# much lower loss than B. It has a higher one.
#
# F and G are hard to distinguish, because for both the loss is higher with control than without
# it. But G has a gap above 0, and its IoU is above that of the base alone. So G still gets
# something from its outline. For F, the right outline is of no more use than a wrong one. The
# doctor can find out more: it checks the base's fingerprint, and it tries to invert the
# condition.
#
# A full report shows how the findings of one patient fit together. This is the report of D. Its
# `zero_convs` are pairs. The outer ones are *the zero convs at the outputs*, and the report
# calls the inner ones *the other layers of zero_convs*.

# %%
print("\nPatient D\n")
show_findings(findings["D"])

# %% [markdown]
# The finding about the gradients names the cause, and the findings below it are symptoms. The
# controls are constant, and the condition changes nothing. The copy has learned nothing,
# either. It has only shrunk, because weight decay makes all weights smaller even if their
# gradient is 0.
#
# ## The wrong line, and the right one
#
# | patient | wrong | right |
# |---|---|---|
# | A | `zero(h.detach())` | `zero(h)`: lock the base, and detach nothing |
# | C | `copy.deepcopy(base.encoder)` of a locked base | `self.requires_grad_(True)` after it |
# | D | `nn.Sequential(zero_conv(c), zero_conv(c))` | `zero_conv(c)` |
# | E | `self.encoder = base.encoder` | `copy.deepcopy(base.encoder)` |
# | F | any base of this architecture | the base that it was trained on, or a fine-tuned version of that base |
# | G | black lines on white | white lines on black, in [0, 1], as in training |
# | H | among controls of equal size: deep to shallow | shallow to deep, the middle last |
#
# ## A ControlNet from elsewhere
#
# The doctor needs only two functions, and neither has to come from this package:
#
#     base(xt, t, prompt, controls) -> output
#     control(xt, t, prompt, condition) -> a list of controls
#
# In lesson/elsewhere.py there is a UNet of another kind and a ControlNet for it. This
# ControlNet returns a dictionary, so we write a small function that makes a list of it. We also
# hand over the module itself, so that the doctor can look at its weights. The noisy batch is
# made as in the training of that ControlNet.

# %%
unet = elsewhere.train_unet(steps=10 if lesson.quick else 200)
theirs = elsewhere.train_control(unet, steps=5 if lesson.quick else 150)


def their_controls(xt, t, prompt, condition):
    output = theirs(xt, t, prompt, condition)
    return output["down"] + output["mid"]


generator = torch.Generator().manual_seed(lesson.seed)
x0, label, outline = elsewhere.pictures(32, generator)
xt, timestep, eps = elsewhere.noised(x0, generator)
batch = NoisyBatch(xt, timestep, prompt=label, target=eps)
report = diagnose(unet, their_controls, outline, batch, control_module=theirs)
answers = {finding.question: finding for finding in report}
gap_of_theirs = answers["Does the condition help, and how large is the shuffle gap beside the loss?"].number
print(f"\nThe shuffle gap of the ControlNet from elsewhere is {gap_of_theirs:.3f}.")

# %% [markdown]
# Imagine that its author says: "The loss falls, and my ControlNet follows outlines a bit. But
# my friend's is much better." All weights ask for gradients, and the gap is above 0.

# %%
still_wrong = lesson.predict("The gap is above 0, so the condition is used. What can still be wrong?",
                             a="nothing: a gap above 0 shows that everything in it learns",
                             b="the copy may stand still, while the zero convs and the condition encoder learn",
                             c="the condition may be inverted")

# %% [markdown]
# We print what the doctor found about gradients and about the copy.

# %%
print("\nThe ControlNet from elsewhere\n")
show_findings([answers["Can the copy be trained?"],
               answers["In which order do gradients arrive?"],
               answers["Has the copy moved from its start?"]])
assert cause_of(report) == "frozen copy"
lesson.reveal(still_wrong, "b",
              because="the copy still has the weights that it began with. Zero convs and a condition"
                      " encoder alone can learn something.",
              a="a frozen copy reaches a gap above 0 as well. Patient C showed it.",
              c="this batch is made as in their training. If their training inverted the conditions, the"
                " condition encoder would have learned to read inverted ones.")

# %% [markdown]
# The copy asks for gradients, and they arrive. But it stands still, so the optimiser probably
# holds other parameters. The code confirms it: `train_control` makes the optimiser first, and
# then it copies the encoder again.
#
# For your own weights there is a command: `python -m minicontrolnet doctor`. For your own code,
# start with the checklist "My ControlNet ignores its condition" in lessons/README.md.

# %%
sick = [letter for letter, bug in BUGS.items() if bug]
named = [letter for letter in sick if cause_of(findings[letter]) == BUGS[letter]]
lesson.verdict(f"The doctor named the bugs of {len(named)} of the {len(sick)} sick patients (one training seed). For"
               f" each patient it had the weights, the right base's fingerprint, and one batch of {n} pictures."
               " It was written with these bugs in mind.",
               f"After {lesson.steps} steps the gap of the healthy one is {symptoms['B']['gap']:.4f}, and that"
               f" of the frozen copy is {symptoms['C']['gap']:.4f}. The gaps of A and D are exactly 0.")
lesson.save_results({"losses": losses, "symptoms": symptoms, "gaps": gaps,
                     "causes": {letter: cause_of(found) for letter, found in findings.items()}})
print("\nEXERCISES  13a to 13d: python lessons/exercises")
