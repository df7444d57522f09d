"""What stands on the terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console, RenderableType

from kubectl_twin.ask import Answer
from kubectl_twin.render import answer_footer, status_report, twin_table
from kubectl_twin.views import condition_lines, event_lines, pod_lines, twin_row

from .objects import DIGEST, condition, pod_report, serving_twin, twin

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def printed(content: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(content)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def report(obj: dict[str, object], pods: dict[str, dict[str, str]], events: list[dict[str, object]]) -> str:
    lines, unreadable = pod_lines("dr-gurung", pods)
    return printed(
        status_report(
            obj,
            conditions=condition_lines(obj),
            runs=[],
            pods=lines,
            unreadable=unreadable,
            events=event_lines(events),
            now=NOW,
        )
    )


def test_the_list_has_one_line_per_twin_with_the_reason_of_what_is_not_ready() -> None:
    waiting = twin("dr-okafor", conditions=[condition("Ready", "False", "NoPoolMatches")])
    text = printed(twin_table([twin_row(serving_twin()), twin_row(waiting)], now=NOW, all_namespaces=False))
    head, first, second = text.splitlines()
    assert head.split() == ["NAME", "DOCTOR", "POOLS", "SERVING", "READY", "ACTIVE", "LOADED", "AGE"]
    assert first.split()[0] == "dr-gurung"
    assert "pool-a,pool-b" in first
    assert "sha256:ab12ab12ab12" in first
    assert first.split()[-2:] == ["2/2", "2h"]
    assert "False (NoPoolMatches)" in second


def test_namespaces_are_shown_only_when_asked_for_all() -> None:
    rows = [twin_row(serving_twin())]
    assert printed(twin_table(rows, now=NOW, all_namespaces=True)).splitlines()[1].split()[0] == "clinic"
    assert "clinic" not in printed(twin_table(rows, now=NOW, all_namespaces=False))


def test_the_report_gives_each_conditions_reason_and_message() -> None:
    obj = twin(conditions=[condition("Ready", "False", "DigestMismatch", "adapter is not what the spec says; fix it")])
    text = report(obj, {}, [])
    assert "✗ Ready" in text
    assert "DigestMismatch" in text
    assert "adapter is not what the spec says; fix it" in text


def test_a_sentence_that_explains_two_conditions_is_printed_once() -> None:
    conditions = [
        condition("Serving", "False", "R", "the pool is gone"),
        condition("Ready", "False", "R", "the pool is gone"),
    ]
    text = report(twin(conditions=conditions), {}, [])
    assert text.count("the pool is gone") == 1
    assert "(as Serving)" in text


def test_the_report_names_the_wanted_version_while_none_serves_it() -> None:
    text = report(twin(conditions=[condition("Ready", "False")]), {}, [])
    assert "wanted" in text
    assert DIGEST[:19] in text


def test_the_report_shows_what_each_pod_says() -> None:
    adapter = {
        "twin": "dr-gurung",
        "digest": DIGEST,
        "state": "Failed",
        "reason": "RankTooHigh",
        "message": "rank 64 is above 16",
        "fingerprintMilliNats": 52,
    }
    text = report(serving_twin(), {"pool-a": {"pod-1": pod_report("pod-1", {"dr-gurung-ab12ab12": adapter})}}, [])
    line = next(line for line in text.splitlines() if "pod-1" in line)
    assert "Failed" in line
    assert "RankTooHigh: rank 64 is above 16" in line
    assert "0.052 nats" in line


def test_a_report_without_conditions_asks_for_the_operator() -> None:
    assert "Is it running?" in report(twin(), {}, [])


def test_repeated_events_say_how_often() -> None:
    event = {"metadata": {}, "reason": "Waiting", "count": 3, "lastTimestamp": "2026-03-01T11:59:00Z"}
    assert "(x3)" in report(twin(), {}, [event])


def answer(**changes: object) -> Answer:
    values: dict[str, object] = {
        "text": "Rest.",
        "doctor": "Dr. Indra Gurung",
        "pool": "pool-a",
        "adapter_digest": DIGEST,
        "served_name": "dr-gurung-ab12ab12",
        "pod": "pod-1",
        "first_token_seconds": 0.5,
        "seconds": 2.5,
        "tokens": 41,
        "finish_reason": "stop",
        **changes,
    }
    return Answer(**values)  # type: ignore[arg-type]


def test_the_footer_names_doctor_adapter_pod_and_speed() -> None:
    assert answer_footer(answer()).plain == (
        "Dr. Indra Gurung · adapter sha256:ab12ab12ab12 · pool pool-a · pod pod-1 · first token 0.50 s · 20.0 tokens/s"
    )


def test_what_was_not_measured_is_left_out_of_the_footer() -> None:
    plain = answer_footer(answer(adapter_digest=None, pod=None, tokens=None)).plain
    assert "tokens/s" not in plain
    assert "pod " not in plain
    assert "base model" in plain


def test_an_answer_cut_at_the_limit_says_so() -> None:
    assert "cut at --max-tokens" in answer_footer(answer(finish_reason="length")).plain
