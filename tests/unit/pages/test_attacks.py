"""As an attacker would: markup that is kept, forged requests, others' conversations and twins, and what leaks."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
from pydantic import ValidationError

from neurons.ledger import new_id
from neurons.validator.gateway.keys import KeysFile, hash_of, new_key
from neurons.validator.pages import turns
from neurons.validator.pages.cleaning import mark
from neurons.validator.pages.cookies import Cookies
from neurons.validator.pages.markup import MAX_MARKDOWN, shown
from neurons.validator.pages.patient import key_of
from neurons.validator.pages.site import VISITOR_BURST, VISITOR_PER_MINUTE
from neurons.validator.pages.turns import Conversations, ShownAnswer, Turn
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.miner.running_miner import eventually
from tests.unit.pages.browsing import TWINS, dangers, kept, pages, without_maya
from tests.unit.pages.test_staff import DOCTOR, KEYS, OPERATOR, OTHER, KnowsMaya, sign_in

PAYLOADS = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"><svg onload=alert(1)>", "'><iframe srcdoc=x>",
    "</textarea><script>alert(1)</script>", "</title><base href=//evil.example>", "[a](javascript:alert(1))",
    "<a href=\"data:text/html,x\">a</a>", "{{ 7*7 }}{% raw %}", "<template><style>*{}</style></template>",
    "https://x.example/\"onmouseover=\"alert(1)", "<<b>script>alert(1)</</b>script>", "<math><mi xlink:href=x></math>",
)  # fmt: skip
ALL = " ".join(PAYLOADS)
EMERGENCY = "I took forty tablets and want to die"


def test_what_looks_for_dangers_finds_them() -> None:
    for said in PAYLOADS[:6]:
        assert dangers(said)
    assert dangers('<p style="x">')
    assert dangers('<form action="//evil.example">')
    assert not dangers('<a href="/x">a</a><a href="https://a.example">b</a><p>&lt;script&gt;</p>')


async def test_nothing_that_anybody_writes_becomes_markup_on_anybodys_page(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    (tmp_path / "store").mkdir()
    settings = {"ledger_url": url, "interactions_store": f"file://{tmp_path}/store"}
    rogues = [RogueMiner(says=ALL), RogueMiner(name="Ferdie", says=f"Rest. {ALL}")]
    async with (
        pages(tmp_path, names=(), rogues=rogues, keys=KEYS, settings=settings, scrub=KnowsMaya()) as running,
        running.browser() as patient,
        running.browser() as doctor,
    ):
        seen = [(await patient.get(f"/?doctor={each}"))[1] for each in ("%22%3E%3Csvg%20onload=alert(1)%3E", "x")]
        await patient.get("/doctor/indra")
        more = (await patient.ask(ALL))[-2]["bettertherapy"]
        compared = (await patient.ask(ALL, compare=True))[-2]["bettertherapy"]
        seen += [more["html"], compared["html"]]
        rating = {"answerId": more["answerId"], "questionId": more["questionId"], "stars": 1, "comment": ALL}
        assert (await patient.send("/doctor/indra/rate", rating))[0] == 201
        chosen = {"preferredId": compared["compared"][0]["answerId"]}
        seen.append((await patient.send("/doctor/indra/prefer", chosen))[1]["html"])
        seen.append((await patient.get("/doctor/indra"))[1])
        seen.append((await patient.submit("/receipt", {"receipt": ALL}))[1])
        await kept(url, more["questionId"], lambda view: view.answers and view.ratings)
        await sign_in(doctor, DOCTOR)
        path = f"/desk/indra/question/{more['questionId']}"
        correction = {"answerId": more["answerId"], "text": f"Maya Rai {ALL}"}
        seen.append((await doctor.submit(f"{path}/correct", correction))[1])  # a preview
        assert "<del>Maya Rai</del>" in seen[-1]
        seen.append((await doctor.submit(f"{path}/correct", correction | {"seen": mark(correction["text"])}))[1])
        await kept(url, more["questionId"], lambda view: view.corrections)
        said = json.dumps({"messages": [{"role": "user", "content": ALL}, {"role": "assistant", "content": ALL}]})
        for brought in (said, ALL, json.dumps({ALL: 1}), json.dumps({"messages": [{"role": ALL, "content": ALL}]})):
            seen.append((await doctor.submit("/desk/indra/upload", {"conversations": brought, "shape": "openai"}))[1])
        seen += [(await doctor.get(each))[1] for each in (path, "/desk/indra", "/desk", "/desk/indra/learned")]
        assert "alert(1)" in seen[-3]  # it was there, as text
        await sign_in(doctor, OPERATOR)
        seen.append((await doctor.get("/miners"))[1])
    assert [found for shown in seen if (found := dangers(shown))] == []
    assert sum("{{ 7*7 }}" in shown for shown in seen) > 5  # no template of ours either


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/doctor/indra/ask", {"text": "x"}), ("/doctor/indra/rate", {"stars": "1"}), ("/doctor/indra/prefer", {}),
        ("/doctor/indra/consent", {"given": "yes"}), ("/doctor/indra/anew", {}), ("/receipt", {"receipt": "x"}),
        ("/language", {"language": "ne", "back": "/"}), ("/sign-in", {"key": "x"}), ("/sign-out", {}),
        ("/desk/indra/upload", {"conversations": "{}", "consent": "yes"}),
        (f"/desk/indra/question/{'0' * 8}-0000-0000-0000-{'0' * 12}/correct", {"text": "x", "answerId": "x"}),
    ],
)  # fmt: skip
async def test_no_other_site_sends_a_signed_in_browsers_form(path: str, fields: dict[str, str], tmp_path: Path) -> None:
    async with (
        pages(tmp_path, names=(), keys=KEYS, scrub=without_maya) as running,
        running.browser() as victim,
        running.browser() as attacker,
    ):
        await sign_in(victim, DOCTOR)
        await attacker.get("/")
        evil = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        for headers, more in (
            (evil, {}), (evil, {"token": victim.token}), ({}, {}), ({}, {"token": attacker.token}),
            ({"Sec-Fetch-Site": "same-site"}, {"token": victim.token}),
        ):  # fmt: skip
            async with victim.session.post(path, data=fields | more, headers=headers) as response:
                assert response.status == 403, (headers, more)
                assert "Set-Cookie" not in response.headers
        # What a form of another site can send as text without asking first is no JSON of ours.
        as_text = {"Content-Type": "text/plain", "X-Form-Token": victim.token}
        async with victim.session.post(path, data=json.dumps(fields), headers=as_text) as response:
            assert response.status == 415
        assert "My twins" in (await victim.get("/desk"))[1]  # and the doctor is still signed in


async def test_a_conversation_is_nobody_elses_by_any_door(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with (
        pages(tmp_path, names=("Alice",), settings={"ledger_url": url}, scrub=without_maya) as running,
        running.browser() as victim,
        aiohttp.ClientSession(running.origin, cookie_jar=aiohttp.DummyCookieJar()) as thief,
    ):
        await victim.get("/doctor/indra")
        more = (await victim.ask("A secret of mine"))[-2]["bettertherapy"]
        session = more["sessionId"]
        # A cookie of the thief's own making, with the victim's session in it.
        forged = Cookies(b"x" * 32, secure=False)
        visitor = forged.new_visitor().began(str(TWINS["twins"][0]["uid"]), session)  # type: ignore[index]
        cookie = forged.of_visitor(visitor).partition(";")[0]
        async with thief.get("/doctor/indra", headers={"Cookie": cookie}) as response:
            assert "A secret" not in await response.text()
        # A cookie that is really the thief's, with another's session: the gateway's own secret signs it.
        own = Cookies(running.gateway.service._secret, secure=False)
        visitor = own.new_visitor().began(str(TWINS["twins"][0]["uid"]), session)  # type: ignore[index]
        header = {"Cookie": own.of_visitor(visitor).partition(";")[0]}
        async with thief.get("/doctor/indra", headers=header) as response:
            assert "A secret" not in await response.text()
        rating = {"answerId": more["answerId"], "questionId": more["questionId"], "stars": 1}
        sent = header | {"X-Form-Token": own.token(visitor)}
        async with thief.post("/doctor/indra/rate", json=rating, headers=sent) as response:
            assert response.status == 404
        # A client of the API's, by every way in.
        api = running.gateway
        assert (await api.get(f"/v1/sessions/{session}"))[0] == 404
        assert (await api.get(f"/v1/sessions/{session}?user=visitor"))[0] == 404
        assert (await api.ask("Go on", headers={"x-session-id": session}))[0] == 404
        assert (await api.post("/v1/ratings", {"sessionId": session, **rating}))[0] == 404
        chosen = {"sessionId": session, "preferredId": more["answerId"]}
        assert (await api.post("/v1/preferences", chosen))[0] == 404


def test_no_client_can_be_called_as_a_visitor_is_inside() -> None:
    visitor = key_of("0" * 32)
    entry = {"id": visitor.id, "hash": hash_of(new_key())}
    with pytest.raises(ValidationError, match="visitors of the pages"):
        KeysFile.model_validate({"format": "bettertherapy-keys/1", "keys": [entry]})
    KeysFile.model_validate({"format": "bettertherapy-keys/1", "keys": [entry | {"id": "clinic.pages"}]})


async def test_a_doctor_has_no_hand_in_another_doctors_twin(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    (tmp_path / "store").mkdir()
    settings = {"ledger_url": url, "interactions_store": f"file://{tmp_path}/store"}
    async with (
        pages(tmp_path, names=("Alice",), keys=KEYS, settings=settings, scrub=KnowsMaya()) as running,
        running.browser() as patient,
        running.browser() as browser,
    ):
        await patient.get("/doctor/indra")
        more = (await patient.ask("My head hurts"))[-2]["bettertherapy"]
        other = (await patient.ask("And my foot"))[-2]["bettertherapy"]
        for each in (more, other):
            await kept(url, each["questionId"], lambda view: view.answers)
        fields = {"answerId": more["answerId"], "text": "Take ten tablets."}
        said = {"messages": [{"role": "user", "content": "Can I fly?"}, {"role": "assistant", "content": "Yes."}]}
        brought = {"conversations": json.dumps(said), "shape": "openai", "consent": "yes"}
        brought["seen"] = mark(brought["conversations"])
        for key, status in ((OTHER, 404), (OPERATOR, 403)):
            await sign_in(browser, key)
            for twin in ("indra", "maya", "%69ndra", "indra%00"):
                path = f"/desk/{twin}/question/{more['questionId']}"
                assert (await browser.get(path))[0] == status, path
                assert (await browser.submit(f"{path}/correct", fields))[0] == status, path
            assert (await browser.get("/desk/indra"))[0] == status
            assert (await browser.submit("/desk/indra/upload", brought))[0] == status
        # The own doctor corrects answers of this question alone.
        await sign_in(browser, DOCTOR)
        path = f"/desk/indra/question/{more['questionId']}/correct"
        for odd in (other["answerId"], new_id(), "", "../x"):
            assert (await browser.submit(path, fields | {"answerId": odd}))[0] == 400
        view = await kept(url, more["questionId"], lambda view: True)
        assert view.corrections == ()
        assert not list((tmp_path / "store").rglob("*.jsonl"))


async def test_a_twin_that_took_anothers_name_is_shown_none_of_its_words(tmp_path: Path) -> None:
    async with pages(tmp_path, names=("Alice",)) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        before = (await browser.ask("A question to Dr. Gurung"))[-2]["bettertherapy"]
        assert "A question to Dr. Gurung" in (await browser.get("/doctor/indra"))[1]
        [old] = TWINS["twins"]  # type: ignore[misc]
        new = dict(old) | {"uid": "3f0c1f0e-0000-4000-8000-000000000002", "doctor": "Dr. Sita Rai"}
        (tmp_path / "twins.json").write_text(json.dumps({**TWINS, "twins": [new]}))
        running.gateway.service._twins_file.refresh()  # type: ignore[union-attr]
        _, shown = await browser.get("/doctor/indra")
        assert "Dr. Sita Rai" in shown
        assert "A question to Dr. Gurung" not in shown
        assert "It is fine." not in shown
        rating = {"answerId": before["answerId"], "questionId": before["questionId"], "stars": 1}
        assert (await browser.send("/doctor/indra/rate", rating))[0] == 404
        after = (await browser.ask("Hello"))[-2]["bettertherapy"]
        assert after["sessionId"] != before["sessionId"]


async def test_an_emergency_is_told_of_whatever_becomes_of_the_question(tmp_path: Path) -> None:
    async with pages(tmp_path, names=()) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        token = browser.token
        for path, body in (
            ("/doctor/indra/ask", {"text": f"{EMERGENCY}. {'x' * 9000}"}), ("/doctor/nobody/ask", {"text": EMERGENCY}),
            ("/doctor/indra/ask", {"text": EMERGENCY, "compare": "odd"}),
            ("/doctor/indra/rate", {"comment": EMERGENCY, "stars": 1}),
        ):  # fmt: skip
            status, said = await browser.send(path, body)
            assert status in (400, 404), (path, said)
            assert "1166" in said["notice"]
        browser.token = "0" * 32  # a page that is too old
        status, said = await browser.send("/doctor/indra/ask", {"text": EMERGENCY})
        assert (status, said["error"]["code"]) == (403, "not_ours")
        assert "1166" in said["notice"]
        browser.token = token
        status, shown = await browser.submit("/doctor/indra/ask", {"text": EMERGENCY, "compare": "on"})  # no program
        assert status == 400
        assert shown.index("1166") < shown.index("<h1>")
        for _ in range(60):  # a slow machine gains a question every 5 s
            status, said = await browser.send("/doctor/indra/ask", {"text": "Hello"})
            assert "notice" not in said
            if status == 429:
                break
        status, said = await browser.send("/doctor/indra/ask", {"text": EMERGENCY})
        assert status == 429
        assert "1166" in said["notice"]


async def test_a_yes_that_is_refused_answers_what_the_twin_asked(tmp_path: Path) -> None:
    rogue = RogueMiner(says="Do you have chest pain?")
    async with pages(tmp_path, names=(), rogues=[rogue]) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        await browser.ask("I feel odd.")
        browser.token = "0" * 32
        status, said = await browser.send("/doctor/indra/ask", {"text": "Yes."})
        assert status == 403
        assert "102" in said["notice"]
        assert running.gateway.metric("emergencies_total", kind="heart") == 1
        async with running.browser() as other:
            assert "notice" not in (await other.send("/doctor/indra/ask", {"text": "Yes."}))[1]


async def test_an_emergency_is_told_of_by_a_gateway_with_too_much_in_work(tmp_path: Path) -> None:
    gate = asyncio.Event()
    full = {"max_in_flight": 1}
    async with (
        pages(tmp_path, names=(), rogues=[RogueMiner(gate=gate)], settings=full) as running,
        running.browser() as browser,
    ):
        await browser.get("/doctor/indra")
        asking = asyncio.create_task(browser.ask("Hello"))
        await eventually(lambda: running.gateway.metric("in_flight") == 1)
        status, said = await browser.send("/doctor/indra/ask", {"text": EMERGENCY})
        assert (status, said["error"]["code"]) == (429, "overloaded")
        assert "1166" in said["notice"]
        assert "notice" not in (await browser.send("/doctor/indra/ask", {"text": "Hello"}))[1]
        status, shown = await browser.submit("/doctor/indra/ask", {"text": EMERGENCY})
        assert status == 429
        assert "1166" in shown
        assert (await browser.get("/"))[1].startswith("<!doctype html>"), "a person is shown a page"
        assert (await browser.send("/doctor/indra/consent", {"given": True}))[0] == 429
        gate.set()
        await asking


async def test_a_comment_that_tells_of_an_emergency_is_answered_with_its_notice(tmp_path: Path) -> None:
    async with pages(tmp_path, names=("Alice",)) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        more = (await browser.ask("My head hurts"))[-2]["bettertherapy"]
        rating = {"answerId": more["answerId"], "questionId": more["questionId"], "stars": 1, "comment": EMERGENCY}
        status, said = await browser.send("/doctor/indra/rate", rating)
        assert status == 201
        assert "1166" in said["notice"]
        assert "notice" not in (await browser.send("/doctor/indra/rate", rating | {"comment": "Thank you"}))[1]


def written_under(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_name_is_in_no_file_and_no_log_and_a_key_on_no_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"sqlite:///{tmp_path}/ledger.db"
    (tmp_path / "store").mkdir()
    settings = {"ledger_url": url, "interactions_store": f"file://{tmp_path}/store"}
    rogue = RogueMiner(says="Dear Maya Rai, rest.")
    async with (
        pages(tmp_path, names=(), rogues=[rogue], keys=KEYS, settings=settings, scrub=KnowsMaya()) as running,
        running.browser() as browser,
    ):
        await browser.get("/doctor/indra")
        more = (await browser.ask("I am Maya Rai, my head hurts"))[-2]["bettertherapy"]
        ids = {"answerId": more["answerId"], "questionId": more["questionId"]}
        await browser.send("/doctor/indra/rate", ids | {"stars": 2, "comment": "Maya Rai was here"})
        await browser.send("/doctor/indra/rate", ids | {"stars": "Maya Rai"})
        await kept(url, more["questionId"], lambda view: view.ratings)
        _, refused = await browser.submit("/sign-in", {"key": f"{DOCTOR}x"})
        _, desk = await sign_in(browser, DOCTOR)
        path = f"/desk/indra/question/{more['questionId']}/correct"
        text = "Maya Rai should rest"
        await browser.submit(path, {"answerId": more["answerId"], "text": text, "seen": mark(text)})
        await kept(url, more["questionId"], lambda view: view.corrections)
        said = json.dumps(
            {"messages": [{"role": "user", "content": "I am Maya Rai"}, {"role": "assistant", "content": "Rest."}]}
        )
        brought = {"conversations": said, "shape": "openai", "consent": "yes", "seen": mark(said)}
        assert "Conversations kept: 1." in (await browser.submit("/desk/indra/upload", brought))[1]
        cookies = "".join(str(cookie.value) for cookie in browser.session.cookie_jar)
        assert DOCTOR not in refused + desk + cookies
    written = written_under(tmp_path)
    assert any(name.startswith("ledger.db") for name in written)
    assert any(name.endswith(".jsonl") for name in written)
    assert [name for name, data in written.items() if b"Maya" in data or DOCTOR.encode() in data] == []
    logged = "\n".join(f"{each.getMessage()} {each.__dict__}" for each in caplog.records if "neurons" in each.name)
    assert "Maya" not in logged
    assert DOCTOR not in logged


async def test_pages_are_open_to_no_other_sites_programs_even_where_the_api_is(tmp_path: Path) -> None:
    settings = {"cors_origins": frozenset({"*"})}
    async with pages(tmp_path, names=(), settings=settings) as running, running.browser() as browser:
        evil = {"Origin": "https://evil.example"}
        for path in ("/", "/doctor/indra", "/sign-in", "/nothing"):
            async with browser.session.get(path, headers=evil) as response:
                assert not [name for name in response.headers if name.startswith("Access-Control")]
        async with browser.session.get("/v1/models", headers=evil) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "https://evil.example"


async def test_guessing_keys_is_slow(tmp_path: Path) -> None:
    async with pages(tmp_path, names=(), keys=KEYS) as running, running.browser() as browser:
        await browser.get("/sign-in")
        began = time.monotonic()
        guesses = (browser.submit("/sign-in", {"key": f"bt-{number}"}) for number in range(60))
        codes = [status for status, _ in await asyncio.gather(*guesses)]
        assert set(codes) <= {403, 429}
        gained = (time.monotonic() - began) * 4 * VISITOR_PER_MINUTE / 60
        assert codes.count(403) <= 4 * VISITOR_BURST + gained + 1


def test_what_miners_answer_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_CHARACTERS", 10_000)
    conversations = Conversations()
    long = Turn("q" * 1000, "", (ShownAnswer("a", shown("w" * 2000)[0], ()),))
    for number in range(20):
        for _ in range(2):
            conversations.add(f"s{number}", long)
    held = [number for number in range(20) if conversations.of(f"s{number}")]
    assert held == [19]  # a conversation has some 6,000
    assert len(conversations.of("s19")) == 2
    conversations.add("s20", Turn("q" * 20_000, "", ()))
    assert not conversations.of("s19")


HOSTILE: Mapping[str, str] = {
    "brackets": "[", "pictures": "![", "stars": "*a **a ", "lines": "_a __a ", "ticks": "`a``b", "quotes": ">",
    "links": "[a](", "marks": "<", "escapes": "\\", "cells": "|a", "lists": "- ", "addresses": "https://",
    "references": "[a]: /u\n", "rows": "|a|b|\n|-|-|\n|x|y|\n", "unclosed": "<http://a", "nested": "\n  - a\n    - b",
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("length", [MAX_MARKDOWN, 1024 * 1024])
def test_no_miners_answer_holds_the_process_up(kind: str, length: int) -> None:
    said = (HOSTILE[kind] * length)[:length]
    began = time.process_time()
    html, _ = shown(said)
    assert time.process_time() - began < 2.0  # a mebibyte of brackets as Markdown: half a minute
    assert dangers(str(html[:100_000])) == []
