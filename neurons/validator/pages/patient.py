"""A patient's pages: choose a doctor, ask, see who answered and by which sources, rate, compare two answers blind."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from aiohttp import web

from neurons.ledger import Consent, LedgerError, new_id
from neurons.ledger import Session as SessionRecord
from neurons.miner.errors import RequestError, bad_request, unavailable, unknown_model
from neurons.receipts import ReceiptError, decode
from neurons.validator.gateway.feedback import MAX_COMMENT
from neurons.validator.gateway.keys import VISITORS, ApiKey
from neurons.validator.gateway.recording import after_consents
from neurons.validator.gateway.request import parse
from neurons.validator.gateway.response import Reply
from neurons.validator.gateway.sessions import Given, Session
from neurons.validator.pages.doctors import MOST_SHOWN, Doctor, Doctors
from neurons.validator.pages.gateway import Gateway
from neurons.validator.pages.rendering import Renderer
from neurons.validator.pages.turns import Conversations, Turn, remembered, turn_of
from neurons.validator.pages.visit import Visit, document, elsewhere

MAX_QUESTION: Final = 8000
MAX_WANTED: Final = 200
MAX_RECEIPT: Final = 8192
CONSENT_WORDING: Final = "pages-1"
"""Which text was agreed to: `consent` and `consentMore` in texts.yaml; its number changes with them."""
CONSENT_SECONDS: Final = 2.0
"""A page waits so long for the ledger; then what this process itself was told last counts, or else it is a no."""
MAX_CONSENTS: Final = 20_000
USER: Final = "visitor"
_IDENTITY: Final = f"user\0{USER}"
_NO_HASH: Final = "sha256:" + "0" * 64


def key_of(visitor_id: str) -> ApiKey:
    """Return the key that a browser is known by inside: sessions are a key's own, and so each browser has one.

    Nobody can present it: its hash is that of no key, and no client may have such a name.
    """
    return ApiKey(id=f"{VISITORS}{visitor_id}", hash=_NO_HASH)


class PatientPages:
    """Answers patients' requests."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        doctors: Doctors,
        renderer: Renderer,
        conversations: Conversations,
    ) -> None:
        self._gateway, self._doctors, self._renderer = gateway, doctors, renderer
        self._conversations = conversations
        self._consents: OrderedDict[str, bool] = OrderedDict()
        """By patient, what was kept last."""

    async def choose(self, visit: Visit) -> web.StreamResponse:
        """Show the doctors."""
        wanted = visit.request.query.get("doctor", "")[:MAX_WANTED]
        doctors, count = self._doctors.found(wanted)
        return self._renderer.page("choose.html", visit, doctors=doctors, count=count, most=MOST_SHOWN, wanted=wanted)

    async def talk(self, visit: Visit, twin: str) -> web.StreamResponse:
        """Show a conversation with one doctor's twin."""
        doctor = await self._doctor(twin)
        key = key_of(visit.visitor.id)
        session = await self._known_session(visit, twin, key)
        turns: tuple[Turn, ...] = ()
        if session is not None:
            turns = self._conversations.of(session.id) or remembered(session.messages, self._notice_of)
        given: Mapping[str, Given] = session.answers if session is not None else {}
        return self._renderer.page(
            "talk.html", visit, doctor=doctor, twin=twin, turns=turns, given=given, most=MAX_QUESTION,
            kept=self._gateway.recorder is not None, consent=await self._consent(key),
        )  # fmt: skip

    async def ask(self, visit: Visit, twin: str) -> web.StreamResponse:
        """Answer a question: the gateway's own stream, whose last event has the turn's markup too."""
        visit.by_program()
        question = visit.text("text", most=MAX_QUESTION).strip()
        if not question:
            raise bad_request("`text` is empty", param="text")
        key = key_of(visit.visitor.id)
        session = await self._known_session(visit, twin, key)
        if session is None:
            if await self._doctors.get(twin) is None:
                raise unknown_model(twin)
            session = self._gateway.sessions.create(key_id=key.id, twin=twin, identity=_IDENTITY)
            visit.visitor = visit.visitor.began(self._whose(twin), session.id)
        asked = parse(
            orjson.dumps(
                {
                    "model": twin, "stream": True, "messages": [{"role": "user", "content": question}], "user": USER,
                    "bettertherapy": {"compare": visit.truth("compare")},
                }
            )
        )  # fmt: skip
        conversation = session

        def beside(reply: Reply) -> Mapping[str, Any]:
            turn = turn_of(question, reply)
            self._conversations.add(conversation.id, turn)
            return {
                "html": self._renderer.part(
                    "turn.html", visit.texts, turn=turn, twin=twin, token=visit.token, given=conversation.answers
                )
            }

        return await self._gateway.chats.answer(
            visit.request,
            asked,
            key=key,
            shown=visit.headers(),
            session=session,
            beside=beside,
            grow=visit.held.grow,
        )

    def notice(self, visit: Visit, twin: str) -> str:
        """Return the emergency notice for a question that was refused or for a comment; empty for none.

        It is owed whatever becomes of what a patient sends.
        """
        said = visit.fields.get("text") or visit.fields.get("comment")
        if not isinstance(said, str):
            return ""
        if len(said) > 2 * MAX_QUESTION:
            said = f"{said[:MAX_QUESTION]}\n{said[-MAX_QUESTION:]}"
        messages: list[Mapping[str, Any]] = [{"role": "user", "content": said}]
        session = None
        if "text" in visit.fields:  # a bare "yes" answers what the twin asked; a comment doesn't
            session_id = visit.visitor.conversations.get(self._whose(twin))
            session = self._gateway.sessions.remembered(session_id, key_id=key_of(visit.visitor.id).id)
        found = self._gateway.chats.notice([*(session.told if session is not None else ()), *messages])
        if found is not None:
            return found.text
        if session is not None:
            session.heard(said)
            self._gateway.sessions.grew(session)
        return ""

    async def rate(self, visit: Visit, twin: str) -> web.StreamResponse:
        """Take stars and a comment."""
        visit.by_program()
        stars = visit.fields.get("stars")
        body = {
            "sessionId": self._session_id(visit, twin), "answerId": visit.text("answerId", most=64),
            "questionId": visit.text("questionId", most=64), "user": USER, "stars": stars,
            "comment": visit.text("comment", most=MAX_COMMENT).strip(),
        }  # fmt: skip
        status, _ = await self._gateway.feedback.rate(orjson.dumps(body), key_of(visit.visitor.id))
        notice = self.notice(visit, twin)
        kept = {"kept": self._gateway.recorder is not None}
        return document(kept | ({"notice": notice} if notice else {}), status=status)

    async def prefer(self, visit: Visit, twin: str) -> web.StreamResponse:
        """Take the choice between two answers, and say then whose they are."""
        visit.by_program()
        body = {
            "sessionId": self._session_id(visit, twin), "preferredId": visit.text("preferredId", most=64), "user": USER,
        }  # fmt: skip
        status, told = await self._gateway.feedback.prefer(orjson.dumps(body), key_of(visit.visitor.id))
        return document({"html": self._renderer.part("chosen.html", visit.texts, **told)}, status=status)

    async def consent(self, visit: Visit, twin: str) -> web.StreamResponse:
        """Note that a patient agrees to be learned from, or no longer does."""
        given, key = visit.truth("given"), key_of(visit.visitor.id)
        session = await self._known_session(visit, twin, key)
        if session is None:
            if await self._doctors.get(twin) is None:
                raise unknown_model(twin)
            session = self._gateway.sessions.create(key_id=key.id, twin=twin, identity=_IDENTITY)
            visit.visitor = visit.visitor.began(self._whose(twin), session.id)
        now = await after_consents(self._gateway.recorder, session.patient_id)
        records: list[SessionRecord | Consent] = []
        if not session.recorded:
            twin_ = self._gateway.twins.of_ledger(twin)
            records.append(SessionRecord(session_id=session.id, patient_id=session.patient_id, twin=twin_, at_ms=now))
        wording = f"{visit.texts.language}/{CONSENT_WORDING}"
        records.append(
            Consent(consent_id=new_id(), patient_id=session.patient_id, given=given, at_ms=now, wording=wording)
        )
        try:
            await self._gateway.recording.record(*records)
        except LedgerError:
            raise unavailable("it could not be kept: try again", retry_after=5, code="not_kept") from None
        session.recorded = True
        self._consents[session.patient_id] = given
        self._consents.move_to_end(session.patient_id)
        while len(self._consents) > MAX_CONSENTS:
            self._consents.popitem(last=False)
        return document({"given": given})

    async def anew(self, visit: Visit, twin: str) -> web.StreamResponse:
        """Leave a conversation, and begin another with the next question."""
        visit.visitor = visit.visitor.left(self._whose(twin))
        return elsewhere(visit.request.rel_url.raw_path.removesuffix("/anew"))

    async def receipt(self, visit: Visit) -> web.StreamResponse:
        """Show what a receipt says, and whether it is genuine."""
        text = visit.text("receipt", most=MAX_RECEIPT).strip()
        try:
            receipt = await asyncio.to_thread(decode, text)
        except ReceiptError as error:
            raise bad_request(str(error), param="receipt") from None
        return self._renderer.page("receipt.html", visit, receipt=receipt, encoded=text, genuine=receipt.is_genuine())

    async def _doctor(self, twin: str) -> Doctor:
        doctor = await self._doctors.get(twin)
        if doctor is None:
            raise unknown_model(twin)
        return doctor

    async def _known_session(self, visit: Visit, twin: str, key: ApiKey) -> Session | None:
        """Return the browser's conversation with this twin; None where it has none that can be gone on with."""
        session_id = visit.visitor.conversations.get(self._whose(twin))
        if session_id is None:
            return None
        try:
            return await self._gateway.sessions.get(session_id, key_id=key.id, identity=_IDENTITY, twin=twin)
        except RequestError:
            return None

    def _notice_of(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the notice that was shown then; it isn't counted again."""
        found = self._gateway.notices(messages)
        return found.text if found is not None else ""

    def _session_id(self, visit: Visit, twin: str) -> str:
        """Return in which conversation an answer was given: this browser's last one, or the one that its form names.

        Whether that is this browser's, too, is proven by the id itself.
        """
        if named := visit.text("sessionId", most=64):
            return named
        session_id = visit.visitor.conversations.get(self._whose(twin))
        if session_id is None:
            raise RequestError(
                404, "invalid_request_error", "this browser has no conversation with this doctor: ask first",
                code="session_not_found",
            )  # fmt: skip
        return session_id

    async def _consent(self, key: ApiKey) -> bool:
        """Tell whether this browser's patient agreed."""
        recorder = self._gateway.recorder
        if recorder is None:
            return False
        patient_id = self._gateway.sessions.ids.patient(key.id, _IDENTITY)
        try:
            async with asyncio.timeout(CONSENT_SECONDS):
                return (await recorder.consent(patient_id=patient_id)).given
        except (LedgerError, TimeoutError):
            return self._consents.get(patient_id, False)

    def _whose(self, twin: str) -> str:
        """Return the twin's UID: of two that had one name after another, neither's words are shown as the other's."""
        return self._gateway.twins.of_ledger(twin).uid
