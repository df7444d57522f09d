"""The whole operator scales a pool: what Prometheus and a miner say becomes the Deployment's size, with its reasons."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.cast import Cast
from tests.unit.operator.fake_api import FakeApi
from tests.unit.operator.played import Played
from tests.unit.operator.samples import NAMESPACE, pool_object
from twin_operator.engine.prometheus import Sample
from twin_operator.engine.resources import Key, Manifest
from twin_operator.errors import PrometheusError
from twin_operator.kinds.resources import POD_REPORT

ENGINE, MINER = "p-engine", "p-miner"
POLL = 2.0


class Pool:
    """A pool of a played cluster; the test plays Prometheus and the clock of the watch."""

    def __init__(self, api: FakeApi | None = None) -> None:
        self.played = Played(api, prometheus_url="http://prometheus.invalid")
        self.cast = Cast(self.played.api, {})
        self.now = 1000.0
        self.down: str | None = None
        self.waiting = self.running = self.asked = 0.0
        self.silent: set[str] = set()
        self.asked_of_prometheus = 0
        watch = self.played.process.load
        assert watch is not None
        self.watch = watch
        watch._clock = lambda: self.now
        watch._prometheus.query = self._query  # type: ignore[method-assign]

    @classmethod
    async def made(cls, **autoscaling: Any) -> Pool:
        pool = cls()
        scaling = {"mode": "Operator", "min": 0, "max": 5, "idleSeconds": 60, "stabilizationSeconds": 60} | autoscaling
        pool.played.api.put(pool_object(autoscaling=scaling, labels={"tier": "demo"}))
        await pool.played.lead()
        await pool.go(20)
        return pool

    async def _query(self, promql: str) -> list[Sample]:
        self.asked_of_prometheus += 1
        if self.down is not None:
            raise PrometheusError(self.down)
        pods = [name for name in self._pods() if name not in self.silent]
        engines = [name for name in pods if name.startswith(ENGINE)]
        miners = [name for name in pods if name.startswith(MINER)]
        if promql.startswith("max by (pod) (timestamp"):
            return [Sample(labels={"pod": pod}, value=self.now) for pod in pods]
        figures = {
            "num_requests_waiting": (engines, self.waiting / max(1, len(engines))),
            "num_requests_running": (engines, self.running / max(1, len(engines))),
            "kv_cache_usage": (engines, 0.0), "miner_held": (miners, 0.0), "requests_total": (miners, self.asked),
        }  # fmt: skip
        for part, (of, value) in figures.items():
            if part in promql:
                return [Sample(labels={"pod": pod}, value=value) for pod in of]
        return []

    def _pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.played.api.kinds("Pod").values()]

    async def go(self, seconds: float) -> None:
        """Let time pass, everybody doing his part."""
        for _ in range(round(seconds / POLL)):
            self.now += POLL
            self.watch.look()
            await asyncio.gather(*self.watch._asking.values())
            await asyncio.sleep(0)
            await self.played.settle()
            self.cast.act()
            await self.played.settle()

    @property
    def status(self) -> Manifest:
        return self.played.pool()["status"]

    @property
    def size(self) -> int:
        return int(self.played.api.objects[Key("Deployment", NAMESPACE, ENGINE)]["spec"]["replicas"])

    def condition(self, kind: str) -> tuple[str, str]:
        found = next(each for each in self.status["conditions"] if each["type"] == kind)
        return found["status"], found["reason"]

    def message(self, kind: str) -> str:
        return str(next(each for each in self.status["conditions"] if each["type"] == kind)["message"])

    def events(self) -> list[tuple[str, str]]:
        return [(each.body["reason"], each.body["note"]) for each in self.played.api.writes if each.key.kind == "Event"]

    def miner_asks(self, since: str | None) -> None:
        """Report as a miner without a wallet does."""
        name = f"{MINER}-0"
        uid = self.played.api.objects[Key("Pod", NAMESPACE, name)]["metadata"]["uid"]
        self.played.api.put({
            "apiVersion": POD_REPORT.api_version, "kind": POD_REPORT.kind,
            "metadata": {
                "name": name, "namespace": NAMESPACE,
                "labels": {names.LABEL_POOL: "p", names.LABEL_COMPONENT: "miner-report"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}],
            },
            "pod": {"name": name, "uid": uid}, "demand": {"heldSince": since} if since else {},
        })  # fmt: skip


async def test_a_burst_makes_the_deployment_larger_and_says_why() -> None:
    pool = await Pool.made()
    assert (pool.size, pool.status["desiredReplicas"]) == (1, 1)
    pool.waiting = 16.0
    await pool.go(2 * POLL)
    assert (pool.size, pool.status["desiredReplicas"], pool.status["readySummary"]) == (4, 4, "4/4")
    newest = pool.status["scalingHistory"][0]
    assert (newest["fromReplicas"], newest["toReplicas"], newest["reason"]) == (2, 4, "ScaledUp")
    assert newest["signal"] == "WaitingRequests"
    assert "16.0 requests wait; one pod is for 4" in newest["message"]
    assert ("ScaledUp", f"from 2 to 4 engine pods: {newest['message']}") in pool.events()
    assert pool.condition("ScalingActive")[0] == "True"
    assert pool.condition("MetricsAvailable") == ("True", "MetricsFresh")


async def test_a_load_within_its_targets_costs_no_write() -> None:
    pool = await Pool.made(min=1)
    pool.running = 1.0
    await pool.go(80)
    writes = len(pool.played.api.writes)
    for step in range(12):
        pool.running, pool.waiting, pool.asked = float(step), float(step % 3), float(step)
        await pool.go(POLL)
    assert pool.played.api.writes[writes:] == []
    await pool.go(40)
    shown = pool.played.api.writes[writes:]
    assert len(shown) <= 2  # its status' figures, twice a minute
    assert pool.status["saturation"]["running"] == 11


async def test_nothing_that_stays_is_written_again() -> None:
    pool = await Pool.made(min=1)
    await pool.go(120)
    writes = len(pool.played.api.writes)
    await pool.go(600)
    assert pool.played.api.writes[writes:] == []


async def test_with_prometheus_gone_for_ten_minutes_no_pod_is_lost() -> None:
    pool = await Pool.made()
    pool.waiting = 16.0
    await pool.go(10)
    pool.down = "http://prometheus/api/v1/query doesn't answer: Connection refused"
    for _ in range(300):
        await pool.go(POLL)
        assert pool.size == 4
    assert pool.condition("ScalingActive") == ("False", "MetricsUnavailable")
    assert pool.condition("MetricsAvailable") == ("False", "MetricsUnavailable")
    assert "stays at 4" in pool.message("ScalingActive")
    assert "Connection refused" in pool.message("MetricsAvailable")
    held = pool.status["scalingHistory"][0]
    assert (held["reason"], held["fromReplicas"], held["toReplicas"]) == ("MetricsUnavailable", 4, 4)
    assert len([each for each in pool.status["scalingHistory"] if each["reason"] == "MetricsUnavailable"]) == 1
    pool.down, pool.waiting = None, 0.0
    await pool.go(56)
    assert pool.size == 4  # what nobody saw doesn't count as quiet
    await pool.go(120)
    assert pool.size < 4


async def test_an_engine_without_samples_keeps_what_there_is() -> None:
    pool = await Pool.made(min=1)
    pool.waiting = 16.0
    await pool.go(10)
    pool.waiting, pool.silent = 0.0, {f"{ENGINE}-2"}
    await pool.go(300)
    assert pool.size == 4
    assert pool.condition("MetricsAvailable") == ("False", "MetricsStale")
    assert f"{ENGINE}-2" in pool.message("MetricsAvailable")


async def test_it_sleeps_and_a_miners_report_wakes_it_without_prometheus() -> None:
    pool = await Pool.made()
    await pool.go(80)
    assert pool.size == 0
    assert pool.condition("ScalingActive") == ("True", "Asleep")
    assert pool.condition("Ready") == ("False", "Asleep")
    assert pool.status["scalingHistory"][0]["signal"] == "Idle"
    pool.down = "it is gone"
    pool.miner_asks("2026-12-01T00:00:00Z")
    await pool.played.settle()  # no clock moved: the report alone does it
    assert pool.size == 1
    assert pool.status["scalingHistory"][0]["reason"] == "Woken"
    pool.miner_asks(None)
    await pool.go(300)
    assert pool.size == 1


async def test_a_pool_at_its_quota_says_so_in_the_quotas_words() -> None:
    pool = await Pool.made(min=1)
    deployment = pool.played.api.objects[Key("Deployment", NAMESPACE, ENGINE)]
    pool.cast.act = lambda: None  # type: ignore[method-assign]
    pool.played.api.drop(Key("Pod", NAMESPACE, f"{ENGINE}-0"))
    words = "exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: 2, limited: 2"
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": words}
    pool.played.api.put({**deployment, "status": {**deployment["status"], "conditions": [failure]}})
    pool.silent = set()
    await pool.played.settle()

    async def held(promql: str) -> list[Sample]:
        part = {"miner_held": 30.0, "requests_total": 1.0}
        if promql.startswith("max by (pod) (timestamp"):
            return [Sample(labels={"pod": f"{MINER}-0"}, value=pool.now)]
        return [Sample(labels={"pod": f"{MINER}-0"}, value=value) for name, value in part.items() if name in promql]

    pool.watch._prometheus.query = held  # type: ignore[method-assign]
    await pool.go(20)
    assert pool.size == 1
    assert pool.condition("ScalingActive") == ("False", "CapacityExhausted")
    assert pool.condition("CapacityAvailable") == ("False", "PodsRefused")
    assert words in pool.message("ScalingActive")
    assert words in pool.message("CapacityAvailable")


async def test_another_operator_takes_over_and_says_and_changes_nothing() -> None:
    pool = await Pool.made(min=1)
    pool.waiting = 16.0
    await pool.go(10)
    writes = len(pool.played.api.writes)
    pool.played.hears = False
    other = Pool(pool.played.api)
    other.waiting = 16.0
    await other.played.lead()
    await other.played.settle()
    assert other.played.api.writes[writes:] == []
    await other.go(10)
    assert other.size == 4
    assert [each for each in other.played.api.writes[writes:] if each.key.kind == "Deployment"] == []


@pytest.mark.parametrize("mode", ["Off", "External"])
async def test_where_somebody_else_scales_spec_replicas_counts(mode: str) -> None:
    pool = await Pool.made()
    pool.waiting = 16.0
    await pool.go(10)
    assert pool.size == 4
    changed = pool.played.pool()
    changed["spec"] = {**changed["spec"], "autoscaling": {"mode": mode, "min": 0, "max": 5}, "replicas": 2}
    changed["metadata"] = {**changed["metadata"], "generation": 2}
    pool.played.api.put(changed)
    await pool.go(20)
    assert pool.size == 2
    assert "desiredReplicas" not in pool.status


async def test_a_status_that_was_lost_costs_no_pod() -> None:
    pool = await Pool.made(min=1)
    pool.waiting = 16.0
    await pool.go(10)
    changed = dict(pool.played.pool())
    changed["status"] = {"desiredReplicas": -7, "scalingHistory": "none"}
    pool.played.api.put(changed)
    await pool.go(10)
    assert (pool.size, pool.status["desiredReplicas"]) == (4, 4)


async def test_prometheus_is_asked_once_for_all_pools_of_a_namespace() -> None:
    pool = await Pool.made()
    scaling = {"mode": "Operator", "max": 3}
    for number in range(5):
        pool.played.api.put(pool_object(f"q{number}", autoscaling=scaling, labels={"tier": f"q{number}"}))
    await pool.go(20)
    before = pool.asked_of_prometheus
    await pool.go(20)
    assert pool.asked_of_prometheus - before == 10 * 7


async def _sets(pool: Pool, **engine: Any) -> None:
    spec = dict(pool.played.pool()["spec"])
    pool.played.api.put_spec(Key("MinerPool", NAMESPACE, "p"), {**spec, "engine": {**spec["engine"], **engine}})
    await pool.go(2 * POLL)


async def test_a_pool_out_of_bounds_follows_its_load_with_the_pods_that_it_had() -> None:
    pool = await Pool.made()
    key = Key("Deployment", NAMESPACE, ENGINE)
    template = pool.played.api.objects[key]["spec"]["template"]
    await pool.go(80)
    assert pool.size == 0
    await _sets(pool, args=["--trust-remote-code"])
    assert pool.condition("Ready") == ("False", "OutOfBounds")
    assert pool.condition("ScalingActive") == ("True", "Asleep")
    assert (pool.status["desiredReplicas"], pool.status["readySummary"]) == (0, "0/0")
    pool.miner_asks("2026-12-01T00:00:00Z")
    await pool.played.settle()
    assert pool.size == 1, "whoever asks it is answered"
    pool.miner_asks(None)
    pool.waiting = 16.0
    await pool.go(20)
    assert (pool.size, pool.status["readySummary"]) == (4, "4/4")
    assert pool.condition("Available")[0] == "True"
    assert pool.played.api.objects[key]["spec"]["template"] == template, "nothing that it names now is begun"
    assert "--trust-remote-code" not in str(pool.played.api.objects[key])


async def test_a_pool_out_of_bounds_from_its_first_day_gets_no_pod_however_much_waits() -> None:
    pool = Pool()
    scaling = {"mode": "Operator", "min": 1, "max": 5}
    pool.played.api.put(pool_object(autoscaling=scaling, engine={"device": "CPU", "image": "evil"}))
    await pool.played.lead()
    pool.waiting = 16.0
    await pool.go(20)
    assert pool.played.api.kinds("Deployment") == {}
    assert pool.condition("Ready") == ("False", "OutOfBounds")
    assert not pool.status.keys() & {"desiredReplicas", "scalingHistory"}


async def test_an_unsteady_prometheus_pushes_no_decision_out_of_the_history() -> None:
    pool = await Pool.made(min=1)
    pool.waiting = 16.0
    await pool.go(10)
    decided = [(each["fromReplicas"], each["toReplicas"]) for each in pool.status["scalingHistory"]]
    for _ in range(8):
        pool.down = "it is gone"
        await pool.go(60)
        pool.down, pool.silent = None, set(pool._pods()[:1])
        await pool.go(120)
        pool.silent = set()
        await pool.go(20)
    found = [(each["fromReplicas"], each["toReplicas"]) for each in pool.status["scalingHistory"]]
    assert found[-len(decided) :] == decided
    assert len(found) == len(decided) + 1, "that it was held, once"
