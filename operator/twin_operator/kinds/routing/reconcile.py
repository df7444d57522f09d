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
from bettertherapy_api.routing import PodEntry, PoolHeader, TwinEntry
from twin_operator.domain.objects import Pool, PoolRef, Twin, Unreadable, parsed
from twin_operator.domain.reasons import Reason
from twin_operator.domain.routing import Candidate, header_of, plan_entry, refusal, verified_on, without
from twin_operator.domain.taken_back import taken_back
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
        pool = self._world.pool_ref(*place)
        if pool is None or pool.deleted:
            self._world.unpublished.pop(place, None)  # the garbage collector takes the slices
            return
        try:
            if isinstance(pool, Pool):
                await self._publish(pool, marked)
            else:
                await self._go_on(pool)
        except BaseException:
            for uid in marked if marked is not None else [None]:
                self.mark(*place, uid)
            raise

    async def _publish(self, pool: Pool, marked: set[str] | None) -> None:
        place, header = (pool.namespace, pool.name), header_of(pool)
        published = self._world.published(pool)
        if names.routing_slice_name(pool.name, 0) not in published.slices:
            marked = None
            await self._create(pool, SlicePatch(name=names.routing_slice_name(pool.name, 0)), header)
        entries = published.entries() if marked is None else {}
        uids = self._all(pool, entries) if marked is None else marked
        changes: dict[str, TwinEntry | None] = {}
        texts: dict[str, str] = {}
        odd: dict[str, str] = {}
        locked = {uid for each in published.slices.values() for uid in each.unreadable}
        for uid in sorted(uids):
            twin = self._world.twin_of(uid)
            if uid in locked and twin is not None:
                continue  # written by another release: what is published for it stays
            previous = entries.get(uid) if marked is None else published.entry(uid)
            try:
                wanted = self._wanted(pool, twin, previous)
            except Exception as error:  # one twin's defect must not stop the others; its entry stays
                log.exception("MinerPool %s/%s: nothing can be published for twin %s", *place, uid)
                odd[uid] = f"the operator can't make it ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
                continue
            if wanted != previous or (uid in locked and twin is None):
                changes[uid] = wanted
            if wanted is not None and wanted.prompt_digest is not None and isinstance(twin, Twin):
                texts[wanted.prompt_digest] = twin.spec.system_prompt or ""
        first, then = plan_twins(pool.name, published, changes)
        former = self._world.unpublished.get(place, {})
        refused = {} if marked is None else {uid: why for uid, why in former.items() if uid not in uids and uid}
        refused.update(odd)
        for patch in [
            *plan_pods(pool.name, published, self._pods(pool)), *plan_prompts(pool.name, published, texts), *first,
            *then, *self._headers(pool, published, {patch.name for patch in then}),
        ]:  # fmt: skip
            await self._write(pool, patch, header, refused)
        if marked is None:
            await self._tidy(pool, header, {**entries, **changes})
        self._note_refused(place, refused)

    async def _go_on(self, pool: PoolRef) -> None:
        """Publish what needs no spec: where pods are, and that what must not answer does so no more.

        A twin that is gone must go here too: its name may be another doctor's by now.
        """
        published = self._world.published(pool)
        header = next((each.header for _, each in sorted(published.slices.items()) if each.header is not None), None)
        changes: dict[str, TwinEntry | None] = {}
        for uid, entry in published.entries().items():
            wanted = self._without_spec(pool, self._world.twin_of(uid), entry)
            if wanted != entry:
                changes[uid] = wanted
        locked = {uid for each in published.slices.values() for uid in each.unreadable}
        changes.update(dict.fromkeys(uid for uid in locked if self._world.twin_of(uid) is None))
        refused: dict[str, str] = {}
        first, then = plan_twins(pool.name, published, changes)
        for patch in [*plan_pods(pool.name, published, self._pods(pool)), *first, *then]:
            if header is not None or patch.name in published.slices:
                await self._write(pool, patch, header, refused)
        self._note_refused((pool.namespace, pool.name), refused)

    def _note_refused(self, place: tuple[str, str], refused: dict[str, str]) -> None:
        former = self._world.unpublished.get(place, {})
        if refused == former:
            return
        self._world.unpublished[place] = refused
        self._wake(Key(MINER_POOL.kind, *place))
        for uid in refused.keys() ^ former.keys():
            if isinstance(twin := self._world.twin_of(uid), Twin):
                self._wake(Key(DOCTOR_TWIN.kind, twin.namespace, twin.name))

    def _without_spec(
        self, pool: PoolRef, twin: Twin | Unreadable | None, previous: TwinEntry | None
    ) -> TwinEntry | None:
        """Return the entry where the spec of the pool or of the twin can't be read: nothing new, but less at need."""
        if isinstance(twin, Unreadable):
            return without(previous, twin.taken_back) if previous is not None else None
        if twin is None or twin.deleted or twin.namespace != pool.namespace or previous is None:
            return None
        return without(previous, taken_back(twin.status, twin.annotations))

    def _all(self, pool: Pool, entries: Iterable[str]) -> set[str]:
        """Return the twins that the pool serves, should serve, or served by their own memory."""
        found = set(entries)
        found.update(entry.manifest["metadata"]["uid"] for entry in self._world.twins_selecting(pool))
        for entry in self._store.of_kind("DoctorTwin", namespace=pool.namespace):
            if isinstance(entry.value, Twin) and pool.name in (entry.value.status.pools or ()):
                found.add(entry.value.uid)
        return found

    def _wanted(self, pool: Pool, twin: Twin | Unreadable | None, previous: TwinEntry | None) -> TwinEntry | None:
        if not isinstance(twin, Twin):
            return self._without_spec(pool, twin, previous)
        if twin.namespace != pool.namespace:
            return None
        matches = twin.spec.pool_selector.matches(dict(pool.labels))
        if not matches and previous is None and pool.name not in (twin.status.pools or ()):
            return None
        refused = refusal(pool, twin) if matches else not_selected()
        elsewhere = refused is not None and served_by_other(self._world, twin, pool)
        candidate = Candidate(twin=twin, refused=refused, served_elsewhere=elsewhere)
        facts = self._world.facts(pool.namespace, pool.name)
        return plan_entry(pool, candidate, previous=previous, ready=facts.ready)

    def _pods(self, pool: PoolRef) -> dict[str, PodEntry]:
        """Return the engine pods with their agents' addresses, from what the API server says of them."""
        found: dict[str, PodEntry] = {}
        for pod in self._world.facts(pool.namespace, pool.name).engines:
            if pod.ip is None:
                continue
            host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
            entry = parsed(PodEntry, {"name": pod.name, "address": f"{host}:{names.AGENT_PORT}"})
            if isinstance(entry, str):
                log.warning("pod %s/%s can't be published: %s", pool.namespace, pod.name, entry)
            else:
                found[pod.uid] = entry
        return found

    def _headers(self, pool: Pool, published: Published, written: set[str]) -> list[SlicePatch]:
        header = header_of(pool)
        return [
            SlicePatch(name=name, header=header)
            for name, each in sorted(published.slices.items())
            if each.header != header and name not in written
        ]

    async def _write(
        self, pool: PoolRef, patch: SlicePatch, header: PoolHeader | None, refused: dict[str, str]
    ) -> None:
        """Write one patch. What the API server refuses is noted; a patch of several twins is then sent one by one."""
        try:
            await self._send(pool, patch, header)
        except ApiError as error:
            if not error.refused:
                raise
            if len(patch.twins) > 1:
                for part in patch.parts():
                    await self._write(pool, part, header, refused)
                return
            uid = next(iter(patch.twins), "")
            refused[uid] = f"the API server refuses it: {error.message}"
            log.warning("RoutingSlice %s/%s: %s", pool.namespace, patch.name, error)

    async def _send(self, pool: PoolRef, patch: SlicePatch, header: PoolHeader | None) -> None:
        """Write one patch; a slice that is not there yet needs a header."""
        published = self._world.published(pool)
        if patch.name not in published.slices:
            if header is not None:
                await self._create(pool, patch, header)
            return
        if header is not None and published.slices[patch.name].header != header:
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

    async def _create(self, pool: PoolRef, patch: SlicePatch, header: PoolHeader) -> None:
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
            "pool": _without_null(header_document(header)),
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

    async def _look_again(self, pool: PoolRef, name: str) -> None:
        """Take what the API server has of a slice: the store was behind."""
        live = await self._api.get(ROUTING_SLICE, namespace=pool.namespace, name=name)
        key = Key(ROUTING_SLICE.kind, pool.namespace, name)
        if live is not None:
            self._store.put({"apiVersion": ROUTING_SLICE.api_version, "kind": ROUTING_SLICE.kind, **live})
        elif (known := self._store.get(key)) is not None:
            self._store.remove(known)

    async def _tidy(self, pool: Pool, header: PoolHeader, entries: dict[str, TwinEntry | None]) -> None:
        """Take away system prompts of no twin, and slices without content; the first one stays."""
        published = self._world.published(pool)
        used = {entry.prompt_digest for entry in entries.values() if entry is not None and entry.prompt_digest}
        used |= {entry.prompt_digest for entry in published.entries().values() if entry.prompt_digest}
        if not any(each.unreadable for each in published.slices.values()):
            for patch in plan_unused_prompts(published, used):
                await self._send(pool, patch, header)
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
    """Tell whether another pool, one that matches and can serve the twin, answers with the wanted version.

    What it publishes answers nobody until one of its ready pods holds it.
    """
    version = wanted_version(twin)
    wanted = version.served_name
    for other in world.pools(pool.namespace):
        if other.name == pool.name or other.deleted:
            continue
        if not twin.spec.pool_selector.matches(dict(other.labels)) or refusal(other, twin) is not None:
            continue
        entry = world.published(other).entry(twin.uid)
        if entry is None or all(each.served_name != wanted for each in entry.versions):
            continue
        ready = world.facts(other.namespace, other.name).ready
        reports = [report for report in ready.values() if report is not None]
        if ready and (version.digest is None or verified_on(wanted, version.digest, reports)):
            return True
    return False


def _without_null(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return value
