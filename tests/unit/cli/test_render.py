"""What stands on the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import RenderableType

from kubectl_twin.ask import Answer
from kubectl_twin.pools import PoolObjects, pool_lines
from kubectl_twin.render import answer_footer, fine_tuning_lines, gate_table, indented, status_report
from kubectl_twin.render_versions import history_table, lineage_report
from kubectl_twin.runs import gate_of
from kubectl_twin.text_console import TextConsole
from kubectl_twin.versions import history, lineage
from kubectl_twin.views import condition_lines, event_lines
from kubectl_twin.zones import UNIVERSAL

from .objects import (
    DIGEST,
    Json,
    addresses,
    condition,
    digest,
    engine_pod,
    held,
    judged,
    pod_report,
    serving_twin,
    told,
    training,
    tuned_twin,
    twin,
    version,
)
from .test_decide import brought

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def printed(content: RenderableType, *, width: int = 200) -> str:
    console = TextConsole(file=io.StringIO(), width=width)
    console.print(content)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def report(obj: Json, pools: list[PoolObjects] | str = "", events: Sequence[Json] = (), *, width: int = 200) -> str:
    return printed(
        status_report(
            obj,
            conditions=condition_lines(obj),
            runs=[],
            pools=pools if isinstance(pools, str) else pool_lines(obj, pools),
            events=event_lines(list(events)),
            now=NOW,
        ),
        width=width,
    )


def test_nothing_is_cut_or_squeezed_at_80_columns() -> None:
    name = "dr-indra-bahadur-gurung-clinic"
    run = f"{name}-20260301-0200-6b01c344db"
    obj = serving_twin(name)
    obj["status"]["activeVersion"] |= {"runName": run, "scorePercent": 94, "since": "2026-02-01T11:00:00Z"}
    event = {
        "type": "Warning", "reason": "FineTuneFailed", "message": f"{run} failed: {'ab12' * 16}",
        "lastTimestamp": "2026-03-01T11:59:00Z", "count": 3,
    }  # fmt: skip
    metrics = [{"name": "safety.medication-interactions-of-children", "valuePercent": 94, "baselinePercent": 100}]
    gate = gate_of({"verdict": "Reject", "samples": 9, "metrics": metrics})
    assert gate is not None
    text = "".join(
        (
            report(obj, events=[event], width=80),
            printed(indented(gate_table(gate)), width=80),
        )
    )
    assert "…" not in text
    assert all(len(line) <= 80 for line in text.splitlines())
    whole = "".join(text.split())
    for said in (
        f"{name}-ab12ab12",
        run,
        "ab12" * 16,
        "Dr.IndraGurung",
        "safety.medication-interactions-o",
        "f-children",
    ):
        assert said in whole
    assert len(text.splitlines()) < 60


def test_the_report_gives_each_conditions_reason_and_message() -> None:
    obj = twin(conditions=[condition("Ready", "False", "DigestMismatch", "adapter is not what the spec says; fix it")])
    text = report(obj)
    assert "✗ Ready" in text
    assert "DigestMismatch" in text
    assert "adapter is not what the spec says; fix it" in text


def test_a_sentence_that_explains_two_conditions_is_printed_once() -> None:
    conditions = [
        condition("Serving", "False", "R", "the pool is gone"),
        condition("Ready", "False", "R", "the pool is gone"),
    ]
    text = report(twin(conditions=conditions))
    assert text.count("the pool is gone") == 1
    assert "(as Serving)" in text


def test_the_report_names_the_wanted_version_while_none_serves_it() -> None:
    text = report(twin(conditions=[condition("Ready", "False")]))
    assert "wanted" in text
    assert DIGEST[:19] in text


def test_the_report_shows_what_each_pod_says_and_what_proves_it_at_80_columns() -> None:
    names = [f"pool-a-engine-7d9c5b8f6-x2x4{letter}" for letter in "abcd"]
    proofs = [
        held(proof="Fingerprint", fingerprintMilliNats=52, loadMillis=280),
        held(proof="FirstLoad", measuredMilliNats=[-200]),
        held(proof="Unproven", message="it serves, but it learned too little"),
        held(state="Failed", reason="RankTooHigh", message="rank 64 is above 16"),
    ]
    pool = PoolObjects(
        name="pool-a", pods=[engine_pod(name) for name in names], slices=[told(), addresses(*names)],
        reports=[
            pod_report(name, {"dr-gurung-ab12ab12": proof}) for name, proof in zip(names, proofs, strict=True)
        ],
    )  # fmt: skip
    text = report(serving_twin(), [pool], width=80)
    pods = text[text.index("Pods\n") : text.index("Events\n")]
    assert all(len(line) <= 80 for line in pods.splitlines())
    said = " ".join(pods.split())
    assert "pool-a answers with dr-gurung-ab12ab12 (100%)" in said
    ends = [said.index(name) for name in names[1:]] + [len(said)]
    parts = [said[said.index(name) : end] for name, end in zip(names, ends, strict=True)]
    words = [
        "✓ dr-gurung-ab12ab12 Verified, loaded in 0.28 s: it answers as recorded when it was trained, 0.052 nats off",
        "✓ dr-gurung-ab12ab12 Verified: no fingerprint is recorded; it answers as at its first load in this pod",
        "• dr-gurung-ab12ab12 Verified: nothing proves whose weights answer: it serves, but it learned too little",
        "✗ dr-gurung-ab12ab12 Failed: RankTooHigh: rank 64 is above 16",
    ]
    for part, wanted in zip(parts, words, strict=True):
        assert "live, vLLM 0.32.0" in part
        assert wanted in part


def test_pools_that_cannot_be_read_are_told_of_and_the_rest_is_there() -> None:
    text = report(serving_twin(), "You may not list podreports.")
    assert "You may not list podreports." in text
    assert "Ready" in text


def test_a_report_without_conditions_asks_for_the_operator() -> None:
    assert "Is it running?" in report(twin())


def test_repeated_events_say_how_often() -> None:
    event = {"metadata": {}, "reason": "Waiting", "count": 3, "lastTimestamp": "2026-03-01T11:59:00Z"}
    assert "(x3)" in report(twin(), [], [event])


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


def fine_tuning(obj: dict[str, object], *runs: dict[str, object]) -> dict[str, str]:
    made = fine_tuning_lines(obj, list(runs), now=NOW)
    assert made is not None
    lines = [line.strip() for line in printed(made).splitlines()]
    return {line[:9].strip(): line[9:].strip() for line in lines}


def test_the_status_names_what_validators_tasks_brought_the_best_first() -> None:
    told = fine_tuning(tuned_twin(), brought("f", 80), brought("e", 90))
    assert told["to choose"] == "dr-gurung-eeeeeeee, score 90% · exam-e"
    assert any(said.endswith("-ffffffff, score 80% · exam-f") for said in told.values())
    assert "to choose" not in fine_tuning(tuned_twin(), brought("f", 80, parent="b"))


def test_the_status_says_how_fine_tuning_stands() -> None:
    obj = tuned_twin(
        canaryVersion=version("e"), canaryWeightPercent=10, canaryStep=0, canaryStepTime="2026-03-01T11:57:00Z",
        pendingVersion=version("9"),
    )  # fmt: skip
    assert fine_tuning(obj, training()) == {
        "under way": "dr-gurung-3: training · 40% · step 4 of 10 · loss 0.900 · about 5 min left",
        "next": "2026-03-02 02:13 UTC (in 14 h 13 min)",
        "last": "ended 2d ago",
        "last gate": "Promote on 40 items · score 71% (before 64%) · safety 96% (before 98%) · dr-gurung-2",
        "canary": "dr-gurung-eeeeeeee takes 10%, step 1 of 1, for 3m",
        "waits": "dr-gurung-99999999 waits for the doctor: `kubectl twin review dr-gurung`",
    }


def test_a_suspended_or_overdue_fine_tune_says_so() -> None:
    suspended = tuned_twin(nextFineTuneTime=None)
    suspended["spec"]["fineTune"]["suspend"] = True
    assert fine_tuning(suspended)["next"] == "none: spec.fineTune.suspend is true"
    overdue = tuned_twin(nextFineTuneTime="2026-03-01T11:00:00Z")
    assert fine_tuning(overdue)["next"] == "2026-03-01 11:00 UTC (overdue for 1 h)"


def test_a_twin_that_was_never_fine_tuned_has_no_such_section() -> None:
    assert fine_tuning_lines(serving_twin(), [], now=NOW) is None
    assert "Fine-tuning" not in report(serving_twin())
    assert "Fine-tuning" in report(tuned_twin())


def test_what_was_promoted_is_not_told_as_if_the_spec_were_still_wanted() -> None:
    assert "wanted" not in report(tuned_twin())
    assert "wanted" in report(tuned_twin(specDigest=digest("0")))


def test_the_history_is_a_table_where_there_is_room_and_blocks_where_there_is_not() -> None:
    rows = history(tuned_twin(), [judged("Reject")])
    head, *lines = printed(history_table(rows, width=150, zone=UNIVERSAL), width=150).splitlines()
    assert head.split() == ["DIGEST", "SCORE", "RUN", "FROM", "(UTC)", "TO", "(UTC)", "OUTCOME"]
    assert lines[0].split() == ["sha256:cccccccccccc", "71%", "dr-gurung-2", "2026-02-27", "02:30", "-", "answers"]
    assert "rejected by the gate on 2026-03-01 11:50 UTC: 71% against 64%" in lines[1]
    narrow = printed(history_table(rows, width=70, zone=UNIVERSAL), width=70)
    assert all(len(line) <= 70 for line in narrow.splitlines())
    assert "sha256:bbbbbbbbbbbb  replaced" in narrow
    assert "from 2026-02-26 02:30 UTC to 2026-02-27 02:30 UTC" in narrow


def test_lineage_reads_from_dataset_to_answers() -> None:
    text = printed(lineage_report("dr-gurung", "base", lineage(tuned_twin(), []), width=200, zone=UNIVERSAL))
    block = text[text.index("dr-gurung-bbbbbbbb") :]
    parts = [digest("1"), "dr-gurung-1 (its object has expired)", digest("a"), digest("b"), "from 2026-02-26 02:30 UTC"]
    assert [block.index(part) for part in parts] == sorted(block.index(part) for part in parts)
    assert "not recorded in the cluster; its manifest may say it: add --from-store" in text


def test_lineage_of_a_twin_without_adapters_says_so() -> None:
    assert "has had no adapter" in printed(lineage_report("dr-gurung", "base", [], width=200, zone=UNIVERSAL))
