"""Which run may start."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.samples import pool
from twin_operator.domain.queueing import Ticket, may_not_start, waiting_line
from twin_operator.engine.conditions import Finding


def ticket(number: int, *, twin: str | None = None, started: bool = False, busy: bool = False) -> Ticket:
    return Ticket(
        created=f"2026-01-01T00:00:{number:02}Z", name=f"r{number}", twin=twin or f"t{number}", started=started,
        twin_busy=busy,
    )  # fmt: skip


def reason(found: Finding | None) -> str | None:
    return found.reason if found else None


LIMIT_2 = pool(fineTune={"maxConcurrentRuns": 2})


def test_the_oldest_start_up_to_the_limit_and_others_wait() -> None:
    tickets = [ticket(number) for number in (4, 2, 3, 1)]
    assert [may_not_start(f"r{number}", tickets, LIMIT_2) is None for number in (1, 2, 3, 4)] == [
        True, True, False, False,
    ]  # fmt: skip
    found = may_not_start("r4", tickets, LIMIT_2)
    assert found is not None
    assert found.reason == "PoolBusy"
    assert "runs 2 at once" in found.message


def test_what_a_waiting_run_says_does_not_change_with_the_line_before_it() -> None:
    line = [ticket(number) for number in range(1, 6)]
    assert may_not_start("r5", line, LIMIT_2) == may_not_start("r5", [ticket(1, started=True), *line[1:]], LIMIT_2)
    assert may_not_start("r5", line, LIMIT_2) == may_not_start("r5", line[1:], LIMIT_2)


def test_runs_under_way_take_places() -> None:
    tickets = [ticket(1, started=True), ticket(2), ticket(3)]
    assert may_not_start("r2", tickets, LIMIT_2) is None
    assert may_not_start("r3", tickets, LIMIT_2) is not None


def test_a_twin_has_one_run_and_the_next_does_not_hold_up_others() -> None:
    tickets = [ticket(1, twin="t", started=True), ticket(2, twin="t"), ticket(3)]
    assert reason(may_not_start("r2", tickets, LIMIT_2)) == "TwinBusy"
    assert may_not_start("r3", tickets, LIMIT_2) is None


def test_of_two_waiting_runs_of_a_twin_the_older_goes_first() -> None:
    tickets = [ticket(1, twin="t"), ticket(2, twin="t")]
    assert may_not_start("r1", tickets, LIMIT_2) is None
    assert reason(may_not_start("r2", tickets, LIMIT_2)) == "TwinBusy"


def test_a_twin_that_trains_in_another_pool_is_busy() -> None:
    assert reason(may_not_start("r1", [ticket(1, busy=True)], LIMIT_2)) == "TwinBusy"


def test_a_limit_of_zero_lets_none_start() -> None:
    assert may_not_start("r1", [ticket(1)], pool(fineTune={"maxConcurrentRuns": 0})) is not None


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
    going = [each for each in tickets if not each.started and may_not_start(each.name, tickets, chosen) is None]
    assert len(going) <= max(0, limit - sum(started))
    assert len({each.twin for each in going}) == len(going)
    assert set(going) <= set(waiting_line(tickets))
