"""The map of the paper's claims: what it names exists, its numbers are the result files',
and no status says more than the intervals that decide it."""

import ast
import functools
import json
import math
import re
import statistics
from pathlib import Path

import pytest

from minicontrolnet import Paired, paired

ROOT = Path(__file__).parents[1]
LESSONS = ROOT / "lessons"
PAGES = {name: (LESSONS / name).read_text(encoding="utf-8") for name in ("CLAIMS.md", "README.md")}

# A number is followed by where it stands, in a comment that no reader sees:
#     0.94<!-- 09: endless > IoU -->                     the mean of lessons/results/09_*.json's list
#     0.92 < 1.34<!-- 02: costs > locked > 0 -->         a count, which has no spread, and a bound
#     +0.2 (+0.1 .. +0.3), confirmed<!-- 09: endless > IoU - 50 > IoU -->    a paired difference
# A term may begin with "log" or "least", the least of several moments for each seed. Options come
# after ";": "margin 0.02" for a claim that the difference is above -0.02, and "decides" or
# "decides: part" where a status of CLAIMS.md rests on it.
REFERENCE = re.compile(r"<!-- (\d\d): (.+?) -->")
NUMBER = r"[-+]?\d+(?:\.\d+)?"
STATUS = {"contradicted": "contradicted", "undecided": "undecided", "confirmed": "reproduced"}


# %% Reading a reference


@functools.cache
def numbers_of(file):
    path, = (LESSONS / "results").glob(f"{file}_*.json")
    return json.loads(path.read_text(encoding="utf-8"))["numbers"]


def values(file, term, numbers=None):
    """The numbers of a term: one for each training seed, or for each picture of one set of weights."""
    how, keys = re.fullmatch(r"((?:log |least )*)(.+)", term).groups()
    if re.fullmatch(NUMBER, keys):
        value = float(keys)
    else:
        value = numbers_of(file) if numbers is None else numbers
        for key in keys.split(" > "):
            value = value[int(key)] if isinstance(value, list) else value[key]
    if "least" in how:
        value = [min(moments) for moments in zip(*value.values(), strict=True)]
    value = value if isinstance(value, list) else [value]
    if isinstance(value[0], list):
        value, = value
    return [math.log(x) for x in value] if "log" in how else value


def difference(file, one, other, margin=0.0, numbers=None):
    """The paired interval of two terms and the verdict on "above -margin"; one number stands for all."""
    a, b = (values(file, term, numbers) for term in (one, other))
    n = max(len(a), len(b))
    a, b = (x * n if len(x) == 1 else x for x in (a, b))
    apart = [x - y for x, y in zip(a, b, strict=True)]
    interval = paired(apart)
    verdict = Paired(*(end + margin for end in interval)).verdict
    agree = len({x + margin > 0 for x in apart}) == 1
    return interval, verdict if agree or n > 5 else "undecided"


def said(file, what, before, numbers=None):
    """What must stand before a reference, given what does, and the verdict that it holds, if any."""
    what, *options = what.split("; ")
    if " - " in what:
        margin = next((float(o.split()[1]) for o in options if o.startswith("margin")), 0.0)
        interval, verdict = difference(file, *what.split(" - "), margin, numbers)
        return f"{interval}, {verdict}", verdict
    mean = statistics.fmean(values(file, what, numbers))
    if bound := re.search(rf" < ({NUMBER})$", before):
        given = before[: bound.start()]
        verdict = "confirmed" if mean < float(bound[1]) else "contradicted"
    else:
        given, verdict = before, None
    shown = re.search(rf"({NUMBER})( %)?$", given)
    assert shown, f"no number before <!-- {file}: {what} -->"
    digits, scale = len(shown[1].partition(".")[2]), 100 if shown[2] else 1
    return f"{mean * scale:.{digits}f}{shown[2] or ''}{bound[0] if bound else ''}", verdict


def references(text):
    """(what stands before it, file, what) of every reference."""
    return [(text[: match.start()], *match.groups()) for match in REFERENCE.finditer(text)]


@pytest.mark.parametrize("page", PAGES)
def test_every_number_is_its_result_files(page):
    """To its last digit, and every interval with its verdict."""
    found = references(PAGES[page])
    assert found
    for before, file, what in found:
        expected, _ = said(file, what, before[-100:])
        assert before.endswith(expected), f"<!-- {file}: {what} --> is {expected}"
        assert not re.search(r"[\d.+-]$", before.removesuffix(expected)), before[-60:]


def test_how_a_reference_is_read():
    """By known answers: means, percent, bounds, pairs, margins, logarithms, the worst moment."""
    numbers = {"a": {"x": [0.5, 0.6, 0.7], "each": [[1.0, 2.0, 4.0]]}, "b": {"x": [0.2]}, "n": 2.5,
               "way": {"1": [0.9, 0.8], "2": [0.7, 0.9]}}
    read = lambda what, before: said("", what, before, numbers)
    assert read("a > x", "IoU 0.9") == ("0.6", None) and read("a > x > 1", "0.00")[0] == "0.60"
    assert read("n", "it is 1 %") == ("250 %", None)
    assert read("n", "0.0 < 3") == ("2.5 < 3", "confirmed")
    assert read("n", "0.0 < 2") == ("2.5 < 2", "contradicted")
    assert values("", "a > each", numbers) == [1, 2, 4]
    assert values("", "least way", numbers) == [0.7, 0.8]
    assert values("", "log n", numbers) == values("", "log 2.5", numbers) == [math.log(2.5)]
    interval, verdict = difference("", "a > x", "b > x", numbers=numbers)
    assert interval.mean == pytest.approx(0.4) and verdict == "confirmed"
    assert interval.high - interval.mean == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=1e-3)
    assert difference("", "a > x", "0.6", numbers=numbers)[1] == "undecided"
    assert difference("", "a > x", "0.6", margin=0.5, numbers=numbers)[1] == "confirmed"
    assert difference("", "b > x", "a > x", numbers=numbers)[1] == "contradicted"


# %% The map


def cells(line):
    return [cell.strip() for cell in line.strip("|").split(" | ")]


ROWS = [cells(line) for line in PAGES["CLAIMS.md"].splitlines() if re.match(r"\| \[\d+\]", line)]
DETAILS = dict(re.findall(r"^### Claim (\d+)\n(.*?)(?=^##|\Z)", PAGES["CLAIMS.md"], re.M | re.S))
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])


def number_of(row):
    return re.match(r"\[(\d+)\]", row[0])[1]


def statuses(cell):
    """{part: status}, such as {"": "reproduced"}, or {"sudden": "reproduced", "good": "undecided"}."""
    parts = [re.fullmatch(r"([a-z ]+?)(?: \((.+)\))?", part).groups() for part in cell.split("; ")]
    return {part or "": status for status, part in parts}


def decided(text):
    """{part: status}, each from the worst of the verdicts that decide it; one status if all agree."""
    found = {}
    for before, file, what in references(text):
        for option in what.split("; ")[1:]:
            if option.startswith("decides"):
                found.setdefault(option[len("decides: "):], []).append(said(file, what, before[-100:])[1])
    worst = lambda verdicts: min(verdicts, key=list(STATUS).index)
    found = {part: STATUS[worst(verdicts)] for part, verdicts in found.items()}
    return found if len(set(found.values())) > 1 else {"": status for status in found.values()}


def names_in(path):
    """All that a Python file defines: functions, classes and their methods, constants."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
            names |= {f"{node.name}.{inner.name}" for inner in ast.iter_child_nodes(node)
                      if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def test_each_of_the_21_claims_has_one_row_and_its_details():
    """In their order, each with the paper's section; the number leads to the details."""
    assert [row[0] for row in ROWS] == [f"[{i}](#claim-{i})" for i in range(1, 22)]
    assert list(DETAILS) == [str(i) for i in range(1, 22)]
    for row in ROWS:
        assert len(row) == 7 and re.search(r"Sec\.|Eq\.|Fig\.|Tab\.", row[2]), row


@each_row
def test_what_a_row_names_exists(row):
    """Links lead to files that define what the link says; every claim but one names its tests."""
    details = DETAILS[number_of(row)]
    links = re.findall(r"\[([^\]]+)\]\(([^)#]+)\)", " ".join(row[3:5]) + details)
    for text, target in links:
        path = (LESSONS / target).resolve()
        assert path.is_file(), target
        if path.suffix == ".py" and not re.fullmatch(r"\d\d|.*\.py", text):
            assert set(text.split(", ")) <= names_in(path), text
    tested = [text for text, _ in links if text.startswith("test_")]
    assert tested or row[6].startswith("not testable"), row


@each_row
def test_a_status_says_what_its_intervals_say(row):
    """One rule for all: the worst verdict of those that decide; without any, it is exact or departed."""
    given, found = statuses(row[6]), decided(DETAILS[number_of(row)])
    if found:
        assert given == found
    else:
        alone = {"departed", "not testable by a program"} | ({"reproduced"} if "exact" in row[5] else set())
        assert set(given) == {""} and given[""] in alone, row


@each_row
def test_what_is_undecided_names_the_experiment_that_would_decide_it(row):
    """In the details, after the words "To decide it"; nothing else has them."""
    assert ("undecided" in row[6]) == ("To decide it" in DETAILS[number_of(row)])


def test_details_alone_decide():
    """Neither the table nor the other page has an interval that decides."""
    outside = PAGES["README.md"] + PAGES["CLAIMS.md"].split("### Claim 1\n")[0]
    assert "; decides" not in outside
