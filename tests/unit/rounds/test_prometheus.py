"""Speed is read from a Prometheus over HTTP; away, stale, refusing or talking nonsense, nobody's speed is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from neurons.validator.rounds.prometheus import FRESH_SECONDS, Readings, read_speeds
from neurons.validator.rounds.speed import ANSWERED
from tests.unit.rounds.people import miner

Answer = Callable[[str], web.Response]


def vector(*series: tuple[dict[str, str], float]) -> web.Response:
    result = [{"metric": labels, "value": [1.0, str(value)]} for labels, value in series]
    return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})


def of_age(seconds: float) -> Answer:
    who = {"hotkey": miner(0).hotkey, "registered": str(miner(0).registered_block)}

    def answer(query: str) -> web.Response:
        if query.startswith("time()"):
            return vector(({}, seconds))
        if "_bucket" in query:
            return vector(*((who | {"le": le}, count) for le, count in (("1", 5.0), ("2", 20.0), ("+Inf", 20.0))))
        return vector((who | {"outcome": ANSWERED}, 20.0))

    return answer


async def reading(answer: Answer) -> Readings:
    async def handle(request: web.Request) -> web.Response:
        form: Any = await request.post()
        return answer(str(form["query"]))

    app = web.Application()
    app.router.add_post("/api/v1/query", handle)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        return await read_speeds(str(server.make_url("")), session=session)


async def test_fresh_metrics_give_every_miners_speed() -> None:
    found = await reading(of_age(4))
    assert found.fresh
    assert 0 < found.of[miner(0)].value < 1
    assert 1 <= found.of[miner(0)].median <= 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (of_age(FRESH_SECONDS + 1), "301 s old"),
        (lambda query: vector(), "no metrics of this validator"),
        (lambda query: web.json_response({"status": "error", "errorType": "bad_data"}, status=400), "bad_data"),
        (lambda query: web.Response(text="<html>", status=502), "HTTP 502"),
        (lambda query: web.json_response({"status": "success", "data": None}), "doesn't answer as a Prometheus"),
    ],
    ids=["stale", "empty", "refusing", "a proxy", "nonsense"],
)
async def test_whatever_is_wrong_leaves_speed_unknown_and_is_said(answer: Answer, said: str) -> None:
    found = await reading(answer)
    assert (found.fresh, found.of) == (False, {})
    assert said in found.message


async def test_away_it_is_said_without_the_password() -> None:
    async with aiohttp.ClientSession() as session:
        found = await read_speeds("http://ops:secret@127.0.0.1:9", session=session)
        assert (await read_speeds(None, session=session)).message.startswith("no Prometheus")
    assert not found.fresh
    assert "doesn't answer" in found.message
    assert "secret" not in found.message
