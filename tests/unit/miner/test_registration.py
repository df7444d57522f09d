"""What a miner reports of its place on the subnet, and that it tells the API server so, also as its last word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bittensor.config
import pytest

from bettertherapy_api.report import Registration, SubnetReport, TaskClaim
from neurons.chain.errors import ChainError, Refused, Unreachable, UnusableAddress
from neurons.cluster import ClusterClient
from neurons.miner import registration_report
from neurons.miner.metrics import Metrics
from neurons.miner.registration import PATIENCE_SECONDS, Publication, standing
from neurons.miner.registration_report import WalletRefused, report_refusal, report_standing, steady
from neurons.miner.settings import Settings
from neurons.miner.subnet import Subnet
from neurons.receipts import NeuronEntry
from tests.unit.chain.played import NETUID, hotkey, keypair, open_subnet
from tests.unit.cluster.report_server import Reached, ReportServer, report_server
from tests.unit.miner.running_miner import eventually_async
from tests.unit.miner.signing_miner import on_subnet
from tests.unit.receipts.keyring import COLDKEY, MINER, VALIDATOR

OWN = MINER.ss58_address


@dataclass(frozen=True)
class Table:
    neurons: tuple[NeuronEntry, ...]
    netuid: int = 42
    block: int = 1000


@dataclass(frozen=True)
class Read:
    metagraph: Table | None
    age_seconds: float = 1.0
    problem: Exception | None = None


def neuron(**more: Any) -> NeuronEntry:
    return NeuronEntry(
        uid=7, hotkey=OWN, coldkey=COLDKEY.ss58_address, block_at_registration=900, **({"axon": "9.9.9.9:80"} | more)
    )


def stands(
    *neurons: NeuronEntry,
    problem: Exception | None = None,
    owner: str | None = None,
    published: Publication | None = None,
    age: float = PATIENCE_SECONDS,
) -> SubnetReport:
    reading = Read(Table(neurons), age, problem)
    return standing(
        reading, hotkey=OWN, netuid=42, owner=owner, publication=published or NOTHING, read_at=1_790_000_000.7
    )


NOTHING = Publication()
UNUSABLE = Publication(tried=True, problem=UnusableAddress("it is private"))
PUBLISHED = Publication(tried=True, address="1.2.3.4:80")


def test_a_registered_miner_that_can_be_found_is_registered() -> None:
    said = stands(neuron(), owner=COLDKEY.ss58_address)
    assert said.registration is Registration.REGISTERED
    assert (said.uid, said.registered_at_block, said.axon, said.message, said.block) == (
        7,
        900,
        "9.9.9.9:80",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        (stands(), "NotRegistered", "Register it with its coldkey"),
        (stands(neuron(), owner=VALIDATOR.ss58_address), "ForeignOwner", "somebody else"),
        (stands(neuron(axon=None)), "AddressMissing", "set spec.miner.externalAddress"),
        (stands(neuron(), published=UNUSABLE), "AddressRefused", "it is private"),
        (stands(neuron(), problem=Unreachable("no answer")), "ChainUnreachable", "no answer"),
        (stands(problem=Refused("there is no subnet 42")), "NotRegistered", "no subnet 42"),
        (stands(neuron(axon=None), published=PUBLISHED), "Registered", ""),
    ],
)
def test_what_is_wrong_is_one_word_and_a_sentence(said: SubnetReport, state: str, words: str) -> None:
    assert said.registration == state
    assert words in (said.message or "")


def test_an_address_that_another_miner_of_the_hotkey_published_over_ours_is_told() -> None:
    """Two pools with one hotkey: the chain has one address, and the other pool is found by nobody."""

    def read(seconds_after: float, **chain: Any) -> SubnetReport:
        ours = Publication(tried=True, address="1.2.3.4:80", at=1_790_000_000.7 - seconds_after)
        return stands(neuron(**chain), published=ours)

    said = read(300.0)
    assert (said.registration, said.axon) == (Registration.ADDRESS_REFUSED, "9.9.9.9:80")
    assert "the chain has 9.9.9.9:80 by now, and not 1.2.3.4:80" in (said.message or "")
    assert "a hotkey of its own" in (said.message or "")
    assert read(300.0, axon="1.2.3.4:80").registration is Registration.REGISTERED
    assert read(5.0).registration is Registration.REGISTERED, "what was read may be of a block before"
    v6 = Publication(tried=True, address="[2001:DB8:0::7]:80", at=1_780_000_000.0)
    assert stands(neuron(axon="[2001:db8::7]:80"), published=v6).registration is Registration.REGISTERED


def test_while_the_chain_is_away_it_says_of_when_its_knowledge_is() -> None:
    said = stands(neuron(), problem=Unreachable("no answer"))
    assert (said.uid, said.block, said.read_at) == (7, 1000, "2026-09-21T14:13:20Z")


def test_a_question_that_the_chain_turned_away_is_no_news() -> None:
    lost = stands(neuron(), problem=Unreachable("too many requests"), age=PATIENCE_SECONDS - 1)
    assert lost == stands(neuron(), age=1.0)
    gone = stands(neuron(), problem=Refused("there is no subnet 42"), age=1.0)
    assert gone.registration is Registration.NOT_REGISTERED


def test_one_outage_is_told_in_the_words_of_its_beginning() -> None:
    first = stands(neuron(), problem=Unreachable("no answer within 30 seconds"))
    other = stands(neuron(), problem=Unreachable("connection refused"))
    assert other != first
    assert steady(other, first) == first
    assert steady(first, None) == first
    assert steady(other, stands(neuron())) == other
    assert steady(stands(neuron()), first) == stands(neuron())
    assert steady(stands(problem=Unreachable("connection refused")), first).uid is None


def test_words_that_no_json_could_carry_do_not_end_a_miner() -> None:
    """A chain's endpoint may say anything."""
    said = stands(neuron(), problem=Unreachable("no \ud800 answer" + "!" * 2000))
    assert said.message is not None
    assert (said.message[:11], len(said.message)) == ("no ? answer", 1024)


def test_before_any_metagraph_nothing_is_claimed() -> None:
    problem: ChainError = Unreachable("no answer")
    said = standing(
        Read(None, float("inf"), problem), hotkey=OWN, netuid=42, owner=None, publication=Publication(), read_at=0.0
    )
    assert (said.registration, said.uid, said.block) == (Registration.CHAIN_UNREACHABLE, None, None)


@pytest.fixture
async def api() -> AsyncIterator[ReportServer]:
    async with report_server() as kept:
        yield kept


def settings(folder: Path, key: Any = MINER, **own: Any) -> Settings:
    subnet = on_subnet(folder, key, **({"pod_name": "p-miner-1", "pod_uid": "uid-1"} | own))
    return Settings(pool="p", namespace="clinic", access_secret="p-access", subnet=subnet)


CLAIM = TaskClaim(
    id="11111111-1111-4111-8111-111111111111", validator=VALIDATOR.ss58_address, twin="indra", twin_uid="uid-indra",
    dataset="https://v/v1/tasks/11111111-1111-4111-8111-111111111111/dataset?x=1", dataset_digest="sha256:" + "0" * 64,
    interactions=30, deadline="2026-11-30T20:00:00Z",
)  # fmt: skip


async def test_the_report_follows_what_the_chain_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: Any
) -> None:
    monkeypatch.setattr(bittensor.config, "DEFAULT_TOKEN_SYMBOLS_PATH", tmp_path / "symbols.json")
    monkeypatch.setattr("neurons.miner.subnet.CHAIN_POLL_SECONDS", 0.2)
    monkeypatch.setattr("neurons.miner.subnet.PUBLISH_SECONDS", 0.2)
    monkeypatch.setattr("neurons.miner.registration.PATIENCE_SECONDS", 1.0)
    chain = await open_subnet(tmp_path / "chain.db")
    given = settings(
        tmp_path, keypair("miner-hot"), metagraph_file=None, chain=chain.url, netuid=NETUID,
        external_address="10.0.0.7:8091",
    )  # fmt: skip
    assert given.subnet is not None
    subnet = Subnet.open(given.subnet, registry=Metrics().registry)
    running = [asyncio.create_task(each) for each in subnet.followers()]
    claims: list[TaskClaim] = []
    running.append(
        asyncio.create_task(report_standing(given, subnet, claims=lambda: list(claims), connect=api.connect))
    )

    def reported(state: str) -> Any:
        async def found() -> bool:
            return bool(api.report) and api.report["subnet"]["registration"] == state

        return found

    try:
        await eventually_async(reported("NotRegistered"), 30)
        await chain.enrol("miner")
        await eventually_async(reported("Registered"), 30)

        async def published() -> bool:
            return bool(api.report["subnet"].get("axon") == "10.0.0.7:8091")

        await eventually_async(published, 30)
        assert api.report["subnet"]["hotkey"] == hotkey("miner").address
        assert api.report["metadata"]["labels"]["bettertherapy.io/component"] == "miner-report"
        assert api.report["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
        claims.append(CLAIM)
        subnet.news.set()

        async def asked() -> bool:
            return [each["id"] for each in api.report.get("tasks") or []] == [CLAIM.id]

        await eventually_async(asked, 30)
        claims.clear()
        subnet.news.set()

        async def decided() -> bool:
            return not api.report.get("tasks")

        await eventually_async(decided, 30)
        writes = api.writes
        for _ in range(3):
            subnet.news.set()
            await asyncio.sleep(0)
        await chain.server.close()
        await eventually_async(reported("ChainUnreachable"), 60)
        assert api.writes == writes + 1, "what did not change is not written"
        assert api.report["subnet"]["uid"] == 0
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await subnet.close()
        await chain.stop()


async def test_a_coldkey_is_the_miners_last_word(tmp_path: Path, api: Any) -> None:
    given = settings(tmp_path)
    assert given.subnet is not None
    (given.subnet.wallet_dir / "coldkey").write_text("{}")
    with pytest.raises(WalletRefused) as refused:
        Subnet.open(given.subnet, registry=Metrics().registry)
    await report_refusal(given, refused.value, connect=api.connect)
    assert api.report["subnet"]["registration"] == "ColdkeyFound"
    assert "must not be in a cluster" in api.report["subnet"]["message"]
    assert "hotkey" not in api.report["subnet"]


async def test_an_empty_secret_is_told_too_and_without_an_api_server_the_miner_still_ends(
    tmp_path: Path, api: Any, caplog: pytest.LogCaptureFixture
) -> None:
    given = settings(tmp_path)
    assert given.subnet is not None
    (given.subnet.wallet_dir / "hotkey").unlink()
    with pytest.raises(WalletRefused) as refused:
        Subnet.open(given.subnet, registry=Metrics().registry)
    await report_refusal(given, refused.value, connect=api.connect)
    assert api.report["subnet"]["registration"] == "WalletMissing"
    gone = Reached("http://127.0.0.1:1")
    await report_refusal(given, refused.value, connect=lambda: ClusterClient(gone))  # type: ignore[arg-type]
    assert "can't be written" in caplog.text


async def test_outside_a_cluster_nobody_is_told(tmp_path: Path, api: Any) -> None:
    given = settings(tmp_path, pod_name=None)
    assert given.subnet is not None
    subnet = Subnet.open(given.subnet, registry=Metrics().registry)
    await report_standing(given, subnet, connect=api.connect)
    await report_standing(replace(given, tables_dir=tmp_path), subnet, connect=api.connect)
    assert api.writes == 0
    assert registration_report.REFRESH_SECONDS > 0
