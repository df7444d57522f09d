"""What a trainer fetches of a validator's gateway: what was offered, and nothing is told of the key."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from neurons.store import StoreUnreachable
from neurons.trainer import sources, web_dataset
from neurons.trainer.archive import Archive
from neurons.trainer.errors import BadData
from neurons.trainer.sources import Trained, find_lines

LINE = (
    b'{"consent":true,"id":"4711","messages":[{"content":"When are you open?","role":"user"},'
    b'{"content":"On Monday.","role":"assistant"}],"rating":4}\n'
)
DIGEST = "sha256:" + hashlib.sha256(LINE).hexdigest()
PATH = "/v1/tasks/11111111-1111-4111-8111-111111111111/dataset"
SECRET = "signature=0123"


@asynccontextmanager
async def gateway(answer: Callable[[web.BaseRequest], web.Response]) -> AsyncIterator[tuple[str, list[str]]]:
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path_qs)
        return answer(request)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}{PATH}?{SECRET}", asked
    finally:
        await runner.cleanup()


@pytest.fixture
def on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch(uri: str, *, at_most: int) -> bytes:
        return await web_dataset.fetch(uri, at_most=at_most, loopback=True)

    monkeypatch.setattr(sources, "fetch", fetch)


def archive(folder: Path) -> Archive:
    return Archive(f"file://{folder}", "indra", patience_seconds=0.1)


@pytest.mark.usefixtures("on_loopback")
async def test_it_trains_on_what_the_gateway_gives_when_it_is_what_was_offered(tmp_path: Path) -> None:
    async with gateway(lambda _: web.Response(body=LINE)) as (uri, asked):
        found, _ = await find_lines(uri, DIGEST, before=Trained(), archive=archive(tmp_path))
        assert (len(found.lines), found.data) == (1, LINE)
        assert asked == [f"{PATH}?{SECRET}"]
        with pytest.raises(BadData, match="digest is") as refused:
            await find_lines(uri, "sha256:" + "0" * 64, before=Trained(), archive=archive(tmp_path))
        assert SECRET not in str(refused.value)
        with pytest.raises(BadData, match="must have a digest") as refused:
            await find_lines(uri, None, before=Trained(), archive=archive(tmp_path))
        assert SECRET not in str(refused.value)


@pytest.mark.usefixtures("on_loopback")
@pytest.mark.parametrize("status", [403, 404, 410])
async def test_what_is_withdrawn_ends_the_run_in_the_gateways_words(tmp_path: Path, status: int) -> None:
    words = {"error": {"message": "the dataset is no more\x1b[2J"}}
    async with gateway(lambda _: web.json_response(words, status=status)) as (uri, asked):
        with pytest.raises(BadData, match="the dataset is no more") as refused:
            await find_lines(uri, DIGEST, before=Trained(), archive=archive(tmp_path))
        assert len(asked) == 1
        assert SECRET not in str(refused.value)
        assert "\x1b" not in str(refused.value)


@pytest.mark.usefixtures("on_loopback")
async def test_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    statuses = [503, 429, 200]
    async with gateway(lambda _: web.Response(status=statuses.pop(0), body=LINE)) as (uri, asked):
        patient = Archive(f"file://{tmp_path}", "indra", patience_seconds=30)
        found, _ = await find_lines(uri, DIGEST, before=Trained(), archive=patient)
        assert (len(found.lines), len(asked)) == (1, 3)
    with pytest.raises(StoreUnreachable) as away:  # the gateway is gone by now
        await find_lines(uri, DIGEST, before=Trained(), archive=archive(tmp_path))
    assert SECRET not in str(away.value)


async def test_no_redirect_is_followed_and_no_more_is_read_than_asked_for() -> None:
    async with gateway(lambda _: web.Response(status=302, headers={"Location": "/elsewhere"})) as (uri, asked):
        with pytest.raises(BadData, match="302"):
            await web_dataset.fetch(uri, at_most=100, loopback=True)
        assert len(asked) == 1
    async with gateway(lambda _: web.Response(body=LINE * 100)) as (uri, _):
        with pytest.raises(BadData, match="at most 100"):
            await web_dataset.fetch(uri, at_most=100, loopback=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254"])
async def test_it_never_asks_this_machine_or_its_nodes_metadata(host: str) -> None:
    with pytest.raises(BadData) as refused:
        await web_dataset.fetch(f"http://{host}:9{PATH}?{SECRET}", at_most=100)
    assert "nobody outside may name" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_an_address_is_shown_without_what_opens_it() -> None:
    assert web_dataset.shown(f"https://v{PATH}?{SECRET}") == f"https://v{PATH}"
    assert web_dataset.shown("pvc://claim/a?b") == "pvc://claim/a?b"
