"""The table of scores: 256 held-out pictures, each number between its ceiling and its floor."""

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from .conditions import condition_of
from .controlnet import ControlNet, predictor, steer
from .diffusion import Model, ddim, guide, noise_loss
from .metrics import (ShapeClassifier, colours_right, edge_f1, mask_iou, mask_of, palette_error,
                      shapes_right, shuffle_gap)
from .shapes import Draw, draw
from .training import draw_noise
from .unet import UNet

HELD_OUT = 10_000  # seed of the held-out pictures; training uses small seeds
GUIDANCE = 2.0


def held_out(n: int, seed: int = HELD_OUT) -> tuple[Draw, Tensor]:
    """n pictures that no training saw, and the noise (n, 3, 32, 32) to start sampling from."""
    generator = torch.Generator().manual_seed(seed)
    truth = draw(n, generator)
    return truth, torch.randn(truth.x0.shape, generator=generator)


def sample(make_model: Callable[[slice], Model], noise: Tensor, steps: int = 25, batch: int = 32,
           progress: str | None = None) -> Tensor:
    """Draw pictures (n, 3, 32, 32) in [0, 1] from noise, ``batch`` at a time.

    ``make_model`` is asked for the model of each slice of the n pictures.
    """
    parts = [slice(i, i + batch) for i in range(0, len(noise), batch)]
    done = [ddim(make_model(part), noise[part], steps) for part in tqdm(parts, progress, disable=progress is None)]
    return ((torch.cat(done) + 1) / 2).clamp(0, 1)


def draw_base(base: UNet, prompt: Tensor, noise: Tensor, guidance_scale: float = GUIDANCE, **options) -> Tensor:
    """Pictures by the base alone, with guidance."""

    def model(part: slice) -> Model:
        words = prompt[part]
        return guide(predictor(base, torch.zeros_like(words)), predictor(base, words), guidance_scale)

    return sample(model, noise, **options)


def draw_controlled(base: UNet, control: ControlNet, prompt: Tensor, condition: Tensor, noise: Tensor,
                    guidance_scale: float = GUIDANCE, **options) -> Tensor:
    """Pictures with control in both branches of guidance."""

    def model(part: slice) -> Model:
        words, steered = prompt[part], steer(control, condition[part])
        uncond = predictor(base, torch.zeros_like(words), steered)
        return guide(uncond, predictor(base, words, steered), guidance_scale)

    return sample(model, noise, **options)


def base_scores(images: Tensor, prompt: Tensor, classifier: ShapeClassifier) -> dict[str, float]:
    """The shares of pictures whose two colours, and whose shape, are the prompt's."""
    return {"colour accuracy": colours_right(images, prompt).float().mean().item(),
            "shape accuracy": shapes_right(images, prompt, classifier).float().mean().item()}


def edge_scores(images: Tensor, truth: Draw, edges: Tensor) -> dict[str, float]:
    """Mask IoU with the true picture and edge F1 with the condition, means over the pictures."""
    return {"mask IoU": mask_iou(mask_of(images), truth.mask).mean().item(),
            "edge F1": edge_f1(images, edges).mean().item()}


def gap(base: UNet, control: ControlNet, kind: str, n: int = 128, seed: int = HELD_OUT) -> float:
    """The condition-shuffle gap of a ControlNet on held-out pictures with their prompts."""
    generator = torch.Generator().manual_seed(seed)
    truth = draw(n, generator)
    t, eps = draw_noise(truth.x0, generator)

    def loss(condition: Tensor) -> Tensor:
        model = predictor(base, truth.prompt, steer(control, condition))
        return noise_loss(model, truth.x0, t, eps, base.predicts)

    return shuffle_gap(loss, condition_of(kind, truth.image))
