"""Twins of mode OnDemand: loaded by the first request, proven before it is answered, let go by least recent use."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bettertherapy_api.report import AdapterState, FailureReason
from bettertherapy_api.routing import TwinEntry, Version
from tests.standin import FakeAdapter
from tests.unit.agent.pod import Pod, until, words

LOAD, UNLOAD = "POST /v1/load_lora_adapter", "POST /v1/unload_lora_adapter"


def on_demand(adapter: FakeAdapter, *, answers: bool = True, pods: tuple[str, ...] = ("uid-1",)) -> TwinEntry:
    """Return its twin's entry; `answers`: the version has been verified once, and answers since."""
    version = Version(served_name=adapter.name, digest=adapter.digest, weight_percent=100)
    return adapter.entry().model_copy(
        update={"placement": "OnDemand", "pods": pods, "versions": (version,) if answers else ()}
    )


async def known(pod: Pod, *entries: TwinEntry, **header: Any) -> None:
    """Write these entries, and wait until the agent has taken them."""
    pod.tables.write(*entries, **header)
    generation = pod.tables._generation
    await until(lambda: pod.agent.roster.pool is not None and pod.agent.roster.pool.generation == generation)
    await until(lambda: pod.agent.ready)


async def asked(pod: Pod, adapter: FakeAdapter) -> None:
    """Ask it and see that its own weights answer."""
    status, document, headers = await pod.answer(adapter.name)
    assert status == 200, document
    assert words(document).startswith(adapter.seed[:8])
    assert headers["x-twin-adapter-digest"] == adapter.digest


async def test_nothing_is_loaded_until_it_is_asked_for(pod: Pod) -> None:
    adapter = pod.adapter("dr-one")
    await known(pod, on_demand(adapter))
    assert pod.state(adapter) is None
    assert pod.engine.calls[LOAD] == 0
    await asked(pod, adapter)
    report = pod.state(adapter)
    assert report is not None
    assert report.state is AdapterState.VERIFIED
    assert report.fingerprint_milli_nats is not None, "it was measured like any other"


async def test_any_pod_may_be_asked_for_it(pod: Pod) -> None:
    adapter = pod.adapter("dr-one")
    await known(pod, on_demand(adapter, pods=("uid-2",)))
    await asked(pod, adapter)


async def test_questions_that_come_together_load_it_once(pod: Pod) -> None:
    adapter = pod.adapter("dr-one")
    await known(pod, on_demand(adapter))
    await asyncio.gather(*(asked(pod, adapter) for _ in range(8)))
    assert pod.engine.calls[LOAD] == 1


async def test_what_does_not_answer_yet_is_held_where_it_is_placed_and_stays_when_it_answers(pod: Pod) -> None:
    here, elsewhere = pod.adapter("dr-one"), pod.adapter("dr-two")
    await known(pod, on_demand(here, answers=False), on_demand(elsewhere, answers=False, pods=("uid-2",)))
    await pod.verified(here)
    assert pod.state(elsewhere) is None
    assert (await pod.answer(elsewhere.name))[0] == 421, "it may not answer yet"
    await known(pod, on_demand(here), on_demand(elsewhere, answers=False, pods=("uid-2",)))
    await asked(pod, here)
    assert (pod.engine.calls[LOAD], pod.engine.calls[UNLOAD]) == (1, 0)


async def test_the_least_recently_used_makes_way(pod: Pod) -> None:
    first, second, third = (pod.adapter(f"dr-{name}") for name in ("one", "two", "three"))
    await known(pod, *map(on_demand, (first, second, third)), max_loras=2)
    for adapter in (first, second, first, third):
        await asked(pod, adapter)
    await pod.gone(second)
    await until(lambda: second.name not in pod.engine.loras)
    assert {first.name, third.name} == pod.engine.loras.keys()
    await asked(pod, second)
    await pod.gone(first)
    assert 'outcome="evicted"} 2.0' in await pod.metrics()


async def test_what_is_held_at_all_times_makes_way_for_nobody(pod: Pod) -> None:
    held, first, second = (pod.adapter(f"dr-{name}") for name in ("held", "one", "two"))
    await known(pod, held.entry(), on_demand(first), on_demand(second), max_loras=1)
    await pod.verified(held)
    for adapter in (first, second, first):
        await asked(pod, adapter)
    assert pod.engine.calls[LOAD] == 4
    await asked(pod, held)
    assert pod.engine.calls[LOAD] == 4


async def test_as_many_as_the_engine_has_at_hand_stay(pod: Pod) -> None:
    adapters = [pod.adapter(f"dr-{number}") for number in range(4)]
    await known(pod, *map(on_demand, adapters), max_loras=1, at_hand=4)
    for adapter in (*adapters, *adapters):
        await asked(pod, adapter)
    assert pod.engine.calls[LOAD] == 4


async def test_what_runs_is_not_taken_out_and_who_finds_no_room_is_told_to_come_again(pod: Pod) -> None:
    first, second = pod.adapter("dr-one"), pod.adapter("dr-two")
    pod.agent.proxy._demand_seconds = 0.3
    await known(pod, on_demand(first), on_demand(second), max_loras=1)
    await asked(pod, first)
    pod.engine.knobs.prefill_seconds = 1.0
    running = asyncio.create_task(asked(pod, first))
    await until(lambda: pod.agent.traffic.running(first.name) == 1)
    status, document, headers = await pod.answer(second.name)
    assert (status, document["error"]["type"], headers["Retry-After"]) == (503, "Busy", "1")
    assert headers["x-twin-retry"] == "other-pod"
    pod.agent.proxy._demand_seconds = 20.0
    await asked(pod, second)
    await running


@pytest.mark.parametrize("fault", ["weights", "files"])
async def test_no_other_weights_answer_under_its_name(pod: Pod, fault: str) -> None:
    adapter = pod.adapter("dr-one")
    await known(pod, on_demand(adapter))
    if fault == "weights":
        pod.engine.knobs.wrong_weights.add(adapter.name)
    else:
        (adapter.folder / "adapter_model.safetensors").write_bytes(b"other bytes")
    status, document, _ = await pod.answer(adapter.name)
    assert (status, document["error"]["type"]) == (421, "AdapterNotHere")
    report = await pod.failed(adapter)
    expected = {"weights": FailureReason.FINGERPRINT_MISMATCH, "files": FailureReason.DIGEST_MISMATCH}
    assert report.reason is expected[fault]
    assert all(body.get("model") != adapter.name or "messages" not in body for body in pod.engine.bodies)


async def test_a_version_that_is_replaced_while_one_waits_for_it_does_not_answer(pod: Pod) -> None:
    old, new = pod.adapter("dr-one", content="old"), pod.adapter("dr-one", content="new")
    await known(pod, on_demand(old))
    pod.engine.knobs.load_seconds = 0.5
    waiting = asyncio.create_task(pod.answer(old.name))
    await until(lambda: pod.state(old) is not None)
    await known(pod, on_demand(new))
    status, _, headers = await waiting
    assert (status, headers.get("x-twin-adapter-digest")) in ((421, None), (200, old.digest))
    await asked(pod, new)
    await pod.gone(old)
    assert (await pod.answer(old.name))[0] == 421


async def test_what_was_loaded_comes_back_after_an_engines_restart(pod: Pod) -> None:
    adapter = pod.adapter("dr-one")
    await known(pod, on_demand(adapter))
    await asked(pod, adapter)
    await pod.engine.restart()
    await until(lambda: pod.agent.monitor.epoch == 2)
    await pod.verified(adapter)
    await asked(pod, adapter)


async def test_a_twin_that_leaves_is_let_go(pod: Pod) -> None:
    adapter, other = pod.adapter("dr-one"), pod.adapter("dr-two")
    await known(pod, on_demand(adapter), on_demand(other))
    await asked(pod, adapter)
    pod.tables.write(on_demand(other))
    await pod.gone(adapter)
    assert (await pod.answer(adapter.name))[0] == 421


async def test_a_name_that_two_twins_want_for_different_adapters_is_not_loaded(pod: Pod) -> None:
    adapter = pod.adapter("dr-one")
    other = on_demand(adapter)
    digest = adapter.digest[:-1] + ("0" if adapter.digest[-1] != "0" else "1")
    twin = TwinEntry(
        name="dr-onf", placement="OnDemand", pods=("uid-1",),
        adapters=(other.adapters[0].model_copy(update={"digest": digest}),),
        versions=(Version(served_name=adapter.name, digest=digest, weight_percent=100),),
    )  # fmt: skip
    await known(pod, other, twin)
    assert (await pod.answer(adapter.name))[0] == 421
    assert pod.engine.calls[LOAD] == 0


async def test_many_twins_take_turns_in_few_places(pod: Pod) -> None:
    adapters = [pod.adapter(f"dr-{number}") for number in range(12)]
    await known(pod, *map(on_demand, adapters), max_loras=3)
    await asyncio.gather(*(asked(pod, adapter) for adapter in adapters * 3))
    await until(lambda: len(pod.engine.loras) <= 3 and len(list(pod.agent.roster.keepers())) <= 3)


async def test_who_waits_for_a_load_is_sent_on_as_soon_as_the_pod_drains(pod: Pod) -> None:
    adapter = pod.adapter("dr-one")
    await known(pod, on_demand(adapter))
    pod.engine.knobs.load_seconds = 5.0
    waiting = asyncio.create_task(pod.answer(adapter.name))
    await until(lambda: pod.state(adapter) is not None)
    pod.settings.drain_file.touch()
    async with asyncio.timeout(2.5):
        status, document, headers = await waiting
    assert (status, document["error"]["type"], headers["x-twin-retry"]) == (503, "Draining", "other-pod")


async def waits(pod: Pod, adapter: FakeAdapter) -> asyncio.Task[Any]:
    """Ask for an adapter whose load takes longer than the test."""
    await known(pod, on_demand(adapter))
    pod.engine.knobs.load_seconds = 15.0
    waiting = asyncio.create_task(pod.answer(adapter.name))
    await until(lambda: pod.agent.roster.on_demand._waiting[adapter.name] == 1)
    return waiting


async def test_who_waits_for_a_load_is_sent_on_as_soon_as_the_engine_is_found_wedged(pod: Pod) -> None:
    waiting = await waits(pod, pod.adapter("dr-one"))
    pod.agent.monitor.condemn("it moves, but what it says is wrong", pause=60.0)
    async with asyncio.timeout(2.5):
        status, document, headers = await waiting
    assert (status, document["error"]["type"], headers["x-twin-retry"]) == (503, "EngineWedged", "other-pod")
    assert 'outcome="late"} 1.0' in await pod.metrics()


async def test_who_waits_for_a_load_is_sent_on_as_soon_as_the_engine_is_gone(pod: Pod) -> None:
    waiting = await waits(pod, pod.adapter("dr-one"))
    await pod.engine.stop()
    async with asyncio.timeout(5):
        status, document, headers = await waiting
    assert (status, document["error"]["type"], headers["x-twin-retry"]) == (503, "EngineDown", "other-pod")


async def test_nobody_waits_for_a_load_in_an_engine_that_does_not_answer(pod: Pod) -> None:
    adapter = pod.adapter("dr-one")
    await known(pod, on_demand(adapter))
    await pod.engine.stop()
    await until(lambda: not pod.agent.monitor.up)
    async with asyncio.timeout(2.5):
        status, document, _ = await pod.answer(adapter.name)
    assert (status, document["error"]["type"]) == (503, "EngineDown")
    await pod.engine.start()
    await until(lambda: pod.agent.ready)
    await asked(pod, adapter)
