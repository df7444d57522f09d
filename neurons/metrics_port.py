"""The port for Prometheus: `/metrics` and nothing else. Series name the twins, and ports beside it may be public."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS

from neurons.http_server import HttpServer

PATH: Final = "/metrics"
LAST_BYTES_SECONDS: Final = 1.0
MOST_CONNECTIONS: Final = 64
_OPENMETRICS_TYPE: Final = "application/openmetrics-text"

_Render = Callable[[], Awaitable[bytes]]


class MetricsPort:
    """Use as `async with MetricsPort(...) as port`; it listens until the block ends."""

    def __init__(
        self,
        render: _Render,
        *,
        host: str | None,
        port: int,
        content_type: str = CONTENT_TYPE_LATEST,
        openmetrics: _Render | None = None,
    ) -> None:
        """`render` makes the page, once at a time: for all who ask meanwhile. `port` 0 takes a free one.

        `openmetrics` makes it for who says that it reads OpenMetrics; only that form can hold exemplars.
        """
        self._host = host
        self._plain = _Page(render, content_type)
        self._openmetrics = _Page(openmetrics, OPENMETRICS) if openmetrics is not None else None
        self.port = port
        """Where it listens, once it does."""
        self._runner = web.ServerRunner(
            HttpServer(self._handle, most_connections=MOST_CONNECTIONS, handler_cancellation=False),
            shutdown_timeout=LAST_BYTES_SECONDS,
        )

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self.port).start()
        except BaseException:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        for page in (self._plain, self._openmetrics):
            if page is not None:
                await page.cancel()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        if request.path != PATH:
            return web.Response(status=404, text=f"there is nothing here but {PATH}\n")
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            return web.Response(status=405, text=f"use GET for {PATH}\n", headers={hdrs.ALLOW: "GET, HEAD"})
        page = self._plain
        if self._openmetrics is not None and _OPENMETRICS_TYPE in request.headers.get(hdrs.ACCEPT, ""):
            page = self._openmetrics
        return web.Response(body=await page.made(), headers={hdrs.CONTENT_TYPE: page.content_type})


class _Page:
    """A page in one form. With a thousand twins it takes a tenth of a second: it is made for all who ask meanwhile."""

    def __init__(self, render: _Render, content_type: str) -> None:
        self._render, self.content_type = render, content_type
        self._under_way: asyncio.Future[bytes] | None = None

    async def made(self) -> bytes:
        """Return the page."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.ensure_future(self._render())
        return await asyncio.shield(self._under_way)

    async def cancel(self) -> None:
        """Stop making it."""
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)
