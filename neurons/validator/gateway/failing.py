"""A failure that nobody foresaw: what is logged of it, and what a client is told."""

from __future__ import annotations

import logging

from neurons.miner.errors import RequestError

log = logging.getLogger(__name__)


def unforeseen(error: Exception) -> RequestError:
    """Return the 500 of a failure, which is logged without its words."""
    log.error("a request failed in an unforeseen way", extra={"error": type(error).__name__, "where": _where(error)})
    return RequestError(
        500, "internal_error", "the gateway failed; its log says where", code="internal_error", may_repeat=False
    )


def _where(error: BaseException) -> str:
    """Return file and line of an error: what was at hand there stays out of the log."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
