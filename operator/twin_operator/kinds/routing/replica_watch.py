"""Looks for engine pods that are slower than the others of their pool, so that twins are moved off them.

A Prometheus that doesn't answer says nothing of any pod: what was found last stays, and nobody is moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from bettertherapy_api.miner_pool import SlowReplica
from twin_operator.domain.objects import Pool
from twin_operator.domain.slow_replicas import WINDOW_SECONDS, Slow, Standing, judge, paces, queries, recalled, slow_of
from twin_operator.engine.prometheus import Prometheus, Sample
from twin_operator.kinds.namespace_watch import NamespaceWatch
from twin_operator.kinds.resources import MINER_POOL
from twin_operator.kinds.world import World

POLL_SECONDS: Final = float(WINDOW_SECONDS)
"""One window after the other, so that no sample counts twice."""


class ReplicaWatch(NamespaceWatch[Pool, dict[str, Standing]]):
    """Remembers which pods are slow, of each pool that has several engine pods: how each stands, by its UID."""

    unknown = "how fast the engines of namespace %s write is not known: %s"

    def __init__(
        self, prometheus: Prometheus, *, world: World, changed: Callable[[Pool], None], matchers: str,
        poll_seconds: float = POLL_SECONDS, clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        super().__init__(prometheus, matchers=matchers, poll_seconds=poll_seconds)
        self._world = world
        self._changed = changed
        self._clock = clock

    def slow(self, pool: Pool) -> tuple[SlowReplica, ...] | None:
        """Return the slow pods of a pool; those of its status until this process has looked. None: nothing to compare.

        A pool with one engine pod has nothing to compare, and neither has one whose engines are behind an endpoint.
        """
        present = {pod.uid: pod.name for pod in self._world.facts(pool.namespace, pool.name).present}
        if pool.spec.engine.endpoint is not None or len(present) < 2:
            return None
        kept = self._kept.get(pool.uid)
        found = slow_of(kept) if kept is not None else tuple(_of_status(pool))
        return tuple(
            SlowReplica(pod=present[each.uid], uid=each.uid, since=each.since, until=each.until, times=each.times)
            for each in found
            if each.uid in present
        )

    def _things(self) -> Iterable[Pool]:
        """Return all pools that have pods to compare."""
        pools = [entry.value for entry in self._world.store.of_kind(MINER_POOL.kind) if isinstance(entry.value, Pool)]
        return [pool for pool in pools if self.slow(pool) is not None]

    def _queries(self, matchers: str) -> Mapping[str, str]:
        return queries(matchers)

    async def _take(
        self, namespace: str, things: Sequence[Pool], answers: Mapping[str, Sequence[Sample]] | None
    ) -> None:
        if answers is None:
            return
        for pool in things:
            facts = self._world.facts(namespace, pool.name)
            before = self.slow(pool)
            ready = {pod.name: pod.uid for pod in facts.present if pod.name in facts.ready}
            kept = self._kept.get(pool.uid)
            self._kept[pool.uid] = judge(
                recalled(_of_status(pool)) if kept is None else kept, paces(answers, ready),
                pods=[pod.uid for pod in facts.present], now=self._clock(),
            )  # fmt: skip
            if self.slow(pool) != before:
                self._changed(pool)


def _of_status(pool: Pool) -> list[Slow]:
    return [Slow(uid=each.uid, since=each.since, until=each.until, times=each.times) for each in pool.slow]
