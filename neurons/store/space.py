"""Room on a disk, promised before it is filled: fetches that run side by side can't together overfill it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from neurons.store.errors import NoSpace

SPARE_BYTES: Final = 1024 * 1024


class Reservation:
    """A promise of room; what was written counts no longer, since the disk itself counts it."""

    def __init__(self, size: int) -> None:
        self.left = size

    def wrote(self, size: int) -> None:
        """Tell that so many bytes are on the disk."""
        self.left = max(0, self.left - size)


_lock: Final = threading.Lock()
_promised: Final[dict[int, list[Reservation]]] = {}
"""What is promised, by the file system's device number."""


@contextmanager
def reserved(folder: Path, size: int) -> Iterator[Reservation]:
    """Hold `size` bytes on the disk of `folder` for as long as the context lasts. Raises NoSpace, OSError; may "
    "block."""
    device = folder.stat().st_dev
    promise = Reservation(size)
    with _lock:
        others = _promised.setdefault(device, [])
        free, taken = shutil.disk_usage(folder).free, sum(other.left for other in others)
        if free - taken < size + SPARE_BYTES:
            promised = f", {taken} of them promised to other adapters" if taken else ""
            raise NoSpace(
                f"{folder}: the adapter needs {size} bytes, {free} are free{promised}. Enlarge the pod's adapter "
                "volume or remove twins from the pool."
            )
        others.append(promise)
    try:
        yield promise
    finally:
        with _lock:
            others.remove(promise)
