"""A judge's endpoint that the tests of judging share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from neurons.scoring.judge import endpoint as endpoint_module
from tests.unit.scoring.grader import StandIn


@pytest.fixture
async def standin(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StandIn]:
    monkeypatch.setattr(endpoint_module, "_FIRST_PAUSE", 0.01)
    found = StandIn()
    app = web.Application(client_max_size=8 << 20)
    app.router.add_post("/v1/chat/completions", found.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.base = site.name
    yield found
    await runner.cleanup()
