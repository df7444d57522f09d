"""Runs that share a trainer: each has its own end, whatever becomes of the others, of the leader, and of the pod."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bettertherapy_api.examination import OUTCOMES_KEY, examination_name
from bettertherapy_api.run_progress import PROGRESS_KEY, FailureReport, LastWord, RunProgress, RunStage, progress_name
from tests.unit.operator.cast import tasks_of
from tests.unit.operator.played import Played, api_error
from tests.unit.operator.run_samples import DATA, done, found
from tests.unit.operator.samples import NAMESPACE, container_status, digest
from tests.unit.operator.shared_night import run_of
from twin_operator.domain.objects import Run, run_from
from twin_operator.engine.resources import Key, Manifest

LETTERS = {"r1": "b", "r2": "c", "r3": "d", "r4": "e"}


class Clinic(Played):
    """A pool with one place, whose trainers take three runs, and a twin for each run."""

    def __init__(self, runs: int = 3, *, share: int = 3, places: int = 1, **asks: dict[str, Any]) -> None:
        super().__init__()
        ways = {"maxConcurrentRuns": places, "runsPerTrainer": share}
        self.start_pool(store={"uri": "pvc://adapters/store"}, fineTune=ways)
        for number in range(1, runs + 1):
            self.start_twin(f"dr-{number}", systemPrompt=f"You are {number}.")
            self.api.put(run_of(f"r{number}", f"dr-{number}", **asks.get(f"r{number}", {})))

    def run(self, name: str) -> Manifest:
        return self.api.kinds("FineTuneRun")[name]

    def status(self, name: str) -> Manifest:
        found: Manifest = self.run(name)["status"]
        return found

    def running(self, name: str) -> tuple[str, str]:
        return self.condition("Running", self.run(name))[:2]

    def queued(self, name: str) -> tuple[str, str]:
        return self.condition("Queued", self.run(name))[:2]

    def does(self, job: str = "r1") -> list[str]:
        return [task.run for task in tasks_of(self.api.kinds("Job")[job])]

    def pod(self, number: int = 1, *, job: str = "r1", phase: str = "Running", **status: Any) -> str:
        """Let the Job's pod of that number say how it is; returns its UID."""
        name, made = f"{job}-{number}", self.api.kinds("Job")[job]
        reference = {"kind": "Job", "name": job, "uid": made["metadata"]["uid"], "controller": True}
        thing = {
            "apiVersion": "v1", "kind": "Pod", "status": {"phase": phase, "conditions": [], **status},
            "metadata": {
                "name": name, "namespace": NAMESPACE, "ownerReferences": [reference],
                "labels": made["spec"]["template"]["metadata"]["labels"],
                "creationTimestamp": f"2026-01-02T03:0{number}:00Z",
            },
        }  # fmt: skip
        uid: str = self.api.put(thing)["metadata"]["uid"]
        return uid

    def oom(self, number: int = 1) -> None:
        code = {"reason": "OOMKilled", "exitCode": 137}
        self.pod(number, phase="Failed", containerStatuses=[container_status("trainer", terminated=code)])

    def end_job(self, name: str = "r1", kind: str = "Complete", reason: str = "x") -> None:
        condition = {"type": kind, "status": "True", "reason": reason, "message": "m"}
        self.api.put({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": NAMESPACE},
            "status": {"conditions": [condition]},
        })  # fmt: skip

    def say(self, run: str, said: RunProgress, *, where: str | None = None, **data: str) -> None:
        self.api.put({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": where or progress_name(run), "namespace": NAMESPACE},
            "data": {PROGRESS_KEY: said.to_json(), **data},
        })  # fmt: skip

    def begin(self, run: str, pod: str) -> None:
        self.say(run, RunProgress(attempt=pod, stage=RunStage.TRAIN, progress_percent=40, dataset=DATA))

    def fail(self, run: str, pod: str, *, retryable: bool = False) -> None:
        why = FailureReport(failure_class="Diverged", retryable=retryable, message="step 7: NaN")
        self.say(run, RunProgress(attempt=pod, stage=RunStage.TRAIN, failure=why))

    def publish(self, run: str, pod: str) -> None:
        letter, twin = LETTERS[run], run.replace("r", "dr-")
        made = done().artifact
        assert made is not None
        made = made.model_copy(
            update={"uri": f"pvc://adapters/store/{twin}/{letter * 64}", "digest": digest(letter)}
        )  # fmt: skip
        self.say(run, done().model_copy(update={"attempt": pod, "artifact": made}))

    def examine(self, run: str, pod: str) -> None:
        made = run_from(self.run(run))
        assert isinstance(made, Run), made
        said = RunProgress(attempt=pod, stage=RunStage.DONE, progress_percent=100)
        outcomes = found(made, child=digest(LETTERS[run])).to_json()
        self.say(run, said, where=examination_name(run), **{OUTCOMES_KEY: outcomes})

    def drop(self, kind: str, name: str) -> None:
        self.api.drop(Key(kind, NAMESPACE, name))


async def training(runs: int = 3, **ways: Any) -> tuple[Clinic, str]:
    """Runs whose trainer's pod has just begun; returns its UID too."""
    world = Clinic(runs, **ways)
    await world.lead()
    await world.settle()
    pod = world.pod()
    await world.settle()
    return world, pod


async def test_a_run_that_starts_takes_others_along_and_makes_one_job() -> None:
    world, _ = await training(4)
    assert (list(world.api.kinds("Job")), world.does()) == (["r1"], ["r1", "r2", "r3"])
    assert [each["name"] for each in world.status("r1")["trains"]] == ["r2", "r3"]
    leader = {"name": "r1", "uid": world.run("r1")["metadata"]["uid"]}
    assert [world.status(name).get("trainer") for name in LETTERS] == [None, leader, leader, None]
    assert world.queued("r2") == ("False", "Admitted")
    assert world.queued("r4") == ("True", "PoolBusy")
    assert set(world.api.kinds("ServiceAccount")) == {"p-engine", "p-miner", "r1-trainer"}


async def test_with_one_run_to_a_trainer_nothing_is_shared() -> None:
    world, _ = await training(2, share=1, places=2)
    assert {name: world.does(name) for name in world.api.kinds("Job")} == {"r1": ["r1"], "r2": ["r2"]}
    assert not {"trains", "trainer"} & (world.status("r1").keys() | world.status("r2").keys())


async def test_places_are_those_of_trainers_and_who_is_left_in_line_moves_up() -> None:
    world, _ = await training(4, share=2, places=2)
    assert {name: world.does(name) for name in world.api.kinds("Job")} == {"r1": ["r1", "r2"], "r3": ["r3", "r4"]}


async def test_who_asks_for_something_else_waits_for_a_trainer_of_its_own() -> None:
    world, _ = await training(3, r2={"retries": 0})
    assert (world.does(), world.queued("r2")) == (["r1", "r3"], ("True", "PoolBusy"))


async def test_the_job_is_made_once_all_have_said_that_they_come() -> None:
    world = Clinic()

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key.name == "r2" and "status" in body and "trainer" in body["status"]:
            raise api_error(500)

    world.api.refuse = refuse
    await world.lead()
    await world.settle()
    assert not world.api.kinds("Job")
    assert world.running("r1") == ("False", "GatheringRuns")
    world.api.refuse = lambda verb, key, body: None
    await world.lead()
    await world.settle()
    assert world.does() == ["r1", "r2", "r3"]


async def test_others_in_line_start_while_those_that_come_along_have_not_said_so() -> None:
    world = Clinic(4, places=2)

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if "trainer" in (body.get("status") or {}):
            raise api_error(500)

    world.api.refuse = refuse
    await world.lead()
    await world.settle()
    assert {name: world.does(name) for name in world.api.kinds("Job")} == {"r4": ["r4"]}


async def test_who_moves_up_in_line_is_told() -> None:
    world = Clinic(4, share=2, places=0)
    await world.lead()
    await world.settle()
    assert {world.queued(name) for name in LETTERS} == {("True", "PoolBusy")}
    refused: set[str] = set()

    def refuse_once(verb: str, key: Key, body: Manifest) -> None:
        if key.kind == "FineTuneRun" and key.name in ("r1", "r2") and key.name not in refused:
            refused.add(key.name)  # so that the others look at the line first
            raise api_error(500)

    world.api.refuse = refuse_once
    ways = {"maxConcurrentRuns": 2, "runsPerTrainer": 2}
    world.api.put_spec(Key("MinerPool", NAMESPACE, "p"), {**world.pool()["spec"], "fineTune": ways})
    await world.settle()
    assert refused == {"r1", "r2"}
    assert sorted(sorted(world.does(name)) for name in world.api.kinds("Job")) == [["r1", "r2"], ["r3", "r4"]]


async def test_whose_twin_has_begun_another_run_meanwhile_does_not_come_along() -> None:
    world = Clinic(2)

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if "trainer" in (body.get("status") or {}):
            raise api_error(500)

    world.api.refuse = refuse
    await world.lead()
    await world.settle()
    world.start_pool("q", store={"uri": "pvc://adapters/store"})
    started = {"pool": "q", "startTime": "2026-01-02T03:00:00Z"}
    world.api.put({**run_of("other", "dr-2"), "status": started})
    world.api.refuse = lambda verb, key, body: None
    await world.lead()
    await world.settle()
    assert world.queued("r2") == ("True", "TwinBusy")
    assert "trainer" not in world.status("r2")


async def test_a_report_that_is_deleted_before_the_job_is_made_is_made_again_first() -> None:
    world = Clinic(2)
    left = 2

    def lose(verb: str, key: Key, body: Manifest) -> None:
        nonlocal left
        joins = key.name == "r2" and "trainer" in (body.get("status") or {})
        report = Key("ConfigMap", NAMESPACE, "r2-progress")
        if joins and report in world.api.objects:
            world.api.drop(report)
        elif key == report and "trainer" in world.run("r2").get("status", {}) and left:
            left -= 1
            raise api_error(500)

    world.api.refuse = lose
    await world.lead()
    await world.settle()
    assert left == 0
    assert world.does() == ["r1", "r2"]


async def test_while_the_queue_has_no_room_all_say_so() -> None:
    world, _ = await training(2, r1={"queueName": "gpu"}, r2={"queueName": "gpu"})
    assert world.api.kinds("Job")["r1"]["spec"]["suspend"] is True
    assert [world.queued(name) for name in ("r1", "r2")] == [("True", "AwaitingQuota")] * 2
    spec = world.api.kinds("Job")["r1"]["spec"]
    world.api.put_spec(Key("Job", NAMESPACE, "r1"), {**spec, "suspend": False})
    await world.settle()
    assert [world.queued(name) for name in ("r1", "r2")] == [("False", "Admitted")] * 2


async def test_a_follower_that_is_deleted_before_the_job_is_made_is_struck_off_first() -> None:
    world = Clinic()

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key.kind == "Job":
            raise api_error(500)

    world.api.refuse = refuse
    await world.lead()
    await world.settle()
    assert world.status("r2")["trainer"]["name"] == "r1"
    world.drop("FineTuneRun", "r2")
    world.api.refuse = lambda verb, key, body: None
    await world.lead()
    await world.settle()
    assert [each["name"] for each in world.status("r1")["trains"]] == ["r3"]
    assert world.does() == ["r1", "r3"]


async def test_each_ones_progress_is_its_own_and_who_waits_says_so() -> None:
    world, pod = await training()
    assert [world.running(name) for name in ("r1", "r2")] == [("False", "SharedJobBusy")] * 2
    world.begin("r1", pod)
    await world.settle()
    assert world.running("r1") == ("True", "StageTrain")
    assert (world.status("r1")["progressPercent"], "progressPercent" in world.status("r2")) == (40, False)
    assert world.condition("Running", world.run("r2"))[2] == "pod r1-1 does several runs, and has not begun this one"
    world.publish("r1", pod)
    world.begin("r2", pod)
    await world.settle()
    assert world.condition("Running", world.run("r1"))[2] == "pod r1-1 is through with this run"
    assert world.status("r1")["stage"] == "Published"
    assert world.running("r2") == ("True", "StageTrain")


async def test_a_run_that_fails_for_good_ends_and_the_others_go_on() -> None:
    world, pod = await training()
    world.fail("r2", pod)
    await world.settle()
    assert (world.status("r2")["stage"], world.status("r2")["failure"]["class"]) == ("Failed", "Diverged")
    assert world.does() == ["r1", "r2", "r3"]
    assert "completionTime" not in world.status("r1")
    assert "failure" not in world.status("r3")


async def test_a_leader_that_fails_for_good_ends_with_its_job() -> None:
    world, pod = await training(2)
    world.fail("r1", pod)
    await world.settle()
    assert "completionTime" not in world.status("r1"), "the Job that trains others is its own"
    assert world.status("r1")["failure"]["class"] == "Diverged"
    world.publish("r2", pod)
    world.pod(phase="Succeeded")
    world.end_job()
    await world.settle()
    assert world.status("r1")["stage"] == "Failed"
    assert world.does("r2-examiner") == ["r2"]


async def test_a_skipped_run_ends_at_once() -> None:
    world, pod = await training()
    world.say("r2", RunProgress(attempt=pod, stage=RunStage.DONE, skipped="2 new interactions of 20"))
    await world.settle()
    assert world.status("r2")["stage"] == "Skipped"


async def test_what_may_pass_is_tried_again_with_the_next_pod() -> None:
    world, pod = await training()
    world.fail("r2", pod, retryable=True)
    await world.settle()
    assert "completionTime" not in world.status("r2")
    assert world.running("r2") == ("False", "SharedJobBusy")
    world.pod(phase="Failed", containerStatuses=[container_status("trainer", terminated={"exitCode": 75})])
    await world.settle()
    assert world.running("r2") == ("False", "Retrying")
    assert world.running("r3")[1] == "JobStarting"
    world.begin("r2", world.pod(2))
    await world.settle()
    assert world.running("r2") == ("True", "StageTrain")


@pytest.mark.parametrize("at_work", ["r1", "r2"])
async def test_memory_that_ran_out_gives_up_no_job_that_others_share(at_work: str) -> None:
    world, pod = await training()
    world.begin(at_work, pod)
    world.oom()
    await world.settle()
    assert world.api.kinds("Job")["r1"]["spec"]["backoffLimit"] == 3
    assert world.running(at_work) == ("False", "Retrying")
    assert {name for name in ("r1", "r2", "r3") if "failure" in world.status(name)} == {at_work}


async def test_when_the_job_has_failed_what_is_done_is_done_and_who_was_not_begun_waits_again() -> None:
    world, pod = await training()
    world.publish("r1", pod)
    world.begin("r2", pod)
    world.oom()
    world.end_job(kind="Failed", reason="BackoffLimitExceeded")
    await world.settle()
    assert world.status("r1")["stage"] == "Published"
    assert world.does("r1-examiner") == ["r1"]
    assert world.status("r2")["failure"]["class"] == "OutOfMemory"
    assert (world.queued("r3")[0], "trainer" in world.status("r3")) == ("True", False)
    assert "r3-progress" not in world.api.kinds("ConfigMap")
    world.examine("r1", world.pod(job="r1-examiner"))
    world.pod(job="r1-examiner", phase="Succeeded")
    world.end_job("r1-examiner")
    await world.settle()
    assert world.status("r1")["verdict"] == "Promote"
    assert world.does("r3") == ["r3"]


async def test_within_which_run_a_pod_ended_is_asked_of_the_api_server() -> None:
    world, pod = await training()
    world.hears = False
    world.begin("r3", pod)
    world.hears = True
    world.oom()
    world.end_job(kind="Failed", reason="BackoffLimitExceeded")
    await world.settle()
    assert world.status("r3")["failure"]["class"] == "OutOfMemory"
    assert "failure" not in world.status("r2")


async def test_the_last_word_on_one_run_is_not_anothers() -> None:
    world, pod = await training(2)
    world.begin("r2", pod)
    why = FailureReport(failure_class="Diverged", retryable=False, message="step 7: NaN")
    code = {"exitCode": 1, "message": LastWord(failure=why).to_json()}
    world.pod(phase="Failed", containerStatuses=[container_status("trainer", terminated=code)])
    world.end_job(kind="Failed", reason="PodFailurePolicy")
    await world.settle()
    assert world.status("r2")["failure"]["class"] == "Diverged"
    assert world.status("r1")["failure"]["class"] == "TrainerCrashed"


async def test_where_nobody_was_begun_all_fail_as_the_pod_did() -> None:
    world, _ = await training()
    code = {"exitCode": 1, "message": "no CUDA"}
    world.pod(phase="Failed", containerStatuses=[container_status("model", terminated=code)])
    world.end_job(kind="Failed", reason="PodFailurePolicy")
    await world.settle()
    assert {world.status(name)["failure"]["class"] for name in ("r1", "r2", "r3")} == {"ModelFetchFailed"}


async def test_a_trainer_that_ends_well_without_a_word_on_a_run_made_no_report() -> None:
    world, pod = await training(2)
    world.publish("r1", pod)
    world.pod(phase="Succeeded")
    world.end_job()
    await world.settle()
    assert world.status("r2")["failure"]["class"] == "NoReport"
    assert "failure" not in world.status("r1")


async def test_a_deadline_that_passed_fails_the_run_that_was_at_work() -> None:
    world, pod = await training()
    world.publish("r1", pod)
    world.begin("r2", pod)
    world.drop("Pod", "r1-1")  # the Job controller takes it away
    world.end_job(kind="Failed", reason="DeadlineExceeded")
    await world.settle()
    assert world.status("r2")["failure"]["class"] == "DeadlineExceeded"
    assert "64800 s, the time of its 3 runs" in world.status("r2")["failure"]["message"]
    assert world.queued("r3")[0] == "True"
    assert world.does("r1-examiner") == ["r1"]


def told_to_end(pod: str, *, elsewhere: bool = True) -> RunProgress:
    """What a trainer says of each run that is not done when it is told to end, also of those that it never began."""
    why = FailureReport(failure_class="Preempted", retryable=True, message="told to end")
    return RunProgress(attempt=pod, stage=RunStage.DATA, failure=why, elsewhere=elsewhere)


async def test_who_was_told_to_end_by_a_deadline_that_all_share_waits_again_but_the_leader() -> None:
    world, pod = await training()
    world.begin("r1", pod)
    for name in ("r1", "r2", "r3"):
        world.say(name, told_to_end(pod, elsewhere=name != "r1"))
    world.drop("Pod", "r1-1")
    world.end_job(kind="Failed", reason="DeadlineExceeded")
    await world.settle()
    assert world.status("r1")["failure"]["class"] == "DeadlineExceeded"
    assert world.does("r2") == ["r2", "r3"]


async def test_what_was_published_is_done_though_the_next_pod_broke_off_looking_at_it_again() -> None:
    world, pod = await training(2)
    world.publish("r2", pod)
    await world.settle()
    world.pod(phase="Failed", containerStatuses=[container_status("trainer", terminated={"exitCode": 75})])
    world.begin("r2", world.pod(2))
    world.oom(2)
    world.end_job(kind="Failed", reason="BackoffLimitExceeded")
    await world.settle()
    assert "failure" not in world.status("r2")
    assert world.does("r2-examiner") == ["r2"]


async def test_told_to_end_by_a_deadline_who_was_not_begun_waits_again() -> None:
    world, pod = await training()
    world.publish("r1", pod)
    why = FailureReport(failure_class="Preempted", retryable=True, message="told to end")
    world.say("r2", RunProgress(attempt=pod, stage=RunStage.TRAIN, failure=why))
    world.say("r3", RunProgress(attempt=pod, stage=RunStage.DATA, elsewhere=True, failure=why))
    world.drop("Pod", "r1-1")
    world.end_job(kind="Failed", reason="DeadlineExceeded")
    await world.settle()
    assert world.status("r2")["failure"]["class"] == "DeadlineExceeded"
    assert (world.queued("r3")[0], "failure" in world.status("r3")) == ("True", False)
    assert "r3-progress" not in world.api.kinds("ConfigMap")


async def test_between_two_runs_a_job_that_fails_takes_none_with_it() -> None:
    world, pod = await training()
    world.publish("r1", pod)
    world.begin("r2", pod)
    await world.settle()
    world.drop("FineTuneRun", "r2")
    world.oom()
    world.end_job(kind="Failed", reason="BackoffLimitExceeded")
    await world.settle()
    assert world.status("r1")["stage"] == "Published"
    assert (world.queued("r3")[0], "failure" in world.status("r3")) == ("True", False)


async def test_an_examiner_that_breaks_off_fails_the_run_that_it_was_at() -> None:
    world, pod = await training()
    for name in ("r1", "r2", "r3"):
        world.publish(name, pod)
    world.pod(phase="Succeeded")
    world.end_job()
    await world.settle()
    assert world.does("r1-examiner") == ["r1", "r2", "r3"]
    pod = world.pod(job="r1-examiner")
    for name in ("r1", "r2", "r3"):
        at = RunProgress(attempt=pod, stage=RunStage.EVALUATE, elsewhere=name != "r2")
        world.say(name, at, where=examination_name(name))
    world.examine("r1", pod)
    await world.settle()
    assert [world.running(name)[1] for name in ("r1", "r2", "r3")] == [
        "SharedJobBusy", "StageEvaluate", "SharedJobBusy",
    ]  # fmt: skip
    code = {"reason": "OOMKilled", "exitCode": 137}
    crashed = [container_status("examiner", terminated=code)]
    world.pod(job="r1-examiner", phase="Failed", containerStatuses=crashed)
    world.end_job("r1-examiner", kind="Failed", reason="BackoffLimitExceeded")
    await world.settle()
    assert world.status("r1")["verdict"] == "Promote"
    assert world.status("r2")["failure"]["class"] == "OutOfMemory"
    assert "failure" not in world.status("r3")
    assert world.does("r3-examiner") == ["r3"]


async def test_when_the_leader_is_deleted_others_wait_for_its_pods_and_then_their_turn() -> None:
    world, pod = await training()
    world.publish("r2", pod)
    world.begin("r3", pod)
    await world.settle()
    lingering = world.api.kinds("Pod")["r1-1"]
    world.drop("FineTuneRun", "r1")
    world.api.put(lingering)
    await world.settle()
    assert world.running("r3") == ("False", "SharedJobLost")
    assert world.status("r3")["trainer"]["name"] == "r1"
    world.drop("Pod", "r1-1")
    await world.settle()
    assert world.does("r2-examiner") == ["r2"], "what is published goes on"
    assert world.queued("r3") == ("True", "PoolBusy"), "that examiner has the pool's one place"
    assert "progressPercent" not in world.status("r3")
    assert "dataset" not in world.status("r3")


async def test_a_report_that_counts_no_more_is_made_anew_though_nobody_heard_of_its_end() -> None:
    world, _ = await training(2)
    world.drop("FineTuneRun", "r1")
    world.hears = False  # from here on watches stand still
    await world.settle()
    assert world.does("r2") == ["r2"]
    assert "r2-progress" in world.api.kinds("ConfigMap")


async def test_a_place_that_is_left_by_who_waits_again_is_given_to_the_next() -> None:
    world, _ = await training(3, share=2)
    lingering = world.api.kinds("Pod")["r1-1"]
    world.drop("FineTuneRun", "r1")
    world.api.put(lingering)
    world.start_pool("q", store={"uri": "pvc://adapters/store"})
    started = {"pool": "q", "startTime": "2026-01-02T03:00:00Z"}
    world.api.put({**run_of("other", "dr-2"), "status": started})
    await world.settle()
    assert world.queued("r3") == ("True", "PoolBusy")
    world.drop("Pod", "r1-1")
    await world.settle()
    assert world.queued("r2") == ("True", "TwinBusy")
    assert world.does("r3") == ["r3"]


async def test_when_a_follower_is_deleted_the_trainer_may_not_write_to_its_name_any_more() -> None:
    world, pod = await training()
    world.drop("FineTuneRun", "r2")
    await world.settle()
    [rule] = world.api.kinds("Role")["r1-trainer"]["rules"]
    assert rule["resourceNames"] == ["r1-progress", "r3-progress"]
    world.publish("r1", pod)
    world.publish("r3", pod)
    world.pod(phase="Succeeded")
    world.end_job()
    await world.settle()
    assert world.does("r1-examiner") == ["r1", "r3"]


async def test_runs_that_name_each_other_as_leaders_wait_for_a_turn_and_not_for_ever() -> None:
    world = Clinic(4, places=2, share=1)
    one, other = ({"name": name, "uid": world.run(name)["metadata"]["uid"]} for name in ("r1", "r2"))
    begun = {"startTime": "2026-01-02T03:00:00Z", "pool": "p"}
    fourth = {"name": "r4", "uid": world.run("r4")["metadata"]["uid"]}
    world.api.put({**world.run("r1"), "status": {**begun, "trainer": other, "trains": [other]}})
    world.api.put({**world.run("r2"), "status": {**begun, "trainer": one, "trains": [one, fourth]}})
    await world.lead()
    await world.settle()
    assert {name: world.does(name) for name in world.api.kinds("Job")} == {"r1": ["r1"], "r2": ["r2"]}
    assert world.queued("r4") == ("True", "PoolBusy")


async def test_a_run_that_is_made_anew_waits_while_the_job_may_do_the_former_one() -> None:
    world, pod = await training(3, places=2)
    world.drop("FineTuneRun", "r2")
    await world.settle()
    world.api.put(run_of("r2", "dr-2"))
    world.start_twin("dr-4")
    world.api.put(run_of("r4", "dr-4"))
    await world.settle()
    assert world.queued("r2") == ("True", "TwinBusy")
    assert (world.does("r1"), world.does("r4")) == (["r1", "r2", "r3"], ["r4"]), "it keeps nobody waiting"
    world.end_job("r4")  # a place is free
    await world.settle()
    assert world.queued("r2") == ("True", "TwinBusy")
    for name in ("r1", "r3"):
        world.publish(name, pod)
    world.pod(phase="Succeeded")
    world.end_job()
    await world.settle()
    assert world.does("r2") == ["r2"]


async def test_an_examiner_serves_all_that_have_published_and_each_has_its_own_verdict() -> None:
    world, pod = await training()
    for name in ("r1", "r2", "r3"):
        world.publish(name, pod)
    world.pod(phase="Succeeded")
    world.end_job()
    await world.settle()
    assert world.does("r1-examiner") == ["r1", "r2", "r3"]
    assert [each["name"] for each in world.status("r1")["examines"]] == ["r2", "r3"]
    assert "r1-trainer" not in world.api.kinds("ServiceAccount")
    [rule] = world.api.kinds("Role")["r1-examiner"]["rules"]
    assert rule["resourceNames"] == ["r1-examination", "r2-examination", "r3-examination"]
    examiner = world.pod(job="r1-examiner")
    world.examine("r2", examiner)
    await world.settle()
    assert world.status("r2")["verdict"] == "Promote", "it needs not wait for the others"
    assert "verdict" not in world.status("r1")
    world.examine("r1", examiner)
    why = FailureReport(failure_class="BadData", retryable=False, message="no such item")
    said = RunProgress(attempt=examiner, stage=RunStage.EVALUATE, failure=why)
    world.say("r3", said, where="r3-examination")
    world.pod(job="r1-examiner", phase="Failed")
    world.end_job("r1-examiner", kind="Failed", reason="PodFailurePolicy")
    await world.settle()
    assert world.status("r1")["verdict"] == "Promote"
    assert world.status("r3")["failure"]["class"] == "BadData"


async def test_a_report_about_another_run_counts_for_nobody() -> None:
    world, pod = await training(2)
    for name in ("r1", "r2"):
        world.publish(name, pod)
    world.pod(phase="Succeeded")
    world.end_job()
    await world.settle()
    examiner = world.pod(job="r1-examiner")
    made = run_from(world.run("r1"))
    assert isinstance(made, Run)
    said = RunProgress(attempt=examiner, stage=RunStage.DONE, progress_percent=100)
    forged = found(made, child=digest("b")).to_json()
    world.say("r2", said, where="r2-examination", **{OUTCOMES_KEY: forged})
    await world.settle()
    assert world.status("r2")["failure"]["class"] == "ExaminationRefused"


async def test_when_the_examiners_leader_is_deleted_the_others_are_examined_by_another() -> None:
    world, pod = await training()
    for name in ("r1", "r2", "r3"):
        world.publish(name, pod)
    world.pod(phase="Succeeded")
    world.end_job()
    await world.settle()
    world.drop("FineTuneRun", "r1")
    await world.settle()
    assert world.does("r2-examiner") == ["r2", "r3"]
    assert world.status("r3")["examiner"]["name"] == "r2"


async def test_the_log_of_a_job_in_which_another_run_failed_is_kept_for_a_day() -> None:
    world, pod = await training(2)
    world.publish("r1", pod)
    world.begin("r2", pod)
    world.oom()
    world.end_job(kind="Failed", reason="BackoffLimitExceeded")
    await world.settle()
    world.examine("r1", world.pod(job="r1-examiner"))
    world.pod(job="r1-examiner", phase="Succeeded")
    world.end_job("r1-examiner")
    await world.settle()
    ended = world.run("r1")
    hours_ago = (datetime.now(UTC) - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    world.api.put({**ended, "status": {**ended["status"], "completionTime": hours_ago}})
    await world.settle()
    assert "failure" not in world.status("r1")
    assert "r1" in world.api.kinds("Job")
