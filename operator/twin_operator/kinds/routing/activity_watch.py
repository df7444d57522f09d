"""Looks at how busy pools' twins are, beside the workers, so that they are placed by their load.

Without Prometheus, or as long as it has never answered, twins are placed by their number alone. When it stops
answering, what it said last stays: an outage moves nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from twin_operator.domain.activity import UNMEASURED, Activity, activity, queries
from twin_operator.domain.objects import Pool
from twin_operator.engine.prometheus import Prometheus, Sample
from twin_operator.kinds.namespace_watch import NamespaceWatch
from twin_operator.kinds.resources import MINER_POOL
from twin_operator.kinds.world import World

POLL_SECONDS: Final = 60.0


class ActivityWatch(NamespaceWatch[Pool, Activity]):
    """Remembers how busy the twins of each pool are that has several engine pods, or slots that follow them."""

    unknown = "how busy the twins of namespace %s are is not known: %s"

    def __init__(
        self, prometheus: Prometheus, *, world: World, changed: Callable[[Pool], None], matchers: str,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:  # fmt: skip
        super().__init__(prometheus, matchers=matchers, poll_seconds=poll_seconds)
        self._world = world
        self._changed = changed

    def seen(self, pool: Pool) -> Activity | None:
        """Return what is known of a pool's twins; None: nobody has asked yet."""
        return self._kept.get(pool.uid)

    def _things(self) -> Iterable[Pool]:
        """Return all pools whose twins have a choice of pods, or whose engines' slots follow them."""
        pools = [entry.value for entry in self._world.store.of_kind(MINER_POOL.kind) if isinstance(entry.value, Pool)]
        return [
            pool
            for pool in pools
            if pool.slots_follow_twins or len(self._world.facts(pool.namespace, pool.name).present) > 1
        ]

    def _queries(self, matchers: str) -> Mapping[str, str]:
        return queries(matchers)

    async def _take(
        self, namespace: str, things: Sequence[Pool], answers: Mapping[str, Sequence[Sample]] | None
    ) -> None:
        for pool in things:
            former = self._kept.get(pool.uid)
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
            self._kept[pool.uid] = new
            if new != former:
                self._changed(pool)
