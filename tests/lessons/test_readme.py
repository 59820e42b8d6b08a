"""The front page: its code runs, its tables are complete, and its scores are those of the shipped weights.

test_pages.py follows its links and commands.
"""

import json
import re
import subprocess
import sys

import pytest

from conftest import LESSONS, ROOT
from minicontrolnet import COLOURS, SHAPES, colours_right, conflicting, detect_edges, held_out, mask_iou, mask_of, sample
from minicontrolnet import shapes_right

README = (ROOT / "README.md").read_text(encoding="utf-8")
SCORES = README.split("## How well does it work?")[1].split("\n## ")[0]


def test_every_lesson_and_file_is_named():
    """Each lesson, and each file of the core, which stands flat in the package."""
    core = [path for path in (ROOT / "minicontrolnet").glob("[a-z]*.py") if path.stem != "errors"]
    for path in [*LESSONS.glob("[0-9]*.py"), *core]:
        assert f"({path.relative_to(ROOT).as_posix()})" in README, path


def test_the_words_of_prompts_are_named():
    words = README.replace("\n", " ")
    for names in (COLOURS, SHAPES):
        *first, last = names
        assert f"{', '.join(first)} and {last}" in words


def test_the_first_picture_shows_as_many_steps_as_the_page_says():
    record = json.loads((LESSONS / "results" / "05_edge_control.json").read_text(encoding="utf-8"))
    said, = re.findall(r"The picture above shows this happening, in (\d+) training", README)
    assert int(said) == record["steps"]


def test_the_whole_idea_runs_as_it_stands(tmp_path):
    """The first block of Python in a new process: four pictures, and all of them follow their outlines."""
    code, = re.findall(r"```python\n(.+?)```", README, re.S)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert min(map(float, re.findall(r"\d\.\d+", run.stdout))) > 0.9


def scores_in(row):
    """The numbers of a row of the table, percentages as shares."""
    line, = (line for line in SCORES.splitlines() if line.startswith(f"| {row} |"))
    found = re.findall(r"(\d+\.\d+|\d+(?= %))( %)?", line)
    return [float(number) / (100 if percent else 1) for number, percent in found]


@pytest.mark.slow
@pytest.mark.parametrize("row, prompt, controlled", [
    ("edge ControlNet, with the prompt", "right", True),
    ("edge ControlNet, no prompt", "none", True),
    ("edge ControlNet, a prompt that names another shape", "conflicting", True),
    ("without ControlNet", "right", False)])
def test_the_scores_are_those_of_the_shipped_weights(row, prompt, controlled, shipped):
    """With 64 of the 256 pictures, so we allow three standard errors of their mean."""
    truth, noise = held_out(64)
    words = {"right": truth.prompt, "none": "", "conflicting": conflicting(truth.prompt)}[prompt]
    controls = [(shipped.controls["edge"], detect_edges(truth.image))] if controlled else []
    images = sample(shipped.base, words, noise, controls)
    measured = [mask_iou(mask_of(images), truth.mask)]
    if prompt != "none":
        measured.append(colours_right(images, truth.prompt))
    if prompt == "right":
        measured.append(shapes_right(images, truth.prompt, shipped.classifier))
    printed = scores_in(row)
    assert len(printed) == len(measured)
    for number, values in zip(printed, measured):
        error = values.float().std() / 64**0.5
        assert abs(values.float().mean() - number) <= 3 * error + 0.011, row
