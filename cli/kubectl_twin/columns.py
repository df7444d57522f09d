"""Columns of text as wide as they must be: what doesn't fit goes as a whole column, and no name is cut.

Without Rich, which takes as long to import as the API server to answer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

GAP = "   "


class Cell(NamedTuple):
    """A text and its colour; the shorter text is for where there is less room."""

    text: str
    style: str = ""
    short: str | None = None


class Column(NamedTuple):
    """A column, and when it goes: the lowest `keep` first, None never."""

    header: str
    keep: int | None
    shorten: bool = False
    """Its cells say less before any column of a higher `keep` goes, and it itself stays."""


class Layout(NamedTuple):
    """Which columns are shown, how wide, and which of them in short."""

    columns: Sequence[Column]
    shown: Sequence[int]
    widths: Sequence[int]
    shortened: frozenset[int]

    def head(self) -> list[Cell]:
        """Return the headers' line."""
        return self._line([Cell(self.columns[place].header, "bold") for place in self.shown])

    def line(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return a row's line: cells and gaps, as they are printed."""
        return self._line([_said(cells[place], place in self.shortened) for place in self.shown])

    def _line(self, cells: Sequence[Cell]) -> list[Cell]:
        *first, last = cells
        padded = [
            each._replace(text=each.text + " " * max(0, width - width_of(each.text)) + GAP)
            for each, width in zip(first, self.widths, strict=False)
        ]
        return [*padded, last]


def layout(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, width: int | None) -> Layout:
    """Return the widest choice of columns that fits; None is as wide as it gets."""
    shown, shortened = list(range(len(columns))), set[int]()

    def widths() -> list[int]:
        return [
            max([width_of(columns[at].header), *(width_of(_said(row[at], at in shortened).text) for row in rows)])
            for at in shown
        ]

    order = sorted((each.keep, at) for at, each in enumerate(columns) if each.keep is not None)
    while width is not None and order and sum(widths()) + len(GAP) * (len(shown) - 1) > width:
        _, at = order.pop(0)
        if columns[at].shorten:
            shortened.add(at)
        else:
            shown.remove(at)
    return Layout(columns, shown, widths(), frozenset(shortened))


def width_of(text: str) -> int:
    """Return how many places a terminal takes for a text."""
    if text.isascii():
        return len(text)
    return sum(_places(each) for each in text)


def _places(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _said(cell: Cell, in_short: bool) -> Cell:
    return Cell(cell.short if in_short and cell.short is not None else cell.text, cell.style)
