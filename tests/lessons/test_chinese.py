"""The Chinese pages: their numbers are those of the records or of the English pages, and nothing is left out.

test_pages.py follows their links, as it does for every page.
"""

import re

import pytest
import sources
from test_claims import ROW, parts_of
from test_pages import TEACHERS as ENGLISH_TEACHERS
from test_pages import COMMANDS, commands, rows, section

from conftest import LESSONS, ROOT

PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(LESSONS.glob("*.zh.md"))}
STUDENTS = PAGES["README.zh.md"]
TEACHERS = PAGES["TEACHING.zh.md"]


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


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_one_of_the_english_pages(page):
    """Where test_pages.py tries it."""
    assert set(commands(PAGES[page])) <= set(COMMANDS)


# %% The map of claims

STATUSES = {"exact": "精确成立", "shown in the toy": "玩具中成立", "contradicted in the toy": "玩具中相反",
            "undecided": "未定", "departed": "有意改动", "not tested": "未检验"}


def the_map(page, row):
    """For each claim its status and its numbers, as they are printed."""
    text = (LESSONS / page).read_text(encoding="utf-8")
    return {int(number): (status, last) for number, _, status, last in re.findall(row, text, re.M)}


ENGLISH = the_map("CLAIMS.md", ROW)
CHINESE = the_map("CLAIMS.zh.md", ROW.replace(r"\(#claim", r"\(CLAIMS\.md#claim"))


def numbers(text):
    """All numbers, and percentages with their sign."""
    return set(re.findall(r"[-+]?\d+(?:\.\d+)?%?", text.replace(" %", "%")))


def test_both_maps_have_the_same_claims():
    assert list(CHINESE) == list(ENGLISH) == list(range(1, 22))


@pytest.mark.parametrize("number", range(1, 22))
def test_a_claim_has_the_same_statuses(number):
    """All parts of it, in the same order. A status of several parts names each of them."""
    expected = [STATUSES[status] for status in parts_of(ENGLISH[number][0]).values()]
    parts = CHINESE[number][0].split("；")
    assert [part.partition("（")[0] for part in parts] == expected
    assert len(parts) == 1 or all(part.endswith("）") for part in parts)


@pytest.mark.parametrize("number", range(1, 22))
def test_a_claim_has_the_same_numbers(number):
    assert numbers(CHINESE[number][1]) == numbers(ENGLISH[number][1])


# %% The page for teachers


@pytest.mark.parametrize("minutes", [45, 90])
def test_a_plan_has_the_minutes_of_the_english_one(minutes):
    times = [row[0] for row in rows(section(TEACHERS, f"### {minutes} 分钟"))]
    assert times == [row[0] for row in rows(section(ENGLISH_TEACHERS, f"### {minutes} minutes"))]


def test_each_lesson_has_a_question_an_answer_and_beliefs():
    """A belief names an exercise that the English page names for the same lesson."""
    headings = re.findall(r"^### \d\d .+$", section(TEACHERS, "## 逐课讨论"), re.M)
    assert [heading[4:6] for heading in headings] == [f"{number:02}" for number in range(14)]
    for heading in headings:
        text = section(TEACHERS, heading)
        english, = re.findall(rf"^### {heading[4:6]} [A-Z].*$", ENGLISH_TEACHERS, re.M)
        assert "**问：**" in text and "**答：**" in text and re.search("^- “", text, re.M), heading
        ids = re.findall(r"（(\d\d[a-d])）", text)
        assert set(ids) <= set(re.findall(r"\d\d[a-d]", section(ENGLISH_TEACHERS, english))), heading


def test_the_marks_name_the_same_exercises():
    marks, = re.findall(r"每道练习 1 分，(.+?)各 2 分", TEACHERS)
    english, = re.findall(r"gives one point, and (.+?) give two", " ".join(ENGLISH_TEACHERS.split()))
    assert re.findall(r"\d\d[a-d]", marks) == re.findall(r"\d\d[a-d]", english)
