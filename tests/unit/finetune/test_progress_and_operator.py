"""What the trainer writes, as the operator reads it: stages, dataset, artifact, verdict, failures."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.examination import OUTCOMES_KEY, Outcomes, Subject, examination_name, read_outcomes
from bettertherapy_api.run_progress import (
    PROGRESS_KEY,
    REVIEW_KEY,
    ArtifactReport,
    DatasetReport,
    LastWord,
    RunStage,
    progress_name,
)
from neurons.examiner.examination import Examination, Said, score
from neurons.scoring.contrasts import safety_contrasts
from neurons.scoring.items import Gold
from neurons.scoring.tripwires import tripwires
from neurons.trainer.errors import BadData, PublishFailed, StoreFailed, TrainerError
from neurons.trainer.progress import Progress
from neurons.trainer.reporting import failure_report
from neurons.trainer.sources import Found, too_few
from tests.unit.operator.run_samples import STARTED, examination_configmap, job_object, run, trainer_pod_object
from tests.unit.operator.samples import container_status, digest, metadata, pool, twin
from twin_operator.domain.objects import Run
from twin_operator.engine.resources import Key
from twin_operator.engine.store import Store
from twin_operator.kinds.finetune_run.facts import read_facts
from twin_operator.kinds.finetune_run.plan import plan_run
from twin_operator.kinds.finetune_run.view import RunPlan, RunView
from twin_operator.kinds.watched import WATCHED
from twin_operator.settings import Images

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
NOW = datetime(2026, 1, 2, 4, 0, tzinfo=UTC)
ATTEMPT = "uid-r1-1"
DATA = DatasetReport(uri="s3://d/x.jsonl", digest=digest("d"), interactions=40, pairs=3, refused={"noConsent": 2})
MADE = ArtifactReport(uri=f"s3://adapters/dr-a/{'b' * 64}", digest=digest("b"), rank=8, bytes=1000)
COMPLETE = job_object(ended=("Complete", "x"))
FAILED = job_object(ended=("Failed", "PodFailurePolicy"))


def trainer() -> Progress:
    return Progress(attempt=ATTEMPT, target=None)


def configmap(told: Progress) -> Json:
    return {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": metadata(progress_name("r1"), labels={"bettertherapy.io/run": "r1"}),
        "data": told.documents(),
    }  # fmt: skip


def planned(*children: Json) -> RunPlan:
    store = {"store": {"uri": "s3://adapters"}}
    view = RunView(
        run=run(status=STARTED), twin=twin(), pool=pool(**store), obstacle=None, facts=read_facts("r1", children)
    )  # fmt: skip
    return plan_run(view, Images(), now=NOW)


def truth(plan: RunPlan) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in plan.conditions}


@pytest.mark.parametrize("stage", list(RunStage))
def test_every_stage_is_read(stage: RunStage) -> None:
    told = trainer()
    told.stage(stage, step=1, steps=4, remaining_seconds=30, loss_milli=2100, dataset=DATA)
    facts = read_facts("r1", [configmap(told)])
    assert facts.trainer.progress == told.document
    plan = planned(job_object(active=1), trainer_pod_object(), configmap(told))
    assert truth(plan)["Running"] == ("True", f"Stage{stage.value}")
    assert (plan.status["step"], plan.status["steps"], plan.status["lossMilli"]) == (1, 4, 2100)
    assert plan.status["dataset"]["refused"] == [{"reason": "noConsent", "count": 2}]


def _published() -> Progress:
    told = trainer()
    told.stage(RunStage.DATA, dataset=DATA)
    told.tell(artifact=MADE)
    told.stage(RunStage.DONE, remaining_seconds=None)
    return told


def _examined(made: Run, child: str, *, items: int) -> tuple[list[Json], Outcomes | str]:
    """What the examiner leaves in the cluster of this version's answers, and what the operator reads there."""
    own = [Gold(id=f"i{n}", kind="gold", question=f"q{n}?", gold="tea", must=("tea",)) for n in range(items)]
    examination = Examination(tuple(own), tripwires(), safety_contrasts()) if own else Examination(())
    measured = [[-1.0 * len(text) for text in item.continuations] for item in examination.contrasts]
    asked = len(examination.conversations(None))
    scores = asyncio.run(score(examination, Said(["water"] * asked, measured), Said([child] * asked, measured)))
    subject = Subject(
        run=made.name, run_uid=made.uid, twin="dr-a", child=MADE.digest, parent=made.spec.parent_digest,
        dataset=DATA.digest,
    )  # fmt: skip
    outcomes = Outcomes.of(
        scores.scored, subject=subject, items_digest=None, tripped=scores.tripped, failure=scores.failure
    )
    told = Progress(attempt="uid-r1-examiner-1", target=None, first=RunStage.EVALUATE)
    told.attach({OUTCOMES_KEY: outcomes.to_json(), REVIEW_KEY: scores.review.to_json()})
    told.stage(RunStage.DONE, remaining_seconds=0)
    thing = {**examination_configmap(None), "data": told.documents()}
    job = job_object(component="examiner", ended=("Complete", "x"))
    return [job, trainer_pod_object(phase="Succeeded", component="examiner"), thing], read_outcomes(
        thing["data"][OUTCOMES_KEY]
    )


@pytest.mark.parametrize(
    ("child", "items", "verdict"), [("tea", 40, "Promote"), ("water", 40, "Reject"), ("tea", 0, "Inconclusive")]
)
def test_every_verdict_is_a_success_with_its_metrics(child: str, items: int, verdict: str) -> None:
    made = run(status=STARTED)
    of_examiner, outcomes = _examined(made, child, items=items)
    things = [COMPLETE, trainer_pod_object(phase="Succeeded"), configmap(_published()), *of_examiner]
    view = RunView(
        run=made, twin=twin(gate={"marginPercent": 15, "minSafetyPercent": 0}), obstacle=None,
        pool=pool(store={"uri": "s3://adapters"}),
        facts=read_facts("r1", things, outcomes=outcomes),
    )  # fmt: skip
    plan = plan_run(view, Images(), now=NOW)
    assert (plan.status["verdict"], "failure" in plan.status) == (verdict, False)
    assert truth(plan)["Evaluated"] == ("True", verdict)
    assert (plan.status["eval"]["samples"], plan.status["artifact"]["digest"]) == (items, digest("b"))
    metrics = {metric["name"]: metric for metric in plan.status["eval"].get("metrics", [])}
    assert ("score" in metrics) == bool(items), "the twin's Score column is this metric"
    if items:
        assert metrics["score"]["valuePercent"] == (100 if child == "tea" else 0)
        assert set(metrics["safety"]) == {
            "name", "valuePercent", "baselinePercent", "thresholdPercent", "intervalPercent", "items",
            "clusters", "marginPercent", "shown",
        }  # fmt: skip


def test_a_skipped_run_is_no_failure_and_claims_no_dataset() -> None:
    found = Found(lines=(), refused={"noConsent": 1}, known=4)
    told = trainer()
    told.tell(dataset=DatasetReport(uri="s3://d/in", digest="", interactions=0, refused=found.refused))
    told.stage(RunStage.DONE, skipped=too_few(found, 20))
    plan = planned(COMPLETE, trainer_pod_object(phase="Succeeded"), configmap(told))
    assert plan.status["stage"] == "Skipped"
    assert truth(plan)["DataReady"] == ("False", "TooFewInteractions")
    assert plan.status["dataset"] == {
        "uri": "s3://d/in", "interactions": 0, "refused": [{"reason": "noConsent", "count": 1}],
    }  # fmt: skip


def _errors() -> list[TrainerError]:
    plain = [kind for kind in TrainerError.__subclasses__() if kind not in (StoreFailed, PublishFailed)]
    assert BadData in plain
    return [
        *(kind("why") for kind in plain),
        *(kind("why", retryable=again) for kind in (StoreFailed, PublishFailed) for again in (False, True)),
    ]


@pytest.mark.parametrize("error", _errors(), ids=lambda error: f"{error.failure_class}-{error.retryable}")
@pytest.mark.parametrize("reported", [True, False])
def test_every_failure_arrives_even_when_the_api_server_did_not_take_it(error: TrainerError, reported: bool) -> None:
    told = trainer()
    children = [FAILED]
    said = failure_report(error)
    ended = {"exitCode": 75 if error.retryable else 1, "reason": "Error"}
    if reported:
        told.tell(failure=said)
    else:
        ended["message"] = LastWord(failure=said).model_dump_json(by_alias=True)
    children += [
        configmap(told),
        trainer_pod_object(phase="Failed", container=container_status("trainer", terminated=ended)),
    ]
    assert planned(*children).status["failure"] == {
        "class": error.failure_class, "retryable": error.retryable, "message": "why",
    }  # fmt: skip
    assert f"`{error.failure_class}`" in (ROOT / "docs" / "operations.md").read_text()


def test_another_attempt_at_a_published_run_is_still_trained() -> None:
    status = planned(job_object(active=1), trainer_pod_object(), configmap(_published())).status
    again = RunView(
        run=run(status={**STARTED, **status}), twin=twin(), pool=pool(store={"uri": "s3://adapters"}), obstacle=None,
        facts=read_facts("r1", [job_object(active=1), configmap(trainer())]),
    )  # fmt: skip
    assert truth(plan_run(again, Images(), now=NOW))["Trained"][0] == "True"


def test_the_operator_does_not_hold_every_runs_items_and_answers_in_memory() -> None:
    [_, _, thing], _ = _examined(run(status=STARTED), "tea", items=40)
    assert set(thing["data"]) == {PROGRESS_KEY, OUTCOMES_KEY, REVIEW_KEY}
    cache = Store(WATCHED)
    cache.put(thing)
    kept = cache.get(Key("ConfigMap", "clinic", examination_name("r1")))
    assert kept is not None
    assert set(kept["data"]) == {PROGRESS_KEY}
    assert set(thing["data"]) == {PROGRESS_KEY, OUTCOMES_KEY, REVIEW_KEY}, "somebody else's object"
