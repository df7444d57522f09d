"""When epochs are, and waiting for one."""

from __future__ import annotations

import asyncio

import pytest

from neurons.chain import errors
from neurons.chain.epochs import read_epoch, wait_for_epoch
from neurons.chain.hyperparameters import EpochConsensus, parse, read_hyperparameters
from tests.unit.chain.conftest import OpenSubnet
from tests.unit.chain.played import NETUID, TEMPO, Subnet


async def test_the_next_epoch_is_where_the_chain_says(subnet: Subnet) -> None:
    await subnet.run_epoch()
    await subnet.advance(3)
    status = await read_epoch(subnet.chain(), NETUID)
    assert (status.block, status.last_block, status.next_block) == (TEMPO + 3, TEMPO, 2 * TEMPO)
    assert (status.index, status.tempo, status.blocks_left) == (1, TEMPO, TEMPO - 3)
    assert status.seconds_left == (TEMPO - 3) * 12.0


async def test_after_a_change_of_tempo_it_is_not_where_modulo_would_put_it(subnet: Subnet) -> None:
    await subnet.run_epoch()
    await subnet.advance(1, Tempo=7)
    status = await read_epoch(subnet.chain(), NETUID)
    assert status.next_block == TEMPO + 7
    await subnet.advance(6)
    assert (await read_epoch(subnet.chain(), NETUID)).last_block == TEMPO + 7


async def test_an_epoch_that_the_owner_pulls_forward_is_seen(subnet: Subnet) -> None:
    await subnet.advance(2, PendingEpochAt=5)
    assert (await read_epoch(subnet.chain(), NETUID)).next_block == 5
    await subnet.advance(3)
    status = await read_epoch(subnet.chain(), NETUID)
    assert (status.last_block, status.next_block) == (5, 5 + TEMPO)


async def test_waiting_ends_when_one_has_run(subnet: Subnet) -> None:
    chain = subnet.chain()
    before = await read_epoch(chain, NETUID)
    waiting = asyncio.create_task(wait_for_epoch(chain, NETUID, after=before, longest_seconds=60))
    while not waiting.done():
        await subnet.advance()
        await asyncio.sleep(0)
        if subnet.service.chain.head > 2 * TEMPO:
            break
    status = await waiting
    assert status.index >= before.index + 1
    assert status.last_block >= TEMPO


async def test_one_that_ran_while_nobody_looked_is_not_missed(subnet: Subnet) -> None:
    chain = subnet.chain()
    before = await read_epoch(chain, NETUID)
    await subnet.run_epoch()
    assert (await wait_for_epoch(chain, NETUID, after=before, longest_seconds=0.1)).index == 1


async def test_a_block_that_came_before_anybody_waited_for_it_is_not_waited_for(subnet: Subnet) -> None:
    client = await subnet.client()
    await subnet.advance(30)
    assert (await client.wait_for_block(TEMPO, timeout=60)).number == 30


async def test_waiting_has_an_end(subnet: Subnet) -> None:
    chain = subnet.chain()
    before = await read_epoch(chain, NETUID)
    with pytest.raises(errors.Unreachable, match="within"):
        await wait_for_epoch(chain, NETUID, after=before, longest_seconds=0.05)


async def test_a_subnet_without_epochs_is_told(open_local: OpenSubnet) -> None:
    subnet = await open_local(hyperparameters={"tempo": 0})
    chain = subnet.chain()
    status = await read_epoch(chain, NETUID)
    assert (status.next_block, status.blocks_left) == (None, None)
    with pytest.raises(errors.Refused, match="tempo 0"):
        await wait_for_epoch(chain, NETUID, after=status, longest_seconds=1)


async def test_hyperparameters_are_those_of_a_new_subnet(open_local: OpenSubnet) -> None:
    subnet = await open_local()
    found = await read_hyperparameters(subnet.chain(), NETUID)
    assert found.epoch_consensus is EpochConsensus.YUMA
    assert (found.commit_reveal, found.commit_reveal_period, found.max_validators) == (True, 1, 64)
    assert (found.tempo, found.weights_rate_limit, found.max_weights_limit) == (TEMPO, 0, 1.0)
    assert not found.liquid_alpha


async def test_hyperparameters_of_no_subnet_are_refused(subnet: Subnet) -> None:
    with pytest.raises(errors.Refused, match="no subnet 9"):
        await read_hyperparameters(subnet.chain(), 9)


@pytest.mark.parametrize(
    ("published", "meant"),
    [
        (0, EpochConsensus.YUMA),
        (1, EpochConsensus.NULL),
        ("Null", EpochConsensus.NULL),
        ({"Null": None}, EpochConsensus.NULL),
    ],
)
async def test_the_consensus_is_read_in_each_form(subnet: Subnet, published: object, meant: EpochConsensus) -> None:
    client = await subnet.client()
    found = await client.read("subnet_hyperparameters", netuid=NETUID)
    assert parse(found | {"epoch_consensus": published}).epoch_consensus is meant
