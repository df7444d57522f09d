"""The whole operator moves twins off a slow pod and back: by what Prometheus says, made before broken, and says so."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.unit.operator.played import Played
from tests.unit.operator.test_placing import SPREAD, hold, holders, start, wanted
from twin_operator.domain.activity import UNMEASURED
from twin_operator.domain.slow_replicas import WINDOW_SECONDS
from twin_operator.engine.prometheus import Sample
from twin_operator.engine.times import moment
from twin_operator.errors import PrometheusError

FAST = 8 * WINDOW_SECONDS / 0.02
"""Tokens of a window with 8 sequences."""


class Pool:
    """A pool of a played cluster; the test plays Prometheus and the clock of the watch."""

    def __init__(self, world: Played) -> None:
        self.world = world
        self.now = datetime(2026, 12, 1, 9, tzinfo=UTC)
        self.slower: dict[str, float] = {}
        self.silent: set[str] = set()
        self.down = False
        assert world.process.replicas is not None
        self.watch = world.process.replicas
        self.watch._clock = lambda: self.now
        self.watch._prometheus.query = self._query  # type: ignore[method-assign]

    @classmethod
    async def made(cls, twins: int, pods: int, **spec: Any) -> Pool:
        world = Played(prometheus_url="http://prometheus.invalid")
        world.start_pool(engine={"device": "CPU", "maxLoras": 8}, replicas=pods)
        for number in range(pods):
            start(world, f"e{number}")
        for number in range(twins):
            world.start_twin(f"dr-{number}", **spec)
        pool = cls(world)
        world.process.routing._busy = lambda pool: UNMEASURED
        await world.lead()
        await world.settle(rounds=100_000)
        await hold(world)
        return pool

    async def _query(self, promql: str) -> list[Sample]:
        if self.down:
            raise PrometheusError("it doesn't answer")
        names = [name for name in ("e0", "e1", "e2") if name not in self.silent]
        if "increase" in promql:
            return [Sample(labels={"pod": name}, value=FAST / self.slower.get(name, 1.0)) for name in names]
        return [Sample(labels={"pod": name}, value=8.0) for name in names]

    async def windows(self, count: int) -> None:
        for _ in range(count):
            self.now += timedelta(seconds=WINDOW_SECONDS)
            await self.watch.look()
            await self.world.settle(rounds=100_000)

    def on(self, pod: str, twins: int) -> int:
        return sum(pod in holders(self.world, f"dr-{number}") for number in range(twins))

    @property
    def degraded(self) -> tuple[str, str, str]:
        return self.world.condition("Degraded", self.world.pool())

    def events(self) -> Sequence[str]:
        return [each.body["reason"] for each in self.world.api.writes if each.key.kind == "Event"]


async def test_spread_twins_leave_a_slow_pod_only_once_others_have_verified_them() -> None:
    pool = await Pool.made(12, 3, **SPREAD)
    world, before = pool.world, pool.on("e0", 12)
    assert before >= 3
    assert pool.degraded[:2] == ("False", "NoSlowReplica")
    pool.slower["e0"] = 10.0
    await pool.windows(2)
    assert (pool.degraded[0], pool.on("e0", 12)) == ("False", before)
    await pool.windows(1)
    status, reason, message = pool.degraded
    assert (status, reason) == ("True", "SlowReplica")
    assert "e0" in message
    assert pool.events().count("SlowReplica") == 1
    # They are held in both places, and answer, until the others have verified them.
    assert pool.on("e0", 12) == before
    assert len(wanted(world, "e0")) == before
    moving = [number for number in range(12) if "e0" in holders(world, f"dr-{number}")]
    assert all(len(holders(world, f"dr-{number}")) == 2 for number in moving)
    assert all(world.answering(f"dr-{number}") for number in range(12))
    await hold(world)
    assert pool.on("e0", 12) == 0
    assert all(world.answering(f"dr-{number}") for number in range(12))


async def test_a_twin_on_every_pod_is_preferred_on_the_others() -> None:
    pool = await Pool.made(12, 3)
    pool.slower["e1"] = 10.0
    await pool.windows(4)
    assert pool.on("e1", 12) == 0
    assert len(wanted(pool.world, "e1")) == 12


async def test_it_has_its_twins_back_when_its_time_is_over_and_it_is_fast() -> None:
    pool = await Pool.made(12, 3)
    pool.slower["e0"] = 10.0
    await pool.windows(3)
    assert pool.on("e0", 12) == 0
    until = moment(pool.world.pool()["status"]["slowReplicas"][0]["until"])
    pool.slower.clear()
    pool.silent.add("e0")  # nobody is sent there
    while pool.now < until:
        assert pool.on("e0", 12) == 0
        await pool.windows(1)
    assert pool.on("e0", 12) >= 2
    assert pool.degraded[:2] == ("False", "NoSlowReplica")
    assert "slowReplicas" not in pool.world.pool()["status"]
    assert pool.events().count("ReplicaTriedAgain") == 1


async def test_nobody_is_moved_where_the_others_have_no_room() -> None:
    pool = await Pool.made(24, 3, **SPREAD)
    pool.slower["e0"] = 10.0
    await pool.windows(3)
    assert pool.degraded[0] == "True"
    assert all(len(holders(pool.world, f"dr-{number}")) == 1 for number in range(24))
    assert pool.on("e0", 24) == 8


async def test_a_prometheus_that_is_away_moves_nobody_and_frees_nobody() -> None:
    pool = await Pool.made(12, 3)
    pool.slower["e0"] = 10.0
    await pool.windows(3)
    pool.down = True
    writes = len(pool.world.api.writes)
    await pool.windows(100)
    assert pool.degraded[0] == "True"
    assert len(pool.world.api.writes) == writes


async def test_another_process_goes_on_where_the_first_one_stopped() -> None:
    first = await Pool.made(12, 3)
    first.slower["e0"] = 10.0
    await first.windows(3)
    status = first.world.pool()["status"]
    second = Pool(Played(first.world.api, prometheus_url="http://prometheus.invalid"))
    second.now, second.silent = first.now, {"e0"}
    await second.world.lead()
    await second.world.settle(rounds=100_000)
    assert second.world.pool()["status"] == status
    await second.windows(1)
    assert second.on("e0", 12) == 0
    assert second.world.pool()["status"]["slowReplicas"] == status["slowReplicas"]


async def test_steady_load_costs_no_write() -> None:
    pool = await Pool.made(6, 3)
    writes = len(pool.world.api.writes)
    await pool.windows(20)
    assert len(pool.world.api.writes) == writes


async def test_one_pod_alone_is_compared_with_nobody() -> None:
    pool = await Pool.made(4, 1)
    pool.slower["e0"] = 10.0
    await pool.windows(5)
    assert pool.degraded == ("", "", "")
    assert pool.world.answering("dr-0")
