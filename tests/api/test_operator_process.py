"""The operator as a process: leadership of two, and being killed after any write."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections import Counter
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
from twin_operator.engine.api import Api
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


SOON_SECONDS = 15.0
"""What is put off for longer, such as next night's fine-tune, is not waited for."""


class KilledError(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


class Mortal:
    """Kills the process right after its n-th write that concerns `pool` has reached the API server."""

    def __init__(self, pool: str, after: int | None) -> None:
        self.pool = pool
        self.after = after
        self.writes: list[str] = []

    def on(self, client: Any) -> Any:
        call = client.call_api

        async def counted(method: str, url: str, **options: Any) -> Any:
            answer = await call(method, url, **options)
            if method != "GET" and "/leases" not in url and "dryRun" not in url and answer.status < 300:
                await answer.read()
                self.writes.append(f"{method} {url.rsplit('/namespaces/', maxsplit=1)[-1]}")
                if self.after is not None and len(self.writes) >= self.after:
                    raise KilledError
            return answer

        client.call_api = counted
        return client


async def _run(kubeconfig: Path, namespace: str, lease: str, pool: str, after: int | None, **more: Any) -> list[str]:
    """Run an operator until it is killed after a number of writes, or has nothing left to do; returns its writes."""
    settings = Settings(
        **{
            "identity": "op", "lease_namespace": namespace, "lease_name": lease, "namespace": namespace, "workers": 1,
            **more,
        }
    )  # fmt: skip
    mortal = Mortal(pool, after)
    api = Api(mortal.on(await api_client(kubeconfig)), request_seconds=10, resources=BY_KIND)
    async with Process(settings, api) as process:
        work = asyncio.create_task(process.run())
        rested = 0

        def idle() -> bool:
            soon = asyncio.get_running_loop().time() + SOON_SECONDS
            timers = any(when < soon for when, _ in process.queue._timers.values())
            return process.leadership.leading.is_set() and not (
                len(process.queue) or process.queue.started_at or timers
            )

        async def over() -> bool:
            """Nothing is left to do, also after what the Deployment controller did: no watch runs here, so look."""
            nonlocal rested
            if work.done():
                return True
            if not idle():
                rested = 0
                return False
            await process.relist()
            facts = [deployment_facts(each.manifest) for each in process.store.of_kind("Deployment")]
            rested = rested + 1 if idle() and all(each.seen for each in facts) else 0
            return rested > 1

        await until(over, what="the operator is done or dead")
        work.cancel()
        await asyncio.wait({work})
        if not work.cancelled():
            error = work.exception()
            assert error is None or isinstance(error, BaseExceptionGroup | KilledError), error
    return mortal.writes


def _essence(thing: Manifest, pool: str) -> str:
    """What an object says, without what differs from pool to pool and from one time to another."""
    metadata = {key: thing["metadata"].get(key) for key in ("name", "labels", "generation")}
    left_out = {"metadata", "status", *(("data",) if thing["kind"] == "Secret" else ())}
    spec = {key: value for key, value in thing.items() if key not in left_out}
    for drawn in ("clusterIP", "clusterIPs"):
        spec.get("spec", {}).pop(drawn, None)
    conditions = [
        (each["type"], each["status"], each["reason"]) for each in (thing.get("status") or {}).get("conditions") or []
    ]
    shown = conditions if thing["kind"] in ("MinerPool", "DoctorTwin") else None
    plain = re.sub(rf"dr-{pool}\b", "T", repr((metadata, spec, shown)))
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uid>", re.sub(rf"\b{pool}\b", "P", plain))


EVERY = 4
"""Of four writes one is a kill point here; tests/unit/operator/kill_points.py goes through all in memory."""


@pytest.mark.timeout(400)
async def test_killed_after_a_write_it_ends_in_the_same_state(kubeconfig: Path, namespace: str) -> None:
    async with cluster(kubeconfig, namespace) as world:

        async def outcome(number: int, *kills: int | None) -> tuple[dict[str, str], list[str]]:
            pool = f"pool{number}"
            await world.apply(pool_manifest(namespace, pool))
            await world.apply(twin_manifest(namespace, f"dr-{pool}", tier=pool, systemPrompt="You are Dr. T."))
            writes: list[str] = []
            for life, after in enumerate(kills):
                writes += await _run(kubeconfig, namespace, f"lease-{number}-{life}", pool, after)
            things = {
                f"{kind} {name}".replace(pool, "P"): _essence(thing, pool)
                for (kind, name), thing in (await world.children(pool)).items()
            }
            for each in (await world.routing(pool))["slices"]:
                things[f"RoutingSlice {each['metadata']['name']}".replace(pool, "P")] = _essence(each, pool)
            things["pool"] = _essence(await world.pool(pool), pool)
            things["twin"] = _essence(await world.twin(f"dr-{pool}"), pool)
            for thing in (await world.pool(pool), await world.twin(f"dr-{pool}")):
                await world.api.delete(
                    BY_KIND[thing["kind"]],
                    namespace=namespace, name=thing["metadata"]["name"], uid=thing["metadata"]["uid"],
                )  # fmt: skip
            return things, writes

        reference, writes = await outcome(0, None)
        assert {"pool", "twin", "RoutingSlice P-routing-0", "Deployment P-engine"} <= reference.keys()
        assert len(writes) >= 17
        for number in range(1, len(writes) + 1, EVERY):
            state, made = await outcome(number, number, None)
            for name in reference.keys() | state.keys():
                assert state.get(name) == reference.get(name), f"{name}, killed after write {number}"
            assert _made(made, f"pool{number}") == _made(writes, "pool0"), f"killed after write {number}"


def _made(writes: list[str], pool: str) -> Counter[str]:
    """Count what was created and deleted, and what was applied as a whole; a status may be said anew."""
    told = [each.split("?")[0].replace(pool, "P") for each in writes if "/status" not in each and "/events" not in each]
    return Counter(each for each in told if not re.match("PATCH .*routingslices/", each))
