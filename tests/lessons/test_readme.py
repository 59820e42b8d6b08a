"""The README's first page: its code runs, its numbers are those of the files that they tell of."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from minicontrolnet import COLOURS, SHAPES
from minicontrolnet.__main__ import parser
from test_map import references, said

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_result_is_its_result_files():
    """Each number before a comment such as <!-- 05: half -->; see test_map.py for the rule."""
    found = references(README)
    assert len(found) >= 20
    for before, file, what in found:
        expected, _ = said(file, what, before[-100:])
        assert before.endswith(expected), f"<!-- {file}: {what} --> is {expected}"


def test_the_six_files_are_as_long_as_told():
    """In the table of the reading order."""
    told = re.findall(r"\| \[(\w+\.py)\]\(minicontrolnet/\w+\.py\) \| (\d+) \|", README)
    assert len(told) == 6
    for name, lines in told:
        text = (ROOT / "minicontrolnet" / name).read_text(encoding="utf-8")
        assert text.count("\n") == int(lines), name


def test_every_lesson_and_file_is_named():
    """And every link leads to a file or folder."""
    for path in [*(ROOT / "lessons").glob("[0-9]*.py"), *(ROOT / "minicontrolnet").glob("[a-z]*.py")]:
        assert f"({path.relative_to(ROOT).as_posix()})" in README, path
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", README):
        assert (ROOT / target).exists(), target


def test_the_words_of_prompts_are_told():
    """All colours and shapes, in their order."""
    assert f"{', '.join(COLOURS)}; {', '.join(SHAPES)}" in README.replace("\n", " ")


def test_the_scores_are_rows_as_evaluate_prints_them():
    """A name of 40 letters, then scores to three digits; a hand that touched them shows."""
    lines = re.findall(r"^(?:prompt|edge|palette|pose).*(?:\d\.\d{3}).*$", README, re.M)
    assert len(lines) > 20
    for line in lines:
        assert re.fullmatch(r"[\w+ ,:\-()]{40}(?:[\w\- ]+? -?\d+\.\d{3} *)+", line), line


def test_the_whole_idea_runs_as_it_stands(tmp_path):
    """The first block of Python, pasted into a new process: four pictures, each followed."""
    code, = re.findall(r"```python\n(.+?)```", README, re.S)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert min(map(float, re.findall(r"\d\.\d+", run.stdout))) > 0.9


@pytest.mark.parametrize("line", re.findall(r"^python -m minicontrolnet (.+)$", README, re.M))
def test_every_command_is_one(line):
    """Its words are options that the program has."""
    words = re.findall(r'"([^"]*)"|(\S+)', line)
    parser().parse_args([quoted or plain for quoted, plain in words])
