"""A failure that nobody foresaw: what is logged of it, and what a client is told."""

from __future__ import annotations

import logging

from neurons.miner.errors import RequestError
from neurons.unsaid import where

log = logging.getLogger(__name__)


def unforeseen(error: Exception) -> RequestError:
    """Return the 500 of a failure, which is logged without its words."""
    log.error("a request failed in an unforeseen way", extra=where(error))
    return RequestError(
        500, "internal_error", "the gateway failed; its log says where", code="internal_error", may_repeat=False
    )
