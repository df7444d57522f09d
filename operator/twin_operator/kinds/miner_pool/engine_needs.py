"""What a pool's engines must hold, gathered from what is published, what agents report, and how busy twins are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from bettertherapy_api.report import PodReport
from bettertherapy_api.routing import TwinEntry
from twin_operator.domain.activity import Activity
from twin_operator.domain.pool_facts import PoolFacts
from twin_operator.domain.tuning import Needs
from twin_operator.kinds.world import Published


class ReadAdapters:
    """What agents have read of pools' adapters, which an adapter's bytes never change: also of those let go again.

    A process begins with nothing; what isn't known leaves engines as they were started.
    """

    def __init__(self) -> None:
        self._read: dict[str, dict[str, bool]] = {}
        """By the pool's UID and the adapter's digest: whether it changes attention alone."""

    def update(self, pool: str, digests: Collection[str], reports: Iterable[PodReport]) -> Mapping[str, bool]:
        """Return what is known of these adapters, which are all that the pool (a UID) holds or may load."""
        known = {**self._read.get(pool, {}), **_changed(reports)}
        self._read[pool] = {digest: found for digest, found in known.items() if digest in digests}
        return self._read[pool]

    def forget(self, pool: str) -> None:
        """Let go of a pool that is gone."""
        self._read.pop(pool, None)


def needs_of(
    published: Published, facts: PoolFacts, busy: Activity | None = None, *, read: ReadAdapters | None = None,
    pool: str = "",
) -> Needs:  # fmt: skip
    """Return what the pod needs that holds most. `busy`: None where nobody measures; `pool`: its UID."""
    entries = [entry for entry in published.entries().values() if entry.adapters]
    adapters = [adapter for entry in entries for adapter in entry.adapters]
    digests = {adapter.digest for adapter in adapters}
    changed = (read or ReadAdapters()).update(pool, digests, facts.reports.values())
    known = [changed.get(adapter.digest) for adapter in adapters]
    return Needs(
        adapters=adapters_of(published),
        twins=published.lora_twins,
        in_use=_in_use(entries, busy) if busy is not None else None,
        rank=max((adapter.rank for adapter in adapters), default=0),
        beyond=known.count(False),
        unread=known.count(None),
    )


def adapters_of(published: Published) -> int:
    """Return how many adapters that engine pod is to hold which is to hold most of them."""
    everywhere, by_pod = 0, Counter[str]()
    for entry in published.entries().values():
        if entry.placement is None or entry.pods is None:
            everywhere += len(entry.adapters)
        else:
            by_pod.update({uid: len(entry.held_by(uid)) for uid in entry.pods})
    return everywhere + max(by_pod.values(), default=0)


def is_crashing(facts: PoolFacts) -> bool:
    """Tell whether the engine of some pod that isn't ready ended by itself more than once."""
    return any(
        crash.container == "engine" and crash.restarts > 0
        for pod in facts.present
        if pod.name not in facts.ready
        for crash in pod.crashes
    )


def _changed(reports: Iterable[PodReport]) -> dict[str, bool]:
    """Return by digest whether an adapter changes attention alone, where some agent has read it."""
    return {
        held.digest: held.attention_only
        for report in reports
        for held in (report.adapters or {}).values()
        if held.attention_only is not None
    }


def _in_use(entries: Iterable[TwinEntry], busy: Activity) -> int | None:
    """Return how many twins were asked lately that one pod answers for; None where that isn't known of all."""
    everywhere, by_pod = 0, Counter[str]()
    for entry in entries:
        load = busy.of(entry.name)
        if load is None:
            return None
        if load == 0:
            continue
        if entry.pods:
            by_pod.update(entry.pods)
        else:
            everywhere += 1
    return everywhere + max(by_pod.values(), default=0)
