"""Templates, and the files that pages load: all read once, and named by their content so that browsers keep them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import jinja2
from aiohttp import web
from markupsafe import Markup, escape

from bettertherapy_api import names
from neurons.emergency import Language as NoticeLanguage
from neurons.emergency import numbers
from neurons.validator.pages.texts import NAMES, Texts
from neurons.validator.pages.visit import Visit

PACKAGE: Final = "neurons.validator.pages"
_KINDS: Final[Mapping[str, str]] = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_NUMBER: Final = re.compile(r"\d(?:[ -]?\d){2,}")
_A_YEAR: Final = "public, max-age=31536000, immutable"


def dialled(said: str) -> Markup:
    """Return a text in which a touch on a telephone number, in digits of any script, calls it."""
    made, end = Markup(), 0
    for found in _NUMBER.finditer(said):
        number = "".join(str(unicodedata.digit(each)) for each in found[0] if each.isdigit())
        made += escape(said[end : found.start()]) + Markup('<a href="tel:{}">{}</a>').format(number, found[0])
        end = found.end()
    return made + escape(said[end:])


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    kind: str


class Renderer:
    """Renders templates with autoescape, which refuse a name that isn't there."""

    def __init__(self, *, country: str | None = None) -> None:
        """`country`: ISO 3166, for the numbers to call."""
        self._country = country
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader(PACKAGE, "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._files: dict[str, _File] = {}
        self._addresses: dict[str, str] = {}
        for entry in resources.files(PACKAGE).joinpath("static").iterdir():
            stem, _, kind = entry.name.rpartition(".")
            if kind in _KINDS:
                data = entry.read_bytes()
                address = f"/static/{stem}.{hashlib.sha256(data).hexdigest()[:16]}.{kind}"
                self._files[address] = _File(data, _KINDS[kind])
                self._addresses[entry.name] = address
        self._environment.globals.update(
            static=self._addresses.__getitem__, languages=NAMES, short=_short, version=_version
        )

        self._environment.filters["dialled"] = dialled
        for template in self._environment.list_templates():
            self._environment.get_template(template)  # a flaw shows at the start, and no visitor waits for compiling

    def part(self, template: str, texts: Texts, **values: Any) -> str:
        """Return a part of a page."""
        return self._environment.get_template(template).render(t=texts, **values)

    def page(self, template: str, visit: Visit, *, status: int = 200, **values: Any) -> web.Response:
        """Return a whole page."""
        emergency, crisis = numbers(NoticeLanguage(visit.texts.language.value), country=self._country)
        text = self.part(
            template, visit.texts, token=visit.token, path=visit.request.rel_url.raw_path, staff=visit.staff,
            emergency=emergency, crisis=crisis, **values,
        )  # fmt: skip
        return web.Response(status=status, text=text, content_type="text/html")

    def file(self, path: str) -> web.Response | None:
        """Return one of the files that pages load."""
        found = self._files.get(path)
        if found is None:
            return None
        return web.Response(
            body=found.data, content_type=found.kind, charset="utf-8", headers={"Cache-Control": _A_YEAR}
        )


def _short(text: str, characters: int = 16) -> str:
    """Return the beginning of a digest or an address, to be compared by eye."""
    bare = text.removeprefix("sha256:")
    return bare if len(bare) <= characters else f"{bare[:characters]}…"


def _version(twin: str, adapter: str | None) -> str:
    """Return the name of a version as doctors read it elsewhere."""
    return names.served_name(twin, adapter) if adapter is not None else "base"
