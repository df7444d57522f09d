"""A pool's size: up fast, down late, never on what wasn't seen."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettertherapy_api.miner_pool import Autoscaling
from twin_operator.domain.reasons import Reason
from twin_operator.domain.scaling import (
    OLD_SECONDS,
    Decision,
    Memory,
    Outlook,
    Signal,
    Unmeasured,
    decide,
    observe,
    outlook,
)
from twin_operator.domain.scaling_signals import FRESH_SECONDS, Look
from twin_operator.engine.conditions import Finding

SLOTS = 8
GONE = Unmeasured(why=Finding(Reason.METRICS_UNAVAILABLE, "Prometheus doesn't answer"))
FULL = Finding(Reason.PODS_REFUSED, "exceeded quota: pods=2")


def spec(**fields: int) -> Autoscaling:
    return Autoscaling.model_validate({
        "mode": "Operator", "min": 1, "max": 10, "waitingPerReplica": 4, "stabilizationSeconds": 300,
        "idleSeconds": 600, **fields,
    })  # fmt: skip


@dataclass
class Episode:
    """A pool through time, looked at as its watch does, every `scrape` seconds."""

    spec: Autoscaling = field(default_factory=spec)
    replicas: int = 1
    scrape: float = 2.0
    now: float = 1000.0
    memory: Memory = field(default_factory=Memory)
    sizes: list[int] = field(default_factory=list)
    most: int | None = None
    demanded: bool = False
    capacity: Finding | None = None
    last: Decision | None = None

    def decide(self, seen: Outlook | Unmeasured | None = None) -> Decision:
        seen = seen or outlook(self.memory, spec=self.spec, slots=SLOTS, now=self.now) or GONE
        made = decide(
            self.spec, replicas=self.replicas, seen=seen, demanded=self.demanded, capacity=self.capacity
        )  # fmt: skip
        self.replicas, self.last = made.replicas, made
        self.sizes.append(made.replicas)
        return made

    def look(self, **load: object) -> Decision:
        self.now += self.scrape
        look = Look(sampled_at=self.now, measured=self.replicas, **load)  # type: ignore[arg-type]
        self.memory = observe(
            self.memory, look, spec=self.spec, slots=SLOTS, replicas=self.replicas, now=self.now, most=self.most
        )  # fmt: skip
        return self.decide()

    def go(self, seconds: float, **load: object) -> list[int]:
        """Return the sizes in which this load results."""
        begun = len(self.sizes)
        for _ in range(round(seconds / self.scrape)):
            self.look(**load)
        return self.sizes[begun:]

    def unseen(self, seconds: float) -> list[int]:
        begun = len(self.sizes)
        for _ in range(round(seconds / self.scrape)):
            self.now += self.scrape
            self.decide()
        return self.sizes[begun:]


def changes(sizes: list[int]) -> int:
    return sum(before != after for before, after in itertools.pairwise(sizes))


def test_a_load_of_twice_what_the_pool_is_for_counts_at_the_first_look() -> None:
    pool = Episode()
    pool.go(60)
    made = pool.look(waiting=12)
    assert (made.replicas, made.signal, made.scaling.reason) == (2, Signal.WAITING, Reason.SCALED_UP)
    assert "6.0 requests wait; one pod is for 4" in made.why
    assert pool.look(waiting=12).replicas == 3


def test_a_little_more_than_it_is_for_counts_at_the_second_look_and_a_flicker_never() -> None:
    pool = Episode()
    pool.go(60)
    assert [pool.look(waiting=5).replicas, pool.look(waiting=5).replicas] == [1, 2]
    other = Episode()
    other.go(60)
    assert set(other.go(2, waiting=7) + other.go(60) + other.go(2, waiting=7) + other.go(60)) == {1}


def test_a_slow_scrape_has_the_same_windows() -> None:
    pool = Episode(scrape=60.0)
    pool.go(600)
    assert [pool.look(waiting=5).replicas, pool.look(waiting=5).replicas] == [1, 1]  # nothing is known in between
    slow = Episode(scrape=20.0)
    slow.go(600)
    assert [slow.look(waiting=5).replicas, slow.look(waiting=5).replicas] == [1, 2]


@pytest.mark.parametrize(
    ("load", "signal", "size"),
    [
        ({"kv_percent": 250.0}, Signal.KV_CACHE, 4),
        ({"adapters": 30}, Signal.SLOTS, 4),
        ({"waiting": 16.0}, Signal.WAITING, 4),
    ],
)
def test_each_signal_makes_the_pool_larger(load: dict[str, object], signal: Signal, size: int) -> None:
    pool = Episode()
    sizes = pool.go(6, **load)
    assert sizes[-1] == size
    other = Episode(spec=spec(max=2))
    other.go(6, **load)
    assert other.last is not None
    assert (other.replicas, other.last.scaling.reason) == (2, Reason.AT_MAXIMUM)


def test_what_is_needed_does_not_grow_with_the_pods_that_are_still_starting() -> None:
    assert Episode().go(120, waiting=16.0)[-1] == 4


def test_it_shrinks_once_a_lower_need_has_lasted_and_says_so_until_then() -> None:
    pool = Episode()
    pool.go(60, waiting=16.0)
    assert pool.replicas == 4
    assert set(pool.go(290)) == {4}
    assert pool.last is not None
    assert pool.last.scaling.reason == Reason.STABILIZING
    assert pool.go(80)[-1] == 1
    assert pool.sizes == sorted(pool.sizes[:3]) + sorted(pool.sizes[3:], reverse=True)  # up at once, then only down


def test_the_highest_of_the_window_counts_not_the_last() -> None:
    pool = Episode()
    pool.go(60, waiting=12.0)
    for _ in range(8):
        pool.go(100)
        pool.go(6, waiting=12.0)
    assert pool.sizes == [2, *(3 for _ in pool.sizes[1:])]


def test_what_engines_run_keeps_them_though_nothing_waits() -> None:
    pool = Episode(spec=spec(stabilizationSeconds=60))
    pool.go(20, waiting=16.0, running=16.0)  # one engine was seen to run 16, then four to run 4 each
    assert pool.replicas == 4
    pool.go(20, waiting=20.0, running=40.0)
    assert pool.replicas == 5
    assert set(pool.go(300, running=50.0)) == {5}
    assert pool.go(300, running=20.0)[-1] == 2


def test_before_any_engine_was_seen_full_one_pod_goes_at_a_time() -> None:
    pool = Episode(replicas=4, spec=spec(stabilizationSeconds=60))
    sizes = pool.go(400, running=3.0)
    assert sorted(set(sizes), reverse=True) == [4, 3, 2, 1]
    assert sizes == sorted(sizes, reverse=True)


def test_a_size_that_was_left_is_not_asked_for_again_by_the_same_load() -> None:
    for kv in range(0, 1000, 7):
        pool = Episode(replicas=10, spec=spec(stabilizationSeconds=30))
        pool.go(200, kv_percent=float(kv))
        settled = pool.replicas
        assert set(pool.go(200, kv_percent=float(kv))) == {settled}


def test_a_load_that_wavers_slowly_about_a_boundary_makes_no_flapping() -> None:
    pool = Episode(replicas=3, spec=spec(stabilizationSeconds=30))
    for _ in range(10):
        pool.go(100, kv_percent=150.0)  # two pods would do, only just
        pool.go(20, kv_percent=165.0)
    assert set(pool.sizes) == {3}
    assert pool.go(100, kv_percent=120.0)[-1] == 2


def test_nobody_asks_so_it_sleeps_and_a_question_wakes_it() -> None:
    pool = Episode(spec=spec(min=0))
    assert set(pool.go(596)) == {1}
    made = [pool.look() for _ in range(4)][-1]
    assert pool.replicas == 0
    assert made.scaling.reason == Reason.ASLEEP
    pool.demanded = True
    woken = pool.decide()
    assert (woken.replicas, woken.scaling.reason, woken.signal) == (1, Reason.WOKEN, Signal.DEMAND)
    pool.demanded = False
    assert set(pool.go(590)) == {1}  # it isn't put to bed for having slept


def test_a_pool_with_a_minimum_of_one_never_sleeps() -> None:
    assert set(Episode().go(4000)) == {1}


@pytest.mark.parametrize("load", [{"held": 9.0, "waiting": 9.0}, {"held": 1.0, "waiting": 1.0}])
def test_requests_that_miners_hold_wake_it_too(load: dict[str, float]) -> None:
    pool = Episode(spec=spec(min=0), replicas=0)
    made = pool.look(**load)
    assert (made.scaling.reason, made.signal) == (Reason.WOKEN, Signal.DEMAND)
    assert pool.replicas >= 1
    assert f"{load['held']:.0f} requests wait" in made.why


def test_requests_between_two_looks_keep_it_awake_by_what_is_counted() -> None:
    pool = Episode(spec=spec(min=0))
    for count in range(60):
        pool.go(60, asked={"m": float(count)})
    assert pool.replicas == 1
    pool.go(610, asked={"m": 59.0})
    assert pool.replicas == 0


def test_a_counter_that_began_anew_is_no_negative_traffic_and_what_it_counts_counts() -> None:
    pool = Episode(spec=spec(min=0))
    pool.go(500, asked={"m": 50.0})
    pool.look(asked={"m": 0.0})  # began anew, and nobody has asked it
    assert pool.go(110, asked={"m": 0.0})[-1] == 0
    other = Episode(spec=spec(min=0))
    other.go(500, asked={"m": 50.0})
    other.look(asked={"m": 3.0})
    assert set(other.go(500, asked={"m": 3.0})) == {1}


def test_without_prometheus_the_size_is_held_and_it_says_why() -> None:
    pool = Episode(spec=spec(min=0))
    pool.go(60, waiting=16.0)
    assert set(pool.unseen(600)) == {4}
    assert pool.last is not None
    assert (pool.last.active, pool.last.scaling.reason) == ("False", Reason.METRICS_UNAVAILABLE)
    assert "held at 4" in pool.last.why
    assert set(pool.go(290)) == {4}  # what lasted before doesn't count: nobody saw what was between
    assert pool.go(80)[-1] == 1


def test_without_prometheus_a_question_wakes_it_all_the_same_and_bounds_hold() -> None:
    pool = Episode(spec=spec(min=0), replicas=0, demanded=True)
    assert pool.decide(GONE).replicas == 1
    assert Episode(replicas=9, spec=spec(max=3)).decide(GONE).replicas == 3
    assert Episode(replicas=1, spec=spec(min=3)).decide(GONE).replicas == 3


def test_a_pod_without_samples_lets_it_grow_and_not_shrink() -> None:
    pool = Episode()
    pool.go(60, waiting=16.0)
    assert set(pool.go(600, missing=("e-2",))) == {4}
    assert pool.last is not None
    assert (pool.last.active, pool.last.scaling.reason) == ("False", Reason.METRICS_STALE)
    assert "e-2" in pool.last.scaling.message
    assert pool.go(6, waiting=24.0, missing=("e-2",))[-1] == 6


def test_of_a_pod_that_has_just_come_nothing_is_said() -> None:
    pool = Episode()
    pool.go(60)
    pool.go(FRESH_SECONDS - 10, missing=("e-2",))
    assert pool.last is not None
    assert pool.last.active == "True"
    assert pool.last.why == ""


def test_a_pool_at_its_quota_is_not_made_larger() -> None:
    pool = Episode(replicas=2, capacity=FULL)
    pool.go(60, waiting=30.0)
    assert pool.last is not None
    assert (pool.replicas, pool.last.active, pool.last.scaling.reason) == (2, "False", Reason.CAPACITY_EXHAUSTED)
    assert "exceeded quota" in pool.last.scaling.message
    pool.capacity = None
    assert pool.look(waiting=30.0).replicas == 8


def test_the_same_scrape_seen_twice_is_one_look() -> None:
    pool = Episode()
    pool.go(60)
    for _ in range(10):
        pool.now += 2
        look = Look(sampled_at=5.0, measured=1, waiting=7.0)
        pool.memory = observe(pool.memory, look, spec=pool.spec, slots=SLOTS, replicas=1, now=pool.now)
    assert pool.decide().replicas == 1


def test_two_replicas_of_prometheus_by_turns_make_no_flapping() -> None:
    pool = Episode()
    for _ in range(300):  # the one scrapes a minute late, and saw less
        pool.look(waiting=12.0)
        pool.look(waiting=9.0)
    assert changes(pool.sizes) <= 3
    assert pool.replicas == 3


def test_a_minimum_that_swings_makes_it_larger_once() -> None:
    pool = Episode()
    for number in range(40):
        pool.spec = spec(min=3 if number % 2 else 1)
        pool.go(30)
    assert changes(pool.sizes) == 1


def test_a_maximum_that_swings_is_followed_down_and_then_no_more_up() -> None:
    pool = Episode()
    for number in range(40):
        pool.spec = spec(max=2 if number % 2 else 6)
        pool.go(30, waiting=100.0)
        assert pool.replicas <= pool.spec.max
    assert changes(pool.sizes) <= 5
    pool.spec = spec(max=6)
    assert pool.go(400, waiting=100.0)[-1] == 6


def test_one_raise_of_the_maximum_counts_at_once() -> None:
    pool = Episode(spec=spec(max=2))
    pool.go(60, waiting=100.0)
    pool.spec = spec(max=6)
    assert pool.look(waiting=100.0).replicas == 6


loads = st.fixed_dictionaries({
    "waiting": st.floats(0, 200), "running": st.floats(0, 500), "kv_percent": st.floats(0, 2000),
    "adapters": st.integers(0, 200),
})  # fmt: skip
bounds = st.tuples(st.integers(0, 5), st.integers(1, 20)).map(lambda pair: (pair[0], max(pair)))


@given(
    bounds=bounds, begun=st.integers(0, 30), steps=st.lists(st.one_of(loads, st.just("unseen")), max_size=60),
    scrape=st.sampled_from([1.0, 2.0, 15.0, 30.0]),
)  # fmt: skip
def test_whatever_comes_the_size_is_within_its_bounds_and_held_while_unseen(
    bounds: tuple[int, int], begun: int, steps: list[object], scrape: float
) -> None:
    pool = Episode(
        spec=spec(min=bounds[0], max=bounds[1], idleSeconds=20, stabilizationSeconds=20), replicas=begun, scrape=scrape
    )  # fmt: skip
    for step in steps:
        if isinstance(step, dict):
            pool.look(**step)
        else:
            pool.now += OLD_SECONDS + 1
            before = min(max(pool.replicas, bounds[0]), bounds[1])
            pool.decide()
            assert pool.replicas == before
        assert bounds[0] <= pool.replicas <= bounds[1]
        assert pool.last is not None
        assert pool.last.scaling.message


@given(load=loads, more=loads, begun=st.integers(1, 10))
def test_more_load_never_makes_a_smaller_pool(load: dict[str, float], more: dict[str, float], begun: int) -> None:
    """Of two pools that saw the same, the one that then sees more is no smaller then."""
    light, heavy = Episode(replicas=begun), Episode(replicas=begun)
    for pool in (light, heavy):
        pool.go(400, running=1.0)
    heavy.replicas = light.replicas
    light.look(**load)
    heavy.look(**{name: load[name] + more[name] for name in load})
    assert heavy.replicas >= light.replicas


@given(low=loads, high=loads, period=st.integers(1, 40))
def test_a_load_that_swings_faster_than_the_window_is_followed_up_and_never_down(
    low: dict[str, float], high: dict[str, float], period: int
) -> None:
    pool = Episode(spec=spec(max=1000))
    for _ in range(120 // period + 2):
        pool.go(2 * period, **high)
        pool.go(2 * period, **low)
    assert pool.sizes == sorted(pool.sizes)


def test_a_clock_that_jumps_back_breaks_nothing() -> None:
    pool = Episode()
    pool.go(60, waiting=16.0)
    pool.now -= 60
    assert set(pool.go(120, waiting=16.0)) == {4}


def test_the_sentences_for_conditions_stay_while_the_load_moves() -> None:
    pool = Episode(replicas=3)
    said = set()
    for number in range(100):
        pool.look(waiting=float(number % 5), running=float(number % 7), kv_percent=float(number), adapters=number % 9)
        assert pool.last is not None
        said.add((pool.last.active, pool.last.scaling.reason, pool.last.scaling.message))
    assert len(said) <= 2


def test_a_memory_is_bounded() -> None:
    pool = Episode(spec=spec(stabilizationSeconds=3600))
    for number in range(4000):
        pool.look(waiting=max(0.0, 100.0 - number / 50))
    assert len(pool.memory.seen) <= 31
    assert len(pool.memory.highs) <= 30
    assert replace(pool.memory).maxima == ((pool.memory.maxima[0][0], 10),)


@pytest.mark.parametrize(
    ("most", "running", "learned"),
    [(16, 16.0, 16.0), (16, 14.0, 14.0), (16, 2.0, None), (None, 16.0, None)],
    ids=["full", "a part is kept for small twins", "engines have places", "nothing is known of the engine"],
)
def test_what_miners_hold_for_full_engines_says_what_one_runs(
    most: int | None, running: float, learned: float | None
) -> None:
    pool = Episode(most=most)
    pool.look(waiting=16.0, held=16.0, running=running)
    assert pool.memory.saturated == learned
