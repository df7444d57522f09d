"""Reading the metagraph through the SDK's real client, and what stays of it when the chain is away."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import bittensor as bt
import pytest
from aiohttp import web

from neurons.chain import errors
from neurons.chain.axon import serve_axon
from neurons.chain.connection import Chain
from neurons.chain.local.service import RateLimit
from neurons.chain.metagraph import Identity, MetagraphReader
from neurons.chain.weights import set_weights
from tests.unit.chain.conftest import OpenSubnet
from tests.unit.chain.played import NETUID, Subnet, coldkey_of, hotkey


async def test_it_tells_who_is_on_the_subnet(subnet: Subnet) -> None:
    await subnet.enrol("owner", "miner")
    await subnet.enrol("validator", stake_tao=100)
    await serve_axon(subnet.chain(), hotkey("miner"), NETUID, address="10.1.2.3", port=8091)
    await subnet.run_epoch()
    metagraph = await MetagraphReader(subnet.chain(), NETUID).read()
    assert [neuron.uid for neuron in metagraph.neurons] == [0, 1, 2]
    owner, miner, validator = metagraph.neurons
    assert owner.hotkey == metagraph.owner_hotkey == hotkey("owner").address
    assert (miner.hotkey, miner.coldkey) == (hotkey("miner").address, coldkey_of("miner"))
    assert (miner.axon, miner.validator_permit, miner.stake) == ("10.1.2.3:8091", False, 0.0)
    assert validator.validator_permit
    assert validator.stake > 100
    assert validator.axon is None
    assert (metagraph.block, metagraph.tempo) == (subnet.service.chain.head, 20)
    assert metagraph.by_hotkey(validator.hotkey) is validator
    assert miner.identity == Identity(miner.hotkey, miner.block_at_registration)


async def test_all_the_seam_s_methods_that_the_sdk_uses_work_through_its_client(subnet: Subnet) -> None:
    await subnet.enrol("validator", stake_tao=5)
    client = await subnet.client()
    assert await client.spec_version() == 425
    assert await client.block_time() == 12.0
    assert client.token_symbols[NETUID] == "β"
    assert await client.finalized_block() == await client.block()
    head = await client.block_info()
    assert head is not None
    assert len(head.extrinsics) == 1
    earlier = await client.at(1)
    assert (
        await earlier.query(bt.storage.SubtensorModule.TotalHotkeyAlpha, [hotkey("validator").address, NETUID]) is None
    )
    later = await client.timestamp(block=head.number)
    assert (later - await client.timestamp(block=1)).total_seconds() == 12.0 * (head.number - 1)
    assert await client.read("uid", hotkey_ss58=hotkey("validator").address, netuid=NETUID) == 0
    assert await client.read("netuids_for_hotkey", hotkey_ss58=hotkey("validator").address) == [NETUID]
    assert await client.read("owned_hotkeys", coldkey_ss58=coldkey_of("validator")) == [hotkey("validator").address]
    with pytest.raises(bt.ChainError, match="no runtime API"):
        await client.runtime(("StakeInfoRuntimeApi", "get_stake_info_for_coldkey"), [])
    with pytest.raises(bt.ChainError, match="no SCALE"):
        await client.decode_scale("Call", "0x00")
    with pytest.raises(bt.ChainError, match="own and can't be read"):
        await client.query(("Local", "SealingSeed"))


async def test_the_last_good_one_stays_while_the_chain_is_unreachable(subnet: Subnet) -> None:
    await subnet.enrol("miner")
    now = [100.0]
    reader = MetagraphReader(subnet.chain(), NETUID, clock=lambda: now[0])
    good = await reader.read()
    await subnet.kill()
    now[0] = 160.0
    reading = await reader.refresh()
    assert reading.metagraph == good
    assert reading.age_seconds == 60.0
    assert isinstance(reading.problem, errors.Unreachable)
    assert "can't be reached" in str(reading.problem)
    assert reading.usable(max_age_seconds=60) is good
    with pytest.raises(errors.Unreachable, match=r"60 seconds old, 30 are allowed: .*can't be reached"):
        reading.usable(max_age_seconds=30)


async def test_without_any_the_reason_is_told(subnet: Subnet) -> None:
    reader = MetagraphReader(subnet.chain(), NETUID)
    await subnet.kill()
    reading = await reader.refresh()
    assert reading.metagraph is None
    with pytest.raises(errors.Unreachable, match="check the network's name"):
        reading.usable(max_age_seconds=1e9)


async def test_a_chain_that_is_too_slow_is_unreachable(subnet: Subnet) -> None:
    forever = asyncio.Event()

    async def hang(_request: web.Request) -> None:
        await forever.wait()

    subnet.intercept = hang
    reader = MetagraphReader(subnet.chain(timeout_seconds=0.05, retries=1), NETUID)
    reading = await reader.refresh()
    assert isinstance(reading.problem, errors.Unreachable)
    subnet.intercept = None
    forever.set()
    assert (await MetagraphReader(subnet.chain(), NETUID).refresh()).problem is None


async def test_requests_are_paced_as_the_endpoint_takes_them(open_local: OpenSubnet) -> None:
    now = [0.0]
    subnet = await open_local(rate_limit=RateLimit(per_second=1.0, clock=lambda: now[0]))
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    chain = subnet.chain(sleep=sleep, requests_per_second=1.0, clock=lambda: now[0])
    for _ in range(3):
        assert (await MetagraphReader(chain, NETUID).read()).netuid == NETUID
    assert slept
    assert max(slept) <= 1.0


async def test_a_short_refusal_is_waited_for(subnet: Subnet) -> None:
    slept: list[float] = []

    async def refuse_once(_request: web.Request) -> web.Response:
        subnet.intercept = None
        return web.Response(status=429, headers={"Retry-After": "3"})

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    subnet.intercept = refuse_once
    assert (await MetagraphReader(subnet.chain(sleep=sleep), NETUID).read()).netuid == NETUID
    assert slept == [3.0]


async def test_a_long_rate_limit_is_told_with_its_length(subnet: Subnet) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "3600"})

    reader = MetagraphReader(subnet.chain(), NETUID)
    good = await reader.read()
    subnet.intercept = refuse
    reading = await reader.refresh()
    assert isinstance(reading.problem, errors.RateLimited)
    assert reading.problem.retry_after == 3600
    assert "ask less often" in str(reading.problem)
    assert reading.metagraph == good


async def test_an_older_runtime_is_refused_in_words(open_local: OpenSubnet) -> None:
    subnet = await open_local(spec_version=300)
    reading = await MetagraphReader(subnet.chain(), NETUID).refresh()
    assert isinstance(reading.problem, errors.OtherRuntime)
    assert "spec version 300" in str(reading.problem)


async def test_a_runtime_whose_answers_changed_is_told_and_the_last_good_one_stays(
    subnet: Subnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = MetagraphReader(subnet.chain(), NETUID)
    good = await reader.read()
    from neurons.chain.local import runtime_apis

    monkeypatch.setitem(
        runtime_apis.METHODS, ("SubnetInfoRuntimeApi", "get_metagraph"), lambda _state, _netuid: {"neurons": []}
    )
    reading = await reader.refresh()
    assert isinstance(reading.problem, errors.OtherRuntime)
    assert "update" in str(reading.problem)
    assert reading.metagraph == good


async def test_a_runtime_upgrade_in_between_is_gone_along_with(subnet: Subnet) -> None:
    await subnet.enrol("miner")
    chain = subnet.chain()
    await serve_axon(chain, hotkey("miner"), NETUID, address="10.0.0.1", port=1)
    await subnet.service.make_blocks(1, {"System.SpecVersion": 440})
    assert await serve_axon(chain, hotkey("miner"), NETUID, address="10.0.0.1", port=2)
    assert (await MetagraphReader(chain, NETUID).read()).neurons[0].axon == "10.0.0.1:2"


async def test_a_local_subnet_that_was_begun_anew_is_read_as_it_is(open_local: OpenSubnet) -> None:
    """What the connection knows of the blocks of the chain before it holds no more, and no neuron of it is there."""
    before = await open_local()
    await before.enrol("validator", stake_tao=10)
    await before.run_epoch()
    chain = before.chain()
    reader = MetagraphReader(chain, NETUID)
    await reader.read()
    await set_weights(chain, hotkey("validator"), NETUID, {0: 1.0}, since=before.service.chain.head)
    port = before.server.port
    await before.kill()
    after = await open_local(port=port, time=1_790_000_001.0)
    await after.enrol("x", "validator", stake_tao=10)
    reading = await reader.refresh()
    assert reading.problem is None
    assert reading.metagraph is not None
    assert [neuron.hotkey for neuron in reading.metagraph.neurons] == [
        hotkey(name).address for name in ("x", "validator")
    ]
    await after.run_epoch()
    submission = await set_weights(chain, hotkey("validator"), NETUID, {0: 1.0}, since=after.service.chain.head)
    assert submission.block == after.service.chain.head


class Far(Chain):
    """A connection that is taken for one to a real network."""

    def __init__(self, subnet: Subnet) -> None:
        self.near = subnet.chain()
        self.network = "finney"

    @property
    def is_local(self) -> bool:
        return False

    async def ask(self, *args: Any, **kwargs: Any) -> Any:
        return await self.near.ask(*args, **kwargs)


async def test_an_endpoint_that_stands_still_makes_no_metagraph_younger(subnet: Subnet) -> None:
    await subnet.enrol("miner")
    now = [100.0]
    reader = MetagraphReader(Far(subnet), NETUID, clock=lambda: now[0])
    await reader.read()
    now[0] += 60
    assert (await reader.refresh()).problem is None, "a few blocks may be late"
    now[0] += 240
    reading = await reader.refresh()
    assert reading.age_seconds == 300
    assert isinstance(reading.problem, errors.Unreachable)
    assert "stands at block" in str(reading.problem)
    await subnet.advance()
    reading = await reader.refresh()
    assert (reading.age_seconds, reading.problem) == (0.0, None)


async def test_an_endpoint_that_lags_far_behind_is_told(subnet: Subnet) -> None:
    await subnet.enrol("miner")
    now = [100.0]
    reader = MetagraphReader(Far(subnet), NETUID, clock=lambda: now[0])
    newer = await reader.read()
    reader._metagraph = dataclasses.replace(newer, block=newer.block + 50)
    now[0] += 300
    reading = await reader.refresh()
    assert reading.metagraph is reader._metagraph
    assert f"stands at block {newer.block}, behind block {newer.block + 50}" in str(reading.problem)


async def test_an_endpoint_that_lags_behind_brings_no_older_metagraph(subnet: Subnet) -> None:
    reader = MetagraphReader(Far(subnet), NETUID)
    await subnet.advance(5)
    newer = await reader.read()
    reader._chain = (lagging := Far(subnet))

    async def ask(_question: object) -> object:
        return dataclasses.replace(newer, block=newer.block - 3)

    lagging.ask = ask  # type: ignore[method-assign, assignment]
    assert await reader.read() == newer


async def test_a_subnet_that_there_is_not_is_refused_in_words(subnet: Subnet) -> None:
    with pytest.raises(errors.Refused, match="no subnet 7"):
        await MetagraphReader(subnet.chain(), 7).read()


async def test_a_neuron_is_its_hotkey_and_registration(subnet: Subnet) -> None:
    await subnet.enrol("miner")
    metagraph = await MetagraphReader(subnet.chain(), NETUID).read()
    miner = hotkey("miner").address
    neuron = metagraph.registered(miner, coldkey=coldkey_of("miner"))
    assert metagraph.registered(miner, identity=neuron.identity) is neuron
    with pytest.raises(errors.NotRegistered, match="isn't registered on subnet 1"):
        metagraph.registered(hotkey("nobody").address)
    with pytest.raises(errors.ForeignOwner, match="registered by somebody else"):
        metagraph.registered(miner, coldkey=coldkey_of("other"))
    with pytest.raises(errors.NotRegistered, match="registered anew"):
        metagraph.registered(miner, identity=Identity(miner, 0))
