"""Deployment P-miner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bettertherapy_api import names
from neurons.miner import settings
from neurons.miner.limits import Limits
from tests.unit.operator.children.pods import OVERLAY, children, computing, containers, pod_of
from tests.unit.operator.samples import NAMESPACE


def miner_pod(**miner: Any) -> dict[str, Any]:
    return pod_of(children(miner=miner)["Deployment", "p-miner"])


def test_tokens_come_from_the_pools_secret_or_the_one_it_names() -> None:
    for asked, secret in (({}, "p-access"), ({"accessSecretRef": {"name": "mine"}}, "mine")):
        pod = miner_pod(**asked)
        assert f"--access-secret={secret}" in containers(pod)["miner"]["args"]
        [volume] = [volume for volume in pod["volumes"] if volume["name"] == "access"]
        assert volume["secret"]["secretName"] == secret


def test_a_miners_resources_are_the_pools_own() -> None:
    own = {"requests": {"cpu": "2"}, "limits": {"memory": "4Gi"}}
    assert computing(containers(miner_pod(resources=own))["miner"]) == own
    assert computing(containers(miner_pod())["miner"])["limits"] == {"memory": "512Mi"}


def test_several_miners_are_spread_over_nodes_unless_the_pool_says_how() -> None:
    assert "topologySpreadConstraints" not in miner_pod(replicas=1)
    [spread] = miner_pod(replicas=2)["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    [asked] = miner_pod(replicas=2, pod=OVERLAY)["topologySpreadConstraints"]
    assert asked == {
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {names.LABEL_POOL: "p", names.LABEL_COMPONENT: "miner"}},
    }  # fmt: skip


SUBNET = {
    "walletSecretRef": {"name": "p-hotkey"}, "netuid": 42, "chain": "finney", "externalAddress": "203.0.113.7:8091",
    "replicas": 2,
}  # fmt: skip


def test_a_wallets_secret_is_mounted_into_miners_whole_and_read_only() -> None:
    pod = miner_pod(**SUBNET)
    [volume] = [volume for volume in pod["volumes"] if volume["name"] == "wallet"]
    # Not optional, and no items picked: a missing Secret keeps the pod from starting, a coldkey in it is found.
    assert volume == {"name": "wallet", "secret": {"secretName": "p-hotkey", "defaultMode": 0o440}}
    miner = containers(pod)["miner"]
    assert [mount for mount in miner["volumeMounts"] if mount["name"] == "wallet"] == [
        {"name": "wallet", "mountPath": names.WALLET_DIR, "readOnly": True}
    ]
    assert [each for each in miner["args"] if each not in containers(miner_pod())["miner"]["args"]] == [
        f"--wallet-dir={names.WALLET_DIR}", "--replicas=2", "--netuid=42", "--chain=finney",
        "--external-address=203.0.113.7:8091",
    ]  # fmt: skip


def test_the_local_chain_is_the_service_subnet_of_the_pools_namespace_as_it_is_for_validators() -> None:
    told = containers(miner_pod(**SUBNET | {"chain": "local"}))["miner"]["args"]
    assert f"--chain=http://subnet.{NAMESPACE}.svc:9944" in told


def test_nothing_but_the_miners_reads_the_wallets_secret() -> None:
    for (kind, name), child in children(miner=SUBNET).items():
        assert ("p-hotkey" in json.dumps(child)) is ((kind, name) == ("Deployment", "p-miner"))


def test_without_a_wallet_a_miner_is_what_it_was() -> None:
    rest = {name: value for name, value in SUBNET.items() if name not in ("walletSecretRef", "replicas")}
    assert miner_pod(**rest) == miner_pod()


def test_what_the_operator_says_is_what_a_miner_understands() -> None:
    given = settings.parse(containers(miner_pod(**SUBNET))["miner"]["args"], {"POOL": "p", "POD_NAMESPACE": "clinic"})
    assert given.subnet == settings.SubnetSettings(
        wallet_dir=Path(names.WALLET_DIR), netuid=42, chain="finney", external_address="203.0.113.7:8091", replicas=2
    )


def test_a_miner_is_told_whether_it_takes_tasks() -> None:
    takes = miner_pod(**SUBNET, tasks={"accept": True})
    given = settings.parse(containers(takes)["miner"]["args"], {"POOL": "p", "POD_NAMESPACE": "clinic"})
    assert given.subnet is not None
    assert given.subnet.tasks
    assert miner_pod(**SUBNET, tasks={"accept": False}) == miner_pod(**SUBNET)


def test_images_and_browsers_are_let_in_where_the_pool_says_so() -> None:
    plain = containers(miner_pod())["miner"]["args"]
    assert not [each for each in plain if each.startswith(("--images", "--cors"))]
    asked = containers(miner_pod(images=True, corsOrigins=["https://a.example", "http://localhost:3000"]))["miner"]
    assert [each for each in asked["args"] if each not in plain] == [
        "--images", "--cors-origins=https://a.example,http://localhost:3000",
    ]  # fmt: skip


def test_a_miner_is_told_what_one_request_and_one_client_may_ask() -> None:
    plain = containers(miner_pod())["miner"]["args"]
    limits = {
        "messages": 9, "answers": 2, "tokens": 500, "patterns": True, "ignoreEos": True, "clientRequests": 7,
        "clientMemoryPercent": 20,
    }  # fmt: skip
    told = containers(miner_pod(limits=limits))["miner"]["args"]
    given = settings.parse(told, {"POOL": "p", "POD_NAMESPACE": "clinic"})
    assert given.limits == Limits(messages=9, answers=2, tokens=500, patterns=True, ignore_eos=True)
    assert (given.client_requests, given.client_memory_percent) == (7, 20)
    assert containers(miner_pod(limits={}))["miner"]["args"] == plain
    assert settings.parse(plain, {"POOL": "p", "POD_NAMESPACE": "clinic"}).limits == Limits()


def test_a_miner_is_told_how_many_answers_to_compare_and_how_long() -> None:
    plain = containers(miner_pod())["miner"]["args"]
    told = containers(miner_pod(candidates=4, latencyBudgetSeconds=12))["miner"]["args"]
    assert [each for each in told if each not in plain] == ["--candidates=4", "--latency-budget-seconds=12"]
    given = settings.parse(told, {"POOL": "p", "POD_NAMESPACE": "clinic"})
    assert (given.candidates, given.latency_budget_seconds) == (4, 12.0)
    assert settings.parse(plain, {"POOL": "p", "POD_NAMESPACE": "clinic"}).candidates == 1


def test_a_miner_of_a_pool_that_may_sleep_holds_requests_until_an_engine_is_up_and_tells_of_them() -> None:
    def arguments(**autoscaling: object) -> list[str]:
        made = children(autoscaling=autoscaling)["Deployment", "p-miner"]
        return list(pod_of(made)["containers"][0]["args"])

    assert {"--hold-seconds=480", "--wakes"} <= set(arguments(mode="Operator", min=0))
    assert "--wakes" not in arguments(mode="Operator", min=1)
    assert "--wakes" not in arguments(mode="Off", min=0)
