"""Runs in words."""

from __future__ import annotations

import pytest

from kubectl_twin.runs import gate_of, gate_text, progress_text, span, trouble, under_way, what_follows

from .objects import METRICS, Json, condition, judged, run, training, tuned_twin


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (290, "5 min"), (3600, "1 h"), (7500, "2 h 5 min"), (400000, "5 d")]
)
def test_durations_are_as_exact_as_they_matter(seconds: int, text: str) -> None:
    assert span(seconds) == text


def test_progress_has_what_is_known() -> None:
    assert progress_text(training()) == "training · 40% · step 4 of 10 · loss 0.900 · about 5 min left"
    assert progress_text(run()) == "starting"


def test_a_run_that_waits_says_for_what() -> None:
    waits = run(conditions=[condition("Queued", "True", "PoolBusy", "4 runs are under way in MinerPool p")])
    assert progress_text(waits) == "waits: 4 runs are under way in MinerPool p"


def test_a_trainer_that_can_not_start_says_why() -> None:
    stuck = run(conditions=[condition("Running", "False", "Unschedulable", "no node has a GPU")])
    assert progress_text(stuck) == "Unschedulable: no node has a GPU"


def test_an_ended_run_is_not_under_way() -> None:
    assert under_way([judged()]) is None
    assert under_way([run("waiting"), judged(), training()]) == training()


def test_a_failure_is_told_with_its_class_and_whether_another_run_may_succeed() -> None:
    failure = {"class": "StoreFailed", "retryable": True, "message": "the store does not answer"}
    text = trouble(run(completionTime="2026-03-01T11:50:00Z", failure=failure, stage="Failed"))
    assert text == "dr-gurung-3 failed (StoreFailed): the store does not answer. Another run may succeed."


def test_a_skipped_run_says_how_little_there_was() -> None:
    few = condition("DataReady", "False", "TooFewInteractions", "3 new interactions, 20 are needed")
    text = trouble(run(completionTime="2026-03-01T11:50:00Z", stage="Skipped", conditions=[few]))
    assert text == "dr-gurung-3 was skipped: 3 new interactions, 20 are needed"


def test_a_run_that_was_judged_is_no_trouble_whatever_the_verdict() -> None:
    assert trouble(judged("Reject")) is None


def test_a_gate_fits_on_a_line() -> None:
    gate = gate_of({"verdict": "Promote", "samples": 40, "metrics": METRICS})
    assert gate is not None
    assert gate_text(gate) == "Promote on 40 items · score 71% (before 64%) · safety 96% (before 98%)"
    assert gate_of(None) is None


@pytest.mark.parametrize(
    ("verdict", "spec", "text"),
    [
        ("Reject", {}, "did worse"),
        ("Inconclusive", {}, "no worse was not shown"),
        ("Promote", {"gate": {"approval": "Doctor"}}, "waits for the doctor"),
        ("Promote", {"gate": {}, "rollout": {"steps": [{}]}}, "tried on a share"),
        ("Promote", {"gate": {}, "rollout": {}}, "takes over once every pod has verified it"),
    ],
)
def test_what_follows_depends_on_verdict_and_spec(verdict: str, spec: Json, text: str) -> None:
    twin = tuned_twin()
    twin["spec"] |= spec
    assert text in what_follows(judged(verdict), twin)


def test_the_version_of_a_validators_task_waits_to_be_chosen() -> None:
    made = judged("Promote")
    made["spec"] = {**made.get("spec", {}), "task": {"id": "t"}}
    made["status"]["artifact"] = {"digest": "sha256:" + "b" * 64}
    text = what_follows(made, tuned_twin())
    assert "answers only where it is chosen" in text
    assert f"--digest sha256:{'b' * 64}" in text
