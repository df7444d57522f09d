"""No request, whatever it is made of, makes a process fail or hang: all doors, run as they run, by chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.doors.fuzzing import drawn, send_all, told
from tests.unit.doors.http_processes import all_doors

EACH = 130


@pytest.mark.timeout(500)  # five processes start first, on whatever the machine has left
async def test_no_request_makes_a_process_fail_or_hang(tmp_path: Path) -> None:
    async with all_doors(tmp_path) as doors:
        outcomes = {door.name: await send_all(door, drawn(door, EACH)) for door in doors.values()}
    assert sum(sum(outcome.statuses.values()) for outcome in outcomes.values()) >= 500
    assert not [name for name, outcome in outcomes.items() if outcome.hung or outcome.failed], told(outcomes)
    assert all({200, 400} <= outcome.statuses.keys() for outcome in outcomes.values()), told(outcomes)
