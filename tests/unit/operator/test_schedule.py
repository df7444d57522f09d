"""When fine-tunes are due: cron in a time zone, spread by a stable hash, once after an absence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bettertherapy_api import names
from bettertherapy_api.doctor_twin import FineTune
from tests.unit.operator.run_samples import run
from tests.unit.operator.samples import digest, pool, twin
from twin_operator.domain.objects import Run
from twin_operator.domain.schedule import Schedule, ScheduleError, schedule_of
from twin_operator.domain.training_pool import choose_pool
from twin_operator.kinds.doctor_twin.fine_tunes import FineTunePlan, plan_fine_tune

DAY = timedelta(days=1)
NOW = datetime(2026, 6, 10, 12, 0, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def schedule(cron: str = "0 2 * * *", zone: str = "Etc/UTC", *, twin: str = "dr-a", window: int = 0) -> Schedule:
    return schedule_of(
        FineTune.model_validate({"schedule": cron, "timeZone": zone}), namespace="clinic", twin=twin,
        window_seconds=window,
    )  # fmt: skip


def test_the_time_is_that_of_the_zone() -> None:
    assert schedule(zone="Asia/Kathmandu").after(NOW) == at("2026-06-10T20:15:00")


@pytest.mark.parametrize(
    ("after", "due"),
    [
        ("2026-03-28T12:00:00", "2026-03-29T01:00:00"),  # 02:30 does not exist that night: right after the gap
        ("2026-10-24T12:00:00", "2026-10-25T00:30:00"),  # 02:30 comes twice: once, the first time
        ("2026-10-25T00:30:00", "2026-10-26T01:30:00"),
    ],
)
def test_clock_changes_neither_lose_nor_double_a_run(after: str, due: str) -> None:
    assert schedule("30 2 * * *", "Europe/Berlin").after(at(after)) == at(due)


def test_twins_are_spread_over_the_window_each_at_its_own_time() -> None:
    times = [schedule(twin=f"dr-{number}", window=14400).after(NOW) for number in range(1000)]
    start = at("2026-06-11T02:00:00")
    assert all(start <= time < start + timedelta(hours=4) for time in times)
    per_quarter = [sum((time - start) // timedelta(minutes=15) == number for time in times) for number in range(16)]
    assert min(per_quarter) > 30
    again = schedule(twin="dr-7", window=14400).after(NOW + DAY)
    assert again - times[7] == DAY


@settings(deadline=None)
@given(
    cron=st.sampled_from(["0 2 * * *", "*/5 * * * *", "0 */6 * * 1-5", "15 3 1 * *", "30 1 * * 0", "0 0 29 2 *"]),
    zone=st.sampled_from(["Etc/UTC", "Europe/Berlin", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe"]),
    name=st.sampled_from(["a", "b", "c"]),
    window=st.sampled_from([0, 600, 14400]),
    when=st.datetimes(datetime(2026, 1, 1), datetime(2028, 12, 31)),
)
def test_due_times_come_one_after_the_other(cron: str, zone: str, name: str, window: int, when: datetime) -> None:
    made, now = schedule(cron, zone, twin=name, window=window), when.replace(microsecond=0, tzinfo=UTC)
    first = made.after(now)
    second = made.after(first)
    assert now < first < second
    assert made.latest(first) == first
    assert made.latest(second - timedelta(seconds=1)) == first
    assert made.includes(first)


@pytest.mark.parametrize(
    ("cron", "zone"), [("61 2 * * *", "Etc/UTC"), ("0 2 30 2 *", "Etc/UTC"), ("0 2 * * *", "Mars/X")]
)
def test_what_means_nothing_is_refused(cron: str, zone: str) -> None:
    with pytest.raises(ScheduleError):
        schedule(cron, zone)


STORE = {"store": {"uri": "pvc://adapters/store"}}


def planned(
    *runs: Run, now: datetime = NOW, status: dict[str, Any] | None = None, token: str = "", **fields: Any
) -> FineTunePlan:
    from dataclasses import replace

    pools = fields.pop("pools", [pool(**STORE)])
    made = twin(status=status or {}, fineTune={"schedule": "0 2 * * *", **fields})
    if token:
        made = replace(made, annotations={"bettertherapy.io/finetune-now": token})
    return plan_fine_tune(made, runs, choose_pool(made, pools), now=now, window_seconds=0)


def created(plan: FineTunePlan) -> str | None:
    return plan.create["metadata"]["name"] if plan.create else None


DUE = {"nextFineTuneTime": "2026-06-10T02:00:00Z"}


def test_a_new_twin_waits_for_its_first_time() -> None:
    plan = planned()
    assert (created(plan), plan.next_time, plan.wake_at) == (None, at("2026-06-11T02:00:00"), at("2026-06-11T02:00:00"))


def test_a_due_run_is_made_from_what_serves_and_the_next_time_is_set() -> None:
    plan = planned(status=DUE, hyperparameters={"rank": 8})
    assert created(plan) == "dr-a-202606100200"
    assert plan.create is not None
    assert plan.create["spec"]["parentDigest"] == digest("a")
    assert plan.create["spec"]["dataset"] == {"uri": "pvc://adapters/store/dr-a/interactions"}
    assert plan.create["spec"]["hyperparameters"] == {"rank": 8}
    assert plan.create["metadata"]["ownerReferences"][0]["kind"] == "DoctorTwin"
    assert plan.next_time == at("2026-06-11T02:00:00")
    assert planned(status=DUE, hyperparameters={"rank": 8}).create is not None
    assert planned(status=DUE).create["spec"]["seed"] == plan.create["spec"]["seed"]  # type: ignore[index]


def test_killed_before_the_status_was_written_it_finds_the_run_made() -> None:
    plan = planned(run("dr-a-202606100200"), status=DUE)
    assert (created(plan), plan.next_time) == (None, at("2026-06-11T02:00:00"))


def test_after_a_week_away_one_run_is_made() -> None:
    plan = planned(status={"nextFineTuneTime": "2026-06-03T02:00:00Z"})
    assert (created(plan), plan.next_time) == ("dr-a-202606100200", at("2026-06-11T02:00:00"))


def test_a_run_under_way_holds_the_next_one_up_and_it_is_not_lost() -> None:
    plan = planned(run("older"), status=DUE)
    assert (created(plan), plan.obstacle and plan.obstacle.reason) == (None, "RunUnderWay")
    assert plan.next_time == at("2026-06-10T02:00:00")
    over = run("older", status={"completionTime": "2026-06-10T11:00:00Z"})
    assert created(planned(over, status=DUE)) == "dr-a-202606100200"


def test_a_canary_under_way_holds_the_next_one_up() -> None:
    canary = {"digest": digest("b"), "servedName": "dr-a-bbbbbbbb"}
    plan = planned(status={**DUE, "canaryVersion": canary, "specDigest": digest("a")})
    assert (created(plan), plan.obstacle and plan.obstacle.reason) == (None, "CanaryUnderWay")


def test_a_doctor_who_never_answers_holds_no_fine_tune_up() -> None:
    pending = {"digest": digest("b"), "servedName": "dr-a-bbbbbbbb"}
    plan = planned(status={**DUE, "pendingVersion": pending})
    assert plan.create is not None
    assert plan.create["spec"]["parentDigest"] == digest("a"), "it goes on from what serves"


def test_suspended_there_is_no_next_time_and_resuming_starts_nothing_at_once() -> None:
    plan = planned(status=DUE, suspend=True)
    assert (created(plan), plan.next_time) == (None, None)
    assert created(planned(status={})) is None


def test_a_changed_schedule_starts_nothing_at_once() -> None:
    plan = planned(status=DUE, schedule="0 3 * * *")
    assert (created(plan), plan.next_time) == (None, at("2026-06-11T03:00:00"))


def test_without_a_pool_that_can_train_it_says_so_and_goes_on_waiting() -> None:
    plan = planned(status=DUE, pools=[pool()])
    assert (created(plan), plan.obstacle and plan.obstacle.reason) == (None, "NoStore")
    assert plan.next_time == at("2026-06-10T02:00:00")


def test_a_rank_that_the_version_to_go_on_from_does_not_have_is_told_with_both_numbers() -> None:
    plan = planned(status=DUE, hyperparameters={"rank": 16})
    assert created(plan) is None
    assert plan.obstacle is not None
    assert plan.obstacle.reason == "RankMismatch"
    assert "rank 8" in plan.obstacle.message
    assert "rank is 16" in plan.obstacle.message
    trained = {"digest": digest("b"), "servedName": "dr-a-bbbbbbbb", "rank": 16}
    promoted = planned(
        status={**DUE, "promotedVersion": trained, "specDigest": digest("a")}, hyperparameters={"rank": 16}
    )
    assert promoted.create is not None, "it is that of the version that serves, not of spec.adapter"


def test_a_run_names_what_a_person_last_chose_where_that_is_not_what_it_goes_on_from() -> None:
    trained, chosen = (
        {"digest": digest(letter), "servedName": f"dr-a-{letter * 8}", "rank": 8} for letter in ("b", "c")
    )
    since = {**DUE, "promotedVersion": trained, "specDigest": digest("a")}

    def anchor(**status: object) -> object:
        plan = planned(status={**since, **status})
        assert plan.create is not None
        return plan.create["spec"].get("anchor")

    assert anchor() == {"digest": digest("a")}, "that of spec.adapter"
    assert anchor(anchorVersion=chosen) == {"digest": digest("c")}
    assert anchor(anchorVersion=trained) is None
    assert anchor(anchorVersion={"servedName": "smollm2"}) == {}, "the base model itself"


def test_a_schedule_that_means_nothing_is_told() -> None:
    plan = planned(schedule="99 2 * * *")
    assert plan.obstacle is not None
    assert plan.obstacle.reason == "ScheduleInvalid"


def test_who_asks_gets_one_run_for_each_token() -> None:
    first, again, other = planned(token="x"), planned(token="x"), planned(token="y")
    assert created(first) == created(again) != created(other)
    assert (created(first) or "").startswith("dr-a-now-")
    assert first.handled_token == "x"
    done = {"handledFineTune": "x"}
    assert created(planned(token="x", status=done)) is None
    assert created(planned(token="y", status=done)) is not None
    assert planned(status=done).handled_token is None


def test_who_asks_gets_one_even_while_the_schedule_is_suspended_and_waits_for_the_run_under_way() -> None:
    assert created(planned(token="x", suspend=True)) is not None
    plan = planned(run("older"), token="x")
    assert (created(plan), plan.handled_token) == (None, None)


@pytest.mark.parametrize("twin", ["d" * 54, "d" * 48, "dr-a"])
def test_names_fit_a_label_and_tell_twins_apart(twin: str) -> None:
    assert len(names.run_name(twin, "202606100200")) <= 63
    assert names.run_name("d" * 53 + "a", "202606100200") != names.run_name("d" * 53 + "b", "202606100200")
