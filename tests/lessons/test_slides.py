"""The slides: all of them stay on their pages and can be read, and their numbers are the records'."""

import importlib
import os
import re
import subprocess
import sys

import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from conftest import LESSONS
from minicontrolnet import Problem
from minicontrolnet.draw.figures import styled


@pytest.fixture
def maker(tmp_path, monkeypatch):
    """lessons/slides.py as a module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(LESSONS))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = set(sys.modules)
    yield importlib.import_module("slides")
    for name in set(sys.modules) - before:  # other tests keep the modules that they have imported
        if name.split(".")[0] in ("slides", "lesson", "exercises"):
            del sys.modules[name]


def texts_of(figure):
    """All visible texts of a figure, in its subfigures and axes, too."""
    unseen = set()  # the labels of ticks beyond an axis' ends
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        unseen |= {tick.label1 for tick in axis.get_major_ticks()
                   if not low - 1e-9 <= tick.get_loc() <= high + 1e-9}
    return [text for text in figure.findobj(Text)
            if text.get_text().strip() and text.get_visible() and text not in unseen]


@pytest.mark.slow
def test_each_slide_can_be_read(maker):
    """No text leaves the page or overlaps its heading, and every text has at least 16 points, but for the notes."""
    slides = styled(lambda: list(maker.drawn(quick=True)))()
    assert len(slides) == len(maker.SLIDES) >= 12
    for slide, figure in zip(maker.SLIDES, slides):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        width, height = canvas.get_width_height()
        for text in texts_of(figure):
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
            assert text.get_size() >= 16 or text.get_size() == maker.NOTE, text
        for axes in figure.findobj(Axes):
            boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
            assert all(a.x1 <= b.x0 for a, b in zip(boxes, boxes[1:])), slide
        if slide is not maker.diagram:
            head = figure.subfigs[0]
            title, *lines = head.texts
            assert title.get_window_extent().y0 >= lines[0].get_window_extent().y1
            assert lines[0].get_window_extent().y0 >= head.bbox.y0


@pytest.mark.slow
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
def test_a_title_follows_its_record(shift, word, maker, monkeypatch):
    """With another record the slide has another title."""
    record = maker.numbers_of("claims_13_14_16_17_figure_8")
    zero = record["zero convs"]["none"]["IoU"]
    for arm in ("N(0, 1/fan_in)", "lite"):
        record[arm]["none"]["IoU"] = [value + shift + 0.01 * i for i, value in enumerate(zero)]
    monkeypatch.setattr(maker, "numbers_of", lambda name: record)
    title = styled(maker.ablations)(None).subfigs[0].texts[0].get_text()
    assert title.count(word) == 2


def test_a_slide_has_the_numbers_of_the_map(maker):
    """The two steps of claim 9."""
    title = styled(maker.convergence)(None).subfigs[0].texts[0].get_text()
    tenth, more = (int(number) for number in re.findall(r"\d+", title))
    page = (LESSONS / "CLAIMS.md").read_text(encoding="utf-8")
    assert f"a tenth of its highest value at step {tenth}, and half of it at step {tenth + more}." in page


def test_every_contradicted_part_has_its_sentence(maker):
    """And no other part has one."""
    _, parts = maker.parts_of_claims()
    contradicted = {(number, what) for number, status, what in parts if status == "contradicted in the toy"}
    assert set(maker.CONTRADICTED) == contradicted


def test_a_place_that_cannot_be_written_is_a_problem(maker, tmp_path, capsys):
    """Another kind of file; a folder in the file's place."""
    with pytest.raises(SystemExit):
        maker.main(["--out", str(tmp_path / "slides.png")])
    assert "is not the name of a .pdf file" in capsys.readouterr().err
    (tmp_path / "slides.pdf").mkdir()
    with pytest.raises(Problem, match="cannot write"):
        maker.main(["--out", str(tmp_path / "slides.pdf")])


def test_a_backend_that_does_not_exist_is_told_in_one_sentence(tmp_path):
    """As by the lessons, and before any slide is made."""
    done = subprocess.run([sys.executable, str(LESSONS / "slides.py"), "--quick"], cwd=tmp_path, text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, env=os.environ | {"MPLBACKEND": "nonsense"})
    assert done.returncode == 1 and done.stderr.startswith("error: matplotlib cannot start")
    assert done.stderr.count("\n") == 1 and "correct MPLBACKEND" in done.stderr and not done.stdout
