"""Instant queries to a Prometheus over HTTP."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import orjson

from twin_operator.errors import PrometheusError


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One element of an instant vector."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """One Prometheus. Values that are no numbers (0/0) are left out: they were not measured."""

    def __init__(self, url: str, *, request_seconds: float) -> None:
        self._url = url.rstrip("/") + "/api/v1/query"
        self._timeout = aiohttp.ClientTimeout(total=request_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def query(self, promql: str) -> list[Sample]:
        """Return the instant vector; raises PrometheusError when Prometheus can't be reached or refuses."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            async with self._session.post(self._url, data={"query": promql}) as response:
                body = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise PrometheusError(f"{self._url} doesn't answer: {error or type(error).__name__}") from error
        try:
            answer = orjson.loads(body)
            if answer["status"] != "success":
                raise PrometheusError(f"{self._url} refuses a query: {answer.get('error')}")
            samples = [
                Sample(labels=dict(item["metric"]), value=float(item["value"][1])) for item in answer["data"]["result"]
            ]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise PrometheusError(f"{self._url} doesn't answer as a Prometheus (HTTP {response.status})") from error
        return [sample for sample in samples if math.isfinite(sample.value)]

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


async def query_all(prometheus: Prometheus, asked: Mapping[str, str]) -> dict[str, list[Sample]]:
    """Return the instant vectors of several queries by their names, all asked at once; raises as `query` does."""
    answers = await asyncio.gather(*(prometheus.query(promql) for promql in asked.values()))
    return dict(zip(asked, answers, strict=True))
