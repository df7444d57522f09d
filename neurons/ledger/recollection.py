"""What one process remembers of its latest sessions, so that they go on while the ledger is away."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from neurons.ledger.records import Answer, AnyRecord, Chosen, Question, Session
from neurons.ledger.views import History, Turn
from neurons.ledger.writing import patient_digest


@dataclass(slots=True)
class _Remembered:
    session: Session | None = None
    questions: dict[str, Question] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    """It began here, or was read whole."""


class Recollection:
    """The last turns of the last sessions, in memory."""

    def __init__(self, *, sessions: int = 5000, turns: int = 64) -> None:
        self._sessions: OrderedDict[str, _Remembered] = OrderedDict()
        self._most_sessions, self._most_turns = sessions, turns

    def note(self, records: Iterable[AnyRecord]) -> None:
        """Remember what belongs to a session."""
        for record in records:
            match record:
                case Session():
                    kept = self._of(record.session_id)
                    kept.session, kept.complete = kept.session or record, True
                case Question():
                    kept = self._of(record.session_id)
                    kept.questions.setdefault(record.question_id, record)
                    if len(kept.questions) > self._most_turns:
                        self._forget_first(kept)
                case Answer():
                    self._of(record.session_id).answers.setdefault(record.answer_id, record)
                case Chosen():
                    kept = self._of(record.session_id)
                    kept.chosen.setdefault(record.question_id, record.answer_id)
                    self._drop_losers(kept, record)
                case _:
                    pass

    def learn(self, read: History, *, whole: bool) -> None:
        """Remember a session as it was read; `whole`: with all of its turns."""
        if read.session is None:
            return
        kept = self._of(read.session.session_id)
        kept.session, kept.complete = read.session, kept.complete or whole
        for turn in read.turns:
            question = turn.question
            kept.questions.setdefault(question.question_id, question)
            if turn.answer is not None:
                kept.answers[turn.answer.answer_id] = turn.answer
                kept.chosen[question.question_id] = turn.answer.answer_id
            if len(kept.questions) > self._most_turns:
                self._forget_first(kept)

    def forget(self, patients: Collection[str]) -> None:
        """Forget all of these patients, given by what stays of their ids (`patient_digest`)."""
        for session_id, kept in list(self._sessions.items()):
            owners = {each.patient_id for each in kept.questions.values()}
            owners.update(each.patient_id for each in kept.answers.values())
            if kept.session is not None:
                owners.add(kept.session.patient_id)
            if any(patient_digest(owner) in patients for owner in owners):
                del self._sessions[session_id]

    def drop(self, session_id: str) -> None:
        """Forget one session."""
        self._sessions.pop(session_id, None)

    def owner(self, session_id: str) -> str | None:
        """Return whose session it is; None when that isn't remembered."""
        kept = self._sessions.get(session_id)
        return kept.session.patient_id if kept is not None and kept.session is not None else None

    def history(self, *, session_id: str, patient_id: str, limit: int) -> History:
        """Return what is remembered of a session."""
        kept = self._sessions.get(session_id, _Remembered())
        questions = sorted(
            (each for each in kept.questions.values() if each.patient_id == patient_id),
            key=lambda each: (each.at_ms, each.question_id),
        )[-limit:]
        turns = tuple(Turn(each, kept.answers.get(kept.chosen.get(each.question_id, ""))) for each in questions)
        return History(session=kept.session, turns=turns, complete=kept.complete)

    def _of(self, session_id: str) -> _Remembered:
        kept = self._sessions.setdefault(session_id, _Remembered())
        self._sessions.move_to_end(session_id)
        while len(self._sessions) > self._most_sessions:
            self._sessions.popitem(last=False)
        return kept

    @staticmethod
    def _forget_first(kept: _Remembered) -> None:
        first = min(kept.questions.values(), key=lambda each: (each.at_ms, each.question_id)).question_id
        del kept.questions[first]
        kept.answers.pop(kept.chosen.pop(first, ""), None)
        kept.complete = False

    @staticmethod
    def _drop_losers(kept: _Remembered, chosen: Chosen) -> None:
        for answer_id, answer in list(kept.answers.items()):
            if answer.question_id == chosen.question_id and answer_id != chosen.answer_id:
                del kept.answers[answer_id]


def merged(read: History, remembered: History, *, limit: int) -> History:
    """Return a session as it was read, with what is remembered and wasn't in the ledger yet."""
    turns = {turn.question.question_id: turn for turn in read.turns}
    for turn in remembered.turns:
        known = turns.get(turn.question.question_id)
        if known is None:
            turns[turn.question.question_id] = turn
        elif known.answer is None:
            turns[turn.question.question_id] = replace(known, answer=turn.answer)
    ordered = sorted(turns.values(), key=lambda turn: (turn.question.at_ms, turn.question.question_id))
    return History(session=read.session, turns=tuple(ordered[-limit:]))
