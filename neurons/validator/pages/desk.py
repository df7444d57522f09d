"""A doctor's pages: what patients asked the own twin, corrections of its answers, and what its versions learned."""

from __future__ import annotations

import re
import time
from typing import Any, Final

from aiohttp import web

from neurons.ledger import Correction, Ledger, LedgerError, NotFound, QuestionView, derived_id, new_id, review
from neurons.miner.errors import RequestError, bad_request
from neurons.validator.gateway.keys import Role
from neurons.validator.gateway.recording import now_ms
from neurons.validator.gateway.scrubbing import Clean
from neurons.validator.pages.cleaning import cleaned, mark
from neurons.validator.pages.doctors import Doctors
from neurons.validator.pages.gateway import Gateway
from neurons.validator.pages.rendering import Renderer
from neurons.validator.pages.staff import no_ledger, own_twin, signed_in
from neurons.validator.pages.visit import Visit, elsewhere

AT_ONCE: Final = 20
MAX_CORRECTION: Final = 16_000
_WHOLE: Final = re.compile(r"[0-9]{1,16}")


class Desk:
    """Answers a doctor's requests. Every text is what the ledger keeps: without identifiers."""

    def __init__(self, gateway: Gateway, *, doctors: Doctors, renderer: Renderer) -> None:
        self._gateway, self._doctors, self._renderer = gateway, doctors, renderer

    async def twins(self, visit: Visit) -> web.StreamResponse:
        """Show the doctor's twins."""
        key = signed_in(visit, Role.DOCTOR)
        found = [(name, self._doctors.called(name), await self._doctors.get(name)) for name in key.twins or ()]
        return self._renderer.page("desk.html", visit, twins=found)

    async def questions(self, visit: Visit, twin: str) -> web.StreamResponse:
        """Show the latest questions to one twin."""
        own_twin(visit, twin)
        before = visit.request.query.get("before", "")
        try:
            found = await review.questions(
                self._ledger().database, twin_uid=self._gateway.twins.of_ledger(twin).uid, limit=AT_ONCE + 1,
                before_ms=int(before) if _WHOLE.fullmatch(before) else None,
            )  # fmt: skip
        except LedgerError:
            raise no_ledger() from None
        older = found[AT_ONCE - 1].turn.question.at_ms if len(found) > AT_ONCE else None
        return self._renderer.page(
            "questions.html", visit, twin=twin, called=self._doctors.called(twin), reviewed=found[:AT_ONCE],
            older=older, when=_when,
        )  # fmt: skip

    async def question(self, visit: Visit, twin: str, question: str) -> web.StreamResponse:
        """Show one question with every miner's answer, and a form for the right one."""
        own_twin(visit, twin)
        view = await self._view(twin, question)
        return self._shown(visit, twin, view)

    async def correct(self, visit: Visit, twin: str, question: str) -> web.StreamResponse:
        """Take what the doctor would have answered; where identifiers are in it, show first what is kept of it."""
        key = own_twin(visit, twin)
        view = await self._view(twin, question)
        answer_id, said = visit.text("answerId", most=64), visit.text("text", most=MAX_CORRECTION).strip()
        if not said or not any(each.answer_id == answer_id and each.text is not None for each in view.answers):
            raise bad_request("`text` is empty, or `answerId` is none of this question's answers")
        [correction] = await cleaned(self._gateway.scrub, [said])
        if correction.removed and visit.fields.get("seen") != mark(said):
            return self._shown(visit, twin, view, preview=correction, said=said, answer_id=answer_id)
        record = Correction(
            correction_id=new_id(), answer_id=answer_id, question_id=question, patient_id=view.question.patient_id,
            doctor_id=derived_id("doctor", key.id), text=Clean(correction.text), at_ms=now_ms(),
        )  # fmt: skip
        try:
            await self._gateway.recording.record(record)
        except LedgerError:
            raise no_ledger() from None
        return elsewhere(visit.request.rel_url.raw_path.removesuffix("/correct"))

    async def learned(self, visit: Visit, twin: str) -> web.StreamResponse:
        """Show what the twin's versions learned."""
        own_twin(visit, twin)
        try:
            lineage = await review.lineage(self._ledger().database, twin_uid=self._gateway.twins.of_ledger(twin).uid)
        except LedgerError:
            raise no_ledger() from None
        called = self._doctors.called(twin)
        return self._renderer.page("learned.html", visit, twin=twin, called=called, lineage=lineage, when=_when)

    def _shown(self, visit: Visit, twin: str, view: QuestionView, **more: Any) -> web.Response:
        given = {"preview": None, "said": "", "answer_id": view.chosen_id, **more}
        return self._renderer.page(
            "question.html", visit, twin=twin, called=self._doctors.called(twin), view=view, most=MAX_CORRECTION,
            when=_when,
            ratings={each.answer_id: each for each in view.ratings},
            corrections={each.answer_id: each for each in view.corrections},
            cleaning=self._gateway.scrub is not None, mark=mark, **given,
        )  # fmt: skip

    async def _view(self, twin: str, question: str) -> QuestionView:
        recorder = self._gateway.recorder
        if recorder is None:
            raise no_ledger()
        try:
            view = await recorder.question(question_id=question)
        except NotFound:
            raise _no_question() from None
        except LedgerError:
            raise no_ledger() from None
        if view.question.twin.uid != self._gateway.twins.of_ledger(twin).uid:
            raise _no_question()
        return view

    def _ledger(self) -> Ledger:
        ledger = self._gateway.ledger
        if ledger is None:
            raise no_ledger()
        return ledger


def _when(at_ms: int) -> str:
    """Return a time as it is shown: UTC, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_ms / 1000))


def _no_question() -> RequestError:
    return RequestError(404, "invalid_request_error", "there is no such question to this twin", code="no_question")
