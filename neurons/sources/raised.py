"""Superscripts of a source that marks them up, kept as such: without its markup 10<sup>9</sup> would read as 109."""

from __future__ import annotations

import re
from typing import Final

_RAISED: Final = str.maketrans(
    "0123456789+-\u2212=()",
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207b\u207c\u207d\u207e",
)
_SIGNS: Final = re.compile(r"[0-9+\u2212=()-]+")


def raised(text: str) -> str:
    """Return a superscript as plain text: its digits and signs raised, or after ^ where there is no such sign; words
    (the 2nd day, a trademark) as they are."""
    said = text.strip()
    if not any(each.isdecimal() for each in said):
        return text
    return said.translate(_RAISED) if _SIGNS.fullmatch(said) else f"^{said}"
