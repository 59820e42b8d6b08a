"""The comparison of a page's numbers with their records, by known answers."""

import json

import pytest

import sources

PAGE = """# A page

## Claim 1
The IoU rises by +0.20 (+0.03 .. +0.37), to 0.60 on average (0.35 in the paper), in 75 % of the pictures.
A 95 % interval does not need a source, and neither do `0.123`, Python 3.10 or 3.11, guidance 2.5 and arXiv 2302.05543.

## Sources of the numbers

| where | number | record | which |
|---|---|---|---|
| Claim 1 | +0.20 (+0.03 .. +0.37) | toy | good > IoU minus bad > IoU |
| Claim 1 | 0.60, 75 % | toy | good > IoU ; share |
| Claim 1 | 0.35 | the paper | Tab. 2 |
"""
RECORD = {"findings": {"share": [0.5, 1.0]},
          "numbers": {"good": {"IoU": [0.5, 0.6, 0.7]}, "bad": {"IoU": [0.37, 0.4, 0.43]}, "each": {"x": [[1.0, 3.0]]},
                      "costs": {"locked": [0.92, 0.99]}}}


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A function that writes a page and returns the complaints about it."""
    (tmp_path / "toy.json").write_text(json.dumps(RECORD), encoding="utf-8")
    monkeypatch.setattr(sources, "RESULTS", tmp_path)
    sources.record_of.cache_clear()

    def complaints(text, digits=2):
        path = tmp_path / "page.md"
        path.write_text(text, encoding="utf-8")
        return sources.complaints(path, digits)

    yield complaints
    sources.record_of.cache_clear()


def test_a_page_that_agrees_with_its_records(page):
    assert page(PAGE) == []


@pytest.mark.parametrize("old, new, complaint", [
    ("to 0.60 on", "to 0.61 on", "0.60 is in the table and not in the text"),
    ("to 0.60 on", "to 0.61 on", "0.61 has no source"),
    ("0.60", "0.61", "0.61 should be 0.60"),
    ("75 %", "76 %", "76 % should be 75 %"),
    ("+0.37)", "+0.38)", "should be +0.200 (+0.026 .. +0.374)"),
    ("| Claim 1 | 0.35 | the paper | Tab. 2 |\n", "", "0.35 has no source"),
    ("| Claim 1 | 0.35", "| Claim 2 | 0.35", "Claim 2: 0.35 is in the table and not in the text"),
])
def test_a_page_that_does_not(page, old, new, complaint):
    assert any(complaint in said for said in page(PAGE.replace(old, new)))


def test_a_table_may_stand_in_a_file_of_its_own(page, tmp_path):
    """Below the name of the page; another page's rows do not count."""
    text, table = PAGE.split("## Sources of the numbers")
    (tmp_path / "SOURCES.md").write_text(f"## other.md\n\n## page.md\n{table}", encoding="utf-8")
    assert page(text) == []
    assert any("0.61 has no source" in said for said in page(text.replace("to 0.60", "to 0.61")))
    (tmp_path / "SOURCES.md").write_text(f"## other.md\n{table}", encoding="utf-8")
    assert any("0.60 has no source" in said for said in page(text))


def test_numbers_with_one_digit_need_a_source_where_the_page_asks_for_it(page):
    """But no section or figure of the paper does."""
    assert page(PAGE.replace("A 95 %", "Sec. 3.1 and 3.4, Fig. 8; a 95 %"), digits=1) == ["Claim 1: 2.5 has no source"]


def test_a_share_may_be_printed_as_a_count(page):
    text = PAGE.replace("in 75 % of", "in 6 of 8 of").replace("0.60, 75 %", "0.60, 6 of 8").replace("2.5", "2")
    assert page(text, digits=1) == []
    assert any("7 of 8 should be 6 of 8" in said for said in page(text.replace("6 of 8", "7 of 8"), digits=1))
    assert "Claim 1: 5 of 9 has no source" in page(text.replace("in 6 of 8", "in 5 of 9, in 6 of 8"), digits=1)


def test_an_interval_may_be_cut_where_its_measure_ends():
    """Only if it would go beyond that end."""
    numbers = [0.97, 0.92, 0.99]
    assert sources.printed("+0.960 (+0.870 .. 1)", numbers) == "+0.960 (+0.870 .. 1)"
    assert sources.printed("-0.960 (-1 .. -0.870)", [-value for value in numbers]) == "-0.960 (-1 .. -0.870)"
    assert sources.printed("+0.20 (-0.05 .. 1)", [0.1, 0.2, 0.3]) == "+0.200 (-0.048 .. +0.448)"
    assert sources.printed("+0.90 (+0.65 .. 1)", [0.8, 0.9, 1.0]) == "+0.90 (+0.65 .. 1)"
    assert sources.printed("+0.80 (+0.55 .. 1)", [0.8, 0.85, 0.75]) != "+0.80 (+0.55 .. 1)"


def test_how_a_source_is_read():
    """Means, single numbers, lists over pictures and places in a list."""
    assert sources.values(RECORD, "each > x") == [1.0, 3.0]
    assert sources.values(RECORD, "costs > locked > 0") == [0.92]
    assert sources.values(RECORD, "share > 1") == [1.0] and sources.values(RECORD, "share") == [0.5, 1.0]
    assert sources.differences(RECORD, "good > IoU minus bad > IoU") == pytest.approx([0.13, 0.2, 0.27])
    assert sources.printed("+0.1", [0.5, 0.7]) == "+0.6" and sources.printed(".12", [0.25]) == ".25"
    assert sources.printed("1 %", [0.25, 0.75]) == "50 %"


def test_intervals_may_be_written_in_three_ways():
    numbers = [0.1, 0.2, 0.3]
    for text in ("+0.20 (-0.05 .. +0.45)", "0.20 (-0.05 to 0.45)", "0.20 (95 % interval -0.05 to 0.45, 3 seeds)"):
        assert sources.printed(text, numbers) == text
    assert sources.printed("0.21 (-0.05 to 0.45)", numbers) != "0.21 (-0.05 to 0.45)"
