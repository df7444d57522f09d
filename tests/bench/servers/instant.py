"""An OpenAI-compatible engine that answers at once: as little work per request as Python can do.

`python -m tests.bench.servers.instant PORT`. It reads a request's headers and body and writes a fixed answer; a body
that asks for a stream gets eight events. Without parsing JSON: whatever a proxy costs shows.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Final, cast

import uvloop

from bettertherapy_api import names

SERVED: Final = "indra-aaaaaaaa"
DIGEST: Final = "sha256:" + "a" * 64
_NAMED: Final = f"{names.ADAPTER_DIGEST_HEADER}: {DIGEST}\r\n".encode()
"""As an agent says it: the miner gives nobody an answer of which it isn't said whose it is."""
_BODY: Final = (
    json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": SERVED,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Drink water and rest."},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": "TOKENS", "completion_tokens": 5},
        },
        separators=(",", ":"),
    )
    .replace('"TOKENS"', "%7d")
    .encode()
)
"""One byte a token: the miner looks whether a chat template reads what it is told."""
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    + _NAMED
    + b"Content-Length: "
    + str(len(_BODY % 0)).encode()
    + b"\r\n\r\n"
    + _BODY
)
EVENT: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"' + SERVED.encode() + b'",'
    b'"choices":[{"index":0,"delta":{"content":" rest"},"finish_reason":null}]}\n\n'
)
STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + _NAMED + b"Transfer-Encoding: chunked\r\n\r\n"
)
STREAM: Final = STREAM_HEAD + b"".join(
    f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (*[EVENT] * 8, b"data: [DONE]\n\n", b"")
)


class _Instant(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            head = buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 : at + 26].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(buffer) < end + 4 + length:
                break
            body, buffer = buffer[end + 4 : end + 4 + length], buffer[end + 4 + length :]
            streams = b'"stream":true' in body or b'"stream": true' in body
            self._transport.write(STREAM if streams else ANSWER % length)
        self._buffer = buffer


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Instant, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
