"""Conditions: the detectors on pictures whose edges are known, and files good and bad."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from minicontrolnet.conditions import condition_of, detect_edges, palette, roughen, stick_figure
from minicontrolnet.drawings import edges_from_drawing, edges_from_picture, palette_from_picture
from minicontrolnet.files import Problem
from minicontrolnet.shapes import COLOURS, SHAPES, random_batch, random_scenes, render, tip_of

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
    rough = roughen(detect_edges(batch.image), torch.Generator().manual_seed(1))
    assert torch.equal(condition_of("edge", batch, torch.Generator().manual_seed(1)), rough)
    pose = stick_figure(batch.scenes.centre, tip_of(batch.scenes))
    assert torch.equal(condition_of("pose", batch), pose)


# %% Drawings


def scene(shape: str):
    """One scene with this shape, and its outline's corners (n, 2) in [-1, 1]."""
    scenes = random_scenes(64, torch.Generator().manual_seed(0))
    first = (scenes.shape == list(SHAPES).index(shape)).nonzero()[0]
    one = type(scenes)(*(field[first] for field in scenes))
    one = one._replace(colour=torch.tensor([0]), background=torch.tensor([4]))
    outline = SHAPES[shape]
    turn = torch.arange(2 * outline.points) * math.pi / outline.points
    reach = one.radius * outline.scale * torch.tensor([1, outline.notch]).repeat(outline.points)
    turn = torch.polar(reach, turn + one.angle + outline.turn)
    stretch = one.aspect.sqrt()
    return one, (one.centre + torch.stack([turn.real * stretch, turn.imag / stretch], 1)).numpy()


def pen(shape, size=256, width=4, ink=0, paper=255, mode="L", wobble=0.0, gap=0.0) -> Image.Image:
    """A shape's outline drawn with a pen; ``wobble`` in picture widths, ``gap`` a share of the outline."""
    corners = scene(shape)[1]
    steps = np.linspace(0, len(corners), 240)
    wrapped = np.vstack([corners, corners[:1]])
    points = np.stack([np.interp(steps, range(len(wrapped)), axis) for axis in wrapped.T], 1)
    points[:, 0] += 2 * wobble * np.sin(steps / len(corners) * 2 * math.pi * 7)
    points = (points[int(gap * 240) :] + 1) * size / 2 - 0.5
    picture = Image.new(mode, (size, size), paper)
    closed = [tuple(p) for p in points] + ([tuple(points[1])] if not gap else [])
    ImageDraw.Draw(picture).line(closed, fill=ink, width=width, joint="curve")
    return picture


def photo(picture: Image.Image, contrast: float = 0.7) -> Image.Image:
    """As a phone sees it: grey ink, warm paper, a shadow's slope, dark corners and noise."""
    h, w = picture.height, picture.width
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    light = (0.8 - 0.15 * x - 0.1 * y) * (1 - 0.15 * (x**2 + y**2))
    paper = (1 - contrast + contrast * np.asarray(picture) / 255) * light * 255
    noisy = paper[..., None] * [0.95, 0.92, 0.85] + np.random.default_rng(0).normal(0, 5, (h, w, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def on_glass(shape, colour) -> Image.Image:
    """A drawing of one colour on transparent paper."""
    picture = Image.new("RGBA", (256, 256), colour)
    picture.putalpha(pen(shape, ink=255, paper=0))
    return picture


def with_specks(shape) -> Image.Image:
    picture = pen(shape)
    for x, y in np.random.default_rng(0).integers(0, 256, (40, 2)).tolist():
        ImageDraw.Draw(picture).ellipse([x - 1, y - 1, x + 1, y + 1], fill=0)
    ImageDraw.Draw(picture).line([(4, 4), (32, 12)], fill=0, width=3)
    return picture


def with_hairs(shape) -> Image.Image:
    """Strokes of ink that leave the outline for 12 pixels, which are 3 of an edge map."""
    picture, corners = pen(shape), (scene(shape)[1] + 1) * 128
    for (x, y), (x2, y2) in zip(corners, np.roll(corners, -1, 0)):
        x, y, along = (x + x2) / 2, (y + y2) / 2, np.array([x2 - x, y2 - y]) / math.hypot(x2 - x, y2 - y)
        ImageDraw.Draw(picture).line([x, y, x + 12 * along[1], y - 12 * along[0]], fill=0, width=3)
    return picture


def with_margin(shape) -> Image.Image:
    picture = pen(shape)
    ImageDraw.Draw(picture).rectangle([0, 0, 7, 255], fill=40)
    return picture


RGB = dict(mode="RGB")
STYLES = {
    "1 pixel in 64": lambda s: pen(s, 64, 1),
    "1 pixel in 256": lambda s: pen(s, 256, 1),
    "1 pixel in 2000": lambda s: pen(s, 2000, 1),
    "1 pixel in 2000, one bit": lambda s: pen(s, 2000, 1, 1, 0, "1"),
    "60 pixels in 1000": lambda s: pen(s, 1000, 60),
    "light on dark": lambda s: pen(s, ink=240, paper=20),
    "faint pencil": lambda s: pen(s, 512, 2, ink=215, paper=245),
    "yellow on white": lambda s: pen(s, ink=(250, 230, 60), paper=(255, 255, 255), **RGB),
    "red on an equally bright green": lambda s: pen(s, ink=(200, 0, 0), paper=(0, 200, 0), **RGB),
    "palette": lambda s: pen(s, ink=(200, 0, 0), paper=(255, 255, 255), **RGB).convert("P"),
    "CMYK": lambda s: pen(s).convert("CMYK"),
    "16 bits": lambda s: Image.fromarray(np.asarray(pen(s)).astype(np.uint16) * 200 + 3000),
    "floats": lambda s: Image.fromarray(np.asarray(pen(s)).astype(np.float32) / 255),
    "black on glass": lambda s: on_glass(s, "black"),
    "white on glass": lambda s: on_glass(s, "white"),
    "grey on glass": lambda s: on_glass(s, "black").convert("LA"),
    "wobbly": lambda s: pen(s, wobble=0.005),
    "slightly open": lambda s: pen(s, gap=0.03),
    "photo": lambda s: photo(pen(s, 512, 5)),
    "photo of a pencil drawing": lambda s: photo(pen(s, 512, 5), 0.4),
    "specks": with_specks,
    "hairs": with_hairs,
    "scanner's dark margin": with_margin,
}


def saved(picture: Image.Image, folder, **options):
    kind = {"CMYK": "jpg", "F": "tiff"}.get(picture.mode, "png")
    picture.save(folder / f"drawing.{kind}", **options)
    return folder / f"drawing.{kind}"


def f1(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """F1 of two edge maps at half their size; an edge counts if the other has one within a pixel."""
    near = lambda e: F.max_pool2d(e, 3, stride=1, padding=1)
    found, wanted = F.max_pool2d(found, 2), F.max_pool2d(wanted, 2)
    precision = (found * near(wanted)).sum() / found.sum().clamp(min=1)
    recall = (wanted * near(found)).sum() / wanted.sum()
    return (2 * precision * recall / (precision + recall).clamp(min=1e-6)).item()


@pytest.mark.parametrize("style, shape", [(style, "star") for style in STYLES]
                         + [("photo", shape) for shape in SHAPES if shape != "star"])
def test_a_drawing_becomes_its_shapes_outline(style, shape, tmp_path):
    edges = edges_from_drawing(saved(STYLES[style](shape), tmp_path))
    truth = detect_edges(render(scene(shape)[0])[0])
    assert edges.shape == (1, 1, 64, 64) and set(edges.unique().tolist()) == {0, 1}
    assert f1(edges, truth) > 0.95
    assert edges.sum() < 1.4 * truth.sum(), "one thin line, not two"
    assert parts(edges[0, 0] > 0, diagonal=True) == 1, "no specks"
    neighbours = 9 * F.avg_pool2d(edges, 3, stride=1, padding=1) - 1
    assert style == "slightly open" or ((neighbours > 1.5) | (edges == 0)).all(), "no spurs"
    if style != "slightly open":
        assert parts(edges[0, 0] == 0, diagonal=False) > 1, "closed"


def test_an_upright_picture_is_what_its_exif_says(tmp_path):
    upright = pen("triangle").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me clockwise to see me upright"
    upright.rotate(90).save(tmp_path / "turned.jpg", exif=exif)
    upright.save(tmp_path / "upright.jpg")
    turned, wanted = (edges_from_drawing(tmp_path / n) for n in ("turned.jpg", "upright.jpg"))
    assert f1(turned, wanted) > 0.99 > f1(turned.rot90(1, (2, 3)), wanted)


def test_an_animation_is_its_first_frame(tmp_path):
    frames = [pen(s) for s in ("star", "circle")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert torch.equal(edges_from_drawing(tmp_path / "a.gif"), edges_from_drawing(saved(frames[0], tmp_path)))


@pytest.mark.parametrize("size", [(400, 256), (256, 300)])
def test_letterboxing_keeps_proportions(size, tmp_path):
    picture = Image.new("L", size, 255)
    x, y = size[0] / 2, size[1] / 2
    ImageDraw.Draw(picture).ellipse([x - 84, y - 84, x + 84, y + 84], outline=0, width=4)
    at = edges_from_drawing(saved(picture, tmp_path))[0, 0].nonzero() + 0.5
    radius = (at - 32).norm(dim=1)
    assert (radius - 82 * 64 / max(size)).abs().max() < 1


# %% Pictures


def picture_file(folder, image: torch.Tensor, mode: str = "RGB"):
    array = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    return saved(Image.fromarray(array).convert(mode), folder)


def test_a_toy_picture_gives_its_own_edges_and_palette(tmp_path):
    image = random_batch(1, torch.Generator().manual_seed(3)).image
    path = picture_file(tmp_path, image)
    assert f1(edges_from_picture(path), detect_edges(image)) == 1
    assert torch.allclose(palette_from_picture(path), palette(image), atol=1 / 255)


def test_the_pictures_frame_is_no_edge(tmp_path):
    _, image = disc(40, 200)
    wide = torch.lerp(torch.linspace(0.2, 0.8, 200)[:, None], torch.tensor(1.0), image)[:, :, 50:150]
    edges = edges_from_picture(picture_file(tmp_path, wide))[0, 0]
    assert edges.sum() > 40 and edges[[*range(18), *range(46, 64)]].sum() == 0


def test_the_palette_of_a_narrow_picture_has_its_grounds_colour_around_it(tmp_path):
    colour = torch.tensor([0.2, 0.6, 1.0]).view(1, 3, 1, 1)
    path = picture_file(tmp_path, colour.expand(-1, -1, 90, 30))
    assert torch.allclose(palette_from_picture(path), colour.expand(-1, -1, 64, 64), atol=1e-5)


def test_a_grey_picture_and_one_on_glass(tmp_path):
    _, image = disc(20)
    grey = edges_from_picture(picture_file(tmp_path, image, "L"))
    glass = Image.new("RGBA", (64, 64), (20, 90, 160))
    glass.putalpha(Image.fromarray((image[0, 0] * 255).byte().numpy()))
    assert f1(grey, detect_edges(image)) == 1 and f1(edges_from_picture(saved(glass, tmp_path)), grey) == 1
    assert (palette_from_picture(saved(glass, tmp_path))[..., 0, 0] > 0.8).all(), "white paper"


# %% What cannot be used: one Problem, in one sentence

READERS = [edges_from_drawing, edges_from_picture, palette_from_picture]


def bad_file(kind: str, folder):
    path = folder / "bad.png"
    good = saved(pen("star", 400).convert("RGB"), folder).read_bytes()
    contents = {"empty": b"", "text": b"no picture\n" * 50, "truncated": good[: len(good) // 2],
                "header only": good[:40], "size 0": b"P5 0 0 255\n", "no": None}
    if kind == "folder":
        path.mkdir()
    elif kind == "truncated jpeg":
        pen("star").save(folder / "whole.jpg")
        path.write_bytes((folder / "whole.jpg").read_bytes()[:1500])
    elif kind == "transparent":
        Image.new("RGBA", (50, 50), (255, 0, 0, 0)).save(path)
    elif kind == "bomb":
        Image.new("1", (9500, 9500)).save(path)
    elif contents[kind] is not None:
        path.write_bytes(contents[kind])
    return path


def problem(reader, path) -> str:
    with pytest.raises(Problem) as caught:
        reader(path)
    message = str(caught.value)
    assert str(path) in message and message.isascii() and "\n" not in message
    return message


@pytest.mark.parametrize("kind, says", [
    ("no", "does not exist"), ("folder", "is a folder"), ("empty", "cannot be read"),
    ("text", "cannot be read"), ("truncated", "cannot be read"), ("truncated jpeg", "cannot be read"),
    ("header only", "cannot be read"), ("size 0", "cannot be read"), ("bomb", "million pixels"),
    ("transparent", "fully transparent")])
def test_a_file_that_is_no_picture(kind, says, tmp_path):
    path = bad_file(kind, tmp_path)
    for reader in READERS:
        assert says in problem(reader, path)
        assert says in problem(reader, str(path))


@pytest.mark.parametrize("name", ["", "x" * 5000 + ".png"])
def test_a_name_that_no_file_can_have(name):
    for reader in READERS:
        problem(reader, name)


@pytest.mark.parametrize("mode, size, colour", [
    ("L", (200, 200), 255), ("RGB", (70, 50), (0, 0, 0)), ("RGB", (64, 64), (200, 30, 90)),
    ("RGB", (1, 1), (255, 0, 0)), ("L", (1, 500), 90), ("L", (500, 1), 90), ("I;16", (40, 40), 30000)])
def test_a_blank_picture_has_a_palette_but_no_edges(mode, size, colour, tmp_path):
    path = saved(Image.new(mode, size, colour), tmp_path)
    assert "no line drawing" in problem(edges_from_drawing, path)
    assert "no edges" in problem(edges_from_picture, path)
    assert (palette_from_picture(path).amax((2, 3)) - palette_from_picture(path).amin((2, 3))).max() < 1e-5


def test_a_blank_photo_is_no_drawing(tmp_path):
    assert "no line drawing" in problem(edges_from_drawing, saved(photo(Image.new("L", (300, 300), 255)), tmp_path))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_filled_shape_is_no_line_drawing(shape, tmp_path):
    assert "filled shape" in problem(edges_from_drawing, picture_file(tmp_path, render(scene(shape)[0])[0]))


def test_a_huge_picture_of_one_bit(tmp_path):
    picture = Image.new("1", (9000, 9000), 1)
    ImageDraw.Draw(picture).ellipse([2000, 2000, 7000, 7000], outline=0, width=90)
    at = edges_from_drawing(saved(picture, tmp_path))[0, 0].nonzero() + 0.5
    assert ((at - 32).norm(dim=1) - 2455 * 64 / 9000).abs().max() < 1
