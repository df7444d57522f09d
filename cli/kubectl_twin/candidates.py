"""Versions that validators' tasks brought: they wait to be chosen, and a twin's status says nothing of them."""

from __future__ import annotations

from collections.abc import Sequence

from bettertherapy_api import names
from kubectl_twin.api import Json
from kubectl_twin.runs import is_of_task


def candidates(twin: Json, runs: Sequence[Json]) -> list[Json]:
    """Return the runs of the versions that the doctor may choose, of those that validators' tasks brought for this very
    version of the twin, the best first: by its score over the parent's, and of equals the first."""
    active = ((twin.get("status") or {}).get("activeVersion") or {}).get("digest")
    open_ = [
        run
        for run in runs
        if is_of_task(run)
        and (run.get("status") or {}).get("verdict") == "Promote"
        and run["spec"].get("parentDigest") == active
        and _awaits_choice(run)
    ]

    def gain(run: Json) -> int:
        metrics = ((run["status"].get("eval") or {}).get("metrics")) or []
        found = next((each for each in metrics if each["name"] == "score"), None)
        return -101 if found is None else int(found["valuePercent"]) - int(found.get("baselinePercent") or 0)

    open_.sort(key=lambda run: (-gain(run), run["status"].get("completionTime") or "", run["metadata"]["name"]))
    return open_


def _awaits_choice(run: Json) -> bool:
    conditions = (run.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Promoted" and each["reason"] == "AwaitingChoice" for each in conditions)


def version_of(run: Json) -> Json:
    """Return what a run made, as a twin's status tells of versions."""
    made, metrics = run["status"]["artifact"], (run["status"].get("eval") or {}).get("metrics") or []
    score = next((each["valuePercent"] for each in metrics if each["name"] == "score"), None)
    known = {
        "digest": made["digest"], "servedName": names.served_name(run["spec"]["twinRef"]["name"], made["digest"]),
        "runName": run["metadata"]["name"], "parentDigest": run["spec"].get("parentDigest"),
        "datasetDigest": run["spec"]["dataset"].get("digest"), "scorePercent": score,
    }  # fmt: skip
    return {key: value for key, value in known.items() if value is not None}
