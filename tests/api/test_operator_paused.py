"""A leader that is paused for longer than its Lease and goes on writes nothing after the next one has begun."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from localcluster import Cluster as LocalCluster
from tests.api.operator_harness import Cluster, cluster, operator, pool_manifest, until
from twin_operator.errors import ApiError
from twin_operator.kinds.resources import MINER_POOL

pytestmark = pytest.mark.cluster
POOLS = 6


@pytest.fixture
def audit_log(kubeconfig: Path) -> Path:
    """The API server's own word on who wrote when: $AUDIT_LOG, or the local cluster's."""
    log = Path(os.environ.get("AUDIT_LOG") or LocalCluster("test").audit_log)
    if not log.exists():
        pytest.fail(f"the API server keeps no audit log at {log}: run `make test`, or set AUDIT_LOG")
    return log


def writes(audit_log: Path, namespace: str) -> dict[str, list[datetime]]:
    """Return when each replica's accepted writes reached the API server, beside those to the Lease."""
    found: dict[str, list[datetime]] = {}
    for line in audit_log.read_text().splitlines():
        entry: dict[str, Any] = json.loads(line)
        what, agent = entry.get("objectRef") or {}, entry.get("userAgent", "")
        if what.get("namespace") != namespace or what.get("resource") == "leases" or entry["verb"] == "get":
            continue
        if agent.startswith("twin-operator/") and entry.get("responseStatus", {}).get("code", 0) < 300:
            found.setdefault(agent.removeprefix("twin-operator/"), []).append(
                datetime.fromisoformat(entry["requestReceivedTimestamp"])
            )
    return found


@contextlib.asynccontextmanager
async def never_idle(world: Cluster) -> AsyncIterator[None]:
    """Change the pools all the time, so that whoever leads always has something to write or in hand."""

    async def change() -> None:
        number = 0
        while True:
            number += 1
            with contextlib.suppress(ApiError):
                await world.api.merge(
                    MINER_POOL, namespace=world.namespace, name=f"p{number % POOLS}",
                    patch={"spec": {"drainSeconds": 30 + number // POOLS % 2}},
                )  # fmt: skip
            await asyncio.sleep(0.01)

    task = asyncio.create_task(change())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.timeout(240)
async def test_a_paused_leader_writes_nothing_after_the_next_one_began(
    kubeconfig: Path, namespace: str, tmp_path: Path, audit_log: Path
) -> None:
    async with cluster(kubeconfig, namespace) as world, operator(kubeconfig, namespace, tmp_path, name="one") as one:
        await until(one.leads, what="the first leads")
        for number in range(POOLS):
            await world.apply(pool_manifest(namespace, f"p{number}"))
        async with operator(kubeconfig, namespace, tmp_path, name="two") as two, never_idle(world):
            await until(lambda: _wrote(audit_log, namespace, "one", 40), what="the first is busy")
            one.process.send_signal(signal.SIGSTOP)
            try:
                await until(two.leads, seconds=30, what="the second takes over")
                await until(lambda: _wrote(audit_log, namespace, "two", 20), what="the second writes")
            finally:
                one.process.send_signal(signal.SIGCONT)

            async def noticed() -> bool:
                return "leads no more" in one.log.read_text() and not await one.leads()

            await until(noticed, what="the first finds that its time is over")
            count = len(writes(audit_log, namespace)["two"])
            await until(lambda: _wrote(audit_log, namespace, "two", count + 20), what="the second goes on")
            seen = writes(audit_log, namespace)
        assert max(seen["one"]) < min(seen["two"])


async def _wrote(audit_log: Path, namespace: str, replica: str, count: int) -> bool:
    return len(writes(audit_log, namespace).get(replica, [])) >= count
