"""Where the tables come from: the pool's RoutingSlices and PodReports, or a folder with the same objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from pathlib import Path

from neurons.cluster import ClusterClient, Event, FolderWatch, ObjectWatch, paths
from neurons.miner.tables import Tables


async def follow_cluster(tables: Tables, *, pool: str, namespace: str) -> None:
    """Feed the tables from the API server for ever; a broken watch leaves them as they are."""
    async with ClusterClient() as client:
        slices = ObjectWatch(client, path=paths.routing_slices(namespace), labels=paths.routing_labels(pool))
        reports = ObjectWatch(client, path=paths.pod_reports(namespace), labels=paths.report_labels(pool))
        await _follow(tables, slices=slices, reports=reports)


async def follow_folder(tables: Tables, directory: Path) -> None:
    """Feed the tables from `slices/<name>.json` and `reports/<pod>.json` for ever. Write them by renaming."""
    await _follow(tables, slices=FolderWatch(directory / "slices"), reports=FolderWatch(directory / "reports"))


async def _follow(tables: Tables, *, slices: AsyncIterable[Event], reports: AsyncIterable[Event]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_feed(slices, tables.hear_routing))
        group.create_task(_feed(reports, tables.hear_reports))


async def _feed(events: AsyncIterable[Event], hear: Callable[[Event], Awaitable[None]]) -> None:
    async for event in events:
        await hear(event)
