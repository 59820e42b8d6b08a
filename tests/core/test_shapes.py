"""The toy world: picture, prompt and mask tell the same story, and the prompt tells no more."""

import math

import pytest
import torch
from matplotlib.path import Path as Polygon

from minicontrolnet.conditions import stick_figure
from minicontrolnet.errors import Problem
from minicontrolnet.shapes import (COLOURS, DARK, LARGEST, SHAPES, SMALLEST, TILT, Outline, Scenes,
                                   describe, random_batch, random_scenes, render, to_image,
                                   tip_of, tokenize)

LIT = torch.tensor(list(COLOURS.values()), dtype=torch.float64)
REC_601 = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)  # what luma weighs RGB by


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def corners(scenes, i):
    """The corners of scene i's polygon (2 points, 2), built from the definition alone."""
    outline = list(SHAPES.values())[scenes.shape[i]]
    radius, aspect = scenes.radius[i].item() * outline.scale, scenes.aspect[i].item()
    corners = []
    for k in range(2 * outline.points):
        r = radius * (outline.notch if k % 2 else 1)
        angle = scenes.angle[i].item() + outline.upright + k * math.pi / outline.points
        corners.append([r * math.cos(angle) * aspect**0.5, r * math.sin(angle) / aspect**0.5])
    return torch.tensor(corners, dtype=torch.float64) + scenes.centre[i]


def shoelace(corners):
    """A polygon's exact area."""
    x, y = corners.unbind(1)
    return (x * y.roll(-1) - x.roll(-1) * y).sum().abs().item() / 2


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b))


def standing(shape, colour=0, background=1, n=1):
    """n scenes with upright shapes in the middle; what is given is a number or a tensor (n,)."""
    index = lambda value: torch.as_tensor(value).expand(n)
    return Scenes(index(colour), index(shape), index(background), torch.zeros(n, 2),
                  torch.full((n,), 0.6), torch.zeros(n), torch.ones(n))


# %% A picture and what is true of it


def test_a_batch_depends_on_its_generator_alone():
    """Equal seeds draw equal pictures whatever the global generator does; other seeds, others."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = random_batch(8, seeded())
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    again, other = random_batch(8, seeded()), random_batch(8, seeded(1))
    assert same(first[:4], again[:4]) and same(first.scenes, again.scenes)
    assert not torch.equal(first.image, other.image)


def test_ranges_and_shapes_of_a_batch():
    """Images and masks are in [0, 1], x0 is the image in [-1, 1], and to_image leads back."""
    batch = random_batch(32, seeded())
    assert batch.image.shape == batch.x0.shape == (32, 3, 64, 64)
    assert batch.mask.shape == (32, 1, 64, 64) and batch.prompt.shape == (32, 3)
    assert 0 < batch.image.min() and batch.image.max() < 1
    assert 0 == batch.mask.min() and batch.mask.max() == 1
    assert torch.equal(batch.x0, 2 * batch.image - 1)
    torch.testing.assert_close(to_image(batch.x0), batch.image)
    assert to_image(torch.tensor([-3.0, 3.0])).tolist() == [0, 1]


def test_picture_prompt_and_mask_agree():
    """Inside the mask all pixels have the prompt's colour; outside its ground's, in the dark."""
    batch = random_batch(64, seeded())
    for i, words in enumerate(describe(batch.prompt)):
        colour, shape, _, ground = words.split()
        assert shape == list(SHAPES)[batch.scenes.shape[i]]
        for name, light, share in ((colour, 1.0, 1), (ground, DARK, 0)):
            pixels = batch.image[i][:, batch.mask[i, 0] == share]
            assert pixels.numel() > 0
            assert (pixels - light * torch.tensor(COLOURS[name])[:, None]).abs().max() < 1e-6


def test_mask_is_the_polygon():
    """A pixel is more than half covered exactly where its centre lies inside the polygon."""
    scenes = random_scenes(48, seeded())
    mask = render(scenes)[1]
    line = ((torch.arange(64) + 0.5) / 32 - 1).double()
    centres = torch.cartesian_prod(line, line).flip(1)  # x and y of each pixel, row by row
    for i in range(48):
        polygon = corners(scenes, i)
        inside = Polygon(polygon).contains_points(centres)
        wrong = torch.from_numpy(inside) != (mask[i].flatten() > 0.5)
        assert wrong.sum() <= 1  # a centre that lies on the outline to seven digits


def test_mask_has_the_area_of_the_polygon():
    """The mask sums to the polygon's exact area, for every shape, tilt, size and aspect."""
    scenes = random_scenes(256, seeded())
    area = render(scenes)[1].double().sum((1, 2, 3)) * (2 / 64) ** 2
    exact = torch.tensor([shoelace(corners(scenes, i)) for i in range(256)])
    assert scenes.shape.unique().numel() == 4 and scenes.aspect.max() / scenes.aspect.min() > 1.4
    assert (area / exact - 1).abs().max() < 0.02
    assert (area / exact - 1).mean().abs() < 0.002


def test_other_outlines_are_drawn_as_they_are():
    """A regular hexagon of radius r has the area 3 sqrt(3) / 2 r^2."""
    scenes = standing(0, n=8)._replace(radius=torch.linspace(SMALLEST, LARGEST, 8),
                                       angle=torch.linspace(-TILT, TILT, 8))
    mask = render(scenes, outlines=[Outline(6, math.cos(math.pi / 6), 1.0, 0.0)])[1].double()
    area = mask.sum((1, 2, 3)) * (2 / 64) ** 2
    exact = 1.5 * 3**0.5 * scenes.radius.double() ** 2
    torch.testing.assert_close(area, exact, rtol=0.01, atol=0)


def test_shapes_stand_upright():
    """Without a tilt, left mirrors right; triangle and star have one tip up, and feet below."""
    mask = render(standing(torch.arange(4), n=4))[1]
    assert (mask - mask.flip(3)).abs().max() < 1e-4
    rows = mask[:, 0].sum(2)  # how wide each row of pixels is
    circle, square, triangle, star = rows
    assert (circle - circle.flip(0)).abs().max() < 1e-3
    assert square[square > 0].min() > 0.9 * square.max()  # flat sides above and below
    for tip in (triangle, star):
        filled = tip[tip > 0]
        assert filled[0] < 3 and filled[-3] > 2 * filled[2]


def test_every_shape_lies_wholly_inside_its_picture():
    """No corner of 2048 shapes reaches the picture's border, and no mask touches it."""
    scenes = random_scenes(2048, seeded())
    assert max(corners(scenes, i).abs().max() for i in range(2048)) < 0.97
    mask = random_batch(256, seeded()).mask
    border = torch.cat([mask[..., 0, :], mask[..., -1, :], mask[..., 0], mask[..., -1]], -1)
    assert border.max() < 0.5


def test_all_prompts_occur_and_shapes_tilt_no_farther_than_they_may():
    """All 8 x 4 x 8 prompts, also of one hue; sizes and tilts fill their ranges."""
    scenes = random_scenes(8192, seeded())
    assert len(scenes.prompt.unique(dim=0)) == 8 * 4 * 8
    assert TILT <= 0.4 and 0.99 * TILT < scenes.angle.abs().max() <= TILT
    assert abs(scenes.angle.mean()) < 0.02
    log_aspect = scenes.aspect.log()
    assert 0.198 < log_aspect.max() < 0.2001 and -0.2001 < log_aspect.min() < -0.198
    assert abs(log_aspect.mean()) < 0.007, "as many wide shapes as tall ones"
    assert SMALLEST <= scenes.radius.min() < 1.01 * SMALLEST
    assert 0.99 * LARGEST < scenes.radius.max() <= LARGEST


def test_prompt_tells_nothing_of_place_size_tilt_and_aspect():
    """New geometry leaves the tokens as they are, and new colours leave the mask as it is."""
    scenes, others = random_scenes(16, seeded()), random_scenes(16, seeded(1))
    moved = scenes._replace(centre=others.centre, radius=others.radius, angle=others.angle,
                            aspect=others.aspect)
    assert torch.equal(moved.prompt, scenes.prompt)
    assert not torch.equal(render(moved)[1], render(scenes)[1])
    painted = scenes._replace(colour=others.colour, background=others.background)
    assert torch.equal(render(painted)[1], render(scenes)[1])
    assert not torch.equal(painted.prompt, scenes.prompt)


@pytest.mark.parametrize("word", [0, 1, 2])
def test_geometry_does_not_depend_on_the_prompt(word):
    """For each word, the mean place, size, tilt and aspect equal the overall means."""
    scenes = random_scenes(16384, seeded())
    values = torch.cat([scenes.centre, torch.stack([scenes.radius, scenes.angle, scenes.angle**2,
                                                    scenes.aspect], 1)], dim=1)
    values = (values - values.mean(0)) / values.std(0)
    for token in scenes.prompt[:, word].unique():
        group = values[scenes.prompt[:, word] == token]
        assert (group.mean(0) * len(group) ** 0.5).abs().max() < 5  # standard errors


# %% Colours that can be told apart


def test_luminance_tells_shape_from_ground_for_all_64_pairs():
    """By Rec. 601's luma, each shape is brighter than any ground by 0.13 of white's luma.

    The darkest lit hue, red, has 0.417 and the brightest ground, of white, 0.279.
    """
    pair = torch.arange(64)
    image, mask = render(standing(pair % 4, pair // 8, pair % 8, n=64))
    luma = torch.einsum("c, nchw -> nhw", REC_601, image.double())
    for picture, share in zip(luma, mask[:, 0]):
        assert picture[share == 1].min() > 0.41 and picture[share == 0].max() < 0.28


def test_lit_and_dark_colours_never_meet():
    """In RGB, where each channel has length 1, a lit hue is at least 0.4 from each ground."""
    assert torch.cdist(LIT, DARK * LIT).min() > 0.4
    assert torch.cdist(DARK * LIT, DARK * LIT)[~torch.eye(8, dtype=torch.bool)].min() > 0.08
    assert 0 < LIT.min() and LIT.max() < 1  # overshooting guidance shows before it is clipped


# What people see to whom one kind of cone is missing: Machado, Oliveira and Fernandes, "A
# Physiologically-based Model for Simulation of Color Vision Deficiency" (2009), severity 1.
VIEWERS = {
    "usual": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}
SRGB_TO_XYZ = torch.tensor([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                            [0.0193339, 0.1191920, 0.9503041]], dtype=torch.float64)  # D65


def to_linear(srgb):
    """sRGB (n, 3) in [0, 1] as amounts of light."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_cielab(linear):
    """Amounts of light (n, 3) as L*, a*, b*, where a distance of 2 is just seen."""
    xyz = linear @ SRGB_TO_XYZ.T / SRGB_TO_XYZ.sum(1)
    f = torch.where(xyz > (6 / 29) ** 3, xyz ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def test_cielab_by_known_answers():
    """White is 100, 0, 0 and black 0, 0, 0; sRGB's red is 53.24, 80.09, 67.20."""
    known = to_cielab(to_linear(torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 0]]).double()))
    wanted = torch.tensor([[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]]).double()
    assert (known - wanted).abs().max() < 0.01


@pytest.mark.parametrize("viewer, distance", [("usual", 29), ("protan", 22), ("deutan", 22),
                                              ("tritan", 22)])
def test_lit_colours_stay_apart_for_colour_blind_viewers(viewer, distance):
    """The least CIELAB distance of any two: 29.7 as usual, 23.0, 22.4 and 22.4 for the others."""
    seen = to_linear(LIT) @ torch.tensor(VIEWERS[viewer], dtype=torch.float64).T
    apart = torch.cdist(*[to_cielab(seen.clamp(0, 1))] * 2)[~torch.eye(8, dtype=torch.bool)]
    assert distance < apart.min() < distance + 1


# %% Prompts


def test_tokenize_and_describe_invert_each_other_on_every_prompt():
    """All 9 x 5 x 9 survive the round trip, those with missing words, too."""
    prompt = torch.cartesian_prod(torch.arange(9), torch.arange(5), torch.arange(9))
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
    assert tokenize("white circle on orange").tolist() == [[1, 1, 2]]
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


def test_scenes_on_another_device_are_painted_there():
    """No tensor of the CPU is mixed in: the meta device refuses that, as CUDA does."""
    scenes = Scenes(*(field.to("meta") for field in random_scenes(3, seeded())))
    image, mask = render(scenes)
    assert image.device.type == mask.device.type == "meta" and image.shape == (3, 3, 64, 64)
    pose = stick_figure(scenes.centre, tip_of(scenes))
    assert pose.device.type == "meta" and pose.shape == (3, 1, 64, 64)
    batch = random_batch(3, seeded()).map(lambda tensor: tensor.to("meta"))
    assert batch.scenes.radius.device.type == "meta" and batch.prompt.device.type == "meta"
