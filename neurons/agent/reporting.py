"""Telling the operator and the miners what this pod holds, only when it changed and never in a request's way."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import aiohttp

from bettertherapy_api.report import PodReport
from neurons.agent.metrics import AgentMetrics
from neurons.cluster import Backoff, ClusterAccessError, ClusterError

log = logging.getLogger(__name__)

SPACE_SECONDS: Final = 0.03
"""A write begins no sooner than so long after the one before: what changes meanwhile goes with it. The first change
after a pause waits for nothing: patients do for it."""
UNDER_WAY_SECONDS: Final = 0.2
"""So long steps on the way, which nobody acts on, wait for what comes of them."""
REFRESH_SECONDS: Final = 60.0
_WRITE_SECONDS: Final = 15.0
_WITHDRAW_SECONDS: Final = 3.0

Publish = Callable[[PodReport | None], Awaitable[None]]
"""Write the pod's report, or take it away; raises ClusterError, aiohttp.ClientError, OSError or TimeoutError.

Given the last one again it looks whether that is still there: someone may have deleted it."""


class Reporter:
    """Writes the report whenever `changed` was called and it differs from the last one written."""

    def __init__(
        self,
        build: Callable[[], PodReport],
        publish: Publish,
        *,
        metrics: AgentMetrics,
        backoff: Backoff,
        refresh_seconds: float = REFRESH_SECONDS,
    ) -> None:
        self._build = build
        self._publish = publish
        self._metrics = metrics
        self._backoff = backoff
        self._refresh_seconds = refresh_seconds
        self._woken = asyncio.Event()
        self._due = math.inf
        self._began = -math.inf
        self._refresh_at = self._next_refresh()
        self._written: PodReport | None = None
        self._one_at_a_time = asyncio.Lock()
        self._leaving = False

    def changed(self, *, under_way: bool = False) -> None:
        """Say that something may have changed; cheap, call it freely. `under_way`: only a step on the way was made."""
        now = time.monotonic()
        due = now + UNDER_WAY_SECONDS if under_way else max(now, self._began + SPACE_SECONDS)
        if due < self._due:
            self._due = due
            self._woken.set()

    async def run(self) -> None:
        """Write until the report is withdrawn; a failed write is tried again with the newest."""
        while True:
            await self._wait_until_due()
            self._due = math.inf
            if time.monotonic() >= self._refresh_at:
                self._written = None  # someone may have deleted or changed it: looking costs the API server no write
            report = self._build()
            if report == self._written:
                continue
            await asyncio.sleep(0)  # it may say a thousand adapters, and each of both is work
            self._began = time.monotonic()
            async with self._one_at_a_time:
                if self._leaving:
                    return
                written = await self._write(report)
            if written:
                self._written = report
                self._refresh_at = self._next_refresh()
                self._backoff.reset()
            else:
                await asyncio.sleep(self._backoff.next())
                self.changed()

    def _next_refresh(self) -> float:
        return time.monotonic() + self._refresh_seconds * random.uniform(0.8, 1.0)  # noqa: S311

    async def _wait_until_due(self) -> None:
        """Wait until a change is to be written, or it is time to look whether the last one is still there."""
        while (left := min(self._due, self._refresh_at) - time.monotonic()) > 0:
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._woken.wait()

    async def withdraw(self) -> None:
        """Take the report away at the end; tried once, since the garbage collector does it too.

        A write under way ends first: after the removal it would make the report anew, that of a pod which has left.
        """
        self._leaving = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_WITHDRAW_SECONDS), self._one_at_a_time:
                await self._write(None)

    async def _write(self, report: PodReport | None) -> bool:
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._publish(report)
        except (ClusterError, ClusterAccessError, aiohttp.ClientError, OSError, TimeoutError) as error:
            self._metrics.report_writes.labels("failed").inc()
            log.warning("the report can't be written: %s: %s; serving goes on", type(error).__name__, error)
            return False
        self._metrics.report_writes.labels("written").inc()
        return True
