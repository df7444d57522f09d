"""On which pods a pool's twins are to be: the plan's input out of the store, its answer as the routing needs it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from bettertherapy_api.routing import TwinEntry
from twin_operator.domain.activity import UNMEASURED, Activity
from twin_operator.domain.objects import Pool, Twin
from twin_operator.domain.placement import Demand, EnginePod, kept, place
from twin_operator.domain.pool_facts import PoolFacts
from twin_operator.domain.routing import ANYWHERE, Placed, refusal, wanted_adapter
from twin_operator.kinds.world import Published, World


@dataclass(frozen=True, kw_only=True)
class Placing:
    """Where twins are to be."""

    by_twin: Mapping[str, Placed]
    """Of the twins that were asked for, by UID; one that is absent is anywhere."""
    moved: int = 0
    settled: bool = True
    """Whether nothing more is to be moved; False where nobody looked."""

    def of(self, uid: str) -> Placed:
        """Return where a twin is to be."""
        return self.by_twin.get(uid, ANYWHERE)


NOWHERE: Final = Placing(by_twin={})


def engine_pods(pool: Pool, facts: PoolFacts, slow: Collection[str] = ()) -> dict[str, EnginePod]:
    """Return the pods that twins can be placed on, by UID: those that are here to stay. `slow`: UIDs."""
    found = {}
    for pod in facts.present:
        report = facts.reports.get(pod.name)
        if report is None or not report.draining:
            found[pod.uid] = EnginePod(
                uid=pod.uid, slots=pool.max_loras, ready=pod.name in facts.ready, slow=pod.uid in slow
            )
    return found


def plan_placing(
    world: World, pool: Pool, published: Published, uids: Collection[str], *, whole: bool, busy: Activity | None,
    slow: Collection[str] = (),
) -> Placing:  # fmt: skip
    """Return where these twins are to be. `whole`: a look at all twins, which may move some for a better balance.

    Otherwise, and as long as it is not known how `busy` they are (None), who has a place keeps it, and who has none
    gets one. `slow`: UIDs of pods that give their twins away.
    """
    if pool.spec.engine.endpoint is not None:
        return NOWHERE  # what a server holds that runs already is not the operator's to say
    facts, entries = world.facts(pool.namespace, pool.name), published.entries()
    pods = engine_pods(pool, facts, slow)
    names = {pod.uid: pod.name for pod in facts.present if pod.uid in pods}
    known = busy or UNMEASURED
    asked = {uid: demand for uid in uids if (demand := _demand(world, pool, uid, entries.get(uid), known)) is not None}
    planned = {uid: previous for uid in asked if (previous := _kept(asked[uid], entries.get(uid), pods)) is not None}
    moved, settled = 0, False
    if whole or len(planned) < len(asked):
        others = {uid: _demand(world, pool, uid, entry, known) for uid, entry in entries.items() if uid not in asked}
        everything = {uid: each for uid, each in others.items() if each is not None} | asked
        moves = None if whole and busy is not None else 0
        before = {uid: entry.pods or () for uid, entry in entries.items()}
        under_way = sum(_is_moving(each, entries.get(uid), pods) for uid, each in everything.items())
        if len(pods) > 1:
            plan = place(pods.values(), everything.values(), before, moves=moves, under_way=under_way)
            planned, moved, settled = {uid: plan.pods[uid] for uid in asked}, plan.moved, plan.settled
        else:
            planned, settled = dict.fromkeys(asked, tuple(pods)), True
    by_twin = {}
    for uid, demand in asked.items():
        entry = entries.get(uid)
        former = entry.pods if entry is not None else None
        if demand.replicas is not None:
            loads = _is_on_demand(world, uid, entry)
            by_twin[uid] = Placed(pods=planned[uid] or former or (), exclusive=True, on_demand=loads, names=names)
        else:
            by_twin[uid] = Placed(pods=planned[uid]) if len(pods) > 1 else ANYWHERE  # of one pod none is preferred
    return Placing(by_twin=by_twin, moved=moved, settled=settled)


def _is_on_demand(world: World, uid: str, entry: TwinEntry | None) -> bool:
    """Tell whether pods load the twin when it is asked for; of one that can't be read, as it was."""
    twin = world.twin_of(uid)
    return twin.is_on_demand if isinstance(twin, Twin) else entry is not None and entry.placement == "OnDemand"


def _kept(demand: Demand, entry: TwinEntry | None, pods: Mapping[str, EnginePod]) -> tuple[str, ...] | None:
    if demand.replicas is None and len(pods) < 2:
        return ()
    return kept(demand, entry.pods or (), pods) if entry is not None else None


def _is_moving(demand: Demand, entry: TwinEntry | None, pods: Mapping[str, EnginePod]) -> bool:
    """Tell whether the twin is on a pod yet that it leaves."""
    if demand.replicas is None or entry is None or entry.placement is None:
        return False
    return sum(uid in pods and pods[uid].ready for uid in entry.pods or ()) > demand.replicas


def _demand(world: World, pool: Pool, uid: str, entry: TwinEntry | None, busy: Activity) -> Demand | None:
    """Return what a twin needs in this pool; None where it needs nothing of an engine but the base model."""
    twin = world.twin_of(uid)
    ranks = [adapter.rank for adapter in entry.adapters] if entry is not None else []
    if not isinstance(twin, Twin):
        if twin is None or entry is None or not ranks:
            return None
        fixed = len(entry.pods or ()) or None if entry.placement is not None else None
        return Demand(uid=uid, rank=max(ranks), load=busy.of(entry.name), replicas=fixed)
    if twin.deleted or twin.namespace != pool.namespace:
        return None
    if entry is None and (
        not twin.spec.pool_selector.matches(dict(pool.labels)) or refusal(pool, twin, world.bounds) is not None
    ):
        return None
    adapter = wanted_adapter(twin)
    if adapter is not None:
        ranks.append(adapter.rank)
    if not ranks:
        return None
    return Demand(uid=uid, rank=max(ranks), load=busy.of(twin.name), replicas=twin.spread_over)
