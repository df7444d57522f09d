"""MinerRegistered: what the miners report of their place on the subnet becomes a reason and a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.report import MinerReport, PodRef, Registration, SubnetReport
from tests.unit.operator.samples import NAMESPACE, deployment_object, metadata, pod_object, pool
from twin_operator.domain.appearances import appears
from twin_operator.domain.pool_facts import PoolFacts, facts_of, pod_facts
from twin_operator.domain.reasons import Reason
from twin_operator.domain.registration import registration
from twin_operator.engine.conditions import Condition
from twin_operator.engine.resources import Key
from twin_operator.engine.store import Store
from twin_operator.kinds.resources import MINER_POOL, POD_REPORT
from twin_operator.kinds.triggers.table import woken
from twin_operator.kinds.watched import WATCHED, Report, decode_report
from twin_operator.kinds.world import World

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
ON_SUBNET = {"netuid": 42, "chain": "finney", "walletSecretRef": {"name": "hotkey"}}


def said(registration: Registration = Registration.REGISTERED, **more: Any) -> SubnetReport:
    values: dict[str, Any] = {
        "netuid": 42,
        "hotkey": HOTKEY,
        "uid": 7,
        "registered_at_block": 900,
        "axon": "1.2.3.4:80",
    }
    return SubnetReport(registration=registration, **(values | more))


def facts(*reports: SubnetReport) -> PoolFacts:
    pods = [pod_object(f"p-miner-{number}", component="miner") for number in range(1, len(reports) + 1)]
    told = {
        pod["metadata"]["name"]: MinerReport(
            pod=PodRef(name=pod["metadata"]["name"], uid=pod["metadata"]["uid"]), subnet=report
        )
        for pod, report in zip(pods, reports, strict=True)
    }
    return facts_of("p", pods=[pod_facts(pod) for pod in pods], deployments={}, reports={}, miner_reports=told)


def condition(*reports: SubnetReport, **miner: Any) -> Condition:
    (found,) = registration(pool(miner=ON_SUBNET | miner), facts(*reports))
    assert Reason(found.reason) in appears("MinerPool", found.type, found.status)
    return found


def test_a_pool_that_names_no_subnet_has_no_such_condition() -> None:
    assert registration(pool(), facts()) == []
    assert registration(pool(miner={"walletSecretRef": {"name": "hotkey"}}), facts()) == []


def test_a_registered_miner_is_named_by_hotkey_uid_and_address() -> None:
    found = condition(said())
    assert (found.status, found.reason) == ("True", "Registered")
    assert found.message == f"{HOTKEY} is UID 7 of subnet 42 since block 900, found at 1.2.3.4:80"


@pytest.mark.parametrize(
    "state",
    [each for each in Registration if each not in (Registration.REGISTERED, Registration.CHAIN_UNREACHABLE)],
)
def test_what_is_wrong_is_false_in_the_miners_own_words(state: Registration) -> None:
    found = condition(said(state, message="do this"))
    assert (found.status, found.reason, found.message) == ("False", state.value, "do this")


def test_an_unreachable_chain_leaves_open_whether_it_is_registered_and_says_since_when() -> None:
    found = condition(
        said(
            Registration.CHAIN_UNREACHABLE,
            message="finney can't be reached",
            block=1000,
            read_at="2026-11-28T20:16:00Z",
        )
    )
    assert (found.status, found.reason) == ("Unknown", "ChainUnreachable")
    assert "block 1000, read at 2026-11-28T20:16:00Z" in found.message
    assert "UID 7" in found.message
    never = condition(said(Registration.CHAIN_UNREACHABLE, message="away", uid=None, registered_at_block=None))
    assert "no metagraph was read yet" in never.message


def test_of_several_miners_the_gravest_counts() -> None:
    assert (
        condition(said(), said(Registration.COLDKEY_FOUND), said(Registration.NOT_REGISTERED)).reason == "ColdkeyFound"
    )
    assert condition(said(Registration.CHAIN_UNREACHABLE), said()).reason == "ChainUnreachable"


def test_a_report_about_another_subnet_is_of_a_pod_that_goes() -> None:
    assert condition(said(netuid=41)).reason == "RegistrationNotReported"


def test_silence_is_unknown_and_names_the_secret() -> None:
    found = condition()
    assert (found.status, found.reason) == ("Unknown", "RegistrationNotReported")
    assert "Secret hotkey" in found.message
    assert condition(replicas=0).reason == "NoMiner"


def test_a_spec_without_wallet_or_chain_says_which_field() -> None:
    found = registration(pool(miner={"netuid": 42, "chain": "finney"}), facts())[0]
    assert (found.status, found.reason) == ("False", "WalletMissing")
    assert "spec.miner.walletSecretRef" in found.message
    assert (
        registration(pool(miner={"netuid": 42, "walletSecretRef": {"name": "h"}}), facts())[0].reason == "ChainNotSet"
    )


def test_several_miners_that_share_no_nonces_turn_validators_away_and_it_is_said() -> None:
    """Each would let in what another has let in before, so the signed door is shut."""
    found = condition(said(), said(), replicas=2)
    assert (found.status, found.reason) == ("False", "NoncesNotShared")
    assert "NONCE_STORE_URL in spec.miner.pod.env" in found.message
    assert "spec.miner.replicas to 1" in found.message
    store = {"env": [{"name": "NONCE_STORE_URL", "value": "redis://nonces:6379/0"}]}
    assert condition(said(), said(), replicas=2, pod=store).reason == "Registered"
    tokens = {"env": [{"name": "DOORS", "value": "token"}]}
    assert condition(said(), said(), replicas=2, pod=tokens).reason == "Registered", "that door is not wanted"
    assert condition(said(Registration.NOT_REGISTERED), replicas=2).reason == "NotRegistered", "first things first"


def test_every_state_that_a_miner_reports_is_a_reason() -> None:
    assert {state.value for state in Registration} <= {reason.value for reason in Reason}


def stored(uid: str = "uid-p-miner-1", **subnet: Any) -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p-miner-1", "uid": uid}
    labels = {names.LABEL_POOL: "p", names.LABEL_COMPONENT: "miner-report"}
    return {
        "apiVersion": POD_REPORT.api_version, "kind": POD_REPORT.kind,
        "metadata": {**metadata("p-miner-1", labels=labels), "ownerReferences": [owner]},
        "pod": {"name": "p-miner-1", "uid": "uid-p-miner-1"}, "subnet": said().to_dict() | subnet,
    }  # fmt: skip


@pytest.mark.parametrize(
    "subnet",
    [{"registration": "Blessed"}, {"hotkey": "<script>"}, {"uid": -1}, {"message": "x" * 2000}, {"netuid": "42"}],
)
def test_what_is_no_report_is_not_believed(subnet: dict[str, Any]) -> None:
    decoded = decode_report(stored(**subnet), None)
    assert decoded.miner is None or subnet == {"netuid": "42"}
    assert decoded.report is None


def test_a_report_that_another_pod_owns_is_not_believed() -> None:
    assert decode_report(stored(), None).miner is not None
    assert decode_report(stored(uid="uid-other"), None).miner is None


def test_a_miners_report_wakes_its_pool_and_is_found_in_its_facts() -> None:
    store = Store(WATCHED)
    world = World(store)
    for thing in (pod_object("p-miner-1", component="miner"), deployment_object("p-miner")):
        store.put(thing)
    pool_key, report_key = Key(MINER_POOL.kind, NAMESPACE, "p"), Key(POD_REPORT.kind, NAMESPACE, "p-miner-1")
    store.put(stored())
    first = store.entry(report_key)
    assert pool_key in set(woken(world, None, first))
    assert world.facts(NAMESPACE, "p").subnet[0].uid == 7
    store.put(stored())
    second = store.entry(report_key)
    assert second is not None
    assert isinstance(second.value, Report)
    assert pool_key not in set(woken(world, first, second)), "it says the same"
