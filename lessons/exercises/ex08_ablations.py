"""Exercises of lesson 08. Write the functions; then: python lessons/exercises check"""

import torch
from torch import Tensor

from minicontrolnet.shapes import SHAPES

from exercises.probing import Observed, call, exercise


@exercise("08a", 5, "Sec. 4.2, Fig. 8", "Prompts that contradict their outline.",
          "minicontrolnet.measure.scores.conflicting", hints=(
    "Tokens are colour, shape, ground; a shape's word is 1 to len(SHAPES).",
    "% len(SHAPES) leads from the last shape to 0, and + 1 to the first."), mistakes={
    "the prompts that were given are changed, too: clone them": (".clone()", ""),
    "the colour's word was changed: the shape's is number 1":
        ("other[:, 1] = prompt[:, 1]", "other[:, 0] = prompt[:, 0]"),
    "token 0 is a missing word and contradicts nothing":
        ("prompt[:, 1] % len(SHAPES) + 1", "0 * prompt[:, 1]"),
    "who had this shape has it still": ("prompt[:, 1] % len(SHAPES) + 1", "1"),
    "there is no shape behind the last one": (" % len(SHAPES)", "")})
def contradicting(conflicting, generator: torch.Generator) -> Observed:
    words = torch.randint(1, 9, (8, 3), generator=generator)
    words[:, 1] = torch.arange(8) % len(SHAPES) + 1
    other = call(conflicting, words)
    return {"colours and grounds stay": torch.equal(other[:, ::2], words[:, ::2]),
            "no prompt says its shape": bool((other[:, 1] != words[:, 1]).all()),
            "each says a word": bool((other[:, 1] > 0).all()),
            "that is a shape's": bool((other[:, 1] <= len(SHAPES)).all())}
