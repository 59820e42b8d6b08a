"""The measures are right on real pictures, and on cases whose answer is known by hand."""

import math

import pytest
import torch
from torch import nn

from minicontrolnet.conditions import detect_edges, palette
from minicontrolnet.measure.classifier import (ShapeClassifier, _standardise, classifier_loss, frechet_distance,
                                               shapes_right, wobble)
from minicontrolnet.measure.pictures import (PAINTS, border, colours_right, edge_f1, mask_iou, mask_of, nearest_colour,
                                             off_palette, palette_error)
from minicontrolnet.shapes import COLOURS, DARK, SHAPES, Scenes, random_batch, render
from minicontrolnet.training import seeded


@pytest.fixture(scope="module")
def real():
    """96 real pictures."""
    return random_batch(96, torch.Generator().manual_seed(0))


def square(top, left, side=24, size=64):
    """A mask (1, 1, size, size) of one square."""
    mask = torch.zeros(1, 1, size, size)
    mask[..., top : top + side, left : left + side] = 1
    return mask


def paint(mask, colour="blue", ground="yellow", dark=DARK):
    """A mask as a picture of two colours."""
    colour, ground = (torch.tensor(COLOURS[name])[:, None, None] for name in (colour, ground))
    return torch.lerp((dark * ground).expand(len(mask), 3, 1, 1), colour, mask)


# %% Masks


def test_mask_of_recovers_the_drawn_mask(real):
    """Without being told the colours: IoU 0.99 on average, soft edges right to a hundredth."""
    found = mask_of(real.image)
    assert mask_iou(found, real.mask).mean() >= 0.99
    assert (found - real.mask).abs().mean() < 0.01
    assert found.min() >= 0 and found.max() <= 1


def test_mask_of_is_exact_on_two_plain_colours():
    """Every pixel of one colour is 1, every pixel of the other 0, whichever is the lighter."""
    mask = square(20, 16)
    for colour, ground, dark in (("blue", "yellow", DARK), ("yellow", "blue", 1.0),
                                 ("red", "red", DARK), ("red", "orange", 1.0)):
        picture = paint(mask, colour, ground, dark)
        torch.testing.assert_close(mask_of(picture), mask, rtol=0, atol=1e-5)
        torch.testing.assert_close(mask_of(picture.flip(1)), mask, rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_picture_of_one_colour_has_no_mask(value, noise):
    """No shape, no NaN: the mask is 0 everywhere, with a little noise too."""
    images = torch.full((2, 3, 64, 64), value)
    images += noise * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    images = images.clamp(0, 1)
    assert torch.equal(mask_of(images), torch.zeros(2, 1, 64, 64))


def test_a_mask_with_a_soft_rim_is_found_as_it_is():
    """The shape's colour is that of its inside, and the outer part of a wide rim does not count."""
    line = torch.arange(64) + 0.5 - 32
    distance = torch.hypot(line[None], line[:, None])
    mask = ((26 - distance) / 16).clamp(0, 1)[None, None]
    found = mask_of(paint(mask))
    expected = mask / mask[mask > 0.6].mean()  # the shape's colour is the mean of what differs most
    torch.testing.assert_close(found, expected.clamp(max=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("side", range(4))
def test_a_shape_at_one_border_is_no_background(side):
    """It covers one whole side of the picture; the other three tell the background."""
    mask = torch.zeros(1, 1, 64, 64)
    mask[:, :, :20] = 1
    mask = mask.rot90(side, (2, 3))
    torch.testing.assert_close(mask_of(paint(mask)), mask, rtol=0, atol=1e-5)


def test_the_border_is_every_outermost_pixel():
    """Corners count twice, and nothing of the inside does."""
    image = torch.arange(20.0).view(1, 4, 5)
    wanted = [0, 1, 2, 3, 4, 15, 16, 17, 18, 19, 0, 5, 10, 15, 4, 9, 14, 19]
    assert sorted(border(image)[0].tolist()) == sorted(wanted)


def test_a_faint_second_colour_is_none():
    """Two colours closer than 0.1 in RGB make no mask, and colours farther apart do."""
    mask = square(20, 20)
    for difference, found in [(0.05, False), (0.07, True)]:
        picture = 0.3 + difference * mask.expand(1, 3, 64, 64)
        assert mask_of(picture).any() == found, "the distance in RGB is the root of 3 times as long"


def test_iou_by_hand(real):
    """A mask with itself has 1, with a disjoint one 0, with its half-overlapping copy 1/3."""
    assert torch.equal(mask_iou(real.mask, real.mask), torch.ones(96))
    assert mask_iou(square(2, 2), square(36, 36)) == 0
    assert mask_iou(square(4, 4), square(4, 16)).item() == pytest.approx(1 / 3)
    assert mask_iou(0.6 * square(4, 4), 0.51 * square(4, 4)) == 1  # cut at one half
    assert mask_iou(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)) == 0  # no NaN
    other = real.mask.roll(1, 0)
    assert torch.equal(mask_iou(real.mask, other), mask_iou(other, real.mask))


# %% Edges and palettes


def test_edges_agree_with_themselves_and_not_with_others():
    """A picture's own edges have F1 = 1, edges elsewhere and no edges 0, without NaN."""
    here, there = paint(square(4, 4)), paint(square(36, 36))
    assert edge_f1(here, detect_edges(here)) == 1
    assert edge_f1(here, detect_edges(there)) == 0
    assert edge_f1(here, torch.zeros(1, 1, 64, 64)) == 0
    assert edge_f1(torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)) == 0


def test_edges_by_hand():
    """Half of the outlines wanted are found, and all found are wanted: F1 is 2/3."""
    one, both = paint(square(4, 4, 16)), paint(square(4, 4, 16) + square(4, 40, 16))
    assert edge_f1(one, detect_edges(both)).item() == pytest.approx(2 / 3, abs=0.01)
    assert edge_f1(both, detect_edges(one)).item() == pytest.approx(2 / 3, abs=0.01)


def test_real_pictures_have_the_edges_of_their_condition(real):
    """The ceiling of edge F1 is 1, and shuffled conditions are far below it."""
    assert (edge_f1(real.image, detect_edges(real.image)) == 1).all()
    assert edge_f1(real.image, detect_edges(real.image).roll(1, 0)).mean() < 0.5


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (1, 1), (-1, 1)])
def test_a_shift_of_one_pixel_costs_iou_and_no_edge(shift):
    """F1 forgives one pixel, two it does not; IoU forgives nothing."""
    mask = square(16, 20)
    moved, far = mask.roll(shift, (2, 3)), mask.roll([2 * s for s in shift], (2, 3))
    edges = detect_edges(paint(mask))
    assert edge_f1(paint(moved), edges) == 1
    assert edge_f1(paint(far), edges) < 1
    assert mask_iou(far, mask) < mask_iou(moved, mask) < 1


def test_palette_error_by_hand(real):
    """A picture has error 0 with its own palette, and the mean difference with a lighter one."""
    images = real.image
    assert palette_error(images, palette(images)).max() < 1e-6
    lighter = 0.5 * palette(images)
    lighter[..., :16, :16] += 0.32  # one cell of sixteen: the mean is 0.02, and the root mean square is 0.08
    torch.testing.assert_close(palette_error(0.5 * images, lighter), torch.full((96,), 0.02))
    torch.testing.assert_close(palette_error(0.5 * images, 0.5 * palette(images) + 0.25), torch.full((96,), 0.25))
    assert palette_error(images, palette(images).roll(1, 0)).mean() > 0.05


# %% Colours and shapes


def test_colours_are_right_on_every_real_picture(real):
    """The ceiling is 1; two swapped colours are wrong, unless they are the same hue."""
    assert colours_right(real.image, real.prompt).all()
    same_hue = real.prompt[:, 0] == real.prompt[:, 2]
    assert same_hue.any()
    assert torch.equal(colours_right(real.image, real.prompt.flip(1)), same_hue)


def test_a_shape_is_lit_and_its_ground_is_dark():
    """A lit ground is as wrong as a dark shape, though the hues are right."""
    mask, prompt = square(16, 16), torch.tensor([[6, 2, 5]])  # blue on yellow
    assert colours_right(paint(mask), prompt).all()
    assert not colours_right(paint(mask, dark=1.0), prompt).any()
    assert not colours_right(DARK * paint(mask, dark=1.0), prompt).any()
    assert not colours_right(paint(1 - mask, "yellow", "blue"), prompt).any()


@pytest.mark.parametrize("word", [0, 2])
def test_one_wrong_colour_is_wrong(real, word):
    """If the prompt had named another colour for shape or ground, no picture would obey."""
    prompt = real.prompt.clone()
    for row in prompt:
        row[word] = next(c for c in range(1, 9) if c not in (row[0], row[2]))
    assert not colours_right(real.image, prompt).any()


def test_nearest_colour_names_each_of_the_16_paints():
    """Each lit and each dark colour is nearest to itself, also when it is a little off."""
    plain = PAINTS.T[None, :, None]  # (1, 3, 1, 16)
    for off in (-0.02, 0.0, 0.02):
        assert nearest_colour(plain + off).flatten().tolist() == list(range(16))


def test_off_palette_is_the_share_of_burnt_pixels(real):
    """Plain colours are at 0, a square of magenta counts its pixels, real pictures are near 0."""
    picture = paint(square(16, 16, side=32))
    assert off_palette(picture) == 0
    picture[..., 20:28, 20:28] = torch.tensor([1.0, 0.0, 1.0])[:, None, None]
    assert off_palette(picture) == 64 / 64**2
    assert 0 < off_palette(real.image[:64]).mean() < 0.05


@pytest.mark.parametrize("reach", [0.05, 0.1, 0.2, 0.5])
def test_a_colour_is_off_by_its_distance_in_rgb(reach):
    """The share of 4096 random colours that are farther than the reach from all 16 paints, counted one by one."""
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    colours = picture[0].flatten(1).T.double()
    paints = [[light * channel for channel in colour] for light in (1, DARK) for colour in COLOURS.values()]
    nearest = torch.cdist(colours, torch.tensor(paints).double()).amin(1)
    assert off_palette(picture, reach).item() == pytest.approx((nearest > reach).double().mean().item(), abs=1e-3)
    if reach == 0.2:
        assert off_palette(picture) == off_palette(picture, 0.2)


def test_colours_are_the_two_most_frequent_ones():
    """A third colour does not matter as long as it is rarer, and the background must be the one at the border."""
    prompt = torch.tensor([[6, 2, 5]])  # blue on yellow
    picture = paint(square(16, 16))
    picture[..., 2:12, 2:22] = torch.tensor(COLOURS["red"])[:, None, None]
    assert colours_right(picture, prompt).all()
    picture[..., 2:14, 2:62] = torch.tensor(COLOURS["red"])[:, None, None]
    assert not colours_right(picture, prompt).any()
    framed = paint(square(16, 16))
    for line in (framed[..., 0, :], framed[..., -1, :], framed[..., 0], framed[..., -1]):
        line[:] = torch.tensor(COLOURS["green"])[:, None]
    assert not colours_right(framed, prompt).any()


def test_shapes_are_right_if_the_classifier_says_so(real):
    """The classifier is shown the masks, and its best class is compared with the second word."""
    seen = []

    def knows(mask):
        seen.append(mask)
        return torch.eye(4)[real.scenes.shape]

    assert shapes_right(real.image, real.prompt, knows).all()
    assert torch.equal(seen[0], mask_of(real.image))
    other = real.prompt.clone()
    other[:, 1] = other[:, 1] % 4 + 1
    assert not shapes_right(real.image, other, knows).any()


def masks(shape, centre, radius, aspect=1.0, angle=0.3):
    """The mask (1, 1, 64, 64) of one shape, placed by hand."""
    number = lambda value: torch.tensor([value])
    scenes = Scenes(number(0), number(shape), number(1), torch.tensor([centre]), number(radius),
                    number(angle), number(aspect))
    return render(scenes)[1]


@pytest.mark.parametrize("shape", range(4))
def test_standard_masks_do_not_depend_on_place_size_and_aspect(shape):
    """Moved, scaled or stretched, a shape keeps its standard mask; another shape has another."""
    difference = lambda a, b: (_standardise(a) - _standardise(b)).abs().mean().item()
    mask = masks(shape, (0.0, 0.0), 0.6)
    same = [masks(shape, (0.2, -0.1), 0.6), masks(shape, (-0.1, 0.25), 0.45),
            masks(shape, (0.0, 0.0), 0.6, aspect=1.3)]
    other = [masks(other, (0.0, 0.0), 0.6) for other in range(4) if other != shape]
    furthest = max(difference(mask, m) for m in same)
    nearest = min(difference(mask, m) for m in other)
    assert furthest < 0.03 and nearest > 3 * furthest


def test_standard_masks_are_centred_and_round(real):
    """Their mean is the centre, and their covariance the same in all directions."""
    slanted = square(16, 16, 32) * torch.ones(64, 64).tril()  # a right-angled triangle
    mask = _standardise(torch.cat([real.mask, slanted]))
    line = (torch.arange(32) + 0.5) / 16 - 1
    weight = mask / mask.sum((2, 3), True)
    x, y = line.view(1, 1, 1, -1), line.view(1, 1, -1, 1)
    mean = lambda values: (weight * values).sum((1, 2, 3))
    for values in (mean(x), mean(y), mean(x * y), mean(x * x) - 1 / 2.8**2, mean(y * y) - 1 / 2.8**2):
        assert values.abs().max() < 0.01


def test_the_classifier_sees_standard_masks_cut_at_one_half(real):
    """Its layers are given the standardised mask; faint noise on it makes no difference at all."""
    classifier = ShapeClassifier()
    cut = (real.mask > 0.5).float()
    expected = nn.Sequential(*classifier)(_standardise(cut))
    assert expected.shape == (96, 4) and torch.equal(classifier(real.mask), expected)
    noisy = cut + torch.rand(cut.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    noisy = noisy.clamp(0, 1)
    assert torch.equal(classifier(noisy), expected)
    assert torch.equal(classifier.features(noisy), classifier.features(cut))


def test_an_empty_mask_gives_scores_without_nan():
    """A picture without a shape is classified as something, not as NaN."""
    assert ShapeClassifier()(torch.zeros(2, 1, 64, 64)).isfinite().all()


# %% The classifier that ships


@pytest.fixture
def accuracy(shipped):
    """A function: the share of pictures whose shape the shipped classifier names."""
    return lambda images, truth: shapes_right(images, truth.prompt, shipped.classifier).float().mean().item()


@pytest.fixture(scope="module")
def many():
    """256 real pictures that no training saw."""
    return random_batch(256, torch.Generator().manual_seed(20_000))


def test_the_classifier_knows_every_real_picture(many, accuracy):
    """Its ceiling is 1.00, and each of the four shapes is named."""
    assert accuracy(many.image, many) == 1
    assert (many.scenes.shape.bincount() > 40).all() and len(SHAPES) == 4


@pytest.mark.parametrize("std", [0.01, 0.02, 0.03])
def test_noise_that_is_hardly_seen_does_not_fool_the_classifier(many, std, accuracy):
    """With noise of a standard deviation up to 0.03 on real pictures: at least 0.99."""
    noise = torch.randn(many.image.shape, generator=torch.Generator().manual_seed(1))
    assert accuracy((many.image + std * noise).clamp(0, 1), many) >= 0.99


def test_a_wobbly_circle_is_a_circle(many, accuracy):
    """Real pictures warped smoothly by 1.2 pixels: at least 0.95."""
    warped = wobble(many.image, torch.full((256,), 1.2), torch.Generator().manual_seed(2))
    assert (warped - many.image).abs().amax((1, 2, 3)).min() > 0.05  # each one is changed
    assert accuracy(warped, many) >= 0.95


def test_wobble_moves_pixels_smoothly_and_as_far_as_it_says():
    """On a picture of x and y, the values tell how far each pixel came: up to 0, 1 and 3 pixels."""
    line = torch.arange(64.0)
    y, x = torch.meshgrid(line, line, indexing="ij")
    place = torch.stack([x, y]).expand(3, 2, 64, 64)
    moved = wobble(place, torch.tensor([0.0, 1.0, 3.0]), torch.Generator().manual_seed(0)) - place
    inside = moved[..., 4:-4, 4:-4]  # at the border a pixel may come from nowhere
    farthest = inside.norm(dim=1).amax((1, 2))
    assert farthest[0] < 1e-4 and 0.5 < farthest[1] < 1.01 and 1.5 < farthest[2] < 3.01
    assert inside[2].diff(dim=1).norm(dim=0).max() < 1  # neighbours stay neighbours


def test_the_classifier_is_trained_on_wobbly_masks_of_fresh_pictures(shipped):
    """Its loss is the cross-entropy, ln 4 for equal scores, and differs from batch to batch."""
    flat, generator = ShapeClassifier(), torch.Generator().manual_seed(0)
    for parameter in flat[-1].parameters():
        torch.nn.init.zeros_(parameter)
    assert classifier_loss(flat, generator).item() == pytest.approx(math.log(4))
    classifier = shipped.classifier
    first, second = (classifier_loss(classifier, generator).item() for _ in range(2))
    assert first != second and max(first, second) < 0.3


# %% Sets of pictures


def test_frechet_distance_of_known_gaussians():
    """|m|^2 + sum (sqrt(var_a) - sqrt(var_b))^2 if the axes agree; 0 for a set with itself."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3).double()
    corners = corners / corners.T.cov().diagonal().sqrt()  # mean 0, covariance the identity
    other = corners * torch.tensor([2.0, 3.0, 0.5]) + torch.tensor([1.0, 0.0, -2.0])
    expected = 5 + 1 + 4 + 0.25
    assert frechet_distance(corners, other) == pytest.approx(expected, abs=1e-9)
    assert frechet_distance(other, corners) == pytest.approx(expected, abs=1e-9)
    assert frechet_distance(other, other) == pytest.approx(0, abs=1e-9)
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))[0]
    assert frechet_distance(corners @ turn, other @ turn) == pytest.approx(expected, abs=1e-9)


def test_frechet_distance_is_computed_in_float64():
    """Features whose means are large lose their covariance in float32."""
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 200, 4, generator=generator)
    plain = frechet_distance(one, two)
    assert frechet_distance(one.double() + 3e3, two.double() + 3e3) == pytest.approx(plain, rel=1e-6)
    exact = (one * 1e3).round() + 2**20, (two * 1e3).round() + 2**20
    assert frechet_distance(*exact) == pytest.approx(frechet_distance(exact[0] - 2**20, exact[1] - 2**20), rel=1e-9)


def test_features_are_means_of_the_last_maps(shipped):
    """Of what is behind the last ReLU, which is not negative."""
    masks = random_batch(8, torch.Generator().manual_seed(5)).mask
    features = shipped.classifier.features(masks)
    maps = nn.Sequential(*list(shipped.classifier)[:6])(_standardise((masks > 0.5).float()))
    assert torch.equal(features, maps.mean((2, 3))) and (maps >= 0).all() and maps.shape == (8, 32, 4, 4)


def test_the_classifier_learns_from_pictures_distorted_by_up_to_a_pixel_and_a_half():
    """The loss by hand: new pictures, their distortion, their masks as they are found, and the cross-entropy."""
    classifier = seeded(0, ShapeClassifier)
    generator, again = (torch.Generator().manual_seed(3) for _ in range(2))
    loss = classifier_loss(classifier, generator)
    batch = random_batch(64, again)
    images = wobble(batch.image, 1.5 * torch.rand(64, generator=again), again)
    chance = classifier(mask_of(images)).softmax(1)[torch.arange(64), batch.scenes.shape]
    assert loss.item() == pytest.approx(-chance.log().mean().item(), rel=1e-4)
    assert torch.equal(generator.get_state(), again.get_state())
    halves = slice(0, 32), slice(32, 64)
    parts = [classifier_loss(classifier, torch.Generator().manual_seed(3), half) for half in halves]
    assert sum(parts).item() / 2 == pytest.approx(loss.item(), rel=1e-5)


def test_features_are_what_the_classifier_decides_by(real, shipped):
    """Real masks and their halves differ less from each other than from masks of one shape."""
    classifier, masks = shipped.classifier, real.mask
    features = classifier.features(masks)
    assert features.shape == (len(masks), 32)
    one, two = features[::2], features[1::2]
    stars = features[real.scenes.shape == 3]
    assert frechet_distance(one, two) < frechet_distance(one, stars) / 4
