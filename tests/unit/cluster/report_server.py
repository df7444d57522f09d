"""An API server that keeps the one report that is written to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from neurons.cluster import ClusterClient


@dataclass
class ReportServer:
    """What is kept, and how it came."""

    url: str = ""
    report: dict[str, Any] | None = None
    writes: int = 0
    paths: list[str] = field(default_factory=list)
    """Of each write."""
    refuses: bool = False

    async def handle(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response(self.report or {"message": "none"}, status=200 if self.report else 404)
        if self.refuses:
            return web.json_response({"reason": "Forbidden", "message": "by policy"}, status=403)
        self.writes += 1
        self.paths.append(request.path)
        body = await request.json()
        if request.method == "POST":
            self.report = body
        elif self.report is None:
            return web.json_response({"reason": "NotFound", "message": "none"}, status=404)
        else:
            self.report = merged(self.report, body)
        return web.json_response({"kind": "PartialObjectMetadata"})

    def connect(self) -> ClusterClient:
        """Return a client of it."""
        return ClusterClient(Reached(self.url))  # type: ignore[arg-type]


def merged(before: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    after = dict(before)
    for key, value in patch.items():
        if value is None:
            after.pop(key, None)
        elif isinstance(value, dict) and isinstance(before.get(key), dict):
            after[key] = merged(before[key], value)
        else:
            after[key] = value
    return after


@dataclass(frozen=True)
class Reached:
    """How an API server is reached in tests."""

    server: str

    def headers(self) -> dict[str, str]:
        return {}

    def ssl_context(self) -> bool:
        return True


@asynccontextmanager
async def report_server() -> AsyncIterator[ReportServer]:
    """Run one."""
    kept = ReportServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", kept.handle)
    async with TestServer(app) as server:
        kept.url = str(server.make_url("")).rstrip("/")
        yield kept
