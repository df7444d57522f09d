"""Whether two questions ask the same: alike by their embeddings, and not the same sentence about another thing.

"Can I take ibuprofen on warfarin?" and "Can I take paracetamol on warfarin?" are as alike to a sentence model as two
ways to ask one of them (0.87). What tells them apart is that nearly all words are the same but the one that matters.
Measured by `tests.bench.lesson_floor`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

FLOOR: Final = 0.76
SURE: Final = 0.91
"""From here on two questions are the same whatever their words: no pair about two things was as alike."""
NEVER: Final = 2.0
"""No two questions are so alike: where the model isn't made for the script, only the same words count."""
_MOST_DIFFERENT: Final = 2
_SHARED: Final = 0.5
STEM: Final = 5
"""Characters by which words are compared: climb, climbing."""
_WORD: Final = re.compile(r"[^\W_](?:[^\W_]|[\u0900-\u0903\u093a-\u094f\u0962\u0963\u200c\u200d'])*")
_OTHER_SCRIPT: Final = re.compile(r"[^\x00-\u024f\s]")
"""A letter that the model wasn't made for. In Devanagari it takes fever and cough for one thing (0.9 and more)."""
_SAYS_LITTLE: Final = frozenset(
    """
    a about after am an and are as at be been because before but by can could did do does doing done each for from
    get gets got had has have he her here his how i i'm i've if in into is it its may me might must my no not now
    of off ok okay on or our out please she should so some take taking tell than that the their them then there
    these they this those to took up us use used using was we were what when whenever where which while who why
    will with without would you your
    """.split()  # noqa: SIM905 - words are read more easily than a list of them
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, looked at once."""

    words: str
    """Without case and marks."""
    content: frozenset[str]
    foreign: bool
    """It holds letters that the model wasn't made for."""

    @classmethod
    def of(cls, text: str) -> Asked:
        """Look at a question."""
        found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
        content = frozenset(word[:STEM] for word in found if word not in _SAYS_LITTLE)
        return cls(" ".join(found), content, any(letter.isalpha() for letter in _OTHER_SCRIPT.findall(text)))


def floor_for(one: Asked, other: Asked, *, floor: float = FLOOR) -> float:
    """Return how alike two questions must be by their embeddings to be the same."""
    if one.foreign or other.foreign:
        return NEVER
    return max(floor, SURE) if _about_two_things(one.content, other.content) else floor


def _about_two_things(one: frozenset[str], other: frozenset[str]) -> bool:
    """Tell whether two questions are the same words but for one or two on each side."""
    here, there = one - other, other - one
    if not here or not there or len(here) > _MOST_DIFFERENT or len(there) > _MOST_DIFFERENT:
        return False
    return len(one & other) >= _SHARED * min(len(one), len(other))
