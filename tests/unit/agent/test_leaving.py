"""How an adapter leaves: late enough for the last request, and completely."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from bettertherapy_api.manifest import AdapterManifest
from bettertherapy_api.report import AdapterState
from neurons.agent import roster
from neurons.agent.gates import UNLOADS
from neurons.store import fetch_adapter
from tests.unit.agent.pod import Pod, read_events, running_pod, until


async def test_an_adapter_that_left_the_table_is_unloaded_and_its_files_go(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    pod.tables.write()
    await pod.gone(adapter)
    assert adapter.name not in pod.engine.loras
    assert not pod.path(adapter).parent.exists()


async def test_an_adapter_that_is_placed_elsewhere_is_unloaded_and_comes_back_when_it_is_placed_here(pod: Pod) -> None:
    adapter, other = pod.adapter("dr"), pod.adapter("other")
    pod.tables.write(adapter, other)
    await pod.verified(adapter, other)
    elsewhere = {"placement": "Spread", "pods": ("uid-2",)}
    pod.tables.write(adapter.entry().model_copy(update=elsewhere), other)
    await pod.gone(adapter)
    assert adapter.name not in pod.engine.loras
    assert not pod.path(adapter).exists()
    pod.tables.write(adapter.entry().model_copy(update={**elsewhere, "pods": ("uid-2", "uid-1")}), other)
    await pod.verified(adapter, other)


async def test_twins_that_leave_in_one_moment_are_unloaded_a_few_at_a_time(tmp_path: Path) -> None:
    async with running_pod(tmp_path) as pod:
        engine, inside, most = pod.agent.engine, 0, 0
        unload = engine.unload

        async def counted(name: str) -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            try:
                await unload(name)
            finally:
                inside -= 1

        engine.unload = counted  # type: ignore[method-assign]
        adapters = [pod.adapter(f"dr-{number}", with_fingerprint=False) for number in range(2 * UNLOADS)]
        pod.tables.write(*adapters)
        await pod.verified(*adapters, seconds=60)
        pod.tables.write()
        await until(lambda: not pod.engine.loras and not pod.agent.roster.reports(), seconds=60)
        assert 1 < most <= UNLOADS


async def test_it_still_answers_while_it_lingers(tmp_path: Path) -> None:
    async with running_pod(tmp_path, linger_seconds=30.0) as pod:
        adapter = pod.adapter("dr")
        pod.tables.write(adapter)
        await pod.verified(adapter)
        pod.tables.write()
        await until(lambda: pod.agent.roster.pool is not None and not pod.agent.view.twins)
        assert (await pod.answer(adapter.name))[0] == 200


async def test_an_adapter_that_comes_back_while_it_lingers_is_never_unloaded(tmp_path: Path) -> None:
    async with running_pod(tmp_path, linger_seconds=0.3) as pod:
        adapter = pod.adapter("dr")
        pod.tables.write(adapter)
        await pod.verified(adapter)
        pod.tables.write()
        await until(lambda: bool(pod.agent.roster._lingering))
        pod.tables.write(adapter)
        await until(lambda: not pod.agent.roster._lingering)
        await asyncio.sleep(0.5)  # longer than it would have lingered
        assert pod.engine.calls["POST /v1/unload_lora_adapter"] == 0
        assert (await pod.answer(adapter.name))[0] == 200


async def test_a_running_request_is_finished_before_its_adapter_is_unloaded(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    pod.engine.knobs.token_seconds = 0.05
    async with pod.ask(adapter.name, stream=True, max_tokens=20) as response:
        pod.tables.write()
        await until(lambda: (r := pod.state(adapter)) is not None and r.state is AdapterState.UNLOADING)
        assert (await pod.answer(adapter.name))[0] == 421
        events = await read_events(response)
    assert len(events) == 21
    await pod.gone(adapter)


async def test_the_folder_goes_once_an_unload_that_failed_for_long_succeeds(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "_UNLOAD_ATTEMPTS", 2)
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    attempts = 0

    def fail(name: str) -> web.Response:
        nonlocal attempts
        attempts += 1
        return web.json_response({"error": {"message": "busy", "type": "InternalServerError"}}, status=500)

    works = pod.engine._unload_named
    monkeypatch.setattr(pod.engine, "_unload_named", fail)
    pod.tables.write()
    await until(lambda: attempts >= 2)
    await pod.gone(adapter)
    assert pod.path(adapter).exists()  # the engine may still read it
    monkeypatch.setattr(pod.engine, "_unload_named", works)
    await until(lambda: adapter.name not in pod.engine.loras)
    await until(lambda: not pod.path(adapter).parent.exists())


async def test_an_adapter_wanted_again_while_its_last_request_runs_stays(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    pod.engine.knobs.token_seconds = 0.05
    async with pod.ask(adapter.name, stream=True, max_tokens=20) as response:
        pod.tables.write()
        await until(lambda: (r := pod.state(adapter)) is not None and r.state is AdapterState.UNLOADING)
        pod.tables.write(adapter)
        await pod.verified(adapter)
        assert len(await read_events(response)) == 21
    assert pod.engine.calls["POST /v1/unload_lora_adapter"] == 0


async def test_a_twin_deleted_while_its_adapter_is_fetched(tmp_path: Path) -> None:
    began = asyncio.Event()

    async def fetch(uri: str, digest: str, destination: Path) -> AdapterManifest:
        began.set()
        await asyncio.sleep(3600)
        return await fetch_adapter(uri, digest, destination)

    async with Pod(tmp_path) as pod:
        adapter = pod.adapter("dr")
        async with pod.engine, pod.new_agent(fetch=fetch):
            pod.tables.write(adapter)
            await began.wait()
            pod.tables.write()
            await pod.gone(adapter)
            assert not pod.path(adapter).exists()


async def test_a_twin_deleted_while_its_adapter_is_loaded(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.engine.knobs.load_seconds = 0.3
    pod.tables.write(adapter)
    await until(lambda: pod.engine.calls["POST /v1/load_lora_adapter"] == 1)
    pod.tables.write()
    await pod.gone(adapter)
    assert adapter.name not in pod.engine.loras
    assert not pod.path(adapter).exists()


async def test_a_twin_deleted_while_its_store_is_down(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.tables.write(adapter.entry(uri=(pod.store / "nowhere").as_uri()))
    await pod.failed(adapter)
    pod.tables.write()
    await pod.gone(adapter)


async def test_no_request_is_cut_by_swapping_adapters_under_load(pod: Pod) -> None:
    """One twin goes through versions while clients ask for whichever is verified, as miners do."""
    versions = [pod.adapter("dr", content=f"v{i}") for i in range(12)]
    current = versions[0]
    statuses: list[int] = []
    done = asyncio.Event()
    pod.engine.knobs.token_seconds = 0.002

    async def client() -> None:
        while not done.is_set():
            async with pod.ask(current.name, stream=True, max_tokens=8) as response:
                if response.status == 200:
                    events = await read_events(response)
                    assert len(events) == 9
                statuses.append(response.status)

    pod.tables.write(current)
    await pod.verified(current)
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(client())
        for version in versions[1:]:
            pod.tables.write(current, version)
            await pod.verified(version)
            seen = len(statuses)
            while len(statuses) < seen + 10:  # each version is asked while the next one comes
                await asyncio.sleep(0.005)
            current = version
            pod.tables.write(version)
        done.set()
    assert set(statuses) == {200}
    assert len(statuses) > 100
