"""`python -m neurons.ledger.beside`: brings a queue into the ledger, beside the process that appends (see `writer`).

It ends when its standard input does, and so never outlives the other, whatever became of that one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from neurons.ledger.database import Database
from neurons.ledger.draining import Drain
from neurons.ledger.ledger import Ledger
from neurons.ledger.spool import Position, Spool
from neurons.ledger.writer import BEAT_SECONDS, to_list, to_mark

_MAX_LINE: Final = 1 << 20
_LEAVE_SECONDS: Final = 5.0
"""So long closing may take: nothing is lost by ending in the middle of a transaction."""
_POOL: Final = 2
"""Connections: one writes."""


async def main() -> int:
    """Run until the input ends; returns the exit status."""
    reader = asyncio.StreamReader(limit=_MAX_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    first = await reader.readline()
    if not first:
        return 0
    given = orjson.loads(first)
    spool = await asyncio.to_thread(Spool.taking, Path(given["folder"]), to_mark(given["appended"]))
    ledger = Ledger(Database(given["url"], timeout_seconds=given["timeout"], pool=_POOL))

    def tell(answers: bool | None = None) -> None:
        _say({"taken": to_list(spool.taken), "setAside": drain.set_aside, "answers": answers, "why": drain.why})

    drain = Drain(ledger, spool, recorded_from=Position(*given["recordedFrom"]), changed=tell)
    drain.wake(hurried=given["hurried"])
    tasks = [
        asyncio.create_task(drain.run()),
        asyncio.create_task(_hear(reader, spool, drain)),
        asyncio.create_task(_beat(tell)),
    ]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await asyncio.gather(*tasks, return_exceptions=True)
                await ledger.close()
    return 0


async def _hear(reader: asyncio.StreamReader, spool: Spool, drain: Drain) -> None:
    while line := await reader.readline():
        said = orjson.loads(line)
        spool.was_appended(to_mark(said["appended"]))
        drain.wake(hurried=said["hurried"], look=said["look"])


async def _beat(tell: Callable[[], None]) -> None:
    while True:
        tell()
        await asyncio.sleep(BEAT_SECONDS)


def _say(said: dict[str, Any]) -> None:
    # To a pipe so little is written at once, or not at all.
    os.write(1, orjson.dumps(said) + b"\n")


class _Told(logging.Handler):
    """Lets the other process log it, in its form and by its level."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            _say({"logged": [record.levelno, record.name, record.getMessage()]})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, handlers=[_Told()], force=True)
    try:
        status = asyncio.run(main())
    except BrokenPipeError:  # the other has ended
        status = 0
    sys.stderr.flush()
    os._exit(status)  # threads that still wait for a database hold up nothing
