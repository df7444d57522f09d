"""How sure the model was of an answer's tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

from neurons.candidates.candidate import Candidate, Question


class Likelihood:
    """The geometric mean of the tokens' probabilities: per token, so that short answers aren't preferred."""

    needs_logprobs = True

    async def score(self, question: Question, candidates: Sequence[Candidate]) -> list[float | None]:
        """Return the mean; None where the engine gave no numbers, or such as can't be."""
        return [_mean(candidate.logprobs) for candidate in candidates]


def _mean(logprobs: Sequence[float] | None) -> float | None:
    if not logprobs or not all(value <= 0 for value in logprobs):  # NaN is not <= 0 either
        return None
    return math.exp(sum(logprobs) / len(logprobs))
