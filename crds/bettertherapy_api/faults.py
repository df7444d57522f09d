"""What is wrong with a document that somebody else wrote, in words that a terminal and a log show as they are."""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError

_MOST: Final = 80


def first_fault(error: ValidationError, *, whole: str = "it") -> str:
    """Return the first fault of a document: the member's name, `whole` for the document itself, and what it must be.

    The name of a member that isn't known is its writer's: it may hold what would move a terminal's cursor.
    """
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:_MOST] or whole
    return printable(f"{place}: {str(first['msg']).removeprefix('Value error, ')}")


def printable(text: str, *, but: str = "") -> str:
    """Return a text with a blank for each character that isn't shown (controls, direction marks), `but` for some."""
    return "".join(each if each.isprintable() or each in but else " " for each in text)
