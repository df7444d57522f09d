"""One ConfigMap, followed through the API server: a mounted one reaches a pod up to a minute late, a watch at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
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


class ConfigMapWatch:
    """The data of one ConfigMap: iterate to get each new state, read `data` for the last known one.

    The iteration never ends and never raises for a broken connection: it reconnects (pauses of 0.2 to 10 s) and goes
    on from where it was. A deleted ConfigMap yields nothing, so whoever serves from it keeps serving. Only one
    iteration at a time.

        async with ClusterClient() as client:
            async for data in ConfigMapWatch(client, namespace="clinic", name="pool-routing"):
                ...
    """

    def __init__(
        self,
        client: ClusterClient,
        *,
        namespace: str,
        name: str,
        watch_seconds: int = WATCH_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
        backoff: Backoff | None = None,
    ) -> None:
        self._client = client
        self._path = f"/api/v1/namespaces/{namespace}/configmaps"
        self._selector = {"fieldSelector": f"metadata.name={name}"}
        self._label = f"{namespace}/{name}"
        self._watch_seconds = watch_seconds
        self._silence_seconds = silence_seconds
        self._backoff = backoff or Backoff()
        self.data: Mapping[str, str] | None = None
        """Last known data; None until the ConfigMap has been seen once."""
        self.connected = False
        """Whether the watch is open now; False means `data` may be old."""
        self.exists = False
        """Whether the ConfigMap was there when we last could look."""

    async def __aiter__(self) -> AsyncIterator[Mapping[str, str]]:
        version: str | None = None
        while True:
            try:
                if version is None:
                    document = await self._client.get(self._path, self._selector)
                    version = str(document["metadata"]["resourceVersion"])
                    items = document.get("items") or []
                    self.exists = bool(items)
                    if items and self._take(items[0]):
                        yield self.data or {}
                async for event in self._events(version):
                    self._backoff.reset()
                    kind, thing = event["type"], event["object"]
                    version = str(thing["metadata"]["resourceVersion"])
                    if kind == "DELETED":
                        self.exists = False
                        log.warning("ConfigMap %s is gone; keeping its last known content", self._label)
                    elif kind in ("ADDED", "MODIFIED"):
                        self.exists = True
                        if self._take(thing):
                            yield self.data or {}
                # The server ends each watch by itself: go on from the version we have, but not in a tight loop.
                pause = self._backoff.next()
            except (
                ClusterError, ClusterAccessError, aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError,
            ) as error:  # fmt: skip
                if isinstance(error, ClusterError):
                    version = None  # 410: too old a version. Anything else: a fresh list is never wrong.
                pause = self._backoff.next()
                log.warning(
                    "watch of ConfigMap %s broke (%s: %s); retrying in %.1f s with the last known content",
                    self._label, type(error).__name__, error, pause,
                )  # fmt: skip
            finally:
                self.connected = False
            await asyncio.sleep(pause)

    def _take(self, configmap: dict[str, Any]) -> bool:
        data: dict[str, str] = configmap.get("data") or {}
        changed = data != self.data
        self.data = data
        return changed

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
            buffer = b""
            async for chunk in response.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                if len(buffer) > MAX_RESPONSE_BYTES:
                    raise ValueError(f"a watch event is larger than {MAX_RESPONSE_BYTES} bytes")
                for line in lines:
                    if line.strip():
                        yield _event(line)


def _event(line: bytes) -> dict[str, Any]:
    event: dict[str, Any] = orjson.loads(line)
    if event["type"] == "ERROR":
        status = event["object"]
        raise ClusterError(int(status.get("code", 500)), str(status.get("reason", "")), str(status.get("message", "")))
    return event
