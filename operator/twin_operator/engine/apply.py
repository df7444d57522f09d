"""Brings an owner's children to what was planned: applies what differs, deletes ours that are not wanted any more."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import orjson

from bettertherapy_api import names
from twin_operator.engine.api import Api
from twin_operator.engine.cache import Cache
from twin_operator.engine.compare import first_difference
from twin_operator.engine.resources import JOB, Key, Manifest, key_of
from twin_operator.errors import ChildConflictError

log = logging.getLogger(__name__)

PLAN_ANNOTATION: Final = f"{names.GROUP}/plan"
"""Hash of what was applied last: tells that a field was taken out of the plan, which no comparison of fields shows."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The custom resource whose children are applied."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, thing: Manifest) -> Self:
        """Return the owner that a custom resource is."""
        metadata = thing["metadata"]
        return cls(
            api_version=thing["apiVersion"], kind=thing["kind"], namespace=metadata["namespace"],
            name=metadata["name"], uid=metadata["uid"],
        )  # fmt: skip

    def reference(self) -> Manifest:
        """Return the ownerReference that makes the garbage collector remove children with their owner."""
        return {
            "apiVersion": self.api_version, "kind": self.kind, "name": self.name, "uid": self.uid,
            "controller": True, "blockOwnerDeletion": True,
        }  # fmt: skip


def stamped(manifest: Manifest, owner: Owner) -> Manifest:
    """Return the manifest as it is sent: with its owner, its namespace and the hash of the plan."""
    metadata = {**manifest["metadata"], "namespace": owner.namespace, "ownerReferences": [owner.reference()]}
    whole = {**manifest, "metadata": metadata}
    digest = hashlib.sha256(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    annotations = {**(metadata.get("annotations") or {}), PLAN_ANNOTATION: digest}
    return {**whole, "metadata": {**metadata, "annotations": annotations}}


def needs_apply(wanted: Manifest, live: Manifest | None) -> str | None:
    """Return why a stamped manifest must be applied, or None when the live object says all of it already."""
    if live is None:
        return "it does not exist"
    if wanted["kind"] == JOB.kind:
        return None  # a Job's template can't change: what it was started with is what it does
    return first_difference(wanted, live)


def owned_by(thing: Manifest, owner: Owner) -> bool:
    """Tell whether the object's controller is this owner (this very object, not an earlier one of the same name)."""
    references = thing["metadata"].get("ownerReferences") or []
    return any(reference.get("controller") and reference["uid"] == owner.uid for reference in references)


async def apply_children(api: Api, cache: Cache, *, owner: Owner, wanted: Sequence[Manifest]) -> int:
    """Apply the wanted children, then delete those not wanted any more; returns the number of writes.

    Raises ChildConflictError when an object of somebody else has a child's name, ApiError when a request fails; what
    was written before stays, and the next run goes on from there.
    """
    writes = 0
    wanted_keys: set[Key] = set()
    for manifest in wanted:
        sent = stamped(manifest, owner)
        key = key_of(sent)
        wanted_keys.add(key)
        live = cache.get(key)
        why = needs_apply(sent, live)
        if why is None:
            continue
        await _refuse_foreign(api, key, live, owner)
        cache.put(await api.apply(sent))
        writes += 1
        log.info("applied %s: %s", key, why)
    return writes + await delete_children(api, cache, owner=owner, keep=wanted_keys.__contains__)


async def delete_children(api: Api, cache: Cache, *, owner: Owner, keep: Callable[[Key], bool]) -> int:
    """Delete the owner's children but those to keep; returns the number of writes.

    Raises ApiError.
    """
    writes = 0
    for thing in cache.naming(Key(owner.kind, owner.namespace, owner.name)):
        key = key_of(thing)
        if not keep(key) and owned_by(thing, owner) and not _going(thing):
            await api.delete(
                api.resource_of(key.kind), namespace=key.namespace, name=key.name, uid=thing["metadata"]["uid"]
            )
            writes += 1
            log.info("deleted %s: not wanted any more", key)
    return writes


async def _refuse_foreign(api: Api, key: Key, live: Manifest | None, owner: Owner) -> None:
    """Server-side apply would take over any object of that name, so look first whose it is.

    Objects without our label are not in the cache: a missing one is asked for, once, before it is made.
    """
    if live is None:
        live = await api.get(api.resource_of(key.kind), namespace=key.namespace, name=key.name)
    if live is None or owned_by(live, owner):
        return
    references = live["metadata"].get("ownerReferences") or []
    controller = next((reference for reference in references if reference.get("controller")), None)
    if controller is not None and (controller["kind"], controller["name"]) == (owner.kind, owner.name):
        # Left by an earlier owner of this name: the garbage collector is about to take it away.
        whose = f"an earlier {owner.kind} {owner.name} that is being deleted"
    else:
        whose = f"{controller['kind']} {controller['name']}" if controller else "somebody else"
    raise ChildConflictError(kind=key.kind, namespace=key.namespace, name=key.name, owner=whose)


def _going(thing: Manifest) -> bool:
    return "deletionTimestamp" in thing["metadata"]
