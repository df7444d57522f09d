"""Delivers a task's version to the validator that offered the task, for its own examination.

By the dataset's address, which opens this too: a trainer holds no other key. It sends; nobody fetches from a miner, so
no validator ever asks an address that a miner named. What can't be delivered fails no run: the version is made; but a
validator that examines versions takes a task for finished only with it, and that is said.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import orjson
from yarl import URL

from bettertherapy_api.manifest import MANIFEST_FILE, AdapterManifest
from neurons.cluster import Backoff
from neurons.outside import ForbiddenAddress, TooLong, check_url, outside_session, read_bounded
from neurons.store import DEFAULT_LIMITS, Limits, Location, StoreError, open_store, parse_manifest
from neurons.wire.task_places import TaskError, adapter_url

SECONDS: Final = 900.0
"""For one file."""
PATIENCE_SECONDS: Final = 300.0
_MOST_MANIFEST: Final = 4 * 1024 * 1024
_ANSWER_BYTES: Final = 64 * 1024
_PASSING: Final = frozenset({408, 409, 425, 429})
"""409: the miner has not yet told the validator that it took the task."""


class NotDelivered(Exception):  # noqa: N818 - said of a version
    """The validator doesn't have it; the message is a sentence without the address."""

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.again = again


async def deliver(
    uri: str, digest: str, dataset: str, *, loopback: bool = False, patience: float = PATIENCE_SECONDS,
    limits: Limits = DEFAULT_LIMITS, pvc_dir: Path | None = None,
) -> None:  # fmt: skip
    """Send the adapter at `uri` to the gateway that gave the dataset, again while that may help. Raises NotDelivered.

    `loopback`: the gateway may be on this machine, as in tests.
    """
    try:
        url = adapter_url(dataset)
        check_url(url, loopback=loopback)
        location = open_store(uri, limits=limits, pvc_dir=pvc_dir)
        data = await location.read(MANIFEST_FILE, at_most=_MOST_MANIFEST)
        manifest = parse_manifest(data or b"", uri=uri)
    except (TaskError, ForbiddenAddress, StoreError) as error:
        raise NotDelivered(f"{error}", again=False) from None
    backoff, ends = Backoff(first=1.0, most=30.0), time.monotonic() + patience
    async with outside_session(loopback=loopback, seconds=SECONDS) as session:
        while True:
            try:
                await _all(session, url.update_query(adapter=digest), location, manifest, data or b"")
            except NotDelivered as error:
                pause = backoff.next()
                if not error.again or time.monotonic() + pause > ends:
                    raise
                await asyncio.sleep(pause)
            else:
                return


async def _all(
    session: aiohttp.ClientSession, url: URL, location: Location, manifest: AdapterManifest, data: bytes
) -> None:
    missing = await _put(session, url.update_query(file=MANIFEST_FILE), data)
    for entry in manifest.files:
        if entry.path in missing:
            where = url.update_query(file=entry.path)
            missing = await _put(session, where, _bytes_of(location, entry.path), size=entry.size)
    if missing:
        raise NotDelivered("the validator lacks a file that was sent to it", again=True)


async def _bytes_of(location: Location, name: str) -> AsyncIterator[bytes]:
    result = await location.get(name)
    async for chunk in location.chunks(result, name=name):
        yield chunk


async def _put(
    session: aiohttp.ClientSession, url: URL, data: bytes | AsyncIterator[bytes], *, size: int | None = None
) -> frozenset[str]:
    """Send one file; returns which the validator still lacks. Raises NotDelivered."""
    headers = {"Content-Type": "application/octet-stream", **({"Content-Length": str(size)} if size else {})}
    try:
        async with session.put(url, data=data, headers=headers, allow_redirects=False) as response:
            status, body = response.status, await read_bounded(response, _ANSWER_BYTES)
    except StoreError as error:
        raise NotDelivered(f"{error}", again=error.retryable) from None
    except TooLong as error:
        raise NotDelivered(f"the gateway's answer can't be taken: {error}", again=False) from None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        # Not its words: they may hold the address.
        raise NotDelivered(f"the gateway can't be reached ({type(error).__name__})", again=True) from None
    try:
        said = orjson.loads(body)
        if status == 200:
            return frozenset(map(str, said["missing"]))
        words = str(said["error"]["message"])[:300]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        words = "nothing that can be read"
    words = "".join(each for each in words if each.isprintable())
    raise NotDelivered(f"the gateway answered {status}: {words}", again=status in _PASSING or status >= 500)
