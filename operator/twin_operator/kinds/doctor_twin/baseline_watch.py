"""Learns what is usual for the version that answers, of every twin, and sees whether it leaves that.

One set of questions to Prometheus for all twins of a namespace, once a window. When Prometheus doesn't answer there is
no window: nothing is learnt, and no verdict changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from bettertherapy_api.doctor_twin import Baseline
from twin_operator.domain.baseline import NOTHING, WINDOW_SECONDS, Memory, begin, counted, observe, queries
from twin_operator.domain.objects import Twin
from twin_operator.engine.prometheus import Prometheus, query_all
from twin_operator.engine.resources import Key
from twin_operator.engine.store import Store
from twin_operator.errors import PrometheusError
from twin_operator.kinds.resources import DOCTOR_TWIN

log = logging.getLogger(__name__)

POLL_SECONDS: Final = float(WINDOW_SECONDS)
"""One window after the other, so that no request counts twice."""
_AT_A_TIME: Final = 200
"""Twins that are judged before others have their turn."""


class BaselineWatch:
    """Remembers of each twin what is usual, and how much speaks against it."""

    def __init__(
        self, prometheus: Prometheus, *, store: Store, wake: Callable[[Key], None], matchers: str,
        poll_seconds: float = POLL_SECONDS, clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._prometheus = prometheus
        self._store = store
        self._wake = wake
        self._matchers = matchers
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._kept: dict[str, Memory] = {}
        """By the twin's UID."""

    def known(self, twin: Twin, served_name: str) -> Baseline:
        """Return what is known of a version of the twin."""
        return self._memory(twin, served_name).known

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._poll_seconds)

    async def look(self) -> None:
        """Look once at the versions of all twins that answer."""
        twins: dict[str, list[Twin]] = {}
        for entry in self._store.of_kind(DOCTOR_TWIN.kind):
            if isinstance(entry.value, Twin) and entry.value.status.active_version is not None:
                twins.setdefault(entry.value.namespace, []).append(entry.value)
        uids = {twin.uid for found in twins.values() for twin in found}
        self._kept = {uid: memory for uid, memory in self._kept.items() if uid in uids}
        await asyncio.gather(*(self._ask(namespace, found) for namespace, found in twins.items()))

    async def _ask(self, namespace: str, twins: list[Twin]) -> None:
        try:
            found = await query_all(self._prometheus, queries(self._matchers.replace("{namespace}", namespace)))
        except PrometheusError as error:
            log.warning("what is usual for the twins of namespace %s can't be seen: %s", namespace, error)
            return
        seen, now = counted(found), self._clock()
        for number, twin in enumerate(twins, start=1):
            if (active := twin.status.active_version) is None:
                continue
            version = seen.get((twin.name, active.served_name), NOTHING)
            after = self._kept[twin.uid] = observe(self._memory(twin, active.served_name), version, now=now)
            if after.known != twin.status.baseline:
                self._wake(Key(DOCTOR_TWIN.kind, namespace, twin.name))
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)

    def _memory(self, twin: Twin, served_name: str) -> Memory:
        """Return what is remembered of a version, as the twin's status says where this process is new."""
        kept = self._kept.get(twin.uid)
        if kept is not None and kept.known.served_name == served_name:
            return kept
        return begin(served_name, twin.status.baseline)
