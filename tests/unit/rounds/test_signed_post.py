"""How an offer reaches a miner, and what an answer that is none says of whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from bittensor import http_auth
from yarl import URL

from neurons.validator.gateway.roster import Member
from neurons.validator.gateway.standing import MinerId
from neurons.validator.rounds.handing_out import SignedPost, Unreached
from neurons.wire.signer import RequestSigner
from neurons.wire.tasks import MAX_BYTES
from tests.unit.receipts.keyring import MINER, VALIDATOR

WHO = str(MINER.ss58_address)


@asynccontextmanager
async def miner(answer: Callable[[], web.Response]) -> AsyncIterator[tuple[SignedPost, Member, list[Any]]]:
    got: list[Any] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        got.append((request.method, request.path, dict(request.headers), await request.read()))
        return answer()

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = URL(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            member = Member(identity=MinerId(WHO, 7), uid=1, coldkey="c", url=url, chat_url=url)
            yield SignedPost(session, RequestSigner(VALIDATOR), seconds=5.0), member, got
    finally:
        await runner.cleanup()


async def test_an_offer_is_signed_for_its_miner_and_sent_once() -> None:
    async with miner(lambda: web.Response(body=b"said")) as (post, member, got):
        assert await post(member, b"offer") == b"said"
        [(method, path, headers, body)] = got
        assert (method, path, body) == ("POST", "/v1/tasks", b"offer")
        assert headers[http_auth.HEADER_RECEIVER] == WHO
        assert headers[http_auth.HEADER_HOTKEY] == str(VALIDATOR.ss58_address)


@pytest.mark.parametrize(
    ("status", "again", "ours"),
    [(503, True, False), (500, True, False), (404, False, False), (307, False, False), (403, False, True),
     (401, False, True), (429, True, True)],
)  # fmt: skip
async def test_an_answer_that_is_none_tells_whether_to_come_back_and_whose_fault_it_is(
    status: int, again: bool, ours: bool
) -> None:
    error = {"error": {"code": "a_word"}}
    headers = {"Location": "/elsewhere", "Retry-After": "0"}
    async with miner(lambda: web.json_response(error, status=status, headers=headers)) as (post, member, got):
        with pytest.raises(Unreached, match=rf"it answered {status} \(a_word\)") as unreached:
            await post(member, b"offer")
        assert (unreached.value.again, unreached.value.ours) == (again, ours)
        assert len(got) == 1


async def test_a_long_answer_is_not_read_and_nobody_there_is_asked_again_later() -> None:
    async with miner(lambda: web.Response(body=b" " * (MAX_BYTES + 1))) as (post, member, _):
        with pytest.raises(Unreached, match="can't be taken") as unreached:
            await post(member, b"offer")
        assert not unreached.value.again
    async with aiohttp.ClientSession() as session:
        gone = SignedPost(session, RequestSigner(VALIDATOR), seconds=5.0)
        with pytest.raises(Unreached, match="can't be reached") as unreached:
            await gone(member, b"offer")
        assert unreached.value.again
