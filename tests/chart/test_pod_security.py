"""Every pod that the charts make passes the restricted Pod Security Standard, with a read-only root on top."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conftest import Kubectl


def test_pods_are_found(pods: dict) -> None:
    assert {"Deployment/rel-twin-operator", "Pod/rel-twin-operator-test", "Pod/rel-test"} <= pods.keys()


def test_roots_are_read_only_and_rights_are_bounded(pods: dict) -> None:
    for name, spec in pods.items():
        assert "hostPath" not in json.dumps(spec.get("volumes", [])), name
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}, name


def test_none_can_fill_its_nodes_disk(pods: dict) -> None:
    for name, spec in pods.items():
        for volume in spec.get("volumes", []):
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], (name, volume)
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            for bound in ("requests", "limits"):
                assert container["resources"][bound]["ephemeral-storage"], (name, container["name"])


def test_tokens_are_mounted_only_where_named(pods: dict, render: Callable) -> None:
    accounts = [d for d in render("twin-operator") if d["kind"] == "ServiceAccount"]
    assert accounts
    assert all(account["automountServiceAccountToken"] is False for account in accounts)
    assert pods["Pod/rel-test"]["automountServiceAccountToken"] is False


@pytest.mark.cluster
def test_api_server_admits_them_as_restricted(pods: dict, namespace: str, kubectl: Kubectl) -> None:
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    for number, spec in enumerate(pods.values()):
        # The accounts are not there: who runs a pod plays no part in this standard.
        pod = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"},
            "spec": {**spec, "serviceAccountName": "default"},
        }  # fmt: skip
        kubectl("create", "-n", namespace, "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


@pytest.mark.cluster
def test_api_server_would_refuse_a_lesser_pod(pods: dict, namespace: str, kubectl: Kubectl) -> None:
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    spec = json.loads(json.dumps(pods["Pod/rel-test"]))
    del spec["containers"][0]["securityContext"]["capabilities"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lesser"}, "spec": spec}
    done = kubectl("create", "-n", namespace, "--dry-run=server", "-f", "-", stdin=json.dumps(pod), check=False)
    assert done.returncode != 0
    assert "violates PodSecurity" in done.stderr
