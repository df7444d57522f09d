"""Characters that nobody sees: what is left of a text for its reader, and what a program must not trip over.

Whoever compares texts, or looks for words in one, does it in `visible` (words) or `as_read` (whole texts).
"""

from __future__ import annotations

import html
import unicodedata
from functools import cache
from typing import Final

_BLANK: Final = frozenset(
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x2800, 0x3164, 0xFFA0}
    | {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)}
)
"""Fillers, joiners, selectors of variants and places kept for such: letters, marks or unassigned by their category, and
yet nothing is shown (Unicode's Default_Ignorable_Code_Point, and Braille's blank)."""


@cache
def is_invisible(character: str) -> bool:
    """Tell whether a character shows nothing and is no space either: zero-width, direction marks, soft hyphens."""
    if character.isascii() and character.isprintable():
        return False
    if character.isspace():
        return False
    return unicodedata.category(character) in ("Cf", "Cc") or ord(character) in _BLANK


def visible(text: str) -> str:
    """Return a text without the characters that nobody sees: what stands around one is one word to a reader."""
    return text if text.isascii() and text.isprintable() else "".join(each for each in text if not is_invisible(each))


def as_read(text: str) -> str:
    """Return what a reader sees of a text, whatever its spacing, its signs of HTML's and how its accents are coded."""
    return unicodedata.normalize("NFC", " ".join(visible(html.unescape(text)).split()))


def is_blank(text: str) -> bool:
    """Tell whether a reader would see nothing of a text."""
    return all(character.isspace() or is_invisible(character) for character in text)


def says_something(text: str) -> bool:
    """Tell whether an answer holds a word: no dash alone, no blank of HTML, nothing that nobody sees."""
    return has_word(html.unescape(text) if "&" in text else text)


def has_word(text: str) -> bool:
    """Tell whether a text holds a letter or a digit that can be seen."""
    return any(character.isalnum() and not is_invisible(character) for character in text)
