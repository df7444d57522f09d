"""A Validator on a real API server: what gateways' reports make of its status, and what `kubectl get` shows of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.report import GATEWAY_STALE_SECONDS
from neurons.cluster import paths
from tests.api.operator_harness import Cluster, clean, cluster, condition, until
from tests.conftest import Kubectl
from tests.unit.operator.validator.validators import validator_object
from twin_operator.engine.resources import CRON_JOB, ROLE, ROLE_BINDING, Manifest
from twin_operator.errors import ApiError
from twin_operator.kinds.resources import POD_REPORT, VALIDATOR

pytestmark = pytest.mark.cluster


@pytest.fixture
async def world(kubeconfig: Path, home: str) -> AsyncIterator[Cluster]:
    """A validator without gateways of its own: the test makes the pod."""
    async with cluster(kubeconfig, home) as found:
        made = validator_object(gateway={"replicas": 0})
        await found.api.create({**made, "metadata": {"name": "v", "namespace": home}})
        yield found
        await clean(found)


async def validator(world: Cluster) -> Manifest:
    found = await world.api.get(VALIDATOR, namespace=world.namespace, name="v")
    assert found is not None
    return found


async def chain(world: Cluster, status: str, reason: str) -> Manifest:
    """Wait until the condition says so; return the status."""

    async def said() -> bool:
        return condition(await validator(world), "ChainReachable") == (status, reason)

    await until(said, what=f"ChainReachable={status} {reason}")
    found: Manifest = (await validator(world))["status"]
    return found


async def start_gateway(world: Cluster) -> str:
    """Make a gateway's pod that no scheduler takes; return its UID."""
    labels = {names.LABEL_VALIDATOR: "v", names.LABEL_COMPONENT: "gateway"}
    made = await world.api.create({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "g1", "namespace": world.namespace, "labels": labels},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "gateway", "image": "example/neuron:1"}]},
    })  # fmt: skip
    uid: str = made["metadata"]["uid"]
    return uid


async def report(world: Cluster, uid: str, *, seconds_ago: float = 0, **more: Any) -> None:
    """Say what the gateway says. Who may write whose report is tried elsewhere, with the gateways' own tokens."""
    at = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()
    said = {"netuid": 42, "reachable": True, "miners": 3, "twins": 2, "block": 1000, "reportedAt": at, **more}
    if await world.api.get(POD_REPORT, namespace=world.namespace, name="g1") is not None:
        await world.api.merge(POD_REPORT, namespace=world.namespace, name="g1", patch={"gateway": said})
        return
    metadata = {
        "name": "g1", "namespace": world.namespace, "labels": paths.gateway_report_labels("v"),
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "g1", "uid": uid}],
    }  # fmt: skip
    await world.api.create({
        "apiVersion": POD_REPORT.api_version, "kind": POD_REPORT.kind, "metadata": metadata,
        "pod": {"name": "g1", "uid": uid}, "gateway": said,
    })  # fmt: skip


async def test_a_gateway_gets_the_right_to_report_and_its_report_is_shown(world: Cluster, kubectl: Kubectl) -> None:
    assert "miners" not in await chain(world, "Unknown", "NoGateway")
    for resource in (ROLE, ROLE_BINDING):
        assert await world.api.get(resource, namespace=world.namespace, name="v-gateway") is not None
    uid = await start_gateway(world)
    await report(world, uid)
    assert (await chain(world, "True", "ChainRead"))["miners"] == 3
    head, line = kubectl("-n", world.namespace, "get", "val", "v").stdout.splitlines()
    assert line[head.index("MINERS") :].split()[0] == "3"
    assert max(map(len, (head, line))) <= 80
    await report(world, uid, reachable=False, message="finney can't be reached")
    assert (await chain(world, "False", "ChainUnreachable"))["miners"] == 3
    await report(world, uid, seconds_ago=GATEWAY_STALE_SECONDS + 60)
    assert "miners" not in await chain(world, "Unknown", "NoGateway")


async def test_a_report_goes_with_its_pod(world: Cluster, kubectl: Kubectl) -> None:
    uid = await start_gateway(world)
    await report(world, uid)
    await chain(world, "True", "ChainRead")
    kubectl("-n", world.namespace, "delete", "pod", "g1", "--force", "--grace-period=0")
    assert "miners" not in await chain(world, "Unknown", "NoGateway")


async def test_conversations_go_to_the_fine_tunes_by_a_cronjob_that_follows_the_spec(world: Cluster) -> None:
    async def cron_job() -> Manifest | None:
        return await world.api.get(CRON_JOB, namespace=world.namespace, name="v-datasets")

    async def says(status: str, reason: str) -> None:
        async def said() -> bool:
            return condition(await validator(world), "DatasetsWritten") == (status, reason)

        await until(said, what=f"DatasetsWritten={status} {reason}")

    async def ask(**tasks: Any) -> None:
        patch = {"spec": {"fineTuneTasks": {"store": {"uri": "pvc://adapters/clinic"}, **tasks}}}
        await world.api.merge(VALIDATOR, namespace=world.namespace, name="v", patch=patch)

    await ask(timeZone="Asia/Nowhere")
    await says("False", "ChildrenRefused")  # the API server knows time zones, the schema doesn't
    assert await cron_job() is None
    await ask(timeZone="Asia/Kathmandu", schedule="0 1 * * *")
    await says("Unknown", "DatasetsAwaited")
    made = await cron_job()
    assert made is not None
    assert (made["spec"]["schedule"], made["spec"]["timeZone"]) == ("0 1 * * *", "Asia/Kathmandu")
    path = CRON_JOB.path(namespace=world.namespace, name="v-datasets", subresource="status")
    done = {"status": {"lastSuccessfulTime": "2026-11-28T00:16:00Z"}}
    await world.api._request("PATCH", path, body=done, content_type="application/merge-patch+json")
    await says("True", "DatasetsWritten")
    assert (await validator(world))["status"]["lastDatasetsTime"] == "2026-11-28T00:16:00Z"
    settled = await cron_job()
    await ask(timeZone="Asia/Kathmandu", schedule="0 1 * * *", suspend=True)
    await says("False", "DatasetsSuspended")
    changed = await cron_job()
    assert settled is not None
    assert changed is not None
    # What the API server adds to a CronJob is no difference: it was applied once for each of the two specs.
    assert (settled["metadata"]["generation"], changed["metadata"]["generation"]) == (1, 2)
    await world.api.merge(VALIDATOR, namespace=world.namespace, name="v", patch={"spec": {"fineTuneTasks": None}})

    async def gone() -> bool:
        return await cron_job() is None and condition(await validator(world), "DatasetsWritten") == ("", "")

    await until(gone, what="the CronJob is gone")


async def test_a_store_that_goes_with_its_pod_is_refused_in_words(world: Cluster) -> None:
    patch = {"spec": {"fineTuneTasks": {"store": {"uri": "file:///srv/adapters"}}}}
    with pytest.raises(ApiError, match="name a store outside it"):
        await world.api.merge(VALIDATOR, namespace=world.namespace, name="v", patch=patch)
