"""The sizes of the base model's modules, where its files or their headers are in this pod: read once, and kept."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

from neurons.store import StoreError
from neurons.store.base_model import folder_modules
from neurons.store.lora_tensors import BaseModules

log = logging.getLogger(__name__)


class BaseSizes:
    """What adapters are compared with before they are loaded."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = asyncio.Lock()
        self._read = folder is None
        self._known: BaseModules | None = None

    async def known(self) -> BaseModules | None:
        """Return the modules and their sizes; None where they can't be known, and measuring alone tells."""
        async with self._lock:
            if not self._read and self._folder is not None:
                self._known, self._read = await asyncio.to_thread(_modules, self._folder), True
            return self._known


def _modules(folder: Path) -> BaseModules | None:
    try:
        return replace(folder_modules(folder), other_names=True)
    except (StoreError, OSError) as error:
        log.warning("adapters can't be compared with the base model's sizes: %s", error)
        return None
