"""Access, readiness, bad tables, draining; and the process itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from neurons.cluster import Put
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import (
    TOKEN,
    RunningMiner,
    Twin,
    eventually,
    eventually_async,
    header,
    held,
    report_object,
    slices,
    version,
)

INDRA = version("indra", "a")
BODY = {"model": "indra", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer é"]
)
@pytest.mark.parametrize("route", ["chat", "models", "model"])
async def test_without_a_known_token_there_is_no_answer(tmp_path: Path, header: str | None, route: str) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        headers = {} if header is None else {"Authorization": header}
        method, path = {
            "chat": ("POST", "/v1/chat/completions"), "models": ("GET", "/v1/models"), "model": ("GET", "/v1/models/x")
        }[route]  # fmt: skip
        async with (
            aiohttp.ClientSession(miner.url) as client,
            client.request(method, path, json=BODY, headers=headers) as response,
        ):
            assert response.status == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert "indra" not in await response.text()
        assert agent.bodies == []


async def test_without_any_token_the_answer_names_the_secret_to_create(tmp_path: Path) -> None:
    async with RunningMiner(tmp_path, access_dir=tmp_path / "missing") as miner:
        async with miner.client.get("/v1/models") as response:
            assert response.status == 401
            message = (await response.json())["error"]["message"]
        assert "'pool-access'" in message
        assert "kubectl --namespace clinic create secret generic pool-access" in message


async def test_a_new_token_works_and_a_removed_one_stops_as_kubelet_swaps_the_folder(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()

    def publish(number: int, **tokens: str) -> None:
        data = mount / f"..{number}"
        data.mkdir()
        for name, token in tokens.items():
            (data / name).write_text(token)
            if not (mount / name).is_symlink():
                (mount / name).symlink_to(f"..data/{name}")
        (mount / "..new").symlink_to(data.name)
        (mount / "..new").rename(mount / "..data")

    async def status(miner: RunningMiner, token: str) -> int:
        async with miner.client.get("/v1/models", headers={"Authorization": f"Bearer {token}"}) as response:
            return response.status

    publish(1, clinic="first-token-of-clinic")
    async with RunningMiner(tmp_path, access_dir=mount) as miner:
        assert await status(miner, "first-token-of-clinic") == 200
        publish(2, clinic="second-token-of-clinic")

        async def accepted() -> bool:
            return await status(miner, "second-token-of-clinic") == 200

        await eventually_async(accepted)
        assert await status(miner, "first-token-of-clinic") == 401


async def test_an_empty_token_lets_nobody_in(tmp_path: Path) -> None:
    access = tmp_path / "empty"
    access.mkdir()
    (access / "nobody").write_text("\n")
    async with (
        RunningMiner(tmp_path, access_dir=access) as miner,
        miner.client.get("/v1/models", headers={"Authorization": "Bearer "}) as response,
    ):
        assert response.status == 401


async def test_ready_needs_both_tables_but_no_pod(tmp_path: Path) -> None:
    async with RunningMiner(tmp_path) as miner:

        async def ready() -> int:
            async with aiohttp.ClientSession(miner.url) as client, client.get("/readyz") as response:
                return response.status

        assert await ready() == 503
        miner.route({"indra": Twin(versions=(INDRA,))})
        assert await ready() == 503
        miner.report([])
        assert await ready() == 200


async def test_a_slice_that_does_not_parse_keeps_its_last_good_entries(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        slice_0 = slices({"indra": Twin(versions=(INDRA,))}, [], pool=header())[1]
        bad: tuple[dict[str, Any], ...] = (
            {"twins": []},
            {"twins": {"uid-indra": {}}},
            {"twins": {"uid-indra": None}},
            {"twins": "x"},
        )
        for garbage in bad:
            miner.service.tables.take_routing(Put({**slice_0, **garbage}))
            assert (await miner.ask("indra"))[0] == 200
        assert miner.metric("bettertherapy_miner_table_errors_total", table="routing") == len(bad)


async def test_a_report_that_does_not_parse_keeps_that_pods_last_good_one(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        good = report_object(agent)
        for garbage in ({"engine": 7}, {"pod": "a"}, {"ready": None}, {"pod": {"name": "b", "uid": "uid-a"}}):
            miner.service.tables.take_reports(Put({**good, **garbage}))
            miner.service.tables.take_reports(Put({"metadata": {"name": "other"}, **garbage}))
            assert (await miner.ask("indra"))[0] == 200


@pytest.mark.parametrize("change", [{"ready": False}, {"draining": True}, {"engine": {"live": False}}])
async def test_a_pod_that_says_it_cannot_answer_is_not_asked(tmp_path: Path, change: dict[str, object]) -> None:
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path, hold_seconds=0.1) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        miner.service.tables.take_reports(Put(report_object(agent) | change))
        assert (await miner.ask("indra"))[0] == 503
        assert agent.bodies == []


async def test_draining_says_so_goes_on_accepting_and_cuts_nothing(tmp_path: Path) -> None:
    step = asyncio.Semaphore(1)
    agent = FakeAgent(pod="a", holds=held(INDRA), step=step)
    async with agent, RunningMiner(tmp_path, drain_delay_seconds=0.5) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        streaming = await miner.client.post("/v1/chat/completions", json=BODY | {"stream": True})
        first = await streaming.content.readline()
        miner.service.stop()
        async with miner.client.get("/readyz") as response:
            assert response.status == 503
        status, headers, _ = await miner.ask("indra")
        assert status == 200
        assert headers["Connection"] == "close"
        await eventually_async(lambda: _refuses(miner.service.port))
        assert not miner.run.done()
        for _ in range(5):
            step.release()
        assert first.startswith(b"data: ")
        assert (await streaming.content.read()).endswith(b"data: [DONE]\n\n")
        async with asyncio.timeout(10):
            await miner.run


async def test_draining_ends_in_time_when_a_request_never_does(tmp_path: Path) -> None:
    agent = FakeAgent(pod="a", holds=held(INDRA), gate=asyncio.Event())
    async with agent, RunningMiner(tmp_path, drain_seconds=0.2) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        asked = asyncio.create_task(miner.ask("indra"))
        await eventually(lambda: agent.running == 1)
        miner.service.stop()
        async with asyncio.timeout(15):
            await miner.run
        with pytest.raises(aiohttp.ClientError):
            await asked


async def test_a_request_that_takes_too_long_ends_with_a_504(tmp_path: Path) -> None:
    agent = FakeAgent(pod="a", holds=held(INDRA), gate=asyncio.Event())
    async with agent, RunningMiner(tmp_path, request_seconds=0.2) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        status, _, document = await miner.ask("indra")
        assert (status, document["error"]["code"]) == (504, "timeout")
        await eventually(lambda: agent.cancelled == 1)


async def test_a_stream_that_takes_too_long_ends_with_an_error_event(tmp_path: Path) -> None:
    agent = FakeAgent(pod="a", holds=held(INDRA), step=asyncio.Semaphore(1))
    async with agent, RunningMiner(tmp_path, request_seconds=0.3) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        async with miner.client.post("/v1/chat/completions", json=BODY | {"stream": True}) as response:
            assert b'"stream_broken"' in await response.read()


async def test_the_process_serves_and_exits_0_on_sigterm(tmp_path: Path) -> None:
    access, tables = tmp_path / "access", tmp_path / "tables"
    for part in ("slices", "reports"):
        (tables / part).mkdir(parents=True)
    access.mkdir()
    (access / "clinic").write_text(TOKEN)
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent:
        for number, thing in enumerate(slices({"indra": Twin(versions=(INDRA,))}, [agent], pool=header("p"))):
            (tables / "slices" / f"{number}.json").write_text(json.dumps(thing))
        (tables / "reports" / "a.json").write_text(json.dumps(report_object(agent)))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "neurons.miner", "--pool", "p", "--host", "127.0.0.1", "--port", "0",
            "--metrics-port", "0", "--access-dir", str(access), "--tables-dir", str(tables), "--drain-delay", "0",
            stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        try:
            assert process.stderr is not None
            async with asyncio.timeout(30):
                while (line := json.loads(await process.stderr.readline()))["message"] != "listening":
                    pass
            url = f"http://127.0.0.1:{line['port']}"
            async with aiohttp.ClientSession(url) as client:

                async def ready() -> bool:
                    async with client.get("/readyz") as response:
                        return response.status == 200

                await eventually_async(ready)
                headers = {"Authorization": f"Bearer {TOKEN}"}
                async with client.post("/v1/chat/completions", json=BODY, headers=headers) as response:
                    assert (await response.json())["model"] == "indra"
                async with client.get(f"http://127.0.0.1:{line['metrics_port']}/metrics") as response:
                    assert 'bettertherapy_miner_requests_total{code="200",process="' in await response.text()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _refuses(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    writer.close()
    await writer.wait_closed()
    return False
