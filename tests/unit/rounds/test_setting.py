"""Weights of a round on the local subnet: by one process, once an epoch, and known to be in force; or said why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.round_progress import RoundOrder, WeightsProgress
from neurons.chain import Chain, Submission
from neurons.ledger import Ledger, Miner
from neurons.ledger.records import Round, RoundFinished
from neurons.ledger.rounds import Claimed, claims
from neurons.validator.rounds import setting
from neurons.validator.rounds.planning import round_id_of
from neurons.validator.rounds.setting import Setter
from neurons.validator.rounds.steps import key
from tests.unit.chain.conftest import OpenSubnet, no_symbol_cache, open_local, subnet
from tests.unit.chain.played import NETUID, Subnet, hotkey
from tests.unit.rounds.people import STARTED_MS, order
from tests.unit.rounds.played import Killed, MortalLedger

__all__ = ["no_symbol_cache", "open_local", "subnet"]
LATER = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"


@dataclass
class Stage:
    """A subnet with a validator and two miners, and a ledger."""

    subnet: Subnet
    url: str
    known: dict[str, Miner] = field(default_factory=dict)
    said: list[tuple[str, WeightsProgress]] = field(default_factory=list)
    sent: list[Submission] = field(default_factory=list)
    """What was really sent to the chain, and not found there."""

    def setter(self, ledger: Ledger, holder: str = "pod-1", *, sleep: Any = None, chain: Chain | None = None) -> Setter:
        async def tell(word: WeightsProgress) -> None:
            self.said.append((holder, word))

        async def an_epoch(_seconds: float) -> None:
            await self.subnet.run_epoch()

        return Setter(
            ledger=ledger, chain=chain or self.subnet.chain(), hotkey=hotkey("validator"), holder=holder, tell=tell,
            sleep=sleep or an_epoch,
        )  # fmt: skip

    async def finished(self, ledger: Ledger, wanted: RoundOrder, *, at_ms: int = STARTED_MS, **weights: Any) -> None:
        """Write a round that ended with weights of 3 to 1 for the two miners."""
        document = {
            "of": {key(self.known["a"]): 750_000, key(self.known["b"]): 250_000}, "lostPercent": 0, "quorum": True,
        } | weights  # fmt: skip
        round_id = round_id_of(wanted.uid)
        await ledger.record(
            Round(round_id, wanted.name, self.known["validator"], 7, "sha256:" + "0" * 64, at_ms),
            RoundFinished(round_id, "sha256:" + "1" * 64, at_ms + 1, document),
        )

    async def claimed(self, ledger: Ledger) -> list[Claimed]:
        return list(await claims(ledger.database, validator=self.known["validator"], netuid=NETUID))

    def row(self) -> Any:
        return self.subnet.service.chain.state().get("SubtensorModule.Weights", NETUID, 0)


async def staged(on: Subnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    await on.enrol("validator", stake_tao=1000)
    await on.enrol("a", "b")
    await on.run_epoch()
    made = Stage(on, f"sqlite:///{tmp_path}/ledger.db")
    neurons = (await setting.MetagraphReader(on.chain(), NETUID).read()).neurons
    by_hotkey = {each.hotkey: Miner(each.hotkey, each.block_at_registration) for each in neurons}
    made.known = {name: by_hotkey[hotkey(name).address] for name in ("validator", "a", "b")}
    really = setting.set_weights

    async def counted(*args: Any, **fields: Any) -> Submission:
        submission = await really(*args, **fields)
        if not submission.repeated:
            made.sent.append(submission)
        return submission

    monkeypatch.setattr(setting, "set_weights", counted)
    return made


@pytest.fixture
async def stage(subnet: Subnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return await staged(subnet, tmp_path, monkeypatch)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with await Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as opened:
        yield opened


@pytest.fixture
def wanted() -> RoundOrder:
    return order(netuid=NETUID)


async def test_two_leaders_at_once_set_weights_once(stage: Stage, ledger: Ledger, wanted: RoundOrder) -> None:
    await stage.finished(ledger, wanted)

    async def until_it_is_sent(_seconds: float) -> None:
        if stage.sent:
            await stage.subnet.run_epoch()
        await asyncio.sleep(0)

    async with await Ledger.open(stage.url) as other:
        ends = await asyncio.gather(
            *(
                stage.setter(of, holder, sleep=until_it_is_sent).set(wanted)
                for of, holder in ((ledger, "pod-1"), (other, "pod-2"))
            )
        )
    assert [each.state for each in ends] == ["Revealed", "Revealed"]
    assert len(stage.sent) == 1
    [claimed] = await stage.claimed(ledger)
    assert sorted(event.outcome for event in claimed.events) == ["committed", "revealed"]
    assert stage.row() == [[1, 65535], [2, 21845]]


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("write", [1, 2, 3])
async def test_killed_at_any_write_it_sets_weights_once(
    stage: Stage, wanted: RoundOrder, write: int, committed: bool
) -> None:
    async with await MortalLedger.open(stage.url) as mortal:
        await stage.finished(mortal, wanted)
        mortal.writes, mortal.dies_at, mortal.committed = 0, write, committed
        with pytest.raises(Killed):
            await stage.setter(mortal).set(wanted)
        assert (await stage.setter(mortal).set(wanted)).state == "Revealed"
    assert len(stage.sent) == 1
    assert stage.row() == [[1, 65535], [2, 21845]]


async def test_who_comes_after_a_silent_leader_looks_at_the_chain_first(stage: Stage, wanted: RoundOrder) -> None:
    async with await MortalLedger.open(stage.url) as mortal:
        await stage.finished(mortal, wanted)
        mortal.writes, mortal.dies_at = 0, 2  # sent, and not written down
        with pytest.raises(Killed):
            await stage.setter(mortal).set(wanted)
        clock = [setting.now_ms()]

        async def passing(_seconds: float) -> None:
            clock[0] += int(setting.LEASE_SECONDS * 1000) + 1
            await stage.subnet.run_epoch()

        other = stage.setter(mortal, "pod-2", sleep=passing)
        object.__setattr__(other, "now_ms", lambda: clock[0])
        assert (await other.set(wanted)).state == "Revealed"
    assert next(said.reason for holder, said in stage.said if holder == "pod-2") == "AnotherSets"
    assert len(stage.sent) == 1


async def test_a_second_round_in_an_epoch_leaves_the_first_ones_weights(stage: Stage, ledger: Ledger) -> None:
    first, second = order(netuid=NETUID), order(netuid=NETUID, uid=LATER, name="r2")
    await stage.finished(ledger, first)

    async def gone(_seconds: float) -> None:
        raise Killed

    with pytest.raises(Killed):
        await stage.setter(ledger, sleep=gone).set(first)
    swapped = {key(stage.known["b"]): 1_000_000}
    await stage.finished(ledger, second, at_ms=STARTED_MS + 60_000, of=swapped)
    said = await stage.setter(ledger, "pod-2").set(second)
    assert (said.state, said.reason) == ("Withheld", "SetThisEpoch")
    assert (await stage.setter(ledger).set(first)).state == "Revealed"
    assert stage.row() == [[1, 65535], [2, 21845]]
    assert len(stage.sent) == 1


async def test_a_missed_reveal_is_told_and_set_anew(stage: Stage, ledger: Ledger, wanted: RoundOrder) -> None:
    await stage.finished(ledger, wanted)
    chain = stage.subnet.service.chain
    spoilt: list[int] = []

    async def spoiling(_seconds: float) -> None:
        if not spoilt:
            # As if drand had published nothing until well after the epoch in which it is due.
            epoch = chain.state().get("SubtensorModule.SubnetEpochIndex", NETUID)
            waiting = chain.state().get("SubtensorModule.TimelockedWeightCommits", NETUID, epoch)
            waiting[0][3] += 10_000
            spoilt.append(epoch)
            item = f"SubtensorModule.TimelockedWeightCommits/{NETUID}/{epoch}"
            await stage.subnet.service.make_blocks(1, {item: waiting})
        await stage.subnet.run_epoch()

    assert (await stage.setter(ledger, sleep=spoiling).set(wanted)).state == "Revealed"
    assert ("Missed", "RevealMissed") in [(said.state, said.reason) for _, said in stage.said]
    first, second = await stage.claimed(ledger)
    assert [event.outcome for event in first.events] == ["committed", "missed"]
    assert [event.outcome for event in second.events] == ["committed", "revealed"]
    assert second.claim.epoch > first.claim.epoch
    assert stage.row() == [[1, 65535], [2, 21845]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stake_threshold": 10**13}, "TooLittleStake"),
        ({"hyperparameters": {"min_allowed_weights": 3}}, "TooFewWeights"),
        ({"hyperparameters": {"weights_version": 7}}, "OldVersion"),
    ],
)
async def test_what_the_chain_would_refuse_is_said_before_anything_is_sent(
    open_local: OpenSubnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, wanted: RoundOrder,
    changes: dict[str, Any], reason: str,
) -> None:  # fmt: skip
    stage = await staged(await open_local(**changes), tmp_path, monkeypatch)
    await stage.finished(ledger, wanted)
    said = await stage.setter(ledger).set(wanted)
    assert (said.state, said.reason) == ("Refused", reason)
    assert stage.sent == []
    assert await stage.claimed(ledger) == []


async def test_what_only_the_chain_refuses_is_told_in_its_words(
    open_local: OpenSubnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, wanted: RoundOrder
) -> None:
    stage = await staged(await open_local(stake_threshold=10**13), tmp_path, monkeypatch)
    await stage.finished(ledger, wanted)
    monkeypatch.setattr(setting, "preflight", lambda *args, **fields: None)  # it changed since it was looked at
    said = await stage.setter(ledger).set(wanted)
    assert (said.state, said.reason) == ("Refused", "NotEnoughStakeToSetWeights")
    assert "stake" in said.message
    [claimed] = await stage.claimed(ledger)
    assert [event.outcome for event in claimed.events] == ["refused"]


async def test_without_a_permit_it_waits_and_says_so(stage: Stage, ledger: Ledger, wanted: RoundOrder) -> None:
    await stage.finished(ledger, wanted)
    chain = stage.subnet.service.chain
    permits = chain.state().get("SubtensorModule.ValidatorPermit", NETUID)
    await stage.subnet.advance(ValidatorPermit=[False] * len(permits))
    turns = iter(range(20))

    async def an_epoch(_seconds: float) -> None:
        next(turns)
        await stage.subnet.run_epoch()

    assert (await stage.setter(ledger, sleep=an_epoch).set(wanted)).state == "Revealed"
    assert stage.said[0][1].reason == "NoPermit"


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"quorum": False}, "QuorumMissed"),
        ({"of": {}, "note": "nobody has a score above zero: no weights"}, "NoWeights"),
    ],
)
async def test_weights_that_are_not_to_be_set_are_withheld(
    stage: Stage, ledger: Ledger, wanted: RoundOrder, weights: dict[str, Any], reason: str
) -> None:
    await stage.finished(ledger, wanted, **weights)
    said = await stage.setter(ledger).set(wanted)
    assert (said.state, said.reason) == ("Withheld", reason)
    assert stage.sent == []


async def test_nobody_inherits_a_weight_with_a_uid(stage: Stage, ledger: Ledger, wanted: RoundOrder) -> None:
    gone = Miner(stage.known["a"].hotkey, stage.known["a"].registered_block - 1)
    await stage.finished(ledger, wanted, of={key(gone): 750_000, key(stage.known["b"]): 250_000})
    assert (await stage.setter(ledger).set(wanted)).state == "Revealed"
    assert stage.row() == [[2, 65535]]
