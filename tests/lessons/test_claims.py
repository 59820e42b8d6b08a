"""The map of the paper's claims: its numbers are the records', and no status says more than the intervals behind it."""

import re

import pytest
import sources

from conftest import LESSONS
from minicontrolnet import Paired

PAGE = LESSONS / "CLAIMS.md"
TEXT, SOURCES = sources.read(PAGE)
ROW = r"^\| \[(\d+)\]\(#claim-\1\) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$"
ROWS = {int(number): (claim, status) for number, claim, status, _ in re.findall(ROW, TEXT, re.M)}
UNDECIDED_BY_NUMBERS = {"exact", "departed", "not tested"}
DECIDED = {"shown": "shown in the toy", "contradicted": "contradicted in the toy", "undecided": "undecided"}


def parts_of(status: str) -> dict[str, str]:
    """From "shown in the toy (a); undecided (b)" to {"a": "shown in the toy", "b": "undecided"}."""
    parts = {}
    for part in status.split("; "):
        words, name = re.fullmatch(r"([a-z ]+?)(?: \((.*)\))?", part).groups()
        parts[name or ""] = words
    return parts


def verdict(interval: Paired, place: str) -> str:
    """What an interval says of a claim that it lies "above X" or "below X"."""
    side, bound = place.split()
    low, high = interval.low - float(bound), interval.high - float(bound)
    if side == "below":
        low, high = -high, -low
    return "shown" if low > 0 else "contradicted" if high < 0 else "undecided"


def decided(number: int) -> dict[str, str]:
    """For each part of a claim what its intervals say together: the worst of them."""
    found = {}
    for source in SOURCES:
        if source.decides and source.where == f"Claim {number}":
            *name, place = source.decides.rsplit(": ", 1)
            interval = sources.interval_of(sources.record_of(source.record), source.which)
            found.setdefault(name[0] if name else "", []).append(verdict(interval, place))
    order = ("contradicted", "undecided", "shown")
    return {part: DECIDED[min(verdicts, key=order.index)] for part, verdicts in found.items()}


def test_every_number_is_its_records():
    assert sources.complaints(PAGE, digits=1) == []


def test_the_map_has_all_claims():
    assert list(ROWS) == list(range(1, 22))


@pytest.mark.parametrize("number", range(1, 22))
def test_a_status_says_what_its_intervals_say(number):
    """Parts that no interval decides are exact, departed or not tested."""
    given, found = parts_of(ROWS[number][1]), decided(number)
    assert {part: words for part, words in given.items() if words not in UNDECIDED_BY_NUMBERS} == found


def test_intervals_decide_only_where_claims_are_told():
    assert all(re.fullmatch(r"Claim \d+", source.where) for source in SOURCES if source.decides)


def test_the_number_of_intervals_is_told():
    """And how many of them decide. An interval between two bounds has two rows."""
    intervals = {source.number for source in SOURCES if "(" in source.number}
    deciding = {(source.where, source.number) for source in SOURCES if source.decides}
    assert f"prints {len(intervals)} different intervals, {len(deciding)} of which decide" in TEXT.replace("\n", " ")


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / target).resolve().exists(), target


def test_names_in_links_are_defined_where_they_lead():
    for names, target in re.findall(r"\[([^\]]+)\]\((\S+?\.py)\)", TEXT):
        source = (PAGE.parent / target).read_text(encoding="utf-8")
        if target.startswith(("../minicontrolnet/", "lesson/")) or target in ("lesson/networks.py", "experiments/transfer.py"):
            for name in names.split(", "):
                assert re.search(rf"^(class|def) {name}\b", source, re.M), f"{name} in {target}"


@pytest.mark.parametrize("place, said", [
    ("above 0", "shown"), ("above 0.2", "undecided"), ("above 0.5", "contradicted"), ("below 0.69", "shown"),
    ("below 0.05", "contradicted")])
def test_how_an_interval_decides(place, said):
    assert verdict(Paired(0.1, 0.2, 0.3), place) == said


def test_how_a_status_is_read():
    assert parts_of("exact") == {"": "exact"}
    assert parts_of("shown in the toy (a, b); undecided (c)") == {"a, b": "shown in the toy", "c": "undecided"}
