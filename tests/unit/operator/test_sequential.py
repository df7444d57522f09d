"""A share that is worse, told from one that is not, however often one looks."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin_operator.domain.sequential import Prior, Tried, doubt, log_evidence, log_mean

PRIOR = Prior(serving=(1.0, 60.0), tried=((1.0, 1.0, 10.0),))
VAGUE = Prior(serving=(0.5, 0.5), tried=((1.0, 0.5, 0.5),))


def expected_evidence(p: float, q: float, *, number: int, allowed: float, prior: Prior) -> float:
    """Of E after so many observations of each, over all outcomes."""

    def chance(count: int, share: float) -> float:
        return math.comb(number, count) * share**count * (1 - share) ** (number - count)

    return math.fsum(
        chance(bad, p)
        * chance(beside, q)
        * math.exp(log_evidence(Tried(number, bad), Tried(number, beside), allowed=allowed, prior=prior))
        for bad, beside in itertools.product(range(number + 1), repeat=2)
    )


@pytest.mark.parametrize("prior", [PRIOR, VAGUE])
@pytest.mark.parametrize(("p", "q", "allowed"), [(0.3, 0.3, 0.01), (0.02, 0.3, 0.0), (0.2, 0.01, 0.2), (0.9, 0.9, 0.5)])
def test_where_it_is_no_worse_the_expected_evidence_is_at_most_one(
    p: float, q: float, allowed: float, prior: Prior
) -> None:
    for number in (1, 5, 20):
        assert expected_evidence(p, q, number=number, allowed=allowed, prior=prior) <= 1 + 1e-9


def test_where_it_is_worse_the_evidence_grows() -> None:
    assert expected_evidence(0.6, 0.1, number=20, allowed=0.01, prior=PRIOR) > 20


@given(
    number=st.integers(0, 10**9), beside=st.integers(0, 10**9), share=st.floats(0, 1), other=st.floats(0, 1),
    allowed=st.floats(0, 1),
)  # fmt: skip
def test_it_is_a_number_whatever_was_counted(
    number: int, beside: int, share: float, other: float, allowed: float
) -> None:
    tried, serving = Tried(number, min(number, share * number)), Tried(beside, min(beside, other * beside))
    assert not math.isnan(log_evidence(tried, serving, allowed=allowed, prior=PRIOR))


@given(errors=st.integers(0, 99), more=st.integers(1, 5))
def test_another_failure_never_speaks_for_it(errors: int, more: int) -> None:
    serving = Tried(900, 9)
    before, after = (
        log_evidence(Tried(120, count), serving, allowed=0.01, prior=PRIOR) for count in (errors, errors + more)
    )
    if before > 0:
        assert after > before


def test_all_that_is_allowed_is_allowed() -> None:
    assert log_evidence(Tried(1000, 49), Tried(9000, 0), allowed=0.05, prior=PRIOR) < 0
    assert log_evidence(Tried(1000, 90), Tried(9000, 0), allowed=0.05, prior=PRIOR) > math.log(20)


def test_an_equal_version_is_doubted_once_in_twenty_looks() -> None:
    draw = random.Random(8)
    doubted = 0
    for _ in range(1000):
        bad, beside = (sum(draw.random() < 0.1 for _ in range(number)) for number in (100, 300))
        doubted += doubt(Tried(100, bad), Tried(300, beside), allowed=0.01) >= 1.35
    assert 25 <= doubted <= 75
    assert doubt(Tried(0, 0), Tried(10, 1), allowed=0.01) == 0.0
    assert doubt(Tried(5, 1), Tried(900, 0), allowed=0.01) > 1.35


def test_what_can_not_be_counted_is_refused() -> None:
    for odd in (Tried(3, 4), Tried(3, -1), Tried(math.nan, 0), Tried(math.inf, 1)):
        with pytest.raises(ValueError, match="more than there was"):
            log_evidence(odd, Tried(10, 0), allowed=0, prior=PRIOR)
        with pytest.raises(ValueError, match="more than there was"):
            log_evidence(Tried(10, 0), odd, allowed=0, prior=PRIOR)


def test_a_mean_of_evidences_is_taken_of_them_and_not_of_their_logarithms() -> None:
    assert log_mean([math.log(1), math.log(3)]) == pytest.approx(math.log(2))
    assert log_mean([-2000.0, -2000.0]) == pytest.approx(-2000.0)
    assert log_mean([-math.inf, 0.0]) == pytest.approx(math.log(0.5))


def test_looked_at_after_each_request_it_seldom_cries_wolf() -> None:
    draw = random.Random(5)
    alarms = 0
    for _ in range(200):
        bad = beside = 0
        for number in range(1, 301):
            bad += draw.random() < 0.05
            beside += sum(draw.random() < 0.05 for _ in range(3))
            found = log_evidence(Tried(number, bad), Tried(3 * number, beside), allowed=0.01, prior=PRIOR)
            if found >= math.log(1 / 0.05):
                alarms += 1
                break
    assert alarms <= 10
