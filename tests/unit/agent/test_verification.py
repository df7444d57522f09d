"""From a table's entry to Verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bettertherapy_api import names
from bettertherapy_api.report import AdapterState
from neurons.cluster import Put
from tests.unit.agent.pod import Pod, read_events, running_pod, until, words


async def test_an_adapter_of_the_table_is_fetched_loaded_and_verified(pod: Pod) -> None:
    adapter = pod.adapter("dr-gurung")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    assert pod.engine.loras[adapter.name].path == str(pod.path(adapter))
    assert (pod.path(adapter) / "manifest.json").read_bytes() == (adapter.folder / "manifest.json").read_bytes()


async def test_the_report_says_how_near_the_fingerprint_is(pod: Pod) -> None:
    adapter = pod.adapter("dr-gurung")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    report = pod.state(adapter)
    assert report is not None
    assert report.fingerprint_milli_nats == 20  # the stand-in's rounding noise
    assert report.load_millis is not None


async def test_an_adapter_without_fingerprint_is_verified_by_digest_and_root(pod: Pod) -> None:
    adapter = pod.adapter("dr-gurung", with_fingerprint=False)
    pod.tables.write(adapter)
    await pod.verified(adapter)
    report = pod.state(adapter)
    assert report is not None
    assert report.fingerprint_milli_nats is None


async def test_its_answers_come_from_its_own_weights(pod: Pod) -> None:
    first, second = pod.adapter("dr-one"), pod.adapter("dr-two")
    pod.tables.write(first, second)
    await pod.verified(first, second)
    for adapter in (first, second):
        _, document, _ = await pod.answer(adapter.name)
        assert words(document).startswith(adapter.seed[:8])


async def test_an_agent_that_restarts_finds_its_adapters_and_loads_nothing(pod: Pod) -> None:
    adapter = pod.adapter("dr-gurung")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    await until(lambda: adapter.name in pod.settings.routing_file.read_text())
    loads = pod.engine.calls["POST /v1/load_lora_adapter"]
    async with pod.new_agent():
        await pod.verified(adapter)
    assert pod.engine.calls["POST /v1/load_lora_adapter"] == loads


async def test_an_agent_that_restarts_without_the_api_server_goes_on_from_its_saved_table(tmp_path: Path) -> None:
    async with running_pod(tmp_path / "a", table=False) as pod:
        adapter = pod.adapter("dr-gurung")
        written = pod.tables.write(adapter)
        await pod.verified(adapter)
        file = pod.settings.routing_file
        await until(lambda: file.exists() and json.loads(file.read_text())["twins"] == written["twins"])
    pod.settings.socket.unlink()
    await pod.engine.start()
    async with pod, pod.new_agent():
        await pod.verified(adapter)
        assert (await pod.answer(adapter.name))[0] == 200
    await pod.engine.stop()


async def test_a_slice_that_cannot_be_read_leaves_the_last_one_in_force(pod: Pod) -> None:
    adapter = pod.adapter("dr-gurung")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    name = names.routing_slice_name("pool", 0)
    garbage: Any
    for garbage in (None, 7, [], {}, {"metadata": None}, {"metadata": {"name": name}, "twins": [], "pool": "pool"},
                    {"metadata": {"name": name}, "twins": {"uid-dr-gurung": {"name": 7}}}):  # fmt: skip
        pod.tables.put(Put(garbage))
    pod.tables.write(pool="another-pool")
    second = pod.adapter("dr-second")
    pod.tables.write(adapter, second)
    await pod.verified(second)
    report = pod.state(adapter)
    assert report is not None
    assert report.state is AdapterState.VERIFIED


async def test_files_of_no_twin_are_removed_at_start(tmp_path: Path) -> None:
    left = tmp_path / "adapters" / "dr-gone" / ("0" * 64)
    left.mkdir(parents=True)
    (left / "adapter_config.json").write_text("{}")
    async with running_pod(tmp_path) as pod:
        await until(lambda: pod.agent.roster.pool is not None)
        assert not left.parent.exists()


async def test_an_adapter_loaded_by_an_earlier_agent_that_no_twin_wants_is_unloaded(pod: Pod) -> None:
    await until(lambda: pod.agent.roster.pool is not None)  # the disk is cleared before, of what no table wants
    adapter = pod.adapter("dr-gurung")
    stray = pod.path(adapter)
    stray.mkdir(parents=True)
    for file in adapter.folder.iterdir():
        (stray / file.name).write_bytes(file.read_bytes())
    await pod.agent.engine.load(adapter.name, stray)
    await until(lambda: adapter.name not in pod.engine.loras)


async def test_adapters_named_on_the_engines_command_line_are_left_alone(pod: Pod) -> None:
    static, wanted = pod.adapter("static"), pod.adapter("dr-gurung")
    await pod.agent.engine.load("static", static.folder)
    polls = pod.engine.calls["GET /v1/models"]
    pod.tables.write(wanted)
    await pod.verified(wanted)
    await until(lambda: pod.engine.calls["GET /v1/models"] >= polls + 4)
    assert "static" in pod.engine.loras


async def test_an_adapter_is_proven_beside_running_requests(pod: Pod) -> None:
    await until(lambda: pod.agent.ready)
    pod.engine.knobs.token_seconds = 0.02
    async with pod.ask("base-model", stream=True, max_tokens=40) as response:
        adapter = pod.adapter("dr")
        pod.tables.write(adapter)
        await pod.verified(adapter)
        assert len(await read_events(response)) == 41


async def test_forty_adapters_come_in_together(pod: Pod) -> None:
    adapters = [pod.adapter(f"dr-{i}") for i in range(40)]
    pod.tables.write(*adapters)
    await pod.verified(*adapters, seconds=60)


async def test_the_report_is_written_only_when_it_changes(pod: Pod) -> None:
    adapter = pod.adapter("dr-gurung")
    pod.tables.write(adapter)
    await until(lambda: bool(pod.reports) and pod.reports[-1].ready and adapter.name in pod.reports[-1].adapters)
    await until(lambda: pod.reports[-1].adapters[adapter.name].state is AdapterState.VERIFIED)
    written, polls = len(pod.reports), pod.engine.calls["GET /v1/models"]
    await until(lambda: pod.engine.calls["GET /v1/models"] >= polls + 4)
    assert len(pod.reports) == written
