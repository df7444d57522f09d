"""Which change wakes what: one table. A row says of which kind the change is, what must differ, and whom it concerns.

The table only saves work: a resync and a new leader look at everything, and come to the same state. With a thousand
twins on a pool, waking all of them at each report of one adapter would cost more than all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from bettertherapy_api import names
from twin_operator.domain.objects import PoolRef, Run, Twin, Unreadable, pool_ref
from twin_operator.domain.pool_facts import PodFacts
from twin_operator.domain.queueing import in_line
from twin_operator.engine.resources import DEPLOYMENT, POD, Key
from twin_operator.engine.store import Entry
from twin_operator.kinds.resources import (
    CHILDREN,
    DOCTOR_TWIN,
    FINE_TUNE_RUN,
    MINER_POOL,
    POD_REPORT,
    PRIMARY,
    ROUTING_SLICE,
)
from twin_operator.kinds.watched import UNDER_WAY, WAITING, Report, Slice
from twin_operator.kinds.world import World


@dataclass(frozen=True, slots=True)
class Route:
    """What a pool publishes is to be looked at again."""

    namespace: str
    pool: str
    twin: str | None
    """UID of the twin that it is about; None: all of them."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The pool's status counts something that changed: soon is early enough."""

    pool: Key


Woken = Key | Route | Counts


@dataclass(frozen=True)
class Change:
    """An object before and after (None: absent)."""

    world: World
    old: Entry | None
    new: Entry | None

    @property
    def entry(self) -> Entry:
        """Return the newest version that there is."""
        found = self.new or self.old
        assert found is not None  # noqa: S101  # one of them is always there
        return found

    @property
    def key(self) -> Key:
        """Return which object it is."""
        return self.entry.key

    @property
    def versions(self) -> list[Entry]:
        """Return both versions, as far as they exist."""
        return [each for each in (self.old, self.new) if each is not None]


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """One row."""

    of: str
    """Kind of the object that changed."""
    when: Callable[[Change], bool]
    wakes: Callable[[Change], Iterable[Woken]]
    why: str


def woken(world: World, old: Entry | None, new: Entry | None) -> Iterator[Woken]:
    """Yield what a change concerns; the same thing may come more than once.

    An object that somebody gives to another pool or run is gone from the one and new to the other.
    """
    if old is not None and new is not None and _belongs_to(old) != _belongs_to(new):
        yield from _woken(Change(world, old, None))
        yield from _woken(Change(world, None, new))
    else:
        yield from _woken(Change(world, old, new))


def _woken(change: Change) -> Iterator[Woken]:
    for trigger in _BY_KIND.get(change.key.kind, ()):
        if trigger.when(change):
            yield from trigger.wakes(change)


def asks_anew(old: Entry | None, new: Entry | None) -> bool:
    """Tell whether a person asks something else of an object: its spec or its annotations are new."""
    if new is None or new.key.kind not in _PRIMARY:
        return False
    before = old.manifest["metadata"] if old is not None else {}
    after = new.manifest["metadata"]
    return any(before.get(each) != after.get(each) for each in ("uid", "generation", "annotations"))


# --- what differs


def always(change: Change) -> bool:
    """Any change."""
    return True


def exists(change: Change) -> bool:
    """It is there."""
    return change.new is not None


def asks_differently(change: Change) -> bool:
    """A new object, one that goes, or a new spec or labels."""
    if change.old is None or change.new is None:
        return True
    before, after = change.old.manifest["metadata"], change.new.manifest["metadata"]
    return any(before.get(each) != after.get(each) for each in ("generation", "uid", "deletionTimestamp", "labels"))


_DECIDES: Final = (
    "promotedVersion", "specDigest", "canaryVersion", "canaryWeightPercent", "pendingVersion", "refusedVersions",
)  # fmt: skip
"""Fields of a twin's status that decide what its pools hold and what its runs say."""


def answers_differently(change: Change) -> bool:
    """Another version of the twin should answer, or is being tried."""
    if asks_differently(change) or isinstance(change.entry.value, Twin) != isinstance(
        change.old.value if change.old else None, Twin
    ):
        return True
    before, after = (_status(each) for each in (change.old, change.new))
    return any(before.get(each) != after.get(each) for each in _DECIDES)


def is_taken_back(change: Change) -> bool:
    """Another version may not answer, of a twin of which no more than that can be read."""
    before, after = (each.value if each is not None else None for each in (change.old, change.new))
    former = before.taken_back if isinstance(before, Unreadable) else None
    return isinstance(after, Unreadable) and after.taken_back != former


def serves_differently(change: Change) -> bool:
    """A pod came, went, became ready or is so no more, or got an address."""
    return _serving(change.old) != _serving(change.new)


def has_other_trouble(change: Change) -> bool:
    """A pod or a Deployment is in other trouble, and its pool has no engine that could answer."""
    key = _pool_key(change)
    return change_of_value(change) and key is not None and not change.world.facts(key.namespace, key.name).ready


def opens_or_closes(change: Change) -> bool:
    """A Deployment has its first ready pod, or its last one is gone."""
    before, after = ((each.value.ready > 0) if each is not None else False for each in (change.old, change.new))
    return before != after


def change_of_value(change: Change) -> bool:
    """What is read out of it differs."""
    return (change.old.value if change.old else None) != (change.new.value if change.new else None)


def reports_of_its_pod(change: Change) -> bool:
    """An agent says something else of its pod or of its engine."""
    return _pod_part(change.old) != _pod_part(change.new)


def hears_or_not(change: Change) -> bool:
    """An engine's chat template takes conversations, or does so no more."""
    before, after = (_template_refusal(each) for each in (change.old, change.new))
    return before != after


def starts_or_ends(change: Change) -> bool:
    """A run came, started, ended or went."""
    before, after = (_status(each) for each in (change.old, change.new))
    missing = change.old is None or change.new is None
    return missing or any(before.get(each) != after.get(each) for each in ("completionTime", "startTime"))


def leaves_a_place(change: Change) -> bool:
    """A run that had not ended ended or went, or waits in another pool now."""
    if change.old is None or "completionTime" in _status(change.old):
        return False
    if change.new is None or "completionTime" in _status(change.new):
        return True
    before, after = (_status(each).get("pool") for each in (change.old, change.new))
    return before is not None and before != after


# --- whom it concerns


def itself(change: Change) -> Iterator[Woken]:
    """The object itself."""
    yield change.key


def pools_of_twin(change: Change) -> Iterator[Woken]:
    """The pools that matched the twin before or match it now, or that publish something for it."""
    twins = [each.value for each in change.versions if isinstance(each.value, Twin)]
    uids = {each.manifest["metadata"]["uid"] for each in change.versions}
    for pool in change.world.pool_refs(change.key.namespace):
        published = change.world.published(pool)
        matches = any(twin.spec.pool_selector.matches(dict(pool.labels)) for twin in twins)
        for uid in uids:
            if matches or published.entry(uid) is not None:
                yield Route(pool.namespace, pool.name, uid)


def open_runs_of_twin(change: Change) -> Iterator[Woken]:
    """The twin's runs on which not everything was decided."""
    for run in change.world.runs_naming(change.key.namespace, change.key.name):
        if not _is_settled(run):
            yield Key(FINE_TUNE_RUN.kind, run.namespace, run.name)


def everything_of_pool(change: Change) -> Iterator[Woken]:
    """All that the pool publishes."""
    yield Route(change.key.namespace, change.key.name, None)


def twins_of_pool(change: Change) -> Iterator[Woken]:
    """The twins that the pool serves or should serve, by its labels before or now."""
    for each in change.versions:
        yield from _twins(change.world, pool_ref(each.manifest, each.value))


def runs_of_pool(change: Change) -> Iterator[Woken]:
    """The runs that wait, since the pool may take one that waits in another, and those that have started in it.

    Of those that have started one may have no Job yet.
    """
    world, namespace = change.world, change.key.namespace
    waiting = [each for each in world.store.values_of(WAITING) if isinstance(each, tuple) and each[0] == namespace]
    for index, values in ((WAITING, waiting), (UNDER_WAY, [(namespace, change.key.name)])):
        for value in values:
            for entry in world.store.find_any(index, value):
                yield entry.key


def twin_of_run(change: Change) -> Iterator[Woken]:
    """The twin that the run names."""
    name = change.entry.manifest["spec"]["twinRef"].get("name")
    if name is not None:
        yield Key(DOCTOR_TWIN.kind, change.key.namespace, name)


_PRIMARY: Final = frozenset(resource.kind for resource in PRIMARY)
_NEXT: Final = 8
"""Runs that are woken when a place in their pool became free; the others need not look."""


def next_in_line(change: Change) -> Iterator[Woken]:
    """The twin's other runs, and of those that wait where a place became free the oldest that could start."""
    namespace, world = change.key.namespace, change.world
    name = change.entry.manifest["spec"]["twinRef"].get("name")
    for run in world.runs_naming(namespace, name or ""):
        if not _is_settled(run):
            yield Key(FINE_TUNE_RUN.kind, namespace, run.name)
    pool = _status(change.old).get("pool")
    if pool is not None:
        line = in_line(world.waiting(namespace, pool), lambda run: world.runs_naming(namespace, run.spec.twin_ref.name))
        for run in islice(line, _NEXT):
            yield Key(FINE_TUNE_RUN.kind, namespace, run.name)


def owner_pool(change: Change) -> Iterator[Woken]:
    """The pool in its label."""
    if (key := _pool_key(change)) is not None:
        yield key


def owner_run(change: Change) -> Iterator[Woken]:
    """The run in its label."""
    name = _label(change, names.LABEL_RUN)
    if name is not None:
        yield Key(FINE_TUNE_RUN.kind, change.key.namespace, name)


def everything_of_owner_pool(change: Change) -> Iterator[Woken]:
    """All that the pool in its label publishes, and that pool's twins."""
    key = _pool_key(change)
    if key is None:
        return
    yield Route(key.namespace, key.name, None)
    yield from twins_of_owner_pool(change)


def twins_of_owner_pool(change: Change) -> Iterator[Woken]:
    """The twins of the pool in its label."""
    key = _pool_key(change)
    pool = change.world.pool_ref(key.namespace, key.name) if key is not None else None
    if pool is not None:
        yield from _twins(change.world, pool)


def twins_reported_differently(change: Change) -> Iterator[Woken]:
    """The twins of whose adapters the agent says something else; the pool counts them."""
    key = _pool_key(change)
    if key is None:
        return
    before, after = _adapters(change.old), _adapters(change.new)
    found = {
        (held.twin, held.twin_uid)
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
        for held in (after.get(name) or before[name],)
    }
    for name, uid in found:
        twin = change.world.twin(key.namespace, name)
        uid = twin.uid if twin is not None else uid  # noqa: PLW2901
        if uid is not None:
            yield Route(key.namespace, key.name, uid)
        yield Key(DOCTOR_TWIN.kind, key.namespace, name)
    if found:
        yield Counts(key)


def twins_published_differently(change: Change) -> Iterator[Woken]:
    """The twins whose entries differ; the pool counts them. Somebody else's change is looked at again."""
    key = _pool_key(change)
    if key is None:
        return
    before, after = (each.value if each is not None else None for each in (change.old, change.new))
    former, newer = (each.twins if isinstance(each, Slice) else {} for each in (before, after))
    for uid in former.keys() | newer.keys():
        if former.get(uid) != newer.get(uid):
            entry = newer.get(uid) or former[uid]
            yield Key(DOCTOR_TWIN.kind, key.namespace, entry.name)
            yield Route(key.namespace, key.name, uid)
    if change.old is None or change.new is None or _besides(before) != _besides(after) or _lost_prompts(before, after):
        yield Route(key.namespace, key.name, None)
    yield Counts(key)


TRIGGERS: Final = (
    Trigger(of=DOCTOR_TWIN.kind, when=exists, wakes=itself, why="its status follows"),
    Trigger(of=DOCTOR_TWIN.kind, when=answers_differently, wakes=pools_of_twin, why="pools publish its versions"),
    Trigger(of=DOCTOR_TWIN.kind, when=is_taken_back, wakes=pools_of_twin, why="a rollback needs no spec"),
    Trigger(of=DOCTOR_TWIN.kind, when=answers_differently, wakes=open_runs_of_twin, why="runs tell of them"),
    Trigger(of=MINER_POOL.kind, when=exists, wakes=itself, why="its children follow from its spec"),
    Trigger(of=MINER_POOL.kind, when=asks_differently, wakes=everything_of_pool, why="it may serve others"),
    Trigger(of=MINER_POOL.kind, when=asks_differently, wakes=twins_of_pool, why="they may be served elsewhere now"),
    Trigger(of=MINER_POOL.kind, when=asks_differently, wakes=runs_of_pool, why="its limit or its store may be another"),
    Trigger(of=FINE_TUNE_RUN.kind, when=exists, wakes=itself, why="its status follows from its spec"),
    Trigger(of=FINE_TUNE_RUN.kind, when=starts_or_ends, wakes=twin_of_run, why="a version may have come out of it"),
    Trigger(of=FINE_TUNE_RUN.kind, when=leaves_a_place, wakes=next_in_line, why="a place became free"),
    Trigger(of=POD.kind, when=serves_differently, wakes=everything_of_owner_pool, why="every ready pod counts"),
    Trigger(of=POD.kind, when=has_other_trouble, wakes=twins_of_owner_pool, why="it says why nothing answers"),
    Trigger(of=DEPLOYMENT.kind, when=opens_or_closes, wakes=twins_of_owner_pool, why="patients ask them"),
    Trigger(of=DEPLOYMENT.kind, when=has_other_trouble, wakes=twins_of_owner_pool, why="it says why nothing answers"),
    Trigger(of=POD_REPORT.kind, when=reports_of_its_pod, wakes=everything_of_owner_pool, why="it may serve"),
    Trigger(of=POD_REPORT.kind, when=reports_of_its_pod, wakes=owner_pool, why="its conditions tell of its engines"),
    Trigger(of=POD_REPORT.kind, when=hears_or_not, wakes=twins_of_owner_pool, why="all patients may be turned away"),
    Trigger(of=POD_REPORT.kind, when=always, wakes=twins_reported_differently, why="a version may have been verified"),
    Trigger(of=ROUTING_SLICE.kind, when=always, wakes=twins_published_differently, why="another version answers"),
    *(
        Trigger(of=resource.kind, when=change_of_value if resource is POD else always, wakes=wakes, why="a child")
        for resource in (*CHILDREN, POD)
        for wakes in (owner_pool, owner_run)
    ),
)  # fmt: skip
_BY_KIND: Final[Mapping[str, tuple[Trigger, ...]]] = {
    kind: tuple(trigger for trigger in TRIGGERS if trigger.of == kind) for kind in {trigger.of for trigger in TRIGGERS}
}


def _twins(world: World, pool: PoolRef) -> Iterator[Woken]:
    seen = set()
    for entry in world.twins_selecting(pool):
        seen.add(entry.key.name)
        yield entry.key
    for published in world.published(pool).entries().values():
        if published.name not in seen:
            yield Key(DOCTOR_TWIN.kind, pool.namespace, published.name)


def _is_settled(run: Run) -> bool:
    if not run.ended:
        return False
    decided = any((run.condition(kind) or ("",))[0] == "True" for kind in ("Promoted", "Rejected"))
    return run.status.verdict != "Promote" or decided


def _belongs_to(entry: Entry) -> tuple[str | None, ...]:
    if entry.key.kind in _PRIMARY:
        return ()  # theirs are labels of a person's own
    labels = entry.manifest["metadata"].get("labels") or {}
    return tuple(labels.get(label) for label in (names.LABEL_POOL, names.LABEL_RUN))


def _label(change: Change, label: str) -> str | None:
    return (change.entry.manifest["metadata"].get("labels") or {}).get(label)


def _pool_key(change: Change) -> Key | None:
    name = _label(change, names.LABEL_POOL)
    return Key(MINER_POOL.kind, change.key.namespace, name) if name is not None else None


def _status(entry: Entry | None) -> dict[str, Any]:
    status = entry.manifest.get("status") if entry is not None else None
    return status if isinstance(status, dict) else {}


def _serving(entry: Entry | None) -> object:
    pod = entry.value if entry is not None else None
    return (pod.uid, pod.ready, pod.leaving, pod.ip) if isinstance(pod, PodFacts) else None


def _pod_part(entry: Entry | None) -> object:
    report = entry.value.report if entry is not None and isinstance(entry.value, Report) else None
    return (report.pod, report.ready, report.draining, report.engine) if report is not None else None


def _template_refusal(entry: Entry | None) -> str | None:
    report = entry.value.report if entry is not None and isinstance(entry.value, Report) else None
    return report.engine.template_refusal if report is not None else None


def _adapters(entry: Entry | None) -> Mapping[str, Any]:
    report = entry.value.report if entry is not None and isinstance(entry.value, Report) else None
    return (report.adapters or {}) if report is not None else {}


def _besides(value: object) -> object:
    return (value.header, value.pods, value.unreadable, value.owner) if isinstance(value, Slice) else None


def _lost_prompts(before: object, after: object) -> bool:
    return isinstance(before, Slice) and isinstance(after, Slice) and bool(before.prompts - after.prompts)
