"""What the API server holds, as last seen: each object decoded once when it is put, and found again by named indexes.

Fed by watch events, full lists and the answers to our own writes. Feeds overlap and arrive out of order, so an object
is replaced only by a newer resourceVersion, and one that was seen deleted is brought back only by a newer one: a watch
with a selector says DELETED also of an object that lost its label and lives on. A list has the last word on all that
was before it: what it did not show is brought back only by a version newer than the list.

What was decoded lives in the entry and goes with it: nothing here remembers by content.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from twin_operator.engine import metrics
from twin_operator.engine.resources import Key, Manifest, Resource, key_of

_TOMBSTONES = 4096
_VERSION = ("uid", "resourceVersion")
_EMPTY: Mapping[str, Any] = {}
_SHORT = 200
"""Characters; longer texts are seldom the same twice."""

Made = TypeVar("Made")
Decoder = Callable[[Manifest, Any], Any]
"""(object, what was decoded of its former version or None) → its plain value. Must not raise: what can't be read is a
value too, one that says so."""
IndexKeys = Callable[[Manifest, Any], Iterable[Hashable]]
"""(object, its decoded value) → under which keys of an index it is found."""


def _undecoded(thing: Manifest, former: Any) -> Any:
    return None


def _whole(thing: Manifest) -> Manifest:
    return thing


def _nothing_kept(value: Any) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Watched:
    """How one watched type is kept."""

    resource: Resource
    selector: str | None = None
    """Label selector of the watch; None: all objects of the type."""
    decode: Decoder = _undecoded
    trim: Callable[[Manifest], Manifest] = _whole
    """Returns the object without what nobody reads; called after `decode`."""
    kept: Callable[[Any], Mapping[str, Any]] = _nothing_kept
    """(decoded value) → parts of the object that were trimmed and are kept there as they came: what of them did not
    change is taken over by the next version."""
    indexes: Mapping[str, IndexKeys] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One object with what was decoded from it."""

    key: Key
    manifest: Manifest
    value: Any
    _derived: dict[Hashable, Any] | None = field(default=None, init=False, repr=False)

    def derived(self, what: Hashable, make: Callable[[], Made]) -> Made:
        """Return what follows from this version of the object alone, made when it is first asked for."""
        if self._derived is None:
            object.__setattr__(self, "_derived", {})
        derived = cast("dict[Hashable, Any]", self._derived)
        if what not in derived:
            derived[what] = make()
        return cast("Made", derived[what])


Listener = Callable[[Entry | None, Entry | None], None]
"""Called with an object's former and new entry (None: absent) on every change, whoever made it."""


class Store:
    """Objects by key. Not for use from several threads."""

    def __init__(self, watched: Iterable[Watched], listener: Listener = lambda old, new: None) -> None:
        self._watched = {each.resource.kind: each for each in watched}
        self._listener = listener
        self._objects: dict[str, dict[str, dict[str, Entry]]] = {
            kind: defaultdict(dict) for kind in self._watched
        }  # kind → namespace → name
        self._counts: dict[str, int] = dict.fromkeys(self._watched, 0)
        self._indexes: dict[str, dict[Hashable, dict[Key, Entry]]] = {
            name: {} for each in self._watched.values() for name in each.indexes
        }
        self._deleted: OrderedDict[str, int] = OrderedDict()  # UID → resourceVersion of its end
        self._listed: dict[tuple[str, str | None], int] = {}  # kind, namespace (None: all) → version of its last list
        self.synced = False
        """Whether every watched type has been listed once; nothing may be decided before."""

    @property
    def watched(self) -> Iterable[Watched]:
        """The types that are kept."""
        return self._watched.values()

    def entry(self, key: Key) -> Entry | None:
        """Return an object with its decoded value."""
        return self._objects[key.kind].get(key.namespace, {}).get(key.name)

    def get(self, key: Key) -> Manifest | None:
        """Return an object; it must not be changed."""
        found = self.entry(key)
        return found.manifest if found is not None else None

    def value(self, key: Key) -> Any:
        """Return what was decoded of an object, or None when there is none."""
        found = self.entry(key)
        return found.value if found is not None else None

    def has(self, entry: Entry) -> bool:
        """Tell whether that object, in whatever version, is still there; one of its name alone is another."""
        now = self.entry(entry.key)
        return now is not None and now.manifest["metadata"]["uid"] == entry.manifest["metadata"]["uid"]

    def of_kind(self, kind: str, *, namespace: str | None = None) -> Iterator[Entry]:
        """Iterate over the objects of a kind, in one namespace or in all; a copy is taken first."""
        if namespace is not None:
            yield from list(self._objects[kind].get(namespace, {}).values())
            return
        for things in list(self._objects[kind].values()):
            yield from list(things.values())

    def find(self, index: str, value: Hashable) -> list[Entry]:
        """Return the objects under `value` in a named index, in the order of their kinds and names."""
        found = self._indexes[index].get(value)
        return [found[key] for key in sorted(found)] if found else []

    def find_any(self, index: str, value: Hashable) -> list[Entry]:
        """Return the objects under `value` in a named index, in no particular order, without sorting them."""
        return list(self._indexes[index].get(value, {}).values())

    def values_of(self, index: str) -> list[Hashable]:
        """Return all values under which a named index holds something."""
        return list(self._indexes[index])

    def __len__(self) -> int:
        return sum(self._counts.values())

    def put(self, thing: Manifest) -> bool:
        """Take a version of an object; tells whether it was news."""
        return self._put(thing, than=self._last_list(key_of(thing)), prepare=self._prepared)

    def _last_list(self, key: Key) -> int:
        """Return the version of the last list that would have shown an object, 0 when there was none."""
        return max(self._listed.get((key.kind, namespace), 0) for namespace in (None, key.namespace))

    def _put(self, thing: Manifest, *, than: int, prepare: Callable[[Manifest], Manifest]) -> bool:
        """Take a version of an object; one that isn't known must be newer `than` this. `prepare` makes what is kept."""
        key, metadata = key_of(thing), thing["metadata"]
        version, uid = int(metadata["resourceVersion"]), metadata["uid"]
        known = self.entry(key)
        if version <= (than if known is None else int(known.manifest["metadata"]["resourceVersion"])):
            return False
        if (ended := self._deleted.get(uid)) is not None:
            if version <= ended:
                return False
            del self._deleted[uid]
        kind = self._watched[key.kind]
        same = known is not None and known.manifest["metadata"]["uid"] == uid
        thing = prepare(thing)
        value = kind.decode(thing, known.value if known is not None and same else None)
        entry = Entry(key, kind.trim(thing), value)
        if known is not None:
            self._unindex(known)
        else:
            self._counts[key.kind] += 1
            metrics.CACHED_OBJECTS.labels(kind=key.kind).set(self._counts[key.kind])
        self._objects[key.kind][key.namespace][key.name] = entry
        for name, keys in kind.indexes.items():
            for value_ in keys(entry.manifest, value):
                self._indexes[name].setdefault(value_, {})[key] = entry
        if known is not None and not same:
            # The former object of this name is gone, though its deletion was not seen.
            self._listener(known, None)
            self._listener(None, entry)
        else:
            self._listener(known, entry)
        return True

    def remove(self, thing: Manifest) -> bool:
        """Forget an object that was seen deleted; tells whether it was known."""
        key, metadata = key_of(thing), thing["metadata"]
        version = int(metadata["resourceVersion"])
        known = self.entry(key)
        if known is not None and known.manifest["metadata"]["uid"] == metadata["uid"]:
            if version < int(known.manifest["metadata"]["resourceVersion"]):
                return False  # it lost its label for a moment, and lives on under a newer version
            self._forget(known)
        self._deleted[metadata["uid"]] = version
        while len(self._deleted) > _TOMBSTONES:
            self._deleted.popitem(last=False)
        return known is not None

    def known_version(self, thing: Manifest) -> Manifest:
        """Return the object as it is kept here, if it is of this very version, and else what is to be kept of it."""
        known, metadata = self.entry(key_of(thing)), thing["metadata"]
        if known is not None and all(known.manifest["metadata"].get(name) == metadata[name] for name in _VERSION):
            return known.manifest
        return self._prepared(thing)

    def _prepared(self, thing: Manifest) -> Manifest:
        known = self.entry(key_of(thing))
        like: Mapping[str, Any] = {}
        if known is not None:
            like = {**known.manifest, **self._watched[known.key.kind].kept(known.value)}
        kept: Manifest = compact(_without_managed_fields(thing), like)
        return kept

    def put_listed(self, thing: Manifest, *, version: int) -> Key:
        """Take an object of a list made at `version`, as `known_version` returned it; returns which one it is.

        A list that comes after a newer one brings nothing back.
        """
        key = key_of(thing)
        newer = self._last_list(key)
        self._put(thing, than=newer if newer > version else 0, prepare=lambda prepared: prepared)
        return key

    def end_list(self, resource: Resource, listed: Collection[Key], *, version: int, namespace: str | None) -> None:
        """Forget what a full list made at `version` didn't show: a broken watch lost its deletion."""
        last = self._listed.get((resource.kind, namespace), 0)
        self._listed[resource.kind, namespace] = max(last, version)
        for known in self.of_kind(resource.kind, namespace=namespace):
            if known.key not in listed and int(known.manifest["metadata"]["resourceVersion"]) <= version:
                self._forget(known)

    def _forget(self, known: Entry) -> None:
        self._unindex(known)
        kind, namespace = known.key.kind, known.key.namespace
        del self._objects[kind][namespace][known.key.name]
        if not self._objects[kind][namespace]:
            del self._objects[kind][namespace]
        self._counts[kind] -= 1
        metrics.CACHED_OBJECTS.labels(kind=kind).set(self._counts[kind])
        self._listener(known, None)

    def _unindex(self, known: Entry) -> None:
        for name, keys in self._watched[known.key.kind].indexes.items():
            index = self._indexes[name]
            for value in keys(known.manifest, known.value):
                found = index.get(value)
                if found is not None:
                    found.pop(known.key, None)
                    if not found:
                        del index[value]


def compact(value: Any, like: Any = None) -> Any:
    """Return the same JSON with each text held once in memory: keys, and reasons and times that a thousand bear.

    What is equal in `like`, a former version that was made compact, is taken from there; of an object with a thousand
    parts one has changed. What is interned goes with the last that bears it.
    """
    if type(value) is str:
        return sys.intern(value) if len(value) <= _SHORT else value
    if isinstance(value, dict):
        former = like if isinstance(like, Mapping) else _EMPTY
        made = {}
        for key, item in value.items():
            # Called for each of a thousand parts at each event: hence no function for it.
            known = former.get(key)
            same = known is not None and type(known) is type(item) and known == item
            made[sys.intern(key)] = known if same else compact(item, known)
        return made
    if isinstance(value, list):
        return [compact(item) for item in value]
    return value


def _without_managed_fields(thing: Manifest) -> Manifest:
    metadata = thing["metadata"]
    if "managedFields" not in metadata:
        return thing
    return {**thing, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}
