"""The tables. `migrations/` makes them; a test compares the two."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, SmallInteger, String, Table, Text

METADATA: Final = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"})
_ID: Final = String(36)
_DIGEST: Final = String(71)
_WORD: Final = String(64)


def _id(name: str, *, key: bool = False, optional: bool = False) -> Column[str]:
    return Column(name, _ID, primary_key=key, nullable=optional)


def _twin() -> tuple[Column[str], Column[str]]:
    return Column("twin_uid", _ID, nullable=False), Column("twin_name", String(253), nullable=False)


def _miner() -> tuple[Column[str], Column[int]]:
    return Column("hotkey", _WORD, nullable=False), Column("registered_block", BigInteger, nullable=False)


def _text(name: str = "text", *, optional: bool = False) -> tuple[Column[str], Column[str]]:
    return Column(name, Text, nullable=optional), Column(f"{name}_by", _WORD, nullable=optional)


def _at(name: str = "at_ms", *, optional: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=optional)


def _word(name: str, *, longest: int = 64, optional: bool = False) -> Column[str]:
    return Column(name, String(longest), nullable=optional)


CONSENTS: Final = Table(
    "consents", METADATA,
    _id("consent_id", key=True), _id("patient_id"), Column("given", Boolean, nullable=False), _at(), _word("wording"),
    Index(None, "patient_id"),
)  # fmt: skip
SESSIONS: Final = Table(
    "sessions", METADATA,
    _id("session_id", key=True), _id("patient_id"), *_twin(), _at(),
    Index(None, "patient_id", "at_ms"), Index(None, "at_ms"),
)  # fmt: skip
QUESTIONS: Final = Table(
    "questions", METADATA,
    _id("question_id", key=True), _id("session_id"), _id("patient_id"), *_twin(), *_text(), _at(), _word("emergency"),
    Index(None, "session_id", "at_ms"), Index(None, "patient_id"), Index(None, "twin_uid", "at_ms"),
    Index(None, "at_ms"),
)  # fmt: skip
ANSWERS: Final = Table(
    "answers", METADATA,
    _id("answer_id", key=True), _id("question_id"), _id("session_id"), _id("patient_id"), *_twin(), *_miner(), _at(),
    Column("latency_ms", BigInteger, nullable=False), *_text(optional=True), _word("failure"),
    Column("first_token_ms", BigInteger), Column("tokens", BigInteger), Column("adapter_digest", _DIGEST),
    Column("base_digest", _DIGEST), Column("receipt", Text), Column("receipt_valid", Boolean),
    Column("score_milli", BigInteger),
    Index(None, "question_id"), Index(None, "patient_id"), Index(None, "hotkey", "registered_block", "at_ms"),
    Index(None, "at_ms"),
)  # fmt: skip
CHOSEN: Final = Table(
    "chosen", METADATA,
    _id("question_id", key=True), _id("answer_id"), _id("session_id"), _id("patient_id"), _at(),
    Index(None, "patient_id"), Index(None, "at_ms"), Index(None, "session_id"),
)  # fmt: skip
RATINGS: Final = Table(
    "ratings", METADATA,
    _id("rating_id", key=True), _id("answer_id"), _id("question_id"), _id("patient_id"),
    Column("stars", SmallInteger, nullable=False), _at(), *_text("comment", optional=True),
    Index(None, "answer_id"), Index(None, "question_id"), Index(None, "patient_id"), Index(None, "at_ms"),
)  # fmt: skip
PREFERENCES: Final = Table(
    "preferences", METADATA,
    _id("preference_id", key=True), _id("question_id"), _id("patient_id"), _id("preferred_id"), _id("rejected_id"),
    _at(), _word("by"),
    Index(None, "question_id"), Index(None, "patient_id"), Index(None, "at_ms"),
)  # fmt: skip
CORRECTIONS: Final = Table(
    "corrections", METADATA,
    _id("correction_id", key=True), _id("answer_id"), _id("question_id"), _id("patient_id"), _id("doctor_id"),
    *_text(), _at(),
    Index(None, "answer_id"), Index(None, "question_id"), Index(None, "patient_id"), Index(None, "at_ms"),
)  # fmt: skip
TASKS: Final = Table(
    "tasks", METADATA,
    _id("task_id", key=True), *_twin(), *_miner(), _word("dataset_uri", longest=2048),
    Column("dataset_digest", _DIGEST, nullable=False), _at(), _at("deadline_ms"), Column("parent_digest", _DIGEST),
    Index(None, "hotkey", "registered_block"), Index(None, "dataset_digest"),
)  # fmt: skip
TASK_EVENTS: Final = Table(
    "task_events", METADATA,
    _id("event_id", key=True), _id("task_id"), _word("state", longest=16), _at(), Column("adapter_digest", _DIGEST),
    _word("detail", longest=1024),
    Index(None, "task_id"),
)  # fmt: skip
ROUNDS: Final = Table(
    "rounds", METADATA,
    _id("round_id", key=True), _word("name", longest=253), *_miner(), Column("seed", BigInteger, nullable=False),
    Column("challenge_digest", _DIGEST, nullable=False), _at(),
    Index(None, "at_ms"), Index(None, "name"),
)  # fmt: skip
ROUNDS_FINISHED: Final = Table(
    "rounds_finished", METADATA,
    _id("round_id", key=True), Column("results_digest", _DIGEST, nullable=False), _at(),
    Column("weights", Text, nullable=False),
)  # fmt: skip
ROUND_ITEMS: Final = Table(
    "round_items", METADATA,
    _id("item_id", key=True), _id("round_id"), *_twin(), _word("kind"), *_text(), _at(),
    _id("patient_id", optional=True), Column("reference", Text, nullable=False),
    Index(None, "round_id"), Index(None, "patient_id"), Index(None, "at_ms"),
)  # fmt: skip
ROUND_ANSWERS: Final = Table(
    "round_answers", METADATA,
    _id("answer_id", key=True), _id("item_id"), _id("round_id"), *_twin(), *_miner(), _at(),
    Column("latency_ms", BigInteger, nullable=False), _id("patient_id", optional=True), *_text(optional=True),
    _word("failure"), Column("adapter_digest", _DIGEST), Column("receipt", Text), Column("receipt_valid", Boolean),
    Index(None, "round_id"), Index(None, "item_id"), Index(None, "patient_id"), Index(None, "at_ms"),
)  # fmt: skip
SCORES: Final = Table(
    "scores", METADATA,
    _id("score_id", key=True), _id("round_id"), *_miner(), _word("part"), Column("value_milli", Integer), _at(),
    _id("twin_uid", optional=True), _id("item_id", optional=True), _id("patient_id", optional=True),
    Column("evidence", Text, nullable=False),
    Index(None, "round_id"), Index(None, "hotkey", "registered_block", "at_ms"), Index(None, "patient_id"),
    Index(None, "at_ms"),
)  # fmt: skip
TRAININGS: Final = Table(
    "trainings", METADATA,
    _id("training_id", key=True), _word("run", longest=253), *_twin(),
    Column("dataset_digest", _DIGEST, nullable=False),
    Column("adapter_digest", _DIGEST, nullable=False), _at(), Column("parent_digest", _DIGEST),
    Column("line_digests", Text),
    Index(None, "twin_uid"), Index(None, "adapter_digest"), Index(None, "dataset_digest"),
)  # fmt: skip

ROUND_STEPS: Final = Table(
    "round_steps", METADATA,
    _id("step_id", key=True), _id("round_id"), _word("step", longest=128), _at(),
    Column("evidence", Text, nullable=False),
    Index(None, "round_id"),
)  # fmt: skip
WEIGHT_CLAIMS: Final = Table(
    "weight_claims", METADATA,
    _id("claim_id", key=True), _id("round_id"), *_miner(), Column("netuid", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False), Column("attempt", Integer, nullable=False), _word("holder"),
    Column("since_block", BigInteger, nullable=False), _at(), Column("weights", Text, nullable=False),
    Index(None, "hotkey", "registered_block", "at_ms"), Index(None, "round_id"),
)  # fmt: skip
WEIGHT_EVENTS: Final = Table(
    "weight_events", METADATA,
    _id("event_id", key=True), _id("claim_id"), _word("outcome", longest=16), _at(), Column("block", BigInteger),
    _word("detail", longest=1024), Column("evidence", Text, nullable=False),
    Index(None, "claim_id"),
)  # fmt: skip

# What only the ledger itself writes

DATASETS: Final = Table(
    "datasets", METADATA,
    Column("dataset_digest", _DIGEST, primary_key=True), *_twin(), _word("day", longest=10), _at(),
    Column("line_count", BigInteger, nullable=False),
    Index(None, "twin_uid", "day"),
)  # fmt: skip
DATASET_LINES: Final = Table(
    "dataset_lines", METADATA,
    Column("dataset_digest", _DIGEST, primary_key=True), _id("line_id", key=True), _word("line_digest", longest=32),
    _id("twin_uid"), _id("patient_id", optional=True), _id("erasure_id", optional=True),
    Index(None, "patient_id"), Index(None, "erasure_id"), Index(None, "line_id"),
)  # fmt: skip
"""Whose a line is, until its patient is erased; then by which erasure."""
TOMBSTONES: Final = Table("tombstones", METADATA, Column("patient_digest", _DIGEST, primary_key=True), _at())
"""The digests of erased patients' ids: what still comes of theirs is dropped."""
ERASURES: Final = Table(
    "erasures", METADATA,
    _id("erasure_id", key=True), Column("patient_digest", _DIGEST, nullable=False, unique=True), _at(),
)  # fmt: skip
RETRAININGS: Final = Table(
    "retrainings", METADATA,
    _id("erasure_id", key=True), Column("adapter_digest", _DIGEST, primary_key=True), *_twin(),
    _word("run", longest=253), Column("clean_ancestor", _DIGEST), Column("certain", Boolean, nullable=False),
    _at(), _at("done_at_ms", optional=True),
    Index(None, "twin_uid"),
)  # fmt: skip
SIGN_OUTS: Final = Table("sign_outs", METADATA, _id("sign_in_id", key=True), _at(), Index(None, "at_ms"))
"""Sign-ins of the pages that ended. Nothing in them says whose they were."""

OF_PATIENTS: Final = (
    "round_answers", "round_items", "corrections", "preferences", "ratings", "chosen", "answers",
    "questions", "sessions", "consents",
)  # fmt: skip
"""The tables with rows that go with their patient."""


def key_of(table: Table) -> str:
    """Return the name of a record table's one key column."""
    (column,) = table.primary_key.columns
    return column.name
