"""The report is written when it changed, and again when someone may have lost it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from bettertherapy_api.report import EngineReport, PodRef, PodReport
from neurons.agent import reporting
from neurons.agent.metrics import AgentMetrics
from neurons.agent.reporting import Reporter
from neurons.cluster import Backoff, ClusterError
from tests.unit.agent.pod import until


def report(version: str) -> PodReport:
    return PodReport(
        pod=PodRef(name="pod-1", uid="uid-1"), ready=True, engine=EngineReport(live=True, version=version), adapters={}
    )


class Sink:
    """Where reports go."""

    def __init__(self) -> None:
        self.written: list[PodReport | None] = []
        self.errors: list[Exception] = []

    async def __call__(self, report: PodReport | None) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.written.append(report)


@asynccontextmanager
async def reporter(build: Callable[[], PodReport], sink: Sink, *, refresh: float = 3600) -> AsyncIterator[Reporter]:
    backoff = Backoff(first=0.01, most=0.05)
    running = Reporter(build, sink, metrics=AgentMetrics(), backoff=backoff, refresh_seconds=refresh)
    task = asyncio.create_task(running.run())
    try:
        yield running
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_changes_in_one_instant_make_one_write() -> None:
    sink, state = Sink(), [report("a")]
    async with reporter(lambda: state[0], sink) as running:
        for value in "bcd":
            state[0] = report(value)
            running.changed()
        await until(lambda: bool(sink.written))
        assert sink.written == [report("d")]


async def turns(number: int = 10) -> None:
    """Let whatever is ready run; nothing that waits for time does."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_what_patients_wait_for_is_told_at_once_and_more_of_it_after_a_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reporting, "SPACE_SECONDS", 0.2)
    sink, state = Sink(), [report("a")]
    async with reporter(lambda: state[0], sink) as running:
        await turns()
        running.changed()
        await turns()
        assert sink.written == [report("a")]
        for value in "bcd":
            state[0] = report(value)
            running.changed()
            await turns()
        assert sink.written == [report("a")]
        await until(lambda: len(sink.written) > 1)
        assert sink.written == [report("a"), report("d")]


async def test_a_step_on_the_way_waits_for_what_comes_of_it() -> None:
    sink, state = Sink(), [report("fetching")]
    async with reporter(lambda: state[0], sink) as running:
        await turns()
        running.changed(under_way=True)
        await turns()
        assert sink.written == []
        state[0] = report("verified")
        running.changed()
        await turns()
        assert sink.written == [report("verified")]
        state[0] = report("fetching")
        running.changed(under_way=True)
        await until(lambda: sink.written == [report("verified"), report("fetching")])


async def test_a_refused_write_is_tried_again_with_the_newest_document() -> None:
    sink, state = Sink(), [report("old")]
    sink.errors = [ClusterError(403, "Forbidden", "the policy says no"), TimeoutError(), OSError("down")]
    async with reporter(lambda: state[0], sink) as running:
        running.changed()
        await until(lambda: len(sink.errors) < 3)
        state[0] = report("new")
        await until(lambda: bool(sink.written))
        assert sink.written == [report("new")]


async def test_an_unchanged_report_is_written_again_after_a_while() -> None:
    """Someone may have deleted or changed it."""
    sink = Sink()
    async with reporter(lambda: report("same"), sink, refresh=0.05) as running:
        running.changed()
        await until(lambda: len(sink.written) >= 3)
        assert all(written == report("same") for written in sink.written)


async def test_polls_of_the_engine_keep_no_unchanged_report_from_being_looked_at_again() -> None:
    sink = Sink()
    async with reporter(lambda: report("same"), sink, refresh=0.1) as running:

        async def poll() -> None:
            while True:
                running.changed()
                await asyncio.sleep(0.005)

        polling = asyncio.create_task(poll())
        await until(lambda: len(sink.written) >= 3)
        polling.cancel()


async def test_withdrawing_takes_the_report_away_even_when_the_api_server_is_down() -> None:
    sink = Sink()
    async with reporter(lambda: report("same"), sink) as running:
        await running.withdraw()
        assert sink.written == [None]
        sink.errors = [OSError("down")]
        await running.withdraw()


async def test_a_write_that_is_under_way_never_brings_a_withdrawn_report_back() -> None:
    begun, held, there = asyncio.Event(), asyncio.Event(), [False]

    async def publish(report: PodReport | None) -> None:
        if report is not None:
            begun.set()
            await held.wait()
        there[0] = report is not None

    running = Reporter(
        lambda: report("draining"), publish, metrics=AgentMetrics(), backoff=Backoff(first=0.01, most=0.05)
    )
    task = asyncio.create_task(running.run())
    running.changed()
    await begun.wait()
    leaving = asyncio.create_task(running.withdraw())
    await asyncio.sleep(0)
    held.set()
    await leaving
    running.changed()  # whatever happens while the pod leaves
    await asyncio.wait({task}, timeout=0.2)
    task.cancel()
    assert there == [False]
