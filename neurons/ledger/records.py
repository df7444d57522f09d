"""What is written into the ledger: one frozen record each, with an id that its writer makes.

Every id is a UUID, so that no name or record number can be one. Writing a record twice changes nothing: the first
stays. Whatever is a patient's names the patient, so that the order of arrival doesn't matter and erasure finds all.
Times are whole milliseconds since 1970 (UTC). Miners are a hotkey and the block it was registered at, never a UID.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, Protocol, runtime_checkable

from neurons.entropy import random_bytes
from neurons.ledger.errors import BadRecord

MAX_TEXT: Final = 128 * 1024
"""Characters of one text."""
MAX_MILLISECONDS: Final = 2**53
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_LINE_DIGEST: Final = re.compile(r"[0-9a-f]{32}")
_SS58: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{40,64}")
_NAMESPACE: Final = uuid.UUID("6f1c2a52-8f0e-5d7b-9d43-0f4b6a1e7c11")


_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def new_id() -> str:
    """Return an id for a new record: a random UUID (version 4)."""
    # As str(uuid.uuid4()) does, for a sixth of its time: a question takes six of them.
    digits = random_bytes().hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


def derived_id(*parts: str) -> str:
    """Return the id that these parts always give, for a record that may be made again (a round run twice)."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(parts)))


@runtime_checkable
class Scrubbed(Protocol):
    """A text without identifiers. `neurons.privacy` makes them; a plain string isn't one."""

    @property
    def text(self) -> str:
        """What may be kept."""

    @property
    def scrubbed_by(self) -> str:
        """What took the identifiers out, with its version: at most 64 characters, as `privacy/3`."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A scrubbed text as it is read from the ledger. Only the ledger makes them."""

    text: str
    scrubbed_by: str


@dataclass(frozen=True, slots=True)
class Miner:
    """Who mines: a hotkey since one registration. The UID it has meanwhile is nobody's identity."""

    hotkey: str
    registered_block: int

    def __post_init__(self) -> None:
        _check(_SS58.fullmatch(self.hotkey) is not None, "hotkey is no ss58 address")
        _check(0 <= self.registered_block < 2**53, "registered_block is no block number")


@dataclass(frozen=True, slots=True)
class Twin:
    """A twin: its UID says which, its name is for people."""

    uid: str
    name: str

    def __post_init__(self) -> None:
        _check(_UUID.fullmatch(self.uid) is not None, "the twin's uid is no UUID in small letters")
        _check(0 < len(self.name) <= 253, "the twin's name is empty or longer than 253 characters")


class Record:
    """The base of what can be written."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, fault in _checks(type(self)):
            value = getattr(self, name)
            if value is not None and (what := fault(value)) is not None:
                raise BadRecord(f"{type(self).__name__}.{name} {what}")


# The patient's


@dataclass(frozen=True, slots=True)
class Consent(Record):
    """A patient agrees that the conversations are learned from, or withdraws that. The latest `at_ms` counts."""

    consent_id: str
    patient_id: str
    given: bool
    at_ms: int
    wording: str = ""
    """Which text was agreed to, as `en/3`."""


@dataclass(frozen=True, slots=True)
class Session(Record):
    """One conversation of a patient with a twin."""

    session_id: str
    patient_id: str
    twin: Twin
    at_ms: int


@dataclass(frozen=True, slots=True)
class Question(Record):
    """What the patient asked."""

    question_id: str
    session_id: str
    patient_id: str
    twin: Twin
    text: Scrubbed
    at_ms: int
    emergency: str = ""
    """Which emergency notice was shown with the answer, as `chestPain`; empty for none."""


@dataclass(frozen=True, slots=True)
class Answer(Record):
    """What one miner answered, or why it didn't."""

    answer_id: str
    question_id: str
    session_id: str
    patient_id: str
    twin: Twin
    miner: Miner
    at_ms: int
    """When it was complete, or given up."""
    latency_ms: int
    text: Scrubbed | None = None
    """None when it failed."""
    failure: str = ""
    """A word for why, as `timeout`; empty for an answer."""
    first_token_ms: int | None = None
    tokens: int | None = None
    adapter_digest: str | None = None
    """What the miner announced and the gateway checked; None: the base model itself."""
    base_digest: str | None = None
    receipt: str | None = None
    """As its header carried it (neurons/receipts)."""
    receipt_valid: bool | None = None
    score_milli: int | None = None
    """With what the gateway ranked it, in thousandths."""


@dataclass(frozen=True, slots=True)
class Chosen(Record):
    """Which answer the patient was given. The first one written for a question stays."""

    question_id: str
    answer_id: str
    session_id: str
    patient_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Rating(Record):
    """The patient's stars, 1 to 5, for an answer. The latest `at_ms` for an answer counts."""

    rating_id: str
    answer_id: str
    question_id: str
    patient_id: str
    stars: int
    at_ms: int
    comment: Scrubbed | None = None


@dataclass(frozen=True, slots=True)
class Preference(Record):
    """Which of two answers to one question is better, said without knowing whose they are."""

    preference_id: str
    question_id: str
    patient_id: str
    preferred_id: str
    """The better answer's id."""
    rejected_id: str
    at_ms: int
    by: str = "patient"
    """`patient` or `doctor`."""


@dataclass(frozen=True, slots=True)
class Correction(Record):
    """What the doctor would have answered. The latest `at_ms` for an answer counts."""

    correction_id: str
    answer_id: str
    question_id: str
    patient_id: str
    doctor_id: str
    text: Scrubbed
    at_ms: int


# The validator's


class TaskState(StrEnum):
    """Where a fine-tune task stands."""

    OFFERED = "offered"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    FINISHED = "finished"
    PASSED = "passed"
    FAILED = "failed"
    EXPIRED = "expired"
    """The offer never reached its miner, as far as the validator knows."""
    DISALLOWED = "disallowed"
    """What was reported is no work of its own: another reported it first, or it was there before."""
    INCONCLUSIVE = "inconclusive"
    """The validator could not examine what came of it, or not tell: that counts as neither passed nor failed."""
    WITHDRAWN = "withdrawn"
    """Its dataset is no more, since a patient took back what is in it: it counts neither way."""


@dataclass(frozen=True, slots=True)
class Task(Record):
    """A fine-tune task that was handed to a miner."""

    task_id: str
    twin: Twin
    miner: Miner
    dataset_uri: str
    dataset_digest: str
    at_ms: int
    deadline_ms: int
    parent_digest: str | None = None


@dataclass(frozen=True, slots=True)
class TaskEvent(Record):
    """A task came to another state. The latest `at_ms` counts."""

    event_id: str
    task_id: str
    state: TaskState
    at_ms: int
    adapter_digest: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Round(Record):
    """A round that began."""

    round_id: str
    name: str
    """Of the ValidatorRound."""
    validator: Miner
    seed: int
    challenge_digest: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class RoundFinished(Record):
    """A round that ended. The first one written for a round stays."""

    round_id: str
    results_digest: str
    at_ms: int
    weights: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RoundItem(Record):
    """One question of a round. One that replays a patient's names the patient, so that erasure finds it."""

    item_id: str
    round_id: str
    twin: Twin
    kind: str
    """`gold`, `organic`, `canary` or another word."""
    text: Scrubbed
    at_ms: int
    patient_id: str | None = None
    reference: Mapping[str, Any] = field(default_factory=dict)
    """Gold answer, rubric, source: what it is judged by."""


@dataclass(frozen=True, slots=True)
class RoundAnswer(Record):
    """What a miner answered to an item."""

    answer_id: str
    item_id: str
    round_id: str
    twin: Twin
    miner: Miner
    at_ms: int
    latency_ms: int
    patient_id: str | None = None
    """The item's."""
    text: Scrubbed | None = None
    failure: str = ""
    adapter_digest: str | None = None
    receipt: str | None = None
    receipt_valid: bool | None = None


@dataclass(frozen=True, slots=True)
class Score(Record):
    """One part of a miner's score in a round."""

    score_id: str
    round_id: str
    miner: Miner
    part: str
    """`correctness`, `clarity`, `speed`, `satisfaction`, `participation`, `total` or another word."""
    value_milli: int | None
    """0 to 100,000, thousandths of a percent; None: inconclusive."""
    at_ms: int
    twin_uid: str | None = None
    item_id: str | None = None
    patient_id: str | None = None
    """The item's, where the evidence quotes it."""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RoundStep(Record):
    """What a round took for granted from one of its steps on: read once, so that it can be recomputed.

    Nothing of a patient is in it.
    """

    step_id: str
    round_id: str
    step: str
    """`plan`, `speed` or another word."""
    at_ms: int
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WeightsClaim(Record):
    """Who sets the validator's weights in an epoch. The first one written for an epoch and attempt stays: a lock."""

    claim_id: str
    round_id: str
    """Whose weights they are."""
    validator: Miner
    netuid: int
    epoch: int
    attempt: int
    """From 1; the next may be claimed when whoever held the one before is silent."""
    holder: str
    """Which process."""
    since_block: int
    """From which on weights of the hotkey are these."""
    at_ms: int
    weights: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WeightsEvent(Record):
    """What became of weights: sent, revealed, missed, superseded, refused. The latest `at_ms` counts."""

    event_id: str
    claim_id: str
    outcome: str
    at_ms: int
    block: int | None = None
    detail: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Training(Record):
    """A run that made an adapter of a dataset and a parent."""

    training_id: str
    run: str
    twin: Twin
    dataset_digest: str
    adapter_digest: str
    at_ms: int
    parent_digest: str | None = None
    """None: the base model."""
    line_digests: tuple[str, ...] | None = None
    """Of the lines that it learned (32 hex digits each); None: of all lines of the dataset."""


AnyRecord = (
    Consent
    | Session
    | Question
    | Answer
    | Chosen
    | Rating
    | Preference
    | Correction
    | Task
    | TaskEvent
    | Round
    | RoundFinished
    | RoundItem
    | RoundAnswer
    | Score
    | RoundStep
    | WeightsClaim
    | WeightsEvent
    | Training
)


# Checks at the door

_WORDS: Final[Mapping[str, int]] = {
    "failure": 64, "emergency": 64, "kind": 64, "part": 64, "wording": 64, "detail": 1024, "name": 253, "run": 253,
    "dataset_uri": 2048, "receipt": 8192, "step": 128, "holder": 64, "outcome": 16,
}  # fmt: skip


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BadRecord(otherwise)


_AMOUNTS: Final = frozenset({"tokens", "seed", "netuid", "epoch", "attempt", "block"})
Fault = Callable[[Any], str | None]
"""Says what is wrong with a field's value, which is not None; None where nothing is."""


_CHECKS: Final[dict[type, tuple[tuple[str, Fault], ...]]] = {}


def _checks(kind: type[Record]) -> tuple[tuple[str, Fault], ...]:
    """Return the fields of a kind of record that are checked, found out once: a question has six records."""
    checks = _CHECKS.get(kind)
    if checks is None:
        found = [(each.name, _check_of(each.name)) for each in fields(kind)]  # type: ignore[arg-type]
        checks = _CHECKS[kind] = tuple((name, fault) for name, fault in found if fault is not None)
    return checks


def _check_of(name: str) -> Fault | None:
    if name.endswith("_id") or name == "twin_uid":
        return lambda value: (
            None if isinstance(value, str) and _UUID.fullmatch(value) else "is no UUID in small letters"
        )
    if name.endswith("_digest"):
        return lambda value: None if isinstance(value, str) and _DIGEST.fullmatch(value) else "is no sha256: digest"
    if name == "by":
        return lambda value: None if value in ("patient", "doctor") else "is neither patient nor doctor"
    if name in _WORDS:
        most = _WORDS[name]
        return lambda value: (
            None if isinstance(value, str) and len(value) <= most else f"has more than {most} characters"
        )
    if name in _FAULTS:
        return _FAULTS[name]
    return _of_amount if name.endswith(("_ms", "_block")) or name in _AMOUNTS else None


def _of_amount(value: Any) -> str | None:
    return None if _whole(value) and 0 <= value <= MAX_MILLISECONDS else "is no whole number from 0"


def _of_text(value: Any) -> str | None:
    if isinstance(value, str):
        return "is a plain string: scrub it first (neurons.privacy)"
    # As isinstance(value, Scrubbed) looks, for a tenth of its time.
    if not (hasattr(value, "text") and hasattr(value, "scrubbed_by")):
        return "is no scrubbed text (neurons.privacy)"
    if len(value.text) > MAX_TEXT:
        return f"has more than {MAX_TEXT} characters"
    if not 0 < len(value.scrubbed_by) <= 64:
        return "doesn't say what scrubbed it, in at most 64 characters"
    return None


def _of_lines(value: Any) -> str | None:
    whole = all(isinstance(each, str) and _LINE_DIGEST.fullmatch(each) for each in value)
    return None if whole else "holds no line digest"


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_FAULTS: Final[Mapping[str, Fault]] = {
    "text": _of_text,
    "comment": _of_text,
    "line_digests": _of_lines,
    "stars": lambda value: None if _whole(value) and 1 <= value <= 5 else "is no whole number from 1 to 5",
    "value_milli": lambda value: (
        None if _whole(value) and 0 <= value <= 100_000 else "is not from 0 to 100,000 thousandths of a percent"
    ),
    "score_milli": lambda value: None if _whole(value) and abs(value) < 2**53 else "is no whole number",
}
