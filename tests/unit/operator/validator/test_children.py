"""What holds for every child of a validator, and the small ones: account, Service, policies, budget."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.validator.validators import OWNER, POSTGRES, TASKS, VARIANTS, children
from twin_operator.engine.apply import needs_apply, stamped
from twin_operator.kinds.resources import CHILDREN

OWN = {names.LABEL_VALIDATOR: "v", names.LABEL_COMPONENT: "gateway"}


def pods(**spec: Any) -> dict[str, dict[str, Any]]:
    """By component."""
    made = [(child["metadata"]["labels"][names.LABEL_COMPONENT], child) for child in children(**spec).values()]
    specs = [(component, child.get("spec", {})) for component, child in made]
    specs = [(component, found.get("jobTemplate", {}).get("spec", found)) for component, found in specs]
    return {component: found["template"]["spec"] for component, found in specs if "template" in found}


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_every_pod_satisfies_the_restricted_standard_and_holds_a_token_if_it_needs_one(spec: dict[str, Any]) -> None:
    found = pods(**spec)
    asked = {"ledger": "ledger", "datasets": "fineTuneTasks", "rounds": "rounds"}
    assert set(found) == {"gateway", *(component for component, field in asked.items() if field in spec)}
    for component, pod in found.items():
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 65532)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        sources = {next(key for key in volume if key != "name") for volume in pod["volumes"]}
        assert sources <= {"emptyDir", "persistentVolumeClaim", "secret", "configMap", "projected"}
        assert ("projected" in sources) is (component in ("gateway", "rounds"))
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert container["imagePullPolicy"] == "IfNotPresent"
        assert container["resources"]["limits"]["memory"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_every_child_is_of_a_kind_that_is_watched_and_found_by_its_labels(spec: dict[str, Any]) -> None:
    kinds = {resource.kind for resource in CHILDREN}
    for (kind, name), child in children(**spec).items():
        assert kind in kinds
        assert len(name) <= 63
        assert child["metadata"]["labels"][names.LABEL_VALIDATOR] == "v"
        assert names.LABEL_POOL not in child["metadata"]["labels"]
        assert "app.kubernetes.io/managed-by" in child["metadata"]["labels"]


def test_planning_twice_gives_the_same_bytes_and_nothing_to_apply() -> None:
    again = list(children().values())
    for child, other in zip(children().values(), again, strict=True):
        if child["kind"] != "ConfigMap":  # its twin is another one
            assert json.dumps(child) == json.dumps(other)
            assert needs_apply(stamped(child, OWNER), stamped(other, OWNER)) is None


def test_the_account_may_write_reports_and_nothing_else() -> None:
    made = children(**POSTGRES)
    assert made["ServiceAccount", "v-gateway"]["automountServiceAccountToken"] is False
    assert [key for key in made if key[0] in ("Role", "RoleBinding")] == [
        ("Role", "v-gateway"), ("RoleBinding", "v-gateway"),
    ]  # fmt: skip
    verbs = ["create", "get", "patch", "delete"]
    assert made["Role", "v-gateway"]["rules"] == [
        {"apiGroups": ["bettertherapy.io"], "resources": ["podreports"], "verbs": verbs}
    ]
    binding = made["RoleBinding", "v-gateway"]
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "v-gateway"}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "v-gateway", "namespace": "clinic"}]


def test_the_service_leads_to_the_gateways() -> None:
    spec = children()["Service", "v-gateway"]["spec"]
    assert (spec["type"], spec["selector"]) == ("ClusterIP", OWN)
    [port] = spec["ports"]
    assert (port["port"], port["targetPort"]) == (80, 8090)


def test_anybody_may_ask_and_nobody_reaches_the_jobs_pods() -> None:
    made = children(**POSTGRES, **TASKS)
    datasets = made["NetworkPolicy", "v-datasets"]["spec"]
    assert datasets["podSelector"]["matchLabels"][names.LABEL_COMPONENT] == "datasets"
    assert (datasets["policyTypes"], datasets["ingress"]) == (["Ingress"], [])
    gateway, ledger = (made["NetworkPolicy", name]["spec"] for name in ("v-gateway", "v-ledger"))
    assert gateway["podSelector"] == {"matchLabels": OWN}
    assert gateway["policyTypes"] == ["Ingress"]
    assert [each for each in gateway["ingress"] if "from" not in each] == [
        {"ports": [{"port": 8090, "protocol": "TCP"}]}
    ]
    assert ledger["podSelector"]["matchLabels"][names.LABEL_COMPONENT] == "ledger"
    assert (ledger["policyTypes"], ledger["ingress"]) == (["Ingress"], [])
    assert ("NetworkPolicy", "v-ledger") not in children()


def test_metrics_are_read_at_their_own_port_by_whom_the_spec_names_or_by_prometheus() -> None:
    def readers(**gateway: Any) -> list[dict[str, Any]]:
        ingress = children(gateway=gateway)["NetworkPolicy", "v-gateway"]["spec"]["ingress"]
        [found] = [each for each in ingress if "from" in each]
        assert found["ports"] == [{"port": names.GATEWAY_METRICS_PORT, "protocol": "TCP"}]
        peers: list[dict[str, Any]] = found["from"]
        return peers

    for none in ({}, {"metricsFrom": []}):
        assert readers(**none) == [
            {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}
        ]
    peer = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    }
    assert readers(metricsFrom=[peer, {"podSelector": {}}]) == [peer, {"podSelector": {}}]


def test_a_drain_takes_one_gateway_of_several_and_may_take_a_single_one() -> None:
    assert ("PodDisruptionBudget", "v-gateway") not in children()
    budget = children(**POSTGRES, gateway={"replicas": 2})["PodDisruptionBudget", "v-gateway"]["spec"]
    assert (budget["maxUnavailable"], budget["selector"]) == (1, {"matchLabels": OWN})
