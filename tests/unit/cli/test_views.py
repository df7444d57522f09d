"""What the plugin makes of the API's objects."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kubectl_twin.views import age, condition_lines, event_lines, short_digest, twin_row

from .objects import DIGEST, condition, serving_twin, twin

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_a_serving_twin_has_its_pools_digest_and_pods_in_its_row() -> None:
    row = twin_row(serving_twin())
    assert (row.pools, row.active, row.loaded, row.ready) == (("pool-a", "pool-b"), DIGEST, "2/2", "True")
    assert row.reason is None


def test_a_twin_that_is_not_ready_says_why() -> None:
    row = twin_row(twin(conditions=[condition("Ready", "False", "NoPoolMatches")]))
    assert (row.ready, row.reason) == ("False", "NoPoolMatches")


def test_a_twin_that_nobody_looked_at_is_unknown_not_false() -> None:
    row = twin_row(twin())
    assert (row.serving, row.ready, row.loaded) == ("Unknown", "Unknown", "-")


def test_a_twin_without_adapter_is_told_from_one_that_does_not_answer() -> None:
    assert twin_row(twin(activeVersion={"servedName": "base"})).base_only
    assert not twin_row(twin()).base_only


def test_serving_and_ready_come_first_among_the_conditions() -> None:
    obj = twin(conditions=[condition("Zeta", "True"), condition("Ready", "True"), condition("Serving", "True")])
    assert [line.type for line in condition_lines(obj)] == ["Serving", "Ready", "Zeta"]


@pytest.mark.parametrize(
    ("kind", "status", "good"),
    [
        ("Ready", "True", True),
        ("Ready", "False", False),
        ("Ready", "Unknown", None),
        ("RolledBack", "True", False),
        ("RolledBack", "False", True),
        ("Progressing", "True", None),
    ],
)
def test_what_is_good_depends_on_the_condition(kind: str, status: str, good: bool | None) -> None:
    assert condition_lines(twin(conditions=[condition(kind, status)]))[0].good is good


def test_the_newest_events_are_last_and_the_oldest_are_left_out() -> None:
    events = [
        {"metadata": {}, "reason": f"R{hour}", "lastTimestamp": f"2026-03-01T{hour:02d}:00:00Z"} for hour in (3, 1, 2)
    ]
    assert [line.reason for line in event_lines(events, most=2)] == ["R2", "R3"]


def test_events_of_the_newer_api_have_their_time_and_count_in_series() -> None:
    event = {
        "metadata": {},
        "reason": "R",
        "lastTimestamp": None,
        "eventTime": "2026-03-01T01:00:00.000000Z",
        "series": {"count": 4, "lastObservedTime": "2026-03-01T02:00:00.000000Z"},
    }
    line = event_lines([event])[0]
    assert (line.times, line.time) == (4, "2026-03-01T02:00:00.000000Z")


@pytest.mark.parametrize(
    ("since", "text"),
    [
        ("2026-03-01T11:59:55Z", "5s"),
        ("2026-03-01T11:50:00Z", "10m"),
        ("2026-03-01T09:00:00Z", "3h"),
        ("2026-02-25T12:00:00Z", "4d"),
        ("2026-03-01T12:00:30Z", "0s"),
        (None, "-"),
        ("soon", "-"),
    ],
)
def test_ages_read_as_kubectl_writes_them(since: str | None, text: str) -> None:
    assert age(since, NOW) == text


def test_a_short_digest_keeps_its_algorithm() -> None:
    assert short_digest(DIGEST) == "sha256:ab12ab12ab12"
    assert short_digest(None) == "-"
