"""Fine-tune runs for the operator's tests, with their Job, pods and reports as the API server would hand them out."""

from __future__ import annotations

import itertools
from typing import Any

from bettertherapy_api import names
from bettertherapy_api.run_progress import (
    ArtifactReport,
    DatasetReport,
    EvalReport,
    FailureReport,
    MetricReport,
    RunProgress,
    RunStage,
    progress_name,
)
from tests.unit.operator.samples import digest, metadata
from twin_operator.domain.objects import Run, run_from
from twin_operator.kinds.finetune_run.facts import PROMPT_KEY

_numbers = itertools.count()
STARTED = {"pool": "p", "startTime": "2026-01-02T03:00:00Z"}
DATA = DatasetReport(uri="pvc://adapters/store/dr-a/datasets/x", digest=digest("d"), interactions=40)
MADE = ArtifactReport(uri="pvc://adapters/store/dr-a/bb", digest=digest("b"), rank=8, bytes=1000)


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


def job_object(name: str = "r1", *, ended: tuple[str, str] | None = None, **status: Any) -> dict[str, Any]:
    conditions = [{"type": ended[0], "status": "True", "reason": ended[1], "message": "m"}] if ended else []
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(name, labels=_labels("trainer", name)),
        "spec": {"suspend": status.pop("suspend", False)},
        "status": {"conditions": conditions, **status},
    }


def trainer_pod_object(
    attempt: int = 1, *, phase: str = "Running", disruption: str | None = None, name: str = "r1",
    container: dict[str, Any] | None = None, **status: Any,
) -> dict[str, Any]:  # fmt: skip
    conditions = [{"type": "DisruptionTarget", "status": "True", "reason": disruption}] if disruption else []
    pod = f"{name}-{attempt}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **metadata(pod, labels=_labels("trainer", name)), "creationTimestamp": f"2026-01-02T03:0{attempt}:00Z",
        },
        "status": {
            "phase": phase, "conditions": conditions, "containerStatuses": [container] if container else [], **status,
        },
    }  # fmt: skip


def progress(stage: RunStage = RunStage.TRAIN, *, attempt: int = 1, name: str = "r1", **fields: Any) -> RunProgress:
    return RunProgress(attempt=f"uid-{name}-{attempt}", stage=stage, **fields)


def done(verdict: str = "Promote", **fields: Any) -> RunProgress:
    gate = EvalReport(
        verdict=verdict, samples=40, message="71% against 64%",
        metrics=(MetricReport(name="score", value_percent=71, baseline_percent=64, interval_percent=(2, 12)),),
    )  # fmt: skip
    return progress(
        RunStage.DONE, progress_percent=100, dataset=DATA, artifact=MADE, eval=gate, loss_milli=1234, steps=30,
        **fields,
    )  # fmt: skip


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
