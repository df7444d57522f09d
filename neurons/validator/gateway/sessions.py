"""Sessions: whose conversation it is, what was said in it, and which answers may be rated.

An id proves by itself which key it was made for, so a session is known at every replica and after a restart, and
another key's is as if it weren't there. What was said is kept here in memory, within bounds, in the patient's own
words; what the ledger keeps has no identifiers, and stands in for it after a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from neurons.entropy import random_bytes
from neurons.ledger import LedgerError, NotFound, Recorder, derived_id, patient_digest
from neurons.miner.errors import RequestError
from neurons.miner.patient import Patient

MAX_SESSIONS: Final = 20_000
MAX_MESSAGES: Final = 64
MAX_CHARACTERS: Final = 64 * 1024
"""Of a session's messages; the oldest go first, a question and its answer together."""
MAX_ALL_CHARACTERS: Final = 64 * 1024 * 1024
"""Of all sessions together; the least used go first."""
MAX_UNANSWERED: Final = 5
MAX_UNANSWERED_CHARACTERS: Final = 4000
"""Of each question that nobody answered."""
MAX_ANSWERS: Final = 256
"""Answers of a session that can be rated without asking the ledger."""
KEEP_SECONDS: Final = 24 * 3600.0
SECRET_FILE: Final = "session-secret"  # noqa: S105 - a file's name
_UUID_LENGTH: Final = 36


def named_secret(path: Path) -> bytes:
    """Return the secret out of a file that somebody wrote, perhaps with a line's end. Raises OSError."""
    return path.read_bytes().strip()


def kept_secret(state_dir: Path) -> bytes:
    """Return the secret that a gateway made for itself: bytes, each of which counts. Raises OSError."""
    return (state_dir / SECRET_FILE).read_bytes()


class Ids:
    """Makes and knows ids: 8 random bytes, and 8 that only who has the secret can make from them."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 bytes or more, the same at all replicas of a validator."""
        if len(secret) < 32:
            raise ValueError("the secret of session ids has fewer than 32 bytes")
        self._secret = secret

    def session(self, key_id: str) -> str:
        """Return a new session's id."""
        head = random_bytes()[:8].hex()
        return _uuid(head + self._mac("session", key_id, head)[:16])

    def owns(self, key_id: str, session_id: str) -> bool:
        """Tell whether this key has such a session."""
        if len(session_id) != _UUID_LENGTH or not session_id.isascii():
            return False
        digits = session_id.replace("-", "")
        head, tail = digits[:16], digits[16:]
        return _uuid(digits) == session_id and hmac.compare_digest(tail, self._mac("session", key_id, head)[:16])

    def patient(self, key_id: str, identity: str) -> str:
        """Return the pseudonym of whom a client calls so; nobody without the secret can tell who it is."""
        return _uuid(self._mac("patient", key_id, identity)[:32])

    def _mac(self, *parts: str) -> str:
        said = b"\0".join(hashlib.sha256(part.encode("utf-8", "surrogatepass")).digest() for part in parts)
        return hmac.digest(self._secret, said, "sha256").hex()


@dataclass(slots=True)
class Given:
    """An answer that a patient was given."""

    answer_id: str
    question_id: str
    twin: str
    version: str
    """Served name."""
    miner: tuple[str, int]
    """Hotkey and registration block."""
    stars: int | None = None
    comment: str | None = None
    rating_id: str | None = None
    beside: str | None = None
    """The other answer of a blind comparison."""
    choice: bool | None = None
    """Whether it was preferred to that one; None: nothing was said yet."""


@dataclass(slots=True)
class Session:
    """One conversation."""

    id: str
    key_id: str
    patient_id: str
    twin: str
    twin_uid: str | None = None
    """Whose twin it was when the session began; None where nobody knew."""
    messages: list[Mapping[str, Any]] = field(default_factory=list)
    unanswered: list[Mapping[str, Any]] = field(default_factory=list)
    """What the patient said since the last answer that got no notice. No miner is told of it; an emergency may be told
    of in two parts."""
    answers: OrderedDict[str, Given] = field(default_factory=OrderedDict)
    compared: Mapping[str, str] = field(default_factory=dict)
    """By answer id, the texts of a comparison, as long as nothing was said after it."""
    patient: Patient | None = field(default=None, repr=False)
    """Who asks, as far as a question said it. In this process alone: the ledger never has it."""
    recorded: bool = False
    """Whether the ledger has it, as far as this process knows."""
    used_at: float = 0.0

    @property
    def characters(self) -> int:
        """How much is kept of it, in characters: what was said, compared and remarked."""
        remarked = sum(len(each.comment) for each in self.answers.values() if each.comment)
        return _characters(self.told) + sum(len(text) for text in self.compared.values()) + remarked

    @property
    def told(self) -> list[Mapping[str, Any]]:
        """All that was said so far, whether it was answered or not."""
        return [*self.messages, *self.unanswered]

    def heard(self, text: str) -> None:
        """Note what the patient said, until it is answered; the same again is nothing new."""
        message = {"role": "user", "content": text[-MAX_UNANSWERED_CHARACTERS:]}
        if message not in self.unanswered:
            self.unanswered.append(message)
        del self.unanswered[:-MAX_UNANSWERED]

    def said(self, messages: Sequence[Mapping[str, Any]], answer: str, *, anew: bool) -> None:
        """Note what was asked and answered; `anew`: the messages are the whole conversation."""
        self.unanswered, self.compared = [], {}
        if anew:
            self.messages = []
        self.messages += [*messages, {"role": "assistant", "content": answer}]
        while len(self.messages) > MAX_MESSAGES or _characters(self.messages) > MAX_CHARACTERS:
            # A history that begins with an answer would be an answer to nothing.
            del self.messages[0]
            while self.messages and self.messages[0].get("role") != "user":
                del self.messages[0]
            if not self.messages:
                break

    def prefer(self, answer_id: str) -> None:
        """Go on from the answer of a comparison that is the better one, if nothing was said since."""
        if self.messages and answer_id in self.compared:
            self.messages[-1] = {"role": "assistant", "content": self.compared[answer_id]}

    def given(self, answer: Given) -> None:
        """Note an answer that may be rated."""
        self.answers[answer.answer_id] = answer
        while len(self.answers) > MAX_ANSWERS:
            self.answers.popitem(last=False)


class Sessions:
    """The sessions that this process remembers."""

    def __init__(
        self, ids: Ids, recorder: Recorder | None, *, uid_of: Callable[[str], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`uid_of`: which twin has a name now, as far as is known. A conversation is with that one: the next twin of
        the name is another doctor's, and must not hear what was said to the former."""
        self.ids, self._recorder, self._uid_of, self._clock = ids, recorder, uid_of, clock
        self._known: OrderedDict[str, Session] = OrderedDict()
        self._sizes: dict[str, int] = {}
        """Characters of each, as they were counted last."""
        self.characters = 0
        """Of all of them."""
        self._conversations: OrderedDict[bytes, str | None] = OrderedDict()
        """What was said, by which clients are known that repeat all of it each time. None: to several patients."""

    def create(self, *, key_id: str, twin: str, identity: str | None = None) -> Session:
        """Begin a session. `identity`: what the client calls the patient; without it a session is its own patient."""
        session_id = self.ids.session(key_id)
        return self.used(
            Session(
                session_id, key_id, self.ids.patient(key_id, identity or f"session {session_id}"), twin,
                twin_uid=self._uid_of(twin),
            )
        )  # fmt: skip

    async def get(
        self, session_id: str, *, key_id: str, identity: str | None = None, twin: str | None = None
    ) -> Session:
        """Return one of the key's sessions; raises RequestError (404, 400)."""
        if not self.ids.owns(key_id, session_id):
            raise unknown_session()
        session = self._known.get(session_id)
        if session is None:
            session = await self._from_ledger(session_id, key_id=key_id, identity=identity, twin=twin)
        self.used(session)
        if twin is not None and (session.twin != twin or self._is_over(session)):
            raise RequestError(
                400, "invalid_request_error",
                "this session is with another twin, by its name or by its doctor: begin a new one (POST /v1/sessions) "
                "to ask this one",
                param="model", code="other_twin",
            )  # fmt: skip
        return session

    def remembered(self, session_id: str | None, *, key_id: str) -> Session | None:
        """Return one of the key's sessions as long as this process remembers it; None otherwise."""
        session = self._known.get(session_id or "")
        return session if session is not None and session.key_id == key_id and not self._is_over(session) else None

    def of_conversation(self, conversation: bytes, *, key_id: str) -> Session | None:
        """Return the session in which this was said, if it is remembered and no other patient's can be meant."""
        session = self._known.get(self._conversations.get(conversation) or "")
        if session is None or session.key_id != key_id or self._is_over(session):
            return None
        return session

    def _is_over(self, session: Session) -> bool:
        """Tell whether another twin has the name now."""
        now = self._uid_of(session.twin)
        return session.twin_uid is not None and now is not None and session.twin_uid != now

    def went_on(self, conversation: bytes, session: Session) -> None:
        """Note what was said in a session so far."""
        known = self._conversations.get(conversation, session.id)
        before = self._known.get(known or "")
        alone = known is not None and (before is None or before.patient_id == session.patient_id)
        self._conversations[conversation] = session.id if alone else None
        self._conversations.move_to_end(conversation)
        while len(self._conversations) > MAX_SESSIONS:
            self._conversations.popitem(last=False)

    def of_key(self, key_id: str) -> list[Session]:
        """Return the key's sessions that this process remembers, the last used first."""
        return [session for session in reversed(self._known.values()) if session.key_id == key_id]

    def forget(self, patients: Collection[str]) -> None:
        """Forget all that was said by patients who were erased, given by what stays of their ids in the ledger."""
        gone = {each.id for each in self._known.values() if patient_digest(each.patient_id) in patients}
        for session_id in gone:
            session = self._drop(session_id)
            # A question in work may still hold it.
            session.messages, session.answers, session.patient = [], OrderedDict(), None
        for conversation in [said for said, session_id in self._conversations.items() if session_id in gone]:
            del self._conversations[conversation]

    async def _from_ledger(self, session_id: str, *, key_id: str, identity: str | None, twin: str | None) -> Session:
        patient = self.ids.patient(key_id, identity or f"session {session_id}")
        session = Session(session_id, key_id, patient, twin or "", twin_uid=self._uid_of(twin) if twin else None)
        if self._recorder is None:
            if twin is None:
                raise unknown_session()
            return session
        try:
            history = await self._recorder.history(session_id=session_id, patient_id=patient, limit=MAX_MESSAGES // 2)
        except NotFound:
            if twin is None:
                raise unknown_session() from None
            return session  # made, and nothing said in it yet
        except LedgerError:
            if twin is None:
                raise RequestError(
                    503, "service_unavailable", "the ledger is away, and this process doesn't remember the session",
                    code="ledger_away", retry_after=5,
                ) from None  # fmt: skip
            return session
        if history.session is not None:
            session.twin, session.recorded = history.session.twin.name, True
            uid = history.session.twin.uid
            session.twin_uid = None if uid == derived_id("twin", session.twin) else uid
        for turn in history.turns:
            if turn.answer is None or turn.answer.text is None or not turn.question.text.text:
                continue
            session.said([{"role": "user", "content": turn.question.text.text}], turn.answer.text.text, anew=False)
        return session

    def used(self, session: Session) -> Session:
        """Note that a session was used."""
        now = self._clock()
        session.used_at = now
        self._known[session.id] = session
        self._known.move_to_end(session.id)
        self._sizes.setdefault(session.id, 0)
        self.grew(session)
        return session

    def grew(self, session: Session) -> None:
        """Count what a session holds now; the least used go where all hold too much. One that is gone stays gone."""
        if self._known.get(session.id) is not session:
            return
        now, size = self._clock(), session.characters
        self.characters += size - self._sizes[session.id]
        self._sizes[session.id] = size
        while self._known:
            oldest = next(iter(self._known.values()))
            fits = len(self._known) <= MAX_SESSIONS and self.characters <= MAX_ALL_CHARACTERS
            if fits and now - oldest.used_at <= KEEP_SECONDS:
                break
            self._drop(oldest.id)

    def _drop(self, session_id: str) -> Session:
        self.characters -= self._sizes.pop(session_id)
        return self._known.pop(session_id)


def unknown_session() -> RequestError:
    """Return the 404 of a session that isn't there, or isn't this key's."""
    return RequestError(
        404, "invalid_request_error",
        "there is no such session of this key: leave x-session-id out, and the answer names a new one, or POST "
        "/v1/sessions",
        code="session_not_found",
    )  # fmt: skip


def _uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _characters(messages: Sequence[Mapping[str, Any]]) -> int:
    """Count what messages hold, whatever they are made of: parts, names, calls of tools."""
    return sum(
        len(content)
        if len(message) == 2 and isinstance(content := message.get("content"), str)
        else len(orjson.dumps(message))
        for message in messages
    )
