"""Which keys a change concerns: the index from twins to pools by selector, and from pools to their twins.

With 200 twins on a pool, waking all of them at each report of one adapter would cost more than all the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from bettertherapy_api import names
from twin_operator.domain.objects import pool_from, twin_from
from twin_operator.domain.pool_facts import deployment_facts, pod_facts
from twin_operator.domain.routing import read_table
from twin_operator.engine.cache import RUNS_OF_POOL, Cache
from twin_operator.engine.resources import Key, Manifest, key_of


def concerned(cache: Cache, old: Manifest | None, new: Manifest | None) -> Iterator[Key]:
    """Yield the keys to reconcile after an object changed from `old` to `new` (None: absent)."""
    thing = new or old
    if thing is None:
        return
    key = key_of(thing)
    if key.kind == "DoctorTwin":
        if new is not None:
            yield key
        if _asks_differently(old, new) or _answers_differently(old, new):
            yield from _pools_of(cache, key, (old, new))
            yield from _runs_of(cache, key)
    elif key.kind == "MinerPool":
        if new is not None:
            yield key
        if _asks_differently(old, new) or _labels(old) != _labels(new):
            yield from _twins_in(cache, key.namespace)
            yield from _waiting_in(cache, key)
            yield from _without_pool(cache, key.namespace)
    elif key.kind == "FineTuneRun":
        if new is not None:
            yield key
        yield from _after_run(cache, old, new)
    else:
        yield from _of_child(cache, key, old, new)


def _of_child(cache: Cache, key: Key, old: Manifest | None, new: Manifest | None) -> Iterator[Key]:
    run = _labels(new or old).get(names.LABEL_RUN)
    if run is not None:
        yield Key("FineTuneRun", key.namespace, run)
        return
    pool = _labels(new or old).get(names.LABEL_POOL)
    if pool is None:
        return
    pool_key = Key("MinerPool", key.namespace, pool)
    if key.kind == "Pod":
        if _pod(old) != _pod(new):
            yield pool_key
            yield from _twins_of(cache, pool_key)
        return
    yield pool_key
    if key.kind == "Deployment" and deployment_facts(old) != deployment_facts(new):
        yield from _twins_of(cache, pool_key)
    elif key.kind == "ConfigMap" and key.name == names.routing_name(pool):
        before, after = _routes(old), _routes(new)
        for name in before.keys() | after.keys():
            if before.get(name) != after.get(name):
                yield Key("DoctorTwin", key.namespace, name)
    elif key.kind == "ConfigMap" and key.name == names.report_name(pool):
        twins = _reported_differently(old, new)
        if twins is None:
            yield from _twins_of(cache, pool_key)
        else:
            yield from (Key("DoctorTwin", key.namespace, name) for name in sorted(twins))


def _asks_differently(old: Manifest | None, new: Manifest | None) -> bool:
    """A new spec, a new object, or one that is going."""
    if old is None or new is None:
        return True
    return any(
        old["metadata"].get(field) != new["metadata"].get(field) for field in ("generation", "uid", "deletionTimestamp")
    )


_VERSIONS = (
    "promotedVersion", "specDigest", "canaryVersion", "canaryWeightPercent", "pendingVersion", "refusedVersions",
)  # fmt: skip
"""Fields of a twin's status that decide what its pools hold and what its runs say."""


def _answers_differently(old: Manifest | None, new: Manifest | None) -> bool:
    """Another version should answer, or is being tried."""
    before, after = ((version or {}).get("status") or {} for version in (old, new))
    return any(before.get(field) != after.get(field) for field in _VERSIONS)


def _runs_of(cache: Cache, twin: Key) -> Iterator[Key]:
    """Runs of the twin on which not everything was decided."""
    for thing in cache.naming(twin):
        if thing["kind"] == "FineTuneRun" and not _settled(thing):
            yield key_of(thing)


def _settled(run: Manifest) -> bool:
    status = run.get("status") or {}
    if "completionTime" not in status:
        return False
    return status.get("verdict") != "Promote" or any(
        condition["type"] in ("Promoted", "Rejected") and condition["status"] == "True"
        for condition in status.get("conditions") or []
    )


def _after_run(cache: Cache, old: Manifest | None, new: Manifest | None) -> Iterator[Key]:
    """Its twin when the run came, ended or went; and, when a place became free, those who may take it."""
    thing = new or old
    if thing is None:
        return
    namespace = thing["metadata"]["namespace"]
    before, after = ((version or {}).get("status") or {} for version in (old, new))
    if old is None or new is None or any(before.get(it) != after.get(it) for it in ("completionTime", "startTime")):
        yield Key("DoctorTwin", namespace, thing["spec"]["twinRef"]["name"])
    left = old is not None and "completionTime" not in before and (new is None or "completionTime" in after)
    if left:
        yield from _runs_of(cache, Key("DoctorTwin", namespace, thing["spec"]["twinRef"]["name"]))
        if (pool := before.get("pool")) is not None:
            yield from list(_waiting_in(cache, Key("MinerPool", namespace, pool)))[:_NEXT]


_NEXT = 8
"""Runs that are woken when a place in their pool became free; the others need not look."""


def _waiting_in(cache: Cache, pool: Key) -> Iterator[Key]:
    """Runs that wait for a place in the pool, oldest first."""
    things = [
        thing
        for thing in cache.naming(Key(RUNS_OF_POOL, pool.namespace, pool.name))
        if "startTime" not in (thing.get("status") or {})
    ]
    things.sort(key=lambda thing: (thing["metadata"].get("creationTimestamp", ""), thing["metadata"]["name"]))
    yield from map(key_of, things)


def _without_pool(cache: Cache, namespace: str) -> Iterator[Key]:
    for thing in cache.of_kind("FineTuneRun", namespace=namespace):
        status = thing.get("status") or {}
        if "pool" not in status and "completionTime" not in status:
            yield key_of(thing)


def _pools_of(cache: Cache, twin: Key, versions: tuple[Manifest | None, ...]) -> Iterator[Key]:
    """Pools that matched before or match now, or whose table names the twin."""
    selectors = [
        twin_.spec.pool_selector
        for version in versions
        if version is not None and not isinstance(twin_ := twin_from(version), str)
    ]
    for thing in cache.of_kind("MinerPool", namespace=twin.namespace):
        key = key_of(thing)
        table = read_table(cache.get(Key("ConfigMap", key.namespace, names.routing_name(key.name))))
        if any(selector.matches(_labels(thing)) for selector in selectors) or (table and twin.name in table.twins):
            yield key


def _twins_in(cache: Cache, namespace: str) -> Iterator[Key]:
    for thing in cache.of_kind("DoctorTwin", namespace=namespace):
        yield key_of(thing)


def _twins_of(cache: Cache, pool_key: Key) -> Iterator[Key]:
    """Twins that the pool serves or should serve."""
    thing = cache.get(pool_key)
    pool = pool_from(thing) if thing is not None else None
    table = read_table(cache.get(Key("ConfigMap", pool_key.namespace, names.routing_name(pool_key.name))))
    for candidate in cache.of_kind("DoctorTwin", namespace=pool_key.namespace):
        key = key_of(candidate)
        twin = twin_from(candidate)
        matches = (
            pool is not None
            and not isinstance(pool, str)
            and not isinstance(twin, str)
            and twin.spec.pool_selector.matches(dict(pool.labels))
        )
        if matches or (table is not None and key.name in table.twins):
            yield key


def _pod(thing: Manifest | None) -> object:
    return pod_facts(thing) if thing is not None else None


def _labels(thing: Manifest | None) -> dict[str, str]:
    return (thing["metadata"].get("labels") or {}) if thing is not None else {}


def _routes(configmap: Manifest | None) -> dict[str, Any]:
    table = read_table(configmap)
    if table is None:
        return {}
    held: dict[str, list[Any]] = {}
    for adapter in table.adapters:
        held.setdefault(adapter.twin, []).append(adapter)
    return {name: (route, held.get(name)) for name, route in table.twins.items()}


def _reported_differently(old: Manifest | None, new: Manifest | None) -> set[str] | None:
    """Return the twins whose adapters are reported differently; None when a pod itself is, which concerns them all."""
    before, after = ((version or {}).get("data") or {} for version in (old, new))
    twins: set[str] = set()
    for pod in before.keys() | after.keys():
        if before.get(pod) == after.get(pod):
            continue
        one, other = _document(before.get(pod)), _document(after.get(pod))
        if one is None or other is None:
            return None
        held, holds = one.pop("adapters", None) or {}, other.pop("adapters", None) or {}
        if one != other:
            return None
        for name in held.keys() | holds.keys():
            if held.get(name) != holds.get(name):
                twins.add((holds.get(name) or held.get(name) or {}).get("twin", ""))
    return twins - {""}


def _document(text: str | None) -> dict[str, Any] | None:
    try:
        document = orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None
