"""The operator has tasks' versions examined: one run each, by its own image, credited truly, chosen by the doctor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.finetune_run import FineTuneRunSpec
from bettertherapy_api.round_progress import Candidate, RoundOrder, TasksReport, progress_name, read_document
from tests.unit.operator.played import Played, api_error, without_server_fields
from tests.unit.operator.rounds.samples import STARTED as ROUND_STARTED
from tests.unit.operator.rounds.samples import done as round_done
from tests.unit.operator.rounds.samples import round_, round_object
from tests.unit.operator.run_samples import MADE, STARTED, run
from tests.unit.operator.samples import NAMESPACE, digest, pool, twin
from tests.unit.operator.validator.validators import children as children_of_validator
from tests.unit.operator.validator.validators import gateway_container, gateway_pod, validator, validator_object
from twin_operator.domain.batches import take_along
from twin_operator.domain.objects import Run, Twin, Unreadable
from twin_operator.domain.task_versions import better_than, is_twins_own
from twin_operator.engine.conditions import Finding
from twin_operator.engine.resources import Key, Manifest
from twin_operator.engine.times import timestamp
from twin_operator.kinds.doctor_twin.fine_tunes import plan_fine_tune
from twin_operator.kinds.finetune_run.adoption_job import build_adoption_job
from twin_operator.kinds.finetune_run.examiner_job import build_examiner_job
from twin_operator.kinds.finetune_run.plan import plan_run
from twin_operator.kinds.finetune_run.task import awaits_choice
from twin_operator.kinds.finetune_run.view import RunPlan, RunView
from twin_operator.kinds.validator_round.examinations import build_examination_run, examination_run_name, examined
from twin_operator.kinds.validator_round.order import order_of
from twin_operator.settings import Images

TASK = "11111111-1111-4111-8111-111111111111"
HOTKEY = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
OFFERS = {"publicUrl": "https://v.example", "deliveries": "pvc://deliveries/tasks"}
TASKS: dict[str, Any] = {"fineTuneTasks": {"store": {"uri": "pvc://adapters/store"}, "offers": OFFERS}}
STORE = {"uri": "pvc://adapters/store"}
URL = f"https://v.example/v1/tasks/{TASK}/examination?digest=x&signature=y"

CREDITS = {"Promote": "Passed", "Reject": "Failed", "Inconclusive": "Inconclusive"}
"""As they mostly go together."""

THIS = twin("dr-a")


def candidate(uid: str = "uid-twin", *, task: str = TASK, **changes: Any) -> Candidate:
    given = {
        "task": task, "twin": "dr-a", "twinUID": uid, "miner": HOTKEY, "adapter": digest("b"), "parent": digest("a"),
        "dataset": URL, "datasetDigest": digest("d"), "heldOut": URL, "heldOutDigest": digest("e"),
        "until": timestamp(datetime.now(UTC) + timedelta(hours=24)),
    }  # fmt: skip
    return Candidate.model_validate(given | changes)


def examining(name: str = f"exam-{TASK}", *, task: str = TASK, letter: str = "b", **more: Any) -> Run:
    """A run that examines a candidate."""
    own = {
        "task": task, "validator": "v", "miner": HOTKEY, "digest": digest(letter), "deadline": "2030-01-01T00:00:00Z",
        "delivered": f"pvc://deliveries/tasks/{task}/{letter * 64}", "heldOut": {"uri": URL, "digest": digest("e")},
    }  # fmt: skip
    dataset = {"uri": URL, "digest": digest("d")}
    return run(name, **({"candidate": own, "dataset": dataset} | more))


def passed(score: int = 90, *, verdict: str = "Promote", letter: str = "b", at: str = "04") -> dict[str, Any]:
    metrics = [{"name": "score", "valuePercent": score, "baselinePercent": 80}]
    return {
        **STARTED, "completionTime": f"2026-01-02T{at}:00:00Z", "verdict": verdict,
        "eval": {"verdict": verdict, "samples": 50, "message": "no worse", "metrics": metrics},
        "artifact": {"digest": digest(letter), "uri": MADE.uri, "rank": 8, "bytes": 1},
        "dataset": {"uri": "x", "digest": digest("d"), "interactions": 3},
        "credit": {"verdict": CREDITS[verdict], "message": "as work"},
    }  # fmt: skip


def failed(credit: str) -> dict[str, Any]:
    return {
        **STARTED, "completionTime": "2026-01-02T04:00:00Z",
        "failure": {"class": "x", "retryable": False, "message": "because"},
        "credit": {"verdict": credit, "message": "because"},
    }  # fmt: skip


def test_the_run_names_all_that_is_examined_and_is_one_that_the_api_takes() -> None:
    of = twin("dr-a")
    made = build_examination_run(candidate(of.uid), validator(**TASKS), of, pool(store=STORE))
    assert made is not None
    spec = FineTuneRunSpec.model_validate(made["spec"])
    assert (made["metadata"]["name"], spec.parent_digest) == (f"exam-{TASK}", digest("a"))
    assert len(made["metadata"]["name"]) <= 54
    assert spec.candidate is not None
    assert spec.candidate.delivered == f"pvc://deliveries/tasks/{TASK}/{'b' * 64}"
    assert (spec.candidate.held_out.digest if spec.candidate.held_out else "") == digest("e")
    assert spec.task is None
    without = candidate(of.uid, heldOut=None, heldOutDigest=None)
    made = build_examination_run(without, validator(**TASKS), of, Finding("NoStore", "x"))  # type: ignore[arg-type]
    assert made is not None
    assert FineTuneRunSpec.model_validate(made["spec"]).candidate.held_out is None  # type: ignore[union-attr]
    assert build_examination_run(candidate(of.uid), validator(), of, pool()) is None, "it takes no deliveries"


def test_what_was_reported_before_is_named_and_brought_with_the_version_that_it_began_from() -> None:
    of = twin("dr-a")
    earlier = [digest("1"), digest("2")]
    built = build_examination_run(candidate(of.uid, earlier=earlier), validator(**TASKS), of, pool(store=STORE))
    assert built is not None
    assert built["spec"]["candidate"]["earlier"] == earlier
    made = examining(**{"candidate": built["spec"]["candidate"]})
    assert made.spec.candidate is not None
    job = build_adoption_job(made, made.spec.candidate, of, pool(store=STORE), Images(trainer_cpu="ours:1"))
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert [each for each in container["args"] if each.startswith("--earlier=")] == [
        f"--earlier={each}" for each in earlier
    ]
    [parent] = [each.removeprefix("--parent-uri=") for each in container["args"] if each.startswith("--parent-uri=")]
    assert parent.startswith("pvc://")
    mounted = [each["mountPath"] for each in container["volumeMounts"]]
    assert any(f"/mnt/pvc/{parent.removeprefix('pvc://')}".startswith(each) for each in mounted if "pvc" in each)


def test_what_brings_it_runs_the_operators_image_without_a_model_and_may_write_the_twins_folder_alone() -> None:
    made, of = examining(image="evil:1"), twin("dr-a")
    assert made.spec.candidate is not None
    job = build_adoption_job(made, made.spec.candidate, of, pool(store=STORE), Images(trainer_cpu="ours:1"))
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert (container["name"], container["image"]) == ("trainer", "ours:1")
    assert container["command"] == ["python", "-m", "neurons.examiner.adopting"]
    assert "initContainers" not in pod
    assert f"--task={TASK}" in container["args"]
    assert f"--held-out-digest={digest('e')}" in container["args"]
    writable = [each["subPath"] for each in container["volumeMounts"] if "subPath" in each and not each.get("readOnly")]
    assert writable == ["store/dr-a"]
    assert [each["mountPath"] for each in container["volumeMounts"] if "deliveries" in each["mountPath"]] == [
        "/mnt/pvc/deliveries"
    ]


def test_the_examiner_is_told_who_trained_it_and_on_what() -> None:
    job = build_examiner_job(examining(), twin("dr-a"), pool(store=STORE), Images(), child=digest("b"), prompt=False)
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert f"--trained-by=task-{TASK}" in container["args"]
    assert f"--dataset-digest={digest('d')}" in container["args"]
    assert f"--held-out-digest={digest('e')}" in container["args"]
    ordinary = build_examiner_job(run(), twin("dr-a"), pool(store=STORE), Images(), child=digest("b"), prompt=False)
    args = ordinary["spec"]["template"]["spec"]["containers"][0]["args"]
    assert not [each for each in args if each.startswith(("--trained-by", "--dataset-digest", "--held-out"))]


def test_a_candidate_shares_no_trainer() -> None:
    others = [run("r2", twin="dr-b"), examining("exam-2", twin="dr-c")]
    assert [each.name for each in take_along(run("r1"), others, most=9, fits=lambda _: True)] == ["r2"]
    assert take_along(examining(), others, most=9, fits=lambda _: True) == ()


@pytest.mark.parametrize(
    ("status", "verdict", "words"),
    [
        (passed(), "Passed", "50 items: as work"),
        (passed(verdict="Reject"), "Failed", "as work"),
        (passed(verdict="Inconclusive"), "Inconclusive", "as work"),
        ({**passed(verdict="Inconclusive"), "credit": {"verdict": "Passed"}}, "Passed", "50 items"),
        (failed("Failed"), "Failed", "because"),
        (failed("Disallowed"), "Disallowed", "because"),
        (failed("Inconclusive"), "Inconclusive", "because"),
        ({**passed(), "credit": None}, "Inconclusive", "without a verdict"),
        (passed(letter="c"), "Inconclusive", "another version"),
    ],
)
def test_what_a_run_came_to_is_told_in_words(status: dict[str, Any], verdict: str, words: str) -> None:
    named = [(candidate(THIS.uid), THIS)]
    [found] = examined([examining(status=status)], named, validator="v")
    assert (found.task, found.adapter, found.credit) == (TASK, digest("b"), verdict)
    assert words in found.message
    assert examined([examining(status=status)], named, validator="another") == ()
    assert examined([examining(status=STARTED), run(status=passed())], named, validator="v") == ()


def _of(**changes: Any) -> dict[str, Any]:
    own = examining().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"candidate": own["candidate"] | changes}


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("by-hand", {}),
        (f"exam-{TASK}", {"dataset": {"uri": URL, "digest": digest("1")}}),
        (f"exam-{TASK}", {"parentDigest": digest("1")}),
        (f"exam-{TASK}", _of(digest=digest("1"))),
        (f"exam-{TASK}", _of(miner="5" * 48)),
        (f"exam-{TASK}", _of(heldOut={"uri": URL, "digest": digest("1")})),
        (f"exam-{TASK}", _of(heldOut=None)),
        (f"exam-{TASK}", _of(earlier=[digest("1")])),
    ],
)
def test_only_a_run_of_what_a_round_named_is_credited(name: str, spec: dict[str, Any]) -> None:
    by_hand = examining(name, status=passed(), **spec)
    here = [(candidate(THIS.uid), THIS)]
    assert examined([by_hand], here, validator="v") == ()
    assert examined([examining(status=passed())], [], validator="v") == (), "no round named it"
    true = examining(status=failed("Failed"))
    if by_hand.name != true.name:
        assert [each.credit for each in examined([true, by_hand], here, validator="v")] == ["Failed"]


def test_of_a_twin_that_can_not_be_read_nothing_is_said_yet() -> None:
    assert examined([], [(candidate(), Unreadable(part="spec", problem="x"))], validator="v") == ()


def test_a_twin_that_is_not_here_can_be_examined_by_nobody_and_that_is_said() -> None:
    [found] = examined([], [(candidate("uid-other"), twin("dr-a"))], validator="v")
    assert (found.credit, "no DoctorTwin dr-a" in found.message) == ("Inconclusive", True)
    [found] = examined([], [(candidate(), None)], validator="v")
    assert found.credit == "Inconclusive"


def test_a_round_is_told_of_them_only_where_tasks_are_offered() -> None:
    came = examined([examining(status=passed())], [(candidate(THIS.uid), THIS)], validator="v")
    made = round_(status=ROUND_STARTED)
    order = read_document(RoundOrder, order_of(made, validator(**TASKS), examined=came).to_json())
    assert isinstance(order, RoundOrder)
    assert order.tasks is not None
    assert order.tasks.examine
    assert [each.task for each in order.examined] == [TASK]
    assert order_of(made, validator(), examined=came).examined == ()


def test_it_is_the_doctors_to_choose_and_the_best_is_named() -> None:
    of = twin("dr-a")
    first = examining(status=passed(85))
    best = examining("exam-2", task=TASK.replace("1", "2"), letter="c", status=passed(92, letter="c", at="05"))
    same = examining("exam-3", task=TASK.replace("1", "3"), letter="d", status=passed(92, letter="d", at="06"))
    lost = examining("exam-4", status=passed(99, verdict="Reject"))
    other = examining("exam-5", status=passed(99), parentDigest=digest("9"))
    runs = [first, best, same, lost, other, run("night", status=passed(99))]
    assert better_than(first, runs) is best
    assert better_than(same, runs) is best
    assert better_than(best, runs) is None
    assert not is_twins_own(of, best)
    said = awaits_choice(first, of, digest("b"), runs)
    assert said is not None
    assert "exam-2 did better" in said.message
    assert f"approve dr-a --digest {digest('c')}" in said.message
    view = RunView(run=best, twin=of, pool=pool(store=STORE), obstacle=None, of_twin=tuple(runs))
    plan = plan_run(view, Images(), now=datetime(2026, 1, 2, 7, tzinfo=UTC))
    promoted = next(each for each in plan.conditions if each.type == "Promoted")
    assert (promoted.status, promoted.reason) == ("False", "AwaitingChoice")
    assert f"approve dr-a --digest {digest('c')}" in promoted.message


def _fate(of: Run, twin_now: Twin, *others: Run, days: int = 1) -> RunPlan:
    view = RunView(run=of, twin=twin_now, pool=pool(store=STORE), obstacle=None, of_twin=(of, *others))
    return plan_run(view, Images(), now=datetime(2026, 1, 2, 7, tzinfo=UTC) + timedelta(days=days))


def _serving(letter: str) -> Twin:
    return twin("dr-a", adapter=letter)


def test_what_the_doctor_rejected_is_not_named_as_the_better_one() -> None:
    rejected = [{"type": "Rejected", "status": "True", "reason": "RejectedByDoctor", "message": "no"}]
    rejected[0]["lastTransitionTime"] = "2026-01-02T05:00:00Z"
    first = examining(status=passed(85))
    best = examining("exam-2", task=TASK.replace("1", "2"), letter="c", status=passed(92, letter="c"))
    assert better_than(first, [first, best]) is best
    over = examining("exam-2", task=TASK.replace("1", "2"), letter="c",
                     status={**passed(92, letter="c"), "conditions": rejected})  # fmt: skip
    assert better_than(first, [first, over]) is None


def test_one_whose_parent_serves_no_more_is_not_offered_to_the_doctor() -> None:
    told = {
        each.type: (each.status, each.reason) for each in _fate(examining(status=passed()), _serving("a")).conditions
    }
    assert told["Promoted"] == ("False", "AwaitingChoice")
    told = {
        each.type: (each.status, each.reason) for each in _fate(examining(status=passed()), _serving("f")).conditions
    }
    assert told["Rejected"] == ("True", "ParentReplaced")
    assert "Promoted" not in told


def test_versions_that_nobody_chooses_are_not_kept_for_ever() -> None:
    def ended(score: int, letter: str) -> dict[str, Any]:
        return {name: said for name, said in passed(score, letter=letter).items() if name != "dataset"}

    best = examining(status=ended(95, "b"))
    other = examining("exam-2", task=TASK.replace("1", "2"), letter="c", status=ended(90, "c"))
    serving = _serving("a")
    assert not _fate(best, serving, other, days=6).expired
    assert not _fate(other, serving, best, days=6).expired
    assert _fate(other, serving, best, days=8).expired, "one that did better waits for the doctor"
    assert not _fate(best, serving, other, days=400).expired, "it waits for the doctor"
    assert _fate(best, _serving("f"), other, days=8).expired


def test_of_a_version_that_was_made_elsewhere_nobody_says_that_it_was_trained_here() -> None:
    status = {**STARTED, "artifact": passed()["artifact"]}
    for of, trained in ((examining(status=status), False), (run(status=status), True)):
        view = RunView(run=of, twin=THIS, pool=pool(store=STORE), obstacle=None, of_twin=(of,))
        plan = plan_run(view, Images(), now=datetime(2026, 1, 2, 3, 30, tzinfo=UTC))
        said = {each.type for each in plan.conditions if each.status == "True"}
        assert ("Trained" in said, "Published" in said) == (trained, True), of.name


def test_one_that_nobody_could_begin_in_time_is_given_up() -> None:
    view = RunView(run=examining(), twin=twin("dr-a"), pool=pool(store=STORE), obstacle=None)
    plan = plan_run(view, Images(), now=datetime(2031, 1, 1, tzinfo=UTC))
    assert plan.status["failure"]["class"] == "TaskOverdue"
    assert "examination" in plan.status["failure"]["message"]


def test_the_gateway_may_write_the_folder_of_deliveries_and_nothing_beside_it() -> None:
    container = gateway_container(**TASKS)
    assert {"name": "DELIVERIES_URI", "value": "pvc://deliveries/tasks"} in container["env"]
    [found] = [each for each in container["volumeMounts"] if each["name"] == "deliveries"]
    assert (found["mountPath"], found["subPath"]) == ("/mnt/pvc/deliveries/tasks", "tasks")
    assert "envFrom" not in container
    volumes = {each["name"]: each for each in gateway_pod(**TASKS)["volumes"]}
    assert volumes["deliveries"]["persistentVolumeClaim"]["claimName"] == "deliveries"
    plain = {"fineTuneTasks": {"store": {"uri": "pvc://adapters/store"}, "offers": {"publicUrl": "https://v.example"}}}
    assert "deliveries" not in {each["name"] for each in gateway_pod(**plain)["volumes"]}

    def datasets(**spec: Any) -> list[str]:
        cron = children_of_validator(**spec)["CronJob", "v-datasets"]
        pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        return list(pod["containers"][0]["args"])

    assert "--hold-out" in datasets(**TASKS)
    assert "--hold-out" not in datasets(**plain)


def test_no_night_is_left_out_because_versions_of_miners_wait_to_be_examined() -> None:
    due = twin(
        "dr-a", fineTune={"schedule": "0 2 * * *"}, status={"nextFineTuneTime": "2026-01-02T02:59:16Z"},
    )  # fmt: skip
    now = datetime(2026, 1, 2, 5, tzinfo=UTC)
    wait = [examining(f"exam-{number}", task=TASK.replace("1", str(number))) for number in range(2, 9)]
    night = plan_fine_tune(due, [], pool(store=STORE), now=now, window_seconds=3600)
    assert night.create is not None
    assert plan_fine_tune(due, wait, pool(store=STORE), now=now, window_seconds=3600) == night
    begun = [*wait, examining("exam-9", task=TASK.replace("1", "9"), status=STARTED)]
    assert plan_fine_tune(due, begun, pool(store=STORE), now=now, window_seconds=3600) == night, "it waits as a run"


# In the operator as it runs


async def announced(
    *, twin_is_another: bool = False, world: Played | None = None, ended: timedelta = timedelta()
) -> Played:
    """A round that is complete, since so long, and names a candidate."""
    world = world or Played()
    world.start_pool(store=STORE)
    world.start_pod()
    world.report()
    world.start_twin()
    uid = "uid-another" if twin_is_another else str(world.twin()["metadata"]["uid"])
    world.api.put(without_server_fields(validator_object(**TASKS)))
    complete = {**ROUND_STARTED, "completionTime": timestamp(datetime.now(UTC) - ended), "resultsDigest": digest("d")}
    owner = world.api.objects[Key("Validator", NAMESPACE, "v")]["metadata"]["uid"]
    complete["validatorUID"] = owner
    made = world.api.put(without_server_fields(round_object("r1", status=complete)))
    said = round_done(candidates=(candidate(uid),), tasks=TasksReport(made=1))
    world.api.put({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": progress_name("r1"), "namespace": NAMESPACE,
            "labels": {names.LABEL_ROUND: "r1", names.LABEL_COMPONENT: "progress"},
            "ownerReferences": [{
                "apiVersion": names.API_VERSION, "kind": "ValidatorRound", "name": "r1",
                "uid": made["metadata"]["uid"], "controller": True,
            }],
        },
        "data": {"round.json": order_of(round_(status=ROUND_STARTED), validator(**TASKS)).to_json(),
                 "progress.json": said.to_json()},
    })  # fmt: skip
    return world


def exams(world: Played) -> list[str]:
    return [key.name for key in world.api.objects if key.kind == "FineTuneRun"]


async def test_what_a_round_names_gets_one_run_whoever_looks_again() -> None:
    world = await announced()
    await world.lead()
    await world.settle()
    assert exams(world) == [examination_run_name(TASK)]
    for _ in range(2):
        await world.lead()
        await world.settle()
    made = [each for each in world.api.writes if each.key.kind == "FineTuneRun" and each.verb == "create"]
    assert len(made) == 1
    assert world.problems == []


async def test_of_another_twin_of_that_name_none_is_made() -> None:
    world = await announced(twin_is_another=True)
    await world.lead()
    await world.settle()
    assert exams(world) == []


async def test_a_refusal_holds_up_nothing_and_is_told() -> None:
    world = await announced()

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key.kind == "FineTuneRun":
            raise api_error(403, "a policy says no")

    world.api.refuse = refuse
    await world.lead()
    await world.settle()
    assert exams(world) == []
    assert {str(each) for each in world.problems} == {"403 Refused: a policy says no"}, "it is tried again"
    world.api.refuse = lambda verb, key, body: None
    await world.lead()
    await world.settle()
    assert exams(world) == [examination_run_name(TASK)]


async def test_one_that_could_not_be_made_is_made_soon() -> None:
    world = await announced()
    refusals = iter([500, 403])

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key.kind == "FineTuneRun" and (status := next(refusals, None)) is not None:
            raise api_error(status, "not now")

    world.api.refuse = refuse
    await world.lead()
    await world.settle()
    assert exams(world) == [examination_run_name(TASK)], "nobody led anew, and nothing else changed"
    assert len(world.problems) == 2, "so it waits longer each time"


async def test_a_run_of_that_name_that_examines_another_thing_is_told_and_not_credited() -> None:
    world = await announced()
    squat = {"digest": digest("1"), "task": TASK, "validator": "v", "miner": HOTKEY, "deadline": "2030-01-01T00:00:00Z"}
    squat["delivered"] = f"pvc://deliveries/tasks/{TASK}/{'1' * 64}"
    world.api.put({
        "apiVersion": names.API_VERSION, "kind": "FineTuneRun",
        "metadata": {"name": examination_run_name(TASK), "namespace": NAMESPACE},
        "spec": {"twinRef": {"name": "dr-a"}, "candidate": squat, "dataset": {"uri": URL, "digest": digest("d")}},
    })  # fmt: skip
    await world.lead()
    await world.settle()
    told = [each.body["note"] for each in world.api.writes if each.key.kind == "Event"]
    assert any("delete it" in note and examination_run_name(TASK) in note for note in told), told
    world.api.drop(Key("FineTuneRun", NAMESPACE, examination_run_name(TASK)))
    await world.lead()
    await world.settle()
    made = world.api.objects[Key("FineTuneRun", NAMESPACE, examination_run_name(TASK))]
    assert made["spec"]["candidate"]["digest"] == digest("b")


async def test_the_last_round_that_names_a_version_waits_for_the_next_beyond_its_time() -> None:
    world = await announced(ended=timedelta(days=8))
    await world.lead()
    await world.settle()
    first = Key("ValidatorRound", NAMESPACE, "r1")
    assert first in world.api.objects, "else nobody would know what the examination came to"
    later = {**ROUND_STARTED, "startTime": timestamp(datetime.now(UTC)), "resultsDigest": digest("e")}
    later |= {
        "completionTime": timestamp(datetime.now(UTC)),
        "validatorUID": world.api.objects[first]["status"]["validatorUID"],
    }
    world.api.put(without_server_fields(round_object("r2", status=later)))
    await world.lead()  # as an hour later
    await world.settle()
    assert first not in world.api.objects


async def test_the_next_round_is_told_what_the_examination_came_to_and_stays_told() -> None:
    world = await announced()
    await world.lead()
    await world.settle()
    name = examination_run_name(TASK)
    made = world.api.objects[Key("FineTuneRun", NAMESPACE, name)]
    world.api.put({
        **{part: made[part] for part in ("apiVersion", "kind")}, "metadata": {"name": name, "namespace": NAMESPACE},
        "status": {**passed(), "completionTime": timestamp(datetime.now(UTC))},
    })  # fmt: skip
    world.api.put(without_server_fields(round_object("r2")))
    await world.settle()
    for _ in range(2):
        found = world.api.objects[Key("ConfigMap", NAMESPACE, progress_name("r2"))]
        order = read_document(RoundOrder, found["data"]["round.json"])
        assert isinstance(order, RoundOrder), order
        assert [(each.task, each.adapter, each.credit) for each in order.examined] == [(TASK, digest("b"), "Passed")]
        world.api.objects.pop(Key("FineTuneRun", NAMESPACE, name), None)
        await world.lead()
        await world.settle()
