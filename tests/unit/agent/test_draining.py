"""A pod that stops refuses what is new, finishes what runs, and says when it is done."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.unit.agent.pod import Pod, read_events, running_pod, set_modified, until


async def test_new_requests_are_sent_elsewhere_and_running_ones_finish(pod: Pod) -> None:
    await until(lambda: pod.agent.ready)
    pod.engine.knobs.token_seconds = 0.05
    async with pod.ask("base-model", stream=True, max_tokens=20) as response:
        pod.settings.drain_file.touch()
        await until(lambda: pod.agent.draining)
        status, _, headers = await pod.answer("base-model")
        assert (status, headers["x-twin-retry"]) == (503, "other-pod")
        assert (await pod.get("/readyz"))[0] == 503
        assert not pod.settings.drained_file.exists()
        assert len(await read_events(response)) == 21
    await until(pod.settings.drained_file.exists)


async def test_the_report_says_that_the_pod_drains(pod: Pod) -> None:
    await until(lambda: pod.agent.ready)
    pod.settings.drain_file.touch()
    await until(lambda: bool(pod.reports) and pod.reports[-1].draining and not pod.reports[-1].ready)


async def test_an_idle_pod_is_drained_at_once(pod: Pod) -> None:
    await until(lambda: pod.agent.ready)
    began = time.monotonic()
    pod.settings.drain_file.touch()
    await until(pod.settings.drained_file.exists)
    assert time.monotonic() - began < 1.5


async def test_a_wedged_engine_is_not_waited_for(tmp_path: Path) -> None:
    """kubelet runs the same hook before it restarts a wedged container; its requests never end.

    They are broken off, so that a miner asks another pod now, and not when the engine's time to end is over. It is told
    in words, and no connection is cut.
    """
    async with running_pod(tmp_path, wedge_seconds=0.5) as pod:
        await until(lambda: pod.agent.ready)
        pod.engine.wedge()
        request = asyncio.ensure_future(pod.answer("base-model"))
        await until(pod.settings.wedged_file.exists)
        assert not request.done()
        pod.settings.drain_file.touch()
        await until(pod.settings.drained_file.exists)
        status, document, headers = await request
        assert (status, document["error"]["type"]) == (502, "BrokenOff")
        assert "x-twin-retry" not in headers  # it had reached the engine
        assert headers["x-twin-pod"] == "pod-1"
        assert pod.agent.traffic.total == 0


async def test_drain_files_of_an_earlier_process_are_removed(pod: Pod) -> None:
    await until(lambda: pod.agent.ready)
    pod.settings.drained_file.touch()
    pod.settings.drain_file.touch()
    set_modified(pod.settings.drain_file, time.time() - 3600)
    await until(lambda: not pod.settings.drain_file.exists() and not pod.settings.drained_file.exists())
    await until(lambda: pod.agent.ready)
    assert (await pod.answer("base-model"))[0] == 200


async def test_an_engine_restarted_in_place_serves_again(pod: Pod) -> None:
    await until(lambda: pod.agent.ready)
    pod.settings.drain_file.touch()
    await until(pod.settings.drained_file.exists)
    await pod.engine.restart(down_seconds=0.5)
    await until(lambda: pod.agent.ready)
    assert not pod.settings.drained_file.exists()


async def test_a_stopped_agent_takes_its_report_away(pod: Pod) -> None:
    await until(lambda: pod.agent.ready)
    await pod.agent.shut_down()
    assert pod.withdrawn
