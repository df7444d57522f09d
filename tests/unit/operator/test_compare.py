"""A live object that says what we want, in the API server's words, differs in nothing; what is of others is left."""

# ruff: noqa: E501  # tables of cases read better with one case a line

from __future__ import annotations

from typing import Any

import pytest

from twin_operator.engine.compare import differences, first_difference


def pod(**spec: Any) -> dict[str, Any]:
    return {"kind": "Deployment", "spec": {"template": {"spec": spec}}}


def container(**more: Any) -> dict[str, Any]:
    return pod(containers=[{"name": "c", **more}])


def policy(*ingress: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "NetworkPolicy", "spec": {"ingress": list(ingress)}}


def spread(*constraints: tuple[str, str, int]) -> dict[str, Any]:
    return pod(
        topologySpreadConstraints=[
            {"topologyKey": key, "whenUnsatisfiable": when, "maxSkew": skew} for key, when, skew in constraints
        ]
    )


def token(**more: Any) -> dict[str, Any]:
    return pod(volumes=[{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token", **more}}]}}])


def role(**rule: Any) -> dict[str, Any]:
    return {"kind": "Role", "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], **rule}]}


FIELD = {"fieldRef": {"fieldPath": "metadata.name"}}
HTTP = {"name": "http", "containerPort": 80}


@pytest.mark.parametrize(
    ("wanted", "live"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"selector": {}}, {}),
        ({"list": []}, {}),
        (container(resources={"requests": {"cpu": "1000m"}}), container(resources={"requests": {"cpu": "1"}})),
        (container(resources={"limits": {"memory": "1Gi"}}), container(resources={"limits": {"memory": "1024Mi"}})),
        (
            container(resources={"limits": {"nvidia.com/gpu": 1}}),
            container(resources={"limits": {"nvidia.com/gpu": "1"}}),
        ),
        (
            pod(volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1e3"}}]),
            pod(volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1k"}}]),
        ),
        (container(), pod(containers=[{"name": "sidecar"}, {"name": "c", "image": "x"}])),
        (
            container(volumeMounts=[{"mountPath": "/a", "name": "v"}]),
            container(volumeMounts=[{"mountPath": "/b", "name": "v"}, {"mountPath": "/a", "name": "v", "readOnly": True}]),
        ),
        (container(env=[{"name": "N", "value": ""}]), container(env=[{"name": "N"}])),
        (
            container(env=[{"name": "N", "valueFrom": FIELD}]),
            container(env=[{"name": "N", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}]),
        ),
        (container(ports=[HTTP]), container(ports=[{**HTTP, "protocol": "TCP"}])),
        (
            container(ports=[HTTP, {"containerPort": 80, "protocol": "UDP"}]),
            container(ports=[{"containerPort": 80, "protocol": "UDP"}, {**HTTP, "protocol": "TCP"}]),
        ),
        (policy({"ports": [{"port": 80}]}), policy({"ports": [{"port": 80, "protocol": "TCP"}]})),
        (token(), token(expirationSeconds=3600)),
        (spread(("zone", "DoNotSchedule", 1), ("zone", "ScheduleAnyway", 2)),
         spread(("zone", "ScheduleAnyway", 2), ("zone", "DoNotSchedule", 1))),
        ({"kind": "ConfigMap", "metadata": {"finalizers": ["a"]}}, {"kind": "ConfigMap", "metadata": {"finalizers": ["b", "a"]}}),
    ],
)  # fmt: skip
def test_the_same(wanted: Any, live: Any) -> None:
    assert first_difference(wanted, live) is None


@pytest.mark.parametrize(
    ("wanted", "live", "where"),
    [
        ({"a": 1}, {"a": 2}, "a"),
        ({"a": {"b": 1}}, {}, "a"),
        ({"a": True}, {"a": "True"}, "a"),
        ({"a": {"x": 1}}, {"a": [1]}, "a"),
        ({"args": ["a", "b"]}, {"args": ["a"]}, "args"),
        ({"args": ["a", "b"]}, {"args": ["b", "a"]}, "args[0]"),
        (
            container(resources={"requests": {"cpu": "1"}}), container(resources={"requests": {"cpu": "2"}}),
            "spec.template.spec.containers[c].resources.requests.cpu",
        ),
        # Beyond what can be reckoned with: it is another text.
        (
            container(resources={"limits": {"cpu": "1e1000000000000000000"}}),
            container(resources={"limits": {"cpu": "9223372036854775807"}}),
            "spec.template.spec.containers[c].resources.limits.cpu",
        ),
        (
            container(env=[{"name": "N", "value": "1000m"}]), container(env=[{"name": "N", "value": "1"}]),
            "spec.template.spec.containers[c].env[N].value",
        ),
        (container(), pod(containers=[]), "spec.template.spec.containers[c]"),
        (container(automountServiceAccountToken=False), container(), "spec.template.spec.containers[c].automount"),
        # Two ports of one number, told apart by protocol alone: the second was lost before.
        (
            container(ports=[HTTP, {"containerPort": 80, "protocol": "UDP"}]), container(ports=[HTTP]),
            "spec.template.spec.containers[c].ports[80/UDP]",
        ),
        (
            spread(("zone", "DoNotSchedule", 1), ("zone", "ScheduleAnyway", 1)), spread(("zone", "ScheduleAnyway", 1)),
            "spec.template.spec.topologySpreadConstraints[zone/DoNotSchedule]",
        ),
        # Maps and lists in whole: what somebody added there means something else.
        (
            {"kind": "Service", "spec": {"selector": {"a": "b"}}},
            {"kind": "Service", "spec": {"selector": {"a": "b", "c": "d"}}}, "spec.selector.c",
        ),
        (
            {"kind": "Deployment", "spec": {"selector": {"matchLabels": {"a": "b"}}}},
            {"kind": "Deployment", "spec": {"selector": {"matchLabels": {"a": "b", "c": "d"}}}},
            "spec.selector.matchLabels.c",
        ),
        (pod(tolerations=[{"key": "a"}]), pod(tolerations=[{"key": "a"}, {"key": "b"}]), "spec.template.spec.tolerations"),
        (pod(nodeSelector={"a": "b"}), pod(nodeSelector={"a": "b", "c": "d"}), "spec.template.spec.nodeSelector.c"),
        (role(), role(resourceNames=["x"]), "rules[0].resourceNames"),
        (role(), role(verbs=["get", "delete"]), "rules[0].verbs"),
        (
            policy({"from": [{"podSelector": {"matchLabels": {"a": "b"}}}]}),
            policy({"from": [{"podSelector": {"matchLabels": {"a": "b"}}, "namespaceSelector": {}}]}),
            "spec.ingress[0].from[0].namespaceSelector",
        ),
        (policy({"ports": [{"port": 80}]}), policy({"ports": [{"port": 80, "protocol": "UDP"}]}), "spec.ingress[0].ports[0].protocol"),
        (policy({"ports": [{"port": 80}]}), policy({"ports": [{"port": 80}]}, {}), "spec.ingress"),
        (token(), token(expirationSeconds=600), "spec.template.spec.volumes[t].projected.sources[0]."),
        ({"kind": "ConfigMap", "metadata": {"finalizers": ["a"]}}, {"kind": "ConfigMap", "metadata": {"finalizers": ["b"]}}, "metadata.finalizers"),
    ],
)  # fmt: skip
def test_different(wanted: Any, live: Any, where: str) -> None:
    assert (first_difference(wanted, live) or "").startswith(where)


def test_all_differences_are_told_each_by_its_place() -> None:
    wanted = pod(serviceAccountName="s", containers=[{"name": "c", "image": "i", "args": ["x", "y"]}, {"name": "d"}])
    live = pod(serviceAccountName="t", containers=[{"name": "c", "image": "mirror/i", "args": ["x", "z"]}])
    found = {each.path.removeprefix("spec.template.spec."): each.live for each in differences(wanted, live)}
    assert found == {
        "serviceAccountName": "t", "containers[c].image": "mirror/i", "containers[c].args[1]": "z",
        "containers[d]": None,
    }  # fmt: skip
