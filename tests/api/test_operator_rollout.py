"""Canary, promotion and rollback on a real API server; the test plays agents, miners' metrics and Prometheus."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bettertherapy_api import names
from tests.api.operator_harness import (
    Cluster,
    cluster,
    condition,
    digest,
    held,
    operator,
    pool_manifest,
    twin_manifest,
    until,
)
from tests.api.test_operator_run import run_manifest
from twin_operator.engine.times import timestamp
from twin_operator.kinds.resources import DOCTOR_TWIN, FINE_TUNE_RUN

pytestmark = pytest.mark.cluster

A, B = "dr-a-aaaaaaaa", "dr-a-bbbbbbbb"
STEPS = {"steps": [{"weightPercent": 10, "seconds": 1}, {"weightPercent": 50, "seconds": 1}]}
SLOW = {"steps": [{"weightPercent": 10, "seconds": 3600}]}


class Metrics:
    """What a Prometheus would answer."""

    def __init__(self) -> None:
        self.up = True
        self.hangs = False
        self.hanging = asyncio.Event()
        """Set once somebody waits for an answer that does not come."""
        self.codes: dict[str, int] = {}
        self.url = ""

    async def query(self, request: web.Request) -> web.Response:
        if self.hangs:
            self.hanging.set()
            await asyncio.sleep(30)
        if not self.up:
            return web.Response(status=503)
        promql = str((await request.post())["query"])
        result: list[Any] = []
        if "pods_ready" in promql:
            result = [{"metric": {"pod": "m1"}, "value": [0, "1"]}]
        elif "requests_total" in promql:
            tried = {"twin": "dr-a", "version": "dr-a-bbbbbbbb"}
            result = [
                {"metric": {**tried, "code": code}, "value": [0, str(count)]} for code, count in self.codes.items()
            ]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})


@pytest.fixture
async def metrics() -> AsyncIterator[Metrics]:
    made = Metrics()
    app = web.Application()
    app.router.add_post("/api/v1/query", made.query)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def weights(world: Cluster) -> dict[str, int]:
    route = (await world.routing()).get("twins", {}).get("dr-a", {})
    return {version["servedName"]: version["weightPercent"] for version in route.get("versions", [])}


async def are(world: Cluster, **wanted: int) -> bool:
    return await weights(world) == {f"dr-a-{letter * 8}": weight for letter, weight in wanted.items()}


async def holds(world: Cluster, *wanted: str) -> bool:
    entries = (await world.routing())["twins"].values()
    return {adapter["servedName"] for entry in entries for adapter in entry["adapters"]} == set(wanted)


async def serve(world: Cluster, rollout: dict[str, Any], **spec: Any) -> None:
    """Version a answers on two pods, through one miner."""
    await world.apply(pool_manifest(world.namespace))
    await world.apply(twin_manifest(world.namespace, rollout=rollout, **spec))
    await until(lambda: holds(world, A))
    if "m1" not in world.uids:
        await world.start_pod("m1", component="miner")
    for pod in ("e1", "e2"):
        if pod not in world.uids:
            await world.start_pod(pod)
        await world.report(pod, held())
    await until(lambda: are(world, a=100), what="a answers")


async def passed(
    world: Cluster, name: str = "r1", *, letter: str = "b", parent: str = "a", ended: str | None = None
) -> None:
    """A run whose version has passed its gate, as the operator leaves it."""
    await world.api.create(run_manifest(world.namespace, name, parentDigest=digest(parent)))
    now = ended or timestamp(datetime.now(UTC))
    status = {
        "pool": "p", "startTime": now, "completionTime": now, "stage": "Evaluated", "verdict": "Promote",
        "artifact": {"uri": f"pvc://adapters/store/{letter}", "digest": digest(letter), "rank": 8, "bytes": 1},
        "eval": {"verdict": "Promote", "samples": 40, "message": "better"},
    }  # fmt: skip
    path = FINE_TUNE_RUN.path(namespace=world.namespace, name=name, subresource="status")
    await world.api._request("PATCH", path, body={"status": status}, content_type="application/merge-patch+json")


async def load(world: Cluster, *letters: str) -> None:
    for pod in ("e1", "e2"):
        await world.report(pod, *(held(letter) for letter in letters))


async def try_b(world: Cluster) -> None:
    """Version a answers, and b takes its first share for longer than any test."""
    await serve(world, SLOW)
    await passed(world)
    await until(lambda: holds(world, A, B))
    await load(world, "a", "b")
    await until(lambda: are(world, a=90, b=10), what="the canary takes traffic")


async def run_says(world: Cluster, kind: str, *wanted: str) -> bool:
    found = await world.api.get(FINE_TUNE_RUN, namespace=world.namespace, name="r1")
    return found is not None and condition(found, kind) == wanted


async def twin_says(world: Cluster, kind: str, *wanted: str) -> bool:
    return condition(await world.twin(), kind) == wanted


async def test_a_better_version_goes_step_by_step_and_takes_over(
    kubeconfig: Path, namespace: str, tmp_path: Path, metrics: Metrics
) -> None:
    environ = {"TWIN_PROMETHEUS_URL": metrics.url}
    async with cluster(kubeconfig, namespace) as world, operator(kubeconfig, namespace, tmp_path, **environ):
        await serve(world, STEPS)
        await passed(world)
        await until(lambda: holds(world, A, B), what="b is loaded beside a")
        assert await are(world, a=100)
        metrics.codes = {"200": 50}
        await load(world, "a", "b")
        await until(lambda: are(world, a=90, b=10), what="the first step")
        await until(lambda: are(world, a=50, b=50), what="the second step")
        await until(lambda: are(world, b=100), what="b takes over")
        await until(lambda: holds(world, B), what="a is let go")
        await until(lambda: run_says(world, "Promoted", "True", "TookOver"), what="the run says so")

        async def remembered() -> bool:
            status = (await world.twin())["status"]
            return (
                status["activeVersion"].get("runName"),
                (status.get("previousVersion") or {}).get("servedName"),
            ) == ("r1", A)

        await until(remembered, what="the twin names the run")  # it is looked at after the table says so


async def test_a_worse_version_loses_its_traffic_within_a_second_of_the_decision(
    kubeconfig: Path, namespace: str, tmp_path: Path, metrics: Metrics
) -> None:
    environ = {"TWIN_PROMETHEUS_URL": metrics.url}
    async with cluster(kubeconfig, namespace) as world, operator(kubeconfig, namespace, tmp_path, **environ):
        await try_b(world)
        metrics.up = False
        await until(lambda: twin_says(world, "Progressing", "True", "CanaryHeld"), what="held without metrics")
        assert await are(world, a=90, b=10)
        metrics.codes, metrics.up = {"200": 30, "500": 20}, True
        await until(lambda: twin_says(world, "RolledBack", "True", "ErrorRate"), what="taken back")
        decided = time.monotonic()
        await until(lambda: are(world, a=100), what="no traffic on b")
        assert time.monotonic() - decided < 1.0
        await until(lambda: holds(world, A))
        await until(lambda: run_says(world, "Rejected", "True", "RolledBack"))
        message = next(c["message"] for c in (await world.twin())["status"]["conditions"] if c["type"] == "RolledBack")
        assert "20 of 50 requests failed" in message


@pytest.mark.parametrize("asked_when", ["between questions", "while it is asked"])
async def test_a_rollback_that_a_person_asks_for_does_not_wait_for_prometheus(
    kubeconfig: Path, namespace: str, tmp_path: Path, metrics: Metrics, asked_when: str
) -> None:
    environ = {"TWIN_PROMETHEUS_URL": metrics.url}
    async with cluster(kubeconfig, namespace) as world, operator(kubeconfig, namespace, tmp_path, **environ):
        await try_b(world)
        await until(lambda: twin_says(world, "Progressing", "True", "CanaryStep"))
        metrics.hangs = True
        if asked_when == "while it is asked":
            await asyncio.wait_for(metrics.hanging.wait(), timeout=30)
        asked = time.monotonic()
        await annotate(world, names.ROLLBACK_ANNOTATION, digest("a"))
        await until(lambda: are(world, a=100), what="no traffic on b")
        assert time.monotonic() - asked < 1.0


async def test_a_killed_operator_goes_on_with_the_canary_where_it_stopped(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with cluster(kubeconfig, namespace) as world:
        async with operator(kubeconfig, namespace, tmp_path, name="first") as first:
            await serve(world, SLOW)
            await passed(world)
            await until(lambda: holds(world, A, B))
            await load(world, "a", "b")
            await until(lambda: are(world, a=90, b=10))
            await first.stop(signal.SIGKILL)
        begun = (await world.twin())["status"]["canaryStepTime"]
        async with operator(kubeconfig, namespace, tmp_path, name="second") as second:
            await until(second.leads, seconds=30)
            await until(lambda: twin_says(world, "Progressing", "True", "CanaryStep"))
            assert (await world.twin())["status"]["canaryStepTime"] == begun
            await world.api.merge(DOCTOR_TWIN, namespace=namespace, name="dr-a", patch={"spec": {"rollout": STEPS}})
            await until(lambda: are(world, a=50, b=50), what="the next step")
            await until(lambda: are(world, b=100), what="the end")


async def test_a_doctor_approves_and_later_goes_back(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    async with cluster(kubeconfig, namespace) as world, operator(kubeconfig, namespace, tmp_path):
        await serve(world, {}, gate={"approval": "Doctor"})
        await passed(world)
        await until(lambda: twin_says(world, "GatePassed", "True", "AwaitingApproval"))
        assert await holds(world, A)
        await until(lambda: run_says(world, "Promoted", "False", "AwaitingApproval"))
        await annotate(world, names.APPROVE_ANNOTATION, digest("b"))
        await until(lambda: holds(world, A, B), what="it is loaded")
        await load(world, "a", "b")
        await until(lambda: are(world, b=100), what="it takes over")
        await until(lambda: holds(world, B))
        await load(world, "b")
        await annotate(world, names.ROLLBACK_ANNOTATION, digest("a"))
        await until(lambda: holds(world, A, B), what="a is loaded again")
        assert await are(world, b=100)
        await load(world, "a", "b")
        await until(lambda: are(world, a=100), what="a answers again")
        await until(lambda: twin_says(world, "RolledBack", "True", "Requested"))
        await until(lambda: twin_says(world, "Ready", "True", "Serving"))


async def annotate(world: Cluster, name: str, value: str) -> None:
    patch = {"metadata": {"annotations": {name: value}}}
    await world.api.merge(DOCTOR_TWIN, namespace=world.namespace, name="dr-a", patch=patch)


async def test_a_run_goes_when_its_time_is_over_and_the_twin_remembers(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with cluster(kubeconfig, namespace) as world, operator(kubeconfig, namespace, tmp_path):
        await serve(world, {})
        await passed(world, ended="2026-01-01T00:00:00Z")
        await until(lambda: holds(world, A, B))
        assert await world.api.get(FINE_TUNE_RUN, namespace=namespace, name="r1") is not None, "not decided yet"
        await load(world, "a", "b")

        async def gone() -> bool:
            return await world.api.get(FINE_TUNE_RUN, namespace=namespace, name="r1") is None

        await until(gone, what="the run is deleted")
        await until(lambda: are(world, b=100))

        async def remembered() -> bool:
            return bool((await world.twin())["status"]["activeVersion"].get("runName") == "r1")

        # The twin is looked at after the table says so.
        await until(remembered, what="the twin names the run")
