"""Exercises of lesson 12. Write the functions; then: python lessons/exercises check"""

from collections.abc import Callable

import torch
from torch import Tensor

from lesson.descendants import decode, edge_loss, layers_of
from minicontrolnet import UNet, x0_from_eps
from minicontrolnet.controlnet import Controls
from minicontrolnet.diffusion import Model

from exercises.probing import Observed, call, exercise, normal, reached_from, tiny

JOIN = "        if i in features:\n            h = h + features[i]\n        maps.append(h)"
SKIP_ONLY = "        maps.append(h + features[i] if i in features else h)"
PATH_ONLY = "        maps.append(h)\n        if i in features:\n            h = h + features[i]"


@exercise("12a", 10, "arXiv 2302.08453", "Bug hunt: an adapter that acts like a ControlNet.",
          "lesson.descendants.T2IAdapter.forward", bugs=(JOIN, SKIP_ONLY), hints=(
    "Which of the base's layers see the condition, and which should?",
    "What is added inside the encoder must also be in the h that the next layer gets."), mistakes={
    "the decoder gets the features, but the next layer of the encoder does not": (JOIN, SKIP_ONLY),
    "the next layer gets the features, but the skip to the decoder lacks them": (JOIN, PATH_ONLY),
    "one layer too early: the features join after the last block of a level":
        ("zip(self.JOINS,", "zip((1, 4, 7, 10),"),
    "the features are added, not multiplied": ("h + features[i]", "h * features[i]"),
    "the features are added, they do not replace the base's maps": ("h + features[i]", "features[i]"),
    "the features are detached, so the adapter cannot learn":
        ("self.features(condition)", "[h.detach() for h in self.features(condition)]"),
    "the other ControlNet's controls are lost": ("emb, controls)", "emb)")})
def inside_the_encoder(forward, generator: torch.Generator) -> Observed:
    from lesson.descendants import T2IAdapter

    base, control, inputs, condition = tiny(generator)
    adapter = T2IAdapter(base).double()
    for parameter in adapter.parameters():
        parameter.data = 0.2 * normal(generator, *parameter.shape)
    eps = call(forward, adapter, base, *inputs, condition)
    controls = control(*inputs, condition)
    return {"eps without a condition": call(forward, adapter, base, *inputs).detach(),
            "a gradient reaches the adapter": bool(reached_from(eps, {"adapter": adapter})),
            "eps with a condition": eps.detach(),
            "eps with a ControlNet's controls":
                call(forward, adapter, base, *inputs, condition, controls).detach()}


@exercise("12b", 10, "arXiv 2408.06070", "Cross normalisation: a start that is not zero.",
          "lesson.descendants.cross_normalise", hints=(
    "First give the control mean 0 and spread 1, then the main branch's spread and mean.",
    "x.mean((1, 2, 3), keepdim=True) is one number per picture; add 1e-6 to what you divide by."), mistakes={
    "one number per channel: ControlNeXt takes all channels of a picture together": ("(1, 2, 3)", "(2, 3)"),
    "one number for the whole batch: a picture would depend on its neighbours": ("(1, 2, 3)", "(0, 1, 2, 3)"),
    "the main branch's mean is missing": (" + main.mean(dims, keepdim=True)", ""),
    "the control keeps its own mean": ("(control - control.mean(dims, keepdim=True))", "control"),
    "the spread is still the control's":
        (" / (control.std(dims, keepdim=True) + 1e-6)", "", " * main.std(dims, keepdim=True)", ""),
    "the variance in place of the standard deviation": ("control.std(", "control.var("),
    "0 / 0: a control may be the same everywhere": (" + 1e-6)", ")"),
    "the roles are exchanged: the control is what changes": (
        "(control - control.mean(dims, keepdim=True)) / (control.std(",
        "(main - main.mean(dims, keepdim=True)) / (main.std(",
        "main.std(dims, keepdim=True) + main.mean(", "control.std(dims, keepdim=True) + control.mean("),
    "the caller adds the result to the main branch: do not add it here": "RIGHT + main"})
def cross_normalising(cross_normalise, generator: torch.Generator) -> Observed:
    control = 1000 * (3 + normal(generator, 2, 4, 5, 5))  # large, so that 1e-6 or 1e-5 makes no difference
    main = normal(generator, 2, 1, 1, 1) + normal(generator, 2, 4, 5, 5) * torch.tensor([0.5, 2.0]).view(2, 1, 1, 1)
    constant = torch.full_like(control, 7.0)
    return {"the control, normalised": call(cross_normalise, control, main).float(),
            "a constant control, normalised": call(cross_normalise, constant, main).float()}


@exercise("12c", 15, "arXiv 2303.09833", "Control without training: follow a gradient.",
          "lesson.descendants.edge_guided", hints=(
    "Ask the base for eps, solve for x0, take edge_loss of it, and the gradient of that with respect to xt.",
    "Sampling runs under no_grad: use torch.enable_grad(), xt.detach().requires_grad_(True) and torch.autograd.grad."),
          mistakes={
    "the sign: a larger eps in a direction makes x0 smaller in it": ("() + strength", "() - strength"),
    "the gradient is one of xt, through the base: do not detach eps, and do not stop at x0":
        ("x0_from_eps(eps, xt, t)", "x0_from_eps(eps.detach(), xt, t)"),
    "one length for the whole batch: each picture has its own": (
        "gradient.flatten(1).norm(dim=1).clamp(min=1e-12) / eps.flatten(1).norm(dim=1)",
        "gradient.norm().clamp(min=1e-12) / eps.norm()"),
    "the gradient gets length 1, but it should be a share of the length of eps":
        (" / eps.flatten(1).norm(dim=1)", ""),
    "the gradient is not scaled: it is tiny at some times and huge at others":
        (" / size.view(-1, 1, 1, 1)", ""),
    "the strength is ignored": ("strength * gradient", "gradient")})
def following_a_gradient(edge_guided: Callable[..., Model], generator: torch.Generator) -> Observed:
    base, _, (xt, t, prompt), condition = tiny(generator)
    with torch.no_grad():
        model = call(edge_guided, base, prompt, condition.sigmoid(), 0.25)
        eps = call(model, xt, t)
        moved = eps - base(xt, t, prompt)
        share = moved.flatten(1).norm(dim=1) / base(xt, t, prompt).flatten(1).norm(dim=1)
    return {"how far it moves eps, as a share of its length": [round(x, 4) for x in share.tolist()],
            "eps": eps.float(), "eps asks for a gradient": eps.requires_grad}
