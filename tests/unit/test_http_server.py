"""aiohttp's server, bounded and silent."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from neurons.http_server import MOST_HEAD_BYTES, HttpServer

SECRET = "Sarmila-Thapa"
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def serving(handler: Handler, **given: Any) -> AsyncIterator[int]:
    runner = web.ServerRunner(HttpServer(handler, **given), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def fine(_: web.BaseRequest) -> web.Response:
    return web.Response(text="fine")


async def said(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            return await reader.read(65_536)
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "data",
    [
        f"{SECRET}\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nBad {SECRET}\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nAuthorization: Bearer {SECRET}\x00\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nContent-Length: {SECRET}\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nX: {SECRET * 2000}\r\n\r\n".encode(),
    ],
    ids=["no request", "no header", "a zero", "no length", "a long header"],
)
async def test_what_is_no_request_is_told_so_and_not_repeated(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(fine) as port:
        answer = await said(port, data)
        assert b" 200 " in await said(port, GET)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.")
    assert b" 400 " in head.split(b"\r\n")[0]
    assert "HTTP/1.1 request" in json.loads(body)["error"]["message"]
    assert SECRET.encode() not in answer
    assert SECRET not in caplog.text


@pytest.mark.parametrize("begun", [False, True])
async def test_a_handler_that_fails_says_where_and_nothing_else(begun: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def fails(request: web.BaseRequest) -> web.StreamResponse:
        if begun:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"x")
        raise ValueError(f"can't read {SECRET}")

    caplog.set_level(logging.DEBUG)
    async with serving(fails) as port:
        answer = await said(port, GET)
    assert SECRET not in caplog.text
    assert SECRET.encode() not in answer
    assert (b" 500 " in answer) is not begun
    told = [record for record in caplog.records if record.name == "neurons.http_server"]
    assert getattr(told[0], "error", "") == "ValueError"
    assert "in fails" in getattr(told[0], "where", "")


async def test_a_head_has_an_end(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(fine) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n")
        sent = 0
        async with asyncio.timeout(10):
            while not reader.at_eof() and sent < 100:
                writer.write(f"X-{sent}: ".encode() + b"a" * 4000 + b"\r\n")
                sent += 1
                await asyncio.sleep(0.005)
                if writer.transport.is_closing():
                    break
        assert sent * 4000 < 8 * MOST_HEAD_BYTES
        writer.transport.abort()


async def test_beyond_the_most_connections_the_one_that_rested_longest_gives_way() -> None:
    async with serving(fine, most_connections=3) as port:
        resting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert b" 200 " in await said(port, GET)
        async with asyncio.timeout(5):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await resting[0][0].readexactly(1)
        resting[2][1].write(GET)
        async with asyncio.timeout(5):
            assert b" 200 " in await resting[2][0].readline()
        for _, writer in resting:
            writer.transport.abort()


async def test_connections_that_are_all_at_work_are_not_cut_for_a_new_one() -> None:
    go_on = asyncio.Event()

    async def waits(_: web.BaseRequest) -> web.Response:
        await go_on.wait()
        return web.Response(text="fine")

    async with serving(waits, most_connections=2) as port:
        working = [asyncio.create_task(said(port, GET)) for _ in range(2)]
        await asyncio.sleep(0.1)
        answer = await said(port, GET)
        assert b" 503 " in answer.split(b"\r\n")[0]
        assert b"Retry-After" in answer
        go_on.set()
        assert all(b" 200 " in each for each in await asyncio.gather(*working))


async def test_a_body_in_many_parts_is_no_head() -> None:
    async def reads(request: web.BaseRequest) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    async with serving(reads) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):  # the connection is used again
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n")
            for _ in range(10):
                writer.write(b"x" * 50_000)
                await writer.drain()
                await asyncio.sleep(0)
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                assert b" 200 " in head
                assert await reader.readexactly(6) == b"500000"
        writer.transport.abort()
