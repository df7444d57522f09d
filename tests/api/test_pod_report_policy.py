"""Who may write a pod's report: that pod, by the token that is bound to it. On a real API server, with real tokens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.report import (
    EngineReport,
    GatewayReport,
    GatewayView,
    MinerReport,
    PodRef,
    PodReport,
    Registration,
    SubnetReport,
)
from neurons.cluster import ClusterClient, ClusterError, KubeconfigAccess, PodReportWriter, paths
from tests.conftest import Kubectl

pytestmark = pytest.mark.cluster

Connect = Callable[[str], ClusterClient]
ACCOUNT = "pool-engine"


@dataclass(frozen=True)
class EnginePods:
    """Two pods of one pool with the rights of its engines, and who to be to the API server."""

    namespace: str
    uids: dict[str, str]
    connect: Connect
    """Return a client with a token bound to a pod; "" for one that is bound to none."""


@pytest.fixture
def pods(kubectl: Kubectl, namespace: str, kubeconfig: Path, tmp_path: Path) -> EnginePods:
    kubectl("-n", namespace, "create", "serviceaccount", ACCOUNT)
    rule = {"apiGroups": [names.GROUP], "resources": ["podreports"], "verbs": ["create", "get", "patch", "delete"]}
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "engine"},
        "rules": [rule],
    }
    kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(role))
    account = f"--serviceaccount={namespace}:{ACCOUNT}"
    kubectl("-n", namespace, "create", "rolebinding", "engine", "--role=engine", account)
    uids = {}
    for name in ("pod-1", "pod-2"):
        spec = {"serviceAccountName": ACCOUNT, "containers": [{"name": "engine", "image": "none"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        made = kubectl("-n", namespace, "create", "-f", "-", "-o", "json", stdin=json.dumps(pod)).stdout
        uids[name] = json.loads(made)["metadata"]["uid"]

    def connect(pod: str) -> ClusterClient:
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}") if pod else ()
        token = kubectl("-n", namespace, "create", "token", ACCOUNT, *bound).stdout.strip()
        config = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json").stdout)
        config["users"][0]["user"] = {"token": token}
        path = tmp_path / f"kubeconfig-{pod}"
        path.write_text(json.dumps(config))
        return ClusterClient(KubeconfigAccess(path))

    return EnginePods(namespace, uids, connect)


def report(pods: EnginePods, pod: str, *, uid: str | None = None, ready: bool = True) -> PodReport:
    return PodReport(pod=PodRef(name=pod, uid=uid or pods.uids[pod]), ready=ready, engine=EngineReport(live=True))


def document(pods: EnginePods, pod: str, **changes: Any) -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": pods.uids[pod]}
    metadata = {"name": pod, "labels": paths.report_labels("pool"), "ownerReferences": [owner]}
    kind = {"apiVersion": names.API_VERSION, "kind": "PodReport"}
    return {**kind, "metadata": {**metadata, **changes}, **report(pods, pod).to_dict()}


def writer(pods: EnginePods, client: ClusterClient) -> PodReportWriter:
    return PodReportWriter(client, namespace=pods.namespace, labels=paths.report_labels("pool"))


async def enforced(pods: EnginePods) -> None:
    """Wait until the API server enforces the policy: it takes up a new one within a second or so."""
    deadline = time.monotonic() + 30
    async with pods.connect("") as nobody:
        while time.monotonic() < deadline:
            try:
                await nobody.create(paths.pod_reports(pods.namespace), document(pods, "pod-2"))
            except ClusterError:
                return
            await PodReportWriter(nobody, namespace=pods.namespace, labels=paths.report_labels("pool")).remove("pod-2")
    raise AssertionError("the policy pod-reports.bettertherapy.io is not enforced")


async def test_a_pod_writes_changes_and_removes_its_own_report(pods: EnginePods, kubectl: Kubectl) -> None:
    await enforced(pods)
    async with pods.connect("pod-1") as own:
        mine = writer(pods, own)
        await mine.write(report(pods, "pod-1"))
        await mine.write(report(pods, "pod-1", ready=False))
        found = json.loads(kubectl("-n", pods.namespace, "get", "podreport", "pod-1", "-o", "json").stdout)
        assert (found["ready"], found["pod"]["uid"]) == (False, pods.uids["pod-1"])
        await mine.remove("pod-1")
    assert not kubectl("-n", pods.namespace, "get", "podreports", "-o", "name").stdout.strip()


async def test_a_report_forged_by_another_pod_of_the_pool_is_refused_in_words(pods: EnginePods) -> None:
    await enforced(pods)
    path = f"{paths.pod_reports(pods.namespace)}/pod-1"
    async with pods.connect("pod-1") as own, pods.connect("pod-2") as other, pods.connect("") as nobody:
        await writer(pods, own).write(report(pods, "pod-1"))
        for client, who in ((other, "pod pod-2"), (nobody, f"system:serviceaccount:{pods.namespace}:{ACCOUNT}")):
            for forge in (
                client.create(paths.pod_reports(pods.namespace), document(pods, "pod-1")),
                client.merge(path, {"ready": False}),
                client.merge(path, {"metadata": {"ownerReferences": None}}),
                client.delete(path),
            ):
                with pytest.raises(ClusterError, match="is written by that pod alone") as refused:
                    await forge
                assert refused.value.status == 403
                assert who in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {names.LABEL_POOL: "another", names.LABEL_COMPONENT: "report"}}, "must name the pool"),
        ({"labels": {names.LABEL_COMPONENT: "report"}}, "must name the pool"),
        ({"labels": {names.LABEL_POOL: "pool", names.LABEL_COMPONENT: "engine"}}, 'must be "report"'),
        ({"labels": None}, "must name the pool"),
        ({"ownerReferences": []}, "nothing else"),
        ({"finalizers": ["example.org/stay"]}, "nobody could take one off"),
        ({"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "pod-1", "uid": "u"}]}, "nothing else"),
    ],
)
async def test_a_pod_can_say_nothing_of_itself_that_is_not_so(
    pods: EnginePods, changes: dict[str, Any], message: str
) -> None:
    await enforced(pods)
    async with pods.connect("pod-1") as own:
        with pytest.raises(ClusterError, match=message):
            await own.create(paths.pod_reports(pods.namespace), document(pods, "pod-1", **changes))


async def test_a_pod_cannot_make_its_report_stay_for_ever(pods: EnginePods) -> None:
    await enforced(pods)
    async with pods.connect("pod-1") as own:
        await writer(pods, own).write(report(pods, "pod-1"))
        with pytest.raises(ClusterError, match="nobody could take one off"):
            await own.merge(
                f"{paths.pod_reports(pods.namespace)}/pod-1", {"metadata": {"finalizers": ["example.org/stay"]}}
            )


async def test_a_pod_cannot_claim_anothers_uid(pods: EnginePods) -> None:
    await enforced(pods)
    async with pods.connect("pod-1") as own:
        forged = {**document(pods, "pod-1"), "pod": {"name": "pod-1", "uid": pods.uids["pod-2"]}}
        with pytest.raises(ClusterError, match=r"pod\.uid must be the UID"):
            await own.create(paths.pod_reports(pods.namespace), forged)


async def test_the_garbage_collector_takes_it_with_its_pod(pods: EnginePods, kubectl: Kubectl) -> None:
    await enforced(pods)
    async with pods.connect("pod-1") as own:
        await writer(pods, own).write(report(pods, "pod-1"))
    kubectl("-n", pods.namespace, "delete", "pod", "pod-1", "--force", "--grace-period=0")
    kubectl("-n", pods.namespace, "wait", "--for=delete", "podreport/pod-1", "--timeout=30s")


def miner_document(pods: EnginePods, pod: str, **labels: str) -> dict[str, Any]:
    said = MinerReport(
        pod=PodRef(name=pod, uid=pods.uids[pod]),
        subnet=SubnetReport(registration=Registration.REGISTERED, netuid=42, uid=7),
    )
    whole = document(pods, pod, labels=paths.miner_report_labels("pool") | labels)
    kept = {key: value for key, value in whole.items() if key not in ("engine", "ready")}
    return {**kept, **said.to_dict()}


def client_of(pods: EnginePods, kubectl: Kubectl, tmp_path: Path, *, account: str, pod: str) -> ClusterClient:
    """Make a pod with an account of its own that has the rights of the engines' one; return a client with its token."""
    kubectl("-n", pods.namespace, "create", "serviceaccount", account)
    kubectl("-n", pods.namespace, "create", "rolebinding", account, "--role=engine",
            f"--serviceaccount={pods.namespace}:{account}")  # fmt: skip
    spec = {"serviceAccountName": account, "containers": [{"name": "neuron", "image": "none"}]}
    thing = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": spec}
    made = kubectl("-n", pods.namespace, "create", "-f", "-", "-o", "json", stdin=json.dumps(thing)).stdout
    pods.uids[pod] = json.loads(made)["metadata"]["uid"]
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}")
    token = kubectl("-n", pods.namespace, "create", "token", account, *bound).stdout.strip()
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json").stdout)
    config["users"][0]["user"] = {"token": token}
    path = tmp_path / f"kubeconfig-{account}"
    path.write_text(json.dumps(config))
    return ClusterClient(KubeconfigAccess(path))


async def test_a_miner_reports_of_its_subnet_and_of_no_engine(
    pods: EnginePods, kubectl: Kubectl, tmp_path: Path
) -> None:
    collection = paths.pod_reports(pods.namespace)
    async with client_of(pods, kubectl, tmp_path, account="pool-miner", pod="pod-3") as miner:
        with pytest.raises(ClusterError, match="must name the pool of the ServiceAccount"):
            await miner.create(collection, document(pods, "pod-3"))
        mislabelled = miner_document(pods, "pod-3", **{"bettertherapy.io/component": "report"})
        with pytest.raises(ClusterError, match="miner-report"):
            await miner.create(collection, mislabelled)
        both = {**miner_document(pods, "pod-3"), "engine": {"live": True}, "ready": True}
        with pytest.raises(ClusterError, match="set one of them"):
            await miner.create(collection, both)
        await miner.create(collection, miner_document(pods, "pod-3"))
    async with pods.connect("pod-1") as agent:
        with pytest.raises(ClusterError, match="must name the pool of the ServiceAccount"):
            await agent.create(collection, miner_document(pods, "pod-1"))


async def test_a_miner_without_a_wallet_reports_what_waits_and_an_agent_does_not(
    pods: EnginePods, kubectl: Kubectl, tmp_path: Path
) -> None:
    collection = paths.pod_reports(pods.namespace)

    def waiting(pod: str) -> dict[str, Any]:
        demand = {"demand": {"heldSince": "2026-12-01T00:00:00Z"}}
        return {key: value for key, value in miner_document(pods, pod).items() if key != "subnet"} | demand

    async with client_of(pods, kubectl, tmp_path, account="pool-miner", pod="pod-3") as miner:
        with pytest.raises(ClusterError, match="set one of them"):
            await miner.create(collection, {**waiting("pod-3"), "engine": {"live": True}, "ready": True})
        await miner.create(collection, waiting("pod-3"))
        await miner.merge(f"{collection}/pod-3", {"demand": {"heldSince": None}})
        await miner.merge(f"{collection}/pod-3", {"subnet": {"registration": "Registered"}})
    async with pods.connect("pod-1") as agent:
        with pytest.raises(ClusterError, match="must name the pool of the ServiceAccount"):
            await agent.create(collection, waiting("pod-1"))


def gateway_report(pods: EnginePods, pod: str, **more: Any) -> GatewayReport:
    view = {"netuid": 42, "reachable": True, "miners": 3, "reported_at": "2026-01-02T03:04:05Z", **more}
    return GatewayReport(pod=PodRef(name=pod, uid=pods.uids[pod]), gateway=GatewayView(**view))


def gateway_document(pods: EnginePods, pod: str, **labels: str) -> dict[str, Any]:
    whole = document(pods, pod, labels=paths.gateway_report_labels("val") | labels)
    kept = {key: value for key, value in whole.items() if key not in ("engine", "ready")}
    return {**kept, **gateway_report(pods, pod).to_dict()}


async def test_a_gateway_reports_of_its_subnet_and_of_no_engine(
    pods: EnginePods, kubectl: Kubectl, tmp_path: Path
) -> None:
    await enforced(pods)
    collection = paths.pod_reports(pods.namespace)
    async with client_of(pods, kubectl, tmp_path, account="val-gateway", pod="pod-4") as gateway:
        with pytest.raises(ClusterError, match="must name the pool of the ServiceAccount"):
            await gateway.create(collection, document(pods, "pod-4"))
        for labels, message in (
            ({names.LABEL_VALIDATOR: "another"}, "must name the validator of the ServiceAccount"),
            ({names.LABEL_POOL: "pool"}, "must not stand beside it"),
            ({names.LABEL_COMPONENT: "miner-report"}, "gateway-report"),
        ):
            with pytest.raises(ClusterError, match=message):
                await gateway.create(collection, gateway_document(pods, "pod-4", **labels))
        for more in ({"engine": {"live": True}, "ready": True}, {"subnet": {"registration": "Registered"}}):
            with pytest.raises(ClusterError, match="set one of them"):
                await gateway.create(collection, {**gateway_document(pods, "pod-4"), **more})
        labels = paths.gateway_report_labels("val")
        mine = PodReportWriter(gateway, namespace=pods.namespace, labels=labels)
        await mine.write(gateway_report(pods, "pod-4"))
        await mine.write(gateway_report(pods, "pod-4", reachable=False, message="no answer", miners=None))
        found = json.loads(kubectl("-n", pods.namespace, "get", "podreport", "pod-4", "-o", "json").stdout)
        assert found["gateway"] == {
            "netuid": 42, "reachable": False, "message": "no answer", "reportedAt": "2026-01-02T03:04:05Z",
        }  # fmt: skip
    async with pods.connect("pod-1") as agent:
        with pytest.raises(ClusterError, match="must name the validator of the ServiceAccount"):
            await agent.create(collection, gateway_document(pods, "pod-1"))
        for forge in (
            agent.merge(f"{collection}/pod-4", {"gateway": {"miners": 99}}), agent.delete(f"{collection}/pod-4"),
        ):  # fmt: skip
            with pytest.raises(ClusterError, match="is written by that pod alone"):
                await forge
