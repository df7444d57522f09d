"""MinerPool on a real API server: children, their return, silence when idle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.operator_harness import (
    Cluster,
    clean,
    cluster,
    condition,
    operator,
    pool_manifest,
    twin_manifest,
    until,
)
from twin_operator.engine.resources import DEPLOYMENT
from twin_operator.kinds.resources import BY_KIND, MINER_POOL

pytestmark = pytest.mark.cluster

CHILD_NAMES = {
    ("Service", "p-miner"),
    *(
        (kind, f"p-{part}")
        for kind in ("ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "Deployment")
        for part in ("engine", "miner")
    ),
    ("PodDisruptionBudget", "p-engine"),
}


@pytest.fixture
async def empty(kubeconfig: Path, home: str) -> AsyncIterator[Cluster]:
    """A namespace with an operator and nothing in it."""
    async with cluster(kubeconfig, home) as found:
        yield found
        await clean(found)


@pytest.fixture
async def world(empty: Cluster) -> Cluster:
    """A pool with all its children and a status."""
    await _make_pool(empty)
    return empty


async def _make_pool(world: Cluster) -> None:
    await world.apply(pool_manifest(world.namespace, disruption={"maxUnavailable": 1}))

    async def ready() -> bool:
        return condition(await world.pool(), "Ready")[0] != ""

    await until(ready, what="the pool has a status")


async def test_a_pool_gets_all_its_children(world: Cluster) -> None:
    children = await world.children()
    assert set(children) == CHILD_NAMES
    uid = (await world.pool())["metadata"]["uid"]
    for child in children.values():
        [owner] = child["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (uid, True)


async def test_every_child_that_is_deleted_comes_back(world: Cluster) -> None:
    before = await world.children()
    for (kind, name), child in before.items():
        await world.api.delete(BY_KIND[kind], namespace=world.namespace, name=name, uid=child["metadata"]["uid"])

    async def back() -> bool:
        now = await world.children()
        return set(now) == CHILD_NAMES and all(
            now[key]["metadata"]["uid"] != child["metadata"]["uid"] for key, child in before.items()
        )

    await until(back, what="all children are back")


@pytest.mark.parametrize(
    ("kind", "name", "patch", "kept"),
    [
        ("Service", "p-miner", {"spec": {"selector": {"app": "x"}}}, lambda thing: len(thing["spec"]["selector"]) == 2),
        ("Deployment", "p-engine", {"spec": {"replicas": 1}}, lambda thing: thing["spec"]["replicas"] == 0),
        ("Role", "p-miner", {"rules": []}, lambda thing: bool(thing["rules"])),
        ("RoutingSlice", "p-routing-0", {"pool": {"maxLoras": 3}}, lambda thing: thing["pool"]["maxLoras"] == 4),
        ("NetworkPolicy", "p-engine", {"spec": {"ingress": [{}]}}, lambda thing: thing["spec"]["ingress"] != [{}]),
    ],
)  # fmt: skip
async def test_a_child_that_somebody_changed_is_set_right(
    world: Cluster, kind: str, name: str, patch: dict[str, Any], kept: Any
) -> None:

    async def made() -> bool:
        return await world.api.get(BY_KIND[kind], namespace=world.namespace, name=name) is not None

    await until(made, what=f"{kind} {name} is there")
    changed = await world.api.merge(BY_KIND[kind], namespace=world.namespace, name=name, patch=patch)
    assert not kept(changed)

    async def right() -> bool:
        thing = await world.api.get(BY_KIND[kind], namespace=world.namespace, name=name)
        return thing is not None and bool(kept(thing))

    await until(right, what=f"{kind} {name} is set right")


async def test_reconciling_again_and_again_writes_nothing(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    async with (
        cluster(kubeconfig, namespace) as world,
        operator(kubeconfig, namespace, tmp_path, TWIN_RESYNC_SECONDS="0.3") as process,
    ):
        await _make_pool(world)
        for number in range(5):
            await world.apply(twin_manifest(namespace, f"dr-{number}", letter="abcde"[number]))

        async def known() -> bool:
            return all([condition(await world.twin(f"dr-{number}"), "Ready")[0] for number in range(5)])

        await until(known, what="all twins have a status")

        async def reconciled() -> float:
            return await process.metric("bettertherapy_operator_reconciles_total", result="ok")

        async def quiet() -> bool:
            before = await process.writes(), await reconciled()
            await until(lambda: _more(reconciled, before[1] + 60), what="60 more reconciliations")
            return await process.writes() == before[0]

        await until(quiet, what="what the Deployment controller stirred up is over")
        writes, begun = await process.writes(), await reconciled()
        before = {key: child["metadata"]["resourceVersion"] for key, child in (await world.children()).items()}
        await until(lambda: _more(reconciled, begun + 60), what="60 more reconciliations")
        assert await process.writes() == writes
        assert {key: child["metadata"]["resourceVersion"] for key, child in (await world.children()).items()} == before


async def _more(count: Any, than: float) -> bool:
    return bool(await count() >= than)


async def test_a_spec_change_reaches_the_deployment_and_a_removed_field_leaves_it(world: Cluster) -> None:

    async def selector() -> Any:
        thing = await world.api.get(DEPLOYMENT, namespace=world.namespace, name="p-engine")
        return thing["spec"]["template"]["spec"].get("nodeSelector", "none") if thing else None

    await world.api.merge(
        MINER_POOL, namespace=world.namespace, name="p", patch={"spec": {"nodeSelector": {"gpu": "h100"}}}
    )
    await until(lambda: _equal(selector, {"gpu": "h100"}))
    await world.api.merge(MINER_POOL, namespace=world.namespace, name="p", patch={"spec": {"nodeSelector": None}})
    await until(lambda: _equal(selector, "none"))


async def _equal(read: Any, value: Any) -> bool:
    return bool(await read() == value)


async def test_an_object_of_somebody_else_is_left_alone_and_named(empty: Cluster) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "p-miner", "namespace": empty.namespace},
        "spec": {"ports": [{"port": 9}], "selector": {"mine": "1"}},
    }
    await empty.api.create(foreign)
    await empty.apply(pool_manifest(empty.namespace))
    await until(lambda: _reason(empty, "ChildConflict"), what="the conflict is told")
    live = await empty.api.get(BY_KIND["Service"], namespace=empty.namespace, name="p-miner")
    assert live is not None
    assert live["spec"]["selector"] == {"mine": "1"}
    assert "ownerReferences" not in live["metadata"]
    await empty.api.delete(BY_KIND["Service"], namespace=empty.namespace, name="p-miner", uid=live["metadata"]["uid"])
    await until(lambda: _reason(empty, "ScaledToZero"), seconds=30, what="the pool recovers")


async def _reason(world: Cluster, reason: str) -> bool:
    return condition(await world.pool(), "Ready")[1] == reason


PULL = {"name": "engine", "image": "example/engine:1", "imageID": "", "ready": False, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}  # fmt: skip
CRASH = {**PULL, "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
         "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "no CUDA"}}}  # fmt: skip
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                 "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "reason", "says"),
    [
        ({"containerStatuses": [PULL]}, "ImagePullFailed", "no such image"),
        ({"containerStatuses": [CRASH]}, "EngineCrashed", "no CUDA"),
        ({"conditions": [UNSCHEDULABLE]}, "Unschedulable", "no node offers a free nvidia.com/gpu"),
    ],
)
async def test_what_keeps_a_pod_from_starting_is_in_condition_and_event(
    world: Cluster, status: dict[str, Any], reason: str, says: str
) -> None:
    await world.start_pod("e1", status=status)
    await until(lambda: _reason(world, reason), what=reason)
    [message] = [each["message"] for each in (await world.pool())["status"]["conditions"] if each["type"] == "Ready"]
    assert says in message

    async def told() -> bool:
        events, _ = await world.api.list(BY_KIND["Event"], namespace=world.namespace)
        return any(event["reason"] == reason and says in event["note"] for event in events)

    await until(told, what="an event says so")


async def test_a_wedged_engine_is_told_and_reports_of_gone_pods_go(world: Cluster) -> None:
    await world.start_pod("e1")
    await world.report("e1", wedged=True)
    await until(lambda: _reason(world, "EngineWedged"), what="EngineWedged")
    await world.api.delete(BY_KIND["Pod"], namespace=world.namespace, name="e1", uid=world.uids["e1"])

    async def gone() -> bool:
        return await world.api.get(BY_KIND["PodReport"], namespace=world.namespace, name="e1") is None

    await until(gone, what="the garbage collector takes the report of the gone pod")
    await until(lambda: _reason(world, "ScaledToZero"), what="the pool is well again")
