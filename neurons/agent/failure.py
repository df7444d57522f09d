"""Why an adapter is not Verified, as an exception on its way to the report."""

from __future__ import annotations

from bettertherapy_api.report import FailureReason


class Failure(Exception):  # noqa: N818 - named as in the report
    """Why an adapter is not Verified."""

    def __init__(
        self,
        reason: FailureReason,
        message: str,
        *,
        retryable: bool,
        milli_nats: int | None = None,
        epoch: int | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable
        self.milli_nats = milli_nats
        self.epoch = epoch
        """The engine process in which it was measured: the next one judges anew. None: no process has a part in it."""
