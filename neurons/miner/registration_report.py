"""Telling the operator where this miner stands on its subnet: its pod's report, written only when it changed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import aiohttp

from bettertherapy_api.report import (
    MAX_MESSAGE,
    MAX_TASKS,
    MinerReport,
    PodRef,
    Registration,
    SubnetReport,
    TaskClaim,
)
from neurons.chain.errors import ColdkeyError, WalletError
from neurons.cluster import Backoff, ClusterAccessError, ClusterClient, ClusterError, PodReportWriter, paths
from neurons.miner.demand import Demand
from neurons.miner.errors import StartError
from neurons.miner.settings import Settings

if TYPE_CHECKING:
    from neurons.miner.subnet import Subnet

log = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 60.0
"""Someone may have deleted or changed the report: looking costs the API server no write."""
_WRITE_SECONDS: Final = 15.0
_LAST_WORD_SECONDS: Final = 5.0


class WalletRefused(StartError):  # noqa: N818
    """The wallet's Secret can't be signed with; the miner does not start, or ends."""

    def __init__(self, error: WalletError) -> None:
        super().__init__(str(error))
        coldkey = isinstance(error, ColdkeyError)
        self.registration = Registration.COLDKEY_FOUND if coldkey else Registration.WALLET_MISSING


async def report_standing(
    settings: Settings,
    subnet: Subnet,
    *,
    claims: Callable[[], list[TaskClaim]] = list,
    demand: Demand | None = None,
    connect: Callable[[], ClusterClient] = ClusterClient,
) -> None:
    """Keep the report as long as the miner runs; a failed write is tried again and harms nothing else.

    `claims`: the tasks that wait for the operator's word; the subnet's `news` tells of other ones, too, and of another
    `demand`, where that wakes the pool.
    """
    pod = _pod(settings)
    if pod is None:
        return
    backoff = Backoff(first=1.0, most=60.0)
    written: MinerReport | None = None
    said: SubnetReport | None = None
    async with connect() as client:
        writer = _writer(client, settings)
        while True:
            try:
                async with asyncio.timeout(REFRESH_SECONDS * random.uniform(0.8, 1.0)):  # noqa: S311
                    await subnet.news.wait()
            except TimeoutError:
                written = None
            subnet.news.clear()
            standing = subnet.standing()
            if standing is None and demand is None:
                continue
            if standing is not None:
                standing = said = steady(standing, said)
            report = MinerReport(
                pod=pod, subnet=standing, tasks=(claims()[:MAX_TASKS] or None) if standing is not None else None,
                demand=demand.report() if demand is not None else None,
            )  # fmt: skip
            if report == written:
                continue
            if await _write(writer, report, seconds=_WRITE_SECONDS):
                written = report
                backoff.reset()
            else:
                await asyncio.sleep(backoff.next())
                subnet.news.set()


async def report_refusal(
    settings: Settings, refused: WalletRefused, *, connect: Callable[[], ClusterClient] = ClusterClient
) -> None:
    """Say why this miner ends, as its last word; tried once."""
    pod = _pod(settings)
    if pod is None or settings.subnet is None:
        return
    said = SubnetReport(
        registration=refused.registration, message=str(refused)[:MAX_MESSAGE], netuid=settings.subnet.netuid
    )
    try:
        async with connect() as client:
            await _write(_writer(client, settings), MinerReport(pod=pod, subnet=said), seconds=_LAST_WORD_SECONDS)
    except ClusterAccessError as error:
        log.warning("nobody can be told: %s", error)


def steady(now: SubnetReport, before: SubnetReport | None) -> SubnetReport:
    """Return what was said before where only the words for one and the same outage differ: each try may have others."""
    unreachable = before is not None and before.registration is Registration.CHAIN_UNREACHABLE
    if before is not None and unreachable and now.model_copy(update={"message": before.message}) == before:
        return before
    return now


def _pod(settings: Settings) -> PodRef | None:
    """Whose report it is; None outside a cluster, where there is nobody to tell."""
    subnet = settings.subnet
    if subnet is None or subnet.pod_name is None or subnet.pod_uid is None or settings.tables_dir is not None:
        return None
    return PodRef(name=subnet.pod_name, uid=subnet.pod_uid)


def _writer(client: ClusterClient, settings: Settings) -> PodReportWriter:
    return PodReportWriter(client, namespace=settings.namespace, labels=paths.miner_report_labels(settings.pool))


async def _write(writer: PodReportWriter, report: MinerReport, *, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await writer.write(report)
    except (ClusterError, ClusterAccessError, aiohttp.ClientError, OSError, TimeoutError) as error:
        log.warning("the report can't be written: %s: %s; serving goes on", type(error).__name__, error)
        return False
    return True
