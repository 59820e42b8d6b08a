"""Exercises of lesson 02. Write the functions, then run: python lessons/exercises check"""

import copy

import torch
from torch import Tensor, nn

from minicontrolnet.controlnet import ConditionEncoder, Controls, tell_odd_range, zero_conv
from minicontrolnet.errors import check_count
from minicontrolnet.unet import UNet

from exercises.probing import Observed, call, exercise, normal, tiny


@exercise(
    "02a", 5, "Sec. 3.1, Fig. 2", "Lock a module for good.",
    "minicontrolnet.controlnet.lock",
    hints=(
        "nn.Module has one method for this. It reaches all inner modules.",
        "Do not stop gradients in forward. The controls behind this module need them."),
    mistakes={
        "The parameters are not locked. Neither eval() nor module.requires_grad = False locks them.": "module.eval()",
        "The module is still in training mode, where dropout would make it noisy. Call eval().": (".eval()", ""),
        "You locked a copy, not the module itself.": ("module.ev", "copy.deepcopy(module).ev"),
        "Locked does not mean detached. No gradient flows through this module, so no control could learn.":
            ("return", "module.forward = torch.no_grad()(module.forward); return"),
    })
def locking(lock, generator: torch.Generator) -> Observed:
    module = nn.Sequential(nn.Sequential(nn.Linear(3, 3)), nn.Linear(3, 2))
    module.own = nn.Parameter(torch.ones(2))  # belongs to the module itself, not to a child
    x, locked = normal(generator, 4, 3).float().requires_grad_(), call(lock, module)
    return {"parameters that are not locked": sum(p.requires_grad for p in module.parameters()),
            "returns the module itself": locked is module,
            "a gradient flows through it to its input": module(x).requires_grad,
            "in training mode": module.training or module[0].training}


@exercise(
    "02b", 10, "Sec. 3.1, Fig. 2-3", "Bug hunt: this copy trains the base, too.",
    "minicontrolnet.controlnet.ControlNet",
    bugs=("copy.deepcopy(base.embedding)", "base.embedding", "copy.deepcopy(base.encoder)", "base.encoder"),
    hints=(
        "Whose parameters does the new object hold when __init__ ends?",
        "= gives a second name to the same object. copy.deepcopy makes a copy, which is as locked as the original."),
    mistakes={
        "The embedding and the encoder are the base's own, so training changes the base. Copy both.":
            ("copy.deepcopy", ""),
        "The embedding is the base's own. Copy it.": ("copy.deepcopy(base.em", "(base.em"),
        "The encoder is the base's own. Copy it.": ("copy.deepcopy(base.en", "(base.en"),
        "The maps leave without zero convs, so they disturb the base before training.": ("zero(h) for", "h for"),
        "The copy is locked like the base, but it must learn.": ("self.requires_grad_", "bool"),
        "The middle block's control is missing. 12 skips and the middle make 13 controls.": "RIGHT[:-1]",
        "The zero convs and the maps are paired in reversed order.": ("_convs, ", "_convs[::-1], "),
        "The prompt does not reach the copy.": ("(t, prompt)", "(t, prompt * 0)"),
        "The noisy picture xt does not reach the copy.": ("(xt, emb", "(xt * 0, emb"),
        "The condition does not reach the copy.": ("emb, features)", "emb)"),
    })
def copying(build, generator: torch.Generator) -> Observed:
    base, solution, inputs, condition = tiny(generator)
    control = call(build, base, 1)
    before = call(control, *inputs, condition)
    theirs, own = list(base.parameters()), list(control.parameters())
    shared = {p.data_ptr() for p in theirs} & {p.data_ptr() for p in own}
    same = map(torch.equal, control.encoder.parameters(), base.encoder.parameters())
    seen = {"parameters shared with the base": len(shared),
            "parameters of the base that are not locked": sum(p.requires_grad for p in theirs),
            "parameters of the copy that are locked": sum(not p.requires_grad for p in own),
            "the copy starts with the base's weights": all(same),
            "shapes of the controls": [tuple(c.shape) for c in before],
            "the controls before training are 0": not any(c.any() for c in before)}
    control.load_state_dict(solution.state_dict())
    return seen | {"the controls with other weights": list(call(control, *inputs, condition))}
