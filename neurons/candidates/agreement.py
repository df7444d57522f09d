"""Self-consistency: what most of a model's answers say is likelier right than what one of them says.

Wang et al. 2022 take the majority of short answers; for free text the candidate that is most like all the others is
taken (minimum Bayes risk, Kumar and Byrne 2004), which for single letters is the same majority.
"""

from __future__ import annotations

from collections.abc import Sequence

from neurons.candidates.candidate import Candidate, Question
from neurons.candidates.words import bag_of, likeness


class Agreement:
    """How much each candidate is like the others, on average."""

    needs_logprobs = False

    async def score(self, question: Question, candidates: Sequence[Candidate]) -> list[float | None]:
        """Return the mean likeness; None for a single candidate, with which nobody can agree."""
        if len(candidates) < 2:
            return [None] * len(candidates)
        bags = [bag_of(candidate.text) for candidate in candidates]
        return [
            sum(likeness(bag, other) for number, other in enumerate(bags) if number != own) / (len(bags) - 1)
            for own, bag in enumerate(bags)
        ]
