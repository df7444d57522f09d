"""What the miner knows: the pool's routing table and its pods' reports, parsed once per change.

`Tables` holds the present `Snapshot` and replaces it as a whole; a snapshot never changes, apart from what each `Pod`
counts. A document that doesn't parse is logged and counted, and the last good one stays in use.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError
from yarl import URL

from bettertherapy_api import names
from bettertherapy_api.configmaps import PodReport, RoutingTable, Twin
from bettertherapy_api.report import AdapterState
from neurons.miner.metrics import Metrics
from neurons.miner.rewrite import ModelName

log = logging.getLogger(__name__)

FORGET_SECONDS: Final = 900.0
"""Metrics of a version that left the table stay this long, so that the last values are scraped."""


@dataclass(slots=True, eq=False)
class Pod:
    """One engine pod's agent; the same object as long as the pod lives, so what it counts survives new tables."""

    name: str
    uid: str
    url: URL
    """Where chat requests go."""
    in_flight: int = 0
    """Requests that this miner has there now."""
    failures: int = 0
    suspect_until: float = 0.0
    """time.monotonic() before which other pods are preferred, because this one didn't answer."""

    def failed(self, now: float) -> None:
        """Prefer other pods for a while: 1 s, then 2, 4, 8 and at most 15."""
        self.suspect_until = now + min(15.0, 2.0 ** min(self.failures, 4))
        self.failures += 1

    def answered(self) -> None:
        """Trust the pod again."""
        self.failures = 0
        self.suspect_until = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class VersionRoute:
    """One version of one twin, ready to be sent."""

    twin: str
    served_name: str
    digest: str | None
    """None for the base model itself."""
    weight: int
    """Percent."""
    model: ModelName


@dataclass(frozen=True, slots=True, eq=False)
class TwinRoute:
    """One twin."""

    name: str
    doctor: str | None
    system_message: dict[str, str] | None
    versions: tuple[VersionRoute, ...]
    active: tuple[VersionRoute, ...]
    """Those with a weight above 0."""
    first_seen: int
    """Unix seconds when this miner first saw the twin."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All tables at one moment."""

    number: int
    """Grows with each change."""
    twins: Mapping[str, TwinRoute]
    ready_pods: tuple[Pod, ...]
    holders: Mapping[tuple[str, str], tuple[Pod, ...]]
    """Ready pods by verified (served name, digest)."""
    _orders: dict[tuple[str, str], tuple[Pod, ...]] = field(default_factory=dict)

    def pods_for(self, version: VersionRoute) -> tuple[Pod, ...]:
        """Return the ready pods that hold the version, the twin's preferred one first.

        The order is a rendezvous hash of twin and pod: all versions of a twin prefer the same pods, and a pod that
        comes or goes moves only the twins that preferred it.
        """
        key = (version.twin, version.served_name)
        order = self._orders.get(key)
        if order is None:
            if version.digest is None:
                pods = self.ready_pods
            else:
                pods = self.holders.get((version.served_name, version.digest), ())
            order = self._orders[key] = tuple(sorted(pods, key=lambda pod: _affinity(version.twin, pod.name)))
        return order

    def can_answer(self, twin: TwinRoute) -> bool:
        """Tell whether some version with a weight is held by a ready pod."""
        return any(self.pods_for(version) for version in twin.active)


def _affinity(twin: str, pod: str) -> bytes:
    return hashlib.blake2b(f"{twin}\0{pod}".encode(), digest_size=8).digest()


class Tables:
    """The present snapshot, and a way to wait for the next."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._routing_text: str | None = None
        self._routing: RoutingTable | None = None
        self._twins: dict[str, TwinRoute] = {}
        self._report_texts: dict[str, str] = {}
        self._reports: dict[str, PodReport] = {}
        self._reports_known = False
        self._pods: dict[tuple[str, str], Pod] = {}
        self._first_seen: dict[str, int] = {}
        self._leaving: dict[tuple[str, str], float] = {}
        self._changed = asyncio.Event()
        self.snapshot = Snapshot(number=0, twins={}, ready_pods=(), holders={})

    @property
    def known(self) -> bool:
        """Whether both tables have been read once."""
        return self._routing is not None and self._reports_known

    def set_routing(self, data: Mapping[str, str]) -> None:
        """Take the routing ConfigMap's data."""
        text = data.get(names.ROUTING_KEY)
        if text == self._routing_text and text is not None:
            return
        try:
            if text is None:
                raise ValueError(f"it has no key {names.ROUTING_KEY}")  # noqa: TRY301
            routing = RoutingTable.model_validate_json(text)
        except ValueError as error:
            self._bad("routing", "routing table", error)
            return
        self._routing_text, self._routing = text, routing
        self._first_seen = {name: self._first_seen.get(name) or int(time.time()) for name in routing.twins}
        self._twins = {name: _route(name, twin, self._first_seen[name]) for name, twin in routing.twins.items()}
        self._metrics.table_generation.set(routing.generation)
        log.info(
            "routing table", extra={"pool": routing.pool, "generation": routing.generation, "twins": len(routing.twins)}
        )
        self._rebuild()

    def set_reports(self, data: Mapping[str, str]) -> None:
        """Take the report ConfigMap's data: one report per pod. A bad report leaves that pod's last good one."""
        reports: dict[str, PodReport] = {}
        for key, text in data.items():
            last = self._reports.get(key)
            if last is not None and self._report_texts.get(key) == text:
                reports[key] = last
                continue
            try:
                report = PodReport.model_validate_json(text)
                _url(report.address)
            except ValueError as error:
                self._bad("report", f"report of pod {key}", error)
                if last is not None:
                    reports[key] = last
                continue
            reports[key] = report
        self._reports, self._report_texts = reports, dict(data)
        self._reports_known = True
        self._rebuild()

    async def wait(self, number: int, seconds: float) -> bool:
        """Wait until the snapshot is newer than `number`, at most `seconds`; tell whether it is."""
        deadline = time.monotonic() + seconds
        while self.snapshot.number <= number:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            changed = self._changed
            try:
                async with asyncio.timeout(left):
                    await changed.wait()
            except TimeoutError:
                return False
        return True

    def _bad(self, table: str, what: str, error: ValueError) -> None:
        self._metrics.table_errors.labels(table).inc()
        reason: Any = error
        if isinstance(error, ValidationError):
            # Without the input: a routing table holds doctors' system prompts.
            reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        log.error("%s can't be used, keeping the last good one: %s", what, reason)

    def _rebuild(self) -> None:
        pods: dict[tuple[str, str], Pod] = {}
        ready: list[Pod] = []
        holders: dict[tuple[str, str], list[Pod]] = {}
        for report in self._reports.values():
            url = _url(report.address)
            pod = self._pods.get((report.pod, report.uid))
            if pod is None or pod.url != url:
                pod = Pod(name=report.pod, uid=report.uid, url=url)
            pods[report.pod, report.uid] = pod
            if not report.ready or report.draining or not report.engine.live:
                continue
            ready.append(pod)
            for served_name, adapter in report.adapters.items():
                if adapter.state is AdapterState.VERIFIED:
                    holders.setdefault((served_name, adapter.digest), []).append(pod)
        self._pods = pods
        self._metrics.pods_ready.set(len(ready))
        self._forget_old_versions()
        self.snapshot = Snapshot(
            number=self.snapshot.number + 1,
            twins=self._twins,
            ready_pods=tuple(ready),
            holders={key: tuple(value) for key, value in holders.items()},
        )
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _forget_old_versions(self) -> None:
        now = time.monotonic()
        present = {(twin.name, version.served_name) for twin in self._twins.values() for version in twin.versions}
        present |= {(twin, "") for twin in self._twins}
        leaving = {key: self._leaving.get(key, now) for key in self._metrics.known() - present}
        for key, since in list(leaving.items()):
            if now - since > FORGET_SECONDS:
                self._metrics.forget(*key)
                del leaving[key]
        self._leaving = leaving


def _url(address: str) -> URL:
    url = URL(f"http://{address}/v1/chat/completions")
    if not url.host or url.explicit_port is None:
        raise ValueError(f"address {address!r} is not ip:port")
    return url


def _route(name: str, twin: Twin, first_seen: int) -> TwinRoute:
    versions = tuple(
        VersionRoute(
            twin=name,
            served_name=version.served_name,
            digest=version.digest,
            weight=version.weight_percent,
            model=ModelName(twin=name, served_name=version.served_name, digest=version.digest),
        )
        for version in twin.versions
    )
    return TwinRoute(
        name=name,
        doctor=twin.doctor,
        system_message={"role": "system", "content": twin.system_prompt} if twin.system_prompt else None,
        versions=versions,
        active=tuple(version for version in versions if version.weight > 0),
        first_seen=first_seen,
    )
