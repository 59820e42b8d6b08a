"""The pages for the teacher agree with what they tell of: exercises, lessons, experiments, names."""

import importlib.util
import re
from pathlib import Path

import pytest

from conftest import LESSONS

README = (LESSONS / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in LESSONS.glob("*.md")}
TITLES = {path.stem[:2]: re.search(r"# # Lesson \d\d: (.+)", path.read_text(encoding="utf-8"))[1]
          for path in LESSONS.glob("[0-9][0-9]_*.py")}
CORE = ("02", "03", "05", "06", "07")


def section(heading):
    """The text below a heading, up to the next one of the same level or above."""
    level = heading.split()[0]
    return re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", README, re.M | re.S)[1]


def rows(text):
    """The cells of all rows of the tables in a text, without their headings."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
             if line.startswith("|")]
    ruled = [i for i, cells in enumerate(lines) if set("".join(cells)) == {"-"}]
    return [cells for i, cells in enumerate(lines) if i not in ruled and i + 1 not in ruled]


@pytest.fixture
def exercises(tools):
    tools()
    return importlib.import_module("exercises.checking").EXERCISES


# %% Exercises and lessons


def test_the_table_of_exercises_is_the_exercises_own(exercises):
    """Ids, tasks, minutes and the paper's places; the term's lab has each of them once."""
    told = [[e.id, e.task.rstrip("."), str(e.minutes), e.paper] for e in exercises.values()]
    assert rows(section("## Exercises").split("### ")[0]) == told
    assert f"{len(told)} exercises" in README
    lab = re.findall(r"\b\d\d[a-d]\b", " ".join(row[3] for row in rows(section("### A term's lab"))))
    assert sorted(lab) == sorted(exercises)


def test_what_is_often_believed_is_a_mistake_that_an_exercise_names(exercises):
    """Three for each core lesson, each from one of its exercises."""
    for lesson in CORE:
        heading = re.search(rf"^### {lesson} .+", README, re.M)[0]
        found = re.findall(r"<!-- (\d\d[a-d]): (.+?) -->", section(heading))
        assert len(found) == 3, lesson
        for id, words in found:
            assert id.startswith(lesson) and any(m.startswith(words) for m in exercises[id].mistakes), words


def test_each_lesson_has_a_question_and_an_answer_of_two_sentences():
    """Under the lesson's own title."""
    found = re.findall(r"^### (\d\d) (.+)\n\*\*Question\.\*\* (.+?\?)\n\*\*Answer\.\*\* ((?:.+\n)+)", README, re.M)
    assert {number: title.lower() for number, title, *_ in found} == {
        number: title.lower() for number, title in TITLES.items()}
    for number, _, _, answer in found:
        said = re.sub(r"<!--.+?-->|\(.+?\)", "", answer)  # no numbers' places, no intervals
        assert len(re.findall(r"[.](?:\s|$)", said)) == 2, (number, answer)


@pytest.mark.parametrize("minutes", [45, 90])
def test_a_plan_has_no_hole_and_fills_its_time(minutes):
    """Each row begins where the last one ended."""
    spans = [tuple(map(int, row[0].split("-"))) for row in rows(section(f"### {minutes} minutes"))]
    assert spans[0][0] == 0 and spans[-1][1] == minutes
    assert all(before[1] == after[0] for before, after in zip(spans, spans[1:]))
    assert all(begin < end for begin, end in spans)


def test_the_experiments_take_the_minutes_that_they_tell():
    """Each file in experiments that makes a record, and the sum of all."""
    told = {}
    for path in sorted((LESSONS / "experiments").glob("[0-9]*.py")):
        minutes = re.search(r"one core, about (\d+) minutes", path.read_text(encoding="utf-8"))[1]
        told[f"`python lessons/experiments/{path.name}`"] = minutes
    text = section("## Running the experiments again")
    assert {row[0]: row[1] for row in rows(text)} == told
    assert f"about {sum(map(int, told.values()))} minutes" in text


# %% Links and names


def anchors(text):
    """The fragments that GitHub gives to headings."""
    heads = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    """To a file or folder, and to a heading where it names one."""
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        file, _, fragment = target.partition("#")
        path = (LESSONS / file).resolve() if file else LESSONS / page
        assert path.exists(), target
        assert not fragment or fragment in anchors(path.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_read_in_an_editor(page):
    """No line is longer than 500 characters, prose not than 160; hidden words are not counted."""
    for line in PAGES[page].splitlines():
        seen = re.sub(r"<!-- .+? -->", "", line)
        assert len(line) <= 500 and (len(seen) <= 160 or line.startswith("|")), line


def words_in(folder):
    """All words in the Python files below a folder."""
    files = Path(folder).rglob("*.py")
    return set().union(*(re.findall(r"\w+", path.read_text(encoding="utf-8")) for path in files))


def names_told(cells):
    """The names in code style in some cells."""
    return {name for cell in cells for code in re.findall(r"`([^`]+)`", cell)
            for name in re.findall(r"[A-Za-z_]\w+", code)}


def test_the_projects_names_exist():
    """In the tables of symbols and of diffusers' names."""
    there = words_in(LESSONS.parent / "minicontrolnet") | words_in(LESSONS / "experiments")
    ours = [row[0] for row in rows(section("## On to diffusers"))]
    ours += [row[1] for row in rows(section("### Symbols"))]
    assert len(names_told(ours)) > 30 and names_told(ours) <= there


def test_diffusers_names_exist():
    """In its source, which is read and not imported; options of training scripts are not in the package."""
    found = importlib.util.find_spec("diffusers")
    if found is None:
        pytest.skip("diffusers is not installed")
    theirs = [re.sub(r"`--.+?`", "", row[1]) for row in rows(section("## On to diffusers"))]
    theirs += re.findall(r"^- \*\*.+", section("## On to diffusers"), re.M)
    assert names_told(theirs) <= words_in(Path(found.origin).parent)
