"""Which versions a twin had, where they came from, and which can be gone back to."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_twin.errors import TwinCliError
from kubectl_twin.zones import moment
from kubectl_twin.versions import (
    camel,
    complete,
    default_target,
    find_target,
    history,
    lineage,
    rollback_targets,
    wanted_digest,
)

from .objects import Json, digest, judged, serving_twin, training, tuned_twin, version

REFUSED = {
    "digest": digest("f"), "reason": "RolledBack", "message": "ErrorRate: 20 of 50 requests failed",
    "time": "2026-02-28T02:40:00Z", "runName": "dr-gurung-7", "scorePercent": 70, "datasetDigest": digest("7"),
    "parentDigest": digest("c"),
}  # fmt: skip


def test_the_history_names_each_version_once_with_how_it_ended() -> None:
    rows = history(tuned_twin(), [])
    assert [(row.digest, row.outcome) for row in rows] == [
        (digest("c"), "answers"), (digest("b"), "replaced"), (digest("a"), "replaced"),
    ]  # fmt: skip
    assert (rows[1].since, rows[1].until, rows[1].score_percent) == (
        "2026-02-26T02:30:00Z", "2026-02-27T02:30:00Z", 64,
    )  # fmt: skip


def test_what_is_undecided_comes_first_and_what_never_answered_says_why() -> None:
    made = tuned_twin(
        canaryVersion=version("e", runName="r9"), canaryWeightPercent=10, pendingVersion=version("9"),
        refusedVersions=[REFUSED],
    )  # fmt: skip
    rows = history(made, [judged("Reject"), training()])
    assert [row.outcome for row in rows] == [
        "waits for the doctor", "on trial, takes 10%", "answers", "rejected by the gate",
        "rolled back while on trial", "replaced", "replaced",
    ]  # fmt: skip
    assert (rows[4].message, rows[4].decided, rows[4].since) == (
        "ErrorRate: 20 of 50 requests failed", "2026-02-28T02:40:00Z", None,
    )  # fmt: skip


@pytest.mark.parametrize(("message", "shown"), [("the doctor rejected it", None), ("the doctor rejected it: no", "no")])
def test_a_rejection_is_not_said_twice(message: str, shown: str | None) -> None:
    refused = REFUSED | {"reason": "RejectedByDoctor", "message": message}
    rows = history(tuned_twin(refusedVersions=[refused]), [])
    assert [row.message for row in rows if row.outcome == "rejected by the doctor"] == [shown]


def test_lineage_goes_from_dataset_over_run_to_version_also_when_the_runs_have_expired() -> None:
    made = {origin.digest: origin for origin in lineage(tuned_twin(refusedVersions=[REFUSED]), [])}
    b = made[digest("b")]
    assert (b.dataset, b.run, b.run_exists, b.parent) == (digest("1"), "dr-gurung-1", False, digest("a"))
    taken_back = made[digest("f")]
    assert (taken_back.dataset, taken_back.parent, taken_back.recorded) == (digest("7"), digest("c"), True)
    assert not made[digest("a")].recorded, "it was set by hand"


def test_lineage_takes_from_a_run_what_only_it_knows() -> None:
    made = {origin.digest: origin for origin in lineage(tuned_twin(), [judged("Reject")])}
    d = made[digest("d")]
    assert (d.dataset, d.interactions, d.run_exists, d.parent) == (digest("3"), 40, True, digest("c"))


def test_what_is_not_known_is_not_told_as_the_base_model() -> None:
    older = {key: value for key, value in REFUSED.items() if key not in {"datasetDigest", "parentDigest"}}
    made = {origin.digest: origin for origin in lineage(tuned_twin(refusedVersions=[older]), [])}
    assert not made[digest("f")].recorded


def test_manifests_tell_of_what_was_set_by_hand_and_of_ancestors_that_nobody_else_knows() -> None:
    said = {
        digest("a"): {"datasetDigest": digest("0"), "parentDigest": digest("9"), "run": "older"},
        digest("9"): {"datasetDigest": None, "parentDigest": None, "run": None},
    }
    asked: list[str] = []

    def read(uri: str, which: str) -> Json | None:
        asked.append(uri)
        return said.get(which)

    made = {origin.digest: origin for origin in complete("dr-gurung", lineage(tuned_twin(), []), read)}
    assert asked == [f"s3://b/dr-gurung/{'a' * 64}", f"s3://b/dr-gurung/{'9' * 64}"]
    a, ancestor = made[digest("a")], made[digest("9")]
    assert (a.dataset, a.run, a.recorded) == (digest("0"), "older", True)
    assert (ancestor.served_name, ancestor.recorded) == ("dr-gurung-99999999", False)


def test_a_store_that_cannot_be_read_changes_nothing() -> None:
    origins = lineage(tuned_twin(), [])
    assert complete("dr-gurung", origins, lambda _uri, _digest: None) == origins


def test_programs_get_the_names_of_the_api_and_nothing_that_is_absent() -> None:
    row = camel(history(tuned_twin(), [])[0])
    assert (row["servedName"], row["scorePercent"], "until" in row) == ("dr-gurung-cccccccc", 71, False)


def test_what_can_be_gone_back_to_leaves_out_what_answers_waits_or_is_tried() -> None:
    made = tuned_twin(pendingVersion=version("9"))
    assert [target.digest for target in rollback_targets(made)] == [digest("b"), digest("a"), None]
    made["status"]["canaryVersion"] = version("e")
    assert [target.digest for target in rollback_targets(made)] == [digest("c"), digest("b"), digest("a"), None]


def test_without_being_told_it_goes_back_to_the_version_before() -> None:
    assert default_target(tuned_twin()).digest == digest("b")


def test_while_one_is_on_trial_going_back_means_to_what_answers_beside_it() -> None:
    assert default_target(tuned_twin(canaryVersion=version("e"))).digest == digest("c")


def test_a_version_before_that_was_the_base_model_is_one_too() -> None:
    assert default_target(tuned_twin(previousVersion=version(None))).digest is None


def test_the_first_version_has_none_before_it() -> None:
    with pytest.raises(TwinCliError, match=r"has no version before this one[\s\S]*base"):
        default_target(serving_twin())


@pytest.mark.parametrize(
    ("text", "letter"),
    [("bbbb", "b"), ("sha256:bbbbbb", "b"), (digest("a"), "a"), ("DR-GURUNG-AAAAAAAA", "a"), ("base", None)],
)
def test_a_version_is_found_by_its_first_digits_its_name_or_base(text: str, letter: str | None) -> None:
    assert find_target(tuned_twin(), text).digest == (digest(letter) if letter else None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("bbb", "no version bbb"),
        ("9999", "never answered: it waits for the doctor"),
        ("eeee", "is on trial"),
        ("1234", "no version 1234"),
    ],
)
def test_bad_input_is_answered_with_what_there_is(text: str, why: str) -> None:
    made = tuned_twin(pendingVersion=version("9"), canaryVersion=version("e"))
    with pytest.raises(TwinCliError, match=why) as caught:
        find_target(made, text)
    assert "bbbbbbbbbbbb  dr-gurung-bbbbbbbb, score 64%, answered from 2026-02-26 02:30" in str(caught.value)


def test_what_answers_already_is_said() -> None:
    with pytest.raises(TwinCliError, match="dr-gurung-cccccccc answers already"):
        find_target(tuned_twin(), "cccc")


def test_digits_that_two_versions_share_are_not_guessed() -> None:
    twins = [version("b", digest=f"sha256:bbbb{letter * 60}", servedName=f"x-{letter}") for letter in "12"]
    with pytest.raises(TwinCliError, match="may be several versions"):
        find_target(tuned_twin(history=twins, previousVersion=None), "bbbb")


@pytest.mark.parametrize(("changed", "letter"), [({}, "c"), ({"specDigest": digest("0")}, "a")])
def test_what_was_promoted_counts_until_the_spec_changes(changed: dict[str, Any], letter: str) -> None:
    assert wanted_digest(tuned_twin(**changed)) == digest(letter)


def test_times_are_shown_to_the_minute() -> None:
    assert (moment("2026-02-26T02:30:59Z"), moment(None)) == ("2026-02-26 02:30", "-")
