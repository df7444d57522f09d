"""Whatever is stored or reported, nothing raises, and every status that follows from it is one the API server takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bettertherapy_api import names
from bettertherapy_api.report import AdapterReport
from bettertherapy_api.run_progress import ArtifactReport, RunProgress, read_progress
from tests.unit.operator.documents import (
    WORDS,
    anything,
    fitting,
    refusals,
    reports,
    schema_of,
    thing,
)
from tests.unit.operator.run_samples import (
    STARTED,
    done,
    job_object,
    progress_configmap,
    run_object,
    trainer_pod_object,
)
from tests.unit.operator.samples import digest, pool, pool_object, twin_object
from twin_operator.domain.appearances import appears
from twin_operator.domain.bounds import Bounds
from twin_operator.domain.canary_analysis import Analysis, Outlook
from twin_operator.domain.objects import Pool, Run, Twin, Unreadable, pool_from, run_from, twin_from
from twin_operator.domain.pool_checks import TROUBLE, Situation, no_tokens, pool_conditions
from twin_operator.domain.pool_facts import DeploymentFacts, PoolFacts, facts_of, pod_facts
from twin_operator.domain.pool_update import Pace
from twin_operator.domain.reasons import Reason
from twin_operator.domain.rollout import plan_rollout
from twin_operator.domain.routing import Candidate, plan_entry, refusal, wanted_adapter
from twin_operator.domain.training_pool import choose_pool
from twin_operator.domain.twin_view import Failure, PoolView, TwinView
from twin_operator.domain.unreadable import conditions_of
from twin_operator.engine.conditions import Condition, Finding, dated
from twin_operator.engine.status import without_none
from twin_operator.engine.times import timestamp
from twin_operator.kinds.doctor_twin.checks import twin_conditions
from twin_operator.kinds.doctor_twin.fine_tunes import plan_fine_tune
from twin_operator.kinds.doctor_twin.plan import plan_status as plan_twin_status
from twin_operator.kinds.finetune_run.facts import read_facts
from twin_operator.kinds.finetune_run.plan import plan_run
from twin_operator.kinds.finetune_run.view import RunView
from twin_operator.kinds.miner_pool.plan import Gathered, plan_children, plan_status
from twin_operator.kinds.watched import decode_report
from twin_operator.kinds.world import Published
from twin_operator.settings import Images

NOW = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)
MANY = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


def assert_taken(kind: str, status: dict[str, Any], conditions: Sequence[Condition], *, before: Any = None) -> None:
    """The status with its conditions is one that the API server takes, and each reason may stand where it does."""
    live = (before or {}).get("conditions") if isinstance(before, dict) else None
    said = dated(conditions, live=live or [], generation=1, now=NOW)
    assert refusals(kind, without_none({**status, "conditions": said})) == []
    assert len({each.type for each in conditions}) == len(conditions)
    kept = {(each["type"], each["reason"]) for each in live or []}
    for each in conditions:
        if (each.type, each.reason) not in kept:
            assert each.reason in appears(kind, each.type, each.status), each


def readable(kind: str, found: Pool | Twin | Run | Unreadable) -> bool:
    if not isinstance(found, Unreadable):
        return True
    assert_taken(kind, {}, conditions_of(kind, found))
    return False


def spec(kind: str) -> st.SearchStrategy[Any]:
    return fitting(schema_of(kind)["properties"]["spec"])


def status(kind: str) -> st.SearchStrategy[Any]:
    return fitting(schema_of(kind)["properties"]["status"])


def known_twin(adapter: str | None = "a", **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = twin_object(adapter=adapter, **fields)["spec"]
    return made


@st.composite
def twins(draw: st.DrawFn) -> dict[str, Any]:
    whole = draw(
        spec("DoctorTwin")
        | st.fixed_dictionaries(
            {
                **{name: st.just(value) for name, value in known_twin().items()},
            },
            optional={
                "fineTune": fitting(schema_of("DoctorTwin")["properties"]["spec"]["properties"]["fineTune"], odd=False)
            },
        )
    )
    said = draw(st.just({}) | status("DoctorTwin"))
    notes = draw(st.dictionaries(
        st.sampled_from([
            names.APPROVE_ANNOTATION, names.REJECT_ANNOTATION, names.ROLLBACK_ANNOTATION, names.FINETUNE_NOW_ANNOTATION,
            names.REJECT_REASON_ANNOTATION,
        ]), st.sampled_from(WORDS) | st.text(max_size=200), max_size=3,
    ))  # fmt: skip
    if isinstance(said, dict) and draw(st.booleans()):
        said = {**said, "specDigest": digest("a")}
    return thing("DoctorTwin", "dr-a", spec=whole, status=said, annotations=notes)


@st.composite
def runs(draw: st.DrawFn) -> dict[str, Any]:
    whole = draw(spec("FineTuneRun") | st.just(run_object()["spec"]))
    said = draw(st.just({}) | st.just(dict(STARTED)) | status("FineTuneRun"))
    return thing("FineTuneRun", "r1", spec=whole, status=said)


@st.composite
def facts(draw: st.DrawFn) -> PoolFacts:
    pods, said = [], {}
    for name in ("e1", "e2", "m1"):
        ready = draw(st.booleans())
        pods.append(pod_facts({
            "kind": "Pod",
            "metadata": {
                "name": name, "namespace": "clinic", "uid": f"uid-{name}",
                "labels": {names.LABEL_COMPONENT: "miner" if name == "m1" else "engine"},
            },
            "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
        }))  # fmt: skip
        body = draw(reports())
        decoded = decode_report({
            **body, "kind": "PodReport", "pod": {"name": name, "uid": f"uid-{name}"},
            "metadata": {"name": name, "ownerReferences": [{"kind": "Pod", "uid": f"uid-{name}"}]},
        }, None)  # fmt: skip
        if decoded.report is not None:
            said[name] = decoded.report
    deployments = {
        name: DeploymentFacts(wanted=1, current=1, updated=1, ready=draw(st.integers(0, 1)), seen=True)
        for name in ("p-engine", "p-miner")
    }
    return facts_of("p", pods=pods, deployments=deployments, reports=said)


@MANY
@given(
    pool_spec=spec("MinerPool") | st.just(pool_object()["spec"]), observed=facts(),
    unpublished=st.none() | st.sampled_from(WORDS).map(lambda why: Finding(Reason.ROUTING_REFUSED, why)),
    access=st.none() | st.just(no_tokens("p-access")),
)  # fmt: skip
def test_a_pool_is_planned_and_its_status_taken(
    pool_spec: Any, observed: PoolFacts, unpublished: Finding | None, access: Finding | None
) -> None:
    pool = pool_from(thing("MinerPool", "p", spec=pool_spec, status={}))
    if not readable("MinerPool", pool):
        return
    assert isinstance(pool, Pool)
    gathered = Gathered(pool=pool, facts=observed, published=Published(slices={}, keys={}), unpublished=unpublished)
    planned = plan_children(gathered, Images(), Pace(), now=NOW)
    said, conditions = plan_status(replace(gathered, sizing=planned.sizing))
    assert_taken("MinerPool", said, conditions)
    assert_taken("MinerPool", {}, pool_conditions(Situation(pool=pool, facts=observed, access_missing=access)))


@MANY
@given(
    stored=twins(), run=runs(), observed=facts(), pool_spec=spec("MinerPool") | st.just(pool_object()["spec"]),
    outlook=st.sampled_from(Outlook),
)  # fmt: skip
def test_a_twin_is_planned_and_its_status_taken(
    stored: dict[str, Any], run: dict[str, Any], observed: PoolFacts, pool_spec: Any, outlook: Outlook
) -> None:
    twin = twin_from(stored)
    if not readable("DoctorTwin", twin):
        return
    assert isinstance(twin, Twin)
    pool, made = pool_from(thing("MinerPool", "p", spec=pool_spec, status={})), run_from(run)
    views = []
    if isinstance(pool, Pool):
        refused = refusal(pool, twin, Bounds())
        entry = plan_entry(pool, Candidate(twin=twin, refused=refused), previous=None, ready=observed.ready)
        views = [
            PoolView(
                pool=pool, facts=observed, entry=entry, lora_twins=1, unpublished=None, published=True,
                matches=twin.spec.pool_selector.matches(dict(pool.labels)), refused=refused,
                trouble=TROUBLE.evaluate(Situation(pool=pool, facts=observed)),
            )
        ]  # fmt: skip
    view = TwinView(twin=twin, wanted=wanted_adapter(twin), pools=views, runs=[made] if isinstance(made, Run) else [])
    chosen = choose_pool(twin, [each.pool for each in views])
    fine_tunes = plan_fine_tune(twin, view.runs, chosen, now=NOW, window_seconds=3600)
    rollout = plan_rollout(view, Analysis(outlook=outlook, reason=Reason.LATENCY, message="m" * 3000), now=NOW)
    said = plan_twin_status(view, now=timestamp(NOW), fine_tunes=fine_tunes, rollout=rollout)
    assert_taken("DoctorTwin", said, twin_conditions(view, fine_tunes, rollout), before=stored["status"])


SCORE_101 = {"name": "score", "valuePercent": 101}
GOOD = json.loads(done().to_json())


@st.composite
def told(draw: st.DrawFn) -> str:
    """A trainer's report in which one part is something else; or anything."""
    document = json.loads(done().to_json())
    for _ in range(draw(st.integers(0, 2))):
        part = document
        while True:
            key = draw(st.sampled_from(sorted(part)))
            if isinstance(part[key], dict) and part[key] and draw(st.booleans()):
                part = part[key]
                continue
            if isinstance(part[key], list) and part[key] and isinstance(part[key][0], dict) and draw(st.booleans()):
                part = part[key][0]
                continue
            part[key] = draw(anything)
            break
    if draw(st.booleans()):
        document["failure"] = {
            "class": draw(st.sampled_from(WORDS)), "retryable": draw(st.booleans()),
            "message": draw(st.sampled_from(WORDS)),
        }  # fmt: skip
    return draw(st.just(json.dumps(document)) | anything.map(json.dumps) | st.text(max_size=20))


@MANY
@given(
    stored=runs(), text=told(), phase=st.sampled_from(["Running", "Pending", "Failed", "Succeeded"]),
    ended=st.sampled_from(
        [None, ("Failed", "BackoffLimitExceeded"), ("Complete", "Done"), ("Failed", "DeadlineExceeded")]
    ),
    owner=twins() | st.just(None),
)  # fmt: skip
@example(
    stored=run_object(status=STARTED), text=json.dumps({**GOOD, "step": -7}),
    phase="Running", ended=None, owner=None,
)  # fmt: skip
def test_a_run_is_planned_and_its_status_taken(
    stored: dict[str, Any], text: str, phase: str, ended: tuple[str, str] | None, owner: dict[str, Any] | None
) -> None:
    run, pool = run_from(stored), pool_from(pool_object(store={"uri": "pvc://adapters/store"}))
    if not readable("FineTuneRun", run):
        return
    assert isinstance(run, Run)
    assert isinstance(pool, Pool)
    configmap = {**progress_configmap(None), "data": {"progress.json": text}}
    observed = read_facts("r1", [job_object(ended=ended), trainer_pod_object(phase=phase), configmap])
    twin = twin_from(owner) if owner is not None else None
    view = RunView(run=run, twin=twin if isinstance(twin, Twin) else None, pool=pool, obstacle=None, facts=observed)
    plan = plan_run(view, Images(), now=NOW)
    assert_taken("FineTuneRun", plan.status, plan.conditions, before=stored["status"])


def report_with(**parts: Any) -> str:
    return json.dumps({**GOOD, **parts})


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"artifact": {**GOOD["artifact"], "digest": "garbage"}}, "artifact.digest"),
        ({"artifact": {**GOOD["artifact"], "rank": 0}}, "artifact.rank"),
        ({"artifact": {**GOOD["artifact"], "uri": ""}}, "artifact.uri"),
        ({"artifact": {**GOOD["artifact"], "uri": "  "}}, "artifact.uri"),
        ({"artifact": {**GOOD["artifact"], "uri": "/adapters/x"}}, "artifact.uri"),
        ({"dataset": {**GOOD["dataset"], "interactions": -1}}, "dataset.interactions"),
        ({"dataset": {**GOOD["dataset"], "repaired": {"x": -1}}}, "dataset.repaired.x"),
        ({"dataset": {**GOOD["dataset"], "repaired": {"x": 10**30}}}, "dataset.repaired.x"),
        ({"dataset": {**GOOD["dataset"], "repaired": {"": 1}}}, "dataset.repaired"),
        ({"stage": "Dreaming"}, "stage"),
        ({"step": "9" * 30}, "step"),
        ({"lossMilli": float("nan")}, "lossMilli"),
    ],
)
def test_a_result_that_can_not_be_true_is_refused_by_the_name_of_its_field(parts: dict[str, Any], field: str) -> None:
    said = read_progress(report_with(**parts))
    assert isinstance(said, str)
    assert field in said


def test_texts_are_cut_and_figures_brought_within_their_bounds() -> None:
    said = read_progress(report_with(progressPercent=140, remainingSeconds=-5, step=2**80, skipped="m" * 9000))
    assert isinstance(said, RunProgress)
    assert (said.progress_percent, said.remaining_seconds, said.step) == (100, 0, 2**53)
    assert isinstance(said.artifact, ArtifactReport)
    assert len(said.skipped or "") == 4000


@pytest.mark.parametrize(
    "part", [{"repaired": {"w" * 64: 1}}, {"waiting": -5}, {"waiting": 10**30}, {"waiting": 1e30}], ids=str
)
def test_an_odd_count_of_lines_ends_no_run(part: dict[str, Any]) -> None:
    configmap = {
        **progress_configmap(None), "data": {"progress.json": report_with(dataset={**GOOD["dataset"], **part})},
    }  # fmt: skip
    observed = read_facts("r1", [job_object(), trainer_pod_object(), configmap])
    stored = run_object(status=STARTED)
    run, pool = run_from(stored), pool_from(pool_object(store={"uri": "pvc://adapters/store"}))
    assert isinstance(run, Run)
    assert isinstance(pool, Pool)
    plan = plan_run(RunView(run=run, twin=None, pool=pool, obstacle=None, facts=observed), Images(), now=NOW)
    assert_taken("FineTuneRun", plan.status, plan.conditions, before=stored["status"])
    assert plan.status["dataset"]["interactions"] == 40


@pytest.mark.parametrize(("ended", "condition"), [(None, "Running"), (("Complete", "Done"), "Failed")])
def test_a_report_that_can_not_be_read_is_said_and_ends_the_run(ended: tuple[str, str] | None, condition: str) -> None:
    text = report_with(artifact={**GOOD["artifact"], "digest": "garbage"})
    configmap = {**progress_configmap(None), "data": {"progress.json": text}}
    observed = read_facts("r1", [job_object(ended=ended), trainer_pod_object(), configmap])
    run, pool = run_from(run_object(status=STARTED)), pool_from(pool_object(store={"uri": "pvc://adapters/store"}))
    assert isinstance(run, Run)
    assert isinstance(pool, Pool)
    plan = plan_run(RunView(run=run, twin=None, pool=pool, obstacle=None, facts=observed), Images(), now=NOW)
    found = next(each for each in plan.conditions if each.type == condition)
    assert (found.status, found.reason) == ("True", "ReportUnreadable")
    assert "artifact.digest" in found.message


def child_of(status: dict[str, Any]) -> list[Run]:
    ended = {**STARTED, "completionTime": "2026-01-02T02:59:00Z", "verdict": "Promote"}
    made = run_from(run_object(status={**ended, "eval": {"verdict": "Promote", "samples": 40}, **status}))
    return [made] if isinstance(made, Run) else []


def test_a_version_whose_digest_is_none_is_no_candidate() -> None:
    """It came from a trainer's report, before reports were checked."""
    made = {"uri": "pvc://adapters/store/x", "digest": "garbage", "rank": 8, "bytes": 1}
    twin = twin_from(twin_object(status={"specDigest": digest("a")}))
    assert isinstance(twin, Twin)
    view = TwinView(twin=twin, wanted=wanted_adapter(twin), pools=[], runs=child_of({"artifact": made}))
    assert plan_rollout(view, None, now=NOW).canary is None


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59Z", "2016-12-31T23:59:60Z", "2026-01-01T00:00:00", "yesterday"])
def test_a_time_that_can_not_be_reckoned_with_makes_a_status_unreadable(time: str) -> None:
    canary = {"digest": digest("b"), "servedName": "dr-a-bbbbbbbb"}
    stored = {"specDigest": digest("a"), "canaryVersion": canary, "canaryStep": 0, "canaryStepTime": time}
    found = twin_from(twin_object(status=stored))
    assert isinstance(found, Unreadable)
    assert (found.part, "canaryStepTime" in found.problem) == ("status", True)


@pytest.mark.parametrize(
    ("field", "version"),
    [
        ("promotedVersion", {"digest": "garbage", "servedName": "dr-a-bbbbbbbb"}),
        ("canaryVersion", {"digest": digest("b"), "servedName": "Dr A"}),
        ("pendingVersion", {"digest": digest("b"), "servedName": "dr-a-bbbbbbbb", "uri": "", "rank": 8}),
        ("activeVersion", {"servedName": "base model"}),
    ],
)
def test_a_version_that_can_not_be_published_makes_a_status_unreadable(field: str, version: dict[str, Any]) -> None:
    found = twin_from(twin_object(status={"specDigest": digest("a"), field: version}))
    assert isinstance(found, Unreadable)
    assert (found.part, found.problem.startswith(f"{field}.")) == ("status", True)


@pytest.mark.parametrize("name", ["dr.a", "dr-" + "a" * 60])
def test_a_twin_whose_name_can_not_be_published_can_not_be_read(name: str) -> None:
    found = twin_from(twin_object(name))
    assert isinstance(found, Unreadable)
    assert found.problem.startswith("metadata.name")


def test_a_version_of_which_only_the_digest_is_known_can_be_read() -> None:
    known = {"digest": digest("b"), "servedName": "dr-a-bbbbbbbb"}
    assert isinstance(twin_from(twin_object(status={"activeVersion": known, "history": [known]})), Twin)


@pytest.mark.parametrize("zone", ["America", "Europe", "../..", "/etc", "\0", "Mars/Base", "ä" * 60])
def test_a_time_zone_that_is_none_is_said(zone: str) -> None:
    twin = twin_from(twin_object(fineTune={"timeZone": zone}))
    assert isinstance(twin, Twin)
    plan = plan_fine_tune(twin, [], choose_pool(twin, []), now=NOW, window_seconds=3600)
    assert plan.obstacle is not None
    assert plan.obstacle.reason is Reason.SCHEDULE_INVALID


def test_a_failure_of_an_agent_of_another_release_is_told_in_its_own_words() -> None:
    held = AdapterReport.model_validate(
        {"twin": "dr-a", "digest": digest("a"), "state": "Failed", "reason": "OutOfCheese", "message": "no cheese"}
    )
    failure = Failure.reported(held, pod="e1", pool=pool(), rank=8)
    assert (failure.reason, failure.message) == (Reason.ADAPTER_FAILED, "OutOfCheese: no cheese")
