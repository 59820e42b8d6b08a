"""Ctrl-C while a command or a lesson still imports: the program ends without a traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import os, signal, sys
sys.argv = [{first!r}]
import minicontrolnet
{then}
os.kill(os.getpid(), signal.SIGINT)
"""


def interrupted(first, then=""):
    """Python gets SIGINT right behind the import, where sys.argv[0] is ``first``."""
    return subprocess.run([sys.executable, "-c", CODE.format(first=first, then=then)], cwd=ROOT, text=True,
                          capture_output=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_ctrl_c_during_the_imports_of_a_command_is_quiet():
    done = interrupted("-m")
    assert done.returncode == -signal.SIGINT and done.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
@pytest.mark.parametrize("program", ["lessons/03_zero_conv.py", "lessons/08_ablations.py", "lessons/exercises",
                                     "lessons/exercises/capstone.py", "lessons/notebooks.py", "lessons/slides.py",
                                     "lessons/pictures.py", "minicontrolnet"])
def test_ctrl_c_while_a_program_of_ours_imports_torch_is_quiet(program, tmp_path):
    """In the place of torch there is a module that is interrupted, as the real one is while it loads for a second."""
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run([sys.executable, program], cwd=ROOT, text=True, capture_output=True,
                          env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == -signal.SIGINT and done.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_every_lesson_imports_its_own_package_first():
    """That package makes Ctrl-C quiet, and torch takes a second to load."""
    for path in sorted((ROOT / "lessons").glob("[0-9][0-9]_*.py")):
        names = [line.split()[1].split(".")[0] for line in path.read_text(encoding="utf-8").splitlines()
                 if line.startswith(("import ", "from "))]
        assert next(name for name in names if name not in sys.stdlib_module_names) == "lesson", path.name


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_a_command_that_has_begun_and_a_users_own_program_get_a_keyboard_interrupt():
    begun = interrupted("-m", "from minicontrolnet.run.options import report_problems; report_problems()")
    assert begun.returncode != 0 and begun.stderr == "interrupted\n"
    assert "KeyboardInterrupt" in interrupted("my_program.py").stderr
