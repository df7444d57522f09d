"""A fine-tune as a person watches it: asked for by annotation, followed to its verdict; then the version on trial."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bettertherapy_api import names
from demo.errors import DemoError
from demo.kube import Json, Kube, troubled_pods

_CREATED_TIMEOUT_S: Final = 60.0
_RUN_TIMEOUT_S: Final = 900.0
_TRIAL_TIMEOUT_S: Final = 300.0
_POLL_S: Final = 1.0
_TOKEN: Final = "demo-"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    run: str
    digest: str
    """The adapter that it made."""
    verdict: str
    message: str
    metrics: tuple[Json, ...]
    samples: int
    trained: int
    refused: dict[str, int]

    @classmethod
    def of(cls, run: Json) -> Outcome:
        """Read an ended run. Raises KeyError for one that was skipped or failed."""
        status = run["status"]
        dataset, gate = status["dataset"], status["eval"]
        return cls(
            run=run["metadata"]["name"],
            digest=status["artifact"]["digest"],
            verdict=gate["verdict"],
            message=gate.get("message", ""),
            metrics=tuple(gate.get("metrics") or []),
            samples=gate["samples"],
            trained=dataset["interactions"],
            refused={each["reason"]: each["count"] for each in dataset.get("refused") or []},
        )


def start(kube: Kube, twin: str, *, namespace: str, token: str) -> str:
    """Ask for a fine-tune now and return the run's name.

    Raises:
        DemoError: no run appears; with what the twin says of it.
    """
    known = _runs(kube, twin, namespace)
    annotation = f"{names.FINETUNE_NOW_ANNOTATION}={token}"
    kube.kubectl("annotate", "--overwrite", "doctortwin", twin, annotation, "-n", namespace)
    deadline = time.monotonic() + _CREATED_TIMEOUT_S
    while time.monotonic() < deadline:
        new = _runs(kube, twin, namespace) - known
        if new:
            return new.pop()
        time.sleep(_POLL_S)
    raise DemoError(
        f"No fine-tune of {twin} was started",
        evidence=_conditions(kube, "doctortwin", twin, namespace),
        remedy=f"the twin's conditions above say what it waits for; `kubectl get finetuneruns -n {namespace}`",
    )


def follow(kube: Kube, run: str, *, namespace: str, on_progress: Say) -> Outcome:
    """Wait until the run has its verdict.

    Raises:
        DemoError: it failed, was skipped or took too long; with its conditions, its pods' events and logs.
    """
    deadline = time.monotonic() + _RUN_TIMEOUT_S
    found: Json = {}
    while time.monotonic() < deadline:
        found = kube.get("finetunerun", run, "-n", namespace) or {}
        status = found.get("status") or {}
        if status.get("completionTime"):
            try:
                return Outcome.of(found)
            except KeyError:
                break
        on_progress(progress_of(status))
        time.sleep(_POLL_S)
    raise DemoError(
        f"The fine-tune {run} came to no verdict: {_why(found)}",
        evidence="\n".join(
            [
                _conditions(kube, "finetunerun", run, namespace),
                troubled_pods(kube, namespace, f"{names.LABEL_RUN}={run}"),
            ]
        ),
        remedy=f"`kubectl logs -n {namespace} job/{run}` has all of its log; running the demo again tries again",
    )


def progress_of(status: Json) -> str:
    """Return how far a run is, for a person."""
    parts = [str(status.get("stage") or "Queued")]
    if status.get("progressPercent"):
        parts.append(f"{status['progressPercent']}%")
    if status.get("lossMilli") is not None:
        parts.append(f"loss {status['lossMilli'] / 1000:.2f}")
    if status.get("remainingSeconds"):
        parts.append(f"{status['remainingSeconds']} s left")
    return ", ".join(parts)


def await_promotion(kube: Kube, twin: str, digest: str, *, namespace: str, on_progress: Say) -> None:
    """Watch the new version's trial until it serves all patients; each step's last figures go to `on_progress`.

    Raises:
        DemoError: it was taken back, or is not done in time; with the twin's conditions.
    """
    deadline = time.monotonic() + _TRIAL_TIMEOUT_S
    while time.monotonic() < deadline:
        found = kube.get("doctortwin", twin, "-n", namespace) or {}
        status = found.get("status") or {}
        conditions = _by_type(found)
        serves = (status.get("activeVersion") or {}).get("digest") == digest
        if serves and conditions.get("Ready", {}).get("status") == "True" and not status.get("canaryVersion"):
            return
        refused = [each for each in status.get("refusedVersions") or [] if each.get("digest") == digest]
        if refused:
            raise DemoError(
                f"The new version was taken back: {refused[0].get('reason')}: {refused[0].get('message')}",
                evidence=_conditions(kube, "doctortwin", twin, namespace),
                remedy="on a machine that is busy otherwise answers are slow; run the demo again",
            )
        if (progressing := conditions.get("Progressing")) is not None and status.get("canaryVersion"):
            on_progress(progressing.get("message", ""))
        time.sleep(_POLL_S)
    raise DemoError(
        f"The new version of {twin} does not serve after {_TRIAL_TIMEOUT_S:.0f} s",
        evidence=_conditions(kube, "doctortwin", twin, namespace),
        remedy=f"the conditions above say why; `kubectl twin status {twin} -n {namespace}` shows them again",
    )


def has_learned(kube: Kube, twin: str, *, namespace: str) -> bool:
    """Tell whether the twin has, tries or may still get another version than that of spec.adapter."""
    found = kube.get("doctortwin", twin, "-n", namespace) or {}
    status = found.get("status") or {}
    active = (status.get("activeVersion") or {}).get("digest")
    undecided = any(status.get(each) for each in ("canaryVersion", "pendingVersion"))
    return active != found["spec"]["adapter"]["digest"] or undecided or bool(_unfinished(kube, twin, namespace))


def roll_back(kube: Kube, twin: str, *, namespace: str) -> None:
    """Go back to the version of spec.adapter, and end what is under way.

    Raises:
        DemoError: it does not serve in time.
    """
    for run in _unfinished(kube, twin, namespace):
        kube.kubectl("delete", "finetunerun", run, "-n", namespace, "--timeout=120s", timeout=130)
    found = kube.get("doctortwin", twin, "-n", namespace) or {}
    first = found["spec"]["adapter"]["digest"]
    annotation = f"{names.ROLLBACK_ANNOTATION}={first}@{found['metadata']['resourceVersion']}"
    kube.kubectl("annotate", "--overwrite", "doctortwin", twin, annotation, "-n", namespace)
    await_promotion(kube, twin, first, namespace=namespace, on_progress=lambda _: None)


def next_token(kube: Kube, twin: str, *, namespace: str) -> str:
    """Return a token that the twin has not had; the first is always the same, and so is the first run's seed."""
    found = kube.get("doctortwin", twin, "-n", namespace) or {}
    last = (found["metadata"].get("annotations") or {}).get(names.FINETUNE_NOW_ANNOTATION, "")
    number = last.removeprefix(_TOKEN)
    return f"{_TOKEN}{int(number) + 1 if number.isdecimal() else 1}"


def reviewed(kube: Kube, run: str, *, namespace: str) -> list[Json]:
    """Return the held-out questions with both versions' answers, where they differ most first."""
    found = kube.get("configmap", f"{run}-progress", "-n", namespace) or {}
    text = (found.get("data") or {}).get("review.json")
    return list(json.loads(text)["items"]) if text else []


def _runs(kube: Kube, twin: str, namespace: str) -> set[str]:
    found = kube.items("finetuneruns", "-n", namespace, "-l", f"{names.LABEL_TWIN}={twin}")
    return {str(run["metadata"]["name"]) for run in found}


def _unfinished(kube: Kube, twin: str, namespace: str) -> list[str]:
    found = kube.items("finetuneruns", "-n", namespace, "-l", f"{names.LABEL_TWIN}={twin}")
    return [run["metadata"]["name"] for run in found if not (run.get("status") or {}).get("completionTime")]


def _by_type(obj: Json) -> dict[str, dict[str, Any]]:
    return {condition["type"]: condition for condition in (obj.get("status") or {}).get("conditions") or []}


def _why(run: Json) -> str:
    status = run.get("status") or {}
    failure = status.get("failure") or {}
    if failure:
        return f"{failure.get('class')}: {failure.get('message')}"
    data = _by_type(run).get("DataReady", {})
    if status.get("completionTime") and data.get("status") == "False":
        return str(data.get("message"))
    return "it is not done" if not status.get("completionTime") else "it says no reason"


def _conditions(kube: Kube, kind: str, name: str, namespace: str) -> str:
    found = kube.get(kind, name, "-n", namespace) or {}
    return "\n".join(
        f"{kind} {name}: {each['type']}={each['status']} {each['reason']}: {each['message']}"
        for each in _by_type(found).values()
    )
