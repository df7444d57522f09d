"""Characters that nobody sees: what is left of a text for its reader, and what a program must not trip over."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Final

_BLANK: Final = frozenset(
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10)}
    | set(range(0xE0100, 0xE01F0))
)
"""Fillers, joiners and selectors of variants: letters and marks by their category, and yet nothing is shown."""


@cache
def is_invisible(character: str) -> bool:
    """Tell whether a character shows nothing and is no space either: zero-width, direction marks, soft hyphens."""
    if character.isascii() and character.isprintable():
        return False
    if character.isspace():
        return False
    return unicodedata.category(character) in ("Cf", "Cc") or ord(character) in _BLANK


def is_blank(text: str) -> bool:
    """Tell whether a reader would see nothing of a text."""
    return all(character.isspace() or is_invisible(character) for character in text)


def has_word(text: str) -> bool:
    """Tell whether a text holds a letter or a digit that can be seen."""
    return any(character.isalnum() and not is_invisible(character) for character in text)
