"""The measures are right on real pictures, and on cases whose answer is known by hand."""

import pytest
import torch
from torch import nn

from minicontrolnet.conditions import detect_edges, palette
from minicontrolnet.metrics import (ShapeClassifier, _standardise, colours_right, edge_f1, frechet_distance, mask_iou,
                                    mask_of, nearest_colour, off_palette, palette_error, shapes_right, shuffle_gap)
from minicontrolnet.pretrained import load_classifier
from minicontrolnet.shapes import COLOURS, Scenes, draw, render, to_grid, to_image


@pytest.fixture(scope="module")
def real():
    """256 real pictures."""
    return draw(256, torch.Generator().manual_seed(0))


def pictures(batch):
    return to_image(batch.x0)


def square(top, left, side=12, size=32):
    """A mask (1, 1, size, size) of one square."""
    mask = torch.zeros(1, 1, size, size)
    mask[..., top : top + side, left : left + side] = 1
    return mask


def paint(mask, colour="blue", ground="yellow"):
    """A mask as a picture of two colours."""
    colour, ground = (torch.tensor(COLOURS[name])[:, None, None] for name in (colour, ground))
    return torch.lerp(ground.expand(len(mask), 3, 1, 1), colour, mask)


# %% Masks


def test_mask_of_recovers_the_drawn_mask(real):
    """Without being told the colours: IoU 0.98 on average, soft edges right to a hundredth."""
    found = mask_of(pictures(real))
    assert mask_iou(found, real.mask).mean() >= 0.98
    assert (found - real.mask).abs().mean() < 0.01
    assert found.min() >= 0 and found.max() <= 1


def test_mask_of_is_exact_on_two_plain_colours():
    """Every pixel of one colour is 1, every pixel of the other 0, whichever is the lighter."""
    mask = square(10, 8)
    for colours in (("blue", "yellow"), ("yellow", "blue"), ("red", "orange")):
        torch.testing.assert_close(mask_of(paint(mask, *colours)), mask, rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_picture_of_one_colour_has_no_mask(value, noise):
    """No shape, no NaN: the mask is 0 everywhere, with a little noise too."""
    images = torch.full((2, 3, 32, 32), value)
    images += noise * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mask_of(images), torch.zeros(2, 1, 32, 32))


def test_iou_by_hand(real):
    """A mask with itself has 1, with a disjoint one 0, with its half-overlapping copy 1/3."""
    assert torch.equal(mask_iou(real.mask, real.mask), torch.ones(256))
    assert mask_iou(square(2, 2), square(18, 18)) == 0
    assert mask_iou(square(4, 4), square(4, 10)).item() == pytest.approx(72 / 216)
    assert mask_iou(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)) == 0  # no NaN
    assert torch.equal(mask_iou(real.mask, real.mask.roll(1, 0)), mask_iou(real.mask.roll(1, 0), real.mask))


# %% Edges and palettes


def edge_map(images):
    """The edges of images, twice as large, as a condition."""
    return detect_edges(images).repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_edges_agree_with_themselves_and_not_with_others():
    """A picture's own edges have F1 = 1, edges elsewhere and no edges 0, without NaN."""
    here, there = paint(square(2, 2)), paint(square(18, 18))
    assert edge_f1(here, edge_map(here)) == 1
    assert edge_f1(here, edge_map(there)) == 0
    assert edge_f1(here, torch.zeros(1, 1, 64, 64)) == 0
    assert edge_f1(torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 64, 64)) == 0


def test_real_pictures_have_the_edges_of_their_condition(real):
    """Edges detected in image space and on the UNet's grid are the same outline: the ceiling is near 1."""
    assert edge_f1(pictures(real), detect_edges(real.image)).mean() > 0.97
    assert edge_f1(pictures(real), detect_edges(real.image).roll(1, 0)).mean() < 0.5


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (1, 1), (-1, 1)])
def test_a_shift_of_one_pixel_costs_iou_and_no_edge(shift):
    """F1 forgives one pixel, two it does not; IoU forgives nothing."""
    mask = square(8, 10)
    moved, far = mask.roll(shift, (2, 3)), mask.roll([2 * s for s in shift], (2, 3))
    assert edge_f1(paint(moved), edge_map(paint(mask))) == 1
    assert edge_f1(paint(far), edge_map(paint(mask))) < 1
    assert mask_iou(far, mask) < mask_iou(moved, mask) < 1


def test_palette_error_by_hand(real):
    """A picture has error 0 with its own palette, and the mean difference with a lighter one."""
    images = pictures(real)
    assert palette_error(images, palette(images)).max() < 1e-6
    torch.testing.assert_close(palette_error(images, palette(images) + 0.25), torch.full((256,), 0.25))
    assert palette_error(images, palette(images).roll(1, 0)).mean() > 0.05


# %% Colours and shapes


def test_colours_are_right_on_every_real_picture(real):
    """The ceiling is 1, and two swapped colours are wrong on every picture."""
    assert colours_right(pictures(real), real.prompt).all()
    assert not colours_right(pictures(real), real.prompt.flip(1)).any()


@pytest.mark.parametrize("word", [0, 2])
def test_one_wrong_colour_is_wrong(real, word):
    """If the prompt had named another colour for shape or ground, no picture would obey."""
    prompt = real.prompt.clone()
    for row in prompt:
        row[word] = next(c for c in range(1, 9) if c not in (row[0], row[2]))
    assert not colours_right(pictures(real), prompt).any()


def test_nearest_colour_names_each_colour_of_the_palette():
    """Every colour is nearest to itself, also when it is a little off."""
    plain = torch.tensor(list(COLOURS.values())).T[None, :, None]  # (1, 3, 1, 8)
    for off in (-0.05, 0.0, 0.05):
        assert nearest_colour(plain + off).flatten().tolist() == list(range(8))


def test_off_palette_is_the_share_of_burnt_pixels(real):
    """Plain colours are at 0, a square of white counts its pixels, and real pictures are near 0."""
    picture = paint(square(8, 8, side=16))
    assert off_palette(picture) == 0
    picture[..., 8:12, 8:12] = 1.0
    assert off_palette(picture) == 16 / 1024
    assert off_palette(pictures(real)).mean() < 0.05


def test_shapes_are_right_if_the_classifier_says_so(real):
    """The classifier is shown the masks, and its best class is compared with the second word."""
    seen = []

    def knows(mask):
        seen.append(mask)
        return torch.eye(4)[real.scenes.shape]

    assert shapes_right(pictures(real), real.prompt, knows).all()
    assert torch.equal(seen[0], mask_of(pictures(real)))
    other = real.prompt.clone()
    other[:, 1] = other[:, 1] % 4 + 1
    assert not shapes_right(pictures(real), other, knows).any()


def masks(shape, centre, radius, aspect=1.0, angle=0.5):
    """The mask (1, 1, 32, 32) of one shape, placed by hand."""
    number = lambda value: torch.tensor([value])
    scenes = Scenes(number(0), number(shape), number(1), torch.tensor([centre]), number(radius),
                    number(angle), number(aspect))
    return to_grid(render(scenes)[1])


@pytest.mark.parametrize("shape", range(4))
def test_standard_masks_do_not_depend_on_place_size_and_aspect(shape):
    """Moved, scaled and stretched, a shape has almost the same standard mask; other shapes have not."""
    difference = lambda a, b: (_standardise(a) - _standardise(b)).abs().mean().item()
    mask = masks(shape, (0.0, 0.0), 0.6)
    same = [masks(shape, (0.2, -0.1), 0.6), masks(shape, (-0.1, 0.25), 0.45),
            masks(shape, (0.0, 0.0), 0.6, aspect=1.3)]
    other = [masks(other, (0.0, 0.0), 0.6) for other in range(4) if other != shape]
    furthest, nearest = max(difference(mask, m) for m in same), min(difference(mask, m) for m in other)
    assert furthest < 0.03 and nearest > 3 * furthest


def test_standard_masks_are_centred_and_round(real):
    """Their mean is the centre, and their covariance the same in all directions."""
    slanted = square(8, 8, 16) * torch.ones(32, 32).tril()  # a right-angled triangle
    mask = _standardise(torch.cat([real.mask, slanted]))
    line = (torch.arange(32) + 0.5) / 16 - 1
    weight = mask / mask.sum((2, 3), True)
    x, y = line.view(1, 1, 1, -1), line.view(1, 1, -1, 1)
    mean = lambda values: (weight * values).sum((1, 2, 3))
    for values in (mean(x), mean(y), mean(x * y), mean(x * x) - 1 / 2.8**2, mean(y * y) - 1 / 2.8**2):
        assert values.abs().max() < 0.01


def test_the_classifier_sees_standard_masks(real):
    """Its layers are given the standardised mask, not the mask itself."""
    classifier = ShapeClassifier()
    expected = nn.Sequential(*classifier)(_standardise(real.mask))
    assert expected.shape == (256, 4) and torch.equal(classifier(real.mask), expected)


def test_an_empty_mask_gives_scores_without_nan():
    """A picture without a shape is classified as something, not as NaN."""
    assert ShapeClassifier()(torch.zeros(2, 1, 32, 32)).isfinite().all()


# %% The shuffle gap


def test_frechet_distance_of_known_gaussians():
    """Sets with known means and covariances: |m|^2 + sum (sqrt(var_a) - sqrt(var_b))^2 if axes agree; 0 with itself."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3).double()
    corners = corners / corners.T.cov().diagonal().sqrt()  # mean 0, covariance the identity
    other = corners * torch.tensor([2.0, 3.0, 0.5]) + torch.tensor([1.0, 0.0, -2.0])
    expected = 5 + 1 + 4 + 0.25
    assert frechet_distance(corners, other) == pytest.approx(expected, abs=1e-9)
    assert frechet_distance(other, corners) == pytest.approx(expected, abs=1e-9)
    assert frechet_distance(other, other) == pytest.approx(0, abs=1e-9)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    assert frechet_distance(corners @ turn, other @ turn) == pytest.approx(expected, abs=1e-9)


def test_features_are_what_the_classifier_decides_by(real):
    """Real masks and their halves differ less from each other than from masks of one shape."""
    classifier, masks = load_classifier(), real.mask
    features = classifier.features(masks)
    assert features.shape == (len(masks), 32)
    one, two = features[::2], features[1::2]
    stars = features[real.scenes.shape == 3]
    assert frechet_distance(one, two) < frechet_distance(one, stars) / 4


def test_shuffle_gap_is_0_exactly_if_the_condition_is_ignored(real):
    """A loss that does not look at the condition, or sees equal ones, has no gap."""
    assert shuffle_gap(lambda condition: real.x0.square().mean(), real.mask) == 0
    assert shuffle_gap(lambda condition: condition.mean(), torch.ones(8, 1, 4, 4)) == 0


def test_shuffle_gap_is_the_price_of_a_wrong_condition():
    """By hand: conditions 0, 1, 2, 3, of which each is given to the next, are off by 1, 1, 1 and 3."""
    condition = torch.arange(4.0).view(4, 1, 1, 1)
    loss = lambda given: (given - condition).square().mean() + 7
    assert shuffle_gap(loss, condition) == (1 + 1 + 1 + 9) / 4
    assert shuffle_gap(lambda given: -loss(given), condition) == -3


def test_shuffle_gap_builds_no_graph():
    """It is a measurement: no gradient is kept."""
    weight, graphs = torch.ones(1, requires_grad=True), []
    shuffle_gap(lambda given: graphs.append((given * weight).mean()) or graphs[-1], torch.ones(2, 1, 1, 1))
    assert not any(loss.requires_grad for loss in graphs)
