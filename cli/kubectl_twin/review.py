"""What a doctor looks at before she decides: the gate, and both versions' answers to the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pydantic import ValidationError

from bettertherapy_api import names
from bettertherapy_api.examination import examination_name
from bettertherapy_api.run_progress import REVIEW_KEY, Review, ReviewItem
from kubectl_twin.api import Api, Json, core_path, runs_path
from kubectl_twin.candidates import candidates
from kubectl_twin.errors import TwinCliError
from kubectl_twin.runs import Gate, gate_of, is_of_task, is_over, what_follows


@dataclass(frozen=True)
class Reviewed:
    """One run's gate and answers."""

    run: str
    version: str | None
    """Served name of the new version."""
    digest: str | None
    parent: str
    """Served name of the version it was compared with."""
    gate: Gate | None
    items: tuple[ReviewItem, ...]
    waits: bool
    """Whether the doctor's decision is awaited."""
    missing: str | None = None
    """Why there are no answers to show."""
    of: int | None = None
    """Out of how many questions `items` were chosen."""
    choose: str | None = None
    """How a version of a validator's task, which waits for nobody, is chosen; None for all others."""


def run_to_review(twin: Json, runs: Sequence[Json]) -> str:
    """Return the run whose version waits for the doctor, else is on trial, else the best of what miners made for tasks
    and the doctor may choose, else what was judged last.

    Raises:
        TwinCliError: no run was ever judged.
    """
    status, name = twin.get("status") or {}, twin["metadata"]["name"]
    for kind in ("pendingVersion", "canaryVersion"):
        if run := (status.get(kind) or {}).get("runName"):
            return str(run)
    if choice := candidates(twin, runs):
        return str(choice[0]["metadata"]["name"])
    if run := (status.get("lastGate") or {}).get("runName"):
        return str(run)
    judged = next((run for run in runs if (run.get("status") or {}).get("eval")), None)
    if judged is not None:
        return str(judged["metadata"]["name"])
    raise TwinCliError(f"No fine-tune of {name} was examined yet: `kubectl twin status {name}` shows what is planned.")


def read_review(api: Api, twin: Json, run: str) -> Reviewed:
    """Read what is kept of the run's examination. Answers are kept as long as the run, metrics of the last one longer.

    Raises:
        TwinCliError: nothing of it is left.
    """
    namespace, status = twin["metadata"]["namespace"], twin.get("status") or {}
    found = api.find(runs_path(namespace, run))
    if found is not None and found["spec"]["twinRef"]["name"] != twin["metadata"]["name"]:
        raise TwinCliError(f"{run} is a fine-tune of {found['spec']['twinRef']['name']}.")
    last = status.get("lastGate") or {}
    gate = gate_of(((found or {}).get("status") or {}).get("eval"))
    if gate is None and last.get("runName") == run:
        gate = gate_of(last)
    if found is None and gate is None:
        raise TwinCliError(
            f"There is no FineTuneRun {run}, or it has expired. `kubectl get finetuneruns -n {namespace}` lists them."
        )
    review, missing = _review(api, namespace, run, found)
    made = ((found or {}).get("status") or {}).get("artifact") or {}
    digest = made.get("digest") or (last.get("digest") if last.get("runName") == run else None)
    return Reviewed(
        run=run,
        version=names.served_name(twin["metadata"]["name"], digest) if digest else None,
        digest=digest,
        parent=_parent(twin, found, digest),
        gate=gate,
        items=review.items,
        of=review.of,
        choose=_choose(twin, found, digest),
        waits=(status.get("pendingVersion") or {}).get("digest") == digest and digest is not None,
        missing=missing,
    )


def _review(api: Api, namespace: str, run: str, found: Json | None) -> tuple[Review, str | None]:
    configmap = api.find(core_path("configmaps", namespace, examination_name(run)))
    text = ((configmap or {}).get("data") or {}).get(REVIEW_KEY)
    if text is None:
        return Review(), f"There are no answers to show: {_why_none(found)}."
    try:
        return Review.model_validate_json(text), None
    except ValidationError:
        return Review(), f"The answers in ConfigMap {examination_name(run)} can't be read."


def _why_none(run: Json | None) -> str:
    if run is None:
        return "the run has expired"
    if is_over(run):
        return "the run has ended without any"
    return "the examiner has reported none yet"


def _choose(twin: Json, run: Json | None, digest: str | None) -> str | None:
    """Return how the version of a task is chosen, as long as its twin knows nothing of it."""
    status = twin.get("status") or {}
    known = [status.get(f"{kind}Version") for kind in ("active", "canary", "pending")]
    known += [*(status.get("history") or []), *(status.get("refusedVersions") or [])]
    if run is None or not is_of_task(run) or (run.get("status") or {}).get("verdict") != "Promote":
        return None
    if any(each and each.get("digest") == digest for each in known):
        return None
    return what_follows(run, twin)


def _parent(twin: Json, run: Json | None, digest: str | None) -> str:
    status = twin.get("status") or {}
    base = str(twin["spec"]["baseModel"]["name"])
    if run is not None:
        parent = run["spec"].get("parentDigest")
        return names.served_name(twin["metadata"]["name"], parent) if parent else base
    for kind in ("active", "canary", "pending"):
        version = status.get(f"{kind}Version") or {}
        if digest is not None and version.get("digest") == digest:
            parent = version.get("parentDigest")
            return names.served_name(twin["metadata"]["name"], parent) if parent else base
    return "the version before"


def as_json(reviewed: Reviewed) -> Json:
    """Return it for programs."""
    gate = reviewed.gate
    return {
        "run": reviewed.run,
        "version": reviewed.version,
        "digest": reviewed.digest,
        "parent": reviewed.parent,
        "awaitsDecision": reviewed.waits,
        "verdict": gate.verdict if gate else None,
        "samples": gate.samples if gate else None,
        "message": gate.message if gate else None,
        "metrics": [
            {
                "name": metric.name,
                "valuePercent": metric.value,
                "baselinePercent": metric.baseline,
                "thresholdPercent": metric.threshold,
                "intervalPercent": list(metric.interval) if metric.interval else None,
                "marginPercent": metric.margin,
                "shown": metric.shown,
            }
            for metric in (gate.metrics if gate else ())
        ],
        "judging": asdict(gate.judging) if gate and gate.judging else None,
        "questions": reviewed.of,
        "items": [item.model_dump(mode="json", by_alias=True) for item in reviewed.items],
    }
