"""Signed cookies: who a browser is, which conversations are its own, and who signed in; and what proves a form ours."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Final, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

VISITOR: Final = "visitor"
STAFF: Final = "staff"
VISITOR_SECONDS: Final = 24 * 3600
"""As long as the gateway remembers a conversation."""
STAFF_SECONDS: Final = 12 * 3600
STAFF_IDLE_SECONDS: Final = 3600
"""Who asked for no page for so long signs in again."""
STAFF_RENEWED_SECONDS: Final = 60
"""How exactly a cookie knows when its browser came last."""
MAX_CONVERSATIONS: Final = 8
"""Doctors whose conversation a browser comes back to; the oldest is left away."""
MAX_CHARACTERS: Final = 4000
_CONFIG: Final = ConfigDict(frozen=True, extra="forbid")
M = TypeVar("M", bound=BaseModel)


class _VisitorCookie(BaseModel):
    model_config = _CONFIG

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    since: Annotated[int, Field(ge=0)]
    conversations: Annotated[dict[str, Annotated[str, Field(max_length=36)]], Field(max_length=MAX_CONVERSATIONS)]


class _StaffCookie(BaseModel):
    model_config = _CONFIG

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    key: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    since: Annotated[int, Field(ge=0)]
    seen: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class StaffSession:
    """One sign-in."""

    id: str
    key: str
    """The hash of the key."""
    since: int
    seen: int
    """When its browser came last; both in seconds since 1970 (UTC)."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """One browser. Nothing of it says who sits before it."""

    id: str
    since: int
    """Seconds since 1970 (UTC)."""
    conversations: Mapping[str, str] = field(default_factory=dict)
    """Session ids by the twin's UID, the oldest first."""

    def began(self, twin: str, session_id: str) -> Visitor:
        """Return the visitor with this conversation as that of the twin with this UID."""
        kept = {name: known for name, known in self.conversations.items() if name != twin} | {twin: session_id}
        return replace(self, conversations=dict(list(kept.items())[-MAX_CONVERSATIONS:]))

    def left(self, twin: str) -> Visitor:
        """Return the visitor without a conversation with the twin of this UID."""
        return replace(self, conversations={name: known for name, known in self.conversations.items() if name != twin})


class Cookies:
    """Makes and reads cookies that nobody without the secret can make."""

    def __init__(self, secret: bytes, *, secure: bool, clock: Callable[[], float] = time.time) -> None:
        """`secret`: that of session ids, the same at all replicas. `secure`: the pages are reached by https."""
        self._key = hmac.new(secret, b"pages", hashlib.sha256).digest()
        self._secure, self._clock = secure, clock

    def name(self, name: str) -> str:
        """Return a cookie's name; by https one that no other host and no http page can set."""
        return f"__Host-{name}" if self._secure else name

    def visitor(self, value: str | None) -> Visitor | None:
        """Return whose cookie it is; None for none, an altered and an old one."""
        read = self._read(VISITOR, value, _VisitorCookie)
        if read is None or not 0 <= self._clock() - read.since < VISITOR_SECONDS:
            return None
        return Visitor(read.id, read.since, read.conversations)

    def new_visitor(self) -> Visitor:
        """Return somebody who was never here."""
        return Visitor(secrets.token_hex(16), int(self._clock()))

    def of_visitor(self, visitor: Visitor) -> str:
        """Return the header `Set-Cookie` for a browser."""
        while True:
            document = {"id": visitor.id, "since": visitor.since, "conversations": dict(visitor.conversations)}
            header = self._header(VISITOR, self._signed(VISITOR, document))
            if len(header) <= MAX_CHARACTERS or not visitor.conversations:
                return header
            visitor = visitor.left(next(iter(visitor.conversations)))

    def staff(self, value: str | None) -> StaffSession | None:
        """Return a sign-in; None for none, an altered one, an old one, and one that rested too long."""
        read = self._read(STAFF, value, _StaffCookie)
        now = self._clock()
        if read is None or not (0 <= now - read.since < STAFF_SECONDS and 0 <= now - read.seen < STAFF_IDLE_SECONDS):
            return None
        return StaffSession(read.id, read.key, read.since, read.seen)

    def new_staff(self, key_hash: str) -> StaffSession:
        """Return a new sign-in by the key with this hash."""
        now = int(self._clock())
        return StaffSession(secrets.token_hex(16), key_hash, now, now)

    def renewed(self, session: StaffSession) -> StaffSession:
        """Return a sign-in of which it is known that its browser came now; the same while that was so lately."""
        now = int(self._clock())
        return session if now - session.seen < STAFF_RENEWED_SECONDS else replace(session, seen=now)

    def of_staff(self, session: StaffSession | None) -> str:
        """Return the header `Set-Cookie` of a sign-in; None: of who signs out."""
        if session is None:
            return self._header(STAFF, "") + "; Max-Age=0"
        said = {"id": session.id, "key": session.key, "since": session.since, "seen": session.seen}
        return self._header(STAFF, self._signed(STAFF, said))

    def of_language(self, name: str, language: str) -> str:
        """Return the header `Set-Cookie` of a language that was chosen, which is kept for a year."""
        return self._header(name, language) + "; Max-Age=31536000"

    def token(self, visitor: Visitor) -> str:
        """Return what a form of this visitor's carries, which no other site can know."""
        return self._mac("form", visitor.id.encode())[:32]

    def is_token(self, visitor: Visitor, token: str) -> bool:
        """Tell whether a form is one of ours, given to this visitor."""
        return token.isascii() and hmac.compare_digest(token, self.token(visitor))

    def _signed(self, purpose: str, document: Mapping[str, object]) -> str:
        body = base64.urlsafe_b64encode(orjson.dumps(document)).rstrip(b"=")
        return f"{body.decode()}.{self._mac(purpose, body)}"

    def _read(self, purpose: str, value: str | None, model: type[M]) -> M | None:
        if not value or len(value) > MAX_CHARACTERS or not value.isascii():
            return None
        body, _, mac = value.partition(".")
        if not hmac.compare_digest(mac, self._mac(purpose, body.encode())):
            return None
        try:
            return model.model_validate_json(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (binascii.Error, ValidationError, ValueError):
            return None

    def _mac(self, purpose: str, body: bytes) -> str:
        return hmac.new(self._key, purpose.encode() + b"\0" + body, hashlib.sha256).hexdigest()

    def _header(self, name: str, value: str) -> str:
        return f"{self.name(name)}={value}; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if self._secure else "")
