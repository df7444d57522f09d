"""Engines that span several nodes, on a real API server that has LeaderWorkerSet's own definition."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.api.operator_harness import api_client, pool_manifest
from tests.conftest import ROOT, Kubectl
from tests.groups import define_leader_worker_sets
from twin_operator.domain.engine_groups import deployment_of
from twin_operator.domain.objects import Pool, pool_from
from twin_operator.domain.pool_facts import deployment_facts
from twin_operator.domain.pool_update import Pace
from twin_operator.domain.tuning import Needs
from twin_operator.engine.api import Api
from twin_operator.engine.apply import Owner, needs_apply, stamped
from twin_operator.engine.resources import LEADER_WORKER_SET, Manifest
from twin_operator.kinds.miner_pool.children import build_children
from twin_operator.kinds.resources import BY_KIND
from twin_operator.settings import Images

pytestmark = pytest.mark.cluster

EXAMPLE = ROOT / "examples" / "17-several-gpus.yaml"
GROUP: dict[str, Any] = {
    "engine": {"device": "GPU", "group": {"nodes": 2, "adaptersClaimName": "shared"}},
    "resources": {"limits": {"nvidia.com/gpu": 8, "memory": "256Gi"}},
    "replicas": 1,
}


@pytest.fixture(scope="module")
def groups(kubectl: Kubectl, crds: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have the cluster know LeaderWorkerSets; it does already where they can be had."""
    if why := define_leader_worker_sets(kubectl, tmp_path_factory.mktemp("lws")):
        pytest.skip(why)


@pytest.fixture
async def api(kubeconfig: Path, crds: None, groups: None) -> AsyncIterator[Api]:
    async with await api_client(kubeconfig) as client:
        yield Api(client, request_seconds=10, resources=BY_KIND)


async def made(api: Api, namespace: str, **spec: Any) -> tuple[Pool, Owner]:
    thing = await api.create(pool_manifest(namespace, **{**GROUP, **spec}))
    pool = pool_from(thing)
    assert isinstance(pool, Pool), pool
    return pool, Owner.of(thing)


def planned(pool: Pool, owner: Owner, live: Manifest | None) -> Manifest:
    images = Images(neuron="n:1", engine_gpu="g:1")
    built = build_children(
        pool, images, needs=Needs(), engine=deployment_of(live), miner=None, others=tuple, pace=Pace(),
        now=datetime.now(UTC), legacy=False,
    )  # fmt: skip
    (group,) = [each for each in built.manifests if each["kind"] == LEADER_WORKER_SET.kind]
    return stamped(group, owner)


async def live_of(api: Api, pool: Pool) -> Manifest | None:
    return await api.get(LEADER_WORKER_SET, namespace=pool.namespace, name="p-engine")


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"cache": {"claimName": "models"}, "store": {"uri": "s3://b/x", "secretRef": {"name": "s3"}}},
        {"engine": {**GROUP["engine"], "updateStrategy": {"type": "Recreate"}}, "replicas": 3},
    ],
    ids=["plain", "with volumes", "recreate"],
)
async def test_a_group_is_kept_as_it_is_applied_and_needs_no_second_write(
    api: Api, namespace: str, spec: dict[str, Any]
) -> None:
    pool, owner = await made(api, namespace, **spec)
    wanted = planned(pool, owner, None)
    await api.apply(wanted)
    live = await live_of(api, pool)
    assert live is not None
    again = planned(pool, owner, live)
    assert needs_apply(again, live) is None
    template = live["spec"]["leaderWorkerTemplate"]
    assert template["size"] == 2
    assert template["restartPolicy"] == "RecreateGroupOnPodRestart"
    # Not a field is dropped that the definition doesn't know.
    assert template["leaderTemplate"] == wanted["spec"]["leaderWorkerTemplate"]["leaderTemplate"]
    assert template["workerTemplate"] == wanted["spec"]["leaderWorkerTemplate"]["workerTemplate"]


async def test_what_somebody_changes_is_put_right(api: Api, namespace: str, kubectl: Kubectl) -> None:
    pool, owner = await made(api, namespace)
    await api.apply(planned(pool, owner, None))
    patch = {"spec": {"leaderWorkerTemplate": {"restartPolicy": "None"}}}
    kubectl("patch", "lws", "p-engine", "-n", namespace, "--type=merge", "-p", json.dumps(patch))
    live = await live_of(api, pool)
    assert live is not None
    assert "restartPolicy" in str(needs_apply(planned(pool, owner, live), live))


async def test_the_status_that_its_controller_writes_is_read(api: Api, namespace: str, kubectl: Kubectl) -> None:
    pool, owner = await made(api, namespace)
    await api.apply(planned(pool, owner, None))
    assert not deployment_facts(deployment_of(await live_of(api, pool))).rolled_out
    condition = {
        "type": "Available", "status": "True", "reason": "AllGroupsReady", "message": "All replicas are ready",
        "lastTransitionTime": "2026-12-01T09:00:00Z",
    }  # fmt: skip
    status = {"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "conditions": [condition]}
    kubectl(
        "patch", "lws", "p-engine", "-n", namespace, "--subresource=status", "--type=merge",
        "-p", json.dumps({"status": status}),
    )  # fmt: skip
    assert deployment_facts(deployment_of(await live_of(api, pool))).rolled_out


async def test_its_pods_are_pods_that_the_api_server_takes(api: Api, namespace: str, kubectl: Kubectl) -> None:
    """As the controller makes them: a definition of somebody else's checks less than Kubernetes' own types."""
    pool, owner = await made(api, namespace)
    template = planned(pool, owner, None)["spec"]["leaderWorkerTemplate"]
    for name in ("leaderTemplate", "workerTemplate"):
        pod = {"apiVersion": "v1", "kind": "Pod", **template[name]}
        pod["metadata"] = {**pod["metadata"], "generateName": "try-"}
        kubectl("create", "serviceaccount", "p-engine", "-n", namespace, check=False)
        done = kubectl(
            "create", "-n", namespace, "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(pod)
        )  # fmt: skip
        assert "created" in done.stdout


def test_the_example_is_a_large_model_by_values_alone() -> None:
    pools = [each for each in yaml.safe_load_all(EXAMPLE.read_text()) if each["kind"] == "MinerPool"]
    assert [each["spec"]["engine"].get("group", {}).get("nodes") for each in pools] == [None, 2]


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"device": "CPU", "group": {"nodes": 2, "adaptersClaimName": "c"}}, "nodes with GPUs"),
        ({"group": {"nodes": 1, "adaptersClaimName": "c"}}, "nodes"),
        ({"group": {"nodes": 2}}, "adaptersClaimName"),
        ({"args": ["--nnodes=2"]}, "args holds a flag that the operator sets itself"),
    ],
)
def test_what_makes_no_group_is_refused(
    engine: dict[str, Any], words: str, namespace: str, kubectl: Kubectl, crds: None
) -> None:
    pool = pool_manifest(namespace, engine=engine)
    done = kubectl("create", "-n", namespace, "--dry-run=server", "-f", "-", stdin=json.dumps(pool), check=False)
    assert done.returncode != 0
    assert words in done.stderr
