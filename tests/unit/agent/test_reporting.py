"""The report is written when it changed, and again when someone may have lost it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from bettertherapy_api.report import EngineReport, PodRef, PodReport
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


async def test_withdrawing_takes_the_report_away_even_when_the_api_server_is_down() -> None:
    sink = Sink()
    async with reporter(lambda: report("same"), sink) as running:
        await running.withdraw()
        assert sink.written == [None]
        sink.errors = [OSError("down")]
        await running.withdraw()
