"""Conditions: the detectors on pictures whose edges are known."""

import math

import pytest
import torch
import torch.nn.functional as F

from minicontrolnet.conditions import (CHANNELS, CONDITIONS, _blur, _gradient, _is_ridge, condition_of, detect_edges,
                                       palette, roughen, spread, stick_figure)
from minicontrolnet.errors import Problem
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
    difference = detect_edges(torch.lerp(ground, front, mask)) - detect_edges(mask.expand(-1, 3, -1, -1))
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


@pytest.mark.parametrize("name", ["depth", "", "edges", None, 3])
def test_an_unknown_condition_is_a_problem(name):
    """It is never taken for another one; a function of the batch is a condition of its own."""
    batch = random_batch(2, torch.Generator().manual_seed(0))
    with pytest.raises(Problem, match=repr(name)):
        condition_of(name, batch)
    assert torch.equal(condition_of(lambda given: given.mask, batch), batch.mask)
    assert CONDITIONS.keys() == CHANNELS.keys()
    for kind, channels in CHANNELS.items():
        assert condition_of(kind, batch).shape == (2, channels, 64, 64)


# %% The parts of Canny


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_blur_is_torchvisions(dtype):
    """Convolution with a 3x3 Gaussian of sigma 0.7 and reflected borders."""
    torchvision = pytest.importorskip("torchvision.transforms.functional")
    images = torch.rand(2, 3, 17, 12, generator=torch.Generator().manual_seed(0), dtype=dtype)
    torch.testing.assert_close(_blur(images), torchvision.gaussian_blur(images, 3, 0.7))


def test_the_gradient_is_sobels():
    """Cross-correlation with Sobel's kernels, whose weights are 1, 2, 1 over 8."""
    images = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = torch.tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64).view(1, 1, 3, 3) / 8
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    gx, gy = _gradient(images)
    torch.testing.assert_close(gx.flatten(0, 1)[:, None], F.conv2d(padded, kernel))
    torch.testing.assert_close(gy.flatten(0, 1)[:, None], F.conv2d(padded, kernel.mT))


def test_ridges_are_maxima_along_one_of_eight_directions():
    """Pixel by pixel: the gradient's angle, rounded to 45 degrees, leads to two neighbours."""
    generator = torch.Generator().manual_seed(0)
    strength = torch.rand(1, 1, 12, 14, generator=generator)
    gx, gy = torch.randn(2, 1, 1, 12, 14, generator=generator)
    found = _is_ridge(strength, gx, gy)[0, 0]
    padded = F.pad(strength, (1, 1, 1, 1))[0, 0]
    for y in range(12):
        for x in range(14):
            angle = 45 * round(math.degrees(math.atan2(gy[0, 0, y, x], gx[0, 0, y, x])) / 45)
            dx, dy = round(math.cos(math.radians(angle))), round(math.sin(math.radians(angle)))
            here = padded[y + 1, x + 1]
            wanted = here > padded[y + 1 + dy, x + 1 + dx] and here > padded[y + 1 - dy, x + 1 - dx]
            assert found[y, x] == wanted, (y, x, angle)


def grey(pixels):
    """A grey picture (1, 3, h, w) of values (h, w)."""
    return pixels.expand(1, 3, *pixels.shape)


def test_noise_of_single_pixels_is_blurred():
    """A pixel of 0.8 has 0.4 times the gradient of a step of 1 without the blur, and 0.23 times with it."""
    picture = torch.zeros(40, 40)
    picture[:, 20:] = 1
    picture[10, 6] = 0.8
    edges = detect_edges(grey(picture))[0, 0]
    assert edges[:, 20].sum() + edges[:, 19].sum() == 40 and edges[:, :15].sum() == 0


def test_weak_edges_count_where_they_touch_strong_ones():
    """Hysteresis: a step whose height falls from 1 to 0 is followed down to the low threshold, and no farther.

    A step of 0.2 that touches nothing is no edge.
    """
    height = torch.linspace(1, 0, 80)[:, None]
    picture = torch.zeros(80, 60)
    picture[:, 30:50] = height
    edges = detect_edges(grey(picture))[0, 0]
    followed = edges[:, 28:32].amax(1)
    last = int(followed.nonzero().max())
    assert 1 - last / 79 == pytest.approx(0.15, abs=0.03), "the low threshold is 0.15 of the steepest gradient"
    assert followed[: last + 1].all()
    weak = torch.zeros(40, 60)
    weak[:, 40:] = 1
    weak[:, 10:25] = 0.2
    edges = detect_edges(grey(weak))[0, 0]
    assert edges[:, 36:44].any() and not edges[:, :30].any()


def test_strong_edges_are_those_above_the_high_threshold():
    """A step of 0.31 beside one of 1 is an edge of its own, and a step of 0.29 is none."""
    for height, found in [(0.31, True), (0.29, False)]:
        picture = torch.zeros(40, 60)
        picture[:, 40:] = 1
        picture[:, 10:25] = height
        assert detect_edges(grey(picture))[0, 0, :, :30].any() == found


def test_a_gradient_below_two_hundredths_is_no_edge():
    """Such are rounding errors of a plain picture."""
    for height, found in [(0.01, False), (0.2, True)]:
        picture = torch.full((40, 40), 0.5)
        picture[:, 20:] += height
        assert detect_edges(grey(picture)).any() == found


def test_of_two_equal_pixels_one_is_kept():
    """A sharp step has the same gradient on both of its sides, in all four directions."""
    step = (torch.arange(40) >= 20).float().expand(40, 40)
    for picture in (step, step.flip(1), step.T, step.T.flip(0)):
        edges = detect_edges(grey(picture))[0, 0]
        assert edges.sum() == 40 and {*edges.sum(0).tolist()} in ({0, 40}, {1})


def test_edges_are_found_in_the_channel_where_they_are_steepest():
    """An edge in blue alone is as good as one in red alone."""
    picture = torch.zeros(3, 3, 32, 32)
    for channel in range(3):
        picture[channel, channel, :, 16:] = 1
    edges = detect_edges(picture)
    assert edges[0].sum() == 32 and torch.equal(edges[0], edges[1]) and torch.equal(edges[1], edges[2])


def test_spread_fills_connected_parts():
    """With the largest value that the start has in each part; over corners, too; other parts stay empty."""
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, 1, 1:5] = mask[0, 0, 2, 5] = mask[0, 0, 6, 1:4] = 1
    start = torch.zeros(1, 1, 8, 8)
    start[0, 0, 1, 1], start[0, 0, 2, 5], start[0, 0, 4, 4] = 2, 3, 9
    wanted = 3 * mask
    wanted[0, 0, 6] = 0
    assert torch.equal(spread(start, mask), wanted)


def test_rough_strokes_are_1_2_or_3_pixels_wide_in_equal_shares():
    """A line of one pixel: its width without the gaps, and where it grows."""
    edges = torch.zeros(3000, 1, 64, 32)
    edges[:, :, :, 20] = 1
    rough = roughen(edges, torch.Generator().manual_seed(0))
    columns = rough.amax(2)[:, 0]
    assert not columns[:, :19].any() and not columns[:, 22:].any()
    widths = columns.sum(1)
    for width in (1, 2, 3):
        assert (widths == width).float().mean().item() == pytest.approx(1 / 3, abs=5 * 0.47 / 3000**0.5)
    assert columns[:, 20].all() and torch.equal(columns[:, 21], (widths == 3).float())


def test_gaps_of_rough_strokes_are_cells_of_4_pixels():
    """On average 2.5 % of the cells are empty, and a picture has up to 5 %."""
    rough = roughen(torch.ones(2000, 1, 64, 64), torch.Generator().manual_seed(0))
    cells = rough.view(2000, 16, 4, 16, 4).transpose(2, 3).flatten(3)
    assert torch.equal(cells.amin(3), cells.amax(3))
    share = 1 - cells[..., 0].mean((1, 2))
    assert share.mean().item() == pytest.approx(0.025, abs=0.002) and share.max() < 0.12
    assert share.std().item() == pytest.approx((0.05**2 / 12 + 0.024 / 256) ** 0.5, rel=0.1)


def test_palettes_are_the_means_of_a_grid_of_4_by_4():
    """Each cell of 16x16 pixels has the mean of its own pixels."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means = images.view(2, 3, 4, 16, 4, 16).mean((3, 5))
    torch.testing.assert_close(palette(images), means.repeat_interleave(16, 2).repeat_interleave(16, 3))


def test_spread_takes_negative_values_up_to_the_border():
    """The window of a pixel at the border holds only pixels of the picture, so 0 is not among its values."""
    mask = torch.ones(1, 1, 4, 4)
    start = torch.full((1, 1, 4, 4), -5.0)
    start[0, 0, 2, 2] = -1
    assert torch.equal(spread(start, mask), torch.full((1, 1, 4, 4), -1.0))


def test_the_steepest_edge_counts_at_the_highest_threshold():
    image = torch.zeros(1, 3, 16, 16)
    image[..., 8:] = 1
    assert detect_edges(image, 0.15, 1.0).sum() == 16
