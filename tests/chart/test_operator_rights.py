"""The operator's process does its work on a real API server with exactly the rights that the chart gives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import Kubectl

CHARTS = Path(__file__).resolve().parents[2] / "charts"
POOL = {
    "apiVersion": "bettertherapy.io/v1alpha1",
    "kind": "MinerPool",
    "metadata": {"name": "quiet"},
    # Nothing runs: this is about what the operator may write, not about engines.
    "spec": {
        "baseModel": {"name": "m", "uri": "pvc://models/m"},
        "engine": {"device": "CPU"},
        "replicas": 0,
        "miner": {"replicas": 0},
        "disruption": {"maxUnavailable": 1},  # a budget, though nothing runs
        "store": {"uri": "pvc://adapters/store"},
        "nodeSelector": {"no-such-node": "yes"},
    },
}
TWIN = {
    "apiVersion": "bettertherapy.io/v1alpha1",
    "kind": "DoctorTwin",
    "metadata": {"name": "dr-a"},
    "spec": {"doctor": {"name": "Dr. A", "licence": "1"}, "baseModel": {"name": "m"}, "poolSelector": {}},
}
VALIDATOR = {
    "apiVersion": "bettertherapy.io/v1alpha1",
    "kind": "Validator",
    "metadata": {"name": "quiet"},
    "spec": {
        "chain": {"network": "finney", "netuid": 1}, "walletSecretRef": {"name": "hotkey"}, "gateway": {"replicas": 0},
        "fineTuneTasks": {"store": {"uri": "pvc://adapters/store"}},
    },
}  # fmt: skip

pytestmark = pytest.mark.cluster


@pytest.fixture(params=["cluster-wide", "one-namespace"])
def operator_log(
    request: pytest.FixtureRequest,
    helm: Callable,
    kubectl: Kubectl,
    kubeconfig: Path,
    namespace: str,
    tmp_path: Path,
) -> Iterator[Path]:
    """Install the chart without pods, and run the operator as its ServiceAccount; yields the path of its log."""
    release = f"rights-{namespace}"
    # With the policy that keeps the operator to what it needs: it must hinder nothing of this.
    arguments = ["--set", "crds.install=false", "--set", "replicas=0", "--set", "rbac.aggregateToDefaultRoles=false"]
    arguments += ["--set", "policies.tenants=false"]
    if request.param == "one-namespace":
        arguments += ["--set", f"watchNamespace={namespace}"]
    where = ["-n", namespace, "--kubeconfig", str(kubeconfig)]
    helm("install", release, str(CHARTS / "twin-operator"), *where, *arguments, "--set", f"fullnameOverride={release}")
    try:
        config = yaml.safe_load(kubeconfig.read_text())
        token = kubectl("create", "token", release, "-n", namespace).stdout.strip()
        for user in config["users"]:
            user["user"] = {"token": token}
        own = tmp_path / "kubeconfig"
        own.write_text(yaml.safe_dump(config))
        log = tmp_path / "log"
        # It keeps to the test's namespace in both cases: the cluster may have an operator of its own.
        env = os.environ | {
            "KUBECONFIG": str(own), "POD_NAME": "outside", "POD_NAMESPACE": namespace, "TWIN_NAMESPACE": namespace,
            "TWIN_LEASE_NAME": release, "TWIN_HTTP_PORT": "0",
        }  # fmt: skip
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "twin_operator"], env=env, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield log
        finally:
            process.terminate()
            process.wait(timeout=40)
    finally:
        helm("uninstall", release, *where, check=False)


def test_a_pool_and_a_twin_are_reconciled(operator_log: Path, kubectl: Kubectl, namespace: str) -> None:
    for thing in (POOL, TWIN):
        kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(thing))
    for kind, reason in (("minerpool/quiet", "ScaledToZero"), ("doctortwin/dr-a", "ScaledToZero")):
        path = '{.status.conditions[?(@.type=="Ready")].reason}'
        done = kubectl(
            "wait", kind, "-n", namespace, f"--for=jsonpath={path}={reason}", "--timeout=45s", check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + operator_log.read_text()
    made = kubectl(
        "get", "deploy,svc,rslice,sa,role,rolebinding,netpol,pdb", "-n", namespace, "-l", "bettertherapy.io/pool=quiet",
        "-o", "jsonpath={range .items[*]}{.kind} {end}",
    ).stdout.split()  # fmt: skip
    assert set(made) == {
        "Deployment", "Service", "RoutingSlice", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy",
        "PodDisruptionBudget",
    }  # fmt: skip
    deadline = time.monotonic() + 30
    while not (events := kubectl("get", "events.events.k8s.io", "-n", namespace, "-o", "name").stdout):
        assert time.monotonic() < deadline, "no event was written"
        time.sleep(0.5)
    assert events
    assert "forbidden" not in operator_log.read_text().lower()


def test_a_run_is_made_and_started(operator_log: Path, kubectl: Kubectl, namespace: str) -> None:
    asked = {**TWIN, "metadata": {"name": "dr-a", "annotations": {"bettertherapy.io/finetune-now": "x"}}}
    for thing in (POOL, asked):
        kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(thing))
    deadline = time.monotonic() + 45
    while not kubectl("get", "jobs", "-n", namespace, "-l", "bettertherapy.io/twin=dr-a", "-o", "name").stdout:
        assert time.monotonic() < deadline, operator_log.read_text()
        time.sleep(0.5)
    [run] = json.loads(kubectl("get", "finetuneruns", "-n", namespace, "-o", "json").stdout)["items"]
    kubectl("delete", "finetunerun", run["metadata"]["name"], "-n", namespace)
    assert "forbidden" not in operator_log.read_text().lower()


def test_a_validator_is_reconciled(operator_log: Path, kubectl: Kubectl, namespace: str) -> None:
    for thing in (TWIN, VALIDATOR):
        kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(thing))
    for reason in ("SecretNotFound", "NoGateway"):
        path = '{.status.conditions[?(@.type=="Ready")].reason}'
        done = kubectl(
            "wait", "validator/quiet", "-n", namespace, f"--for=jsonpath={path}={reason}", "--timeout=45s", check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + operator_log.read_text()
        if reason == "SecretNotFound":
            kubectl("create", "secret", "generic", "hotkey", "-n", namespace, "--from-literal=hotkey={}")
    made = kubectl(
        "get", "cronjob,deploy,svc,cm,sa,role,rolebinding,netpol,secret,pvc", "-n", namespace,
        "-l", "bettertherapy.io/validator=quiet", "-o", "jsonpath={range .items[*]}{.kind} {end}",
    ).stdout.split()  # fmt: skip
    assert sorted(made) == [
        "ConfigMap", "CronJob", "Deployment", "NetworkPolicy", "NetworkPolicy", "PersistentVolumeClaim", "Role",
        "RoleBinding", "Secret", "Secret", "Service", "ServiceAccount", "ServiceAccount",
    ]  # fmt: skip
    assert "forbidden" not in operator_log.read_text().lower()
