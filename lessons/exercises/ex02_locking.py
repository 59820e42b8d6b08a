"""Exercises of lesson 02. Write the functions; then: python lessons/exercises check"""

import copy

import torch
from torch import Tensor, nn

from minicontrolnet.controlnet import ConditionEncoder, Controls, zero_conv
from minicontrolnet.unet import UNet

from exercises.probing import Observed, call, exercise, normal, tiny


@exercise("02a", 5, "Sec. 3.1, Fig. 2", "Lock a module for good.",
          "minicontrolnet.controlnet.lock", hints=(
    "nn.Module has one method for this, and it reaches all inner modules.",
    "Do not stop gradients in forward: the controls behind it need them."), mistakes={
    "not locked: eval() does not, nor module.requires_grad = False": "module.eval()",
    "still in training mode: dropout would make it noisy": (".eval()", ""),
    "a copy was locked, not the module": ("module.ev", "copy.deepcopy(module).ev"),
    "locked is not detached: no gradient flows through, so no control would learn":
        ("return", "module.forward = torch.no_grad()(module.forward); return")})
def locking(lock, generator: torch.Generator) -> Observed:
    module = nn.Sequential(nn.Sequential(nn.Linear(3, 3)), nn.Linear(3, 2))
    module.own = nn.Parameter(torch.ones(2))  # not in a child
    x, locked = normal(generator, 4, 3).float().requires_grad_(), call(lock, module)
    return {"parameters not locked": sum(p.requires_grad for p in module.parameters()),
            "the module itself comes back": locked is module,
            "a gradient flows through it to its input": module(x).requires_grad,
            "in training mode": module.training or module[0].training}


@exercise("02b", 10, "Sec. 3.1, Fig. 2-3", "Bug hunt: this copy trains the base, too.",
          "minicontrolnet.controlnet.ControlNet", bugs=(
    "copy.deepcopy(base.embedding)", "base.embedding",
    "copy.deepcopy(base.encoder)", "base.encoder"), hints=(
    "Whose parameters does the new object hold when __init__ ends?",
    "= gives a second name, copy.deepcopy a copy, as locked as what was copied."),
          mistakes={
    "both are the base's own, so the base is trained: copy": ("copy.deepcopy", ""),
    "the embedding is the base's own: copy it": ("copy.deepcopy(base.em", "(base.em"),
    "the encoder is the base's own: copy it": ("copy.deepcopy(base.en", "(base.en"),
    "maps leave without zero convs: they disturb the base": ("zero(h) for", "h for"),
    "the copy is locked like the base: it must learn": ("self.requires_grad_", "bool"),
    "the middle's output is missing: 12 skips and 1 middle are 13": "RIGHT[:-1]",
    "zero convs and maps are paired in reversed order": ("_convs, ", "_convs[::-1], "),
    "the prompt does not reach the copy": ("(t, prompt)", "(t, prompt * 0)"),
    "the noisy picture xt does not reach the copy": ("(xt, emb", "(xt * 0, emb"),
    "the condition does not reach the copy": ("emb, features)", "emb)")})
def copying(build, generator: torch.Generator) -> Observed:
    base, solution, inputs, condition = tiny(generator)
    control = call(build, base, 1)
    before = call(control, *inputs, condition)
    theirs, own = list(base.parameters()), list(control.parameters())
    shared = {p.data_ptr() for p in theirs} & {p.data_ptr() for p in own}
    same = map(torch.equal, control.encoder.parameters(), base.encoder.parameters())
    seen = {"parameters shared with the base": len(shared),
            "parameters of the base not locked": sum(p.requires_grad for p in theirs),
            "parameters of the copy locked": sum(not p.requires_grad for p in own),
            "the copy starts with the base's weights": all(same),
            "shapes of the controls": [tuple(c.shape) for c in before],
            "controls before training are 0": not any(c.any() for c in before)}
    control.load_state_dict(solution.state_dict())
    return seen | {"controls, other weights": list(call(control, *inputs, condition))}
