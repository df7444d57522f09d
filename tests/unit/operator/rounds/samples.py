"""Rounds for the operator's tests, with their Jobs, pods and reports as the API server would hand them out."""

from __future__ import annotations

import itertools
from typing import Any

from bettertherapy_api import names
from bettertherapy_api.round_progress import (
    MetricsReport,
    MinersReport,
    QuorumReport,
    RoundProgress,
    RoundStage,
    ScoreReport,
    WeightsProgress,
    progress_name,
)
from bettertherapy_api.run_progress import FailureReport
from tests.unit.operator.samples import digest, metadata
from tests.unit.operator.validator.validators import validator
from twin_operator.domain.objects import Round, round_from
from twin_operator.engine.conditions import Condition
from twin_operator.kinds.validator_round.facts import RoundFacts, read_facts
from twin_operator.kinds.validator_round.order import order_of
from twin_operator.kinds.validator_round.plan import RoundPlan

_numbers = itertools.count()
START = "2026-01-02T03:00:00Z"
STARTED = {"startTime": START, "validatorUID": "uid-v", "seed": 7}
HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
ALL: dict[str, Any] = {"rounds": {}, "rewards": {}}
"""Of a validator's spec."""


def round_object(
    name: str = "r1", *, created: str = START, status: dict[str, Any] | None = None, owner: str | None = None,
    annotations: dict[str, str] | None = None, uid: str | None = None, **spec: Any,
) -> dict[str, Any]:  # fmt: skip
    owned = [{"kind": "Validator", "name": "v", "uid": owner, "controller": True}] if owner else []
    return {
        "apiVersion": names.API_VERSION,
        "kind": "ValidatorRound",
        "metadata": {
            **metadata(name, uid=uid or f"uid-{name}-{next(_numbers)}"), "creationTimestamp": created,
            "ownerReferences": owned, "annotations": annotations or {},
        },
        "spec": {"validatorRef": {"name": "v"}, **spec},
        "status": status or {},
    }  # fmt: skip


def round_(name: str = "r1", **fields: Any) -> Round:
    made = round_from(round_object(name, **fields))
    assert isinstance(made, Round), made
    return made


def job_object(
    name: str = "r1", *, ended: tuple[str, str] | None = None, of: str = "r1", **status: Any
) -> dict[str, Any]:
    conditions = [{"type": ended[0], "status": "True", "reason": ended[1], "message": "m"}] if ended else []
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(name, labels={names.LABEL_ROUND: of}),
        "spec": {},
        "status": {"conditions": conditions, **status},
    }


def pod_object(
    attempt: int = 1, *, job: str = "r1", phase: str = "Running", disruption: str | None = None,
    container: dict[str, Any] | None = None, **status: Any,
) -> dict[str, Any]:  # fmt: skip
    conditions = [{"type": "DisruptionTarget", "status": "True", "reason": disruption}] if disruption else []
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **metadata(f"{job}-{attempt}", labels={names.LABEL_ROUND: "r1", names.LABEL_COMPONENT: "round"}),
            "creationTimestamp": f"2026-01-02T03:0{attempt}:00Z", "ownerReferences": [{"uid": f"uid-{job}"}],
        },
        "status": {
            "phase": phase, "conditions": conditions, "containerStatuses": [container] if container else [], **status,
        },
    }  # fmt: skip


def ended_container(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    """The container of a pod that failed."""
    return {
        "name": "round", "image": "n:1",
        "state": {"terminated": {"exitCode": code, "reason": reason, "message": message}},
    }  # fmt: skip


def progress(stage: RoundStage = RoundStage.ASK, *, attempt: int = 1, **fields: Any) -> RoundProgress:
    return RoundProgress(attempt=f"uid-r1-{attempt}", stage=stage, **fields)


def done(**fields: Any) -> RoundProgress:
    values: dict[str, Any] = {
        "results_digest": digest("d"), "items": 40, "completion_time": "2026-01-02T03:03:12Z",
        "miners": MinersReport(queried=20, scored=18, failed=2), "quorum": QuorumReport(reached=True, needed=10),
        "metrics": MetricsReport(fresh=True, message="4 s old"),
        "top": (ScoreReport(uid=7, hotkey=HOTKEY, score_percent=91, correctness_percent=95),),
        **fields,
    }  # fmt: skip
    return progress(RoundStage.DONE, **values)


def failed(failure_class: str = "LedgerUnreachable", *, retryable: bool = True, attempt: int = 1) -> RoundProgress:
    said = FailureReport(failure_class=failure_class, retryable=retryable, message="the database is away")
    return progress(attempt=attempt, failure=said)


def weights(state: str, reason: str = "Because", **fields: Any) -> WeightsProgress:
    return WeightsProgress.model_validate({"attempt": "uid-r1-weights-1", "state": state, "reason": reason, **fields})


def configmap(
    made: Round, said: RoundProgress | None = None, *, weights: WeightsProgress | None = None, spec: Any = None,
    recomputed: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    data = {"round.json": order_of(made, validator(**(ALL if spec is None else spec))).to_json()}
    if said is not None:
        data["progress.json"] = said.to_json()
    if weights is not None:
        data["weights.json"] = weights.to_json()
    if recomputed is not None:
        data["recomputed.json"] = recomputed
    return {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": metadata(progress_name(made.name), labels={names.LABEL_ROUND: made.name}), "data": data,
    }  # fmt: skip


def facts(made: Round, *children: dict[str, Any]) -> RoundFacts:
    return read_facts(made, children)


def truth(plan: RoundPlan) -> dict[str, tuple[str, str]]:
    return {each.type: (each.status, each.reason) for each in plan.conditions}


def message(plan: RoundPlan, kind: str) -> str:
    return next(each.message for each in plan.conditions if each.type == kind)


def as_status(plan: RoundPlan) -> dict[str, Any]:
    def dated(condition: Condition) -> dict[str, Any]:
        return {
            "type": condition.type, "status": condition.status, "reason": condition.reason,
            "message": condition.message, "lastTransitionTime": "2026-01-02T03:04:05Z",
        }  # fmt: skip

    return {
        **{key: value for key, value in plan.status.items() if value is not None},
        "conditions": [dated(each) for each in plan.conditions],
    }  # fmt: skip
