"""Objects that lie as JSON files in a folder, followed as a watch would: to run and test without Kubernetes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import orjson

from neurons.cluster.object_watch import Event, Listed

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.1


class FolderWatch:
    """Iterate to get all objects whenever a file changed; write them by renaming. No folder, no event."""

    def __init__(self, folder: Path, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._folder = folder
        self._poll_seconds = poll_seconds
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self._objects: dict[Path, Any] = {}

    async def __aiter__(self) -> AsyncIterator[Event]:
        first = True
        while True:
            if self._folder.is_dir() and (self._look() or first):
                first = False
                yield Listed(list(self._objects.values()))
            await asyncio.sleep(self._poll_seconds)

    def _look(self) -> bool:
        """Read what changed; tell whether anything did. A file that is no JSON leaves what it had before."""
        changed = False
        paths = set(self._folder.glob("*.json"))
        for path in self._seen.keys() - paths:
            del self._seen[path]
            self._objects.pop(path, None)
            changed = True
        for path in sorted(paths):
            try:
                stat = path.stat()
                state = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                if self._seen.get(path) == state:
                    continue
                self._seen[path] = state
                self._objects[path] = orjson.loads(path.read_bytes())
                changed = True
            except (OSError, orjson.JSONDecodeError) as error:
                log.warning("%s can't be read, keeping what it had: %s", path, error)
        return changed
