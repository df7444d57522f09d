"""What the stand-in does that a healthy engine does not, or that takes a process to see."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.standin import BASE, StandIn, write_adapter

ASK = {"model": BASE, "prompt": "hello", "max_tokens": 20}


@pytest.fixture
async def engine() -> AsyncIterator[StandIn]:
    async with StandIn(port=0, max_loras=1) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def load(engine: StandIn, http: aiohttp.ClientSession, name: str, folder: Path) -> None:
    body = {"lora_name": name, "lora_path": str(folder)}
    async with http.post(engine.url + "/v1/load_lora_adapter", json=body) as response:
        assert response.status == 200


async def names(engine: StandIn, http: aiohttp.ClientSession) -> list[str]:
    async with http.get(engine.url + "/v1/models") as response:
        return [card["id"] for card in (await response.json())["data"]]


async def test_a_restart_forgets_every_adapter(engine: StandIn, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    await load(engine, http, "a", write_adapter(tmp_path, "a").folder)
    await engine.restart()
    assert await names(engine, http) == [BASE]


async def test_a_wedged_engine_is_healthy_and_does_nothing(engine: StandIn, http: aiohttp.ClientSession) -> None:
    engine.wedge()
    request = asyncio.ensure_future(http.post(engine.url + "/v1/completions", json=ASK))
    async with http.get(engine.url + "/health") as response:
        assert response.status == 200
    done, _ = await asyncio.wait({request}, timeout=0.3)
    assert not done
    engine.unwedge()
    async with await request as response:
        assert response.status == 200


async def test_adapters_beyond_the_slots_take_turns(
    engine: StandIn, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    engine.knobs.token_seconds = 0.02
    for name in ("a", "b"):
        await load(engine, http, name, write_adapter(tmp_path, name).folder)
    requests = [
        asyncio.ensure_future(http.post(engine.url + "/v1/completions", json={**ASK, "model": name}))
        for name in ("a", "b")
    ]
    async with asyncio.timeout(5):
        while engine.waiting == 0:
            await asyncio.sleep(0.01)
    assert engine.running == 1
    for request in requests:
        async with await request as response:
            assert response.status == 200


async def test_weights_pushed_out_of_the_cache_are_read_from_disk_again(
    engine: StandIn, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    engine.knobs.max_cpu_loras = 1
    first = write_adapter(tmp_path, "a")
    await load(engine, http, "a", first.folder)
    await load(engine, http, "b", write_adapter(tmp_path, "b").folder)
    (first.folder / "adapter_model.safetensors").unlink()
    async with http.post(engine.url + "/v1/completions", json={**ASK, "model": "a"}) as response:
        assert response.status == 500


async def test_older_versions_answer_400_without_an_envelope(engine: StandIn, http: aiohttp.ClientSession) -> None:
    engine.knobs.old_errors = True
    async with http.post(engine.url + "/v1/unload_lora_adapter", json={"lora_name": "x"}) as response:
        assert response.status == 400
        assert (await response.json())["type"] == "InvalidUserInput"


@pytest.mark.parametrize(("timeout", "whole"), [("0", False), ("10", True)])
async def test_sigterm_aborts_or_drains(
    http: aiohttp.ClientSession, tmp_path: Path, timeout: str, *, whole: bool
) -> None:
    socket = tmp_path / "vllm.sock"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.standin", "--uds", str(socket), "--token-seconds", "0.1",
        "--shutdown-timeout", timeout, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    try:
        async with asyncio.timeout(20):
            while not socket.exists():
                await asyncio.sleep(0.02)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
            body = {**ASK, "stream": True}
            async with session.post("http://engine/v1/completions", json=body) as response:
                await response.content.readline()
                process.send_signal(signal.SIGTERM)
                if whole:
                    assert (await response.text()).endswith("data: [DONE]\n\n")
                else:
                    with pytest.raises(aiohttp.ClientError):
                        await response.text()
        async with asyncio.timeout(10):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
