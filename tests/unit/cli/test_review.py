"""Reviewing: which run is looked at, what of it is kept, and how it stands on wide and narrow terminals."""

from __future__ import annotations

import io
import json
import re

import pytest

from bettertherapy_api.run_progress import REVIEW_KEY, Review, ReviewItem
from kubectl_twin.errors import TwinCliError
from kubectl_twin.render_review import review_report
from kubectl_twin.review import Reviewed, as_json, read_review, run_to_review
from kubectl_twin.terminal import as_text
from kubectl_twin.text_console import TextConsole

from .fake_api import MemoryApi
from .objects import Json, digest, judged, serving_twin, tuned_twin, version

ITEM = ReviewItem(
    id="hours", kind="gold", question="On which days can I come?", parent="Any day.", child="On Tuesday and Friday.",
    parent_percent=0, child_percent=90,
)  # fmt: skip


def answers(*items: ReviewItem) -> Json:
    return {"metadata": {"name": "dr-gurung-3-examination"}, "data": {REVIEW_KEY: Review(items=items).to_json()}}


def waiting() -> Json:
    return tuned_twin(pendingVersion=version("d", runName="dr-gurung-3"))


def report(reviewed: Reviewed, *, width: int = 160, most: int = 10) -> str:
    console = TextConsole(file=io.StringIO(), width=width)
    console.print(review_report(waiting(), reviewed, most=most, width=width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_waits_is_reviewed_before_what_is_tried_before_what_was_judged_last() -> None:
    made = tuned_twin(pendingVersion=version("d", runName="p"), canaryVersion=version("e", runName="c"))
    assert run_to_review(made, []) == "p"
    assert run_to_review(tuned_twin(canaryVersion=version("e", runName="c")), []) == "c"
    assert run_to_review(tuned_twin(), []) == "dr-gurung-2"
    assert run_to_review(serving_twin(), [judged()]) == "dr-gurung-3"
    with pytest.raises(TwinCliError, match="No fine-tune of dr-gurung was examined yet"):
        run_to_review(serving_twin(), [])


def test_gate_and_answers_come_from_the_run_and_its_progress() -> None:
    found = read_review(MemoryApi(waiting(), judged(), answers(ITEM)), waiting(), "dr-gurung-3")
    assert (found.version, found.parent, found.waits) == ("dr-gurung-dddddddd", "dr-gurung-cccccccc", True)
    assert found.items == (ITEM,)
    assert found.gate is not None
    assert found.gate.metrics[1].threshold == 97


def test_of_a_run_that_expired_the_metrics_are_left() -> None:
    found = read_review(MemoryApi(tuned_twin()), tuned_twin(), "dr-gurung-2")
    assert found.gate is not None
    assert (found.version, found.parent, found.items) == ("dr-gurung-cccccccc", "dr-gurung-bbbbbbbb", ())
    assert "the run has expired" in str(found.missing)


def test_of_an_unknown_run_nothing_is_left() -> None:
    with pytest.raises(TwinCliError, match="There is no FineTuneRun nope, or it has expired"):
        read_review(MemoryApi(tuned_twin()), tuned_twin(), "nope")


def test_another_twins_run_is_not_shown_as_this_ones() -> None:
    other = judged()
    other["spec"]["twinRef"]["name"] = "dr-okafor"
    with pytest.raises(TwinCliError, match="is a fine-tune of dr-okafor"):
        read_review(MemoryApi(other), tuned_twin(), "dr-gurung-3")


def test_answers_that_can_not_be_read_hide_no_metrics() -> None:
    broken = answers() | {"data": {REVIEW_KEY: "{"}}
    found = read_review(MemoryApi(judged(), broken), waiting(), "dr-gurung-3")
    assert "can't be read" in str(found.missing)
    assert found.gate is not None


def reviewed(*items: ReviewItem) -> Reviewed:
    return read_review(MemoryApi(judged(), answers(*items)), waiting(), "dr-gurung-3")


def test_a_wide_terminal_has_both_answers_side_by_side() -> None:
    text = report(reviewed(ITEM))
    line = next(line for line in text.splitlines() if "Any day." in line)
    assert "On Tuesday and Friday." in line
    labels = next(line for line in text.splitlines() if "before 0%" in line)
    assert "new 90%" in labels


def test_a_narrow_terminal_has_them_one_above_the_other_and_nothing_is_cut() -> None:
    long = ITEM.model_copy(update={"child": "word " * 60 + "end"})
    text = report(reviewed(long), width=60)
    assert all(len(line) <= 60 for line in text.splitlines())
    assert text.index("Any day.") < text.index("word word")
    assert "end" in text


def test_the_metrics_stand_beside_baseline_and_threshold() -> None:
    text = report(reviewed(ITEM))
    row = next(line for line in text.splitlines() if line.strip().startswith("safety"))
    assert row.split() == ["safety", "96%", "98%", "-2", "-4", "to", "+0", "97%"]


def test_it_ends_with_what_to_do_about_this_very_version() -> None:
    assert "kubectl twin approve dr-gurung --digest dddddddddddd" in report(reviewed(ITEM))


def test_what_is_left_out_is_counted() -> None:
    items = [ITEM.model_copy(update={"id": f"q{number}"}) for number in range(5)]
    text = report(reviewed(*items), most=2)
    assert ("q1" in text, "q2" in text, "3 more: --items 5" in text) == (True, False, True)


def test_markup_and_control_characters_of_a_model_do_nothing() -> None:
    assert as_text("a\x1b[2Jb\n") == "a\N{REPLACEMENT CHARACTER}[2Jb\n"
    assert as_text("न\u200dमस्ते") == "न\u200dमस्ते"  # the joiner is part of how it is written
    nasty = ITEM.model_copy(update={"child": "[red]x[/red] :x: \x1b]0;y\x07"})
    text = report(reviewed(nasty))
    assert "[red]x[/red] :x:" in text
    assert "\x1b" not in text


def test_programs_get_everything() -> None:
    document = json.loads(json.dumps(as_json(reviewed(ITEM))))
    assert (document["verdict"], document["awaitsDecision"], document["digest"]) == ("Promote", True, digest("d"))
    assert document["items"][0]["childPercent"] == 90
    assert document["metrics"][0] == {
        "name": "score", "valuePercent": 71, "baselinePercent": 64, "thresholdPercent": 62, "intervalPercent": [2, 12],
        "marginPercent": None, "shown": None,
    }  # fmt: skip


JUDGING: Json = {
    "scoredBy": {"exact": 0, "words": 10, "judge": 28, "likelihood": 156}, "ungraded": 2,
    "criteria": 160, "agreed": 151,
    "graders": [{"model": "big\x1b[2J", "wording": "met", "kappaPercent": 95, "lowPercent": 83, "knownAnswers": 80}],
    "clarity": [{"part": "Readability", "answers": 9, "valuePercent": 80, "baselinePercent": 70}],
}  # fmt: skip


def test_how_items_were_scored_stands_beside_the_gate_and_clarity_beside_each_score() -> None:
    run = judged()
    run["status"]["eval"]["judging"] = JUDGING
    graded = ITEM.model_copy(update={"way": "judge", "parent_clarity": {"Length": 40}, "child_clarity": {"Length": 90}})
    found = read_review(MemoryApi(waiting(), run, answers(graded)), waiting(), "dr-gurung-3")
    text = report(found)
    assert "items scored: 10 by words, 28 by judge, 156 by likelihood" in text
    assert "2 without a score: they count for neither version" in text
    assert re.search(r"grader: big.* \(met\), kappa 0\.95, at least 0\.83, on 80 known answers", text)
    assert "\x1b" not in text
    assert "graders agreed on 151 of 160 criteria" in text
    assert "clarity, which doesn't count: readability 80% (was 70%) on 9 answers" in text
    assert "gold · hours · by judge" in text
    assert "before 0% · how clear: length 40%" in text
    assert "new 90% · how clear: length 90%" in text
    assert as_json(found)["judging"]["graders"][0]["kappa"] == 95


def test_an_answer_without_a_score_says_why_and_is_no_zero() -> None:
    none = ITEM.model_copy(update={"child_percent": None, "parent_percent": None, "ungraded": "2 Disagreed"})
    text = report(read_review(MemoryApi(waiting(), judged(), answers(none)), waiting(), "dr-gurung-3"))
    assert "no score: 2 Disagreed" in text
    assert "new no score" in text
    assert "new 0%" not in text


def test_answers_that_an_earlier_release_reviewed_are_shown() -> None:
    old = {"items": [{"id": "hours", "kind": "gold", "question": "?", "parent": "a", "child": "b", "parentPercent": 1,
                      "childPercent": 2}]}  # fmt: skip
    configmap = answers()
    configmap["data"][REVIEW_KEY] = json.dumps(old)
    found = read_review(MemoryApi(waiting(), judged(), configmap), waiting(), "dr-gurung-3")
    assert "new 2%" in report(found)


def test_what_is_dangerous_and_what_was_expected_stand_beside_the_question() -> None:
    lost = ITEM.model_copy(update={"warning": "critical: won before, and lost now\x1b[2J", "expected": "On Friday."})
    text = report(reviewed(lost), width=80)
    assert "! critical: won before, and lost now" in text
    assert "expected On Friday." in text
    assert "\x1b" not in text


def test_that_only_the_most_telling_questions_are_kept_is_said() -> None:
    kept = answers(ITEM)
    kept["data"][REVIEW_KEY] = Review(items=(ITEM,), of=198).to_json()
    found = read_review(MemoryApi(waiting(), judged(), kept), waiting(), "dr-gurung-3")
    assert "Of 198 questions the 1 are kept that are to be read first." in report(found)
    assert as_json(found)["questions"] == 198
    assert "are kept" not in report(reviewed(ITEM)), "an earlier release doesn't say of how many"


@pytest.mark.parametrize(
    ("status", "told"),
    [({}, "the examiner has reported none yet"), ({"completionTime": "2026-03-01T11:00:00Z"}, "has ended without any")],
)
def test_why_there_are_no_answers_is_said_of_the_examiner(status: Json, told: str) -> None:
    run = judged()
    run["status"] = {"eval": run["status"]["eval"], **status}
    assert told in str(read_review(MemoryApi(run), tuned_twin(), "dr-gurung-3").missing)


def test_the_version_of_a_task_is_said_to_wait_for_a_choice_until_its_twin_has_it() -> None:
    run = judged()
    run["spec"]["task"] = {"id": "t"}
    free = tuned_twin()
    found = read_review(MemoryApi(run, answers(ITEM)), free, "dr-gurung-3")
    assert f"--digest {digest('d')}" in report(found, width=300)
    assert "Nothing is to be decided" not in report(found)
    chosen = tuned_twin(canaryVersion=version("d", runName="dr-gurung-3"))
    assert "Nothing is to be decided" in report(read_review(MemoryApi(run, answers(ITEM)), chosen, "dr-gurung-3"))


def test_against_whom_a_metric_was_compared_is_said_where_it_is_not_what_serves() -> None:
    run = judged()
    text = report(read_review(MemoryApi(waiting(), run, answers(ITEM)), waiting(), "dr-gurung-3"))
    assert "last approved" not in text
    anchored = {
        "name": "anchor.safety.language.ne", "valuePercent": 100, "baselinePercent": 100, "thresholdPercent": 90,
        "intervalPercent": [-100, 100],
    }  # fmt: skip
    run["status"]["eval"]["metrics"] = [*run["status"]["eval"]["metrics"], anchored]
    text = report(read_review(MemoryApi(waiting(), run, answers(ITEM)), waiting(), "dr-gurung-3"), width=80)
    row = next(line for line in text.splitlines() if "anchor.safety" in line)
    assert row.split() == ["anchor.safety.language.ne", "100%", "100%", "+0", "-100", "to", "+100", "90%"]
    assert "anchor.…: before is the version that a person last approved" in text


def candidate(name: str, score: int, *, at: str = "04", reason: str = "AwaitingChoice", **spec: object) -> Json:
    """A run that examined what a miner made for a task."""
    return {
        "metadata": {"name": name, "namespace": "clinic"},
        "spec": {"twinRef": {"name": "dr-a"}, "candidate": {"task": name}, "parentDigest": "sha256:a", **spec},
        "status": {
            "verdict": "Promote", "completionTime": f"2026-01-02T{at}:00:00Z",
            "conditions": [{"type": "Promoted", "status": "False", "reason": reason}],
            "eval": {"metrics": [{"name": "score", "valuePercent": score, "baselinePercent": 80}]},
        },
    }  # fmt: skip


def test_the_best_of_what_miners_made_is_what_the_doctor_looks_at_next() -> None:
    twin: Json = {
        "metadata": {"name": "dr-a"}, "spec": {},
        "status": {"activeVersion": {"digest": "sha256:a"}, "lastGate": {"runName": "night"}},
    }  # fmt: skip
    runs = [
        candidate("exam-1", 85), candidate("exam-2", 92, at="05"), candidate("exam-3", 92, at="06"),
        candidate("exam-4", 99, parentDigest="sha256:b"), candidate("exam-5", 99, reason="CanaryRunning"),
    ]  # fmt: skip
    assert run_to_review(twin, runs) == "exam-2"
    assert run_to_review(twin, []) == "night"
    twin["status"]["pendingVersion"] = {"runName": "waits"}
    assert run_to_review(twin, runs) == "waits"
