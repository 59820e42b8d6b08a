"""Every lesson runs from a plain clone in quick mode, says what it must, and leaves its figure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "lessons").glob("[0-9][0-9]_*.py"))


def run(lesson: Path, *words: object, cwd: Path) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DISPLAY")}
    return subprocess.run([sys.executable, str(lesson), *map(str, words)], cwd=cwd, text=True,
                          capture_output=True, timeout=120, env=environment)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_lesson_runs_in_quick_mode(lesson, lesson_run):
    done, folder = lesson_run(lesson.stem)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    for part in ("PREDICT", "RESULT", "--quick is a smoke run", "the answer is"):
        assert part in done.stdout
    with Image.open(folder / "outputs" / f"{lesson.stem}.png") as figure:
        assert min(figure.size) > 500


@pytest.mark.parametrize("words, said", [
    (["--steps", "0"], "whole number from 1"), (["--device", "tpu"], "is not a device"),
    (["--quick", "--full"], "not allowed with"), (["--out", "file/below"], "cannot write")])
def test_bad_options_get_one_sentence(words, said, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = run(LESSONS[0], *words, cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" not in done.stderr and said in done.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "mine")]
