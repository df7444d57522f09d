"""Whether an answer says a phrase, and means it: words without case and punctuation, and no negation before them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from neurons.invisible import visible

_WORD: Final = re.compile(r"[^\W_](?:[^\W_]|[\u0900-\u0903\u093a-\u094f\u0955-\u0957\u0962\u0963])*\*?")
"""Python takes no vowel sign of Devanagari for part of a word."""
_ACCENT: Final = re.compile("[\u0300-\u036f]")
"""Of Latin, Greek and Cyrillic letters. The marks of other scripts make other words."""
_CLAUSE: Final = re.compile(
    r"[.!?;:,\n()\u2013\u2014]+(?!\d)|\b(?:and|but|so|then|instead|because|rather|if)\b", re.IGNORECASE
)
_NOT_YET: Final = re.compile(
    r"\b(?:do\s+not|don'?t|never|without)\s+(?:hesitat\w+|delay\w*|wait\w*|be\s+afraid|fail)(?:\s+(?:to|in|before))?\b",
    re.IGNORECASE,
)
"""Said to hurry somebody on: what follows is meant."""
_NEGATIONS: Final = frozenset(
    ["no", "not", "dont", "never", "without", "cannot", "cant", "doesnt", "isnt", "neednt", "shouldnt", "avoid", "nor",
     "stop", "unnecessary", "wont", "refuse", "against", "mustnt", "wouldnt", "couldnt", "oughtnt", "shant", "arent"]
)  # fmt: skip
_REACH: Final = 5
"""Words before a phrase in which a negation turns it round."""


def normalise(text: str) -> list[str]:
    """Return a text's words: lower case, no accents, punctuation or unseen characters, numbers apart from units."""
    plain = unicodedata.normalize("NFKD", visible(text)).casefold()
    plain = _ACCENT.sub("", plain)
    plain = re.sub(r"['\N{RIGHT SINGLE QUOTATION MARK}]", "", plain)
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    plain = re.sub(r"(?<=\d)(?=[a-z])", " ", plain)
    return _WORD.findall(plain)


def says(answer: str, phrase: str) -> bool:
    """Tell whether the answer says the phrase without negating it in the same clause."""
    return says_any(answer, (phrase,))


def says_any(answer: str, phrases: str | Sequence[str]) -> bool:
    """Tell whether the answer says the phrase, or one of them; the answer is read once or twice, however many."""
    by_reach: dict[bool, _Wanted] = {}
    for phrase in [phrases] if isinstance(phrases, str) else phrases:
        if wanted := _words_of(phrase):
            by_reach.setdefault(not _JOINED.isdisjoint(wanted), _Wanted()).add(wanted)
    return any(
        _said_in(normalise(clause), wanted)
        for joined, wanted in by_reach.items()
        for clause in _clauses(answer, joined=joined)
    )


class _Wanted:
    """Phrases by their first word."""

    def __init__(self) -> None:
        self._whole: dict[str, list[tuple[str, ...]]] = {}
        self._begun: list[tuple[str, ...]] = []

    def add(self, phrase: tuple[str, ...]) -> None:
        if phrase[0].endswith("*"):
            self._begun.append(phrase)
        else:
            self._whole.setdefault(phrase[0], []).append(phrase)

    def beginning_with(self, word: str) -> Sequence[tuple[str, ...]]:
        """Return the phrases whose first word this may be."""
        whole = self._whole.get(word, ())
        return [*whole, *self._begun] if self._begun else whole


def _said_in(words: Sequence[str], wanted: _Wanted) -> bool:
    for start, word in enumerate(words):
        for phrase in wanted.beginning_with(word):
            if _matches(words[start : start + len(phrase)], phrase):
                before = words[max(0, start - _REACH) : start]
                if not _NEGATIONS.intersection(before):
                    return True
    return False


@lru_cache(maxsize=4096)
def _words_of(phrase: str) -> tuple[str, ...]:
    return tuple(normalise(phrase))


def token_f1(answer: str, gold: str) -> float:
    """Return the F1 of the answer's words against the gold answer's, as in SQuAD: 0 to 1."""
    said, wanted = Counter(normalise(answer)), Counter(normalise(gold))
    common = sum((said & wanted).values())
    if not common:
        return 0.0
    precision, recall = common / sum(said.values()), common / sum(wanted.values())
    return 2 * precision * recall / (precision + recall)


_JOINED: Final = frozenset({"and", "but", "so", "then", "instead", "because", "rather", "if"})


def _clauses(answer: str, *, joined: bool) -> list[str]:
    """Split where a negation ends. `joined`: into whole sentences, for phrases that hold such a word themselves."""
    hurried = _NOT_YET.sub(" ", visible(answer))
    return re.split(r"[.!?;\n]+(?!\d)", hurried) if joined else _CLAUSE.split(hurried)


def _matches(words: Sequence[str], wanted: Sequence[str]) -> bool:
    return len(words) == len(wanted) and all(
        word.startswith(pattern[:-1]) if pattern.endswith("*") else word == pattern
        for word, pattern in zip(words, wanted, strict=True)
    )
