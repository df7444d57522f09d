"""What patients say of answers: sessions, stars, and which of two answers is better. All of it for one's own only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError
from pydantic.alias_generators import to_camel

from bettertherapy_api import names
from neurons.ledger import Consent, LedgerError, NotFound, Recorder, new_id
from neurons.ledger import Session as SessionRecord
from neurons.miner.asked import identity_of, parse_object
from neurons.miner.errors import RequestError, bad_request, unavailable, unknown_model
from neurons.validator.gateway.keys import ApiKey, check_scope
from neurons.validator.gateway.metrics import Metrics
from neurons.validator.gateway.recording import Recording, after_consents, now_ms
from neurons.validator.gateway.sessions import Given, Session, Sessions
from neurons.validator.gateway.standing import MinerId, Standings
from neurons.validator.gateway.twins import Twins

MAX_COMMENT: Final = 4000
MAX_LISTED: Final = 100
_CONFIG: Final = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)
_Id = Annotated[str, Field(pattern=r"^(chatcmpl-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Name = Annotated[str, Field(min_length=1, max_length=512)]
M = TypeVar("M", bound=BaseModel)


class NewSession(BaseModel):
    """`POST /v1/sessions`."""

    model_config = _CONFIG

    model: _Name
    """The twin."""
    user: _Name | None = None
    """What the client calls the patient; kept nowhere, only a pseudonym made of it is."""
    consent: StrictBool | None = None
    """Whether the patient agrees that the conversations are learned from; None: nothing new. No word is a yes."""
    consent_wording: Annotated[str, Field(max_length=64)] = ""


class NewRating(BaseModel):
    """`POST /v1/ratings`."""

    model_config = _CONFIG

    session_id: _Id
    answer_id: _Id
    question_id: _Id | None = None
    """Needed once this process has forgotten the answer."""
    user: _Name | None = None
    stars: Annotated[int, Field(ge=1, le=5, strict=True)]
    comment: Annotated[str, Field(max_length=MAX_COMMENT)] | None = None


class NewPreference(BaseModel):
    """`POST /v1/preferences`."""

    model_config = _CONFIG

    session_id: _Id
    preferred_id: _Id
    user: _Name | None = None


class Feedback:
    """Takes sessions, ratings and preferences."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        recording: Recording,
        recorder: Recorder | None,
        standings: Standings,
        twins: Twins,
        metrics: Metrics,
    ) -> None:
        self._sessions, self._recording, self._recorder = sessions, recording, recorder
        self._standings, self._twins, self._metrics = standings, twins, metrics

    async def begin(self, body: bytes, key: ApiKey) -> tuple[int, dict[str, Any]]:
        """Make a session; returns status and document."""
        given = _parsed(body, NewSession)
        check_scope(key, given.model)
        if not self._twins.serves(given.model):
            raise unknown_model(given.model)
        session = self._sessions.create(key_id=key.id, twin=given.model, identity=_identity(given.user))
        record = SessionRecord(
            session_id=session.id,
            patient_id=session.patient_id,
            twin=self._twins.of_ledger(given.model),
            at_ms=now_ms(),
        )
        consent = []
        if given.consent is not None:
            consent.append(
                Consent(
                    consent_id=new_id(), patient_id=session.patient_id, given=given.consent,
                    at_ms=await after_consents(self._recorder, session.patient_id),
                    wording=given.consent_wording,
                )
            )  # fmt: skip
        try:
            await self._recording.record(record, *consent)
        except LedgerError:
            if consent:  # a consent that isn't kept was not given: the client must know
                raise _not_kept() from None
        else:
            session.recorded = True
        return 201, _session(session)

    async def show(self, session_id: str, key: ApiKey, *, user: str | None) -> dict[str, Any]:
        """Return one session with what was said in it; raises RequestError (404)."""
        session = await self._sessions.get(session_id, key_id=key.id, identity=_identity(user))
        return _session(session) | {
            "messages": [{"role": each.get("role"), "content": each.get("content")} for each in session.messages],
            "answers": [_given(given) for given in session.answers.values()],
        }

    def listed(self, key: ApiKey) -> dict[str, Any]:
        """Return the key's sessions that this process remembers."""
        return {
            "object": "list", "data": [_session(session) for session in self._sessions.of_key(key.id)[:MAX_LISTED]]
        }  # fmt: skip

    async def rate(self, body: bytes, key: ApiKey) -> tuple[int, dict[str, Any]]:
        """Take a rating: 201, or 200 where the same was given before; raises RequestError."""
        rating = _parsed(body, NewRating)
        session = await self._sessions.get(rating.session_id, key_id=key.id, identity=_identity(rating.user))
        given = await self._answer(session, _bare(rating.answer_id), rating.question_id)
        comment = rating.comment or None
        if (given.stars, given.comment) == (rating.stars, comment):
            return 200, _rating(given)
        first = given.stars is None
        before = (given.stars, given.comment, given.rating_id)
        # Taken before it is written, so that the same sent twice at once is one.
        given.stars, given.comment, given.rating_id = rating.stars, comment, new_id()
        try:
            await self._recording.rating(session, given, rating_id=given.rating_id, stars=rating.stars, comment=comment)
        except LedgerError:
            given.stars, given.comment, given.rating_id = before
            raise _not_kept() from None
        if first:
            self._metrics.rated(given.twin, given.version, rating.stars)
            self._standings.get(MinerId(*given.miner)).rated(rating.stars)
        return 201, _rating(given)

    async def prefer(self, body: bytes, key: ApiKey) -> tuple[int, dict[str, Any]]:
        """Take the choice between two answers, and say then whose they are; raises RequestError."""
        choice = _parsed(body, NewPreference)
        session = await self._sessions.get(choice.session_id, key_id=key.id, identity=_identity(choice.user))
        preferred = session.answers.get(_bare(choice.preferred_id))
        rejected = session.answers.get(preferred.beside) if preferred is not None and preferred.beside else None
        if preferred is None or rejected is None:
            raise RequestError(
                404, "invalid_request_error",
                "there is no such answer of a comparison in this session: `preferredId` is one of the two under "
                "`bettertherapy.compared`",
                code="answer_not_found",
            )  # fmt: skip
        if preferred.choice is not None or rejected.choice is not None:
            if preferred.choice:
                return 200, _preference(preferred, rejected)
            raise RequestError(
                409, "invalid_request_error", "the other answer was preferred already", code="already_chosen"
            )
        preferred.choice, rejected.choice = True, False
        try:
            await self._recording.preference(session, preferred, rejected, preference_id=new_id())
        except LedgerError:
            preferred.choice = rejected.choice = None
            raise _not_kept() from None
        session.prefer(preferred.answer_id)
        self._standings.get(MinerId(*preferred.miner)).ranked(1.0)
        self._standings.get(MinerId(*rejected.miner)).ranked(0.0)
        return 201, _preference(preferred, rejected)

    async def _answer(self, session: Session, answer_id: str, question_id: str | None) -> Given:
        given = session.answers.get(answer_id)
        if given is None and question_id is not None and self._recorder is not None:
            given = await self._from_ledger(session, answer_id, question_id)
        if given is None:
            raise RequestError(
                404, "invalid_request_error",
                "there is no such answer in this session: send `answerId` as the answer named it, and `questionId` for "
                "an old one",
                code="answer_not_found",
            )  # fmt: skip
        return given

    async def _from_ledger(self, session: Session, answer_id: str, question_id: str) -> Given | None:
        if self._recorder is None:
            return None
        try:
            view = await self._recorder.question(question_id=question_id, patient_id=session.patient_id)
        except NotFound:
            return None
        except LedgerError:
            raise _not_kept() from None
        answer = next((each for each in view.answers if each.answer_id == answer_id and not each.failure), None)
        if answer is None or view.question.session_id != session.id:
            return None
        given = Given(
            answer_id=answer_id, question_id=question_id, twin=answer.twin.name,
            version=version_of(answer.twin.name, answer.adapter_digest),
            miner=(answer.miner.hotkey, answer.miner.registered_block),
        )  # fmt: skip
        rating = next((each for each in view.ratings if each.answer_id == answer_id), None)
        if rating is not None:
            given.stars, given.rating_id = rating.stars, rating.rating_id
            given.comment = rating.comment.text if rating.comment is not None else None
        session.given(given)
        return given


def version_of(twin: str, adapter: str | None) -> str:
    """Return the served name of a version; of the base model itself `base`."""
    return names.served_name(twin, adapter) if adapter is not None else "base"


def _identity(user: str | None) -> str | None:
    """Return who a patient is as a chat's `user` says it."""
    return None if user is None else identity_of("user", user)


def _bare(answer_id: str) -> str:
    return answer_id.removeprefix("chatcmpl-")


def _session(session: Session) -> dict[str, Any]:
    return {"id": session.id, "object": "bettertherapy.session", "model": session.twin}


def _given(given: Given) -> dict[str, Any]:
    return {"answerId": given.answer_id, "questionId": given.question_id, "stars": given.stars}


def _rating(given: Given) -> dict[str, Any]:
    return {
        "id": given.rating_id, "object": "bettertherapy.rating", "answerId": given.answer_id, "stars": given.stars,
    }  # fmt: skip


def _preference(preferred: Given, rejected: Given) -> dict[str, Any]:
    def who(given: Given) -> Mapping[str, Any]:
        return {"answerId": given.answer_id, "servedName": given.version, "hotkey": given.miner[0]}

    return {"object": "bettertherapy.preference", "preferred": who(preferred), "rejected": who(rejected)}


def _not_kept() -> RequestError:
    return unavailable("it could not be kept, and so doesn't count: send it again", retry_after=5, code="not_kept")


def _parsed(body: bytes, model: type[M]) -> M:
    try:
        return model.model_validate(parse_object(body))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:80]
        raise bad_request(f"`{place}`: {first['msg']}", param=place or None) from None
