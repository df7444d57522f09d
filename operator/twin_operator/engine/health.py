"""/healthz, /readyz and /metrics of the operator."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from twin_operator.engine.metrics import REGISTRY

Problem = Callable[[], str | None]

_SILENT: Final = logging.getLogger("aiohttp.server.silent")
"""aiohttp's own errors quote what it couldn't read of a request: whoever reaches this port would write into the log."""
_SILENT.disabled = True


@asynccontextmanager
async def serve_health(*, host: str, port: int, unhealthy: Problem, unready: Problem) -> AsyncIterator[int]:
    """Serve until the block ends; yields the port. `unhealthy` and `unready` return what is wrong, or None.

    /healthz 503 makes the kubelet restart the operator, so it speaks of what a restart mends (a loop that hangs), never
    of an API server that can't be reached. /readyz: the caches are filled; a standby is ready too.
    """

    def probe(problem: Problem) -> Callable[[web.Request], object]:
        async def answer(_: web.Request) -> web.Response:
            wrong = problem()
            return web.Response(text=wrong or "ok", status=503 if wrong else 200)

        return answer

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", probe(unhealthy))  # type: ignore[arg-type]
    app.router.add_get("/readyz", probe(unready))  # type: ignore[arg-type]
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None, logger=_SILENT)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, shutdown_timeout=1.0)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
