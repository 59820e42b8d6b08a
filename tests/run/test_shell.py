"""Commands behave in a shell as a Unix tool does, whatever streams and settings they find."""

import os
import subprocess
import sys

import pytest
from PIL import Image, ImageChops

from conftest import LESSONS, ROOT

SAMPLE = "-m minicontrolnet sample --count 1 --steps 1 --plain --out a.png"


def shell(line, folder, **variables):
    """Run a line of bash in a folder. PYTHON stands for this interpreter."""
    return subprocess.run(["bash", "-o", "pipefail", "-c", line.replace("PYTHON", sys.executable)], cwd=folder, text=True,
                          capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)} | variables)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
def test_a_full_device_is_told_in_one_sentence(tmp_path):
    done = shell(f"PYTHON {SAMPLE} >/dev/full", tmp_path)
    assert done.returncode and "Traceback" not in done.stderr
    assert "error: cannot write the output" in done.stderr


def test_a_lesson_starts_with_a_safe_path(tmp_path):
    done = shell(f"PYTHON {LESSONS / '03_zero_conv.py'} --steps 0", tmp_path, PYTHONSAFEPATH="1", PYTHONPATH="")
    assert "--steps: '0' is not a whole number" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_users_matplotlibrc_changes_no_pixel(tmp_path):
    (tmp_path / "matplotlibrc").write_text("image.origin: lower\ntext.usetex: True\nfont.size: 40\n")
    line = f"PYTHON {SAMPLE}".replace("--plain ", "")
    usual = shell(line.replace("a.png", "usual.png"), tmp_path.parent, MPLBACKEND="agg")
    assert usual.returncode == 0, usual.stderr
    for backend in ("pgf", "WebAgg"):
        done = shell(line, tmp_path, MPLBACKEND=backend)
        assert done.returncode == 0, done.stderr
        one, other = Image.open(tmp_path / "a.png"), Image.open(tmp_path.parent / "usual.png")
        assert ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getbbox() is None
