"""Figures: pictures where they belong, outlines where the edges are, and nobody's settings changed."""

import io

import matplotlib
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from minicontrolnet.conditions import condition_of, detect_edges
from minicontrolnet.draw import figures
from minicontrolnet.draw.board.pictures import row, to_bytes
from minicontrolnet.errors import Problem
from minicontrolnet.measure.scores import held_out
from minicontrolnet.shapes import tokenize


def test_outlines_are_unbroken_and_leave_the_rest():
    """Magenta over the middle of every edge pixel, and nowhere a pixel or more away from an edge."""
    batch, _ = held_out(4)
    edges = detect_edges(batch.image)
    outlined, plain = figures.outlined(batch.image, edges, 4), figures.enlarge(batch.image, 4)
    magenta = (outlined == torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)).all(1, keepdim=True)
    middle = magenta[..., 1::4, 1::4] & magenta[..., 2::4, 2::4]
    assert middle[edges > 0].all()
    far = torch.nn.functional.max_pool2d(edges, 3, stride=1, padding=1) == 0
    far = figures.enlarge(far.float(), 4)[:, :1] > 0
    assert not magenta[far].any() and far.float().mean() > 0.5
    assert torch.equal(outlined[~magenta.expand_as(outlined)], plain[~magenta.expand_as(outlined)])


def test_enlarged_pixels_are_squares():
    image = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    large = figures.enlarge(image, 5)
    assert large.shape == (2, 3, 15, 20)
    assert torch.equal(large[:, 2, 2::5, 3::5], image[:, 0]) and torch.equal(large[:, 0, ::5, ::5], image[:, 0])


def test_captions_are_prompts_in_lines():
    """Any word of them may be missing."""
    prompt = tokenize(["red star on blue", "circle", ""])
    assert figures.captions(prompt) == ["red star\non blue", "circle", ""]


def test_other_captions_are_refused():
    with pytest.raises(Problem, match="give 2 or 3"):
        figures.captions(tokenize(["star"]), lines=1)


@pytest.mark.parametrize("change", [lambda image: image * 2 - 1, lambda image: image * 255,
                                    lambda image: image / torch.zeros(1)])
def test_only_pictures_are_shown(change):
    """matplotlib shows nan as white, and cuts off what lies outside of [0, 1]."""
    images = change(held_out(2)[0].image)
    for show in (lambda: figures.grid(images, 2, "", [], []), lambda: figures.samples({}, images),
                 lambda: figures.samples({"edge": images[:1]}, torch.rand(1, 3, 64, 64))):
        with pytest.raises(Problem, match="bring them to|not finite"):
            show()


def test_a_grid_shows_each_picture_in_its_place():
    """Row by row; pixels are not smoothed."""
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 8, 8) / 10
    figure = figures.grid(images, 3, "a title", ["a", "b", "c"], ["one", "two"])
    [axes] = figure.axes
    shown = axes.images[0].get_array()
    step, gap = 8 + figures.GAP, figures.GAP
    for i in range(6):
        top, left = gap + i // 3 * step, gap + i % 3 * step
        assert abs(shown[top : top + 8, left : left + 8] - i / 10).max() < 1e-6
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
    assert axes.get_title() == "a title"


@pytest.mark.parametrize("rows, columns, below, left", [
    (3, 6, "edges\nalone", "other\npicture"),  # the width limits these, so the title needs more room
    (1, 6, "mean", ""), (5, 4, "", "")])         # narrow and tall ones
def test_no_text_of_a_grid_is_cut_off(rows, columns, below, left):
    """The outermost pixels of the file are white on all four sides."""
    figure = figures.grid(torch.rand(rows * columns, 3, 64, 64), columns, "A title with\ntwo lines",
                          [below] * columns, [left] * rows)
    with Image.open(io.BytesIO(figures.as_png(figure))) as picture:
        dark = pil_to_tensor(picture.convert("L"))[0] < 250
    assert dark.any() and not (dark[:2].any() or dark[-2:].any() or dark[:, :2].any() or dark[:, -2:].any())


def test_a_figure_of_samples_has_conditions_and_pictures():
    conditions = {"edge": torch.zeros(1, 1, 64, 64), "palette": torch.rand(1, 3, 64, 64)}
    figure = figures.samples(conditions, torch.rand(8, 3, 64, 64))
    assert [axes.get_title() for axes in figure.axes][:2] == ["condition: edge", "condition: palette"]
    assert len(figure.axes) == 3


def test_a_figure_becomes_the_bytes_of_a_png():
    figure = figures.grid(torch.rand(2, 3, 16, 16), 2, "", [], [])
    data = figures.as_png(figure)
    assert data == figures.as_png(figure), "the same bytes each time"
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG" and picture.width > 0


def test_the_users_settings_stay_as_they_are():
    """Neither an import nor a figure changes rcParams, and a figure does not depend on them."""
    plain = figures.as_png(figures.grid(torch.ones(1, 3, 8, 8), 1, "title", [], []))
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 3, "axes.titlesize": 40, "figure.dpi": 30}):
        assert figures.as_png(figures.grid(torch.ones(1, 3, 8, 8), 1, "title", [], [])) == plain
        assert matplotlib.rcParams["font.size"] == 3
    assert dict(matplotlib.rcParams) == before


def test_a_heat_map_has_a_cell_for_each_value():
    """None is a grey cell."""
    axes = Figure().subplots()
    figures.heat(axes, {"a": [1.0, 10.0], "b": [None, 0.0]}, {"a": ["1", "10"], "b": ["-", "0"]})
    assert [text.get_text() for text in axes.texts] == ["1", "10", "-", "0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert len(axes.patches) == 1 and axes.patches[0].get_xy() == pytest.approx((-0.5, 0.5))


def test_the_texts_of_a_heat_map_belong_to_the_rows_of_their_names():
    axes = Figure().subplots()
    figures.heat(axes, {"a": [1.0], "b": [30.0]}, {"b": ["30"], "a": ["1"]})
    assert [(text.get_text(), text.get_position()) for text in axes.texts] == [("1", (0, 0)), ("30", (0, 1))]
    for texts in ({"a": ["1"]}, {"a": ["1"], "c": ["30"]}, {"a": ["1"], "b": []}):
        with pytest.raises(Problem, match="the same names"):
            figures.heat(axes, {"a": [1.0], "b": [30.0]}, texts)


def test_outlines_are_drawn_on_pictures_in_their_range_only():
    truth = held_out(2)[0]
    edges = detect_edges(truth.image)
    for images, maps in ((truth.x0, edges), (truth.image, edges * 255), (edges, truth.image)):
        with pytest.raises(Problem, match="bring them to|of the shape"):
            figures.outlined(images, maps)


def test_counts_of_a_figure_are_whole_numbers():
    images = held_out(2)[0].image
    for call in (lambda: figures.grid(images, 0, "", [], []), lambda: figures.grid(images[:0], 2, "", [], []),
                 lambda: figures.enlarge(images, 1.5), lambda: row(images, 0)):
        with pytest.raises(Problem, match="give a whole number of at least 1|give at least one picture"):
            call()


@pytest.mark.parametrize("change", [lambda x: x * 1.2, lambda x: x - 0.1, lambda x: x * 255, lambda x: x * float("nan")])
def test_values_outside_of_the_range_do_not_wrap_around_as_bytes(change):
    """1.2 became 50, so bright pictures had coloured specks."""
    images = held_out(2)[0].image
    for call in (lambda: row(change(images)), lambda: to_bytes(change(images))):
        with pytest.raises(Problem, match="the pictures have values"):
            call()
    assert to_bytes(torch.tensor([-1e-6, 0.5, 1 + 1e-6])).tolist() == [0, 128, 255]


def test_a_dollar_is_a_dollar():
    """matplotlib would set the text between two of them as a formula, without the dollars."""
    image = held_out(1)[0].image
    plain, priced = (to_pixels(figures.grid(image, 1, title, [], [])) for title in ("cost 5 and 6", "cost $5 and $6"))
    assert (priced < 128).sum() > 1.05 * (plain < 128).sum()


def to_pixels(figure):
    with Image.open(io.BytesIO(figures.as_png(figure))) as file:
        return pil_to_tensor(file.convert("L"))[:, :60].int()  # the title is at the top


@pytest.mark.parametrize("below, left", [(["a", "b", "c"], []), ([], ["a", "b", "c"]), (["a"], []), ([], ["a"])])
def test_more_or_fewer_captions_than_columns_or_rows_are_refused(below, left):
    with pytest.raises(Problem, match="give one for each column"):
        figures.grid(held_out(4)[0].image, 2, "", below, left)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_table_shows_no_value_that_it_cannot(value):
    """Such a cell would be as white as that of a 0."""
    with pytest.raises(Problem, match="give None"):
        figures.heat(Figure().subplots(), {"a": [value, 0.5]}, {"a": ["x", "y"]})


def test_equal_values_of_a_table_are_dark():
    axes = Figure().subplots()
    figures.heat(axes, {"a": [0.0, 1.0], "b": [1.0, 0.0]}, {"a": ["", ""], "b": ["", ""]})
    table, = axes.images
    assert table.norm(0.0) == 1 and table.norm.vmin < 0  # log10(1) is 0


def test_a_dollar_in_a_caption_is_a_dollar():
    figure = figures.grid(held_out(2)[0].image, 2, "", ["from $5 to $6", "$$"], ["$\\foo$"])
    labels = [*figure.axes[0].get_xticklabels(), *figure.axes[0].get_yticklabels()]
    assert not any(label.get_parse_math() for label in labels)


def test_a_pose_is_drawn_on_a_picture():
    """It has soft rims, unlike an edge map, and lesson 07 shows poses."""
    batch, _ = held_out(1)
    shown = figures.outlined(batch.image, condition_of("pose", batch))
    assert (shown == torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)).all(1).any()
