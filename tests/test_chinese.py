"""The Chinese page says what the English ones say: numbers, statuses, commands, links."""

import re

import pytest

from conftest import LESSONS
from test_map import ROWS, number_of, references, said, statuses

PAGE = (LESSONS / "README.zh.md").read_text(encoding="utf-8")
ENGLISH = "".join((LESSONS / name).read_text(encoding="utf-8") for name in ("../README.md", "README.md"))
WORDS = {"reproduced": "复现", "departed": "有改动", "contradicted": "被否定", "not testable by a program": "程序无法检验"}


def test_every_number_is_its_result_files():
    """To its last digit, as in the English pages."""
    found = references(PAGE)
    assert len(found) > 20
    for before, file, what in found:
        expected, _ = said(file, what, before[-100:])
        assert before.endswith(expected), f"<!-- {file}: {what} --> is {expected}"


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (LESSONS / target).exists(), target


def test_blocks_are_those_of_the_english_pages():
    """Commands and code, line by line."""
    for block in re.findall(r"```\w*\n(.*?)```", PAGE, re.S):
        for line in block.splitlines():
            assert line in ENGLISH, line


@pytest.mark.parametrize("row", ROWS, ids=number_of)
def test_a_claim_has_the_status_of_the_map(row):
    """All parts of it, in their order."""
    line, = re.findall(rf"^\| {number_of(row)} \| .+? \| (.+) \|$", PAGE, re.M)
    told = [part.split("：")[-1] for part in line.split("；")]
    assert told == [WORDS[status] for status in statuses(row[6]).values()]


def test_every_lesson_is_there():
    assert re.findall(r"^\| \[(\d\d)\]", PAGE, re.M) == [f"{i:02}" for i in range(12)]
