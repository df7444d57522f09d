"""Which version answers a request, and which pod: pure functions of the tables and the pods' counts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from typing import Final

from neurons.miner.tables import Pod, VersionRoute

LOAD_FACTOR: Final = 1.25
"""A pod may have this multiple of the average in flight before a twin spills over to its next pod."""
MIN_SHARE: Final = 4
"""In flight per pod below which affinity always wins: a batch this small costs an engine next to nothing."""


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


def choose_pod(order: Sequence[Pod], *, avoid: Collection[Pod], now: float) -> Pod | None:
    """Return the pod to ask, from `order` (preferred first); None when all are in `avoid`.

    Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016): the first pod in the twin's order that
    is under its share, so that a busy twin spreads over as few pods (and adapter slots) as its load needs. Pods that
    lately failed come last.
    """
    candidates = [pod for pod in order if pod not in avoid] if avoid else order
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    candidates = [pod for pod in candidates if pod.suspect_until <= now] or candidates
    share = load_share(candidates)
    for pod in candidates:
        if pod.in_flight < share:
            return pod
    return min(candidates, key=lambda pod: pod.in_flight)


def load_share(pods: Sequence[Pod]) -> int:
    """Return how many requests one pod may have in flight before the next is asked."""
    total = sum(pod.in_flight for pod in pods) + 1
    return max(MIN_SHARE, math.ceil(total / len(pods) * LOAD_FACTOR))
