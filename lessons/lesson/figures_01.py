"""The figures of lesson 01."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet import describe, held_out, mask_of, q_sample, to_image
from minicontrolnet.draw.figures import captions, grid, show, styled


@styled
def noising_and_sampling(picture: Tensor, noise: Tensor, states: list[Tensor], predictions: list[Tensor],
                         times: list[int], prompt: Tensor) -> Figure:
    """Show seven moments of a picture (3, 64, 64) with noise added, and of sampling a new picture.

    states: xt at each of ``times``. predictions: the x0 that was predicted there. All are in [-1, 1].
    """
    pick = torch.linspace(0, len(predictions) - 1, 7).round().int().tolist()
    noised = [q_sample(picture[None], torch.tensor([times[i]], device=noise.device), noise[None])[0] for i in pick]
    rows = noised + [states[i] for i in pick] + [predictions[i] for i in pick]
    return grid(to_image(torch.stack(rows)), 7,
                f'Sampling "{describe(prompt[None])[0]}": each prediction is sharper than the one before',
                [f"t = {times[i]}" for i in pick],
                ["a real\npicture\nwith noise", "sampling:\nxt", "sampling:\npredicted\nx0"])


@styled
def one_prompt_many_poses(stars: Tensor) -> Figure:
    """Show eight pictures of one prompt, and the outlines of four of them on top of each other."""
    figure = Figure(figsize=(12.8, 5.2))
    left, right = figure.subplots(1, 2, width_ratios=[9, 4])
    show(left, stars[:8], 4, 'The prompt "red star on blue" leaves the pose open')
    for i, mask in enumerate(mask_of(stars[:4].cpu())[:, 0]):
        right.contour(mask, [0.5], colors=[f"C{i}"], linewidths=3)
    right.set(title="the upper four, outlined", aspect="equal", xticks=[], yticks=[],
              xlim=(0, 63), ylim=(63, 0))
    right.spines[:].set_visible(True)
    return figure


@styled
def outputs(pictures: Tensor, arms: dict[str, dict]) -> Figure:
    """Show six pictures of each network, with its share of right colours."""
    losses = {"eps": "eps, Eq. 5", "v": "v, weighted", "x0 by Eq. 5": "x0, Eq. 5", "x0": "x0, weighted"}
    left = []
    for name in arms:
        right = torch.tensor(arms[name]["colour accuracy"]).mean()
        left.append(f"{losses[name]}:\n{right:.0%} in the\nright colours")
    return grid(pictures, 6, "Of these four, only x0 with the weighted loss\ngives the right colours after 500 steps",
                captions(held_out(128)[0].prompt[:6]), left)
