"""Validators' fine-tune tasks in the operator: one run each, whatever happens, truly told, rolled out by nobody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.finetune_run import FailureStatus
from bettertherapy_api.report import TaskClaim
from bettertherapy_api.task_states import KEY, PublishedTask, PublishedTasks, TaskState, tasks_name
from tests.unit.operator.played import Played, api_error
from tests.unit.operator.run_samples import STARTED, run
from tests.unit.operator.samples import NAMESPACE, digest, pool, twin
from twin_operator.domain.examined import compared, is_remembered
from twin_operator.domain.objects import Run, Twin
from twin_operator.engine.resources import Key, Manifest
from twin_operator.engine.times import timestamp
from twin_operator.kinds.doctor_twin.fine_tunes import last_gate
from twin_operator.kinds.finetune_run.plan import RunView, plan_run
from twin_operator.kinds.miner_pool.tasks import TasksPlan, TasksView, plan_tasks
from twin_operator.kinds.resources import POD_REPORT
from twin_operator.settings import Images

TASK = "11111111-1111-4111-8111-111111111111"
NAME = f"task-{TASK}"
VALIDATOR = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
POLICY = {"walletSecretRef": {"name": "wallet"}, "netuid": 42, "tasks": {"accept": True, "maxOpen": 2}}
STORE = {"uri": "pvc://adapters/store"}


def claim_document(uid: str, *, task: str = TASK, ends: timedelta = timedelta(hours=20), **changes: Any) -> Manifest:
    return {
        "id": task, "validator": VALIDATOR, "twin": "dr-a", "twinUID": uid,
        "dataset": f"https://v.example/v1/tasks/{task}/dataset?signature=x", "datasetDigest": digest("d"),
        "interactions": 30, "parentDigest": digest("a"), "deadline": timestamp(datetime.now(UTC) + ends), **changes,
    }  # fmt: skip


async def offered(
    world: Played | None = None, *, approval: str = "Automatic", miner: Mapping[str, Any] = POLICY
) -> Played:
    """A pool that takes tasks, whose miner `m1` was offered none yet; version `a` of dr-a answers."""
    world = world or Played()
    world.start_pool(store=STORE, miner=dict(miner))
    world.start_pod()
    world.report()
    world.start_pod("m1", component="miner", ip="10.0.0.2")
    world.start_twin(gate={"approval": approval})
    await world.lead()
    await world.settle()
    world.report("e1", ("dr-a", "a"))
    await world.settle()
    assert world.answering() == [(digest("a"), 100)]
    return world


def miner_reports(world: Played, *claims: Manifest, pod: str = "m1") -> None:
    uid = world.api.objects[Key("Pod", NAMESPACE, pod)]["metadata"]["uid"]
    world.api.put({
        "apiVersion": POD_REPORT.api_version, "kind": POD_REPORT.kind,
        "metadata": {
            "name": pod, "namespace": NAMESPACE,
            "labels": {names.LABEL_POOL: "p", names.LABEL_COMPONENT: "miner-report"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}],
        },
        "pod": {"name": pod, "uid": uid}, "subnet": {"registration": "Registered", "netuid": 42},
        "tasks": list(claims) or None,
    })  # fmt: skip


def uid_of(world: Played) -> str:
    return str(world.twin()["metadata"]["uid"])


def told(world: Played) -> dict[str, PublishedTask]:
    found = world.api.objects.get(Key("ConfigMap", NAMESPACE, tasks_name("p")))
    if found is None:
        return {}
    return {each.id: each for each in PublishedTasks.model_validate_json(found["data"][KEY]).tasks}


def runs(world: Played) -> dict[str, Manifest]:
    return {key.name: thing for key, thing in world.api.objects.items() if key.kind == "FineTuneRun"}


def end(world: Played, **status: Any) -> None:
    """Let the run have ended as its Jobs would have it."""
    thing = runs(world)[NAME]
    world.api.put({
        **{part: thing[part] for part in ("apiVersion", "kind")}, "metadata": {"name": NAME, "namespace": NAMESPACE},
        "status": {**(thing.get("status") or {}), "completionTime": timestamp(datetime.now(UTC)), **status},
    })  # fmt: skip


PASSED: dict[str, Any] = {
    "verdict": "Promote", "eval": {"verdict": "Promote", "samples": 50},
    "artifact": {"digest": digest("b"), "uri": "pvc://adapters/store/dr-a/b", "rank": 8, "bytes": 1},
}  # fmt: skip


async def test_a_task_becomes_one_run_and_only_then_it_is_said_to_be_accepted() -> None:
    world = await offered()
    miner_reports(world, claim_document(uid_of(world)))
    await world.settle()
    made = runs(world)
    assert list(made) == [NAME]
    spec = made[NAME]["spec"]
    assert (spec["task"]["id"], spec["task"]["validator"], spec["task"]["pool"]) == (TASK, VALIDATOR, "p")
    assert spec["dataset"]["digest"] == digest("d")
    assert spec["parentDigest"] == digest("a")
    assert made[NAME]["metadata"]["ownerReferences"][0]["uid"] == uid_of(world)
    assert told(world)[TASK].state is TaskState.ACCEPTED
    order = [each.key.kind for each in world.api.writes if each.key.kind in ("FineTuneRun", "ConfigMap")]
    assert order[0] == "FineTuneRun"
    written = len(world.api.writes)
    for _ in range(2):
        await world.lead()
        await world.settle()
    miner_reports(world)  # the miner has read it, and asks no more
    await world.settle()
    assert list(runs(world)) == [NAME]
    assert told(world)[TASK].state is TaskState.ACCEPTED
    assert [each.key for each in world.api.writes[written:] if each.key.kind in ("FineTuneRun", "ConfigMap")] == []
    assert world.problems == []


async def test_an_operator_that_was_killed_before_it_said_so_makes_no_second_run() -> None:
    world = await offered()

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key == Key("ConfigMap", NAMESPACE, tasks_name("p")):
            raise api_error(500, "it is killed here")

    world.api.refuse = refuse
    miner_reports(world, claim_document(uid_of(world)))
    await world.settle()
    assert list(runs(world)) == [NAME]
    assert told(world) == {}
    world.hears, world.api.refuse = False, lambda verb, key, body: None
    other = Played(world.api)
    await other.lead()
    await other.settle()
    assert list(runs(other)) == [NAME]
    assert told(other)[TASK].state is TaskState.ACCEPTED


async def test_whichever_write_an_operator_dies_at_the_next_one_comes_to_the_same() -> None:
    async def scenario(dies_at: int) -> tuple[int, list[str], dict[str, str]]:
        world = await offered()
        writes = 0

        def refuse(verb: str, key: Key, body: Manifest) -> None:
            nonlocal writes
            if key.kind != "Event":
                writes += 1
                if writes >= dies_at:  # nothing more is written by this one
                    raise api_error(503, "gone")

        world.api.refuse = refuse
        miner_reports(world, claim_document(uid_of(world)))
        await world.settle()
        before = writes
        world.hears, world.api.refuse = False, lambda verb, key, body: None
        heir = Played(world.api)
        await heir.lead()
        await heir.settle()
        return before, list(runs(heir)), {task: each.state.value for task, each in told(heir).items()}

    undisturbed, *_ = await scenario(1_000)
    assert undisturbed >= 2
    for dies_at in range(1, undisturbed + 1):
        _, made, said = await scenario(dies_at)
        assert (made, said) == ([NAME], {TASK: "accepted"}), dies_at


async def test_what_came_of_it_is_published_and_rolled_out_only_when_the_doctor_chooses_it() -> None:
    world = await offered()
    miner_reports(world, claim_document(uid_of(world)))
    await world.settle()
    end(world, **PASSED)
    await world.settle()
    said = told(world)[TASK]
    assert (said.state, said.adapter) == (TaskState.FINISHED, digest("b"))
    assert "Promote by the miner's own gate" in said.message
    assert world.answering() == [(digest("a"), 100)]
    assert "canaryVersion" not in world.twin()["status"]
    status, reason, message = world.condition("Promoted", runs(world)[NAME])
    assert (status, reason) == ("False", "AwaitingChoice")
    assert f"kubectl twin approve dr-a --digest {digest('b')}" in message
    world.annotate("dr-a", **{names.APPROVE_ANNOTATION: digest("b")})
    await world.settle()
    assert world.twin()["status"]["canaryVersion"]["digest"] == digest("b")


async def test_of_a_failure_the_miner_learns_why() -> None:
    world = await offered()
    miner_reports(world, claim_document(uid_of(world)))
    await world.settle()
    end(world, failure={"class": "BadData", "retryable": False, "message": "the dataset is no more"})
    await world.settle()
    said = told(world)[TASK]
    assert (said.state, said.adapter, said.message) == (TaskState.FAILED, None, "BadData: the dataset is no more")


async def test_a_run_that_the_api_server_will_not_have_is_refused_and_holds_nothing_back() -> None:
    world = await offered()

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if verb == "create" and key.kind == "FineTuneRun":
            raise api_error(422, "spec.dataset.uri: Invalid value")

    world.api.refuse = refuse
    miner_reports(world, claim_document(uid_of(world)))
    await world.settle()
    said = told(world)[TASK]
    assert (said.state, "Invalid value" in said.message) == (TaskState.REFUSED, True)
    assert world.answering() == [(digest("a"), 100)]
    assert world.problems == []
    miner_reports(world)
    await world.settle()
    assert told(world) == {}


async def test_a_report_in_another_pods_name_makes_nothing() -> None:
    world = await offered()
    miner_reports(world, claim_document(uid_of(world)))
    report = dict(world.api.objects[Key(POD_REPORT.kind, NAMESPACE, "m1")])
    world.api.drop(Key(POD_REPORT.kind, NAMESPACE, "m1"))
    report["pod"] = {"name": "m1", "uid": "another"}
    report["metadata"] = {part: report["metadata"][part] for part in ("name", "namespace", "labels", "ownerReferences")}
    world.api.put(report)
    await world.settle()
    assert runs(world) == {}


NOW = datetime(2026, 1, 2, 3, 30, tzinfo=UTC)


def claim(made: Twin, **changes: Any) -> TaskClaim:
    ends = {"deadline": timestamp(NOW + timedelta(hours=20))}
    return TaskClaim.model_validate(claim_document(made.uid) | ends | changes)


def task_run(name: str = NAME, *, ends: timedelta = timedelta(hours=20), **fields: Any) -> Run:
    task = {"id": name.removeprefix("task-"), "validator": VALIDATOR, "pool": "p", "deadline": timestamp(NOW + ends)}
    dataset = {"uri": f"https://v.example/v1/tasks/{task['id']}/dataset?signature=x", "digest": digest("d")}
    return run(name, task=task, dataset=dataset, **fields)


def planned(
    *claims: TaskClaim, made: Twin, runs: tuple[Run, ...] = (), labels: dict[str, str] | None = None,
    store: Any = STORE, miner: Mapping[str, Any] = POLICY,
) -> TasksPlan:  # fmt: skip
    given = pool(labels=labels or {"tier": "demo"}, store=store, miner=dict(miner))
    return plan_tasks(TasksView(pool=given, claims=claims, runs=runs, twins={made.name: made}, pools=[given]), now=NOW)


OTHER = "22222222-2222-4222-8222-222222222222"
THIRD = "33333333-3333-4333-8333-333333333333"


def test_what_validators_have_tried_says_nothing_of_the_twin_and_spends_nothing_of_its_nights() -> None:
    """Each rejected task halved the error that is left to the twin's own nights, and was its last gate."""
    made, gate = twin(), {"verdict": "Reject", "samples": 50}
    ended = {**STARTED, "completionTime": timestamp(NOW), "verdict": "Reject", "eval": gate}
    ended |= {"artifact": PASSED["artifact"], "twinUID": made.uid}
    tried = task_run(anchor={"digest": digest("c")}, status=ended)
    assert compared(made, [tried]) == []
    assert is_remembered(made, tried)
    assert last_gate(made, [tried]) == (None, None)
    own = run("dr-a-1", anchor={"digest": digest("c")}, status=ended)
    assert [each.runs for each in compared(made, [tried, own])] == [[own.uid]]
    chosen = replace(made, annotations={names.APPROVE_ANNOTATION: digest("b")})
    assert [each.runs for each in compared(chosen, [tried])] == [[tried.uid]]
    assert last_gate(chosen, [tried])[0] is not None


@pytest.mark.parametrize(
    ("changes", "given", "why"),
    [
        ({"twinUID": "another"}, {}, "isn't here any more"),
        ({"twin": "dr-b"}, {}, "isn't here any more"),
        ({"parentDigest": digest("f")}, {}, "begins from another"),
        ({"parentDigest": None}, {}, "begins from another"),
        ({"deadline": timestamp(NOW + timedelta(minutes=10))}, {}, "too little time"),
        ({}, {"miner": {**POLICY, "tasks": {"accept": False}}}, "takes no tasks"),
        ({}, {"miner": {"netuid": 42}}, "takes no tasks"),
        ({}, {"labels": {"tier": "other"}}, "isn't served here any more"),
        ({}, {"store": None}, "can't be trained here"),
        ({}, {"runs": (task_run(f"task-{OTHER}"), task_run(f"task-{THIRD}"))}, "2 tasks are under way"),
    ],
)
def test_what_can_not_become_a_run_is_refused_in_words(changes: Any, given: Any, why: str) -> None:
    made = twin()
    plan = planned(claim(made, **changes), made=made, **given)
    assert plan.create == ()
    [said] = [each for each in plan.published.tasks if each.id == TASK]
    assert said.state is TaskState.REFUSED
    assert why in said.message


def test_only_so_many_are_taken_at_a_time_and_each_once() -> None:
    made = twin()
    several = [claim(made, id=task) for task in (TASK, OTHER, THIRD, TASK)]
    plan = planned(*several, made=made)
    assert [each["metadata"]["name"] for each in plan.create] == [NAME, f"task-{OTHER}"]
    assert [(each.id, each.state) for each in plan.published.tasks] == [(THIRD, TaskState.REFUSED)]
    assert 600 <= plan.create[0]["spec"]["deadlineSeconds"] <= 21600
    again = planned(*several, made=made)
    assert json.dumps(again.create) == json.dumps(plan.create), "the same run, however often it is planned"


def test_what_will_not_be_done_in_time_is_said_while_it_can_be_reported() -> None:
    made = twin()
    late = task_run(ends=timedelta(minutes=2), status={**STARTED, "stage": "Running"})
    [said] = planned(made=made, runs=(late,)).published.tasks
    assert (said.state, "not done in time" in said.message) == (TaskState.FAILED, True)
    soon = task_run(ends=timedelta(minutes=10), status=STARTED)
    plan = planned(made=made, runs=(soon,))
    assert plan.published.tasks[0].state is TaskState.ACCEPTED
    assert plan.wake_at == NOW + timedelta(minutes=7)
    over = task_run(ends=timedelta(hours=-2))
    assert planned(made=made, runs=(over,)).published.tasks == ()


def test_a_run_that_could_not_begin_in_its_tasks_time_ends_in_words() -> None:
    waits = task_run(ends=timedelta(hours=1))
    view = RunView(run=waits, twin=twin(), pool=pool(store=STORE), obstacle=None)
    assert plan_run(view, Images(), now=NOW).conditions[0].reason == "Admitted"
    over = task_run(ends=timedelta(seconds=-1))
    plan = plan_run(RunView(run=over, twin=twin(), pool=pool(store=STORE), obstacle=None), Images(), now=NOW)
    found = {each.type: (each.status, each.reason) for each in plan.conditions}
    assert found["Failed"] == ("True", "TaskOverdue")
    assert found["Queued"] == ("False", "TaskOverdue")
    assert plan.status["completionTime"] == timestamp(NOW)
    assert FailureStatus.model_validate(plan.status["failure"]).retryable is False
