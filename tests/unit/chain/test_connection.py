"""The connection by itself: which networks there are, and that the SDK's own transport fails in our words too."""

from __future__ import annotations

from typing import Any

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


async def test_what_the_sdk_itself_refuses_is_told(subnet: Subnet) -> None:
    async def question(_client: bt.Client) -> None:
        raise bt.BittensorError("weights must be finite")

    with pytest.raises(errors.Refused, match="weights must be finite"):
        await subnet.chain().ask(question)
