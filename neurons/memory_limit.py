"""How much memory a process may have, by its control group, and how much of that requests may hold."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

_MEBIBYTE: Final = 1024 * 1024
CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
REQUEST_MEMORY_BYTES: Final = 128 * _MEBIBYTE
"""Where nothing limits the process."""
LEAST_REQUEST_MEMORY_BYTES: Final = 24 * _MEBIBYTE


def cgroup_limit() -> int | None:
    """Return the bytes that the process's control group may have; None where it has no limit or none is told."""
    try:
        text = CGROUP_LIMIT.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def request_memory(limit: int | None, *, beside: int) -> int:
    """Return what requests may hold of a process that may have `limit` bytes, `beside` of them for everything else.

    Two thirds of what is left: Python gives freed memory back in whole arenas only.
    """
    if limit is None:
        return REQUEST_MEMORY_BYTES
    return min(16 * REQUEST_MEMORY_BYTES, max(LEAST_REQUEST_MEMORY_BYTES, (limit - beside) * 2 // 3))


def limit_of(text: str) -> int:
    """Read a limit from a command line; raises ArgumentTypeError for one in which no process here starts."""
    value = int(text)
    if value < 64 * _MEBIBYTE:
        raise argparse.ArgumentTypeError(f"{text} bytes are too few: a process takes 64 MiB before anybody asks")
    return value
