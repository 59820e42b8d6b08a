"""All pages: links lead somewhere, commands and names exist, and the teacher's tables agree with the exercises."""

import contextlib
import importlib
import importlib.util
import io
import re
import shlex
import sys
from pathlib import Path

import pytest
import sources
from conftest import LESSONS, ROOT

PAGES = [ROOT / "README.md", ROOT / "minicontrolnet" / "README.md", *sorted(LESSONS.rglob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
STUDENTS = TEXTS["lessons/README.md"]
TEACHERS = TEXTS["lessons/TEACHING.md"]


def section(page, heading):
    """The text below a heading, up to the next heading of its level or above."""
    marks = heading.split()[0]
    pattern = rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(marks)}}} |\Z)"
    return re.search(pattern, page, re.M | re.S)[1]


def rows(text):
    """The cells of all rows of the tables in a text, without their headings."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    rules = [i for i, cells in enumerate(lines) if set("".join(cells)) == {"-"}]
    return [cells for i, cells in enumerate(lines) if i not in rules and i + 1 not in rules]


@pytest.fixture(scope="module")
def exercises():
    sys.path.insert(0, str(LESSONS))
    importlib.import_module("lesson")
    return importlib.import_module("exercises.checking").EXERCISES


# %% Links


def anchors(text):
    """The fragments that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Their new versions, or files that they name, have not landed yet.
NOT_YET = ()


@pytest.mark.parametrize("page", [pytest.param(page, marks=pytest.mark.xfail(strict=False) if page in NOT_YET else ())
                                  for page in TEXTS])
def test_every_link_leads_somewhere(page):
    """To a file or folder, and to a heading where the link names one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if "://" in target:
            continue
        file, _, fragment = target.partition("#")
        path = ((ROOT / page).parent / file).resolve() if file else ROOT / page
        assert path.exists(), target
        assert not fragment or fragment in anchors(path.read_text(encoding="utf-8")), target


# %% Commands


def commands(page):
    """All commands of a page, in blocks and in code style, without prompts of a shell."""
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", page, re.M | re.S))
    found = [line for line in blocks.splitlines() if "python " in line]
    found += re.findall(r"`(python [^`]+)`", page)
    return sorted({part.strip() for line in found for part in re.split(r"&&|;", line) if "python " in part})


ENGLISH = [text for page, text in TEXTS.items() if not page.endswith(".zh.md")]  # test_chinese.py compares the others with them
COMMANDS = sorted({command for page in ENGLISH for command in commands(page)})


def can_be_read(parse, words):
    """Whether a parser accepts words, where a name in capitals stands for anything."""
    with contextlib.redirect_stderr(io.StringIO()) as error:
        try:
            parse(words)
        except SystemExit:
            return error.getvalue()
    return ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists(command, exercises):
    """The file is there, and the program accepts the options."""
    words = shlex.split(command.replace("--nproc-per-node", "nproc"))
    words = words[words.index("python"):] if "python" in words else words
    program = words[1]
    if program == "-m" and words[2] == "minicontrolnet":
        from minicontrolnet.run.cli import parser

        placeholders = {"NAME": "edge", "FILE": "file.pt"}
        given = [placeholders.get(word, word) for word in words[3:]]
        assert can_be_read(parser().parse_args, given) == ""
    elif program == "lessons/exercises":
        main = importlib.import_module("exercises.__main__")
        assert can_be_read(main.read_options, words[2:]) == ""
    elif program.endswith(".py") and "NAME" not in program:
        assert (ROOT / program).is_file(), program
    elif program == "-m":
        assert importlib.util.find_spec(words[2]), command


def test_commands_are_found():
    assert len(COMMANDS) > 25


# %% Names


def words_in(folder):
    """All words in the Python files below a folder."""
    files = Path(folder).rglob("*.py")
    return set().union(*(re.findall(r"\w+", path.read_text(encoding="utf-8")) for path in files))


def names_in(cells):
    """The names in code style in some cells."""
    return {name for cell in cells for code in re.findall(r"`([^`]+)`", cell)
            for name in re.findall(r"[A-Za-z_]\w+", code)}


def test_our_names_exist():
    """In the students' tables of symbols and of diffusers' names."""
    ours = [row[0] for row in rows(section(STUDENTS, "## Where to go next"))]
    ours += [row[1] for row in rows(section(STUDENTS, "### Symbols"))]
    assert len(names_in(ours)) > 20
    assert names_in(ours) <= words_in(ROOT / "minicontrolnet")


def test_diffusers_names_exist():
    """In the source of diffusers, which we read and do not import."""
    found = importlib.util.find_spec("diffusers")
    if found is None:
        pytest.skip("diffusers is not installed")
    theirs = [row[1] for row in rows(section(STUDENTS, "## Where to go next"))]
    assert names_in(theirs) <= words_in(Path(found.origin).parent)


def test_every_figure_is_one_that_a_lesson_saves():
    """Names such as 02_locking_paths.png in the teachers' page."""
    names = set(re.findall(r"\b(\d\d)_(\w+)\.png", TEACHERS))
    assert len(names) > 8
    for number, name in names:
        path, = LESSONS.glob(f"{number}_*.py")
        suffix = f"{number}_{name}".removeprefix(path.stem)
        saved = re.findall(r"save_figure\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)", path.read_text(encoding="utf-8"))
        assert any(f'"{suffix}"' in call if suffix else '"_' not in call for call in saved), name


# %% Exercises and plans


def test_the_teachers_table_has_every_exercise_as_it_is(exercises):
    """Its id, task, minutes and place in the paper; the term's lab has each of them once."""
    table = {row[0]: row for row in rows(section(TEACHERS, "## Exercises").split("\n### ")[0])}
    for id, exercise in exercises.items():
        assert table[id] == [id, exercise.task.rstrip("."), str(exercise.minutes), exercise.paper]
    in_lab = re.findall(r"\b\d\d[a-d]\b", section(TEACHERS, "### A term's lab"))
    assert sorted(in_lab) == sorted(table)


def test_a_belief_names_an_exercise_of_its_lesson():
    """Each of the core lessons has at least two of them."""
    headings = re.findall(r"^### (\d\d) [A-Z]", TEACHERS, re.M)
    assert headings == [f"{number:02}" for number in range(14)]
    for heading in re.findall(r"^### \d\d [A-Z].*$", TEACHERS, re.M):
        number = heading.split()[1]
        ids = re.findall(r"\((\d\d[a-d])\)", section(TEACHERS, heading))
        assert all(id.startswith(number) for id in ids), heading
        assert number not in ("02", "03", "05", "06", "07") or len(ids) >= 2, heading


@pytest.mark.parametrize("plan, minutes", [("45 minutes", 45), ("90 minutes", 90), ("The clinic in 20 minutes", 20)])
def test_a_plan_has_no_hole_and_fills_its_time(plan, minutes):
    spans = [tuple(map(int, row[0].split("-"))) for row in rows(section(TEACHERS, f"### {plan}"))]
    assert spans[0][0] == 0 and spans[-1][1] == minutes
    assert all(before[1] == after[0] for before, after in zip(spans, spans[1:]))
    assert all(begin < end for begin, end in spans)


def test_every_exercise_with_more_points_is_named(exercises):
    """In the section on marks."""
    grading = importlib.import_module("exercises.grading")
    assert set(grading.POINTS) <= set(re.findall(r"\d\d[a-d]", section(TEACHERS, "### Marks")))


# %% Numbers


@pytest.mark.parametrize("page", ["lessons/README.md", "lessons/TEACHING.md", "lessons/exercises/QUESTIONS.md"])
def test_every_number_is_that_of_its_record(page):
    """By the table "Sources of the numbers" at the end of the page."""
    assert sources.complaints(ROOT / page) == []
