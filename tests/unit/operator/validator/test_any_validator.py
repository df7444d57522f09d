"""Whatever a validator's spec, twins and pods are, nothing raises, and its status is one that the API server takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bettertherapy_api import report
from tests.unit.operator.documents import fitting as fitting_schema
from tests.unit.operator.documents import schema_of, thing
from tests.unit.operator.samples import container_status, pod_object, twin_object
from tests.unit.operator.test_any_input import MANY, NOW, assert_taken, spec, twins
from tests.unit.operator.validator.validators import IMAGES, validator_object
from twin_operator.domain.answering import fitting, known_twin
from twin_operator.domain.objects import Twin, Unreadable, twin_from, validator_from
from twin_operator.domain.pool_facts import DeploymentFacts, PodFacts, pod_facts
from twin_operator.domain.unreadable import conditions_of
from twin_operator.kinds.validator.datasets import Attempt, DatasetsFacts
from twin_operator.kinds.validator.facts import ValidatorFacts
from twin_operator.kinds.validator.plan import Gathered, plan_children, plan_status
from twin_operator.kinds.validator.subnet import sight
from twin_operator.kinds.watched import decode_report


@st.composite
def observed(draw: st.DrawFn) -> ValidatorFacts:
    ended = {"exitCode": draw(st.integers(0, 2)), "message": draw(st.text(max_size=30))}
    last = [container_status("gateway", waiting={"reason": "CrashLoopBackOff"}, last=ended)]
    pods = tuple(
        pod_facts(pod_object(f"g{number}", component="gateway", ready=draw(st.booleans()), containerStatuses=broken))
        for number in range(draw(st.integers(0, 2)))
        for broken in (draw(st.sampled_from([[], last])),)
    )
    said = {pod.name: decode_report(reported(pod, draw(VIEWS)), None).gateway for pod in pods}
    views = {name: report.gateway for name, report in said.items() if report is not None}
    deployment = DeploymentFacts(seen=draw(st.booleans()), updated=1)
    attempt = Attempt(
        name="v-datasets-1", created="t", ended=draw(st.sampled_from([None, "Complete", "Failed"])),
        why=draw(st.text(max_size=30)), pods=pods,
    )  # fmt: skip
    datasets = DatasetsFacts(attempts=(attempt,), written=draw(st.sampled_from([None, "2026-11-28T00:16:00Z"])))
    return ValidatorFacts(gateways=pods, views=views, deployment=deployment, datasets=datasets)


VIEWS = fitting_schema(schema_of(report.KIND)["properties"]["gateway"])


def reported(pod: PodFacts, view: Any) -> dict[str, Any]:
    owner = {"kind": "Pod", "name": pod.name, "uid": pod.uid}
    return {
        "metadata": {"name": pod.name, "ownerReferences": [owner]}, "pod": {"name": pod.name, "uid": pod.uid},
        "gateway": view,
    }  # fmt: skip


@MANY
@given(
    asked=spec("Validator") | st.just(validator_object()["spec"]),
    facts=observed(),
    stored=st.lists(twins(), max_size=2),
    now=st.sampled_from([NOW, NOW + timedelta(minutes=30)]),
)
def test_a_validator_is_planned_and_its_status_taken(
    asked: Any, facts: ValidatorFacts, stored: list[Any], now: datetime
) -> None:
    found = validator_from(thing("Validator", "v", spec=asked, status={}))
    if isinstance(found, Unreadable):
        assert_taken("Validator", {}, conditions_of("Validator", found))
        return
    read = [twin_from(each) for each in (*stored, twin_object())]
    answering = fitting([known_twin(each) for each in read if isinstance(each, Twin)], known={})
    views = {pod: each.model_copy(update={"netuid": found.spec.chain.netuid}) for pod, each in facts.views.items()}
    seen = sight(found, replace(facts, views=views), now=now)
    gathered = Gathered(validator=found, facts=facts, seen=seen, answering=answering, told=len(answering.twins))
    plan_children(gathered, IMAGES)
    said, conditions = plan_status(gathered, IMAGES)
    assert_taken("Validator", said, conditions)
