"""Telling the operator and the miners what this pod holds, only when it changed and never in a request's way."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import aiohttp

from bettertherapy_api.report import PodReport
from neurons.agent.metrics import AgentMetrics
from neurons.cluster import Backoff, ClusterAccessError, ClusterError

log = logging.getLogger(__name__)

COALESCE_SECONDS: Final = 0.03
"""Changes within this time make one write; a table change moves several adapters at once."""
REFRESH_SECONDS: Final = 60.0
_WRITE_SECONDS: Final = 15.0

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
        self._changed = asyncio.Event()
        self._written: PodReport | None = None

    def changed(self) -> None:
        """Say that something may have changed; cheap, call it freely."""
        self._changed.set()

    async def run(self) -> None:
        """Write for ever; a failed write is tried again with the newest."""
        while True:
            try:
                # Someone may have deleted or changed it: looking costs the API server no write.
                async with asyncio.timeout(self._refresh_seconds * random.uniform(0.8, 1.0)):  # noqa: S311
                    await self._changed.wait()
            except TimeoutError:
                self._written = None
            await asyncio.sleep(COALESCE_SECONDS)
            self._changed.clear()
            report = self._build()
            if report == self._written:
                continue
            if await self._write(report):
                self._written = report
                self._backoff.reset()
            else:
                self._changed.set()
                await asyncio.sleep(self._backoff.next())

    async def withdraw(self) -> None:
        """Take the report away at the end; tried once, since the garbage collector does it too."""
        with suppress(TimeoutError):
            async with asyncio.timeout(3.0):
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
