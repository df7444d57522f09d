"""Brings an owner's children to what was planned: applies what differs, deletes ours that are not wanted any more.

Each child by itself: one that the API server refuses, or whose name an object of somebody else has, holds back nothing
else. A write says which version of the object it was decided on, so that one which comes late is refused instead of
undoing a newer one; a conflict costs a look at the API server and another comparison, no failure. Fields that others
set (replicas by an autoscaler) are not stated, so they are not fought over.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self, TypeVar

import orjson

from bettertherapy_api import names
from twin_operator.engine.api import Api
from twin_operator.engine.compare import Difference, differences, first_difference
from twin_operator.engine.resources import JOB, Key, Manifest, Resource, key_of
from twin_operator.errors import ApiError, ApplyError, ChildConflictError, ConflictError

log = logging.getLogger(__name__)

PLAN_ANNOTATION: Final = f"{names.GROUP}/plan"
"""Hash of what was applied last: tells that a field was taken out of the plan, which no comparison of fields shows."""
_ATTEMPTS: Final = 6
"""How often a child is looked at anew that changes while it is written."""
_REMEMBERED: Final = 4096
Value = TypeVar("Value")


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
    return controlled_by(thing, owner.uid)


def controlled_by(thing: Manifest, uid: str) -> bool:
    """Tell whether the object's controller has this UID."""
    references = thing["metadata"].get("ownerReferences") or []
    return any(reference.get("controller") and reference.get("uid") == uid for reference in references)


def reported_by(thing: Manifest, uid: str, *, kind: Resource) -> bool:
    """Tell whether an object that reports of something is controlled by it, and says so by its true kind.

    A UID is no secret: who may write any ConfigMap could name it under another kind, which the admission policies that
    guard reports don't look at.
    """
    references = thing["metadata"].get("ownerReferences") or []
    return any(
        reference.get("controller")
        and reference.get("uid") == uid
        and reference.get("kind") == kind.kind
        and str(reference.get("apiVersion")).startswith(f"{kind.group}/")
        for reference in references
    )


class Known(Protocol):
    """What was seen of the API server, as far as children are concerned."""

    def get(self, key: Key, /) -> Manifest | None:
        """Return an object as last seen."""

    def put(self, thing: Manifest, /) -> bool:
        """Take a newer version of an object."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A child that the API server, or somebody else's object of its name, doesn't let be."""

    key: Key
    error: ApiError | ChildConflictError

    @property
    def foreign(self) -> bool:
        """Whether an object of somebody else is in the way."""
        return isinstance(self.error, ChildConflictError)

    @property
    def message(self) -> str:
        """What is wrong, in a sentence for a condition."""
        if isinstance(self.error, ChildConflictError):
            return str(self.error)
        return f"the API server refuses {self.key.kind} {self.key.name}: {self.error.message}"


@dataclass(frozen=True, kw_only=True)
class ApplyOutcome:
    """What became of the children. A refusal or a failure of one holds back no other."""

    writes: int = 0
    refusals: tuple[Refusal, ...] = ()
    """A person must do something; tried again later all the same."""
    failures: tuple[tuple[Key, ApiError], ...] = ()
    """To be tried again later: the API server could not be reached, or was too busy."""
    conflicts: tuple[Key, ...] = ()
    """Changed by somebody while we looked, more than once."""
    namespace_ends: bool = False
    """The namespace is being deleted: nothing more is made, and nobody needs to be told."""

    @property
    def complete(self) -> bool:
        """Whether all is as planned."""
        return not (self.refusals or self.failures or self.conflicts)

    def raise_incomplete(self) -> None:
        """Raise ApplyError (tried again with a growing delay) unless all is as planned."""
        if self.complete:
            return
        told = [
            *(refusal.message for refusal in self.refusals),
            *(f"{key}: {error}" for key, error in self.failures),
            *(f"{key} is being changed by others" for key in self.conflicts),
        ]
        raise ApplyError("; ".join(told))


class Applier:
    """Writes children; remembers in which words the API server keeps what was applied."""

    def __init__(self, api: Api, store: Known) -> None:
        self._api = api
        self._store = store
        self._kept: OrderedDict[str, tuple[str, list[Difference]]] = OrderedDict()  # UID → (plan, what stays)
        self._same: OrderedDict[str, tuple[str, str]] = OrderedDict()  # UID → (plan, version that says all of it)

    async def apply(
        self, *, owner: Owner, wanted: Sequence[Manifest], existing: Iterable[Manifest],
        keep: Callable[[Key], bool] = lambda key: False,
    ) -> ApplyOutcome:  # fmt: skip
        """Apply the wanted children, then delete the owner's others among `existing` unless `keep` says so.

        Raises NotLeaderError. Whatever else goes wrong is in the outcome, and what comes after it is done all the same.
        """
        outcome = _Collected()
        for manifest in wanted:
            sent = stamped(manifest, owner)
            await self._attempt(outcome, key_of(sent), self._apply_child(sent, owner))
            if outcome.namespace_ends:
                return outcome.result()
        wanted_keys = {Key(each["kind"], owner.namespace, each["metadata"]["name"]) for each in wanted}
        await self._delete(outcome, owner, existing, lambda key: key in wanted_keys or keep(key))
        return outcome.result()

    async def delete(
        self, *, owner: Owner, existing: Iterable[Manifest], keep: Callable[[Key], bool] = lambda key: False
    ) -> ApplyOutcome:
        """Delete those of `existing` that the owner controls, but those to keep. Raises NotLeaderError."""
        outcome = _Collected()
        await self._delete(outcome, owner, existing, keep)
        return outcome.result()

    async def _delete(
        self, outcome: _Collected, owner: Owner, existing: Iterable[Manifest], keep: Callable[[Key], bool]
    ) -> None:
        for thing in list(existing):
            key = key_of(thing)
            if not keep(key) and owned_by(thing, owner) and not _going(thing):
                await self._attempt(outcome, key, self._delete_child(thing, owner))

    async def _attempt(self, outcome: _Collected, key: Key, attempt: Coroutine[Any, Any, bool]) -> None:
        if outcome.unreachable:
            attempt.close()  # each further one would wait as long for no answer
            return
        try:
            outcome.writes += await attempt
        except ChildConflictError as error:
            outcome.refusals.append(Refusal(key=key, error=error))
        except ConflictError:
            outcome.conflicts.append(key)
        except ApiError as error:
            if error.namespace_ends:
                log.info("%s is not made: its namespace is being deleted", key)
                outcome.namespace_ends = True
            elif error.refused:
                outcome.refusals.append(Refusal(key=key, error=error))
            else:
                outcome.failures.append((key, error))
                outcome.unreachable = outcome.unreachable or error.status == 0

    async def _apply_child(self, sent: Manifest, owner: Owner) -> bool:
        """Apply one child, if need be; tells whether that took a write."""
        key = key_of(sent)
        live = self._store.get(key)
        for attempt in range(_ATTEMPTS):
            why = self._needs_apply(sent, live)
            if why is None or (live is not None and self._stays(sent, live)):
                return False
            if live is None or attempt > 0:
                # Server-side apply takes over any object of that name, and objects without our label are not watched.
                live = await self._look(key)
            if live is not None:
                _refuse_foreign(key, live, owner)
                if needs_apply(sent, live) is None:
                    self._store.put(live)
                    return False
            try:
                answer = await self._api.apply(_on(sent, live))
            except ApiError as error:
                if error.status != 409:
                    raise
                continue  # changed since it was seen, or made by somebody this moment
            self._store.put(answer)
            self._remember(sent, answer)
            log.info("applied %s: %s", key, why)
            return True
        raise ConflictError(str(key))

    async def _delete_child(self, thing: Manifest, owner: Owner) -> bool:
        key = key_of(thing)
        resource = self._api.resource_of(key.kind)
        for _ in range(_ATTEMPTS):
            metadata = thing["metadata"]
            try:
                await self._api.delete(
                    resource, namespace=key.namespace, name=key.name, uid=metadata["uid"],
                    version=metadata["resourceVersion"],
                )  # fmt: skip
            except ApiError as error:
                if error.status != 409:
                    raise
                fresh = await self._look(key)
                if fresh is None or not owned_by(fresh, owner) or _going(fresh):
                    return False
                thing = fresh
                continue
            log.info("deleted %s: not wanted any more", key)
            return True
        raise ConflictError(str(key))

    async def _look(self, key: Key) -> Manifest | None:
        """Ask the API server for one object."""
        return await self._api.get(self._api.resource_of(key.kind), namespace=key.namespace, name=key.name)

    def _needs_apply(self, sent: Manifest, live: Manifest | None) -> str | None:
        """Compare as `needs_apply` does, but not the same plan with the same version of an object twice."""
        if live is None:
            return needs_apply(sent, live)
        metadata = live["metadata"]
        compared = (_plan_of(sent), metadata["resourceVersion"])
        if self._same.get(metadata["uid"]) == compared:
            return None
        why = needs_apply(sent, live)
        if why is None:
            _keep(self._same, metadata["uid"], compared)
        return why

    def _stays(self, sent: Manifest, live: Manifest) -> bool:
        """Tell whether the object differs in nothing but what the API server keeps otherwise."""
        plan, kept = self._kept.get(live["metadata"]["uid"], ("", []))
        return plan == _plan_of(sent) and all(each in kept for each in differences(sent, live))

    def _remember(self, sent: Manifest, answer: Manifest) -> None:
        """Keep in mind all that the API server says otherwise than we do, right after it took what we said.

        An admission webhook that rewrites an image, or a default that we don't know, would be fought with for ever.
        """
        uid, kept = answer["metadata"]["uid"], list(differences(sent, answer))
        self._kept.pop(uid, None)
        if not kept:
            return
        _keep(self._kept, uid, (_plan_of(sent), kept))
        told = "; ".join(map(str, kept))
        log.warning("the API server keeps %s otherwise than it was applied: %s", key_of(sent), told)


def _keep(memory: OrderedDict[str, Value], uid: str, value: Value) -> None:
    """Note something of an object; of more than can be kept, what was noted longest ago goes."""
    memory[uid] = value
    memory.move_to_end(uid)
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)


@dataclass(kw_only=True)
class _Collected:
    writes: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    failures: list[tuple[Key, ApiError]] = field(default_factory=list)
    conflicts: list[Key] = field(default_factory=list)
    namespace_ends: bool = False
    unreachable: bool = False

    def result(self) -> ApplyOutcome:
        return ApplyOutcome(
            writes=self.writes, refusals=tuple(self.refusals), failures=tuple(self.failures),
            conflicts=tuple(self.conflicts), namespace_ends=self.namespace_ends,
        )  # fmt: skip


def _on(sent: Manifest, live: Manifest | None) -> Manifest:
    """Return the manifest as a change of exactly the object that was looked at.

    Its resourceVersion makes the API server refuse what was decided on an older one: a former leader's late write.
    """
    if live is None:
        return sent
    seen = {part: live["metadata"][part] for part in ("uid", "resourceVersion")}
    return {**sent, "metadata": {**sent["metadata"], **seen}}


def _plan_of(sent: Manifest) -> str:
    return str(sent["metadata"]["annotations"][PLAN_ANNOTATION])


def _refuse_foreign(key: Key, live: Manifest, owner: Owner) -> None:
    if owned_by(live, owner):
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
