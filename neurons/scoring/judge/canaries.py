"""Criteria whose truth is known, put beside each that is asked: a grader that is wrong about one gave no grade.

One is true of the answer (a word that it uses), one is false (a name that was made up for this one question). Both are
worded as criteria are and stand in an order drawn anew, so that whoever marks everything alike is wrong about one.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Final

_WORD: Final = re.compile(r"[^\W\d_](?:[^\W\d_]|[\u0900-\u0963\u0971-\u097f])*")
_SHORTEST, _LONGEST = 4, 20
_ONSETS: Final = ("b", "br", "d", "f", "gl", "k", "l", "m", "n", "pr", "r", "s", "t", "tr", "v", "z")
_NUCLEI: Final = ("a", "e", "i", "o", "u")
_ENDINGS: Final = ("navir", "stigen", "quorin", "dopril", "mabex", "zolatin", "cillovan", "triptol")
_USED: Final = (
    'Uses the word "{word}"', 'Says the word "{word}" at least once', 'The word "{word}" stands in the answer',
)  # fmt: skip
_MADE_UP: Final = (
    "Recommends {name} as the first treatment", "Names {name} and says when to take it", "Advises against {name}",
    "Says which dose of {name} an adult may take", "Mentions {name} as a possible cause", "Explains how {name} works",
)  # fmt: skip
_SILENT: Final = "Says nothing at all: there is no text in the answer"
_ONLY_SIGNS: Final = "The answer holds no word, only digits or signs"
TEXTS: Final = (*_USED, *_MADE_UP, _SILENT, _ONLY_SIGNS)
"""All wordings, for the prompts' digest."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A criterion and whether the answer meets it."""

    text: str
    met: bool


def draw_canaries(conversation: str, answer: str, *, draw: random.Random) -> tuple[Canary, Canary]:
    """Return one canary that is true of the answer and one that is false, in any order."""
    words = sorted({word for word in _WORD.findall(answer) if _SHORTEST <= len(word) <= _LONGEST})
    words = words or sorted(set(_WORD.findall(answer)))
    if words:
        true = Canary(draw.choice(_USED).format(word=draw.choice(words)[:_LONGEST]), met=True)
    else:
        true = Canary(_ONLY_SIGNS if answer.strip() else _SILENT, met=True)
    known = f"{conversation}\n{answer}".casefold()
    name = _name(draw)
    while name.casefold() in known:
        name = _name(draw)
    both = [true, Canary(draw.choice(_MADE_UP).format(name=name), met=False)]
    draw.shuffle(both)
    return both[0], both[1]


def _name(draw: random.Random) -> str:
    syllables = "".join(draw.choice(_ONSETS) + draw.choice(_NUCLEI) for _ in range(draw.randint(1, 2)))
    return (syllables + draw.choice(_ENDINGS)).capitalize()
