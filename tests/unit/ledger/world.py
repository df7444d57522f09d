"""Patients, twins and miners who talk, for the ledger's tests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from neurons.ledger import (
    Answer,
    AnyRecord,
    Chosen,
    Consent,
    Correction,
    Miner,
    Preference,
    Question,
    Rating,
    Session,
    Training,
    Twin,
    new_id,
)
from neurons.ledger.dataset import is_held_out

DAY_MS = 24 * 3600 * 1000
NOON = 20_000 * DAY_MS + DAY_MS // 2
"""Noon of 2024-10-04."""
DAY = "2024-10-04"
GURUNG = Twin(uid="11111111-1111-4111-8111-111111111111", name="dr-gurung")
SHARMA = Twin(uid="22222222-2222-4222-8222-222222222222", name="dr-sharma")


@dataclass(frozen=True)
class Clean:
    """A scrubbed text, as neurons.privacy makes them."""

    text: str
    scrubbed_by: str = "test/1"


def digest(of: str) -> str:
    return "sha256:" + hashlib.sha256(of.encode()).hexdigest()


def patient(*twins: Twin, held_out: bool = False) -> str:
    """A patient whose conversations with these doctors go to miners, or by whom what they made is examined."""
    while True:
        found = new_id()
        if all(is_held_out(twin.uid, found) is held_out for twin in twins or (GURUNG, SHARMA)):
            return found


def miner(number: int = 0) -> Miner:
    return Miner(hotkey="5" + "ABCDEFGHJK"[number] * 47, registered_block=1000 + number)


@dataclass
class Conversation:
    """One session; `records` are all that was said in it."""

    patient_id: str = ""
    """Another one for each conversation, with whom miners may learn."""
    twin: Twin = GURUNG
    at_ms: int = NOON
    consents: bool = True
    session_id: str = field(default_factory=new_id)
    records: list[AnyRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.patient_id = self.patient_id or patient(GURUNG, SHARMA, self.twin)
        if self.consents:
            self.consent(True, at_ms=self.at_ms - 1000)
        self.records.append(Session(self.session_id, self.patient_id, self.twin, self.at_ms))

    def consent(self, given: bool, *, at_ms: int) -> None:
        self.records.append(Consent(new_id(), self.patient_id, given, at_ms))

    def ask(self, text: str, *answers: str | None, at_ms: int | None = None, emergency: str = "") -> list[Answer]:
        """Ask; the first answer is chosen, None is a failure."""
        self.at_ms = self.at_ms + 1000 if at_ms is None else at_ms
        question = Question(
            new_id(), self.session_id, self.patient_id, self.twin, Clean(text), self.at_ms, emergency=emergency
        )
        made = [
            Answer(
                answer_id=new_id(),
                question_id=question.question_id,
                session_id=self.session_id,
                patient_id=self.patient_id,
                twin=self.twin,
                miner=miner(number),
                at_ms=self.at_ms + 10 + number,
                latency_ms=100,
                text=None if said is None else Clean(said),
                failure="timeout" if said is None else "",
                adapter_digest=digest("adapter"),
            )
            for number, said in enumerate(answers)
        ]
        self.records += [question, *made]
        if made and made[0].text is not None:
            self.records.append(
                Chosen(question.question_id, made[0].answer_id, self.session_id, self.patient_id, self.at_ms + 20)
            )
        return made

    def rate(self, answer: Answer, stars: int, *, comment: str | None = None, at_ms: int | None = None) -> None:
        self.records.append(
            Rating(
                new_id(), answer.answer_id, answer.question_id, self.patient_id, stars,
                self.at_ms + 100 if at_ms is None else at_ms, None if comment is None else Clean(comment),
            )
        )  # fmt: skip

    def correct(self, answer: Answer, text: str, *, at_ms: int | None = None) -> None:
        self.records.append(
            Correction(
                new_id(), answer.answer_id, answer.question_id, self.patient_id, new_id(), Clean(text),
                self.at_ms + 200 if at_ms is None else at_ms,
            )
        )  # fmt: skip

    def prefer(self, better: Answer, worse: Answer) -> None:
        self.records.append(
            Preference(
                new_id(), better.question_id, self.patient_id, better.answer_id, worse.answer_id, self.at_ms + 300
            )
        )


def training(
    adapter: str, *, parent: str | None, dataset: str, twin: Twin = GURUNG, lines: tuple[str, ...] | None = None,
    at_ms: int = NOON,
) -> Training:  # fmt: skip
    return Training(
        training_id=new_id(),
        run=f"run-{adapter}",
        twin=twin,
        dataset_digest=dataset if dataset.startswith("sha256:") else digest(dataset),
        adapter_digest=digest(adapter),
        parent_digest=None if parent is None else digest(parent),
        at_ms=at_ms,
        line_digests=lines,
    )


def a_day() -> Conversation:
    talk = Conversation()
    first, other = talk.ask("My knee hurts.", "Rest it.", "Run.")
    talk.rate(first, 4, comment="Kind.")
    talk.prefer(first, other)
    (second,) = talk.ask("For how long?", "For a week.")
    talk.correct(second, "For two days.")
    return talk
