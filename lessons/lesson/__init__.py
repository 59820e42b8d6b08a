"""The parts that lessons share: options, predictions, tables, records and figures.

Importing this package also makes ``import minicontrolnet`` work from a plain clone.
"""

import sys
from pathlib import Path

LESSONS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(LESSONS.parent), str(LESSONS)]

from minicontrolnet.errors import Problem  # noqa: E402

try:
    from .page import Lesson, percent, table, two_digits, with_interval
except Problem as problem:  # matplotlib does not start, and Lesson() has not yet arranged for sentences
    raise SystemExit(f"error: {problem}") from None
from .results import finding, load_pictures, load_results, means  # noqa: E402

__all__ = ["LESSONS", "Lesson", "finding", "load_pictures", "load_results", "means", "percent", "table",
           "two_digits", "with_interval"]
