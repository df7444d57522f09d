"""What no other site, no stranger and no altered cookie can do."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from neurons.validator.gateway.settings import parse
from neurons.validator.pages.cookies import STAFF_IDLE_SECONDS, STAFF_SECONDS, VISITOR_SECONDS, Cookies
from neurons.validator.pages.markup import MAX_MARKDOWN, shown
from neurons.validator.pages.site import VISITOR_BURST, VISITOR_PER_MINUTE
from neurons.validator.pages.texts import Language, language_of, texts
from tests.unit.pages.browsing import pages

SECRET = b"s" * 32


def value_of(header: str) -> str:
    return header.partition("=")[2].partition(";")[0]


def test_a_cookie_is_known_until_it_is_old_or_altered() -> None:
    now = 1_000_000.0
    cookies = Cookies(SECRET, secure=True, clock=lambda: now)
    visitor = cookies.new_visitor().began("indra", "s1").began("maya", "s2").began("indra", "s3")
    header = cookies.of_visitor(visitor)
    assert header.startswith("__Host-visitor=")
    assert header.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
    value = value_of(header)
    assert cookies.visitor(value) == visitor
    assert visitor.conversations == {"maya": "s2", "indra": "s3"}
    for altered in (value[:-1], value + "0", "x" + value, value.replace(".", ""), "", "é", "a.b", "." * 5000):
        assert cookies.visitor(altered) is None
    assert cookies.staff(value) is None  # one kind is never another
    assert Cookies(b"t" * 32, secure=True).visitor(value) is None
    now += VISITOR_SECONDS
    assert cookies.visitor(value) is None


def test_a_cookie_stays_small_whatever_the_twins_are_called() -> None:
    cookies = Cookies(SECRET, secure=False)
    visitor = cookies.new_visitor()
    for number in range(20):
        visitor = visitor.began("अ" * 200 + str(number), f"{number:036d}")
    header = cookies.of_visitor(visitor)
    assert len(header) <= 4096
    read = cookies.visitor(value_of(header))
    assert read is not None
    assert read.id == visitor.id
    assert list(read.conversations)[-1].endswith("19")


def test_who_signed_in_is_forgotten_after_half_a_day() -> None:
    now = 0.0
    cookies = Cookies(SECRET, secure=True, clock=lambda: now)
    session = cookies.new_staff("sha256:" + "a" * 64)
    value = value_of(cookies.of_staff(session))
    assert cookies.staff(value) == session
    now = STAFF_IDLE_SECONDS
    assert cookies.staff(value) is None, "it rested too long"
    while now + STAFF_IDLE_SECONDS < STAFF_SECONDS:
        now -= 1
        session = cookies.renewed(session)
        now += STAFF_IDLE_SECONDS - 1
        assert cookies.staff(value_of(cookies.of_staff(session))) == session
    session = cookies.renewed(session)
    now = STAFF_SECONDS
    assert cookies.staff(value_of(cookies.of_staff(session))) is None


async def test_only_a_form_of_ours_changes_anything(tmp_path: Path) -> None:
    async with pages(tmp_path, names=()) as running, running.browser() as browser, running.browser() as other:
        await other.get("/")
        status, said = await browser.send("/doctor/indra/ask", {"text": "x"})
        assert (status, said["error"]["code"]) == (403, "not_ours")  # no cookie yet
        await browser.get("/doctor/indra")
        mine = browser.token
        for token, headers in (
            (other.token, {}), ("", {}), (mine, {"Origin": "https://evil.example"}), (mine, {"Origin": "null"}),
            (mine, {"Sec-Fetch-Site": "cross-site"}),
        ):  # fmt: skip
            browser.token = token
            status, said = await browser.send("/doctor/indra/consent", {"given": True}, **headers)
            assert (status, said["error"]["code"]) == (403, "not_ours")
        browser.token = mine
        assert (await browser.submit("/language", {"language": "ne", "back": "/"}))[0] == 200
        assert (await browser.submit("/language", {"language": "ne", "back": "/", "token": "wrong"}))[0] == 403


async def test_every_page_forbids_foreign_scripts_frames_and_caches(tmp_path: Path) -> None:
    async with pages(tmp_path, names=("Alice",)) as running, running.browser() as browser:
        for path in ("/", "/doctor/indra", "/sign-in", "/desk", "/nothing"):
            async with browser.session.get(path) as response:
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert "frame-ancestors 'none'" in policy
                assert response.headers["Cache-Control"] == "no-store"
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                shown = await response.text()
            # No inline script, style or handler that the policy would have to allow.
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", shown)
        [address] = re.findall(r'href="(/static/pages\.[0-9a-f]{16}\.css)"', (await browser.get("/"))[1])
        async with browser.session.get(address) as response:
            assert response.status == 200
            assert "immutable" in response.headers["Cache-Control"]
        assert (await browser.get("/static/../texts.yaml"))[0] == 404
        assert (await browser.get("/v1/models"))[0] == 401  # the API is as it was


async def test_pages_exist_only_where_they_are_asked_for(tmp_path: Path) -> None:
    async with pages(tmp_path, names=(), settings={"pages_origin": None}) as running, running.browser() as browser:
        assert (await browser.get("/"))[0] == 404


async def test_one_visitor_asks_no_more_than_a_few_at_once(tmp_path: Path) -> None:
    async with pages(tmp_path, names=()) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        began = time.monotonic()
        asking = (browser.send("/doctor/indra/ask", {"text": "x"}) for _ in range(40))
        taken = [status for status, _ in await asyncio.gather(*asking) if status != 429]
        gained = (time.monotonic() - began) * VISITOR_PER_MINUTE / 60
        assert VISITOR_BURST <= len(taken) <= VISITOR_BURST + gained + 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [("https://ask.example.org", "https://ask.example.org"), ("http://127.0.0.1:8090", "http://127.0.0.1:8090")],
)
def test_the_pages_address_is_taken(given: str, kept: str) -> None:
    arguments = ["--keys-file", "k", "--metagraph-file", "m", "--pages", given]
    assert parse(arguments, {}).pages_origin == kept


@pytest.mark.parametrize("given", ["http://ask.example.org", "*", "", "https://a/b", "https://a,https://b", "ws://a"])
def test_an_address_without_tls_or_that_is_none_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--keys-file", "k", "--metagraph-file", "m", "--pages", given], {})
    assert re.search(r"argument --pages: .*(https://HOST|scheme, host and port)", capsys.readouterr().err)


def test_markdown_is_shown_and_html_is_not() -> None:
    html = str(shown("1. **Rest**\n2. `water`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<iframe src=x></iframe>")[0])
    assert "<ol>" in html
    assert "<strong>Rest</strong>" in html
    assert "<td>1</td>" in html
    assert "<iframe" not in html
    # Whatever the renderer lets through, the sanitiser holds.
    assert "href" not in str(shown("[click](https://bank.example)")[0])
    assert "img" not in str(shown("![i](https://x/y)")[0])


def test_sources_are_whole_addresses_and_each_stands_once() -> None:
    said = "See [this](https://a.example/x?y=1), https://a.example/x?y=1. Also http://b.example/z) and ftp://c.example"
    assert shown(said)[1] == ("https://a.example/x?y=1", "http://b.example/z")
    assert shown("https://x.example/" + "a" * 600)[1] == ()


def test_a_text_too_long_to_be_markdown_is_shown_as_it_is() -> None:
    html, found = shown("**a** <b>\n" + "x" * MAX_MARKDOWN + " https://a.example/x")
    assert str(html).startswith("<p>**a** &lt;b&gt;<br>\nxxx")
    assert found == ("https://a.example/x",)


def test_every_text_is_there_in_every_language_with_the_same_blanks() -> None:
    for key, both in texts().items():
        blanks = {language: sorted(re.findall(r"\{(\w+)\}", text)) for language, text in both.items()}
        assert set(both) == set(Language)
        assert blanks[Language.ENGLISH] == blanks[Language.NEPALI], key


def test_every_text_that_a_page_asks_for_is_there_and_none_is_idle() -> None:
    folder = Path(__file__).parents[3] / "neurons/validator/pages"
    pages_ = "".join(path.read_text() for path in (*folder.glob("templates/*.html"), *folder.glob("*.py")))
    asked = set(re.findall(r"\bt(?:exts)?\([\"']([A-Za-z]\w*)[\"'][,)]", pages_))
    beginnings = set(re.findall(r"\bt(?:exts)?\([\"'](\w+)[\"'] [+~]", pages_))
    named = set(re.findall(r'"(error_\w+)"', pages_))
    known = set(texts())
    assert asked <= known
    idle = {key for key in known - asked - named if not any(key.startswith(each) for each in beginnings)}
    assert not {key for key in idle if not key.startswith("error_")}, idle


def test_the_language_is_the_chosen_one_or_the_browsers() -> None:
    assert language_of("ne", "en") is Language.NEPALI
    assert language_of(None, "fr, ne-NP;q=0.9, en;q=0.8") is Language.NEPALI
    assert language_of("xx", None) is Language.ENGLISH
