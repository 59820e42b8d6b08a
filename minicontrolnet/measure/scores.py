"""Held-out pictures, scores, the condition-shuffle gap, and the table of scores.

Compare each score with its ceiling (real pictures) and its floor (shuffled conditions).
"""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..conditions import CHANNELS, Kind, condition_of
from ..controlnet import ControlNet
from ..diffusion import noise_loss
from ..errors import Problem, check_count, check_device, check_images, check_same_shape, check_seed, check_tensor
from ..sampling import Control, predictor, sample
from ..shapes import SHAPES, Batch, check_tokens, random_batch
from ..training import WHOLE, moved, random_times_and_noise
from ..unet import UNet
from .classifier import ShapeClassifier, shapes_right
from .pictures import check_words, colours_right, edge_f1, mask_iou, mask_of, palette_error, pose_errors

HELD_OUT = 10_000  # the seed of the held-out pictures; trainings use small seeds


def held_out(n: int, device: str | torch.device = "cpu", seed: int = HELD_OUT) -> tuple[Batch, Tensor]:
    """n held-out pictures, which no training has seen, and noise (n, 3, 64, 64) from which to sample.

    seed: choose another one than your trainings have. The first pictures of a training come from its seed. Another n
    gives other pictures, also at the beginning.
    """
    check_seed(seed)
    check_device(device)
    if torch.device(device).type == "meta":
        raise Problem('tensors on the device "meta" have no values; give "cpu", or another device that holds values')
    generator = torch.Generator().manual_seed(int(seed))
    batch = random_batch(n, generator)
    noise = torch.randn(batch.x0.shape, generator=generator, dtype=torch.float32)
    return batch.map(lambda tensor: tensor.to(device)), noise.to(device)


# %% Scores


def prompt_scores(images: Tensor, prompt: Tensor, classifier: ShapeClassifier) -> dict[str, float]:
    """The share of pictures with both colours of the prompt, and the share with its shape.

    Raises Problem if a prompt lacks one of its three words, because then nothing is right or wrong.
    """
    return {"colour accuracy": colours_right(images, prompt).float().mean().item(),
            "shape accuracy": shapes_right(images, prompt, classifier).float().mean().item()}


def condition_scores(kind: str, images: Tensor, truth: Batch) -> dict[str, float]:
    """How well images follow the condition of ``truth``: means over the pictures.

    Every condition has the mask IoU. Edges also have the edge F1, palettes the palette error, and
    poses the angle error in degrees and the place error in pixels. Another condition has no score,
    so it raises Problem. A picture without a shape has no pose, so the pose errors leave it out and
    warn.
    """
    if not isinstance(truth, Batch):
        raise Problem(f"the truth is a {type(truth).__name__}; give a Batch, such as the first result of held_out")
    scores = {"mask IoU": mask_iou(mask_of(images), truth.mask).mean().item()}
    if kind == "edge":
        scores["edge F1"] = edge_f1(images, condition_of(kind, truth)).mean().item()
    elif kind == "palette":
        scores["palette error"] = palette_error(images, condition_of(kind, truth)).mean().item()
    elif kind == "pose":
        degrees, pixels = pose_errors(images, truth.scenes)
        blank = int(pixels.isnan().sum())
        if blank:
            warnings.warn(f"{blank} of {len(images)} pictures show no shape, so they have no pose; the errors of angle"
                          " and place are those of the other pictures", stacklevel=2)
        scores["angle error"] = degrees.nanmean().item()
        scores["place error"] = pixels.nanmean().item()
    else:
        raise Problem(f"there is no score for the condition {kind!r}; give one of {', '.join(CHANNELS)}")
    return scores


def conflicting(prompt: Tensor) -> Tensor:
    """The same prompts (n, 3), each with the word for another shape."""
    check_tokens(prompt)
    check_words(prompt, [1], "shape")
    other = prompt.clone()
    other[:, 1] = prompt[:, 1] % len(SHAPES) + 1
    return other


def loss_of_condition(base: UNet, control: ControlNet, kind: Kind, n: int = 128,
                      seed: int = HELD_OUT) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The loss on n held-out pictures as a function of their condition, and their true condition (n, c, 64, 64).

    Times and noise are the same at each call.
    """
    check_seed(seed)
    known = getattr(control, "kind", None)  # your own network need not have this attribute
    if known and isinstance(kind, str) and kind in CHANNELS and kind != known:
        warnings.warn(f"the control is the {known} ControlNet, and it is measured with conditions of the kind"
                      f" {kind!r}", stacklevel=2)
    generator = torch.Generator().manual_seed(int(seed))
    truth = random_batch(n, generator)
    t, eps = random_times_and_noise(truth.x0, generator)
    true_condition = condition_of(kind, truth)
    x0, t, eps, prompt, true_condition = moved(base, WHOLE, truth.x0, t, eps, truth.prompt, true_condition)

    @torch.no_grad()
    def loss(condition: Tensor) -> Tensor:
        check_images("the conditions", condition)
        check_same_shape("the condition", condition, "the true one", true_condition)
        model = predictor(base, prompt, [Control(control, condition)])
        return noise_loss(model, x0, t, eps, base.prediction_type)

    return loss, true_condition


def check_several(condition: Tensor) -> None:
    """Raise Problem unless there are conditions (n, c, h, w) of at least 2 pictures."""
    check_tensor("the conditions", condition)
    if condition.dim() != 4 or len(condition) < 2:
        raise Problem(f"the conditions have the shape {tuple(condition.shape)}; give (n, c, h, w) with n of at least 2,"
                      " since each picture needs another one's condition")


def one_number(loss_with: Callable[[Tensor], Tensor | float]) -> Callable[[Tensor], Tensor]:
    """The same loss. It raises Problem where it returns anything but one number."""

    def checked(condition: Tensor) -> Tensor:
        loss = torch.as_tensor(loss_with(condition))
        if loss.numel() != 1:
            raise Problem(f"loss_with returned a tensor of the shape {tuple(loss.shape)}; let it return one number")
        return loss

    return checked


@torch.no_grad()
def shuffle_gap(loss_with: Callable[[Tensor], Tensor], condition: Tensor) -> float:
    """The loss when every picture gets its neighbour's condition, minus the loss with its own.

    ``loss_with`` computes the loss for a condition (n, c, h, w), with the same noise and times at
    each call. Rolling by one leaves no condition in its place. 0 means that the model ignores its
    condition.
    """
    check_several(condition)
    loss_with = one_number(loss_with)
    return (loss_with(condition.roll(1, 0)) - loss_with(condition.clone())).item()


def gap(base: UNet, control: ControlNet, kind: Kind, n: int = 128, seed: int = HELD_OUT) -> float:
    """The condition-shuffle gap of a ControlNet on n held-out pictures with their prompts.

    Raises Problem for n = 1: a single picture has no neighbour, so the gap would always be 0.
    """
    check_count("n", n)
    if n < 2:
        raise Problem(f"n is {n}; give at least 2 pictures, since each needs another one's condition")
    return shuffle_gap(*loss_of_condition(base, control, kind, n, seed))


# %% The table


def show(name: str, scores: dict[str, float]) -> None:
    """Print one row."""
    print(f"{name:40}" + "".join(f"{key} {value:.3f}   " for key, value in scores.items()), flush=True)


def show_scores(base: UNet, controls: dict[str, ControlNet], classifier: ShapeClassifier,
                n: int = 256) -> None:
    """Print the whole table for n held-out pictures."""
    truth, noise = held_out(n)
    free = show_base(base, classifier, truth, noise)
    used = {kind: Control(net, condition_of(kind, truth)) for kind, net in controls.items()}
    for kind, control in used.items():
        show_control(base, kind, control, classifier, truth, noise, free)
        show(f"{kind}: condition-shuffle gap", {"loss": gap(base, control.net, kind)})
    if len(used) > 1:
        images = sample(base, "", noise, list(used.values()), progress="composed")
        scores = {}
        for kind in used:
            scores |= condition_scores(kind, images, truth)
        show(" + ".join(used) + ", empty prompt", scores)


def show_base(base: UNet, classifier: ShapeClassifier, truth: Batch, noise: Tensor) -> Tensor:
    """Print how the base follows its prompts. Returns its pictures (n, 3, 64, 64)."""
    show("prompt: real pictures (ceiling)", prompt_scores(truth.image, truth.prompt, classifier))
    free = sample(base, truth.prompt, noise, progress="base")
    show("prompt: base", prompt_scores(free, truth.prompt, classifier))
    right = shapes_right(free, truth.prompt, classifier).float()
    of_each = {}
    for i, shape in enumerate(SHAPES):
        if i in truth.scenes.shape:
            of_each[shape] = right[truth.scenes.shape == i].mean().item()
    show("prompt: base, shape accuracy of each", of_each)
    show("prompt: shuffled prompts (floor)", prompt_scores(free, truth.prompt.roll(1, 0), classifier))
    return free


def show_control(base: UNet, kind: str, control: Control, classifier: ShapeClassifier, truth: Batch,
                 noise: Tensor, free: Tensor) -> None:
    """Print how one ControlNet follows its condition, with the right, an empty and a conflicting prompt.

    ``free``: the base's pictures for the same prompts and noise, without control.
    """
    follows = partial(condition_scores, kind)
    right = sample(base, truth.prompt, noise, [control], progress=f"{kind}, right")
    empty = sample(base, "", noise, [control], progress=f"{kind}, empty")
    other = sample(base, conflicting(truth.prompt), noise, [control], progress=f"{kind}, conflicting")
    neighbour = truth.map(lambda tensor: tensor.roll(1, 0))
    show(f"{kind}: real pictures (ceiling)", follows(truth.image, truth))
    show(f"{kind}: ControlNet, right prompt", follows(right, truth) | prompt_scores(right, truth.prompt, classifier))
    show(f"{kind}: ControlNet, empty prompt", follows(empty, truth))
    colours = {"colour accuracy": colours_right(other, truth.prompt).float().mean().item()}
    show(f"{kind}: ControlNet, conflicting prompt", follows(other, truth) | colours)
    show(f"{kind}: no control, right prompt", follows(free, truth))
    show(f"{kind}: shuffled conditions (floor)", follows(right, neighbour))
