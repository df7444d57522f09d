"""The port for Prometheus has one page, and makes it once for all who ask meanwhile."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from neurons.metrics_port import MetricsPort


class Pages:
    """Counts the pages that are made; each waits until `go_on` is set."""

    def __init__(self) -> None:
        self.made = 0
        self.go_on = asyncio.Event()
        self.fails = False

    async def render(self) -> bytes:
        self.made += 1
        await self.go_on.wait()
        if self.fails:
            raise RuntimeError("no page")
        return b"twins 3\n"


def port_of(pages: Pages) -> MetricsPort:
    return MetricsPort(pages.render, host="127.0.0.1", port=0)


async def test_head_is_get_without_a_body_and_nothing_else_exists() -> None:
    pages = Pages()
    pages.go_on.set()
    async with port_of(pages) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port.port}") as http:
        async with http.get("/metrics") as response:
            assert (response.status, await response.read()) == (200, b"twins 3\n")
            kind = response.headers["Content-Type"]
            assert kind.startswith("text/plain; version=")
        async with http.head("/metrics") as response:
            assert (response.status, response.headers["Content-Type"], await response.read()) == (200, kind, b"")
        for method, path, status in (("GET", "/", 404), ("GET", "/metrics/x", 404), ("POST", "/metrics", 405)):
            async with http.request(method, path) as response:
                assert response.status == status
                assert b"twins" not in await response.read()


async def test_many_who_ask_at_once_are_answered_by_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand twins it takes a tenth of a second, and nobody has to say who they are for it."""
    pages, handle, all_in = Pages(), MetricsPort._handle, asyncio.Event()
    entered = 0

    async def counted(self: MetricsPort, request: web.BaseRequest) -> web.Response:
        nonlocal entered
        entered += 1
        if entered == 20:
            all_in.set()
        return await handle(self, request)

    monkeypatch.setattr(MetricsPort, "_handle", counted)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        port_of(pages) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port.port}", connector=connector) as http,
    ):

        async def page() -> bytes:
            async with http.get("/metrics") as response:
                return await response.read()

        asked = [asyncio.create_task(page()) for _ in range(20)]
        await asyncio.wait_for(all_in.wait(), 60)
        asked.pop(0).cancel()  # who leaves takes nobody's page away
        pages.go_on.set()
        assert set(await asyncio.gather(*asked)) == {b"twins 3\n"}
        assert pages.made == 1
        await page()
        assert pages.made == 2  # the next is made anew


async def test_a_page_that_can_t_be_made_is_tried_again_by_the_next() -> None:
    pages = Pages()
    pages.go_on.set()
    pages.fails = True
    async with port_of(pages) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port.port}") as http:
        async with http.get("/metrics") as response:
            assert response.status == 500
        pages.fails = False
        async with http.get("/metrics") as response:
            assert response.status == 200


async def test_it_is_gone_with_its_block() -> None:
    pages = Pages()
    async with port_of(pages) as port:
        number = port.port
    async with MetricsPort(pages.render, host="127.0.0.1", port=number) as again:
        assert again.port == number
