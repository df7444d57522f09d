"""What a twin remembers of its examinations: tries on the same lines, and comparisons with an anchor."""

from __future__ import annotations

from typing import Any

from bettertherapy_api.finetune_run import Anchor
from bettertherapy_api.gate.budget import LOOKS, Look
from tests.unit.operator.run_samples import DATA, run
from tests.unit.operator.samples import digest, twin
from twin_operator.domain.examined import compared, is_remembered, look
from twin_operator.domain.objects import Run, Twin

ANCHOR = digest("c")


def night(number: int, verdict: str, **spec: Any) -> Run:
    return run(
        f"r{number}", anchor=spec.get("anchor", {"digest": ANCHOR}),
        status={
            "completionTime": f"2026-01-{number:02d}T03:00:00Z", "verdict": verdict,
            "eval": {"verdict": verdict, "samples": 200},
            "dataset": {"digest": DATA.digest, "uri": DATA.uri, "interactions": 20},
        },
    )  # fmt: skip


def remembering(runs: list[Run], *, before: Twin | None = None) -> Twin:
    memory = [each.model_dump(by_alias=True, exclude_none=True) for each in compared(before or twin(), runs)]
    return twin(status={"compared": memory})


def test_versions_compared_with_an_anchor_are_counted_with_what_the_gate_said_of_them() -> None:
    runs = [
        night(1, "Promote"),
        night(2, "Inconclusive"),
        night(3, "Promote", anchor={}),
        night(4, "Promote", anchor=None),
    ]
    assert look(twin(), runs, anchor=Anchor(digest=ANCHOR), uid="another") == Look(3, 1)
    assert look(twin(), runs, anchor=Anchor(), uid="another") == Look(2, 1)
    assert look(twin(), runs, anchor=Anchor(digest=digest("d")), uid="another") == Look(1, 0)


def test_what_was_counted_is_not_counted_again_and_outlives_the_runs() -> None:
    runs = [night(1, "Promote"), night(2, "Inconclusive")]
    known = remembering(runs)
    assert remembering(runs, before=known).status.compared == known.status.compared
    assert look(known, [], anchor=Anchor(digest=ANCHOR), uid="another") == Look(3, 1)
    assert look(known, runs, anchor=Anchor(digest=ANCHOR), uid=runs[1].uid) == Look(2, 0)


def test_a_run_may_go_once_the_twin_knows_of_its_comparison() -> None:
    made = night(1, "Promote")
    lines = {"examined": [{"datasetDigest": DATA.digest, "runs": [made.uid]}]}
    assert not is_remembered(twin(status=lines), made)
    known = [{"digest": ANCHOR, "runs": [made.uid], "promoted": 1}]
    assert is_remembered(twin(status={**lines, "compared": known}), made)


def test_the_memory_is_bounded_and_then_nothing_is_concluded() -> None:
    full = [{"digest": ANCHOR, "runs": [f"uid-{number}" for number in range(LOOKS)], "promoted": 3}]
    kept = twin(status={"compared": full})
    assert len(compared(kept, [night(1, "Promote")])[0].runs) == LOOKS
    assert look(kept, [], anchor=Anchor(digest=ANCHOR), uid="another") == Look(LOOKS + 1, 3)
