"""A fine-tune as a person watches it: asked for, followed to its verdict; then the version on trial."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bettertherapy_api import names
from demo.errors import DemoError
from demo.kube import Json, Kube, troubled_pods
from kubectl_twin import finetune
from kubectl_twin.api import Api
from kubectl_twin.errors import TwinCliError
from kubectl_twin.finetune import Clock
from kubectl_twin.runs import progress_text

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


def fine_tune(kube: Kube, twin: str, *, namespace: str, token: str, on_progress: Say) -> Outcome:
    """Ask for a fine-tune now, as `kubectl twin finetune` does, and follow it to its verdict.

    Raises:
        DemoError: it did not begin, failed, was skipped or took too long; with conditions, events and logs.
    """
    with Api.connect(kubeconfig=kube.kubeconfig) as api:
        try:
            run = finetune.start(api, namespace=namespace, name=twin, token=token)
        except TwinCliError as error:
            raise DemoError(
                f"No fine-tune of {twin} was started: {error}",
                evidence=_conditions(kube, "doctortwin", twin, namespace),
                remedy=f"the twin's conditions above say what it waits for; `kubectl get finetuneruns -n {namespace}`",
            ) from error
        try:
            ended = finetune.follow(
                api,
                namespace=namespace,
                run=run,
                on_change=lambda found: on_progress(progress_text(found)),
                clock=_patient_for(_RUN_TIMEOUT_S),
            )
            return Outcome.of(ended)
        except (KeyError, TwinCliError) as error:
            why = str(error) if isinstance(error, TwinCliError) else _why(ended)
            raise DemoError(
                f"The fine-tune {run} came to no verdict: {why}",
                evidence="\n".join(
                    [
                        _conditions(kube, "finetunerun", run, namespace),
                        troubled_pods(kube, namespace, f"{names.LABEL_RUN}={run}"),
                    ]
                ),
                remedy=f"`kubectl logs -n {namespace} job/{run}` has its log; running the demo again tries again",
            ) from error


def _patient_for(seconds: float) -> Clock:
    """Return a clock that does not let anybody wait longer. Its sleep raises TwinCliError."""
    deadline = time.monotonic() + seconds

    def sleep(duration: float) -> None:
        if time.monotonic() > deadline:
            raise TwinCliError(f"it is not done after {seconds:.0f} s")
        time.sleep(duration)

    return Clock(sleep=sleep)


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


def _unfinished(kube: Kube, twin: str, namespace: str) -> list[str]:
    found = kube.items("finetuneruns", "-n", namespace, "-l", f"{names.LABEL_TWIN}={twin}")
    return [run["metadata"]["name"] for run in found if not (run.get("status") or {}).get("completionTime")]


def _by_type(obj: Json) -> dict[str, dict[str, Any]]:
    return {condition["type"]: condition for condition in (obj.get("status") or {}).get("conditions") or []}


def _why(run: Json) -> str:
    """Return why an ended run has no verdict."""
    failure = (run.get("status") or {}).get("failure") or {}
    if failure:
        return f"{failure.get('class')}: {failure.get('message')}"
    data = _by_type(run).get("DataReady", {})
    return str(data.get("message")) if data.get("status") == "False" else "it says no reason"


def _conditions(kube: Kube, kind: str, name: str, namespace: str) -> str:
    found = kube.get(kind, name, "-n", namespace) or {}
    return "\n".join(
        f"{kind} {name}: {each['type']}={each['status']} {each['reason']}: {each['message']}"
        for each in _by_type(found).values()
    )
