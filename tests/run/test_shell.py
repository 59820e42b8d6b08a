"""Commands behave in a shell as a Unix tool does, whatever streams and settings they find."""

import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image, ImageChops

from conftest import LESSONS, ROOT

SAMPLE = "-m minicontrolnet sample --count 1 --steps 1 --plain --out a.png"


def shell(line, folder, **variables):
    """Run a line of bash in a folder. PYTHON stands for this interpreter."""
    return subprocess.run(["bash", "-o", "pipefail", "-c", line.replace("PYTHON", sys.executable)], cwd=folder, text=True,
                          errors="replace", capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)} | variables)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
def test_a_full_device_is_told_in_one_sentence(tmp_path):
    done = shell(f"PYTHON {SAMPLE} >/dev/full", tmp_path)
    assert done.returncode and "Traceback" not in done.stderr
    assert "error: cannot write the output" in done.stderr


def test_a_lesson_starts_with_a_safe_path(tmp_path):
    done = shell(f"PYTHON {LESSONS / '03_zero_conv.py'} --steps 0", tmp_path, PYTHONSAFEPATH="1", PYTHONPATH="")
    assert "--steps: '0' is not a whole number" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["matplotlibrc", "elsewhere", "config/stylelib/mine.mplstyle"])
def test_settings_of_matplotlib_that_are_not_utf_8_are_not_blamed_on_its_backend(place, tmp_path):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_bytes(b"\x91\xff\xfe")
    places = {"MATPLOTLIBRC": "elsewhere" if place == "elsewhere" else "", "MPLCONFIGDIR": str(tmp_path / "config")}
    done = shell("PYTHON -c 'import minicontrolnet.draw.figures'", tmp_path, MPLBACKEND="agg", **places)
    assert "MPLBACKEND" not in done.stderr and "Problem: matplotlib cannot read its settings" in done.stderr
    assert place in done.stderr.split("Traceback")[0]  # the line of matplotlib that our sentence speaks of


def test_a_backend_that_does_not_exist_is_blamed_where_it_is_named(tmp_path):
    done = shell("PYTHON -c 'import minicontrolnet.draw.figures'", tmp_path, MPLBACKEND="none_such")
    assert "correct MPLBACKEND or remove it" in done.stderr


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


QUICK = f"{LESSONS / '00_check.py'} --quick"


@pytest.mark.skipif(os.name == "nt", reason="needs bash")
@pytest.mark.parametrize("line", [
    f"PYTHON {SAMPLE} | head -0",
    pytest.param("PYTHON -m minicontrolnet --help | true", marks=pytest.mark.slow),
    pytest.param("PYTHON -m minicontrolnet evaluate --count 2 --only | head -1", marks=pytest.mark.slow),
    pytest.param("PYTHON -m minicontrolnet doctor --only edge | head -1", marks=pytest.mark.slow),
    pytest.param("PYTHON -m minicontrolnet train edge --steps 1 --batch 2 --out a.pt | true", marks=pytest.mark.slow),
    pytest.param(f"PYTHON {QUICK} | true", marks=pytest.mark.slow),
    pytest.param(f"PYTHON {QUICK} 2>&1 | head -3", marks=pytest.mark.slow),
    pytest.param(f"PYTHON {LESSONS / 'exercises'} --answers mine | head -1", marks=pytest.mark.slow)])
def test_a_reader_that_has_seen_enough_ends_a_program_quietly(line, tmp_path):
    done = shell(line, tmp_path)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert "BrokenPipe" not in done.stderr and "error" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("localedef"), reason="makes a locale of its own")
@pytest.mark.parametrize("locale", ["en_US.ISO-8859-1", "C"])
def test_names_that_are_not_utf_8_in_other_locales(locale, tmp_path):
    if locale != "C":
        subprocess.run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", tmp_path / locale], check=True)
    settings = {"LC_ALL": locale, "LOCPATH": str(tmp_path), "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    train = "PYTHON -m minicontrolnet train pose --steps 1 --batch 2 --out $'caf\\xe9.pt'"
    use = f"PYTHON {SAMPLE} --pose-weights $'caf\\xe9.pt' --pose 32 36 36 16".replace("a.png", "$'\\xe9.png'")
    for line in (train, use):
        done = shell(line, tmp_path, **settings)
        assert done.returncode == 0, done.stderr
    assert {b"caf\xe9.pt", b"caf\xe9.txt", b"\xe9.png"} <= set(os.listdir(os.fsencode(tmp_path)))
