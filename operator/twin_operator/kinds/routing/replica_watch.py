"""Looks for engine pods that are slower than the others of their pool, so that twins are moved off them.

A Prometheus that doesn't answer says nothing of any pod: what was found last stays, and nobody is moved.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from bettertherapy_api.miner_pool import SlowReplica
from twin_operator.domain.objects import Pool
from twin_operator.domain.slow_replicas import WINDOW_SECONDS, Slow, Standing, judge, paces, queries, recalled, slow_of
from twin_operator.engine.prometheus import Prometheus, query_all
from twin_operator.errors import PrometheusError
from twin_operator.kinds.world import World

log = logging.getLogger(__name__)

POLL_SECONDS: Final = float(WINDOW_SECONDS)
"""One window after the other, so that no sample counts twice."""


@dataclass(kw_only=True)
class _Kept:
    """What is kept of one pool."""

    memory: dict[str, Standing]
    """By the pods' UIDs."""


class ReplicaWatch:
    """Remembers which pods are slow, of each pool that has several engine pods."""

    def __init__(
        self, prometheus: Prometheus, *, world: World, changed: Callable[[Pool], None], matchers: str,
        poll_seconds: float = POLL_SECONDS, clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._prometheus = prometheus
        self._world = world
        self._changed = changed
        self._matchers = matchers
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        """By the pool's UID."""

    def slow(self, pool: Pool) -> tuple[SlowReplica, ...] | None:
        """Return the slow pods of a pool; those of its status until this process has looked. None: nothing to compare.

        A pool with one engine pod has nothing to compare, and neither has one whose engines are behind an endpoint.
        """
        present = {pod.uid: pod.name for pod in self._world.facts(pool.namespace, pool.name).present}
        if pool.spec.engine.endpoint is not None or len(present) < 2:
            return None
        kept = self._kept.get(pool.uid)
        found = slow_of(kept.memory) if kept is not None else tuple(_of_status(pool))
        return tuple(
            SlowReplica(pod=present[each.uid], uid=each.uid, since=each.since, until=each.until, times=each.times)
            for each in found
            if each.uid in present
        )

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._poll_seconds)

    async def look(self) -> None:
        """Look once at all pools that have pods to compare."""
        by_namespace: dict[str, list[Pool]] = {}
        for entry in self._world.store.of_kind("MinerPool"):
            if isinstance(entry.value, Pool) and self.slow(entry.value) is not None:
                by_namespace.setdefault(entry.value.namespace, []).append(entry.value)
        uids = {pool.uid for pools in by_namespace.values() for pool in pools}
        self._kept = {uid: kept for uid, kept in self._kept.items() if uid in uids}
        await asyncio.gather(*(self._ask(namespace, pools) for namespace, pools in by_namespace.items()))

    async def _ask(self, namespace: str, pools: list[Pool]) -> None:
        try:
            answers = await query_all(self._prometheus, queries(self._matchers.replace("{namespace}", namespace)))
        except PrometheusError as error:
            log.warning("how fast the engines of namespace %s write is not known: %s", namespace, error)
            return
        for pool in pools:
            facts = self._world.facts(namespace, pool.name)
            before = self.slow(pool)
            ready = {pod.name: pod.uid for pod in facts.present if pod.name in facts.ready}
            kept = self._kept.get(pool.uid) or _Kept(memory=recalled(list(_of_status(pool))))
            there = [pod.uid for pod in facts.present]
            kept.memory = judge(kept.memory, paces(answers, ready), pods=there, now=self._clock())
            self._kept[pool.uid] = kept
            if self.slow(pool) != before:
                self._changed(pool)


def _of_status(pool: Pool) -> list[Slow]:
    return [Slow(uid=each.uid, since=each.since, until=each.until, times=each.times) for each in pool.slow]
