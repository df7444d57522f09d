"""Every report at 80 and at 60 columns, with names as long as clinics make them: no line is longer, no name is cut."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import RenderableType

from kubectl_twin import render, suggestions, views
from kubectl_twin.gateway import MinerResult
from kubectl_twin.kubeconfig import Reach
from kubectl_twin.pools import PoolObjects, pool_lines
from kubectl_twin.render_gateway import result_table
from kubectl_twin.render_review import review_report
from kubectl_twin.render_rounds import rounds_table
from kubectl_twin.render_versions import history_table, lineage_report
from kubectl_twin.review import Reviewed
from kubectl_twin.rounds import RoundRow
from kubectl_twin.runs import gate_of
from kubectl_twin.versions import history, lineage
from kubectl_twin.zones import zone_of

from .objects import METRICS, Json, addresses, condition, engine_pod, held, judged, pod_report, told, tuned_twin
from .test_render import NOW, printed

TWIN = "dr-indra-bahadur-gurung-kathmandu"
POOL = "kathmandu-general-practice-gpu"
POD = f"{POOL}-engine-7d9c5b8f6-x2x4a"
RUN = f"{TWIN}-20260301-0200-6b01c"
ROUND = "front-desk-kathmandu-29531520-w7x2p"


def twin() -> Json:
    made = tuned_twin(
        conditions=[
            condition("Ready", "False", "ServedNameCollision", f"{POD} holds {TWIN}-cccccccc under another digest"),
            condition("Serving", "True", "Serving", f"`kubectl twin status {TWIN}` shows which"),
        ],
        pools=[POOL],
    )
    made["metadata"]["name"] = TWIN
    made["spec"]["fineTune"]["timeZone"] = "America/Argentina/ComodRivadavia"
    for version in [*made["status"]["history"], made["status"]["activeVersion"]]:
        version |= {"servedName": f"{TWIN}-{version['digest'][7:15]}", "runName": RUN}
    return made


def status(_: int) -> RenderableType:
    obj = twin()
    event = {"type": "Warning", "reason": "FineTuneFailed", "message": f"{RUN} failed", "lastTimestamp": str(NOW)}
    pool = PoolObjects(
        name=POOL, pods=[engine_pod(POD, pool=POOL)], slices=[told(TWIN), addresses(POD)],
        reports=[pod_report(POD, {f"{TWIN}-ab12ab12": held(TWIN, state="Failed", reason="RankTooHigh", message="x")})],
    )  # fmt: skip
    return render.status_report(
        obj, conditions=views.condition_lines(obj), runs=[], pools=pool_lines(obj, [pool]),
        events=views.event_lines([event]), now=NOW,
    )  # fmt: skip


def versions(width: int) -> RenderableType:
    obj = twin()
    return history_table(history(obj, [judged("Reject")]), width=width, zone=zone_of(obj))


def ancestors(width: int) -> RenderableType:
    obj = twin()
    return lineage_report(TWIN, "base", lineage(obj, []), width=width, zone=zone_of(obj))


def rounds(_: int) -> RenderableType:
    row = RoundRow(
        name=ROUND, validator="front-desk", complete="False", reason="QuorumNotReached", scored="18/20",
        best="5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty", weights="Waiting", duration="12m", created=None,
    )  # fmt: skip
    return rounds_table([row], now=NOW)


def review(width: int) -> RenderableType:
    gate = gate_of({"verdict": "Reject", "samples": 9, "message": "it fell", "metrics": METRICS})
    reviewed = Reviewed(
        run=RUN, version=f"{TWIN}-dddddddd", digest="sha256:" + "d" * 64, parent=f"{TWIN}-cccccccc", gate=gate,
        items=(), waits=True,
    )  # fmt: skip
    return review_report(twin(), reviewed, most=10, width=width)


def miners(_: int) -> RenderableType:
    hotkeys = ("5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY")
    return result_table(
        [
            MinerResult(uid=7, hotkey=hotkeys[0], score=0.93, failure=None, seconds=1.25),
            MinerResult(uid=65535, hotkey=hotkeys[1], score=None, failure="receiptOfAnotherRequest" * 2, seconds=30.0),
        ],
        given=hotkeys[0],
    )


def gate(_: int) -> RenderableType:
    metrics = [{**METRICS[0], "name": "safety.medication-interactions-of-children-and-the-old"}, METRICS[1]]
    found = gate_of({"verdict": "Reject", "samples": 9, "metrics": metrics})
    assert found is not None
    return render.gate_table(found)


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize(
    ("report", "names"),
    [
        (status, {TWIN, f"{TWIN}-cccccccc", RUN, POOL, POD, "ServedNameCollision", "America/Argentina/ComodRivadavia"}),
        (versions, {RUN, "America/Argentina/ComodRivadavia"}),
        (ancestors, {RUN, f"{TWIN}-bbbbbbbb"}),
        (rounds, {ROUND, "QuorumNotReached"}),
        (review, {RUN, f"{TWIN}-dddddddd"}),
        (gate, {"safety.medication-interactions-of-children-and-the-old"}),
    ],
)
def test_no_line_is_longer_and_no_name_is_cut(report: Any, names: set[str], width: int) -> None:
    text = printed(report(width), width=width)
    assert "…" not in text
    assert [line for line in text.splitlines() if len(line.rstrip()) > width] == []
    assert {name for name in names if name not in text} == set()


@pytest.mark.parametrize(
    ("report", "heads"),
    [
        (miners, {"SCORE", "SECONDS"}),
        (gate, {"BEFORE", "CHANGE", "INTERVAL", "AT LEAST"}),
        (rounds, {"COMPLETE", "WEIGHTS", "DURATION"}),
        (status, {"SERVED AS", "DIGEST", "SINCE"}),
    ],
)
def test_no_head_is_broken_within_a_word(report: Any, heads: set[str]) -> None:
    words = " ".join(printed(report(40), width=40).upper().split())
    assert {head for head in heads if head not in words} == set()


@pytest.mark.parametrize("width", [80, 60])
def test_a_suggested_command_stands_on_one_line_where_it_fits(width: int) -> None:
    suggestions.keep(Reach(None, "prod"), "clinic")
    try:
        text = printed(status(width), width=width)
    finally:
        suggestions.keep(Reach(), None)
    command = f"`kubectl twin status {TWIN} -n clinic --context prod`"
    assert (command in text) == (len(command) < width - 2)
