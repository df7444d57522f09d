"""Objects of one kind that bear some labels, followed through the API server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from neurons.cluster.access import ClusterAccessError
from neurons.cluster.backoff import Backoff
from neurons.cluster.client import MAX_RESPONSE_BYTES, ClusterClient, ClusterError

log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 240
SILENCE_SECONDS: Final = 75.0
"""Bookmarks come about once a minute; more silence than this means that the connection is dead."""
PAGE: Final = 10
"""Objects listed at once: a page is a MB or some, which takes milliseconds to parse."""


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects that exist now: what isn't among them is gone."""

    objects: list[Any]


@dataclass(frozen=True, slots=True)
class Put:
    """An object as it is now."""

    object: Any


@dataclass(frozen=True, slots=True)
class Gone:
    """An object that was deleted, as it was last."""

    object: Any


Event = Listed | Put | Gone


class ObjectWatch:
    """Iterate to get each event: at first everything that exists, then what changes.

    The iteration never ends and never raises for a broken connection: it reconnects (pauses of 0.2 to 10 s) and goes
    on from where it was, or lists anew where it can't. Until then whoever listens keeps what it has. Events keep the
    order in which the API server wrote. Only one iteration at a time.

        async with ClusterClient() as client:
            async for event in ObjectWatch(client, path=path, labels={names.LABEL_POOL: "pool"}):
                view.take(event)
    """

    def __init__(
        self,
        client: ClusterClient,
        *,
        path: str,
        labels: Mapping[str, str],
        page: int = PAGE,
        watch_seconds: int = WATCH_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
        backoff: Backoff | None = None,
    ) -> None:
        self._client = client
        self._path = path
        self._selector = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())}
        self._page = page
        self._watch_seconds = watch_seconds
        self._silence_seconds = silence_seconds
        self._backoff = backoff or Backoff()
        self.connected = False
        """Whether the watch is open now; False means that what is known may be old."""

    async def __aiter__(self) -> AsyncIterator[Event]:
        version: str | None = None
        while True:
            try:
                if version is None:
                    objects, version = await self._list()
                    yield Listed(objects)
                async for event in self._events(version):
                    self._backoff.reset()
                    kind, thing = event["type"], event["object"]
                    version = str(thing["metadata"]["resourceVersion"])
                    if kind == "DELETED":
                        yield Gone(thing)
                    elif kind in ("ADDED", "MODIFIED"):
                        yield Put(thing)
                # The server ends each watch by itself: go on from the version we have, but not in a tight loop.
                pause = self._backoff.next()
            except (
                ClusterError, ClusterAccessError, aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError,
                TypeError, AttributeError,
            ) as error:  # fmt: skip
                if isinstance(error, (ClusterError, ValueError, KeyError, TypeError, AttributeError)):
                    version = None  # 410: too old a version. Anything else: a fresh list is never wrong.
                pause = self._backoff.next()
                log.warning(
                    "watch of %s (%s) broke (%s: %s); retrying in %.1f s with what is known",
                    self._path, self._selector["labelSelector"], type(error).__name__, error, pause,
                )  # fmt: skip
            finally:
                self.connected = False
            await asyncio.sleep(pause)

    async def _list(self) -> tuple[list[Any], str]:
        objects: list[Any] = []
        params = {**self._selector, "limit": str(self._page)}
        while True:
            document = await self._client.get(self._path, params)
            objects += document.get("items") or []
            if not document["metadata"].get("continue"):
                return objects, str(document["metadata"]["resourceVersion"])
            params["continue"] = str(document["metadata"]["continue"])

    async def _events(self, version: str) -> AsyncIterator[dict[str, Any]]:
        params = {
            **self._selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(self._watch_seconds),
        }
        async with self._client.stream(self._path, params, silence_seconds=self._silence_seconds) as response:
            self.connected = True
            pieces: list[bytes] = []
            size = 0
            async for chunk in response.content.iter_any():
                # Collected, not added up: a large event arrives in many chunks.
                *lines, rest = chunk.split(b"\n")
                for line in lines:
                    pieces.append(line)
                    whole = b"".join(pieces)
                    pieces, size = [], 0
                    if whole.strip():
                        yield _event(whole)
                pieces.append(rest)
                size += len(rest)
                if size > MAX_RESPONSE_BYTES:
                    raise ValueError(f"a watch event is larger than {MAX_RESPONSE_BYTES} bytes")


def _event(line: bytes) -> dict[str, Any]:
    event: dict[str, Any] = orjson.loads(line)
    if event["type"] == "ERROR":
        status = event["object"]
        raise ClusterError(int(status.get("code", 500)), str(status.get("reason", "")), str(status.get("message", "")))
    return event
