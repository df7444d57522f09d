"""The pages in a real browser, at phone and desk size: used as a person would, looked through by axe, and pictured.

The browser is Debian's Chromium (`apt-get install chromium fonts-lohit-deva`), driven by Playwright; $CHROMIUM names
another. With $PAGES_PICTURES naming a folder the pictures of docs/images are made anew there.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.async_api import BrowserContext, Page, async_playwright, expect

from neurons.validator.gateway.scrubbing import Clean
from tests.browser import CHROMIUM, SIZES, needs_browser
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.pages.browsing import TWINS, kept, pages
from tests.unit.pages.test_staff import DOCTOR, KEYS, OPERATOR, KnowsMaya

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
BROKEN_CELLS = """() => [...document.querySelectorAll("td, th")].flatMap((cell) => {
  const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), broken = [];
  for (let node = walk.nextNode(); node; node = walk.nextNode()) for (const word of node.data.matchAll(/\\S+/g)) {
    const range = document.createRange();
    range.setStart(node, word.index), range.setEnd(node, word.index + word[0].length);
    if (new Set([...range.getClientRects()].map((each) => Math.round(each.top))).size > 1) broken.push(word[0]);
  }
  return broken;
})"""
"""Words in cells of tables that stand on more than one line."""
WAIT_MS = 60_000
ANSWER = (
    "A headache that lasts two days is most often harmless.\n\n"
    "1. **Rest**, and drink enough water.\n2. Paracetamol helps, as its leaflet says.\n\n"
    "| Medicine | Dose | When to take it, and what to look out for meanwhile |\n| --- | --- | --- |\n"
    "| Paracetamol | 500 mg | every six hours at most, with a glass of water, and no alcohol |\n\n"
    "See a doctor soon if it gets worse, or if you have a fever or a stiff neck. "
    "Read more: https://medlineplus.gov/headache.html"
)
OTHER_ANSWER = "Drink water and rest. If the headache gets worse or you have a fever, see a doctor."

pytestmark = [
    needs_browser,
    pytest.mark.timeout(600),
]


@asynccontextmanager
async def opened(size: str, origin: str, **options: Any) -> AsyncIterator[BrowserContext]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context(
            base_url=origin,
            viewport=SIZES[size],
            locale=options.pop("locale", "en"),
            reduced_motion="reduce",
            **options,
        )  # type: ignore[call-overload]
        context.set_default_timeout(WAIT_MS)
        context.set_default_navigation_timeout(WAIT_MS)
        try:
            yield context
        finally:
            await browser.close()


async def look(page: Page, name: str) -> None:
    """Let axe look through the page, check that nothing is wider than the screen, and take a picture if asked to."""
    # By the debugger and not as a script of the page, which its policy would forbid.
    await page.evaluate(AXE)
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    serious = [
        (each["id"], [node["html"][:200] for node in each["nodes"]])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical", "moderate")
    ]
    assert not serious, f"{name}: {serious}"
    wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{name} is {wide} pixels wider than the screen"
    assert await page.evaluate(BROKEN_CELLS) == []
    folder = os.environ.get("PAGES_PICTURES")
    if folder:
        await page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def watched(page: Page) -> list[str]:
    """Return what the browser complains of: errors of programs, and what the policy stopped."""
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    return complaints


@pytest.mark.parametrize("size", list(SIZES))
async def test_a_patient_asks_rates_and_compares(size: str, tmp_path: Path) -> None:
    rogues = [RogueMiner(says=ANSWER), RogueMiner(name="Ferdie", says=OTHER_ANSWER)]
    async with pages(tmp_path, names=(), rogues=rogues) as running, opened(size, running.origin) as context:
        page = await context.new_page()
        complaints = watched(page)
        await page.goto("/")
        await look(page, f"choose-{size}")
        await page.get_by_role("link", name="Dr. Indra Gurung").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("The twin of Dr. Indra Gurung")
        # By the keyboard alone.
        question = page.get_by_label("Your question")
        await question.fill("I have had a headache for two days.")
        await question.press("Tab")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Ask", exact=True)).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("The answer is here.")).to_be_visible(timeout=WAIT_MS)
        answer = page.locator(".turn .answer")
        await expect(answer).to_contain_text("headache")
        await expect(question).to_be_focused()
        await page.get_by_label("4", exact=True).check()
        await page.get_by_role("button", name="Send the rating").click()
        await expect(page.get_by_text("Noted. Thank you.")).to_be_visible()
        await page.get_by_text("Who answered").click()
        await look(page, f"talk-{size}")
        async with context.expect_page() as opening:
            await page.get_by_role("button", name="Look at the receipt").click()
        receipt = await opening.value
        await expect(receipt.get_by_text("Genuine: the miner named here")).to_be_visible(timeout=WAIT_MS)
        await look(receipt, f"receipt-{size}")
        await receipt.close()
        # A comment is free text, and may tell of an emergency.
        await page.locator(".rate textarea").fill("I took forty tablets and want to die")
        await page.get_by_role("button", name="Send the rating").click()
        await expect(page.locator(".rate [role=status]")).to_contain_text("1166", timeout=WAIT_MS)
        # Two answers, blind.
        await question.fill("Which is better?")
        await page.get_by_label("Show me two answers").check()
        await page.get_by_role("button", name="Ask", exact=True).click()
        await expect(page.get_by_role("button", name="A is better")).to_be_visible(timeout=WAIT_MS)
        await look(page, f"compare-{size}")
        await page.get_by_role("button", name="B is better").click()
        await expect(page.get_by_text("Your choice came from")).to_be_visible(timeout=WAIT_MS)
        await page.reload()
        await expect(page.get_by_text("Your choice", exact=True)).to_be_visible()
        await expect(page.get_by_label("4", exact=True)).to_be_checked()
        assert complaints == []


@pytest.mark.parametrize("size", list(SIZES))
async def test_an_emergency_shows_its_notice_first_also_when_nobody_answers(size: str, tmp_path: Path) -> None:
    rogue = RogueMiner(status=500)
    async with pages(tmp_path, names=(), rogues=[rogue]) as running, opened(size, running.origin) as context:
        page = await context.new_page()
        await page.goto("/doctor/indra")
        # The question can be sent again.
        await page.get_by_label("Your question").fill("May I drink coffee?")
        await page.get_by_role("button", name="Ask", exact=True).click()
        await expect(page.locator(".turn").last).to_contain_text("Nobody could answer now", timeout=WAIT_MS)
        await expect(page.get_by_label("Your question")).to_have_value("May I drink coffee?")
        await page.get_by_label("Your question").fill("I have crushing chest pain and my left arm hurts")
        await page.get_by_role("button", name="Ask", exact=True).click()
        notice = page.locator(".turn").last.locator(".notice")
        await expect(notice).to_be_visible(timeout=WAIT_MS)
        await expect(notice).to_contain_text("102")
        await expect(page.locator(".turn").last).to_contain_text("Nobody could answer now", timeout=WAIT_MS)
        await expect(notice).to_be_visible()
        await expect(page.locator("#status")).to_contain_text("Nobody could answer now")
        await look(page, f"emergency-{size}")
        # A page that is too old sends nothing on, and shows the notice all the same.
        await context.clear_cookies()
        await page.get_by_label("Your question").fill("I took forty tablets and want to die")
        await page.get_by_role("button", name="Ask", exact=True).click()
        last = page.locator(".turn").last
        await expect(last.locator(".notice")).to_contain_text("1166", timeout=WAIT_MS)
        await expect(last.locator(".failure")).to_be_visible()


async def test_a_notice_is_in_no_twins_words_while_two_answers_come(tmp_path: Path) -> None:
    may_end = threading.Event()

    def slowly(said: str) -> Clean:
        assert may_end.wait(WAIT_MS / 1000)
        return Clean(said)

    rogues = [RogueMiner(says="Rest."), RogueMiner(name="Ferdie", says="Drink.")]
    settings = {"ledger_url": f"sqlite:///{tmp_path}/ledger.db"}
    async with (
        pages(tmp_path, names=(), rogues=rogues, settings=settings, scrub=slowly) as running,
        opened("phone", running.origin) as context,
    ):
        page = await context.new_page()
        await page.goto("/doctor/indra")
        await page.get_by_label("Show me two answers").check()
        await page.get_by_label("Your question").fill("I have crushing chest pain and my left arm hurts")
        await page.get_by_role("button", name="Ask", exact=True).click()
        try:
            words = page.locator(".turn .answer .words")
            await expect(words.nth(1)).to_have_text(re.compile(r"^(Rest|Drink)\.$"), timeout=20_000)
            await expect(words.nth(0)).to_have_text(re.compile(r"^(Rest|Drink)\.$"))
            await expect(page.locator(".turn .notice")).to_contain_text("102")
        finally:
            may_end.set()
        await expect(page.get_by_role("button", name="A is better")).to_be_visible(timeout=WAIT_MS)


async def test_nothing_that_others_write_is_wider_than_a_phone(tmp_path: Path) -> None:
    """Whose name a miner makes up, what a twin says and what a patient writes may have no blank in it."""
    long = RogueMiner(twin="b" * 200, says="Rest.")
    wide = "|" + "|".join("column" * 9 for _ in range(9)) + "|\n|" + "---|" * 9
    says = f"{'word' * 80} https://x.example/{'a' * 300}\n\n{wide}\n\n    {'code' * 60}"
    rogue = RogueMiner(name="Ferdie", says=says)
    async with pages(tmp_path, names=(), rogues=[long, rogue]) as running, opened("phone", running.origin) as context:
        [doctor] = TWINS["twins"]  # type: ignore[misc]
        named = dict(doctor) | {"doctor": "Dr." + "Indra" * 40, "licence": "N" * 64, "specialty": "Otology" * 18}
        twins = [named, {"name": "b" * 200}]
        (tmp_path / "twins.json").write_text(json.dumps({**TWINS, "twins": twins}))
        running.gateway.service._twins_file.refresh()  # type: ignore[union-attr]
        page = await context.new_page()
        for path in ("/", f"/?doctor={'z' * 200}", f"/doctor/{'b' * 200}", f"/{'x' * 300}", "/doctor/indra"):
            await page.goto(path)
            await look(page, "long words")
        await page.get_by_label("Your question").fill("What" * 60)
        await page.get_by_role("button", name="Ask", exact=True).click()
        await expect(page.get_by_text("The answer is here.")).to_be_visible(timeout=WAIT_MS)
        await look(page, "long words")


@pytest.mark.parametrize("size", list(SIZES))
async def test_nepali_pages_read_as_well(size: str, tmp_path: Path) -> None:
    async with pages(tmp_path, names=("Alice",)) as running, opened(size, running.origin, locale="ne-NP") as context:
        page = await context.new_page()
        await page.goto("/")
        await look(page, f"nepali-choose-{size}")
        await page.goto("/doctor/indra")
        await page.get_by_label("तपाईंको प्रश्न").fill("मलाई दुई दिनदेखि टाउको दुखेको छ।")
        await page.get_by_role("button", name="सोध्नुहोस्", exact=True).click()
        await expect(page.get_by_text("जवाफ आयो।")).to_be_visible(timeout=WAIT_MS)
        await look(page, f"nepali-{size}")


@pytest.mark.parametrize("size", list(SIZES))
async def test_a_doctor_and_an_operator_work_behind_the_sign_in(size: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    (tmp_path / "store").mkdir()
    settings = {"ledger_url": url, "interactions_store": f"file://{tmp_path}/store"}
    rogues = [RogueMiner(says=ANSWER), RogueMiner(name="Ferdie", says=OTHER_ANSWER)]
    async with (
        pages(tmp_path, names=(), rogues=rogues, keys=KEYS, settings=settings, scrub=KnowsMaya()) as running,
        opened(size, running.origin) as context,
    ):
        async with running.browser() as patient:
            await patient.get("/doctor/indra")
            await patient.send("/doctor/indra/consent", {"given": True})
            more = (await patient.ask("I am Maya Rai and my head hurts"))[-2]["bettertherapy"]
            await kept(url, more["questionId"], lambda view: view.answers)
        page = await context.new_page()
        complaints = watched(page)

        async def sign_in(key: str) -> None:
            await page.goto("/sign-in")
            await look(page, f"sign-in-{size}")
            await page.get_by_label("Key").fill(key)
            await page.get_by_role("main").get_by_role("button", name="Sign in").click()

        await sign_in(DOCTOR)
        await look(page, f"desk-{size}")
        await page.get_by_role("link", name="Questions and answers").click()
        await look(page, f"questions-{size}")
        await page.get_by_role("link", name="Review and correct").click()
        await page.get_by_label("What you would have answered").fill("Maya Rai should rest for a day.")
        await page.get_by_role("button", name="Keep the correction").click()
        await expect(page.get_by_text("What is removed before it is kept")).to_be_visible(timeout=WAIT_MS)
        await look(page, f"correct-{size}")
        await page.get_by_role("button", name="Keep it without what is struck out").click()
        await kept(url, more["questionId"], lambda view: view.corrections)
        await page.goto("/desk/indra/upload")
        await page.get_by_label("Conversations, one").fill(
            '{"messages": [{"role": "user", "content": "I am Maya Rai. Can I fly with a cold?"}, '
            '{"role": "assistant", "content": "Yes, with a nasal spray before landing."}]}'
        )
        await page.get_by_role("button", name="Show what would be kept").click()
        await expect(page.get_by_text("Kept is:")).to_be_visible(timeout=WAIT_MS)
        await look(page, f"upload-{size}")
        await page.goto("/desk/indra/learned")
        await look(page, f"learned-{size}")
        await page.get_by_role("button", name="Sign out").click()
        await sign_in(OPERATOR)
        await expect(page.get_by_text("Rounds are not shown here")).to_be_visible(timeout=WAIT_MS)
        await look(page, f"miners-{size}")
        assert complaints == []
