"""The local subnet's door: what can't be answered is told in words, and never looks like a chain that is away."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import bittensor as bt
import pytest
from yarl import URL

from neurons.chain import errors
from neurons.chain.local import service
from tests.unit.chain.played import NETUID, Subnet, keypair

DEEP = "[" * 50_000


@pytest.mark.parametrize(
    "body",
    [
        '{"method": "header", "params": {"number": 99999999999999999999999}}',
        '{"method": "header", "params": {"number": NaN}}',
        '{"method": "query", "params": {"item": [], "params": []}}',
        '{"method": "query", "params": {"item": {"a": 1}, "params": []}}',
        '{"method": "receipt", "params": {"extrinsic_hash": {"a": 1}}}',
        '{"method": "runtime_call", "params": {"api": [], "method": {}, "params": []}}',
        '{"method": "sealing", "params": {"netuid": 7}}',
        '{"method": "sealing", "params": {"netuid": {}}}',
        DEEP,
        f'{{"method": "submit", "params": {{"extrinsic": {DEEP}{"]" * 50_000}}}}}',
        "",
        "[]",
    ],
    ids=lambda body: body[:60],
)
async def test_what_cannot_be_answered_is_refused_in_words(subnet: Subnet, body: str) -> None:
    async with aiohttp.ClientSession() as http, http.post(f"{subnet.url}/rpc", data=body) as response:
        assert response.status == 422
        assert json.loads(await response.text())["error"]
    assert (await subnet.service.make_blocks()).number == 1


async def test_sealing_says_which_subnet_there_is_not(subnet: Subnet) -> None:
    asked = {"method": "sealing", "params": {"netuid": 7}}
    async with aiohttp.ClientSession() as http, http.post(f"{subnet.url}/rpc", json=asked) as response:
        assert (await response.json())["error"] == "there is no subnet 7"


async def test_what_is_too_large_is_refused_and_not_sent_again(subnet: Subnet) -> None:
    sent: list[int] = []

    async def count(request: object) -> None:
        sent.append(1)

    chain = subnet.chain()
    await chain.ask(lambda client: client.block())
    subnet.intercept = count  # type: ignore[assignment]
    many = 200_000
    call = bt.calls.SubtensorModule.set_weights(
        netuid=NETUID, dests=list(range(many)), weights=[1] * many, version_key=0
    )

    async def submit(client: bt.Client) -> bt.ExtrinsicResult:
        result = await client.submit_call(call, keypair("validator-hot"), signer="hotkey")
        result.raise_for_failure()
        return result

    with pytest.raises(errors.Refused, match="larger than"):
        await chain.ask(submit)
    assert len(sent) <= 6, "asked for what it takes to sign, and sent once"


@pytest.mark.parametrize("mark", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_no_page_of_a_browser_asks_it_anything(subnet: Subnet, mark: dict[str, str]) -> None:
    """Of what a page sends as text no browser asks first, and this door has no key."""
    async with aiohttp.ClientSession() as http:
        for path, body in (("/rpc", '{"method": "info"}'), ("/blocks", '{"count": 1}')):
            headers = {"Content-Type": "text/plain", **mark}
            async with http.post(f"{subnet.url}{path}", data=body, headers=headers) as response:
                assert response.status == 403
                assert "Access-Control-Allow-Origin" not in response.headers
    assert (await subnet.service.make_blocks()).number == 1, "no block was made by it"


async def test_a_body_that_never_comes_is_not_waited_for(subnet: Subnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BODY_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(subnet.url).port)
    writer.write(b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    async with asyncio.timeout(20):
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert b" 408 " in answer
