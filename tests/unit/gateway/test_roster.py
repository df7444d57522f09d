"""Who is asked: the chain's miners with what they announce, also while the chain is away."""

from __future__ import annotations

import socket
from pathlib import Path

import aiohttp
import bittensor.config
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from neurons.chain.axon import serve_axon
from neurons.validator.gateway.roster import _code_of
from neurons.validator.gateway.standing import MinerId
from tests.unit.chain.played import NETUID, hotkey, keypair, open_subnet
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.gateway.running_gateway import gateway, neuron, write_miners
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, eventually, held
from tests.unit.miner.signing_miner import INDRA, on_subnet
from tests.unit.receipts.keyring import key


def own_address() -> str:
    """An address of this machine that the chain takes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


async def test_miners_are_found_on_the_chain_and_asked_on_while_it_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bittensor.config, "DEFAULT_TOKEN_SYMBOLS_PATH", tmp_path / "symbols.json")
    subnet = await open_subnet(tmp_path / "chain.db")
    try:
        await subnet.enrol("validator", stake_tao=1000.0)
        await subnet.enrol("miner")
        await subnet.run_epoch()
        mines = on_subnet(tmp_path, keypair("miner-hot"), metagraph_file=None, chain=subnet.url, netuid=NETUID)
        agent = FakeAgent(pod="a", holds=held(INDRA))
        async with agent, RunningMiner(tmp_path, subnet=mines, host="0.0.0.0") as miner:
            miner.route({"indra": Twin(versions=(INDRA,), doctor="Dr. Indra Gurung")})
            miner.report([agent])
            miner.url = miner.url
            await serve_axon(subnet.chain(), hotkey("miner"), NETUID, address=own_address(), port=miner.service.port)
            settings = {"metagraph_file": None, "chain": subnet.url, "netuid": NETUID, "announce_seconds": 0.2}
            async with gateway(tmp_path, names=(), settings=settings, keypair=keypair("validator-hot")) as running:
                roster = running.service.roster
                assert roster is not None
                await eventually(lambda: roster.twins() == ["indra"], 30)
                status, _, document = await running.ask()
                assert status == 200
                assert document["bettertherapy"]["miner"]["hotkey"] == hotkey("miner").address
                await subnet.server.close()
                await roster.refresh_metagraph()
                assert roster.problem is not None
                assert (await running.ask())[0] == 200, "the last metagraph serves"
                _, listed = await running.get("/v1/models")
                assert listed["bettertherapy"]["ageSeconds"] > 0
                assert listed["bettertherapy"]["problem"]
                assert [model["owned_by"] for model in listed["data"]] == ["Dr. Indra Gurung"]
    finally:
        await subnet.stop()


async def test_a_miner_that_comes_to_a_local_subnet_later_is_found_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bittensor.config, "DEFAULT_TOKEN_SYMBOLS_PATH", tmp_path / "symbols.json")
    subnet = await open_subnet(tmp_path / "chain.db")
    try:
        await subnet.enrol("validator", stake_tao=1000.0)
        await subnet.enrol("miner")
        settings = {"metagraph_file": None, "chain": subnet.url, "netuid": NETUID}
        async with gateway(tmp_path, names=(), settings=settings, keypair=keypair("validator-hot")) as running:
            roster = running.service.roster
            assert roster is not None
            assert not roster.members
            await serve_axon(subnet.chain(), hotkey("miner"), NETUID, address=own_address(), port=9)
            # A public chain is looked at every two minutes.
            await eventually(lambda: [each.hotkey for each in roster.members] == [hotkey("miner").address], 60)
    finally:
        await subnet.stop()


async def test_a_hotkey_that_is_registered_anew_inherits_nothing(tmp_path: Path) -> None:
    rogue = RogueMiner(status=500)
    async with gateway(tmp_path, names=("Alice",), rogues=[rogue]) as running:
        for _ in range(3):
            await running.ask()
        old = MinerId(rogue.keypair.ss58_address, 102)
        assert running.service.standings.of[old].capacity == 1.0
        path = running.folder / "metagraph.json"
        write_miners(
            path, [(key("Zoe"), "127.0.0.1:9"), (key("Yan"), "127.0.0.1:9"), (rogue.keypair, rogue.axon)], block=2
        )
        rogue.status = 200
        await running.look()
        assert old not in running.service.standings.of
        assert (await running.ask())[0] == 200
        assert running.service.standings.of[MinerId(rogue.keypair.ss58_address, 103)].failures == 0
        exposition = running.service.metrics.render().decode()
        assert 'registered="102"' not in exposition
        assert 'registered="103"' in exposition


async def test_addresses_that_nobody_should_ask_are_not_asked(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=()) as running:
        roster = running.service.roster
        assert roster is not None
        roster._private = False
        for axon in (
            "127.0.0.1:80",
            "169.254.169.254:80",
            "10.0.0.1:80",
            "localhost:80",
            "8.8.8.8:0",
            "x",
            "",
            "::1:80",
        ):
            assert roster._url(neuron(1, key("Eve"), axon)) is None, axon
        assert str(roster._url(neuron(1, key("Eve"), "8.8.8.8:8091"))) == "http://8.8.8.8:8091"
        assert str(roster._url(neuron(1, key("Eve"), "[2001:4860:4860::8888]:8091"))).startswith("http://[2001:4860")


async def test_health_says_whether_miners_are_known(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=("Alice",)) as running:
        async with running.client.get("/healthz") as response:
            assert response.status == 200
        async with running.client.get("/readyz") as response:
            assert (response.status, (await response.text())[:25]) == (200, "ready: 1 twins at 1 miner")
        running.service.stop()
        await eventually(lambda: running.service._chats is not None and running.service._chats.draining)


async def test_metrics_are_on_a_port_of_their_own_and_nothing_else_is_there(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=("Alice",)) as running:
        await running.ask()
        own = f"http://127.0.0.1:{running.service.metrics_port}"
        async with running.client.get(f"{own}/metrics") as response:
            assert response.headers["Content-Type"].startswith("text/plain")
            exposed = await response.text()
        assert "bettertherapy_gateway_metagraph_age_seconds" in exposed
        assert 'bettertherapy_gateway_requests_total{code="200",twin="indra"} 1.0' in exposed
        async with running.client.get("/metrics") as response:
            assert response.status == 404, "patients' clients need not read them"
        for method, path, status in (("GET", "/v1/models", 404), ("POST", "/metrics", 405), ("GET", "/healthz", 404)):
            async with running.client.request(method, own + path) as response:
                assert response.status == status


async def test_a_question_in_work_is_finished_when_the_gateway_stops(tmp_path: Path) -> None:
    import asyncio

    rogue = RogueMiner(gate=asyncio.Event())
    async with gateway(tmp_path, names=(), rogues=[rogue]) as running:
        asking = asyncio.create_task(running.ask())
        await eventually(lambda: bool(rogue.questions))
        running.service.stop()
        assert rogue.gate is not None
        rogue.gate.set()
        assert (await asking)[0] == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error": {"code": "no_permit", "message": "UID 1 has no validator permit"}}', "no_permit"),
        (b'{"error": {"code": "\\u001b[2J"}}', None),
        (b'{"error": {"code": 7}}', None),
        (b'{"error": "no"}', None),
        (b"[]", None),
        (b"<html>", None),
        (b"x" * 10_000, None),
    ],
)
async def test_of_a_refusal_only_the_word_for_programs_is_told_on(body: bytes, code: str | None) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=403, body=body)

    application = web.Application()
    application.router.add_get("/", refuse)
    async with (
        TestServer(application) as server,
        aiohttp.ClientSession() as http,
        http.get(server.make_url("/")) as came,
    ):
        assert await _code_of(came) == code
