"""Keeps each twin's lessons, from the adapter store, for the pool's miners: they have no access to the store.

Looked for in the folders where the twin's adapters lie, and in the pool's own store. A twin's last good file stays,
also on disk, while the store is away; a store that says that there is none takes it away.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from bettertherapy_api.routing import TwinEntry
from neurons.lessons.file import MAX_BYTES, LessonsError, Pointer, digest_of, read_lessons
from neurons.lessons.shelf import fetch, look
from neurons.store import StoreError, join

log = logging.getLogger(__name__)

FOLDER: Final = ".lessons"
LAP_SECONDS: Final = 15.0
"""Between two looks at one twin's lessons."""
LOOK_SECONDS: Final = 0.02
"""Between looks at two twins': a thousand twins are no load for a store."""

Twins = Mapping[str, TwinEntry]
"""By UID."""


@dataclass(frozen=True, slots=True)
class _Kept:
    digest: str
    revision: int
    data: bytes


class LessonKeeper:
    """The lessons of the twins that the routing names."""

    def __init__(
        self,
        twins: Callable[[], Twins],
        *,
        folder: Path,
        store_uri: str | None,
        pvc_dir: Path | None = None,
        lap_seconds: float = LAP_SECONDS,
    ) -> None:
        self._twins, self._folder, self._store_uri, self._pvc_dir = twins, folder, store_uri, pvc_dir
        self._lap_seconds = lap_seconds
        self._kept: dict[str, _Kept] = {}
        self._said: dict[str, str] = {}
        self._looked: set[str] = set()

    async def run(self) -> None:
        """Look at every twin's lessons, again and again."""
        await asyncio.to_thread(self._load)
        while True:
            twins = dict(self._twins())
            for uid in self._kept.keys() - twins.keys():
                await self._forget(uid)
            self._looked &= twins.keys()
            for uid, twin in twins.items():
                await self._look(uid, twin)
                await asyncio.sleep(LOOK_SECONDS)
            await asyncio.sleep(self._lap_seconds)

    def index(self) -> bytes:
        """Return which lessons there are: of each twin that was looked at, digest and revision, or null for none."""
        twins = {
            uid: {"digest": kept.digest, "revision": kept.revision} if (kept := self._kept.get(uid)) else None
            for uid in self._looked | self._kept.keys()
        }
        return orjson.dumps({"twins": twins})

    def file(self, digest: str) -> bytes | None:
        """Return a file by its digest."""
        return next((kept.data for kept in self._kept.values() if kept.digest == digest), None)

    async def _look(self, uid: str, twin: TwinEntry) -> None:
        """Bring one twin's lessons up to date."""
        newest: tuple[str, Pointer] | None = None
        try:
            for uri in self._folders(twin):
                pointer = await look(uri, pvc_dir=self._pvc_dir)
                # A twin that took over a deleted one's name finds that one's lessons there: they aren't its own.
                if pointer is None or pointer.twin_uid != uid:
                    continue
                if newest is None or pointer.revision > newest[1].revision:
                    newest = uri, pointer
            if newest is None:
                await self._forget(uid)
            elif (kept := self._kept.get(uid)) is None or kept.digest != newest[1].digest:
                data, _ = await fetch(newest[0], newest[1], pvc_dir=self._pvc_dir)
                self._kept[uid] = _Kept(newest[1].digest, newest[1].revision, data)
                await asyncio.to_thread(self._save, uid, data)
            self._looked.add(uid)
            self._said.pop(uid, None)
        except (StoreError, LessonsError, OSError) as error:
            said = f"{type(error).__name__}: {error}"
            if self._said.get(uid) != said:
                log.warning("lessons of %s: %s", twin.name, error)
            self._said[uid] = said
        except Exception:  # what goes wrong with lessons must not end the agent, and all answers with it
            log.exception("lessons of %s can't be looked at", twin.name)

    def _folders(self, twin: TwinEntry) -> list[str]:
        """Return where the twin's files lie: `<store>/<twin>`."""
        folders = [join(self._store_uri, twin.name)] if self._store_uri else []
        folders += [adapter.uri.rstrip("/").rpartition("/")[0] for adapter in twin.adapters]
        return list(dict.fromkeys(uri for uri in folders if uri.endswith(f"/{twin.name}")))

    async def _forget(self, uid: str) -> None:
        if uid in self._kept:
            # The file goes first: whoever hears that nothing is kept may rely on it.
            await asyncio.to_thread(self._path(uid).unlink, missing_ok=True)
            del self._kept[uid]

    def _path(self, uid: str) -> Path:
        return self._folder / f"{uid}.jsonl"

    def _save(self, uid: str, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f"{uid}.part"
        part.write_bytes(data)
        os.replace(part, self._path(uid))

    def _load(self) -> None:
        """Take up what an earlier agent of this pod kept, as far as it is whole."""
        for path in sorted(self._folder.glob("*.jsonl")) if self._folder.is_dir() else []:
            try:
                with path.open("rb") as file:
                    data = file.read(MAX_BYTES + 1)
                kept = read_lessons(data, digest=digest_of(data), twin_uid=path.stem)
            except (LessonsError, OSError) as error:
                log.warning("%s isn't used: %s", path, error)
                continue
            self._kept[path.stem] = _Kept(digest_of(data), kept.revision, data)
