"""Exercises of lesson 08. Write the functions, then run: python lessons/exercises check"""

import torch
from torch import Tensor

from minicontrolnet.measure.pictures import check_words
from minicontrolnet.shapes import SHAPES, check_tokens

from exercises.probing import Observed, call, exercise


@exercise(
    "08a", 5, "Sec. 4.2, Fig. 8", "Prompts that contradict their outline.",
    "minicontrolnet.measure.scores.conflicting",
    hints=(
        "The tokens are colour, shape and background. A shape's token is between 1 and len(SHAPES).",
        "% len(SHAPES) leads from the last shape to 0, and + 1 leads on to the first one."),
    mistakes={
        "You also change the prompts that you were given. Clone them.": (".clone()", ""),
        "You changed the colour. The shape is token number 1, and the colour is number 0.":
            ("other[:, 1] = prompt[:, 1]", "other[:, 0] = prompt[:, 0]"),
        "Token 0 is a missing word, and it contradicts nothing.":
            ("prompt[:, 1] % len(SHAPES) + 1", "0 * prompt[:, 1]"),
        "Prompts that had this shape before still have it.": ("prompt[:, 1] % len(SHAPES) + 1", "1"),
        "There is no shape after the last one. Go on with the first.": (" % len(SHAPES)", ""),
    })
def contradicting(conflicting, generator: torch.Generator) -> Observed:
    words = torch.randint(1, 9, (8, 3), generator=generator)
    words[:, 1] = torch.arange(8) % len(SHAPES) + 1
    other = call(conflicting, words)
    return {"colours and backgrounds stay": torch.equal(other[:, ::2], words[:, ::2]),
            "no prompt keeps its shape": bool((other[:, 1] != words[:, 1]).all()),
            "no shape is missing": bool((other[:, 1] > 0).all()),
            "every shape exists": bool((other[:, 1] <= len(SHAPES)).all())}
