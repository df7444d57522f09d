"""Sums over steps of different weight compare different hours: what came since the step began has to say so too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from bettertherapy_api.doctor_twin import Rollout
from tests.unit.operator.samples import digest, twin_object
from twin_operator.domain.canary_analysis import Earlier, Measurement, Outlook, Trial, assess
from twin_operator.domain.objects import Twin, twin_from
from twin_operator.domain.pool_facts import PodFacts
from twin_operator.engine.prometheus import Sample
from twin_operator.engine.store import Store
from twin_operator.engine.times import timestamp
from twin_operator.errors import PrometheusError
from twin_operator.kinds.doctor_twin.canary_watch import CanaryWatch

MINER = PodFacts(name="m", uid="u", component="miner", ready=True, leaving=False)
START = datetime.now(UTC) - timedelta(minutes=10)


def codes(number: float, failed: float) -> dict[str, float]:
    return {"200": number - failed, "503": failed}


def judged(
    canary: tuple[float, float], serving: tuple[float, float], *,
    earlier: tuple[tuple[float, float], tuple[float, float]] | None,
) -> Outlook:  # fmt: skip
    began = earlier and Earlier(requests=codes(*earlier[0]), serving_requests=codes(*earlier[1]))
    measured = Measurement(
        fresh_miners=frozenset({"m"}), requests=codes(*canary), serving_requests=codes(*serving),
        serving_before=codes(5000, 50), earlier=began or None,
    )  # fmt: skip
    return assess(measured, Rollout(), miners=[MINER]).outlook


AT_10 = ((300, 3), (2700, 27))


def test_failures_of_both_since_a_larger_step_began_speak_against_neither() -> None:
    both = {"canary": (600, 33), "serving": (3000, 57)}  # a tenth of 300 and of 300 since then
    assert judged(**both, earlier=None) is Outlook.WORSE
    assert judged(**both, earlier=AT_10) is Outlook.GOOD


def test_what_is_worse_since_the_step_began_is_taken_back_as_before() -> None:
    assert judged((600, 33), (3000, 30), earlier=AT_10) is Outlook.WORSE


def test_it_takes_back_nothing_that_all_steps_together_would_not() -> None:
    assert judged((330, 4), (3000, 300), earlier=((300, 3), (2970, 300))) is Outlook.GOOD


def test_what_all_steps_say_holds_it_until_enough_came_since() -> None:
    assert judged((305, 33), (2705, 27), earlier=((300, 33), (2700, 27))) is Outlook.UNCLEAR
    assert judged((400, 33), (2800, 27), earlier=((300, 33), (2700, 27))) is Outlook.GOOD


def test_a_little_less_than_before_is_what_extrapolation_leaves() -> None:
    assert judged((303, 3), (2699.5, 26.8), earlier=AT_10) is Outlook.GOOD


class Counters:
    """A Prometheus whose counters of canary and serving version are a hundred more at each look."""

    def __init__(self) -> None:
        self.looks: Iterator[int] = count(1)
        self.now = 0
        self.down = False

    async def query(self, promql: str) -> list[Sample]:
        if self.down:
            raise PrometheusError("it is down")
        version = {"max_over_time": "dr-a-b", "increase": "dr-a-a"}
        for function, name in version.items():
            if f"({function}(bettertherapy_miner_requests_total" in promql and "offset" not in promql:
                if name == "dr-a-b":
                    self.now = 100 * next(self.looks)
                return [Sample(labels={"twin": "dr-a", "version": name, "code": "200"}, value=self.now)]
        return []


TRIAL = Trial(twin="dr-a", canary="dr-a-b", stable="dr-a-a")


def twin(step: datetime, start: datetime = START) -> Twin:
    made = twin_object("dr-a", status={
        "specDigest": digest("a"), "canaryStartTime": timestamp(start), "canaryStepTime": timestamp(step),
    })  # fmt: skip
    read = twin_from(made)
    assert isinstance(read, Twin)
    return read


@pytest.fixture
def watch() -> CanaryWatch:
    prometheus: Any = Counters()
    return CanaryWatch(prometheus, store=Store([]), wake=lambda _: None, matchers="")


async def looked(watch: CanaryWatch, *twins: Twin) -> dict[str, float] | None:
    trials = {
        TRIAL if not place else Trial(twin="dr-o", canary="b", stable="a"): each for place, each in enumerate(twins)
    }
    await watch._measure("clinic", trials)
    measured = watch._taken["clinic", TRIAL].measured
    assert isinstance(measured, Measurement)
    return dict(measured.earlier.requests) if measured.earlier is not None else None


async def test_what_was_counted_last_before_a_step_is_what_it_began_with(watch: CanaryWatch) -> None:
    second, third = START + timedelta(minutes=2), START + timedelta(minutes=4)
    assert [await looked(watch, twin(START)) for _ in range(2)] == [None, None]
    assert [await looked(watch, twin(second)) for _ in range(2)] == [{"200": 200.0}] * 2
    assert await looked(watch, twin(third)) == {"200": 400.0}


async def test_an_operator_that_did_not_see_the_step_begin_does_not_know(watch: CanaryWatch) -> None:
    assert await looked(watch, twin(START + timedelta(minutes=2))) is None
    assert await looked(watch, twin(START + timedelta(minutes=2))) is None


async def test_nothing_is_known_once_the_serving_version_is_counted_from_another_time(watch: CanaryWatch) -> None:
    older = twin(START, START - timedelta(hours=1))
    await looked(watch, twin(START), older)
    assert await looked(watch, twin(START + timedelta(minutes=2)), older) == {"200": 100.0}
    assert await looked(watch, twin(START + timedelta(minutes=2))) is None


async def test_nothing_is_known_of_a_canary_for_which_the_count_moves_along(watch: CanaryWatch) -> None:
    old = START - timedelta(days=2)
    await looked(watch, twin(START, old))
    assert await looked(watch, twin(START + timedelta(minutes=2), old)) is None


async def test_nothing_is_known_of_a_step_that_began_while_prometheus_was_down(watch: CanaryWatch) -> None:
    await looked(watch, twin(START))
    prometheus: Any = watch._prometheus
    prometheus.down = True
    await watch._measure("clinic", {TRIAL: twin(START + timedelta(minutes=2))})
    prometheus.down = False
    assert await looked(watch, twin(START + timedelta(minutes=2))) is None
