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
    yields_to: int | None = None
    """A cell that would cost a column of this `keep` or a higher one stands on a line of its own."""


class Layout(NamedTuple):
    """Which columns are shown, how wide, and which of them in short."""

    columns: Sequence[Column]
    shown: Sequence[int]
    widths: Sequence[int]
    shortened: frozenset[int]
    breaks_after: int | None = None
    """The column (of those shown) after which a line ends whose cell is wider than its column."""

    def head(self) -> list[Cell]:
        """Return the headers' line."""
        return self._line([Cell(self.columns[place].header, "bold") for place in self.shown])

    def lines(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """Return a row's line, or its two: cells and gaps, as they are printed."""
        said = [_said(cells[place], place in self.shortened) for place in self.shown]
        last = self.breaks_after
        if last is None or width_of(said[last].text) <= self.widths[last]:
            return [self._line(said)]
        return [self._line(said[: last + 1]), self._line([*[Cell("")] * (last + 1), *said[last + 1 :]])]

    def _line(self, cells: Sequence[Cell]) -> list[Cell]:
        *first, last = cells
        padded = [
            each._replace(text=each.text + " " * max(0, width - width_of(each.text)) + GAP)
            for each, width in zip(first, self.widths, strict=False)
        ]
        return [*padded, last]


def layout(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, width: int | None) -> Layout:
    """Return the widest choice of columns that fits; None is as wide as it gets."""
    made = _chosen(columns, rows, width)
    for at, column in enumerate(columns):
        if width is None or column.yields_to is None:
            continue
        worth = [place for place, each in enumerate(columns) if each.keep is None or each.keep >= column.yields_to]
        if any(place not in made.shown for place in worth):
            others = [place for place in worth if place != at]
            room = width - sum(_width(columns, rows, place, short=True) + len(GAP) for place in others)
            parted = [
                [Cell("") if place == at and width_of(cell.text) > room else cell for place, cell in enumerate(row)]
                for row in rows
            ]
            made = _chosen(columns, parted, width)
        made = made._replace(breaks_after=made.shown.index(at))
    return made


def _chosen(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int | None) -> Layout:
    shown, shortened = set(range(len(columns))), set[int]()

    def fits() -> bool:
        taken = sum(_width(columns, rows, at, short=at in shortened) for at in shown) + len(GAP) * (len(shown) - 1)
        return width is None or taken <= width

    order = sorted((each.keep, at) for at, each in enumerate(columns) if each.keep is not None)
    for _, at in order:
        if fits():
            break
        if columns[at].shorten:
            shortened.add(at)
        else:
            shown.discard(at)
    for _, at in reversed(order):  # a wide one that went last may leave room for narrow ones that went before
        if at not in shown:
            shown.add(at)
            if not fits():
                shown.discard(at)
    places = sorted(shown)
    widths = [_width(columns, rows, at, short=at in shortened) for at in places]
    return Layout(columns, places, widths, frozenset(shortened))


def _width(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], at: int, *, short: bool) -> int:
    return max([width_of(columns[at].header), *(width_of(_said(row[at], short).text) for row in rows)])


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
