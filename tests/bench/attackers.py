"""Clients that mean harm, as one process: `python -m tests.bench.attackers URL TOKEN SECONDS [KIND ...]`.

Each kind is one way to fill a miner's memory or to take its time. Every loop has a pace, so that it is the miner that
is measured and not a machine whose processors are all busy with the attack itself. At the end the counts of what was
answered are printed as JSON, by kind and status.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvloop
from yarl import URL

MEBIBYTE: Final = 1024 * 1024
TINY: Final = b'{"role":"user","content":"a"}'
ANSWER_SECONDS: Final = 30.0
CONNECTIONS: Final = 2000
CHAT: Final = "/v1/chat/completions"


def of_tiny_messages(size: int = MEBIBYTE, *, model: str = "indra") -> bytes:
    """Return a body of as many messages as fit."""
    head, tail = b'{"model":"' + model.encode() + b'","messages":[', b"]}"
    count = (size - len(head) - len(tail)) // (len(TINY) + 1)
    return head + b",".join([TINY] * count) + tail


def of_one_text(size: int = MEBIBYTE, *, model: str = "indra", letter: str = "x", **more: Any) -> bytes:
    """Return a body of one long message."""
    document = {"model": model, "messages": [{"role": "user", "content": ""}], **more}
    empty = json.dumps(document, ensure_ascii=False).encode()
    document["messages"][0]["content"] = letter * ((size - len(empty)) // len(letter.encode()))
    return json.dumps(document, ensure_ascii=False).encode()


class Attack:
    """All of them on one miner."""

    def __init__(self, url: str, token: str, *, until: float) -> None:
        self._where = URL(url)
        self._token, self._until = token, until
        self.counts: Counter[str] = Counter()
        self.kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "tiny": lambda: self._loops("tiny", 9, 0.2, of_tiny_messages()),
            "large": lambda: self._loops("large", 8, 0.25, of_one_text(letter="x") ),
            "wide": lambda: self._loops("wide", 8, 0.25, of_one_text(letter="\N{GRINNING FACE}")),
            "deep": lambda: self._loops("deep", 4, 0.25, self._nested()),
            "held": lambda: self._loops("held", 300, 1.0, of_tiny_messages(15 * 1024, model="away")),
            "strangers": lambda: self._loops("strangers", 8, 0.25, of_one_text(), token="a-stranger-of-good-length"),
            "many": lambda: self._loops("many", 64, 0.2, of_one_text(300)),
            "slow_bodies": self._slow_bodies,
            "slow_readers": self._slow_readers,
            "connections": self._connections,
            "heads": self._heads,
        }  # fmt: skip

    @staticmethod
    def _nested() -> bytes:
        value = b"[[[[[[[[{}]]]]]]]],"
        tools = value * ((MEBIBYTE - 200) // len(value))
        return b'{"model":"indra","messages":[{"role":"user","content":"x"}],"metadata":[' + tools + b"1]}"

    async def run(self, kinds: list[str]) -> None:
        """Attack in these ways until the time is over."""
        await asyncio.gather(*(self.kinds[kind]() for kind in kinds or self.kinds))

    async def _loops(self, kind: str, clients: int, pace: float, body: bytes, *, token: str | None = None) -> None:
        """So many clients that send the same again and again."""
        await asyncio.gather(*(self._loop(kind, clients, number, pace, body, token) for number in range(clients)))

    async def _loop(self, kind: str, clients: int, number: int, pace: float, body: bytes, token: str | None) -> None:
        request = self._head(token, length=len(body)) + body
        await asyncio.sleep(pace * number / clients)
        while time.monotonic() < self._until:
            began = time.monotonic()
            self.counts[f"{kind}: {await self._ask(request)}"] += 1
            await asyncio.sleep(max(0.01, began + pace - time.monotonic()))

    async def _ask(self, request: bytes) -> str:
        writer = None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await self._connect()
                writer.write(request)
                line = await reader.readline()
                if not line:
                    return "closed"
                head = await reader.readuntil(b"\r\n\r\n")
                if b"chunked" not in head.lower():
                    await reader.read(1024 * 1024)
                return line.split()[1].decode("latin-1")
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError) as error:
            return type(error).__name__
        finally:
            if writer is not None:
                writer.transport.abort()

    async def _slow_bodies(self) -> None:
        """Bodies of a mebibyte that arrive by the kilobyte."""

        async def one() -> None:
            while time.monotonic() < self._until:
                writer = None
                with contextlib.suppress(OSError):
                    _, writer = await self._connect()
                    writer.write(self._head(None, length=MEBIBYTE) + b'{"model":"indra","a":"')
                    while time.monotonic() < self._until and not writer.transport.is_closing():
                        writer.write(b"x" * 1024)
                        await writer.drain()
                        await asyncio.sleep(0.5)
                if writer is not None:
                    writer.transport.abort()
                self.counts["slow_bodies: ended"] += 1
                await asyncio.sleep(0.2)

        await asyncio.gather(*(one() for _ in range(100)))

    async def _slow_readers(self) -> None:
        """Long streams that nobody reads."""
        body = of_one_text(300, stream=True, seed=64)

        async def one() -> None:
            while time.monotonic() < self._until:
                writer = None
                with contextlib.suppress(OSError):
                    reader, writer = await self._connect(receive_bytes=4096)
                    writer.write(self._head(None, length=len(body)) + body)
                    while time.monotonic() < self._until and not writer.transport.is_closing():
                        await asyncio.sleep(1)
                        if not await asyncio.wait_for(reader.read(256), 5):
                            break
                with contextlib.suppress(Exception):
                    if writer is not None:
                        writer.transport.abort()
                self.counts["slow_readers: ended"] += 1
                await asyncio.sleep(0.2)

        await asyncio.gather(*(self._quietly(one) for _ in range(100)))

    async def _quietly(self, work: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() < self._until:
            with contextlib.suppress(OSError, TimeoutError):
                await work()

    async def _connections(self) -> None:
        """As many connections as there may be, which begin a request and never end it."""
        await self._open("connections", CONNECTIONS, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n", b"")

    async def _heads(self) -> None:
        """Heads of requests that grow without an end."""
        line = b"x-%d: " + b"a" * 4000 + b"\r\n"
        await self._open("heads", 200, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n", line)

    async def _open(self, kind: str, count: int, first: bytes, more: bytes) -> None:
        gate = asyncio.Semaphore(50)

        async def one() -> None:
            number = 0
            while time.monotonic() < self._until:
                writer = None
                with contextlib.suppress(OSError):
                    async with gate:
                        _, writer = await self._connect()
                    writer.write(first)
                    while time.monotonic() < self._until and not writer.transport.is_closing():
                        if more:
                            writer.write(more % number)
                            number += 1
                        await asyncio.sleep(0.2 if more else 1.0)
                if writer is not None:
                    writer.transport.abort()
                self.counts[f"{kind}: ended"] += 1
                await asyncio.sleep(1)

        await asyncio.gather(*(self._quietly(one) for _ in range(count)))

    async def _connect(self, receive_bytes: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not receive_bytes:
            return await asyncio.open_connection(self._where.host, self._where.port)
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        await asyncio.get_running_loop().sock_connect(sock, (self._where.host, self._where.port))
        return await asyncio.open_connection(sock=sock, limit=receive_bytes)

    def _head(self, token: str | None, *, length: int) -> bytes:
        return (
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token or self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        ).encode()


async def _main(url: str, token: str, seconds: str, *kinds: str) -> None:
    attack = Attack(url, token, until=time.monotonic() + float(seconds))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(float(seconds) + 5):
            await attack.run(list(kinds))
    sys.stdout.write(json.dumps(dict(sorted(attack.counts.items()))) + "\n")


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
