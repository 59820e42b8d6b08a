"""Held-out pictures, scores, the condition-shuffle gap, and the table of scores.

Compare each score with its ceiling (real pictures) and its floor (shuffled conditions).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..conditions import condition_of
from ..controlnet import ControlNet
from ..diffusion import noise_loss
from ..sampling import Control, predictor, sample
from ..shapes import SHAPES, Batch, random_batch
from ..training import random_times_and_noise
from ..unet import UNet
from .classifier import ShapeClassifier, shapes_right
from .pictures import colours_right, edge_f1, mask_iou, mask_of, palette_error, pose_errors

HELD_OUT = 10_000  # seed of the held-out pictures; training uses small seeds


def held_out(n: int, device: str | torch.device = "cpu", seed: int = HELD_OUT) -> tuple[Batch, Tensor]:
    """n pictures that no training saw, and the noise (n, 3, 64, 64) to start sampling from."""
    generator = torch.Generator().manual_seed(seed)
    batch = random_batch(n, generator)
    noise = torch.randn(batch.x0.shape, generator=generator)
    return batch.map(lambda tensor: tensor.to(device)), noise.to(device)


# %% Scores


def prompt_scores(images: Tensor, prompt: Tensor, classifier: ShapeClassifier) -> dict[str, float]:
    """The shares of pictures whose two colours, and whose shape, are the prompt's."""
    return {"colour accuracy": colours_right(images, prompt).float().mean().item(),
            "shape accuracy": shapes_right(images, prompt, classifier).float().mean().item()}


def condition_scores(kind: str, images: Tensor, truth: Batch) -> dict[str, float]:
    """Mask IoU and how far the condition of ``truth`` is kept by images, means over pictures."""
    iou = {"mask IoU": mask_iou(mask_of(images), truth.mask).mean().item()}
    if kind == "pose":
        degrees, pixels = pose_errors(images, truth.scenes)
        return iou | {"angle error": degrees.nanmean().item(), "place error": pixels.mean().item()}
    condition = condition_of(kind, truth)
    if kind == "edge":
        return iou | {"edge F1": edge_f1(images, condition).mean().item()}
    return iou | {"palette error": palette_error(images, condition).mean().item()}


def conflicting(prompt: Tensor) -> Tensor:
    """The same prompts (n, 3) with another shape's word."""
    other = prompt.clone()
    other[:, 1] = prompt[:, 1] % len(SHAPES) + 1
    return other


def loss_of_condition(base: UNet, control: ControlNet, kind: str, n: int = 128,
                      seed: int = HELD_OUT) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The loss on n held-out pictures as a function of the condition, and their true condition."""
    generator = torch.Generator().manual_seed(seed)
    truth = random_batch(n, generator)
    t, eps = random_times_and_noise(truth.x0, generator)
    device = next(base.parameters()).device
    condition = condition_of(kind, truth).to(device)
    x0, t, eps, prompt = (tensor.to(device) for tensor in (truth.x0, t, eps, truth.prompt))

    @torch.no_grad()
    def loss(condition: Tensor) -> Tensor:
        model = predictor(base, prompt, [Control(control, condition)])
        return noise_loss(model, x0, t, eps, base.prediction_type)

    return loss, condition


@torch.no_grad()
def shuffle_gap(loss_with: Callable[[Tensor], Tensor], condition: Tensor) -> float:
    """Loss with every condition given to its neighbour, minus the loss with its own.

    ``loss_with`` computes the loss for a condition (n, c, h, w), with the same noise and times
    at each call. Rolling by one leaves no condition in its place. 0: the condition is ignored.
    """
    return (loss_with(condition.roll(1, 0)) - loss_with(condition)).item()


def gap(base: UNet, control: ControlNet, kind: str, n: int = 128, seed: int = HELD_OUT) -> float:
    """The condition-shuffle gap of a ControlNet on held-out pictures with their prompts."""
    return shuffle_gap(*loss_of_condition(base, control, kind, n, seed))


# %% The table


def show(name: str, scores: dict[str, float]) -> None:
    """Print one row."""
    print(f"{name:40}" + "".join(f"{key} {value:.3f}   " for key, value in scores.items()), flush=True)


def show_scores(base: UNet, controls: dict[str, ControlNet], classifier: ShapeClassifier,
                n: int = 256) -> None:
    """Print the whole table for n held-out pictures."""
    truth, noise = held_out(n)
    obeyed = lambda images, prompt=truth.prompt: prompt_scores(images, prompt, classifier)
    show("prompt: real pictures (ceiling)", obeyed(truth.image))
    free = sample(base, truth.prompt, noise, progress="base")
    show("prompt: base", obeyed(free))
    right = shapes_right(free, truth.prompt, classifier).float()
    show("prompt: base, shape accuracy of each", {
        shape: right[truth.scenes.shape == i].mean().item() for i, shape in enumerate(SHAPES)
        if i in truth.scenes.shape})
    show("prompt: shuffled prompts (floor)", obeyed(free, truth.prompt.roll(1, 0)))
    pairs = {kind: Control(control, condition_of(kind, truth)) for kind, control in controls.items()}
    neighbour = truth.map(lambda tensor: tensor.roll(1, 0))
    for kind, pair in pairs.items():
        draw = lambda words, prompt: sample(base, prompt, noise, [pair], progress=f"{kind}, {words}")
        kept = partial(condition_scores, kind)
        show(f"{kind}: real pictures (ceiling)", kept(truth.image, truth))
        images = draw("right", truth.prompt)
        show(f"{kind}: ControlNet, right prompt", kept(images, truth) | obeyed(images))
        show(f"{kind}: ControlNet, empty prompt", kept(draw("empty", ""), truth))
        show(f"{kind}: ControlNet, conflicting prompt", kept(draw("conflicting", conflicting(truth.prompt)), truth))
        show(f"{kind}: no control, right prompt", kept(free, truth))
        show(f"{kind}: shuffled conditions (floor)", kept(images, neighbour))
        show(f"{kind}: condition-shuffle gap", {"loss": gap(base, pair.net, kind)})
    if len(pairs) > 1:  # their outputs added
        images = sample(base, "", noise, list(pairs.values()), progress="composed")
        show(" + ".join(pairs) + ", empty prompt", {
            name: score for kind in pairs for name, score in condition_scores(kind, images, truth).items()})
