"""Tests that a page names, as `tests/a/test_b.py` or `tests/a/test_b.py::test_c`, and those that aren't there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from tests.conftest import ROOT

_NAMED = re.compile(r"`(tests/[\w/.]+(?:::\w+)?)`")
_TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


def named(text: str) -> list[str]:
    """Return the tests that a text names."""
    return _NAMED.findall(text)


def missing(names: list[str]) -> list[str]:
    """Return those of which there is no file with tests, or no such test in it."""
    return [name for name in names if not _is_there(name)]


def _is_there(name: str) -> bool:
    path, _, test = name.partition("::")
    place = ROOT / path
    files = [place] if place.is_file() else sorted(place.rglob("test_*.py"))
    found = {each for file in files for each in _tests_of(file)}
    return test in found if test else bool(found)


@cache
def _tests_of(file: Path) -> frozenset[str]:
    return frozenset(_TEST.findall(file.read_text()))
