"""What is kept out of training: what safety and evaluation items ask and answer, known again but for a few words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import Final

from neurons.emergency.words import skeletons
from neurons.scoring import safety_items
from neurons.scoring.contrasts import Contrast, safety_contrasts
from neurons.scoring.healthbench import Asked, Example
from neurons.scoring.items import Gold
from neurons.scoring.near_duplicates import NearDuplicates, plain
from neurons.trainer.dataset import asked_in
from neurons.trainer.lines import Line

GOLD_LIKENESS: Final = 0.8
"""For gold answers: a doctor's own sentences ("You can see me on Monday…") stand in half of what she says, and the
facts in them are what a twin is to learn. Only an answer that is the gold one is a copy of it."""
SPELLED_LIKENESS: Final = 0.4
"""For Nepali in the other script, by one spelling for both: in Latin letters it is written in many ways, which leave
0.5 to 0.9; two questions have 0.1 (tests/unit/trainer/test_held_out.py)."""
_DEVANAGARI: Final = re.compile("[\u0900-\u097f]")
_LATIN: Final = re.compile("[a-zA-Z]")


class HeldOut:
    """The items of an evaluation and of the safety sets, by which lines are left out."""

    def __init__(
        self, items: Iterable[Asked], contrasts: Iterable[Contrast] = (), *, beside: HeldOut | None = None
    ) -> None:
        """Take in the items of both sets, and those for likelihood with all that may be said to them; and what another
        one has taken in."""
        self._all: tuple[HeldOut, ...] = (self,) if beside is None else (*beside._all, self)
        items, contrasts = tuple(items), tuple(contrasts)
        self._questions = frozenset(item.question_digest for item in (*items, *contrasts))
        texts = [
            *(item.question for item in (*items, *contrasts)),
            *(text for item in contrasts for text in item.continuations),
            *(
                turn.content
                for item in items
                if isinstance(item, Example)
                for turn in item.prompt[:-1]
                if turn.role == "user"
            ),
        ]
        self._texts = NearDuplicates(texts)
        # each is asked about what is written in the other script: within one script words are compared as they are
        self._in_devanagari = _spelled_ones(text for text in texts if _DEVANAGARI.search(text))
        self._in_latin = _spelled_ones(text for text in texts if not _DEVANAGARI.search(text))
        self._gold = NearDuplicates((item.gold for item in items if isinstance(item, Gold)), likeness=GOLD_LIKENESS)

    def has(self, line: Line) -> bool:
        """Tell whether a line asks an item's question, or says what is to be said to one, but for a few words."""
        asked = asked_in(line)
        if any(not asked.isdisjoint(each._questions) for each in self._all):
            return True
        return any(each._knows(text) for text in _said(line) for each in self._all)

    def _knows(self, text: str) -> bool:
        return self._texts.holds(text) or self._gold.holds(text) or self._in_other_script(text)

    def _in_other_script(self, text: str) -> bool:
        spelled = _spelled(text)
        return (_LATIN.search(text) is not None and self._in_devanagari.holds(spelled)) or (
            _DEVANAGARI.search(text) is not None and self._in_latin.holds(spelled)
        )


@cache
def safety_held_out() -> HeldOut:
    """Return the product's own safety items, which no twin may be trained on: they take seconds, once in a process."""
    return HeldOut(safety_items(), safety_contrasts())


def _spelled_ones(texts: Iterable[str]) -> NearDuplicates:
    return NearDuplicates((_spelled(text) for text in texts), likeness=SPELLED_LIKENESS)


def _spelled(text: str) -> str:
    """Return a text's words in the one spelling that stands for Nepali in either script."""
    return " ".join(_skeleton(word) for word in plain(text).split())


@lru_cache(maxsize=100_000)
def _skeleton(word: str) -> str:
    return skeletons(word)[0]


def _said(line: Line) -> Iterator[str]:
    """Yield all that a line says, right or wrong; and what each side says in all its turns together, since a question
    may be asked bit by bit."""
    for role in ("user", "assistant"):
        turns = [message.content for message in line.messages if message.role == role]
        if len(turns) > 1:
            yield " ".join(turns)
    yield from (message.content for message in line.messages if message.role != "system")
    yield from (text for text in (line.correction, line.preferred, line.rejected) if text is not None)
