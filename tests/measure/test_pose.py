"""The pose: a stick figure from the scene's truth, and how its errors are measured."""

import math

import pytest
import torch

from minicontrolnet.conditions import CHANNELS, condition_of, stick_figure
from minicontrolnet.measure.scores import condition_scores
from minicontrolnet.measure.classifier import wobble
from minicontrolnet.measure.pictures import pose_errors
from minicontrolnet.shapes import SHAPES, Scenes, random_batch, render, tip_of


@pytest.fixture(scope="module")
def real():
    """96 real pictures."""
    return random_batch(96, torch.Generator().manual_seed(0))


def one(shape="star", centre=(0.1, -0.2), radius=0.6, angle=0.2, aspect=1.0) -> Scenes:
    """A blue shape on yellow, placed by hand."""
    tensor = lambda value: torch.tensor([value])
    return Scenes(tensor(5), tensor(list(SHAPES).index(shape)), tensor(4), tensor(centre),
                  tensor(radius), tensor(angle), tensor(aspect))


def test_the_tip_of_an_upright_shape_is_above_its_centre():
    assert torch.allclose(tip_of(one(angle=0.0)), torch.tensor([[0.1, -0.8]]))
    assert torch.allclose(tip_of(one(angle=math.pi / 2)), torch.tensor([[0.7, -0.2]]))
    wide = tip_of(one(angle=0.0, aspect=1.44))  # 1.2 times lower
    assert torch.allclose(wide, torch.tensor([[0.1, -0.7]]))


@pytest.mark.parametrize("angle, aspect", [(0.3, 1.2), (-0.4, 0.85)])
def test_a_triangle_points_where_its_pose_points(angle, aspect):
    """The corner of the triangle lies on the line from its centre through its tip."""
    scenes = one("triangle", (0.0, 0.1), angle=angle, aspect=aspect)
    at = render(scenes, 512)[1][0, 0].gt(0.5).nonzero().flip(1) + 0.5
    corner = at[at[:, 1].argmin()] / 256 - 1
    arrow, pose = corner - scenes.centre[0], (tip_of(scenes) - scenes.centre)[0]
    assert torch.cosine_similarity(arrow, pose, 0) > 0.998
    assert (arrow.norm() / pose.norm()).item() == pytest.approx(1.18, abs=0.03)


def test_a_stick_figure_by_hand():
    """A line 2 pixels wide from the centre straight up, a dot of radius 3 at the centre."""
    figure = stick_figure(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -0.5]]))
    assert figure.shape == (1, 1, 64, 64) and figure.min() == 0 and figure.max() == 1
    assert figure[0, 0, 20].nonzero().flatten().tolist() == [31, 32]
    assert (figure[0, 0, 31] > 0.5).sum() == 6 and figure[0, 0, 36:].sum() == 0
    assert figure[0, 0, :14].sum() == 0 and figure[0, 0, 17].sum() == 2


def test_a_pose_does_not_tell_the_shape_or_its_colours(real):
    other = real.scenes._replace(shape=real.scenes.shape.flip(0), colour=real.scenes.colour.flip(0))
    poses = condition_of("pose", real)
    assert poses.shape == (96, CHANNELS["pose"], 64, 64)
    assert torch.equal(poses, condition_of("pose", real._replace(scenes=other)))


def test_real_pictures_have_their_own_pose(real):
    """The ceiling: 0.14 degrees and 0.06 pixels on average; a circle has no angle."""
    degrees, pixels = pose_errors(real.image, real.scenes)
    circle = real.scenes.shape == list(SHAPES).index("circle")
    assert torch.equal(degrees.isnan(), circle)
    assert degrees[~circle].mean() < 0.2 and degrees[~circle].max() < 3
    assert pixels.mean() < 0.1 and pixels.max() < 0.6
    noise = 0.03 * torch.randn(real.image.shape, generator=torch.Generator().manual_seed(1))
    degrees, pixels = pose_errors((real.image + noise).clamp(0, 1), real.scenes)
    assert degrees.nanmean() < 0.2 and pixels.mean() < 0.1
    wobbly = wobble(real.image, torch.full((96,), 1.2), torch.Generator().manual_seed(2))
    degrees, pixels = pose_errors(wobbly, real.scenes)
    assert degrees.nanmean() < 1 and pixels.mean() < 0.4


@pytest.mark.parametrize("shape", ["square", "triangle", "star"])
@pytest.mark.parametrize("turn", [-0.3, -0.1, 0.2])
def test_errors_by_hand(shape, turn):
    """A shape turned and moved by a known amount is off by that amount, also when stretched."""
    found = render(one(shape, (0.1, -0.1), angle=0.1 + turn))[0]
    degrees, pixels = pose_errors(found, one(shape, (0.1, 0.1), angle=0.1))
    assert degrees.item() == pytest.approx(math.degrees(abs(turn)), abs=1)
    assert pixels.item() == pytest.approx(0.2 * 32, abs=0.3)
    wide = render(one(shape, aspect=1.2))[0]
    assert pose_errors(wide, one(shape, aspect=1.2))[0] < 1


def test_a_picture_without_a_shape_has_no_pose(real):
    """Its place used to be the middle, which is near the place of many scenes."""
    images = real.image.clone()
    images[1::2] = 0.5
    degrees, pixels = pose_errors(images, real.scenes)
    assert degrees[1::2].isnan().all() and pixels[1::2].isnan().all()
    expected = pose_errors(real.image, real.scenes)
    assert torch.equal(pixels[::2], expected[1][::2])
    assert torch.equal(degrees[::2].nan_to_num(-1), expected[0][::2].nan_to_num(-1))
    with pytest.warns(UserWarning, match="48 of 96 pictures show no shape"):
        scores = condition_scores("pose", images, real)
    assert scores["place error"] == pytest.approx(expected[1][::2].mean().item(), rel=1e-5)


def test_scores_stand_between_ceiling_and_floor(real):
    ceiling = condition_scores("pose", real.image, real)
    floor = condition_scores("pose", real.image, real.map(lambda tensor: tensor.roll(1, 0)))
    assert ceiling["angle error"] < 1 and floor["angle error"] > 10
    assert ceiling["place error"] < 1 and floor["place error"] > 5


def test_the_angle_is_that_of_the_arrows_in_the_picture():
    """The shapes are stretched, so a tilt by 30 degrees turns their arrows by 24 to 37."""
    scenes = random_batch(24, torch.Generator().manual_seed(5)).scenes
    turned = scenes._replace(angle=scenes.angle + math.radians(30))
    arrows = [tip_of(each) - each.centre for each in (scenes, turned)]
    before, after = (torch.atan2(arrow[:, 0], -arrow[:, 1]).rad2deg() for arrow in arrows)
    assert 24 < (after - before).min() and (after - before).max() < 37
    degrees, _ = pose_errors(render(turned)[0], scenes)
    seen = scenes.shape == list(SHAPES).index("triangle")
    assert degrees[seen].tolist() == pytest.approx((after - before)[seen].tolist(), abs=1.5)
