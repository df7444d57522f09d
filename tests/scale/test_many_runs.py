"""A night in which a hundred fine-tunes are due, while the operator is killed: each is made once, within limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from neurons.cluster import ClusterClient, KubeconfigAccess
from tests.api.operator_harness import Cluster, cluster, until
from tests.bench import night as nights
from tests.bench.night import Night, Plan

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
TWINS, POOLS, LIMIT, KILLS, NODES = 100, 2, 8, 3, 5
AHEAD_SECONDS = 30
"""Of the window, when the operator comes: what was due before is made up for."""


async def test_a_hundred_fine_tunes_are_done_once_each_though_the_operator_is_killed(
    fake_nodes: Callable[[int], None], kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(fake_nodes, NODES)
    now = datetime.now(UTC)
    opened = now.replace(second=0, microsecond=0)
    window = round((now - opened).total_seconds()) + AHEAD_SECONDS
    plan = Plan(
        twins=TWINS, pools=POOLS, limit=LIMIT, kills=KILLS, window_seconds=window, trainer_seconds=(0.3, 1.0)
    )  # fmt: skip
    night = Night(plan)
    async with (
        cluster(kubeconfig, namespace) as world,
        ClusterClient(KubeconfigAccess(kubeconfig)) as client,
        nights.played(client, namespace, night),
    ):
        await nights.furnish(world, night, opened)
        await nights.leave_overdue(world, night)
        async with nights.operators_of(kubeconfig, namespace, tmp_path, night) as operators:
            await nights.until_drained(night, operators, seconds=200)
            await until(lambda: _all_ended(world), seconds=30, what="the last Jobs have ended")
        assert not night.lost
        assert not night.doubled
        assert not night.failed
        assert len(night.kills) == KILLS
        assert sum(len(runs) for runs in night.created.values()) == TWINS
        for pool in ("pool-0", "pool-1"):
            assert 1 < night.most[pool] <= LIMIT
            assert 1 < night.most_working[pool] <= LIMIT
        assert min(night.late_seconds()) >= 0


async def _all_ended(world: Cluster) -> bool:
    return not await nights.jobs_left(world)
