"""Exercises of lesson 03. Write the functions; then: python lessons/exercises check"""

import torch
from torch import Tensor, nn

from exercises.probing import Observed, call, exercise, normal


@exercise("03a", 5, "Sec. 3.1, Fig. 2b", "The 1x1 conv that everything starts from.",
          "minicontrolnet.controlnet.zero_conv", hints=(
    "What must its parameters be to give 0 for every input, and may they stay so?",
    "nn.Conv2d with kernel size 1; nn.init makes both parameters 0, and both learn."),
          mistakes={
    "the bias is not zero: it starts at random": ("zeros_(conv.b", "ones_(conv.b"),
    "Gaussian is not zero: noise enters at step 0": ("zeros_(conv.w", "normal_(conv.w"),
    "zero is not frozen: to leave 0 it must be trainable": "conv.requires_grad_(False)",
    "not 1x1: a zero conv mixes channels, not places": ("c, 1)", "c, 3, padding=1)"),
    "groups=c: a zero conv mixes all channels": ("c, 1)", "c, 1, groups=c)"),
    "the bias is missing: it starts at 0 and learns":
        ("c, 1)", "c, 1, bias=False)", "nn.init.zeros_(conv.bias)", "")})
def making(zero_conv, generator: torch.Generator) -> Observed:
    conv = call(zero_conv, 5)
    return {"type": type(conv).__name__,
            "parameters": {name: tuple(p.shape) for name, p in conv.named_parameters()},
            "weight is 0": not conv.weight.any(),
            "bias is 0": conv.bias is None or not conv.bias.any(),
            "trainable": all(p.requires_grad for p in conv.parameters()),
            "shape for (1, 5, 6, 6)": tuple(conv(torch.zeros(1, 5, 6, 6)).shape)}


@exercise("03b", 10, "Sec. 3.1, Eq. 2", "The three gradients of a 1x1 conv, by hand.",
          "minicontrolnet.controlnet.zero_conv_gradients", hints=(
    "y = W x + b at every place of every picture; sum what each place gives.",
    "einsum: dW sums upstream times x; dx is W transposed times upstream."), mistakes={
    "a weight of 0 has no gradient of 0: dW is input times upstream": "0 * dw, db, dx",
    "dW is a sum over all places, not the mean": "dw / x[:, 0].numel(), db, dx",
    "dW is a sum over pictures, not the mean over the batch": "dw / len(x), db, dx",
    "dy/db is 1, db is dL/db: upstream, summed": "dw, torch.ones_like(db), dx",
    "the order is another one: return dW, db, dx": "dx, dw, db",
    "dx goes through the weight: where W is 0, it is 0": "dw, db, upstream[:, :3] * 1",
    "by hand is asked, autograd is off here": "torch.autograd.grad(dw.sum(), x)"})
def deriving(zero_conv_gradients, generator: torch.Generator) -> Observed:
    x, upstream = normal(generator, 2, 3, 4, 4), normal(generator, 2, 5, 4, 4)
    some, none, seen = normal(generator, 5, 3), torch.zeros(5, 3).double(), {}
    for name, weight in ("weight 0", none), ("random weight", some):
        with torch.inference_mode():  # no graph, so no autograd
            dw, db, dx = call(zero_conv_gradients, x, weight, upstream)
        seen |= {f"dW, {name}": dw, f"db, {name}": db, f"dx, {name}": dx}
    return seen
