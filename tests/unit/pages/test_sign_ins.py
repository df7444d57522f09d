"""A sign-in ends when it is ended, and who comes and who is refused is logged without a word of what was sent."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from neurons.ledger import Ledger, LedgerDown, QueuedLedger
from neurons.miner.errors import RequestError
from neurons.validator.gateway import security_log
from neurons.validator.gateway.security_log import PER_MINUTE, SecurityLog
from neurons.validator.pages import signed_out
from neurons.validator.pages.cookies import Cookies
from neurons.validator.pages.signed_out import SignedOut
from neurons.validator.pages.site import _Limits
from tests.unit.gateway.running_gateway import gateway
from tests.unit.pages.browsing import TWINS, RunningPages, pages, without_maya
from tests.unit.pages.test_staff import CLIENT, DOCTOR, KEYS, OPERATOR, sign_in

SECRET = b"s" * 32


def cookie_header(session: aiohttp.ClientSession) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{cookie.key}={cookie.value}" for cookie in session.cookie_jar)}


async def test_a_copied_cookie_opens_nothing_after_its_sign_out(tmp_path: Path) -> None:
    async with (
        pages(tmp_path, names=(), keys=KEYS) as running,
        running.browser() as browser,
        running.browser() as elsewhere,
        aiohttp.ClientSession(running.origin, cookie_jar=aiohttp.DummyCookieJar()) as thief,
    ):
        await sign_in(browser, DOCTOR)
        await sign_in(elsewhere, DOCTOR)
        copied = cookie_header(browser.session)
        async with thief.get("/desk", headers=copied) as response:
            assert response.status == 200
        data = {"token": browser.token}
        async with browser.session.post("/sign-out", data=data, allow_redirects=False) as response:
            assert response.headers["Clear-Site-Data"] == '"cache"'
        async with thief.get("/desk", headers=copied) as response:
            assert response.status == 403
        assert (await elsewhere.get("/desk"))[0] == 200, "the same doctor's other sign-in goes on"
        before = cookie_header(elsewhere.session)
        await sign_in(elsewhere, OPERATOR)
        async with thief.get("/desk", headers=before) as response:
            assert response.status == 403, "who signs in anew leaves the former sign-in"


async def test_of_more_sign_outs_than_are_remembered_none_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_out, "MOST", 3)
    now = 0.0
    cookies, ended = Cookies(SECRET, secure=True, clock=lambda: now), SignedOut()
    sessions = []
    for _ in range(6):
        now += 1
        sessions.append(cookies.new_staff("sha256:" + "a" * 64))
        await ended.add(sessions[-1])
    now += 1
    assert [await ended.has(each) for each in sessions] == [True] * 6
    assert not await ended.has(cookies.new_staff("sha256:" + "a" * 64))


@pytest.mark.parametrize("secure", [True, False])
def test_every_cookie_is_the_hosts_own_and_no_programs(secure: bool) -> None:
    cookies = Cookies(SECRET, secure=secure)
    session = cookies.new_staff("sha256:" + "a" * 64)
    for header in (
        cookies.of_visitor(cookies.new_visitor()), cookies.of_staff(session), cookies.of_staff(None),
        cookies.of_language("lang", "ne"),
    ):  # fmt: skip
        assert "; Path=/; HttpOnly; SameSite=Lax" in header
        assert "Domain" not in header
        assert (header.startswith("__Host-") and "; Secure" in header) is secure


async def test_by_https_every_answer_keeps_to_it(tmp_path: Path) -> None:
    (tmp_path / "twins.json").write_text(json.dumps(TWINS))
    settings = {"pages_origin": "https://ask.example.org", "twins_file": tmp_path / "twins.json"}
    async with gateway(tmp_path, names=(), settings=settings) as running:
        async with running.client.get("/") as response:
            shown = await response.text()
        static = shown.partition('href="/static/')[2].partition('"')[0]
        for path in ("/", f"/static/{static}", "/nothing", "/v1/models", "/v1/nothing", "/healthz"):
            async with running.client.get(path) as response:
                said = response.headers.get("Strict-Transport-Security", "")
                assert said == "max-age=31536000; includeSubDomains", path
        body = {"model": "nobody", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with running.client.post("/v1/chat/completions", json=body) as response:
            assert "Strict-Transport-Security" in response.headers


@pytest.mark.parametrize("target", ["http://evil.example/doctor/indra/anew", "//evil.example/doctor/indra/anew"])
async def test_no_request_leads_to_another_host(tmp_path: Path, target: str) -> None:
    async with pages(tmp_path, names=()) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        body = f"token={browser.token}"
        head = f"POST {target} HTTP/1.1\r\nHost: evil.example\r\nCookie: {cookie_header(browser.session)['Cookie']}\r\n"
        head += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", running.gateway.service.port)
        writer.write((head + body).encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        assert b"evil" not in answer


def test_visitors_who_are_refused_with_everybody_are_not_remembered() -> None:
    limits = _Limits(all_per_minute=60, per_minute=12, burst=6)
    for number in range(1000):
        with suppress(RequestError):
            limits.count(f"visitor {number}")
    assert len(limits._visitors._buckets) < 100


# --- the log of who comes in


def events(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    wanted = ("event", "client", "role", "left_out")
    return [
        {name: record.__dict__[name] for name in wanted if name in record.__dict__}
        for record in caplog.records
        if record.name == security_log.__name__
    ]


async def test_who_comes_in_and_who_is_refused_is_logged_by_the_name_of_the_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with pages(tmp_path, names=(), keys=KEYS) as running, running.browser() as browser:
        await sign_in(browser, "bt-maya-was-here")
        await sign_in(browser, CLIENT)
        await sign_in(browser, DOCTOR)
        await browser.get("/miners")
        await browser.submit("/sign-out", {})
        browser.token = "0" * 32
        await browser.send("/doctor/indra/consent", {"given": True})
        api = running.gateway
        await api.ask(headers={"Authorization": "Bearer bt-maya-was-here"})
        await api.get("/v1/sessions/00000000-0000-0000-0000-000000000000")
        await api.get("/v1/models/maya-was-here")
    assert events(caplog) == [
        {"event": "a sign-in was refused"},
        {"event": "a sign-in was refused", "client": "plain", "role": "client"},
        {"event": "signed in", "client": "gurung", "role": "doctor"},
        {"event": "refused: not_signed_in", "client": "gurung"},
        {"event": "signed out", "client": "gurung", "role": "doctor"},
        {"event": "refused: not_ours"},
        {"event": "refused: invalid_api_key"},
        {"event": "refused: session_not_found", "client": "clinic"},
    ]
    assert "maya" not in caplog.text.lower()
    assert all(len(record.trace_id) == 32 for record in caplog.records if record.name == security_log.__name__)


def test_nobody_fills_the_log_and_how_much_was_left_out_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    log = SecurityLog(clock=lambda: now)
    for _ in range(3 * PER_MINUTE):
        log.note("refused: x")
    log.note("signed in", client="ops")
    assert len(events(caplog)) == PER_MINUTE + 1
    now = 60.0
    log.note("refused: x")
    assert events(caplog)[-1] == {"event": "refused: x", "left_out": 2 * PER_MINUTE}


# --- a sign-out that holds at every gateway


@asynccontextmanager
async def beside(folder: Path, url: str, name: str) -> AsyncIterator[RunningPages]:
    """One of several gateways with one secret, one file of keys and one ledger."""
    (folder / name).mkdir(exist_ok=True)
    (folder / "secret").write_bytes(SECRET)
    settings = {"secret_file": folder / "secret"}
    async with (
        await QueuedLedger.open(url, folder=folder / name / "queue") as queued,
        pages(folder / name, names=(), keys=KEYS, recorder=queued, settings=settings, scrub=without_maya) as running,
    ):
        await queued.ledger.ready_or_made()
        yield running


@asynccontextmanager
async def thief_at(running: RunningPages, copied: dict[str, str]) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    async with aiohttp.ClientSession(running.origin, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def tries() -> int:
            async with session.get("/desk", headers=copied) as response:
                return response.status

        yield tries


async def test_a_copied_cookie_opens_nothing_at_other_gateways_and_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with beside(tmp_path, url, "second") as second:
        async with beside(tmp_path, url, "first") as first, first.browser() as browser:
            await sign_in(browser, DOCTOR)
            copied = cookie_header(browser.session)
            async with thief_at(first, copied) as here, thief_at(second, copied) as there:
                assert (await here(), await there()) == (200, 200)
                await browser.submit("/sign-out", {})
                assert (await here(), await there()) == (403, 403)
        async with beside(tmp_path, url, "first") as again, thief_at(again, copied) as here:
            assert await here() == 403


async def test_while_the_ledger_is_away_no_sign_in_is_taken_for_one_and_its_end_is_told_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with (
        beside(tmp_path, url, "first") as first, beside(tmp_path, url, "second") as second,
        first.browser() as browser, first.browser() as other,
    ):  # fmt: skip
        await sign_in(browser, DOCTOR)
        await sign_in(other, OPERATOR)
        copied = cookie_header(browser.session)

        async def away(*_: Any, **__: Any) -> Any:
            raise LedgerDown("it is away")

        async with thief_at(second, copied) as there:
            with monkeypatch.context() as patched:
                patched.setattr(Ledger, "sign_out", away)
                patched.setattr(Ledger, "signed_out", away)
                assert (await browser.get("/desk"))[0] == 503
                assert (await other.get("/miners"))[0] == 503
                assert (await browser.get("/"))[0] == 200, "patients' pages stay"
                assert (await browser.submit("/sign-out", {}))[0] == 200
                assert await there() == 503
            assert (await other.get("/miners"))[0] == 200
            assert await there() == 403
    assert "signed out here" in "".join(str(getattr(each, "event", "")) for each in caplog.records)


async def test_sign_outs_are_forgotten_once_no_cookie_is_as_old(tmp_path: Path) -> None:
    async with await Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        await ledger.sign_out(["a" * 32], kept_seconds=3600)
        await ledger.sign_out(["a" * 32, "b" * 32], kept_seconds=3600)
        assert await ledger.signed_out("a" * 32)
        await asyncio.sleep(0.01)
        await ledger.sign_out(["c" * 32], kept_seconds=0)
        assert [await ledger.signed_out(each * 32) for each in "abc"] == [False, False, True]
