"""The port for Prometheus: `/metrics` and nothing else. Series name the twins, and ports beside it may be public."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST

from neurons.http_server import HttpServer

PATH: Final = "/metrics"
LAST_BYTES_SECONDS: Final = 1.0
MOST_CONNECTIONS: Final = 64


class MetricsPort:
    """Use as `async with MetricsPort(...) as port`; it listens until the block ends."""

    def __init__(
        self,
        render: Callable[[], Awaitable[bytes]],
        *,
        host: str | None,
        port: int,
        content_type: str = CONTENT_TYPE_LATEST,
    ) -> None:
        """`render` makes the page, once at a time: for all who ask meanwhile. `port` 0 takes a free one."""
        self._render, self._host, self._content_type = render, host, content_type
        self.port = port
        """Where it listens, once it does."""
        self._page: asyncio.Task[bytes] | None = None
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
        if self._page is not None:
            self._page.cancel()
            await asyncio.gather(self._page, return_exceptions=True)

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        if request.path != PATH:
            return web.Response(status=404, text=f"there is nothing here but {PATH}\n")
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            return web.Response(status=405, text=f"use GET for {PATH}\n", headers={hdrs.ALLOW: "GET, HEAD"})
        # With a thousand twins it takes a tenth of a second: one page is made at a time, for all who ask meanwhile.
        if self._page is None or self._page.done():
            self._page = asyncio.ensure_future(self._render())
        page = await asyncio.shield(self._page)
        return web.Response(body=page, headers={hdrs.CONTENT_TYPE: self._content_type})
