"""The toy world: picture, prompt and mask tell the same story, and the prompt tells no more."""

import math

import pytest
import torch
from matplotlib.path import Path as Polygon

from minicontrolnet.errors import Problem
from minicontrolnet.shapes import COLOURS, SHAPES, Outline, describe, draw, draw_scenes, render, tokenize


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def corners(scenes, i):
    """The corners of scene i's polygon (2 points, 2), built from the definition alone."""
    outline = list(SHAPES.values())[scenes.shape[i]]
    radius, aspect = scenes.radius[i].item() * outline.scale, scenes.aspect[i].item()
    corners = []
    for k in range(2 * outline.points):
        r = radius * (outline.notch if k % 2 else 1)
        angle = scenes.angle[i].item() + k * math.pi / outline.points
        corners.append([r * math.cos(angle) * aspect**0.5, r * math.sin(angle) / aspect**0.5])
    return torch.tensor(corners, dtype=torch.float64) + scenes.centre[i]


def shoelace(corners):
    """A polygon's exact area."""
    x, y = corners.unbind(1)
    return (x * y.roll(-1) - x.roll(-1) * y).sum().abs().item() / 2


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b))


def test_draw_depends_on_its_generator_alone():
    """Equal seeds draw equal pictures whatever the global generator does; other seeds, others."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = draw(8, seeded())
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    again, other = draw(8, seeded()), draw(8, seeded(1))
    assert same(first[:4], again[:4]) and same(first.scenes, again.scenes)
    assert not torch.equal(first.image, other.image)


def test_ranges_and_shapes_of_a_draw():
    """Images and masks are in [0, 1], x0 is the image's 2x2 means in [-1, 1]."""
    batch = draw(32, seeded())
    assert batch.image.shape == (32, 3, 64, 64) and batch.x0.shape == (32, 3, 32, 32)
    assert batch.mask.shape == (32, 1, 32, 32) and batch.prompt.shape == (32, 3)
    assert 0.1 <= batch.image.min() and batch.image.max() <= 0.9
    assert 0 == batch.mask.min() and batch.mask.max() == 1
    means = sum(batch.image[..., i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    torch.testing.assert_close(batch.x0, means * 2 - 1)


@pytest.mark.parametrize("grid", ["image", "x0"])
def test_picture_prompt_and_mask_agree(grid):
    """Inside the mask every pixel has the prompt's colour, outside that of its ground."""
    batch = draw(64, seeded())
    picture, mask = (batch.image, render(batch.scenes)[1]) if grid == "image" else (
        (batch.x0 + 1) / 2, batch.mask)
    for i, words in enumerate(describe(batch.prompt)):
        colour, shape, _, ground = words.split()
        assert shape == list(SHAPES)[batch.scenes.shape[i]]
        for name, where in ((colour, mask[i, 0] == 1), (ground, mask[i, 0] == 0)):
            pixels = picture[i][:, where]
            assert pixels.numel() > 0
            assert (pixels - torch.tensor(COLOURS[name])[:, None]).abs().max() < 1e-6


def test_mask_is_the_polygon():
    """A pixel is more than half covered exactly where its centre lies inside the polygon."""
    scenes = draw_scenes(48, seeded())
    mask = render(scenes)[1]
    line = ((torch.arange(64) + 0.5) / 32 - 1).double()
    centres = torch.cartesian_prod(line, line).flip(1)  # x and y of each pixel, row by row
    for i in range(48):
        polygon = corners(scenes, i)
        inside = Polygon(polygon).contains_points(centres)
        wrong = torch.from_numpy(inside) != (mask[i].flatten() > 0.5)
        assert wrong.sum() <= 1  # a centre that lies on the outline to seven digits


def test_mask_has_the_area_of_the_polygon():
    """The mask sums to the polygon's exact area, for every shape, turn, size and aspect."""
    scenes = draw_scenes(256, seeded())
    area = render(scenes)[1].double().sum((1, 2, 3)) * (2 / 64) ** 2
    exact = torch.tensor([shoelace(corners(scenes, i)) for i in range(256)])
    assert scenes.shape.unique().numel() == 4 and scenes.aspect.max() / scenes.aspect.min() > 1.4
    assert (area / exact - 1).abs().max() < 0.02
    assert (area / exact - 1).mean().abs() < 0.002


def test_other_outlines_are_drawn_as_they_are():
    """A regular hexagon of radius r has the area 3 sqrt(3) / 2 r^2."""
    scenes = draw_scenes(8, seeded())._replace(shape=torch.zeros(8, dtype=torch.long), aspect=torch.ones(8), centre=torch.zeros(8, 2))
    area = render(scenes, outlines=[Outline(6, math.cos(math.pi / 6), 1.0)])[1].double().sum((1, 2, 3)) * (2 / 64) ** 2
    torch.testing.assert_close(area, 1.5 * 3**0.5 * scenes.radius.double() ** 2, rtol=0.01, atol=0)


def test_every_shape_lies_wholly_inside_its_picture():
    """No corner of 2048 shapes reaches the picture's border, and no mask touches it."""
    scenes = draw_scenes(2048, seeded())
    assert max(corners(scenes, i).abs().max() for i in range(2048)) < 0.97
    mask = draw(256, seeded()).mask
    border = torch.cat([mask[..., 0, :], mask[..., -1, :], mask[..., 0], mask[..., -1]], -1)
    assert border.max() < 0.5


def test_ground_never_has_the_colour_of_the_shape():
    """Of 8 x 4 x 8 prompts exactly the 8 x 4 x 7 with two colours occur."""
    prompt = draw_scenes(8192, seeded()).prompt
    assert (prompt[:, 0] != prompt[:, 2]).all()
    assert len(prompt.unique(dim=0)) == 8 * 4 * 7


def test_prompt_tells_nothing_of_place_size_turn_and_aspect():
    """New geometry leaves the tokens as they are, and new colours leave the mask as it is."""
    scenes, others = draw_scenes(16, seeded()), draw_scenes(16, seeded(1))
    moved = scenes._replace(centre=others.centre, radius=others.radius, angle=others.angle,
                            aspect=others.aspect)
    assert torch.equal(moved.prompt, scenes.prompt)
    assert not torch.equal(render(moved)[1], render(scenes)[1])
    painted = scenes._replace(colour=others.colour, background=others.background)
    assert torch.equal(render(painted)[1], render(scenes)[1])
    assert not torch.equal(painted.prompt, scenes.prompt)


@pytest.mark.parametrize("word", [0, 1, 2])
def test_geometry_is_drawn_independently_of_the_prompt(word):
    """For each word, the mean place, size, turn and aspect equal the overall means."""
    scenes = draw_scenes(16384, seeded())
    angle = scenes.angle[:, None]
    values = torch.cat([scenes.centre, scenes.radius[:, None], angle.cos(), angle.sin(),
                        scenes.aspect[:, None]], dim=1)
    values = (values - values.mean(0)) / values.std(0)
    for token in scenes.prompt[:, word].unique():
        group = values[scenes.prompt[:, word] == token]
        assert (group.mean(0) * len(group) ** 0.5).abs().max() < 5  # standard errors


def test_tokenize_and_describe_invert_each_other_on_every_draw():
    """All full prompts survive the round trip."""
    prompt = draw_scenes(2048, seeded()).prompt
    assert torch.equal(tokenize(describe(prompt)), prompt)


@pytest.mark.parametrize("words", ["", "star", "red", "on blue", "red star", "star on blue",
                                   "red on blue", "red star on blue"])
def test_every_part_of_a_prompt_may_be_missing(words):
    """Partial prompts survive the round trip, and a missing word is token 0."""
    tokens = tokenize(words)
    assert describe(tokens) == [words]
    assert (tokens != 0).sum() == len([word for word in words.split() if word != "on"])


def test_tokens_stand_in_the_order_of_the_tables():
    """Token k is the k-th word of its table, counted from 1."""
    assert tokenize("black circle on orange").tolist() == [[1, 1, 2]]
    assert tokenize(["purple star", "on purple"]).tolist() == [[8, 4, 0], [0, 0, 8]]


def test_case_and_blanks_are_ignored():
    """ "Red  STAR on\tblue" is "red star on blue"."""
    assert torch.equal(tokenize("  Red  STAR on\tBLUE \n"), tokenize("red star on blue"))


@pytest.mark.parametrize("words", [
    "red squirrel", "a red star", "red star on mauve", "red, star", "rot", "x" * 1000,  # unknown
    "star red", "blue on red star", "red star blue", "red blue", "star circle", "on star",  # order
    "on", "red star on", "on on", "red star on blue on green",  # "on" without its colour
    "red " * 200, "squirrel " * 200,
], ids=lambda words: words[:25])
def test_a_prompt_outside_the_world_is_a_problem_in_one_sentence(words):
    """The message is one sentence of readable length that lists every known word."""
    with pytest.raises(Problem) as caught:
        tokenize(words)
    message = str(caught.value)
    assert all(word in message for word in [*COLOURS, *SHAPES])
    assert len(message) < 400 and "\n" not in message and ". " not in message


def test_one_bad_prompt_in_a_list_is_named():
    """The message quotes the prompt that is wrong, not its neighbours."""
    with pytest.raises(Problem, match="squirrel") as caught:
        tokenize(["cyan circle", "red squirrel"])
    assert "cyan circle" not in str(caught.value)
