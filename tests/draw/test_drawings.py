"""Files of users as conditions: drawings by many pens, pictures of every mode, and files that are no pictures."""

import math
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter

from minicontrolnet import edges_from_drawing, edges_from_picture, palette_from_picture
from minicontrolnet.conditions import detect_edges, palette
from minicontrolnet.draw.drawings import (_to_known_size, hint_about, hint_about_papers, is_line_drawing, read_image,
                                          trace)
from minicontrolnet.errors import Problem
from minicontrolnet.measure.pictures import mask_iou, mask_of
from minicontrolnet.sampling import sample, seeded_noise
from minicontrolnet.shapes import SHAPES, random_batch, random_scenes, render, tokenize

# %% Drawings


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


def scene(shape: str):
    """One scene with this shape, and its outline's corners (n, 2) in [-1, 1]."""
    scenes = random_scenes(64, torch.Generator().manual_seed(0))
    first = (scenes.shape == list(SHAPES).index(shape)).nonzero()[0]
    one = type(scenes)(*(field[first] for field in scenes))
    one = one._replace(colour=torch.tensor([0]), background=torch.tensor([4]))
    outline = SHAPES[shape]
    turn = torch.arange(2 * outline.points) * math.pi / outline.points
    reach = one.radius * outline.scale * torch.tensor([1, outline.notch]).repeat(outline.points)
    turn = torch.polar(reach, turn + one.angle + outline.upright)
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

    def near(e):
        return F.max_pool2d(e, 3, stride=1, padding=1)

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
    assert edges.sum() < 1.6 * truth.sum(), "one thin line, not two"
    assert hint_about(edges) == "", "one closed outline"


@pytest.mark.parametrize("share", [0.15, 0.3, 0.5, 0.9, 0.96])
def test_a_drawing_of_any_size_is_brought_to_the_size_that_the_networks_know(share, tmp_path):
    picture = Image.new("L", (500, 500), 255)
    low, high = 250 - 250 * share, 250 + 250 * share
    ImageDraw.Draw(picture).ellipse([low, low, high, high], outline=0, width=6)
    colours, opacity = read_image(saved(picture, tmp_path))
    edges, zoom = trace(colours, opacity)
    distance = (edges[0, 0].nonzero() + 0.5 - 32).norm(dim=1)
    assert (distance - 32 * (share - 0.01) * zoom).abs().max() < 1.3, "round, in the middle, scaled by zoom"
    assert 11 < distance.mean() < 20, "circles of the toy world have 12 to 18"
    assert (zoom == 1) == (share == 0.5)
    assert hint_about(edges) == ""


def test_a_scaled_drawing_stays_where_it_is_but_inside_the_sheet(tmp_path):
    for x in (100, 250, 400):
        picture = Image.new("L", (500, 500), 255)
        ImageDraw.Draw(picture).rectangle([x - 60, 190, x + 60, 310], outline=0, width=6)
        at = edges_from_drawing(saved(picture, tmp_path))[0, 0].nonzero()
        assert at.min() >= 1 and at.max() <= 62
        centre = (at.amin(0) + at.amax(0) + 1) / 2
        assert centre[1] == pytest.approx(min(max(x * 64 / 500, 11.8), 52.2), abs=1.5)
        assert centre[0] == pytest.approx(32, abs=1)


@pytest.mark.slow
@pytest.mark.parametrize("style", ["60 pixels in 1000", "photo", "photo of a pencil drawing", "specks", "wobbly"])
def test_pictures_follow_a_drawing(style, shipped, tmp_path):
    """The mask IoU of two pictures of each shape."""
    for shape in SHAPES:
        edges = edges_from_drawing(saved(STYLES[style](shape), tmp_path))
        tokens = tokenize(["red on blue"] * 2)
        control = (shipped.controls["edge"], edges.expand(2, -1, -1, -1))
        pictures = sample(shipped.base, tokens, seeded_noise(2, 0), [control], steps=8)
        truth = render(scene(shape)[0])[1].expand(2, -1, -1, -1)
        assert mask_iou(mask_of(pictures), truth).mean() > 0.8


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


@pytest.mark.parametrize("size", [(90, 360), (360, 90), (100, 361)])
@pytest.mark.parametrize("colours", [[(255, 220, 0), (0, 160, 255)], [(255, 0, 0), (0, 0, 255)],
                                     [(255, 0, 0), (0, 255, 0), (0, 0, 255)]])
def test_a_palette_is_made_square_in_a_colour_of_the_picture(colours, size, tmp_path):
    """Here the median of each channel is green, purple or black, which is nowhere in the picture."""
    h, w = size
    stripes = torch.tensor(colours)[torch.arange(w) * len(colours) // w].T[:, None].expand(-1, h, -1) / 255
    found = palette_from_picture(picture_file(tmp_path, stripes[None]))
    added = found[0, :, 2, 32] if w > h else found[0, :, 32, 2]
    assert any(torch.allclose(added, torch.tensor(colour) / 255, atol=0.01) for colour in colours)


def test_the_palette_of_a_square_picture_is_that_of_its_pixels(tmp_path):
    """Nothing is added, whatever colours its border has."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    assert torch.equal(palette_from_picture(picture_file(tmp_path, image)), palette(image))


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


# %% Values: 117 of 255 stays 117 of 255, whatever the mode and the depth


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth: int, colour_type: int, pixel: bytes, per_row: int) -> bytes:
    """A PNG of 8x8 equal pixels, whose rows are ``pixel`` times ``per_row``."""
    header = struct.pack(">IIBBBBB", 8, 8, depth, colour_type, 0, 0, 0)
    rows = (b"\0" + pixel * per_row) * 8
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))


def pgm(most: int) -> bytes:
    value = round(117 / 255 * most)
    return b"P5 8 8 %d\n" % most + (bytes([value]) if most < 256 else struct.pack(">H", value)) * 64


def tiff(bits: int, sample_format: int, row: bytes, photometric: int = 1) -> bytes:
    """A TIFF of 8x8 pixels whose rows are equal."""
    tags = [(256, 8), (257, 8), (258, bits), (259, 1), (262, photometric), (273, 8 + 2 + 10 * 12 + 4), (277, 1),
            (278, 8), (279, 8 * len(row)), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", number, 4, 1, value) for number, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + 8 * row


def twelve_bits(value: int) -> bytes:
    """Eight pixels of 12 bits."""
    return bytes([value >> 4, (value & 15) << 4 | value >> 8, value & 255]) * 4


DEEP = 117 * 257  # of 65535
FILES = {
    **{f"PGM up to {most}": pgm(most) for most in (100, 255, 511, 1023, 4095, 16383, 65535)},
    "PNG, grey, 16 bits": png(16, 0, struct.pack(">H", DEEP), 8),
    "PNG, grey and alpha, 16 bits": png(16, 4, struct.pack(">HH", DEEP, 65535), 8),
    "PNG, RGB, 16 bits": png(16, 2, struct.pack(">HHH", DEEP, DEEP, DEEP), 8),
    "PNG, RGBA, 16 bits": png(16, 6, struct.pack(">HHHH", DEEP, DEEP, DEEP, 65535), 8),
    "TIFF, 12 bits": tiff(12, 1, twelve_bits(round(117 / 255 * 4095))),
    "TIFF, 16 bits": tiff(16, 1, struct.pack("<H", DEEP) * 8),
    "TIFF, 16 bits, white is 0": tiff(16, 1, struct.pack("<H", 65535 - DEEP) * 8, photometric=0),
    "TIFF, 16 bits, signed": tiff(16, 2, struct.pack("<h", round(117 / 255 * 32767)) * 8),
    "TIFF, 32 bits, of 255": tiff(32, 1, struct.pack("<I", 117) * 8),
    "TIFF, 32 bits, of 65535": tiff(32, 2, struct.pack("<i", DEEP) * 8),
    "TIFF, 32 bits, of all": tiff(32, 2, struct.pack("<i", round(117 / 255 * (2**31 - 1))) * 8),
    "TIFF, floats of 1": tiff(32, 3, struct.pack("<f", 117 / 255) * 8),
    "TIFF, floats of 255": tiff(32, 3, struct.pack("<f", 117) * 8),
    "TIFF, floats of 65535": tiff(32, 3, struct.pack("<f", DEEP) * 8),
    "PFM": b"Pf\n8 8\n-1.0\n" + struct.pack("<f", 117 / 255) * 64,
}


@pytest.mark.parametrize("name", FILES)
def test_a_grey_of_117_stays_117_in_files_of_any_depth(name, tmp_path):
    (tmp_path / "grey").write_bytes(FILES[name])
    colours, opacity = read_image(tmp_path / "grey")
    allowed = 0.6 / 100 if "100" in name else 0.6 / 255
    assert torch.allclose(colours, torch.tensor(117 / 255), atol=allowed) and opacity.min() == 1
    assert torch.allclose(palette_from_picture(tmp_path / "grey"), torch.tensor(117 / 255), atol=allowed)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_a_grey_of_117_stays_117_in_every_mode(mode, tmp_path):
    grey = Image.new("L", (8, 8), 117)
    if mode == "CMYK":
        picture = Image.new("CMYK", (8, 8), (138, 138, 138, 0))
    elif mode == "I;16":
        picture = Image.new("I;16", (8, 8), DEEP)
    elif mode == "PA":
        picture = grey.convert("P").convert("PA")
    else:
        picture = grey.convert(mode)
    picture.save(tmp_path / "grey.tif")
    assert torch.allclose(read_image(tmp_path / "grey.tif")[0], torch.tensor(117 / 255), atol=1.1 / 255)


def test_one_bit_is_black_and_white(tmp_path):
    picture = Image.new("1", (8, 8), 1)
    picture.putpixel((2, 3), 0)
    colours = read_image(saved(picture, tmp_path))[0]
    assert colours.sum() == 63 * 3 and colours[0, :, 3, 2].sum() == 0


def test_a_faint_drawing_of_9_bits_in_a_file_of_16_is_traced(tmp_path):
    picture = Image.fromarray(np.asarray(pen("star")).astype(np.uint16) * 2)
    truth = detect_edges(render(scene("star")[0])[0])
    assert f1(edges_from_drawing(saved(picture, tmp_path)), truth) > 0.95


def test_values_that_are_not_finite_are_refused(tmp_path):
    for value in (math.nan, math.inf):
        (tmp_path / "bad.tif").write_bytes(tiff(32, 3, struct.pack("<f", value) * 8))
        for reader in READERS:
            assert "not finite" in problem(reader, tmp_path / "bad.tif")


@pytest.mark.parametrize("bits, sample_format, row", [
    (32, 3, struct.pack("<8f", -128, -64, -32, 0, 32, 64, 100, 127)), (32, 3, struct.pack("<8f", *[-1.0] * 4, *[1.0] * 4)),
    (16, 2, struct.pack("<8h", *[-3000] * 4, *[3000] * 4))])
def test_values_below_0_are_refused_with_their_range(bits, sample_format, row, tmp_path):
    """-128 to 127 or -1 to 1: what is black is not known, and cut off at 0 the picture would lose half of its greys."""
    (tmp_path / "signed.tif").write_bytes(tiff(bits, sample_format, row))
    low, high = {-128: (-128, 127), -1: (-1, 1)}.get(struct.unpack("<f", row[:4])[0], (-3000, 3000))
    for reader in READERS:
        assert f"values from {low} to {high}, and below 0" in problem(reader, tmp_path / "signed.tif")


def test_what_a_filter_leaves_below_0_is_black(tmp_path):
    (tmp_path / "grey.tif").write_bytes(tiff(32, 3, struct.pack("<8f", *[-0.004] * 4, *[1.0] * 4)))
    assert read_image(tmp_path / "grey.tif")[0].unique().tolist() == [0, 1]


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


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for reader in READERS:
        assert "is a pipe" in problem(reader, tmp_path / "pipe.png")


def test_paths_may_be_text_or_path_and_nothing_else(tmp_path):
    path = saved(pen("star"), tmp_path)
    assert torch.equal(edges_from_drawing(path), edges_from_drawing(str(path)))
    for reader in READERS:
        for wrong in (None, 3, 0.5, ["a.png"]):
            with pytest.raises(Problem, match="give the name of its file"):
                reader(wrong)


def test_conditions_are_float32_whatever_the_default_type(tmp_path):
    path = saved(pen("star"), tmp_path)
    usual = [reader(path) for reader in READERS]
    torch.set_default_dtype(torch.float64)
    try:
        for reader, wanted in zip(READERS, usual):
            found = reader(path)
            assert found.dtype == torch.float32
            assert torch.equal(found, wanted)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", [b"star in Latin-1 \xe9.png", "\u661f.png".encode(), b" a b'\"$.png", b"-.png"])
def test_names_in_any_encoding(name, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    pen("star").save(tmp_path / "plain.png")
    os.rename(tmp_path / "plain.png", path)
    assert edges_from_drawing(path).sum() > 100
    with pytest.raises(Problem) as caught:
        edges_from_drawing(path + "x")
    assert "does not exist" in str(caught.value)


def test_the_package_is_imported_without_pillow_and_torchvision():
    code = "import sys, minicontrolnet; print([m for m in ('PIL', 'torchvision') if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("mode, size, colour", [
    ("L", (200, 200), 255), ("RGB", (70, 50), (0, 0, 0)), ("RGB", (64, 64), (200, 30, 90)),
    ("RGB", (1, 1), (255, 0, 0)), ("L", (1, 500), 90), ("L", (500, 1), 90), ("I;16", (40, 40), 30000)])
def test_a_blank_picture_has_a_palette_but_no_edges(mode, size, colour, tmp_path):
    path = saved(Image.new(mode, size, colour), tmp_path)
    shows_nothing = {(1, 1): "has only 1 x 1 pixels", (1, 500): "is a strip", (500, 1): "is a strip"}
    assert shows_nothing.get(size, "no line drawing") in problem(edges_from_drawing, path)
    assert shows_nothing.get(size, "no edges") in problem(edges_from_picture, path)
    assert (palette_from_picture(path).amax((2, 3)) - palette_from_picture(path).amin((2, 3))).max() < 1e-5


def test_a_blank_photo_is_no_drawing(tmp_path):
    assert "no line drawing" in problem(edges_from_drawing, saved(photo(Image.new("L", (300, 300), 255)), tmp_path))


@pytest.mark.parametrize("dots", [1, 2, 3])
def test_a_few_dots_are_no_drawing(dots, tmp_path):
    """A single dot is one pixel of the sheet, which has no size."""
    sheet = Image.new("L", (256, 256), 255)
    for k in range(dots):
        sheet.putpixel((100 + k, 120), 0)
    assert "no line drawing" in problem(edges_from_drawing, saved(sheet, tmp_path))
    stroke = torch.zeros(1, 1, 256, 256, dtype=torch.bool)
    stroke[..., 120, 100 : 100 + dots] = True
    assert _to_known_size(stroke)[1] == pytest.approx(1 if dots == 1 else 0.38 * 128 / ((dots**2 - 1) / 12) ** 0.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_filled_shape_is_no_line_drawing(shape, tmp_path):
    assert "filled shape" in problem(edges_from_drawing, picture_file(tmp_path, render(scene(shape)[0])[0]))


def test_a_huge_picture_of_one_bit(tmp_path):
    picture = Image.new("1", (9000, 9000), 1)
    ImageDraw.Draw(picture).ellipse([2000, 2000, 7000, 7000], outline=0, width=90)
    at = edges_from_drawing(saved(picture, tmp_path))[0, 0].nonzero() + 0.5
    assert ((at - 32).norm(dim=1) - 2455 * 64 / 9000).abs().max() < 1


# %% Hints


def blank() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("L", (512, 512), 255)
    return picture, ImageDraw.Draw(picture)


def overlapping_circles() -> Image.Image:
    picture, draw = blank()
    draw.ellipse([80, 130, 330, 380], outline=0, width=8)
    draw.ellipse([200, 130, 450, 380], outline=0, width=8)
    return picture


def pentagram() -> Image.Image:
    picture, draw = blank()
    tips = [(256 + 190 * math.sin(k * 0.8 * math.pi), 256 - 190 * math.cos(k * 0.8 * math.pi)) for k in range(6)]
    draw.line(tips, fill=0, width=8)
    return picture


def hatched(step: int, width: int = 2) -> Image.Image:
    """A star filled with lines; ``step`` pixels of 512 from one to the next."""
    picture, draw = blank()
    for x in range(-512, 512, step):
        draw.line([(x, 0), (x + 512, 512)], fill=0, width=width)
    inside = Image.new("L", (512, 512), 0)
    corners = [tuple(p) for p in (scene("star")[1] + 1) * 256]
    ImageDraw.Draw(inside).polygon(corners, fill=255)
    paper = pen("star", 512, 6)
    return Image.composite(Image.fromarray(np.minimum(picture, paper)), paper, inside)


def hatched_outline() -> Image.Image:
    """A circle whose line is made of short strokes across it."""
    picture, draw = blank()
    for k in range(120):
        x, y = math.cos(k * math.pi / 60), math.sin(k * math.pi / 60)
        draw.line([256 + 135 * x, 256 + 135 * y, 256 + 165 * x, 256 + 165 * y], fill=0, width=3)
    return picture


def dashed() -> Image.Image:
    picture, draw = blank()
    for degrees in range(0, 360, 15):
        draw.arc([106, 106, 406, 406], degrees, degrees + 8, fill=0, width=6)
    return picture


def framed() -> Image.Image:
    picture, draw = blank()
    draw.rectangle([30, 30, 480, 480], outline=0, width=5)
    draw.ellipse([150, 150, 360, 360], outline=0, width=8)
    return picture


def with_a_long_line() -> Image.Image:
    picture = pen("circle", 512, 8)
    ImageDraw.Draw(picture).line([(20, 500), (500, 30)], fill=0, width=6)
    return picture


def cut_by_the_border() -> Image.Image:
    picture = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(picture).line([(-20, 80), (80, 80), (80, 180), (-20, 180)], fill=0, width=6)
    return picture


HINTS = {
    cut_by_the_border: "enclose nothing",
    overlapping_circles: "enclose 3 areas",
    pentagram: "enclose 6 areas",
    framed: "enclose 2 areas",
    with_a_long_line: "not part of the closed outline",
    lambda: hatched(6): "too close together",
    lambda: hatched(14, 3): "too close together",
    lambda: hatched(24): "too close together",
    hatched_outline: "",
    dashed: "enclose nothing",
    lambda: pen("star", 512, 8, gap=0.3): "enclose nothing",
}


@pytest.mark.parametrize("drawn, says", HINTS.items())
def test_a_hint_names_what_is_wrong_with_a_drawing(drawn, says, tmp_path):
    said = hint_about(edges_from_drawing(saved(drawn(), tmp_path)))
    assert says in said and bool(said) == bool(says)


def test_a_dashed_outline_is_as_large_as_it_was_drawn(tmp_path):
    edges, zoom = trace(*read_image(saved(dashed(), tmp_path)))
    assert zoom == 1
    distance = (edges[0, 0].nonzero() + 0.5 - 32).norm(dim=1)
    assert (distance - 147 / 8).abs().max() < 1.3


def test_a_thick_pen_given_as_a_picture_is_told_of_edge(tmp_path):
    path = saved(pen("star", 500, 30), tmp_path)
    assert "to --edge and not to --edge-from" in hint_about(edges_from_picture(path))
    assert hint_about(edges_from_drawing(path)) == ""


def test_edge_maps_of_the_toy_world_get_no_hint():
    for edges in detect_edges(random_batch(100, torch.Generator().manual_seed(0)).image):
        assert hint_about(edges[None]) == ""


def test_a_hint_is_about_an_edge_map():
    with pytest.raises(Problem):
        hint_about(torch.zeros(1, 3, 64, 64))


# %% A drawing on two papers, half of it inverted


def on_two_papers(outline: Image.Image, part: str, colours=((20, 20, 20), (235, 235, 235))) -> Image.Image:
    """An outline, black on white, in two colours: in one part of the sheet, paper and ink change places."""
    ink = (255 - np.asarray(outline)) / 255
    y, x = np.mgrid[-1 : 1 : ink.shape[0] * 1j, -1 : 1 : ink.shape[1] * 1j]
    inverted = {"left": x < 0, "below": y > 0, "right of a slope": x + y / 3 > 0.05, "two corners": x * y > 0}[part]
    paper = np.where(inverted, ink, 1 - ink)[..., None]
    dark, light = np.array(colours)
    return Image.fromarray((dark + (light - dark) * paper).astype(np.uint8))


def hint_about_file(path) -> str:
    return hint_about_papers(*read_image(path))


@pytest.mark.parametrize("shape, part", [("star", "below"), ("star", "right of a slope"), ("star", "two corners"),
                                         ("square", "left"), ("square", "below"), ("triangle", "below")])
def test_an_inverted_half_gets_a_hint(shape, part, tmp_path):
    """Only one half is traced, and the border of the papers closes it. So no other hint would tell of the loss."""
    path = saved(on_two_papers(pen(shape, 512, 8), part), tmp_path)
    edges = edges_from_drawing(path)
    assert f1(edges, detect_edges(render(scene(shape)[0])[0])) < 0.9, "a part is lost"
    assert hint_about(edges) == ""
    said = hint_about_file(path)
    assert "a part of the drawing is inverted" in said and said.isascii() and "\n" not in said


@pytest.mark.parametrize("width", [4, 8, 12])
@pytest.mark.parametrize("colours", [[(0, 0, 0), (255, 255, 255)], [(30, 60, 200), (240, 220, 40)],
                                     [(200, 0, 0), (0, 200, 0)]])
def test_an_inverted_half_gets_a_hint_in_any_colours_and_by_any_pen(width, colours, tmp_path):
    picture = on_two_papers(pen("star", 512, width), "below", colours)
    assert "inverted" in hint_about_file(saved(picture, tmp_path))


def test_a_photo_of_an_inverted_half_gets_a_hint(tmp_path):
    picture = on_two_papers(pen("star", 512, 8), "below").convert("L")
    assert "inverted" in hint_about_file(saved(photo(picture), tmp_path))


@pytest.mark.parametrize("style", STYLES)
def test_an_ordinary_drawing_has_no_inverted_half(style, tmp_path):
    assert hint_about_file(saved(STYLES[style]("star"), tmp_path)) == ""


def in_shadow(outline: Image.Image, blur: float) -> Image.Image:
    shadow = Image.new("L", outline.size, 255)
    ImageDraw.Draw(shadow).polygon([(0, 0), (260, 0), (200, 512), (0, 512)], fill=140)
    light = np.asarray(shadow.filter(ImageFilter.GaussianBlur(blur))) / 255
    return Image.fromarray((np.asarray(outline) * light).astype(np.uint8))


def on_a_table(outline: Image.Image, table: int) -> Image.Image:
    sheet = outline.copy()
    ImageDraw.Draw(sheet).rectangle([430, 0, 511, 511], fill=table)
    return sheet


def double() -> Image.Image:
    return Image.fromarray(np.minimum(pen("circle", 512, 6), np.roll(pen("circle", 512, 6), 24, 1)))


def filled(ink: int, paper: int) -> Image.Image:
    picture = Image.new("L", (512, 512), paper)
    ImageDraw.Draw(picture).ellipse([120, 120, 400, 400], fill=ink)
    return picture


ORDINARY = {
    "a shadow with a sharp rim": lambda: in_shadow(pen("star", 512, 8), 0),
    "a soft shadow": lambda: in_shadow(pen("star", 512, 8), 12),
    "a dark table": lambda: on_a_table(pen("circle", 512, 8), 40),
    "a grey table": lambda: on_a_table(pen("circle", 512, 8), 150),
    "a double outline": double,
    "a filled shape": lambda: filled(0, 255),
    "a light shape on black": lambda: filled(240, 15),
    "a hatched shape": lambda: hatched(24),
    "a frame": framed,
    "a blank sheet": lambda: Image.new("L", (300, 300), 255),
    "a strip": lambda: Image.new("L", (300, 20), 255),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_shadows_tables_and_filled_shapes_are_no_inverted_halves(name, tmp_path):
    assert hint_about_file(saved(ORDINARY[name](), tmp_path)) == ""


# %% Dashes, lines for a detector, and pictures that are too small


def dashes(dash: float, gap: float, width: int = 3) -> Image.Image:
    """A dashed circle. Dash and gap are in pixels of 256."""
    picture = Image.new("L", (256, 256), 255)
    draw = ImageDraw.Draw(picture)
    whole = 2 * math.pi * 75
    for start in np.arange(0, whole - gap, dash + gap):
        ends = [math.degrees(where / 75) for where in (start, start + dash)]
        draw.arc([53, 53, 203, 203], *ends, fill=0, width=width)
    return picture


@pytest.mark.parametrize("dash, gap, says", [(4, 3, "broken into"), (6, 3, "broken into"), (20, 10, "enclose nothing"),
                                             (8, 8, "enclose nothing"), (471, 0, "")])
def test_a_dashed_drawing_gets_a_hint(dash, gap, says, tmp_path):
    """Gaps of up to 2 pixels count as closed, but many of them make a worse outline than one line."""
    hint = hint_about(edges_from_drawing(saved(dashes(dash, gap), tmp_path)))
    assert says in hint and bool(hint) == bool(says)


@pytest.mark.parametrize("picture", [dashes(471, 0), dashes(471, 0, 10), dashes(6, 4), dashes(20, 10), dashes(30, 15)])
def test_a_line_drawing_for_the_detector_is_noticed(picture, tmp_path):
    """It finds both sides of each line and closes gaps, so no other hint would say that --edge was meant."""
    path = saved(picture, tmp_path)
    assert is_line_drawing(path, edges_from_picture(path))


def test_filled_shapes_are_no_line_drawings(tmp_path):
    for image in random_batch(8, torch.Generator().manual_seed(3)).image:
        path = picture_file(tmp_path, image[None])
        assert not is_line_drawing(path, edges_from_picture(path))


@pytest.mark.parametrize("size, says", [((256, 8), "a strip, 32 times as wide as high"),
                                        ((8, 256), "a strip, 32 times as high as wide"),
                                        ((8, 8), "has only 8 x 8 pixels"), ((40, 12), "has only 40 x 12 pixels")])
def test_a_picture_that_is_too_small_or_narrow_says_so(size, says, tmp_path):
    path = saved(dashes(471, 0, 12).resize(size), tmp_path)
    for reader in (edges_from_drawing, edges_from_picture):
        assert says in problem(reader, path)
    assert hint_about(edges_from_drawing(saved(dashes(471, 0, 12).resize((16, 16)), tmp_path))) == ""


def test_small_lines_inside_the_outline_get_a_hint(tmp_path):
    """The eyes of a face became holes in the pictures. One small dot does no harm."""
    across, down = np.meshgrid(np.arange(256) / 256, np.arange(256) / 256)
    for eyes, told in ((0, ""), (1, ""), (2, "inside the outline")):
        face = np.empty((256, 256, 3), np.uint8)
        face[:] = 30, 40, 80
        face[np.hypot(across - 0.5, down - 0.5) < 0.34] = 255, 220, 0
        for x in (0.4, 0.6)[:eyes]:
            face[np.hypot(across - x, down - 0.42) < 0.05] = 20, 20, 20
        hint = hint_about(edges_from_picture(saved(Image.fromarray(face), tmp_path)))
        assert told in hint and bool(hint) == bool(told)


def test_one_drawing_is_traced_at_a_time_with_its_own_opacity():
    colours = torch.rand(2, 3, 64, 64)
    with pytest.raises(Problem, match="one at a time"):
        trace(colours, torch.ones(2, 1, 64, 64))
    with pytest.raises(Problem, match="of the same shape"):
        trace(colours[:1], torch.ones(1, 1, 10, 10))


def test_the_largest_size_is_a_number_of_pixels(tmp_path):
    path = saved(dashes(471, 0), tmp_path)
    for at_most in (0, -5, None, "a", 1.5):
        with pytest.raises(Problem, match="at_most is"):
            read_image(path, at_most=at_most)
