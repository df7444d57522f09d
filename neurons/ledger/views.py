"""What is read from the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field

from neurons.ledger.records import Answer, Correction, Preference, Question, Rating, Session


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the records that were given."""

    new: int = 0
    known: int = 0
    """They were there already; nothing changed."""
    erased: int = 0
    """They are of a patient who was erased, and were dropped."""

    def __add__(self, other: Written) -> Written:
        return Written(self.new + other.new, self.known + other.known, self.erased + other.erased)


@dataclass(frozen=True, slots=True)
class Turn:
    """One question of a session with the answer that the patient was given."""

    question: Question
    answer: Answer | None = None
    """None: nobody answered, or it isn't known yet."""
    rating: Rating | None = None
    """The latest."""
    correction: Correction | None = None
    """The latest."""


@dataclass(frozen=True, slots=True)
class History:
    """A session's turns, oldest first."""

    session: Session | None
    """None: only known while the ledger is away and this process has not seen it begin."""
    turns: tuple[Turn, ...]
    complete: bool = True
    """False: the ledger was away, and earlier turns that this process doesn't remember may be missing."""


@dataclass(frozen=True, slots=True)
class ConsentState:
    """Whether a patient's conversations may be learned from, now."""

    given: bool
    since_ms: int | None
    """Since when it is as it is; None: never asked. What was said before a consent is not learned from."""
    said_ms: int | None = None
    """When the patient spoke of it last."""


@dataclass(frozen=True, slots=True)
class QuestionView:
    """Everything of one question, as a doctor's review or an audit reads it."""

    question: Question
    answers: tuple[Answer, ...]
    """Of all miners that were asked, oldest first."""
    chosen_id: str | None
    """The answer that the patient was given."""
    ratings: tuple[Rating, ...] = ()
    """The latest of each answer."""
    corrections: tuple[Correction, ...] = ()
    """The latest of each answer."""
    preferences: tuple[Preference, ...] = ()


@dataclass(frozen=True, slots=True)
class Retraining:
    """An adapter that learned from what must be forgotten."""

    adapter_digest: str
    twin_uid: str
    twin_name: str
    run: str
    clean_ancestor: str | None
    """The nearest ancestor that learned nothing of it, to train from again; None: the base model."""
    certain: bool = True
    """False: what it learned isn't recorded line by line; its twin's data held the patient's lines."""


@dataclass(frozen=True, slots=True)
class DatasetLine:
    """One line of a dataset that was exported."""

    dataset_digest: str
    line_id: str
    line_digest: str
    twin_uid: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """What erasing a patient did. Asked again it says the same lines and adapters, and removes nothing more."""

    erasure_id: str
    removed: dict[str, int] = field(default_factory=dict)
    """Rows by table."""
    lines: tuple[DatasetLine, ...] = ()
    """Lines of datasets that were made of the patient's conversations: to be taken out of every copy."""
    retrain: tuple[Retraining, ...] = ()
    """Adapters trained on them, and all that descend from these."""
    known: bool = True
    """The ledger has, or had before an earlier erasure, anything of the patient."""
