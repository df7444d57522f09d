"""The connection by itself: which networks there are, and that the SDK's own transport fails in our words too."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import bittensor as bt
import pytest

from neurons.chain import errors
from neurons.chain.axon import serve_axon
from neurons.chain.connection import Chain, refusal, substrate_for
from neurons.chain.local.substrate import LocalSubstrate
from neurons.chain.metagraph import MetagraphReader
from tests.unit.chain.played import NETUID, Subnet, hotkey


async def test_networks_are_told_apart() -> None:
    assert isinstance(substrate_for("http://chain:9944", timeout_seconds=1), LocalSubstrate)
    finney = substrate_for("finney", timeout_seconds=1)
    assert isinstance(finney, bt.RpcSubstrate)
    assert finney.fallback_endpoints
    assert isinstance(substrate_for("ws://127.0.0.1:9944", timeout_seconds=1), bt.RpcSubstrate)


def test_an_unknown_network_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"Unknown network 'finny'.*finney"):
        Chain("finny")


async def test_a_real_endpoint_that_nobody_serves_is_unreachable() -> None:
    # The SDK's websocket transport: nothing listens on port 1.
    chain = Chain("ws://127.0.0.1:1", timeout_seconds=1.0, retries=0)
    reading = await MetagraphReader(chain, NETUID).refresh()
    assert isinstance(reading.problem, errors.Unreachable)
    await chain.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (bt.ChainError("no", "HotKeyNotRegisteredInSubNet"), errors.NotRegistered),
        (bt.ChainError("no", "SettingWeightsTooFast"), errors.TooEarly),
        (bt.ChainError("no", "CommitQueueFull"), errors.TooEarly),
        (bt.ChainError("no", "NeuronNoValidatorPermit"), errors.Refused),
        (bt.ChainError("something else"), errors.Refused),
    ],
)
def test_what_the_chain_refuses_keeps_its_name(error: bt.ChainError, kind: type[errors.ChainError]) -> None:
    found = refusal(error)
    assert type(found) is kind
    assert "no" in str(found) or "something else" in str(found)
    if isinstance(found, errors.Refused):
        assert found.name == error.name


async def test_public_endpoints_are_asked_once_a_second() -> None:
    assert Chain("finney")._requests_per_second == 1.0
    assert Chain("ws://127.0.0.1:9944")._requests_per_second is None
    assert Chain("finney", requests_per_second=5)._requests_per_second == 5


async def test_a_connection_is_opened_once_and_anew_after_a_failure(subnet: Subnet) -> None:
    opened: list[LocalSubstrate] = []

    def open_substrate() -> bt.Substrate:
        opened.append(LocalSubstrate(subnet.url))
        return opened[-1]

    chain = subnet.chain(open_substrate=open_substrate, retries=0)
    for _ in range(3):
        await chain.ask(lambda client: client.block())
    assert len(opened) == 1

    async def broken(_client: bt.Client) -> None:
        raise bt.RpcConnectionError("gone")

    with pytest.raises(errors.Unreachable, match="gone"):
        await chain.ask(broken)
    await chain.ask(lambda client: client.block())
    assert len(opened) == 2


async def test_nothing_is_executed_twice_under_one_nonce(subnet: Subnet) -> None:
    await subnet.enrol("a")
    intent = bt.ServeAxon(netuid=NETUID, ip="10.0.0.1", port=8091)
    chain = subnet.chain()
    result = await chain.once(lambda client: chain.execute(client, intent, hotkey("a").keypair, nonce=0))
    assert result.success
    with pytest.raises(errors.InPool, match="look again"):
        await chain.once(lambda client: chain.execute(client, intent, hotkey("a").keypair, nonce=0))


class Breaking(LocalSubstrate):
    """Sends the first extrinsic, and then does what the SDK's transport does when the connection breaks."""

    broke = False

    async def submit(self, call: Any, keypair: Any, **options: Any) -> bt.ExtrinsicResult:
        result = await super().submit(call, keypair, **options)
        if not Breaking.broke:
            Breaking.broke = True
            raise bt.ChainError("no close frame received or sent") from ConnectionError()
        return result


async def test_a_connection_that_breaks_under_a_write_is_no_refusal(subnet: Subnet) -> None:
    await subnet.enrol("a")
    chain = subnet.chain(open_substrate=lambda: Breaking(subnet.url))
    before = subnet.service.chain.head
    assert not await serve_axon(chain, hotkey("a"), NETUID, address="10.0.0.1", port=8091)
    assert Breaking.broke
    assert subnet.service.chain.head == before + 1


class Shared(LocalSubstrate):
    """Tells who waits that it was closed in the words of the SDK's transport, which are those of a refusal."""

    opened: ClassVar[list[Shared]] = []

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.waits, self.closed = asyncio.Event(), asyncio.Event()
        Shared.opened.append(self)

    async def close(self) -> None:
        await super().close()
        self.closed.set()

    async def _until_closed(self) -> None:
        self.waits.set()
        await self.closed.wait()

    async def finalized_block_number(self) -> int:
        if self is Shared.opened[0]:
            await self._until_closed()
            raise bt.ChainError("RPC session closed")
        return await super().finalized_block_number()

    async def submit(self, call: Any, keypair: Any, **options: Any) -> bt.ExtrinsicResult:
        result = await super().submit(call, keypair, **options)
        if self is Shared.opened[0]:
            await self._until_closed()
            error = bt.ChainError("RPC session closed")
            return bt.ExtrinsicResult(success=False, message=error.message, error=error)
        return result


async def breaks(_client: bt.Client) -> None:
    raise bt.RpcConnectionError("gone")


async def test_who_waits_on_a_connection_that_another_task_closed_asks_anew(
    subnet: Subnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shared, "opened", [])
    chain = subnet.chain(open_substrate=lambda: Shared(subnet.url))
    await chain.ask(lambda client: client.block())
    substrate = Shared.opened[0]
    reading = asyncio.create_task(chain.ask(lambda _client: Shared.opened[-1].finalized_block_number()))
    await substrate.waits.wait()
    with pytest.raises(errors.Unreachable):
        await chain.once(breaks)
    assert await reading == subnet.service.chain.head


async def test_a_write_on_a_connection_that_another_task_closed_is_looked_for(
    subnet: Subnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await subnet.enrol("a")
    monkeypatch.setattr(Shared, "opened", [])
    chain = subnet.chain(open_substrate=lambda: Shared(subnet.url))
    before = subnet.service.chain.head
    writing = asyncio.create_task(serve_axon(chain, hotkey("a"), NETUID, address="10.0.0.1", port=8091))
    await asyncio.sleep(0)
    while not Shared.opened:
        await asyncio.sleep(0)
    await Shared.opened[0].waits.wait()
    with pytest.raises(errors.Unreachable):
        await chain.once(breaks)
    assert not await writing, "it is there already"
    assert subnet.service.chain.head == before + 1


async def test_who_fails_on_an_old_connection_leaves_the_new_one_open(subnet: Subnet) -> None:
    chain = subnet.chain()
    go_on, begun = asyncio.Event(), asyncio.Event()

    async def fails_late(_client: bt.Client) -> None:
        begun.set()
        await go_on.wait()
        raise bt.RpcConnectionError("gone")

    late = asyncio.create_task(chain.once(fails_late))
    await begun.wait()
    with pytest.raises(errors.Unreachable):
        await chain.once(breaks)
    await chain.ask(lambda client: client.block())
    newer = chain._client
    go_on.set()
    with pytest.raises(errors.Unreachable):
        await late
    assert chain._client is newer


async def test_what_the_sdk_itself_refuses_is_told(subnet: Subnet) -> None:
    async def question(_client: bt.Client) -> None:
        raise bt.BittensorError("weights must be finite")

    with pytest.raises(errors.Refused, match="weights must be finite"):
        await subnet.chain().ask(question)
