"""A validator's task on a real API server: the miner's own code asks, the operator answers by a run and a ConfigMap."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.report import MinerReport, PodRef, Registration, SubnetReport
from bettertherapy_api.task_states import TaskState, tasks_name
from neurons.cluster import PodReportWriter, paths
from neurons.miner.task_feed import ConfigMapSource, follow_tasks
from neurons.miner.tasks import TaskBook, TaskPolicy
from neurons.wire.tasks import read_report, sign_offer
from tests.api.operator_harness import Cluster, clean, cluster, digest, pool_manifest, twin_manifest, until
from tests.unit.receipts.keyring import MINER, VALIDATOR
from twin_operator.engine.resources import CONFIG_MAP, ROLE, Manifest
from twin_operator.kinds.resources import FINE_TUNE_RUN

pytestmark = pytest.mark.cluster

TASK = "11111111-1111-4111-8111-111111111111"
NAME = f"task-{TASK}"
CALLER = f"hotkey:{VALIDATOR.ss58_address}"


@pytest.fixture
async def world(kubeconfig: Path, home: str) -> AsyncIterator[Cluster]:
    async with cluster(kubeconfig, home) as world:
        miner = {"replicas": 0, "walletSecretRef": {"name": "hotkey"}, "netuid": 42, "tasks": {"accept": True}}
        await world.apply(pool_manifest(home, nodeSelector={"no-such-node": "yes"}, miner=miner))
        await world.apply(twin_manifest(home))
        yield world
        await clean(world)


class Served:
    """The miner's routing: version `a` of dr-a answers."""

    class _Version:
        digest, weight = digest("a"), 100

    class _Route:
        def __init__(self, uid: str, version: Any) -> None:
            self.uid, self.active = uid, (version,)

    def __init__(self, uid: str) -> None:
        self.twins = {"dr-a": self._Route(uid, self._Version)}


def offer() -> bytes:
    now = time.time_ns() // 1_000_000
    return sign_offer(
        VALIDATOR, task=TASK, miner=str(MINER.ss58_address), netuid=42, twin="dr-a",
        dataset=f"https://v.example/v1/tasks/{TASK}/dataset?signature=ab", dataset_digest=digest("d"), interactions=30,
        parent=digest("a"), topics=(), offered_ms=now, deadline_ms=now + 20 * 3_600_000,
    )  # fmt: skip


async def runs(world: Cluster) -> list[Manifest]:
    found, _ = await world.api.list(FINE_TUNE_RUN, namespace=world.namespace)
    return found


async def test_a_miner_accepts_what_its_operator_has_made_a_run_of_and_hears_what_came_of_it(world: Cluster) -> None:
    await world.start_pod("m1", component="miner")
    twin = await world.twin()
    wanted = asyncio.Event()
    book = TaskBook(
        MINER, policy=TaskPolicy(accept=True, netuid=42), snapshot=lambda: Served(twin["metadata"]["uid"]),  # type: ignore[arg-type,return-value]
        changed=wanted.set, decide_seconds=60.0,
    )  # fmt: skip

    async def report() -> None:
        writer = PodReportWriter(world.agents, namespace=world.namespace, labels=paths.miner_report_labels("p"))
        subnet = SubnetReport(registration=Registration.REGISTERED, netuid=42, uid=7)
        while True:
            pod = PodRef(name="m1", uid=world.uids["m1"])
            await writer.write(MinerReport(pod=pod, subnet=subnet, tasks=book.claims or None))
            await wanted.wait()
            wanted.clear()

    async with asyncio.TaskGroup() as group:
        source = ConfigMapSource(world.agents, namespace=world.namespace, pool="p")
        running = [group.create_task(report()), group.create_task(follow_tasks(book, source, look_seconds=0.5))]
        said = read_report(await book.offered(CALLER, offer()))
        assert (said.state, said.task) == ("accepted", TASK)
        [made] = await runs(world)
        assert made["metadata"]["name"] == NAME
        assert made["spec"]["task"]["pool"] == "p"
        assert made["metadata"]["ownerReferences"][0]["uid"] == twin["metadata"]["uid"]
        role = await world.api.get(ROLE, namespace=world.namespace, name="p-miner")
        assert role is not None
        assert {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["p-tasks"], "verbs": ["get"]} in role[
            "rules"
        ]
        assert read_report(await book.offered(CALLER, offer())).state == "accepted"
        assert len(await runs(world)) == 1

        # It ends, as its trainer would end it when the gateway answers 410.
        path = FINE_TUNE_RUN.path(namespace=world.namespace, name=NAME, subresource="status")
        failed = {
            "completionTime": "2026-11-30T20:00:00Z",
            "failure": {"class": "BadData", "retryable": False, "message": "the dataset is no more"},
        }
        await world.api._request("PATCH", path, body={"status": failed}, content_type="application/merge-patch+json")

        async def told() -> bool:
            found = book.published.get(TASK)
            return found is not None and found.state is TaskState.FAILED

        await until(told, what="the miner hears that the run failed")
        assert "the dataset is no more" in book.published[TASK].message
        assert [state for state, _ in book.reports(book.published[TASK])] == ["accepted", "failed"]
        for each in running:
            each.cancel()
    live = await world.api.get(CONFIG_MAP, namespace=world.namespace, name=tasks_name("p"))
    assert live is not None
    assert live["metadata"]["ownerReferences"][0]["kind"] == "MinerPool"
