"""Miners that answer at once, with an announcement and receipts that are really signed.

`python -m tests.bench.servers.signing PORT NAME [PORT NAME …]`, NAME being a development key's (`//NAME`). A receipt is
signed anew when the question is another or it is older than some seconds: a miner's own cost is measured elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, Final, cast

import uvloop

from neurons.receipts import ReceiptSigner, answer_of, question_of_messages
from neurons.wire.announcement import announce
from tests.unit.receipts.keyring import key

TWIN: Final = "indra"
ADAPTER: Final = "sha256:" + "a" * 64
NETUID: Final = 42
BASE: Final = {"name": "base", "revision": None, "digest": None}
SAYS: Final = "Drink water and rest."
AGAIN_SECONDS: Final = 20.0
_BODY: Final = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": TWIN,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": SAYS}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
    },
    separators=(",", ":"),
).encode()


class _Miner:
    """One miner's answers."""

    def __init__(self, name: str) -> None:
        self._keypair = key(name)
        self._signer = ReceiptSigner(self._keypair)
        self._kept: dict[bytes, tuple[float, bytes]] = {}

    def answer(self, body: bytes) -> bytes:
        now = time.monotonic()
        kept = self._kept.get(body)
        if kept is None or now - kept[0] > AGAIN_SECONDS:
            receipt = self._signer.sign(
                question=question_of_messages(json.loads(body)["messages"]), answer=answer_of([SAYS]), twin=TWIN,
                adapter=ADAPTER, base=BASE, time_ms=time.time_ns() // 10**6,
            )  # fmt: skip
            if len(self._kept) > 1000:
                self._kept.clear()
            kept = self._kept[body] = (now, _whole(_BODY, f"x-bettertherapy-receipt: {receipt}\r\n"))
        return kept[1]

    def announcement(self) -> bytes:
        versions = [{"adapter": ADAPTER, "weightPercent": 100, "pods": 1}]
        twins: list[dict[str, Any]] = [{"name": TWIN, "doctor": None, "versions": versions}]
        now = time.time_ns() // 10**6
        return _whole(announce(self._keypair, netuid=NETUID, time_ms=now, base=BASE, twins=twins), "")


def _whole(body: bytes, header: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{header}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class _Connection(asyncio.Protocol):
    def __init__(self, miner: _Miner) -> None:
        self._miner, self._buffer = miner, b""

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
            self._transport.write(self._miner.answer(body) if body else self._miner.announcement())
        self._buffer = buffer


async def _serve(miners: list[tuple[int, str]]) -> None:
    loop = asyncio.get_running_loop()
    for port, name in miners:
        miner = _Miner(name)
        await loop.create_server(lambda miner=miner: _Connection(miner), "127.0.0.1", port, backlog=1024)  # type: ignore[misc]
    await asyncio.Event().wait()


if __name__ == "__main__":
    given = sys.argv[1:]
    uvloop.run(_serve([(int(port), name) for port, name in zip(given[::2], given[1::2], strict=True)]))
