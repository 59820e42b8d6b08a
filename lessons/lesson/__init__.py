"""What the lessons share: options, predictions, tables, result files and figures.

Importing this package also makes ``import minicontrolnet`` work from a plain clone.
"""

import sys
from pathlib import Path

LESSONS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(LESSONS.parent), str(LESSONS)]

from .page import Lesson, table  # noqa: E402
from .results import load_pictures, load_results  # noqa: E402

__all__ = ["LESSONS", "Lesson", "load_pictures", "load_results", "table"]
