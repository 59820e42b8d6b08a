"""Ctrl-C while ``python -m minicontrolnet`` still imports: the program ends without a traceback."""

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
def test_a_command_that_has_begun_and_a_users_own_program_get_a_keyboard_interrupt():
    begun = interrupted("-m", "from minicontrolnet.run.options import report_problems; report_problems()")
    assert begun.returncode != 0 and begun.stderr == "interrupted\n"
    assert "KeyboardInterrupt" in interrupted("my_program.py").stderr
