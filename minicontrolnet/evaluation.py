"""The table of scores: 256 held-out pictures, each number between its ceiling and its floor."""

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from .conditions import condition_of
from .controlnet import ControlNet, guided, predictor, steer
from .diffusion import Model, ddim, noise_loss
from .metrics import (ShapeClassifier, colours_right, edge_f1, mask_iou, mask_of, palette_error,
                      shapes_right, shuffle_gap)
from .shapes import Draw, draw, to_image
from .training import draw_noise, to_device_of
from .unet import UNet

HELD_OUT = 10_000  # seed of the held-out pictures; training uses small seeds
GUIDANCE = 2.5


def held_out(n: int, seed: int = HELD_OUT) -> tuple[Draw, Tensor]:
    """n pictures that no training saw, and the noise (n, 3, 32, 32) to start sampling from."""
    generator = torch.Generator().manual_seed(seed)
    truth = draw(n, generator)
    return truth, torch.randn(truth.x0.shape, generator=generator)


def sample_in_batches(make_model: Callable[[slice], Model], noise: Tensor, steps: int = 25, batch: int = 16,
                      progress: str | None = None) -> Tensor:
    """Draw pictures (n, 3, 32, 32) in [0, 1] from noise, ``batch`` at a time.

    ``make_model`` is asked for the model of each slice of the n pictures.
    """
    parts = [slice(i, i + batch) for i in range(0, len(noise), batch)]
    bar = tqdm(parts, progress, disable=progress is None)
    done = [ddim(make_model(part), noise[part], steps) for part in bar]
    return to_image(torch.cat(done))


def base_scores(images: Tensor, prompt: Tensor, classifier: ShapeClassifier) -> dict[str, float]:
    """The shares of pictures whose two colours, and whose shape, are the prompt's."""
    return {"colour accuracy": colours_right(images, prompt).float().mean().item(),
            "shape accuracy": shapes_right(images, prompt, classifier).float().mean().item()}


def condition_scores(kind: str, images: Tensor, mask: Tensor, condition: Tensor) -> dict[str, float]:
    """Mask IoU (n, 1, 32, 32 masks) and the error in what the condition shows, means over pictures."""
    iou = {"mask IoU": mask_iou(mask_of(images), mask).mean().item()}
    if kind == "edge":
        return iou | {"edge F1": edge_f1(images, condition).mean().item()}
    return iou | {"palette error": palette_error(images, condition).mean().item()}


def show_scores(base: UNet, controls: dict[str, ControlNet], classifier: ShapeClassifier,
                n: int = 256) -> None:
    """Print the whole table for n held-out pictures."""
    truth, noise = held_out(n)
    real, empty = to_image(truth.x0), torch.zeros_like(truth.prompt)
    row = lambda name, scores: print(f"{name:40}" + "".join(f"{k} {v:.3f}   " for k, v in scores.items()), flush=True)

    def drawn(name: str, prompt: Tensor, *pairs: tuple[ControlNet, Tensor]) -> Tensor:
        model = lambda part: guided(base, prompt[part], GUIDANCE, *(steer(c, x[part]) for c, x in pairs))
        return sample_in_batches(model, noise, progress=name)

    row("prompt: real pictures (ceiling)", base_scores(real, truth.prompt, classifier))
    free = drawn("base", truth.prompt)
    row("prompt: base", base_scores(free, truth.prompt, classifier))
    row("prompt: shuffled prompts (floor)", base_scores(free, truth.prompt.roll(1, 0), classifier))
    for kind, control in controls.items():
        condition = condition_of(kind, truth.image)
        score = lambda images: condition_scores(kind, images, truth.mask, condition)
        row(f"{kind}: real pictures (ceiling)", score(real))
        right = drawn(kind, truth.prompt, (control, condition))
        row(f"{kind}: ControlNet, right prompt", score(right) | base_scores(right, truth.prompt, classifier))
        row(f"{kind}: ControlNet, empty prompt", score(drawn(kind, empty, (control, condition))))
        row(f"{kind}: no control, right prompt", score(free))
        row(f"{kind}: shuffled conditions (floor)", condition_scores(kind, right, truth.mask.roll(1, 0), condition.roll(1, 0)))
        row(f"{kind}: condition-shuffle gap", {"loss": gap(base, control, kind)})


def loss_of_condition(base: UNet, control: ControlNet, kind: str, n: int = 128,
                      seed: int = HELD_OUT) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The loss on n held-out pictures as a function of the condition, and their true condition."""
    generator = torch.Generator().manual_seed(seed)
    truth = draw(n, generator)
    t, eps = draw_noise(truth.x0, generator)
    x0, t, eps, prompt, condition = to_device_of(
        base, truth.x0, t, eps, truth.prompt, condition_of(kind, truth.image))

    @torch.no_grad()
    def loss(condition: Tensor) -> Tensor:
        model = predictor(base, prompt, steer(control, condition))
        return noise_loss(model, x0, t, eps, base.predicts)

    return loss, condition


def gap(base: UNet, control: ControlNet, kind: str, n: int = 128, seed: int = HELD_OUT) -> float:
    """The condition-shuffle gap of a ControlNet on held-out pictures with their prompts."""
    return shuffle_gap(*loss_of_condition(base, control, kind, n, seed))
