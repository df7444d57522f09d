"""The documentation as a site: built as `make docs` does, and read in a real browser, which asks nobody else.

With $SITE_PICTURES naming a folder, pictures of what the browser shows are left there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.browser import CHROMIUM, SIZES, needs_browser
from tests.conftest import ROOT

READERS = ["Platform engineer", "Miner", "Validator", "Doctor", "Patient", "Contributor"]
LOOKED_AT = ["docs/README", "README", "docs/architecture", "docs/benchmarks", "docs/for-patients", "docs/metrics",
             "docs/pages", "charts/twin-miner/README", "CONTRIBUTING"]  # fmt: skip

pytestmark = pytest.mark.timeout(400)


def built(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Build with the options of the Makefile."""
    [command] = re.findall(r"-m sphinx (.+)", (ROOT / "Makefile").read_text())
    options = command.replace("build/docs-trees", f"{target}-trees").replace(". build/docs", f". {target}").split()
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *options], cwd=source, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site") / "html"
    done = built(ROOT, target)
    assert done.returncode == 0, done.stderr
    return target


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing of a request."""


@pytest.fixture(scope="module")
def origin(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_every_page_is_in_the_site_and_readers_have_a_path(site: Path) -> None:
    # That each is in a menu, and each link leads somewhere, the build itself asserts.
    pages = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("charts/*/README.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    assert [page for page in pages if not (site / page.relative_to(ROOT)).with_suffix(".html").exists()] == []
    home = (site / "docs" / "README.html").read_text()
    assert re.findall(r'<span class="caption-text">(.*?)</span>', home) == READERS
    assert "docs/README.html" in (site / "index.html").read_text()


def test_what_leads_nowhere_fails(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "docs" / "site", source / "docs" / "site")
    shutil.copy(ROOT / "docs" / "conf.py", source / "docs")
    (source / "docs" / "other.md").write_text("# Other\n")
    links = ["[here](no-page.md)", "[here](#no-heading)", "[here](other.md#no-place)", "![here](no-picture.png)"]
    for text, status in (("", 0), ("\n\n".join(links), 1)):
        (source / "docs" / "README.md").write_text(f"# Home\n\n## Reader\n\n- [Other](other.md)\n\n{text}\n")
        done = built(source, tmp_path / f"html{status}")
        assert done.returncode == status, done.stderr
    assert set(re.findall(r"no-[a-z]+", done.stderr)) == {"no-page", "no-heading", "no-place", "no-picture"}


@asynccontextmanager
async def opened(size: str, origin: str) -> AsyncIterator[Page]:
    """A page that fails the test where it asked for anything but the site's own files."""
    asked: list[str] = []
    said: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            context = await browser.new_context(viewport=SIZES[size], reduced_motion="reduce")  # type: ignore[arg-type]
            page = await context.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
            page.on("pageerror", lambda error: said.append(str(error)))
            yield page
        finally:
            await browser.close()
    assert [url for url in asked if not url.startswith((origin, "data:"))] == []
    assert said == []


@needs_browser
@pytest.mark.parametrize("size", SIZES)
async def test_pages_are_as_wide_as_the_screen_and_load_nothing_from_elsewhere(origin: str, size: str) -> None:
    folder = os.environ.get("SITE_PICTURES")
    async with opened(size, origin) as page:
        for name in LOOKED_AT:
            await page.goto(f"{origin}/{name}.html")
            await expect(page.locator("article h1")).to_be_visible()
            wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{name} is {wide} pixels wider than the screen"
            broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
            assert await page.evaluate(broken) == [], name
            if folder:
                await page.screenshot(path=Path(folder) / f"{size}-{name.replace('/', '-')}.png")


@needs_browser
@pytest.mark.parametrize("size", SIZES)
async def test_a_reader_goes_from_the_first_page_to_his_own(origin: str, size: str) -> None:
    async with opened(size, origin) as page:
        await page.goto(f"{origin}/index.html")
        await page.wait_for_url("**/docs/README.html")
        if size == "phone":
            await page.locator("label.nav-overlay-icon").first.click()
        await page.locator(".sidebar-tree").get_by_role("link", name="For doctors").click()
        await expect(page.locator("article h1")).to_contain_text("For doctors")


@needs_browser
async def test_a_word_is_found(origin: str) -> None:
    async with opened("desk", origin) as page:
        await page.goto(f"{origin}/docs/README.html")
        await page.get_by_placeholder("Search").fill("TooFewPods")
        await page.keyboard.press("Enter")
        await expect(page.locator("#search-results a", has_text="Operations").first).to_be_visible()
