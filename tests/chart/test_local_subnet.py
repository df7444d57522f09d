"""The local subnet's chart: one pod on one volume, reached by its own namespace alone, and no private key in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neurons.chain.local.__main__ import parse
from tests.chart.conftest import SUBNET_OWNER


def by_kind(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in documents}


def test_the_service_takes_the_arguments_that_the_chart_gives(render: Callable, tmp_path: Path) -> None:
    made = by_kind(render("local-subnet", *SUBNET_OWNER, "--set", "hyperparameters.tempo=30", "--set", "netuid=7"))
    container = made["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    arguments = [each.replace("/chain/chain.db", str(tmp_path / "chain.db")) for each in container["args"]]
    settings = parse(arguments)
    assert settings.genesis is not None
    assert (settings.genesis.netuid, settings.genesis.hyperparameters) == (7, {"tempo": 30})
    assert (settings.interval, settings.host) == (12.0, "0.0.0.0")
    assert container["ports"][0]["containerPort"] == settings.port
    assert made["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]


def test_one_pod_keeps_the_chain_on_a_claim_that_outlives_the_release(render: Callable) -> None:
    made = by_kind(render("local-subnet", *SUBNET_OWNER))
    spec = made["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    claim = made["PersistentVolumeClaim"]["metadata"]
    assert claim["annotations"] == {"helm.sh/resource-policy": "keep"}
    volumes = {each["name"]: each for each in spec["template"]["spec"]["volumes"]}
    assert volumes["chain"]["persistentVolumeClaim"]["claimName"] == claim["name"]
    own = by_kind(render("local-subnet", *SUBNET_OWNER, "--set", "persistence.existingClaim=mine"))
    assert "PersistentVolumeClaim" not in own


def test_only_its_namespace_reaches_it_and_it_reaches_nobody(render: Callable) -> None:
    policy = by_kind(render("local-subnet", *SUBNET_OWNER))["NetworkPolicy"]["spec"]
    assert policy["ingress"][0]["from"] == [{"podSelector": {}}]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert not policy.get("egress")


def test_no_secret_is_mounted_and_no_account_s_token(render: Callable) -> None:
    documents = render("local-subnet", *SUBNET_OWNER)
    pod = by_kind(documents)["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert {key for volume in pod["volumes"] for key in volume} == {"name", "persistentVolumeClaim", "emptyDir"}
    assert "Secret" not in {document["kind"] for document in documents}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "owner.coldkey and owner.hotkey are empty"),
        ((*SUBNET_OWNER, "--set", "owner.coldkey=nobody"), "owner"),
        ((*SUBNET_OWNER, "--set", "replicas=2"), "replicas"),
    ],
)
def test_what_can_not_be_is_refused(helm: Callable, charts: Path, arguments: tuple[str, ...], says: str) -> None:
    done = helm("template", "rel", str(charts / "local-subnet"), *arguments, check=False)
    assert done.returncode != 0
    assert says in done.stderr
