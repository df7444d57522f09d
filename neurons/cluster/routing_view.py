"""A pool's RoutingSlices merged into one view, as agents and miners use it: fed with events, never raising for any."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from bettertherapy_api import names
from bettertherapy_api.faults import first_fault
from bettertherapy_api.routing import MAX_PROMPT, PodEntry, PoolHeader, TwinEntry
from bettertherapy_api.schema import Uid
from neurons.cluster.entries import Entries, same
from neurons.cluster.object_watch import Event, Gone, Listed, Put
from neurons.cluster.turns import Steps, at_once

log = logging.getLogger(__name__)

_UID: Final[TypeAdapter[str]] = TypeAdapter(Uid)
_NOTHING: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """What one event changed; false when nothing."""

    twins: frozenset[str] = _NOTHING
    """UIDs of twins."""
    names: frozenset[str] = _NOTHING
    """Names that those twins have or had."""
    pods: frozenset[str] = _NOTHING
    """UIDs of pods."""
    prompts: frozenset[str] = _NOTHING
    """Digests of system prompts."""
    header: bool = False

    def __bool__(self) -> bool:
        return bool(self.twins or self.pods or self.prompts or self.header)


@dataclass(frozen=True, slots=True)
class _Header:
    written: int
    """The object's resourceVersion as a number, which grows with every write."""
    raw: Any
    value: PoolHeader | None


class RoutingView:
    """What the slices of one pool say together.

    A slice that is deleted takes its entries away, except the last one: a pool always has slice 0, so one without any
    is being deleted or was tampered with, and whoever serves goes on until a slice comes again.
    """

    def __init__(self, pool: str, *, refused: Callable[[], None] = lambda: None) -> None:
        self._pool = pool
        self._refused = refused
        self._headers: dict[str, _Header] = {}
        self._abandoned = False
        """No slice exists: what is here are the last ones' entries."""
        self._twins: Entries[TwinEntry] = Entries(_twin, self._refuse)
        self._pods: Entries[PodEntry] = Entries(_pod, self._refuse)
        self._prompts: Entries[str] = Entries(_prompt, self._refuse)
        self._uids: dict[str, tuple[str, ...]] = {}
        self._names: dict[str, str] = {}
        self.header: PoolHeader | None = None
        """The pool as its newest slice has it; None until one was read."""

    @property
    def twins(self) -> Mapping[str, TwinEntry]:
        """Twins by UID."""
        return self._twins.merged

    @property
    def pods(self) -> Mapping[str, PodEntry]:
        """Engine pods by UID."""
        return self._pods.merged

    @property
    def prompts(self) -> Mapping[str, str]:
        """System prompts by digest."""
        return self._prompts.merged

    def uids(self, name: str) -> tuple[str, ...]:
        """Return the UIDs of the twins of this name: two while one is replaced by another."""
        return self._uids.get(name, ())

    def take(self, event: Event) -> Change:
        """Take what a watch says."""
        return at_once(self.taking(event))

    def taking(self, event: Event) -> Steps[Change]:
        """Take what a watch says, a slice a step. Until all are taken, nothing else may be."""
        match event:
            case Listed(objects):
                return (yield from self._replacing(objects))
            case Put(thing):
                return self.put(thing)
            case Gone(thing):
                return self.delete(thing)

    def put(self, thing: Any) -> Change:
        """Take one slice as it is now."""
        return self._changed(self._put(thing))

    def delete(self, thing: Any) -> Change:
        """Take one slice away."""
        return self._changed(self._drop(_name(thing)))

    def replace(self, objects: Sequence[Any]) -> Change:
        """Take all slices that exist; entries that are in none of them go."""
        return at_once(self._replacing(objects))

    def _replacing(self, objects: Sequence[Any]) -> Steps[Change]:
        listed = {name for thing in objects if (name := _name(thing)) is not None}
        if not listed:
            self._abandon()
            return Change()
        # The newest last: where two slices have the same twin, the one that was written later counts.
        touched = []
        for thing in sorted(objects, key=_written):
            touched.append(self._put(thing))
            yield
        for name in self._headers.keys() - listed:
            touched.append(self._drop(name))
            yield
        return self._changed(*touched)

    def saved(self) -> dict[str, Any] | None:
        """Return the pool and its twins as one object that `put` takes; None while nothing is known. For any thread."""
        if self.header is None:
            return None
        return {
            "metadata": {"name": f"{self._pool}-routing-saved"},
            "pool": self.header.to_dict(),
            "twins": {uid: twin.to_dict() for uid, twin in list(self.twins.items())},
        }

    def _put(self, thing: Any) -> dict[str, set[str]]:
        name = _name(thing)
        if name is None:
            self._refuse("without a name", "", ValueError("metadata.name is missing"))
            return {}
        before = self._headers.get(name)
        raw = thing.get("pool")
        header = None if before is None else before.value
        if before is None or not same(before.raw, raw):
            try:
                header = PoolHeader.model_validate(raw)
                if header.name != self._pool:
                    self._refuse(name, "pool", ValueError(f"it is of pool {header.name}, not of {self._pool}"))
                    return {}
            except ValueError as error:
                self._refuse(name, "pool", error)
        self._headers[name] = _Header(_written(thing), raw, header)
        abandoned: list[dict[str, set[str]]] = []
        if self._abandoned:
            self._abandoned = False
            abandoned = [self._drop(old) for old in list(self._headers) if old != name]
        touched = {
            "twins": self._twins.put(name, thing.get("twins")),
            "pods": self._pods.put(name, thing.get("pods")),
            "prompts": self._prompts.put(name, thing.get("prompts")),
        }
        return _union(touched, *abandoned)

    def _drop(self, name: str | None) -> dict[str, set[str]]:
        if name is None or name not in self._headers:
            return {}
        if len(self._headers) == 1:
            self._abandon()
            return {}
        del self._headers[name]
        return {
            "twins": self._twins.put(name, None),
            "pods": self._pods.put(name, None),
            "prompts": self._prompts.put(name, None),
        }

    def _abandon(self) -> None:
        if self._headers and not self._abandoned:
            log.warning("pool %s has no RoutingSlice any more; going on with what the last ones said", self._pool)
            self._abandoned = True

    def _changed(self, *touched: dict[str, set[str]]) -> Change:
        header, self.header = self.header, self._newest_header()
        changed = _union(*touched)
        twins = changed.get("twins", set())
        return Change(
            twins=frozenset(twins),
            names=frozenset(name for uid in twins for name in self._rename(uid)),
            pods=frozenset(changed.get("pods", ())),
            prompts=frozenset(changed.get("prompts", ())),
            header=header != self.header,
        )

    def _rename(self, uid: str) -> set[str]:
        """Bring the index of names up to date with one twin; return the names it had and has."""
        before = self._names.pop(uid, None)
        if before is not None:
            rest = tuple(other for other in self._uids[before] if other != uid)
            if rest:
                self._uids[before] = rest
            else:
                del self._uids[before]
        twin = self.twins.get(uid)
        if twin is not None:
            self._names[uid] = twin.name
            self._uids[twin.name] = (*self._uids.get(twin.name, ()), uid)
        return {name for name in (before, twin.name if twin else None) if name is not None}

    def _newest_header(self) -> PoolHeader | None:
        found = [(header.written, header.value) for header in self._headers.values() if header.value is not None]
        if not found:
            return self.header
        # Slices are written one after another: the highest generation of the pool that wrote last.
        uid = max(found, key=lambda pair: pair[0])[1].uid
        return max((header for _, header in found if header.uid == uid), key=lambda header: header.generation)

    def _refuse(self, name: str, key: str, error: ValueError) -> None:
        self._refused()
        where = f"RoutingSlice {name}: {key}" if key else f"RoutingSlice {name}"
        log.error("%.300s can't be used, what was read before stays: %.300s", where, reason(error))


def reason(error: ValueError) -> str:
    """Return why something didn't parse, without what was in it: slices hold doctors' system prompts."""
    if isinstance(error, ValidationError):
        return first_fault(error)
    return "text that is not UTF-8" if isinstance(error, UnicodeError) else str(error)


def _name(thing: Any) -> str | None:
    metadata = thing.get("metadata") if isinstance(thing, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) and name else None


def _written(thing: Any) -> int:
    metadata = thing.get("metadata") if isinstance(thing, dict) else None
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if isinstance(version, str) and len(version) <= 20 and version.isascii() and version.isdigit():
        return int(version)
    return 0


def _twin(uid: str, raw: Any) -> TwinEntry:
    _UID.validate_python(uid)
    return TwinEntry.model_validate(raw)


def _pod(uid: str, raw: Any) -> PodEntry:
    _UID.validate_python(uid)
    return PodEntry.model_validate(raw)


def _prompt(digest: str, raw: Any) -> str:
    if not isinstance(raw, str) or len(raw) > MAX_PROMPT:
        raise ValueError(f"it is no text of {MAX_PROMPT} characters at most")
    if names.prompt_digest(raw) != digest:
        raise ValueError("its text has another digest")
    return raw


def _union(*parts: dict[str, set[str]]) -> dict[str, set[str]]:
    merged: dict[str, set[str]] = {}
    for part in parts:
        for kind, keys in part.items():
            merged.setdefault(kind, set()).update(keys)
    return merged
