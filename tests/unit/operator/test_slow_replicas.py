"""Which pods are slow: found within minutes, hardly ever for nothing, forgiven by trial, and never judged unseen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.operator.slow_fleet import Fleet
from twin_operator.domain.slow_replicas import (
    FORGET_SECONDS,
    MOST_TRIAL_SECONDS,
    TRIAL_SECONDS,
    WINDOW_SECONDS,
    Pace,
    Standing,
    judge,
    paces,
    ratios,
    recalled,
    slow_of,
)
from twin_operator.engine.prometheus import Sample
from twin_operator.engine.times import moment

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
ALIKE = [(8, 0.2, 0.5), (3, 0.2, 1.5), (2, 0.3, 0.5), (5, 1.0, 0.5)]


def pace(times_slower: float, running: float = 8.0) -> Pace:
    return Pace(running=running, tokens=running * WINDOW_SECONDS / (0.02 * times_slower))


class Pods:
    """Windows, one after the other."""

    def __init__(self, *uids: str) -> None:
        self.uids, self.now = uids, NOW
        self.memory: Mapping[str, Standing] = {}

    def see(self, **seen: Pace) -> tuple[str, ...]:
        """Let a window pass; returns who is slow then."""
        self.now += timedelta(seconds=WINDOW_SECONDS)
        self.memory = judge(self.memory, seen, pods=self.uids, now=self.now)
        return tuple(each.uid for each in slow_of(self.memory))

    def until_slow(self, **seen: Pace) -> int:
        return next(number for number in range(1, 100) if self.see(**seen))


@pytest.mark.parametrize(("pods", "requests", "growth"), ALIKE)
def test_pods_that_are_alike_raise_no_alarm(pods: int, requests: float, growth: float) -> None:
    compared, alarms = Fleet(seed=7, pods=pods, requests_per_second=requests, growth=growth).alarms(150)
    assert compared > 200
    assert alarms == 0


@pytest.mark.parametrize("seed", range(5))
def test_one_of_three_that_is_ten_times_slower_is_found_within_a_third_of_an_hour(seed: int) -> None:
    fleet = Fleet(seed=seed, pods=3, requests_per_second=0.2, slow=0, factor=10)
    found = [{each.uid for each in slow_of(memory)} for _, memory, _ in fleet.windows(10)]
    assert {"0"} in found
    assert all(each <= {"0"} for each in found)


def test_ten_times_slower_takes_three_windows_and_three_times_ten() -> None:
    assert Pods("a", "b", "c").until_slow(a=pace(10), b=pace(1), c=pace(1)) == 3
    assert Pods("a", "b", "c").until_slow(a=pace(3), b=pace(1), c=pace(1)) == 10


def test_what_is_less_than_twice_as_slow_never_adds_up() -> None:
    pods = Pods("a", "b", "c")
    assert not any(pods.see(a=pace(1.9), b=pace(1), c=pace(1)) for _ in range(1000))


def test_of_two_pods_the_slower_one_is_slow() -> None:
    pods = Pods("a", "b")
    pods.until_slow(a=pace(1), b=pace(10))
    assert [each.uid for each in slow_of(pods.memory)] == ["b"]


def test_a_minority_of_slow_ones_does_not_make_the_others_look_fast() -> None:
    pods = Pods(*"abcde")
    pods.until_slow(a=pace(10), b=pace(10), c=pace(1), d=pace(1), e=pace(1))
    assert [each.uid for each in slow_of(pods.memory)] == ["a", "b"]


def test_without_like_load_there_is_no_verdict() -> None:
    assert ratios({"a": pace(10, running=0.9), "b": pace(1, running=0.9)}) == {}
    assert "a" not in ratios({"a": pace(10, running=40), "b": pace(1, running=4)})
    assert "a" in ratios({"a": pace(10, running=4), "b": pace(1, running=40)})  # it runs less and is slower nonetheless
    assert ratios({"a": pace(10)}) == {}
    pods = Pods("a", "b")
    assert not any(pods.see() for _ in range(100))


def test_a_pod_that_writes_nothing_though_it_runs_is_slow() -> None:
    assert Pods("a", "b").until_slow(a=Pace(running=4, tokens=0), b=pace(1, running=4)) == 3


def test_a_slow_pod_is_tried_again_each_time_after_twice_as_long() -> None:
    pods, waited = Pods("a", "b"), []
    bad = {"a": pace(10), "b": pace(1)}
    for _ in range(8):
        pods.until_slow(**bad)
        (slow,) = slow_of(pods.memory)
        waited.append(round((moment(slow.until) - moment(slow.since)).total_seconds()))
        while pods.see(b=pace(1)):  # its twins are elsewhere, so nothing is seen of it
            pass
    assert waited == [min(MOST_TRIAL_SECONDS, TRIAL_SECONDS * 2**number) for number in range(8)]


def test_one_that_is_well_again_is_not_held_slow_and_forgotten_after_an_hour() -> None:
    pods, good = Pods("a", "b"), {"a": pace(1), "b": pace(1)}
    pods.until_slow(a=pace(10), b=pace(1))
    windows = next(number for number in range(1, 100) if not pods.see(**good))
    assert windows * WINDOW_SECONDS <= 900  # at its trial at the latest
    for _ in range(FORGET_SECONDS // WINDOW_SECONDS + 2):
        assert pods.see(**good) == ()
    assert pods.memory["a"] == Standing()


def test_one_that_still_has_load_is_back_as_soon_as_that_shows_it() -> None:
    pods = Pods("a", "b", "c")
    for _ in range(3):  # a long time
        pods.until_slow(a=pace(10), b=pace(1), c=pace(1))
        while pods.see(b=pace(1), c=pace(1)):
            pass
    pods.until_slow(a=pace(10), b=pace(1), c=pace(1))
    (slow,) = slow_of(pods.memory)
    while pods.see(a=pace(1), b=pace(1), c=pace(1)):
        pass
    assert pods.now < moment(slow.until)


def test_a_new_process_goes_on_with_what_the_status_says() -> None:
    pods = Pods("a", "b")
    pods.until_slow(a=pace(10), b=pace(1))
    other = Pods("a", "b")
    other.memory, other.now = recalled(slow_of(pods.memory)), pods.now
    assert other.see() == pods.see() == ("a",)
    for _ in range(10):
        assert other.see() == pods.see()


def test_a_pod_that_is_gone_is_forgotten() -> None:
    pods = Pods("a", "b")
    pods.until_slow(a=pace(10), b=pace(1))
    pods.uids = ("b", "c")
    assert pods.see(b=pace(1), c=pace(1)) == ()
    assert pods.memory.keys() == {"b", "c"}


@pytest.mark.parametrize("value", [-1.0, 1e300])
def test_what_cannot_be_was_not_measured(value: float) -> None:
    def sample(pod: str, value: float) -> Sample:
        return Sample(labels={"pod": pod}, value=value)

    found = {"running": [sample("p-1", 4), sample("p-2", 4), sample("gone", 4)], "tokens": [sample("p-1", value)]}
    assert paces(found, {"p-1": "a", "p-2": "b"}) == {}
    found["tokens"] = [sample("p-1", 100)]
    assert paces(found, {"p-1": "a", "p-2": "b"}) == {"a": Pace(running=4, tokens=100)}
