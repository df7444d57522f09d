"""Sentences for a narrow terminal: lines end between words, and a command that is to be copied stays on one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from kubectl_twin.columns import width_of

_PIECE: Final = re.compile(r"(?:[^\s`]*`kubectl [^`\n]+`)?\S*")


def pieces(text: str) -> list[str]:
    """Return what must not be broken: words, and suggested commands with what is written against them."""
    return [found[0] for found in _PIECE.finditer(text) if found[0]]


def wrapped(text: str, width: int) -> str:
    """Return the text in lines of `width` places; one with a longer piece is left for the terminal to break."""
    letters = list(text)
    for at in breaks(text, width):
        letters[at] = "\n"
    return "".join(letters)


def breaks(text: str, width: int) -> Iterator[int]:
    """Yield the places of the blanks at which lines end; a line that fits stays as it is."""
    start = 0
    for line in text.split("\n"):
        if width_of(line) > width:
            begun = 0
            for found in _PIECE.finditer(line):
                too_long = width_of(line[begun : found.end()]) > width
                if found[0] and too_long and found.start() > begun and line[begun : found.start()].strip():
                    yield start + found.start() - 1
                    begun = found.start()
        start += len(line) + 1
