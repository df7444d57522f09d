"""The benchmark's clients see a failure when there is one: else "0 failed" would say nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from bettertherapy_api import names
from tests.bench.clients import Clients, Tally

TWIN = "dr-a"
SERVED = f"{TWIN}-aaaaaaaa"
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def tally_of(handler: Handler, *, count: int = 2) -> Tally:
    """Let clients ask a server until it has answered a few times."""
    enough = asyncio.Event()
    seen = 0

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal seen
        seen += 1
        if seen >= 6:
            enough.set()
        return await handler(request)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    clients = Clients(url, token="t", twin=TWIN, check=lambda _, text: "wrong weights" if "other" in text else None)
    try:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(clients.run(count, tokens=(4,)))
            await enough.wait()
            clients.stop()
    finally:
        await runner.cleanup()
    return clients.tally


def answering(text: str = "Rest.", *, served: str = SERVED, end: str = "data: [DONE]\n\n") -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        headers = {names.SERVED_NAME_HEADER: served}
        if (await request.json())["stream"]:
            event = json.dumps({"choices": [{"delta": {"content": text}}]})
            return web.Response(text=f"data: {event}\n\n{end}", headers=headers)
        return web.json_response({"choices": [{"message": {"content": text}}]}, headers=headers)

    return handle


async def test_right_answers_are_counted_by_version() -> None:
    tally = await tally_of(answering())
    assert not tally.failures
    assert tally.whole
    assert tally.streams
    assert tally.by_version == {SERVED: tally.requests}


async def _unavailable(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=503, text="no pod holds it")


async def _broken_off(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={names.SERVED_NAME_HEADER: SERVED})
    await response.prepare(request)
    await response.write(b"data: ")
    assert request.transport is not None
    request.transport.abort()
    return response


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (_unavailable, "503: no pod holds it"),
        (_broken_off, "Error"),
        (answering(served="dr-b-aaaaaaaa"), "answered by dr-b-aaaaaaaa"),
        (answering(served=""), "no named version"),
        (answering(""), "without text"),
        (answering("other"), "wrong weights"),
    ],
)
async def test_every_other_answer_is_a_failure(handler: Handler, reason: str) -> None:
    tally = await tally_of(handler)
    assert tally.requests == tally.failures.total() > 0
    assert any(reason in failure for failure in tally.failures)


async def test_a_stream_without_its_end_is_a_failure() -> None:
    tally = await tally_of(answering(end=""))
    assert set(tally.failures) == {"a stream without its end"}
    assert tally.streams == 0
    assert tally.whole > 0
