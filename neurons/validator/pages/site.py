"""All pages: which address is which, what every answer carries, and what must be proven before anything is changed."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from typing import Final
from urllib.parse import unquote

import orjson
from aiohttp import web

from neurons.miner.errors import RequestError, overloaded
from neurons.miner.memory import RequestBytes
from neurons.miner.tracing import trace_id_of, trace_of
from neurons.validator.gateway.failing import unforeseen
from neurons.validator.gateway.keys import MAX_KEY_CHARACTERS, ApiKey, Keyring, Role, hash_of
from neurons.validator.gateway.security_log import SecurityLog
from neurons.validator.pages import texts as languages
from neurons.validator.pages.cookies import STAFF, VISITOR, Cookies
from neurons.validator.pages.patient import PatientPages
from neurons.validator.pages.rendering import Renderer
from neurons.validator.pages.signed_out import SignedOut, UnknownSignInError
from neurons.validator.pages.texts import Language, Texts, language_of
from neurons.validator.pages.visit import TOKEN_FIELD, TOKEN_HEADER, Visit, elsewhere
from neurons.wire.rates import Rates

MAX_VISITORS: Final = 20_000
MAX_COOKIES: Final = 16_384
VISITOR_PER_MINUTE: Final = 12
VISITOR_BURST: Final = 6
"""Questions of one visitor; what else a visitor changes (ratings, consent) may be four times as much."""
_ENDED_HERE: Final = "signed out here, and other gateways will be told once the ledger can be written"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_SECURITY: Final[Mapping[str, str]] = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_LOCAL_PATH: Final = re.compile(r"/(?:[A-Za-z0-9._~%!$&'()*+,;=:@-]+(?:/[A-Za-z0-9._~%!$&'()*+,;=:@-]+)*)?")
_NAME: Final = r"(?P<twin>[^/]{1,512})"
_ID: Final = r"(?P<question>[0-9a-f-]{36})"
_Handler = Callable[..., Awaitable[web.StreamResponse]]


class Pages:
    """Answers whatever isn't the API's."""

    def __init__(
        self,
        *,
        origin: str,
        cookies: Cookies,
        keyring: Keyring,
        signed_out: SignedOut,
        renderer: Renderer,
        patient: PatientPages,
        staff: Mapping[tuple[str, str], _Handler],
        per_minute: int,
        log: SecurityLog,
    ) -> None:
        """`origin`: by which browsers reach the pages. `staff`: the pages behind the sign-in, by method and pattern.

        `per_minute`: questions of all visitors together.
        """
        self._origin, self._cookies, self._keyring = origin, cookies, keyring
        self._renderer = renderer
        self._questions = _Limits(all_per_minute=per_minute, per_minute=VISITOR_PER_MINUTE, burst=VISITOR_BURST)
        self._changes = _Limits(
            all_per_minute=4 * per_minute, per_minute=4 * VISITOR_PER_MINUTE, burst=4 * VISITOR_BURST
        )
        self._secured = dict(_SECURITY)
        self._signed_out, self._log = signed_out, log
        routes: dict[tuple[str, str], _Handler] = {
            ("GET", "/"): patient.choose,
            ("GET", f"/doctor/{_NAME}"): patient.talk,
            ("POST", f"/doctor/{_NAME}/ask"): patient.ask,
            ("POST", f"/doctor/{_NAME}/rate"): patient.rate,
            ("POST", f"/doctor/{_NAME}/prefer"): patient.prefer,
            ("POST", f"/doctor/{_NAME}/consent"): patient.consent,
            ("POST", f"/doctor/{_NAME}/anew"): patient.anew,
            ("POST", "/receipt"): patient.receipt,
            ("POST", "/language"): self._language,
            ("GET", "/sign-in"): self._show_sign_in,
            ("POST", "/sign-in"): self._sign_in,
            ("POST", "/sign-out"): self._sign_out,
            **{
                (method, pattern.format(twin=_NAME, question=_ID)): handler
                for (method, pattern), handler in staff.items()
            },
        }
        self._routes = [(method, re.compile(pattern), handler) for (method, pattern), handler in routes.items()]
        self._patient = patient

    async def handle(
        self,
        request: web.BaseRequest,
        shown: Mapping[str, str],
        held: RequestBytes,
        refusal: RequestError | None = None,
    ) -> web.StreamResponse:
        """Answer a request; raises RequestError where a program asked, and shows a page where a person did.

        `held`: counts what it holds. `refusal`: why it isn't taken, where it isn't.
        """
        file = self._renderer.file(request.path)
        if file is not None and request.method in ("GET", "HEAD"):
            file.headers.update({name: value for name, value in self._secured.items() if name != "Cache-Control"})
            return file
        visit = await self._visit(request, {**shown, **self._secured}, held)
        handler: _Handler | None = None
        parts: Mapping[str, str] = {}
        try:
            handler, parts = self._route(request)
            response = await self._answered(handler, visit, parts, refusal)
        except ConnectionError:
            raise
        except Exception as failure:  # noqa: BLE001 - a person is shown a page, and is owed the notice of an emergency
            error = failure if isinstance(failure, RequestError) else unforeseen(failure)
            trace_id = trace_id_of(trace_of(request.headers))
            self._log.turned_away(error, client=visit.staff.id if visit.staff is not None else None, trace_id=trace_id)
            # Too many questions, a page that is too old, a text that is too long: an emergency is one all the same.
            notice = ""
            if handler in (self._patient.ask, self._patient.rate):
                notice = self._patient.notice(visit, parts["twin"])
            response = self._refused(visit, error, notice)
        if not response.prepared:
            headers = visit.headers()
            for name in headers:
                if name in response.headers and name != "Set-Cookie":
                    del response.headers[name]
            response.headers.extend(headers)
        return response

    async def _answered(
        self, handler: _Handler, visit: Visit, parts: Mapping[str, str], refusal: RequestError | None
    ) -> web.StreamResponse:
        if refusal is not None and handler not in (self._patient.ask, self._patient.rate):
            raise refusal
        if visit.request.method == "POST":
            await visit.read()
            if refusal is not None:
                raise refusal
            self._prove(visit)
            (self._questions if handler == self._patient.ask else self._changes).count(visit.visitor.id)
        return await handler(visit, **parts)

    async def _visit(self, request: web.BaseRequest, shown: Mapping[str, str], held: RequestBytes) -> Visit:
        sent = _cookies(request.headers.get("Cookie"))
        known = self._cookies.visitor(sent.get(self._cookies.name(VISITOR)))
        visitor = known or self._cookies.new_visitor()
        session = self._cookies.staff(sent.get(self._cookies.name(STAFF)))
        unknown = False
        try:
            if session is not None and await self._signed_out.has(session):
                session = None
        except UnknownSignInError:
            unknown = True
        staff = self._keyring.of_hash(session.key) if session is not None and not unknown else None
        language = language_of(sent.get(self._cookies.name(languages.COOKIE)), request.headers.get("Accept-Language"))
        renewed = self._cookies.renewed(session) if session is not None and staff is not None else session
        return Visit(
            request=request, visitor=visitor, known=known, token=self._cookies.token(visitor), texts=Texts(language),
            staff=staff, session=session, unknown_session=unknown, shown=shown,
            set_cookie=self._cookies.of_staff(renewed) if renewed not in (None, session) else None,
            cookie_of=self._cookies.of_visitor, held=held,
        )  # fmt: skip

    def _route(self, request: web.BaseRequest) -> tuple[_Handler, Mapping[str, str]]:
        method = "GET" if request.method == "HEAD" else request.method
        allowed = set()
        for accepted, pattern, handler in self._routes:
            match = pattern.fullmatch(request.path)
            if match is None:
                continue
            if accepted == method:
                return handler, match.groupdict()
            allowed.add(accepted)
        if allowed:
            raise RequestError(
                405, "invalid_request_error", "this page is asked for in another way", code="wrong_method",
                allow=", ".join(sorted(allowed)),
            )  # fmt: skip
        raise RequestError(404, "invalid_request_error", "there is no such page", code="unknown_route")

    def _prove(self, visit: Visit) -> None:
        """Let nothing be changed but by a form that this visitor got from us; raises RequestError (403)."""
        headers = visit.request.headers
        origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
        token = headers.get(TOKEN_HEADER) or visit.fields.get(TOKEN_FIELD)
        if (
            (origin is not None and origin != self._origin)
            or (site is not None and site not in ("same-origin", "none"))
            or visit.known is None
            or not isinstance(token, str)
            or not self._cookies.is_token(visit.known, token)
        ):
            raise RequestError(
                403, "invalid_request_error",
                f"this was not sent by a page of {self._origin} that is still valid: open the page anew",
                code="not_ours",
            )  # fmt: skip

    def _refused(self, visit: Visit, error: RequestError, notice: str) -> web.StreamResponse:
        if visit.request.headers.get(TOKEN_HEADER) is not None:  # our own program asked, and shows it in its words
            answer = error.response()
            if notice:
                answer.body = orjson.dumps({"error": error.to_dict(), "notice": notice})
            return answer
        known = error.code if error.code in ("not_ours", "not_signed_in", "no_ledger", "no_program") else None
        said = (
            visit.texts(f"error_{known}")
            if known
            else visit.texts(
                "error_notFound" if error.status == 404 else "error_busy" if error.status == 429 else "error_other"
            )
        )
        response = self._renderer.page("error.html", visit, status=error.status, said=said, notice=notice)
        if error.allow is not None:
            response.headers["Allow"] = error.allow
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(error.retry_after)
        return response

    async def _language(self, visit: Visit) -> web.StreamResponse:
        chosen = visit.text("language", most=8)
        if chosen in set(Language):
            visit.set_cookie = self._cookies.of_language(languages.COOKIE, chosen)
        return elsewhere(self._shown_at(visit.text("back", most=2048)))

    def _shown_at(self, path: str) -> str:
        """Return a page's path; of one that is only sent to, as a form's, that of the page that it belongs to."""
        while _LOCAL_PATH.fullmatch(path):
            if any(method == "GET" and pattern.fullmatch(unquote(path)) for method, pattern, _ in self._routes):
                return path
            path = path.rpartition("/")[0]
        return "/"

    async def _show_sign_in(self, visit: Visit) -> web.StreamResponse:
        return self._renderer.page("sign_in.html", visit, wrong="")

    async def _sign_in(self, visit: Visit) -> web.StreamResponse:
        given = visit.text("key", most=MAX_KEY_CHARACTERS).strip()
        kept = hash_of(given)
        if (ended := self._keyring.ended(kept)) is not None and ended.ends is not None:
            self._note("a sign-in was refused: the key has ended", visit, ended)
            since = f"{ended.ends.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            return self._renderer.page("sign_in.html", visit, status=403, wrong=visit.texts("keyEnded", since=since))
        key = self._keyring.of_hash(kept)
        if key is None or key.role is Role.CLIENT:
            self._note("a sign-in was refused", visit, key)
            return self._renderer.page("sign_in.html", visit, status=403, wrong=visit.texts("keyWrong"))
        if visit.session is not None and not await self._signed_out.add(visit.session):
            self._note(_ENDED_HERE, visit, visit.staff)
        visit.set_cookie = self._cookies.of_staff(self._cookies.new_staff(key.hash))
        self._note("signed in", visit, key)
        return elsewhere("/desk" if key.role is Role.DOCTOR else "/miners")

    async def _sign_out(self, visit: Visit) -> web.StreamResponse:
        if visit.session is not None:
            told = await self._signed_out.add(visit.session)
            self._note("signed out" if told else _ENDED_HERE, visit, visit.staff)
        visit.set_cookie = self._cookies.of_staff(None)
        response = elsewhere("/")
        response.headers["Clear-Site-Data"] = '"cache"'  # whatever the browser still has of the doctor's pages
        return response

    def _note(self, event: str, visit: Visit, key: ApiKey | None) -> None:
        trace_id = trace_id_of(trace_of(visit.request.headers))
        self._log.note(
            event, client=key.id if key is not None else None, role=key.role if key is not None else None,
            trace_id=trace_id,
        )  # fmt: skip


class _Limits:
    """How often one visitor may do something, and all together, since a new visitor costs nothing to be."""

    def __init__(self, *, all_per_minute: int, per_minute: int, burst: int) -> None:
        self._per_second, self._burst = per_minute / 60, burst
        self._all = Rates(per_second=all_per_minute / 60, burst=max(burst, all_per_minute // 4))
        self._visitors, self._counted = self._new(), 0

    def count(self, visitor_id: str) -> None:
        """Count one; raises RequestError (429)."""
        if self._counted >= MAX_VISITORS:
            self._visitors, self._counted = self._new(), 0
        # Of a visitor something is remembered only once all together leave room: a new one costs nothing to be.
        wait = self._all.wait("") or self._visitors.wait(visitor_id)
        if wait:
            raise overloaded("too much at once: wait a moment", retry_after=wait)
        self._counted += 1
        self._visitors.take(visitor_id)
        self._all.take("")

    def _new(self) -> Rates:
        return Rates(per_second=self._per_second, burst=self._burst)


def _cookies(header: str | None) -> dict[str, str]:
    """Return what a browser sent; one cookie that is odd, perhaps another program's, loses no other."""
    pairs = (part.partition("=") for part in (header or "")[:MAX_COOKIES].split(";"))
    return {name.strip(): value.strip() for name, _, value in pairs}
