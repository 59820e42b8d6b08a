"""Exercises of lesson 10. Write the functions; then: python lessons/exercises check"""

import copy

import torch

from minicontrolnet.controlnet import ControlNet
from minicontrolnet.unet import UNet

from exercises.probing import Observed, call, exercise, tiny


@exercise("10a", 10, "released code", "Move a ControlNet to another base.",
          "experiments.transfer.moved", hints=(
    "Weight by weight: own + (new base's - old base's), in a copy of the ControlNet.",
    "What was copied from the base are control.embedding and control.encoder."),
          mistakes={
    "the ControlNet that was given is changed: copy it first":
        ("copy.deepcopy(control)", "control"),
    "the other way round: new base less old base": ("after - before", "before - after"),
    "the embedding was copied from the base, too":
        ('("embedding", "encoder")', '("encoder",)'),
    "what the copy has learned is lost: add the difference":
        ("own += after - before", "own.copy_(after)")})
def moving(moved, generator: torch.Generator) -> Observed:
    flat = lambda part: torch.cat([p.detach().flatten() for p in part.parameters()])
    (old, control, *_), (new, *_) = tiny(generator), tiny(generator)
    before = flat(control)
    result = call(moved, control, old, new)
    return {"the ControlNet that was given stays": torch.equal(flat(control), before),
            "encoder": flat(result.encoder), "embedding": flat(result.embedding),
            "zero convs": flat(result.zero_convs)}
