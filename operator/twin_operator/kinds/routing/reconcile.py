"""Keeps a pool's RoutingSlices true. Patients wait for this: it runs before everything else and looks only at the twins
that a change concerns.

What is to be looked at is kept as a set of UIDs per pool; it is only a shortcut. A new leader, a resync, and whatever
concerns all twins of a pool look at all of them, and come to the same slices.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.routing import PodEntry, TwinEntry
from twin_operator.domain.objects import Pool, Twin, Unreadable
from twin_operator.domain.reasons import Reason
from twin_operator.domain.routing import Candidate, header_of, plan_entry, refusal
from twin_operator.domain.versions import wanted_version
from twin_operator.engine import metrics
from twin_operator.engine.api import Api
from twin_operator.engine.apply import Owner
from twin_operator.engine.conditions import Finding
from twin_operator.engine.resources import Key
from twin_operator.errors import ApiError, ChildConflictError, ConflictError
from twin_operator.kinds.podspec.parts import labels
from twin_operator.kinds.resources import DOCTOR_TWIN, MINER_POOL, ROUTING_SLICE
from twin_operator.kinds.routing.plan import (
    SlicePatch,
    header_document,
    plan_pods,
    plan_prompts,
    plan_twins,
    plan_unused_prompts,
    slice_number,
)
from twin_operator.kinds.world import Published, World

log = logging.getLogger(__name__)

ROUTING: Final = "Routing"
"""Kind of the queue's keys for this work; the name is the pool's."""


class RoutingReconciler:
    """Publishes what pools' agents hold and miners send where."""

    def __init__(self, *, api: Api, world: World, wake: Callable[[Key], None]) -> None:
        self._api = api
        self._world = world
        self._store = world.store
        self._wake = wake
        self._marked: dict[tuple[str, str], set[str] | None] = {}

    def mark(self, namespace: str, pool: str, twin: str | None) -> None:
        """Have the twin of this UID looked at in the next pass over the pool; None: all."""
        marked = self._marked.get((namespace, pool), set())
        if twin is None or marked is None:
            self._marked[namespace, pool] = None
        else:
            marked.add(twin)
            self._marked[namespace, pool] = marked

    async def reconcile(self, key: Key) -> None:
        """Publish what changed for the pool; raises OperatorError to be called again."""
        place = (key.namespace, key.name)
        marked = self._marked.pop(place, set())
        pool = self._world.pool(*place)
        if pool is None or pool.deleted:
            # Gone: the garbage collector takes the slices. Not readable: what is published stays.
            self._world.unpublished.pop(place, None)
            return
        try:
            await self._publish(pool, marked)
        except BaseException:
            for uid in marked if marked is not None else [None]:
                self.mark(*place, uid)
            raise

    async def _publish(self, pool: Pool, marked: set[str] | None) -> None:
        published = self._world.published(pool)
        if names.routing_slice_name(pool.name, 0) not in published.slices:
            marked = None
            await self._create(pool, SlicePatch(name=names.routing_slice_name(pool.name, 0)))
        entries = published.entries() if marked is None else {}
        uids = self._all(pool, entries) if marked is None else marked
        changes: dict[str, TwinEntry | None] = {}
        texts: dict[str, str] = {}
        locked = {uid for each in published.slices.values() for uid in each.unreadable}
        for uid in sorted(uids):
            twin = self._world.twin_of(uid)
            if isinstance(twin, Unreadable) or (uid in locked and twin is not None):
                continue  # written by another release: what is published for it stays
            previous = entries.get(uid) if marked is None else published.entry(uid)
            wanted = self._wanted(pool, twin, previous)
            if wanted != previous or (uid in locked and twin is None):
                changes[uid] = wanted
            if wanted is not None and wanted.prompt_digest is not None and twin is not None:
                texts[wanted.prompt_digest] = twin.spec.system_prompt or ""
        first, then = plan_twins(pool.name, published, changes)
        place = (pool.namespace, pool.name)
        former = self._world.unpublished.get(place, {})
        refused = {} if marked is None else {uid: why for uid, why in former.items() if uid not in uids and uid}
        for patch in [
            *plan_pods(pool.name, published, self._pods(pool)), *plan_prompts(pool.name, published, texts), *first,
            *then, *self._headers(pool, published, {patch.name for patch in then}),
        ]:  # fmt: skip
            await self._write(pool, patch, refused)
        if marked is None:
            await self._tidy(pool, {**entries, **changes})
        if refused != former:
            self._world.unpublished[place] = refused
            self._wake(Key(MINER_POOL.kind, *place))
            for uid in refused.keys() ^ former.keys():
                if isinstance(twin := self._world.twin_of(uid), Twin):
                    self._wake(Key(DOCTOR_TWIN.kind, twin.namespace, twin.name))

    def _all(self, pool: Pool, entries: Iterable[str]) -> set[str]:
        """Return the twins that the pool serves, should serve, or served by their own memory."""
        found = set(entries)
        found.update(entry.manifest["metadata"]["uid"] for entry in self._world.twins_selecting(pool))
        for entry in self._store.of_kind("DoctorTwin", namespace=pool.namespace):
            if isinstance(entry.value, Twin) and pool.name in (entry.value.status.pools or ()):
                found.add(entry.value.uid)
        return found

    def _wanted(self, pool: Pool, twin: Twin | None, previous: TwinEntry | None) -> TwinEntry | None:
        if twin is None or twin.namespace != pool.namespace:
            return None
        matches = twin.spec.pool_selector.matches(dict(pool.labels))
        if not matches and previous is None and pool.name not in (twin.status.pools or ()):
            return None
        refused = refusal(pool, twin) if matches else not_selected()
        elsewhere = refused is not None and served_by_other(self._world, twin, pool)
        candidate = Candidate(twin=twin, refused=refused, served_elsewhere=elsewhere)
        facts = self._world.facts(pool.namespace, pool.name)
        return plan_entry(pool, candidate, previous=previous, ready=facts.ready)

    def _pods(self, pool: Pool) -> dict[str, PodEntry]:
        """Return the engine pods with their agents' addresses, from what the API server says of them."""
        facts = self._world.facts(pool.namespace, pool.name)
        return {
            pod.uid: PodEntry(
                name=pod.name,
                address=f"[{pod.ip}]:{names.AGENT_PORT}" if ":" in pod.ip else f"{pod.ip}:{names.AGENT_PORT}",
            )
            for pod in facts.engines
            if pod.ip is not None
        }  # fmt: skip

    def _headers(self, pool: Pool, published: Published, written: set[str]) -> list[SlicePatch]:
        header = header_of(pool)
        return [
            SlicePatch(name=name, header=header)
            for name, each in sorted(published.slices.items())
            if each.header != header and name not in written
        ]

    async def _write(self, pool: Pool, patch: SlicePatch, refused: dict[str, str]) -> None:
        """Write one patch. What the API server refuses is noted; a patch of several twins is then sent one by one."""
        try:
            await self._send(pool, patch)
        except ApiError as error:
            if not error.refused:
                raise
            if len(patch.twins) > 1:
                for part in patch.parts():
                    await self._write(pool, part, refused)
                return
            uid = next(iter(patch.twins), "")
            refused[uid] = error.message
            log.warning("RoutingSlice %s/%s: %s", pool.namespace, patch.name, error)

    async def _send(self, pool: Pool, patch: SlicePatch) -> None:
        published = self._world.published(pool)
        if patch.name not in published.slices:
            await self._create(pool, patch)
            return
        header = header_of(pool)
        if published.slices[patch.name].header != header:
            patch.header = header
        live = self._store.get(published.keys[patch.name])
        if live is None or not (body := patch.body()):
            return
        body["metadata"] = {"resourceVersion": live["metadata"]["resourceVersion"]}
        try:
            answer = await self._api.merge(ROUTING_SLICE, namespace=pool.namespace, name=patch.name, patch=body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            await self._look_again(pool, patch.name)
            raise ConflictError(f"RoutingSlice {patch.name} was changed meanwhile") from error
        self._store.put(answer)
        metrics.ROUTING_CHANGES.labels(namespace=pool.namespace, pool=pool.name).inc()

    async def _create(self, pool: Pool, patch: SlicePatch) -> None:
        owner = Owner(
            api_version=MINER_POOL.api_version, kind=MINER_POOL.kind, namespace=pool.namespace, name=pool.name,
            uid=pool.uid,
        )  # fmt: skip
        body = {key: _without_null(value) for key, value in patch.body().items()}
        manifest = {
            "apiVersion": ROUTING_SLICE.api_version,
            "kind": ROUTING_SLICE.kind,
            "metadata": {
                "name": patch.name, "namespace": pool.namespace, "labels": labels(pool, "routing"),
                "ownerReferences": [owner.reference()],
            },
            **body,
            "pool": _without_null(header_document(header_of(pool))),
        }  # fmt: skip
        try:
            self._store.put(await self._api.create(manifest))
        except ApiError as error:
            if error.status != 409:
                raise
            await self._look_again(pool, patch.name)
            if patch.name in self._world.published(pool).slices:
                raise ConflictError(f"RoutingSlice {patch.name} was made meanwhile") from error
            raise ChildConflictError(
                kind=ROUTING_SLICE.kind, namespace=pool.namespace, name=patch.name,
                owner="an earlier MinerPool of this name, or somebody else",
            ) from error  # fmt: skip
        metrics.ROUTING_CHANGES.labels(namespace=pool.namespace, pool=pool.name).inc()

    async def _look_again(self, pool: Pool, name: str) -> None:
        """Take what the API server has of a slice: the store was behind."""
        live = await self._api.get(ROUTING_SLICE, namespace=pool.namespace, name=name)
        key = Key(ROUTING_SLICE.kind, pool.namespace, name)
        if live is not None:
            self._store.put({"apiVersion": ROUTING_SLICE.api_version, "kind": ROUTING_SLICE.kind, **live})
        elif (known := self._store.get(key)) is not None:
            self._store.remove(known)

    async def _tidy(self, pool: Pool, entries: dict[str, TwinEntry | None]) -> None:
        """Take away system prompts of no twin, and slices without content; the first one stays."""
        published = self._world.published(pool)
        used = {entry.prompt_digest for entry in entries.values() if entry is not None and entry.prompt_digest}
        used |= {entry.prompt_digest for entry in published.entries().values() if entry.prompt_digest}
        if not any(each.unreadable for each in published.slices.values()):
            for patch in plan_unused_prompts(published, used):
                await self._send(pool, patch)
        published = self._world.published(pool)
        for name, each in sorted(published.slices.items()):
            empty = not (each.twins or each.unreadable or each.prompts or each.pods)
            if not empty or slice_number(pool.name, name) == 0 or name == names.pods_slice_name(pool.name):
                continue
            live = self._store.get(published.keys[name])
            if live is not None:
                uid = live["metadata"]["uid"]
                await self._api.delete(ROUTING_SLICE, namespace=pool.namespace, name=name, uid=uid)


def not_selected() -> Finding:
    """Return why a pool doesn't serve a twin that still answers from it."""
    return Finding(Reason.NO_POOL_MATCHES, "spec.poolSelector doesn't match the pool")


def served_by_other(world: World, twin: Twin, pool: Pool) -> bool:
    """Tell whether another pool, one that matches and can serve the twin, answers with the wanted version."""
    wanted = wanted_version(twin).served_name
    for other in world.pools(pool.namespace):
        if other.name == pool.name or other.deleted:
            continue
        if not twin.spec.pool_selector.matches(dict(other.labels)) or refusal(other, twin) is not None:
            continue
        entry = world.published(other).entry(twin.uid)
        if entry is not None and any(version.served_name == wanted for version in entry.versions):
            return True
    return False


def _without_null(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return value
