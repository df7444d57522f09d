"""Learns what is usual for the version that answers, of every twin, and sees whether it leaves that.

One set of questions to Prometheus for all twins of a namespace, once a window. When Prometheus doesn't answer there is
no window: nothing is learnt, and no verdict changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from bettertherapy_api.doctor_twin import Baseline
from twin_operator.domain.baseline import NOTHING, WINDOW_SECONDS, Memory, begin, counted, observe, queries
from twin_operator.domain.objects import Twin
from twin_operator.engine.prometheus import Prometheus, Sample
from twin_operator.engine.resources import Key
from twin_operator.engine.store import Store
from twin_operator.kinds.namespace_watch import NamespaceWatch
from twin_operator.kinds.resources import DOCTOR_TWIN

POLL_SECONDS: Final = float(WINDOW_SECONDS)
"""One window after the other, so that no request counts twice."""
_AT_A_TIME: Final = 200
"""Twins that are judged before others have their turn."""


class BaselineWatch(NamespaceWatch[Twin, Memory]):
    """Remembers of each twin what is usual, and how much speaks against it."""

    unknown = "what is usual for the twins of namespace %s can't be seen: %s"

    def __init__(
        self, prometheus: Prometheus, *, store: Store, wake: Callable[[Key], None], matchers: str,
        poll_seconds: float = POLL_SECONDS, clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        super().__init__(prometheus, matchers=matchers, poll_seconds=poll_seconds)
        self._store = store
        self._wake = wake
        self._clock = clock

    def known(self, twin: Twin, served_name: str) -> Baseline:
        """Return what is known of a version of the twin."""
        return self._memory(twin, served_name).known

    def _things(self) -> Iterable[Twin]:
        """Return all twins that answer."""
        twins = [entry.value for entry in self._store.of_kind(DOCTOR_TWIN.kind) if isinstance(entry.value, Twin)]
        return [twin for twin in twins if twin.status.active_version is not None]

    def _queries(self, matchers: str) -> Mapping[str, str]:
        return queries(matchers)

    async def _take(
        self, namespace: str, things: Sequence[Twin], answers: Mapping[str, Sequence[Sample]] | None
    ) -> None:
        if answers is None:
            return
        seen, now = counted(answers), self._clock()
        for number, twin in enumerate(things, start=1):
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
