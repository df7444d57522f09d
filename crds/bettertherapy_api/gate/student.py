"""Student's t distribution for whole degrees of freedom: the image that judges has no scipy.

Abramowitz and Stegun 1964, 26.7.3 and 26.7.4: finite sums, exact but for rounding; the quantile by bisection. Checked
against `scipy.stats.t` in the tests.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

SMALLEST_TAIL: Final = 1e-12
"""Below it the sums have no digits left."""


def t_tail(value: float, degrees: int) -> float:
    """Return how often a t of that many degrees of freedom lies above `value`. Raises ValueError for none."""
    if degrees < 1:
        raise ValueError("a t distribution has at least one degree of freedom")
    angle = math.atan2(value, math.sqrt(degrees))
    square = math.cos(angle) ** 2
    odd = degrees % 2 == 1
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for number in range(2 if odd else 1, degrees, 2):
        total += term
        term *= square * number / (number + 1)
    within = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return (1 - within) / 2


@lru_cache(maxsize=4096)
def t_quantile(tail: float, degrees: int) -> float:
    """Return the value that a t lies above with the probability `tail`, from SMALLEST_TAIL to one half."""
    if not SMALLEST_TAIL <= tail <= 0.5:
        raise ValueError(f"a tail of {tail} is not between {SMALLEST_TAIL} and one half")
    low, high = 0.0, 1.0
    while t_tail(high, degrees) > tail:
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        if t_tail(middle, degrees) > tail:
            low = middle
        else:
            high = middle
    return high
