"""Miners that know some of a round's own questions: each answers at once, with a receipt that is really signed.

`python -m tests.bench.servers.examined HOST NAME KNOWN [NAME KNOWN …]`, NAME being that of a development key and KNOWN
the percentage of the questions that it knows. Prints one line `NAME PORT` for each when all of them listen.
"""

# ruff: noqa: T201 - it tells whoever started it
from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from typing import Any, Final

import uvloop
from aiohttp import web

from neurons.receipts import ReceiptSigner, answer_of, question_of_messages
from neurons.validator.rounds.challenges import OWN, Challenge, load_challenges
from neurons.wire.announcement import announce
from tests.unit.chain.played import NETUID, hotkey

TWIN: Final = "indra"
ADAPTER: Final = "sha256:" + "a" * 64
BASE: Final = {"name": "base", "revision": None, "digest": None}
_WAYS: Final = (
    "It is best to do this: {}.", "I would say so: {}. Ask again if it gets worse.", "{}. That is what helps most.",
    "For most people the answer is: {}.", "{}, and see your doctor if you are unsure.",
)  # fmt: skip


class ExaminedMiner:
    """One miner."""

    def __init__(self, name: str, known: int, challenges: dict[str, Challenge]) -> None:
        self.name, self._known, self._challenges = name, known, challenges
        self._keypair = hotkey(name).keypair
        self._signer = ReceiptSigner(self._keypair)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        if request.path == "/v1/announcement":
            versions = [{"adapter": ADAPTER, "weightPercent": 100, "pods": 1}]
            twins = [{"name": TWIN, "doctor": None, "versions": versions}]
            now = time.time_ns() // 10**6
            return web.Response(body=announce(self._keypair, netuid=NETUID, time_ms=now, base=BASE, twins=twins))
        asked = json.loads(await request.read())
        text = self._said(asked["messages"][-1]["content"])
        receipt = self._signer.sign(
            question=question_of_messages(asked["messages"]), answer=answer_of([text]), twin=TWIN, adapter=ADAPTER,
            base=BASE, time_ms=time.time_ns() // 10**6,
        )  # fmt: skip
        document: dict[str, Any] = {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": TWIN,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 20, "total_tokens": 40},
        }  # fmt: skip
        headers = {"Content-Type": "application/json", "x-bettertherapy-receipt": receipt}
        return web.Response(body=json.dumps(document).encode(), headers=headers)

    def _said(self, prompt: str) -> str:
        """Return the right answer or a wrong one, the same each time."""
        drawn = int.from_bytes(hashlib.sha256(f"{self.name} {prompt}".encode()).digest()[:4], "big")
        challenge = self._challenges[prompt]
        knows = drawn % 100 < self._known
        if challenge.kind == "choice":
            wrong = sorted(set(challenge.options) - {challenge.answer})
            said = challenge.options[challenge.answer if knows else wrong[drawn // 100 % len(wrong)]]
        else:
            said = str(getattr(challenge, "gold", None) or challenge.reference) if knows else "nobody can know that"
        return _WAYS[drawn // 1000 % len(_WAYS)].format(said.rstrip("."))


async def serve(host: str, miners: list[tuple[str, int]]) -> None:
    """Serve the miners until this is cancelled."""
    challenges = {each.prompt: each for each in load_challenges(OWN).challenges}
    told = []
    for name, known in miners:
        runner = web.ServerRunner(web.Server(ExaminedMiner(name, known, challenges).serve, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, host, 0).start()
        told.append(f"{name} {runner.addresses[0][1]}")
    print("\n".join(told), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    pairs = list(zip(sys.argv[2::2], map(int, sys.argv[3::2]), strict=True))
    uvloop.run(serve(sys.argv[1], pairs))
