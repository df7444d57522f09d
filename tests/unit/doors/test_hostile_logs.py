"""Nothing of a request reaches a log, whatever it is made of: all processes that answer HTTP, run as they run."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.unit.doors.hostile_requests import CANARIES, NAME, hostile_requests
from tests.unit.doors.http_processes import Door, all_doors, asked

AT_ONCE = 48
PATIENCE_SECONDS = 1.5
WHOLE_ROUTES, SAMPLE = 2, 5
"""So many routes of each process get all requests, and the others one in so many."""
WAITS = -1
"""What it waits for was never sent."""


async def send(door: Door, request: bytes) -> int:
    try:
        return (await asked(door.port, request, seconds=PATIENCE_SECONDS))[0]
    except TimeoutError:
        return WAITS


async def leave_early(door: Door, request: bytes) -> None:
    """Send a part, or all, and leave at once."""
    for part in (request[: len(request) // 2], request):
        _, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(part)
        await writer.drain()
        writer.transport.abort()


def logs_in(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(errors="replace") for path in folder.glob("*.log")}


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
async def test_no_log_has_anything_of_a_request(tmp_path: Path, level: str) -> None:
    async with all_doors(tmp_path, level=level) as doors:
        statuses: dict[str, set[int]] = {}
        for door in doors.values():
            gate = asyncio.Semaphore(AT_ONCE)

            async def one(door: Door, request: bytes, gate: asyncio.Semaphore = gate) -> int:
                async with gate:
                    status = await send(door, request)
                    await leave_early(door, request)
                    return status

            requests = [
                request
                for at, (method, path) in enumerate(door.routes)
                for number, request in enumerate(hostile_requests(path, door.authorization, method=method))
                if at < WHOLE_ROUTES or (number + at) % SAMPLE == 0
            ]
            statuses[door.name] = set(await asyncio.gather(*(one(door, request) for request in requests)))
            whole = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-A: {NAME}\r\n\r\n".encode()
            assert await send(door, whole) in range(400, 500), "it still answers"
        logs = logs_in(tmp_path)
    assert all({400, 404} & each for each in statuses.values()), statuses
    assert {"agent", "miner", "gateway", "chain", "engine"} <= logs.keys()
    found = {
        name: [line[:300] for line in log.splitlines() if re.search("|".join(CANARIES), line, re.IGNORECASE)][:3]
        for name, log in logs.items()
        if name != "engine"  # the stand-in is no part of the product
    }
    assert not any(found.values()), found
    assert not [line for log in logs.values() for line in log.splitlines() if "Unhandled" in line]
    assert not [status for name, each in statuses.items() for status in each if status in (500, 502, 504)], statuses
