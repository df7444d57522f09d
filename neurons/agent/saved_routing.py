"""The last routing on the pod's disk, so that an agent that starts again serves without the API server."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Final

import orjson

log = logging.getLogger(__name__)

MAX_BYTES: Final = 64 * 1024 * 1024
"""Far more than a pool of 10,000 twins has; what is larger is not ours."""


def load_routing(path: Path) -> dict[str, Any] | None:
    """Return what `save_routing` wrote; None when there is nothing usable. Blocks."""
    try:
        if path.stat().st_size > MAX_BYTES:
            log.warning("%s has over %d bytes and is not read", path, MAX_BYTES)
            return None
        document = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        log.warning("%s is not usable: %s", path, error)
        return None
    return document if isinstance(document, dict) else None


def save_routing(path: Path, document: dict[str, Any] | None) -> None:
    """Write it by renaming, so that there is always a whole one. Blocks; failing is logged."""
    if document is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_bytes(orjson.dumps(document))
        os.replace(partial, path)
    except OSError as error:
        log.warning("%s can't be written: %s; a restart needs the API server", path, error)
