"""Looks at how loaded the pools are, beside the workers: one set of questions to Prometheus for a namespace's pools.

A Prometheus that hangs delays no reconciliation: those read what was seen last. A pool is woken only when something
else is to be decided or shown than when it was woken last, so a pool whose load moves within its targets costs no
reconciliation, and no write but its status' figures twice a minute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bettertherapy_api.miner_pool import Autoscaling
from twin_operator.domain.objects import Pool
from twin_operator.domain.pool_checks import lacks_capacity
from twin_operator.domain.pool_facts import PoolFacts
from twin_operator.domain.reasons import Reason
from twin_operator.domain.scaling import Memory, Outlook, Unmeasured, decide, observe, outlook, stale
from twin_operator.domain.scaling_signals import Look, Place, looks, queries
from twin_operator.engine.conditions import Finding
from twin_operator.engine.prometheus import Prometheus, Sample, query_all
from twin_operator.engine.resources import Key, Manifest
from twin_operator.errors import PrometheusError
from twin_operator.kinds.resources import MINER_POOL
from twin_operator.kinds.world import World

POLL_SECONDS: Final = 2.0
"""Between two looks while each has something new."""
SLOWEST_SECONDS: Final = 5.0
"""At most, where the scrapes are further apart."""
SHOWN_SECONDS: Final = 30.0
"""The figures in a status are so old at most; they are written no more often."""
NOT_CONFIGURED: Final = Unmeasured(
    why=Finding(
        Reason.METRICS_NOT_CONFIGURED, "the operator has no Prometheus to measure by (prometheus.url of its chart)"
    )
)
AWAITED: Final = Unmeasured(
    why=Finding(Reason.METRICS_AWAITED, "Prometheus was not asked yet, or no pod was there to be measured"),
    truth="Unknown",
)


@dataclass(kw_only=True)
class _Kept:
    """What is kept of one pool."""

    memory: Memory = field(default_factory=Memory)
    look: Look | None = None
    trouble: Unmeasured = AWAITED
    shown: Manifest | None = None
    shown_at: float = 0.0
    told: object = None
    """What was to be decided and shown when the pool was last woken."""


class ScalingWatch:
    """Remembers what was seen of each pool that is scaled by its load."""

    def __init__(
        self, prometheus: Prometheus, *, world: World, wake: Callable[[Key], None], matchers: str,
        poll_seconds: float = POLL_SECONDS, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._prometheus = prometheus
        self._world = world
        self._wake = wake
        self._matchers = matchers
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        """By the pool's UID."""
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._pause: dict[str, float] = {}
        self._next: dict[str, float] = {}

    def seen(self, pool: Pool) -> Outlook | Unmeasured:
        """Return what is known of the pool's load, or why nothing is."""
        kept = self._kept.get(pool.uid)
        if kept is None or pool.spec.autoscaling is None:
            return AWAITED
        found = outlook(kept.memory, spec=pool.spec.autoscaling, slots=pool.max_loras, now=self._clock())
        return found or kept.trouble

    def has_begun(self, pool: Pool) -> bool:
        """Tell whether anything is known of the pool's load, be it that nothing can be known."""
        return self.seen(pool) is not AWAITED

    def saturation(self, pool: Pool) -> Manifest | None:
        """Return how loaded the pool is, as its status shows it; None where that isn't known."""
        kept = self._kept.get(pool.uid)
        return kept.shown if kept is not None else None

    async def run(self) -> None:
        """Look for ever; a namespace whose questions are still under way is not asked again."""
        try:
            while True:
                self.look()
                await asyncio.sleep(self._poll_seconds / 4)
        finally:
            for task in self._asking.values():
                task.cancel()

    def look(self) -> None:
        """Ask for each namespace whose time has come, and wake pools for which time alone changed something."""
        pools: dict[str, list[Pool]] = {}
        for entry in self._world.store.of_kind(MINER_POOL.kind):
            if isinstance(entry.value, Pool) and not entry.value.deleted and is_measured(entry.value):
                pools.setdefault(entry.value.namespace, []).append(entry.value)
        current = {pool.uid for found in pools.values() for pool in found}
        for gone in self._kept.keys() - current:
            del self._kept[gone]
        now = self._clock()
        for namespace, found in pools.items():
            for pool in found:
                self._tell(pool, self._kept.setdefault(pool.uid, _Kept()))
            if namespace not in self._asking and self._next.get(namespace, 0.0) <= now:
                self._ask(namespace, found)

    def _ask(self, namespace: str, pools: Sequence[Pool]) -> None:
        task = asyncio.create_task(self._measure(namespace, pools), name=f"load of {namespace}")
        self._asking[namespace] = task
        task.add_done_callback(lambda _: self._asking.pop(namespace, None))

    async def _measure(self, namespace: str, pools: Sequence[Pool]) -> None:
        begun = self._clock()
        found = await ask(self._prometheus, self._matchers.replace("{namespace}", namespace))
        is_new = False
        for pool in pools:
            kept = self._kept.get(pool.uid)
            if kept is not None:
                is_new |= self._take(pool, kept, found)
                self._tell(pool, kept)
        before = self._pause.get(namespace, self._poll_seconds)
        slowest = max(SLOWEST_SECONDS, self._poll_seconds)
        pause = self._poll_seconds if is_new else min(slowest, 1.5 * before)
        self._pause[namespace] = pause
        self._next[namespace] = begun + pause

    def _take(self, pool: Pool, kept: _Kept, found: Mapping[str, Sequence[Sample]] | str) -> bool:
        """Take what Prometheus answered; tells whether it is news."""
        spec = pool.spec.autoscaling
        if spec is None:
            return False
        if isinstance(found, str):
            kept.trouble = Unmeasured(why=Finding(Reason.METRICS_UNAVAILABLE, found))
            return False
        facts = self._world.facts(pool.namespace, pool.name)
        place = place_of(pool, facts)
        look = looks(found, {pool.name: place})[pool.name]
        if look is None:
            kept.trouble = Unmeasured(why=stale(sorted(place.expected))) if place.expected else AWAITED
            return False
        is_new = kept.look is None or kept.look.sampled_at != look.sampled_at
        kept.look = look
        kept.memory = observe(
            kept.memory,
            look,
            spec=spec,
            slots=pool.max_loras,
            replicas=pool.replicas,
            now=self._clock(),
            most=pool.max_running,
        )
        return is_new

    def _tell(self, pool: Pool, kept: _Kept) -> None:
        """Wake the pool where its reconciliation would decide or say something else than the last time."""
        now = self._clock()
        gist, seen = self._gist(pool), self.seen(pool)
        former = (kept.told, kept.shown)
        if isinstance(seen, Unmeasured):
            kept.shown = None
        elif kept.shown is None or now - kept.shown_at >= SHOWN_SECONDS or gist != kept.told:
            kept.shown, kept.shown_at = saturation_of(kept.look), now
        kept.told = gist
        if (kept.told, kept.shown) != former:
            self._wake(Key(MINER_POOL.kind, pool.namespace, pool.name))

    def _gist(self, pool: Pool) -> object:
        spec, seen = pool.spec.autoscaling, self.seen(pool)
        if spec is None or not pool.is_scaled:
            return None
        facts = self._world.facts(pool.namespace, pool.name)
        made = decide(
            spec, replicas=pool.replicas, seen=seen, demanded=facts.demanded, capacity=lacks_capacity(pool, facts)
        )
        why = seen.why if isinstance(seen, Unmeasured) else None
        # A change's sentence has figures of the moment: that there is one says enough.
        said = made.scaling.message if made.replicas == pool.replicas else ""
        missing = seen.missing if isinstance(seen, Outlook) else ()
        return pool.replicas, made.replicas, made.active, made.scaling.reason, said, why, missing


def is_measured(pool: Pool) -> bool:
    """Tell whether a pool's load is looked at: where somebody scales by it, and engines are ours."""
    spec: Autoscaling | None = pool.spec.autoscaling
    return spec is not None and spec.mode != "Off" and pool.spec.engine.endpoint is None


def place_of(pool: Pool, facts: PoolFacts) -> Place:
    """Return whose samples are the pool's; those of pods that leave say nothing of what is to come."""
    miners = [pod for pod in facts.miners if not pod.leaving]
    return Place(
        engines=frozenset(pod.name for pod in facts.present),
        miners=frozenset(pod.name for pod in miners),
        expected=frozenset(facts.ready) | {pod.name for pod in miners if pod.ready},
        base=pool.spec.base_model.name,
    )


def saturation_of(look: Look | None) -> Manifest | None:
    """Return a look as the status shows it."""
    if look is None:
        return None
    return {
        "waiting": round(look.waiting),
        "running": round(look.running),
        "kvCachePercent": round(look.kv_fullest) if look.kv_fullest is not None else None,
        "activeTwins": look.adapters,
    }


async def ask(prometheus: Prometheus, matchers: str) -> dict[str, list[Sample]] | str:
    """Ask Prometheus of all pools that the matchers select; returns what went wrong as a sentence."""
    try:
        return await query_all(prometheus, queries(matchers))
    except PrometheusError as error:
        return str(error)
