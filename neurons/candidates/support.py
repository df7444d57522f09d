"""How far the given sources say what an answer says.

Likeness in words is no proof: a sentence that says the opposite is alike too. So a negation on one side only, or a
number that the source hasn't, takes a clause's support away. It prefers among answers; it never calls one right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from neurons.candidates.candidate import Candidate, Question
from neurons.candidates.words import clauses_of, sentences_of
from neurons.scoring.phrases import normalise

MAX_CLAUSES: Final = 64
MAX_SOURCE_CLAUSES: Final = 256
MAX_CHARACTERS: Final = 16_384
_DENIALS: Final = frozenset(
    ["no", "not", "never", "cannot", "nor", "neither", "none", "nobody", "nothing",
     "aint", "arent", "cant", "couldnt", "didnt", "doesnt", "dont", "hadnt", "hasnt", "havent", "isnt", "mightnt",
     "mustnt", "neednt", "oughtnt", "shant", "shouldnt", "wasnt", "werent", "wont", "wouldnt"]
)  # fmt: skip
_TURNS: Final = frozenset(
    ["without", "avoid", "stop", "unnecessary", "refrain", "against", "unsafe", "contraindicated"]
)
"""They deny by themselves, and affirm where they are denied: `Do not stop`."""
_NEPALI_NEGATIONS: Final = re.compile(
    "न[\u0905-\u0939].*(?:नुहोस्|नुहोला|नुस्|नू|नु)|.*(?:दैन|दैनन्|छैन|छैनन्)|.+(?:एन|एनन्)|होइन|हैन|हुन्न|नाइँ|बिना|विना"
)
"""A verb takes it into itself: `नलिनुहोस्` is "do not take". `निल्नुहोस्` is "swallow": no sign is at its first letter."""
_FILLERS: Final = frozenset(
    ["a", "an", "the", "is", "are", "was", "be", "to", "of", "and", "or", "in", "on", "at", "for", "with", "you",
     "instead", "your", "it", "this", "that", "i", "my", "as", "if", "can", "may", "will", "should", "have", "has",
     "do", "does"]
)  # fmt: skip


class Support:
    """How well the sources carry a candidate, averaged over its clauses."""

    needs_logprobs = False

    async def score(self, question: Question, candidates: Sequence[Candidate]) -> list[float | None]:
        """Return each candidate's support; None for all where there are no sources."""
        said = [_Clause(part) for source in question.sources for part in _clauses(source)][:MAX_SOURCE_CLAUSES]
        return [_supported(candidate.text, said) if said else None for candidate in candidates]


class _Clause:
    """A clause's content words, numbers, and whether it negates."""

    __slots__ = ("negated", "numbers", "words")

    def __init__(self, text: str) -> None:
        words = normalise(text)
        self.numbers = {word for word in words if word[0].isdigit()}
        denied = any(word in _DENIALS or _NEPALI_NEGATIONS.fullmatch(word) for word in words)
        self.negated = denied == _TURNS.isdisjoint(words)
        # What a Nepali verb denies is in the verb: it stays a word of its own.
        self.words = frozenset(words) - _FILLERS - _DENIALS - _TURNS


def _clauses(text: str) -> list[str]:
    return [clause for sentence in sentences_of(text[:MAX_CHARACTERS]) for clause in clauses_of(sentence)]


def _supported(text: str, said: Sequence[_Clause]) -> float | None:
    clauses = [_Clause(part) for part in _clauses(text)[:MAX_CLAUSES]]
    claims = [clause for clause in clauses if clause.words]
    if not claims:
        # "No." answers in a word. What says nothing at all is held to the texts as all others are.
        return 0.0 if clauses and not any(clause.negated for clause in clauses) else None
    return sum(max(_carried(claim, clause) for clause in said) for claim in claims) / len(claims)


def _carried(claim: _Clause, said: _Clause) -> float:
    if not said.words or claim.negated != said.negated or not claim.numbers <= said.numbers:
        return 0.0
    return len(claim.words & said.words) / len(claim.words)
