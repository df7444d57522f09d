"""The connections to pods: kept, dropped, cut short, and never trusted with more than one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
from yarl import URL

from neurons.miner.upstream import HIGH_WATER_BYTES, BrokeOffError, ConnectFailedError, Upstream
from tests.unit.miner.running_miner import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Answers each request with the next of `answers`; an empty one closes the connection."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.answers = list(answers)
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                self.heads.append(head)
                answer = self.answers.pop(0)
                writer.write(answer)
                if not answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length"):
                    writer.write_eof()
                await writer.drain()
        self.open.discard(writer)
        writer.close()


@asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[tuple[Server, Upstream, URL]]:
    server = Server(answers)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = URL(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1/chat/completions")
    async with Upstream(connect_seconds=2.0) as upstream:
        yield server, upstream, url
    listening.close()


async def ask(upstream: Upstream, url: URL) -> bytes:
    reply = await upstream.post(url, b"{}", {"Content-Type": "application/json"})
    try:
        return await reply.whole()
    finally:
        reply.close()


async def test_a_connection_is_used_again() -> None:
    async with serving(OK, OK, OK) as (server, upstream, url):
        assert [await ask(upstream, url) for _ in range(3)] == [b"{}"] * 3
        assert server.connections == 1
        assert server.heads[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_a_connection_that_the_pod_closed_meanwhile_is_not_used() -> None:
    async with serving(OK, OK) as (server, upstream, url):
        await ask(upstream, url)
        (kept,) = server.open
        kept.close()
        idle = upstream._idle[("127.0.0.1", url.port or 0)]
        await eventually(lambda: not idle)
        assert await ask(upstream, url) == b"{}"
        assert server.connections == 2


async def test_an_answer_that_was_not_read_closes_its_connection() -> None:
    long = OK.replace(b"Content-Length: 2", b"Content-Length: 99")
    async with serving(long, OK) as (server, upstream, url):
        reply = await upstream.post(url, b"{}", {})
        assert await reply.chunk() == b"{}"
        reply.close()
        await eventually(lambda: not server.open)
        assert await ask(upstream, url) == b"{}"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    ],
)
async def test_an_answer_that_is_cut_or_no_http_is_a_pod_that_broke_off(answer: bytes) -> None:
    async with serving(answer) as (_, upstream, url):
        with pytest.raises(BrokeOffError):
            await ask(upstream, url)


async def test_what_is_said_before_an_answer_is_none() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nX-Early: yes\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    async with serving(early + OK) as (_, upstream, url):
        reply = await upstream.post(url, b"{}", {})
        assert (reply.status, await reply.whole()) == (200, b"{}")
        assert "x-early" not in reply.headers
        reply.close()


@pytest.mark.parametrize("line", [b"x-more: " + b"y" * 1000 + b"\r\n", b"y" * 1000], ids=["many", "one without an end"])
async def test_what_a_pod_sends_behind_its_answer_without_end_is_not_kept(line: bytes) -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx-first: 1\r\nx-last: ")
        with suppress(ConnectionError):
            while sent < 2**26:
                writer.write(line * 16 if sent else b"\r\n" + line if line.endswith(b"\n") else line)
                sent += 16 * len(line)
                await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = URL(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1/chat/completions")
    async with Upstream(connect_seconds=2.0) as upstream:
        reply = await upstream.post(url, b"{}", {})
        with pytest.raises(BrokeOffError, match="TrailersTooLarge"):
            await reply.whole()
        assert "x-first" not in reply.headers, "what was said of the answer was said before it"
        reply.close()
    listening.close()
    assert sent < 2**25, "and the pod is not heard to its end"


async def test_a_long_answer_in_small_chunks_is_read_to_its_end() -> None:
    chunks = b"".join(b"1\r\n%d\r\n" % (number % 10) for number in range(50_000))
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nx-trailer: 1\r\n\r\n"
    async with serving(answer) as (_, upstream, url):
        assert len(await ask(upstream, url)) == 50_000


async def test_a_connection_that_rested_too_long_is_not_used_again() -> None:
    async with serving(OK, OK) as (server, _, url), Upstream(connect_seconds=2.0, idle_seconds=0.0) as upstream:
        assert [await ask(upstream, url) for _ in range(2)] == [b"{}"] * 2
        assert server.connections == 2


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\n\r\nhello", OK) as (server, upstream, url):
        assert await ask(upstream, url) == b"hello"
        assert await ask(upstream, url) == b"{}"
        assert server.connections == 2


async def test_a_pod_that_sends_faster_than_is_read_is_made_to_wait_and_nothing_is_lost() -> None:
    body = b"x" * (80 * HIGH_WATER_BYTES)
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with serving(answer, OK) as (_, upstream, url):
        reply = await upstream.post(url, b"{}", {})
        got = 0
        while chunk := await reply.chunk():
            got += len(chunk)
            assert len(chunk) < HIGH_WATER_BYTES + 1024 * 1024  # one read of the loop's beyond it
            await asyncio.sleep(0)
        reply.close()
        assert got == len(body)
        assert await ask(upstream, url) == b"{}"


async def test_a_pod_that_is_not_there_cannot_be_connected() -> None:
    async with serving() as (_, upstream, url):
        with pytest.raises(ConnectFailedError):
            await ask(upstream, url.with_port(1))
