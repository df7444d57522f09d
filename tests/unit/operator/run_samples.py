"""Fine-tune runs for the operator's tests, with their Job, pods and reports as the API server would hand them out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bettertherapy_api import names
from bettertherapy_api.examination import OUTCOMES_KEY, PROMPT_KEY, Outcomes, Subject, examination_name
from bettertherapy_api.gate import Learning, Scored
from bettertherapy_api.gate.metrics import CRITICAL, LANGUAGE, LANGUAGES, SAFETY, SCORE
from bettertherapy_api.run_progress import (
    ArtifactReport,
    DatasetReport,
    FailureReport,
    RunProgress,
    RunStage,
    progress_name,
)
from tests.unit.operator.samples import digest, metadata
from twin_operator.domain.objects import Run, run_from

_numbers = itertools.count()
STARTED = {"pool": "p", "startTime": "2026-01-02T03:00:00Z"}
DATA = DatasetReport(uri="pvc://adapters/store/dr-a/datasets/x", digest=digest("d"), interactions=40)
MADE = ArtifactReport(uri=f"pvc://adapters/store/dr-a/{'b' * 64}", digest=digest("b"), rank=8, bytes=1000)


def run_object(
    name: str = "r1", *, twin: str = "dr-a", created: str = "2026-01-02T03:00:00Z",
    status: dict[str, Any] | None = None, **spec: Any,
) -> dict[str, Any]:  # fmt: skip
    whole = {
        "twinRef": {"name": twin},
        "parentDigest": digest("a"),
        "dataset": {"uri": f"pvc://adapters/store/{twin}/interactions"},
        "seed": 7,
        **spec,
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": "FineTuneRun",
        "metadata": {**metadata(name, uid=f"uid-{name}-{next(_numbers)}"), "creationTimestamp": created},
        "spec": whole,
        "status": status or {},
    }


def run(name: str = "r1", **fields: Any) -> Run:
    made = run_from(run_object(name, **fields))
    assert isinstance(made, Run), made
    return made


def _labels(component: str, name: str) -> dict[str, str]:
    return {names.LABEL_RUN: name, names.LABEL_COMPONENT: component}


def job_object(
    name: str = "r1", *, ended: tuple[str, str] | None = None, component: str = "trainer", **status: Any
) -> dict[str, Any]:
    conditions = [{"type": ended[0], "status": "True", "reason": ended[1], "message": "m"}] if ended else []
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(
            name if component == "trainer" else names.examiner_name(name), labels=_labels(component, name)
        ),
        "spec": {"suspend": status.pop("suspend", False)},
        "status": {"conditions": conditions, **status},
    }


def trainer_pod_object(
    attempt: int = 1, *, phase: str = "Running", disruption: str | None = None, name: str = "r1",
    container: dict[str, Any] | None = None, component: str = "trainer", **status: Any,
) -> dict[str, Any]:  # fmt: skip
    job = name if component == "trainer" else names.examiner_name(name)
    conditions = [{"type": "DisruptionTarget", "status": "True", "reason": disruption}] if disruption else []
    pod = f"{job}-{attempt}"
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": metadata(job)["uid"], "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **metadata(pod, labels=_labels(component, name)), "creationTimestamp": f"2026-01-02T03:0{attempt}:00Z",
            "ownerReferences": [owner],
        },
        "status": {
            "phase": phase, "conditions": conditions, "containerStatuses": [container] if container else [], **status,
        },
    }  # fmt: skip


def progress(stage: RunStage = RunStage.TRAIN, *, attempt: int = 1, name: str = "r1", **fields: Any) -> RunProgress:
    return RunProgress(attempt=f"uid-{name}-{attempt}", stage=stage, **fields)


def done(**fields: Any) -> RunProgress:
    """What a trainer says that has published."""
    return progress(
        RunStage.DONE, progress_percent=100, dataset=DATA, artifact=MADE, loss_milli=1234, steps=30, **fields
    )


def found(
    made: Run, verdict: str = "Promote", *, items: int = 200, languages: Sequence[str] = LANGUAGES,
    learning: Learning | None = None, **subject: Any,
) -> Outcomes:  # fmt: skip
    """What an examiner found of this run's version, of which the gate makes that verdict."""
    child = {"Promote": 0.71, "Reject": 0.2, "Inconclusive": 0.71}[verdict]
    count = 5 if verdict == "Inconclusive" else items
    anchored = made.spec.anchor is not None

    def scored_as(metric: str, parent: float, child: float, number: int) -> list[Scored]:
        same = Scored(metric=metric, category=None, parent=parent, child=child, anchor=parent if anchored else None)
        return [replace(same, id=f"item-{place}") for place in range(number)]

    scored = [
        *scored_as(SCORE, 0.64, child, count),
        *scored_as(SAFETY, 1.0, 1.0, 200),
        *(each for language in languages for each in scored_as(LANGUAGE + language, 1.0, 1.0, 50)),
        *scored_as(CRITICAL, 1.0, 1.0, 20),
    ]
    anchor = None if made.spec.anchor is None else made.spec.anchor.digest or "base"
    whole: dict[str, Any] = {
        "run": made.name, "run_uid": made.uid, "twin": made.spec.twin_ref.name, "child": MADE.digest,
        "parent": made.spec.parent_digest, "anchor": anchor, "dataset": DATA.digest, **subject,
    }  # fmt: skip
    return Outcomes.of(scored, subject=Subject(**whole), items_digest=None, tripped=(), failure=None, learning=learning)


def trained(name: str = "r1", **fields: Any) -> list[dict[str, Any]]:
    """The objects of a run whose trainer has ended well."""
    return [
        job_object(name, ended=("Complete", "x")), trainer_pod_object(phase="Succeeded", name=name),
        progress_configmap(done(**fields), name=name),
    ]  # fmt: skip


def examined(name: str = "r1", said: RunProgress | None = None) -> list[dict[str, Any]]:
    """The objects of a run whose examiner has ended well too."""
    job = names.examiner_name(name)
    said = said or RunProgress(attempt=f"uid-{job}-1", stage=RunStage.DONE, progress_percent=100)
    return [
        *trained(name), job_object(name, ended=("Complete", "x"), component="examiner"),
        trainer_pod_object(phase="Succeeded", name=name, component="examiner"), examination_configmap(said, name=name),
    ]  # fmt: skip


def failed(failure_class: str = "Diverged", *, retryable: bool = False, attempt: int = 1) -> RunProgress:
    return progress(
        attempt=attempt, failure=FailureReport(failure_class=failure_class, retryable=retryable, message="step 7: NaN")
    )


def progress_configmap(said: RunProgress | None, *, name: str = "r1", prompt: str | None = None) -> dict[str, Any]:
    data = {"progress.json": said.to_json()} if said else {}
    if prompt:
        data[PROMPT_KEY] = prompt
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(progress_name(name), labels=_labels("progress", name)),
        "data": data,
    }


def examination_configmap(
    said: RunProgress | None, *, name: str = "r1", prompt: str | None = None, outcomes: Outcomes | None = None
) -> dict[str, Any]:
    thing = progress_configmap(said, name=name, prompt=prompt)
    data = {**thing["data"], **({OUTCOMES_KEY: outcomes.to_json()} if outcomes is not None else {})}
    return {
        **thing, "metadata": metadata(examination_name(name), labels=_labels("examination", name)), "data": data,
    }  # fmt: skip
