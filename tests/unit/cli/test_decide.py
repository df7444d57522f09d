"""Approving, rejecting, going back: which annotation is set, and what is said of what comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from bettertherapy_api import names
from kubectl_twin.decide import approve, nothing_waits, reject, rollback
from kubectl_twin.errors import TwinCliError

from .fake_api import MemoryApi
from .objects import condition, digest, run, tuned_twin, version

WHERE: dict[str, Any] = {"namespace": "clinic", "name": "dr-gurung"}


def hearing(api: MemoryApi) -> None:
    """The operator takes the doctor's word a second later."""
    asked, status = api.asked, api.twin["status"]
    if api.time < 1:
        return
    if asked.get(names.APPROVE_ANNOTATION) == digest("d") and "pendingVersion" in status:
        status["canaryVersion"] = status.pop("pendingVersion")
    if asked.get(names.REJECT_ANNOTATION) == digest("d"):
        status.pop("pendingVersion", None)


def waiting(**status: Any) -> MemoryApi:
    return MemoryApi(tuned_twin(pendingVersion=version("d"), **status), react=hearing)


def test_approving_names_the_version_by_its_digest_and_says_what_follows() -> None:
    api = waiting()
    said = approve(api, **WHERE, clock=api.clock)
    assert api.asked == {names.APPROVE_ANNOTATION: digest("d")}
    assert said.startswith("Approved dr-gurung-dddddddd.")
    assert "10% of the patients first" in said


def test_an_earlier_rejection_does_not_stand_against_an_approval_nor_the_other_way_round() -> None:
    api = waiting()
    api.twin["metadata"]["annotations"] = {names.REJECT_ANNOTATION: digest("b"), "other": "stays"}
    approve(api, **WHERE, clock=api.clock)
    assert api.asked == {names.APPROVE_ANNOTATION: digest("d"), "other": "stays"}


def test_rejecting_keeps_the_reason() -> None:
    api = waiting()
    said = reject(api, **WHERE, reason="too sure about doses", clock=api.clock)
    assert api.asked == {
        names.REJECT_ANNOTATION: digest("d"), names.REJECT_REASON_ANNOTATION: "too sure about doses",
    }  # fmt: skip
    assert "will never answer" in said


def test_a_reason_that_is_too_long_is_refused() -> None:
    with pytest.raises(TwinCliError, match="501 characters"):
        reject(waiting(), **WHERE, reason="x" * 501)


@pytest.mark.parametrize("given", ["dddd", "sha256:dddddddd", "dr-gurung-dddddddd"])
def test_the_version_may_be_named_to_be_sure(given: str) -> None:
    api = waiting()
    assert approve(api, **WHERE, digest=given, clock=api.clock)


def test_another_version_than_the_one_that_was_looked_at_is_not_approved() -> None:
    api = waiting()
    with pytest.raises(TwinCliError, match="What waits is dr-gurung-dddddddd, not eeee"):
        approve(api, **WHERE, digest="eeee")
    assert api.patches == []


def test_without_waiting_it_ends_at_once() -> None:
    api = waiting()
    approve(api, **WHERE, wait=False)
    assert api.time == 0


def test_a_version_that_is_refused_after_all_is_an_error() -> None:
    def refuse(api: MemoryApi) -> None:
        api.twin["status"]["refusedVersions"] = [
            {"digest": digest("d"), "reason": "ParentReplaced", "message": "its parent does not serve any more"}
        ]

    api = MemoryApi(tuned_twin(pendingVersion=version("d")), react=refuse)
    with pytest.raises(TwinCliError, match="won't answer after all: its parent does not serve any more"):
        approve(api, **WHERE, clock=api.clock)


def test_an_approval_behind_a_version_on_trial_says_what_it_waits_for() -> None:
    api = MemoryApi(tuned_twin(pendingVersion=version("d"), canaryVersion=version("e")))
    assert "begins when dr-gurung-eeeeeeee" in approve(api, **WHERE, clock=api.clock)


def brought(letter: str, score: int, **changes: Any) -> Any:
    """A run that examined what a miner made for a validator's task, on top of version c, and that may be chosen."""
    made = run(
        f"exam-{letter}", conditions=[condition("Promoted", "False", "AwaitingChoice", "it passed")], verdict="Promote",
        completionTime="2026-03-01T12:00:00Z", artifact={"digest": digest(letter)},
        eval={"metrics": [{"name": "score", "valuePercent": score, "baselinePercent": 71}]}, **changes,
    )  # fmt: skip
    made["spec"] |= {"candidate": {"task": "t"}, "dataset": {"uri": "https://v", "digest": digest("9")}}
    return made


def choosing(api: MemoryApi) -> None:
    """The operator takes up, or refuses, what the doctor named, a second later."""
    if api.time < 1:
        return
    status = api.twin["status"]
    if (chosen := api.asked.get(names.APPROVE_ANNOTATION)) is not None:
        status["canaryVersion"] = {"digest": chosen, "servedName": "chosen"}
    if (refused := api.asked.get(names.REJECT_ANNOTATION)) is not None:
        status["refusedVersions"] = [{"digest": refused, "reason": "RejectedByDoctor", "message": "no"}]


def test_what_tasks_brought_is_chosen_and_refused_by_its_digest_and_the_best_without() -> None:
    for given, taken in ((None, "e"), ("ffffffff", "f")):
        api = MemoryApi(tuned_twin(), brought("f", 80), brought("e", 90), react=choosing)
        said = approve(api, **WHERE, digest=given, clock=api.clock)
        assert api.asked == {names.APPROVE_ANNOTATION: digest(taken)}
        assert said.startswith(f"Approved dr-gurung-{taken * 8}.")
        assert api.time >= 1, "it is told once the operator took it up"
    api = MemoryApi(tuned_twin(), brought("f", 80), brought("e", 90), react=choosing)
    assert "will never answer" in reject(api, **WHERE, digest="ffffffff", reason="vague", clock=api.clock)
    assert api.asked == {names.REJECT_ANNOTATION: digest("f"), names.REJECT_REASON_ANNOTATION: "vague"}
    assert api.time >= 1


def test_which_of_several_is_refused_must_be_said() -> None:
    api = MemoryApi(tuned_twin(), brought("f", 80), brought("e", 90), react=choosing)
    with pytest.raises(TwinCliError, match="2 versions of validators' tasks wait"):
        reject(api, **WHERE, clock=api.clock)
    assert api.patches == []
    api = MemoryApi(tuned_twin(), brought("f", 80), react=choosing)
    assert "Rejected dr-gurung-ffffffff" in reject(api, **WHERE, clock=api.clock)


def test_a_night_that_waits_goes_before_what_tasks_brought() -> None:
    api = MemoryApi(tuned_twin(pendingVersion=version("d")), brought("f", 99), react=hearing)
    approve(api, **WHERE, clock=api.clock)
    assert api.asked == {names.APPROVE_ANNOTATION: digest("d")}
    api = MemoryApi(tuned_twin(pendingVersion=version("d")), brought("f", 99))
    with pytest.raises(TwinCliError, match="What waits is dr-gurung-dddddddd, dr-gurung-ffffffff, not eeee"):
        approve(api, **WHERE, digest="eeee")


def test_what_was_made_from_another_version_than_serves_can_not_be_chosen() -> None:
    api = MemoryApi(tuned_twin(), brought("f", 99, parent="b"), react=choosing)
    with pytest.raises(TwinCliError, match="No version of dr-gurung waits"):
        approve(api, **WHERE, clock=api.clock)


def test_an_operator_that_does_not_act_is_told() -> None:
    api = MemoryApi(tuned_twin(pendingVersion=version("d")))
    with pytest.raises(TwinCliError, match="The approval is noted, but the operator has not acted"):
        approve(api, **WHERE, clock=api.clock)


@pytest.mark.parametrize("decide", [approve, reject])
def test_nothing_to_decide_is_an_error(decide: Any) -> None:
    api = MemoryApi(tuned_twin())
    with pytest.raises(TwinCliError, match="No version of dr-gurung waits for a decision"):
        decide(api, **WHERE)
    assert api.patches == []


def test_nothing_waits_says_what_there_is_instead() -> None:
    assert "on trial with 10%" in nothing_waits(tuned_twin(canaryVersion=version("e"), canaryWeightPercent=10))
    asks_nobody = tuned_twin()
    asks_nobody["spec"]["gate"] = {}
    assert "set spec.gate.approval to Doctor" in nothing_waits(asks_nobody)
    failed = tuned_twin(lastGate={"verdict": "Reject", "samples": 40})
    assert "did not pass its gate: Reject on 40 items" in nothing_waits(failed)
    assert "next fine-tune is at 2026-03-02 02:13 UTC" in nothing_waits(tuned_twin())


def back(api: MemoryApi, to: str | None = None, seconds: float | None = 60) -> tuple[str, float | None, list[str]]:
    told: list[str] = []
    target, took = rollback(api, **WHERE, to=to, wait_seconds=seconds, on_change=told.append, clock=api.clock)
    return target.served_name, took, told


def loading(api: MemoryApi) -> None:
    """The operator hears it at once, and the pods have it after five seconds."""
    if asked := api.asked.get(names.ROLLBACK_ANNOTATION):
        api.twin["status"]["handledRollback"] = asked
        if api.time >= 5:
            api.twin["status"]["activeVersion"] = version("b")
            api.twin["status"].pop("canaryVersion", None)


def test_a_rollback_waits_until_the_version_answers() -> None:
    api = MemoryApi(tuned_twin(conditions=[condition("Ready", "False", "Loading", "1 of 2 pods")]), react=loading)
    assert back(api) == ("dr-gurung-bbbbbbbb", 5.0, ["1 of 2 pods"])


def test_going_back_to_the_same_version_a_second_time_is_a_new_wish() -> None:
    api = MemoryApi(tuned_twin(), react=loading)
    back(api, seconds=None)
    first = api.asked[names.ROLLBACK_ANNOTATION]
    back(api, seconds=None)
    assert first != api.asked[names.ROLLBACK_ANNOTATION]
    assert first.startswith(digest("b") + "@")
    assert len(first) <= names.TOKEN_LENGTH, "the operator reads no more"


def test_base_means_the_base_model() -> None:
    api = MemoryApi(tuned_twin())
    assert back(api, to="base", seconds=None)[0] == "base"
    assert api.asked[names.ROLLBACK_ANNOTATION].startswith("base@")


def test_a_rollback_that_takes_too_long_says_how_far_it_is() -> None:
    api = MemoryApi(tuned_twin(conditions=[condition("Ready", "False", "Loading", "1 of 2 pods")]), react=loading)
    with pytest.raises(TwinCliError, match="does not answer yet after 3 s: 1 of 2 pods"):
        back(api, seconds=3)


def test_what_the_operator_can_not_do_is_an_error() -> None:
    refused = condition("RolledBack", "False", "RollbackUnknown", "its artifact is gone")
    api = MemoryApi(tuned_twin(conditions=[refused]))
    with pytest.raises(TwinCliError, match="can't do this: its artifact is gone"):
        back(api)


def test_an_operator_that_is_away_is_told() -> None:
    with pytest.raises(TwinCliError, match="has not acted on it within 60 s"):
        back(MemoryApi(tuned_twin()))
