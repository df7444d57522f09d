"""Publishing an axon: external addresses only, once, and under the hotkey's own signature."""

from __future__ import annotations

import pytest
from aiohttp import web

from neurons.chain import errors
from neurons.chain.axon import Endpoint, serve_axon
from neurons.chain.metagraph import MetagraphReader
from tests.unit.chain.played import NETUID, Subnet, hotkey


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("127.1.2.3", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("0.0.0.0", "all of this machine's"),
        ("::", "all of this machine's"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("10.0.0.1", "private"),
        ("192.168.0.9", "private"),
        ("fd00::1", "private"),
        ("100.64.1.2", "private"),  # providers' own, and pods' of some clouds
        ("fec0::1", "private"),
        ("2002:a00:1::1", "private"),  # 6to4 of 10.0.0.1
        ("2002:a9fe:a9fe::1", "link-local"),
        ("::ffff:10.0.0.1", "private"),
        ("localhost", "no IP address"),
        ("miner.example.org", "no IP address"),
    ],
)
def test_an_address_that_others_cannot_reach_is_refused_in_words(address: str, why: str) -> None:
    with pytest.raises(errors.UnusableAddress, match=why):
        Endpoint.parse(address, 8091, private_allowed=False)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(errors.UnusableAddress, match="is no port"):
        Endpoint.parse("8.8.8.8", port, private_allowed=False)


def test_external_addresses_pass() -> None:
    assert str(Endpoint.parse("8.8.8.8", 80, private_allowed=False)) == "8.8.8.8:80"
    assert str(Endpoint.parse("2001:4860:4860::8888", 80, private_allowed=False)) == "[2001:4860:4860::8888]:80"
    assert str(Endpoint.parse("10.0.0.1", 80, private_allowed=True)) == "10.0.0.1:80"


async def test_it_is_published_once(subnet: Subnet) -> None:
    await subnet.enrol("miner")
    chain = subnet.chain()
    assert await serve_axon(chain, hotkey("miner"), NETUID, address="2001:4860:4860::8888", port=8091)
    before = subnet.service.chain.head
    assert not await serve_axon(chain, hotkey("miner"), NETUID, address="2001:4860:4860::8888", port=8091)
    assert subnet.service.chain.head == before
    metagraph = await MetagraphReader(chain, NETUID).read()
    assert metagraph.neurons[0].axon == "[2001:4860:4860::8888]:8091"


async def test_the_chain_is_not_asked_about_a_loopback_address(subnet: Subnet) -> None:
    asked: list[str] = []

    async def note(request: web.Request) -> None:
        asked.append(request.path)

    subnet.intercept = note
    with pytest.raises(errors.UnusableAddress):
        await serve_axon(subnet.chain(), hotkey("miner"), NETUID, address="127.0.0.1", port=8091)
    assert asked == []


async def test_a_hotkey_without_a_uid_is_told_to_register(subnet: Subnet) -> None:
    with pytest.raises(errors.NotRegistered, match="register it"):
        await serve_axon(subnet.chain(), hotkey("nobody"), NETUID, address="10.0.0.1", port=8091)


async def test_too_soon_again_is_told(subnet: Subnet) -> None:
    await subnet.enrol("miner")
    await subnet.advance(1, ServingRateLimit=50)
    chain = subnet.chain()
    await serve_axon(chain, hotkey("miner"), NETUID, address="10.0.0.1", port=8091)
    with pytest.raises(errors.TooEarly, match="every 50 blocks") as refused:
        await serve_axon(chain, hotkey("miner"), NETUID, address="10.0.0.2", port=8091)
    assert refused.value.name == "ServingRateLimitExceeded"


async def test_an_answer_that_is_lost_publishes_nothing_twice(subnet: Subnet) -> None:
    await subnet.enrol("miner")
    lost: list[str] = []

    async def lose_receipts(request: web.Request) -> web.Response | None:
        body = await request.json()
        if body["method"] == "receipt" and not lost:
            lost.append("receipt")
            return web.Response(status=503)
        return None

    subnet.intercept = lose_receipts
    before = subnet.service.chain.head
    # It was in a block when the answer was lost; looking again finds it there.
    assert not await serve_axon(subnet.chain(), hotkey("miner"), NETUID, address="10.0.0.1", port=8091)
    assert lost
    assert subnet.service.chain.head == before + 1
