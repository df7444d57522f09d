"""A browser without a screen or a program: it keeps cookies, reads forms' tokens and sends what pages send."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp

from neurons.ledger import Ledger, LedgerError, QuestionView
from neurons.validator.gateway.scrubbing import Clean
from tests.unit.gateway.running_gateway import RunningGateway, gateway
from tests.unit.miner.engine_pods import events

_TOKEN = re.compile(r'name="token" value="([0-9a-f]{32})"')
TWINS = {
    "format": "bettertherapy-twins/1",
    "twins": [
        {
            "name": "indra", "uid": "3f0c1f0e-0000-4000-8000-000000000001", "doctor": "Dr. Indra Gurung",
            "licence": "NPI 1234567893", "specialty": "General practice",
        }
    ],
}  # fmt: skip


def without_maya(said: str) -> Clean:
    """Stands for the models, which take seconds to load: it knows one name."""
    return Clean(said.replace("Maya Rai", "[NAME]"))


async def kept(url: str, question_id: str, holds: Callable[[QuestionView], Any]) -> QuestionView:
    """Wait until the ledger has that of a question."""
    async with await Ledger.open(url) as ledger, asyncio.timeout(30):
        while True:
            try:
                view = await ledger.question(question_id=question_id)
            except LedgerError:
                view = None
            if view is not None and holds(view):
                return view
            await asyncio.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Browser:
    """`await browser.get("/")`, then `post` and `send` with the token of that page."""

    session: aiohttp.ClientSession
    origin: str
    token: str = ""

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with self.session.get(path, headers=headers) as response:
            text = await response.text()
            if match := _TOKEN.search(text):
                self.token = match[1]
            return response.status, text

    async def send(self, path: str, value: Any, **headers: str) -> tuple[int, Any]:
        """Send what a page's program sends; returns its JSON."""
        given = {"X-Form-Token": self.token, "Origin": self.origin, **headers}
        async with self.session.post(path, json=value, headers=given) as response:
            return response.status, await response.json(content_type=None)

    async def ask(self, text: str, *, twin: str = "indra", compare: bool = False) -> list[Any]:
        """Ask, and return the stream's events."""
        headers = {"X-Form-Token": self.token, "Origin": self.origin}
        body = {"text": text, "compare": compare}
        async with self.session.post(f"/doctor/{twin}/ask", json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            return events(await response.read())

    async def submit(self, path: str, fields: Mapping[str, str]) -> tuple[int, str]:
        """Send a form, and follow where it leads."""
        data = {"token": self.token, **fields}
        async with self.session.post(path, data=data, headers={"Origin": self.origin}) as response:
            text = await response.text()
            if match := _TOKEN.search(text):
                self.token = match[1]
            return response.status, text


class _Dangers(HTMLParser):
    """Collects whatever of a page could run a program or lead away unasked."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in {"iframe", "object", "embed", "svg", "math", "img", "base", "style", "audio", "video"}:
            self.found.append(f"<{tag}>")
        if tag == "script" and not given.get("src", "").startswith("/static/"):
            self.found.append("<script>")
        for name, value in given.items():
            if name.startswith("on") or name in {"style", "srcdoc", "formaction", "ping"}:
                self.found.append(f"{tag} {name}")
            if name in {"href", "src", "action"} and not re.match(r"/(?!/)|#|\?|https?://|tel:[0-9]+$", value):
                self.found.append(f"{tag} {name}={value}")


def dangers(html: str) -> list[str]:
    """Return what of this markup could run a program in a browser, whatever the policy says."""
    parser = _Dangers()
    parser.feed(html)
    parser.close()
    return parser.found


@dataclass
class RunningPages:
    gateway: RunningGateway
    origin: str

    @asynccontextmanager
    async def browser(self) -> AsyncIterator[Browser]:
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(self.origin, cookie_jar=jar) as session:
            yield Browser(session, self.origin)


@asynccontextmanager
async def pages(
    folder: Path, *, settings: Mapping[str, Any] | None = None, **given: Any
) -> AsyncIterator[RunningPages]:
    """A gateway with its pages, before miners that really run."""
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    (folder / "twins.json").write_text(json.dumps(TWINS))
    own = {"port": port, "pages_origin": origin, "twins_file": folder / "twins.json", "country": "NP"}
    async with gateway(folder, settings=own | dict(settings or {}), **given) as running:
        yield RunningPages(running, origin)
