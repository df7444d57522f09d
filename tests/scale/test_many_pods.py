"""A pool of a hundred engines on a hundred fake nodes: all are seen, and nothing is written once they stand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.api.operator_harness import BASE, cluster, operator, pool_manifest, twin_manifest, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
NODES = 100
QUIET_SECONDS = 5
FAKE: dict[str, Any] = {
    "nodeSelector": {"type": "kwok"},
    "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}],
    # One engine a node: the fake ones have 32 processors.
    "resources": {"requests": {"cpu": "20"}},
    # No volume claims: the scheduler waits for those to exist.
    "baseModel": {"name": BASE, "uri": "s3://models/smollm2"},
    "store": {"uri": "s3://adapters"},
}


async def test_a_pool_of_a_hundred_engines_stands_and_comes_to_rest(
    fake_nodes: Callable[[int], None], kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(fake_nodes, NODES)
    async with cluster(kubeconfig, namespace) as world, operator(kubeconfig, namespace, tmp_path) as running:
        await until(running.leads, what="the operator leads")
        await world.apply(pool_manifest(namespace, replicas=NODES, **FAKE))
        await world.apply(twin_manifest(namespace, letter=None))

        async def standing(wanted: int) -> bool:
            status = (await world.pool()).get("status") or {}
            return status.get("replicas") == wanted and status.get("readyReplicas", 0) == wanted

        await until(lambda: standing(NODES), seconds=150, what=f"{NODES} ready engines in the pool's status")
        counts = (await world.twin())["status"]["pods"]
        assert counts["desired"] == NODES

        async def quiet() -> bool:
            before = await running.writes()
            await asyncio.sleep(QUIET_SECONDS)  # what is awaited is that nothing happens in this time
            return await running.writes() == before

        await until(quiet, seconds=60, what="an operator that has nothing left to write")
        await world.apply(pool_manifest(namespace, replicas=0, **FAKE))
        await until(lambda: standing(0), seconds=90, what="an empty pool")
