"""An engine that restarts has forgotten every adapter; none may be asked for before it is proven again."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

from bettertherapy_api.report import AdapterState
from tests.unit.agent.pod import Pod, running_pod, until


async def test_all_adapters_are_back_within_two_seconds_of_a_restart(pod: Pod) -> None:
    adapters = [pod.adapter(f"dr-{i}") for i in range(6)]
    pod.tables.write(*adapters)
    await pod.verified(*adapters)
    await pod.engine.stop()
    await until(lambda: not pod.settings.socket.exists())
    await pod.engine.start()
    answering = time.monotonic()
    await pod.verified(*adapters)
    assert time.monotonic() - answering < 2.0
    assert len(pod.engine.loras) == 6


async def test_a_restart_too_quick_to_be_seen_as_an_outage_is_noticed(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    epoch = pod.agent.monitor.epoch
    await pod.engine.restart()
    await until(lambda: pod.agent.monitor.epoch > epoch)
    await pod.verified(adapter)
    assert adapter.name in pod.engine.loras


async def test_the_fingerprint_is_checked_again_after_a_restart(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    pod.engine.knobs.wrong_weights.add(adapter.name)
    await pod.engine.restart()
    await pod.failed(adapter)


async def test_nothing_is_verified_while_the_engine_is_down(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    await pod.engine.stop()
    await until(lambda: (r := pod.state(adapter)) is not None and r.state is AdapterState.LOADING)
    assert not pod.agent.ready
    assert (await pod.answer(adapter.name))[0] == 421


async def test_a_request_that_meets_a_forgetful_engine_is_sent_elsewhere_and_heals_it(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    pod.engine.loras.clear()
    status, document, headers = await pod.answer(adapter.name)
    assert (status, document["error"]["type"]) == (421, "AdapterNotHere")
    assert headers["x-twin-retry"] == "other-pod"
    await until(lambda: adapter.name in pod.engine.loras)
    await pod.verified(adapter)


async def test_an_adapter_that_alone_is_forgotten_is_loaded_again(pod: Pod) -> None:
    first, second = pod.adapter("one"), pod.adapter("two")
    pod.tables.write(first, second)
    await pod.verified(first, second)
    del pod.engine.loras[first.name]
    await until(lambda: first.name in pod.engine.loras)
    await pod.verified(first, second)


async def test_the_report_tells_the_new_process_from_the_old(pod: Pod) -> None:
    await until(lambda: pod.agent.monitor.up)
    before = pod.agent.report().engine.started_at
    pod.engine.start_time -= 100
    await pod.engine.restart(down_seconds=1.1)
    await until(lambda: pod.agent.monitor.up and pod.agent.report().engine.started_at != before)


async def test_the_table_may_come_before_the_engine(tmp_path: Path) -> None:
    async with running_pod(tmp_path, engine=False) as pod:
        adapter = pod.adapter("dr")
        pod.tables.write(adapter)
        await until(lambda: pod.path(adapter).exists())  # fetched while the engine starts
        assert not pod.agent.ready
        await pod.engine.start()
        await pod.verified(adapter)
        await until(lambda: pod.agent.ready)


async def test_a_slow_answer_to_one_poll_unverifies_nothing(tmp_path: Path) -> None:
    async with running_pod(tmp_path, poll_seconds=0.1) as pod:
        adapter = pod.adapter("dr")
        pod.tables.write(adapter)
        await pod.verified(adapter)
        polls = pod.engine.calls["GET /v1/models"]
        pod.engine.knobs.models_seconds = 0.5
        await until(lambda: pod.engine.calls["GET /v1/models"] >= polls + 2)
        pod.engine.knobs.models_seconds = 0.0
        assert (await pod.answer(adapter.name))[0] == 200


async def test_the_socket_file_that_a_dead_engine_left_is_removed(pod: Pod) -> None:
    """vLLM neither removes it at its end nor binds over it, so its container would never start again."""
    await until(lambda: pod.agent.monitor.up)
    await pod.engine.stop()
    assert pod.settings.socket.exists()
    await until(lambda: not pod.settings.socket.exists())
    await pod.engine.start()
    await until(lambda: pod.agent.monitor.up)


async def test_the_socket_of_an_engine_that_has_not_begun_to_listen_is_left_alone(tmp_path: Path) -> None:
    """vLLM binds early and listens minutes later; connections are refused in between."""
    async with running_pod(tmp_path, engine=False) as pod:
        with socket.socket(socket.AF_UNIX) as early:
            early.bind(str(pod.settings.socket))
            await until(lambda: "nothing listens" in (pod.agent.monitor.message or ""))
            message = pod.agent.monitor.message
            await asyncio.sleep(1.0)  # several polls
            assert pod.agent.monitor.message == message
            assert pod.settings.socket.exists()
