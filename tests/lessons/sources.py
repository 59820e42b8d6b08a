"""Compares the numbers of a page with the records that they come from.

A table names the source of each number. It is at the end of the page, in a section "Sources of the numbers", or else in
lessons/results/SOURCES.md, below the name of the page:

    | where | number | record | which |
    |---|---|---|---|
    | Claim 19 | -0.007 (-0.028 .. +0.015) | claim_19_few_pictures | 500 minus 50, IoU |
    | Claim 19 | 0.91, 0.90 | claim_19_few_pictures | endless > IoU ; 50 > IoU |
    | The map | 84 % | claim_08_dropped_prompts | half dropped > none > right colours |
    | Claim 16 | 0.58, 0.35, 0.32 | the paper | Tab. 2 |

``where`` is a heading of the page, or its beginning; the number has to stand in the text below it, as it is printed in
the table. ``record`` is a file of lessons/results, without .json. ``which`` is a finding of the record or a path into
its numbers, and "FINDING > 2" is its third number; "PATH minus PATH" is a difference, paired by training seed or by picture. A list stands for its mean.
A number followed by two others in brackets is a mean and its 95 % interval: "0.39 (0.33 .. 0.45)", "0.39 (0.33 to
0.45)" or "0.39 (95 % interval 0.33 to 0.45, 32 pictures)". A percent sign multiplies by 100, and "47 of 64" is a share as a count. Several numbers may share
a row; then each has its own ``which``, separated by " ; ". The records "the paper", "a rule", "an example", "a review"
and "another page" are not looked up. A fifth column, which only the rows of CLAIMS.md have, says which intervals decide
the status of a claim. An interval whose end is printed as 1 or -1 is cut there, because the measure cannot go beyond it.

``complaints(path)`` also reports numbers that stand in the text and not in the table: all percentages, and all numbers
with two digits or more after the point. ``complaints(path, digits=1)`` also wants numbers with one digit after the point,
and counts.
"""

import functools
import json
import re
import statistics
from pathlib import Path
from typing import NamedTuple

from minicontrolnet import Paired, paired

RESULTS = Path(__file__).resolve().parents[2] / "lessons" / "results"
HEADING = "Sources of the numbers"
NOT_LOOKED_UP = ("the paper", "a rule", "another page", "a review", "an example")
VERSION = r"\b(?:Python|[Tt]orch|PyTorch|diffusers)\s+\d[\d.]*(?:(?:,| or| and| to)\s+\d[\d.]*)*"
PLACE = r"(?:Sec|Eq|Fig|Tab)\. [\d.]*\d(?:(?:-|, | and )\d[\d.]*)*"  # in the paper
ONE = r"[-+]?\d*\.?\d+"
INTERVAL = rf"({ONE})( %)? \((?:95 % interval )?({ONE})(?: %)? (?:\.\.|to) ({ONE})(?: %)?"
COUNT = r"(?<![\w.,])(\d+) of (\d+)\b"
NUMBER = rf"(?<![\w.]){ONE}(?: %)?(?![\w.]*\w)"


class Source(NamedTuple):
    """One number of a page and where it comes from."""

    where: str
    number: str
    record: str
    which: str
    decides: str = ""  # in CLAIMS.md: a part of the claim, and where the interval has to lie, as in "cure: above 0"


# %% Reading a page


def read(path: Path) -> tuple[str, list[Source]]:
    """The text of a page, and the sources of its numbers: at its end, or else in SOURCES.md below its name."""
    text, found, table = path.read_text(encoding="utf-8").partition(f"\n## {HEADING}\n")
    if not found:
        table = section((RESULTS / "SOURCES.md").read_text(encoding="utf-8"), path.name)
    return text, sources_in(table)


def sources_in(table: str) -> list[Source]:
    sources = []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("|") or len(cells) < 4 or set(cells[0]) <= {"-"} or cells[0] == "where":
            continue
        numbers, which = numbers_in_cell(cells[1]), cells[3].split(" ; ")
        if cells[2] in NOT_LOOKED_UP or len(which) == 1:
            which = [cells[3]] * len(numbers)
        assert len(which) == len(numbers), f"{len(numbers)} numbers and {len(which)} sources: {line}"
        decides = cells[4] if len(cells) > 4 else ""
        sources += [Source(cells[0], number, cells[2], one, decides) for number, one in zip(numbers, which)]
    return sources


def numbers_in_cell(cell: str) -> list[str]:
    """The numbers and intervals of a cell, as they are printed: "0.1, +0.2 (+0.1 .. +0.3)" holds two."""
    return [match[0] for match in re.finditer(rf"{COUNT}|{ONE}(?: %)? \([^)]*\)|{ONE}(?: %)?", cell)]


def section(text: str, where: str) -> str:
    """The text below the headings that begin with ``where``, up to the next heading; "" is the whole page."""
    if not where:
        return text
    parts = re.split(r"^#+ (.*)$", text, flags=re.M)
    return "\n".join(body for title, body in zip(parts[1::2], parts[2::2]) if belongs(title, where))


def belongs(title: str, where: str) -> bool:
    """Whether a heading begins with ``where``: "Claim 1" is not the beginning of "Claim 19"."""
    return re.match(rf"{re.escape(where)}(?!\w)", title) is not None


# %% Reading a record


@functools.cache
def record_of(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def values(record: dict, which: str) -> list[float]:
    """The numbers of a finding or of a path, one for each training seed or picture."""
    if which in record.get("findings", {}):
        return record["findings"][which]
    finding, _, place = which.rpartition(" > ")
    if finding in record.get("findings", {}):
        return [record["findings"][finding][int(place)]]
    value = record["numbers"]
    for key in which.split(" > "):
        value = value[int(key)] if isinstance(value, list) else value[key]
    value = value if isinstance(value, list) else [value]
    return value[0] if isinstance(value[0], list) else value


def differences(record: dict, which: str) -> list[float]:
    """The same, or the differences if ``which`` is "PATH minus PATH". A single number stands for every seed."""
    try:
        return values(record, which)
    except (KeyError, ValueError):
        one, found, other = which.partition(" minus ")
        if not found:
            raise
    a, b = values(record, one), values(record, other)
    n = max(len(a), len(b))
    return [x - y for x, y in zip(a * (n // len(a)), b * (n // len(b)), strict=True)]


def interval_of(record: dict, which: str) -> Paired:
    return paired(differences(record, which))


def printed(number: str, numbers: list[float]) -> str:
    """What should be printed in the place of ``number``, with as many digits and signs as it has."""
    if match := re.match(INTERVAL, number):
        mean, percent, low, high = match.groups()
        interval = paired(numbers)
        said = [(mean, interval.mean), (low, interval.low), (high, interval.high)]
        right = all(old == as_printed(old, new, bool(percent)) or is_cut(old, new) for old, new in said)
        return number if right else str(interval)
    if match := re.fullmatch(COUNT, number):
        return f"{statistics.fmean(numbers) * int(match[2]):.0f} of {match[2]}"
    percent = number.endswith(" %")
    return as_printed(number.removesuffix(" %"), statistics.fmean(numbers), percent) + " %" * percent


def is_cut(old: str, new: float) -> bool:
    """Whether an interval's end is printed as the bound of its measure, and lies beyond it."""
    return old in ("1", "-1") and new / float(old) > 1


def as_printed(old: str, new: float, percent: bool) -> str:
    digits = len(old.partition(".")[2])
    text = f"{new * (100 if percent else 1):{'+' * (old[0] in '+-')}.{digits}f}"
    return text.replace("0.", ".", 1) if old.lstrip("+-").startswith(".") else text


# %% Complaints


def complaints(path: Path, digits: int = 2) -> list[str]:
    """Everything that is wrong with the numbers of a page, one sentence each."""
    text, sources = read(path)
    found = []
    for source in sources:
        here = section(text, source.where)
        if not re.search(rf"(?<![\d.]){re.escape(source.number)}(?![\d.]*\d)", here):
            found.append(f"{source.where}: {source.number} is in the table and not in the text")
        if source.record not in NOT_LOOKED_UP:
            right = printed(source.number, differences(record_of(source.record), source.which))
            if right != source.number:
                found.append(f"{source.where}: {source.number} should be {right} ({source.record}: {source.which})")
    return found + without_source(text, sources, digits)


def without_source(text: str, sources: list[Source], digits: int) -> list[str]:
    """Percentages, numbers with so many digits after the point, and counts, that no row of the table covers."""
    found = []
    parts = re.split(r"^#+ (.*)$", text, flags=re.M)
    for title, body in zip(["", *parts[1::2]], parts[::2]):
        known = " ; ".join(source.number for source in sources if belongs(title, source.where))
        counts = [match[0] for match in re.finditer(COUNT, plain(body)) if digits < 2]
        numbers = [number for number in re.findall(NUMBER, plain(body)) if has_digits(number, digits)]
        for number in counts + numbers:
            if re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]*\d)", known):
                continue
            found.append(f"{title}: {number} has no source")
    return found


def has_digits(number: str, digits: int) -> bool:
    """Whether a number needs a source: a percentage, or so many digits or more after the point."""
    return number.endswith(" %") or len(number.partition(".")[2]) >= digits


def plain(text: str) -> str:
    """Without code, the targets of links, versions, places in the paper and the name of an interval."""
    text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|<!--.*?-->|\b\d{4}\.\d{4,5}(v\d)?\b", "", text, flags=re.S)
    text = re.sub(rf"{VERSION}|{PLACE}", "", text)
    return text.replace("95 % interval", "interval").replace("95 % intervals", "intervals")
