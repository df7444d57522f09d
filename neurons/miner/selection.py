"""Which version answers a request, and which pod: functions of the tables, the session and the pods' counts."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from neurons.miner.tables import Pod, VersionRoute

LOAD_FACTOR: Final = 1.25
"""A pod may have this multiple of the average in flight before a request spills over to its next pod."""
MIN_SHARE: Final = 4
"""In flight per pod below which affinity always wins: a batch this small costs an engine next to nothing."""
WIDE_SECONDS: Final = 60.0
"""A twin that needed several pods keeps them so long: its conversations' prefixes lie there."""
MAX_IDLE_TWINS: Final = 4096


def choose_version(versions: Sequence[VersionRoute], session: bytes) -> VersionRoute | None:
    """Return the version for a session, by weight; None when no version has a weight.

    Weighted rendezvous hashing (smallest -ln(u)/w wins): the same session gets the same version whatever the
    order of the list, and when one version's weight grows, sessions only ever move to that version.
    """
    if len(versions) < 2:
        return versions[0] if versions else None
    return min(versions, key=lambda version: _distance(version, session))


def _distance(version: VersionRoute, session: bytes) -> float:
    seed = version.twin.encode() + b"\0" + version.served_name.encode() + b"\0" + session
    drawn = int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "big")
    return -math.log((drawn + 0.5) / 2.0**64) / version.weight


def usable_pods(order: Sequence[Pod], *, avoid: Collection[Pod], now: float) -> list[Pod]:
    """Return the pods that may be asked now, in their order; those that lately failed only where no others are left."""
    left = [pod for pod in order if pod not in avoid] if avoid else list(order)
    return [pod for pod in left if pod.suspect_until <= now] or left


def choose_pod(candidates: Sequence[Pod], *, session: bytes = b"", width: int = 1) -> Pod | None:
    """Return the pod to ask, of usable ones in the twin's order, preferred first; None where there is none.

    Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016), twice: a twin uses the first `width`
    pods of its order, so that it takes as few adapter slots as its load needs, and among those each session has its own
    order, so that a conversation finds its prefix cached. The first that is under its share answers.
    """
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    share = load_share(candidates)
    if width > 1:
        near = sorted(candidates[:width], key=lambda pod: _session_distance(pod, session))
        candidates = [*near, *candidates[width:]]
    for pod in candidates:
        if pod.in_flight < share:
            return pod
    return min(candidates, key=lambda pod: pod.in_flight)


def _session_distance(pod: Pod, session: bytes) -> bytes:
    return hashlib.blake2b(pod.name.encode() + b"\0" + session, digest_size=8).digest()


def load_share(pods: Sequence[Pod]) -> int:
    """Return how many requests one pod may have in flight before the next is asked."""
    total = sum(pod.in_flight for pod in pods) + 1
    return max(MIN_SHARE, math.ceil(total / len(pods) * LOAD_FACTOR))


@dataclass(slots=True)
class _Load:
    in_flight: int = 0
    width: int = 1
    until: float = 0.0


class Spread:
    """Over how many pods each twin spreads: as many as its requests in flight need, and lately needed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._loads: dict[str, _Load] = {}

    def begin(self, twin: str) -> None:
        """Count a request."""
        load = self._loads.get(twin)
        if load is None:
            if len(self._loads) > MAX_IDLE_TWINS:
                self._loads = {name: kept for name, kept in self._loads.items() if kept.in_flight}
            load = self._loads[twin] = _Load()
        load.in_flight += 1

    def end(self, twin: str) -> None:
        """Count a request no longer."""
        self._loads[twin].in_flight -= 1

    def width(self, twin: str, pods: Sequence[Pod]) -> int:
        """Return how many pods the twin uses now."""
        load = self._loads.get(twin)
        if load is None:
            return 1
        needed = min(len(pods), math.ceil(load.in_flight / load_share(pods)))
        now = self._clock()
        if needed >= load.width or now > load.until:
            load.width, load.until = max(1, needed), now + WIDE_SECONDS
        return load.width
