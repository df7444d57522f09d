"""Licences: NPPES by a stand-in that answers as its documentation says, and what is shown when it can't be asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from yarl import URL

from neurons.validator.pages import licences
from neurons.validator.pages.licences import Checked, Finding, Licences, Nppes, RegisterSettingError, registers
from tests.unit.pages.browsing import pages

NPI = "1234567893"


def entry(**changed: Any) -> dict[str, Any]:
    """One result in the form that version 2.1 documents, with fields that nobody here reads."""
    basic = {
        "first_name": "INDRA", "last_name": "GURUNG", "credential": "M.D.", "sole_proprietor": "NO", "gender": "F",
        "enumeration_date": "2010-05-01", "last_updated": "2024-01-01", "status": "A", "name_prefix": "Dr.",
    } | changed.pop("basic", {})  # fmt: skip
    return {
        "created_epoch": "1272672000000", "enumeration_type": "NPI-1", "last_updated_epoch": "1704067200000",
        "number": NPI, "addresses": [], "practiceLocations": [], "basic": basic, "identifiers": [], "endpoints": [],
        "taxonomies": [
            {
                "code": "207Q00000X", "taxonomy_group": "", "desc": "Family Medicine", "state": "CA", "license": "A1",
                "primary": True,
            }
        ],
        "other_names": [],
    } | changed  # fmt: skip


class StandIn:
    """`async with StandIn() as nppes`; change `results`, `body` or `status`."""

    def __init__(self) -> None:
        self.results: list[dict[str, Any]] = [entry()]
        self.body: bytes | None = None
        self.status = 200
        self.asked: list[dict[str, str]] = []

    async def __aenter__(self) -> StandIn:
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = URL(f"http://127.0.0.1:{self._runner.addresses[0][1]}/api/")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        self.asked.append(dict(request.query))
        found = {"result_count": len(self.results), "results": self.results}
        return web.Response(status=self.status, body=self.body if self.body is not None else orjson.dumps(found))


@asynccontextmanager
async def checking(nppes: StandIn) -> AsyncIterator[Licences]:
    async with aiohttp.ClientSession() as session:
        made = Licences([Nppes(session, url=nppes.url)])
        yield made
        await made.close()


async def found(nppes: StandIn, *, licence: str = f"NPI {NPI}", doctor: str = "Dr. Indra Gurung") -> Finding:
    async with checking(nppes) as made:
        return (await made.check(licence, doctor, wait_seconds=10)).finding


async def test_a_number_is_listed_under_the_doctors_name_or_another() -> None:
    async with StandIn() as nppes:
        assert await found(nppes) is Finding.LISTED
        assert nppes.asked == [{"version": "2.1", "number": NPI}]
        assert await found(nppes, doctor="Dr. Maya Gurung") is Finding.OTHER_NAME
        assert await found(nppes, doctor="Dr. Indrani Gurungseth") is Finding.OTHER_NAME
        nppes.results = [
            entry(basic={"last_name": "RAI"}, other_names=[{"type": "Former Name", "last_name": "GURUNG"}])
        ]
        assert await found(nppes) is Finding.LISTED
        nppes.results = [entry(basic={"status": "D"})]
        assert await found(nppes) is Finding.INACTIVE
        nppes.results = [entry(enumeration_type="NPI-2")]  # an organisation is no doctor
        assert await found(nppes) is Finding.UNLISTED
        nppes.results = []
        assert await found(nppes) is Finding.UNLISTED


async def test_a_number_with_a_wrong_check_digit_is_unlisted_without_asking() -> None:
    async with StandIn() as nppes:
        assert await found(nppes, licence="NPI 1234567890") is Finding.UNLISTED
        assert nppes.asked == []
        assert await found(nppes, licence="NMC 12345") is Finding.NOT_CHECKED  # no register knows such numbers


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b""), (200, b"<html>"), (200, b"{}"), (302, b""), (200, b'{"result_count": 1, "results": [{}]}'),
        (200, b'{"Errors": [{"description": "Invalid", "field": "number", "number": "06"}]}'),
        (200, b'{"result_count": 1, "x": "' + b"a" * 300_000 + b'"}'),
    ],
)  # fmt: skip
async def test_a_register_that_answers_otherwise_says_nothing_of_a_doctor(status: int, body: bytes) -> None:
    async with StandIn() as nppes:
        nppes.status, nppes.body = status, body
        assert await found(nppes) is Finding.NOT_CHECKED


async def test_what_a_register_said_is_remembered_and_what_it_didnt_is_asked_again() -> None:
    now = 0.0
    async with StandIn() as nppes, aiohttp.ClientSession() as session:
        made = Licences([Nppes(session, url=nppes.url)], clock=lambda: now)
        nppes.status = 503

        async def check() -> Checked:
            return await made.check(f"NPI {NPI}", "Indra Gurung", wait_seconds=10)

        assert (await check()).finding is Finding.NOT_CHECKED
        nppes.status = 200
        assert (await check()).finding is Finding.NOT_CHECKED
        assert len(nppes.asked) == 1
        now += licences.RETRY_SECONDS
        assert await check() == Checked(Finding.LISTED, "NPPES")
        now += licences.KEEP_SECONDS - 1
        assert await check() == Checked(Finding.LISTED, "NPPES")
        assert len(nppes.asked) == 2
        await made.close()


async def test_nobody_waits_for_a_register_that_hangs() -> None:
    class Hanging:
        name = "hanging"

        def knows(self, licence: str) -> bool:
            return True

        async def look_up(self, licence: str, doctor: str) -> Finding:
            import asyncio

            await asyncio.Event().wait()
            return Finding.LISTED

    made = Licences([Hanging()])
    assert (await made.check("1", "A", wait_seconds=0.01)).finding is Finding.NOT_CHECKED
    await made.close()


async def test_an_unknown_register_is_refused_in_words() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(RegisterSettingError, match="there is no register 'x': nppes"):
            registers(["x"], session)
        [made] = registers(["nppes"], session)
        assert made.name == "NPPES"


async def test_the_page_says_what_the_register_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with StandIn() as nppes:
        monkeypatch.setitem(licences.BUILT_IN, "nppes", lambda session: Nppes(session, url=nppes.url))
        settings = {"licence_registers": ("nppes",)}
        async with pages(tmp_path, names=(), settings=settings) as running, running.browser() as browser:
            _, shown = await browser.get("/doctor/indra")
            assert "NPPES lists this number under this name" in shown
