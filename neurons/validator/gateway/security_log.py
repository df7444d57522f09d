"""What is logged of who comes in and who is turned away: names of keys and of reasons, nothing that a client sent."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from neurons.miner.errors import RequestError

log = logging.getLogger(__name__)

PER_MINUTE: Final = 60
"""Lines of one kind; of more their number is told, so that nobody fills the logs."""
_TURNED_AWAY: Final = frozenset({401, 403, 413, 429})
_TOLD: Final = frozenset({"session_not_found", "answer_not_found", "not_opened"})
"""What whoever tries others' ids is answered with."""


class SecurityLog:
    """Logs each event as long as its kind has room in this minute."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._minutes: dict[str, tuple[float, int]] = {}
        """By event: when its minute began, and how many there were in it."""

    def note(self, event: str, *, client: str | None = None, role: str | None = None, trace_id: str = "") -> None:
        """Log an event; `client` is the name of a key, as its file has it."""
        now = self._clock()
        begun, count = self._minutes.get(event, (now, 0))
        left_out = max(0, count - PER_MINUTE) if now - begun >= 60 else 0
        if now - begun >= 60:
            begun, count = now, 0
        self._minutes[event] = (begun, count + 1)
        if count >= PER_MINUTE:
            return
        said: dict[str, object] = {"event": event}
        for name, value in (("client", client), ("role", role), ("trace_id", trace_id), ("left_out", left_out)):
            if value:
                said[name] = value
        log.info("security: %s", event, extra=said)

    def turned_away(self, error: RequestError, *, client: str | None, trace_id: str) -> None:
        """Log that a request was refused, where that says something of who asks."""
        if error.status in _TURNED_AWAY or error.code in _TOLD:
            self.note(f"refused: {error.code or error.status}", client=client, trace_id=trace_id)
