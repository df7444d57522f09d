"""A twin's versions: which there were, where each came from, and which can be gone back to. Pure: no requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from bettertherapy_api import names
from kubectl_twin.api import Json
from kubectl_twin.errors import TwinCliError
from kubectl_twin.zones import Zone, moment, zone_of

BASE: Final = "base"
"""What people write for the base model itself."""
_SHORTEST: Final = 4
_ANCESTORS: Final = 100
_REFUSED: Final = {
    "RolledBack": "rolled back while on trial",
    "RejectedByDoctor": "rejected by the doctor",
    "Superseded": "superseded before it served",
    "ParentReplaced": "dropped: its parent no longer served",
    "ServedNameCollision": "dropped: name taken",
}
_VERDICTS: Final = {"Reject": "rejected by the gate", "Inconclusive": "inconclusive at the gate"}
_ENDED: Final = {"RolledBack": "rolled back", "Replaced": "replaced"}


@dataclass(frozen=True)
class HistoryRow:
    """One version, for `kubectl twin history`."""

    digest: str | None
    """None: the base model itself."""
    served_name: str
    score_percent: int | None
    run: str | None
    since: str | None
    """When it began to answer; None: it never took over, or that was not recorded."""
    until: str | None
    """When it ceased to; None: it still answers, never took over, or that was not recorded."""
    outcome: str
    decided: str | None = None
    """When it was refused, for one that never took over."""
    message: str | None = None


@dataclass(frozen=True)
class Target:
    """A version to go back to."""

    digest: str | None
    served_name: str
    score_percent: int | None = None
    since: str | None = None
    until: str | None = None

    @property
    def short(self) -> str:
        """What a person may type for it."""
        return BASE if self.digest is None else names.digest_hex(self.digest)[:12]


@dataclass(frozen=True)
class Origin:
    """Where one adapter comes from, for `kubectl twin lineage`."""

    digest: str
    served_name: str
    uri: str | None
    dataset: str | None
    """Digest of what it was trained on; None: not recorded in the cluster."""
    interactions: int | None
    """Lines in it; known while the run exists."""
    run: str | None
    run_exists: bool
    parent: str | None
    """The version that training began from; None: the base model, where `recorded`."""
    recorded: bool
    """Whether anything is known of where it comes from."""
    since: str | None
    until: str | None
    outcome: str
    decided: str | None = None


def camel(row: HistoryRow | Origin) -> Json:
    """Return a row for programs, with the API's way of writing names."""
    return {
        re.sub(r"_(\w)", lambda found: found[1].upper(), key): value
        for key, value in asdict(row).items()
        if value is not None
    }


def wanted_digest(twin: Json) -> str | None:
    """Return the digest that the twin should answer with: what was promoted, until spec.adapter changes again."""
    status, spec = twin.get("status") or {}, _spec_digest(twin)
    promoted = status.get("promotedVersion")
    return promoted.get("digest") if promoted and status.get("specDigest") == spec else spec


def _spec_digest(twin: Json) -> str | None:
    digest: str | None = (twin["spec"].get("adapter") or {}).get("digest")
    return digest


def _served(twin: Json) -> Iterator[Json]:
    """Yield the versions that answered, or that were meant to, newest first; each once."""
    status, seen = twin.get("status") or {}, set()
    spec = twin["spec"].get("adapter")
    hand_set = {**spec, "servedName": names.served_name(twin["metadata"]["name"], spec["digest"])} if spec else None
    told = [status.get(f"{kind}Version") for kind in ("active", "promoted", "previous")]
    for version in (*told, *(status.get("history") or []), hand_set):
        if version and version.get("digest") not in seen:
            seen.add(version.get("digest"))
            yield version


def rollback_targets(twin: Json) -> list[Target]:
    """Return what can be gone back to, the newest first. While a version is on trial, also what serves beside it."""
    status = twin.get("status") or {}
    apart = {(status.get(kind) or {}).get("digest") for kind in ("canaryVersion", "pendingVersion")} - {None}
    current = object() if status.get("canaryVersion") else wanted_digest(twin)
    found = [
        Target(
            digest=version.get("digest"),
            served_name=version["servedName"],
            score_percent=version.get("scorePercent"),
            since=version.get("since"),
            until=version.get("until"),
        )
        for version in _served(twin)
        if version.get("digest") is None or (version.get("uri") and version.get("rank"))
    ]
    if all(target.digest is not None for target in found):
        found.append(Target(digest=None, served_name=twin["spec"]["baseModel"]["name"]))
    return [target for target in found if target.digest != current and target.digest not in apart]


def default_target(twin: Json) -> Target:
    """Return what a rollback without --to goes back to: what serves beside a version on trial, else the one before.

    Raises:
        TwinCliError: there is none.
    """
    status, targets = twin.get("status") or {}, rollback_targets(twin)
    wanted = wanted_digest(twin) if status.get("canaryVersion") else (status.get("previousVersion") or {}).get("digest")
    known = bool(status.get("canaryVersion") or status.get("previousVersion"))
    for target in targets:
        if known and target.digest == wanted:
            return target
    raise TwinCliError(f"{twin['metadata']['name']} has no version before this one. {_offer(targets, twin)}")


def find_target(twin: Json, text: str) -> Target:
    """Return the version that `text` means: a digest or the beginning of one, a served name, or `base`.

    Raises:
        TwinCliError: none or several; the message lists those that can be gone back to.
    """
    name, status, targets = twin["metadata"]["name"], twin.get("status") or {}, rollback_targets(twin)
    wanted = text.strip().lower()
    matching = [target for target in targets if _means(wanted, target.digest, target.served_name)]
    if len(matching) == 1:
        return matching[0]
    if len(matching) > 1:
        raise TwinCliError(f"{text} may be several versions of {name}: write more digits. {_offer(matching, twin)}")
    for kind, why in (
        ("canaryVersion", "is on trial; it takes over by itself, or `kubectl twin rollback` takes it back"),
        ("pendingVersion", "never answered: it waits for the doctor, see `kubectl twin review`"),
        ("activeVersion", "answers already"),
    ):
        version = status.get(kind)
        if version and _means(wanted, version.get("digest"), version["servedName"]):
            raise TwinCliError(f"{version['servedName']} {why}. {_offer(targets, twin)}")
    raise TwinCliError(f"{name} has no version {text} to go back to. {_offer(targets, twin)}")


def _means(text: str, digest: str | None, served_name: str) -> bool:
    if text == served_name or (digest is None and text == BASE):
        return True
    digits = text.removeprefix("sha256:")
    return digest is not None and len(digits) >= _SHORTEST and names.digest_hex(digest).startswith(digits)


def is_version(text: str, version: Json) -> bool:
    """Tell whether `text` means this version: its digest or the beginning of it, or its served name."""
    return _means(text.strip().lower(), version.get("digest"), version["servedName"])


def _offer(targets: Sequence[Target], twin: Json) -> str:
    if not targets:
        return "There is none to go back to."
    lines = [f"  {target.short:<12}  {target.served_name}{_told(target, zone_of(twin))}" for target in targets]
    return "\n".join(["These can be gone back to with --to:", *lines])


def _told(target: Target, zone: Zone) -> str:
    score = f", score {target.score_percent}%" if target.score_percent is not None else ""
    end = f"to {moment(target.until, zone)}" if target.until else "on"
    times = f", answered from {moment(target.since, zone)} {end} ({zone.name})" if target.since else ""
    return score + times


def history(twin: Json, runs: Sequence[Json]) -> list[HistoryRow]:
    """Return the twin's versions, newest first: what is undecided, what answers, and what became of the others."""
    status = twin.get("status") or {}
    rows: list[HistoryRow] = []
    for kind, outcome in (
        ("pendingVersion", "waits for the doctor"),
        ("canaryVersion", f"on trial, takes {status.get('canaryWeightPercent') or 0}%"),
        ("activeVersion", "answers"),
    ):
        if version := status.get(kind):
            rows.append(_row(version, outcome, live=True))
    former = [_row(version, _ENDED.get(version.get("ended", ""), "answered before")) for version in _former(twin)]
    former += [_refused(entry, twin) for entry in status.get("refusedVersions") or []]
    former += [row for run in runs if (row := _judged(run)) is not None]
    former.sort(key=lambda row: row.until or row.decided or row.since or "", reverse=True)
    seen: set[str | None] = {row.digest for row in rows}
    for row in former:
        if row.digest not in seen:
            seen.add(row.digest)
            rows.append(row)
    return rows


def _former(twin: Json) -> Iterator[Json]:
    status = twin.get("status") or {}
    yield from status.get("history") or []
    if status.get("previousVersion"):
        yield status["previousVersion"]


def _row(version: Json, outcome: str, *, live: bool = False) -> HistoryRow:
    return HistoryRow(
        digest=version.get("digest"),
        served_name=version["servedName"],
        score_percent=version.get("scorePercent"),
        run=version.get("runName"),
        since=version.get("since"),
        until=None if live else version.get("until"),
        outcome=outcome,
    )


def _refused(entry: Json, twin: Json) -> HistoryRow:
    return HistoryRow(
        digest=entry["digest"],
        served_name=names.served_name(twin["metadata"]["name"], entry["digest"]),
        score_percent=entry.get("scorePercent"),
        run=entry.get("runName"),
        since=None,
        until=None,
        decided=entry.get("time"),
        outcome=_REFUSED.get(entry["reason"]) or str(entry["reason"]),
        message=_reason(entry),
    )


def _reason(entry: Json) -> str | None:
    """Return what the outcome does not say by itself."""
    message = str(entry.get("message", ""))
    return message.removeprefix("the doctor rejected it").removeprefix(": ") or None


def _judged(run: Json) -> HistoryRow | None:
    """Return the version of a run that did not pass its gate; what passed is in the twin's status."""
    status = run.get("status") or {}
    made, outcome = status.get("artifact"), _VERDICTS.get(status.get("verdict", ""))
    if not made or outcome is None:
        return None
    return HistoryRow(
        digest=made["digest"],
        served_name=names.served_name(run["spec"]["twinRef"]["name"], made["digest"]),
        score_percent=run_score(run),
        run=run["metadata"]["name"],
        since=None,
        until=None,
        decided=status.get("completionTime"),
        outcome=outcome,
        message=(status.get("eval") or {}).get("message"),
    )


def run_score(run: Json) -> int | None:
    """Return the score that the run's gate measured, in percent."""
    metrics = ((run.get("status") or {}).get("eval") or {}).get("metrics") or []
    return next((int(metric["valuePercent"]) for metric in metrics if metric["name"] == "score"), None)


def lineage(twin: Json, runs: Sequence[Json]) -> list[Origin]:
    """Return where the twin's adapters come from, newest first; of runs that expired the twin's status tells."""
    status = twin.get("status") or {}
    by_digest: dict[str, Json] = {}
    for version in (
        *(status.get(f"{kind}Version") for kind in ("pending", "canary", "active", "promoted", "previous")),
        *(status.get("history") or []),
        *(status.get("refusedVersions") or []),
        *_served(twin),
    ):
        if version and version.get("digest"):
            by_digest[version["digest"]] = {**version, **by_digest.get(version["digest"], {})}
    made = {
        run["status"]["artifact"]["digest"]: run for run in runs if ((run.get("status") or {}).get("artifact"))
    }  # fmt: skip
    rows = [row for row in history(twin, runs) if row.digest is not None]
    told = {row.digest for row in rows}
    rows += [_row(version, "named by spec.adapter") for digest, version in by_digest.items() if digest not in told]
    return [_origin(row, by_digest.get(row.digest or "", {}), made.get(row.digest or ""), runs) for row in rows]


def _origin(row: HistoryRow, version: Json, run: Json | None, runs: Sequence[Json]) -> Origin:
    status = (run or {}).get("status") or {}
    dataset = status.get("dataset") or {}
    name = row.run or (run["metadata"]["name"] if run else None)
    digest = version.get("datasetDigest") or dataset.get("digest")
    return Origin(
        digest=row.digest or "",
        served_name=row.served_name,
        uri=version.get("uri") or (status.get("artifact") or {}).get("uri"),
        dataset=digest,
        interactions=dataset.get("interactions"),
        run=name,
        run_exists=any(each["metadata"]["name"] == name for each in runs),
        parent=version.get("parentDigest") or ((run or {}).get("spec") or {}).get("parentDigest"),
        recorded=bool(digest or run or version.get("parentDigest")),
        since=row.since,
        until=row.until,
        outcome=row.outcome,
        decided=row.decided,
    )


ReadManifest = Callable[[str, str], Json | None]
"""From URI and digest of an adapter to what `python -m neurons.store lineage` prints; None: it can't be read."""


def complete(twin: str, origins: Sequence[Origin], read: ReadManifest) -> list[Origin]:
    """Return the origins with what the manifests in the store say, and after them ancestors that only those know of."""
    found = [_completed(origin, read) if not origin.dataset and origin.uri else origin for origin in origins]
    known = {origin.digest for origin in found}
    queue = [origin for origin in found if origin.parent and origin.parent not in known]
    while queue and len(found) < _ANCESTORS + len(origins):
        child = queue.pop(0)
        uri = _beside(child)
        if child.parent is None or child.parent in known or uri is None:
            continue
        known.add(child.parent)
        ancestor = _completed(
            Origin(
                digest=child.parent, served_name=names.served_name(twin, child.parent), uri=uri, dataset=None,
                interactions=None, run=None, run_exists=False, parent=None, recorded=False, since=None, until=None,
                outcome="no longer in the twin's history",
            ),
            read,
        )  # fmt: skip
        found.append(ancestor)
        queue.append(ancestor)
    return found


def _completed(origin: Origin, read: ReadManifest) -> Origin:
    said = read(origin.uri or "", origin.digest)
    if said is None:
        return origin
    return replace(
        origin,
        dataset=said.get("datasetDigest"),
        parent=said.get("parentDigest"),
        run=origin.run or said.get("run"),
        recorded=bool(said.get("datasetDigest") or said.get("run")),
    )


def _beside(child: Origin) -> str | None:
    """Return where the parent of an adapter is, if the store keeps each version in a folder named by its digest."""
    folder, _, own = (child.uri or "").rstrip("/").rpartition("/")
    if child.parent is None or own != names.digest_hex(child.digest):
        return None
    return f"{folder}/{names.digest_hex(child.parent)}"
