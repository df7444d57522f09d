"""Reads miners' speed from Prometheus, if what stands there is fresh."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import orjson

from bettertherapy_api.metrics import gateway
from neurons.ledger.records import Miner
from neurons.validator.rounds.speed import Series, Speed, speeds

WINDOW: Final = "24h"
FRESH_SECONDS: Final = 300.0
MAX_BYTES: Final = 32 << 20
_AGE: Final = f"time() - max(timestamp({gateway.MINER_ANSWERS.name}))"
_BUCKETS: Final = f"sum by (hotkey, registered, le) (increase({gateway.MINER_SECONDS.bucket}[{WINDOW}]))"
_ATTEMPTS: Final = f"sum by (hotkey, registered, outcome) (increase({gateway.MINER_ANSWERS.name}[{WINDOW}]))"
QUERIES: Final = (_AGE, _BUCKETS, _ATTEMPTS)
"""All that a round asks Prometheus."""


@dataclass(frozen=True, slots=True)
class Readings:
    """What was read of all miners, and whether it counts."""

    fresh: bool
    message: str
    """How old it is, or why there is nothing."""
    of: Mapping[Miner, Speed] = field(default_factory=dict)


class MetricsError(Exception):
    """Prometheus can't be asked; the message says why."""


async def read_speeds(url: str | None, *, session: aiohttp.ClientSession, seconds: float = 20.0) -> Readings:
    """Return every miner's speed. Whatever fails or is stale leaves it unknown, and says so; nothing raises."""
    if url is None:
        return Readings(False, "no Prometheus is named, so nobody's speed is known")
    try:
        age = [each.value for each in await _query(url, _AGE, session, seconds)]
        if not age:
            return Readings(False, f"{_shown(url)} has no metrics of this validator's gateways")
        if not age[0] <= FRESH_SECONDS:
            return Readings(False, f"the newest metrics are {age[0]:.0f} s old, {FRESH_SECONDS:.0f} are allowed")
        buckets = await _query(url, _BUCKETS, session, seconds)
        attempts = await _query(url, _ATTEMPTS, session, seconds)
    except MetricsError as error:
        return Readings(False, str(error))
    return Readings(True, f"the newest metrics are {max(0.0, age[0]):.0f} s old", speeds(buckets, attempts))


async def _query(url: str, promql: str, session: aiohttp.ClientSession, seconds: float) -> list[Series]:
    where = _shown(url)
    try:
        async with (
            asyncio.timeout(seconds),
            session.post(f"{url.rstrip('/')}/api/v1/query", data={"query": promql}, allow_redirects=False) as response,
        ):
            body = await response.content.read(MAX_BYTES)
            while len(body) < MAX_BYTES and (more := await response.content.read(MAX_BYTES - len(body))):
                body += more
            status = response.status
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise MetricsError(f"{where} doesn't answer ({type(error).__name__})") from None
    try:
        answer: Any = orjson.loads(body)
        if answer["status"] != "success":
            raise MetricsError(f"{where} refuses a query ({answer.get('errorType')})")
        read = [Series(dict(each["metric"]), float(each["value"][1])) for each in answer["data"]["result"]]
    except (ValueError, KeyError, TypeError, IndexError):
        raise MetricsError(f"{where} doesn't answer as a Prometheus (HTTP {status})") from None
    return [each for each in read if math.isfinite(each.value)]


def _shown(url: str) -> str:
    """Return an address without what may be a password."""
    return f"Prometheus at {url.rpartition('@')[2].removeprefix('http://').removeprefix('https://')[:100]}"
