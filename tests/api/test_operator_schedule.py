"""Fine-tunes that are due: each made once, never more at once than the pool allows, whenever the operator is killed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.api.operator_harness import Cluster, cluster, operator, pool_manifest, twin_manifest, until
from tests.api.test_operator_process import _run
from twin_operator.engine.resources import JOB, Manifest
from twin_operator.kinds.resources import DOCTOR_TWIN, FINE_TUNE_RUN

pytestmark = pytest.mark.cluster

TWINS, LIMIT, KILLS = 24, 3, 10
YEARLY = {"schedule": "0 0 1 1 *"}
LAST_DUE = f"{datetime.now(UTC).year}-01-01T00:00:00Z"
NOWHERE = {"nodeSelector": {"no-such-node": "yes"}}


async def due(world: Cluster, name: str, *, since: str = LAST_DUE) -> None:
    """Make a twin whose run was due at `since`, when no operator was there."""
    await world.apply(twin_manifest(world.namespace, name, fineTune=YEARLY))
    path = DOCTOR_TWIN.path(namespace=world.namespace, name=name, subresource="status")
    body = {"status": {"nextFineTuneTime": since}}
    await world.api._request("PATCH", path, body=body, content_type="application/merge-patch+json")


async def runs(world: Cluster) -> list[Manifest]:
    things, _ = await world.api.list(FINE_TUNE_RUN, namespace=world.namespace)
    return things


async def started(world: Cluster) -> list[str]:
    return [run["metadata"]["name"] for run in await runs(world) if "startTime" in (run.get("status") or {})]


@pytest.mark.timeout(300)
async def test_killed_ten_times_each_due_run_is_made_once_and_the_limit_holds(kubeconfig: Path, namespace: str) -> None:
    async with cluster(kubeconfig, namespace) as world:
        await world.apply(pool_manifest(namespace, **NOWHERE, fineTune={"maxConcurrentRuns": LIMIT}))
        for number in range(TWINS):
            await due(world, f"dr-{number}")
        life: dict[str, Any] = {"fine_tune_window_seconds": 0, "workers": 4}
        most = 0
        for number in range(KILLS):
            await _run(kubeconfig, namespace, f"lease-{number}", "", 5 + 3 * number, **life)
            most = max(most, len(await started(world)))
        await _run(kubeconfig, namespace, "lease-last", "", None, **life)
        made = await runs(world)
        year = datetime.now(UTC).year
        assert sorted(run["metadata"]["name"] for run in made) == sorted(
            f"dr-{number}-{year}01010000" for number in range(TWINS)
        )
        assert len(await started(world)) == LIMIT
        assert most <= LIMIT
        jobs, _ = await world.api.list(JOB, namespace=namespace)
        assert {job["metadata"]["name"] for job in jobs} == set(await started(world))
        assert await _run(kubeconfig, namespace, "lease-quiet", "", None, **life) == []


async def test_a_token_makes_one_run_at_once(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    async with cluster(kubeconfig, namespace) as world, operator(kubeconfig, namespace, tmp_path):
        await world.apply(pool_manifest(namespace, **NOWHERE))
        await world.apply(twin_manifest(namespace, fineTune={"schedule": "0 0 1 1 *", "suspend": True}))
        patch = {"metadata": {"annotations": {"bettertherapy.io/finetune-now": "today"}}}
        for _ in range(3):
            await world.api.merge(DOCTOR_TWIN, namespace=namespace, name="dr-a", patch=patch)

        async def handled() -> bool:
            return ((await world.twin()).get("status") or {}).get("handledFineTune") == "today"

        await until(handled, what="the token is acted on")
        await until(lambda: started(world), what="the run starts")
        [run] = await runs(world)
        assert run["metadata"]["name"].startswith("dr-a-now-")


async def test_a_time_that_comes_wakes_the_twin(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    environ = {"TWIN_FINE_TUNE_WINDOW_SECONDS": "0"}
    async with cluster(kubeconfig, namespace) as world, operator(kubeconfig, namespace, tmp_path, **environ):
        await world.apply(pool_manifest(namespace, **NOWHERE))
        await world.apply(twin_manifest(namespace, fineTune={"schedule": "* * * * *"}))
        await until(lambda: started(world), seconds=70, what="the next full minute starts a run")
