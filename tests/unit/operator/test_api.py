"""Requests to an API server: what bounds a write, and what an answer means."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from twin_operator.engine.api import Api
from twin_operator.engine.resources import CONFIG_MAP, Manifest
from twin_operator.errors import ApiError, NotLeaderError

MANIFEST: Manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}}


class Server:
    """Answers as told and keeps what arrived in whole."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.headers: list[Any] = []
        self.answers: list[tuple[int, Any]] = []
        self.delay = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json() if request.body_exists else None)
        self.headers.append(request.headers)
        await asyncio.sleep(self.delay)
        status, body = self.answers.pop(0) if self.answers else (200, MANIFEST)
        return web.json_response(body, status=status)


@asynccontextmanager
async def connected(server: Server, **more: Any) -> AsyncIterator[Api]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    configuration = type.__call__(Configuration)
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    api = Api(ApiClient(configuration), request_seconds=5, resources={"ConfigMap": CONFIG_MAP}, **more)
    try:
        yield api
    finally:
        await api.close()
        await runner.cleanup()


def ends_after(calls: int) -> Callable[[], float]:
    """Return a guard under which leadership ends after a number of questions."""
    left = iter(range(calls))

    def guard() -> float:
        if next(left, None) is None:
            raise NotLeaderError("no more")
        return math.inf

    return guard


async def test_a_write_whose_leadership_ends_before_it_is_sent_is_not_sent() -> None:
    server = Server()
    async with connected(server) as free:
        for write in (
            lambda api: api.apply(MANIFEST),
            lambda api: api.delete(CONFIG_MAP, namespace="n", name="c", uid="u"),
        ):
            with pytest.raises(NotLeaderError):
                await write(free.guarded_by(ends_after(1)))
        assert server.bodies == []
        await free.guarded_by(ends_after(2)).apply(MANIFEST)
        assert server.bodies == [MANIFEST]


async def test_a_write_takes_no_longer_than_leadership_lasts() -> None:
    server = Server()
    server.delay = 5.0
    async with connected(server) as free:
        begun = asyncio.get_running_loop().time()
        with pytest.raises(ApiError, match=r"no answer from the API server within 0\.2 s"):
            await free.guarded_by(lambda: 0.2).apply(MANIFEST)
        assert asyncio.get_running_loop().time() - begun < server.delay


async def test_reads_need_no_leadership() -> None:
    async with connected(Server()) as free:
        assert await free.guarded_by(ends_after(0)).get(CONFIG_MAP, namespace="n", name="c") == MANIFEST


async def test_the_audit_log_is_told_which_replica_writes() -> None:
    server = Server()
    async with connected(server, user_agent="twin-operator/pod-1") as api:
        await api.guarded_by(lambda: 1).apply(MANIFEST)
    assert server.headers[0]["User-Agent"] == "twin-operator/pod-1"


async def test_a_list_that_the_api_server_forgot_is_begun_anew() -> None:
    server = Server()
    page = {"items": [{"metadata": {"name": "a"}}], "metadata": {"resourceVersion": "5", "continue": "x"}}
    last = {"items": [{"metadata": {"name": "b"}}], "metadata": {"resourceVersion": "7"}}
    server.answers = [(200, page), (410, {"reason": "Expired", "message": "gone"}), (200, page), (200, last)]
    async with connected(server) as api:
        items, version = await api.list(CONFIG_MAP, namespace="n")
    assert ([item["metadata"]["name"] for item in items], version) == (["a", "b"], 7)


@pytest.mark.parametrize(
    ("status", "causes", "refused", "ends"),
    [
        (403, [], True, False), (422, [], True, False), (403, [{"reason": "NamespaceTerminating"}], False, True),
        (409, [], False, False), (500, [], False, False), (429, [], False, False),
    ],
)  # fmt: skip
async def test_what_an_answer_means(status: int, causes: list[Any], refused: bool, ends: bool) -> None:
    server = Server()
    server.answers = [(status, {"reason": "R", "message": "m", "details": {"causes": causes}})]
    async with connected(server) as api:
        with pytest.raises(ApiError) as caught:
            await api.apply(MANIFEST)
    assert (caught.value.refused, caught.value.namespace_ends) == (refused, ends)
