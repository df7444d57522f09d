"""Ready means that a patient is answered, Verified that it was measured; what is not there yet is said."""

from __future__ import annotations

from typing import Any

import pytest

from bettertherapy_api.report import PodReport
from tests.unit.operator.samples import pool, twin
from twin_operator.domain.bounds import Bounds
from twin_operator.domain.objects import Twin
from twin_operator.domain.pool_checks import TROUBLE, Situation, no_tokens, pool_conditions
from twin_operator.domain.pool_facts import DeploymentFacts, PodFacts, PoolFacts
from twin_operator.domain.routing import Candidate, plan_entry, refusal, wanted_adapter
from twin_operator.domain.twin_view import PoolView, TwinView
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.kinds.doctor_twin.checks import twin_conditions


def observed(made: Twin, *, miners: int = 1, fingerprint: int | None = 50) -> PoolFacts:
    """One engine pod that holds the twin's adapter verified."""
    wanted = wanted_adapter(made)
    assert wanted is not None
    held = {
        "twin": made.name, "digest": wanted.digest, "state": "Verified", "fingerprintMilliNats": fingerprint,
    }  # fmt: skip
    said = PodReport.model_validate({
        "pod": {"name": "e1", "uid": "uid-e1"}, "ready": True, "engine": {"live": True},
        "adapters": {wanted.served_name: held},
    })  # fmt: skip
    running = DeploymentFacts(wanted=1, current=1, updated=1, ready=1, seen=True)
    return PoolFacts(
        engines=(PodFacts(name="e1", uid="uid-e1", component="engine", ready=True, leaving=False),),
        reports={"e1": said}, engine_deployment=running,
        miner_deployment=DeploymentFacts(wanted=1, current=1, updated=1, ready=miners, seen=True),
    )  # fmt: skip


def twin_says(made: Twin, facts: PoolFacts, *, access: Finding | None = None, **spec: Any) -> dict[str, Condition]:
    served = pool(**spec)
    refused = refusal(served, made, Bounds())
    entry = plan_entry(served, Candidate(twin=made, refused=refused), previous=None, ready=facts.ready)
    trouble = TROUBLE.evaluate(Situation(pool=served, facts=facts, access_missing=access))
    view = PoolView(
        pool=served, facts=facts, entry=entry, lora_twins=1, published=True, unpublished=None, matches=True,
        refused=refused, trouble=trouble,
    )  # fmt: skip
    found = twin_conditions(TwinView(twin=made, wanted=wanted_adapter(made), pools=[view]))
    return {condition.type: condition for condition in found}


def pool_says(facts: PoolFacts, *, access: Finding | None = None, **spec: Any) -> dict[str, Condition]:
    found = pool_conditions(Situation(pool=pool(**spec), facts=facts, access_missing=access))
    return {condition.type: condition for condition in found}


def test_all_is_well_where_a_patient_is_answered_by_weights_that_were_measured() -> None:
    found = twin_says(twin(), observed(twin()))
    assert {found[kind].status for kind in ("Ready", "Serving", "AdaptersVerified")} == {"True"}
    assert {pool_says(observed(twin()))[kind].status for kind in ("Ready", "Available")} == {"True"}


def test_without_the_clients_tokens_neither_pool_nor_twin_is_ready() -> None:
    facts = observed(twin())
    found = pool_says(facts, access=no_tokens("p-access"))
    assert {(found[kind].status, found[kind].reason) for kind in ("Ready", "Available")} == {
        ("False", "AccessSecretMissing")
    }
    assert "kubectl create secret generic p-access" in found["Ready"].message
    served = twin_says(twin(), facts, access=no_tokens("p-access"))
    assert (served["Ready"].status, served["Serving"].status) == ("False", "False")
    assert "AccessSecretMissing" in served["Ready"].message


def test_without_a_ready_miner_no_twin_is_ready() -> None:
    found = twin_says(twin(), observed(twin(), miners=0))
    assert (found["Ready"].status, found["Ready"].reason, found["Serving"].status) == ("False", "PoolNotReady", "False")
    assert "no miner pod" in found["Ready"].message


@pytest.mark.parametrize(
    ("spec", "reason"), [({"replicas": 0}, "ScaledToZero"), ({"miner": {"replicas": 0}}, "NoMiner")]
)
def test_a_pool_that_is_asked_to_answer_nobody_is_not_ready(spec: dict[str, Any], reason: str) -> None:
    found = pool_says(observed(twin(), miners=0), **spec)
    assert (found["Ready"].status, found["Ready"].reason) == ("False", reason)


def test_weights_that_nobody_measured_are_unproven_not_verified() -> None:
    found = twin_says(twin(), observed(twin(), fingerprint=None))
    assert (found["AdaptersVerified"].status, found["AdaptersVerified"].reason) == ("Unknown", "Unproven")
    assert "e1" in found["AdaptersVerified"].message


def test_a_placement_that_is_not_there_yet_is_said() -> None:
    found = twin_says(twin(placement={"mode": "Spread", "replicas": 65}), observed(twin()))["PlacementActive"]
    assert (found.status, found.reason) == ("False", "NotImplemented")
    assert "PlacementActive" not in twin_says(twin(), observed(twin()))


def test_what_runs_behind_an_endpoint_is_not_scaled_and_that_is_said() -> None:
    engine = {"endpoint": "http://engines.ml.svc:8000"}
    found = pool_says(observed(twin()), autoscaling={"mode": "Operator"}, engine=engine)["ScalingActive"]
    assert (found.status, found.reason) == ("False", "NotScalable")
