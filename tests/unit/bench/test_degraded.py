"""The simulation of slow pods and of twins out of their usual: what it counts, and that it can miss its targets."""

from __future__ import annotations

import pytest

from tests.bench import degraded
from tests.bench.registry import Options
from twin_operator.domain import slow_replicas


def test_one_seed_finds_what_is_slow_and_nothing_else() -> None:
    result = degraded.measure(Options(seeds=1))
    figures = {(each.subject, each.figure): each for each in result.figures}
    assert all(each.met for each in result.figures if each.target is not None)
    assert figures["pods", "one of three ten times slower: found"].spread.median == 100
    (twins,) = [each for (subject, name), each in figures.items() if subject == "twins" and "as usual" in name]
    assert twins.figure == "as usual: alarms in 9,000 windows"
    assert degraded.measure(Options(seeds=1)).figures == result.figures


def test_a_hasty_detector_is_seen_to_sound_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert degraded.false_pods(1)[1] == 0
    monkeypatch.setattr(slow_replicas, "TOLERATED", 1.0)
    windows, alarms = degraded.false_pods(1)
    assert windows > 5000
    assert alarms > 0
    assert not degraded._false("pods", windows, alarms, of=slow_replicas.FALSE_ALARM_WINDOWS).met


def test_what_is_never_found_has_no_time() -> None:
    assert [each.figure for each in degraded._found("twins", "twice as slow", [None, None])] == ["twice as slow: found"]
