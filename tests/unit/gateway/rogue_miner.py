"""A miner with a key of its own that keeps to the wire, and lies or fails in one way at a time."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from neurons.receipts import ReceiptSigner, answer_of, question_of_messages
from neurons.wire.announcement import announce
from tests.unit.receipts.keyring import key

BASE = {"name": "base", "revision": None, "digest": None}


@dataclass(kw_only=True)
class RogueMiner:
    """`async with RogueMiner(name="Eve") as rogue`; change the fields while it runs."""

    name: str = "Eve"
    twin: str = "indra"
    adapter: str = "sha256:" + "a" * 64
    says: str = "Drink water and rest."
    finish: str = "stop"
    receipt: dict[str, Any] = field(default_factory=dict)
    """What its receipts say in place of the truth."""
    signed_by: str | None = None
    """Another key that signs its receipts, under its own name."""
    with_receipt: bool = True
    body: bytes | None = None
    """What it answers with, byte for byte, in place of an answer."""
    status: int = 200
    marks: dict[str, str] = field(default_factory=dict)
    flood: int = 0
    """It sends so many bytes."""
    cut: bool = False
    """It closes the connection in the middle of its answer."""
    gate: asyncio.Event | None = None
    """It answers once this is set; never, if it isn't."""
    beside: dict[str, Any] = field(default_factory=dict)
    """What its message holds beside text."""
    announced: tuple[str, ...] | None = None
    """Digests that it announces; its own adapter by default."""
    questions: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    cancelled: int = 0

    def __post_init__(self) -> None:
        self.keypair = key(self.name)

    async def __aenter__(self) -> Self:
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.axon = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v1/announcement":
            versions = [
                {"adapter": digest, "weightPercent": 100, "pods": 1} for digest in self.announced or (self.adapter,)
            ]
            twins = [{"name": self.twin, "doctor": None, "versions": versions}]
            now = time.time_ns() // 10**6
            return web.Response(body=announce(self.keypair, netuid=42, time_ms=now, base=BASE, twins=twins))
        asked = json.loads(await request.read())
        self.questions.append(asked)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.flood:
            return await self._flood(request)
        return self._answer(request, asked)

    def _answer(self, request: web.BaseRequest, asked: dict[str, Any]) -> web.StreamResponse:
        message = {"role": "assistant", "content": self.says, **self.beside}
        document = {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": self.twin,
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9},
        }  # fmt: skip
        body = json.dumps(document).encode() if self.body is None else self.body
        headers = {"Content-Type": "application/json", **self.marks}
        if self.with_receipt:
            headers["x-bettertherapy-receipt"] = self._receipt(asked)
        if self.cut and request.transport is not None:
            request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
            request.transport.close()
        return web.Response(status=self.status, body=body, headers=headers)

    def _receipt(self, asked: dict[str, Any]) -> str:
        said = {
            "question": question_of_messages(asked["messages"]), "answer": answer_of([self.says]), "twin": self.twin,
            "adapter": self.adapter, "base": BASE, "time_ms": time.time_ns() // 10**6,
        } | self.receipt  # fmt: skip
        signer = ReceiptSigner(self.keypair)
        if self.signed_by is not None:
            signer._sign = key(self.signed_by).sign
        return signer.sign(**said)

    async def _flood(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        sent = 0
        while sent < self.flood:
            await response.write(b"x" * 65536)
            sent += 65536
        await response.write_eof()
        return response
