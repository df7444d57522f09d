"""Telling the operator of a demand that no engine pod is there for: the report of a miner without a wallet."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

import aiohttp

from bettertherapy_api.report import MinerReport, PodRef
from neurons.cluster import Backoff, ClusterAccessError, ClusterClient, ClusterError, PodReportWriter, paths
from neurons.miner.demand import Demand

log = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 60.0
"""Someone may have deleted or changed the report: looking costs the API server no write."""
_WRITE_SECONDS: Final = 5.0


async def report_demand(
    demand: Demand, *, pod: PodRef, namespace: str, pool: str, connect: Callable[[], ClusterClient] = ClusterClient
) -> None:
    """Keep the report as long as the miner runs. A failed write is soon tried again: requests wait for it."""
    news = asyncio.Event()
    news.set()
    demand.changed = news.set
    backoff = Backoff(first=0.2, most=5.0)
    written: MinerReport | None = None
    async with connect() as client:
        writer = PodReportWriter(client, namespace=namespace, labels=paths.miner_report_labels(pool))
        while True:
            try:
                async with asyncio.timeout(REFRESH_SECONDS * random.uniform(0.8, 1.0)):  # noqa: S311
                    await news.wait()
            except TimeoutError:
                written = None
            news.clear()
            report = MinerReport(pod=pod, demand=demand.report())
            if report == written:
                continue
            try:
                async with asyncio.timeout(_WRITE_SECONDS):
                    await writer.write(report)
            except (ClusterError, ClusterAccessError, aiohttp.ClientError, OSError, TimeoutError) as error:
                log.warning("the report can't be written: %s: %s; serving goes on", type(error).__name__, error)
                await asyncio.sleep(backoff.next())
                news.set()
            else:
                written = report
                backoff.reset()
