"""The bench's eyes see what a night must not have: lost and doubled runs, and too many at once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bettertherapy_api import names
from tests.bench.night import Night, Plan
from tests.bench.watching import Seen

DUE = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)


def night(*twins: str) -> Night:
    return Night(Plan(twins=len(twins)), due=dict.fromkeys(twins, DUE), pool=dict.fromkeys(twins, "p"))


def run(twin: str, uid: str, **status: Any) -> Seen:
    metadata = {"name": f"{twin}-1", "uid": uid, "creationTimestamp": "2026-01-02T03:00:07Z"}
    return Seen(0.0, {"metadata": metadata, "spec": {"twinRef": {"name": twin}}, "status": {"pool": "p", **status}})


def pod(twin: str, uid: str, phase: str, *, gone: bool = False) -> Seen:
    labels = {names.LABEL_TWIN: twin, names.LABEL_RUN: f"{twin}-1", names.LABEL_COMPONENT: "trainer"}
    return Seen(0.0, {"metadata": {"uid": uid, "labels": labels}, "status": {"phase": phase}}, gone=gone)


STARTED = {"startTime": "x"}
ENDED = {"startTime": "x", "completionTime": "y", "verdict": "Reject"}


def test_a_run_that_was_never_made_or_never_ended_is_lost() -> None:
    seen = night("a", "b", "c")
    for state in (run("a", "1"), run("a", "1", **STARTED), run("a", "1", **ENDED), run("b", "2", **STARTED)):
        seen.see_run(state)
    assert seen.lost == ["b", "c"]
    assert not seen.doubled
    assert seen.late_seconds() == [7.0, 7.0]


def test_more_than_one_of_anything_is_seen() -> None:
    seen = night("a", "b", "c")
    seen.see_run(run("a", "1"))
    seen.see_run(run("a", "2"))
    for uid in ("j1", "j2"):
        seen.see_job(Seen(0.0, {"metadata": {"name": "b-1", "uid": uid}}))
        seen.see_pod(pod("c", uid, "Pending"))
    assert seen.doubled == ["a", "b-1", "c-1 trainer"]


def test_the_most_at_once_is_of_every_state_that_was_told() -> None:
    seen = night("a", "b", "c")
    for state in (
        run("a", "1", **STARTED), run("b", "2", **STARTED), run("a", "1", **ENDED), run("c", "3", **STARTED),
        run("b", "2", **ENDED), run("c", "3", **ENDED),
    ):  # fmt: skip
        seen.see_run(state)
    assert seen.most["p"] == 2
    assert not seen.under_way["p"]
    for state in (
        pod("a", "1", "Pending"),
        pod("b", "2", "Running"),
        pod("a", "1", "Succeeded"),
        pod("c", "3", "Running"),
    ):
        seen.see_pod(state)
    assert seen.most_working["p"] == 2


def test_another_end_than_the_trainers_is_told() -> None:
    seen = night("a")
    seen.see_run(run("a", "1", startTime="x", completionTime="y", failure={"class": "NoReport"}))
    assert seen.failed == {"a-1": '{"class": "NoReport"}'}
