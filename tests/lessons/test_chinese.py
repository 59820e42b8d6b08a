"""The Chinese page says what the English ones say: numbers, statuses, commands, links, and in the same rows."""

import re

import pytest

from conftest import LESSONS
from test_map import REFERENCE, ROWS, number_of, references, said, statuses
from test_pages import names_told, rows

PAGE = (LESSONS / "README.zh.md").read_text(encoding="utf-8")
TEACHER = (LESSONS / "README.md").read_text(encoding="utf-8")
FIRST = (LESSONS.parent / "README.md").read_text(encoding="utf-8")
CLAIMS = (LESSONS / "CLAIMS.md").read_text(encoding="utf-8")
WORDS = {"reproduced": "复现", "departed": "有改动", "contradicted": "被否定", "undecided": "未定",
         "not testable by a program": "程序无法检验"}
# What both pages have in one order, and the cells that no translation changes.
TABLES = {"## 十二课": (FIRST, "## Lessons", [0]),
          "### 45 分钟": (TEACHER, "### 45 minutes", [0]),
          "### 90 分钟": (TEACHER, "### 90 minutes", [0]),
          "### 一学期的实验课": (TEACHER, "### A term's lab", [0, 1]),
          "## 练习": (TEACHER, "## Exercises", [0, 2]),
          "## 哪些数字必须一致": (TEACHER, "## Which numbers must agree", [0]),
          "## 词汇": (TEACHER, "## Words", []),
          "### 符号": (TEACHER, "### Symbols", []),
          "## 重做实验": (TEACHER, "## Running the experiments again", [0, 1]),
          "## 通往 diffusers": (TEACHER, "## On to diffusers", [])}


def section(text, heading):
    """The text below a heading, up to the next one."""
    return re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#+ |\Z)", blocks_out(text), re.M | re.S)[1]


def blocks_out(text):
    """The text without its blocks of code, whose comments look like headings."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def numbers(text):
    return set(re.findall(r"\d+(?:[.,]\d+)*", text))


# %% Numbers


def test_every_reference_gives_the_number_before_it():
    """To its last digit, and every interval with its verdict."""
    found = references(PAGE)
    assert len(found) > 30
    for before, file, what in found:
        expected, _ = said(file, what, before[-100:])
        assert before.endswith(expected), f"<!-- {file}: {what} --> is {expected}"
        assert not re.search(r"[\d.+-]$", before.removesuffix(expected)), before[-60:]


def test_no_reference_is_lost():
    """The table of lessons and the page for the teacher keep all of theirs."""
    theirs = REFERENCE.findall(section(FIRST, "## Lessons") + TEACHER)
    assert set(theirs) <= set(REFERENCE.findall(PAGE))


def test_a_number_without_a_reference_is_one_of_the_english_pages():
    """So none grows old here alone."""
    bare = re.sub(rf"{REFERENCE.pattern}|\]\(.+?\)", "", PAGE)
    assert numbers(bare) <= numbers(FIRST + TEACHER + CLAIMS)


# %% Structure


@pytest.mark.parametrize("heading", TABLES)
def test_a_table_has_the_rows_of_the_english_one(heading):
    """As many, with the same untranslated cells, names in code style and references, row by row."""
    page, english, same = TABLES[heading]
    ours, theirs = rows(section(PAGE, heading)), rows(section(page, english))
    assert len(ours) == len(theirs) > 4
    for mine, other in zip(ours, theirs):
        for i in same:
            assert mine[i].replace("无", "none") == other[i].replace("(lessons/", "("), mine
        if english != "## Lessons":  # its results are shortened
            assert names_told(mine) == names_told(other), mine
        assert REFERENCE.findall(" ".join(mine)) == REFERENCE.findall(" ".join(other)), mine


def test_each_lesson_has_its_question_answer_and_misconceptions():
    """As many of what is often believed as in the English section."""
    ours, theirs = (re.findall(r"^### \d\d (?!分钟|minutes).+$", page, re.M) for page in (PAGE, TEACHER))
    assert [head[4:6] for head in ours] == [head[4:6] for head in theirs] == [f"{i:02}" for i in range(12)]
    for mine, other in zip(ours, theirs):
        text = section(PAGE, mine)
        assert re.match(r"\*\*问题。\*\* .+？\n\*\*回答。\*\* .+。", text), mine
        believed = re.findall("^- ", section(TEACHER, other), re.M)
        assert len(re.findall(r"^- “.+?” .+", text, re.M)) == len(believed), mine


def test_every_exercise_is_there():
    """Each that the English page lists; their number, too."""
    ids = [row[0] for row in rows(section(TEACHER, "## Exercises"))]
    assert len(ids) > 15 and set(ids) <= set(re.findall(r"\d\d[a-d]", PAGE))
    assert f"{len(ids)} 道" in PAGE


@pytest.mark.parametrize("row", ROWS, ids=number_of)
def test_a_claim_has_the_status_of_the_map(row):
    """All parts of it, in their order, in the one row whose number leads to the claim's details."""
    table = {cells[0]: cells[2] for cells in rows(section(PAGE, "# 论文的 21 条论断"))}
    assert len(table) == len(ROWS)
    told = [part.split("：") for part in table[row[0].replace("](", "](CLAIMS.md")].split("；")]
    expected = statuses(row[6])
    assert [part[-1] for part in told] == [WORDS[status] for status in expected.values()]
    assert all(len(part) == (1 if "" in expected else 2) for part in told)


# %% Commands


def test_blocks_are_those_of_the_english_pages():
    """Of commands and of code, as a whole."""
    blocks = lambda text: re.findall(r"^```.*?^```", text, re.M | re.S)
    found = blocks(PAGE)
    assert len(found) > 5 and set(found) <= set(blocks(FIRST) + blocks(TEACHER))


def test_what_is_in_code_style_is_in_an_english_page():
    """Commands, options and names, letter by letter."""
    english = FIRST + TEACHER + CLAIMS
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", blocks_out(PAGE)):
        assert code in english, code


def test_links_lead_to_files_and_the_english_pages_come_first():
    """From the folder lessons; test_pages.py follows headings, too."""
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", PAGE)]
    assert all((LESSONS / target).exists() for target in targets if target)
    assert targets[:3] == ["../README.md", "README.md", "CLAIMS.md"]
