"""Yuma as code against what the chain's own tests publish, and its rules one by one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from neurons.chain.local import null_consensus, yuma
from neurons.chain.local.yuma import Inputs, LiquidAlpha, Matrix, Outcome, Parameters
from tests.unit.chain import pallet
from tests.unit.chain.pallet import U16_MAX, Subnet
from tests.unit.chain.yuma_tables import TABLES, Table

TOLERANCE = 1e-3
"""What the chain's own tests allow."""
LONG = 26
"""Epochs over which the short tables are continued."""


def trajectory(table: Table, *, epochs: int | None = None) -> list[Outcome]:
    n = len(table.stakes)
    validators = 3
    parameters = Parameters(
        kappa=32767 / 65535,
        bonds_moving_average=0.975,
        bonds_penalty=0.0,
        liquid_alpha=LiquidAlpha(low=0.1, high=0.3) if table.liquid else None,
    )
    stake = np.array(table.stakes)
    bonds: Matrix = np.zeros((n, n))
    weights: Matrix = np.zeros((n, n))
    outcomes = []
    for epoch in range(epochs or table.epochs):
        if epoch in table.weights:
            weights = np.zeros((n, n))
            weights[:validators, validators:] = table.weights[epoch]
        if table.reset and epoch in table.reset:
            bonds = bonds.copy()
            bonds[:, table.reset[epoch]] = 0.0
        outcome = yuma.epoch(
            Inputs(
                stake=stake,
                weights=weights,
                bonds=bonds,
                permit=yuma.top_stakes(stake, validators),
                active=np.ones(n, dtype=bool),
                last_update=np.full(n, 10 + epoch),
                registered=np.zeros(n, dtype=np.int64),
                last_step=9 + epoch,
                parameters=parameters,
            )
        )
        bonds = outcome.bonds
        outcomes.append(outcome)
    return outcomes


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_bonds_and_dividends_follow_the_published_tables(table: Table) -> None:
    outcomes = trajectory(table)
    for epoch, bonds in table.bonds.items():
        np.testing.assert_allclose(
            outcomes[epoch].bonds[:3, 3:], bonds, atol=TOLERANCE, err_msg=f"bonds, epoch {epoch}"
        )
    for epoch, dividends in table.dividends.items():
        np.testing.assert_allclose(
            outcomes[epoch].dividends[:3], dividends, atol=TOLERANCE, err_msg=f"dividends, epoch {epoch}"
        )


@pytest.mark.parametrize("table", [table for table in TABLES if table.epochs < LONG], ids=lambda table: table.name)
def test_long_after_the_published_epochs_bonds_go_on_at_the_published_rate(table: Table) -> None:
    # In the last published epochs all validators agree. From then on each bond to a server that has weight must come
    # nearer to that weight by the share that the first epoch shows, and each server's incentive goes to stake times
    # bonds: worked out here from the published numbers alone, without the code under test.
    last = table.epochs - 1
    weight = np.array(table.weights[max(table.weights)][0])
    agreed = weight > 0
    first = np.array(table.weights[0][0])
    rate = float(np.max(np.array(table.bonds[0][0])[first > 0] / first[first > 0]))
    bonds = np.array(table.bonds[last])[:, agreed]
    outcomes = trajectory(table, epochs=LONG)
    for epoch in range(last + 1, LONG):
        bonds = bonds + rate * (weight[agreed] - bonds)
        owned = np.array(table.stakes[:3])[:, np.newaxis] * bonds
        shares = owned / owned.sum(axis=0) @ weight[agreed]
        found = outcomes[epoch]
        np.testing.assert_allclose(found.bonds[:3, 3:][:, agreed], bonds, atol=TOLERANCE, err_msg=f"epoch {epoch}")
        np.testing.assert_allclose(
            found.dividends[:3], shares / shares.sum(), atol=TOLERANCE, err_msg=f"dividends, epoch {epoch}"
        )


def subnet(n: int, **changes: object) -> Inputs:
    given = Inputs(
        stake=np.ones(n),
        weights=np.zeros((n, n)),
        bonds=np.zeros((n, n)),
        permit=np.ones(n, dtype=bool),
        active=np.ones(n, dtype=bool),
        last_update=np.full(n, 10),
        registered=np.zeros(n, dtype=np.int64),
        last_step=5,
    )
    return replace(given, **changes)  # type: ignore[arg-type]


def test_one_epoch_of_four_validators_matches_the_published_log() -> None:
    # pallet tests, `test_bonds`, first epoch: stakes 1 to 4, the same weights from all.
    weights = np.zeros((8, 8))
    weights[:4, 4:] = [16383, 32767, 49149, 65535]
    stake = np.array([1.0, 2, 3, 4, 0, 0, 0, 0])
    outcome = yuma.epoch(subnet(8, stake=stake, weights=weights))
    np.testing.assert_allclose(outcome.active_stake[:4], [0.1, 0.2, 0.3, 0.4], atol=1e-6)
    expected = [0.0999975584, 0.2000012207, 0.2999926754, 0.400008545]
    np.testing.assert_allclose(outcome.consensus[4:], expected, atol=1e-6)
    np.testing.assert_allclose(outcome.incentive[4:], expected, atol=1e-6)
    np.testing.assert_allclose(outcome.validator_trust, [1, 1, 1, 1, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(outcome.trust, [0, 0, 0, 0, 1, 1, 1, 1], atol=1e-6)


def test_rows_without_a_permit_do_not_count() -> None:
    weights = np.array([[0, 0, 1.0], [0, 0, 1], [0, 1, 0]])
    outcome = yuma.epoch(subnet(3, weights=weights, permit=np.array([True, False, False])))
    assert outcome.weights[1].sum() == 0
    assert outcome.incentive.tolist() == [0, 0, 1]


def test_a_weight_on_oneself_counts_only_for_the_owner() -> None:
    weights = np.eye(3)
    assert yuma.masked_weights(subnet(3, weights=weights)).sum() == 0
    owned = yuma.masked_weights(subnet(3, weights=weights, owner=1))
    assert owned.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_weights_set_before_a_neuron_registered_do_not_reach_it() -> None:
    weights = np.array([[0, 1.0, 3], [0, 0, 0], [0, 0, 0]])
    masked = yuma.masked_weights(subnet(3, weights=weights, registered=np.array([0, 0, 10])))
    assert masked[0].tolist() == [0, 1, 0]


def test_a_commit_from_before_a_registration_masks_its_column() -> None:
    weights = np.array([[0, 1.0, 3], [0, 0, 0], [0, 0, 0]])
    waiting = np.array([4, yuma.NO_COMMIT, yuma.NO_COMMIT])
    masked = yuma.masked_weights(subnet(3, weights=weights, registered=np.array([0, 0, 5]), commit_block=waiting))
    assert masked[0].tolist() == [0, 1, 0]


def test_a_commit_from_the_block_of_a_registration_does_not_mask_it() -> None:
    weights = np.array([[0, 1.0, 3], [0, 0, 0], [0, 0, 0]])
    waiting = np.array([5, yuma.NO_COMMIT, yuma.NO_COMMIT])
    masked = yuma.masked_weights(subnet(3, weights=weights, registered=np.array([0, 0, 5]), commit_block=waiting))
    assert masked[0].tolist() == [0, 0.25, 0.75]


@pytest.mark.parametrize(("kappa", "consensus"), [(0.3, 1.0), (0.5, 0.5), (0.7, 0.5), (0.9, 0.0)])
def test_consensus_is_the_weight_that_a_majority_of_kappa_sets_at_least(kappa: float, consensus: float) -> None:
    column = np.array([[0.0], [0.5], [1.0]])
    assert yuma.weighted_median(np.array([0.2, 0.4, 0.4]), column, kappa).tolist() == [consensus]


def test_what_exceeds_the_majority_is_clipped() -> None:
    weights = np.zeros((5, 5))
    weights[:2, 3:] = [1.0, 0.0]
    weights[2, 3:] = [0.0, 1.0]
    outcome = yuma.epoch(subnet(5, stake=np.array([40.0, 40, 20, 0, 0]), weights=weights))
    assert outcome.consensus.tolist() == [0, 0, 0, 1, 0]
    assert outcome.validator_trust.tolist() == [1, 1, 0, 0, 0]
    assert outcome.incentive.tolist() == [0, 0, 0, 1, 0]


def test_bonds_to_a_neuron_registered_since_the_last_epoch_are_forgotten() -> None:
    bonds = np.full((3, 3), 0.5)
    moved = yuma.epoch(subnet(3, bonds=bonds, registered=np.array([0, 0, 5]))).bonds
    assert moved[:, 2].tolist() == [0, 0, 0]
    assert moved[0, 1] == pytest.approx(0.45)


def test_with_the_full_penalty_liquid_alpha_compares_with_the_epoch_before() -> None:
    # pallet tests, `consensus_mode.rs`: Auto is the previous consensus at a penalty of 1, the current one below.
    weights = np.zeros((3, 3))
    weights[0, 2] = 1.0
    full = Parameters(bonds_penalty=1.0, liquid_alpha=LiquidAlpha(low=0.1, high=0.3))
    given = subnet(3, weights=weights, stake=np.array([1.0, 0, 0]), parameters=full)
    far = yuma.epoch(replace(given, previous_consensus=np.array([0.1, 0, 0])))
    near = yuma.epoch(replace(given, previous_consensus=np.array([0.1, 0, 1.0])))
    assert far.bonds[0, 2] == pytest.approx(0.29866, abs=1e-4)
    assert near.bonds[0, 2] == pytest.approx(0.10134, abs=1e-4)


BLOCK = 100
KAPPAS = (0, 1, 20_000, 32767, 65534, U16_MAX)


@st.composite
def odd_subnets(draw: st.DrawFn) -> Subnet:
    """Anything that a small subnet may be: nobody with stake, one validator, rows of zeros, weights on oneself, u16's
    ends side by side, neurons and commits of just now, bonds to whom nobody names any more.
    """
    n = draw(st.integers(1, 5))
    amounts = st.one_of(st.just(0), st.sampled_from([1, 2, 10**9, 10**17]))
    u16 = st.one_of(st.sampled_from([0, 1, 65534, U16_MAX]), st.integers(0, U16_MAX))
    rows = st.dictionaries(st.integers(0, n - 1), u16, max_size=n)
    blocks = st.integers(BLOCK - 4, BLOCK)
    each: dict[str, Any] = {"min_size": n, "max_size": n}
    return Subnet(
        stake=draw(st.lists(amounts, **each)),
        weights=draw(st.lists(rows, **each)),
        bonds=draw(st.lists(rows, **each)),
        permit=draw(st.lists(st.sampled_from([True, True, False]), **each)),
        active=draw(st.lists(st.sampled_from([True, True, False]), **each)),
        last_update=draw(st.lists(blocks, **each)),
        registered=draw(st.lists(st.one_of(st.just(0), blocks), **each)),
        commit_block=draw(st.lists(st.one_of(st.none(), blocks), **each)),
        last_step=draw(blocks),
        owner=draw(st.one_of(st.none(), st.integers(0, n - 1))),
        kappa=draw(st.sampled_from(KAPPAS)),
        penalty=draw(st.sampled_from([0, 20_000, U16_MAX])),
        moving_average=draw(st.sampled_from([0, 900_000, 1_000_000])),
        liquid=draw(st.sampled_from([None, (6554, 19661, 1000), (0, U16_MAX, 0), (45875, 58982, 10_000)])),
        previous_consensus=draw(st.lists(u16, **each)),
    )


def matrix(rows: Sequence[dict[int, int]], unit: float = 1.0) -> Matrix:
    made: Matrix = np.zeros((len(rows), len(rows)))
    for uid, row in enumerate(rows):
        for target, value in row.items():
            made[uid, target] = value * unit
    return made


def inputs_of(given: Subnet) -> Inputs:
    liquid = given.liquid
    return Inputs(
        stake=np.array(given.stake, dtype=float),
        weights=matrix(given.weights),
        named=matrix([dict.fromkeys(row, 1) for row in given.weights]) > 0,
        bonds=matrix(given.bonds, 1 / U16_MAX),
        permit=np.array(given.permit),
        active=np.array(given.active),
        last_update=np.array(given.last_update),
        registered=np.array(given.registered),
        commit_block=np.array([yuma.NO_COMMIT if block is None else block for block in given.commit_block]),
        last_step=given.last_step,
        owner=given.owner,
        previous_consensus=np.array(given.previous_consensus, dtype=float) / U16_MAX,
        parameters=Parameters(
            kappa=given.kappa / U16_MAX,
            bonds_moving_average=given.moving_average / 1_000_000,
            bonds_penalty=given.penalty / U16_MAX,
            liquid_alpha=LiquidAlpha(low=liquid[0] / U16_MAX, high=liquid[1] / U16_MAX, steepness=liquid[2])
            if liquid is not None
            else None,
        ),
    )


@settings(max_examples=100, deadline=None, phases=[Phase.generate, Phase.shrink])
@given(odd_subnets())
def test_whatever_a_subnet_is_its_epoch_is_the_pallets(given: Subnet) -> None:
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        found = yuma.epoch(inputs_of(given))
    expected = pallet.epoch(given)
    for name in ("consensus", "validator_trust", "trust", "incentive", "dividends", "miner_share", "validator_share"):
        wanted = [float(value) for value in getattr(expected, name)]
        np.testing.assert_allclose(getattr(found, name), wanted, atol=1e-9, err_msg=name)
    bonds = np.zeros_like(found.bonds)
    for uid, row in enumerate(expected.bonds):
        for target, value in row.items():
            bonds[uid, target] = float(value)
    np.testing.assert_allclose(found.bonds, bonds, atol=1e-9)


@given(st.lists(st.sampled_from([0, 1, 2, 10**17]), max_size=8), st.integers(0, 9))
def test_permits_are_the_pallets_also_among_equals(stake: list[int], count: int) -> None:
    assert yuma.top_stakes(np.array(stake, dtype=float), count).tolist() == pallet.permits(stake, count)


def test_with_liquid_alpha_a_bond_to_whom_a_row_names_no_more_is_gone() -> None:
    # The pallet's sparse rows: without liquid alpha it fades, with it nothing of it is carried on.
    weights, bonds = np.zeros((3, 3)), np.zeros((3, 3))
    weights[0, 1], bonds[0, 2] = 1.0, 0.5
    liquid = Parameters(liquid_alpha=LiquidAlpha())
    held = subnet(3, weights=weights, bonds=bonds, named=weights > 0, previous_consensus=np.ones(3))
    assert yuma.epoch(held).bonds[0, 2] == pytest.approx(0.45)
    assert yuma.epoch(replace(held, parameters=liquid)).bonds[0, 2] == 0
    named_with_0 = replace(held, named=np.ones((3, 3), dtype=bool), parameters=liquid)
    assert 0 < yuma.epoch(named_with_0).bonds[0, 2] < 0.5


def test_without_weights_validators_share_by_stake() -> None:
    outcome = yuma.epoch(subnet(3, stake=np.array([3.0, 1, 0])))
    assert outcome.validator_share.tolist() == [0.75, 0.25, 0]
    assert outcome.miner_share.sum() == 0


def test_permits_go_to_the_largest_stakes() -> None:
    assert yuma.top_stakes(np.array([1.0, 3, 0, 3, 2]), 2).tolist() == [False, True, False, True, False]
    assert yuma.top_stakes(np.array([1.0, 0]), 5).tolist() == [True, False]


def test_under_null_consensus_the_lowest_uid_of_equals_has_the_permit() -> None:
    # As it is the one whose row counts (`null_consensus_tie_selects_first_uid`).
    assert null_consensus.permits(np.array([1.0, 5, 5])).tolist() == [False, True, False]
    assert not null_consensus.permits(np.zeros(3)).any()


def test_of_equal_stakes_the_higher_uids_get_the_permits() -> None:
    # The pallet sorts upwards, stably, and strikes out from the front.
    assert yuma.top_stakes(np.array([5.0, 5, 5, 5]), 2).tolist() == [False, False, True, True]


def test_arrays_that_do_not_fit_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"permit is .*one entry a UID"):
        yuma.epoch(subnet(3, permit=np.ones(2, dtype=bool)))


@pytest.mark.parametrize(
    ("stakes", "rows", "registered", "miners", "validators"),
    [
        ((300, 100), {0: {2: 3, 3: 1}, 1: {3: 1}}, None, (0, 0, 0.75, 0.25), (0.75, 0.25, 0, 0)),
        ((100, 100), {0: {2: 1}, 1: {3: 1}}, None, (0, 0, 1, 0), (0.5, 0.5, 0, 0)),
        ((300, 100), {1: {3: 1}}, None, (0.25, 0.25, 0.25, 0.25), (0.75, 0.25, 0, 0)),
        ((300, 100), {0: {2: 1}, 1: {3: 1}}, (0, 0, 20, 0), (0.25, 0.25, 0.25, 0.25), (0.75, 0.25, 0, 0)),
        ((0, 0), {}, None, (0.25, 0.25, 0.25, 0.25), (0, 0, 0, 0)),
    ],
    ids=["winner", "tie-to-the-lower-uid", "empty-row", "outdated-row", "no-stake"],
)
def test_null_consensus_follows_the_published_cases(
    stakes: tuple[float, float],
    rows: dict[int, dict[int, float]],
    registered: tuple[int, ...] | None,
    miners: tuple[float, ...],
    validators: tuple[float, ...],
) -> None:
    # pallet tests, `null_consensus.rs`.
    weights = np.zeros((4, 4))
    for uid, row in rows.items():
        for target, weight in row.items():
            weights[uid, target] = weight
    outcome = null_consensus.epoch(
        subnet(
            4,
            stake=np.array([*stakes, 0, 0], dtype=float),
            weights=weights,
            permit=np.array([True, True, False, False]),
            active=np.zeros(4, dtype=bool),
            registered=np.array(registered or (0, 0, 0, 0)),
        )
    )
    np.testing.assert_allclose(outcome.incentive, miners, atol=1e-9)
    np.testing.assert_allclose(outcome.dividends, validators, atol=1e-9)


def test_an_epoch_of_256_miners_and_64_validators_takes_less_than_a_second() -> None:
    n, validators = 320, 64
    random = np.random.default_rng(7)
    weights = np.zeros((n, n))
    weights[:validators, validators:] = random.random((validators, n - validators))
    stake = np.zeros(n)
    stake[:validators] = random.random(validators) + 0.1
    given = subnet(
        n,
        stake=stake,
        weights=weights,
        permit=yuma.top_stakes(stake, validators),
        parameters=Parameters(liquid_alpha=LiquidAlpha()),
    )
    began = time.process_time()
    first = yuma.epoch(given)
    took = time.process_time() - began
    again = yuma.epoch(given)
    assert took < 1.0
    assert first.dividends.tobytes() == again.dividends.tobytes()
    assert first.bonds.tobytes() == again.bonds.tobytes()
