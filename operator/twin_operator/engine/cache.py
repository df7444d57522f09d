"""What the API server holds, as last seen: fed by watch events, full lists and the answers to our own writes.

Feeds overlap and arrive out of order, so an object is replaced only by a newer resourceVersion, and one that was seen
deleted is not brought back by a late event.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.run_progress import REVIEW_KEY
from twin_operator.engine import metrics
from twin_operator.engine.resources import Key, Manifest, Resource, key_of

_TOMBSTONES = 4096
RUNS_OF_POOL: Final = "MinerPool/runs"
"""Kind under which `Cache.naming` keeps a pool's fine-tunes that have not ended."""
Listener = Callable[[Manifest | None, Manifest | None], None]
"""Called with an object's former and new version (None: absent) on every change, whoever made it."""


class Cache:
    """Objects by key, with an index from an object to those that name it. Not for use from several threads."""

    def __init__(self, listener: Listener = lambda old, new: None) -> None:
        self._listener = listener
        self._objects: dict[str, dict[Key, Manifest]] = defaultdict(dict)
        self._naming: dict[Key, set[Key]] = defaultdict(set)
        self._deleted: OrderedDict[str, int] = OrderedDict()  # UID -> resourceVersion of its end
        self.synced = False
        """Whether every watched type has been listed once; nothing may be decided before."""

    def get(self, key: Key) -> Manifest | None:
        """Return an object; it must not be changed."""
        return self._objects[key.kind].get(key)

    def of_kind(self, kind: str, *, namespace: str | None = None) -> Iterator[Manifest]:
        """Iterate over the objects of a kind, in one namespace or in all."""
        for key, thing in self._objects[kind].items():
            if namespace is None or key.namespace == namespace:
                yield thing

    def naming(self, key: Key) -> list[Manifest]:
        """Return all objects that name this one (see `named_by`), in a stable order."""
        return [self._objects[each.kind][each] for each in sorted(self._naming.get(key, ()))]

    def of_pool(self, namespace: str, pool: str) -> list[Manifest]:
        """Return all objects that carry the pool's label, in a stable order."""
        return self.naming(Key("MinerPool", namespace, pool))

    def put(self, thing: Manifest) -> bool:
        """Take a version of an object; tells whether it was news."""
        key, metadata = key_of(thing), thing["metadata"]
        version = int(metadata["resourceVersion"])
        known = self._objects[key.kind].get(key)
        if known is not None and version <= int(known["metadata"]["resourceVersion"]):
            return False
        if metadata["uid"] in self._deleted:
            return False
        if known is not None:
            self._unindex(key, known)
        trimmed = _trimmed(thing)
        self._objects[key.kind][key] = trimmed
        for named in named_by(trimmed):
            self._naming[named].add(key)
        metrics.CACHED_OBJECTS.labels(kind=key.kind).set(len(self._objects[key.kind]))
        self._listener(known, trimmed)
        return True

    def remove(self, thing: Manifest) -> bool:
        """Forget an object that was seen deleted; tells whether it was known."""
        key, metadata = key_of(thing), thing["metadata"]
        version = int(metadata["resourceVersion"])
        known = self._objects[key.kind].get(key)
        if known is not None and known["metadata"]["uid"] == metadata["uid"]:
            # A labelled watch also says DELETED when the label went away: the object lives on under a newer version.
            if version < int(known["metadata"]["resourceVersion"]):
                return False
            self._forget(key, known)
        self._bury(metadata["uid"], version)
        return known is not None

    def replace(self, resource: Resource, things: Iterable[Manifest], *, version: int, namespace: str | None) -> None:
        """Take a full list made at `version`: it finds what a broken watch lost, in particular deletions."""
        listed: set[Key] = set()
        for thing in things:
            key = key_of(thing)
            listed.add(key)
            self.put(thing)
        for key, known in list(self._objects[resource.kind].items()):
            gone = key not in listed and (namespace is None or key.namespace == namespace)
            if gone and int(known["metadata"]["resourceVersion"]) <= version:
                self._forget(key, known)

    def _forget(self, key: Key, known: Manifest) -> None:
        self._unindex(key, known)
        del self._objects[key.kind][key]
        metrics.CACHED_OBJECTS.labels(kind=key.kind).set(len(self._objects[key.kind]))
        self._listener(known, None)

    def _unindex(self, key: Key, known: Manifest) -> None:
        for named in named_by(known):
            keys = self._naming[named]
            keys.discard(key)
            if not keys:
                del self._naming[named]

    def _bury(self, uid: str, version: int) -> None:
        self._deleted[uid] = version
        while len(self._deleted) > _TOMBSTONES:
            self._deleted.popitem(last=False)


def named_by(thing: Manifest) -> list[Key]:
    """Return the objects that this one names: the owner in a child's label, the twin and the queue of a run."""
    metadata = thing["metadata"]
    namespace, labels = metadata.get("namespace", ""), metadata.get("labels") or {}
    if thing["kind"] == "FineTuneRun":
        found = [Key("DoctorTwin", namespace, thing["spec"]["twinRef"]["name"])]
        status = thing.get("status") or {}
        if (pool := status.get("pool")) is not None and "completionTime" not in status:
            found.append(Key(RUNS_OF_POOL, namespace, pool))
        return found
    found = []
    if (pool := labels.get(names.LABEL_POOL)) is not None:
        found.append(Key("MinerPool", namespace, pool))
    if (run := labels.get(names.LABEL_RUN)) is not None:
        found.append(Key("FineTuneRun", namespace, run))
    return found


def _trimmed(thing: Manifest) -> Manifest:
    """Drop what nobody here reads: most of an object's bytes."""
    metadata = {key: value for key, value in thing["metadata"].items() if key != "managedFields"}
    trimmed = {**thing, "metadata": metadata}
    if thing["kind"] == "Pod":
        trimmed.pop("spec", None)
    elif thing["kind"] == "Job" and "spec" in thing:
        # Its template is by far the largest part of a run, and never changes.
        trimmed["spec"] = {key: value for key, value in thing["spec"].items() if key != "template"}
    # A hundred kilobytes of each run, as long as the run is kept; `kubectl twin` asks the API server for it.
    elif thing["kind"] == "ConfigMap" and REVIEW_KEY in (data := thing.get("data") or {}):
        trimmed["data"] = {key: value for key, value in data.items() if key != REVIEW_KEY}
    return trimmed
