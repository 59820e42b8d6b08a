"""Conditions: the detectors on pictures whose edges are known."""

import pytest
import torch
import torch.nn.functional as F

from minicontrolnet.conditions import condition_of, detect_edges, palette, roughen, stick_figure
from minicontrolnet.shapes import COLOURS, random_batch, tip_of

# %% Detectors


def disc(radius: float, size: int = 64) -> torch.Tensor:
    """The distance (size, size) of each pixel's centre from the middle, and a smooth disc's picture."""
    line = torch.arange(size) + 0.5 - size / 2
    distance = torch.hypot(line[None], line[:, None])
    return distance, (radius + 0.5 - distance).clamp(0, 1).expand(1, 3, size, size)


def parts(mask: torch.Tensor, diagonal: bool) -> int:
    """How many parts of a mask (h, w) hang together, over corners or over sides only."""
    number = (torch.arange(1.0, mask.numel() + 1).view(mask.shape) * mask)[None]
    while True:  # each pixel takes the largest number near it
        rows = F.max_pool2d(number, (1, 3), 1, (0, 1))
        grown = F.max_pool2d(rows if diagonal else number, (3, 1), 1, (1, 0)).maximum(rows) * mask
        if torch.equal(grown, number):
            return int((number.unique() > 0).sum())
        number = grown


@pytest.mark.parametrize("radius", [6, 13.3, 25])
def test_edge_of_a_disc_is_one_thin_closed_ring(radius):
    distance, image = disc(radius)
    edges = detect_edges(image)[0, 0] > 0
    assert (distance[edges] - radius).abs().max() < 1
    assert parts(edges, diagonal=True) == 1 and parts(~edges, diagonal=False) == 2
    # One pixel wide: 8 radius pixels make a ring that turns only over sides, 5.7 one over corners.
    assert edges.sum() < 8 * radius + 4


@pytest.mark.parametrize("front, ground", [("red", "purple"), ("blue", "green"), ("yellow", "cyan")])
def test_edges_of_colours_of_like_luminance(front, ground):
    mask = disc(20)[1]
    front, ground = (torch.tensor(COLOURS[c]).view(1, 3, 1, 1) for c in (front, ground))
    # Two pixels may differ where two gradients are equal but for rounding.
    difference = detect_edges(torch.lerp(ground, front, mask)) - detect_edges(mask)
    assert difference.abs().sum() <= 2


def test_edges_do_not_depend_on_the_other_pictures():
    images = random_batch(4, torch.Generator().manual_seed(0)).image
    assert torch.equal(detect_edges(images), torch.cat([detect_edges(i[None]) for i in images]))


def test_plain_pictures_have_no_edges():
    assert detect_edges(torch.rand(5, 3, 1, 1).expand(-1, -1, 64, 64)).sum() == 0


def test_palette_of_two_halves():
    image = torch.zeros(1, 3, 64, 64)
    image[:, 0, :, :32], image[:, 2, :, 32:] = 1, 0.5
    assert torch.equal(palette(image), image)
    checks = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    assert torch.equal(palette(checks.expand(1, 3, 64, 64).float()), torch.full((1, 3, 64, 64), 0.5))


def test_roughen_keeps_its_promises():
    edges = detect_edges(random_batch(200, torch.Generator().manual_seed(0)).image)
    rough = roughen(edges, torch.Generator().manual_seed(1))
    assert torch.equal(rough, roughen(edges, torch.Generator().manual_seed(1)))
    assert not torch.equal(rough, roughen(edges, torch.Generator().manual_seed(2)))
    assert set(rough.unique().tolist()) == {0, 1}
    near = F.max_pool2d(edges, 3, stride=1, padding=1)
    assert (rough <= near).all(), "a stroke of 3 pixels reaches 1 pixel"
    share = rough.sum((1, 2, 3)) / edges.sum((1, 2, 3))
    assert share.min() > 0.6 and share.max() > 2, "few gaps, and some strokes are wide"
    assert 0.2 < (share <= 1).float().mean() < 0.5, "a third is one pixel wide"


def test_condition_of_is_the_detector_of_its_kind():
    batch = random_batch(2, torch.Generator().manual_seed(0))
    assert torch.equal(condition_of("edge", batch), detect_edges(batch.image))
    assert torch.equal(condition_of("palette", batch), palette(batch.image))
    pose = stick_figure(batch.scenes.centre, tip_of(batch.scenes))
    assert torch.equal(condition_of("pose", batch), pose)
