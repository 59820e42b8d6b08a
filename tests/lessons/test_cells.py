"""A cell of a lesson can be run again, as people do in a notebook, and gives the same numbers."""

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import LESSONS

NAMES = sorted(path.stem for path in LESSONS.glob("[0-9][0-9]_*.py"))
MEASURES_TIME = re.compile(r"relative_costs|seconds\(|STEP_THERE")  # such a cell prints other numbers each time
SLOW = [pytest.param(name, marks=[pytest.mark.slow] * (name[:2] != "03")) for name in NAMES]


def code_cells(name):
    """The code cells of a lesson, in the order of the page."""
    parts = re.split(r"^# %%(.*)$", (LESSONS / f"{name}.py").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [body for head, body in zip(parts[1::2], parts[2::2]) if "[markdown]" not in head]


def run_cells(name, folder):
    """Run each cell twice, and then the whole page once more. Writes what every run of a cell printed to JSON."""
    cells = code_cells(name)
    sys.argv = [str(LESSONS / f"{name}.py"), "--quick"]
    namespace = {"__name__": "__main__"}
    told = [[] for _ in cells]
    order = [number for number in range(len(cells)) for _ in range(2)] + list(range(len(cells)))
    results = Path("outputs") / f"{name}_quick.json"
    numbers = []
    for number in order:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(cells[number], f"cell {number} of {name}", "exec"), namespace)
        told[number].append(output.getvalue())
        if results.exists():
            numbers.append(json.loads(results.read_text())["numbers"])
            results.unlink()
    Path(folder, "told.json").write_text(json.dumps({"told": told, "numbers": numbers}))


@pytest.mark.parametrize("name", SLOW)
def test_a_cell_that_is_run_again_gives_the_same_numbers(name, tmp_path):
    code = f"import sys; sys.path[:0] = {sys.path!r}; import test_cells; test_cells.run_cells({name!r}, '.')"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, cwd=tmp_path,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "told.json").read_text())
    cells = code_cells(name)
    for number, (first, *again) in enumerate(found["told"]):
        for other in again:
            if not MEASURES_TIME.search(cells[number]):
                assert other == first, f"cell {number}"
    first, *again = [without_times(numbers) for numbers in found["numbers"]] or [None]
    assert all(numbers == first for numbers in again)


def without_times(numbers):
    """The numbers of a lesson's results, without the costs of lesson 02: time and memory differ at each run."""
    return {name: value for name, value in numbers.items() if name != "costs"}
