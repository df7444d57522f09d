"""Yuma consensus: from stakes, weights and bonds to incentives and dividends, as a pure function of plain arrays.

Written from the rules that the chain's own pallet and its tests publish (`pallet-subtensor`, `epoch/run_epoch.rs` and
`tests/epoch/`, spec 425: Yuma 3); the numbers of those tests are repeated in `tests/unit/chain/test_yuma.py`. The same
input gives the same output bit for bit: sums are numpy's own reductions, never a threaded matrix product.

n is the number of UIDs. Fractions are float64 in 0..1; the chain computes in 32-bit fixed point, so expect agreement
to about 1e-4.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Blocks = npt.NDArray[np.int64]

NO_COMMIT = np.iinfo(np.int64).max
"""In `Inputs.commit_block`: this validator has no weights waiting to be revealed."""


@dataclass(frozen=True, kw_only=True)
class LiquidAlpha:
    """Each bond moves at a rate of its own between `low` and `high`, by how far the weight is from consensus."""

    low: float = 0.7
    high: float = 0.9
    steepness: float = 1000.0
    """Of the sigmoid, in hundredths, as the chain stores it."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What the subnet's hyperparameters say of consensus; the defaults are those of a new subnet."""

    kappa: float = 32767 / 65535
    """The share of stake that makes a majority."""
    bonds_moving_average: float = 0.9
    """What stays of a bond each epoch, without liquid alpha."""
    bonds_penalty: float = 1.0
    """1: bonds grow by what consensus left of a weight; 0: by the weight itself."""
    liquid_alpha: LiquidAlpha | None = None


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A subnet as its epoch finds it.

    stake: (n,) any unit, not negative. weights, bonds: (n, n), row = validator; weights need not be normalized.
    permit, active: (n,). last_update, registered: (n,) blocks. commit_block: (n,) the earliest block of weights that
    wait to be revealed, `NO_COMMIT` without. owner: the subnet owner's UID. last_step: block of the epoch before.
    named: (n, n), the weights that a row has an entry for, be it 0; None: all. Liquid alpha looks at it.
    previous_consensus: (n,) of the epoch before; liquid alpha compares with it while the bonds penalty is 1.
    """

    stake: Vector
    weights: Matrix
    bonds: Matrix
    permit: Flags
    active: Flags
    last_update: Blocks
    registered: Blocks
    last_step: int
    commit_block: Blocks | None = None
    owner: int | None = None
    named: Flags | None = None
    previous_consensus: Vector | None = None
    parameters: Parameters = field(default_factory=Parameters)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an epoch finds: all (n,), but `weights` (masked, rows sum to 1 or 0) and `bonds`, which are (n, n)."""

    stake: Vector
    active_stake: Vector
    weights: Matrix
    consensus: Vector
    validator_trust: Vector
    rank: Vector
    trust: Vector
    incentive: Vector
    dividends: Vector
    bonds: Matrix

    @property
    def miner_share(self) -> Vector:
        """Each UID's share, as a miner, of what is paid to miners and validators together."""
        total = self.incentive.sum() + self.dividends.sum()
        return self.incentive / total if total > 0 else np.zeros_like(self.incentive)

    @property
    def validator_share(self) -> Vector:
        """Each UID's share, as a validator; all goes by active stake, or any stake, while nobody's weights count."""
        total = self.incentive.sum() + self.dividends.sum()
        unweighted = self.active_stake if self.active_stake.any() else self.stake
        share: Vector = self.dividends / total if total > 0 else unweighted
        return share


def epoch(given: Inputs) -> Outcome:
    """Run one epoch, in the chain's order.

    Raises:
        ValueError: the arrays' shapes don't fit together.
    """
    _check_shapes(given)
    stake = normalize(np.where(given.active & given.permit, given.stake, 0.0))
    counts = counted(given)
    weights = normalize_rows(np.where(counts, given.weights, 0.0))
    parameters = given.parameters
    consensus = weighted_median(stake, weights, parameters.kappa)
    clipped = np.minimum(weights, consensus)
    before = (weights * stake[:, None]).sum(axis=0)
    after = (clipped * stake[:, None]).sum(axis=0)
    incentive = normalize(after)
    bonds = moved_bonds(given, counts=counts, weights=weights, clipped=clipped, consensus=consensus)
    owned = (normalize_columns(bonds) * incentive).sum(axis=1)
    return Outcome(
        stake=normalize(given.stake),
        active_stake=stake,
        weights=weights,
        consensus=consensus,
        validator_trust=clipped.sum(axis=1),
        rank=incentive,
        trust=np.divide(after, before, out=np.zeros_like(after), where=before > 0),
        incentive=incentive,
        dividends=normalize(owned * stake),
        bonds=bonds,
    )


def masked_weights(given: Inputs) -> Matrix:
    """Return the weights that count, (n, n), rows normalized."""
    return normalize_rows(np.where(counted(given), given.weights, 0.0))


def counted(given: Inputs) -> Flags:
    """Return which entries count, (n, n).

    In the chain's order: rows without a permit; the diagonal, except the owner's; columns whose neuron registered
    after the row was set (outdated); columns that registered after the row's earliest unrevealed commit.
    """
    n = len(given.stake)
    counts: Flags = np.repeat(given.permit[:, None], n, axis=1)
    own = np.eye(n, dtype=bool)
    if given.owner is not None:
        own[given.owner, given.owner] = False
    counts[own] = False
    counts[given.last_update[:, None] <= given.registered[None, :]] = False
    if given.commit_block is not None:
        counts[given.commit_block[:, None] < given.registered[None, :]] = False
    if given.named is not None:
        counts &= given.named
    return counts


def weighted_median(stake: Vector, weights: Matrix, kappa: float) -> Vector:
    """Return for each column the weight that a majority by stake sets at least; (n,).

    It is the smallest weight such that the stake that sets no more than it exceeds 1 - kappa.
    """
    holders = np.flatnonzero(stake > 0)
    if not holders.size:
        return np.zeros(weights.shape[1])
    columns = weights[holders]
    order = np.argsort(columns, axis=0, kind="stable")
    ordered = np.take_along_axis(columns, order, axis=0)
    reached = np.cumsum(stake[holders][order], axis=0)
    # Equal weights count together: what matters is the stake up to the last of them, and the weight is the same.
    minority = 1.0 - kappa
    pick = np.minimum((reached <= minority).sum(axis=0), len(holders) - 1)
    median: Vector = np.take_along_axis(ordered, pick[None, :], axis=0)[0]
    return median


def moved_bonds(given: Inputs, *, counts: Flags, weights: Matrix, clipped: Matrix, consensus: Vector) -> Matrix:
    """Return Yuma 3's bonds after this epoch, (n, n): each moves towards its weight, whatever its holder's stake.

    A bond to a neuron that registered since the epoch before is forgotten first. With liquid alpha, one is given up
    where its row has no entry that counts (`counts`), or consensus left nothing of it; without, it fades.
    """
    parameters = given.parameters
    bonds = np.where(given.last_step <= given.registered[None, :], 0.0, given.bonds)
    target = weights + (clipped - weights) * parameters.bonds_penalty
    rate: Matrix | float = 1.0 - parameters.bonds_moving_average
    kept: Flags | None = None
    if parameters.liquid_alpha is not None:
        compared = consensus
        if parameters.bonds_penalty >= 1.0 and given.previous_consensus is not None:
            compared = given.previous_consensus
        if (compared != 0).any():
            rate = liquid_rates(parameters.liquid_alpha, weights=target, bonds=bonds, consensus=compared)
            kept = _entries(counts, weights, clipped, penalty=parameters.bonds_penalty)
    # A bond has the room that its limit leaves it, and no more: 1 at the most.
    moved: Matrix = np.clip(rate * target + (1.0 - rate) * bonds, 0.0, 1.0)
    if kept is not None:
        moved[~kept] = 0.0
    return moved


def _entries(counts: Flags, weights: Matrix, clipped: Matrix, *, penalty: float) -> Flags:
    """Return which entries the chain's sparse rows still have once they were clipped and mixed."""
    if penalty <= 0.0:
        return counts
    left: Flags = counts & (((clipped > 0) | (weights == 0)) if penalty >= 1.0 else (weights > 0))
    return left


def liquid_rates(liquid: LiquidAlpha, *, weights: Matrix, bonds: Matrix, consensus: Vector) -> Matrix:
    """Return how fast each bond moves, (n, n): the further its weight is from consensus, the faster."""
    buying = np.clip(weights - consensus, 0.0, 1.0)
    selling = np.clip(bonds - weights, 0.0, 1.0)
    distance = np.where(weights >= bonds, buying, selling)
    sigmoid = 1.0 / (1.0 + np.exp(-liquid.steepness / 100.0 * (distance - 0.5)))
    rates: Matrix = np.clip(liquid.low + sigmoid * (liquid.high - liquid.low), liquid.low, liquid.high)
    return rates


def top_stakes(stake: Vector, count: int) -> Flags:
    """Return who gets a validator permit, (n,): the `count` largest stakes that aren't zero; higher UIDs win ties."""
    order = np.argsort(stake, kind="stable")
    permits: Flags = stake > 0
    permits[order[: max(len(stake) - max(count, 0), 0)]] = False
    return permits


def normalize(values: Vector) -> Vector:
    """Return (n,) values that sum to 1; all zero stays so."""
    total = values.sum()
    return values / total if total > 0 else np.zeros_like(values)


def normalize_rows(matrix: Matrix) -> Matrix:
    """Return (n, n) rows that sum to 1; a row of zeros stays so."""
    totals = matrix.sum(axis=1, keepdims=True)
    rows: Matrix = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    return rows


def normalize_columns(matrix: Matrix) -> Matrix:
    """Return (n, n) columns that sum to 1; a column of zeros stays so."""
    totals = matrix.sum(axis=0, keepdims=True)
    columns: Matrix = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    return columns


def _check_shapes(given: Inputs) -> None:
    n = len(given.stake)
    vectors = {
        "permit": given.permit,
        "active": given.active,
        "last_update": given.last_update,
        "registered": given.registered,
        "commit_block": given.commit_block,
        "previous_consensus": given.previous_consensus,
    }
    for name, vector in vectors.items():
        if vector is not None and vector.shape != (n,):
            raise ValueError(f"{name} is {vector.shape}, but there are {n} stakes: give one entry a UID")
    for name, matrix in {"weights": given.weights, "bonds": given.bonds}.items():
        if matrix.shape != (n, n):
            raise ValueError(f"{name} is {matrix.shape}, but there are {n} stakes: give {n} rows of {n}")
