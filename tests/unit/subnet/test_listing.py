"""A subnet's miners as a person reads them: from a chain or a file, with what they announce."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bittensor.config
import bittensor_core
import pytest

from neurons.receipts import MetagraphFile, NeuronEntry, read_metagraph, write_metagraph
from neurons.subnet import listing
from neurons.subnet.__main__ import main
from neurons.subnet.announced import announcements
from neurons.subnet.errors import SubnetError
from neurons.subnet.reading import from_chain
from neurons.wire.announcement import Announcement
from neurons.wire.signer import RequestSigner
from tests.unit.chain.played import NETUID, hotkey, open_subnet
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, held
from tests.unit.miner.signing_miner import INDRA, neuron, on_subnet
from tests.unit.receipts.keyring import COLDKEY, MINER, OTHER_MINER, STRANGER, VALIDATOR


def table(*neurons: NeuronEntry) -> MetagraphFile:
    return MetagraphFile(netuid=42, block=1000, time=1_790_000_000_000, neurons=neurons)


def entry(uid: int, keypair: Any, **more: Any) -> NeuronEntry:
    values = {"uid": uid, "hotkey": keypair.ss58_address, "coldkey": COLDKEY.ss58_address}
    return NeuronEntry.model_validate(values | more)


def test_the_table_fits_80_columns_and_names_who_earns_most_first() -> None:
    found = table(
        entry(0, VALIDATOR, validator_permit=True, stake=1000.0),
        entry(1, MINER, incentive=0.25, axon="255.255.255.255:65535", last_update=0),
        entry(255, OTHER_MINER, incentive=0.75, stake=12345.6, last_update=900),
    )
    said = listing.text(found, listing.rows(found, {}))
    lines = said.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "Subnet 42 as of block 1000, 2026-09-21 14:13:20 UTC"
    assert [line.split()[0] for line in lines[1:]] == ["UID", "255", "1"]
    assert "100 ago" in lines[2]
    assert "12,345.6" in lines[2]
    assert "0.7500" in lines[2]
    assert VALIDATOR.ss58_address in listing.text(found, listing.rows(found, {}, everyone=True), wide=True)


def test_the_widest_that_a_subnet_can_be_fits_80_columns() -> None:
    found = MetagraphFile(
        netuid=65535,
        block=12_345_678,
        neurons=(
            entry(2499, MINER, stake=99_999.9, axon="[2001:db8:1234:5678:9abc:def0:1234:5678]:65535", last_update=1),
            entry(7, OTHER_MINER, stake=1e12, axon="255.255.255.255:65535", last_update=12_344_000),
        ),
    )
    said = listing.text(found, listing.rows(found, {MINER.ss58_address: "?"}))
    assert max(map(len, said.splitlines())) <= 80, said
    assert "]:65535" in said  # of a long address what tells it from its neighbours
    assert "12M ago" in said
    assert "1678 ago" in said
    assert "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535" in listing.text(found, listing.rows(found, {}), wide=True)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "there is no such folder"),
        (lambda path: path.write_text("{}"), "is a file: give the folder that it is in"),
        (lambda path: path.mkdir(), "holds no hotkey"),
    ],
    ids=["missing", "file", "empty"],
)
def test_a_wallet_that_is_none_is_told_by_its_own_path(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object], says: str
) -> None:
    """At a terminal there is no Secret, and whoever mistyped a folder has none to make."""
    make(tmp_path / "walet")
    assert main(["miners", "--metagraph", str(file), "--wallet", str(tmp_path / "walet")]) == 1
    said = capsys.readouterr().err
    assert says in said
    assert f"--wallet {tmp_path / 'walet'}" in said
    assert "Secret" not in said


def test_a_subnet_without_miners_is_said_so() -> None:
    assert "no miner is registered" in listing.text(table(), [])


async def test_miners_are_asked_for_what_they_announce(tmp_path: Path) -> None:
    settings = on_subnet(tmp_path)
    async with FakeAgent(pod="p1", holds=held(INDRA)) as agent, RunningMiner(tmp_path, subnet=settings) as miner:
        miner.route({"indra": Twin((INDRA,), doctor="Dr.\x9b2J\nIndra")})
        miner.report([agent])
        axon = miner.url.removeprefix("http://")
        own = neuron(1, MINER).model_copy(update={"axon": axon})
        impostor = neuron(2, OTHER_MINER).model_copy(update={"axon": axon})
        away = neuron(3, STRANGER).model_copy(update={"axon": "127.0.0.1:1"})
        signer = RequestSigner(VALIDATOR)
        async with asyncio.timeout(30):
            while not isinstance(
                (said := await announcements((own, impostor, away), signer, netuid=42))[own.hotkey], Announcement
            ):
                await asyncio.sleep(0.05)
    found = listing.rows(table(own, impostor, away), said)
    text = listing.text(table(own), found, wide=True)
    assert f"indra@{'a' * 8}" in text
    assert "UID 2: it answered 401" in text, "the address of one miner under the hotkey of another"
    assert "UID 3: it can't be reached" in text
    document = listing.document(table(own), found)
    assert document["miners"][0]["twins"][0]["versions"][0]["adapter"] == "sha256:" + "a" * 64
    assert document["miners"][0]["twins"][0]["doctor"] == "Dr. 2J Indra", "a miner's words don't move the cursor"
    assert document["miners"][1]["twins"] is None


async def test_a_chain_is_read_with_the_time_of_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bittensor.config, "DEFAULT_TOKEN_SYMBOLS_PATH", tmp_path / "symbols.json")
    subnet = await open_subnet(tmp_path / "chain.db")
    try:
        await subnet.enrol("miner")
        found = await from_chain(subnet.url, NETUID)
        assert hotkey("miner").address in {each.hotkey for each in found.neurons}
        assert found.time is not None
        assert found.time > 1_790_000_000_000
        assert all(each.incentive is not None for each in found.neurons)
        write_metagraph(
            tmp_path / "m.json", netuid=found.netuid, block=found.block, neurons=found.neurons, time_ms=found.time
        )
        assert read_metagraph(tmp_path / "m.json") == found
        with pytest.raises(SubnetError, match="no subnet 99"):
            await from_chain(subnet.url, 99)
    finally:
        await subnet.stop()


@pytest.mark.parametrize("network", ["nowhere", "127.0.0.1:9944", "ftp://chain"])
async def test_what_is_no_chain_is_said_in_words(network: str) -> None:
    with pytest.raises(SubnetError, match=rf"--network {network} is no chain: give finney, test, .* or http://"):
        await from_chain(network, 1)


async def test_a_chain_in_a_cluster_is_said_to_be_reached_by_a_forward() -> None:
    """Of an object's own words: from a terminal no name of a cluster is known."""
    with pytest.raises(SubnetError) as caught:
        await from_chain("http://subnet.clinic.svc:9944", 1, timeout_seconds=2.0)
    assert "`kubectl port-forward -n clinic service/subnet 9944:9944`" in str(caught.value)
    assert "--network http://127.0.0.1:9944 --netuid 1" in str(caught.value)


@pytest.mark.parametrize("place", [".", "/", ""])
def test_a_folder_is_no_file_to_write_to(place: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(file.parent / place) if place else str(file.parent)]
    assert main(["metagraph", *given, "--network", "http://127.0.0.1:1", "--netuid", "1"]) == 1
    assert "is a folder" in capsys.readouterr().err


def test_a_file_and_a_chain_are_not_both_asked(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["miners", "--metagraph", str(file), "--network", "test", "--netuid", "1"]) == 1
    assert "--metagraph or --network" in capsys.readouterr().err


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "metagraph.json"
    neurons = (neuron(0, VALIDATOR, permit=True), neuron(1, MINER))
    write_metagraph(path, netuid=42, block=1000, neurons=neurons, time_ms=time.time_ns() // 10**6)
    return path


def test_the_plugin_lists_a_files_miners(file: Path) -> None:
    run = [sys.executable, "-m", "kubectl_twin", "miners", "--metagraph", str(file), "-o", "json"]
    done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=110)
    assert [each["uid"] for each in json.loads(done.stdout)["miners"]] == [1]


def test_what_can_not_be_read_is_one_sentence(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["miners", "--metagraph", str(file.with_name("none"))]) == 1
    assert "can't be read" in capsys.readouterr().err
    assert main(["miners"]) == 1
    assert "Give --network and --netuid" in capsys.readouterr().err
    assert main(["metagraph", str(file), "--network", "nowhere", "--netuid", "1"]) == 1
    assert "is no chain" in capsys.readouterr().err


def test_a_coldkey_is_no_wallet_to_ask_with(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wallet = file.with_name("wallet")
    wallet.mkdir()
    (wallet / "coldkey").write_bytes(bittensor_core.serialized_keypair_to_keyfile_data(COLDKEY))
    assert main(["miners", "--metagraph", str(file), "--wallet", str(wallet)]) == 1
    assert "holds a coldkey" in capsys.readouterr().err
