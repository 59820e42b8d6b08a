# %% [markdown]
# # Lesson 13: Why does my ControlNet ignore its condition?
#
# Users of ControlNet ask this question more often than any other, and no error message
# answers it. A ControlNet with a bug still trains. Its loss still falls, and the locked base
# still generates good pictures.
#
# In this lesson eight patients come to a clinic. One of them is healthy. Each of the other
# seven has one bug, and every one of these bugs really happened to somebody. You will
#
# 1. look at the symptoms: the loss, the pictures and the shuffle gap,
# 2. write down your own diagnosis,
# 3. compare it with the diagnosis of a doctor who examines the network itself.
#
# It takes about a minute. Then do exercises 13a to 13d. The patients are in
# lesson/patients.py; open this file only after your own diagnosis.

# %%
import os
import sys
import warnings
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

guess = lesson.predict("Five ControlNets train on the same batches. Four of them have a bug. Can we see "
                       "from their loss curves which one is healthy?",
                       a="yes, because only the healthy one's loss falls",
                       b="hardly: they differ by less than one batch differs from the next",
                       c="yes, because the loss of the sick ones grows")

# %% [markdown]
# ## The first symptom: the loss
#
# Patients A to E are in training. They start from the same base, and they see the same 80
# batches. Every 20 steps we also measure the shuffle gap of lesson 05. It is the loss with
# another picture's outline, minus the loss with the own outline. A ControlNet that ignores
# its outline has a gap of 0.
#
# Each patient gets a base of its own, because one of the bugs changes the base.

# %%
losses = {letter: [] for letter in IN_TRAINING}
gaps = {letter: {} for letter in IN_TRAINING}
patients = {}
for letter, build in IN_TRAINING.items():
    base = load_base(device=lesson.device)
    control = seeded(lesson.seed, build, base)
    # The learning rate follows the schedule of a training three times as long; we stop early.
    training = Training(control, control_loss(base, "edge"), steps=3 * lesson.steps, lr=2e-3,
                        seed=lesson.seed)
    for step, loss in tqdm(islice(training, lesson.steps), letter, lesson.steps):
        losses[letter].append(loss)
        if step % 20 == 0 or step == lesson.steps:
            gaps[letter][step] = gap(base, control, "edge", n)
    patients[letter] = Patient(base, control, as_it_is)

# %% [markdown]
# All five have finished. The figure shows their losses on the left and their gaps on the
# right.

# %%
lesson.save_figure(charts(losses, gaps), "_charts")
lesson.reveal(guess, "b",
              because="a batch's loss is mostly noise that no network can predict, and the locked base "
                      "is good from the first step on. The gap compares the same pictures, noise and "
                      "times, so it shows the difference.",
              a="the first losses are the same for all of them: what moves the curves is the batches.",
              c="a locked base with weak control is never much worse than the base alone.")

# %% [markdown]
# The loss curves hardly differ. The one of E lies above the others for a while. From about step
# 60 on B is a little lower, by less than one batch differs from the next. The gaps differ by
# far: two of them are exactly 0, and the other three grow at different speeds.
#
# ## The second symptom: the pictures
#
# Patients F, G and H are the ControlNet that ships with this package. It has learned well,
# and each of its three owners makes one mistake in using it. We now let all eight patients
# generate pictures. `prepare` is what an owner does to an outline before the ControlNet sees
# it.

# %%
shipped_base = load_base(device=lesson.device)
patients |= used_wrongly(shipped_base, load_control("edge", shipped_base))

truth, noise = held_out(8, lesson.device)
edges = detect_edges(truth.image)
with_control = {}
control_off = {}
for letter, (base, control, prepare) in patients.items():
    steered = [Control(control, prepare(edges))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning about the condition would give a patient away
        with_control[letter] = sample(base, truth.prompt, noise, steered, steps=ddim_steps)
    control_off[letter] = sample(base, truth.prompt[4:6], noise[4:6], steps=ddim_steps)
shown = {letter: images[4:6] for letter, images in with_control.items()}
lesson.save_figure(ward(edges[4:6], shown, control_off, truth.prompt[4:6]))

# %% [markdown]
# In the two upper rows, look for patients that ignore the outline. In the two lower rows
# control is switched off, so the base alone generates the pictures. There all columns should be
# the same. If one of them differs from the others, this is a symptom, too.
#
# ## The third symptom: the numbers
#
# On held-out pictures we measure the loss, the gap, and the mask IoU of the generated pictures.
# An IoU of about 0.4 means nothing: two shapes that have nothing to do with each other have it.

# %%
symptoms = {}
rows = [["patient", "held-out loss", "shuffle gap", "mask IoU"]]
for letter, (base, control, prepare) in patients.items():
    loss_with, outlines = loss_of_condition(base, control, "edge", n)
    own = loss_with(prepare(outlines)).item()
    other = loss_with(prepare(outlines.roll(1, 0))).item()
    iou = mask_iou(mask_of(with_control[letter]), truth.mask).mean().item()
    symptoms[letter] = {"loss": own, "gap": other - own, "IoU": iou}
    rows.append([letter, f"{own:.4f}", f"{other - own:.1e}", f"{iou:.2f}"])
table(rows)

# %% [markdown]
# The numbers alone name no bug. A small gap may mean that a patient is ill, or only that its
# training is short. And a patient with a high IoU may still be ill.
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
# - The controls come in reversed order.
# - The ControlNet is used with another base than in its training.
# - None of these: the patient is healthy.
#
# Some patients have the same symptoms. You need one more measurement to distinguish them.

# %%
guess = lesson.predict("The gap of A and of D is exactly 0 at every step. Which measurement tells these two apart?",
                       a="train them longer: one of them will begin to follow",
                       b="list which weights get a gradient: the weight and bias of a zero conv, or only its bias",
                       c="the loss: one of them has a lower loss than the base alone")

# %% [markdown]
# ## The doctor's diagnosis
#
# The doctor does not look at curves. It takes one noisy batch, as a training step makes it,
# and examines the network. Does the copy share memory with the base? Has the copy moved from
# its start? In which order do gradients arrive? Which zero convs are still 0? At last it
# tries treatments. It inverts the condition or reverses the order of the controls, and checks
# whether the loss falls.
#
# The doctor is the function `diagnose`. It returns a list of findings, and the causes come
# before the symptoms that they explain.

# %%
mark = fingerprint(shipped_base.state_dict())
findings = {}
rows = [["patient", "verdict", "cause"]]
for letter, (base, control, prepare) in patients.items():
    outlines, batch = noisy_batch(base, "edge", n)
    findings[letter] = diagnose(base, control, prepare(outlines), batch, trained_on=mark)
    rows.append([letter, verdict_of(findings[letter]), cause_of(findings[letter])])
table(rows)
if not lesson.quick:
    assert {letter: cause_of(found) for letter, found in findings.items()} == BUGS
lesson.reveal(guess, "b",
              because="a detach() lets all of the zero convs learn and nothing else. Two zero convs in a "
                      "row let only the outer bias learn.",
              a="with two zero convs in a row, nothing but the outer bias ever gets a gradient.",
              c="both are as good as the base alone.")

# %% [markdown]
# B is the healthy one. How many did you get right? C and H are the hardest. C follows its
# outline, only later and less well than B. Without B for comparison we would not notice. H
# follows its outline about as well as B. But H was trained to the end, and B was not.
#
# A full report shows how the findings of one patient fit together. This is the one of D.

# %%
print("\nPatient D\n")
show_findings(findings["D"])

# %% [markdown]
# The gradients are the cause, and the findings below them are its symptoms. The controls are
# constant, and the condition changes nothing. The copy has learned nothing, either. It has only
# shrunk, because weight decay makes all weights smaller even without a gradient.
#
# ## The wrong line, and the right one
#
# | patient | wrong | right |
# |---|---|---|
# | A | `zero(h.detach())` | `zero(h)`: lock the base, and detach nothing |
# | C | `copy.deepcopy(base.encoder)` of a locked base | `self.requires_grad_(True)` after it |
# | D | `nn.Sequential(zero_conv(c), zero_conv(c))` | `zero_conv(c)` |
# | E | `self.encoder = base.encoder` | `copy.deepcopy(base.encoder)` |
# | F | any base of this architecture | the base of its training, or a fine-tuned sibling |
# | G | black lines on white | white lines on black, in [0, 1], as in training |
# | H | deep to shallow within a level | shallow to deep, the middle last |
#
# ## A ControlNet from elsewhere
#
# The doctor needs only two functions, and neither has to come from this package:
#
#     base(xt, t, prompt, controls) -> output
#     control(xt, t, prompt, condition) -> a list of controls
#
# In lesson/elsewhere.py somebody has written a UNet of another kind and a ControlNet for it.
# That ControlNet returns a dictionary. So we write one adapter, and we give the doctor a
# noisy batch of the author's own training.

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
gap_of_theirs = next(finding for finding in report if "shuffle gap" in finding.question)
print(f"\nThe shuffle gap of the ControlNet from elsewhere is {gap_of_theirs.number:.3f}.")

# %% [markdown]
# The author says: "The loss falls, and my ControlNet follows outlines a bit. But my friend's
# is much better." All weights ask for gradients, and the gap is above 0.

# %%
guess = lesson.predict("The gap is above 0, so the condition is used. What can still be wrong?",
                       a="nothing: a gap above 0 shows that everything in it learns",
                       b="the copy may stand still, while the zero convs and the condition encoder learn",
                       c="the condition may be inverted")
print("\nThe ControlNet from elsewhere: the findings that are broken or suspicious\n")
show_findings([finding for finding in report if finding.verdict in ("broken", "suspicious")])
assert cause_of(report) == "frozen copy"
lesson.reveal(guess, "b",
              because="the copy still has the weights that it began with. Zero convs and a condition "
                      "encoder alone can learn something.",
              a="a frozen copy reaches a gap above 0 as well. Patient C showed it.",
              c="this batch is made as in their training. If it inverts conditions, the copy has learned that.")

# %% [markdown]
# The copy stands still, although it asks for gradients and gets them. So the optimiser must
# hold other parameters. The bug is in `train_control`: it makes the optimiser first, and then it
# copies the encoder again. A student project lost weeks to a bug of this kind.
#
# For your own weights there is a command: `python -m minicontrolnet doctor`. For your own
# code, start with the checklist "My ControlNet ignores its condition" in lessons/README.md.

# %%
lesson.verdict(f"The doctor named the bugs of all {len(BUGS) - 1} patients, each from one batch of {n}"
               " pictures (one training seed).",
               f"After {lesson.steps} steps the gap of the healthy one is {symptoms['B']['gap']:.4f}, and that"
               f" of the frozen copy is {symptoms['C']['gap']:.4f}. The gaps of A and D are exactly 0.")
lesson.save_results({"losses": losses, "symptoms": symptoms, "gaps": gaps,
                     "causes": {letter: cause_of(found) for letter, found in findings.items()}})
print("\nEXERCISES  13a to 13d: python lessons/exercises")
