"""Where the tables come from: two ConfigMaps, or a folder with the same documents."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from bettertherapy_api import names
from neurons.cluster import ClusterClient, ConfigMapWatch
from neurons.miner.tables import Tables

log = logging.getLogger(__name__)

FOLDER_POLL_SECONDS: Final = 0.1


async def follow_cluster(tables: Tables, *, pool: str, namespace: str) -> None:
    """Feed the tables from the pool's ConfigMaps for ever; a broken watch leaves them as they are."""
    async with ClusterClient() as client, asyncio.TaskGroup() as group:
        group.create_task(_routing(tables, ConfigMapWatch(client, namespace=namespace, name=names.routing_name(pool))))
        group.create_task(_reports(tables, ConfigMapWatch(client, namespace=namespace, name=names.report_name(pool))))


async def _routing(tables: Tables, watch: ConfigMapWatch) -> None:
    async for data in watch:
        tables.set_routing(data)


async def _reports(tables: Tables, watch: ConfigMapWatch) -> None:
    async for data in watch:
        tables.set_reports(data)


async def follow_folder(tables: Tables, directory: Path) -> None:
    """Feed the tables from `routing.json` and `report/<pod>.json` for ever. Write them by renaming."""
    seen_routing: dict[str, str] | None = None
    seen_reports: dict[str, str] | None = None
    while True:
        routing = _read(directory, names.ROUTING_KEY, key=names.ROUTING_KEY)
        reports = _read(directory / "report", "*.json")
        if routing and routing != seen_routing:
            seen_routing = routing
            tables.set_routing(routing)
        if reports is not None and reports != seen_reports:
            seen_reports = reports
            tables.set_reports(reports)
        await asyncio.sleep(FOLDER_POLL_SECONDS)


def _read(directory: Path, pattern: str, *, key: str | None = None) -> dict[str, str] | None:
    if not directory.is_dir():
        return None
    try:
        return {key or path.stem: path.read_text() for path in sorted(directory.glob(pattern))}
    except OSError as error:
        log.warning("%s can't be read, keeping what is known: %s", directory, error)
        return None
