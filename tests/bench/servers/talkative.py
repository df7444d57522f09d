"""An OpenAI-compatible engine that answers at once, and talks on for as long as a question asks for.

`python -m tests.bench.servers.talkative PORT`. A body with `"seed": N` and a stream gets N mebibytes of events, a
hundred and more a second; any other body what `instant` gives.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Final

import uvloop

from tests.bench.servers.instant import ANSWER, EVENT, STREAM, STREAM_HEAD

_SEED: Final = re.compile(rb'"seed":\s*(\d{1,4})\b')
_LENGTH: Final = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
PART_SECONDS: Final = 2.0
"""Between two parts of 256 events: what a GPU says of one answer when it has few."""
_MANY: Final = EVENT * 256
_PART: Final = f"{len(_MANY):x}\r\n".encode() + _MANY + b"\r\n"


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(found[1]) if (found := _LENGTH.search(head)) else 0
            body = await reader.readexactly(length)
            streams = b'"stream":true' in body
            if streams and (seed := _SEED.search(body)):
                writer.write(STREAM_HEAD)
                for _ in range(int(seed[1]) * 1024 * 1024 // len(_MANY) + 1):
                    writer.write(_PART)
                    await writer.drain()
                    await asyncio.sleep(PART_SECONDS)
                done = b"data: [DONE]\n\n"
                writer.write(f"{len(done):x}\r\n".encode() + done + b"\r\n0\r\n\r\n")
            else:
                writer.write(STREAM if streams else ANSWER % length)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _serve(port: int) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", port, backlog=1024, limit=4 * 1024 * 1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
