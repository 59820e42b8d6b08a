"""The slides: all of them, on the page, large enough to read, and their numbers the records'."""

import importlib
import re
import sys

import pytest
from matplotlib.axis import Axis

from minicontrolnet import Problem, figures

PAGES = 16


@pytest.fixture
def maker(tools):
    tools()
    sys.modules.pop("slides", None)
    yield importlib.import_module("slides")
    figures.plt.close("all")


def texts_of(figure):
    """All texts of a figure that are seen, in its subfigures and axes, too."""
    unseen = set()  # the labels of ticks beyond an axis' ends
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        unseen |= {tick.label1 for tick in axis.get_major_ticks()
                   if not low - 1e-9 <= tick.get_loc() <= high + 1e-9}
    return [text for text in figure.findobj(figures.plt.Text)
            if text.get_text().strip() and text.get_visible() and text not in unseen]


def test_each_slide_can_be_read(maker):
    """No text leaves the page or crosses its heading; a title, three lines at most, one note, its number;
    16 points."""
    drawn = list(maker.drawn(quick=True))
    assert 12 <= len(drawn) == len(maker.SLIDES) == PAGES
    for number, (slide, figure) in enumerate(zip(maker.SLIDES, drawn), 1):
        assert tuple(figure.get_size_inches()) == (12.8, 7.2)
        figure.canvas.draw()
        width, height = figure.canvas.get_width_height()
        notes = [text for text in texts_of(figure) if text.get_size() == maker.NOTE]
        note, = (text.get_text() for text in notes if text.get_text() != str(number))
        assert len(notes) == 2 and re.search(r"lessons/|controlnet", note)
        for text in texts_of(figure):
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
            assert text in notes or text.get_size() >= (16 if slide is maker.diagram else 18), text
        for axes in figure.findobj(figures.plt.Axes):
            boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
            assert all(a.x1 <= b.x0 for a, b in zip(boxes, boxes[1:])), slide
        if slide is not maker.diagram:
            head = figure.subfigs[0]
            title, *lines = head.texts
            assert title.get_size() > 20 and 1 <= lines[0].get_text().count("\n") + 1 <= 3
            assert title.get_window_extent().y0 >= lines[0].get_window_extent().y1
            assert lines[0].get_window_extent().y0 >= head.bbox.y0


def test_the_file_holds_all_slides(maker, monkeypatch, tmp_path, capsys):
    """One page each, of 16:9; the same bytes again."""
    monkeypatch.setattr(maker, "SLIDES", (maker.convergence, maker.claims, maker.at_home))
    for name in ("one.pdf", "other.pdf"):
        maker.main(["--quick", "--out", str(tmp_path / name)])
    one, other = ((tmp_path / name).read_bytes() for name in ("one.pdf", "other.pdf"))
    assert one == other and one.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b(?!s)", one)) == 3
    assert re.findall(rb"/MediaBox \[ ?([^]]+?) ?\]", one) == [b"0 0 921.6 518.4"] * 3
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in ("one.pdf", "other.pdf")]


@pytest.mark.parametrize("shift, word", [(-0.5, "worse"), (0.5, "better")])
def test_a_title_says_what_the_record_says(shift, word, maker, monkeypatch):
    """Another record, another title: nothing of it is typed."""
    record = maker.numbers_of("08")
    for arm in ("N(0, 1/fan_in)", "lite"):
        zero = record["zero convs"]["none"]["IoU"]
        record[arm]["none"]["IoU"] = [x + shift + 0.01 * i for i, x in enumerate(zero)]
    monkeypatch.setattr(maker, "numbers_of", lambda lesson: record)
    title = maker.ablations(None).subfigs[0].texts[0].get_text().replace("\n", " ")
    assert f"large Gaussian convs are {word}, lite is {word}" in title


def test_what_cannot_be_written_is_told(maker, tmp_path, capsys):
    """Another kind of file; a folder in the file's place."""
    with pytest.raises(SystemExit):
        maker.main(["--out", str(tmp_path / "slides.png")])
    assert "is not the name of a .pdf file" in capsys.readouterr().err
    (tmp_path / "slides.pdf").mkdir()
    with pytest.raises(Problem, match="cannot write"):
        maker.main(["--out", str(tmp_path / "slides.pdf")])
