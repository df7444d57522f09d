"""How busy twins are, by Prometheus: classes that stay, and what is not known is not taken for idle."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.unit.operator.played import Played
from tests.unit.operator.test_placing import fleet, holders
from twin_operator.domain.activity import UNMEASURED, Activity, activity
from twin_operator.domain.objects import Pool
from twin_operator.engine.prometheus import Sample
from twin_operator.errors import PrometheusError
from twin_operator.kinds.routing.activity_watch import ActivityWatch


def samples(**values: float) -> list[Sample]:
    """In flight by twin, all counted by miner m1."""
    return [Sample(labels={"pod": "m1", "twin": twin}, value=value) for twin, value in values.items()]


PAGES = [Sample(labels={"pod": "m1"}, value=1.0)]
TWINS = {"a", "b", "c"}


def seen(
    in_flight: Sequence[Sample], pages: Sequence[Sample] = PAGES, *, former: Activity = UNMEASURED, miners: str = "m1"
) -> Activity:
    return activity({"in_flight": in_flight, "pages": pages}, miners=set(miners.split()), twins=TWINS, former=former)


def test_twins_have_classes_and_those_that_nobody_asked_are_idle() -> None:
    found = seen(samples(a=2.1, b=0.0))
    assert (found.of("a"), found.of("b"), found.of("c")) == (2048, 0, 0)


@pytest.mark.parametrize(("average", "expected"), [(1.1, 2048), (4.0, 2048), (4.3, 4096), (0.9, 1024)])
def test_a_class_stays_until_the_average_has_doubled_or_halved(average: float, expected: int) -> None:
    assert seen(samples(a=average), former=Activity(by_twin={"a": 2048})).of("a") == expected


def test_without_a_miners_page_the_others_are_not_known_to_be_idle() -> None:
    found = seen(samples(a=1.0), miners="m1 m2")
    assert (found.of("a"), found.of("b")) == (1024, None)
    assert seen([], []) == UNMEASURED
    assert seen([], miners="") == UNMEASURED


def test_where_series_are_summed_up_the_others_are_not_known_to_be_idle() -> None:
    found = seen([*samples(a=1.0), Sample(labels={"pod": "m1", "twin": "other"}, value=3.0)])
    assert (found.of("a"), found.of("b")) == (1024, None)


@pytest.mark.parametrize("value", [-1.0, 1e300])
def test_what_cannot_be_is_not_believed(value: float) -> None:
    assert seen(samples(a=value)).of("a") == 0


def test_pods_of_another_pool_count_for_nothing() -> None:
    assert seen([Sample(labels={"pod": "m9", "twin": "a"}, value=9.0)]).of("a") == 0


class FakePrometheus:
    def __init__(self) -> None:
        self.in_flight: list[Sample] = []
        self.down = False

    async def query(self, promql: str) -> list[Sample]:
        if self.down:
            raise PrometheusError("it doesn't answer")
        return self.in_flight if "in_flight" in promql else PAGES


async def watched(world: Played, prometheus: FakePrometheus) -> tuple[ActivityWatch, list[Pool]]:
    changed: list[Pool] = []
    watch = ActivityWatch(
        prometheus,  # type: ignore[arg-type]
        world=world.process.world, changed=changed.append, matchers='namespace="{namespace}"',
    )  # fmt: skip
    world.start_pod("m1", component="miner")
    await world.settle()
    await watch.look()
    return watch, changed


async def test_an_outage_leaves_what_was_known_and_moves_nobody() -> None:
    world, prometheus = await fleet(4, 2), FakePrometheus()
    prometheus.in_flight = [Sample(labels={"pod": "m1", "twin": "dr-1"}, value=2.0)]
    watch, changed = await watched(world, prometheus)
    pool = changed[0]
    known = watch.seen(pool)
    assert known is not None
    assert (known.of("dr-1"), known.of("dr-2"), len(changed)) == (2048, 0, 1)
    prometheus.down = True
    await watch.look()
    assert watch.seen(pool) == known
    assert len(changed) == 1


async def test_a_prometheus_that_never_answers_leaves_placement_by_number() -> None:
    world, prometheus = await fleet(4, 2), FakePrometheus()
    prometheus.down = True
    watch, changed = await watched(world, prometheus)
    assert watch.seen(changed[0]) == UNMEASURED


async def test_a_hot_twin_is_preferred_on_several_pods() -> None:
    world = await fleet(6, 3)
    world.process.routing._busy = lambda pool: Activity(by_twin={"dr-0": 65536}, others=64)
    world.process._wake_route("clinic", "p", None)
    await world.settle()
    assert len(holders(world, "dr-0")) > 1
    assert {len(holders(world, f"dr-{number}")) for number in range(1, 6)} == {1}


async def test_until_it_is_known_how_busy_twins_are_none_is_moved() -> None:
    world = await fleet(8, 1, placement={"mode": "Spread", "replicas": 1})
    world.process.routing._busy = lambda pool: None
    world.start_pod("e1", ip="10.0.0.2")
    world.report("e1")
    await world.settle(rounds=100_000)
    assert {tuple(holders(world, f"dr-{number}")) for number in range(8)} == {("e0",)}
    world.process.routing._busy = lambda pool: UNMEASURED
    world.process._wake_route("clinic", "p", None)
    await world.settle(rounds=100_000)
    assert any(holders(world, f"dr-{number}")[0] == "e1" for number in range(8))
