"""What a gateway reports of its subnet, and that it tells the API server so, and again; patients never wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bittensor.config
import pytest

from bettertherapy_api.report import GATEWAY_REPORT_SECONDS, GATEWAY_STALE_SECONDS, GatewayReport, GatewayView, PodRef
from neurons.chain.axon import serve_axon
from neurons.chain.errors import Refused, Unreachable
from neurons.cluster import Backoff, ClusterAccessError, ClusterClient
from neurons.miner.registration import PATIENCE_SECONDS
from neurons.receipts import NeuronEntry
from neurons.validator.gateway import settings, subnet_report
from neurons.validator.gateway.settings import OwnPod
from neurons.validator.gateway.subnet_report import report_view
from neurons.validator.gateway.subnet_view import says_the_same, view
from tests.unit.chain.played import NETUID, hotkey, keypair, open_subnet
from tests.unit.cluster.report_server import ReportServer, report_server
from tests.unit.gateway.running_gateway import gateway
from tests.unit.gateway.test_roster import own_address
from tests.unit.miner.running_miner import eventually

OWN = OwnPod(validator="v", namespace="clinic", name="v-gateway-1", uid="uid-1")
NOW = 1_790_000_600.9
OWN_KEY = "5" + "v" * 47


@dataclass(frozen=True)
class Table:
    neurons: tuple[NeuronEntry, ...] = ()
    netuid: int = 42
    block: int = 1000


@dataclass(frozen=True)
class Read:
    metagraph: Table | None = Table()
    age_seconds: float = 1.0
    problem: Exception | None = None


def sees(reading: Read, *, miners: int = 3, twins: int | None = 2) -> GatewayView:
    found = view(reading, netuid=42, hotkey=None, miners=miners, twins=twins, read_at=1_790_000_000.7, now=NOW)
    assert found is not None
    return found


def test_it_says_how_many_miners_and_twins_it_sees_and_by_which_metagraph() -> None:
    assert sees(Read()).to_dict() == {
        "netuid": 42, "reachable": True, "miners": 3, "twins": 2, "block": 1000, "readAt": "2026-09-21T14:13:20Z",
        "reportedAt": "2026-09-21T14:23:20Z",
    }  # fmt: skip


def test_before_the_chain_was_asked_there_is_nothing_to_say() -> None:
    assert view(Read(None), netuid=42, hotkey=None, miners=0, twins=None, read_at=None, now=NOW) is None


def test_a_chain_that_can_not_be_read_is_told_with_the_time_of_the_last_metagraph() -> None:
    said = sees(Read(age_seconds=PATIENCE_SECONDS, problem=Unreachable("no answer")))
    assert (said.reachable, said.message, said.miners, said.block) == (False, "no answer", 3, 1000)
    assert said.read_at == "2026-09-21T14:13:20Z"


@pytest.mark.parametrize(
    ("row", "permit"), [((OWN_KEY, True), True), ((OWN_KEY, False), False), (("5" + "o" * 47, True), False)]
)
def test_it_says_whether_the_validator_has_its_permit(row: tuple[str, bool], permit: bool) -> None:
    known = Table((NeuronEntry(uid=0, hotkey=row[0], coldkey="5" + "c" * 47, validator_permit=row[1]),))
    said = view(Read(known), netuid=42, hotkey=OWN_KEY, miners=0, twins=0, read_at=None, now=NOW)
    assert said is not None
    assert said.permit is permit


def test_a_question_that_the_chain_turned_away_is_no_news_and_a_refusal_is() -> None:
    assert sees(Read(age_seconds=PATIENCE_SECONDS - 1, problem=Unreachable("too many"))).reachable
    gone = sees(Read(problem=Refused("there is no subnet 42 on this chain")))
    assert (gone.reachable, gone.message) == (False, "there is no subnet 42 on this chain")


def test_without_any_metagraph_no_miner_is_counted() -> None:
    said = view(
        Read(None, float("inf"), Unreachable("no answer")), netuid=42, hotkey="5V", miners=0, twins=0, read_at=None,
        now=NOW,
    )  # fmt: skip
    assert said is not None
    assert said.to_dict() == {
        "netuid": 42, "reachable": False, "message": "no answer", "reportedAt": "2026-09-21T14:23:20Z",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"), [("x" * 5000, "x" * 1024), ("half \ud800", "half ?"), ("", "Unreachable"), ("a\0b", "a b")]
)
def test_whatever_an_endpoint_says_becomes_a_sentence_that_a_report_may_hold(words: str, told: str) -> None:
    said = sees(Read(None, float("inf"), Unreachable(words)))
    assert said.message == told
    report = GatewayReport(pod=PodRef(name="p", uid="u"), gateway=said)
    assert GatewayReport.model_validate_json(report.to_json()) == report


def test_blocks_times_and_the_words_of_each_try_are_nothing_that_somebody_waits_for() -> None:
    one = sees(Read(age_seconds=PATIENCE_SECONDS, problem=Unreachable("no answer within 30 seconds")))
    other = one.model_copy(update={"message": "connection refused", "block": 7, "reported_at": "2026-09-21T15:00:00Z"})
    assert says_the_same(one, other)
    for differs in ({"miners": 2}, {"twins": 1}, {"reachable": True}, {"netuid": 1}):
        assert not says_the_same(one, other.model_copy(update=differs))


def test_a_ledger_that_is_away_is_told_with_the_reason_and_is_news_by_itself() -> None:
    why = "the ledger at postgresql://u:***@db/x doesn't work"
    said = view(Read(), netuid=42, hotkey=None, miners=3, twins=2, read_at=None, now=NOW, ledger_trouble=why)
    assert said is not None
    assert said.ledger_trouble == why
    assert not says_the_same(said, said.model_copy(update={"ledger_trouble": None}))
    assert says_the_same(said, said.model_copy(update={"ledger_trouble": "another try's words"}))


def test_the_operator_waits_for_several_reports_before_it_takes_one_for_old() -> None:
    assert GATEWAY_STALE_SECONDS >= 3 * GATEWAY_REPORT_SECONDS


@pytest.fixture
async def api() -> AsyncIterator[ReportServer]:
    async with report_server() as kept:
        yield kept


@dataclass
class Told:
    """A reporter with what it sees, and a clock that the test turns."""

    sees: GatewayView | None
    news: asyncio.Event
    now: float = 0.0
    asked: int = 0
    """How often it looked."""

    def see(self) -> GatewayView | None:
        self.asked += 1
        return self.sees


@asynccontextmanager
async def telling(api: ReportServer, first: GatewayView | None) -> AsyncIterator[Told]:
    told = Told(first, asyncio.Event())
    running = asyncio.create_task(report_view(OWN, told.see, told.news, connect=api.connect, clock=lambda: told.now))
    try:
        told.news.set()
        yield told
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def kept(api: ReportServer, **wanted: Any) -> Callable[[], bool]:
    return lambda: api.report is not None and wanted.items() <= api.report["gateway"].items()


async def test_the_report_is_its_pods_and_found_by_the_validators_label(api: ReportServer) -> None:
    async with telling(api, sees(Read())):
        await eventually(kept(api, miners=3))
        assert api.report is not None
        assert api.report["pod"] == {"name": "v-gateway-1", "uid": "uid-1"}
        assert api.report["metadata"] == {
            "name": "v-gateway-1",
            "labels": {"bettertherapy.io/validator": "v", "bettertherapy.io/component": "gateway-report"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "v-gateway-1", "uid": "uid-1"}],
        }
        assert api.paths == ["/apis/bettertherapy.io/v1alpha1/namespaces/clinic/podreports"]


async def test_what_changed_is_written_at_once_and_what_did_not_only_after_a_while(api: ReportServer) -> None:
    async with telling(api, sees(Read())) as told:
        await eventually(kept(api, miners=3))
        told.sees = sees(Read(), miners=4)
        told.news.set()
        await eventually(kept(api, miners=4))
        assert api.writes == 2
        told.sees, told.now = sees(Read(Table(block=1010)), miners=4), 60.0
        told.news.set()
        await eventually(lambda: not told.news.is_set())
        told.sees, told.now = sees(Read(Table(block=1020)), miners=4), 100.0
        told.news.set()
        await eventually(kept(api, block=1020))
        assert api.writes == 3, "nothing new, a minute after it was said, is no write"


async def test_without_any_news_it_is_said_anew_now_and_then(
    api: ReportServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subnet_report, "REPORT_SECONDS", 0.05)
    async with telling(api, sees(Read())) as told:
        await eventually(kept(api, block=1000))
        told.sees, told.now = sees(Read(Table(block=1001))), 1.0
        await eventually(kept(api, block=1001))


async def test_a_report_that_is_refused_or_gone_is_written_again_and_told_once(
    api: ReportServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "next", lambda self: 0.01)
    api.refuses = True
    async with telling(api, sees(Read())) as told:
        await eventually(lambda: told.asked >= 3)
        api.refuses = False
        await eventually(kept(api, miners=3))
        told.sees = sees(Read(), miners=5)
        api.report = None  # somebody deleted it
        told.news.set()
        await eventually(kept(api, miners=5))
    assert caplog.text.count("can't be written") == 1
    assert "by policy" in caplog.text


async def test_while_nothing_is_known_nothing_is_said(api: ReportServer) -> None:
    async with telling(api, None) as told:
        await eventually(lambda: not told.news.is_set())
        told.sees = sees(Read())
        told.news.set()
        await eventually(kept(api, miners=3))
        assert api.writes == 1


async def test_outside_a_cluster_a_gateway_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def nowhere() -> ClusterClient:
        raise ClusterAccessError("not in a pod")

    running = asyncio.create_task(report_view(OWN, lambda: None, asyncio.Event(), connect=nowhere))
    await eventually(lambda: "not in a pod" in caplog.text)
    assert not running.done()
    running.cancel()


IN_POD = {"POD_VALIDATOR": "v", "POD_NAMESPACE": "clinic", "POD_NAME": "v-gateway-1", "POD_UID": "uid-1"}
GIVEN = ["--keys-file=k", "--chain=finney", "--netuid=42"]


def test_a_gateway_knows_its_pod_by_the_environment_or_not_at_all() -> None:
    assert settings.parse(GIVEN, IN_POD).own_pod == OWN
    for missing in IN_POD:
        assert settings.parse(GIVEN, {**IN_POD, missing: ""}).own_pod is None


async def test_a_gateway_tells_of_the_chain_that_it_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: ReportServer
) -> None:
    monkeypatch.setattr(bittensor.config, "DEFAULT_TOKEN_SYMBOLS_PATH", tmp_path / "symbols.json")
    monkeypatch.setattr("neurons.validator.gateway.subnet_view.PATIENCE_SECONDS", 1.0)
    subnet = await open_subnet(tmp_path / "chain.db")
    try:
        await subnet.enrol("validator", stake_tao=1000.0)
        await subnet.enrol("miner", "silent")
        await subnet.run_epoch()
        given = {
            "metagraph_file": None, "chain": subnet.url, "netuid": NETUID, "poll_seconds": 0.2, "announce_seconds": 0.2,
            "own_pod": OWN,
        }  # fmt: skip
        began = datetime.now(UTC).replace(microsecond=0)
        async with gateway(
            tmp_path, names=(), settings=given, keypair=keypair("validator-hot"), connect=api.connect
        ) as running:
            await eventually(kept(api, reachable=True, miners=0, twins=0), 30)
            await serve_axon(subnet.chain(), hotkey("miner"), NETUID, address=own_address(), port=9)
            await eventually(kept(api, reachable=True, miners=1, twins=0), 30)
            assert api.report is not None
            said = GatewayReport.model_validate(api.report).gateway
            assert (said.netuid, said.message) == (NETUID, None)
            assert said.read_at is not None
            assert began <= datetime.fromisoformat(said.read_at) <= datetime.fromisoformat(said.reported_at)
            await subnet.server.close()
            await eventually(kept(api, reachable=False, miners=1), 60)
            said = GatewayReport.model_validate(api.report).gateway
            assert said.message
            assert running.service.roster is not None
            assert said.block == running.service.roster.block
    finally:
        await subnet.stop()
