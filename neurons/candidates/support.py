"""How far the given sources say what an answer says.

Likeness in words is no proof: a sentence that says the opposite is alike too. So a negation on one side only, or a
number that the source hasn't, takes a sentence's support away. It prefers among answers; it never calls one right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from neurons.candidates.candidate import Candidate, Question
from neurons.candidates.words import sentences_of
from neurons.scoring.phrases import normalise

MAX_SENTENCES: Final = 64
MAX_SOURCE_SENTENCES: Final = 256
_NEGATIONS: Final = frozenset(
    ["no", "not", "dont", "never", "without", "cannot", "cant", "doesnt", "isnt", "neednt", "shouldnt", "avoid", "nor",
     "stop", "unnecessary", "wont", "against", "unsafe", "contraindicated"]
)  # fmt: skip
_FILLERS: Final = frozenset(
    ["a", "an", "the", "is", "are", "was", "be", "to", "of", "and", "or", "in", "on", "at", "for", "with", "you",
     "your", "it", "this", "that", "i", "my", "as", "if", "can", "may", "will", "should", "have", "has", "do", "does"]
)  # fmt: skip


class Support:
    """How well the sources carry a candidate, averaged over its sentences."""

    needs_logprobs = False

    async def score(self, question: Question, candidates: Sequence[Candidate]) -> list[float | None]:
        """Return each candidate's support; None for all where there are no sources."""
        said = [_Sentence(part) for source in question.sources for part in sentences_of(source)][:MAX_SOURCE_SENTENCES]
        return [_supported(candidate.text, said) if said else None for candidate in candidates]


class _Sentence:
    """A sentence's content words, numbers, and whether it negates."""

    __slots__ = ("negated", "numbers", "words")

    def __init__(self, text: str) -> None:
        words = normalise(text)
        self.numbers = {word for word in words if word[0].isdigit()}
        self.negated = not _NEGATIONS.isdisjoint(words)
        self.words = frozenset(words) - _FILLERS - _NEGATIONS


def _supported(text: str, said: Sequence[_Sentence]) -> float | None:
    claims = [claim for part in sentences_of(text)[:MAX_SENTENCES] if (claim := _Sentence(part)).words]
    if not claims:
        return None
    return sum(max(_carried(claim, sentence) for sentence in said) for claim in claims) / len(claims)


def _carried(claim: _Sentence, sentence: _Sentence) -> float:
    if not sentence.words or claim.negated != sentence.negated or not claim.numbers <= sentence.numbers:
        return 0.0
    return len(claim.words & sentence.words) / len(claim.words)
