"""One request to a page: who makes it, in which language, and what is answered with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from aiohttp import web
from multidict import CIMultiDict

from neurons.miner.asked import parse_object
from neurons.miner.errors import RequestError, bad_request
from neurons.miner.memory import RequestBytes
from neurons.validator.gateway.keys import VISITORS, ApiKey, Role
from neurons.validator.pages.cookies import StaffSession, Visitor
from neurons.validator.pages.texts import Texts

TOKEN_FIELD: Final = "token"  # noqa: S105 - a field's name
TOKEN_HEADER: Final = "X-Form-Token"  # noqa: S105 - a header's name
MAX_FIELDS: Final = 32
_FORM: Final = "application/x-www-form-urlencoded"


@dataclass(slots=True)
class Visit:
    """One request, and what is known of who makes it."""

    request: web.BaseRequest
    visitor: Visitor
    token: str
    """What a form of this visitor's carries."""
    texts: Texts
    staff: ApiKey | None
    """Who signed in, as long as the key is accepted."""
    session: StaffSession | None
    """By which sign-in."""
    unknown_session: bool
    """The browser's sign-in may have ended, which can't be told now."""
    shown: Mapping[str, str]
    """Headers of every answer."""
    known: Visitor | None
    """The visitor as the browser's cookie has it; None for one that has none."""
    cookie_of: Callable[[Visitor], str]
    held: RequestBytes
    """Counts what the request holds of this process's memory."""
    set_cookie: str | None = None
    """One more header `Set-Cookie`: of who signs in or out, or chooses a language."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What was sent: a form's fields, or a document's members."""

    def headers(self) -> CIMultiDict[str]:
        """Return the headers of the answer, with the cookies that it sets."""
        headers = CIMultiDict(self.shown)
        if self.visitor != self.known:
            headers.add("Set-Cookie", self.cookie_of(self.visitor))
        if self.set_cookie is not None:
            headers.add("Set-Cookie", self.set_cookie)
        return headers

    async def read(self) -> None:
        """Read what was sent; raises RequestError."""
        body = await self.held.take(self.request, client=VISITORS)
        if self.request.content_type == _FORM:
            try:
                pairs = parse_qsl(
                    body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=MAX_FIELDS
                )
            except (UnicodeDecodeError, ValueError):
                raise bad_request("the form can't be read") from None
            self.fields = dict(pairs)
        elif self.request.content_type == "application/json":
            self.fields = parse_object(body)
        else:
            raise RequestError(415, "invalid_request_error", f"send a form ({_FORM}) or JSON", code="unknown_type")

    def by_program(self) -> None:
        """Go on only where the pages' own program asks; raises RequestError (400) where a browser sends the form."""
        if self.request.headers.get(TOKEN_HEADER) is None:
            raise bad_request("this is asked for by the page's program, which doesn't run", code="no_program")

    def text(self, name: str, *, most: int) -> str:
        """Return a field's text, with a form's line ends made plain; raises RequestError (400)."""
        value = self.fields.get(name, "")
        if not isinstance(value, str) or len(value) > most:
            raise bad_request(f"`{name}` must be a text of at most {most} characters", param=name)
        return value.replace("\r\n", "\n")

    def truth(self, name: str) -> bool:
        """Return a field that is true or false; raises RequestError (400)."""
        value = self.fields.get(name, False)
        if not isinstance(value, bool):
            raise bad_request(f"`{name}` must be true or false", param=name)
        return value

    def has(self, role: Role) -> bool:
        """Tell whether somebody with this role signed in."""
        return self.staff is not None and self.staff.role is role


def document(value: Mapping[str, Any], *, status: int = 200) -> web.Response:
    """Return an answer for the pages' own program."""
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json")


def elsewhere(path: str) -> web.Response:
    """Return an answer that leads to another page of ours."""
    return web.Response(status=303, headers={"Location": path})
