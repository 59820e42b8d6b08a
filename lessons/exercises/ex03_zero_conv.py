"""Exercises of lesson 03. Write the functions, then run: python lessons/exercises check"""

import torch
from torch import Tensor, nn

from minicontrolnet.errors import check_count

from exercises.probing import Observed, call, exercise, normal


@exercise(
    "03a", 5, "Sec. 3.1, Fig. 2b", "The 1x1 conv that everything starts from.",
    "minicontrolnet.controlnet.zero_conv",
    hints=(
        "What must its parameters be so that every input gives 0, and may they stay so?",
        "Use nn.Conv2d with kernel size 1. nn.init sets both parameters to 0, and both of them learn."),
    mistakes={
        "The bias is not 0. A new convolution starts with a random one.": ("zeros_(conv.b", "ones_(conv.b"),
        "Gaussian weights are not 0, so noise enters the base at step 0.": ("zeros_(conv.w", "normal_(conv.w"),
        "Zero does not mean frozen. The weights must be trainable, or they never leave 0.":
            "conv.requires_grad_(False)",
        "The kernel is not 1x1. A zero conv mixes channels, not places.": ("c, 1)", "c, 3, padding=1)"),
        "groups=c keeps the channels apart, but a zero conv mixes all of them.": ("c, 1)", "c, 1, groups=c)"),
        "The bias is missing. It starts at 0, and it learns.":
            ("c, 1)", "c, 1, bias=False)", "nn.init.zeros_(conv.bias)", ""),
    })
def making(zero_conv, generator: torch.Generator) -> Observed:
    conv = call(zero_conv, 5)
    kind = "Conv2d" if isinstance(conv, nn.Conv2d) else type(conv).__name__  # a class of your own may inherit from it
    return {"type": kind,
            "parameters": {name: tuple(p.shape) for name, p in conv.named_parameters()},
            "the weight is 0": not conv.weight.any(),
            "the bias is 0": conv.bias is None or not conv.bias.any(),
            "all parameters are trainable": all(p.requires_grad for p in conv.parameters()),
            "shape of the output for (1, 5, 6, 6)": tuple(conv(torch.zeros(1, 5, 6, 6)).shape)}


@exercise(
    "03b", 10, "Supplement, Eq. 2", "The three gradients of a 1x1 conv, by hand.",
    "minicontrolnet.controlnet.zero_conv_gradients",
    hints=(
        "At every place of every picture, y = W x + b. Add up what each place contributes.",
        "Use einsum. dW is a sum over upstream times x, and dx is W transposed times upstream."),
    mistakes={
        "The gradient of a weight that is 0 is not 0. dW is upstream times input.": "0 * dw, db, dx",
        "dW is the sum over all places, not the mean.": "dw / x[:, 0].numel(), db, dx",
        "dW is the sum over the pictures, not the mean over the batch.": "dw / len(x), db, dx",
        "dy/db is 1, but db is dL/db: the sum of upstream.": "dw, torch.ones_like(db), dx",
        "The order is not right. Return dW, db, dx.": "dx, dw, db",
        "dx must pass through the weight. Where W is 0, dx is 0.": "dw, db, upstream[:, :3] * 1",
        "Compute the gradients by hand. Autograd is switched off here.": "torch.autograd.grad(dw.sum(), x)",
    })
def deriving(zero_conv_gradients, generator: torch.Generator) -> Observed:
    x, upstream = normal(generator, 2, 3, 4, 4), normal(generator, 2, 5, 4, 4)
    weights = {"weight 0": torch.zeros(5, 3).double(), "random weight": normal(generator, 5, 3)}
    seen = {}
    for name, weight in weights.items():
        with torch.inference_mode():  # no graph, so no autograd
            dw, db, dx = call(zero_conv_gradients, x, weight, upstream)
        seen |= {f"dW, {name}": dw, f"db, {name}": db, f"dx, {name}": dx}
    return seen
