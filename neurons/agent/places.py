"""What a model is asked: how probable one token is after others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

Position = tuple[tuple[int, ...], int]
"""What stands before a token, and the token: one question, answered by ln p(token | before) in nats."""

LONG_TOKENS: Final = 256
"""Of a long text. One longer costs a CPU many seconds."""
_COMMON_IDS: Final = range(100, 1000)
"""Token ids that any vocabulary has."""


def forced(token_ids: Sequence[int], *, start: int = 1) -> tuple[Position, ...]:
    """Return a question for each token from `start` on, each after all before it."""
    return tuple((tuple(token_ids[:i]), token_ids[i]) for i in range(start, len(token_ids)))


def long_text(number: int, *, most: int | None) -> tuple[Position, ...]:
    """Return questions in the middle and at the end of a text that no model was trained on, another for each number.

    What is no number at one place is none at all that follow, so that the end tells of the whole. `most` is the longest
    text that the engine takes, in tokens.
    """
    length = LONG_TOKENS if most is None else max(2, min(LONG_TOKENS, most - 2))
    text = tuple(random.Random(number).choices(_COMMON_IDS, k=length))  # noqa: S311 - the same in each process
    return ((text[: length // 2], text[length // 2]), (text[:-1], text[-1]))
