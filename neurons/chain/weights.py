"""Setting weights, and knowing what became of them: a commit that is in a block is not yet a weight that counts.

`set_weights` may be called again with the same `since`: what is on the chain already is found and not set twice, also
when the answer to the first call was lost or the validator was killed in between.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import bittensor as bt
from bittensor.intents import normalize
from bittensor.intents.weights import clip_to_max_weight

from neurons.chain import errors
from neurons.chain.connection import Chain
from neurons.chain.metagraph import Identity, Metagraph
from neurons.chain.wallet import Hotkey

U16_MAX: Final = 65535
Row = tuple[tuple[int, int], ...]
"""(UID, u16) of a validator's weights, as the chain stores them: the largest is 65535."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Weights that are in a block. Plain values, to be kept until `read_outcome` says what became of them."""

    netuid: int
    hotkey: str
    block: int
    """In which they were set or committed."""
    row: Row
    """What was asked for. Of weights that an earlier call set it is what that call was to set, if it was the same."""
    reveal_round: int | None
    """drand's round that opens the commit; None for weights in the open, or if it was read back from the chain."""
    repeated: bool = False
    """Nothing was sent: the weights were on the chain already."""


class Outcome(enum.StrEnum):
    """What became of a submission."""

    PENDING = "Pending"
    """Committed, and not revealed yet: the weights don't count so far."""
    REVEALED = "Revealed"
    """The chain has these weights."""
    MISSED = "Missed"
    """Neither waiting nor in force: they couldn't be opened in time, or were refused when they were."""
    SUPERSEDED = "Superseded"
    """Later weights of the same hotkey took their place."""


def by_uid(metagraph: Metagraph, weights: Mapping[Identity, float]) -> dict[int, float]:
    """Return weights by UID, of those neurons only that are still who they were.

    Nobody inherits a weight by getting the UID, or the hotkey, of another registration.
    """
    known = {neuron.identity: neuron.uid for neuron in metagraph.neurons}
    return {known[identity]: weight for identity, weight in weights.items() if identity in known}


async def set_weights(
    chain: Chain, hotkey: Hotkey, netuid: int, weights: Mapping[int, float], *, since: int, version_key: int = 0
) -> Submission:
    """Set weights by UID: relative, not negative, of any scale. The SDK fits them to the subnet's limits.

    `since` is the block from which on weights of this hotkey are taken for these: that at which the round began.

    Raises:
        NotRegistered: the hotkey has no UID, or another coldkey owns it.
        TooEarly: the subnet's rate limit; nothing was sent.
        Refused: no permit, too little stake, a wrong version key or weights that aren't allowed; `name` says which.
        ChainError: any other of `errors`. After `Unreachable`, call again with the same `since`.
    """
    intent = _intent(netuid, weights, version_key)

    async def submit(client: bt.Client) -> Submission:
        # Looked at first, each time: after an answer that was lost they are there already.
        place = await _place(client, hotkey, netuid)
        row = _row(weights, uid=place.uid, limit=place.max_weights_limit)
        if place.last_update >= since and place.last_update > place.registered_at:
            return Submission(
                netuid=netuid, hotkey=hotkey.address, block=place.last_update, row=row, reveal_round=None, repeated=True
            )
        result = await chain.execute(client, intent, hotkey.keypair, nonce=place.nonce)
        return Submission(
            netuid=netuid,
            hotkey=hotkey.address,
            block=_block_of(result) or (await _place(client, hotkey, netuid)).last_update,
            row=row,
            reveal_round=result.data.get("reveal_round"),
        )

    return await chain.ask(submit, writes=True)


async def read_outcome(chain: Chain, submission: Submission) -> Outcome:
    """Look what became of weights that were set.

    Raises:
        ChainError: any of `errors`.
    """

    async def question(client: bt.Client) -> Outcome:
        view = await client.at()
        if view.block < submission.block:
            return Outcome.PENDING  # an endpoint that lags behind the one that was written to
        waiting = await view.read("timelocked_weight_commits", netuid=submission.netuid)
        if any(
            commit["hotkey"] == submission.hotkey and commit["commit_block"] == submission.block
            for commits in waiting.values()
            for commit in commits
        ):
            return Outcome.PENDING
        uid = await view.query(bt.storage.SubtensorModule.Uids, [submission.netuid, submission.hotkey])
        if uid is None:
            return Outcome.MISSED
        row = await view.query(bt.storage.SubtensorModule.Weights, [submission.netuid, int(uid)])
        if await _is_row(view, submission, {int(target): int(value) for target, value in row or []}):
            return Outcome.REVEALED
        last_update = await view.query(bt.storage.SubtensorModule.LastUpdate, [submission.netuid])
        return Outcome.SUPERSEDED if int(last_update[int(uid)]) > submission.block else Outcome.MISSED

    return await chain.ask(question)


async def _is_row(view: Any, submission: Submission, row: Mapping[int, int]) -> bool:
    """Tell whether a row is the one that was set: where a neuron gave way since, the chain makes its weight 0."""
    if row.keys() != {target for target, _ in submission.row}:
        return False
    others = [target for target, value in submission.row if row[target] != value]
    if any(row[target] for target in others):
        return False
    if not others:
        return True
    places = [[submission.netuid, target] for target in others]
    registered = await view.query_batch(bt.storage.SubtensorModule.BlockAtRegistration, places)
    return all(int(block or 0) > submission.block for block in registered)


def _block_of(result: bt.ExtrinsicResult) -> int | None:
    """Return the block that an extrinsic is in, from its "block-index"; None if the node didn't tell."""
    return int(result.extrinsic_id.partition("-")[0]) if result.extrinsic_id else None


@dataclass(frozen=True)
class _Place:
    uid: int
    last_update: int
    registered_at: int
    max_weights_limit: float
    nonce: int


async def _place(client: bt.Client, hotkey: Hotkey, netuid: int) -> _Place:
    """Read, at one block, what setting weights depends on."""
    items = bt.storage.SubtensorModule
    view = await client.at()
    uid = await view.query(items.Uids, [netuid, hotkey.address])
    if uid is None:
        raise errors.NotRegistered(
            f"{hotkey.address} isn't registered on subnet {netuid} (block {view.block}): it never was, or it gave way "
            "to another. Register it with its coldkey"
        )
    if hotkey.coldkey is not None:
        owner = await view.query(items.Owner, [hotkey.address])
        if owner != hotkey.coldkey:
            raise errors.ForeignOwner(
                f"{hotkey.address} on subnet {netuid} belongs to the coldkey {owner}, not to {hotkey.coldkey}: it was "
                "registered by somebody else. Use a hotkey of your own"
            )
    last_update = await view.query(items.LastUpdate, [netuid])
    registered_at = await view.query(items.BlockAtRegistration, [netuid, int(uid)])
    limit = await view.query(items.MaxWeightsLimit, [netuid])
    account = await view.query(bt.storage.System.Account, [hotkey.address])
    return _Place(
        uid=int(uid),
        last_update=int(last_update[int(uid)]),
        registered_at=int(registered_at),
        max_weights_limit=(int(limit) if limit else U16_MAX) / U16_MAX,
        nonce=int((account or {}).get("nonce", 0)),
    )


def _intent(netuid: int, weights: Mapping[int, float], version_key: int) -> Any:
    try:
        return bt.SetWeights(netuid=netuid, weights=dict(weights), version_key=version_key)
    except bt.BittensorError as error:
        raise errors.Refused(f"these can't be weights: {error}") from error


def _row(weights: Mapping[int, float], *, uid: int, limit: float) -> Row:
    """Return what the chain will store, by the SDK's own steps."""
    uids = sorted(weights)
    values = [float(weights[target]) for target in uids]
    try:
        if uids != [uid] and limit < 1.0:
            values = clip_to_max_weight(values, limit)
        kept, scaled = normalize(uids, values)
    except bt.BittensorError as error:
        raise errors.Refused(f"these can't be weights: {error}") from error
    if not kept:
        raise errors.Refused("all weights are zero: give at least one neuron a weight, or don't set any this time")
    return tuple(zip(kept, scaled, strict=True))
