"""Sets a round's weights on the chain: once an epoch, by one process, and known to be in force.

The lock is a row of the ledger under a key of validator, subnet, epoch and attempt: of two that want to write it one
does. Whoever has it may be killed at any point: who comes after it (the same process begun again, or another when it is
silent) looks at the chain first (`set_weights` with the claim's block), so that nothing is set twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import bittensor as bt

from bettertherapy_api.round_progress import RoundOrder, WeightsProgress
from neurons.chain import (
    Chain,
    ChainError,
    EpochStatus,
    Hotkey,
    Hyperparameters,
    Identity,
    Metagraph,
    MetagraphReader,
    Neuron,
    Outcome,
    Refused,
    Submission,
    TooEarly,
    by_uid,
    read_epoch,
    read_hyperparameters,
    read_outcome,
    set_weights,
)
from neurons.ledger import Ledger
from neurons.ledger.records import Miner, RoundFinished, WeightsClaim, WeightsEvent, derived_id
from neurons.ledger.rounds import Claimed, claims, finished_rounds, round_rows
from neurons.validator.rounds.errors import RoundError
from neurons.validator.rounds.planning import round_id_of
from neurons.validator.rounds.reporting import moment
from neurons.validator.rounds.round import now_ms
from neurons.validator.rounds.steps import miner_of

log = logging.getLogger(__name__)

VERSION_KEY: Final = 1
"""Of the way in which this release scores; a subnet's owner may refuse older ones."""
LEASE_SECONDS: Final = 180.0
"""After so long without a word the holder of a claim is taken for gone; a write takes 120 s at most."""
MOST_ATTEMPTS: Final = 8
"""In one epoch; and epochs, when a reveal was missed."""
LONGEST_PAUSE: Final = 60.0
COMMITTED, REVEALED, MISSED, SUPERSEDED, REFUSED = "committed", "revealed", "missed", "superseded", "refused"
_ANOTHER: Final = ("AnotherSets", "another process is setting weights now")
_ENDED: Final = frozenset({REVEALED, MISSED, SUPERSEDED, REFUSED})


@dataclass(frozen=True, slots=True)
class Preflight:
    """What stands against setting weights; the SDK looks at none of it."""

    reason: str
    message: str
    waits: bool
    """Whether it may pass by itself."""


def preflight(
    neuron: Neuron, hyperparameters: Hyperparameters, *, block: int, threshold: float, count: int
) -> Preflight | None:
    """Return what stands against it, the first that does; `threshold` is the least stake, in the subnet's alpha."""
    if neuron.stake < threshold:
        return Preflight("TooLittleStake", f"the hotkey has a stake of {neuron.stake:g}, and {threshold:g} are needed: "
                         "stake more with its coldkey", waits=False)  # fmt: skip
    if not neuron.validator_permit:
        return Preflight("NoPermit", "the hotkey has no validator permit: it is given at an epoch, to the validators "
                         f"with most stake ({hyperparameters.max_validators} of them)", waits=True)  # fmt: skip
    if hyperparameters.weights_version > VERSION_KEY:
        return Preflight("OldVersion", f"the subnet takes weights from version {hyperparameters.weights_version} on, "
                         f"and this release has {VERSION_KEY}: install a newer one", waits=False)  # fmt: skip
    if count < hyperparameters.min_allowed_weights:
        return Preflight("TooFewWeights", f"the subnet takes no fewer than {hyperparameters.min_allowed_weights} "
                         f"weights, and {count} miners have one", waits=False)  # fmt: skip
    free_at = neuron.last_update + hyperparameters.weights_rate_limit
    if neuron.last_update > neuron.block_at_registration and block < free_at:
        return Preflight("TooEarly", f"weights were set at block {neuron.last_update}; the next may be set from block "
                         f"{free_at} on", waits=True)  # fmt: skip
    return None


@dataclass(frozen=True, kw_only=True)
class Setter:
    """What it takes to set weights."""

    ledger: Ledger
    chain: Chain
    hotkey: Hotkey
    holder: str
    """This process, the same when it begins again."""
    tell: Callable[[WeightsProgress], Awaitable[None]]
    now_ms: Callable[[], int] = now_ms
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    longest_seconds: float = 6 * 3600.0
    """After which it is given up for now."""

    async def set(self, order: RoundOrder) -> WeightsProgress:
        """Set the round's weights and wait until they are in force; returns what became of them.

        Raises:
            RoundError: it can't be done, or not now.
            LedgerError: the ledger is away.
        """
        until = self.now_ms() + self.longest_seconds * 1000
        if order.rewards is None:
            return await self._say(state="Withheld", reason="NotOrdered", message="the validator sets no weights")
        round_id = round_id_of(order.uid)
        rows = await round_rows(self.ledger.database, round_id)
        if rows.round is None or rows.finished is None:
            raise RoundError("BadOrder", "the round isn't finished, so it has no weights", retryable=True)
        validator = rows.round.validator
        if (held := _withheld(rows.finished)) is not None:
            return await self._say(state="Withheld", reason=held[0], message=held[1])
        missed = 0
        while True:
            newest = await finished_rounds(self.ledger.database, validator=validator)
            if newest and newest[0][0].round_id != round_id:
                mine = await self._mine(validator, order.netuid, round_id)
                if mine is None:
                    return await self._say(
                        state="Withheld", reason="NewerRound", message="a newer round's weights are set instead"
                    )
            said = await self._once(order, round_id, validator, rows.finished)
            if said is not None and said.state == "Missed" and missed < MOST_ATTEMPTS:
                missed += 1
                said = None
            if said is not None:
                return said
            if self.now_ms() >= until:
                raise RoundError("ChainUnreachable", "the weights could not be set in time; it is tried again",
                                 retryable=True)  # fmt: skip

    async def _once(
        self, order: RoundOrder, round_id: str, validator: Miner, finished: RoundFinished
    ) -> WeightsProgress | None:
        """Do what can be done now, and wait; None to look again."""
        try:
            if (mine := await self._mine(validator, order.netuid, round_id)) is not None:
                return await self._confirm(mine, finished)
            return await self._begin(order, round_id, validator, finished)
        except ChainError as error:
            return await self._troubled(error)

    async def _begin(
        self, order: RoundOrder, round_id: str, validator: Miner, finished: RoundFinished
    ) -> WeightsProgress | None:
        """Send the weights if they may be sent now; what has to pass first is told and waited for."""
        metagraph = await MetagraphReader(self.chain, order.netuid).read()
        neuron, epoch = _own(metagraph, validator), await read_epoch(self.chain, order.netuid)
        weights = by_uid(metagraph, _weights(finished))
        if not weights:
            return await self._say(
                state="Withheld", reason="NobodyLeft", message="nobody with a weight is registered any more"
            )
        if await self._set_by_another(validator, order.netuid, epoch, round_id):
            return await self._say(
                state="Withheld", reason="SetThisEpoch", epoch=epoch.index,
                message="another round's weights were set in this epoch, and they may be set once; those stay in force",
            )  # fmt: skip
        claim = await self._begun(validator, order.netuid, round_id)
        if claim is None:
            against = preflight(
                neuron, await read_hyperparameters(self.chain, order.netuid), block=epoch.block,
                threshold=await read_stake_threshold(self.chain), count=len(weights),
            )  # fmt: skip
            if against is not None and not against.waits:
                return await self._say(
                    state="Refused", reason=against.reason, message=against.message, epoch=epoch.index
                )
            if against is None:
                claim = await self._claim(round_id, validator, order.netuid, epoch, finished)
            else:
                await self._wait_for(against.reason, against.message, epoch.index)
        elif self._held_by_another(claim):
            await self._wait_for(*_ANOTHER, claim.epoch)
            claim = None
        if claim is None:
            await self._pause(epoch)
            return None
        # Of a claim that was begun before nothing is known: the chain is looked at before anything is sent.
        return await self._submit(claim, weights, finished, order)

    def _held_by_another(self, claim: WeightsClaim) -> bool:
        return claim.holder != self.holder and self.now_ms() - claim.at_ms < LEASE_SECONDS * 1000

    async def _wait_for(self, reason: str, message: str, epoch: int) -> None:
        await self._say(state="Waiting", reason=reason, message=message, epoch=epoch)

    async def _claim(
        self, round_id: str, validator: Miner, netuid: int, epoch: EpochStatus, finished: RoundFinished
    ) -> WeightsClaim | None:
        """Return the claim under which this process may set weights in this epoch; None while another has it."""
        made = await claims(self.ledger.database, validator=validator, netuid=netuid, epoch=epoch.index)
        attempt = made[-1].claim.attempt + 1 if made else 1
        against = self._claimed_already(made[-1]) if made else None
        if against is None and attempt > MOST_ATTEMPTS:
            against = "TriedEnough", "it is tried again in the next epoch"
        if against is not None:
            await self._wait_for(*against, epoch.index)
            return None
        # A claim that follows a silent one takes over its block: what that one may have set is found by it.
        since = made[-1].claim.since_block if made and not made[-1].events else epoch.block
        claim = WeightsClaim(
            claim_id=derived_id(
                "weights", validator.hotkey, str(validator.registered_block), str(netuid), str(epoch.index),
                str(attempt),
            ),
            round_id=round_id, validator=validator, netuid=netuid, epoch=epoch.index, attempt=attempt,
            holder=self.holder, since_block=since, at_ms=self.now_ms(), weights=finished.weights["of"],
        )  # fmt: skip
        written = await self.ledger.record(claim)
        return claim if written.new else None

    async def _set_by_another(self, validator: Miner, netuid: int, epoch: EpochStatus, round_id: str) -> bool:
        made = await claims(self.ledger.database, validator=validator, netuid=netuid, epoch=epoch.index)
        return any(each.claim.round_id != round_id and _committed(each) for each in made)

    def _claimed_already(self, last: Claimed) -> tuple[str, str] | None:
        """Return what an epoch's newest claim has against another one: reason and message."""
        if _committed(last):
            return "Committed", "weights were set in this epoch already: they are set anew in the next"
        # Of another round of this validator.
        silent = not last.events and self.now_ms() - last.claim.at_ms < LEASE_SECONDS * 1000
        return _ANOTHER if silent else None

    async def _submit(
        self, claim: WeightsClaim, weights: Mapping[int, float], finished: RoundFinished, order: RoundOrder
    ) -> WeightsProgress | None:
        try:
            submission = await set_weights(
                self.chain, self.hotkey, order.netuid, weights, since=claim.since_block + 1, version_key=VERSION_KEY
            )
        except Refused as error:
            await self._event(claim, REFUSED, detail=str(error))
            if isinstance(error, TooEarly):
                await self._say(state="Waiting", reason="TooEarly", message=str(error), epoch=claim.epoch)
                await self.sleep(LONGEST_PAUSE / 5)
                return None
            return await self._say(
                state="Refused", reason=error.name or "Refused", message=str(error), epoch=claim.epoch
            )
        await self._event(
            claim, COMMITTED, block=submission.block,
            evidence={"row": [list(pair) for pair in submission.row], "revealRound": submission.reveal_round},
        )  # fmt: skip
        await self._say(
            state="Pending", reason="Committed", message="committed; the chain opens it at a later epoch",
            block=submission.block, epoch=claim.epoch, miners=len(weights),
            burn_percent=finished.weights["lostPercent"],
        )  # fmt: skip
        return None

    async def _confirm(self, mine: Claimed, finished: RoundFinished) -> WeightsProgress | None:
        claim = mine.claim
        sent = next(event for event in mine.events if event.outcome == COMMITTED)
        ended = next((event for event in reversed(mine.events) if event.outcome in _ENDED), None)
        told = {
            "block": sent.block, "epoch": claim.epoch, "miners": len(sent.evidence["row"]),
            "burn_percent": finished.weights["lostPercent"],
        }  # fmt: skip
        if ended is None:
            submission = Submission(
                netuid=claim.netuid, hotkey=claim.validator.hotkey, block=sent.block or 0,
                row=tuple((int(uid), int(value)) for uid, value in sent.evidence["row"]),
                reveal_round=sent.evidence["revealRound"],
            )  # fmt: skip
            outcome = await read_outcome(self.chain, submission)
            if outcome is Outcome.PENDING:
                await self._say(
                    state="Pending",
                    reason="Committed",
                    message="committed; the chain opens it at a later epoch",
                    **told,
                )
                await self._pause(await read_epoch(self.chain, claim.netuid))
                return None
            ended = await self._event(claim, outcome.value.lower(), block=sent.block)
        match ended.outcome:
            case "revealed":
                return await self._say(
                    state="Revealed", reason="InForce", message="the chain has these weights",
                    revealed_time=moment(ended.at_ms), **told,
                )  # fmt: skip
            case "superseded":
                return await self._say(
                    state="Superseded",
                    reason="Superseded",
                    message="later weights of the hotkey took their place",
                    **told,
                )
            case _:
                return await self._say(
                    state="Missed",
                    reason="RevealMissed",
                    message="the chain never opened the commit; it is set anew",
                    **told,
                )

    async def _mine(self, validator: Miner, netuid: int, round_id: str) -> Claimed | None:
        """Return the round's newest claim whose weights are on the chain, or were; not one that was missed."""
        made = [
            each
            for each in await claims(self.ledger.database, validator=validator, netuid=netuid)
            if each.claim.round_id == round_id
        ]
        for each in reversed(made):
            outcomes = {event.outcome for event in each.events}
            if COMMITTED in outcomes and MISSED not in outcomes:
                return each
        return None

    async def _begun(self, validator: Miner, netuid: int, round_id: str) -> WeightsClaim | None:
        """Return the round's newest claim, if nothing is known of what became of it."""
        made = [
            each
            for each in await claims(self.ledger.database, validator=validator, netuid=netuid)
            if each.claim.round_id == round_id
        ]
        return made[-1].claim if made and not made[-1].events else None

    async def _event(
        self, claim: WeightsClaim, outcome: str, *, block: int | None = None, detail: str = "",
        evidence: Mapping[str, Any] | None = None,
    ) -> WeightsEvent:  # fmt: skip
        event = WeightsEvent(
            event_id=derived_id("weights-event", claim.claim_id, outcome), claim_id=claim.claim_id, outcome=outcome,
            at_ms=self.now_ms(), block=block, detail=detail[:1024], evidence=evidence or {},
        )  # fmt: skip
        await self.ledger.record(event)
        return event

    async def _troubled(self, error: ChainError) -> WeightsProgress | None:
        if error.retryable:
            await self._say(state="Waiting", reason=type(error).__name__, message=str(error))
            await self.sleep(LONGEST_PAUSE / 5)
            return None
        kind = "NotRegistered" if type(error).__name__ in ("NotRegistered", "ForeignOwner") else type(error).__name__
        return await self._say(state="Refused", reason=kind, message=str(error))

    async def _pause(self, epoch: EpochStatus) -> None:
        left = epoch.seconds_left
        await self.sleep(min(LONGEST_PAUSE, max(1.0, left if left is not None else LONGEST_PAUSE)))

    async def _say(self, **fields: Any) -> WeightsProgress:
        said = WeightsProgress(attempt=self.holder, **fields)
        await self.tell(said)
        return said


async def read_stake_threshold(chain: Chain) -> float:
    """Return the least stake with which weights may be set, in alpha. Raises ChainError."""

    async def question(client: bt.Client) -> float:
        view = await client.at()
        return int(await view.query(bt.storage.SubtensorModule.StakeThreshold, []) or 0) / 1e9

    return await chain.ask(question)


async def read_consensus(chain: Chain, netuid: int) -> dict[int, float]:
    """Return the stake-weighted consensus of the last epoch by UID, 0 to 1. Raises ChainError."""

    async def question(client: bt.Client) -> dict[int, float]:
        view = await client.at()
        found = await view.query(bt.storage.SubtensorModule.Consensus, [netuid])
        return {uid: int(value) / 65535 for uid, value in enumerate(found or [])}

    return await chain.ask(question)


async def last_row(ledger: Ledger, *, validator: Miner, netuid: int) -> dict[int, float]:
    """Return the weights by UID that the validator last knew to be in force. Raises LedgerDown."""
    for each in reversed(await claims(ledger.database, validator=validator, netuid=netuid)):
        if any(event.outcome == REVEALED for event in each.events):
            sent = next(event for event in each.events if event.outcome == COMMITTED)
            return {int(uid): float(value) for uid, value in sent.evidence["row"]}
    return {}


def _committed(claimed: Claimed) -> bool:
    return any(event.outcome == COMMITTED for event in claimed.events)


def _withheld(finished: RoundFinished) -> tuple[str, str] | None:
    weights = finished.weights
    if not weights.get("quorum", True):
        return "QuorumMissed", "too few miners were scored for weights to be set"
    if not weights.get("of"):
        return "NoWeights", str(weights.get("note") or "no miner has a weight")
    return None


def _weights(finished: RoundFinished) -> dict[Identity, float]:
    found = {}
    for word, weight in finished.weights["of"].items():
        miner = miner_of(word)
        found[Identity(miner.hotkey, miner.registered_block)] = float(weight)
    return found


def _own(metagraph: Metagraph, validator: Miner) -> Neuron:
    return metagraph.registered(validator.hotkey, identity=Identity(validator.hotkey, validator.registered_block))
