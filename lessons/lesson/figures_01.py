"""The figures of lesson 01."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minicontrolnet import describe, held_out, mask_of, q_sample, to_image
from minicontrolnet.draw.figures import captions, grid, show, styled


@styled
def noising_and_sampling(picture: Tensor, noise: Tensor, states: list[Tensor], guesses: list[Tensor],
                         times: list[int], prompt: Tensor) -> Figure:
    """Seven moments: a picture (3, 64, 64) noised to t, and sampling at t with its guess of x0.

    states: xt at each of ``times``; guesses: the x0 that was predicted there. All are in [-1, 1].
    """
    pick = torch.linspace(0, len(guesses) - 1, 7).round().int().tolist()
    noised = [q_sample(picture[None], torch.tensor([times[i]], device=noise.device), noise[None])[0] for i in pick]
    rows = noised + [states[i] for i in pick] + [guesses[i] for i in pick]
    return grid(to_image(torch.stack(rows)), 7,
                f'Drawing "{describe(prompt[None])[0]}": each guess leaves less open',
                [f"t = {times[i]}" for i in pick],
                ["a picture,\nnoised: xt", "drawing:\nxt", "guess\nof x0"])


@styled
def one_prompt_many_poses(stars: Tensor) -> Figure:
    """Eight pictures of one prompt, and the outlines of six of them on top of each other."""
    figure = Figure()
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    show(left, stars[:8], 4, 'One prompt, "red star on blue" ...')
    for i, mask in enumerate(mask_of(stars[:6].cpu())[:, 0]):
        right.contour(mask, [0.5], colors=[f"C{i}"], linewidths=3)
    right.set(title="... many poses (six outlines)", aspect="equal", xticks=[], yticks=[],
              xlim=(0, 63), ylim=(63, 0))
    right.spines[:].set_visible(True)
    return figure


@styled
def targets(pictures: Tensor, right_colours: dict[str, float], steps: int) -> Figure:
    """Six pictures of each arm, with its share of right colours."""
    left = [f"{arm}\n{share:.0%}" for arm, share in right_colours.items()]
    return grid(pictures, 6, f"Right colours after {steps} steps", captions(held_out(128)[0].prompt[:6]), left)
