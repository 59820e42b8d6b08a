"""Exercises of lesson 12. Write the functions, then run: python lessons/exercises check"""

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


@exercise(
    "12a", 10, "arXiv 2302.08453", "Bug hunt: this T2I-Adapter acts like a ControlNet.",
    "lesson.descendants.T2IAdapter.forward",
    bugs=(JOIN, SKIP_ONLY),
    hints=(
        "Which layers of the base see the condition, and which layers should?",
        "T2I-Adapter acts inside the encoder: the sum must also be the h that the next layer gets."),
    mistakes={
        "The decoder gets the features, but the next layer of the encoder does not.": (JOIN, SKIP_ONLY),
        "The next layer gets the features, but the skip to the decoder lacks them.": (JOIN, PATH_ONLY),
        "You join one layer too early. The features join after the last block of a level.":
            ("zip(self.JOINS,", "zip((1, 4, 7, 10),"),
        "The features are added, not multiplied.": ("h + features[i]", "h * features[i]"),
        "The features are added. They do not replace the base's maps.": ("h + features[i]", "features[i]"),
        "The features are detached, so the adapter cannot learn.":
            ("self.features(condition)", "[h.detach() for h in self.features(condition)]"),
        "The controls of the other ControlNet are lost. Pass them on to decode.": ("emb, controls)", "emb)"),
    })
def inside_the_encoder(forward, generator: torch.Generator) -> Observed:
    from lesson.descendants import T2IAdapter

    base, control, inputs, condition = tiny(generator)
    adapter = T2IAdapter(base).double()
    for parameter in adapter.parameters():
        parameter.data = 0.2 * normal(generator, *parameter.shape)
    eps = call(forward, adapter, base, *inputs, condition)
    controls = control(*inputs, condition)
    both = call(forward, adapter, base, *inputs, condition, controls)
    return {"eps without a condition": call(forward, adapter, base, *inputs).detach(),
            "whether a gradient reaches the adapter": bool(reached_from(eps, {"adapter": adapter})),
            "eps with a condition": eps.detach(),
            "eps with a ControlNet's controls": both.detach()}


@exercise(
    "12b", 10, "arXiv 2408.06070", "Cross normalisation: a start that is not zero.",
    "lesson.descendants.cross_normalise",
    hints=(
        "First give the control mean 0 and spread 1, and then the mean and the spread of the main branch.",
        "x.mean((1, 2, 3), keepdim=True) is one number per picture. Add 1e-6 to the spread that you divide by."),
    mistakes={
        "You take one number per channel. ControlNeXt takes all channels of a picture together.":
            ("(1, 2, 3)", "(2, 3)"),
        "You take one number for the whole batch, so a picture depends on its neighbours.":
            ("(1, 2, 3)", "(0, 1, 2, 3)"),
        "The mean of the main branch is missing.": (" + main.mean(dims, keepdim=True)", ""),
        "The control keeps its own mean. Subtract it first.":
            ("(control - control.mean(dims, keepdim=True))", "control"),
        "The spread is still the control's own.":
            (" / (control.std(dims, keepdim=True) + 1e-6)", "", " * main.std(dims, keepdim=True)", ""),
        "You divide by the variance. Divide by the standard deviation.": ("control.std(", "control.var("),
        "You divide 0 by 0. A control may be the same everywhere, so add 1e-6.": (" + 1e-6)", ")"),
        "The roles are exchanged. The control is what changes.": (
            "(control - control.mean(dims, keepdim=True)) / (control.std(",
            "(main - main.mean(dims, keepdim=True)) / (main.std(",
            "main.std(dims, keepdim=True) + main.mean(", "control.std(dims, keepdim=True) + control.mean("),
        "The caller adds the result to the main branch. Do not add it here.": "RIGHT + main",
    })
def cross_normalising(cross_normalise, generator: torch.Generator) -> Observed:
    control = 1000 * (3 + normal(generator, 2, 4, 5, 5))  # large, so that 1e-6 or 1e-5 makes no difference
    spread = torch.tensor([0.5, 2.0]).view(2, 1, 1, 1)
    main = normal(generator, 2, 1, 1, 1) + spread * normal(generator, 2, 4, 5, 5)
    constant = torch.full_like(control, 7.0)
    return {"the normalised control": call(cross_normalise, control, main).float(),
            "the normalised control if it was constant": call(cross_normalise, constant, main).float()}


@exercise(
    "12c", 15, "arXiv 2303.09833", "Control without training: follow a gradient.",
    "lesson.descendants.edge_guided",
    hints=(
        "Ask the base for eps, solve for x0, and take its edge_loss. Then take the gradient with respect to xt.",
        "Sampling runs without gradients. Use torch.enable_grad(), xt.detach().requires_grad_(True) and"
        " torch.autograd.grad."),
    mistakes={
        "The sign is wrong. A larger eps in a direction makes x0 smaller in that direction.":
            ("() + strength", "() - strength"),
        "The gradient must pass through the base, down to xt. Do not detach eps, and do not stop at x0.":
            ("x0_from_eps(eps, xt, t)", "x0_from_eps(eps.detach(), xt, t)"),
        "You scale by one length for the whole batch. Each picture has its own length.": (
            "gradient.flatten(1).norm(dim=1).clamp(min=1e-12) / eps.flatten(1).norm(dim=1)",
            "gradient.norm().clamp(min=1e-12) / eps.norm()"),
        "The gradient gets length 1. It should get a share of the length of eps.":
            (" / eps.flatten(1).norm(dim=1)", ""),
        "The gradient is not scaled, so it is tiny at some times and huge at others.":
            (" / size.view(-1, 1, 1, 1)", ""),
        "The strength is ignored.": ("strength * gradient", "gradient"),
    })
def following_a_gradient(edge_guided: Callable[..., Model], generator: torch.Generator) -> Observed:
    base, _, (xt, t, prompt), condition = tiny(generator)
    with torch.no_grad():
        plain = base(xt, t, prompt)
        model = call(edge_guided, base, prompt, condition.sigmoid(), 0.25)
        eps = call(model, xt, t)
        share = (eps - plain).flatten(1).norm(dim=1) / plain.flatten(1).norm(dim=1)
    return {"how far eps is moved, as a share of its length": [round(x, 4) for x in share.tolist()],
            "eps": eps.float(),
            "whether eps asks for a gradient": eps.requires_grad}
