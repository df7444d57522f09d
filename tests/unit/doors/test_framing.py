"""Where a request ends is no matter of opinion: what a proxy may read otherwise is refused, and its connection ends.

And what no route is there for: other protocols, methods by other names, hosts by other names.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final

import pytest
import pytest_asyncio

from tests.unit.doors.http_processes import Door, all_doors

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]
Doors = Mapping[str, Door]
PATIENCE_SECONDS = 8.0
NEXT: Final = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED: Final = "Transfer-Encoding: chunked\r\n"
LAST: Final = "0\r\n\r\n"
CLOSE: Final = "Connection: close\r\n"
METHODS: Final = ("TRACE", "CONNECT", "PUT", "PATCH", "DELETE", "PROPFIND")
PROTOCOLS: Final = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAM\r\n",
)
HOSTS: Final = "X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\nForwarded: host=evil.example\r\n"
AMBIGUOUS: Final[dict[str, tuple[str, str]]] = {
    "both lengths": (f"Content-Length: 6\r\n{CHUNKED}", f"{LAST}X"),
    "both, the other way": (f"{CHUNKED}Content-Length: 6\r\n", f"{LAST}X"),
    "an unknown encoding": ("Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n", ""),
    "chunked, and then not": (f"{CHUNKED}Transfer-Encoding: identity\r\n", LAST),
    "a list of encodings": ("Transfer-Encoding: chunked, identity\r\n", LAST),
    "a space before the colon": ("Transfer-Encoding : chunked\r\n", LAST),
    "a vertical tab": ("Transfer-Encoding: \x0bchunked\r\n", LAST),
    "a folded line": ("Transfer-Encoding:\r\n chunked\r\n", LAST),
    "two lengths": ("Content-Length: 0\r\nContent-Length: 4\r\n", "GGGG"),
    "a list of lengths": ("Content-Length: 0,4\r\n", "GGGG"),
    "a length with a sign": ("Content-Length: +0\r\n", ""),
    "a length below nothing": ("Content-Length: -1\r\n", ""),
    "a length in hex": ("Content-Length: 0x0\r\n", ""),
    "a chunk below nothing": (CHUNKED, "-1\r\n\r\n"),
    "a chunk ended by half a line's end": (CHUNKED, "0\n\n"),
    "a line's end within a line": ("X: y\rContent-Length: 4\r\n", ""),
    "two hosts": ("Host: y\r\nContent-Length: 0\r\n", ""),
    "a null": ("X: a\0b\r\nContent-Length: 0\r\n", ""),
}  # fmt: skip


def request(door: Door, headers: str, body: str = "", *, method: str = "POST", path: str | None = None) -> bytes:
    path = path or door.routes[0][1]
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {door.authorization}\r\n{headers}\r\n"
    return head.encode("latin-1") + body.encode()


async def answers(door: Door, sent: bytes) -> tuple[list[int], bytes]:
    """Send on one connection; return the statuses that come until it ends, and all that does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(sent)
    got = b""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while part := await reader.read(65536):
                got += part
    except (TimeoutError, ConnectionResetError):
        pass
    finally:
        writer.close()
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", got)], got


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Doors]:
    """All of them, started once."""
    async with all_doors(tmp_path_factory.mktemp("doors")) as running:
        yield running


async def all_answers(door: Door, sent: Iterable[bytes]) -> list[tuple[list[int], bytes]]:
    gate = asyncio.Semaphore(16)

    async def one(each: bytes) -> tuple[list[int], bytes]:
        async with gate:
            return await answers(door, each)

    return await asyncio.gather(*(one(each) for each in sent))


async def test_a_request_with_two_ends_is_refused_with_its_connection(doors: Doors) -> None:
    for door in doors.values():
        sent = [request(door, headers, body) + NEXT for headers, body in AMBIGUOUS.values()]
        for kind, (found, _) in zip(AMBIGUOUS, await all_answers(door, sent), strict=True):
            assert found == [400], (door.name, kind)
        chunked, _ = await answers(door, request(door, CHUNKED, LAST) + NEXT)
        assert len(chunked) == 2, (door.name, "one in chunks has one end")


async def test_no_other_protocol_method_or_host_opens_anything(doors: Doors) -> None:
    for door in doors.values():
        secret = f"X: secret-of-mine\r\n{CLOSE}"
        methods = [request(door, secret, method=method) for method in METHODS]
        for method, (found, got) in zip(METHODS, await all_answers(door, methods), strict=True):
            assert found[0] in (400, 404, 405, 501), (door.name, method)
            assert b"secret-of-mine" not in got
        for found, _ in await all_answers(
            door, (request(door, each, method="GET", path="/healthz") for each in PROTOCOLS)
        ):
            assert found, door.name
            assert 101 not in found, door.name
        found, _ = await answers(door, request(door, f"X-HTTP-Method-Override: POST\r\n{CLOSE}", method="GET"))
        assert found[0] in (404, 405), door.name
        paths = ("/healthz", "/", door.routes[0][1], "http://evil.example/")
        sent = [request(door, HOSTS + CLOSE, method="GET", path=path) for path in paths]
        for path, (_, got) in zip(paths, await all_answers(door, sent), strict=True):
            assert b"evil.example" not in got, (door.name, path)


async def test_every_answer_says_how_it_is_to_be_read_and_nothing_of_what_gives_it(doors: Doors) -> None:
    """Answers of handlers, and those that are given in a handler's place."""
    for door in doors.values():
        empty = f"Content-Length: 0\r\n{CLOSE}"
        sent = [
            *(request(door, empty, method=method, path=path) for method, path in door.routes),
            request(door, CLOSE, method="GET", path="/nothing"), b"no request\r\n\r\n",
            request(door, "X-Long: " + "x" * 9000 + "\r\n"),
        ]  # fmt: skip
        for each, (_, got) in zip(sent, await all_answers(door, sent), strict=True):
            head = got.partition(b"\r\n\r\n")[0].decode().lower()
            shown = (door.name, each[:60], head)
            assert "x-content-type-options: nosniff" in head, shown
            assert "cache-control: no-store" in head, shown
            assert "frame-ancestors 'none'" in head, shown
            assert "referrer-policy: " in head, shown
            assert "aiohttp" not in head, shown
            assert "python" not in head, shown
            if "content-type: text/" in head:
                assert "charset=utf-8" in head, shown
