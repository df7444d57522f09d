"""What a validator says of its rounds, and the CronJob that makes them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.rounds.samples import STARTED, round_
from tests.unit.operator.samples import digest
from tests.unit.operator.validator.validators import children, validator
from twin_operator.domain.objects import Round
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.kinds.validator.datasets import Attempt, DatasetsFacts
from twin_operator.kinds.validator.rounds import RoundsSeen, next_round, too_many, weights_of, weights_set
from twin_operator.kinds.validator.rounds_cronjob import round_made

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def ended(
    name: str, state: str | None = "Revealed", *, status: str = "True", reason: str = "WeightsRevealed",
    failure: str | None = None, owner: str | None = "uid-v", why: str = "InForce", block: int = 12,
) -> Round:  # fmt: skip
    said = {"state": state, "reason": why, "block": block, "miners": 3, "extrinsic": f"{block}-1"} if state else None
    condition = {
        "type": "WeightsSubmitted", "status": status, "reason": reason, "message": "so it is",
        "lastTransitionTime": "2026-01-02T03:00:00Z",
    }  # fmt: skip
    whole = {
        **STARTED, "completionTime": "2026-01-02T03:03:00Z", "conditions": [] if failure else [condition],
        **({"failure": {"class": failure, "retryable": True, "message": "m"}} if failure else {
            "resultsDigest": digest("d"), **({"weights": said} if said else {}),
        }),
    }  # fmt: skip
    return round_(name, created=f"2026-01-02T03:0{name[-1]}:00Z", status=whole, owner=owner)


def says(*rounds: Round, refused: Finding | None = None, making: DatasetsFacts | None = None, **spec: Any) -> Condition:
    made = validator(**{"rounds": {}, **spec})
    seen = RoundsSeen(rounds=rounds, making=making or DatasetsFacts(), next_at=next_round(made, now=NOW))
    return weights_set(made, seen, refused=refused)


def test_a_validator_without_rounds_says_that_nobody_is_examined() -> None:
    found = weights_set(validator(), RoundsSeen(), refused=None)
    assert (found.type, found.status, found.reason) == ("WeightsSet", "False", "RoundsOff")


def test_before_the_first_round_nothing_is_known() -> None:
    assert (says().status, says().reason) == ("Unknown", "RoundAwaited")
    assert "r1 is not over" in says(round_("r1", status=STARTED)).message


def test_the_newest_round_that_is_over_decides() -> None:
    assert says(ended("r1")).status == "True"
    missed = says(ended("r1"), ended("r2", "Missed", status="False", reason="WeightsMissed"))
    assert (missed.status, missed.reason) == ("False", "WeightsMissed")
    failed = says(ended("r1"), ended("r2", failure="LedgerUnreachable"))
    assert (failed.status, failed.reason) == ("False", "RoundFailed")
    assert "LedgerUnreachable" in failed.message
    assert "those of round r1 are in force, from block 12" in failed.message


@pytest.mark.parametrize(
    "newest",
    [
        {"state": "Pending", "status": "Unknown", "reason": "WeightsCommitted"},
        {"state": "Withheld", "status": "False", "reason": "WeightsWithheld", "why": "SetThisEpoch"},
    ],
)
def test_weights_in_force_are_not_lost_while_the_next_are_under_way(newest: dict[str, Any]) -> None:
    found = says(ended("r1"), ended("r2", **newest))
    assert (found.status, found.reason) == ("True", "WeightsRevealed")
    alone = says(ended("r2", **newest))
    assert (alone.status, alone.reason) == (newest["status"], newest["reason"])


def test_what_keeps_rounds_from_being_made_is_said_first() -> None:
    refused = says(ended("r1"), refused=Finding(Reason.CHILDREN_REFUSED, "quota"))
    assert (refused.status, refused.reason) == ("False", "ChildrenRefused")
    failed = DatasetsFacts(attempts=(Attempt(name="v-rounds-1", created="a", ended="Failed", why="403"),))
    found = says(ended("r1"), making=failed)
    assert (found.reason, "403" in found.message) == ("RoundNotCreated", True)
    never = says(rounds={"timeZone": "Nowhere/Land"})
    assert (never.status, never.reason) == ("False", "ScheduleInvalid")
    suspended = says(ended("r1"), rounds={"suspend": True})
    assert (suspended.status, suspended.reason) == ("False", "RoundsSuspended")


def test_the_next_round_is_that_of_the_schedule_in_its_zone() -> None:
    made = validator(rounds={"schedule": "0 9 * * *", "timeZone": "Asia/Kathmandu"})
    assert next_round(made, now=NOW) == datetime(2026, 1, 2, 3, 15, tzinfo=UTC)
    assert next_round(validator(), now=NOW) is None
    assert next_round(validator(rounds={"suspend": True}), now=NOW) is None


def test_the_weights_of_the_status_are_those_in_force() -> None:
    seen = RoundsSeen(rounds=(ended("r1"), ended("r2", "Pending", status="Unknown", block=99)))
    found = weights_of(seen)
    assert found is not None
    assert (found.block, found.round, found.miners, found.extrinsic) == (12, "r1", 3, "12-1")
    assert weights_of(RoundsSeen()) is None


def test_old_rounds_of_the_schedule_go_and_no_others() -> None:
    made = validator(rounds={"historyLimit": 2})
    rounds = [
        ended("r1"), ended("r2", owner=None), ended("r3", "Pending", status="Unknown"), ended("r4"),
        ended("r5", failure="Killed"), round_("r6", status=STARTED, owner="uid-v"),
    ]  # fmt: skip
    assert [each.name for each in too_many(made, rounds)] == ["r1"]
    assert too_many(validator(), rounds) == []


def test_the_last_round_with_results_stays_however_many_failed_since() -> None:
    made = validator(rounds={"historyLimit": 1})
    rounds = [ended("r1"), ended("r2"), ended("r3", failure="Killed"), ended("r4", failure="Killed")]
    assert [each.name for each in too_many(made, rounds)] == ["r1", "r3"]


def test_a_cronjob_makes_rounds_and_may_do_nothing_else() -> None:
    found = children(rounds={"schedule": "0 */2 * * *", "timeZone": "Asia/Kathmandu"})
    spec = found["CronJob", "v-rounds"]["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("0 */2 * * *", "Asia/Kathmandu")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert found["Role", "v-rounds"]["rules"] == [
        {"apiGroups": ["bettertherapy.io"], "resources": ["validatorrounds"], "verbs": ["create"]}
    ]
    assert found["NetworkPolicy", "v-rounds"]["spec"]["ingress"] == []
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "v-rounds"
    text = json.dumps(pod)
    assert "hotkey" not in text
    assert "LEDGER_URL" not in text
    assert not [name for kind, name in children() if name == "v-rounds"]


def test_the_round_that_is_made_is_the_validators_and_needs_no_more_rights() -> None:
    made = round_made(validator(rounds={"deadlineSeconds": 900}))
    [owner] = made["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == ("uid-v", True)
    assert "blockOwnerDeletion" not in owner
    assert made["spec"] == {"validatorRef": {"name": "v"}, "deadlineSeconds": 900}
    assert made["metadata"]["labels"] == {names.LABEL_VALIDATOR: "v"}
