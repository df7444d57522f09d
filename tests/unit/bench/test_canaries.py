"""The simulated canaries are judged as the operator judges one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bettertherapy_api.doctor_twin import Rollout
from tests.bench.canaries import BEFORE, BOUNDS, LOOK_EVERY, Counted, Failing, evidence, played, taken_back
from twin_operator.domain.canary_analysis import Earlier, Measurement, Outlook, assess
from twin_operator.domain.pool_facts import PodFacts
from twin_operator.domain.sequential import Prior, Tried, log_evidence

MINER = PodFacts(name="m", uid="u", component="miner", ready=True, leaving=False)
PRIOR = Prior(serving=(1.0, 60.0), tried=((0.25, 1.0, 10.0), (0.75, 8.0, 90.0)))


def test_the_evidence_is_the_operators() -> None:
    draw = np.random.default_rng(1)
    tried, serving = (draw.integers(0, 400, 300).astype(float) for _ in range(2))
    bad, beside = np.floor(tried * draw.random(300) ** 3), np.floor(serving * draw.random(300) ** 3)
    for allowed in (0.0, 0.01, 0.05):
        found = evidence(tried, bad, serving, beside, allowed=allowed, prior=PRIOR)
        told = [
            log_evidence(Tried(*pair[:2]), Tried(*pair[2:]), allowed=allowed, prior=PRIOR)
            for pair in zip(tried.tolist(), bad.tolist(), serving.tolist(), beside.tolist(), strict=True)
        ]
        assert found == pytest.approx(told, abs=1e-8)


STEPS = ((10, 60), (50, 60))
LATER = np.where(np.arange(24)[:, None] < 12, 0.01, 0.4)


@pytest.mark.parametrize(
    ("failing", "slower"),
    [((0.08, 0.01), 1.0), ((0.01, 0.01), 2.5), ((0.01, 0.01), 1.0), ((LATER, LATER), 1.0), ((LATER, 0.05), 1.0)],
)
def test_a_canary_is_taken_back_at_the_operators_look(failing: tuple[Failing, Failing], slower: float) -> None:
    draw = np.random.default_rng(2)
    canary, serving = played(draw, 3, steps=STEPS, failing=failing, slower=slower, rating=True)
    found = taken_back(canary, serving, steps=STEPS, before=0.01)
    for which in range(3):
        looks = (_look(canary, serving, at, which, 0.01) for at in range(len(canary.requests)))
        first = next((at for at, each in enumerate(looks) if each is Outlook.WORSE), -1)
        assert found[which] == first


def _codes(counted: Counted, at: int, which: int) -> dict[str, float]:
    failed = float(counted.failed[at, which])
    return {"200": float(counted.requests[at, which]) - failed, "503": failed}


def _look(canary: Counted, serving: Counted, at: int, which: int, before: float) -> Outlook:
    def seconds(counted: Counted) -> dict[float, float]:
        within = [*counted.within[at, which].tolist(), float(counted.requests[at, which])]
        return dict(zip((*BOUNDS.tolist(), math.inf), within, strict=True))

    def stars(counted: Counted) -> dict[int, float]:
        return {place + 1: count for place, count in enumerate(counted.stars[at, which].tolist()) if count}

    first = STEPS[0][1] // LOOK_EVERY
    earlier = (
        Earlier(requests=_codes(canary, first - 1, which), serving_requests=_codes(serving, first - 1, which))
        if at >= first
        else None
    )
    measured = Measurement(
        earlier=earlier,
        fresh_miners=frozenset({"m"}), requests=_codes(canary, at, which), serving_requests=_codes(serving, at, which),
        serving_before={"200": BEFORE * (1 - before), "503": BEFORE * before},
        canary_seconds=seconds(canary), serving_seconds=seconds(serving),
        canary_ratings=stars(canary), stable_ratings=stars(serving),
    )  # fmt: skip
    return assess(measured, Rollout(), miners=[MINER]).outlook


def test_failures_may_differ_from_look_to_look() -> None:
    failing = np.array([[0.0], [1.0], [0.0]])
    canary, serving = played(np.random.default_rng(3), 4, steps=((50, 15),), failing=(failing, 0.0))

    assert canary.failed.tolist() == [[0.0] * 4, [5.0] * 4, [5.0] * 4]
    assert not serving.failed.any()


def test_a_canary_is_not_taken_back_for_failures_that_both_have_since_a_larger_step() -> None:
    steps = ((10, 300), (50, 300))
    failing = np.where(np.arange(120)[:, None] < 60, 0.01, 0.1)
    canary, serving = played(np.random.default_rng(4), 200, steps=steps, failing=(failing, failing))
    assert (taken_back(canary, serving, steps=steps, before=0.01) >= 0).mean() <= 0.05
    whole = taken_back(canary, serving, steps=(), before=0.01)
    assert (whole >= 0).mean() > 0.2, "by the sums alone they are left too: the test shows nothing"
