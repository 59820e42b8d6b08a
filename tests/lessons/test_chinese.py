"""The Chinese pages: their numbers are those of the records or of the English pages, and nothing is left out.

test_pages.py follows their links and tries their commands, as it does for every page.
"""

import re

import pytest
import sources

from conftest import LESSONS, ROOT

PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(LESSONS.glob("*.zh.md"))}
STUDENTS = PAGES["README.zh.md"]


def in_the_form_of_english_pages(text):
    """The page with the English heading above its sources, and a space before each percent sign."""
    return re.sub(r"(\d)%", r"\1 %", text.replace("## 数字的来源", f"## {sources.HEADING}"))


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "## 数字的来源" in text])
def test_every_number_is_that_of_its_record(page, tmp_path):
    path = tmp_path / page
    path.write_text(in_the_form_of_english_pages(PAGES[page]), encoding="utf-8")
    assert sources.complaints(path) == []


def test_every_lesson_and_file_is_named():
    core = [path for path in (ROOT / "minicontrolnet").glob("[a-z]*.py") if path.stem != "errors"]
    for path in core:
        assert f"(../{path.relative_to(ROOT).as_posix()})" in STUDENTS, path
    for path in LESSONS.glob("[0-9]*.py"):
        assert f"({path.name})" in STUDENTS, path
