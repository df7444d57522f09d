"""What a twin's pools are told of it, what each of their pods says, and what proves it. Pure: no requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from bettertherapy_api import names
from bettertherapy_api.report import AdapterReport, AdapterState, PodReport, Proof
from bettertherapy_api.routing import TwinEntry
from kubectl_twin.api import Json

_ENDED: Final = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class PoolObjects:
    """A pool's objects, as the API server gives them."""

    name: str
    pods: Sequence[Json] = ()
    reports: Sequence[Json] = ()
    slices: Sequence[Json] = ()


@dataclass(frozen=True)
class AdapterLine:
    """One adapter of the twin on one engine pod."""

    served_name: str
    report: AdapterReport | None
    """None: the pod is told to hold it, and has not said anything of it."""
    wanted: bool
    """Whether the pod is told to hold it."""


@dataclass(frozen=True)
class PodLine:
    """One engine pod, in the words of its own report."""

    name: str
    report: PodReport | None
    """None: it has not reported, or not readably."""
    unreadable: bool
    reachable: bool
    """Whether the pool's miners are told where it is."""
    adapters: tuple[AdapterLine, ...]


@dataclass(frozen=True)
class PoolLine:
    """One pool that serves the twin."""

    name: str
    entry: TwinEntry | None
    """What its engines and miners are told of this very twin."""
    pods: tuple[PodLine, ...]


def pool_lines(twin: Json, pools: Sequence[PoolObjects]) -> list[PoolLine]:
    """Return what the pools say of the twin; a report counts only for a pod that exists under the UID it states."""
    return [_pool_line(twin, pool) for pool in sorted(pools, key=lambda pool: pool.name)]


def _pool_line(twin: Json, pool: PoolObjects) -> PoolLine:
    entry = _entry(pool.slices, twin["metadata"].get("uid", ""))
    addresses = _merged(pool.slices, "pods")
    reports = {_uid(report): report for report in pool.reports}
    engines = [pod for pod in pool.pods if _is_engine(pod)]
    return PoolLine(
        name=pool.name,
        entry=entry,
        pods=tuple(
            _pod_line(twin, pod, reports.get(pod["metadata"]["uid"]), entry, addresses)
            for pod in sorted(engines, key=lambda pod: str(pod["metadata"]["name"]))
        ),
    )


def _pod_line(
    twin: Json, pod: Json, said: Json | None, entry: TwinEntry | None, addresses: Mapping[str, Json]
) -> PodLine:
    report: PodReport | None = None
    unreadable = False
    try:
        report = None if said is None else PodReport.model_validate(said)
    except ValidationError:
        unreadable = True
    held = {} if report is None else {name: each for name, each in report.adapters.items() if _is_of(twin, each)}
    wanted = {adapter.served_name for adapter in entry.adapters} if entry is not None else set()
    known = held.keys() | (wanted if report is not None else set())
    return PodLine(
        name=pod["metadata"]["name"],
        report=report,
        unreadable=unreadable,
        reachable=pod["metadata"]["uid"] in addresses,
        adapters=tuple(AdapterLine(name, held.get(name), name in wanted) for name in sorted(known)),
    )


def _is_of(twin: Json, adapter: AdapterReport) -> bool:
    """A twin that was deleted and made again under the same name is another."""
    same = adapter.twin_uid is None or adapter.twin_uid == twin["metadata"].get("uid")
    return adapter.twin == twin["metadata"]["name"] and same


def _is_engine(pod: Json) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return labels.get(names.LABEL_COMPONENT) == "engine" and (pod.get("status") or {}).get("phase") not in _ENDED


def _uid(report: Json) -> str:
    pod = report.get("pod")
    return str(pod.get("uid", "")) if isinstance(pod, dict) else ""


def _entry(slices: Sequence[Json], uid: str) -> TwinEntry | None:
    found = _merged(slices, "twins").get(uid)
    try:
        return None if found is None else TwinEntry.model_validate(found)
    except ValidationError:
        return None


def _merged(slices: Sequence[Json], part: str) -> dict[str, Json]:
    return {uid: entry for each in slices for uid, entry in (each.get(part) or {}).items()}


def routing_text(line: PoolLine) -> str:
    """Return which versions answer in the pool, as its miners are told."""
    if line.entry is None:
        return "is not told of this twin yet"
    if not line.entry.versions:
        return "no version answers yet"
    parts = [f"{version.served_name} ({version.weight_percent}%)" for version in line.entry.versions]
    return f"answers with {', '.join(parts)}"


def pod_text(line: PodLine) -> str:
    """Return how the pod is."""
    if line.report is None:
        return "its report can't be read: is this plugin as new as the operator?" if line.unreadable else (
            "has not reported yet"
        )  # fmt: skip
    engine = line.report.engine
    parts = ["live" if engine.live else "not live"]
    if engine.version:
        parts.append(f"vLLM {engine.version}")
    if line.report.draining:
        parts.append("draining")
    elif not line.report.ready:
        parts.append("not ready")
    if not line.reachable:
        parts.append("miners are not told of it")
    return ", ".join(parts) + (f": {engine.message}" if engine.message else "")


def state_text(line: AdapterLine) -> str:
    """Return where the adapter is on its way into the pod, and what proves it or is wrong with it."""
    held = line.report
    if held is None:
        return "not held yet"
    parts = [held.state.value]
    if held.load_millis is not None:
        parts.append(f"loaded in {held.load_millis / 1000:.2f} s")
    if not line.wanted and held.state is not AdapterState.UNLOADING:
        parts.append("no longer wanted")
    said = _proof_text(held) if held.state is AdapterState.VERIFIED else _why(held)
    return ", ".join(parts) + (f": {said}" if said else "")


def is_good(line: AdapterLine) -> bool | None:
    """Tell whether the adapter is as it should be; None while it is on its way, or nothing proves it."""
    held = line.report
    if held is not None and held.state is AdapterState.FAILED:
        return False
    return True if held is not None and held.rests_on() in (Proof.FINGERPRINT, Proof.FIRST_LOAD) else None


def _proof_text(held: AdapterReport) -> str:
    match held.rests_on():
        case Proof.FINGERPRINT:
            nats = held.fingerprint_milli_nats
            off = "" if nats is None else f", {nats / 1000:.3f} nats off on average"
            return f"it answers as recorded when it was trained{off}"
        case Proof.FIRST_LOAD:
            return "no fingerprint is recorded; it answers as at its first load in this pod"
        case _:
            return f"nothing proves whose weights answer: {held.message or 'nothing was measured'}"


def _why(held: AdapterReport) -> str:
    again = "it is tried again" if held.retryable else ""
    return ": ".join(part for part in (held.reason or "", held.message or "") if part) + (f"; {again}" if again else "")
