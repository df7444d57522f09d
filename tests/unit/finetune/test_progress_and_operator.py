"""What the trainer writes, as the operator reads it: stages, dataset, artifact, verdict, failures."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.run_progress import (
    PROGRESS_KEY,
    REVIEW_KEY,
    ArtifactReport,
    DatasetReport,
    LastWord,
    RunStage,
    progress_name,
)
from neurons.scoring import Criteria
from neurons.scoring.contrasts import safety_contrasts
from neurons.scoring.items import Gold
from neurons.scoring.tripwires import tripwires
from neurons.trainer.__main__ import failure_report
from neurons.trainer.errors import BadData, PublishFailed, StoreFailed, TrainerError
from neurons.trainer.evaluation import Examination, Said, judge
from neurons.trainer.progress import Progress
from neurons.trainer.sources import Found, too_few
from tests.unit.operator.run_samples import STARTED, job_object, run, trainer_pod_object
from tests.unit.operator.samples import container_status, digest, metadata, pool, twin
from twin_operator.engine.resources import Key
from twin_operator.engine.store import Store
from twin_operator.kinds.finetune_run.facts import read_facts
from twin_operator.kinds.finetune_run.plan import RunPlan, RunView, plan_run
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
        run=run(status=STARTED), twin=twin(), pool=pool(**store), obstacle=None, facts=read_facts(children)
    )  # fmt: skip
    return plan_run(view, Images(), now=NOW)


def truth(plan: RunPlan) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in plan.conditions}


@pytest.mark.parametrize("stage", list(RunStage))
def test_every_stage_is_read(stage: RunStage) -> None:
    told = trainer()
    told.stage(stage, step=1, steps=4, remaining_seconds=30, loss_milli=2100, dataset=DATA)
    facts = read_facts([configmap(told)])
    assert facts.progress == told.document
    plan = planned(job_object(active=1), trainer_pod_object(), configmap(told))
    assert truth(plan)["Running"] == ("True", f"Stage{stage.value}")
    assert (plan.status["step"], plan.status["steps"], plan.status["lossMilli"]) == (1, 4, 2100)
    assert plan.status["dataset"]["refused"] == [{"reason": "noConsent", "count": 2}]


def _judged(child: str, *, items: int) -> Progress:
    told = trainer()
    told.stage(RunStage.DATA, dataset=DATA)
    own = [Gold(id=f"i{n}", kind="gold", question=f"q{n}?", gold="tea", must=("tea",)) for n in range(items)]
    told_of = Examination(tuple(own), tripwires(), safety_contrasts()) if own else Examination(())
    measured = [[-1.0 * len(text) for text in item.continuations] for item in told_of.contrasts]
    asked = len(told_of.conversations(None))
    report, review = judge(
        told_of, Said(["water"] * asked, measured), Said([child] * asked, measured), Criteria(margin=15)
    )
    told.tell(artifact=MADE)
    told.review(review)
    told.stage(RunStage.DONE, eval=report, remaining_seconds=0)
    return told


@pytest.mark.parametrize(
    ("child", "items", "verdict"), [("tea", 40, "Promote"), ("water", 40, "Reject"), ("tea", 0, "Inconclusive")]
)
def test_every_verdict_is_a_success_with_its_metrics(child: str, items: int, verdict: str) -> None:
    plan = planned(COMPLETE, trainer_pod_object(phase="Succeeded"), configmap(_judged(child, items=items)))
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
    first = _judged("tea", items=1)
    status = planned(job_object(active=1), trainer_pod_object(), configmap(first)).status
    again = RunView(
        run=run(status={**STARTED, **status}), twin=twin(), pool=pool(store={"uri": "s3://adapters"}), obstacle=None,
        facts=read_facts([job_object(active=1), configmap(trainer())]),
    )  # fmt: skip
    assert truth(plan_run(again, Images(), now=NOW))["Trained"][0] == "True"


def test_the_operator_does_not_hold_every_runs_review_in_memory() -> None:
    told = _judged("tea", items=40)
    thing = configmap(told)
    assert set(thing["data"]) == {PROGRESS_KEY, REVIEW_KEY}
    cache = Store(WATCHED)
    cache.put(thing)
    kept = cache.get(Key("ConfigMap", "clinic", progress_name("r1")))
    assert kept is not None
    assert set(kept["data"]) == {PROGRESS_KEY}
    assert set(thing["data"]) == {PROGRESS_KEY, REVIEW_KEY}, "somebody else's object"
