"""What a trainer's pod recorded, and what is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.bench.training_time import _figures, time_of

SECONDS = {"data": 1.0, "steps": 60.0, "train": 64.0, "publish": 2.0, "evaluate": 20.0}


def pod(said: object, *, code: int = 0, day: int = 2) -> dict[str, Any]:
    ended = {
        "exitCode": code, "message": said if isinstance(said, str) else json.dumps(said),
        "startedAt": f"2026-01-0{day}T03:00:00Z", "finishedAt": f"2026-01-0{day}T03:01:40Z",
    }  # fmt: skip
    statuses = [{"name": "trainer", "state": {"terminated": ended}}]
    labels = {"bettertherapy.io/run": "r1", "bettertherapy.io/twin": "dr-a"}
    return {"metadata": {"labels": labels}, "status": {"containerStatuses": statuses}}


def test_all_but_the_steps_is_outside() -> None:
    time = time_of(pod({"verdict": "Promote", "seconds": SECONDS}))
    assert time is not None
    assert (time.run, time.whole, round(time.outside_percent, 6)) == ("r1", 100.0, 40.0)
    parts = time.parts()
    assert sum(parts.values()) == pytest.approx(40.0)
    assert parts["model and adapter brought up, checkpoints"] == pytest.approx(4.0)


def test_a_twins_first_run_is_told_apart() -> None:
    seconds = [{**SECONDS, "steps": steps} for steps in (50.0, 60.0, 64.0)]
    times = [time_of(pod({"seconds": each}, day=day)) for day, each in enumerate(seconds, start=2)]
    figures = {
        figure.subject: figure for figure in _figures([each for each in times if each]) if figure.target is not None
    }
    first, later = figures["a twin's first run"], figures["a later run"]
    assert (first.spread.median, first.met, first.spread.runs) == (pytest.approx(50.0), False, 1)
    assert (later.spread.maximum, later.met, later.spread.runs) == (pytest.approx(40.0), True, 2)


@pytest.mark.parametrize(
    "other",
    [
        pod({"seconds": SECONDS}, code=75),
        pod({"skipped": "3 new interactions"}),
        pod("killed"),
        pod({"seconds": {name: SECONDS[name] for name in ("data", "evaluate")}}),
        {"metadata": {"labels": {}}, "status": {"containerStatuses": [{"name": "trainer", "state": {"running": {}}}]}},
        {"metadata": {"labels": {}}},
    ],
)
def test_what_did_no_whole_run_is_left_out(other: dict[str, Any]) -> None:
    assert time_of(other) is None
