"""What a scorer sees, and what it must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One complete answer."""

    index: int
    """Its number among those drawn."""
    text: str
    finish: str
    """OpenAI's finish_reason: `stop` for an answer that came to its end, `length` for one that was cut."""
    logprobs: tuple[float, ...] | None = None
    """Log-probability of each of its tokens, in nats, as the engine said them; None where it said none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What was asked."""

    text: str
    """The last thing that the patient said."""
    sources: Sequence[str] = ()
    """Texts that the answer should rest on (corrections that were found for this question), best first."""


class Scorer(Protocol):
    """One opinion on candidates. A plug-in is a callable without arguments that returns one of these."""

    needs_logprobs: bool
    """Whether the engine shall be asked for the tokens' log-probabilities."""

    async def score(self, question: Question, candidates: Sequence[Candidate]) -> Sequence[float | None]:
        """Return for each candidate, in order, 0 (worst) to 1 (best), or None where it has no opinion.

        It may raise, take too long or return nonsense: then the others decide. Work that takes long belongs into a
        thread, since patients of the same miner wait meanwhile.
        """
