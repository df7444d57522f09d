"""A patient chooses a doctor, asks, sees who answered, rates and compares; and what of it stays the patient's."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from pathlib import Path

import pytest

from neurons.validator.gateway.feedback import Feedback
from neurons.validator.pages import patient
from neurons.validator.pages.doctors import Doctors
from neurons.validator.pages.turns import Conversations
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.miner.engine_pods import text
from tests.unit.pages.browsing import kept, pages, without_maya


async def test_a_doctor_is_chosen_by_name_licence_and_specialty(tmp_path: Path) -> None:
    async with pages(tmp_path, names=("Alice",)) as running, running.browser() as browser:
        status, shown = await browser.get("/")
        assert status == 200
        assert "Dr. Indra Gurung" in shown
        assert "General practice" in shown
        assert "NPI 1234567893" in shown
        assert 'href="/doctor/indra"' in shown
        assert "Dr. Indra Gurung" in (await browser.get("/?doctor=general+gurung"))[1]
        assert "Dr. Indra Gurung" not in (await browser.get("/?doctor=surgery"))[1]
        status, shown = await browser.get("/doctor/indra")
        assert status == 200
        assert "licence not checked" in shown  # no register is named
        assert '<a href="tel:102">102</a> (ambulance)' in shown  # how to call for help, before anything is asked
        assert (await browser.get("/doctor/nobody"))[0] == 404


async def test_an_answer_streams_and_ends_with_who_gave_it(tmp_path: Path) -> None:
    async with pages(tmp_path, names=("Alice", "Charlie")) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        got = await browser.ask("I have had a headache for two days.")
        assert text(got) == "It is fine."
        more = got[-2]["bettertherapy"]
        assert more["miner"]["hotkey"] in more["html"]
        assert more["adapter"] in more["html"]
        assert more["receipt"] in more["html"]
        # The page shows it again, and the next question goes on in the same conversation.
        _, shown = await browser.get("/doctor/indra")
        assert "I have had a headache for two days." in shown
        assert "It is fine." in shown
        again = await browser.ask("And today?")
        assert again[-2]["bettertherapy"]["sessionId"] == more["sessionId"]
        status, shown = await browser.submit("/receipt", {"receipt": more["receipt"]})
        assert status == 200
        assert "Genuine" in shown
        assert more["miner"]["hotkey"] in shown
        # A new conversation begins without it.
        await browser.submit("/doctor/indra/anew", {})
        assert "headache" not in (await browser.get("/doctor/indra"))[1]


async def test_the_emergency_notice_comes_first_and_stays(tmp_path: Path) -> None:
    async with pages(tmp_path, names=("Alice",)) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        got = await browser.ask("I have crushing chest pain and my left arm hurts")
        first = got[0]["choices"][0]["delta"]
        assert first["role"] == "assistant"
        assert "102" in first["content"]
        html = got[-2]["bettertherapy"]["html"]
        assert html.index("This may be an emergency") < html.index("It is fine.")
        # The notice is the page's, and not among the twin's words.
        assert "102" not in html[html.index("It is fine.") :]


async def test_when_every_miner_is_down_the_patient_is_told_so(tmp_path: Path) -> None:
    rogue = RogueMiner(status=500)
    async with pages(tmp_path, names=(), rogues=[rogue]) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        headers = {"X-Form-Token": browser.token}
        async with browser.session.post("/doctor/indra/ask", json={"text": "Hello"}, headers=headers) as response:
            body = await response.text()
        assert "no_answer" in body
        # In an emergency the notice was shown, and the page says that no doctor's twin answered.
        got = await browser.ask("I took forty tablets and want to die")
        html = got[-2]["bettertherapy"]["html"]
        assert "Nobody could answer now" in html
        assert "1166" in html


async def test_stars_and_a_comment_are_kept_without_names(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with pages(tmp_path, names=("Alice",), settings={"ledger_url": url}, scrub=without_maya) as running:
        async with running.browser() as browser:
            await browser.get("/doctor/indra")
            assert (await browser.send("/doctor/indra/consent", {"given": True}))[0] == 200
            more = (await browser.ask("I am Maya Rai, my head hurts"))[-2]["bettertherapy"]
            rating = {
                "answerId": more["answerId"],
                "questionId": more["questionId"],
                "stars": 4,
                "comment": "Maya Rai likes it",
            }
            assert await browser.send("/doctor/indra/rate", rating) == (201, {"kept": True})
            assert (await browser.send("/doctor/indra/rate", rating | {"stars": 9}))[0] == 400
            _, shown = await browser.get("/doctor/indra")
            assert re.search(r'value="4" required checked', shown)
            assert re.search(r'name="given"[^>]* checked', shown)
            assert (await browser.send("/doctor/indra/consent", {"given": False}))[0] == 200
            assert not re.search(r'name="given"[^>]* checked', (await browser.get("/doctor/indra"))[1])
        view = await kept(url, more["questionId"], lambda view: view.ratings)
        assert view.question.text.text == "I am [NAME], my head hurts"
        assert view.ratings[0].stars == 4
        assert view.ratings[0].comment is not None
        assert view.ratings[0].comment.text == "[NAME] likes it"


async def test_a_withdrawal_counts_though_the_consent_was_taken_by_a_clock_that_is_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_in = {"ledger_url": f"sqlite:///{tmp_path}/ledger.db"}
    async with pages(tmp_path, names=(), settings=kept_in, scrub=without_maya) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        with monkeypatch.context() as ahead:
            real = time.time_ns
            ahead.setattr(time, "time_ns", lambda: real() + 60 * 10**9)
            assert (await browser.send("/doctor/indra/consent", {"given": True}))[0] == 200
        assert (await browser.send("/doctor/indra/consent", {"given": False}))[0] == 200
        assert not re.search(r'name="given"[^>]* checked', (await browser.get("/doctor/indra"))[1])


async def test_consent_is_shown_as_it_was_given_while_the_ledger_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient, "CONSENT_SECONDS", 0.0)
    settings = {"ledger_url": f"sqlite:///{tmp_path}/ledger.db"}
    async with (
        pages(tmp_path, names=(), settings=settings, scrub=without_maya) as running,
        running.browser() as browser,
        running.browser() as other,
    ):
        await browser.get("/doctor/indra")
        for given in (True, False):
            assert (await browser.send("/doctor/indra/consent", {"given": given}))[0] == 200
            shown = (await browser.get("/doctor/indra"))[1]
            assert bool(re.search(r'name="given"[^>]* checked', shown)) is given
            assert not re.search(r'name="given"[^>]* checked', (await other.get("/doctor/indra"))[1])


async def test_two_answers_are_compared_blind_and_the_choice_is_a_preference(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    rogue = RogueMiner(says="Drink water.")
    async with (
        pages(tmp_path, names=("Alice",), rogues=[rogue], settings={"ledger_url": url}, scrub=without_maya) as running,
        running.browser() as browser,
    ):
        await browser.get("/doctor/indra")
        got = await browser.ask("My head hurts", compare=True)
        more = got[-2]["bettertherapy"]
        html = more["html"]
        assert "It is fine." in html
        assert "Drink water." in html
        hotkeys = {rogue.keypair.ss58_address, running.gateway.miners[0].keypair.ss58_address}
        assert not any(hotkey in html for hotkey in hotkeys)  # blind
        [first, second] = [each["answerId"] for each in more["compared"]]
        status, told = await browser.send("/doctor/indra/prefer", {"preferredId": second})
        assert status == 201
        assert all(hotkey in told["html"] for hotkey in hotkeys)  # and told then
        assert (await browser.send("/doctor/indra/prefer", {"preferredId": first}))[0] == 409
        assert "Your choice" in (await browser.get("/doctor/indra"))[1]
        view = await kept(url, more["questionId"], lambda view: view.preferences)
        [pair] = view.preferences
        assert (pair.preferred_id, pair.rejected_id, pair.by) == (second, first, "patient")


async def test_another_browser_has_no_part_in_a_conversation(tmp_path: Path) -> None:
    async with pages(tmp_path, names=("Alice",)) as running, running.browser() as one, running.browser() as other:
        await one.get("/doctor/indra")
        more = (await one.ask("A secret of mine"))[-2]["bettertherapy"]
        assert "A secret" not in (await other.get("/doctor/indra"))[1]
        rating = {"answerId": more["answerId"], "questionId": more["questionId"], "stars": 1}
        assert (await other.send("/doctor/indra/rate", rating))[0] == 404
        await other.ask("Hello")
        assert (await other.send("/doctor/indra/rate", rating))[0] == 404
        # Nor has a client with a key of the API's.
        status, _ = await running.gateway.get(f"/v1/sessions/{more['sessionId']}")
        assert status == 404


async def test_no_log_has_a_patients_words_or_session(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with pages(tmp_path, names=("Alice",)) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        more = (await browser.ask("xylophonic pain"))[-2]["bettertherapy"]
        await browser.send(
            "/doctor/indra/rate",
            {"answerId": more["answerId"], "questionId": more["questionId"], "stars": 2, "comment": "zzyzx"},
        )
        await browser.send("/doctor/indra/rate", {"answerId": more["answerId"], "stars": "zzyzx"})
    said = "\n".join(
        f"{record.getMessage()} {record.__dict__}" for record in caplog.records if record.name.startswith("neurons")
    )
    assert "xylophonic" not in said
    assert "zzyzx" not in said
    assert more["sessionId"] not in said


async def test_nepali_is_shown_when_asked_for_and_remembered(tmp_path: Path) -> None:
    async with pages(tmp_path, names=("Alice",)) as running, running.browser() as browser:
        _, shown = await browser.get("/", **{"Accept-Language": "ne-NP,en;q=0.5"})
        assert '<html lang="ne">' in shown
        assert "डाक्टर छान्नुहोस्" in shown
        _, shown = await browser.submit("/language", {"language": "en", "back": "/doctor/indra"})
        assert '<html lang="en">' in shown
        assert "The twin of Dr. Indra Gurung" in shown
        _, shown = await browser.submit("/language", {"language": "ne", "back": "//evil.example/"})
        assert "डाक्टर छान्नुहोस्" in shown  # nobody is led to another site


async def test_a_miners_markup_can_do_nothing(tmp_path: Path) -> None:
    rogue = RogueMiner(
        says="# Title\n<script>alert(1)</script> **bold** ![x](https://evil.example/pixel.png) "
        "[safe](https://good.example/a) [bad](javascript:alert(1)) <b onclick=x>b</b>"
    )
    async with pages(tmp_path, names=(), rogues=[rogue]) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        got = await browser.ask("<img src=x onerror=alert(2)>")
        html = got[-2]["bettertherapy"]["html"]
        assert "<script" not in html
        assert "<img" not in html
        assert "<b " not in html
        assert "<strong>bold</strong>" in html
        assert "<strong>Title</strong>" in html
        assert "&lt;img src=x onerror=alert(2)&gt;" in html
        links = re.findall(r'href="([^"]*)"', html)
        assert "https://good.example/a" in links
        assert not any("javascript" in link for link in links)
        _, shown = await browser.get("/doctor/indra")
        assert "onerror=alert(2)>" not in shown


async def test_an_answer_is_rated_and_chosen_in_whatever_window_it_came(tmp_path: Path) -> None:
    """Two windows that begin at once have a conversation each, and the browser goes on with one of them."""
    async with pages(tmp_path, names=("Alice", "Charlie")) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        both = await asyncio.gather(browser.ask("My head hurts", compare=True), browser.ask("And my knee"))
        compared, alone = (got[-2]["bettertherapy"] for got in both)
        await browser.submit("/doctor/indra/anew", {})

        def form(html: str, name: str) -> dict[str, str]:
            [fields] = re.findall(rf'<form class="{name}"(.*?)</form>', html, re.DOTALL)[:1]
            return dict(re.findall(r'name="(\w+)" value="([^"]+)"', fields))

        rating = {**form(alone["html"], "rate"), "stars": 4}
        choice = form(compared["html"], "prefer")
        async with running.browser() as other:
            await other.get("/doctor/indra")
            assert (await other.send("/doctor/indra/rate", rating))[0] == 404
            assert (await other.send("/doctor/indra/prefer", choice))[0] == 404
        assert (await browser.send("/doctor/indra/rate", rating))[0] == 201
        assert (await browser.send("/doctor/indra/prefer", choice))[0] == 201


async def test_a_comment_is_shown_again_and_not_lost_with_other_stars(tmp_path: Path) -> None:
    async with pages(tmp_path, names=("Alice",)) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        more = (await browser.ask("My head hurts"))[-2]["bettertherapy"]
        rating = {"answerId": more["answerId"], "questionId": more["questionId"], "stars": 2, "comment": "Too <short>"}
        assert (await browser.send("/doctor/indra/rate", rating))[0] == 201
        assert ">Too &lt;short&gt;</textarea>" in (await browser.get("/doctor/indra"))[1]


async def test_a_conversation_that_is_shown_again_has_its_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only its words are known, as after a restart."""
    async with pages(tmp_path, names=("Alice",)) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        await browser.ask("I have crushing chest pain and my left arm hurts")
        await browser.ask("May I drink coffee?")
        for known in (True, False):
            _, shown = await browser.get("/doctor/indra")
            assert shown.index("This may be an emergency") < shown.index("It is fine.") < shown.index("coffee")
            assert shown.count("This may be an emergency") == 1
            if known:
                monkeypatch.setattr(Conversations, "of", lambda *_: ())
        assert running.gateway.metric("emergencies_total", kind="heart") == 1


async def test_a_page_that_is_only_sent_to_changes_its_language_where_it_belongs(tmp_path: Path) -> None:
    async with pages(tmp_path, names=("Alice",)) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        more = (await browser.ask("My head hurts"))[-2]["bettertherapy"]
        for path, fields, leads_to in (
            ("/receipt", {"receipt": more["receipt"]}, "/"), ("/doctor/indra/ask", {"text": "x"}, "/doctor/indra"),
            ("/nothing/at/all", {}, "/"),
        ):  # fmt: skip
            _, shown = await browser.submit(path, fields)
            [back] = re.findall(r'name="back" value="([^"]*)"', shown)
            given = {"token": browser.token, "language": "ne", "back": back}
            async with browser.session.post("/language", data=given, allow_redirects=False) as response:
                assert (response.status, response.headers["Location"]) == (303, leads_to), back
        evil = "evil.example"
        for back in (f"//{evil}/", f"https://{evil}/", f"/\\{evil}", f"/%2F/{evil}", f"/.//{evil}"):
            given = {"token": browser.token, "language": "ne", "back": back}
            async with browser.session.post("/language", data=given, allow_redirects=False) as response:
                assert response.headers["Location"] == "/", back


async def test_without_the_pages_program_a_person_is_shown_a_page_and_no_words_get_into_an_address(
    tmp_path: Path,
) -> None:
    async with pages(tmp_path, names=("Alice",)) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        await browser.ask("My head hurts", compare=True)
        await browser.ask("My head hurts")
        _, shown = await browser.get("/doctor/indra")
        forms = re.findall(r"<form[^>]*>", shown)
        assert len(forms) >= 6
        assert [form for form in forms if 'method="post" action="/' not in form] == []
        for form in ("ask", "rate", "prefer"):
            status, shown = await browser.submit(f"/doctor/indra/{form}", {"text": "Hello", "comment": "Hello"})
            assert status == 400
            assert "This needs JavaScript" in shown
            assert '<a href="tel:102">102</a> (ambulance)' in shown
        _, shown = await browser.submit("/doctor/indra/rate", {"comment": "I took forty tablets and want to die"})
        assert shown.index("1166") < shown.index("This needs JavaScript")


async def test_a_failure_of_the_gateways_own_is_told_in_the_pages_words_and_an_emergency_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Maya Rai")

    async with pages(tmp_path, names=("Alice",)) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        monkeypatch.setattr(Feedback, "rate", broken)
        monkeypatch.setattr(Doctors, "get", broken)
        fatal = "I took forty tablets and want to die"
        status, said = await browser.send("/doctor/indra/rate", {"comment": fatal, "sessionId": "x", "stars": 1})
        assert (status, said["error"]["code"]) == (500, "internal_error")
        assert "1166" in said["notice"]
        assert "1166" in (await browser.send("/doctor/indra/ask", {"text": fatal}))[1]["notice"]
        status, shown = await browser.get("/doctor/indra")
        assert status == 500
        assert "It could not be done" in shown
        assert '<a href="tel:102">102</a> (ambulance)' in shown
    assert "Maya" not in caplog.text
