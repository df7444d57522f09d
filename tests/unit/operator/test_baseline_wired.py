"""The whole operator says of a twin that it left its baseline, and learns a new version's anew."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from bettertherapy_api import names
from tests.unit.operator.played import Played
from tests.unit.operator.samples import digest
from tests.unit.operator.usual_traffic import BOUNDS
from twin_operator.domain.baseline import LEARN_WINDOWS, WINDOW_SECONDS
from twin_operator.engine.prometheus import Sample
from twin_operator.engine.resources import Manifest
from twin_operator.errors import PrometheusError


class Clinic:
    """One twin that answers; the test plays Prometheus and the clock of the watch."""

    def __init__(self, world: Played) -> None:
        self.world = world
        self.now = datetime(2026, 12, 1, 9, tzinfo=UTC)
        self.seconds: Mapping[str, float] = {}
        """What 20 answers a window take, by version."""
        self.down = False
        assert world.process.baselines is not None
        self.watch = world.process.baselines
        self.watch._clock = lambda: self.now
        self.watch._prometheus.query = self._query  # type: ignore[method-assign]

    @classmethod
    async def made(cls) -> Clinic:
        world = Played(prometheus_url="http://prometheus.invalid")
        world.start_pool()
        world.start_pod()
        world.report()
        world.start_twin()
        clinic = cls(world)
        await world.lead()
        await world.settle()
        await clinic.answer_with("a")
        return clinic

    async def answer_with(self, letter: str) -> None:
        self.world.report("e1", ("dr-a", letter))
        await self.world.settle()
        assert self.world.answering() == [(digest(letter), 100)]

    async def _query(self, promql: str) -> list[Sample]:
        if self.down:
            raise PrometheusError("it doesn't answer")
        if "ratings" in promql:
            return []
        return [
            Sample(labels={"twin": "dr-a", "version": version, "le": f"{bound}"}, value=20.0 * (seconds <= bound))
            for version, seconds in self.seconds.items()
            for bound in BOUNDS
        ]

    async def windows(self, count: int) -> None:
        for _ in range(count):
            self.now += timedelta(seconds=WINDOW_SECONDS)
            await self.watch.look()
            await self.world.settle()

    @property
    def baseline(self) -> Manifest:
        found: Manifest = self.world.twin()["status"]["baseline"]
        return found

    @property
    def degraded(self) -> tuple[str, str]:
        return self.world.condition("Degraded", self.world.twin())[:2]

    def writes(self) -> int:
        return len(self.world.api.writes)

    def events(self, reason: str) -> int:
        return sum(each.body["reason"] == reason for each in self.world.api.writes if each.key.kind == "Event")


def served(letter: str) -> str:
    return names.served_name("dr-a", digest(letter))


async def test_a_twin_that_becomes_slow_says_so_and_when_it_is_over() -> None:
    clinic = await Clinic.made()
    assert clinic.degraded == ("Unknown", "BaselineLearning")
    clinic.seconds = {served("a"): 0.9}
    await clinic.windows(LEARN_WINDOWS)
    assert clinic.degraded == ("False", "WithinBaseline")
    assert clinic.baseline == {"servedName": served("a"), "requests": 240, "slowMilliseconds": 2500}
    others = [clinic.world.condition(kind, clinic.world.twin()) for kind in ("Serving", "Ready")]
    clinic.seconds = {served("a"): 9.0}
    await clinic.windows(6)
    assert clinic.degraded == ("True", "LatencyAboveBaseline")
    assert clinic.events("LatencyAboveBaseline") == 1
    assert [clinic.world.condition(kind, clinic.world.twin()) for kind in ("Serving", "Ready")] == others
    clinic.seconds = {served("a"): 0.9}
    await clinic.windows(24)
    assert clinic.degraded == ("False", "WithinBaseline")
    assert clinic.events("WithinBaseline") == 1
    assert "slowSince" not in clinic.baseline


async def test_a_new_version_begins_anew() -> None:
    clinic = await Clinic.made()
    clinic.seconds = {served("a"): 0.9}
    await clinic.windows(LEARN_WINDOWS)
    clinic.seconds = {served("a"): 9.0}
    await clinic.windows(6)
    clinic.world.start_twin(adapter="b")
    await clinic.world.settle()
    clinic.world.report("e1", ("dr-a", "a"), ("dr-a", "b"))
    await clinic.answer_with("b")
    assert clinic.degraded == ("Unknown", "BaselineLearning")
    assert clinic.baseline == {"servedName": served("b")}
    clinic.seconds = {served("b"): 9.0}
    await clinic.windows(LEARN_WINDOWS + 6)
    assert clinic.degraded == ("False", "WithinBaseline")
    assert clinic.baseline["slowMilliseconds"] == 20000


async def test_windows_cost_no_write_while_nothing_is_found() -> None:
    clinic = await Clinic.made()
    before = clinic.writes()
    clinic.seconds = {served("a"): 0.9}
    await clinic.windows(LEARN_WINDOWS - 1)
    assert clinic.writes() == before
    await clinic.windows(1)
    before = clinic.writes()
    await clinic.windows(50)
    assert clinic.writes() == before


async def test_a_prometheus_that_is_away_changes_no_verdict() -> None:
    clinic = await Clinic.made()
    clinic.seconds = {served("a"): 0.9}
    await clinic.windows(LEARN_WINDOWS)
    clinic.seconds = {served("a"): 9.0}
    await clinic.windows(5)
    clinic.down, before = True, clinic.writes()
    await clinic.windows(50)
    assert (clinic.degraded, clinic.writes()) == (("False", "WithinBaseline"), before)
    clinic.down = False
    await clinic.windows(1)
    assert clinic.degraded == ("True", "LatencyAboveBaseline")


async def test_another_process_neither_learns_again_nor_forgets() -> None:
    first = await Clinic.made()
    first.seconds = {served("a"): 0.9}
    await first.windows(LEARN_WINDOWS)
    first.seconds = {served("a"): 9.0}
    await first.windows(6)
    status = first.world.twin()["status"]
    second = Clinic(Played(first.world.api, prometheus_url="http://prometheus.invalid"))
    second.seconds = first.seconds
    await second.world.lead()
    await second.world.settle()
    await second.windows(50)
    assert second.world.twin()["status"] == status


async def test_without_prometheus_nothing_is_said() -> None:
    world = Played()
    world.start_pool()
    world.start_pod()
    world.report()
    world.start_twin()
    await world.lead()
    await world.settle()
    assert world.condition("Degraded", world.twin()) == ("", "", "")
    assert "baseline" not in world.twin()["status"]
