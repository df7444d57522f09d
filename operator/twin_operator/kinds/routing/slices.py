"""Writes a pool's RoutingSlices: a patch goes to the version that was looked at, and what is there already is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.routing import PoolHeader
from twin_operator.domain.objects import PoolRef
from twin_operator.engine import metrics
from twin_operator.engine.api import Api
from twin_operator.engine.apply import Owner
from twin_operator.engine.resources import Key, Manifest
from twin_operator.errors import ApiError, ChildConflictError, ConflictError, OperatorError
from twin_operator.kinds.podspec.parts import labels
from twin_operator.kinds.resources import MINER_POOL, ROUTING_SLICE
from twin_operator.kinds.routing.plan import SlicePatch, header_document
from twin_operator.kinds.world import World

_SERIES: Final[tuple[Callable[[str, int], str], ...]] = (names.routing_slice_name, names.prompts_slice_name)


class SliceWriter:
    """Writes slices of one pool at a time; whatever it can't write it raises as an OperatorError."""

    def __init__(self, *, api: Api, world: World) -> None:
        self._api = api
        self._world = world
        self._store = world.store

    async def send(self, pool: PoolRef, patch: SlicePatch, header: PoolHeader | None) -> None:
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
        body["metadata"] = {
            "resourceVersion": live["metadata"]["resourceVersion"],
            "managedFields": names.UNTRACKED,
        }
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
            if patch.name in self._world.published(pool).slices or await self.restore(pool, patch.name):
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

    async def restore(self, pool: PoolRef, name: str) -> bool:
        """Put the labels back by which readers find a slice of this very pool; tells whether there is such a slice.

        The store doesn't hold what lost its label, so a slice that it doesn't know is asked for.
        """
        live = self._store.get(Key(ROUTING_SLICE.kind, pool.namespace, name))
        if live is None:
            live = await self._api.get(ROUTING_SLICE, namespace=pool.namespace, name=name)
        if live is None or not _owned(live, pool):
            return False
        metadata, wanted = live["metadata"], labels(pool, "routing")
        if metadata.get("deletionTimestamp") or wanted.items() <= (metadata.get("labels") or {}).items():
            return True
        patch = {"metadata": {"labels": wanted, **{part: metadata[part] for part in ("uid", "resourceVersion")}}}
        try:
            answer = await self._api.merge(ROUTING_SLICE, namespace=pool.namespace, name=name, patch=patch)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            await self._look_again(pool, name)
            raise ConflictError(f"RoutingSlice {name} was changed meanwhile") from error
        self._store.put(answer)
        self._world.forget_pool(pool.namespace, pool.name)
        return True

    async def restore_all(self, pool: PoolRef) -> list[OperatorError]:
        """Put back the labels of all slices that the pool has, known or not; returns what failed, since others went on.

        Slices are numbered: behind the last one that is known, one that lost its label may be, and one behind that.
        """
        # What is kept may be of before a slice lost the pool's label.
        self._world.forget_pool(pool.namespace, pool.name)
        known = set(self._world.published(pool).slices)
        failed: list[OperatorError] = []
        await self._try_to_restore(pool, names.pods_slice_name(pool.name), failed)
        for name_of in _SERIES:
            last = max((int(name.rpartition("-")[2]) for name in known if _is_of(name_of, pool, name)), default=-1)
            number = 0
            while await self._try_to_restore(pool, name_of(pool.name, number), failed) or number <= last:
                number += 1
        return failed

    async def _try_to_restore(self, pool: PoolRef, name: str, failed: list[OperatorError]) -> bool:
        try:
            return await self.restore(pool, name)
        except (ApiError, ConflictError) as error:
            failed.append(error)
            return False


def _is_of(name_of: Callable[[str, int], str], pool: PoolRef, name: str) -> bool:
    number = name.rpartition("-")[2]
    return number.isdecimal() and name == name_of(pool.name, int(number))


def _owned(thing: Manifest, pool: PoolRef) -> bool:
    owners = thing["metadata"].get("ownerReferences") or []
    return any(each.get("uid") == pool.uid for each in owners)


def _without_null(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return value
