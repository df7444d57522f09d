"""What a person wants to know of twins, taken from the API's objects. Pure: no requests, no terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from kubectl_twin.api import Json

CONDITION_ORDER = (
    "Serving",
    "Ready",
    "ArtifactVerified",
    "AdaptersVerified",
    "CapacityAvailable",
    "PlacementActive",
    "Progressing",
    "GatePassed",
    "RolledBack",
)
_BAD_WHEN_TRUE = frozenset({"RolledBack"})
_NEITHER = frozenset({"Progressing"})


class TwinRow(NamedTuple):
    """One line of `kubectl twin list`."""

    namespace: str
    name: str
    doctor: str
    pools: tuple[str, ...]
    serving: str
    """True, False or Unknown."""
    ready: str
    reason: str | None
    """Why it is not Ready."""
    active: str | None
    """Digest of the version that answers; None before any does."""
    base_only: bool
    """The base model itself answers, without an adapter."""
    loaded: str
    """verified/desired pods."""
    created: str | None


class ConditionLine(NamedTuple):
    """One condition, for a report."""

    type: str
    status: str
    reason: str
    message: str
    since: str | None
    good: bool | None
    """None: neither good nor bad, or not known."""


class EventLine(NamedTuple):
    """One event about the twin."""

    type: str
    reason: str
    message: str
    time: str | None
    times: int


def condition(obj: Json, kind: str) -> Json | None:
    """Return the condition of that type, None when the object has none."""
    found: list[Json] = [c for c in (obj.get("status") or {}).get("conditions") or [] if c.get("type") == kind]
    return found[0] if found else None


def is_pod_ready(pod: Json) -> bool:
    """Tell whether the pod passes its readiness."""
    ready = condition(pod, "Ready")
    return ready is not None and ready.get("status") == "True"


def short_digest(digest: str | None) -> str:
    """Return `sha256:` and 12 digits, as image tools show them; a dash for none."""
    if digest is None:
        return "-"
    algorithm, _, rest = digest.partition(":")
    return f"{algorithm}:{rest[:12]}"


def age(since: str | None, now: datetime) -> str:
    """Return how long ago an RFC 3339 time was, as kubectl writes it: 5s, 3m, 2h, 4d."""
    if not since:
        return "-"
    try:
        then = datetime.fromisoformat(since)
    except ValueError:
        return "-"
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = max(0, int((now - then).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size or (unit == "d" and seconds >= size):
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def twin_row(twin: Json) -> TwinRow:
    """Return the twin's line."""
    status = twin.get("status") or {}
    ready = condition(twin, "Ready") or {}
    active = status.get("activeVersion") or {}
    pods = status.get("pods") or {}
    return TwinRow(
        namespace=twin["metadata"].get("namespace", ""),
        name=twin["metadata"]["name"],
        doctor=twin["spec"]["doctor"]["name"],
        pools=tuple(status.get("pools") or ()),
        serving=(condition(twin, "Serving") or {}).get("status", "Unknown"),
        ready=ready.get("status", "Unknown"),
        reason=None if ready.get("status") == "True" else ready.get("reason"),
        active=active.get("digest"),
        base_only=bool(active) and not active.get("digest"),
        loaded=f"{pods.get('verified', 0)}/{pods.get('desired', 0)}" if pods else "-",
        created=twin["metadata"].get("creationTimestamp"),
    )


def condition_lines(obj: Json) -> list[ConditionLine]:
    """Return the object's conditions, those that people ask for first."""
    lines = [
        ConditionLine(
            type=c["type"],
            status=c.get("status", "Unknown"),
            reason=c.get("reason", ""),
            message=c.get("message", ""),
            since=c.get("lastTransitionTime"),
            good=_good(c["type"], c.get("status", "Unknown")),
        )
        for c in (obj.get("status") or {}).get("conditions") or []
    ]
    rank = {kind: position for position, kind in enumerate(CONDITION_ORDER)}
    return sorted(lines, key=lambda line: (rank.get(line.type, len(rank)), line.type))


def _good(kind: str, status: str) -> bool | None:
    if kind in _NEITHER or status == "Unknown":
        return None
    return (status == "True") != (kind in _BAD_WHEN_TRUE)


def event_lines(events: list[Json], *, most: int = 10) -> list[EventLine]:
    """Return the newest events, newest last."""
    lines = [
        EventLine(
            type=e.get("type", "Normal"),
            reason=e.get("reason", ""),
            message=e.get("message", ""),
            time=(e.get("series") or {}).get("lastObservedTime")
            or e.get("lastTimestamp")
            or e.get("eventTime")
            or e["metadata"].get("creationTimestamp"),
            times=(e.get("series") or {}).get("count") or e.get("count") or 1,
        )
        for e in events
    ]
    return sorted(lines, key=lambda line: line.time or "")[-most:]
