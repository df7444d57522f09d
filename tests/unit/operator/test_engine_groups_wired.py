"""The whole operator and engines that span several nodes: by LeaderWorkerSets, or words where there are none."""

from __future__ import annotations

from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.fake_api import FakeApi
from tests.unit.operator.played import Played, api_error
from tests.unit.operator.samples import NAMESPACE, digest
from twin_operator.engine.resources import LEADER_WORKER_SET, Key

GROUP: dict[str, Any] = {
    "engine": {"device": "GPU", "group": {"nodes": 2, "adaptersClaimName": "shared"}},
    "resources": {"limits": {"nvidia.com/gpu": 8}},
}
ENGINES = Key(LEADER_WORKER_SET.kind, NAMESPACE, "p-engine")
ALONE = Key("Deployment", NAMESPACE, "p-engine")


class WithoutGroups(FakeApi):
    """An API server to which nobody has told what a LeaderWorkerSet is."""

    async def list(self, resource: Any, **more: Any) -> Any:
        if resource == LEADER_WORKER_SET:
            raise api_error(404, "the server could not find the requested resource")
        return await super().list(resource, **more)


async def played(api: FakeApi | None = None, **spec: Any) -> Played:
    world = Played(api)
    world.start_pool(**spec)
    await world.lead()
    await world.settle()
    return world


def start_worker(world: Played, name: str) -> None:
    world.start_pod(name, component="engine-worker", ip="10.0.1.1")


async def test_leaders_are_the_pools_engines_and_workers_are_none() -> None:
    world = await played(**GROUP)
    assert ENGINES in world.api.objects
    assert ALONE not in world.api.objects
    world.start_pod("p-engine-0")
    start_worker(world, "p-engine-0-1")
    world.report("p-engine-0")
    world.start_twin()
    await world.settle()
    world.report("p-engine-0", ("dr-a", "a"))
    await world.settle()
    assert world.answering() == [(digest("a"), 100)]
    assert world.twin()["status"]["pods"]["desired"] == 1
    assert world.pool()["status"]["replicas"] == 1
    assert world.pool()["status"]["selector"] == f"{names.LABEL_COMPONENT}=engine,{names.LABEL_POOL}=p"


async def test_steady_groups_cost_no_write() -> None:
    world = await played(**GROUP)
    before = len(world.api.writes)
    world.process._add_all()
    await world.settle()
    assert len(world.api.writes) == before


async def test_where_there_are_no_groups_a_condition_says_what_to_do() -> None:
    world = await played(WithoutGroups(), **GROUP)
    assert ENGINES not in world.api.objects
    pool = world.pool()
    for kind in ("Ready", "Available", "CapacityAvailable"):
        status, reason, message = world.condition(kind, pool)
        assert (status, reason) == ("False", "LeaderWorkerSetMissing")
        assert "install LeaderWorkerSet" in message
    assert not world.problems
    world.start_twin()
    await world.settle()
    assert "LeaderWorkerSet" in world.condition("Serving", world.twin())[2]


async def test_engines_of_one_node_stay_until_there_can_be_groups() -> None:
    world = await played(WithoutGroups(), engine={"device": "GPU"})
    assert ALONE in world.api.objects
    world.start_pool(**GROUP)
    await world.settle()
    assert world.condition("Ready", world.pool())[1] == "LeaderWorkerSetMissing"
    assert ALONE in world.api.objects


async def test_other_pools_need_no_groups() -> None:
    world = await played(WithoutGroups(), engine={"device": "GPU"})
    assert world.condition("Ready", world.pool())[1] == "EnginesStarting"
    assert not world.problems


async def test_one_node_in_place_of_several_replaces_the_groups() -> None:
    world = await played(**GROUP)
    world.start_pool(engine={"device": "GPU", "group": None})
    await world.settle()
    assert ENGINES not in world.api.objects
    assert ALONE in world.api.objects


NO_GPU = {
    "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
}  # fmt: skip
PULL = {"name": "engine", "image": "e:1", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such"}}}
CRASH = {
    "name": "engine", "image": "e:1", "restartCount": 0,
    "state": {"terminated": {"exitCode": 1, "reason": "Error", "message": "NCCL error"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "kind", "reason", "said"),
    [
        ({"conditions": [NO_GPU]}, "CapacityAvailable", "Unschedulable", "no node takes pod p-engine-0-1: 0/3 nodes"),
        ({"containerStatuses": [PULL]}, "Ready", "ImagePullFailed", "p-engine-0-1"),
        ({"containerStatuses": [CRASH]}, "EngineLive", "EngineCrashed", "the engine of pod p-engine-0-1 ended with"),
    ],
)
async def test_what_keeps_a_worker_from_coming_up_is_said(
    status: dict[str, Any], kind: str, reason: str, said: str
) -> None:
    """Its leader only waits for it: without a word the pool would be starting for ever."""
    world = await played(**GROUP)
    world.start_pod("p-engine-0")
    start_worker(world, "p-engine-0-1")
    await world.settle()
    assert world.condition(kind, world.pool())[1] != reason
    worker = world.api.objects[Key("Pod", NAMESPACE, "p-engine-0-1")]
    world.api.put({**worker, "status": {"phase": "Pending", **status}})
    await world.settle()
    found = world.condition(kind, world.pool())
    assert found[:2] == ("False", reason)
    assert said in found[2]
    assert world.pool()["status"]["replicas"] == 1
    world.api.drop(Key("Pod", NAMESPACE, "p-engine-0-1"))
    await world.settle()
    assert world.condition(kind, world.pool())[1] != reason
