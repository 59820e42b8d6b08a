"""The doctor: why does this ControlNet not do what it should?

``diagnose`` sees a base and a ControlNet only as two callables:

    base(xt, t, prompt, controls) -> output          controls is None or a sequence of maps
    control(xt, t, prompt, condition) -> controls

So it can also examine a ControlNet that was written for another UNet. It needs one noisy batch of
that ControlNet's training. It changes weights while it works, and restores all of them bit for bit.

Read the file from its end: ``diagnose`` asks one question after another, and each is a function.
"""

import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .fingerprint import fingerprint
from .probes import (PASSES, Case, Network, NoisyBatch, all_tensors, borrowed, change, controls_of, copies, count,
                     difference, first_gradients, is_untrained, losses, noisy_batch, output_layers, output_of,
                     surely_larger, swapped, times_as_large, zeros)

__all__ = ["Finding", "NoisyBatch", "cause_of", "diagnose", "noisy_batch", "show_findings", "verdict_of"]

SIBLINGS = 0.5  # cosine of the weights of copy and base
OUTPUTS = "zero convs at the outputs"
NO_GRADIENT = {
    "two zero convs in a row": "Put no zero conv behind another one: the outer one's input is 0, so its weight gets no"
                               " gradient, and nothing gets past its weight, which is 0 (lesson 03).",
    "controls are switched off": "See whether the controls are multiplied by a strength of 0.",
    "detached control": "Look for detach(), .data or torch.no_grad() in the ControlNet's forward, in front of the"
                        " parts that get nothing (exercise 05a).",
}


class Finding(NamedTuple):
    """One answer of the doctor."""

    question: str
    verdict: str          # healthy, untrained, suspicious, broken, or not checked
    found: str            # a sentence with the number
    number: float | None = None
    advice: str = ""      # what to do
    cause: str = ""       # the name of the bug, where the finding names one


# %% The questions


def does_it_run(case: Case) -> Finding:
    """One forward pass of the ControlNet and the base."""
    question = "Does a prediction come out?"
    controls = ()
    try:
        controls = controls_of(case)
        output = output_of(case, controls) if all_tensors(controls) else None
    except Exception as error:  # a patient may raise anything
        return _it_raised(case, question, controls, error)
    for name, value in ("ControlNet", controls), ("base", [output]):
        if not all_tensors(value):
            return Finding(question, "broken", f"The {name} returns something other than tensors.", None,
                           "Write a function around it: control(xt, t, prompt, condition) returns a list of tensors,"
                           " and base(xt, t, prompt, controls) returns one.")
    if not output.isfinite().all():
        return Finding(question, "broken", "The output holds numbers that are not finite.", None,
                       "Lower the learning rate, and go back to the last good checkpoint.", "not finite")
    if not output.any():
        return Finding(question, "suspicious", "The base's output is 0 everywhere.", 0.0,
                       "Load the base's trained weights: an output layer of zeros hides all that control does.")
    return Finding(question, "healthy", f"The ControlNet hands over {len(controls)} controls, and the base takes"
                   " them.", len(controls))


def _it_raised(case: Case, question: str, controls: Sequence[Tensor], error: Exception) -> Finding:
    reason = (str(error) or "no message").splitlines()[0]
    found = f"The forward pass raised {type(error).__name__}: {reason}."
    if controls and _reversed_fits(case, controls):
        return Finding(question, "broken", f"{found} With the controls in reversed order it runs.", None,
                       "Hand the controls over from shallow to deep, the middle last.", "reversed controls")
    return Finding(question, "broken", found, None, "If the shapes do not fit, compare those of the controls with the"
                   " base's skips and middle: there must be one control for each, of the same shape.")


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
    found = f"Of the base's {count(weights):,} weights {asking:,} ask for a gradient."
    if not asking:
        return Finding(question, "healthy", found, 0)
    return Finding(question, "suspicious", found, asking,
                   "Call lock(base), that is base.requires_grad_(False). An optimiser that does not hold the base"
                   " leaves it unchanged as well, but then its gradients are computed for nothing (lesson 02).")


def does_it_share_storage(case: Case) -> Finding:
    question = "Does the copy share its memory with the base?"
    if len(case.modules) < 2:
        return unknown(question, "we need both networks as modules; give base_module and control_module")
    theirs = {p.data_ptr() for p in case.base_module.parameters()}
    shared = [p for p in case.control_module.parameters() if p.data_ptr() in theirs]
    learn = [p for p in shared if p.requires_grad]
    found = f"{count(shared):,} weights are in both networks, and training changes {count(learn):,} of them."
    if not shared:
        return Finding(question, "healthy", "No weight is in both networks.", 0)
    return Finding(question, "broken" if learn else "suspicious", found, count(shared),
                   "Use copy.deepcopy(base.encoder): the sign = only gives the base's own encoder a second name,"
                   " so whoever trains one trains the other (exercise 02b). Reload the base, for it may have"
                   " changed.", "shared storage")


def is_it_the_right_base(case: Case, trained_on: str | None) -> Finding:
    """By the fingerprint if we have it, and by how far the copy's weights are from the base's."""
    question = "Is it the base that the ControlNet was trained on?"
    if case.base_module is None:
        return unknown(question, "the base is a function; give base_module=...")
    told = trained_on is not None
    same = told and fingerprint(case.base_module.state_dict()) == trained_on
    alike = _cosine(copies(case.control_module, case.base_module)) if case.control_module is not None else None
    near = ""
    if alike is not None:
        near = (f" The cosine of the copy's weights and the base's is {alike:.2f} (1 before training, about 0 for a"
                " stranger).")
    advice = ("Load the base that is named in the ControlNet's file. A fine-tuned sibling of that base works almost"
              " as well. With a stranger, whose channels mean something else, about half of the effect is left"
              " (lesson 10).")
    if alike is not None and alike < SIBLINGS:
        return Finding(question, "broken", f"This base is no relative of the copy.{near}", alike, advice,
                       "another base")
    if told and not same:
        return Finding(question, "suspicious", f"The base's fingerprint is not {trained_on[:8]}, which the"
                       f" ControlNet was trained on.{near}", alike, advice, "another base")
    if not told and alike is None:
        return unknown(question, "no fingerprint was given (trained_on), and we find no copy of the base's weights")
    mark = f"The fingerprint {trained_on[:8]} agrees." if told else "No fingerprint was given."
    return Finding(question, "healthy", mark + near, alike)


def _cosine(pairs: list[tuple[nn.Parameter, nn.Parameter]]) -> float | None:
    """The median over the weight matrices of the cosine of the copy's matrix and the base's."""
    pairs = [(own.detach().flatten(), theirs.detach().flatten()) for own, theirs in pairs if own.dim() > 1]
    cosines = [torch.cosine_similarity(own, theirs, dim=0) for own, theirs in pairs]
    return torch.stack(cosines).median().item() if cosines else None


def is_it_trainable(case: Case) -> Finding:
    question = "Can the copy be trained?"
    if case.control_module is None:
        return unknown(question, "the ControlNet is a function; give control_module=...")
    weights = list(case.control_module.parameters())
    frozen = count([p for p in weights if not p.requires_grad])
    found = f"Of the ControlNet's {count(weights):,} weights {frozen:,} ask for no gradient."
    if not frozen:
        return Finding(question, "healthy", found, 0)
    if frozen == count(weights):
        return Finding(question, "healthy", "The ControlNet is locked as a whole, as one is that was loaded to"
                       " generate pictures.", frozen, "To train it, call control.requires_grad_(True) first.")
    pairs = copies(case.control_module, case.base_module) if case.base_module is not None else []
    if pairs and not any(own.requires_grad for own, _ in pairs):
        return Finding(question, "broken", f"{found} The whole copy is among them.", frozen,
                       "Call control.requires_grad_(True) after the copy is made: copy.deepcopy of a locked encoder"
                       " is locked, too.", "frozen copy")
    return Finding(question, "suspicious", found, frozen, "Find out which weights are frozen, and whether you meant"
                   " that: [name for name, p in control.named_parameters() if not p.requires_grad].")


def do_gradients_arrive(case: Case) -> Finding:
    """Make backward passes with small steps between them. Which part gets its first gradient in which pass?"""
    question = "In which order do gradients arrive?"
    if case.control_module is None:
        return unknown(question, "the ControlNet is a function; give control_module=...")
    with borrowed(case.modules):
        if not any(p.requires_grad for p in case.control_module.parameters()):
            case.control_module.requires_grad_(True)
        woken = first_gradients(case)
        if woken is None:
            return Finding(question, "broken", "The loss does not depend on any weight that can learn.", None,
                           "Look for detach(), .data or torch.no_grad() between the ControlNet and the loss. A locked"
                           " base must still let gradients through.", "detached control")
        stuck = _stuck_behind_zeros(case.control_module, woken)
    found = _order(woken, _parts(case))
    never = [name for name, at in woken.items() if at is None]
    if not never:
        return Finding(question, "healthy", found, max(woken.values()))
    found += f" We made {PASSES} passes, and {len(never)} of {len(woken)} tensors got none."
    if len(never) < len(woken) / 10 and not stuck:
        return Finding(question, "suspicious", f"{found} These are {', '.join(never[:3])} ...", len(never),
                       "Find out whether these weights are used at all.")
    if stuck:
        found += f" Of {stuck[0]} the bias gets a gradient and the weight never."
        cause = "two zero convs in a row"
    elif len(never) == len(woken) and is_untrained(controls_of(case)):
        cause = "controls are switched off"
    else:
        cause = "detached control"
    return Finding(question, "broken", found, len(never), NO_GRADIENT[cause], cause)


def _parts(case: Case) -> dict[str, str]:
    """The name of each tensor's part: the zero convs at the outputs, or the name of a child module."""
    layers = [layer for layer in output_layers(case) if layer is not None]
    at_outputs = {id(p) for layer in layers for p in layer.parameters()}
    return {name: OUTPUTS if id(p) in at_outputs else name.split(".")[0]
            for name, p in case.control_module.named_parameters()}


def _order(woken: dict[str, int | None], parts: dict[str, str]) -> str:
    """Such as "The first gradient arrives in pass 0 at encoder; in pass 1 at embedding. It never arrives at hint." """
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
        return f"No gradient arrives at {', '.join(never)}."
    words = "; ".join(f"in pass {at} at {', '.join(names)}" for at, names in sorted(begins.items()))
    rest = f" It never arrives at {', '.join(never)}." if never else ""
    return f"The first gradient arrives {words} (counted from pass 0).{rest}"


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


def has_the_copy_moved(case: Case, controls: Sequence[Tensor]) -> Finding:
    question = "Has the copy moved from its start?"
    pairs = copies(case.control_module, case.base_module) if len(case.modules) == 2 else []
    if not pairs:
        return unknown(question, "we find no copy of the base's weights in the ControlNet")
    still = sum(torch.equal(own, theirs) for own, theirs in pairs)
    way = sum((own - theirs).double().square().sum().item() for own, theirs in pairs) ** 0.5
    length = sum(theirs.double().square().sum().item() for _, theirs in pairs) ** 0.5
    share = way / length if length else 0.0
    found = f"The copy is {share:.1%} of the base's length away from the base."
    if still == 0 and is_untrained(controls):
        return Finding(question, "broken", f"{found} But all controls are 0.", share, "See whether the controls are"
                       " multiplied by a strength of 0, and whether the optimiser holds the zero convs.",
                       "controls are switched off")
    if still == 0:
        return Finding(question, "healthy", found, share)
    if still < len(pairs):
        return Finding(question, "suspicious", f"{found} {still} of its {len(pairs)} tensors are still the base's.",
                       share, "Find out which tensors stand still, and whether the optimiser holds them.")
    if is_untrained(controls):
        return Finding(question, "untrained", "The copy is the base's encoder in every bit, as before training.",
                       0.0)
    return Finding(question, "broken", "The controls are not 0, but the copy is still the base's in every bit. (After"
                   " one single step this would be normal.)", 0.0,
                   "Make sure that the copy asks for gradients, that they arrive, and that the optimiser holds the"
                   " very parameters that forward uses: a deepcopy after the optimiser was made has other ones.",
                   "frozen copy")


def which_zero_convs_are_zero(case: Case, controls: Sequence[Tensor]) -> Finding:
    """We look at the outputs, which every ControlNet has."""
    question = f"Which of the {len(controls)} zero convs are still 0?"
    zero = [i for i, control in enumerate(controls) if not control.any()]
    if len(zero) == len(controls):
        return Finding(question, "untrained", "All of them: the ControlNet changes nothing yet.", len(zero),
                       "Train it.")
    if zero:
        numbers = ", ".join(map(str, zero))
        return Finding(question, "suspicious", f"Those of the controls {numbers} (0 is the shallowest).", len(zero),
                       "Find out whether the optimiser holds them, and whether the base uses them.")
    flat = [i for i, control in enumerate(controls) if not (control - control[:1, :, :1, :1]).any()]
    if flat:
        return Finding(question, "broken", f"None, but {len(flat)} of {len(controls)} controls are the same number"
                       " everywhere: the bias has moved and the weight has not.", len(flat),
                       "Put no zero conv behind another one (lesson 03).", "two zero convs in a row")
    return Finding(question, "healthy", f"None: all {len(controls)} controls are maps.", 0)


def is_the_start_exact(case: Case, controls: Sequence[Tensor]) -> Finding:
    """Zero controls must leave the base alone, and zero convs at 0 must give zero controls."""
    question = "Is the start exact?"
    try:
        alone = output_of(case, None)
    except Exception as error:  # a base of somebody else may raise anything
        return unknown(question, f"the base takes no controls=None ({type(error).__name__})")
    added = difference([alone], [output_of(case, zeros(controls))])
    if added:
        return Finding(question, "broken", f"Controls of 0 change the base's output by up to {added:.1e}.", added,
                       "Add the controls to the base's maps, and do nothing else with them (exercise 05b).",
                       "controls are not added")
    layers = output_layers(case) if case.control_module is not None else [None]
    if is_untrained(controls):
        return Finding(question, "healthy", "With this ControlNet the base's output is the same in every bit.", 0.0)
    if None in layers:
        return Finding(question, "healthy", "Controls of 0 leave the base's output as it is in every bit. We could"
                       " not find the zero convs, so we did not set them back to 0.", 0.0)
    with borrowed(case.modules), torch.no_grad():
        for layer in layers:
            for parameter in layer.parameters():
                parameter.zero_()
        left = difference([alone], [output_of(case, controls_of(case))])
    if left:
        return Finding(question, "broken", f"With its zero convs at 0 the ControlNet still changes the output by up to"
                       f" {left:.1e}.", left, "Let nothing but the zero convs' outputs leave the ControlNet.",
                       "not only zero convs")
    return Finding(question, "healthy", "With its zero convs set back to 0 the base's output is the same in every"
                   " bit.", 0.0)


def is_the_condition_in_range(case: Case, seen: tuple[float, float] | Tensor) -> Finding:
    question = "Is the condition in the range that training saw?"
    condition = case.condition
    seen = torch.as_tensor(seen)
    low, high = seen.min().item(), seen.max().item()
    least, most = condition.min().item(), condition.max().item()
    found = f"It goes from {least:.3g} to {most:.3g}, and training saw {low:.3g} to {high:.3g}."
    slack = 0.01 * (high - low)
    if least < low - slack or most > high + slack:
        return Finding(question, "broken", found, most, f"Bring the condition to {low:.3g} to {high:.3g} before the"
                       " ControlNet sees it: divide bytes by 255, and do not normalise it like the picture.",
                       "wrongly scaled condition")
    if most - low < 0.05 * (high - low):
        return Finding(question, "broken", f"{found} So there is next to nothing in it.", most,
                       "Find out whether it was divided by 255 twice, or whether it is empty.",
                       "wrongly scaled condition")
    if torch.equal(condition, swapped(condition)):
        return Finding(question, "suspicious", f"{found} All conditions are the same.", most,
                       "Give the doctor conditions of different pictures.")
    return Finding(question, "healthy", found, most)


def does_the_condition_reach(case: Case, controls: Sequence[Tensor]) -> Finding:
    """Give each picture its neighbour's condition: how much of what control does changes?"""
    question = "Does the condition reach the output?"
    others = controls_of(case, swapped(case.condition))
    if is_untrained(controls) and is_untrained(others):
        return _is_it_wired(case, question)
    own = output_of(case, controls)
    effect = change(case, own, output_of(case, zeros(controls)))
    changed = change(case, own, output_of(case, others))
    share = changed / effect if effect else 0.0
    found = f"Another picture's condition changes the output by {share:.2f} times what control does to it."
    if not changed:
        return Finding(question, "broken", "Another picture's condition changes nothing at all, although the controls"
                       " are not 0. (After one or two steps this would be normal.)", 0.0,
                       "Look for what cuts the condition off: features that are not passed on, a detach(), an encoder"
                       " whose zero conv never moved. See the order of gradients.")
    if share < 0.01:
        return Finding(question, "untrained", found, share, "Train on: the condition is hardly used yet.")
    return Finding(question, "healthy", found, share)


def _is_it_wired(case: Case, question: str) -> Finding:
    """Fill all weights that are 0 with noise: does the condition reach the controls then?"""
    if case.control_module is None:
        return Finding(question, "untrained", "Not yet: all controls are 0.", 0.0)
    generator = torch.Generator().manual_seed(0)
    with borrowed(case.modules), torch.no_grad():
        for parameter in case.control_module.parameters():
            if not parameter.any():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.1 * noise)
        changed = difference(controls_of(case), controls_of(case, swapped(case.condition)))
    if changed:
        return Finding(question, "untrained", "Not yet, since all controls are 0. With noise in the zero convs it"
                       " does, so it is wired.", changed)
    return Finding(question, "broken", "Even with noise in the zero convs another picture's condition changes"
                   " nothing.", 0.0, "Pass the condition's features on to the copy's first map.")


def is_it_used(case: Case, controls: Sequence[Tensor]) -> Finding:
    """The loss with its own condition, with the neighbour's, and without control."""
    question = "Does the condition help, and how large is the shuffle gap beside the loss?"
    if is_untrained(controls):
        return Finding(question, "untrained", "The gap is 0, since all controls are 0.", 0.0)
    own = losses(case, controls)
    none = losses(case, zeros(controls))
    other = losses(case, controls_of(case, swapped(case.condition)))
    gap = (other - own).mean().item()
    ratio = times_as_large(other, own)
    harm = times_as_large(own, none)
    if not (other - own).any():
        return Finding(question, "broken", f"The gap is exactly 0: another picture's condition gives the same loss of"
                       f" {own.mean():.4f}. (After one or two steps this would be normal.)", 0.0,
                       "Training on does not help. See the order of gradients.")
    found = (f"The loss is {own.mean():.4f} with its own condition, {other.mean():.4f} with another picture's, and"
             f" {none.mean():.4f} without control. The gap is {gap:.2g}: another's condition is worse on"
             f" {(other > own).sum()} of {len(own)} pictures, and makes the loss {ratio:.3g} times as large"
             " (geometric mean).")
    if surely_larger(own, none) and harm > 1.1:
        return Finding(question, "broken", f"{found} With control it is {harm:.3g} times as large as without.", gap,
                       "Control makes the prediction worse. See whether base, condition and order of the controls"
                       " are those of the training, and whether each picture has its own condition.")
    if surely_larger(own, other) and ratio < 0.99:
        return Finding(question, "broken", found, gap, "The own condition is worse than another's: see whether"
                       " pictures and conditions are paired as they should be.", "conditions of other pictures")
    if surely_larger(other, own) and ratio > 1.01:
        return Finding(question, "healthy", found, gap)
    return Finding(question, "untrained", found, gap, "These pictures cannot tell whether the condition is used yet."
                   " If all else is healthy, train on, and watch the gap on a log scale: it grows long before pictures"
                   " follow (lesson 05).")


def would_another_reading_help(case: Case, controls: Sequence[Tensor]) -> Finding:
    """Trial treatments: the condition read in another way, the controls in another order."""
    question = "Would another reading of the condition, or another order of the controls, help?"
    if is_untrained(controls):
        return unknown(question, "all controls are 0")
    own = losses(case, controls)
    best = Finding(question, "healthy", "None of our trial treatments lowers the loss.", 1.0)
    for cause, advice, treated in treatments(case, controls):
        cured = losses(case, treated)
        gain = times_as_large(own, cured)
        if surely_larger(own, cured) and gain > max(1.2, best.number):
            found = (f"One trial treatment lowers the loss from {own.mean():.4f} to {cured.mean():.4f}, and on"
                     f" {(own > cured).sum()} of {len(own)} pictures.")
            best = Finding(question, "broken", found, gain, advice, cause)
    return best


def treatments(case: Case, controls: Sequence[Tensor]) -> Iterator[tuple[str, str, tuple[Tensor, ...]]]:
    """The cause that each treatment is for, what to do for good, and the controls that come of it."""
    c = case.condition
    scaled = "wrongly scaled condition"
    yield "inverted condition", "Invert the condition: training saw light lines on black.", controls_of(
        case, c.min() + c.max() - c)
    if c.max() > 2:
        yield scaled, "Divide the condition by 255.", controls_of(case, c / 255)
        yield "inverted condition", "Divide the condition by 255 and invert it.", controls_of(case, 1 - c / 255)
    if c.max() < 0.05:
        yield scaled, "Multiply the condition by 255: it was divided twice.", controls_of(case, c * 255)
    if c.min() < 0:
        yield scaled, "Bring the condition from [-1, 1] to [0, 1].", controls_of(case, (c + 1) / 2)
    else:
        yield scaled, "Bring the condition from [0, 1] to [-1, 1].", controls_of(case, 2 * c - 1)
    order = "Hand the controls over from shallow to deep, the middle last, and let the base add them in this order."
    yield "reversed controls", order, reversed_among_equals(controls)
    yield "reversed controls", order, (*reversed_among_equals(controls[:-1]), controls[-1])


def reversed_among_equals(controls: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Reverse the order among controls of the same shape. Of all wrong orders, this one raises no error."""
    waiting: dict[torch.Size, list[Tensor]] = {}
    for control in controls:
        waiting.setdefault(control.shape, []).append(control)
    return tuple(waiting[control.shape].pop() for control in controls)


def words_and_outline(case: Case, controls: Sequence[Tensor]) -> Finding:
    """In units of the base's own error, since outputs of different networks have different units."""
    question = "How much do the words and the condition each change the output?"
    output = output_of(case, controls)
    unit = losses(case, zeros(controls)).mean().sqrt().item() or 1.0
    outline = change(case, output, output_of(case, controls_of(case, swapped(case.condition)))) / unit
    found = f"Another picture's condition changes the output by {outline:.2g} times the base's error"
    try:
        prompt = swapped(case.batch.prompt)
        words = change(case, output, output_of(case, controls_of(case, prompt=prompt), prompt)) / unit
    except Exception:  # a prompt may be anything that the base takes
        return Finding(question, "not checked", f"{found}. The prompts cannot be swapped, since they are not one for"
                       " each picture.", outline)
    found += f", another picture's prompt by {words:.2g} times."
    return Finding(question, "untrained" if is_untrained(controls) else "healthy", found, outline)


def unknown(question: str, why: str) -> Finding:
    return Finding(question, "not checked", f"This check does not apply: {why}.")


# %% The examination


def diagnose(base: Network, control: Network, condition: Tensor, batch: NoisyBatch, *, trained_on: str | None = None,
             seen: tuple[float, float] | Tensor = (0.0, 1.0), base_module: nn.Module | None = None,
             control_module: nn.Module | None = None) -> list[Finding]:
    """Examine a ControlNet on one noisy batch. Returns the findings, with causes before symptoms.

    condition: (n, c, h, w), as the ControlNet gets it, for the n >= 2 pictures of the batch.
    trained_on: the fingerprint of the base that the ControlNet was trained on.
    seen: the least and the largest number in the conditions of the training, or a batch of them.
    base_module, control_module: the networks, where base and control are functions around them.
    """
    if base_module is None and isinstance(base, nn.Module):
        base_module = base
    if control_module is None and isinstance(control, nn.Module):
        control_module = control
    case = Case(base, control, condition, batch, base_module, control_module)
    with borrowed(case.modules):
        findings = [does_it_run(case)]
        findings += [does_it_share_storage(case), is_the_base_locked(case), is_it_the_right_base(case, trained_on),
                     is_it_trainable(case), is_the_condition_in_range(case, seen)]
        if findings[0].verdict == "broken":
            return findings
        controls = controls_of(case)
        return findings + [do_gradients_arrive(case), which_zero_convs_are_zero(case, controls),
                           has_the_copy_moved(case, controls), is_the_start_exact(case, controls),
                           would_another_reading_help(case, controls), does_the_condition_reach(case, controls),
                           is_it_used(case, controls), words_and_outline(case, controls)]


def cause_of(findings: Sequence[Finding]) -> str:
    """The bug that the findings name, "" if they name none. The first cause explains the later ones."""
    return next((finding.cause for finding in findings if finding.cause), "")


def verdict_of(findings: Sequence[Finding]) -> str:
    """The worst verdict of all: healthy, untrained, suspicious or broken."""
    verdicts = {finding.verdict for finding in findings}
    return next((verdict for verdict in ("broken", "suspicious", "untrained") if verdict in verdicts), "healthy")


def show_findings(findings: Sequence[Finding]) -> None:
    """Print the findings, and the diagnosis last."""
    for finding in findings:
        print(f"{finding.verdict:12} {finding.question}")
        for text in filter(None, (finding.found, finding.advice and f"-> {finding.advice}")):
            print(textwrap.fill(text, 100, initial_indent=" " * 13, subsequent_indent=" " * 13))
    cause = cause_of(findings)
    print(f"\nDIAGNOSIS    {verdict_of(findings)}" + (f": {cause}" if cause else ""))
