"""A miner on a local subnet: who may call comes from the chain, the miner's address goes there, and it may be away."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import bittensor.config
import pytest

from neurons.chain.metagraph import Metagraph, MetagraphReader
from neurons.miner.errors import StartError
from neurons.receipts import read_metagraph, write_metagraph
from tests.unit.chain.played import NETUID, Subnet, hotkey, keypair, open_subnet
from tests.unit.miner.running_miner import RunningMiner, eventually_async
from tests.unit.miner.signing_miner import Validator, on_subnet, validator
from tests.unit.receipts.keyring import MINER

ADDRESS = "10.0.0.7:8091"


@pytest.fixture
async def subnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A subnet with a miner, and a validator that has its permit."""
    monkeypatch.setattr(bittensor.config, "DEFAULT_TOKEN_SYMBOLS_PATH", tmp_path / "symbols.json")
    made = await open_subnet(tmp_path / "chain.db")
    await made.enrol("validator", stake_tao=1000.0)
    await made.enrol("miner")
    await made.run_epoch()
    yield made
    await made.stop()


async def metagraph(subnet: Subnet) -> Metagraph:
    return await MetagraphReader(subnet.chain(), NETUID).read()


async def test_validators_come_in_by_the_chains_metagraph_also_when_it_is_away_later(
    tmp_path: Path, subnet: Subnet
) -> None:
    settings = on_subnet(
        tmp_path, keypair("miner-hot"), metagraph_file=None, chain=subnet.url, netuid=NETUID, external_address=ADDRESS
    )
    own = hotkey("miner").address
    async with RunningMiner(tmp_path, subnet=settings) as miner, validator(miner, keypair("validator-hot")) as bob:
        miner.route({})
        miner.report([])

        async def let_in() -> bool:
            return (await ask(bob, own))[0] == 200

        await eventually_async(let_in, 30)

        async def published() -> bool:
            neuron = (await metagraph(subnet)).by_hotkey(own)
            return neuron is not None and neuron.axon == ADDRESS

        await eventually_async(published, 30)
        await subnet.server.close()
        assert (await ask(bob, own))[0] == 200, "the last metagraph serves"


async def test_a_miner_that_is_registered_while_it_runs_is_published_soon(
    tmp_path: Path, subnet: Subnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neurons.miner.subnet.LOCAL_POLL_SECONDS", 0.05)
    settings = on_subnet(
        tmp_path, keypair("late-hot"), metagraph_file=None, chain=subnet.url, netuid=NETUID, external_address=ADDRESS
    )
    async with RunningMiner(tmp_path, subnet=settings) as miner:
        await eventually_async(miner_looked(miner), 30)
        await subnet.enrol("late")

        async def published() -> bool:
            neuron = (await metagraph(subnet)).by_hotkey(hotkey("late").address)
            return neuron is not None and neuron.axon == ADDRESS

        await eventually_async(published, 30)


def miner_looked(miner: RunningMiner) -> Callable[[], Awaitable[bool]]:
    async def looked() -> bool:
        return miner.metric("bettertherapy_miner_metagraph_age_seconds") != float("inf")

    return looked


async def ask(caller: Validator, receiver: str) -> tuple[int, bytes]:
    url = caller.url("/v1/models")
    headers = caller.signer.headers(method="GET", url=url, body=b"", receiver=receiver)
    async with caller.session.get(url, headers=headers) as response:
        return response.status, await response.read()


async def test_without_a_chain_that_answers_the_door_says_so_and_tokens_go_on(tmp_path: Path) -> None:
    settings = on_subnet(tmp_path, metagraph_file=None, chain="http://127.0.0.1:1", netuid=NETUID)
    async with RunningMiner(tmp_path, subnet=settings) as miner, validator(miner) as bob:
        status, body = await ask(bob, MINER.ss58_address)
        assert (status, json.loads(body)["error"]["code"]) == (503, "no_metagraph")
        async with miner.client.get("/v1/models") as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"chain": "nowhere"}, r"spec\.miner\.chain of the MinerPool is no chain"),
        ({"external_address": "203.0.113.7:0"}, r"a port from 1 to 65535"),
        ({"external_address": "203.0.113.7:99999"}, r"a port from 1 to 65535"),
        ({"external_address": "203.0.113.7"}, r"spec\.miner\.externalAddress is '203\.0\.113\.7': write it as IP:PORT"),
    ],
)
def test_settings_that_can_not_be_end_the_miner_in_words(tmp_path: Path, settings: dict[str, str], says: str) -> None:
    with pytest.raises(StartError, match=says):
        RunningMiner(tmp_path, subnet=on_subnet(tmp_path, metagraph_file=None, **settings))


async def test_a_chains_metagraph_fits_the_file(tmp_path: Path, subnet: Subnet) -> None:
    read = await metagraph(subnet)
    write_metagraph(tmp_path / "file.json", netuid=read.netuid, block=read.block, neurons=read.neurons)
    again = read_metagraph(tmp_path / "file.json")
    assert [(each.uid, each.hotkey, each.validator_permit) for each in again.neurons] == [
        (each.uid, each.hotkey, each.validator_permit) for each in read.neurons
    ]
