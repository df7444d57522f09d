"""A pool that grows, sleeps and wakes: real operator, miner, agents and Prometheus, the engines played by stand-ins."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest

from tests.api.operator_harness import BASE, until
from tests.bench.scaled_pool import POOL, SCRAPE_SECONDS, ScaledPool, load, scaled_pool, twin_manifest
from tests.conftest import Kubectl
from tests.standin import write_adapter

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

TWINS = [f"dr-{letter}" for letter in "abcdef"]
SCALING = {
    "mode": "Operator", "min": 0, "max": 3, "waitingPerReplica": 2, "slotPressurePercent": 1000, "idleSeconds": 6,
    "stabilizationSeconds": 8,
}  # fmt: skip


async def until_answered(pool: ScaledPool, http: aiohttp.ClientSession) -> None:
    for twin in TWINS:

        async def answered(twin: str = twin) -> bool:
            return (await pool.ask(http, twin, tokens=1))[0] == 200

        await until(answered, seconds=60, what=f"{twin} answers")


@pytest.mark.usefixtures("crds")
async def test_a_pool_grows_under_a_burst_sleeps_when_nobody_asks_and_wakes_for_the_next_question(
    kubeconfig: Path, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    store = tmp_path / "pvc" / "adapters" / "store"
    adapters = {twin: write_adapter(store, twin, content=twin, base=BASE) for twin in TWINS}
    async with (
        scaled_pool(kubeconfig, namespace, tmp_path, replicas=1, autoscaling=SCALING, miner={"replicas": 0}) as pool,
        aiohttp.ClientSession() as http,
    ):
        for twin, adapter in adapters.items():
            await pool.world.apply(twin_manifest(namespace, adapter, twin))
        await until_answered(pool, http)

        # A burst: six twins on an engine with one slot, so five wait where two may.
        burst = time.monotonic()
        with load(pool, TWINS, tokens=25) as statuses:
            grown = await until_grown(pool)
            assert (
                grown - burst <= SCRAPE_SECONDS + 15
            )  # beside another suite on two cores; `make bench` has the figure
            await until(lambda: is_said(pool, "ScaledUp"), what="the history says why")
            # Prometheus is gone: nothing shrinks, and it says so.
            await pool.until_size(3)
            pool.prometheus.kill()
            await until(lambda: is_condition(pool, "MetricsAvailable", "False", "MetricsUnavailable"), seconds=60)
            assert pool.replicas == 3
            await pool.prometheus.start()
            await until(lambda: is_condition(pool, "MetricsAvailable", "True", "MetricsFresh"), seconds=60)
        assert set(statuses) == {200}

        # Nobody asks.
        await pool.until_size(0)
        await until(lambda: is_condition(pool, "ScalingActive", "True", "Asleep"))
        assert (await pool.history())[0]["signal"] == "Idle"

        # Ten ask at once; the first one's report wakes it.
        asked = time.monotonic()
        answers = await asyncio.gather(*(pool.ask(http, twin, tokens=5) for twin in TWINS + TWINS[:4]))
        assert {status for status, _ in answers} == {200}
        woken = next(each.at for each in pool.sizes if each.at >= asked and each.replicas >= 1)
        assert woken - asked <= 2
        first = min(at for _, at in answers)
        assert first - pool.ready_at[0] <= 2
        assert any(each["reason"] == "Woken" for each in await pool.history())
        described = kubectl("describe", "minerpool", POOL, "-n", namespace).stdout
        assert "Scaling History" in described
        assert "requests wait" in described


async def until_grown(pool: ScaledPool) -> float:
    async def grown() -> bool:
        return pool.replicas > 1

    await until(grown, seconds=60, what="the Deployment asks for more")
    return next(each.at for each in pool.sizes if each.replicas > 1)


async def is_said(pool: ScaledPool, reason: str) -> bool:
    return any(each["reason"] == reason for each in await pool.history())


async def is_condition(pool: ScaledPool, kind: str, status: str, reason: str) -> bool:
    return await pool.condition(kind) == (status, reason)
