"""Which run may start."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.samples import pool
from twin_operator.domain.objects import Pool, Run, run_from
from twin_operator.domain.queueing import in_line, may_not_start
from twin_operator.engine.conditions import Finding

TASK = "11111111-1111-4111-8111-111111111111"


def ticket(number: int, *, twin: str | None = None, started: bool = False, exam: bool = False) -> Run:
    status = {"startTime": "2026-01-01T00:00:00Z"} if started else {}
    made = run_from({
        "metadata": {
            "name": f"r{number}", "namespace": "clinic", "uid": f"u{number}",
            "creationTimestamp": f"2026-01-01T00:00:{number:02}Z",
        },
        "spec": {"twinRef": {"name": twin or f"t{number}"}, "dataset": {"uri": "pvc://d/x"}, **(_EXAM if exam else {})},
        "status": status,
    })  # fmt: skip
    assert isinstance(made, Run), made
    return made


_EXAM = {
    "candidate": {
        "task": TASK, "validator": "v", "miner": "5" * 48, "digest": "sha256:" + "b" * 64,
        "delivered": "pvc://deliveries/x", "deadline": "2030-01-01T00:00:00Z",
    },
}  # fmt: skip


def waits(name: str, runs: list[Run], chosen: Pool, *, elsewhere: list[Run] | None = None) -> Finding | None:
    """Ask for one of the runs of a pool; `elsewhere` are runs of other pools."""
    run = next(each for each in runs if each.name == name)
    known = [*runs, *(elsewhere or [])]

    def others(of: Run) -> list[Run]:
        return [each for each in known if each.spec.twin_ref == of.spec.twin_ref and each.uid != of.uid]

    return may_not_start(
        run, pool=chosen, under_way=sum(each.started for each in runs), of_twin=others(run),
        waiting=lambda: [each for each in runs if not each.started],
        is_busy=lambda other: any(each.started for each in others(other)),
    )  # fmt: skip


def reason(found: Finding | None) -> str | None:
    return found.reason if found else None


LIMIT_2 = pool(fineTune={"maxConcurrentRuns": 2})


def test_the_oldest_start_up_to_the_limit_and_others_wait() -> None:
    tickets = [ticket(number) for number in (4, 2, 3, 1)]
    assert [waits(f"r{number}", tickets, LIMIT_2) is None for number in (1, 2, 3, 4)] == [
        True, True, False, False,
    ]  # fmt: skip
    found = waits("r4", tickets, LIMIT_2)
    assert found is not None
    assert found.reason == "PoolBusy"
    assert "runs 2 at once" in found.message


def test_what_a_waiting_run_says_does_not_change_with_the_line_before_it() -> None:
    line = [ticket(number) for number in range(1, 6)]
    assert waits("r5", line, LIMIT_2) == waits("r5", [ticket(1, started=True), *line[1:]], LIMIT_2)
    assert waits("r5", line, LIMIT_2) == waits("r5", line[1:], LIMIT_2)


def test_runs_under_way_take_places() -> None:
    tickets = [ticket(1, started=True), ticket(2), ticket(3)]
    assert waits("r2", tickets, LIMIT_2) is None
    assert waits("r3", tickets, LIMIT_2) is not None


def test_a_twin_has_one_run_and_the_next_does_not_hold_up_others() -> None:
    tickets = [ticket(1, twin="t", started=True), ticket(2, twin="t"), ticket(3)]
    assert reason(waits("r2", tickets, LIMIT_2)) == "TwinBusy"
    assert waits("r3", tickets, LIMIT_2) is None


def test_of_two_waiting_runs_of_a_twin_the_older_goes_first() -> None:
    tickets = [ticket(1, twin="t"), ticket(2, twin="t")]
    assert waits("r1", tickets, LIMIT_2) is None
    assert reason(waits("r2", tickets, LIMIT_2)) == "TwinBusy"


def test_examinations_of_miners_versions_come_after_the_twins_own_nights() -> None:
    exams = [ticket(number, exam=True) for number in range(1, 6)]
    night = ticket(9)
    assert waits("r9", [*exams, night], LIMIT_2) is None
    assert [waits(each.name, [*exams, night], LIMIT_2) is None for each in exams] == [True, False, False, False, False]
    found = waits("r2", [*exams, night], LIMIT_2)
    assert found is not None
    assert found.message.endswith(
        "twins' own runs go first, then examinations of miners' versions, each the oldest first"
    )


def test_of_one_twin_too_its_night_goes_before_examinations_that_wait() -> None:
    line = [ticket(1, twin="t", exam=True), ticket(2, twin="t", exam=True), ticket(9, twin="t")]
    assert waits("r9", line, LIMIT_2) is None
    found = waits("r1", line, LIMIT_2)
    assert found is not None
    assert found.message == "run r9 of DoctorTwin t goes first; a twin has one run at a time"


def test_a_twin_that_trains_in_another_pool_is_busy() -> None:
    elsewhere = [ticket(9, twin="t1", started=True)]
    assert reason(waits("r1", [ticket(1)], LIMIT_2, elsewhere=elsewhere)) == "TwinBusy"


def test_a_limit_of_zero_lets_none_start() -> None:
    assert waits("r1", [ticket(1)], pool(fineTune={"maxConcurrentRuns": 0})) is not None


@given(
    started=st.lists(st.booleans(), min_size=1, max_size=12),
    twins=st.lists(st.sampled_from("abcd"), min_size=12, max_size=12),
    limit=st.integers(0, 4),
)
def test_all_that_may_start_at_once_stay_within_the_limit(started: list[bool], twins: list[str], limit: int) -> None:
    tickets = [
        ticket(number, twin=twin, started=begun)
        for number, (begun, twin) in enumerate(zip(started, twins, strict=False))
    ]
    chosen = pool(fineTune={"maxConcurrentRuns": limit})
    going = [each for each in tickets if not each.started and waits(each.name, tickets, chosen) is None]
    assert len(going) <= max(0, limit - sum(started))
    assert len({each.spec.twin_ref.name for each in going}) == len(going)
    busy = {each.spec.twin_ref.name for each in tickets if each.started}
    could = {each.spec.twin_ref.name for each in tickets if not each.started} - busy
    assert len(going) == max(0, min(limit - sum(started), len(could)))


def test_a_pool_without_room_is_not_looked_through() -> None:
    def never() -> list[Run]:
        raise AssertionError("5,000 waiting runs cost 37 ms each once")

    found = may_not_start(ticket(1), pool=LIMIT_2, under_way=2, of_twin=[], waiting=never, is_busy=lambda run: False)
    assert reason(found) == "PoolBusy"


def test_in_line_are_the_oldest_runs_of_twins_that_are_not_busy() -> None:
    tickets = [
        ticket(1, twin="busy"), ticket(2, twin="t"), ticket(3, twin="t"), ticket(5), ticket(4), ticket(6, twin="older"),
    ]  # fmt: skip
    elsewhere = [ticket(7, twin="busy", started=True), ticket(0, twin="older")]

    def of_twin(run: Run) -> list[Run]:
        return [each for each in [*tickets, *elsewhere] if each.spec.twin_ref == run.spec.twin_ref]

    assert [each.name for each in in_line(tickets, of_twin)] == ["r2", "r4", "r5"]
