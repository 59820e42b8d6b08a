"""Exercises of lesson 10. Write the functions, then run: python lessons/exercises check"""

import copy

import torch

from minicontrolnet.controlnet import ControlNet
from minicontrolnet.unet import UNet

from exercises.probing import Observed, call, exercise, tiny


@exercise(
    "10a", 10, "released code", "Move a ControlNet to another base.",
    "experiments.transfer.moved",
    hints=(
        "Copy the ControlNet. Then add to each of its weights the new base's weight minus the old base's weight.",
        "The parts that came from the base are control.embedding and control.encoder."),
    mistakes={
        "You change the ControlNet that you were given. Copy it first.": ("copy.deepcopy(control)", "control"),
        "The sign is reversed. Add the new base's weight minus the old base's weight.":
            ("after - before", "before - after"),
        "The embedding also came from the base. Move it, too.": ('("embedding", "encoder")', '("encoder",)'),
        "What the copy has learned is lost. Add the difference of the two bases.":
            ("own += after - before", "own.copy_(after)"),
    })
def moving(moved, generator: torch.Generator) -> Observed:
    def flat(part: torch.nn.Module) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in part.parameters()])

    (old, control, *_), (new, *_) = tiny(generator), tiny(generator)
    before = flat(control)
    result = call(moved, control, old, new)
    return {"the ControlNet that was given stays": torch.equal(flat(control), before),
            "encoder": flat(result.encoder), "embedding": flat(result.embedding),
            "zero convs": flat(result.zero_convs)}
