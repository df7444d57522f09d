"""Deployment P-miner."""

from __future__ import annotations

from typing import Any

from bettertherapy_api import names
from tests.unit.operator.children.pods import OVERLAY, children, containers, pod_of


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
    assert containers(miner_pod(resources=own))["miner"]["resources"] == own
    assert containers(miner_pod())["miner"]["resources"]["limits"] == {"memory": "256Mi"}


def test_several_miners_are_spread_over_nodes_unless_the_pool_says_how() -> None:
    assert "topologySpreadConstraints" not in miner_pod(replicas=1)
    [spread] = miner_pod(replicas=2)["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    [asked] = miner_pod(replicas=2, pod=OVERLAY)["topologySpreadConstraints"]
    assert asked == {
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {names.LABEL_POOL: "p", names.LABEL_COMPONENT: "miner"}},
    }  # fmt: skip


def test_images_and_browsers_are_let_in_where_the_pool_says_so() -> None:
    plain = containers(miner_pod())["miner"]["args"]
    assert not [each for each in plain if each.startswith(("--images", "--cors"))]
    asked = containers(miner_pod(images=True, corsOrigins=["https://a.example", "http://localhost:3000"]))["miner"]
    assert [each for each in asked["args"] if each not in plain] == [
        "--images", "--cors-origins=https://a.example,http://localhost:3000",
    ]  # fmt: skip
