"""A twin's baseline: learnt once, left only for a reason, found again, and never judged by what nobody saw."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bettertherapy_api.doctor_twin import Baseline
from tests.unit.operator.usual_traffic import BOUNDS, LOW, Traffic
from twin_operator.domain.baseline import (
    LEARN_RATINGS,
    LEARN_WINDOWS,
    RUN_LENGTH,
    TOLERATED_TAIL,
    WINDOW_SECONDS,
    Counted,
    Detector,
    Memory,
    begin,
    condition,
    counted,
    observe,
)
from twin_operator.domain.reasons import Reason
from twin_operator.engine.prometheus import Sample

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)


def answers(*seconds: float) -> Counted:
    return Counted(seconds={bound: float(sum(each <= bound for each in seconds)) for bound in BOUNDS})


def rated(**times: int) -> Counted:
    return Counted(ratings={int(name[1:]): float(number) for name, number in times.items()})


def after(memory: Memory, windows: Iterable[Counted]) -> Memory:
    for number, window in enumerate(windows):
        memory = observe(memory, window, now=NOW + timedelta(seconds=number * WINDOW_SECONDS))
    return memory


def learnt() -> Memory:
    """Twenty answers of one second in each window, and ratings of four stars."""
    windows = [answers(*[0.9] * 20)] * LEARN_WINDOWS + [rated(r4=10)] * (LEARN_RATINGS // 10)
    return after(begin("dr-a-1", None), windows)


def reason(memory: Memory) -> tuple[str, str]:
    found = condition(memory.known)
    assert found is not None
    return found.status, found.reason


def until(memory: Memory, traffic: Iterable[Counted], **field: bool) -> int | None:
    """Return after how many windows the field is set, or no longer."""
    ((name, wanted),) = field.items()
    for number, window in enumerate(traffic, start=1):
        memory = observe(memory, window, now=NOW)
        if (getattr(memory.known, name) is not None) == wanted:
            return number
    return None


# --- learning


def test_it_is_learnt_from_the_first_hour_of_traffic() -> None:
    memory = begin("dr-a-1", None)
    assert reason(memory) == ("Unknown", "BaselineLearning")
    memory = after(memory, [answers(*[0.9] * 20)] * (LEARN_WINDOWS - 1))
    assert memory.known == Baseline(served_name="dr-a-1")
    memory = after(memory, [answers(*[0.9] * 20)])
    assert memory.known == Baseline(served_name="dr-a-1", requests=240, slow_milliseconds=2500)
    assert reason(memory) == ("False", "WithinBaseline")


def test_ratings_are_learnt_by_themselves() -> None:
    memory = after(begin("dr-a-1", None), [rated(r4=10)] * 5)
    assert memory.known == Baseline(served_name="dr-a-1", rating_hundredths=400, least_rating_hundredths=375)
    assert reason(memory) == ("False", "WithinBaseline")


def test_what_was_learnt_is_not_learnt_again() -> None:
    memory = after(learnt(), [answers(*[80.0] * 50)] * 500)
    assert memory.known.slow_milliseconds == learnt().known.slow_milliseconds


def test_answers_beyond_the_histogram_make_no_baseline() -> None:
    memory = after(begin("dr-a-1", None), [answers(*[400.0] * 20)] * 40)
    assert (memory.known.requests, memory.known.slow_milliseconds) == (240, None)
    assert reason(memory) == ("Unknown", "BaselineLearning")
    found = condition(memory.known)
    assert found is not None
    assert "histogram" in found.message


# --- leaving it


@pytest.mark.parametrize("seed", range(6))
def test_what_is_usual_raises_no_alarm(seed: int) -> None:
    traffic = Traffic(seed=seed, median_seconds=0.3 * 1.6**seed, spread=(0.4, 0.8)[seed % 2])
    memory = after(begin("dr-a-1", None), traffic.windows(1500))
    assert memory.known.requests is not None
    assert memory.known.least_rating_hundredths is not None
    assert (memory.known.slow_since, memory.known.poorly_rated_since) == (None, None)


def test_at_the_edge_of_what_is_tolerated_there_are_as_few_alarms_as_said() -> None:
    """Half of the windows all slow, the others not at all, on average just what is tolerated: the worst case."""
    windows, alarms = 0, 0
    for seed in range(20):
        chance, detector = random.Random(seed), Detector()
        for _ in range(5000):
            windows += 1
            detector = detector.bet(float(chance.random() < TOLERATED_TAIL), TOLERATED_TAIL)
            if detector.alarms:
                alarms, detector = alarms + 1, Detector()
    assert windows / RUN_LENGTH == 5
    assert alarms <= 10


@pytest.mark.parametrize("seed", range(5))
def test_ten_times_slower_is_found_within_hours(seed: int) -> None:
    traffic = Traffic(seed=seed)
    memory = after(begin("dr-a-1", None), traffic.windows(300))
    traffic.times_slower = 10.0
    found = until(memory, traffic.windows(100), slow_since=True)
    assert found is not None
    assert found <= 48


@pytest.mark.parametrize("seed", range(5))
def test_low_ratings_are_found_within_300(seed: int) -> None:
    traffic = Traffic(seed=seed)
    memory = after(begin("dr-a-1", None), traffic.windows(600))
    traffic.ratings = LOW
    assert until(memory, traffic.windows(400), poorly_rated_since=True) is not None


def test_all_answers_slow_takes_six_windows() -> None:
    assert until(learnt(), [answers(*[40.0] * 20)] * 50, slow_since=True) == 6


def test_it_says_what_was_measured_and_no_more() -> None:
    memory = after(learnt(), [answers(*[40.0] * 20)] * 10)
    found = condition(memory.known)
    assert found is not None
    assert (found.status, found.reason) == ("True", Reason.LATENCY_ABOVE_BASELINE)
    assert "more than 15% of the answers of dr-a-1 take longer than 2.5 s" in found.message
    memory = after(learnt(), [rated(r1=10)] * 50)
    found = condition(memory.known)
    assert found is not None
    assert (found.status, found.reason) == ("True", Reason.RATING_BELOW_BASELINE)
    assert "below 3.75 on average" in found.message
    memory = after(memory, [answers(*[40.0] * 20)] * 10)
    assert reason(memory) == ("True", Reason.LATENCY_ABOVE_BASELINE)


def test_one_bad_window_is_no_alarm_however_many_requests_it_has() -> None:
    memory = after(learnt(), [answers(*[100.0] * 10_000)])
    assert memory.known.slow_since is None


def test_it_comes_back_and_says_so() -> None:
    memory = after(learnt(), [answers(*[40.0] * 20)] * 200)
    assert memory.known.slow_since is not None
    back = until(memory, [answers(*[0.9] * 20)] * 100, slow_since=False)
    assert back is not None
    assert back <= 24  # two hours


# --- no verdict


def test_no_traffic_is_no_verdict() -> None:
    memory = after(learnt(), [answers(*[40.0] * 20)] * 5)
    assert after(memory, [Counted()] * 1000) == memory
    slow = after(memory, [answers(*[40.0] * 20)])
    assert slow.known.slow_since is not None
    assert after(slow, [Counted()] * 1000).known == slow.known


def test_few_requests_make_a_window_together() -> None:
    assert until(learnt(), [answers(40.0)] * 100, slow_since=True) == 6 * 5
    assert until(learnt(), [answers(40.0), Counted()] * 100, slow_since=True) == 2 * 6 * 5 - 1


def test_another_version_begins_anew() -> None:
    memory = after(learnt(), [answers(*[40.0] * 20)] * 10)
    assert begin("dr-a-2", memory.known) == begin("dr-a-2", None)


def test_a_new_process_goes_on_with_what_the_status_says() -> None:
    memory = after(learnt(), [answers(*[40.0] * 20)] * 10)
    again = begin("dr-a-1", memory.known)
    assert again.known == memory.known
    assert reason(after(again, [answers(*[40.0] * 20)] * 3)) == ("True", "LatencyAboveBaseline")
    assert until(again, [answers(*[0.9] * 20)] * 100, slow_since=False) is not None


SLOW, POOR = "2026-11-30T09:00:00Z", "2026-11-30T10:00:00Z"


@pytest.mark.parametrize(
    "odd",
    [
        {"slow_milliseconds": 1234, "slow_since": SLOW},
        {"slow_milliseconds": 1234},
        {"slow_milliseconds": None, "slow_since": SLOW},
        {"requests": None, "slow_since": SLOW},
    ],
)
def test_a_bound_that_the_histogram_does_not_have_is_learnt_anew(odd: dict[str, Any]) -> None:
    """Another release had other buckets: by a bound that nobody counts, all answers were slow."""
    memory = begin("dr-a-1", learnt().known.model_copy(update=odd))
    assert (memory.known.requests, memory.known.slow_milliseconds, memory.known.slow_since) == (None, None, None)
    assert memory.known.least_rating_hundredths == learnt().known.least_rating_hundredths
    memory = after(memory, [answers(*[0.9] * 20)] * 40)
    assert memory.known == learnt().known


@pytest.mark.parametrize(
    "odd",
    [
        {"least_rating_hundredths": 500, "poorly_rated_since": POOR},
        {"least_rating_hundredths": None, "poorly_rated_since": POOR},
        {"rating_hundredths": None, "poorly_rated_since": POOR},
    ],
)
def test_a_rating_that_nobody_can_fall_short_of_or_nobody_learnt_is_learnt_anew(odd: dict[str, Any]) -> None:
    memory = begin("dr-a-1", learnt().known.model_copy(update=odd))
    assert reason(memory) == ("False", "WithinBaseline")
    memory = after(memory, [rated(r4=10)] * (LEARN_RATINGS // 10))
    assert memory.known == learnt().known
    assert until(memory, [rated(r1=10)] * 100, poorly_rated_since=True) is not None


def test_where_nobody_looks_there_is_no_condition() -> None:
    assert condition(None) is None


# --- what Prometheus says


def bucket(le: str, value: float, version: str = "dr-a-1") -> Sample:
    return Sample(labels={"twin": "dr-a", "version": version, "le": le}, value=value)


def test_counts_are_read_by_version_and_never_fall() -> None:
    found = counted({
        "seconds": [bucket("1.0", 4.0), bucket("2.5", 3.9), bucket("+Inf", 5.0), bucket("+Inf", 7.0, "dr-a-2")],
        "ratings": [Sample(labels={"twin": "dr-a", "version": "dr-a-1", "rating": "4"}, value=2.0)],
    })  # fmt: skip
    one = found["dr-a", "dr-a-1"]
    assert (one.requests, one.slower_than(2.5), one.slower_than(0.5), one.rated) == (5.0, pytest.approx(0.2), 1.0, 2.0)
    assert found["dr-a", "dr-a-2"].slower_than(160.0) == 1.0


@pytest.mark.parametrize(
    "sample",
    [
        bucket("1.0", 4.0), bucket("+Inf", -1.0), bucket("+Inf", 1e300), bucket("much", 4.0), bucket("nan", 1.0),
        Sample(labels={"le": "+Inf"}, value=4.0),
    ],
)  # fmt: skip
def test_what_cannot_be_was_not_counted(sample: Sample) -> None:
    found = counted({"seconds": [sample], "ratings": []})
    assert all(each.requests == 0 for each in found.values())
    assert not math.isnan(sample.value)
