"""A thousand twins on five pods: what the miner takes in at once keeps no patient's token waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.names import routing_slice_name, served_name
from bettertherapy_api.report import AdapterReport, AdapterState, EngineReport, PodRef, PodReport
from neurons.cluster import Event, Listed, turns
from neurons.miner.history import Rounds
from neurons.miner.metrics import Metrics
from neurons.miner.preparation import _shortened
from neurons.miner.tables import Tables
from tests.unit.loop_holds import LONGEST_SECONDS, measured_holds
from tests.unit.miner.running_miner import RunningMiner

TWINS, A_SLICE, PODS = 1000, 100, 5


def digest(of: str, number: int) -> str:
    return f"sha256:{of * 56}{number:08x}"


def slices(of: str) -> list[dict[str, Any]]:
    pool = {
        "name": "pool", "uid": "pool-uid", "generation": 1, "baseModel": {"name": "base"}, "maxLoras": 4,
        "maxLoraRank": 16,
    }  # fmt: skip
    found = []
    for part in range(TWINS // A_SLICE):
        twins = {}
        for number in range(part * A_SLICE, (part + 1) * A_SLICE):
            name, its = f"dr-{number:04}", digest(of, number)
            served = served_name(name, its)
            twins[f"uid-{number}"] = {
                "name": name,
                "doctor": f"Dr. {number}",
                "adapters": [{"servedName": served, "digest": its, "uri": f"s3://b/{name}", "rank": 8}],
                "versions": [{"servedName": served, "digest": its, "weightPercent": 100}],
            }
        found.append({"metadata": {"name": routing_slice_name("pool", part)}, "pool": pool, "twins": twins})
    pods = {f"pod-uid-{n}": {"name": f"pod-{n}", "address": f"10.0.0.{n + 1}:8000"} for n in range(PODS)}
    found.append({"metadata": {"name": "pool-routing-pods"}, "pool": pool, "pods": pods})
    return found


def reports(of: str) -> list[dict[str, Any]]:
    held = {}
    for number in range(TWINS):
        name, its = f"dr-{number:04}", digest(of, number)
        held[served_name(name, its)] = AdapterReport(
            twin=name, twin_uid=f"uid-{number}", digest=its, state=AdapterState.VERIFIED
        )
    return [
        {
            "metadata": {"name": f"pod-{n}"},
            **PodReport(
                pod=PodRef(name=f"pod-{n}", uid=f"pod-uid-{n}"), ready=True, draining=False,
                engine=EngineReport(live=True, wedged=False), adapters=held,
            ).to_dict(),
        }
        for n in range(PODS)
    ]  # fmt: skip


async def test_a_thousand_twins_that_come_and_change_hold_the_miners_loop_for_no_patient() -> None:
    tables = Tables(Metrics(), pool="pool")
    hears: tuple[tuple[Callable[[Event], Coroutine[Any, Any, None]], Callable[[str], list[dict[str, Any]]]], ...] = (
        (tables.hear_routing, slices), (tables.hear_reports, reports),
    )  # fmt: skip
    for of in ("a", "b"):
        for hear, documents in hears:
            event = Listed(documents(of))
            with measured_holds() as holds:
                await asyncio.create_task(hear(event))
            assert holds.seconds < LONGEST_SECONDS, holds
    assert len(tables.snapshot.twins) == TWINS
    assert len(tables.snapshot.ready_pods) == PODS
    assert len(tables.snapshot.pods_for(tables.snapshot.twins["dr-0001"].active[0])) == PODS


async def test_what_comes_while_a_list_is_taken_waits_and_nothing_of_half_a_list_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    tables = Tables(Metrics(), pool="pool")
    seen: set[tuple[bool, int, int]] = set()

    async def look() -> None:
        while True:
            snapshot = tables.snapshot
            seen.add((tables.known, len(snapshot.twins), len(snapshot.ready_pods)))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    await asyncio.gather(tables.hear_reports(Listed(reports("a"))), tables.hear_routing(Listed(slices("a"))))
    await asyncio.sleep(0)
    looking.cancel()
    assert seen == {(False, 0, 0), (True, TWINS, PODS)}


@pytest.mark.parametrize("form", ["text/plain", "application/openmetrics-text"])
async def test_a_page_of_metrics_of_a_thousand_twins_holds_up_no_answer(tmp_path: Path, form: str) -> None:
    async with RunningMiner(tmp_path) as miner:
        metrics = miner.service.metrics
        for number in range(TWINS):
            metrics.count(f"dr-{number}", f"dr-{number}-abcdef12", "200")
        with measured_holds() as holds:
            async with miner.client.get(miner.metrics_url, headers={"Accept": form}) as response:
                assert response.content_type == form
                page = await response.text()
        assert page.count("bettertherapy_miner_requests_total{") == TWINS
        assert holds.seconds < LONGEST_SECONDS, holds


async def test_a_long_history_is_shortened_beside_others_answers() -> None:
    said = "I am allergic to penicillin and take warfarin since March. It hurts when I walk up the stairs. " * 100
    turns = [{"role": role, "content": said} for _ in range(50) for role in ("user", "assistant")]
    rounds = Rounds.of([*turns, {"role": "user", "content": "And now?"}])
    size = sum(len(turn["content"]) for turn in turns)
    with measured_holds() as holds:
        shortened = await asyncio.create_task(_shortened(rounds, 50, summary_bytes=2000, size=size))
    assert shortened == rounds.shortened(50, summary_bytes=2000)
    assert holds.seconds < LONGEST_SECONDS, holds
