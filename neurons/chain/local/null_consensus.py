"""Null consensus: one validator, the largest stake, alone says what miners earn. A pure function of plain arrays.

From the rules that the pallet's tests publish (`tests/null_consensus.rs`): the winner's row is the incentive; if it is
empty, or nothing in it still counts, all share equally; permit holders earn by stake, active or not; bonds stay as they
are. What the tests leave open (the winner's weight on itself) is as under Yuma: only the owner's counts.
"""

from __future__ import annotations

import numpy as np

from neurons.chain.local.yuma import Flags, Inputs, Outcome, Vector, normalize


def permits(stake: Vector) -> Flags:
    """Return who has a permit, (n,): the largest stake alone, of equals the lowest UID; nobody without stake."""
    held = np.zeros(len(stake), dtype=bool)
    if stake.any():
        held[int(np.argmax(stake))] = True
    return held


def epoch(given: Inputs) -> Outcome:
    """Run one epoch under `epoch_consensus: Null`; shapes and units as in `yuma.epoch`."""
    n = len(given.stake)
    permitted = np.where(given.permit, given.stake, 0.0)
    stake = normalize(permitted)
    row = np.zeros(n)
    weights = np.zeros((n, n))
    if permitted.any():
        winner = int(np.argmax(permitted))
        row = given.weights[winner].copy()
        if given.owner != winner:
            row[winner] = 0.0
        row[given.last_update[winner] <= given.registered] = 0.0
        if given.commit_block is not None:
            row[given.commit_block[winner] < given.registered] = 0.0
        weights[winner] = normalize(row)
    incentive = normalize(row) if row.any() else np.full(n, 1.0 / n) if n else row
    return Outcome(
        stake=normalize(given.stake),
        active_stake=stake,
        weights=weights,
        consensus=incentive,
        validator_trust=np.where(weights.any(axis=1), 1.0, 0.0),
        rank=incentive,
        trust=(incentive > 0).astype(np.float64),
        incentive=incentive,
        dividends=stake,
        bonds=given.bonds,
    )
