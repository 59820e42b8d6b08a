"""The doctor names the bug of every patient, and finds nothing wrong with the healthy ones."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from minicontrolnet import ControlNet, fingerprint, load_base, load_control, lock
from minicontrolnet.errors import Problem
from minicontrolnet.measure.diagnosis import (Finding, NoisyBatch, cause_of, diagnose, does_the_optimiser_hold_them,
                                              is_the_precision_enough, noisy_batch, reversed_among_equals, show_findings,
                                              verdict_of)
from minicontrolnet.measure.probes import Case, copies
from minicontrolnet.shapes import random_batch

sys.path.append(str(Path(__file__).parents[2] / "lessons"))

from lesson import elsewhere, patients  # noqa: E402

N = 8  # pictures


def randn(seed, *size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved(module, amount=0.1, seed=3):
    """Move every weight, as a training would; returns the module."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter += amount * randn(seed + i, *parameter.shape)
    return module


def found(findings, question):
    """The finding whose question contains these words."""
    return next(finding for finding in findings if question in finding.question)


@pytest.fixture
def lines():
    """Conditions of N pictures: 0 or 1, and mostly 0."""
    return (randn(1, N, 1, 32, 32) > 1.5).double()


@pytest.fixture
def batch(base, lines):
    """A function from a ControlNet to a noisy batch on which it is almost perfect."""

    def make(control=None, base=base, condition=lines):
        xt, t, prompt = randn(2, N, 3, 32, 32), torch.arange(N) * 60 + 100, torch.arange(3 * N).view(N, 3) % 5
        with torch.no_grad():
            target = base(xt, t, prompt, control and control(xt, t, prompt, condition))
        return NoisyBatch(xt, t, prompt, target + 0.01 * randn(4, *target.shape))

    return make


@pytest.fixture
def healthy(base):
    """A ControlNet in training: everything in it has moved."""
    return moved(ControlNet(base))


# %% Healthy ones


def test_a_trained_one_is_healthy(base, healthy, lines, batch):
    findings = diagnose(base, healthy, lines, batch(healthy), trained_on=fingerprint(base.state_dict()))
    assert verdict_of(findings) == "healthy" and cause_of(findings) == ""
    assert all(finding.verdict == "healthy" and finding.found for finding in findings)
    assert verdict_of(diagnose(base, lock(healthy), lines, batch(healthy))) == "healthy"


def test_a_new_one_is_untrained(base, control, lines, batch):
    findings = diagnose(base, control, lines, batch())
    assert verdict_of(findings) == "untrained" and cause_of(findings) == ""
    order = found(findings, "order").found
    assert "pass 0 at the zero convs at the outputs; in pass 1 at embedding, encoder and condition_encoder" in order
    assert "all of it by pass 2" in order  # the condition encoder lies behind its own zero conv
    assert found(findings, "start exact").number == 0.0


@pytest.mark.parametrize("steps, strength", [(1, None), (1, 1), (2, None), (5, 1)])
def test_one_of_few_steps_is_not_ill(steps, strength, base, control, healthy, lines, batch):
    """After one step only the output convs have moved, and after two the condition has not come through.

    A multiplication by a strength of 1 does not hide the output convs from the doctor.
    """
    given = batch(healthy)
    optimiser = torch.optim.Adam(control.parameters(), lr=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        output = base(*given[:3], control(*given[:3], lines))
        (output - given.target).square().mean().backward()
        optimiser.step()
    network = control

    def weighed(*inputs):
        return [strength * h for h in network(*inputs)]

    findings = diagnose(base, weighed if strength else network, lines, given, control_module=network)
    assert verdict_of(findings) in {"healthy", "untrained"}
    assert steps == 1 or "zero convs set back to 0" in found(findings, "start exact").found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["palette", "pose"])
def test_those_that_ship_are_healthy(kind):
    """The command's test examines the edge ControlNet."""
    base = load_base()
    condition, given = noisy_batch(base, kind)
    findings = diagnose(base, load_control(kind, base), condition, given)
    assert verdict_of(findings) == "healthy"


# %% Patients


def told(findings, cause, *questions):
    """Whether the doctor names this bug, calls it broken, and answers these questions with it."""
    named = [found(findings, question).cause for question in questions]
    return verdict_of(findings) == "broken" and cause_of(findings) == cause and set(named) == {cause}


def test_a_frozen_copy(base, lines, batch):
    patient = patients.FrozenCopy(base)
    learned = moved(nn.ModuleList([patient.zero_convs, patient.condition_encoder]))
    assert all(parameter.requires_grad for parameter in learned.parameters())
    assert told(diagnose(base, patient, lines, batch()), "frozen copy", "be trained", "moved")
    assert told(diagnose(base, lock(patient), lines, batch()), "frozen copy", "moved")


def test_a_copy_that_the_optimiser_does_not_hold(base, lines, batch):
    """It asks for gradients and gets them, and still stands where it began."""
    patient = ControlNet(base)
    moved(nn.ModuleList([patient.zero_convs, patient.condition_encoder]))
    findings = diagnose(base, patient, lines, batch())
    assert told(findings, "frozen copy", "moved") and found(findings, "order").verdict == "healthy"


@pytest.mark.parametrize("start", [nn.init.kaiming_uniform_, nn.init.xavier_normal_, nn.init.ones_])
def test_zero_convs_that_start_otherwise_are_no_frozen_copy(start, base, control, lines, batch):
    """Nothing has been trained: their biases are still 0."""
    for conv in [*control.zero_convs, control.condition_encoder.layers[-1]]:
        start(conv.weight)
    assert cause_of(diagnose(base, control, lines, batch())) == "zero convs do not start at 0"


def test_the_fingerprint_that_saving_returns_is_that_of_the_base(base, healthy, lines, batch):
    """A file holds the weights in half precision, so its fingerprint is that of the halves."""
    halves = {name: tensor.half() for name, tensor in base.state_dict().items()}
    base.load_state_dict(halves)
    findings = diagnose(base, healthy, lines, batch(healthy), trained_on=fingerprint(halves))
    assert found(findings, "trained on").verdict == "healthy"


def test_a_copy_that_only_weight_decay_has_moved(base, control, lines, batch):
    """AdamW shrinks every weight whose gradient is 0. Such a copy has moved, and has learned nothing."""
    moved(nn.ModuleList([control.zero_convs, control.condition_encoder]))
    with torch.no_grad():
        for parameter in nn.ModuleList([control.embedding, control.encoder]).parameters():
            parameter *= 0.999
    assert told(diagnose(base, control, lines, batch()), "frozen copy", "moved")


@pytest.mark.parametrize("which, verdict", [("a few norms", "healthy"), ("one matrix", "suspicious"),
                                            ("all norms and biases", "suspicious")])
def test_a_part_of_the_copy_that_stands_still(which, verdict, base, healthy, lines, batch):
    """Half precision rounds the first steps of a few norm weights away. A matrix has too many weights for that."""
    pairs = copies(healthy, base)
    small = [pair for pair in pairs if pair[0].dim() == 1]
    still = {"a few norms": small[:4], "one matrix": [next(pair for pair in pairs if pair[0].dim() > 1)],
             "all norms and biases": small}[which]
    with torch.no_grad():
        for own, theirs in still:
            own.copy_(theirs)
    finding = found(diagnose(base, healthy, lines, batch(healthy)), "moved")
    assert finding.verdict == verdict
    assert f"{len(still)} of its {len(pairs)} tensors" in finding.found


def test_shared_storage(make_base, lines, batch):
    base = make_base()
    mark = fingerprint(base.state_dict())
    patient = moved(patients.SharedStorage(base))
    findings = diagnose(base, patient, lines, batch(base=base), trained_on=mark)
    assert told(findings, "shared storage", "share its memory")
    assert found(findings, "base locked").verdict == "suspicious"


def test_a_detached_control(base, lines, batch):
    assert told(diagnose(base, patients.Detached(base), lines, batch()), "detached control", "order")
    patient = patients.Detached(base)
    moved(patient.zero_convs)
    findings = diagnose(base, patient, lines, batch())
    assert told(findings, "detached control", "order")
    assert found(findings, "reach the output").number == 0


def test_a_loss_without_a_graph(base, healthy, lines, batch):
    patient = torch.no_grad()(healthy.forward)
    findings = diagnose(base, patient, lines, batch(healthy), control_module=healthy)
    assert told(findings, "detached control", "order") and "in the ControlNet" in found(findings, "order").found
    findings = diagnose(torch.no_grad()(base.forward), healthy, lines, batch(healthy), base_module=base)
    assert told(findings, "no gradient through the base", "order")


def test_two_zero_convs_in_a_row(base, lines, batch):
    patient = patients.TwoZeroConvs(base).double()
    assert told(diagnose(base, patient, lines, batch()), "two zero convs in a row", "order")
    patient = patients.TwoZeroConvs(base).double()
    for pair in patient.zero_convs:
        nn.init.normal_(pair[1].bias)
    findings = diagnose(base, patient, lines, batch())
    assert told(findings, "two zero convs in a row", "order", "still 0")
    order = found(findings, "order").found
    assert "None arrives at embedding, encoder, condition_encoder and the other layers of zero_convs." in order
    words = found(findings, "words and the condition")
    assert words.number == 0 and words.verdict == "untrained"  # a condition that changes nothing is not healthy


@pytest.mark.parametrize("spoil, cause", [
    (patients.inverted, "inverted condition"), (lambda c: c * 255, "wrongly scaled condition"),
    (lambda c: c / 10, "wrongly scaled condition"),
    (lambda c: c / 255, "wrongly scaled condition"), (lambda c: 2 * c - 1, "wrongly scaled condition")])
def test_a_condition_that_training_did_not_see(spoil, cause, base, healthy, lines, batch):
    findings = diagnose(base, healthy, spoil(lines), batch(healthy))
    assert told(findings, cause, "Would it help")
    assert found(findings, "order").verdict == "healthy"


def test_bytes_that_are_inverted_as_well(base, healthy, lines, batch):
    findings = diagnose(base, healthy, 255 - 255 * lines, batch(healthy))
    assert cause_of(findings) == "wrongly scaled condition"
    assert found(findings, "Would it help").advice == "Bring the condition from [0, 255] to [0, 1], and invert it."


@pytest.mark.parametrize("spoil, cause", [
    (lambda c: c.flip(-1), "mirrored condition"), (lambda c: c.flip(-2), "mirrored condition"),
    (lambda c: c.mT, "transposed condition")])
def test_a_condition_that_lies_otherwise_than_its_picture(spoil, cause, base, healthy, lines, batch):
    findings = diagnose(base, healthy, spoil(lines), batch(healthy))
    assert told(findings, cause, "Would it help")


@pytest.mark.parametrize("spoil, cause", [
    (lambda c: c.flip(-1), "mirrored condition"), (lambda c: c.rot90(1, (-2, -1)), "")])
def test_treatments_that_only_do_less_harm_are_no_cure(spoil, cause):
    """To invert a condition that lies otherwise than its picture lowers the loss. But no control at all is better."""
    base = load_base()
    condition, given = noisy_batch(base, "edge")
    findings = diagnose(base, lock(load_control("edge", base)), spoil(condition), given)
    finding = found(findings, "Would it help")
    assert verdict_of(findings) == "broken" and cause_of(findings) == cause and finding.number > 1.2
    if not cause:
        assert "is a cure" in finding.found and "mirrored, turned, shifted" in finding.advice


def test_the_time_runs_backwards_for_the_control(base, healthy, lines, batch):
    given = batch(healthy)
    findings = diagnose(base, lambda xt, t, prompt, c: healthy(xt, 620 - t, prompt, c), lines, given,
                        control_module=healthy)
    assert told(findings, "reversed time", "Would it help")


@pytest.mark.parametrize("strength, verdict", [(1, "healthy"), (1.5, "suspicious"), (0.1, "untrained")])
def test_a_strength_that_training_did_not_have(strength, verdict, base, healthy, lines, batch):
    """It has no cause, since a young ControlNet is too weak, and a shifted condition makes it too strong."""
    findings = diagnose(base, lambda *inputs: [strength * h for h in healthy(*inputs)], lines, batch(healthy),
                        control_module=healthy)
    assert found(findings, "another strength").verdict == verdict_of(findings) == verdict
    assert cause_of(findings) == ""


def test_controls_in_reversed_order(base, healthy, lines, batch):
    """Where shapes agree nothing is raised; where they do not the base raises, and the doctor says why."""
    findings = diagnose(base, patients.ReversedOrder(healthy), lines, batch(healthy))
    assert told(findings, "reversed controls", "Would it help")

    def middle_in_place(*inputs):
        controls = healthy(*inputs)
        return *reversed_among_equals(controls[:-1]), controls[-1]

    findings = diagnose(base, middle_in_place, lines, batch(healthy), control_module=healthy)
    assert told(findings, "reversed controls", "Would it help")

    def deep_to_shallow(*inputs):
        return healthy(*inputs)[::-1]

    findings = diagnose(base, deep_to_shallow, lines, batch(healthy), control_module=healthy)
    assert told(findings, "reversed controls", "prediction come out")


def test_another_base(base, make_base, healthy, lines, batch):
    findings = diagnose(patients.other_base(base), healthy, lines, batch(healthy))
    assert told(findings, "another base", "trained on") and found(findings, "trained on").number < 0.5
    sibling = lock(moved(copy.deepcopy(base), 0.01))
    findings = diagnose(sibling, healthy, lines, batch(healthy, sibling), trained_on=fingerprint(base.state_dict()))
    assert verdict_of(findings) == "suspicious" and cause_of(findings) == "another base"


def test_the_other_base_is_as_good_as_the_first(base, batch, healthy):
    """It computes the same function; only the maps in between have other channels."""
    given = batch()
    other = patients.other_base(base)
    with torch.no_grad():
        assert torch.allclose(other(*given[:3]), base(*given[:3]), atol=1e-9)
    assert not torch.allclose(other.encoder.conv_in.weight, base.encoder.conv_in.weight)


# %% Other bugs


class Averaging(nn.Module):
    """A base that takes the mean of map and control, where a sum is meant."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, xt, t, prompt, controls=None):
        if controls is None:
            return self.base(xt, t, prompt)
        maps = self.base.encoder(xt, self.base.embedding(t, prompt))
        return self.base(xt, t, prompt, [(control - h) / 2 for h, control in zip(maps, controls)])


def test_a_base_that_does_not_add(base, control, lines, batch):
    findings = diagnose(Averaging(base), control, lines, batch())
    assert told(findings, "controls are not added", "start exact")


def test_maps_that_leave_beside_the_zero_convs(base, healthy, lines, batch):
    class Leaky(ControlNet):
        def forward(self, *inputs):
            controls = super().forward(*inputs)
            return *controls[:-1], self.zero_convs[-1](controls[-1]) + 1

    findings = diagnose(base, moved(Leaky(base)), lines, batch(healthy))
    assert "zero convs" in found(findings, "start exact").found


def test_conditions_of_other_pictures(base, healthy, lines, batch):
    findings = diagnose(base, healthy, lines.roll(-1, 0), batch(healthy))
    assert told(findings, "conditions of other pictures", "shuffle gap")
    findings = diagnose(base, healthy, lines[[3, 5, 0, 7, 1, 2, 4, 6]], batch(healthy))
    assert cause_of(findings) == "conditions of other pictures"


@pytest.mark.parametrize("spoil, question, words", [
    (lambda c: c[:1].expand_as(c), "range", "All conditions are the same"),
    (lambda c: c * 0, "range", "the same number everywhere"), (lambda c: c / 255, "range", "next to nothing")])
def test_conditions_that_say_nothing(spoil, question, words, base, healthy, lines, batch):
    finding = found(diagnose(base, healthy, spoil(lines), batch(healthy)), question)
    assert finding.verdict in {"broken", "suspicious"} and words in finding.found


def test_a_range_that_training_saw(base, healthy, lines, batch):
    """It may be given as two numbers or as conditions."""
    wide = 2 * lines - 1
    for seen in ((-1, 1), wide):
        findings = diagnose(base, healthy, wide, batch(healthy, condition=wide), seen=seen)
        assert verdict_of(findings) == "healthy"


def test_numbers_that_are_not_finite(base, healthy, lines, batch):
    """The doctor says where they are: in the batch, in the weights, or only in what the weights compute."""
    given = batch(healthy)
    findings = diagnose(base, healthy, lines, given._replace(xt=given.xt / 0))
    assert told(findings, "not finite", "come out") and "So does the batch" in findings[0].found

    def too_large(*inputs):
        return [1e200 * 1e200 * control for control in healthy(*inputs)]

    findings = diagnose(base, too_large, lines, given, control_module=healthy)
    assert told(findings, "not finite", "come out") and "All weights are finite" in findings[0].found
    with torch.no_grad():
        healthy.zero_convs[0].bias[0] = float("nan")
    findings = diagnose(base, healthy, lines, given)
    assert told(findings, "not finite", "come out") and "1 of the ControlNet's weights" in findings[0].found
    findings = diagnose(moved(base, float("inf")), healthy, lines, given)
    assert "of the base's weights are NaN or infinite" in findings[0].found


def test_an_optimiser_that_holds_other_weights(base, healthy, lines, batch):
    case = Case(base, healthy, lines, batch(healthy), base, healthy)
    for optimiser, cause in ((torch.optim.Adam(healthy.parameters()), ""),
                             (torch.optim.Adam(copy.deepcopy(healthy).parameters()), "optimiser holds other weights"),
                             (torch.optim.Adam(healthy.parameters(), lr=0.0), "optimiser holds other weights"),
                             (torch.optim.Adam([*healthy.parameters(), *base.parameters()]), "base not locked")):
        finding = does_the_optimiser_hold_them(case, optimiser)
        assert finding.cause == cause and finding.verdict == ("broken" if cause else "healthy")
    assert cause_of(diagnose(*case[:4], optimiser=optimiser)) == cause


def test_a_base_that_is_not_locked(make_base, lines, batch):
    base = make_base()
    findings = diagnose(base, moved(ControlNet(base)).requires_grad_(True), lines, batch(base=base))
    assert found(findings, "base locked").verdict == "suspicious" and cause_of(findings) == "base not locked"


def test_zero_convs_that_do_not_start_at_0(base, control, lines, batch):
    """At PyTorch's own start their weights give them away, at any other start the loss does."""
    for layer in control.zero_convs:
        layer.reset_parameters()
    assert told(diagnose(base, control, lines, batch()), "zero convs do not start at 0", "still 0")
    for layer in control.zero_convs:
        nn.init.normal_(layer.weight)
    assert told(diagnose(base, control, lines, batch()), "zero convs do not start at 0", "moved")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision(dtype, make_base, lines, batch):
    """They matter in training alone: locked for use, such a ControlNet is not ill."""
    base = lock(make_base(dtype=dtype))
    control = ControlNet(base)
    case = Case(base, control, lines, batch(), base, control)
    finding = is_the_precision_enough(case)
    assert finding.verdict == "suspicious" and finding.cause == "weights in half precision"
    lock(control)
    assert is_the_precision_enough(case).verdict == "healthy"


def test_networks_in_half_precision_can_be_examined(make_base, lines, batch):
    base = lock(make_base(dtype=torch.bfloat16))
    given = NoisyBatch(*(x.bfloat16() if x.is_floating_point() else x for x in batch()[:4]))
    findings = diagnose(base, ControlNet(base), lines.bfloat16(), given)
    assert cause_of(findings) == "weights in half precision" and verdict_of(findings) == "suspicious"


def test_networks_of_two_types(base, healthy, lines, batch):
    findings = diagnose(base, healthy.float(), lines, batch())
    assert findings[0].verdict == "broken" and "float32 and float64" in findings[0].advice


def test_a_condition_that_is_not_passed_on(base, control, healthy, lines, batch):
    """The doctor's condition is good, and the function around the ControlNet loses it."""
    for network in control, healthy:
        findings = diagnose(base, lambda xt, t, prompt, c: network(xt, t, prompt, 0 * c), lines, batch(),
                            control_module=network)
        assert told(findings, "condition is not passed on", "reach the output")


def test_few_pictures(base, healthy, lines, batch):
    """With fewer than six no sign test is sure. That is said, and one picture is refused."""
    few = NoisyBatch(*(x[:4] for x in batch(healthy)[:4]))
    findings = diagnose(base, healthy, lines[:4], few)
    assert verdict_of(findings) == "healthy" and found(findings, "shuffle gap").verdict == "not checked"
    assert "at least 6" in found(findings, "shuffle gap").advice
    with pytest.raises(ValueError, match="at least 2 pictures"):
        diagnose(base, healthy, lines[:1], NoisyBatch(*(x[:1] for x in few[:4])))
    with pytest.raises(ValueError, match="8 conditions, 4 noisy pictures"):
        diagnose(base, healthy, lines, few)


@pytest.mark.parametrize("strength, cause", [(0, "controls are switched off"), (0.5, "")])
def test_a_strength(strength, cause, base, healthy, lines, batch):
    """Outputs that are multiplied have another memory than the zero convs', and 0 is no sign of a new network."""

    def weighed(*inputs):
        return [strength * control for control in healthy(*inputs)]

    findings = diagnose(base, weighed, lines, batch(weighed), control_module=healthy)
    assert cause_of(findings) == cause and verdict_of(findings) == ("broken" if cause else "healthy")


# %% Any callables


@pytest.mark.parametrize("spoil", [
    lambda base, control: (base, lambda *inputs: {"down": control(*inputs)}),
    lambda base, control: (lambda *inputs: {"sample": base(*inputs)}, control),
    lambda base, control: (base, lambda *inputs: control(*inputs)[:-1])])
def test_callables_of_another_form_are_told_what_is_expected(spoil, base, healthy, lines, batch):
    findings = diagnose(*spoil(base, healthy), lines, batch(healthy))
    assert verdict_of(findings) == "broken" and findings[0].verdict == "broken"
    told = findings[0].found + findings[0].advice
    assert "Write a function around it" in told or "there are 12 controls for 13 maps; give all 13" in told


def test_functions_without_modules(base, healthy, lines, batch):
    """Whatever can be seen from outside is checked, and the rest is said not to apply."""
    findings = diagnose(lambda *inputs: base(*inputs), lambda *inputs: list(healthy(*inputs)), lines, batch(healthy))
    verdicts = [finding.verdict for finding in findings]
    assert verdict_of(findings) == "healthy" and verdicts.count("not checked") == 7
    told = {finding.found for finding in findings if finding.verdict == "not checked"}
    assert all("does not apply" in words for words in told)
    inverted = diagnose(lambda *inputs: base(*inputs), lambda *inputs: healthy(*inputs), 1 - lines, batch(healthy))
    assert cause_of(inverted) == "inverted condition"


def test_one_from_elsewhere():
    """Another UNet, another schedule, a dictionary of controls, and an optimiser that does not hold the copy."""
    unet = elsewhere.train_unet(2)
    theirs = elsewhere.train_control(unet, 3)
    generator = torch.Generator().manual_seed(0)
    x0, label, outline = elsewhere.pictures(16, generator)
    xt, timestep, eps = elsewhere.noised(x0, generator)

    def control(*inputs):
        output = theirs(*inputs)
        return output["down"] + output["mid"]

    findings = diagnose(unet, control, outline, NoisyBatch(xt, timestep, label, eps), control_module=theirs)
    assert told(findings, "frozen copy", "moved")
    broken = [finding for finding in findings if finding.verdict == "broken"]
    assert broken == [found(findings, "moved")]


def test_copies_are_found_by_structure(base, healthy):
    """All of the embedding and the encoder, and none of the zero convs, whatever the copy is called."""
    n = len([*base.embedding.parameters(), *base.encoder.parameters()])
    assert len(copies(healthy, base)) == n
    renamed = nn.ModuleDict({"copied": healthy.encoder, "time": healthy.embedding, "zeros": healthy.zero_convs})
    assert len(copies(renamed, nn.ModuleDict({"unet": base}))) == n
    assert copies(nn.ModuleList([healthy.zero_convs]), base) == []


def test_everything_is_given_back(base, control, lines, batch):
    """Weights, gradients, what asks for gradients, and the mode are the same, bit for bit."""
    base.decoder.requires_grad_(True)
    control.train()
    control.zero_convs[3].requires_grad_(False)
    given = batch()
    base(*given[:3], control(*given[:3], lines)).sum().backward()
    networks = nn.ModuleList([base, control])
    before = fingerprint(networks.state_dict())
    gradients = [p.grad for p in networks.parameters()]
    values = [None if grad is None else grad.clone() for grad in gradients]
    asking = [p.requires_grad for p in networks.parameters()]
    modes = [module.training for part in (base, control) for module in part.modules()]
    state = torch.get_rng_state()
    diagnose(base, control, lines, given)
    networks_after = list(networks.parameters())
    assert fingerprint(networks.state_dict()) == before
    assert all(p.grad is grad for p, grad in zip(networks_after, gradients))
    assert all(grad is None or torch.equal(grad, value) for grad, value in zip(gradients, values))
    assert [p.requires_grad for p in networks_after] == asking
    assert [module.training for part in (base, control) for module in part.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_findings_are_sentences(base, control, lines, batch, capsys):
    findings = diagnose(base, control, lines, batch())
    assert isinstance(findings, list) and all(isinstance(finding, Finding) for finding in findings)
    for finding in findings:
        assert finding.question.endswith("?") and finding.found.endswith((".", ")")) and finding.found[0].isupper()
    show_findings(findings)
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith("DIAGNOSIS    untrained") and max(map(len, printed.splitlines())) <= 100


# %% What the doctor is given


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_gradients_that_the_caller_switched_off_are_no_illness(without, base, healthy, lines, batch):
    """It used to say "detached control": the doctor's own passes had no gradients."""
    with without():
        given = batch(healthy)
        here = lines.clone()  # made in inference mode, autograd could not keep it
        findings = diagnose(base, healthy, here, given)
    assert verdict_of(findings) == "healthy" and found(findings, "order").verdict == "healthy"
    with torch.inference_mode():
        network = copy.deepcopy(healthy)
    with pytest.raises(Problem, match="made inside torch.inference_mode.*load the network outside of it"):
        diagnose(base, network, lines, batch(healthy))


def test_an_optimiser_of_a_locked_one_changes_nothing(base, healthy, lines, batch):
    lock(healthy)
    findings = diagnose(base, healthy, lines, batch(healthy), optimiser=torch.optim.AdamW(healthy.parameters()))
    assert told(findings, "frozen copy", "optimiser") and "requires_grad_(True)" in found(findings, "optimiser").advice


@pytest.mark.parametrize("change", [
    lambda given: {"target": given.target[:1]}, lambda given: {"t": given.t[:1]}, lambda given: {"xt": given.xt[:1]},
    lambda given: {"prompt": given.prompt[:1]}, lambda given: {"t": given.t[0]},
    lambda given: {"weight": torch.ones(1, 1, 1, 1)}, lambda given: {"target": given.target.numpy()},
    lambda given: {"weight": 0.0}, lambda given: {"weight": -1.0}, lambda given: {"weight": float("nan")},
    lambda given: {"weight": torch.full((N, 1, 1, 1), float("inf"))}, lambda given: {"weight": torch.ones(N)}])
def test_a_batch_has_a_row_for_each_picture_and_positive_weights(change, base, healthy, lines, batch):
    """One target for all pictures used to be "untrained", and a weight of 0 "detached control"."""
    given = batch(healthy)
    with pytest.raises(Problem, match="give one of each|give positive finite numbers|give a finite number|give a tensor"):
        diagnose(base, healthy, lines, given._replace(**change(given)))


def test_a_target_has_the_shape_of_the_output(base, healthy, lines, batch):
    given = batch(healthy)
    findings = diagnose(base, healthy, lines, given._replace(target=given.target[:, :1]))
    assert findings[0].verdict == "broken" and "the target (8, 1, 32, 32)" in findings[0].found


def test_equal_conditions_say_nothing_about_the_network(base, healthy, lines, batch):
    """They used to be "condition is not passed on"."""
    given = batch(healthy)
    findings = diagnose(base, healthy, lines[:1].expand(N, -1, -1, -1), given)
    assert cause_of(findings) == "" and verdict_of(findings) == "suspicious"
    assert "All conditions are the same" in found(findings, "range").found
    for question in ("reach", "shuffle gap", "words"):
        assert found(findings, question).verdict == "not checked"


@pytest.mark.parametrize("seen", [(0, float("nan")), (0, float("inf")), ("0", "1"), torch.tensor([]), 3, (1, 1)])
def test_the_range_of_the_training_is_two_numbers(seen, base, healthy, lines, batch):
    """A nan used to switch the question off."""
    with pytest.raises(Problem, match="seen does not hold two different finite numbers"):
        diagnose(base, healthy, 255 * lines, batch(healthy), seen=seen)


@pytest.mark.parametrize("given, says", [({"optimiser": "adam"}, "the optimiser is 'adam'"),
                                         ({"control_module": "x"}, "control_module is a str"),
                                         ({"trained_on": 5}, "trained_on is 5")])
def test_what_the_doctor_is_told_has_its_type(given, says, base, healthy, lines, batch):
    with pytest.raises(Problem, match=says):
        diagnose(base, healthy, lines, batch(healthy), **given)
    for wrong in ({"batch": tuple(batch(healthy))}, {"condition": lines.numpy()}):
        with pytest.raises(Problem, match="give"):
            diagnose(base, healthy, **{"condition": lines, "batch": batch(healthy), **wrong})


def test_a_module_belongs_to_its_function(base, healthy, lines, batch):
    """Another ControlNet as the module used to be "detached control"."""
    other = moved(ControlNet(base))
    before = fingerprint(other.state_dict())
    with pytest.raises(Problem, match="control does not use control_module"):
        diagnose(base, healthy, lines, batch(healthy), control_module=other)
    with pytest.raises(Problem, match="base does not use base_module"):
        diagnose(lambda *inputs: base(*inputs), healthy, lines, batch(healthy), base_module=other)
    assert fingerprint(other.state_dict()) == before


def test_no_findings_are_no_diagnosis(base, healthy, lines, batch, capsys):
    """A generator is empty when it is read for the second time, so a broken patient was "healthy"."""
    for call in (verdict_of, cause_of, show_findings):
        with pytest.raises(Problem, match="there are no findings"):
            call([])
    show_findings(finding for finding in [Finding("Does it run?", "broken", "No.", cause="a bug")])
    assert "DIAGNOSIS    broken: a bug" in capsys.readouterr().out


def test_noisy_batches_have_a_seed_of_32_bits(base):
    with pytest.raises(Problem, match="the seed is"):
        noisy_batch(base, "edge", 2, seed=2**32)


def test_targets_are_finite(base, healthy, lines, batch):
    """With targets of nan every loss is nan, and the diagnosis used to be "healthy"."""
    given = batch()
    with pytest.raises(ValueError, match="the targets have values that are not finite"):
        diagnose(base, healthy, lines, given._replace(target=given.target * float("nan")))
    with pytest.raises(ValueError, match="trained_on is UNet") as told:
        diagnose(base, healthy, lines, given, trained_on=base)
    assert "\n" not in str(told.value)


def test_a_healthy_pair_in_another_dtype_is_healthy(shipped):
    base = copy.deepcopy(shipped.base).double()
    control = copy.deepcopy(shipped.controls["edge"]).double().requires_grad_(True)
    condition, batch = noisy_batch(base, "edge", n=6)
    assert batch.xt.dtype == condition.dtype == torch.float64
    assert verdict_of(diagnose(base, control, condition, batch)) == "healthy"


def test_an_optimiser_that_is_a_list_and_findings_that_are_none_get_short_sentences(shipped):
    condition, batch = noisy_batch(shipped.base, "edge")
    with pytest.raises(Problem, match=r"the optimiser is \[Parameter"):
        diagnose(shipped.base, shipped.controls["edge"], condition, batch,
                 optimiser=list(shipped.controls["edge"].parameters()))
    with pytest.raises(Problem, match="give the list that diagnose returns"):
        show_findings("healthy")


@pytest.mark.parametrize("change", [lambda batch, x0: {"target": x0}, lambda batch, x0: {"target": -batch.target},
                                    lambda batch, x0: {"xt": x0}])
def test_a_batch_that_the_base_cannot_know_is_told(shipped, change):
    """The target is another one than the base predicts, or the noise was forgotten. The ControlNet is not to blame."""
    condition, batch = noisy_batch(shipped.base, "edge", n=8)
    x0 = random_batch(8, torch.Generator().manual_seed(10_000)).x0
    findings = diagnose(shipped.base, shipped.controls["edge"], condition, batch._replace(**change(batch, x0)))
    assert verdict_of(findings) == "suspicious"
    assert any("Look at the batch" in finding.advice for finding in findings)


@pytest.mark.parametrize("order", [[1, 2, 3, 4, 5, 6, 7, 0], [3, 0, 6, 1, 7, 2, 4, 5]])
def test_prompts_of_other_pictures_are_told(shipped, order):
    condition, batch = noisy_batch(shipped.base, "edge", n=8)
    findings = diagnose(shipped.base, shipped.controls["edge"], condition, batch._replace(prompt=batch.prompt[order]))
    told = [finding for finding in findings if finding.verdict == "suspicious"]
    assert len(told) == 1 and "its own prompt" in told[0].advice


def test_empty_prompts_are_no_prompts_of_other_pictures(shipped):
    condition, batch = noisy_batch(shipped.base, "edge", n=8)
    for dropped in (slice(None), slice(0, 8, 2)):
        prompt = batch.prompt.clone()
        prompt[dropped] = 0
        findings = diagnose(shipped.base, shipped.controls["edge"], condition, batch._replace(prompt=prompt))
        assert verdict_of(findings) == "healthy"
