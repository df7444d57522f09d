"""Looks at how busy pools' twins are, beside the workers, so that they are placed by their load.

Without Prometheus, or as long as it has never answered, twins are placed by their number alone. When it stops
answering, what it said last stays: an outage moves nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from twin_operator.domain.activity import UNMEASURED, Activity, activity, queries
from twin_operator.domain.objects import Pool
from twin_operator.engine.prometheus import Prometheus, query_all
from twin_operator.errors import PrometheusError
from twin_operator.kinds.world import World

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 60.0


class ActivityWatch:
    """Remembers how busy the twins of each pool are that has several engine pods, or slots that follow them."""

    def __init__(
        self, prometheus: Prometheus, *, world: World, changed: Callable[[Pool], None], matchers: str,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:  # fmt: skip
        self._prometheus = prometheus
        self._world = world
        self._changed = changed
        self._matchers = matchers
        self._poll_seconds = poll_seconds
        self._known: dict[str, Activity] = {}
        """By the pool's UID."""

    def seen(self, pool: Pool) -> Activity | None:
        """Return what is known of a pool's twins; None: nobody has asked yet."""
        return self._known.get(pool.uid)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._poll_seconds)

    async def look(self) -> None:
        """Look once at all pools whose twins have a choice of pods, or whose engines' slots follow them."""
        by_namespace: dict[str, list[Pool]] = {}
        for entry in self._world.store.of_kind("MinerPool"):
            pool = entry.value
            if not isinstance(pool, Pool):
                continue
            if pool.slots_follow_twins or len(self._world.facts(pool.namespace, pool.name).present) > 1:
                by_namespace.setdefault(pool.namespace, []).append(pool)
        uids = {pool.uid for pools in by_namespace.values() for pool in pools}
        self._known = {uid: known for uid, known in self._known.items() if uid in uids}
        await asyncio.gather(*(self._ask(namespace, pools) for namespace, pools in by_namespace.items()))

    async def _ask(self, namespace: str, pools: list[Pool]) -> None:
        try:
            answers = await query_all(self._prometheus, queries(self._matchers.replace("{namespace}", namespace)))
        except PrometheusError as error:
            log.warning("how busy the twins of namespace %s are is not known: %s", namespace, error)
            answers = None
        for pool in pools:
            former = self._known.get(pool.uid)
            if answers is None:
                new = former or UNMEASURED
            else:
                facts = self._world.facts(namespace, pool.name)
                new = activity(
                    answers,
                    miners={pod.name for pod in facts.miners if pod.ready and not pod.leaving},
                    twins={entry.name for entry in self._world.published(pool).entries().values()},
                    former=former or UNMEASURED,
                )
                if new is UNMEASURED:
                    new = former or UNMEASURED
            self._known[pool.uid] = new
            if new != former:
                self._changed(pool)
