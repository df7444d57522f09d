"""The caller's side against a real server: what is signed is what arrives, and each try is signed anew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from bittensor import http_auth
from yarl import URL

from neurons.wire import signer as module
from neurons.wire.signer import RequestSigner, signed_request
from tests.unit.receipts.keyring import MINER, VALIDATOR

Ask = Callable[..., Awaitable[int]]


class Miner:
    """Verifies with the SDK alone, as a miner in any language would, and answers with the statuses it is given."""

    def __init__(self, *answers: tuple[int, dict[str, str]]) -> None:
        self.answers = list(answers)
        self.callers: list[http_auth.Caller] = []
        self.store = http_auth.InMemoryNonceStore()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        target = request.raw_path
        body = await request.read()
        caller = http_auth.verify(
            request.headers, body, method=request.method, path=target, self_hotkey_ss58=MINER.ss58_address,
            nonce_store=self.store,
        )  # fmt: skip
        self.callers.append(caller)
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        return web.Response(status=status, headers=headers, text="answer")


@asynccontextmanager
async def listening(miner: Miner) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(miner.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def ask() -> Ask:
    signer = RequestSigner(VALIDATOR)

    async def go(url: URL, body: bytes = b"") -> int:
        async with (
            aiohttp.ClientSession() as session,
            signed_request(
                session, signer, method="POST" if body else "GET", url=url, receiver=MINER.ss58_address, body=body
            ) as response,
        ):
            await response.read()
            return response.status

    return go


@pytest.mark.parametrize("path", ["/v1/models", "/a b/ü?q=1&x=a%2Fb&y=ö", "/?a=+"])
async def test_what_arrives_is_what_was_signed(ask: Ask, path: str) -> None:
    miner = Miner()
    async with listening(miner) as base:
        assert await ask(URL(base + path), b'{"a": "\xc3\xbc"}') == 200
        assert await ask(URL(base + path)) == 200
    assert [caller.hotkey_ss58 for caller in miner.callers] == [VALIDATOR.ss58_address] * 2


async def test_each_try_has_a_nonce_of_its_own(ask: Ask) -> None:
    miner = Miner((503, {"Retry-After": "0"}), (429, {"Retry-After": "0"}))
    async with listening(miner) as base:
        assert await ask(URL(base + "/v1/chat/completions"), b"{}") == 200
    assert len({caller.nonce_ns for caller in miner.callers}) == 3


@pytest.mark.parametrize(
    "answer",
    [
        (503, {"Retry-After": "60"}), (503, {}), (503, {"Retry-After": "0", "x-should-retry": "false"}), (401, {}),
        (500, {"Retry-After": "0"}),
    ],
)  # fmt: skip
async def test_what_must_not_be_repeated_is_not(ask: Ask, answer: tuple[int, dict[str, str]]) -> None:
    miner = Miner(answer)
    async with listening(miner) as base:
        assert await ask(URL(base + "/v1/chat/completions"), b"{}") == answer[0]
    assert len(miner.callers) == 1


async def test_a_miner_that_can_not_be_reached_is_tried_again(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.001)
    async with listening(Miner()) as base:
        pass
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(URL(base + "/v1/models"))
