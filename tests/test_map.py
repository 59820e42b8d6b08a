"""The map from paper to code (lessons/README.md) names only what exists, and its numbers are the result files'."""

import ast
import json
import math
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "lessons" / "README.md").read_text(encoding="utf-8")
STATES = {"reproduced", "departed", "contradicted", "undecided", "not testable by a program"}
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")]
        for line in PAGE[PAGE.index("## The map") :].splitlines() if re.match(r"\| \d+ \|", line)]


def names_in(path):
    """All that a Python file defines: functions, classes and their methods, constants."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
            names |= {f"{node.name}.{inner.name}" for inner in ast.iter_child_nodes(node) if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def entry(lesson, keys):
    """What a lesson's result file holds under "key > key"."""
    path, = (ROOT / "lessons" / "results").glob(f"{lesson}_*.json")
    value = json.loads(path.read_text(encoding="utf-8"))["numbers"]
    for key in keys.split(" > "):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def value_of(lesson, keys):
    """The number under "key > key"; the mean of a list of numbers."""
    value = entry(lesson, keys)
    return sum(value) / len(value) if isinstance(value, list) else value


def test_each_of_the_21_claims_has_one_row_and_a_status():
    """In their order, each with the paper's section and one of the five statuses."""
    assert [row[0] for row in ROWS] == [str(i) for i in range(1, 22)]
    for row in ROWS:
        assert len(row) == 8, row
        assert re.search(r"Sec\.|Eq\.|Fig\.|Tab\.", row[2]) and row[7].split(":")[0] in STATES, row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_a_row_names_exists(row):
    """Every link leads to a file, and every name beside a file is defined in it."""
    links = re.findall(r"\[([^\]]+)\]\(([^)]+)\)", " ".join(row[3:6]))
    assert links or row[7].startswith("not testable")
    for text, target in links:
        path = (ROOT / "lessons" / target).resolve()
        assert path.is_file(), target
        if ": " in text:
            file, names = text.split(": ")
            assert file == path.name and set(names.split(", ")) <= names_in(path), text


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_numbers_of_a_row_are_the_result_files(row):
    """A number is followed by where it stands, {lesson: key > key}, and agrees to its last digit."""
    text, number = f"{row[6]} {row[7]}", r"(-?\d+(?:\.\d+)?)"
    cited = re.findall(number + r"(%?) \{(\d\d): ([^}]+?)\}", text)
    paired = re.findall(rf"{number} \({number} \.\. {number}\) \{{(\d\d): ([^}}]+) - ([^}}]+)\}}", text)
    assert cited or "exact" in row[6] or row[7].startswith("not testable"), row
    assert len(cited) + len(paired) == text.count("{"), text
    for given, percent, lesson, keys in cited:
        digits = len(given.partition(".")[2])
        assert f"{value_of(lesson, keys) * (100 if percent else 1):.{digits}f}" == given, keys
    for *given, lesson, one, other in paired:
        apart = [a - b for a, b in zip(entry(lesson, one), entry(lesson, other), strict=True)]
        mean, half = statistics.fmean(apart), 1.96 * statistics.stdev(apart) / math.sqrt(len(apart))
        assert [f"{value:.2f}" for value in (mean, mean - half, mean + half)] == given, (one, other)
