"""Brings the lessons of the twins that are routed from the engine pods' agents, which have access to the store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from bettertherapy_api import names
from neurons.lessons import LessonsError, read_lessons
from neurons.lessons.file import MAX_BYTES
from neurons.miner.lessons import Lessons
from neurons.miner.metrics import Metrics
from neurons.miner.tables import Pod, Snapshot
from neurons.pool_tokens import PoolTokens

log = logging.getLogger(__name__)

LAP_SECONDS: Final = 5.0
INDEX_PATH: Final = "/agent/v1/lessons"
MAX_INDEX_BYTES: Final = 4 * 1024 * 1024
REQUEST_SECONDS: Final = 10.0
FIRST_SECONDS: Final = 15.0
"""So long a miner that begins is not Ready for want of lessons, at most: answers do without them rather than stop."""
POLL_SECONDS: Final = 0.05
"""Until there is a pod to ask."""
_HEX: Final = frozenset("0123456789abcdef")


class LessonFeed:
    """Follows the agents of the ready pods."""

    def __init__(
        self,
        lessons: Lessons,
        metrics: Metrics,
        snapshot: Callable[[], Snapshot],
        *,
        lap_seconds: float = LAP_SECONDS,
        tokens: PoolTokens | None = None,
    ) -> None:
        """`tokens`: by which agents know this miner."""
        self._tokens = tokens
        self._lessons, self._metrics, self._snapshot, self._lap_seconds = lessons, metrics, snapshot, lap_seconds
        self._refused: dict[str, str] = {}
        """Digests of files that were no use, by UID: not fetched again."""
        self._looked = False
        self._began = time.monotonic()

    @property
    def waiting(self) -> bool:
        """Whether the twins' lessons are to come yet: until then the miner before this one answers better."""
        return not self._looked and self._has_pods() and time.monotonic() - self._began < FIRST_SECONDS

    def _has_pods(self) -> bool:
        return bool(self._snapshot().ready_pods)

    async def run(self) -> None:
        """Follow them for ever."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            while True:
                if not self._looked and not self._has_pods():
                    await asyncio.sleep(min(POLL_SECONDS, self._lap_seconds))
                    continue
                try:
                    await self._lap(session)
                    self._looked = True
                except Exception:  # what goes wrong with lessons must not end the miner
                    log.exception("lessons can't be followed")
                await asyncio.sleep(self._lap_seconds)

    async def _lap(self, session: aiohttp.ClientSession) -> None:
        snapshot = self._snapshot()
        uids = {twin.uid for twin in snapshot.twins.values() if twin.uid}
        for uid in self._lessons.uids() - uids:
            self._lessons.drop(uid)
        newest: dict[str, tuple[int, str, Pod] | None] = {}
        for pod in snapshot.ready_pods:
            for uid, said in (await self._index(session, pod)).items():
                if uid not in uids:
                    continue
                entry = (said[0], said[1], pod) if said is not None else None
                known = newest.get(uid)
                newest[uid] = entry if known is None or (entry is not None and entry[0] > known[0]) else known
        for uid, entry in newest.items():
            if entry is None:
                self._lessons.drop(uid)  # every pod that has looked says that there are none
            elif entry[1] not in (self._lessons.digest(uid), self._refused.get(uid)):
                await self._take(session, uid, entry[1], entry[2])

    async def _take(self, session: aiohttp.ClientSession, uid: str, digest: str, pod: Pod) -> None:
        data = await self._get(session, pod, f"{INDEX_PATH}/{digest.removeprefix('sha256:')}", at_most=MAX_BYTES)
        if data is None:
            return
        try:
            # Whatever an agent says: it is this twin's by its own first line, or nobody's.
            file = read_lessons(data, digest=digest, twin_uid=uid)
        except LessonsError as error:
            self._refused[uid] = digest
            self._metrics.lesson_errors.inc()
            log.error("lessons can't be used: %s", error, extra={"pod": pod.name, "twin_uid": uid})  # noqa: TRY400
            return
        self._refused.pop(uid, None)
        if not await self._lessons.put(file, digest):
            self._refused[uid] = digest

    async def _index(self, session: aiohttp.ClientSession, pod: Pod) -> dict[str, tuple[int, str] | None]:
        data = await self._get(session, pod, INDEX_PATH, at_most=MAX_INDEX_BYTES)
        try:
            document = orjson.loads(data) if data is not None else {}
        except orjson.JSONDecodeError:
            return {}
        twins = document.get("twins") if isinstance(document, dict) else None
        return {uid: _entry(entry) for uid, entry in twins.items()} if isinstance(twins, dict) else {}

    async def _get(self, session: aiohttp.ClientSession, pod: Pod, path: str, *, at_most: int) -> bytes | None:
        """Return what a pod's agent has there, None if it can't be had; an agent of the release before has nothing."""
        url: URL = pod.url.with_path(path)
        try:
            own = {} if self._tokens is None else {names.POOL_TOKEN_HEADER: self._tokens.header}
            async with session.get(url, allow_redirects=False, headers=own) as response:
                if response.status != 200:
                    return None
                data = bytearray()
                async for chunk in response.content.iter_any():
                    data += chunk
                    if len(data) > at_most:
                        return None
                return bytes(data)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None


def _entry(entry: Any) -> tuple[int, str] | None:
    if not isinstance(entry, dict):
        return None
    revision, digest = entry.get("revision"), entry.get("digest")
    if not isinstance(revision, int) or not isinstance(digest, str):
        return None
    hexadecimal = digest.removeprefix("sha256:")
    return (revision, digest) if len(hexadecimal) == 64 and set(hexadecimal) <= _HEX else None
