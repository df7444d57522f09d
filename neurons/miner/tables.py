"""What the miner knows: the pool's routing and its pods' reports, made into routes, anew only where they changed.

`Tables` holds the present `Snapshot` and replaces it as a whole; a snapshot never changes, apart from what each `Pod`
counts. What doesn't parse is logged and counted, and the last good entry stays in use.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from bettertherapy_api.routing import TwinEntry
from neurons.cluster import Change, Event, Listed, RoutingView, Steps, at_once, in_turns
from neurons.miner.metrics import Metrics
from neurons.miner.reports import ReportView
from neurons.miner.rewrite import ModelName

log = logging.getLogger(__name__)

FORGET_SECONDS: Final = 900.0
"""Metrics of a version that left the routing stay this long, so that the last values are scraped."""
_FORGET_LOOK_SECONDS: Final = 5.0
_ROUTES_PER_STEP: Final = 100


@dataclass(slots=True, eq=False, weakref_slot=True)
class Pod:
    """One engine pod's agent; the same object as long as the pod lives, so what it counts survives new tables."""

    name: str
    uid: str
    url: URL
    """Where chat requests go."""
    context: int | None = None
    """How many tokens prompt and answer may have together there, if its engine says so."""
    base: str | None = None
    """Digest of the base model that its engine loaded, as it was hashed for it; None where nobody did."""
    most: int | None = None
    """Requests that its engine runs at once; None where nobody says."""
    in_flight: int = 0
    """Requests that this miner has there now, of several answers each of them."""
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
    on_demand: bool = False
    """A pod loads it when it is asked for."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a twin isn't answered, whatever the pods hold."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class TwinRoute:
    """One twin."""

    name: str
    uid: str
    """The DoctorTwin's; empty while two have this name."""
    doctor: str | None
    system_message: dict[str, str] | None
    versions: tuple[VersionRoute, ...]
    active: tuple[VersionRoute, ...]
    """Those with a weight above 0; none while there is an obstacle."""
    first_seen: int
    """Unix seconds when this miner first saw the twin."""
    obstacle: Obstacle | None = None
    """Set when `active` is empty."""
    pods: tuple[str, ...] = ()
    """UIDs of the pods that the operator would have it use, the first one first."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All tables at one moment."""

    number: int
    """Grows with each change."""
    twins: Mapping[str, TwinRoute]
    ready_pods: tuple[Pod, ...]
    holders: Mapping[tuple[str, str], tuple[Pod, ...]]
    """Ready pods by verified (served name, digest)."""
    _orders: dict[tuple[str, str], tuple[tuple[Pod, ...], tuple[Pod, ...]]] = field(default_factory=dict)
    """By twin and served name: the pods, and their order. Shared by snapshots: it holds as long as the pods do."""

    def pods_for(self, version: VersionRoute) -> tuple[Pod, ...]:
        """Return the ready pods that hold the version, the twin's preferred one first; of a version that is loaded on
        demand and that none holds, those that may be asked to load it.

        Those come first that the operator placed it on. The others' order is a rendezvous hash of twin and pod: all
        versions of a twin prefer the same pods, and a pod that comes or goes moves only the twins that preferred it.
        """
        key = (version.twin, version.served_name)
        if version.digest is None:
            pods = self.ready_pods
        else:
            pods = self.holders.get((version.served_name, version.digest), ())
            if not pods and version.on_demand:
                return self._to_load(version)
        known = self._orders.get(key)
        if known is None or known[0] is not pods:
            twin = self.twins.get(version.twin)
            placed = {uid: at for at, uid in enumerate(twin.pods)} if twin is not None else {}
            order = tuple(
                sorted(pods, key=lambda pod: (placed.get(pod.uid, len(placed)), _affinity(version.twin, pod.name)))
            )
            known = self._orders[key] = (pods, order)
        return known[1]

    def holding(self, version: VersionRoute) -> int:
        """Return how many ready pods hold the version now."""
        if version.digest is None:
            return len(self.ready_pods)
        return len(self.holders.get((version.served_name, version.digest), ()))

    def _to_load(self, version: VersionRoute) -> tuple[Pod, ...]:
        """Return the ready pods that the twin is placed on, or, where none of those is ready, all."""
        twin = self.twins.get(version.twin)
        ready = {pod.uid: pod for pod in self.ready_pods}
        placed = tuple(ready[uid] for uid in (twin.pods if twin is not None else ()) if uid in ready)
        return placed or tuple(sorted(self.ready_pods, key=lambda pod: _affinity(version.twin, pod.name)))

    def can_answer(self, twin: TwinRoute) -> bool:
        """Tell whether a ready pod holds some version with a weight, or would load it."""
        return any(self.pods_for(version) for version in twin.active)


def _affinity(twin: str, pod: str) -> bytes:
    return hashlib.blake2b(f"{twin}\0{pod}".encode(), digest_size=8).digest()


class Tables:
    """The present snapshot, and a way to wait for the next."""

    def __init__(self, metrics: Metrics, *, pool: str) -> None:
        self._metrics = metrics
        self._view = RoutingView(pool, refused=metrics.table_errors.labels("routing").inc)
        self._reports = ReportView(refused=metrics.table_errors.labels("report").inc)
        self._routing_known = self._reports_known = False
        self._hearing = asyncio.Lock()
        self._twins: dict[str, TwinRoute] = {}
        self._first_seen: dict[str, int] = {}
        self._orders: dict[tuple[str, str], tuple[tuple[Pod, ...], tuple[Pod, ...]]] = {}
        self._most: int | None = None
        """What each engine runs at once."""
        self._pods: dict[str, Pod] = {}
        """By UID, those that the operator names and that report."""
        self._offers: dict[str, _Offer] = {}
        """What each reporting pod contributes to the present snapshot, by its name."""
        self._holders: dict[tuple[str, str], tuple[Pod, ...]] = {}
        self._leaving: dict[tuple[str, str], float] = {}
        self._forgot_at = 0.0
        self._changed = asyncio.Event()
        self.snapshot = Snapshot(number=0, twins={}, ready_pods=(), holders={})

    @property
    def known(self) -> bool:
        """Whether the routing and the reports have been read once."""
        return self._routing_known and self._reports_known

    @property
    def base(self) -> dict[str, str | None]:
        """The pool's base model as announcements name it. Its digest: what all ready pods measured; None where
        one measured none, or they differ.
        """
        header = self._view.header
        model = header.base_model if header is not None else None
        revision = model.revision if model is not None else None
        measured = {pod.base for pod in self.snapshot.ready_pods}
        return {
            "name": model.name if model is not None else "unknown",
            "revision": revision,
            "digest": measured.pop() if len(measured) == 1 else None,
        }

    def take_routing(self, event: Event) -> None:
        """Take what became of the pool's RoutingSlices, at once."""
        at_once(self._taking_routing(event))

    def take_reports(self, event: Event) -> None:
        """Take what became of the pool's PodReports, at once."""
        at_once(self._taking_reports(event))

    async def hear_routing(self, event: Event) -> None:
        """Take what became of the pool's RoutingSlices; requests go on meanwhile, with the snapshot before."""
        async with self._hearing:
            await in_turns(self._taking_routing(event))

    async def hear_reports(self, event: Event) -> None:
        """Take what became of the pool's PodReports; requests go on meanwhile, with the snapshot before."""
        async with self._hearing:
            await in_turns(self._taking_reports(event))

    def _taking_routing(self, event: Event) -> Steps[None]:
        change = yield from self._view.taking(event)
        if not change:
            return
        if change.header and (header := self._view.header) is not None:
            self._most = header.max_running
            for pod in self._pods.values():
                pod.most = self._most
            self._metrics.table_generation.set(header.generation)
            extra = {"pool": header.name, "generation": header.generation, "twins": len(self._view.twins)}
            log.info("routing", extra=extra)
        yield from self._route(change)
        if change.pods:
            said = [(name, self._reports.held(name)) for name in self._reports.pods()]
            yield from self._offer(name for name, held in said if held is not None and held.pod.uid in change.pods)
        self._publish()
        self._routing_known = self._view.header is not None

    def _taking_reports(self, event: Event) -> Steps[None]:
        changed = yield from self._reports.taking(event)
        first = isinstance(event, Listed) and not self._reports_known
        if not changed and not first:
            return
        yield from self._offer(changed)
        self._publish()
        self._reports_known = self._reports_known or first

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

    def _route(self, change: Change) -> Steps[None]:
        """Make the routes of the twins anew that changed, or whose system prompt came or went."""
        touched = set(change.names)
        if change.prompts:
            touched |= {twin.name for twin in self._view.twins.values() if twin.prompt_digest in change.prompts}
        for uid in change.twins:
            if uid not in self._view.twins:
                self._first_seen.pop(uid, None)
        twins = dict(self._twins)
        for number, name in enumerate(touched, 1):
            if number % _ROUTES_PER_STEP == 0:
                yield
            if (old := twins.pop(name, None)) is not None:
                for version in old.versions:
                    self._orders.pop((name, version.served_name), None)
            uids = self._view.uids(name)
            if len(uids) > 1:
                twins[name] = _contested(name, first_seen=int(time.time()))
            elif uids:
                first_seen = self._first_seen.setdefault(uids[0], int(time.time()))
                twin = self._view.twins[uids[0]]
                twins[name] = _route(uids[0], twin, self._view.prompts, first_seen)
        self._twins = twins

    def _offer(self, pods: Iterable[str]) -> Steps[None]:
        """Work out anew what these pods, by name, contribute; the lists of holders that it concerns are made anew."""
        holders = dict(self._holders)
        for name in list(pods):
            old, new = self._offers.pop(name, None), self._new_offer(name)
            if old is not None:
                self._pods.pop(old.pod.uid, None)
            if new is not None:
                self._offers[name] = new
                self._pods[new.pod.uid] = new.pod
            had = old.holds if old is not None else frozenset()
            has = new.holds if new is not None else frozenset()
            stays = had & has if old is not None and new is not None and old.pod is new.pod else frozenset()
            for key in had - stays:
                rest = tuple(pod for pod in holders[key] if old is None or pod is not old.pod)
                if rest:
                    holders[key] = rest
                else:
                    del holders[key]
            if new is not None:
                for key in has - stays:
                    holders[key] = (*holders.get(key, ()), new.pod)
            yield
        self._holders = holders

    def _new_offer(self, name: str) -> _Offer | None:
        held = self._reports.held(name)
        if held is None:
            return None
        # Where a pod is, and that there is one, is the operator's word alone: it has it from the API server.
        entry = self._view.pods.get(held.pod.uid)
        if entry is None or entry.name != name:
            return None
        url = URL(f"http://{entry.address}/v1/chat/completions")
        pod = self._pods.get(held.pod.uid)
        if pod is None or pod.url != url:
            pod = Pod(name=name, uid=held.pod.uid, url=url)
        pod.context, pod.base = held.context, held.base
        pod.most = self._most
        return _Offer(pod, held.ready, frozenset(held.adapters.items()) if held.ready else frozenset())

    def _publish(self) -> None:
        ready = tuple(offer.pod for offer in self._offers.values() if offer.ready)
        if ready == self.snapshot.ready_pods:
            ready = self.snapshot.ready_pods  # the same object: orders made from it hold
        self._metrics.pods_ready.set(len(ready))
        self._forget_old_versions()
        self.snapshot = Snapshot(
            number=self.snapshot.number + 1,
            twins=self._twins,
            ready_pods=ready,
            holders=self._holders,
            _orders=self._orders,
        )
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _forget_old_versions(self) -> None:
        now = time.monotonic()
        if now - self._forgot_at < _FORGET_LOOK_SECONDS:
            return
        self._forgot_at = now
        present = {(twin.name, version.served_name) for twin in self._twins.values() for version in twin.versions}
        present |= {(twin, "") for twin in self._twins}
        leaving = {key: self._leaving.get(key, now) for key in self._metrics.known() - present}
        for key, since in list(leaving.items()):
            if now - since > FORGET_SECONDS:
                self._metrics.forget(*key)
                del leaving[key]
        self._leaving = leaving


@dataclass(frozen=True, slots=True)
class _Offer:
    """What one pod contributes."""

    pod: Pod
    ready: bool
    holds: frozenset[tuple[str, str]]
    """Verified (served name, digest) of a ready pod."""


def _route(uid: str, twin: TwinEntry, prompts: Mapping[str, str], first_seen: int) -> TwinRoute:
    loaded_later = twin.on_demand
    versions = tuple(
        VersionRoute(
            twin=twin.name,
            served_name=version.served_name,
            digest=version.digest,
            weight=version.weight_percent,
            model=ModelName(twin=twin.name, served_name=version.served_name, digest=version.digest),
            on_demand=loaded_later is not None and version.digest == loaded_later.digest,
        )
        for version in twin.versions
    )
    active = tuple(version for version in versions if version.weight > 0)
    prompt = prompts.get(twin.prompt_digest) if twin.prompt_digest is not None else None
    obstacle = None
    if not active:
        obstacle = Obstacle("twin_not_ready", f"has no verified version yet: kubectl describe twin {twin.name}")
    elif twin.prompt_digest is not None and prompt is None:
        # Never without it: it holds what the doctor wants said and not said.
        obstacle, active = Obstacle("twin_not_ready", "waits for its system prompt"), ()
    return TwinRoute(
        name=twin.name,
        uid=uid,
        doctor=twin.doctor,
        system_message={"role": "system", "content": prompt} if prompt else None,
        versions=versions,
        active=active,
        first_seen=first_seen,
        obstacle=obstacle,
        pods=twin.pods or (),
    )


def _contested(name: str, *, first_seen: int) -> TwinRoute:
    """Return the route of a name that two DoctorTwins have now: whose answer it would be can't be known."""
    return TwinRoute(
        name=name,
        uid="",
        doctor=None,
        system_message=None,
        versions=(),
        active=(),
        first_seen=first_seen,
        obstacle=Obstacle("twin_replaced", "is being replaced by another of this name"),
    )
