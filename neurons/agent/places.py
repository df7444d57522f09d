"""What a model is asked: how probable one token is after others."""

from __future__ import annotations

from collections.abc import Sequence

Position = tuple[tuple[int, ...], int]
"""What stands before a token, and the token: one question, answered by ln p(token | before) in nats."""


def forced(token_ids: Sequence[int], *, start: int = 1) -> tuple[Position, ...]:
    """Return a question for each token from `start` on, each after all before it."""
    return tuple((tuple(token_ids[:i]), token_ids[i]) for i in range(start, len(token_ids)))
