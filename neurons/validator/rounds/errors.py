"""Why a round's process ends without having done what it was to do, by what the operator is told."""

from __future__ import annotations


class RoundError(Exception):
    """It can't go on; `kind` is one of `bettertherapy_api.round_progress.CLASSES`. The message says what to do."""

    def __init__(self, kind: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable
        """Whether another attempt may succeed."""
