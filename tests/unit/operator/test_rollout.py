"""From a verdict to the version that answers: canary, steps, rollback, the doctor's word."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bettertherapy_api.finetune_run import Anchor, CandidateSpec
from bettertherapy_api.report import AdapterState, FailureReason, PodReport
from bettertherapy_api.routing import TwinEntry
from tests.unit.operator.run_samples import run
from tests.unit.operator.samples import (
    adapter_report,
    deployment_object,
    digest,
    pod_object,
    pool,
    read_facts,
    report,
    report_objects,
    twin_object,
)
from twin_operator.domain.canary_analysis import UNWATCHED, Analysis, Outlook
from twin_operator.domain.objects import Run, Twin, twin_from
from twin_operator.domain.reasons import Reason
from twin_operator.domain.rollout import asks_to_take_back, plan_rollout
from twin_operator.domain.routing import Candidate, plan_entry, wanted_adapter, without
from twin_operator.domain.taken_back import taken_back
from twin_operator.domain.twin_view import PoolView, TwinView
from twin_operator.domain.versions import anchor_version
from twin_operator.engine.resources import Manifest
from twin_operator.engine.status import without_none
from twin_operator.engine.times import timestamp
from twin_operator.kinds.doctor_twin.checks import twin_conditions
from twin_operator.kinds.doctor_twin.plan import plan_status

STEPS = {"steps": [{"weightPercent": 10, "seconds": 60}, {"weightPercent": 50, "seconds": 60}]}
GOOD = Analysis(outlook=Outlook.GOOD, reason=Reason.WITHIN_LIMITS, message="0 of 40 requests failed")
WORSE = Analysis(outlook=Outlook.WORSE, reason=Reason.ERROR_RATE, message="9 of 40 requests failed")
DOWN = Analysis(outlook=Outlook.UNKNOWN, reason=Reason.METRICS_UNAVAILABLE, message="Prometheus doesn't answer")
A, B = "dr-a-aaaaaaaa", "dr-a-bbbbbbbb"
START = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)


def child(letter: str = "b", *, parent: str = "a", name: str = "r1", at: str = "2026-01-02T02:59:00Z") -> Run:
    return run(
        name, parentDigest=digest(parent),
        status={
            "completionTime": at, "startTime": at, "verdict": "Promote",
            "artifact": {"uri": f"pvc://s/dr-a/{letter}", "digest": digest(letter), "rank": 8, "bytes": 9},
            "dataset": {"uri": "pvc://s/d", "digest": digest("d"), "interactions": 40},
            "eval": {
                "verdict": "Promote", "samples": 40, "message": "71% against 64%",
                "metrics": [{"name": "score", "valuePercent": 71}],
            },
        },
    )  # fmt: skip


class World:
    """One twin in one pool, with the operator's two reconciliations as functions of what was written before."""

    def __init__(self, *runs: Run, **spec: Any) -> None:
        self.spec = {"fineTune": {}, **spec}
        self.pool = pool()
        self.letter: str | None = "a"
        self.status: Manifest = {}
        self.annotations: dict[str, str] = {}
        self.runs = list(runs)
        self.reports = [report("e1", adapter_report()), report("e2", adapter_report())]
        self.entry: TwinEntry | None = None
        self.now = START
        self.analysis: Analysis = GOOD
        self.truth: dict[str, tuple[str, str]] = {}
        self.said = ""
        self.wake_in: float | None = None
        """Seconds until it looks again though nothing changes."""

    def twin(self) -> Twin:
        thing = twin_object(adapter=self.letter, status=self.status, **self.spec)
        made = twin_from(thing)
        assert isinstance(made, Twin), made
        return replace(made, annotations=self.annotations)

    def reconcile_pool(self) -> None:
        facts = read_facts(
            [*(pod_object(each.pod.name) for each in self.reports), *report_objects(*self.reports)], pool="p"
        )
        self.entry = plan_entry(self.pool, Candidate(twin=self.twin()), previous=self.entry, ready=facts.ready)

    def reconcile_twin(self) -> None:
        made = self.twin()
        facts = read_facts(
            [
                *(pod_object(each.pod.name) for each in self.reports), *report_objects(*self.reports),
                deployment_object("p-miner"),
            ],
            pool="p",
        )  # fmt: skip
        seen = PoolView(
            pool=self.pool, facts=facts, entry=self.entry, lora_twins=1, published=self.entry is not None,
            unpublished=None, matches=True, refused=None,
        )  # fmt: skip
        view = TwinView(twin=made, wanted=wanted_adapter(made), pools=[seen], runs=self.runs)
        trying = made.status.canary_start_time is not None
        rollout = plan_rollout(view, self.analysis if trying else None, now=self.now)
        self.wake_in = None if rollout.wake_at is None else (rollout.wake_at - self.now).total_seconds()
        found = twin_conditions(view, rollout=rollout)
        self.truth = {each.type: (each.status, each.reason) for each in found}
        self.said = " | ".join(each.message for each in found)
        self.status = without_none(plan_status(view, now=timestamp(self.now), rollout=rollout))

    def settle(self, seconds: int = 0) -> None:
        self.now += timedelta(seconds=seconds)
        for _ in range(12):
            before = (self.status, self.entry)
            self.reconcile_twin()
            self.reconcile_pool()
            if (self.status, self.entry) == before:
                return
        raise AssertionError("it does not come to rest")

    def load(
        self,
        letter: str = "b",
        *,
        pods: tuple[str, ...] = ("e1", "e2"),
        state: Any = AdapterState.VERIFIED,
        **more: Any,
    ) -> None:
        self.reports = [
            report(each.pod.name, each.adapters, adapter_report(letter=letter, state=state, **more))
            if each.pod.name in pods
            else each
            for each in self.reports
        ]

    @property
    def weights(self) -> dict[str, int]:
        assert self.entry is not None
        return {version.served_name: version.weight_percent for version in self.entry.versions}

    @property
    def held(self) -> set[str]:
        assert self.entry is not None
        return {adapter.served_name for adapter in self.entry.adapters}

    @property
    def active(self) -> str:
        name: str = self.status["activeVersion"]["servedName"]
        return name


def serving(*runs: Run, **spec: Any) -> World:
    world = World(**spec)
    world.settle()
    assert world.weights == {A: 100}
    world.runs = list(runs)
    world.settle()
    return world


def test_a_passed_version_is_loaded_beside_and_takes_nothing_before_it_is_verified_everywhere() -> None:
    world = serving(child(), rollout=STEPS)
    assert (world.weights, world.held) == ({A: 100}, {A, B})
    assert world.truth["Progressing"] == ("True", "CanaryLoading")
    world.load(pods=("e1",))
    world.settle(600)
    assert (world.weights, world.status["canaryVersion"]["scorePercent"]) == ({A: 100}, 71)


def test_it_goes_step_by_step_and_the_old_one_stays_until_the_last() -> None:
    world = serving(child(), rollout=STEPS)
    world.load()
    world.settle()
    assert world.weights == {A: 90, B: 10}
    world.settle(59)
    assert world.weights == {A: 90, B: 10}
    world.settle(1)
    assert (world.weights, world.held, world.active) == ({A: 50, B: 50}, {A, B}, A)
    world.settle(60)
    assert (world.weights, world.held, world.active) == ({B: 100}, {B}, B)
    assert world.status["previousVersion"]["servedName"] == A
    assert "canaryVersion" not in world.status
    active = world.status["activeVersion"]
    assert (active["runName"], active["datasetDigest"], active["parentDigest"]) == ("r1", digest("d"), digest("a"))
    assert world.truth["RolledBack"] == ("False", "NoRollback")


def test_without_steps_it_takes_over_at_once_when_verified_everywhere() -> None:
    world = serving(child())
    world.load()
    world.settle()
    assert (world.weights, world.active) == ({B: 100}, B)


@pytest.mark.parametrize("weight", [10, 50, 100])
def test_a_worse_canary_loses_all_traffic_at_once_and_the_numbers_are_said(weight: int) -> None:
    world = serving(child(), rollout={"steps": [{"weightPercent": weight, "seconds": 60}]})
    world.load()
    world.settle()
    assert world.weights == {A: 100 - weight, B: weight}
    world.analysis = WORSE
    world.settle(5)
    assert (world.weights, world.held, world.active) == ({A: 100}, {A}, A)
    assert world.truth["RolledBack"] == ("True", "ErrorRate")
    assert "9 of 40" in world.said
    assert "previousVersion" not in world.status
    world.analysis = GOOD
    world.settle(6000)
    assert world.weights == {A: 100}, "what was taken back is not tried again"


def test_without_metrics_the_weight_is_held_and_nothing_is_promoted() -> None:
    world = serving(child(), rollout=STEPS)
    world.load()
    world.settle()
    world.analysis = DOWN
    world.settle(6000)
    assert world.weights == {A: 90, B: 10}
    assert world.truth["Progressing"] == ("True", "CanaryHeld")
    assert "Prometheus doesn't answer" in world.said
    world.analysis = GOOD
    world.settle(5)
    assert world.weights == {A: 50, B: 50}


AWAITING = Analysis(outlook=Outlook.AWAITING, reason=Reason.AWAITING_TRAFFIC, message="0 of the 1 requests")
UNCLEAR = Analysis(outlook=Outlook.UNCLEAR, reason=Reason.ERROR_RATE, message="1 of 2 requests failed")


def test_no_traffic_is_no_proof() -> None:
    world = serving(child(), rollout={**STEPS, "awaitTrafficSeconds": 600})
    world.load()
    world.settle()
    world.analysis = AWAITING
    world.settle(30)
    assert world.truth["Progressing"] == ("True", "CanaryStep")
    world.settle(31)
    assert world.weights == {A: 90, B: 10}
    assert world.truth["Progressing"] == ("True", "AwaitingTraffic")
    assert "waits there until 2026-01-02T03:11:00Z for requests: 0 of the 1 requests" in world.said
    world.analysis = GOOD
    world.settle(5)
    assert world.weights == {A: 50, B: 50}


@pytest.mark.parametrize(("analysis", "held"), [(AWAITING, "AwaitingTraffic"), (UNCLEAR, "CanaryHeld")])
def test_it_waits_for_proof_as_long_as_the_twin_says(analysis: Analysis, held: str) -> None:
    world = serving(child(), rollout={**STEPS, "awaitTrafficSeconds": 600})
    world.load()
    world.settle()
    world.analysis = analysis
    world.settle(60 + 597)
    assert world.truth["Progressing"] == ("True", held)
    assert world.wake_in == 3
    world.settle(3)
    assert world.weights == {A: 100}
    assert world.truth["RolledBack"] == ("True", "NoTraffic")
    assert f"what came since proves nothing: {analysis.message}" in world.said
    [refused] = world.status["refusedVersions"]
    assert refused["digest"] == digest("b")


def test_one_that_is_worse_is_taken_back_while_it_waits() -> None:
    world = serving(child(), rollout=STEPS)
    world.load()
    world.settle()
    world.analysis = AWAITING
    world.settle(100)
    world.analysis = WORSE
    world.settle(2)
    assert world.truth["RolledBack"] == ("True", "ErrorRate")


def test_a_step_is_never_shorter_than_asked() -> None:
    world = serving(child(), rollout=STEPS)
    world.now += timedelta(milliseconds=900)
    world.load()
    world.settle()
    world.now += timedelta(seconds=59.5)
    world.settle()
    assert world.weights == {A: 90, B: 10}
    assert world.wake_in == 0.5
    world.now += timedelta(seconds=0.5)
    world.settle()
    assert world.weights == {A: 50, B: 50}


@pytest.mark.parametrize(("after", "wake_in"), [(20, 5), (58, 2), (60, 1), (69, 1), (70, 5)])
def test_what_holds_a_canary_is_looked_at_more_often_at_the_end_of_a_step(after: int, wake_in: int) -> None:
    world = serving(child(), rollout=STEPS)
    world.load()
    world.settle()
    world.analysis = DOWN
    world.settle(after)
    assert world.truth["Progressing"] == ("True", "CanaryHeld")
    assert world.wake_in == wake_in


def test_without_prometheus_steps_go_by_time_and_the_condition_says_so() -> None:
    world = serving(child(), rollout=STEPS)
    world.load()
    world.analysis = UNWATCHED
    world.settle()
    world.settle(5)
    assert "by time and verification alone" in world.said
    world.settle(60)
    world.settle(60)
    assert world.weights == {B: 100}


@pytest.mark.parametrize("reason", [FailureReason.DIGEST_MISMATCH, FailureReason.FINGERPRINT_MISMATCH])
def test_a_version_that_does_not_verify_is_taken_back_and_never_serves(reason: FailureReason) -> None:
    world = serving(child(), rollout=STEPS)
    world.load(pods=("e1",))
    world.load(pods=("e2",), state=AdapterState.FAILED, reason=reason, message="tampered", retryable=False)
    world.settle()
    assert (world.weights, world.held) == ({A: 100}, {A})
    assert world.truth["RolledBack"] == ("True", reason.value)


@pytest.mark.parametrize("reason", [FailureReason.RANK_TOO_HIGH, FailureReason.MODULES_NOT_WRAPPED])
def test_engines_that_are_still_to_be_restarted_condemn_nothing_that_their_pool_takes_by_now(
    reason: FailureReason,
) -> None:
    """The pool's spec was changed for it; until then an agent beside a former engine says that it failed for good."""
    world = serving(child(), rollout=STEPS)
    world.load(pods=("e1",))
    world.load(pods=("e2",), state=AdapterState.FAILED, reason=reason, message="no", retryable=False)
    world.settle()
    assert (world.weights, world.held) == ({A: 100}, {A, B})
    assert world.truth["RolledBack"][0] == "False"
    world.load(pods=("e2",))
    world.settle()
    assert world.weights == {A: 90, B: 10}


@pytest.mark.parametrize(
    ("reason", "engine"),
    [
        (FailureReason.RANK_TOO_HIGH, {"maxLoraRank": 8}),
        (FailureReason.MODULES_NOT_WRAPPED, {"loraTargets": "Attention"}),
    ],
)
def test_what_the_pool_does_not_take_is_taken_back(reason: FailureReason, engine: dict[str, Any]) -> None:
    made = child()
    assert made.status.artifact is not None
    if reason is FailureReason.RANK_TOO_HIGH:
        made = replace(made, status=made.status.model_copy(
            update={"artifact": made.status.artifact.model_copy(update={"rank": 16})}
        ))  # fmt: skip
    world = serving(made, rollout=STEPS)
    world.pool = pool(engine=engine)
    world.load(pods=("e1", "e2"), state=AdapterState.FAILED, reason=reason, message="no", retryable=False)
    world.settle()
    assert world.weights == {A: 100}
    assert world.truth["RolledBack"] == ("True", reason.value)


def test_a_store_that_is_down_is_waited_for() -> None:
    world = serving(child(), rollout=STEPS)
    world.load(state=AdapterState.FAILED, reason=FailureReason.STORE_UNREACHABLE, retryable=True)
    world.settle(600)
    assert (world.weights, world.status["canaryVersion"]["servedName"]) == ({A: 100}, B)


def test_an_operator_that_was_away_for_the_whole_canary_goes_on_with_the_next_step_only() -> None:
    world = serving(child(), rollout=STEPS)
    world.load()
    world.settle()
    world.settle(100000)
    assert world.weights == {A: 50, B: 50}


def test_a_lost_entry_is_made_again_with_the_same_weights() -> None:
    world = serving(child(), rollout=STEPS)
    world.load()
    world.settle()
    world.entry = None
    world.settle(1)
    assert world.weights == {A: 90, B: 10}


def test_a_restarted_pod_leaves_the_weight_where_another_pod_holds_the_version() -> None:
    world = serving(child(), rollout=STEPS)
    world.load()
    world.settle()
    world.reports = [report("e1", adapter_report()), world.reports[1]]
    world.settle(1)
    assert world.weights == {A: 90, B: 10}
    world.reports = [report("e1", adapter_report()), report("e2", adapter_report())]
    world.settle(1)
    assert world.weights == {A: 100}


def test_a_hand_set_version_takes_over_from_what_was_promoted_and_from_a_canary() -> None:
    world = serving(child())
    world.load()
    world.settle()
    assert world.active == B
    world.letter = "c"
    world.load("c")
    world.settle()
    assert (world.weights, world.active) == ({"dr-a-cccccccc": 100}, "dr-a-cccccccc")
    world = serving(child(), rollout=STEPS)
    world.load()
    world.settle()
    world.letter = "c"
    world.settle()
    assert (world.weights, "canaryVersion" in world.status) == ({A: 100}, False)


@pytest.mark.parametrize("outlook", [GOOD, WORSE])
def test_what_a_person_sets_by_hand_is_refused_no_more_whatever_became_of_its_trial(outlook: Analysis) -> None:
    world = serving(child(), rollout=STEPS)
    world.load()
    world.settle()
    world.analysis = outlook
    world.settle()
    world.letter = "b"
    world.settle()
    assert (world.weights, world.active) == ({B: 100}, B)
    assert "refusedVersions" not in world.status
    # Where the pool's spec can't be read, what is refused loses its share to the one beside it, which is on trial.
    world.runs = [child("c", parent="b", name="r2")]
    world.analysis = GOOD
    world.settle()
    world.load("c")
    world.settle()
    assert world.weights == {B: 90, "dr-a-cccccccc": 10}
    assert world.entry is not None
    assert without(world.entry, taken_back(world.twin().status, {})) == world.entry


def test_a_child_of_a_parent_that_serves_no_more_is_refused() -> None:
    world = serving(child(parent="f"))
    assert world.status["refusedVersions"][0]["reason"] == "ParentReplaced"
    assert world.held == {A}


def test_of_several_the_newest_is_tried() -> None:
    older = child("c", name="r0", at="2026-01-01T02:00:00Z")
    world = serving(older, child(), rollout=STEPS)
    assert world.status["canaryVersion"]["digest"] == digest("b")
    assert [each["reason"] for each in world.status["refusedVersions"]] == ["Superseded"]


DOCTOR = {"gate": {"approval": "Doctor"}}


def test_the_doctor_approves() -> None:
    world = serving(child(), **DOCTOR)
    assert (world.held, world.status["pendingVersion"]["servedName"]) == ({A}, B)
    world.settle(10**7)
    assert world.weights == {A: 100}, "a doctor who never answers changes nothing"
    world.annotations = {"bettertherapy.io/approve": digest("c")}
    world.settle()
    assert "pendingVersion" in world.status
    world.annotations = {"bettertherapy.io/approve": digest("b")}
    world.settle()
    world.load()
    world.settle()
    assert (world.weights, "pendingVersion" in world.status) == ({B: 100}, False)


def test_what_the_doctor_approves_is_what_the_next_ones_are_compared_with() -> None:
    world = serving(child(), rollout=STEPS, gate={"approval": "Doctor"})
    world.annotations = {"bettertherapy.io/approve": digest("b")}
    world.settle()
    assert "anchorVersion" not in world.status, "it has not answered anybody yet"
    world.load()
    world.settle()
    world.settle(61)
    world.settle(61)
    assert world.weights == {B: 100}
    assert world.status["anchorVersion"]["digest"] == digest("b")
    assert anchor_version(world.twin()).digest == digest("b")


def test_what_nobody_approved_is_no_anchor_and_what_somebody_goes_back_to_is() -> None:
    world = serving(child(), rollout=STEPS)
    world.load()
    world.settle()
    world.settle(61)
    world.settle(61)
    assert world.weights == {B: 100}
    assert anchor_version(world.twin()).digest == digest("a")
    world.runs = []
    world.annotations = {"bettertherapy.io/rollback-to": f"{digest('b')}@1"}
    world.settle()
    assert world.status["anchorVersion"]["digest"] == digest("b")
    world.letter = "c"
    world.settle()
    assert "anchorVersion" not in world.status
    assert anchor_version(world.twin()).digest == digest("c")


@pytest.mark.parametrize(
    ("anchor", "taken"), [(None, False), ({}, False), ({"digest": digest("b")}, False), ({"digest": digest("a")}, True)]
)
def test_a_run_that_was_made_by_hand_does_not_choose_its_baseline(anchor: dict[str, str] | None, taken: bool) -> None:
    """`a` was set by hand, `b` passed the gate against it alone: what comes from `b` is compared with `a` too."""
    world = serving(child(), rollout=STEPS)
    world.load()
    for _ in range(3):
        world.settle(61)
    assert world.weights == {B: 100}
    by_hand = child("c", parent="b", name="by-hand", at="2026-01-02T05:00:00Z")
    spec = by_hand.spec.model_copy(update={"anchor": None if anchor is None else Anchor.model_validate(anchor)})
    world.runs.append(replace(by_hand, spec=spec))
    world.settle()
    refused = [(each["digest"], each["reason"]) for each in world.status.get("refusedVersions", [])]
    assert refused == ([] if taken else [(digest("c"), "AnchorLeftOut")])
    assert ("canaryVersion" in world.status) == taken


def test_the_doctor_rejects() -> None:
    world = serving(child(), **DOCTOR)
    world.annotations = {"bettertherapy.io/reject": digest("b")}
    world.settle()
    assert ("pendingVersion" in world.status, world.held) == (False, {A})
    refused = world.status["refusedVersions"][0]
    assert (refused["reason"], refused["scorePercent"]) == ("RejectedByDoctor", 71)
    assert (refused["datasetDigest"], refused["parentDigest"]) == (digest("d"), digest("a")), "its lineage is kept"
    world.annotations = {}
    world.settle()
    assert "pendingVersion" not in world.status


def of_task(letter: str = "b") -> Run:
    """What a miner made for a validator's task, examined here: it waits to be chosen."""
    made = child(letter, name=f"exam-{letter}")
    own = CandidateSpec(
        task="11111111-1111-4111-8111-111111111111", validator="v", digest=digest(letter),
        miner="5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty", delivered=f"pvc://d/t/x/{letter * 64}",
        deadline="2030-01-01T00:00:00Z",
    )  # fmt: skip
    return replace(made, spec=made.spec.model_copy(update={"candidate": own}))


@pytest.mark.parametrize("approval", ["Doctor", "Automatic"])
def test_the_doctor_rejects_what_a_task_brought_and_no_other(approval: str) -> None:
    world = serving(of_task("b"), of_task("c"), gate={"approval": approval})
    assert (world.held, "pendingVersion" in world.status) == ({A}, False), "nobody chose one"
    world.annotations = {
        "bettertherapy.io/reject": digest("b"), "bettertherapy.io/reject-reason": "too sure about doses",
    }  # fmt: skip
    world.settle()
    [refused] = world.status["refusedVersions"]
    assert (refused["digest"], refused["reason"], refused["runName"]) == (digest("b"), "RejectedByDoctor", "exam-b")
    assert refused["message"].endswith("too sure about doses")
    world.annotations = {"bettertherapy.io/approve": digest("b")}
    world.settle()
    assert "pendingVersion" not in world.status, "it will never answer"
    assert world.held == {A}


def test_why_the_doctor_rejects_is_kept_in_her_own_words() -> None:
    world = serving(child(), **DOCTOR)
    world.annotations = {
        "bettertherapy.io/reject": digest("b"), "bettertherapy.io/reject-reason": "too sure about doses",
    }  # fmt: skip
    world.settle()
    assert world.status["refusedVersions"][0]["message"] == "the doctor rejected it: too sure about doses"


def test_a_rollback_does_not_pass_by_the_doctor() -> None:
    world = serving(child(), **DOCTOR)
    world.annotations = {"bettertherapy.io/rollback-to": digest("b")}
    world.settle()
    assert (world.weights, world.truth["RolledBack"]) == ({A: 100}, ("False", "RollbackUnknown"))
    assert "waits for the doctor" in world.said


def test_the_doctor_is_asked_about_the_newest_only() -> None:
    world = serving(child(), **DOCTOR)
    world.runs.append(child("c", name="r2", at="2026-01-03T02:00:00Z"))
    world.settle()
    assert world.status["pendingVersion"]["digest"] == digest("c")
    assert world.status["refusedVersions"][0]["digest"] == digest("b")


def promoted() -> World:
    world = serving(child())
    world.load()
    world.settle()
    assert world.active == B
    return world


def test_a_rollback_goes_back_to_a_version_once_it_is_loaded_again() -> None:
    world = promoted()
    world.reports = [report(pod, adapter_report(letter="b")) for pod in ("e1", "e2")]
    world.annotations = {"bettertherapy.io/rollback-to": digest("a")}
    world.settle()
    assert (world.weights, world.held) == ({B: 100}, {A, B})
    world.load("a")
    world.settle()
    assert (world.weights, world.held, world.active) == ({A: 100}, {A}, A)
    assert world.truth["RolledBack"] == ("True", "Requested")
    world.annotations = {"bettertherapy.io/rollback-to": digest("b")}
    world.settle()
    assert world.weights == {B: 100}


def test_the_history_says_from_when_to_when_a_version_answered_and_why_no_more() -> None:
    world = promoted()
    first = world.status["history"][0]
    assert (first["digest"], first["until"], first["ended"]) == (digest("a"), timestamp(world.now), "Replaced")
    world.load("a")
    world.annotations = {"bettertherapy.io/rollback-to": digest("a")}
    world.settle(3600)
    active, taken_back = world.status["activeVersion"], world.status["history"][0]
    assert (active["digest"], active["since"], "until" in active) == (digest("a"), timestamp(world.now), False)
    assert (taken_back["digest"], taken_back["until"], taken_back["ended"]) == (
        digest("b"), timestamp(world.now), "RolledBack",
    )  # fmt: skip
    assert taken_back["datasetDigest"] == digest("d")
    assert not {"until", "ended"} & world.status["promotedVersion"].keys()


def test_a_rollback_is_done_once_and_again_with_another_token() -> None:
    world = promoted()
    world.load("a")
    world.annotations = {"bettertherapy.io/rollback-to": digest("a")}
    world.settle()
    world.runs.append(child("c", name="r2", at="2026-01-03T02:00:00Z"))
    world.load("c")
    world.settle()
    assert world.weights == {"dr-a-cccccccc": 100}, "the old annotation does not undo the next promotion"
    world.annotations = {"bettertherapy.io/rollback-to": digest("a") + "@2"}
    world.settle()
    assert world.weights == {A: 100}


def test_a_rollback_in_a_canary_takes_the_canary_back() -> None:
    world = serving(child(), rollout=STEPS)
    world.load()
    world.settle()
    world.annotations = {"bettertherapy.io/rollback-to": digest("a")}
    world.settle()
    assert (world.weights, world.held) == ({A: 100}, {A})
    assert world.truth["RolledBack"] == ("True", "Requested")


@pytest.mark.parametrize(("asked", "taken"), [("a", True), ("b", False), ("e", False)])
def test_a_canary_is_not_measured_before_it_is_taken_back(asked: str, taken: bool) -> None:
    world = World(child(), rollout=STEPS)
    world.settle()
    world.load()
    world.settle()
    assert not asks_to_take_back(world.twin(), now=world.now)
    world.annotations = {"bettertherapy.io/rollback-to": digest(asked)}
    assert asks_to_take_back(world.twin(), now=world.now) is taken
    world.settle()
    assert not asks_to_take_back(world.twin(), now=world.now)
    assert ("canaryVersion" in world.status) is not taken


def test_a_rollback_to_the_base_model() -> None:
    world = promoted()
    world.annotations = {"bettertherapy.io/rollback-to": "base"}
    world.settle()
    assert world.weights == {"smollm2": 100}


def test_a_rollback_to_what_nobody_knows_is_told() -> None:
    world = promoted()
    world.annotations = {"bettertherapy.io/rollback-to": digest("e")}
    world.settle()
    assert (world.weights, world.truth["RolledBack"]) == ({B: 100}, ("False", "RollbackUnknown"))


def test_steps_that_are_taken_away_in_the_middle_promote() -> None:
    world = serving(child(), rollout=STEPS)
    world.load()
    world.settle()
    world.spec["rollout"] = {}
    world.settle(5)
    assert world.weights == {B: 100}


def test_a_lost_entry_is_made_again_with_what_answered_though_the_twin_was_looked_at_first() -> None:
    world = serving()
    world.letter, world.entry = "c", None
    world.reconcile_twin()
    world.reconcile_pool()
    assert world.weights == {A: 100}


@settings(deadline=None)  # a busy machine takes longer
@given(
    events=st.lists(
        st.sampled_from(
            [
                "wait",
                "good",
                "worse",
                "down",
                "load",
                "lose",
                "fail",
                "rollback",
                "forward",
                "hand",
                "entry",
                "twin",
                "pool",
            ]
        ),
        max_size=25,
    )
)
def test_whatever_happens_somebody_verified_answers(events: list[str]) -> None:
    """No order of events, also of half-done reconciliations, leaves patients without a verified version."""
    world = serving(child(), rollout=STEPS)
    both: list[PodReport] = world.reports
    for event in events:
        match event:
            case "wait":
                world.now += timedelta(seconds=61)
            case "good":
                world.analysis = GOOD
            case "worse":
                world.analysis = WORSE
            case "down":
                world.analysis = DOWN
            case "load":
                world.load()
            case "lose":
                world.reports = both
            case "fail":
                world.load(state=AdapterState.FAILED, reason=FailureReason.DIGEST_MISMATCH, retryable=False)
            case "rollback":
                world.annotations = {"bettertherapy.io/rollback-to": digest("a")}
            case "forward":
                world.annotations = {"bettertherapy.io/rollback-to": digest("b")}
            case "hand":
                world.letter = "c"
            case "entry":
                world.entry = None
            case "twin":
                world.reconcile_twin()
            case "pool":
                world.reconcile_pool()
        if event in ("twin", "pool", "entry"):
            continue
        world.reconcile_pool()
        weights = world.weights
        assert sum(weights.values()) == 100
        assert set(weights) <= world.held
        if weights.get(B) and event != "lose":
            verified = all(B in each.adapters for each in world.reports)
            assert verified or weights.get(B) == 100
