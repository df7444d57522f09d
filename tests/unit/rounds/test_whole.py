"""A whole round on the local subnet: miners that really run, receipts, a ledger in SQLite, weights revealed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from bettertherapy_api.round_progress import WeightsProgress
from neurons.chain import Metagraph, MetagraphReader
from neurons.chain.metagraph import Reading
from neurons.ledger import Ledger, Miner
from neurons.ledger.rounds import claims, round_rows
from neurons.miner.upstream import Upstream
from neurons.validator.gateway.asking import Asker, Patience
from neurons.validator.gateway.metrics import Metrics
from neurons.validator.gateway.roster import Roster
from neurons.validator.gateway.standing import Standings
from neurons.validator.gateway.twins import Twins
from neurons.validator.rounds.asking import Examiner
from neurons.validator.rounds.challenges import load_challenges
from neurons.validator.rounds.progress import Progress, Remembered
from neurons.validator.rounds.prometheus import Readings
from neurons.validator.rounds.rewards import Unpaid
from neurons.validator.rounds.round import Means, RoundRun, recompute
from neurons.validator.rounds.scoring import Scorer
from neurons.validator.rounds.service import own
from neurons.validator.rounds.setting import Setter
from neurons.validator.rounds.subnet import RosterSubnet
from neurons.wire.announcement import announce
from neurons.wire.signer import RequestSigner
from tests.unit.chain.conftest import no_symbol_cache, open_local, subnet
from tests.unit.chain.played import NETUID, Subnet, hotkey
from tests.unit.gateway.rogue_miner import BASE, RogueMiner
from tests.unit.rounds.people import ROUND, SAMPLE, order

__all__ = ["no_symbol_cache", "open_local", "subnet"]
CHALLENGES = load_challenges(SAMPLE).challenges


class ExaminedMiner(RogueMiner):
    """Answers each question as it knows it."""

    def __init__(self, name: str, knows: Callable[[Any], str], **fields: Any) -> None:
        super().__init__(name=name, **fields)
        self.knows = knows
        self.keypair = hotkey(name).keypair

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v1/announcement":
            twins = [
                {
                    "name": self.twin,
                    "doctor": None,
                    "versions": [{"adapter": self.adapter, "weightPercent": 100, "pods": 1}],
                }
            ]
            now = time.time_ns() // 10**6
            return web.Response(body=announce(self.keypair, netuid=NETUID, time_ms=now, base=BASE, twins=twins))
        return await super()._handle(request)

    def _answer(self, request: web.BaseRequest, asked: dict[str, Any]) -> web.StreamResponse:
        said = asked["messages"][-1]["content"]
        challenge = next(each for each in CHALLENGES if each.prompt == said)
        one = replace_says(self, self.knows(challenge))
        return RogueMiner._answer(one, request, asked)


def replace_says(miner: ExaminedMiner, text: str) -> Any:
    """The miner as it answers one question: several are under way at once."""
    made = object.__new__(ExaminedMiner)
    made.__dict__.update(miner.__dict__, says=text)
    return made


def knowing(challenge: Any) -> str:
    if challenge.kind == "choice":
        return f"It is best to {challenge.options[challenge.answer]}."
    return str(challenge.reference or challenge.gold)


def guessing(challenge: Any) -> str:
    return "Wait until tomorrow morning, and then somebody will surely know what to do about that."


class OnLoopback:
    """The chain's metagraph with the miners where they really are: the chain takes no address of this machine's own."""

    def __init__(self, reader: MetagraphReader, axons: dict[str, str]) -> None:
        self._reader, self._axons = reader, axons

    def latest(self) -> Reading:
        read = self._reader.latest()
        return replace(read, metagraph=None if read.metagraph is None else self._moved(read.metagraph))

    async def refresh(self) -> Reading:
        await self._reader.refresh()
        return self.latest()

    def _moved(self, metagraph: Metagraph) -> Metagraph:
        return replace(
            metagraph, neurons=tuple(replace(each, axon=self._axons.get(each.hotkey)) for each in metagraph.neurons)
        )


async def test_a_miner_is_asked_for_as_long_as_a_round_lasts(subnet: Subnet, tmp_path: Path) -> None:
    """Its announcement counted for three minutes, and a round takes longer: all behind that was `unreachable`."""
    await subnet.enrol("validator", stake_tao=1000)
    await subnet.enrol("good")
    await subnet.run_epoch()
    now = 0.0
    async with ExaminedMiner("good", knowing) as miner, aiohttp.ClientSession(auto_decompress=False) as session:
        source = OnLoopback(MetagraphReader(subnet.chain(), NETUID), {str(miner.keypair.ss58_address): miner.axon})
        roster = Roster(
            source, RequestSigner(hotkey("validator").keypair), session, private_addresses=True, poll_seconds=3600,
            announce_seconds=0.05, clock=lambda: now,
        )  # fmt: skip
        seen = RosterSubnet(roster, Twins(None))
        await seen.look()
        assert seen.serving(miner.twin)
        now = 500.0
        assert not seen.serving(miner.twin)
        async with seen.followed(), asyncio.timeout(30):
            while not seen.serving(miner.twin):
                await asyncio.sleep(0.01)


async def test_a_round_is_held_and_its_weights_are_revealed_once(subnet: Subnet, tmp_path: Path) -> None:
    await subnet.enrol("validator", stake_tao=1000)
    await subnet.enrol("good", "bad", "forger")
    await subnet.run_epoch()
    miners = [
        ExaminedMiner("good", knowing), ExaminedMiner("bad", guessing),
        ExaminedMiner("forger", knowing, signed_by="Mallory"),
    ]  # fmt: skip
    async with AsyncExitStack() as stack:
        for each in miners:
            await stack.enter_async_context(each)
        ledger = await stack.enter_async_context(await Ledger.open(f"sqlite:///{tmp_path}/ledger.db"))
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        upstream = await stack.enter_async_context(Upstream(connect_seconds=10, idle_seconds=10))
        chain = subnet.chain()
        validator = hotkey("validator")
        signer, twins, metrics = RequestSigner(validator.keypair), Twins(None), Metrics()
        source = OnLoopback(
            MetagraphReader(chain, NETUID), {str(each.keypair.ss58_address): each.axon for each in miners}
        )
        roster = Roster(source, signer, session, private_addresses=True, poll_seconds=3600)
        asker = Asker(
            roster=roster, standings=Standings(), twins=twins, signer=signer, upstream=upstream, metrics=metrics,
            patience=Patience(deadline=60.0, connect=10.0),
        )  # fmt: skip
        seen = RosterSubnet(roster, twins)

        async def no_speeds() -> Readings:
            return Readings(False, "no Prometheus is named, so nobody's speed is known")

        async def no_trust() -> float | None:
            return None

        means = Means(
            ledger=ledger, subnet=seen, examiner=Examiner(asker, scrub=None), scorer=Scorer(judge=None, sources={}),
            speeds=no_speeds, challenges=lambda: load_challenges(SAMPLE), validator=lambda look: own(look, validator),
            trust=no_trust, twins=lambda: {name: twins.of_ledger(name) for name in seen.twins()},
        )  # fmt: skip
        wanted = order(netuid=NETUID, network=subnet.url)
        teller = Remembered()
        results = await RoundRun(wanted, means, Progress(teller, attempt="pod")).run()

        by_hotkey = {each.miner.hotkey: each for each in results.outcomes}
        good, bad, forger = (by_hotkey[str(each.keypair.ss58_address)] for each in miners)
        assert good.attendance.answered == bad.attendance.answered == 12
        assert (good.parts.correctness or 0) > 0.8
        assert (bad.parts.correctness or 0) < 0.3
        assert forger.attendance.unproven == 12
        assert results.rewards.of[forger.miner].unpaid in (Unpaid.UNPROVEN, Unpaid.NO_SCORE)
        assert (await recompute(ledger, ROUND)).digest == results.digest
        rows = await round_rows(ledger.database, ROUND)
        proven = [each for each in rows.answers if each.receipt_valid]
        assert len(proven) == 24
        assert len(rows.answers) == 36
        assert rows.finished is not None

        said: list[WeightsProgress] = []

        async def tell(word: WeightsProgress) -> None:
            said.append(word)

        async def until_the_epoch(_seconds: float) -> None:
            await subnet.run_epoch()

        setter = Setter(ledger=ledger, chain=chain, hotkey=validator, holder="pod", tell=tell, sleep=until_the_epoch)
        last = await setter.set(wanted)
        assert (last.state, last.reason) == ("Revealed", "InForce"), said
        assert said[0].state == "Pending"
        neurons = (await MetagraphReader(chain, NETUID).read()).neurons
        uids = {each.hotkey: each.uid for each in neurons}
        row = subnet.service.chain.state().get("SubtensorModule.Weights", NETUID, uids[validator.address])
        assert row[0] == [uids[good.miner.hotkey], 65535]
        assert uids[forger.miner.hotkey] not in [uid for uid, _ in row]
        assert neurons[uids[good.miner.hotkey]].incentive > 0.9
        again = await setter.set(wanted)
        assert again.state == "Revealed"
        [claimed] = await claims(
            ledger.database, validator=rows.round.validator if rows.round else Miner("5" * 48, 0), netuid=NETUID
        )
        assert [event.outcome for event in claimed.events] == ["committed", "revealed"]
        # What a miner saw of a round is what it sees of a patient.
        assert {tuple(sorted(each)) for each in miners[0].questions} == {("messages", "model")}
        assert len({each["x-session-id"] for each in miners[0].headers}) == 12
