"""What the pool's agents say they hold: their PodReports, each adapter parsed when it changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from bettertherapy_api.report import AdapterReport, AdapterState, EngineReport, PodRef
from neurons.cluster import Event, Gone, Listed, Put, Steps, at_once
from neurons.cluster.entries import same
from neurons.cluster.routing_view import reason

log = logging.getLogger(__name__)

ADAPTERS_PER_STEP: Final = 100


class _Head(BaseModel):
    """A report without its adapters."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pod: PodRef
    ready: bool
    draining: bool = False
    engine: EngineReport


@dataclass(frozen=True, slots=True)
class Held:
    """What one pod says, as far as it is asked."""

    pod: PodRef
    ready: bool
    """It may get requests."""
    adapters: Mapping[str, str]
    """Digests of the Verified ones by served name."""
    context: int | None = None
    """How many tokens prompt and answer may have together, if the engine says so."""
    base: str | None = None
    """Digest of the base model that it loaded; None where nobody measured it."""


@dataclass(frozen=True, slots=True)
class _Report:
    raw: dict[str, Any]
    adapters_raw: dict[str, Any]
    head: _Head | None
    """None as long as none was readable."""
    adapters: dict[str, str]


class ReportView:
    """All reports of one pool: fed with events, never raising for any.

    A report whose head doesn't parse leaves the last good one; an adapter that doesn't is held to be absent, since a
    state that this miner doesn't know is not Verified.
    """

    def __init__(self, *, refused: Callable[[], None] = lambda: None) -> None:
        self._refused = refused
        self._reports: dict[str, _Report] = {}

    def take(self, event: Event) -> set[str]:
        """Take what a watch says; return the names of pods of which something changed."""
        return at_once(self.taking(event))

    def taking(self, event: Event) -> Steps[set[str]]:
        """Take what a watch says, some adapters a step. Until all are taken, nothing else may be."""
        match event:
            case Listed(objects):
                return (yield from self._replace(objects))
            case Put(thing):
                return (yield from self._put(thing))
            case Gone(thing):
                name = _name(thing)
                return {name} if name is not None and self._reports.pop(name, None) is not None else set()

    def pods(self) -> Iterable[str]:
        """Return the names of the pods that report."""
        return self._reports.keys()

    def held(self, pod: str) -> Held | None:
        """Return what the pod of this name says; None when it says nothing that can be read."""
        report = self._reports.get(pod)
        if report is None or report.head is None:
            return None
        head = report.head
        ready = head.ready and not head.draining and head.engine.live
        return Held(head.pod, ready, report.adapters, head.engine.max_model_length, head.engine.base_digest)

    def _replace(self, objects: list[Any]) -> Steps[set[str]]:
        listed = {_name(thing) for thing in objects}
        changed = {name for name in self._reports if name not in listed}
        for name in changed:
            del self._reports[name]
        for thing in objects:
            changed |= yield from self._put(thing)
        return changed

    def _put(self, thing: Any) -> Steps[set[str]]:
        name = _name(thing)
        if name is None:
            self._refuse("without a name", ValueError("metadata.name is missing"))
            return set()
        last = self._reports.get(name)
        raw = {key: thing.get(key) for key in _Head.model_fields}
        adapters_raw = thing.get("adapters")
        if not isinstance(adapters_raw, dict):
            adapters_raw = {}
        head = last.head if last is not None else None
        before = last.adapters_raw if last is not None else {}
        changed = last is None or not same(last.raw, raw)
        if changed:
            head = self._head(name, raw, head)
        adapters = dict(last.adapters) if last is not None else {}
        for served_name in before.keys() - adapters_raw.keys():
            adapters.pop(served_name, None)
            changed = True
        for number, (served_name, adapter) in enumerate(adapters_raw.items(), 1):
            if number % ADAPTERS_PER_STEP == 0:
                yield
            if served_name in before and same(before[served_name], adapter):
                continue
            changed = True
            digest = self._verified(name, served_name, adapter)
            if digest is not None:
                adapters[served_name] = digest
            else:
                adapters.pop(served_name, None)
        if not changed:
            return set()
        self._reports[name] = _Report(raw, adapters_raw, head, adapters)
        yield
        return {name}

    def _head(self, name: str, raw: dict[str, Any], last: _Head | None) -> _Head | None:
        try:
            head = _Head.model_validate({key: value for key, value in raw.items() if value is not None})
            if head.pod.name != name:
                self._refuse(name, ValueError(f"it speaks of pod {head.pod.name}"))
                return last
        except ValueError as error:
            self._refuse(name, error)
            return last
        return head

    def _verified(self, name: str, served_name: str, raw: Any) -> str | None:
        try:
            report = AdapterReport.model_validate(raw)
        except ValueError as error:
            self._refuse(f"{name}, adapter {served_name}", error)
            return None
        return report.digest if report.state is AdapterState.VERIFIED else None

    def _refuse(self, name: str, error: ValueError) -> None:
        self._refused()
        log.error("%.300s can't be used: %.300s", f"PodReport {name}", reason(error))


def _name(thing: Any) -> str | None:
    metadata = thing.get("metadata") if isinstance(thing, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) and name else None
