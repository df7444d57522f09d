"""A new leader that finds all as it was says nothing new: not even for the moment until it has looked itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.cast import Cast
from tests.unit.operator.fake_api import FakeApi
from tests.unit.operator.played import Played, api_error, serving
from tests.unit.operator.samples import NAMESPACE, digest
from twin_operator.engine.queue import work
from twin_operator.engine.resources import Key, Manifest


def said_of_readiness(world: Played, since: int) -> list[tuple[str, str, str]]:
    """Return what was written of Ready and Serving after so many writes."""
    return [
        (each["type"], each["status"], each["reason"])
        for write in world.api.writes[since:]
        if write.key.kind in ("DoctorTwin", "MinerPool")
        for each in (write.body.get("status") or {}).get("conditions", [])
        if each["type"] in ("Ready", "Serving")
    ]


def slow(api: FakeApi) -> None:
    """Let every request take its time, so that workers come to statuses before routing was looked at."""
    for verb in ("apply", "merge", "create", "would_create", "get", "delete"):
        setattr(api, verb, _slowly(getattr(api, verb)))


def _slowly(real: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0.002)
        return await real(*args, **kwargs)

    return answer


async def take_over(api: FakeApi) -> Played:
    """Let another process lead, with as many workers as it has, until nothing is to do any more."""
    other = Played(api)
    slow(api)
    await other.lead()
    process = other.process
    workers = [
        asyncio.create_task(work(process.queue, process._reconcile, may_work=process._may_work)) for _ in range(4)
    ]
    writes, quiet = -1, 0
    while quiet < 5:
        await asyncio.sleep(0.02)
        quiet = quiet + 1 if len(api.writes) == writes else 0
        writes = len(api.writes)
    for each in workers:
        each.cancel()
    return other


def refuse_entries(verb: str, key: Key, body: Manifest) -> None:
    if key.kind == "RoutingSlice" and body.get("twins"):
        raise api_error(403, "policy: no")


async def with_refused_entry() -> Played:
    """A twin whose new version the API server refuses to publish, which its status says."""
    world = await serving()
    world.api.refuse = refuse_entries
    spec = world.twin()["spec"]
    world.api.put_spec(
        Key("DoctorTwin", NAMESPACE, "dr-a"),
        {**spec, "adapter": {"uri": "pvc://adapters/dr-a/b", "digest": digest("b"), "rank": 8}},
    )
    await world.settle()
    assert world.condition("Ready", world.twin())[1] == "RoutingRefused"
    return world


async def test_of_a_twin_whose_entry_is_refused() -> None:
    world = await with_refused_entry()
    before, world.hears = len(world.api.writes), False
    other = await take_over(world.api)
    assert said_of_readiness(other, before) == []


async def test_of_a_twin_whose_entry_is_refused_no_more() -> None:
    """What is told from before is looked at: the condition goes with its cause."""
    world = await with_refused_entry()
    world.hears, world.api.refuse = False, lambda *_: None
    other = await take_over(world.api)
    assert other.condition("Ready", other.twin())[1] != "RoutingRefused"


@pytest.mark.parametrize("found", [False, True])
async def test_of_a_pool_whose_clients_have_no_tokens(found: bool) -> None:
    """Unless the Secret was made meanwhile."""
    world = Played()
    cast = Cast(world.api, {})
    missing = True

    async def would_create(manifest: Manifest) -> bool:
        return missing

    world.api.would_create = would_create  # type: ignore[method-assign]
    world.start_pool(store={"uri": "pvc://adapters/store"}, miner={"accessSecretRef": {"name": "mine"}})
    world.start_pod()
    world.report()
    world.start_twin()
    await world.lead()
    for _ in range(6):
        await world.settle()
        cast.act()
    world.report("e1", ("dr-a", "a"))
    await world.settle()
    assert world.condition("Ready", world.pool())[1] == "AccessSecretMissing"
    assert world.condition("Serving", world.twin())[0] == "False"
    before, world.hears, missing = len(world.api.writes), False, not found
    other = await take_over(world.api)
    if found:
        assert other.condition("Ready", other.pool())[1] != "AccessSecretMissing"
        assert other.condition("Serving", other.twin())[0] == "True"
    else:
        assert said_of_readiness(other, before) == []


async def test_a_leader_that_comes_back_forgets_what_it_had_found() -> None:
    world = await serving()
    world.process._lost()
    assert world.process.world.unpublished == {}
    assert world.process.world.access_missing == {}


async def test_a_pod_that_is_given_to_another_pool_leaves_the_former_ones_addresses() -> None:
    world = await serving()
    world.start_pod("e2", ip="10.0.0.2")
    world.report("e2", ("dr-a", "a"))
    await world.settle()
    pods = Key("RoutingSlice", NAMESPACE, names.pods_slice_name("p"))
    assert sorted(each["name"] for each in world.api.objects[pods]["pods"].values()) == ["e1", "e2"]
    labels = {names.LABEL_POOL: "debug"}
    world.api.put({"kind": "Pod", "metadata": {"name": "e2", "namespace": NAMESPACE, "labels": labels}})
    await world.settle()
    assert [each["name"] for each in world.api.objects[pods]["pods"].values()] == ["e1"]
