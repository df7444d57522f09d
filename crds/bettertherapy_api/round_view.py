"""What the gateway says of a round to an operator, out of the ledger: who scored what and why, down to the answers.

    GET /v1/rounds/NAME                    RoundView: every miner, best first
    GET /v1/rounds/NAME/miners/HOTKEY      MinerView: its questions, its answers, and what was found in the sources

Both for keys of operators alone (`neurons.validator.gateway.rounds`), which asks a `RoundsReader`; the one over the
ledger is `neurons.validator.rounds.reading.LedgerRounds`. A name may have been given to several rounds one after the
other: the newest is meant. Unlike the API's objects these have fractions.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bettertherapy_api.document import Document
from bettertherapy_api.schema import Time

MAX_MINERS = 4096
MAX_ANSWERS = 10_000
MAX_TASKS = 200

Part = Annotated[float, Field(ge=0, le=100)]


class MinerLine(Document):
    """One miner of a round. A part that is None could not be measured; `notes` say why."""

    uid: int
    hotkey: str
    coldkey: str | None = None
    registered_at: int | None = Field(default=None, alias="registeredAt")
    """Block of its registration: with the hotkey it says who it was."""
    score: Part | None = None
    """After the rounds before were taken into account."""
    correctness: Part | None = None
    clarity: Part | None = None
    speed: Part | None = None
    satisfaction: Part | None = None
    participation: Part | None = None
    weight: Annotated[float, Field(ge=0, le=1)] | None = None
    """Its share of the weights."""
    answered: int = 0
    asked: int = 0
    notes: Annotated[tuple[str, ...], Field(max_length=32)] = ()
    """Sentences on what became of it: a share with near duplicates, another hotkey of its coldkey, stale metrics."""


class RoundView(Document):
    """GET /v1/rounds/NAME."""

    name: str
    uid: str
    validator: str
    seed: int
    items: int
    start_time: Time = Field(alias="startTime")
    completion_time: Time | None = Field(default=None, alias="completionTime")
    results_digest: str | None = Field(default=None, alias="resultsDigest")
    challenge_digest: str | None = Field(default=None, alias="challengeDigest")
    miners: Annotated[tuple[MinerLine, ...], Field(max_length=MAX_MINERS)] = ()


class Evidence(Document):
    """What was found on one claim of an answer, or on one criterion of a rubric."""

    claim: str
    verdict: Literal["supported", "contradicted", "unchecked", "met", "unmet"]
    source: str | None = None
    """Name of the source, of a rubric or of a judge."""
    url: str | None = None
    passage: str | None = None
    """What stands there."""


class AnswerView(Document):
    """One question, what the miner answered, and how it was scored."""

    item: str
    twin: str
    kind: str
    """gold, organic or canary."""
    question: str
    answer: str | None = None
    """None where it gave none; `how` says what came instead."""
    expected: str | None = None
    """Gold answer or rubric, in words."""
    score: Part | None = None
    clarity: Part | None = None
    how: str
    """By what it was scored: choice, rubric, claims; or why it was not."""
    milliseconds: float | None = None
    """As measured here."""
    evidence: Annotated[tuple[Evidence, ...], Field(max_length=64)] = ()


class TaskView(Document):
    """One fine-tune task that the miner was offered, and how far it came."""

    task: str
    twin: str
    state: str
    """offered, accepted, refused, finished, passed, failed, expired, disallowed, inconclusive or withdrawn."""
    adapter: str | None = None
    """What the miner reported."""
    detail: str = ""
    """Why, as who decided it says."""
    at: Time


class MinerView(Document):
    """GET /v1/rounds/NAME/miners/HOTKEY."""

    round: str
    miner: MinerLine
    answers: Annotated[tuple[AnswerView, ...], Field(max_length=MAX_ANSWERS)] = ()
    tasks: Annotated[tuple[TaskView, ...], Field(max_length=MAX_TASKS)] = ()
    """Fine-tune tasks of the two weeks before the round and of its own, the newest first."""
