"""The store as the kinds see it: pools, twins, runs and rounds by what one asks of them, typed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from bettertherapy_api import names
from bettertherapy_api.finetune_run import RunRef
from bettertherapy_api.routing import TwinEntry
from bettertherapy_api.schema import LabelSelector
from twin_operator.domain.batches import is_named, trainer_of
from twin_operator.domain.bounds import Bounds
from twin_operator.domain.objects import Pool, PoolRef, Round, Run, Twin, Unreadable, Validator, pool_ref
from twin_operator.domain.pool_facts import DeploymentFacts, PodFacts, PoolFacts, facts_of
from twin_operator.domain.reasons import Reason
from twin_operator.engine.apply import controlled_by
from twin_operator.engine.conditions import Finding, carried_over
from twin_operator.engine.resources import DEPLOYMENT, JOB, LEADER_WORKER_SET, POD, Key
from twin_operator.engine.store import Entry, Store
from twin_operator.kinds.resources import FINE_TUNE_RUN, POD_REPORT, ROUTING_SLICE
from twin_operator.kinds.watched import (
    ASKED_BY,
    FOLLOWERS,
    POOL,
    ROUNDS,
    SELECTOR,
    TASKS,
    TWIN,
    UID,
    UNDER_WAY,
    WAITING,
    Report,
    Slice,
)


@dataclass(frozen=True, kw_only=True)
class Published:
    """All that is published of one pool."""

    slices: dict[str, Slice]
    """By name."""
    keys: dict[str, Key]

    @property
    def known(self) -> bool:
        """Whether anything was published yet."""
        return bool(self.slices)

    @property
    def lora_twins(self) -> int:
        """Twins with an adapter on the pod that has most of them to answer for."""
        by_pod: Counter[str] = Counter()
        for each in self.slices.values():
            by_pod.update(each.by_pod)
        return sum(each.anywhere for each in self.slices.values()) + max(by_pod.values(), default=0)

    @property
    def twins(self) -> int:
        """Twins with an entry."""
        return sum(len(each.twins) for each in self.slices.values())

    @property
    def unreadable(self) -> set[str]:
        """UIDs of the twins whose entry another release has written, which this one can't read."""
        return {uid for each in self.slices.values() for uid in each.unreadable}

    def entry(self, uid: str) -> TwinEntry | None:
        """Return the entry of a twin."""
        return next((entry for each in self.slices.values() if (entry := each.twins.get(uid)) is not None), None)

    def entries(self) -> dict[str, TwinEntry]:
        """Return all entries by the twins' UIDs."""
        found: dict[str, TwinEntry] = {}
        for each in self.slices.values():
            found.update(each.twins)
        return found


class World:
    """Reads the store. Nothing is kept here but the facts of each pool, until one of its objects changes."""

    def __init__(self, store: Store, *, bounds: Bounds | None = None) -> None:
        """`bounds`: what tenants may name; its own defaults are the chart's."""
        self.store = store
        self.bounds = bounds or Bounds()
        self.unpublished: dict[tuple[str, str], dict[str, str]] = {}
        """What could not be published, by namespace and pool: why, by the twin's UID ("" for all). A pool that was not
        looked at by this leader is absent."""
        self.access_missing: dict[tuple[str, str], Finding | None] = {}
        """By pool: what is wrong with its clients' tokens, if anything. A pool that was not looked at by this leader is
        absent."""
        self.absent_kinds: set[str] = set()
        """Kinds of others that the cluster doesn't know, though something of ours could be made of them."""
        self._facts: dict[tuple[str, str], PoolFacts] = {}
        self._published: dict[tuple[str, str], tuple[str, Published]] = {}
        """With the UID of the pool whose it is: one made anew under the name has published nothing yet."""

    def changed(self, old: Entry | None, new: Entry | None) -> None:
        """Take notice of a change in the store: facts that depend on the object are made anew."""
        for thing in (old, new):  # it may have been another pool's before
            pool = (thing.manifest["metadata"].get("labels") or {}).get(names.LABEL_POOL) if thing is not None else None
            if thing is not None and pool is not None:
                what = self._published if thing.key.kind == ROUTING_SLICE.kind else self._facts
                what.pop((thing.key.namespace, pool), None)

    def forget_findings(self) -> None:
        """Drop what was found by asking or writing: another leader may have found otherwise meanwhile."""
        self.unpublished.clear()
        self.access_missing.clear()

    def unpublished_trouble(self, pool: PoolRef, twin: Twin | None = None) -> Finding | None:
        """Return why the pool's routing, or this twin's entry in it, is not published as it should be.

        Until this leader has looked it is what the status says, so that a takeover says nothing new.
        """
        place = (pool.namespace, pool.name)
        found = self.unpublished.get(place)
        if found is None:
            key = Key("DoctorTwin", twin.namespace, twin.name) if twin is not None else Key("MinerPool", *place)
            return carried_over((self.store.get(key) or {}).get("status"), "Ready", Reason.ROUTING_REFUSED)
        why = found.get(twin.uid if twin is not None else "")
        if why is None:
            return None
        what = "what is to be published is not"
        if twin is not None:
            what = f"the twin's entry in the routing of MinerPool {pool.name} can't be published"
        return Finding(Reason.ROUTING_REFUSED, f"{what}: {why}")

    def access_trouble(self, pool: PoolRef) -> Finding | None:
        """Return what is wrong with the tokens of the pool's clients.

        Until this leader has looked it is what the pool's status says, so that a takeover says nothing new.
        """
        place = (pool.namespace, pool.name)
        if place in self.access_missing:
            return self.access_missing[place]
        stored = self.store.get(Key("MinerPool", *place)) or {}
        return carried_over(stored.get("status"), "Ready", Reason.ACCESS_SECRET_MISSING)

    def lacks_groups(self, pool: Pool) -> bool:
        """Tell whether its engines are to span several nodes, and the cluster has no LeaderWorkerSets."""
        return pool.spec.engine.group is not None and LEADER_WORKER_SET.kind in self.absent_kinds

    def pool_ref(self, namespace: str, name: str) -> PoolRef | None:
        """Return which pool has the name, whether its spec can be read or not; None when there is none."""
        found = self.store.entry(Key("MinerPool", namespace, name))
        return pool_ref(found.manifest, found.value) if found is not None else None

    def pool_refs(self, namespace: str) -> Iterator[PoolRef]:
        """Iterate over all of the namespace's pools."""
        for entry in self.store.of_kind("MinerPool", namespace=namespace):
            yield pool_ref(entry.manifest, entry.value)

    def pool(self, namespace: str, name: str) -> Pool | None:
        """Return a pool; None when there is none, or it can't be read."""
        found = self.store.value(Key("MinerPool", namespace, name))
        return found if isinstance(found, Pool) else None

    def pools(self, namespace: str) -> Iterator[Pool]:
        """Iterate over the namespace's pools that can be read."""
        for entry in self.store.of_kind("MinerPool", namespace=namespace):
            if isinstance(entry.value, Pool):
                yield entry.value

    def twin(self, namespace: str, name: str) -> Twin | None:
        """Return a twin; None when there is none, or it can't be read."""
        found = self.store.value(Key("DoctorTwin", namespace, name))
        return found if isinstance(found, Twin) else None

    def twin_of(self, uid: str) -> Twin | Unreadable | None:
        """Return the twin with this UID, or what can't be read of it; None when it is gone."""
        found = next(iter(self.store.find_any(UID, uid)), None)
        return found.value if found is not None else None

    def twins_selecting(self, pool: PoolRef) -> Iterator[Entry]:
        """Iterate over the twins whose selector matches the pool."""
        for value in self.store.values_of(SELECTOR):
            if not isinstance(value, tuple) or value[0] != pool.namespace:
                continue
            text = value[1]
            if LabelSelector.model_validate(json.loads(text)).matches(dict(pool.labels)):
                yield from self.store.find_any(SELECTOR, value)

    def facts(self, namespace: str, pool: str) -> PoolFacts:
        """Return what is observed of a pool."""
        known = self._facts.get((namespace, pool))
        if known is not None:
            return known
        pods: list[PodFacts] = []
        deployments: dict[str, DeploymentFacts] = {}
        reports, miner_reports = {}, {}
        for entry in self.store.find_any(POOL, (namespace, pool)):
            kind, name = entry.key.kind, entry.key.name
            if kind == POD.kind:
                pods.append(entry.value)
            elif kind in (DEPLOYMENT.kind, LEADER_WORKER_SET.kind):
                deployments[name] = entry.value
            elif kind == POD_REPORT.kind and isinstance(entry.value, Report):
                if entry.value.report is not None:
                    reports[name] = entry.value.report
                if entry.value.miner is not None:
                    miner_reports[name] = entry.value.miner
        made = facts_of(pool, pods=pods, deployments=deployments, reports=reports, miner_reports=miner_reports)
        if self.store.value(Key("MinerPool", namespace, pool)) is not None:
            self._facts[namespace, pool] = made
        return made

    def published(self, pool: PoolRef) -> Published:
        """Return what this very pool has published; slices of an earlier one of its name don't count."""
        known = self._published.get((pool.namespace, pool.name))
        if known is not None and known[0] == pool.uid:
            return known[1]
        slices, keys = {}, {}
        for entry in self.store.find_any(POOL, (pool.namespace, pool.name)):
            if entry.key.kind == ROUTING_SLICE.kind and entry.value.owner == pool.uid:
                slices[entry.key.name], keys[entry.key.name] = entry.value, entry.key
        made = Published(slices=slices, keys=keys)
        self._published[pool.namespace, pool.name] = pool.uid, made
        return made

    def forget_pool(self, namespace: str, name: str) -> None:
        """Drop what is kept of a pool that is gone or was made anew."""
        self._facts.pop((namespace, name), None)
        self._published.pop((namespace, name), None)

    def runs_of(self, twin: Twin) -> list[Run]:
        """Return the runs of this very twin, by name."""
        return [
            entry.value
            for entry in self.store.find(TWIN, (twin.namespace, twin.name))
            if isinstance(entry.value, Run) and entry.value.is_of(twin)
        ]

    def runs_naming(self, namespace: str, twin: str) -> list[Run]:
        """Return the runs that name a twin, whichever one it was, by name."""
        found = self.store.find(TWIN, (namespace, twin))
        return [entry.value for entry in found if isinstance(entry.value, Run)]

    def validator(self, namespace: str, name: str) -> Validator | Unreadable | None:
        """Return a validator, or what can't be read of it; None when there is none."""
        found = self.store.value(Key("Validator", namespace, name))
        return found if isinstance(found, (Validator, Unreadable)) else None

    def rounds_naming(self, namespace: str, validator: str) -> list[Round]:
        """Return the rounds that name a validator, whichever one it was, oldest first."""
        found = self.store.find(ROUNDS, (namespace, validator))
        rounds = [entry.value for entry in found if isinstance(entry.value, Round)]
        return sorted(rounds, key=lambda each: (each.created, each.name))

    def under_way(self, pool: Pool) -> int:
        """Return how many trainers, or examiners after them, have runs that started in the pool and have not ended."""
        started = self.store.find_any(UNDER_WAY, (pool.namespace, pool.name))
        return len({trainer_of(entry.value) for entry in started})

    def task_runs(self, pool: PoolRef) -> list[Run]:
        """Return the runs of validators' tasks that the pool's miners took, by name."""
        found = self.store.find(TASKS, (pool.namespace, pool.name))
        return [entry.value for entry in found if isinstance(entry.value, Run)]

    def waiting(self, namespace: str, pool: str | None) -> list[Run]:
        """Return the runs that wait for a place in the pool (None: for a pool), in no particular order.

        One that another run takes along has its place.
        """
        runs = [entry.value for entry in self.store.find_any(WAITING, (namespace, pool))]
        return [run for run in runs if self.asked_along(run) is None]

    def run(self, namespace: str, wanted: RunRef) -> Run | Unreadable | None:
        """Return this very run, or what can't be read of it; None when it is gone or about to go."""
        entry = self.store.entry(Key(FINE_TUNE_RUN.kind, namespace, wanted.name))
        if entry is None or entry.manifest["metadata"]["uid"] != wanted.uid:
            return None
        found = entry.value
        going = "deletionTimestamp" in entry.manifest["metadata"]
        return found if isinstance(found, (Run, Unreadable)) and not going else None

    def asked_along(self, run: Run) -> Run | None:
        """Return the run that would train this one, which waits, too; one that has its Job takes nobody along."""
        for entry in self.store.find(ASKED_BY, run.uid):
            leader: Run = entry.value
            leads = leader.status.trainer is None and leader.started and not leader.ended
            live = leads and "deletionTimestamp" not in entry.manifest["metadata"]
            if live and is_named(leader.status.trains, run) and not self.has_job(leader, leader.name):
                return leader
        return None

    def at_work_on_former(self, run: Run) -> Run | None:
        """Return the run whose Job, made for several, may still do a run of this one's name that was deleted."""
        for entry in self.store.find(ASKED_BY, (run.namespace, run.name)):
            leader: Run = entry.value
            refs = (*(leader.status.trains or ()), *(leader.status.examines or ()))
            former = any(each.name == run.name and each.uid != run.uid for each in refs)
            if former and any(self._is_open(leader, name) for name in (leader.name, names.examiner_name(leader.name))):
                return leader
        return None

    def _is_open(self, run: Run, name: str) -> bool:
        job = self.store.get(Key(JOB.kind, run.namespace, name))
        if job is None or not controlled_by(job, run.uid):
            return False
        ended = (job.get("status") or {}).get("conditions") or []
        return not any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in ended)

    def has_job(self, run: Run, name: str) -> bool:
        """Tell whether the run owns a Job of that name."""
        job = self.store.get(Key(JOB.kind, run.namespace, name))
        return job is not None and controlled_by(job, run.uid)

    def following(self, leader: RunRef, namespace: str) -> list[Run]:
        """Return the runs that say that this very run trains or examines them too, in the order of their names."""
        found = [entry.value for entry in self.store.find(FOLLOWERS, (namespace, leader.name))]
        return [run for run in found if leader in (run.status.trainer, run.status.examiner)]
