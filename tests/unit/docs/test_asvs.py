"""The page on ASVS leaves no requirement of levels 1 and 2 out, and what it calls met names tests that are there."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT
from tests.unit.docs.named_tests import missing, named

TEXT = (ROOT / "docs/asvs.md").read_text()
SECTIONS = {
    "1.1": 2, "1.2": 9, "1.3": 11, "1.4": 3, "1.5": 2, "2.1": 3, "2.2": 3, "2.3": 4, "2.4": 1, "3.2": 2, "3.3": 4,
    "3.4": 6, "3.5": 5, "3.7": 2, "4.1": 3, "4.2": 1, "4.3": 2, "4.4": 4, "5.1": 1, "5.2": 3, "5.3": 2, "5.4": 3,
    "6.1": 3, "6.2": 12, "6.3": 4, "6.4": 4, "6.5": 5, "6.6": 3, "6.8": 4, "7.1": 3, "7.2": 4, "7.3": 2, "7.4": 5,
    "7.5": 2, "7.6": 2, "8.1": 2, "8.2": 3, "8.3": 1, "8.4": 1, "9.1": 3, "9.2": 4, "11.1": 2, "11.2": 3, "11.3": 3,
    "11.4": 4, "11.5": 1, "11.6": 1, "12.1": 3, "12.2": 2, "12.3": 4, "13.1": 1, "13.2": 5, "13.3": 2, "13.4": 5,
    "14.1": 2, "14.2": 4, "14.3": 3, "15.1": 3, "15.2": 3, "15.3": 7, "16.1": 1, "16.2": 5, "16.3": 4, "16.4": 3,
    "16.5": 3, "17.1": 1, "17.2": 4, "17.3": 2,
}  # fmt: skip
"""How many requirements of 5.0.0 a section has of levels 1 and 2; they come first in each. All of V10 is OAuth's."""
WANTED = {f"V{section}.{number}" for section, count in SECTIONS.items() for number in range(1, count + 1)}
ROW = re.compile(r"^\| (V[^|]+?) \| ([^|]+?) \| (met|documented|n/a|open): (.+) \|$", re.MULTILINE)
ROWS = ROW.findall(TEXT)


def spelt_out(ids: str) -> list[str]:
    """`V1.2.6 to V1.2.8, V1.3.1`: each of them."""
    found = []
    for part in ids.split(", "):
        first, _, last = part.partition(" to ")
        section, _, number = first.rpartition(".")
        end = int(last.rpartition(".")[2]) if last else int(number)
        found += [f"{section}.{each}" for each in range(int(number), end + 1)]
    return found


def test_each_requirement_stands_there_once() -> None:
    told = [each for ids, *_ in ROWS if not ids.startswith("V10.") for each in spelt_out(ids)]
    assert sorted(told) == sorted(set(told))
    assert set(told) == WANTED
    assert [ids for ids, *_ in ROWS if ids.startswith("V10.")] == ["V10.1.1 to V10.7.3"]


@pytest.mark.parametrize(("ids", "how", "said"), [(ids, how, said) for ids, _, how, said in ROWS], ids=lambda x: x[:20])
def test_what_is_met_names_tests_and_all_that_are_named_are_there(ids: str, how: str, said: str) -> None:
    del ids
    assert missing(named(said)) == []
    assert how != "met" or named(said)
    assert how != "documented" or re.search(r"\]\(", said)


def test_what_is_open_is_told_at_the_top() -> None:
    told = TEXT.partition("## Open")[2].partition("\n## ")[0]
    missed = [ids for ids, _, how, said in ROWS if how == "open" and f"| {ids} |" not in told]
    assert missed == []
