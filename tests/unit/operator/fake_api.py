"""An API server in memory, as far as the operator asks one; tests/api/test_fake_api.py holds it against a real one."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from bettertherapy_api import names
from twin_operator.engine.resources import Key, Manifest, Resource
from twin_operator.errors import ApiError
from twin_operator.kinds.resources import BY_KIND

_BEGUN: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Written:
    """One write that was done."""

    verb: str
    key: Key
    body: Manifest


@dataclass
class FakeApi:
    """Objects by key. `refuse` may raise for a write; `listeners` get every change as a watch tells it."""

    objects: dict[Key, Manifest] = field(default_factory=dict)
    writes: list[Written] = field(default_factory=list)
    refuse: Callable[[str, Key, Manifest], None] = lambda verb, key, body: None
    listeners: list[Callable[[str, Manifest], None]] = field(default_factory=list)
    guard: Callable[[], float] = lambda: math.inf
    _versions: Any = field(default_factory=lambda: itertools.count(1000))
    _applied: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    """(UID, field manager) → what it applied last: what it does not say again is taken away."""

    def guarded_by(self, guard: Callable[[], float]) -> Self:
        """The guard isn't asked here: leadership has tests of its own."""
        return self

    def resource_of(self, kind: str) -> Resource:
        return BY_KIND[kind]

    async def close(self) -> None:
        return None

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Manifest | None:
        found = copy.deepcopy(self.objects.get(Key(resource.kind, namespace, name)))
        if found is not None and "status" in found:
            # All of a status was written by some release of the operator.
            owned = {f"f:{part}": {} for part in found["status"]}
            found["metadata"]["managedFields"] = [{
                "manager": names.FIELD_MANAGER, "operation": "Apply", "subresource": "status",
                "fieldsV1": {"f:status": owned},
            }]  # fmt: skip
        return found

    async def list(
        self, resource: Resource, *, namespace: str | None, selector: str | None = None,
        keep: Callable[[Manifest], Manifest] = lambda thing: thing,
    ) -> tuple[list[Manifest], int]:  # fmt: skip
        found = [
            keep(copy.deepcopy(thing))
            for key, thing in sorted(self.objects.items())
            if key.kind == resource.kind
            and (namespace is None or key.namespace == namespace)
            and _selected(thing, selector)
        ]
        return found, next(self._versions)

    async def create(self, manifest: Manifest) -> Manifest:
        key = _key(manifest)
        self.refuse("create", key, manifest)
        if key in self.objects:
            raise ApiError(status=409, reason="AlreadyExists", message=f"{key} exists")
        return self._store("create", key, manifest, None)

    async def would_create(self, manifest: Manifest) -> bool:
        return _key(manifest) not in self.objects

    async def merge(self, resource: Resource, *, namespace: str, name: str, patch: Manifest, **_: Any) -> Manifest:
        key = Key(resource.kind, namespace, name)
        self.refuse("patch", key, patch)
        live = self._live(key, patch)
        whole = merged(live, patch)
        whole["metadata"].pop("managedFields", None)  # names.UNTRACKED: a real one keeps none from then on
        return self._store("patch", key, whole, live, said=patch)

    async def apply(
        self, manifest: Manifest, *, subresource: str | None = None, manager: str = names.FIELD_MANAGER
    ) -> Manifest:
        key = _key(manifest)
        self.refuse("apply", key, manifest)
        if key not in self.objects and subresource is None and "resourceVersion" not in manifest["metadata"]:
            made = self._store("apply", key, manifest, None)
            self._applied[made["metadata"]["uid"], manager] = copy.deepcopy(manifest)
            return made
        # A real API server doesn't look at the UID in a status: the object's own metadata stays.
        live = self._live(key, manifest, looked_at=("resourceVersion",) if subresource else ("resourceVersion", "uid"))
        whole = live
        if subresource is None:
            former = self._applied.get((live["metadata"]["uid"], manager), {})
            whole = merged(_without(live, former, manifest), manifest)
            self._applied[live["metadata"]["uid"], manager] = copy.deepcopy(manifest)
        if subresource == "status":
            status = manifest["status"]
            if manager != names.FIELD_MANAGER:  # who states some conditions only
                said = {each["type"] for each in status["conditions"]}
                before = live.get("status") or {}
                others = [each for each in before.get("conditions") or [] if each["type"] not in said]
                status = {**before, "conditions": [*others, *status["conditions"]]}
            whole = {**live, "status": status}
        return self._store("apply", key, whole, live, said=manifest)

    async def delete(
        self, resource: Resource, *, namespace: str, name: str, uid: str, version: str | None = None
    ) -> None:
        key = Key(resource.kind, namespace, name)
        self.refuse("delete", key, {})
        live = self.objects.get(key)
        if live is None or live["metadata"]["uid"] != uid:
            return
        if version is not None and live["metadata"]["resourceVersion"] != version:
            raise ApiError(status=409, reason="Conflict", message=f"{key} changed")
        self.writes.append(Written("delete", key, {}))
        self.drop(key)

    # --- what others do: users, agents, kubelets, the garbage collector

    def put(self, manifest: Manifest) -> Manifest:
        """Write as somebody else."""
        key = _key(manifest)
        live = self.objects.get(key)
        return self._store("", key, merged(live, manifest) if live else manifest, live)

    def put_spec(self, key: Key, spec: Manifest) -> Manifest:
        """Replace the spec of an object as `kubectl replace` does."""
        live = self.objects[key]
        return self._store("", key, {**live, "spec": spec}, live)

    def drop(self, key: Key) -> None:
        """Delete an object and what it owns."""
        gone = copy.deepcopy(self.objects.pop(key))
        gone["metadata"]["resourceVersion"] = str(next(self._versions))
        self._tell("DELETED", gone)
        for other in [each for each, thing in self.objects.items() if _owned(thing, gone["metadata"]["uid"])]:
            self.drop(other)

    def kinds(self, kind: str) -> dict[str, Manifest]:
        """Return the objects of a kind by name."""
        return {key.name: thing for key, thing in self.objects.items() if key.kind == kind}

    def _tell(self, event: str, thing: Manifest) -> None:
        for listener in self.listeners:
            listener(event, copy.deepcopy(thing))

    def _live(self, key: Key, body: Manifest, *, looked_at: tuple[str, ...] = ("resourceVersion", "uid")) -> Manifest:
        live = self.objects.get(key)
        said = body.get("metadata") or {}
        if live is None and "uid" in said:
            raise ApiError(status=409, reason="Conflict", message=f"{key} of this UID is not there")
        if live is None:
            raise ApiError(status=404, reason="NotFound", message=f"{key} is not there")
        for name in looked_at:
            if name in said and said[name] != live["metadata"][name]:
                raise ApiError(status=409, reason="Conflict", message=f"{key}: {name} is another")
        return live

    def _store(
        self, verb: str, key: Key, whole: Manifest, live: Manifest | None, *, said: Manifest | None = None
    ) -> Manifest:
        thing = copy.deepcopy(whole)
        metadata = thing["metadata"]
        if live is not None and _content(live) == _content(thing):
            return copy.deepcopy(live)  # a write that changes nothing is none
        metadata["resourceVersion"] = str(next(self._versions))
        metadata["uid"] = (
            live["metadata"]["uid"]
            if live is not None
            else metadata.get("uid") or f"uid-{key.name}-{metadata['resourceVersion']}"
        )
        before = live["metadata"].get("generation", 0) if live is not None else 0
        metadata["generation"] = before + (live is None or live.get("spec") != thing.get("spec"))
        made = _BEGUN + timedelta(seconds=int(metadata["resourceVersion"]))  # later ones are never older
        metadata.setdefault("creationTimestamp", made.strftime("%Y-%m-%dT%H:%M:%SZ"))
        if key.kind != "Event":
            self.objects[key] = thing
        if verb:
            self.writes.append(Written(verb, key, copy.deepcopy(said or whole)))
        self._tell("MODIFIED" if live is not None else "ADDED", thing)
        return copy.deepcopy(thing)


def merged(target: Any, patch: Any) -> Any:
    """Return the JSON merge patch's result (RFC 7386)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _without(live: Manifest, former: Manifest, now: Manifest) -> Manifest:
    """Return the live object without the fields that `former` states and `now` does not; lists count as values."""
    left = dict(live)
    for name, value in former.items():
        if name in now and not isinstance(now[name], dict):
            continue
        if isinstance(value, dict) and isinstance(left.get(name), dict):
            left[name] = _without(left[name], value, now.get(name, {}))
            if not left[name] and name not in now:
                del left[name]
        elif name not in now:
            left.pop(name, None)
    return left


def _content(thing: Manifest) -> Manifest:
    metadata = {k: v for k, v in thing["metadata"].items() if k not in ("resourceVersion", "generation")}
    return {**thing, "metadata": metadata}


def _key(manifest: Manifest) -> Key:
    return Key(manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"])


def _selected(thing: Manifest, selector: str | None) -> bool:
    if selector is None:
        return True
    name, _, value = selector.partition("=")
    labels = thing["metadata"].get("labels") or {}
    return labels.get(name) == value if value else name in labels


def _owned(thing: Manifest, uid: str) -> bool:
    return any(each["uid"] == uid for each in thing["metadata"].get("ownerReferences") or [])
