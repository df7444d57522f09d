"""A twin's status over all its pools."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bettertherapy_api.report import AdapterState, FailureReason, PodReport, Proof
from tests.unit.operator.samples import (
    adapter_report,
    container_status,
    deployment_object,
    digest,
    pod_object,
    pool,
    read_facts,
    report,
    report_objects,
    twin,
)
from twin_operator.domain.bounds import Bounds
from twin_operator.domain.objects import Twin
from twin_operator.domain.pool_checks import TROUBLE, Situation
from twin_operator.domain.routing import Candidate, plan_entry, refusal, wanted_adapter
from twin_operator.domain.twin_view import PoolView, TwinView
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.kinds.doctor_twin.checks import twin_conditions
from twin_operator.kinds.doctor_twin.notices import twin_notices
from twin_operator.kinds.doctor_twin.plan import plan_status
from twin_operator.kinds.routing.reconcile import not_selected

NOW = "2026-01-02T03:04:05Z"
FAILED = AdapterState.FAILED


def pool_view(
    made: Twin, *reports: PodReport, name: str = "p", before: Twin | None = None, matches: bool = True,
    pods: list[dict[str, Any]] | None = None, previous: Any = None, miners: int = 1,
    access_missing: Finding | None = None,
    **spec: Any,
) -> PoolView:  # fmt: skip
    """A pool whose pods report this, with the entry that the operator plans from it."""
    parsed = pool(name, **spec)
    children = (
        pods if pods is not None else [pod_object(each.pod.name, ready=each.ready, pool_name=name) for each in reports]
    )
    facts = read_facts(
        [
            *children, deployment_object(pool_name=name), *report_objects(*reports, pool_name=name),
            deployment_object(f"{name}-miner", pool_name=name, ready=miners),
        ],
        pool=name,
    )  # fmt: skip
    refused = refusal(parsed, made, Bounds()) if matches else None
    candidate = Candidate(twin=made, refused=refused if matches else not_selected())
    entry = plan_entry(parsed, candidate, previous=previous, ready=facts.ready)
    situation = Situation(pool=parsed, facts=facts, access_missing=access_missing)
    return PoolView(
        pool=parsed,
        facts=facts,
        entry=entry,
        lora_twins=1,
        published=True,
        unpublished=None,
        matches=matches,
        refused=refused,
        trouble=TROUBLE.evaluate(situation),
    )


def view(made: Twin, *pools: PoolView) -> TwinView:
    return TwinView(twin=made, wanted=wanted_adapter(made), pools=pools)


def conditions(made: Twin, *pools: PoolView) -> dict[str, Condition]:
    return {condition.type: condition for condition in twin_conditions(view(made, *pools))}


def truth(found: dict[str, Condition]) -> dict[str, str]:
    return {kind: condition.status for kind, condition in found.items()}


def test_a_verified_twin_is_all_well() -> None:
    made = twin()
    assert truth(conditions(made, pool_view(made, report("e1", adapter_report())))) == {
        "Serving": "True", "Ready": "True", "ArtifactVerified": "True", "AdaptersVerified": "True",
        "Progressing": "False", "CapacityAvailable": "True",
    }  # fmt: skip


def test_no_pool_matches() -> None:
    found = conditions(twin())
    assert (found["Ready"].reason, found["Serving"].status) == ("NoPoolMatches", "False")
    assert "--show-labels" in found["Ready"].message


def test_the_last_version_goes_on_answering_when_no_pool_matches_any_more() -> None:
    made = twin()
    reports = report("e1", adapter_report())
    before = pool_view(made, reports)
    found = conditions(made, pool_view(made, reports, matches=False, previous=before.entry))
    assert (found["Serving"].status, found["Ready"].reason) == ("True", "NoPoolMatches")


@pytest.mark.parametrize(
    ("fields", "reason"), [({"baseModel": {"name": "other"}}, "BaseModelMismatch"), ({"rank": 64}, "RankTooHigh")]
)
def test_a_pool_that_cannot_serve_the_twin_says_why(fields: dict[str, Any], reason: str) -> None:
    made = twin(**fields)
    found = conditions(made, pool_view(made, report("e1")))
    assert (found["Ready"].status, found["Ready"].reason, found["Progressing"].reason) == ("False", reason, reason)


def test_a_pool_with_another_base_is_not_counted_while_others_serve() -> None:
    made = twin()
    good = pool_view(made, report("e1", adapter_report()))
    other = pool_view(made, report("x1"), name="q", baseModel={"name": "other", "uri": "pvc://m/x"})
    found = conditions(made, good, other)
    assert (found["Ready"].status, found["AdaptersVerified"].status) == ("True", "True")
    assert "MinerPool q serves base model other" in found["Ready"].message


@pytest.mark.parametrize("reason", list(FailureReason))
def test_a_failure_on_one_pod_is_named_with_pod_and_message(reason: FailureReason) -> None:
    made = twin()
    failed = adapter_report(state=FAILED, reason=reason, message="do this", retryable=False)
    found = conditions(made, pool_view(made, report("e1", adapter_report()), report("e2", failed)))
    assert (found["AdaptersVerified"].reason, found["Ready"].reason) == (reason.value, reason.value)
    assert "pod e2" in found["Ready"].message
    assert "do this" in found["Ready"].message
    assert found["Serving"].status == "True"


@pytest.mark.parametrize(
    ("reason", "artifact"),
    [
        (FailureReason.DIGEST_MISMATCH, "False"), (FailureReason.STORE_UNREACHABLE, "False"),
        (FailureReason.FINGERPRINT_MISMATCH, "Unknown"), (FailureReason.ENGINE_REFUSED, "Unknown"),
    ],
)  # fmt: skip
def test_only_the_artifacts_own_failures_speak_against_it(reason: FailureReason, artifact: str) -> None:
    made = twin()
    found = conditions(made, pool_view(made, report("e1", adapter_report(state=FAILED, reason=reason))))
    assert found["ArtifactVerified"].status == artifact


@pytest.mark.parametrize(("retryable", "progressing"), [(True, "True"), (False, "False")])
def test_progressing_tells_whether_the_agent_goes_on_trying(retryable: bool, progressing: str) -> None:
    made = twin()
    failed = adapter_report(state=FAILED, reason=FailureReason.STORE_UNREACHABLE, retryable=retryable)
    assert conditions(made, pool_view(made, report("e1", failed)))["Progressing"].status == progressing


def test_the_old_version_answers_while_the_new_one_fails() -> None:
    old, new = twin(), twin(adapter="b")
    before = pool_view(old, report("e1", adapter_report()))
    failed = adapter_report(letter="b", state=FAILED, reason=FailureReason.DIGEST_MISMATCH, message="wrong bytes")
    found = conditions(new, pool_view(new, report("e1", adapter_report(), failed), previous=before.entry))
    assert (found["Serving"].status, found["Ready"].status) == ("True", "False")
    assert "dr-a-aaaaaaaa goes on answering" in found["Ready"].message


def first_load(*measured: int) -> dict[str, Any]:
    return adapter_report(fingerprint=None, proof=Proof.FIRST_LOAD, measured=measured)


@pytest.mark.parametrize(
    "held",
    [
        adapter_report(proof=Proof.FINGERPRINT), adapter_report(proof=None, fingerprint=50), first_load(-2000, -300),
    ],
    ids=["Fingerprint", "an agent that names no proof", "FirstLoad"],
)  # fmt: skip
def test_what_a_pod_measured_is_proof(held: dict[str, Any]) -> None:
    found = conditions(twin(), pool_view(twin(), report("e1", held)))["AdaptersVerified"]
    assert (found.status, found.reason) == ("True", "Verified")


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (adapter_report(proof=Proof.UNPROVEN, fingerprint=50, message="learned too little"), "e2: learned too little"),
        (adapter_report(proof=Proof.UNPROVEN, fingerprint=None), "e2 measured none: publish it with a fingerprint"),
        (adapter_report(proof=None, fingerprint=None), "e2 measured none: publish it with a fingerprint"),
    ],
)
def test_one_ready_pod_without_proof_makes_the_twin_unproven_and_it_goes_on_serving(
    held: dict[str, Any], why: str
) -> None:
    found = conditions(twin(), pool_view(twin(), report("e1", adapter_report()), report("e2", held)))
    assert (found["AdaptersVerified"].status, found["AdaptersVerified"].reason) == ("Unknown", "Unproven")
    assert f"on 1 of them nothing proves whose weights answer; pod {why}" in found["AdaptersVerified"].message
    assert (found["Serving"].status, found["Ready"].status) == ("True", "True")


def test_a_pod_that_is_not_ready_says_nothing_about_proof() -> None:
    held = adapter_report(proof=Proof.UNPROVEN)
    view_ = pool_view(twin(), report("e1", adapter_report()), report("e2", held, ready=False))
    assert conditions(twin(), view_)["AdaptersVerified"].status == "True"


def test_two_pods_that_answer_differently_under_one_name_are_named() -> None:
    pods = [
        report("e1", first_load(-2000, -300)), report("e2", first_load(-2090, -390)),
        report("e3", first_load(-1900, -150)),
    ]  # fmt: skip
    found = conditions(twin(), pool_view(twin(), *pods))
    for kind in ("AdaptersVerified", "Ready"):
        assert (found[kind].status, found[kind].reason) == ("False", "FingerprintMismatch")
    assert "pods e2 and e3 of MinerPool p answer differently as dr-a-aaaaaaaa" in found["Ready"].message
    assert "0.21 nats apart" in found["Ready"].message
    assert found["Serving"].status == "True"


@pytest.mark.parametrize(
    "other",
    [first_load(-2100, -400), first_load(-9000), first_load(-9000, -9000, -9000), adapter_report(measured=(0, 0))],
    ids=["within the noise", "fewer questions", "more questions", "it has a fingerprint"],
)
def test_pods_agree_up_to_the_noise_and_only_answers_to_the_same_questions_are_compared(other: dict[str, Any]) -> None:
    found = conditions(twin(), pool_view(twin(), report("e1", first_load(-2000, -300)), report("e2", other)))
    assert found["AdaptersVerified"].status == "True"


def test_pods_of_different_pools_are_not_compared() -> None:
    made = twin()
    one = pool_view(made, report("e1", first_load(-2000, -300)))
    other = pool_view(made, report("x1", first_load(-100, -100)), name="q")
    assert conditions(made, one, other)["AdaptersVerified"].status == "True"


def test_loading_is_progress_with_counts() -> None:
    made = twin()
    found = conditions(made, pool_view(made, report("e1", adapter_report(state=AdapterState.VERIFYING))))
    assert (found["Ready"].reason, found["Progressing"].status) == ("Loading", "True")
    assert "verified on 0 and loaded on 1 of 1 pods" in found["Ready"].message


def test_a_pod_that_is_not_ready_does_not_unmake_ready() -> None:
    made = twin()
    pods = [pod_object("e1"), pod_object("e2", ready=False)]
    found = conditions(made, pool_view(made, report("e1", adapter_report()), pods=pods))
    assert (found["Ready"].status, found["AdaptersVerified"].status) == ("True", "True")


def test_the_pools_trouble_is_the_twins_reason_while_no_engine_is_ready() -> None:
    made = twin()
    stuck = pod_object(
        "e1", ready=False, containerStatuses=[container_status(waiting={"reason": "ErrImagePull", "message": "gone"})]
    )
    found = conditions(made, pool_view(made, pods=[stuck]))
    assert found["Ready"].reason == "PoolNotReady"
    assert "ImagePullFailed" in found["Ready"].message


def test_a_twin_without_adapter_is_ready_with_a_ready_engine() -> None:
    made = twin(adapter=None)
    found = conditions(made, pool_view(made, report("e1")))
    assert truth(found)["Ready"] == truth(found)["AdaptersVerified"] == "True"
    assert found["ArtifactVerified"].reason == "NoAdapter"


def test_status_names_the_version_that_answers() -> None:
    made = twin()
    status = plan_status(view(made, pool_view(made, report("e1", adapter_report()))), now=NOW)
    assert status["activeVersion"] == {
        "digest": digest("a"), "servedName": "dr-a-aaaaaaaa", "uri": "pvc://adapters/dr-a/a", "rank": 8, "since": NOW,
    }  # fmt: skip
    assert (status["pods"]["summary"], status["pools"]) == ("1/1", ["p"])


def test_an_unchanged_version_keeps_its_date() -> None:
    made = twin(
        status={
            "activeVersion": {"digest": digest("a"), "servedName": "dr-a-aaaaaaaa", "since": "2025-01-01T00:00:00Z"}
        }
    )
    status = plan_status(view(made, pool_view(made, report("e1", adapter_report()))), now=NOW)
    assert status["activeVersion"]["since"] == "2025-01-01T00:00:00Z"


def test_a_replaced_version_becomes_previous_and_history() -> None:
    known = {"activeVersion": {"digest": digest("a"), "servedName": "dr-a-aaaaaaaa"}, "pools": ["p"]}
    made = twin(adapter="b", status=known)
    status = plan_status(view(made, pool_view(made, report("e1", adapter_report(letter="b")))), now=NOW)
    assert status["activeVersion"]["servedName"] == "dr-a-bbbbbbbb"
    assert status["previousVersion"]["servedName"] == "dr-a-aaaaaaaa"
    assert [version["servedName"] for version in status["history"]] == ["dr-a-aaaaaaaa"]


def test_history_is_bounded_and_names_each_version_once() -> None:
    history = [{"digest": digest(letter), "servedName": f"dr-a-{letter * 8}"} for letter in "bcde"]
    known = {"activeVersion": {"digest": digest("a"), "servedName": "dr-a-aaaaaaaa"}, "history": history}
    made = twin(adapter="b", historyLimit=3, status=known)
    status = plan_status(view(made, pool_view(made, report("e1", adapter_report(letter="b")))), now=NOW)
    assert [version["servedName"][-1] for version in status["history"]] == ["a", "c", "d"]


def test_while_one_pool_is_behind_the_old_version_is_the_active_one() -> None:
    old, new = twin(), twin(adapter="b")
    behind = pool_view(
        new, report("x1", adapter_report()), name="q", previous=pool_view(old, report("x1", adapter_report())).entry
    )
    ahead = pool_view(new, report("e1", adapter_report(letter="b")))
    assert plan_status(view(new, ahead, behind), now=NOW)["activeVersion"]["servedName"] == "dr-a-aaaaaaaa"


def test_slots_beyond_the_engines_are_said_on_the_twin() -> None:
    made = twin()
    spec: dict[str, Any] = {"engine": {"device": "CPU", "maxLoras": 1}}
    one = pool_view(made, report("e1", adapter_report()), **spec)
    crowded = replace(one, lora_twins=2)
    found = conditions(made, crowded)
    assert (found["CapacityAvailable"].reason, found["Ready"].status) == ("SlotsOvercommitted", "True")


def condition(kind: str, status: str, reason: str) -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "m",
        "observedGeneration": 1,
        "lastTransitionTime": NOW,
    }


def test_events_tell_of_activation_verification_and_failure_once() -> None:
    active = {"activeVersion": {"servedName": "dr-a-aaaaaaaa", "since": NOW}}
    good, bad = (
        condition("AdaptersVerified", "True", "Verified"),
        condition("AdaptersVerified", "False", "DigestMismatch"),
    )
    assert [notice.reason for notice in twin_notices({}, {**active, "conditions": [good]})] == [
        "VersionActivated",
        "AdapterVerified",
    ]
    assert [
        notice.reason for notice in twin_notices({**active, "conditions": [good]}, {**active, "conditions": [bad]})
    ] == ["AdapterFailed"]
    assert twin_notices({**active, "conditions": [good]}, {**active, "conditions": [good]}) == []
