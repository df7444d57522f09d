"""Telling the operator what this gateway sees of its subnet: its pod's report, written when that changed and now and
then, so that it can be told from what a gateway said long ago.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import Final

import aiohttp

from bettertherapy_api.report import GATEWAY_REPORT_SECONDS, GatewayReport, GatewayView, PodRef
from neurons.cluster import Backoff, ClusterAccessError, ClusterClient, ClusterError, PodReportWriter, paths
from neurons.validator.gateway.settings import OwnPod
from neurons.validator.gateway.subnet_view import says_the_same

log = logging.getLogger(__name__)

REPORT_SECONDS: Final = float(GATEWAY_REPORT_SECONDS)
_WRITE_SECONDS: Final = 15.0


async def report_view(
    own: OwnPod,
    see: Callable[[], GatewayView | None],
    news: asyncio.Event,
    *,
    connect: Callable[[], ClusterClient] = ClusterClient,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Keep the report as long as the gateway runs: patients are answered whether it can be written or not.

    `see` returns what to report, None while there is nothing. `news` is set when that may have changed.
    """
    try:
        client = connect()
    except ClusterAccessError as error:
        log.warning("the operator can't be told what is seen of the subnet: %s", error)
        await asyncio.Event().wait()  # whoever follows something and ends would end the gateway
        return
    async with client:
        await _keep(own, see, news, client, clock)


async def _keep(
    own: OwnPod,
    see: Callable[[], GatewayView | None],
    news: asyncio.Event,
    client: ClusterClient,
    clock: Callable[[], float],
) -> None:
    writer = PodReportWriter(client, namespace=own.namespace, labels=paths.gateway_report_labels(own.validator))
    pod = PodRef(name=own.name, uid=own.uid)
    backoff = Backoff(first=1.0, most=60.0)
    written: GatewayView | None = None
    written_at = 0.0
    trouble = ""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPORT_SECONDS * random.uniform(0.8, 1.0)):  # noqa: S311
                await news.wait()
        news.clear()
        seen = see()
        if seen is None:
            continue
        if written is not None and says_the_same(seen, written) and clock() - written_at < 0.8 * REPORT_SECONDS:
            continue
        failure = await _write(writer, GatewayReport(pod=pod, gateway=seen))
        if failure is None:
            written, written_at = seen, clock()
            trouble = ""
            backoff.reset()
            continue
        if failure != trouble:  # each problem once
            log.warning("the report can't be written: %s; answering goes on", failure)
            trouble = failure
        await asyncio.sleep(backoff.next())
        news.set()


async def _write(writer: PodReportWriter, report: GatewayReport) -> str | None:
    """Write the report; returns what stood in the way."""
    try:
        async with asyncio.timeout(_WRITE_SECONDS):
            await writer.write(report)
    except (ClusterError, ClusterAccessError, aiohttp.ClientError, OSError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
    return None
