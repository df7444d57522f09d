"""The operator as a process: leadership of two, and being killed after any write."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.api.operator_harness import (
    Cluster,
    api_client,
    cluster,
    condition,
    operator,
    pool_manifest,
    twin_manifest,
    until,
)
from twin_operator.domain.pool_facts import deployment_facts
from twin_operator.engine.resources import LEASE, Manifest
from twin_operator.kinds.resources import BY_KIND
from twin_operator.process import Process
from twin_operator.settings import Settings

pytestmark = pytest.mark.cluster


async def test_the_second_replica_takes_over_from_a_killed_one_in_time(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with cluster(kubeconfig, namespace) as world, operator(kubeconfig, namespace, tmp_path, name="one") as one:
        await until(one.leads, what="the first leads")
        async with operator(kubeconfig, namespace, tmp_path, name="two") as two:
            assert not await two.leads()
            await one.stop(signal.SIGKILL)
            begun = time.monotonic()
            await world.apply(pool_manifest(namespace))
            await until(two.leads, seconds=15, what="the second takes over")
            assert time.monotonic() - begun <= 15
            await until(lambda: _has_status(world), what="the second does the work")


async def _has_status(world: Cluster, pool: str = "p") -> bool:
    return condition(await world.pool(pool), "Ready")[0] != ""


async def test_a_stopped_leader_hands_over_at_once_and_ends_well(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with cluster(kubeconfig, namespace) as world, operator(kubeconfig, namespace, tmp_path, name="one") as one:
        await until(one.leads)
        async with operator(kubeconfig, namespace, tmp_path, name="two") as two:
            assert await one.stop(signal.SIGTERM) == 0
            lease = await world.api.get(LEASE, namespace=namespace, name="twin-operator")
            assert lease is not None
            assert lease["spec"].get("holderIdentity", "") in ("", "two")
            await until(two.leads, seconds=5, what="the second takes over at once")


async def test_a_standby_writes_nothing(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    async with (
        cluster(kubeconfig, namespace) as world,
        operator(kubeconfig, namespace, tmp_path, name="one") as one,
    ):
        await until(one.leads)
        async with operator(kubeconfig, namespace, tmp_path, name="two") as two:
            await world.apply(pool_manifest(namespace))
            await until(lambda: _has_status(world))
            assert await two.metric("bettertherapy_operator_api_writes_total") == 0

            async def sees() -> bool:
                return await two.metric("bettertherapy_operator_cached_objects", kind="Deployment") == 2

            await until(sees, what="the standby's cache is warm")


class KilledError(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


class Mortal:
    """Kills the process right after its n-th write has reached the API server."""

    def __init__(self, after: int | None) -> None:
        self.after = after
        self.writes: list[str] = []

    def on(self, client: Any) -> Any:
        call = client.call_api

        async def counted(method: str, url: str, **options: Any) -> Any:
            answer = await call(method, url, **options)
            if method != "GET" and "/leases" not in url:
                await answer.read()
                self.writes.append(f"{method} {url}")
                if self.after is not None and len(self.writes) >= self.after:
                    raise KilledError
            return answer

        client.call_api = counted
        return client


async def _run(kubeconfig: Path, namespace: str, lease: str, after: int | None, **more: Any) -> list[str]:
    """Run an operator until it is killed after a number of writes, or has nothing left to do; returns its writes."""
    settings = Settings(
        **{
            "identity": "op", "lease_namespace": namespace, "lease_name": lease, "namespace": namespace, "workers": 1,
            **more,
        }
    )  # fmt: skip
    mortal = Mortal(after)
    process = Process(settings, mortal.on(await api_client(kubeconfig)))
    async with process:
        work = asyncio.create_task(process.run())

        def idle() -> bool:
            return process.leadership.leading.is_set() and len(process.queue) == 0 and not process.queue.started_at

        async def over() -> bool:
            """Nothing is left to do, also after what the Deployment controller did: no watch runs here, so look."""
            if work.done() or not idle():
                return work.done()
            await process.relist()
            deployments = process.cache.of_kind("Deployment")
            return idle() and all(deployment_facts(deployment).seen for deployment in deployments)

        await until(over, what="the operator is done or dead")
        work.cancel()
        await asyncio.wait({work})
        if not work.cancelled():
            error = work.exception()
            assert error is None or isinstance(error, BaseExceptionGroup), error
    return mortal.writes


def _essence(thing: Manifest, pool: str) -> str:
    """What an object says, without what differs from pool to pool."""
    metadata = {key: thing["metadata"].get(key) for key in ("name", "labels", "generation")}
    spec = {key: value for key, value in thing.items() if key not in ("metadata", "status")}
    spec.get("spec", {}).pop("clusterIP", None)
    spec.get("spec", {}).pop("clusterIPs", None)
    conditions = [
        (each["type"], each["status"], each["reason"]) for each in (thing.get("status") or {}).get("conditions") or []
    ]
    shown = conditions if thing["kind"] in ("MinerPool", "DoctorTwin") else None
    return re.sub(rf"\b{pool}\b|dr-{pool}", "P", repr((metadata, spec, shown))).replace(f"dr-{pool}", "T")


@pytest.mark.timeout(400)
async def test_killed_after_any_write_it_ends_in_the_same_state(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with cluster(kubeconfig, namespace) as world:

        async def outcome(number: int, *kills: int | None) -> tuple[dict[str, str], list[str]]:
            pool = f"pool{number}"
            await world.apply(pool_manifest(namespace, pool))
            await world.apply(twin_manifest(namespace, f"dr-{pool}", tier=pool))
            writes: list[str] = []
            for life, after in enumerate(kills):
                writes += await _run(kubeconfig, namespace, f"lease-{number}-{life}", after)
            things = {
                f"{kind} {name}".replace(pool, "P"): _essence(thing, pool)
                for (kind, name), thing in (await world.children(pool)).items()
            }
            things["pool"] = _essence(await world.pool(pool), pool)
            things["twin"] = _essence(await world.twin(f"dr-{pool}"), pool)
            for thing in (await world.pool(pool), await world.twin(f"dr-{pool}")):
                await world.api.delete(
                    BY_KIND[thing["kind"]],
                    namespace=namespace, name=thing["metadata"]["name"], uid=thing["metadata"]["uid"],
                )  # fmt: skip
            return things, writes

        reference, writes = await outcome(0, None)
        assert len(reference) == 17
        own = [write for write in writes if "pool0" in write]
        assert len(own) >= 17
        for number in range(1, len(own) + 1):
            state, made = await outcome(number, number, None)
            assert state == reference, f"killed after write {number}"
            applied = [
                write.split("?")[0]
                for write in made
                if "/status" not in write and f"pool{number}-routing" not in write and "/events" not in write
            ]
            assert len(applied) == len(set(applied)), f"killed after write {number}, written twice: {applied}"
