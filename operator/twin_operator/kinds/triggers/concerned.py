"""Whom a change concerns: what the table's rows wake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from bettertherapy_api import names
from twin_operator.domain.objects import PoolRef, Run, Twin, pool_ref
from twin_operator.domain.queueing import in_line
from twin_operator.engine.resources import Key
from twin_operator.engine.store import Entry
from twin_operator.kinds.resources import DOCTOR_TWIN, FINE_TUNE_RUN, VALIDATOR, VALIDATOR_ROUND
from twin_operator.kinds.triggers.change import Change, Route, Soon, Woken, label_of, pool_key, status_of
from twin_operator.kinds.watched import FOLLOWERS, POOL_TASKS, UNDER_WAY, WAITING, Report, Slice
from twin_operator.kinds.world import World


def itself(change: Change) -> Iterator[Woken]:
    """The object itself."""
    yield change.key


def itself_soon(change: Change) -> Iterator[Woken]:
    """The object itself, when what follows from the change has followed."""
    yield Soon(change.key)


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


_NEXT: Final = 8
"""Runs that are woken when a place in their pool became free; the others need not look."""


def next_in_line(change: Change) -> Iterator[Woken]:
    """The twin's other runs, and of those that wait where a place became free the oldest that could start."""
    namespace, world = change.key.namespace, change.world
    name = change.entry.manifest["spec"]["twinRef"].get("name")
    for run in world.runs_naming(namespace, name or ""):
        if not _is_settled(run):
            yield Key(FINE_TUNE_RUN.kind, namespace, run.name)
    pool = status_of(change.old).get("pool") or status_of(change.new).get("pool")
    if pool is not None:
        line = in_line(world.waiting(namespace, pool), lambda run: world.runs_naming(namespace, run.spec.twin_ref.name))
        for run in islice(line, _NEXT):
            yield Key(FINE_TUNE_RUN.kind, namespace, run.name)


def owner_pool(change: Change) -> Iterator[Woken]:
    """The pool in its label."""
    if (key := pool_key(change)) is not None:
        yield key


def tasks_of_pool(change: Change) -> Iterator[Woken]:
    """What validators have this pool's miners do."""
    yield Key(POOL_TASKS, change.key.namespace, change.key.name)


def tasks_of_owner_pool(change: Change) -> Iterator[Woken]:
    """What validators have the miners do of the pool in its label."""
    if (key := pool_key(change)) is not None:
        yield Key(POOL_TASKS, key.namespace, key.name)


def tasks_of_run(change: Change) -> Iterator[Woken]:
    """The tasks of the pool whose miner took the one that the run does."""
    for each in change.versions:
        if isinstance(each.value, Run) and each.value.spec.task is not None:
            yield Key(POOL_TASKS, change.key.namespace, each.value.spec.task.pool)


def owner_run(change: Change) -> Iterator[Woken]:
    """The run in its label."""
    name = label_of(change, names.LABEL_RUN)
    if name is not None:
        yield Key(FINE_TUNE_RUN.kind, change.key.namespace, name)


def owner_validator(change: Change) -> Iterator[Woken]:
    """The validator in its label."""
    name = label_of(change, names.LABEL_VALIDATOR)
    if name is not None:
        yield Key(VALIDATOR.kind, change.key.namespace, name)


def owner_round(change: Change) -> Iterator[Woken]:
    """The round in its label."""
    name = label_of(change, names.LABEL_ROUND)
    if name is not None:
        yield Key(VALIDATOR_ROUND.kind, change.key.namespace, name)


def runs_beside(change: Change) -> Iterator[Woken]:
    """The runs that share a trainer or an examiner with it, or are asked to."""
    namespace, world = change.key.namespace, change.world
    leaders = {change.key.name}
    for each in change.versions:
        if isinstance(each.value, Run):
            status = each.value.status
            leaders |= {other.name for other in (status.trainer, status.examiner) if other is not None}
            for other in (*(status.trains or ()), *(status.examines or ())):
                yield Key(FINE_TUNE_RUN.kind, namespace, other.name)
    for name in leaders:
        if name != change.key.name:
            yield Key(FINE_TUNE_RUN.kind, namespace, name)
        for entry in world.store.find_any(FOLLOWERS, (namespace, name)):
            yield entry.key


def followers_of_owner_run(change: Change) -> Iterator[Woken]:
    """The runs that share the Job of the run in its label, and those whose names runs had that did."""
    namespace, name = change.key.namespace, label_of(change, names.LABEL_RUN)
    if name is None:
        return
    for entry in change.world.store.find_any(FOLLOWERS, (namespace, name)):
        yield entry.key
    leader = change.world.store.value(Key(FINE_TUNE_RUN.kind, namespace, name))
    if isinstance(leader, Run):
        for each in (*(leader.status.trains or ()), *(leader.status.examines or ())):
            yield Key(FINE_TUNE_RUN.kind, namespace, each.name)


def leaders_of_owner_run(change: Change) -> Iterator[Woken]:
    """The runs whose Jobs the run in its label shares."""
    name = label_of(change, names.LABEL_RUN)
    run = change.world.store.value(Key(FINE_TUNE_RUN.kind, change.key.namespace, name)) if name is not None else None
    if isinstance(run, Run):
        for leader in (run.status.trainer, run.status.examiner):
            if leader is not None:
                yield Key(FINE_TUNE_RUN.kind, change.key.namespace, leader.name)


def validator_of_round(change: Change) -> Iterator[Woken]:
    """The validator that the round names."""
    name = change.entry.manifest["spec"]["validatorRef"].get("name")
    if name is not None:
        yield Key(VALIDATOR.kind, change.key.namespace, name)


def rounds_beside(change: Change) -> Iterator[Woken]:
    """The other rounds of its validator that are not over."""
    name = change.entry.manifest["spec"]["validatorRef"].get("name") or ""
    for made in change.world.rounds_naming(change.key.namespace, name):
        if made.name != change.key.name and not made.ended:
            yield Key(VALIDATOR_ROUND.kind, made.namespace, made.name)


def open_rounds_of_validator(change: Change) -> Iterator[Woken]:
    """The validator's rounds that are not over."""
    for made in change.world.rounds_naming(change.key.namespace, change.key.name):
        if not made.ended:
            yield Key(VALIDATOR_ROUND.kind, made.namespace, made.name)


def validators_beside(change: Change) -> Iterator[Woken]:
    """The validators of its namespace; a kubelet takes a minute to hand on what they publish, so soon will do."""
    for entry in change.world.store.of_kind(VALIDATOR.kind, namespace=change.key.namespace):
        yield Soon(entry.key)


def routing_of_owner_pool(change: Change) -> Iterator[Woken]:
    """All that the pool in its label publishes."""
    if (key := pool_key(change)) is not None:
        yield Route(key.namespace, key.name, None)


def everything_of_owner_pool(change: Change) -> Iterator[Woken]:
    """All that the pool in its label publishes, and that pool's twins."""
    key = pool_key(change)
    if key is None:
        return
    yield Route(key.namespace, key.name, None)
    yield from twins_of_owner_pool(change)


def twins_of_owner_pool(change: Change) -> Iterator[Woken]:
    """The twins of the pool in its label."""
    key = pool_key(change)
    pool = change.world.pool_ref(key.namespace, key.name) if key is not None else None
    if pool is not None:
        yield from _twins(change.world, pool)


def twins_reported_differently(change: Change) -> Iterator[Woken]:
    """The twins of whose adapters the agent says something else; the pool counts them."""
    key = pool_key(change)
    if key is None:
        return
    before, after = _adapters(change.old), _adapters(change.new)
    found = {
        (held.twin, held.twin_uid)
        for name in before.keys() | after.keys()
        if _differ(before.get(name), after.get(name))
        for held in (after.get(name) or before[name],)
    }
    for name, uid in found:
        twin = change.world.twin(key.namespace, name)
        uid = twin.uid if twin is not None else uid  # noqa: PLW2901
        if uid is not None:
            yield Route(key.namespace, key.name, uid)
        yield Key(DOCTOR_TWIN.kind, key.namespace, name)
    if found:
        yield Soon(key)


def twins_published_differently(change: Change) -> Iterator[Woken]:
    """The twins whose entries differ; the pool counts them. Somebody else's change is looked at again."""
    key = pool_key(change)
    if key is None:
        return
    before, after = (each.value if each is not None else None for each in (change.old, change.new))
    former, newer = (each.twins if isinstance(each, Slice) else {} for each in (before, after))
    for uid in former.keys() | newer.keys():
        if _differ(former.get(uid), newer.get(uid)):
            entry = newer.get(uid) or former[uid]
            yield Key(DOCTOR_TWIN.kind, key.namespace, entry.name)
            yield Route(key.namespace, key.name, uid)
    if change.old is None or change.new is None or _besides(before) != _besides(after) or _lost_prompts(before, after):
        yield Route(key.namespace, key.name, None)
    yield Soon(key)


def _twins(world: World, pool: PoolRef) -> Iterator[Woken]:
    seen = set()
    for entry in world.twins_selecting(pool):
        seen.add(entry.key.name)
        yield entry.key
    for published in world.published(pool).entries().values():
        if published.name not in seen:
            yield Key(DOCTOR_TWIN.kind, pool.namespace, published.name)


def _differ(before: object, after: object) -> bool:
    """Tell whether two are not the same; what did not change is the same object, and seldom needs a comparison."""
    return before is not after and before != after


def _is_settled(run: Run) -> bool:
    if not run.ended:
        return False
    decided = any((run.condition(kind) or ("",))[0] == "True" for kind in ("Promoted", "Rejected"))
    return run.status.verdict != "Promote" or decided


def _adapters(entry: Entry | None) -> Mapping[str, Any]:
    report = entry.value.report if entry is not None and isinstance(entry.value, Report) else None
    return (report.adapters or {}) if report is not None else {}


def _besides(value: object) -> object:
    return (value.header, value.pods, value.unreadable, value.owner) if isinstance(value, Slice) else None


def _lost_prompts(before: object, after: object) -> bool:
    return isinstance(before, Slice) and isinstance(after, Slice) and bool(before.prompts - after.prompts)
