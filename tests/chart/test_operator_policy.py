"""The operator's ServiceAccount, in whoever's hands: kept to pods and rights of its own objects, by its real token."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Kubectl
from tests.groups import leader_worker_sets

CHART = Path(__file__).resolve().parents[2] / "charts" / "twin-operator"
Json = dict[str, Any]
OWNER: Json = {
    "apiVersion": "bettertherapy.io/v1alpha1",
    "kind": "MinerPool",
    "name": "p",
    "uid": "u",
    "controller": True,
}
RUN: Json = {**OWNER, "kind": "FineTuneRun", "name": "a-run-with-a-name-that-is-long-enough-to-be-cut-off"}
RBAC = "rbac.authorization.k8s.io/v1"
SAFE: Json = {"allowPrivilegeEscalation": False}

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def as_operator(
    helm: Callable[..., Any], kubectl: Kubectl, kubeconfig: Path, namespace_once: str, tmp_path_factory: Any
) -> Iterator[Callable[..., str]]:
    """Install the chart without pods; `as_operator(thing)` creates it by the operator's token, returns what is said."""
    release, where = f"policy-{namespace_once}", ["-n", namespace_once, "--kubeconfig", str(kubeconfig)]
    settings = ["crds.install=false,replicas=0,rbac.aggregateToDefaultRoles=false,policies.tenants=false"]
    helm("install", release, str(CHART), *where, "--set", *settings, "--set", f"fullnameOverride={release}")
    try:
        config = yaml.safe_load(kubeconfig.read_text())
        token = kubectl("create", "token", release, "-n", namespace_once).stdout.strip()
        for user in config["users"]:
            user["user"] = {"token": token}
        own = tmp_path_factory.mktemp("operator") / "kubeconfig"
        own.write_text(yaml.safe_dump(config))

        def create(thing: Json, *, namespace: str = namespace_once) -> str:
            done = kubectl(
                "--kubeconfig", str(own), "-n", namespace, "create", "--dry-run=server", "-f", "-",
                stdin=json.dumps(thing), check=False,
            )  # fmt: skip
            return "" if done.returncode == 0 else done.stderr

        # Rights that hold nothing, so that nothing but the policy keeps anybody from handing them on.
        kubectl("create", "-n", namespace_once, "-f", "-", stdin=json.dumps(named("Role", RBAC, None, "p-engine")))
        kubectl("apply", "-f", "-", stdin=json.dumps(named("ClusterRole", RBAC, None, "p-engine")))
        deadline = time.monotonic() + 30
        while not create(deployment(owner=None)):
            assert time.monotonic() < deadline, "the policy is not enforced"
            time.sleep(0.2)
        yield create
    finally:
        kubectl("delete", "clusterrole", "p-engine", "--ignore-not-found")
        helm("uninstall", release, *where, check=False)


def named(kind: str, api: str, owner: Json | None, name: str = "x") -> Json:
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, **({"ownerReferences": [owner]} if owner else {})},
    }


def pod(**spec: Any) -> Json:
    return {
        "serviceAccountName": "p-engine", "containers": [{"name": "c", "image": "i", "securityContext": SAFE}], **spec
    }  # fmt: skip


def deployment(*, owner: Json | None = OWNER, **spec: Any) -> Json:
    labels = {"a": "b"}
    template = {"metadata": {"labels": labels}, "spec": pod(**spec)}
    return {
        **named("Deployment", "apps/v1", owner), "spec": {"selector": {"matchLabels": labels}, "template": template},
    }  # fmt: skip


def group(leader: Json, worker: Json, owner: Json | None = OWNER) -> Json:
    templates = {"leaderTemplate": {"spec": pod(**leader)}, "workerTemplate": {"spec": pod(**worker)}}
    return {
        **named("LeaderWorkerSet", "leaderworkerset.x-k8s.io/v1", owner),
        "spec": {"leaderWorkerTemplate": {"size": 2, **templates}},
    }


def job(account: str, owner: Json = RUN) -> Json:
    spec = {"template": {"spec": {**pod(serviceAccountName=account), "restartPolicy": "Never"}}}
    return {**named("Job", "batch/v1", owner), "spec": spec}


def role_binding(*subjects: Json, role: str = "Role", owner: Json = OWNER) -> Json:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": "p-engine"}
    made = named("RoleBinding", RBAC, owner)
    return {**made, "roleRef": reference, "subjects": list(subjects)}


def account(name: str = "p-engine", **more: str) -> Json:
    return {"kind": "ServiceAccount", "name": name, **more}


def privileged(**security: Any) -> Json:
    return deployment(containers=[{"name": "c", "image": "i", "securityContext": {**SAFE, **security}}])


REFUSED: dict[str, tuple[Json, str]] = {
    "pods of nobody": (deployment(owner=None), "as their controller"),
    "pods of somebody else": (
        deployment(owner={**OWNER, "apiVersion": "apps/v1", "kind": "ReplicaSet"}), "as their controller"
    ),
    "another account": (deployment(serviceAccountName="cluster-admin"), "as the account that it made"),
    "the default account": (deployment(serviceAccountName="default"), "as the account that it made"),
    "another pool's account": (deployment(serviceAccountName="q-engine"), "as the account that it made"),
    "an examiner's account for a pool": (deployment(serviceAccountName="p-examiner"), "as the account that it made"),
    "another run's examiner": (job("r2-examiner"), "as the account that it made"),
    "more capabilities": (privileged(capabilities={"add": ["SYS_ADMIN"]}), "gains rights"),
    "all capabilities": (privileged(capabilities={"add": ["CHOWN", "ALL"]}, runAsUser=0), "gains rights"),
    "another container's memory": (
        deployment(initContainers=[{"name": "c2", "image": "i", "securityContext": {
            **SAFE, "capabilities": {"add": ["SYS_PTRACE"]}}}]), "gains rights",
    ),
    "no seccomp": (privileged(seccompProfile={"type": "Unconfined"}), "gains rights"),
    "no seccomp for all": (deployment(securityContext={"seccompProfile": {"type": "Unconfined"}}), "gains rights"),
    "no AppArmor": (privileged(appArmorProfile={"type": "Unconfined"}), "gains rights"),
    "SELinux of its own": (privileged(seLinuxOptions={"type": "spc_t"}), "gains rights"),
    "a port of the node": (
        deployment(containers=[{"name": "c", "image": "i", "securityContext": SAFE,
                                "ports": [{"containerPort": 80, "hostPort": 80}]}]), "share nothing of the node",
    ),
    "the node's network": (deployment(hostNetwork=True), "share nothing of the node"),
    "the node's processes": (deployment(hostPID=True), "share nothing of the node"),
    "a privileged container": (
        privileged(privileged=True, allowPrivilegeEscalation=True), "no container of theirs gains"
    ),
    "a folder of the node": (
        deployment(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), "no folders of the node"
    ),
    "a binding to a ClusterRole": (role_binding(account(), role="ClusterRole"), "no ClusterRole"),
    "an account of another namespace": (
        role_binding(account(namespace="kube-system")), "no account of another namespace"
    ),
    "an account of something else here": (role_binding(account("builder")), "no ClusterRole"),
    "a user": (
        role_binding({"kind": "User", "name": "me", "apiGroup": "rbac.authorization.k8s.io"}), "no ClusterRole, no user"
    ),
    "a role over more": (
        {
            **named("Role", RBAC, OWNER),
            "rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["create"]}],
        },
        "for nothing else",
    ),
    "a role over pods": (
        {
            **named("Role", RBAC, OWNER),
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
        },
        "for nothing else",
    ),
    "a Secret that is an account's token": (
        {
            **named("Secret", "v1", OWNER), "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "default"}},
        },
        "none that stands for an account",
    ),
    "an account of nobody": (named("ServiceAccount", "v1", None), "as their controller"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_operator_needs_not_it_may_not(as_operator: Callable[..., str], what: str) -> None:
    thing, says = REFUSED[what]
    assert says in as_operator(thing)


def test_nothing_in_the_clusters_own_namespaces(as_operator: Callable[..., str]) -> None:
    assert "the cluster's own namespaces" in as_operator(deployment(), namespace="kube-system")


@pytest.mark.parametrize(
    "thing",
    [deployment(), job(f"{RUN['name']}-trainer"), job(f"{RUN['name'][:47]}-abcdef-examiner"), role_binding(account()),
     named("ServiceAccount", "v1", OWNER), {**named("Secret", "v1", None), "type": "Opaque"}],
)  # fmt: skip
def test_what_it_needs_it_may(as_operator: Callable[..., str], thing: Json) -> None:
    assert as_operator(thing) == ""


GROUPS: dict[str, tuple[Json, str]] = {
    "as the operator makes them": (group({}, {}), ""),
    "of nobody": (group({}, {}, owner=None), "as their controller"),
    "leaders of another account": (group({"serviceAccountName": "cluster-admin"}, {}), "as the account that it made"),
    "workers of another account": (group({}, {"serviceAccountName": "cluster-admin"}), "as the account that it made"),
    "workers in the node's network": (group({}, {"hostNetwork": True}), "share nothing of the node"),
    "workers with the node's folders": (
        group({}, {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), "no folders of the node"
    ),
}  # fmt: skip


def test_groups_of_pods_are_bounded_as_pods_are(
    as_operator: Callable[..., str], kubectl: Kubectl, tmp_path: Path
) -> None:
    with leader_worker_sets(kubectl, tmp_path):
        for what, (thing, words) in GROUPS.items():
            said = as_operator(thing)
            assert (words in said) if words else (not said), f"{what}: {said}"
