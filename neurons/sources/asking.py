"""Asks one web service: at its own pace, again after a pause when that can help, and never longer than there is time.

The pace is one process': where several ask a service from one address, share its limit out among them.
What is raised names the service and what happened; never the address, which holds the claim and may hold a key.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp

from neurons.sources.errors import NoAnswer, RateLimited

MAX_BYTES: Final = 4 << 20
"""Of one answer, unpacked."""
ATTEMPTS: Final = 3
_FIRST_PAUSE: Final = 0.25
_AGENT: Final = "bettertherapy-sources/1"
_LONGEST_WAIT: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service answered."""

    body: bytes
    none: bool = False
    """Its status says that nothing was found; its body has to say so too."""


class Service:
    """One service's address, pace and patience; shared by all tasks that ask it."""

    def __init__(self, *, name: str, base: str, per_second: float, params: Mapping[str, str] | None = None,
                 busy: frozenset[int] = frozenset({429, 503}), none: frozenset[int] = frozenset()) -> None:  # fmt: skip
        """`busy`: statuses that ask to wait; `none`: those that say that nothing was found."""
        self._name = name
        self._base = base.rstrip("/")
        self._gap = 1 / per_second
        self._params = dict(params or {})
        self._busy, self._none = busy, none
        self._next = 0.0
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, params: Mapping[str, str], *, until: float) -> Reply:
        """Return an answer before `until`, in time.monotonic's seconds. Raises NoAnswer, RateLimited."""
        why = "it could not be reached"
        for attempt in range(ATTEMPTS):
            await self._turn(until)
            pause = _FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1)  # noqa: S311 - jitter is no secret
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    return await self._once(path, params)
            except TimeoutError:
                raise NoAnswer(f"{self._name} had no answer within its time") from None
            except RateLimited as limited:
                pause = max(pause, limited.seconds)
                self._next = max(self._next, time.monotonic() + pause)  # for all who ask it
                if time.monotonic() + pause >= until:
                    raise
                why = "it asks to wait"
            except _AgainError as error:
                why = str(error)
            except (aiohttp.ClientError, OSError):
                why = "it could not be reached, or broke off"
            if time.monotonic() + pause >= until:
                break
            await asyncio.sleep(pause)
        raise NoAnswer(f"{self._name}: {why}")

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _turn(self, until: float) -> None:
        """Wait for the next moment at which the service's terms let it be asked."""
        now = time.monotonic()
        at = max(now, self._next)
        if at >= until:
            raise RateLimited(f"{self._name} may not be asked again before the time is over", seconds=at - now)
        self._next = at + self._gap
        await asyncio.sleep(at - now)

    async def _once(self, path: str, params: Mapping[str, str]) -> Reply:
        if self._session is None:
            # cookies and redirects to elsewhere are no part of any of these services
            self._session = aiohttp.ClientSession(headers={"User-Agent": _AGENT}, cookie_jar=aiohttp.DummyCookieJar())
        async with self._session.get(f"{self._base}/{path}", params=self._params | dict(params), allow_redirects=False,
                                     timeout=aiohttp.ClientTimeout(total=None)) as answer:  # fmt: skip
            if answer.status in self._none:
                return Reply(await self._whole(answer), none=True)
            if answer.status in self._busy:
                seconds = _seconds(answer.headers.get("Retry-After"))
                raise RateLimited(f"{self._name} asks to wait {seconds:.0f} s", seconds=seconds)
            if answer.status >= 500:
                raise _AgainError(f"it fails (status {answer.status})")
            if answer.status != 200:
                raise NoAnswer(f"{self._name} refuses the request (status {answer.status})")
            return Reply(await self._whole(answer))

    async def _whole(self, answer: aiohttp.ClientResponse) -> bytes:
        read = bytearray()
        async for part in answer.content.iter_chunked(1 << 16):
            read += part
            if len(read) > MAX_BYTES:
                raise NoAnswer(f"{self._name} answers more than {MAX_BYTES >> 20} MiB, which is not read")
        return bytes(read)


class _AgainError(Exception):
    """The service failed in a way that may pass."""


def _seconds(told: str | None) -> float:
    """Return what Retry-After says, in seconds; 1 where it says nothing that can be read."""
    if told is None:
        return 1.0
    if told.strip().isdecimal():
        return min(float(told.strip()[:9]), _LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(told)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return min(max(0.0, (at - datetime.now(UTC)).total_seconds()), _LONGEST_WAIT)
    except (ValueError, OverflowError):
        return 1.0
