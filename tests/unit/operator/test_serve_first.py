"""What patients hear goes first: no refusal, stale view, odd status or silent Prometheus holds a rollback back."""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.played import Played, api_error
from tests.unit.operator.samples import NAMESPACE, digest
from twin_operator import process
from twin_operator.engine.prometheus import Prometheus, Sample
from twin_operator.engine.queue import Queue, work
from twin_operator.engine.resources import Key, Manifest
from twin_operator.engine.times import timestamp
from twin_operator.kinds.routing.reconcile import ROUTING

RUN: dict[str, Any] = {
    "startTime": "2026-01-01T00:00:00Z", "completionTime": timestamp(datetime.now(UTC)), "verdict": "Promote",
    "eval": {"verdict": "Promote", "samples": 50},
    "artifact": {"digest": digest("b"), "uri": "pvc://adapters/dr-a/b", "rank": 8, "bytes": 1},
}  # fmt: skip


async def canary(world: Played | None = None, **spec: Any) -> Played:
    """Version `a` of dr-a answers, and `b`, which a run has made, takes 10 percent."""
    world = world or Played()
    world.start_pool(store={"uri": "pvc://adapters/store"})
    world.start_pod()
    world.report()
    world.start_twin(rollout={"steps": [{"weightPercent": 10, "seconds": 3600}]}, **spec)
    await world.lead()
    await world.settle()
    world.report("e1", ("dr-a", "a"))
    await world.settle()
    uid = world.twin()["metadata"]["uid"]
    world.api.put({
        "apiVersion": names.API_VERSION, "kind": "FineTuneRun",
        "metadata": {
            "name": "dr-a-1", "namespace": NAMESPACE,
            "ownerReferences": [{"apiVersion": names.API_VERSION, "kind": "DoctorTwin", "name": "dr-a", "uid": uid}],
        },
        "spec": {"twinRef": {"name": "dr-a"}, "parentDigest": digest("a"), "dataset": {"uri": "pvc://d/x"}},
        "status": {"twinUID": uid, **RUN},
    })  # fmt: skip
    await world.settle()
    world.report("e1", ("dr-a", "a"), ("dr-a", "b"))
    await world.settle()
    assert world.answering() == [(digest("a"), 90), (digest("b"), 10)]
    return world


def roll_back(world: Played, token: str = "1") -> None:
    world.annotate("dr-a", **{names.ROLLBACK_ANNOTATION: f"{digest('a')}@{token}"})


async def test_a_fine_tune_refused_by_a_quota_holds_no_rollback_back() -> None:
    world = await canary(fineTune={"schedule": "0 2 * * *"})

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if verb == "create" and key.kind == "FineTuneRun":
            raise api_error(403, "exceeded quota: runs")

    world.api.refuse = refuse
    roll_back(world)
    world.annotate("dr-a", **{names.FINETUNE_NOW_ANNOTATION: "now"})
    await world.settle()
    assert world.answering() == [(digest("a"), 100)]
    assert [each["digest"] for each in world.twin()["status"]["refusedVersions"]] == [digest("b")]
    assert "handledFineTune" not in world.twin()["status"]
    world.api.refuse = lambda verb, key, body: None
    await world.lead()
    await world.settle()
    assert len(world.api.kinds("FineTuneRun")) == 2


@pytest.mark.parametrize(
    "refusal",
    [
        "exceeded quota: runs",
        "admission webhook: try tonight; it waits for the doctor: no; the version that serves goes on; call Ann",
        f"policy: {'no, ' * 2000}",
    ],
)
async def test_a_new_leader_says_the_same_of_a_fine_tune_that_is_refused(refusal: str) -> None:
    world = await canary()
    world.start_twin("dr-b", fineTune={"schedule": "0 2 * * *", "suspend": True})

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if verb == "create" and key.kind == "FineTuneRun":
            raise api_error(403, refusal)

    world.api.refuse = refuse
    world.annotate("dr-b", **{names.FINETUNE_NOW_ANNOTATION: "now"})
    await world.settle()
    status, reason, message = world.condition("GatePassed", world.twin("dr-b"))
    assert (status, reason) == ("Unknown", "RunRefused")
    assert refusal in message or (message.endswith("…") and refusal.startswith(message.partition(": ")[2][:-1]))
    written = len(world.api.writes)
    world.hears = False
    other = Played(world.api)
    await other.lead()
    await other.settle()
    assert [each.key for each in world.api.writes[written:] if each.key.kind == "DoctorTwin"] == []
    world.api.refuse = lambda verb, key, body: None
    other.annotate("dr-b", **{names.FINETUNE_NOW_ANNOTATION: "again"})
    await other.settle()
    assert other.twin("dr-b")["status"]["handledFineTune"] == "again"
    assert other.condition("GatePassed", other.twin("dr-b"))[1] != "RunRefused"


async def test_the_first_change_of_a_pools_routing_waits_for_nothing_and_the_next_are_gathered() -> None:
    world = await canary()
    queue = Queue(priorities=process.PRIORITIES, spacing={ROUTING: 60.0})
    world.process.queue, key = queue, Key(ROUTING, NAMESPACE, "p")
    world.process._wake_route(NAMESPACE, "p", None)
    assert len(queue) == 1
    assert await queue.take() == key
    await world.process._reconcile(key)
    queue.done(key)
    world.process._wake_route(NAMESPACE, "p", None)
    assert len(queue) == 0
    assert key in queue._timers
    assert process.SPACING.keys() == {ROUTING, "DoctorTwin", "MinerPool"}


async def test_a_webhook_that_hangs_on_fine_tunes_delays_no_rollback() -> None:
    world = await canary()
    for number in range(12):
        world.start_twin(f"dr-{number}", fineTune={"schedule": "0 2 * * *", "suspend": True})
    await world.settle()
    create, asked, released = world.api.create, [], asyncio.Event()

    async def hang(manifest: Manifest) -> Manifest:
        if manifest["kind"] == "FineTuneRun":
            asked.append(manifest["metadata"]["name"])
            await released.wait()
        return await create(manifest)

    world.api.create = hang  # type: ignore[method-assign]
    process = world.process
    for number in range(12):
        world.annotate(f"dr-{number}", **{names.FINETUNE_NOW_ANNOTATION: "now"})
    workers = [
        asyncio.create_task(work(process.queue, process._reconcile, may_work=process._may_work)) for _ in range(4)
    ]
    try:
        async with asyncio.timeout(5):
            while not asked:
                await asyncio.sleep(0.005)
            roll_back(world)
            while world.answering() != [(digest("a"), 100)]:
                await asyncio.sleep(0.005)
            assert len(asked) == 2, "the others wait for these, and hold no worker"
            released.set()
            while len(world.api.kinds("FineTuneRun")) < 13:
                await asyncio.sleep(0.005)
    finally:
        for worker in workers:
            worker.cancel()


async def test_a_rollback_stands_behind_no_statuses() -> None:
    world = Played()
    for number in range(30):
        world.start_twin(f"dr-{number}")
    await canary(world)
    world.start_pod("e2", ip="10.0.0.2")  # all twins of the pool are looked at
    world.report("e2")
    roll_back(world)
    queue, taken = world.process.queue, 0
    while "canaryVersion" in world.twin()["status"]:
        key = await queue.take()
        await world.process._reconcile(key)
        queue.done(key)
        taken += 1
    assert taken == 1


async def test_a_new_leader_with_an_old_view_undoes_no_rollback() -> None:
    world = await canary()
    other = Played(world.api)
    await other.process.relist()
    other.hears = False  # its watches stand still from here on
    roll_back(world)
    await world.settle()
    assert world.answering() == [(digest("a"), 100)]
    world.hears = False
    await other.lead()
    await other.settle()
    assert other.answering() == [(digest("a"), 100)]
    assert [each["digest"] for each in other.twin()["status"]["refusedVersions"]] == [digest("b")]


async def test_a_watch_that_lags_brings_no_twin_back_that_the_list_at_takeover_showed_gone() -> None:
    world = await canary()
    late = copy.deepcopy(world.twin())
    other = Played(world.api)
    await other.process.relist()
    other.hears = world.hears = False
    world.drop_twin()
    await other.lead()
    await other.settle()
    assert other.entries() == {}
    other.hears = True
    other._heard("MODIFIED", late)
    await other.settle()
    assert other.entries() == {}


async def test_a_leader_whose_watches_stand_still_writes_over_nothing() -> None:
    world = await canary()
    other = Played(world.api)
    await other.lead()
    await other.settle()
    other.hears = False
    roll_back(world)
    await world.settle()
    other.process.queue.add(Key("DoctorTwin", NAMESPACE, "dr-a"))
    other.process._wake_route(NAMESPACE, "p", None)
    await other.settle()
    assert other.answering() == [(digest("a"), 100)]
    assert [each["digest"] for each in other.twin()["status"]["refusedVersions"]] == [digest("b")]


async def test_a_status_decided_on_an_older_version_is_refused_and_decided_anew() -> None:
    world = await canary()
    world.hears = False
    status = copy.deepcopy(world.twin()["status"])
    status["refusedVersions"] = [
        {"digest": digest("f"), "reason": "RolledBack", "message": "m", "time": "2026-01-01T00:00:00Z"}
    ]
    world.api.put({**world.twin(), "status": status})
    world.hears = True
    roll_back(world)
    world.hears = True
    world.process.queue.add(Key("DoctorTwin", NAMESPACE, "dr-a"))
    await world.settle()
    assert {each["digest"] for each in world.twin()["status"]["refusedVersions"]} == {digest("b"), digest("f")}


@pytest.mark.parametrize("field", ["promotedVersion", "refusedVersions"])
async def test_a_status_that_cannot_be_read_is_left_alone(field: str) -> None:
    world = await canary()
    status = copy.deepcopy(world.twin()["status"])
    status[field] = {"of": "a newer release"} if field == "promotedVersion" else "odd"
    before = world.answering()
    world.api.put({**world.twin(), "status": status})
    await world.settle()
    assert world.twin()["status"][field] == status[field]
    assert world.condition("Ready", world.twin())[:2] == ("False", "StatusUnreadable")
    assert world.answering() == before
    assert world.twin()["status"]["canaryVersion"] == status["canaryVersion"]


async def test_what_a_newer_release_has_written_is_carried_over() -> None:
    world = await canary()
    world.api.put({**world.twin(), "status": {**world.twin()["status"], "newerField": {"kept": 1}}})
    roll_back(world)
    await world.settle()
    assert world.twin()["status"]["newerField"] == {"kept": 1}
    assert world.answering() == [(digest("a"), 100)]


async def test_a_rollback_that_is_refused_once_is_tried_again() -> None:
    world = await canary()
    refused: list[Key] = []

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key.kind == "RoutingSlice" and not refused:
            refused.append(key)
            raise api_error(403, "rights are being upgraded")

    world.api.refuse = refuse
    roll_back(world)
    await world.settle()
    assert len(refused) == 1
    assert world.answering() == [(digest("a"), 100)]


@pytest.mark.parametrize("status", [403, 409, 429, 500])
async def test_slices_of_pods_and_prompts_that_cannot_be_written_hold_no_rollback_back(status: int) -> None:
    world = await canary()

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if "prompts" in key.name or "pods" in key.name:
            raise api_error(status, "webhook")

    world.api.refuse = refuse
    world.start_twin("dr-b", systemPrompt="Be kind.")
    world.start_pod("e2", ip="10.0.0.2")
    roll_back(world)
    await world.settle()
    assert world.answering() == [(digest("a"), 100)]


async def test_a_child_that_lost_its_label_gets_it_back() -> None:
    world = await canary()
    name = names.miner_name("p")
    service = world.api.kinds("Service")[name]
    service["metadata"]["labels"] = {}
    service["metadata"]["resourceVersion"] = "999999"
    world._heard("MODIFIED", copy.deepcopy(service))
    await world.settle()
    assert world.api.kinds("Service")[name]["metadata"]["labels"][names.LABEL_POOL] == "p"


async def test_one_child_that_is_refused_holds_back_no_other() -> None:
    world = Played()

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key.kind == "ServiceAccount":
            raise api_error(403, "no accounts here")

    world.api.refuse = refuse
    world.start_pool()
    world.start_twin()
    await world.lead()
    await world.settle()
    assert set(world.api.kinds("Deployment")) == {"p-engine", "p-miner"}
    assert world.entries()
    assert world.condition("Ready", world.pool())[1] == "ChildrenRefused"
    assert "no accounts here" in world.condition("Ready", world.pool())[2]


class Hanging(Prometheus):
    """Never answers within any test's patience."""

    def __init__(self) -> None:
        super().__init__("http://nowhere", request_seconds=60)

    async def query(self, promql: str) -> list[Sample]:
        await asyncio.sleep(3600)
        raise AssertionError


async def test_a_prometheus_that_hangs_delays_no_rollback() -> None:
    world = Played(prometheus_url="http://nowhere")
    assert world.process.canaries is not None
    world.process.canaries._prometheus = Hanging()
    watch = asyncio.create_task(world.process.canaries.run())
    try:
        await canary(world)
        roll_back(world)
        settling = asyncio.create_task(world.settle())
        # A query takes 60 s to give up.
        async with asyncio.timeout(15):
            while world.answering() != [(digest("a"), 100)]:
                await asyncio.sleep(0.005)
        await settling
    finally:
        watch.cancel()


async def test_one_set_of_questions_serves_all_canaries_of_a_namespace() -> None:
    asked: list[str] = []

    class Answering(Prometheus):
        async def query(self, promql: str) -> list[Sample]:
            asked.append(promql)
            return []

    world = Played(prometheus_url="http://nowhere")
    assert world.process.canaries is not None
    world.process.canaries._prometheus = Answering("http://nowhere", request_seconds=1)
    await canary(world)
    for number in range(20):
        world.api.put({
            **copy.deepcopy({part: world.twin()[part] for part in ("apiVersion", "kind", "spec", "status")}),
            "metadata": {"name": f"dr-{number}", "namespace": NAMESPACE},
        })  # fmt: skip
    watch = asyncio.create_task(world.process.canaries.run())
    try:
        async with asyncio.timeout(5):
            while not asked:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        assert len(asked) == 7
    finally:
        watch.cancel()


@pytest.mark.parametrize(("scraped", "reason"), [("p-miner-1", "CanaryStep"), ("q-miner-1", "CanaryHeld")])
async def test_only_the_miners_of_the_twins_own_pools_vouch_for_a_canarys_metrics(scraped: str, reason: str) -> None:
    class Answering(Prometheus):
        async def query(self, promql: str) -> list[Sample]:
            return [Sample(labels={"pod": scraped}, value=1)] if "pods_ready" in promql else []

    world = Played(prometheus_url="http://nowhere")
    assert world.process.canaries is not None
    world.process.canaries._prometheus = Answering("http://nowhere", request_seconds=1)
    world.start_pool("q", labels={"tier": "another"})
    for pool in ("p", "q"):
        world.start_pod(f"{pool}-miner-1", pool=pool, component="miner")
    await canary(world)
    deployment = world.api.kinds("Deployment")["p-miner"]
    ready = {"observedGeneration": deployment["metadata"]["generation"], "replicas": 1, "readyReplicas": 1}
    world.api.put({**copy.deepcopy(deployment), "status": ready})
    await world.settle()
    watch = asyncio.create_task(world.process.canaries.run())
    try:
        async with asyncio.timeout(5):
            while "not answered yet" in world.condition("Progressing", world.twin())[2]:
                await asyncio.sleep(0.01)
                await world.settle()
    finally:
        watch.cancel()
    assert world.condition("Progressing", world.twin())[1] == reason


@pytest.mark.parametrize(
    ("target", "answering"),
    [
        (digest("a"), [(digest("a"), 100)]),
        ("base", [(digest("a"), 100)]),
        (digest("b"), [(digest("a"), 90), (digest("b"), 10)]),
        (digest("e"), [(digest("a"), 90), (digest("b"), 10)]),
    ],
    ids=["former", "base", "the canary itself", "unknown"],
)
async def test_a_rollback_takes_the_canary_away_though_the_twins_spec_cannot_be_read(
    target: str, answering: list[tuple[str, int]]
) -> None:
    world = await canary()
    readable = world.twin()["spec"]
    world.api.put({**world.twin(), "spec": {**readable, "historyLimit": 500}})
    await world.settle()
    assert world.answering() == [(digest("a"), 90), (digest("b"), 10)]
    world.annotate("dr-a", **{names.ROLLBACK_ANNOTATION: f"{target}@1"})
    await world.settle()
    assert world.answering() == answering
    await world.lead()
    await world.settle()
    assert world.answering() == answering
    if target == digest("a"):
        world.api.put({**world.twin(), "spec": {**readable, "historyLimit": 10}})
        await world.settle()
        assert [each["digest"] for each in world.twin()["status"]["refusedVersions"]] == [digest("b")]
        assert world.answering() == answering


async def test_a_rollback_takes_the_canary_away_though_the_pools_spec_cannot_be_read() -> None:
    world = await canary()
    spec = world.pool()["spec"]
    world.api.put({**world.pool(), "spec": {**spec, "engine": {**spec["engine"], "maxLoraRank": 512}}})
    await world.settle()
    assert world.answering() == [(digest("a"), 90), (digest("b"), 10)]
    roll_back(world)
    await world.settle()
    assert world.answering() == [(digest("a"), 100)]


@pytest.mark.parametrize("odd", [{"uri": ""}, {"digest": "garbage"}], ids=["uri", "digest"])
async def test_a_run_whose_adapter_cannot_be_published_is_no_candidate_and_says_so(odd: dict[str, Any]) -> None:
    world = await canary()
    world.start_twin("dr-z")
    run = world.api.objects[Key("FineTuneRun", NAMESPACE, "dr-a-1")]
    made = {**run["status"]["artifact"], "digest": digest("c"), **odd}
    world.api.put({
        **{part: run[part] for part in ("apiVersion", "kind", "spec")},
        "metadata": {**{part: run["metadata"][part] for part in ("namespace", "ownerReferences")}, "name": "dr-a-2"},
        "status": {"twinUID": run["status"]["twinUID"], **RUN, "artifact": made},
    })  # fmt: skip
    world.report("e1", ("dr-a", "a"), ("dr-a", "b"), ("dr-z", "a"))
    await world.settle()
    said = world.condition("Queued", world.api.objects[Key("FineTuneRun", NAMESPACE, "dr-a-2")])
    assert said[:2] == ("True", "StatusUnreadable")
    assert f"artifact.{next(iter(odd))}" in said[2]
    assert world.answering() == [(digest("a"), 90), (digest("b"), 10)]
    assert world.answering("dr-z") == [(digest("a"), 100)]
