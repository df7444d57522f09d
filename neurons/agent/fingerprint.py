"""Do the loaded weights speak like those of the manifest? Pure comparison of log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean_difference(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Return the mean absolute difference in nats; infinite when lengths differ or a value is no number.

    Infinite log-probabilities count as 100 nats: the right weights never call a text of theirs impossible.
    """
    if len(expected) != len(actual) or not expected:
        return math.inf
    total = 0.0
    for a, b in zip(expected, actual, strict=True):
        if math.isnan(a) or math.isnan(b):
            return math.inf
        total += min(abs(a - b), 100.0)
    return total / len(expected)
