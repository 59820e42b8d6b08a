"""The doctor: why does this ControlNet not do what it should?

``diagnose`` sees a base and a ControlNet only as two callables:

    base(xt, t, prompt, controls) -> output          controls is None or a sequence of maps
    control(xt, t, prompt, condition) -> controls

So it can also examine a ControlNet that was written for another UNet. It needs one noisy batch, as a
training step of that ControlNet makes it:

    batch = NoisyBatch(xt, t, prompt, target=eps)
    show_findings(diagnose(base, control, condition, batch))

It changes weights while it works, and restores all of them bit for bit.

Read the file from its end: ``diagnose`` asks one question after another, and each is a function.
"""

import math
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..controlnet import OddRange
from ..errors import Problem, shorten
from .fingerprint import is_fingerprint_of
from .probes import (ENOUGH, PASSES, Case, Evidence, Network, NoisyBatch, all_tensors, best_pairing, borrowed, change,
                     check_case, check_modules, conditions_differ, controls_of, copies, count, difference, evidence_of,
                     first_gradients, have_default_weights, is_untrained, loss_of, losses, noisy_batch, not_finite,
                     output_layers, output_of, stretched, surely_larger, swapped, times_as_large, usual)

__all__ = ["Finding", "NoisyBatch", "cause_of", "diagnose", "noisy_batch", "show_findings", "verdict_of"]

# Where we draw a line, we drew it on our own small networks. Every finding shows its number, so that you can
# draw another one.
SIBLINGS = 0.5   # A copy is a relative of this base if the cosine of their weights is larger.
STRANGERS = 0.2  # Below this cosine it is surely none.
USED = 1.01      # The condition is used if another picture's makes the loss this many times as large.
HELPS = 1.2      # We believe in a treatment if it lowers the loss by this factor,
HELPS_ILL = 1.02  # or by this one, where the condition is not used as it is.
FEW = 0.1        # So large a share of the copy's tensors may stand still, if all of them are small.
HARMS = 1.1      # Control is harmful if the loss with it is this many times as large.

RANGE = (0.0, 1.0)
STRENGTHS = (0.5, 2, 10)
TOO_STRONG = ("Control is too strong. See whether the controls are multiplied by a strength above 1, or added twice. Or"
              " the conditions do not fit their pictures exactly: put one on top of its picture and look.")
TOO_WEAK = ("Control is weak. See whether the controls are multiplied by a strength below 1. If they are not, train on:"
            " the control of a short training is weak, too.")
NOISY_START = ("Set weight and bias of every zero conv to 0 before the training. Otherwise the first controls are"
               " noise, and training must undo that first.")
OUTPUTS = "the zero convs at the outputs"
EARLY = ("If you have trained only a few hundred steps, train on and watch the gap on a log scale: it grows long"
         " before pictures follow (lesson 05). If you have trained for long, look at one training batch with its"
         " conditions on top. Each picture must have its own condition, and none may be empty.")
LOOK = ("Something may be wrong with the condition: look at one on top of its picture. Is it mirrored, turned, shifted,"
        " cropped or resized? Does it belong to this picture? Does it have the range of the training?")
NO_GRADIENT = {
    "two zero convs in a row": "Put no zero conv behind another one. The input of the outer one is 0, so its weight"
                               " gets no gradient. Its weight is 0, so no gradient passes through it (lesson 03).",
    "controls are switched off": "See whether the controls are multiplied by a strength of 0.",
    "detached control": "Look for detach(), .data or torch.no_grad() in the ControlNet's forward, in front of the"
                        " parts that get no gradient (exercise 05a).",
    "no gradient through the base": "Lock the base by requires_grad_(False) alone, and do not run it under"
                                    " torch.no_grad(). See whether its forward adds the controls at all.",
}


class Finding(NamedTuple):
    """One answer of the doctor."""

    question: str
    verdict: str          # healthy, untrained (too early to tell), suspicious, broken, or not checked
    found: str            # a sentence with the number
    number: float | None = None
    advice: str = ""      # what to do
    cause: str = ""       # the name of the bug, where the finding names one


# %% The questions


def does_it_run(case: Case) -> Finding:
    """One forward pass of the ControlNet and the base."""
    question = "Does a prediction come out?"
    try:
        controls = controls_of(case)
    except Exception as error:  # a patient may raise anything
        return _it_raised(question, "ControlNet", error, case)
    if not all_tensors(controls):
        return _wrong_form(question, "ControlNet")
    try:
        output = output_of(case, controls)
    except Exception as error:  # as above
        if _reversed_fits(case, controls):
            return Finding(question, "broken", f"The base raised {_told(error)} With the controls in reversed order"
                           " it runs.", None, "Hand the controls over from shallow to deep, the middle last.",
                           "reversed controls")
        return _it_raised(question, "base", error, case)
    if not all_tensors([output]):
        return _wrong_form(question, "base")
    if output.shape != case.batch.target.shape:
        return Finding(question, "broken", f"The base's output has the shape {tuple(output.shape)}, and the target"
                       f" {tuple(case.batch.target.shape)}.", None, "Give the target that the base's output is trained"
                       " for, in the same shape.")
    if not output.isfinite().all():
        return _not_finite(question, case)
    if not output.any():
        return Finding(question, "suspicious", "The base's output is 0 everywhere.", 0.0,
                       "Load the base's trained weights. An output layer of zeros hides everything that control does.")
    return Finding(question, "healthy", f"The ControlNet hands over {len(controls)} controls, and the base takes"
                   " them.", len(controls))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0].rstrip('.')}."


def _it_raised(question: str, who: str, error: Exception, case: Case) -> Finding:
    types = sorted({str(p.dtype).removeprefix("torch.") for module in case.modules for p in module.parameters()
                    if p.is_floating_point()})
    if len(types) > 1:
        advice = f"The weights are of the types {' and '.join(types)}: bring both networks and the batch to one type."
    elif isinstance(error, Problem):
        advice = ""  # its sentence ends with one
    elif who == "base":
        advice = ("If the shapes do not fit, compare those of the controls with the base's skips and middle. There"
                  " must be one control for each, of the same shape.")
    else:
        advice = ("See whether control(xt, t, prompt, condition) passes its inputs on in the right order, and whether"
                  " the condition has the size and the channels that the ControlNet expects.")
    return Finding(question, "broken", f"The {who} raised {_told(error)}", None, advice)


def _wrong_form(question: str, who: str) -> Finding:
    return Finding(question, "broken", f"The {who} returns something other than tensors.", None,
                   "Write a function around it: control(xt, t, prompt, condition) returns a list of tensors,"
                   " and base(xt, t, prompt, controls) returns one.")


def _not_finite(question: str, case: Case) -> Finding:
    """Say where the first NaN or infinity is: in the batch, in the weights, or only in what they compute."""
    found = "The output holds numbers that are not finite."
    for name, tensors in (("batch", [*case.batch, case.condition]), ("base", _weights(case.base_module)),
                          ("ControlNet", _weights(case.control_module))):
        bad = not_finite(tensors)
        if bad and name == "batch":
            return Finding(question, "broken", f"{found} So does the batch: {bad:,} of its numbers are not finite.",
                           bad, "Mend what loads the pictures and conditions.", "not finite")
        if bad:
            return Finding(question, "broken", f"{found} {bad:,} of the {name}'s weights are NaN or infinite.", bad,
                           "Go back to the last good checkpoint, and lower the learning rate. Clip the gradients, and"
                           " keep the weights in float32.", "not finite")
    return Finding(question, "broken", f"{found} All weights are finite that we can see.", 0,
                   "Numbers grow too large on the way. In float16 the largest one is 65,504, so try bfloat16 or"
                   " float32.", "not finite")


def _weights(module: nn.Module | None) -> list[Tensor]:
    return [] if module is None else [*module.parameters()]


def _reversed_fits(case: Case, controls: Sequence[Tensor]) -> bool:
    try:
        output_of(case, controls[::-1])
    except Exception:  # as above
        return False
    return True


def is_the_base_locked(case: Case) -> Finding:
    question = "Is the base locked?"
    if case.base_module is None:
        return unknown(question, "the base is a function; give base_module=...")
    weights = list(case.base_module.parameters())
    asking = count([p for p in weights if p.requires_grad])
    if not asking:
        return Finding(question, "healthy", f"None of the base's {count(weights):,} weights asks for a gradient.", 0)
    return Finding(question, "suspicious", f"{asking:,} of the base's {count(weights):,} weights ask for a gradient.",
                   asking, "Call base.requires_grad_(False), and make sure that the optimiser does not hold the base"
                   " (lesson 02). Reload the base if it was trained by mistake.", "base not locked")


def does_it_share_storage(case: Case) -> Finding:
    question = "Does the copy share its memory with the base?"
    if len(case.modules) < 2:
        return unknown(question, "we need both networks as modules; give base_module and control_module")
    theirs = {p.data_ptr() for p in case.base_module.parameters()}
    shared = [p for p in case.control_module.parameters() if p.data_ptr() in theirs]
    learn = [p for p in shared if p.requires_grad]
    if not shared:
        return Finding(question, "healthy", "No weight is in both networks.", 0)
    found = f"{count(shared):,} weights are in both networks, and training changes {count(learn):,} of them."
    return Finding(question, "broken" if learn else "suspicious", found, count(shared),
                   "Use copy.deepcopy(base.encoder). The sign = only gives the base's own encoder a second name, so"
                   " training one of them trains the other (exercise 02b). Reload the base: training may have changed"
                   " it.", "shared storage")


def is_it_the_right_base(case: Case, trained_on: str | None) -> Finding:
    """By the fingerprint if we have it, and by how far the copy's weights are from the base's."""
    question = "Is it the base that the ControlNet was trained on?"
    if case.base_module is None:
        return unknown(question, "the base is a function; give base_module=...")
    told = trained_on is not None
    same = told and is_fingerprint_of(trained_on, case.base_module)
    alike = _cosine(copies(case.control_module, case.base_module)) if case.control_module is not None else None
    near = ""
    if alike is not None:
        near = (f" The cosine of the copy's weights and the base's is {alike:.2f} (1 before training, about 0 for an"
                " unrelated base).")
    advice = ("Load the base that is named in the ControlNet's file. If that base was trained further, the result works"
              " almost as well. In an unrelated base the channels mean something else, and about half of the effect is"
              " left (lesson 10).")
    if alike is not None and alike < STRANGERS:
        return Finding(question, "broken", f"This base is no relative of the copy.{near}", alike, advice,
                       "another base")
    if told and not same:
        return Finding(question, "suspicious", f"The base's fingerprint is not {trained_on[:8]}, which the"
                       f" ControlNet was trained on.{near}", alike, advice, "another base")
    if not told and alike is None:
        return unknown(question, "no fingerprint was given (trained_on), and we find no copy of the base's weights")
    if not told and alike < SIBLINGS:
        return Finding(question, "suspicious", f"The copy is far from this base.{near}", alike, f"{advice} Or the"
                       " learning rate is very high.")
    mark = f"The fingerprint {trained_on[:8]} agrees." if told else "No fingerprint was given."
    return Finding(question, "healthy", mark + near, alike)


def _cosine(pairs: list[tuple[nn.Parameter, nn.Parameter]]) -> float | None:
    """The median over the weight matrices of the cosine of the copy's matrix and the base's."""
    pairs = [(own.detach().flatten(), theirs.detach().flatten()) for own, theirs in pairs if own.dim() > 1]
    cosines = [torch.cosine_similarity(own.float(), theirs.float(), dim=0) for own, theirs in pairs]
    middle = torch.stack(cosines).nanmedian().item() if cosines else math.nan
    return None if math.isnan(middle) else middle


def is_it_trainable(case: Case) -> Finding:
    question = "Can the copy be trained?"
    if case.control_module is None:
        return unknown(question, "the ControlNet is a function; give control_module=...")
    weights = list(case.control_module.parameters())
    frozen = count([p for p in weights if not p.requires_grad])
    if not frozen:
        return Finding(question, "healthy", f"All of the ControlNet's {count(weights):,} weights ask for a gradient.",
                       0)
    if frozen == count(weights):
        return Finding(question, "healthy", "The whole ControlNet is locked, as if it were loaded to generate"
                       " pictures.", frozen, "To train it, call control.requires_grad_(True) first.")
    found = f"{frozen:,} of the ControlNet's {count(weights):,} weights ask for no gradient."
    pairs = copies(case.control_module, case.base_module) if case.base_module is not None else []
    if pairs and not any(own.requires_grad for own, _ in pairs):
        return Finding(question, "broken", f"{found} The whole copy is among them.", frozen,
                       "Call control.requires_grad_(True) after you make the copy. A copy.deepcopy of a locked"
                       " encoder is locked, too.", "frozen copy")
    return Finding(question, "suspicious", found, frozen, "Find out which weights are frozen, and whether you meant"
                   " that: [name for name, p in control.named_parameters() if not p.requires_grad].")


def is_the_precision_enough(case: Case) -> Finding:
    question = "Are the weights precise enough to learn?"
    if case.control_module is None:
        return unknown(question, "the ControlNet is a function; give control_module=...")
    learn = [p for p in case.control_module.parameters() if p.requires_grad]
    half = [p for p in learn if p.dtype in (torch.float16, torch.bfloat16)]
    if not learn:
        return Finding(question, "healthy", "No weight asks for a gradient, so none has to.", 0)
    if not half:
        return Finding(question, "healthy", f"All {count(learn):,} weights that learn are in"
                       f" {str(learn[0].dtype).removeprefix('torch.')}.", 0)
    return Finding(question, "suspicious", f"{count(half):,} of the {count(learn):,} weights that learn are in half"
                   " precision.", count(half), "Keep the weights in float32, and compute in half precision by"
                   " torch.autocast. In half precision a small step is rounded away, and Adam's eps of 1e-8 becomes 0"
                   " in float16.", "weights in half precision")


def does_the_optimiser_hold_them(case: Case, optimiser: torch.optim.Optimizer) -> Finding:
    question = "Does the optimiser hold the right weights?"
    if case.control_module is None:
        return unknown(question, "the ControlNet is a function; give control_module=...")
    if not any(p.requires_grad for p in case.control_module.parameters()):
        return Finding(question, "broken", "None of the ControlNet's weights asks for a gradient, so the optimiser"
                       " changes nothing.", 0, "Call control.requires_grad_(True) before the training.", "frozen copy")
    held = {id(p) for group in optimiser.param_groups for p in group["params"] if group["lr"]}
    learn = [p for p in case.control_module.parameters() if p.requires_grad]
    missed = count([p for p in learn if id(p) not in held])
    base = count([p for p in _weights(case.base_module) if id(p) in held])
    if missed:
        return Finding(question, "broken", f"It does not hold {missed:,} of the {count(learn):,} weights that ask for"
                       " a gradient, or its learning rate for them is 0.", missed,
                       "Make the optimiser last, from the parameters of the very ControlNet whose forward you call."
                       " A deepcopy has other parameters (exercise 13a).", "optimiser holds other weights")
    if base:
        return Finding(question, "broken", f"It holds {base:,} weights of the base.", base, "Give it the ControlNet's"
                       " parameters alone, and reload the base.", "base not locked")
    return Finding(question, "healthy", f"It holds all {count(learn):,} weights that ask for a gradient.", 0)


def do_gradients_arrive(case: Case) -> Finding:
    """Make backward passes with small steps between them. Which part gets its first gradient in which pass?"""
    question = "In which order do gradients arrive?"
    if case.control_module is None:
        return unknown(question, "the ControlNet is a function; give control_module=...")
    with borrowed([case.control_module]):
        if not any(p.requires_grad for p in case.control_module.parameters()):
            case.control_module.requires_grad_(True)
        woken = first_gradients(case)
        if isinstance(woken, str):
            cause = "no gradient through the base" if woken == "base" else "detached control"
            return Finding(question, "broken", "The loss does not depend on any weight that can learn. It is cut off"
                           f" in the {woken}.", None, NO_GRADIENT[cause], cause)
        stuck = _stuck_behind_zeros(case.control_module, woken)
    found = _order(woken, _parts(case))
    never = [name for name, at in woken.items() if at is None]
    if not never:
        return Finding(question, "healthy", found, max(woken.values()))
    has = "has" if len(never) == 1 else "have"
    found += f" After {PASSES} passes {len(never)} of {len(woken)} tensors {has} none."
    if len(never) < len(woken) / 10 and not stuck:
        dots = " ..." if len(never) > 3 else "."
        return Finding(question, "suspicious", f"{found} These are {', '.join(never[:3])}{dots}", len(never),
                       "Find out whether these weights are used at all.")
    if stuck:
        found += f" In {stuck[0]} the bias gets a gradient, and the weight never gets one."
        cause = "two zero convs in a row"
    elif len(never) == len(woken) and is_untrained(controls_of(case)):
        cause = "controls are switched off"
    else:
        cause = "detached control"
    return Finding(question, "broken", found, len(never), NO_GRADIENT[cause], cause)


def _parts(case: Case) -> dict[str, str]:
    """The name of each tensor's part: the zero convs at the outputs, or the name of a child module.

    If only some of a child's layers are at the outputs, its other layers are a part of their own.
    """
    layers = [layer for layer in output_layers(case) if layer is not None]
    at_outputs = {id(p) for layer in layers for p in layer.parameters()}
    named = dict(case.control_module.named_parameters())
    split = {name.split(".")[0] for name, p in named.items() if id(p) in at_outputs}
    parts = {}
    for name, p in named.items():
        child = name.split(".")[0]
        rest = f"the other layers of {child}" if child in split else child
        parts[name] = OUTPUTS if id(p) in at_outputs else rest
    return parts


def _order(woken: dict[str, int | None], parts: dict[str, str]) -> str:
    """Such as "The first gradients arrive in pass 0 at zeros; in pass 1 at encoder. None arrives at hint." """
    begins: dict[int, list[str]] = {}
    never = []
    for part in dict.fromkeys(parts[name] for name in woken):
        passes = [at for name, at in woken.items() if parts[name] == part and at is not None]
        if not passes:
            never.append(part)
            continue
        late = f" (all of it by pass {max(passes)})" if max(passes) > min(passes) else ""
        begins.setdefault(min(passes), []).append(part + late)
    if not begins:
        return f"No gradient arrives at {_in_words(never)}."
    words = "; ".join(f"in pass {at} at {_in_words(names)}" for at, names in sorted(begins.items()))
    rest = f" None arrives at {_in_words(never)}." if never else ""
    return f"The first gradients arrive {words} (we count backward passes from 0).{rest}"


def _in_words(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _stuck_behind_zeros(module: nn.Module, woken: dict[str, int | None]) -> list[str]:
    """Layers whose bias gets a gradient while their weight, which is 0, gets none."""
    weights = dict(module.named_parameters())
    stuck = []
    for name, at in woken.items():
        layer = name.removesuffix(".weight")
        bias = woken.get(f"{layer}.bias")
        if layer != name and at is None and bias is not None and not weights[name].any():
            stuck.append(layer)
    return stuck


def has_the_copy_moved(case: Case, shown: Evidence) -> Finding:
    question = "Has the copy moved from its start?"
    pairs = copies(case.control_module, case.base_module) if len(case.modules) == 2 else []
    if not pairs:
        return unknown(question, "we find no copy of the base's weights in the ControlNet")
    unmoved = [own for own, theirs in pairs if torch.equal(own, theirs)]
    still = len(unmoved)
    way = sum((own - theirs).double().square().sum().item() for own, theirs in pairs) ** 0.5
    length = sum(theirs.double().square().sum().item() for _, theirs in pairs) ** 0.5
    share = way / length if length else 0.0
    found = f"The copy's weights differ from the base's by {share:.1%} of their length."
    if still == 0 and is_untrained(shown.controls):
        return Finding(question, "broken", f"{found} But all controls are 0.", share, "See whether the controls are"
                       " multiplied by a strength of 0, and whether the optimiser holds the zero convs.",
                       "controls are switched off")
    if _has_only_shrunk(pairs, share):
        return Finding(question, "broken", f"{found} But the weights have only shrunk, all by the same factor. Weight"
                       " decay does this, and no gradient has moved them.", share, "See in which order gradients"
                       " arrive.", "frozen copy")
    if still == 0:
        return Finding(question, "healthy", found, share)
    if still < len(pairs):
        found = f"{found} {still} of its {len(pairs)} tensors {'is' if still == 1 else 'are'} still the base's."
        if still <= FEW * len(pairs) and all(own.dim() == 1 for own in unmoved):
            return Finding(question, "healthy", f"{found} They are weights of single channels, near 1 or 0. A file in"
                           " half precision rounds their first small steps away.", share)
        return Finding(question, "suspicious", found, share, "Find out why these tensors stand still: are they"
                       " frozen, or does the optimiser not hold them?")
    if is_untrained(shown.controls):
        return Finding(question, "untrained", "The copy equals the base's encoder bit for bit, as before training.",
                       0.0)
    if _starts_with_noise(case, shown):
        return Finding(question, "broken", "The copy equals the base's encoder bit for bit, but the controls already"
                       " make the prediction worse.", 0.0, NOISY_START, "zero convs do not start at 0")
    if _is_one_step_old(case):
        return Finding(question, "untrained", "The copy equals the base's encoder bit for bit, and only the output"
                       " layers have moved. After one single step this is normal.", 0.0, "If you have trained for"
                       " only one step, train on. Otherwise the optimiser holds no parameters but those of the output"
                       " layers.")
    return Finding(question, "broken", "The controls are not 0, but the copy still equals the base's encoder bit for"
                   " bit.", 0.0, "Make sure that the copy asks for gradients, that they arrive, and that the optimiser"
                   " holds the very parameters that forward uses. A deepcopy that you make after the optimiser has"
                   " other parameters.", "frozen copy")


def _has_only_shrunk(pairs: list[tuple[nn.Parameter, nn.Parameter]], share: float) -> bool:
    """Whether the copy is the base's encoder times one number below 1."""
    length = sum(theirs.double().square().sum() for _, theirs in pairs)
    factor = sum((own.double() * theirs.double()).sum() for own, theirs in pairs) / length
    rest = sum((own - factor * theirs).double().square().sum() for own, theirs in pairs)
    return factor.item() < 1 and (rest / length).sqrt().item() < 0.01 * share


def _starts_with_noise(case: Case, shown: Evidence) -> bool:
    """Whether the controls make the prediction worse before anything behind them has moved."""
    return _harms(shown) and (_is_one_step_old(case) or _no_bias_has_moved(case))


def _no_bias_has_moved(case: Case) -> bool:
    """Whether the output convs have biases that are all 0. The first step of a training moves them."""
    biases = [getattr(layer, "bias", None) for layer in output_layers(case)]
    return bool(biases) and all(bias is not None and not bias.any() for bias in biases)


def _harms(shown: Evidence) -> bool:
    return surely_larger(shown.own, shown.none) and times_as_large(shown.own, shown.none) > HARMS


def _is_used(shown: Evidence) -> bool:
    return surely_larger(shown.other, shown.own) and times_as_large(shown.other, shown.own) > USED


def _is_one_step_old(case: Case) -> bool:
    """In the first step nothing behind a zero conv moves, so the condition encoder's own zero conv is still 0."""
    outputs = {id(p) for layer in output_layers(case) if layer is not None for p in layer.parameters()}
    return any(p.dim() > 1 and not p.any() for p in case.control_module.parameters() if id(p) not in outputs)


def which_zero_convs_are_zero(case: Case, controls: Sequence[Tensor]) -> Finding:
    """We look at the outputs, which every ControlNet has."""
    question = f"Which of the {len(controls)} zero convs are still 0?"
    zero = [i for i, control in enumerate(controls) if not control.any()]
    if len(zero) == len(controls):
        return Finding(question, "untrained", "All of them are, so the ControlNet changes nothing yet.", len(zero),
                       "Train it. If you have trained it already, then the optimiser holds other parameters or its"
                       " learning rate is 0: give diagnose the optimiser.")
    if zero:
        numbers = ", ".join(map(str, zero))
        return Finding(question, "suspicious", f"Those of the controls {numbers} are (0 is the shallowest).", len(zero),
                       "Find out whether the optimiser holds them, and whether the base uses them.")
    flat = [i for i, control in enumerate(controls) if not (control - control[:1, :, :1, :1]).any()]
    if flat:
        return Finding(question, "broken", f"None is. But {len(flat)} of {len(controls)} controls are constant: each"
                       " of their channels has the same number at every place. So the bias has moved, and the weight"
                       " has not.", len(flat), "Put no zero conv behind another one (lesson 03).",
                       "two zero convs in a row")
    layers = output_layers(case) if case.control_module is not None else [None]
    if None not in layers and have_default_weights(layers):
        return Finding(question, "broken", "None is, and their weights look like PyTorch's own random start.", 0,
                       NOISY_START, "zero convs do not start at 0")
    return Finding(question, "healthy", f"None is: all {len(controls)} controls are maps.", 0)


def is_the_start_exact(case: Case, shown: Evidence) -> Finding:
    """Zero controls must leave the base alone, and zero convs at 0 must give zero controls."""
    question = "Is the start exact?"
    try:
        alone = output_of(case, None)
    except Exception as error:  # a base of somebody else may raise anything
        return unknown(question, f"the base takes no controls=None ({type(error).__name__})")
    added = difference([alone], [shown.output_off])
    if added:
        return Finding(question, "broken", f"Controls of 0 change the base's output by up to {added:.1e}.", added,
                       "Add the controls to the base's maps, and do nothing else with them (exercise 05b).",
                       "controls are not added")
    layers = output_layers(case) if case.control_module is not None else [None]
    if is_untrained(shown.controls):
        return Finding(question, "healthy", "With this ControlNet the base's output is what it is without one, bit for"
                       " bit.", 0.0)
    if None in layers:
        return Finding(question, "healthy", "Controls of 0 leave the base's output unchanged bit for bit. We could"
                       " not find the zero convs, so we did not set them back to 0.", 0.0)
    with borrowed([case.control_module]), torch.no_grad():
        for layer in layers:
            for parameter in layer.parameters():
                parameter.zero_()
        left = difference([alone], [output_of(case, controls_of(case))])
    if left:
        return Finding(question, "broken", f"With its zero convs at 0 the ControlNet still changes the output by up to"
                       f" {left:.1e}.", left, "Let only the outputs of zero convs leave the ControlNet.",
                       "not only zero convs")
    return Finding(question, "healthy", "With its zero convs set back to 0 the base's output is what it is without a"
                   " ControlNet, bit for bit.", 0.0)


def is_the_condition_in_range(case: Case, seen: tuple[float, float] | Tensor | None) -> Finding:
    """Without ``seen`` we assume 0 to 1, as in the paper's code, and then we can only be suspicious."""
    question = "Is the condition in the range that training saw?"
    condition = case.condition
    low, high = _range(RANGE if seen is None else seen)
    least, most = _range(condition)
    found = f"It goes from {least:.3g} to {most:.3g}, and training saw {low:.3g} to {high:.3g}."
    advice = (f"Bring the condition to {low:.3g} to {high:.3g} before the ControlNet sees it: divide bytes by 255,"
              " and do not normalise it like the picture.")
    verdict = "broken"
    if seen is None:
        found = f"It goes from {least:.3g} to {most:.3g}, and most trainings see {low:.3g} to {high:.3g}."
        advice += " If your training saw this range, say so by seen=(least, largest)."
        verdict = "suspicious"
    slack = 0.01 * (high - low)
    if least < low - slack or most > high + slack:
        return Finding(question, verdict, found, most, advice, "wrongly scaled condition")
    if most == least:
        return Finding(question, "broken", f"{found} It is the same number everywhere, so it says nothing.", most,
                       "Find out where the condition is lost: dropped, multiplied by 0, or cast to whole numbers.",
                       "empty condition")
    if most - least < 0.05 * (high - low):
        return Finding(question, "broken", f"{found} So there is next to nothing in it.", most,
                       "Find out whether it was divided by 255 twice.", "wrongly scaled condition")
    if torch.equal(condition, swapped(condition)):
        return Finding(question, "suspicious", f"{found} All conditions are the same.", most,
                       "Give the doctor conditions of different pictures.")
    return Finding(question, "healthy", found, most)


def _range(values: tuple[float, float] | Tensor) -> tuple[float, float]:
    values = torch.as_tensor(values)
    return values.min().item(), values.max().item()


def does_the_condition_reach(case: Case, shown: Evidence) -> Finding:
    """Give each picture its neighbour's condition: how much of what control does changes?"""
    question = "Does the condition reach the output?"
    if not conditions_differ(case):
        return unknown(question, "all conditions are the same")
    if is_untrained(shown.controls) and is_untrained(shown.others):
        return _is_it_wired(case, question)
    effect = change(case, shown.output, shown.output_off)
    changed = change(case, shown.output, shown.output_others)
    share = changed / effect if effect else 0.0
    found = f"Another picture's condition changes the output {share:.2g} times as much as control does."
    if not changed:
        if case.control_module is not None and _is_one_step_old(case):
            return Finding(question, "untrained", "Not yet: the zero conv behind the condition is still 0.", 0.0,
                           "If you have trained for one or two steps only, train on. Otherwise no gradient reaches this"
                           " zero conv, or the optimiser does not hold it.")
        return Finding(question, "broken", "Another picture's condition changes nothing at all, although the controls"
                       " are not 0.", 0.0, "Find out where the condition is cut off. Perhaps its features are not"
                       " passed on or it is replaced by zeros, perhaps no gradient reached its encoder.",
                       "condition is not passed on")
    if share < 0.01:
        return Finding(question, "untrained", found, share, "The condition is hardly used yet.")
    return Finding(question, "healthy", found, share)


def _is_it_wired(case: Case, question: str) -> Finding:
    """Fill all weights that are 0 with noise: does the condition reach the controls then?"""
    if case.control_module is None:
        return Finding(question, "untrained", "Not yet: all controls are 0.", 0.0)
    generator = torch.Generator().manual_seed(0)
    with borrowed([case.control_module]), torch.no_grad():
        for parameter in case.control_module.parameters():
            if not parameter.any():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.1 * noise)
        changed = difference(controls_of(case), controls_of(case, swapped(case.condition)))
    if changed:
        return Finding(question, "untrained", "Not yet, since all controls are 0. With noise in the zero convs it"
                       " does, so it is wired.", changed)
    return Finding(question, "broken", "Even with noise in the zero convs another picture's condition changes"
                   " nothing.", 0.0, "Pass the condition's features on to the copy's first map, and see whether the"
                   " condition is replaced by zeros.", "condition is not passed on")


def is_it_used(case: Case, shown: Evidence) -> Finding:
    """The loss with its own condition, with the neighbour's, and without control."""
    question = "Does the condition help, and how large is the shuffle gap beside the loss?"
    if is_untrained(shown.controls):
        return Finding(question, "untrained", "The gap is 0, since all controls are 0.", 0.0)
    if not conditions_differ(case):
        return unknown(question, "all conditions are the same")
    own, other, none = shown.own, shown.other, shown.none
    gap = (other - own).mean().item()
    ratio = times_as_large(other, own)
    if not (other - own).any():
        verdict = "untrained" if case.control_module is not None and _is_one_step_old(case) else "broken"
        return Finding(question, verdict, f"The gap is exactly 0: another picture's condition gives the same loss of"
                       f" {own.mean():.4f}.", 0.0, "If a finding above says broken, training on does not help.")
    found = (f"The loss is {own.mean():.4f} with the picture's own condition, {other.mean():.4f} with another"
             f" picture's, and {none.mean():.4f} without control. So the gap is {gap:.2g}. Another picture's condition"
             f" is worse on {(other > own).sum()} of {len(own)} pictures, and multiplies the loss by {ratio:.3f} on"
             " average (geometric mean).")
    if len(own) < ENOUGH:
        return Finding(question, "not checked", found, gap, f"{len(own)} pictures cannot tell more. Give the doctor at"
                       f" least {ENOUGH}, better 16.")
    if _is_used(shown) and not _harms(shown):
        return Finding(question, "healthy", found, gap)
    matters = (other / own).log().abs().max() > 0.05  # or else no pairing can help, and the search takes long
    best, prefer = best_pairing(case) if matters else (own, 0)
    if prefer and times_as_large(own, best) > HELPS and times_as_large(none, best) > HELPS:
        return Finding(question, "broken", f"{found} {prefer} of the pictures prefer the condition of another one, and"
                       f" with the best one for each the loss is {best.mean():.4f}.", gap, "See whether pictures and"
                       " conditions are shuffled separately. Each picture must come with its own condition.",
                       "conditions of other pictures")
    if _harms(shown):
        harm = times_as_large(own, none)
        return Finding(question, "broken", f"{found} Control multiplies the loss by {harm:.3g}.", gap,
                       "Control makes the prediction worse. Compare base, strength, time and order of the controls"
                       " with those of the training. If no finding names a cause, look at the condition first.")
    return Finding(question, "untrained", found, gap, f"On these pictures the condition does not help yet. {EARLY}")


def does_the_base_know_the_batch(case: Case, shown: Evidence) -> Finding:
    """A trained base without control predicts its targets better than a prediction of 0 everywhere does."""
    question = "Does the base alone predict the targets of this batch?"
    silent = loss_of(case, torch.zeros_like(case.batch.target))
    ratio = times_as_large(shown.none, silent)
    found = (f"Without control its loss is {shown.none.mean():.4f}, and a prediction of 0 everywhere has a loss of"
             f" {silent.mean():.4f}.")
    if surely_larger(shown.none, silent) and ratio > HARMS:
        return Finding(question, "suspicious", found, ratio, "Look at the batch before you look at the ControlNet. Is"
                       " xt a noisy picture? Is the target what this base predicts (the noise, v or the picture), with"
                       " the right sign? Does the base have its trained weights?")
    return Finding(question, "healthy", found, ratio)


def would_a_treatment_help(case: Case, shown: Evidence, seen: tuple[float, float] | Tensor | None) -> Finding:
    """Trial treatments: change the condition, the time, or the order of the controls.

    A cure must lower the loss, and it must lower it below the loss without control. Anything that weakens a
    harmful control lowers the loss, whatever the bug is.
    """
    question = "Would it help to change the condition, the time or the order of the controls?"
    if is_untrained(shown.controls):
        return unknown(question, "all controls are 0")
    if len(case.condition) < ENOUGH:
        return unknown(question, f"it needs at least {ENOUGH} pictures, better 16")
    own = shown.own
    enough = HELPS if _is_used(shown) else HELPS_ILL
    lowest = own
    best = Finding(question, "healthy", "None of our trial treatments lowers the loss by much.", 1.0)
    for cause, advice, treated in treatments(case, shown.controls, seen):
        cured = losses(case, treated)
        gain = times_as_large(own, cured)
        if not surely_larger(own, cured) or gain < enough:
            continue
        if times_as_large(lowest, cured) > 1:
            lowest = cured
        if gain > best.number and times_as_large(shown.none, cured) > USED:
            found = (f"One trial treatment lowers the loss from {own.mean():.4f} to {cured.mean():.4f}, and on"
                     f" {(own > cured).sum()} of {len(own)} pictures.")
            best = Finding(question, "broken", found, gain, advice, cause)
    if best.verdict == "healthy" and _harms(shown):
        found = (f"None of our trial treatments is a cure. The loss is {own.mean():.4f}, with the best treatment"
                 f" {lowest.mean():.4f}, and without control {shown.none.mean():.4f}.")
        return Finding(question, "suspicious", found, times_as_large(own, lowest), LOOK)
    return best


def treatments(case: Case, controls: Sequence[Tensor], seen: tuple[float, float] | Tensor | None = None
               ) -> Iterator[tuple[str, str, tuple[Tensor, ...]]]:
    """The cause that each treatment is for, what to do for good, and the controls that come of it."""
    c = case.condition
    scaled = "wrongly scaled condition"
    yield "inverted condition", "Invert the condition. Training saw lines and background the other way round.", (
        controls_of(case, c.min() + c.max() - c))
    low, high = _range(RANGE if seen is None else seen)
    for cause, low, high in ((scaled, low, high), (scaled, -1.0, 1.0), ("inverted condition", high, low)):
        if (low, high) != _range(c):
            advice = f"Bring the condition from {_between(*_range(c))} to {_between(low, high)}."
            yield cause, advice, controls_of(case, stretched(c, low, high))
    mirrored = "mirrored condition"
    advice = " Find out where only one of condition and picture is mirrored."
    yield mirrored, f"Mirror the condition left to right.{advice}", controls_of(case, c.flip(-1))
    yield mirrored, f"Turn the condition upside down.{advice}", controls_of(case, c.flip(-2))
    if c.shape[-1] == c.shape[-2]:
        yield "transposed condition", "Swap the condition's rows and columns.", controls_of(case, c.transpose(-1, -2))
    t = case.batch.t
    other_way = case._replace(batch=case.batch._replace(t=t.min() + t.max() - t))
    yield "reversed time", "Give the ControlNet the same t as the base. It seems to count from the other end.", (
        controls_of(other_way))
    order = "Hand the controls over from shallow to deep, the middle last, and let the base add them in this order."
    yield "reversed controls", order, reversed_among_equals(controls)
    if controls[-1].shape in {control.shape for control in controls[:-1]}:  # or it has stayed in its place anyway
        yield "reversed controls", order, (*reversed_among_equals(controls[:-1]), controls[-1])


def _between(low: float, high: float) -> str:
    if low > high:
        return f"[{high:.3g}, {low:.3g}], and invert it"
    return f"[{low:.3g}, {high:.3g}]"


def reversed_among_equals(controls: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Reverse the order among controls of the same shape. Of all wrong orders, this one raises no error."""
    waiting: dict[torch.Size, list[Tensor]] = {}
    for control in controls:
        waiting.setdefault(control.shape, []).append(control)
    return tuple(waiting[control.shape].pop() for control in controls)


def would_another_strength_help(case: Case, shown: Evidence) -> Finding:
    """We name no cause here, since each of the two answers has two possible causes."""
    question = "Would control help more at another strength?"
    if is_untrained(shown.controls):
        return unknown(question, "all controls are 0")
    if len(case.condition) < ENOUGH:
        return unknown(question, f"it needs at least {ENOUGH} pictures, better 16")
    if _harms(shown):
        return unknown(question, "control does harm, so less of it is better in any case")
    best = Finding(question, "healthy", "Neither half of it nor 2 or 10 times as much lowers the loss by much.", 1.0)
    for strength in STRENGTHS:
        cured = losses(case, [strength * control for control in shown.controls])
        gain = times_as_large(shown.own, cured)
        if surely_larger(shown.own, cured) and gain > max(HELPS, best.number):
            found = (f"With the controls times {strength} the loss falls from {shown.own.mean():.4f} to"
                     f" {cured.mean():.4f}.")
            best = Finding(question, "suspicious" if strength < 1 else "untrained", found, gain,
                           TOO_STRONG if strength < 1 else TOO_WEAK)
    return best


def words_and_outline(case: Case, shown: Evidence) -> Finding:
    """In units of the base's own error, since outputs of different networks have different units."""
    question = "How much do the words and the condition each change the output?"
    if not conditions_differ(case):
        return unknown(question, "all conditions are the same")
    unit = shown.none.mean().sqrt().item() or 1.0
    outline = change(case, shown.output, shown.output_others) / unit
    found = ("Our unit is the base's own error on this batch. Another picture's condition changes the output by"
             f" {outline:.2g} units")
    try:
        prompt = swapped(case.batch.prompt)
        output = output_of(case, controls_of(case, prompt=prompt), prompt)
        words = change(case, shown.output, output) / unit
    except Exception:  # a prompt may be anything that the base takes
        return Finding(question, "not checked", f"{found}. The prompts cannot be swapped, since they are not one"
                       " for each picture.", outline)
    found += f", and another picture's prompt by {words:.2g}."
    if len(shown.own) >= ENOUGH and words > 0.5 and not surely_larger(loss_of(case, output), shown.own):
        found += " But the loss with another picture's prompt is no higher than with its own."
        return Finding(question, "suspicious", found, outline, "See whether pictures and prompts are shuffled"
                       " separately. Each picture must come with its own prompt.")
    return Finding(question, "healthy" if outline else "untrained", found, outline)


def unknown(question: str, why: str) -> Finding:
    return Finding(question, "not checked", f"This check does not apply: {why}.")


# %% The examination


@torch.inference_mode(False)  # the caller may have switched gradients off
def diagnose(base: Network, control: Network, condition: Tensor, batch: NoisyBatch, *, trained_on: str | None = None,
             seen: tuple[float, float] | Tensor | None = None, base_module: nn.Module | None = None,
             control_module: nn.Module | None = None, optimiser: torch.optim.Optimizer | None = None) -> list[Finding]:
    """Examine a ControlNet on one noisy batch. Returns the findings, with causes before symptoms.

    condition: (n, c, h, w), as the ControlNet gets it, for the n >= 2 pictures of the batch. 16 is a good n.
    trained_on: the fingerprint of the base that the ControlNet was trained on.
    seen: the smallest and the largest number in the conditions of the training, or a batch of them.
    base_module, control_module: the networks, where base and control are functions around them.
    optimiser: the one that trains the ControlNet, if you have it at hand.
    """
    if base_module is None and isinstance(base, nn.Module):
        base_module = base
    if control_module is None and isinstance(control, nn.Module):
        control_module = control
    case = Case(base, control, condition, batch, base_module, control_module)
    check_case(case)
    case = case._replace(condition=usual(condition), batch=NoisyBatch(*map(usual, batch)))
    _check_told(trained_on, seen, optimiser)
    with borrowed(case.modules), warnings.catch_warnings():
        warnings.simplefilter("ignore", OddRange)  # the doctor also tries other ranges, and has a finding of its own
        findings = [does_it_run(case)]
        findings += [does_it_share_storage(case), is_the_base_locked(case), is_it_the_right_base(case, trained_on),
                     is_it_trainable(case), is_the_precision_enough(case), is_the_condition_in_range(case, seen)]
        if optimiser is not None:
            findings.append(does_the_optimiser_hold_them(case, optimiser))
        if findings[0].verdict == "broken":
            return findings
        check_modules(case)
        shown = evidence_of(case)
        return findings + [do_gradients_arrive(case), which_zero_convs_are_zero(case, shown.controls),
                           has_the_copy_moved(case, shown), is_the_start_exact(case, shown),
                           does_the_base_know_the_batch(case, shown), does_the_condition_reach(case, shown),
                           would_a_treatment_help(case, shown, seen),
                           would_another_strength_help(case, shown), is_it_used(case, shown),
                           words_and_outline(case, shown)]


def _check_told(trained_on: str | None, seen: tuple[float, float] | Tensor | None,
                optimiser: torch.optim.Optimizer | None) -> None:
    """Raise Problem unless these are what ``diagnose`` says they are."""
    if trained_on is not None and not (isinstance(trained_on, str) and re.fullmatch("[0-9a-f]{64}", trained_on)):
        raise Problem(f"trained_on is {shorten(repr(trained_on))}; give a fingerprint of 64 letters and digits, such"
                      " as fingerprint(base.state_dict())")
    if not (optimiser is None or hasattr(optimiser, "param_groups")):
        raise Problem(f"the optimiser is {shorten(repr(optimiser))}; give one of torch's, such as"
                      " torch.optim.AdamW(...)")
    try:
        low, high = RANGE if seen is None else _range(seen)
    except (TypeError, ValueError, RuntimeError):
        low, high = math.nan, math.nan
    if not -math.inf < low < high < math.inf:  # also true for nan
        raise Problem("seen does not hold two different finite numbers; give the smallest and the largest number in the"
                      " conditions of the training, such as (0, 1), or a batch of these conditions")


def _listed(findings: Iterable[Finding]) -> list[Finding]:
    """A list of findings. Raises Problem if there are none: a generator may have been read before."""
    findings = list(findings)
    if not all(isinstance(finding, Finding) for finding in findings):
        raise Problem(f"the findings are {shorten(repr(findings))}; give the list that diagnose returns")
    if not findings:
        raise Problem("there are no findings; give the list that diagnose returns")
    return findings


def cause_of(findings: Sequence[Finding]) -> str:
    """The bug that the findings name, "" if they name none. The first cause explains the later ones."""
    return next((finding.cause for finding in _listed(findings) if finding.cause), "")


def verdict_of(findings: Sequence[Finding]) -> str:
    """The worst verdict of all: healthy, untrained, suspicious or broken."""
    verdicts = {finding.verdict for finding in _listed(findings)}
    return next((verdict for verdict in ("broken", "suspicious", "untrained") if verdict in verdicts), "healthy")


def show_findings(findings: Sequence[Finding]) -> None:
    """Print the findings, and the diagnosis last."""
    findings = _listed(findings)
    for finding in findings:
        print(f"{finding.verdict:12} {finding.question}")
        for text in filter(None, (finding.found, finding.advice and f"-> {finding.advice}")):
            print(textwrap.fill(text, 100, initial_indent=" " * 13, subsequent_indent=" " * 13))
    verdict = verdict_of(findings)
    cause = cause_of(findings)
    if verdict == "healthy":
        asked = sum(finding.verdict == "healthy" for finding in findings)
        cause = f"none of these {asked} questions found anything"
    print(f"\nDIAGNOSIS    {verdict}" + (f": {cause}" if cause else ""))
