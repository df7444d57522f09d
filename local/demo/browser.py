"""A real browser looks at the gateway's pages as a patient does, and leaves a picture."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from demo.errors import DemoError

_WAIT_MS: Final = 180_000
_SIZE: Final = (1000, 900)
_FLAGS: Final = ("--no-sandbox", "--disable-dev-shm-usage")
"""The browser is shown nothing but the demo's own pages, and may run as root."""


def chromium() -> str | None:
    """Return the browser's program: $CHROMIUM, or Debian's; None where there is none."""
    named = os.environ.get("CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("chromium-browser")


def obstacle() -> str | None:
    """Return why no picture can be taken on this machine, None if one can."""
    if chromium() is None:
        return "there is no Chromium (apt-get install chromium; $CHROMIUM names another)"
    try:
        import playwright  # noqa: F401, PLC0415 - a dependency of tests
    except ImportError:
        return "Playwright is not installed (requirements/dev.txt)"
    return None


def visit(origin: str, *, doctor: str, question: str, picture: Path) -> None:
    """Choose the doctor, ask, rate the answer, look at who gave it, and take a picture of the page.

    Raises:
        DemoError: the browser doesn't start, or the page isn't as a patient expects it.
    """
    from playwright.sync_api import Error, sync_playwright  # noqa: PLC0415

    picture.parent.mkdir(parents=True, exist_ok=True)
    width, height = _SIZE
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=list(_FLAGS))
            try:
                context = browser.new_context(
                    base_url=origin, locale="en", viewport={"width": width, "height": height}, reduced_motion="reduce"
                )
                context.set_default_timeout(_WAIT_MS)
                page = context.new_page()
                page.goto("/")
                page.get_by_role("link", name=doctor).click()
                page.get_by_label("Your question").fill(question)
                page.get_by_role("button", name="Ask", exact=True).click()
                page.get_by_text("The answer is here.").wait_for()
                page.get_by_label("4", exact=True).check()
                page.get_by_role("button", name="Send the rating").click()
                page.get_by_text("Noted. Thank you.").wait_for()
                page.get_by_text("Who answered").click()
                page.screenshot(path=picture, full_page=True)
            finally:
                browser.close()
    except Error as error:
        raise DemoError(
            "The gateway's page was not as a patient expects it",
            evidence=str(error)[-2000:],
            remedy=f"open {origin} in a browser; running the demo again goes on from here",
        ) from error
