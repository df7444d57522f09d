"""An epoch once more, by the pallet's rules as they are published, entry by entry and in exact fractions.

Another way than the code under test goes, so that the two agree only where both are right: rows of entries instead of
matrices, the median by halving as the pallet does it, permits by striking out the smallest stakes. Only the sigmoid of
liquid alpha is in floating point.

Source: opentensor/subtensor, `pallets/subtensor/src/epoch/run_epoch.rs` and `math.rs` (the sparse epoch, which is the
one that the chain runs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

Row = dict[int, Fraction]
"""Entries by UID; one that is there with 0 is another thing than one that is not there."""
ZERO, ONE = Fraction(0), Fraction(1)
U16_MAX = 65535


@dataclass(frozen=True, kw_only=True)
class Subnet:
    """What an epoch finds; `liquid` is (low, high, steepness) in the chain's units."""

    stake: Sequence[int]
    weights: Sequence[dict[int, int]]
    bonds: Sequence[dict[int, int]]
    permit: Sequence[bool]
    active: Sequence[bool]
    last_update: Sequence[int]
    registered: Sequence[int]
    commit_block: Sequence[int | None]
    last_step: int
    owner: int | None = None
    kappa: int = 32767
    penalty: int = U16_MAX
    moving_average: int = 900_000
    liquid: tuple[int, int, int] | None = None
    previous_consensus: Sequence[int] = field(default_factory=tuple)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What it makes of that, by UID."""

    consensus: list[Fraction]
    validator_trust: list[Fraction]
    trust: list[Fraction]
    incentive: list[Fraction]
    dividends: list[Fraction]
    bonds: list[Row]
    miner_share: list[Fraction]
    validator_share: list[Fraction]


def permits(stake: Sequence[int], count: int) -> list[bool]:
    """Who has a permit next: ordered by stake, and equals by UID, the first n - count are struck out, and all of 0."""
    struck = sorted(range(len(stake)), key=lambda uid: stake[uid])[: max(0, len(stake) - count)]
    return [amount > 0 and uid not in struck for uid, amount in enumerate(stake)]


def epoch(given: Subnet) -> Found:
    """Run it."""
    n = len(given.stake)
    stake = _shares([Fraction(amount) for amount in given.stake])
    active_stake = _shares(
        [share if given.active[uid] and given.permit[uid] else ZERO for uid, share in enumerate(stake)]
    )
    weights = [_row(given, uid) for uid in range(n)]
    kappa, penalty = Fraction(given.kappa, U16_MAX), Fraction(given.penalty, U16_MAX)
    consensus = [_consensus(active_stake, weights, uid, kappa) for uid in range(n)]
    clipped = [
        {j: min(value, consensus[j]) for j, value in row.items() if value <= consensus[j] or consensus[j] > 0}
        for row in weights
    ]
    before, after = _sums(weights, active_stake), _sums(clipped, active_stake)
    incentive = _shares(after)
    bonds = _bonds(given, weights, clipped, penalty, consensus)
    columns = [sum((row.get(j, ZERO) for row in bonds), ZERO) for j in range(n)]
    owned = [sum((value / columns[j] * incentive[j] for j, value in row.items() if columns[j]), ZERO) for row in bonds]
    dividends = _shares([mine * share for mine, share in zip(owned, active_stake, strict=True)])
    total = sum(incentive, ZERO) + sum(dividends, ZERO)
    idle = active_stake if any(active_stake) else stake
    return Found(
        consensus=consensus,
        validator_trust=[sum(row.values(), ZERO) for row in clipped],
        trust=[b / a if a else ZERO for a, b in zip(before, after, strict=True)],
        incentive=incentive,
        dividends=dividends,
        bonds=bonds,
        miner_share=[share / total if total else share for share in incentive],
        validator_share=[share / total for share in dividends] if total else idle,
    )


def _row(given: Subnet, uid: int) -> Row:
    """A row's weights that count, as shares."""
    if not given.permit[uid]:
        return {}
    committed = given.commit_block[uid]
    row = {
        j: Fraction(value)
        for j, value in given.weights[uid].items()
        if (j != uid or uid == given.owner)
        and given.last_update[uid] > given.registered[j]
        and (committed is None or committed >= given.registered[j])
    }
    total = sum(row.values(), ZERO)
    return {j: value / total for j, value in row.items()} if total else row


def _consensus(stake: Sequence[Fraction], weights: Sequence[Row], column: int, kappa: Fraction) -> Fraction:
    holders = [uid for uid, share in enumerate(stake) if share > 0]
    if not holders:
        return ZERO
    scores = {uid: weights[uid].get(column, ZERO) for uid in holders}
    minority = ONE - kappa
    low, high = ZERO, ONE
    while len(holders) > 1:
        pivot = scores[holders[len(holders) // 2]]
        under = [uid for uid in holders if scores[uid] < pivot]
        over = [uid for uid in holders if scores[uid] > pivot]
        reaches = low + sum((stake[uid] for uid in under), ZERO)
        leaves = high - sum((stake[uid] for uid in over), ZERO)
        if minority < reaches and under:
            holders, high = under, reaches
        elif leaves <= minority and over:
            holders, low = over, leaves
        else:
            return pivot
    return scores[holders[0]]


def _bonds(
    given: Subnet, weights: Sequence[Row], clipped: Sequence[Row], penalty: Fraction, consensus: Sequence[Fraction]
) -> list[Row]:
    rate = ONE - Fraction(given.moving_average, 1_000_000)
    compared: Sequence[Fraction] = consensus
    if penalty == 1 and given.previous_consensus:
        compared = [Fraction(value, U16_MAX) for value in given.previous_consensus]
    liquid = given.liquid if any(compared) else None
    moved = []
    for uid, (whole, cut) in enumerate(zip(weights, clipped, strict=True)):
        if penalty in (0, 1):
            target = cut if penalty else whole
        else:
            mixed = {j: value + penalty * (cut.get(j, ZERO) - value) for j, value in whole.items()}
            target = {j: value for j, value in mixed.items() if value > 0}
        held = {
            j: Fraction(value, U16_MAX)
            for j, value in given.bonds[uid].items()
            if given.last_step > given.registered[j]
        }
        # With liquid alpha only what the row still names is carried on.
        names = target.keys() if liquid is not None else target.keys() | held.keys()
        row = {}
        for j in names:
            goal, bond = target.get(j, ZERO), held.get(j, ZERO)
            alpha = rate if liquid is None else _alpha(liquid, goal, bond, compared[j])
            value = min(ONE, (1 - alpha) * bond + alpha * goal)
            if value > 0:
                row[j] = value
        moved.append(row)
    return moved


def _alpha(liquid: tuple[int, int, int], weight: Fraction, bond: Fraction, consensus: Fraction) -> Fraction:
    low, high = Fraction(liquid[0], U16_MAX), Fraction(liquid[1], U16_MAX)
    far = weight - consensus if weight >= bond else bond - weight
    far = min(ONE, max(ZERO, far))
    sigmoid = Fraction(1 / (1 + math.exp(-liquid[2] / 100 * (float(far) - 0.5))))
    return min(high, max(low, low + sigmoid * (high - low)))


def _sums(rows: Sequence[Row], stake: Sequence[Fraction]) -> list[Fraction]:
    return [
        sum((row.get(j, ZERO) * share for row, share in zip(rows, stake, strict=True)), ZERO) for j in range(len(stake))
    ]


def _shares(values: Sequence[Fraction]) -> list[Fraction]:
    total = sum(values, ZERO)
    return [value / total for value in values] if total else [ZERO for _ in values]
