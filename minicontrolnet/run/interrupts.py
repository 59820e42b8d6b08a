"""Ctrl-C while a command or a lesson still imports ends it without a traceback. The package imports this file first.

report_problems() in options.py arranges for what follows the imports.
"""

import signal
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def is_command() -> bool:
    """Whether the package or a lesson was started as a program, and not a user's own one, or a notebook."""
    if sys.argv[:1] == ["-m"]:  # python -m minicontrolnet, until its imports are done
        return True
    program = getattr(sys.modules["__main__"], "__file__", None)
    folders = Path(program).resolve().parents if program else ()
    return PACKAGE in folders or PACKAGE.parent / "lessons" in folders


if signal.getsignal(signal.SIGINT) is signal.default_int_handler and is_command():
    signal.signal(signal.SIGINT, signal.SIG_DFL)
