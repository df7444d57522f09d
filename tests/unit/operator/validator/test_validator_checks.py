"""What a validator says of itself: each condition, in words, and nothing that wasn't seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.report import GatewayView
from neurons.chain.errors import ColdkeyError
from neurons.chain.wallet import load_hotkey
from tests.unit.operator.samples import container_status, pod_object
from tests.unit.operator.validator.validators import PAGES, POSTGRES, validator
from twin_operator.domain.appearances import appears, conditions_said
from twin_operator.domain.pod_troubles import last_words
from twin_operator.domain.pool_facts import DeploymentFacts, PodFacts, pod_facts
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.engine.resources import Key
from twin_operator.kinds.validator.checks import Situation, validator_conditions
from twin_operator.kinds.validator.facts import ValidatorFacts
from twin_operator.kinds.validator.made_once import Missing
from twin_operator.kinds.validator.notices import validator_notices
from twin_operator.kinds.validator.subnet import Said, Sight

RUNS = DeploymentFacts(wanted=1, current=1, updated=1, ready=1, seen=True)
JOB = "v-ledger-0123456789"


def pod(*, ready: bool = True, **status: Any) -> PodFacts:
    return pod_facts(pod_object("g1", component="gateway", ready=ready, **status))


def says(*pods: PodFacts, spec: dict[str, Any] | None = None, **situation: Any) -> dict[str, Condition]:
    facts = situation.pop("facts", None) or ValidatorFacts(gateways=pods, deployment=RUNS)
    whole = {"told": 1, **situation}
    found = validator_conditions(Situation(validator=validator(**(spec or {})), facts=facts, **whole))
    for each in found:
        assert each.reason in appears("Validator", each.type, each.status), each
        assert each.type in conditions_said("Validator")
    return {each.type: each for each in found}


def crashed(message: str, *, code: int = 2, reason: str = "Error") -> PodFacts:
    ended = {"exitCode": code, "reason": reason, "message": message}
    statuses = [container_status("gateway", waiting={"reason": "CrashLoopBackOff"}, last=ended, restarts=3)]
    return pod(ready=False, containerStatuses=statuses)


def logged(message: str, level: str = "error") -> str:
    return json.dumps({"time": "t", "level": level, "logger": "l", "message": message})


def test_a_gateway_that_answers_for_a_twin_is_ready() -> None:
    found = says(pod())
    assert {kind: found[kind].status for kind in ("Ready", "GatewayReady", "TwinsPublished", "LedgerReachable")} == {
        "Ready": "True", "GatewayReady": "True", "TwinsPublished": "True", "LedgerReachable": "True",
    }  # fmt: skip
    assert found["Ready"].message == "1 gateway pod answers for 1 twin"


def test_what_was_not_reported_is_not_claimed() -> None:
    found = says(pod())["ChainReachable"]
    assert (found.status, found.reason) == ("Unknown", "ChainNotReported")


def test_what_does_nothing_yet_is_said_by_name() -> None:
    assert "HostsActive" not in says(pod())
    asked = says(pod(), spec={"gateway": {"replicas": 1, "hosts": ["a.example"]}})
    assert (asked["HostsActive"].status, asked["HostsActive"].reason) == ("False", "NotImplemented")
    assert "a.example" in asked["HostsActive"].message


def test_a_coldkey_is_named_by_what_the_gateway_itself_says_of_it(tmp_path: Path) -> None:
    (tmp_path / "hotkey").write_text("{}")
    (tmp_path / "coldkey").write_text("{}")
    with pytest.raises(ColdkeyError) as refused:
        load_hotkey(tmp_path)
    found = says(crashed(logged("listening", "info") + "\n" + logged(str(refused.value))))["Ready"]
    assert (found.status, found.reason) == ("False", "ColdkeyFound")
    assert "g1" in found.message
    assert "delete the Secret" in found.message


def test_a_gateway_that_can_not_begin_says_why_in_its_own_sentence() -> None:
    found = says(crashed(logged("--chain is no chain: there is no such network")))["Ready"]
    assert (found.status, found.reason) == ("False", "GatewayCrashed")
    assert "exit code 2: --chain is no chain: there is no such network" in found.message
    killed = says(crashed("", code=137, reason="OOMKilled"))["Ready"]
    assert "spec.gateway.resources.limits.memory" in killed.message


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("", ""),
        ("a\nb\n", "b"),
        ("error: no ledger\nbye", "error: no ledger"),
        (logged("x", "info"), logged("x", "info")),
        (f"{logged('first')}\n{logged('last')}\n", "last"),
        ('{"level": "error", "message": 7}', '{"level": "error", "message": 7}'),
        ("[1]\n", "[1]"),
        (logged("x" * 2000), "x" * 700 + "…"),
    ],
)
def test_the_last_words_of_a_program_are_found(output: str, words: str) -> None:
    assert last_words(output) == words


def missing(name: str, field: str, *, kind: str = "Secret", why: str | None = None) -> Missing:
    return Missing(key=Key(kind, "clinic", name), field=field, why=why)


def test_a_secret_that_is_not_there_is_named_with_its_field() -> None:
    found = says(missing=(missing("hotkey", "spec.walletSecretRef"),))
    assert {(found[kind].status, found[kind].reason) for kind in ("Ready", "GatewayReady")} == {
        ("False", "SecretNotFound")
    }
    assert "hotkey" in found["Ready"].message
    assert "spec.walletSecretRef" in found["Ready"].message
    assert (found["LedgerReachable"].status, found["LedgerReachable"].reason) == ("Unknown", "GatewaysStarting")


def test_a_claim_that_is_refused_is_said_in_the_api_servers_words() -> None:
    why = missing("v-gateway-state", "spec.ledger", kind="PersistentVolumeClaim", why="exceeded quota")
    found = says(missing=(why,))["Ready"]
    assert (found.reason, "exceeded quota" in found.message) == ("ChildrenRefused", True)


def test_why_a_pod_does_not_come_up_is_said() -> None:
    pulls = [container_status("gateway", waiting={"reason": "ImagePullBackOff", "message": "no such image"})]
    configs = [
        container_status(
            "gateway",
            waiting={"reason": "CreateContainerConfigError", "message": "couldn't find key uri in Secret clinic/pg"},
        )
    ]
    unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    unbound = "0/1 nodes: pod has unbound immediate PersistentVolumeClaims"
    for status, reason in (
        ({"containerStatuses": pulls}, "ImagePullFailed"), ({"containerStatuses": configs}, "ContainerNotStarted"),
        ({"conditions": [{**unplaced, "message": "Insufficient cpu"}]}, "Unschedulable"),
        ({"conditions": [{**unplaced, "message": unbound}]}, "VolumeClaimNotBound"),
    ):  # fmt: skip
        assert says(pod(ready=False, **status))["Ready"].reason == reason
    no_class = f"{unbound}. not found"
    found = says(pod(ready=False, conditions=[{**unplaced, "message": no_class}]))["Ready"]
    assert found.reason == "VolumeClaimNotBound"
    assert "spec.ledger.storageClassName" in found.message
    refused = ValidatorFacts(deployment=DeploymentFacts(refused="exceeded quota"))
    assert says(facts=refused)["Ready"].reason == "PodsRefused"


def test_a_gateway_that_waits_for_its_volumes_is_not_said_to_read_the_metagraph() -> None:
    """The kubelet tells of a key that a mounted Secret lacks by events alone, and waits for ever."""
    conditions = [
        {"type": "PodReadyToStartContainers", "status": "False"}, {"type": "PodScheduled", "status": "True"},
    ]  # fmt: skip
    creating = [container_status("gateway", waiting={"reason": "ContainerCreating"})]
    found = says(pod(ready=False, conditions=conditions, containerStatuses=creating))["Ready"]
    assert found.reason == "GatewaysStarting"
    assert "metagraph" not in found.message
    assert "a key in one; see `kubectl describe pod g1`" in found.message
    pulling = [{**each, "status": "True"} for each in conditions]
    assert "volumes" not in says(pod(ready=False, conditions=pulling, containerStatuses=creating))["Ready"].message


def test_a_subnet_that_no_gateway_could_ever_read_is_why_nobody_is_answered() -> None:
    """A wrong netuid or network: `GatewaysStarting` would say to wait."""
    why = "there is no subnet 77 on this chain: choose one that there is"
    blind = GatewayView(netuid=42, reachable=False, message=why, reported_at="2026-11-30T18:00:00Z")
    found = says(pod(ready=False), seen=Sight(fresh=(Said(pod="g1", view=blind),)))
    for kind in ("Ready", "GatewayReady", "ChainReachable"):
        assert (found[kind].status, found[kind].reason) == ("False", "ChainUnreachable")
        assert why in found[kind].message
    once = blind.model_copy(update={"block": 1000})
    assert says(pod(ready=False), seen=Sight(fresh=(Said(pod="g1", view=once),)))["Ready"].reason == "GatewaysStarting"
    assert says(pod(), seen=Sight(fresh=(Said(pod="g1", view=blind),)))["GatewayReady"].status == "True"


@pytest.mark.parametrize("spec", [{}, POSTGRES])
def test_a_ledger_that_went_away_later_is_not_said_to_be_reachable(spec: dict[str, Any]) -> None:
    """Its tables were made once, and its volume was mounted: neither says that anything is written now."""
    told = GatewayView(netuid=42, reachable=True, miners=3, reported_at="2026-11-30T18:00:00Z")
    facts = ValidatorFacts(gateways=(pod(),), deployment=RUNS, tables_made=frozenset({JOB}))
    job = JOB if spec else None

    def ledger(trouble: str | None) -> Condition:
        view = told.model_copy(update={"ledger_trouble": trouble})
        seen = Sight(fresh=(Said(pod="g1", view=told), Said(pod="g2", view=view)))
        return says(spec=spec, facts=facts, ledger_job=job, seen=seen)["LedgerReachable"]

    assert ledger(None).status == "True"
    found = ledger("No space left on device")
    assert (found.status, found.reason) == ("False", "LedgerUnreachable")
    assert "gateway g2 answers, and can't write" in found.message
    assert "No space left on device" in found.message


def test_a_gateway_on_its_way_and_one_that_nobody_asked_for() -> None:
    found = says(pod(ready=False))
    assert {found[kind].reason for kind in ("Ready", "GatewayReady")} == {"GatewaysStarting"}
    assert "0 of 1" in found["Ready"].message
    assert says(spec={"gateway": {"replicas": 0}})["Ready"].reason == "NoGateway"
    old = ValidatorFacts(gateways=(pod(),), deployment=DeploymentFacts(wanted=1, current=1, updated=0, seen=True))
    rolling = says(facts=old)
    assert (rolling["Ready"].reason, rolling["GatewayReady"].status) == ("RollingOut", "True")


def test_without_twins_nobody_is_answered_and_too_many_are_named() -> None:
    none = says(pod(), told=0)
    assert {none[kind].reason for kind in ("Ready", "TwinsPublished")} == {"NoTwins"}
    many = says(pod(), left_out=tuple(f"dr-{n}" for n in range(9)))
    assert (many["Ready"].status, many["TwinsPublished"].reason) == ("True", "TooManyTwins")
    assert "dr-4 and 4 more" in many["TwinsPublished"].message


def test_a_claim_of_the_pages_that_is_not_there_is_told_from_the_ledgers() -> None:
    refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    spec = {"gateway": {"pages": PAGES}}
    for claim, told in (("adapters", True), ("v-gateway-state", False)):
        message = f'0/1 nodes are available: persistentvolumeclaim "{claim}" not found.'
        ready = says(pod(ready=False, conditions=[{**refused, "message": message}]), spec=spec)["Ready"]
        assert ready.reason == "VolumeClaimNotFound"
        assert ("spec.gateway.pages.store.uri" in ready.message) is told


def test_a_claim_that_is_not_bound_is_no_ledger() -> None:
    waiting = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
               "message": "pod has unbound immediate PersistentVolumeClaims"}  # fmt: skip
    found = says(pod(ready=False, conditions=[waiting]))["LedgerReachable"]
    assert (found.status, found.reason) == ("False", "VolumeClaimNotBound")
    none = says(spec={"gateway": {"replicas": 0}})["LedgerReachable"]
    assert (none.status, none.reason) == ("Unknown", "NoGateway")


def test_a_databases_tables_are_told_of_as_their_job_goes() -> None:
    def ledger(**facts: Any) -> Condition:
        return says(
            facts=ValidatorFacts(gateways=(pod(),), deployment=RUNS, **facts), spec=POSTGRES, ledger_job=JOB
        )["LedgerReachable"]  # fmt: skip

    assert (ledger().status, ledger().reason) == ("Unknown", "PreparingLedger")
    made = ledger(tables_made=frozenset({JOB}))
    assert (made.status, made.reason) == ("True", "LedgerPrepared")
    assert ledger(tables_made=frozenset({"v-ledger-of-another-image"})).status == "Unknown"
    ended = {"exitCode": 1, "reason": "Error", "message": "error: the ledger at postgresql://u:***@pg doesn't work."}
    statuses = [container_status("ledger", waiting={"reason": "CrashLoopBackOff"}, last=ended)]
    broken = pod_facts(pod_object("l1", component="ledger", ready=False, containerStatuses=statuses))
    down = ledger(ledger_pods=(broken,))
    assert (down.status, down.reason) == ("False", "LedgerUnreachable")
    assert "postgresql://u:***@pg doesn't work" in down.message
    gone = says(pod(), spec=POSTGRES, ledger_job=JOB, missing=(missing("pg", "spec.ledger.uriSecretRef"),))
    assert gone["LedgerReachable"].reason == "SecretNotFound"


def test_while_the_ledger_is_away_patients_are_answered_and_the_validator_is_ready() -> None:
    facts = ValidatorFacts(gateways=(pod(),), deployment=RUNS)
    assert says(facts=facts, spec=POSTGRES, ledger_job=JOB)["Ready"].status == "True"


def test_a_refused_child_comes_first() -> None:
    refused = Finding(Reason.CHILD_CONFLICT, "Service v-gateway is somebody else's")
    assert says(pod(), refused=refused)["Ready"].reason == "ChildConflict"


def test_events_tell_of_what_a_person_wants_to_know_once() -> None:
    def shown(*conditions: Condition) -> dict[str, Any]:
        return {
            "conditions": [
                {"type": each.type, "status": each.status, "reason": each.reason, "message": each.message,
                 "lastTransitionTime": "t"}
                for each in conditions
            ]
        }  # fmt: skip

    starting, ready = shown(*says(pod(ready=False)).values()), shown(*says(pod()).values())
    assert validator_notices({}, starting) == []
    assert [each.reason for each in validator_notices(starting, ready)] == ["ValidatorReady"]
    assert validator_notices(ready, ready) == []
    broken = shown(*says(crashed("x")).values())
    assert [(each.reason, each.kind) for each in validator_notices(ready, broken)] == [("GatewayCrashed", "Warning")]
