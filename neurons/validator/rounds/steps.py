"""What a round reads once and goes by from then on: documents of whole numbers, so that a digest is always the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from neurons.ledger.records import Miner, RoundStep, derived_id
from neurons.validator.rounds.rewards import Entrant

MILLI: Final = 100_000
"""A whole, in thousandths of a percent."""


class Step(StrEnum):
    """The steps, in their order."""

    PLAN = "plan"
    """The order, who was asked what, the metagraph when the round began."""
    ASKED = "asked"
    """How many questions each miner answered."""
    REGISTERED = "registered"
    """The metagraph when the answers were scored."""
    CANARIES = "canaries"
    """How the judges did on answers whose worth is known."""
    SPEED = "speed"
    SATISFACTION = "satisfaction"
    PARTICIPATION = "participation"
    WEIGHTS_CHECK = "weights-check"
    PRIOR = "prior"
    """The averages of the round before."""
    MEASURES = "measures"
    """How the validator itself did."""
    RESULTS = "results"
    TASKS = "tasks"
    """Which fine-tune tasks are handed out to whom. It is no part of the results."""


def step_record(round_id: str, step: Step, evidence: Mapping[str, Any], *, at_ms: int) -> RoundStep:
    """Return the record of a step; the same for whoever does it again."""
    return RoundStep(
        step_id=derived_id("step", round_id, step.value), round_id=round_id, step=step.value, at_ms=at_ms,
        evidence=evidence,
    )  # fmt: skip


def milli(value: float | None) -> int | None:
    """Return 0 to 1 as thousandths of a percent."""
    return None if value is None else min(MILLI, max(0, round(value * MILLI)))


def of_milli(value: int | None) -> float | None:
    """Return what `milli` was made of."""
    return None if value is None else value / MILLI


def key(miner: Miner) -> str:
    """Return a miner as one word of a document."""
    return f"{miner.hotkey}@{miner.registered_block}"


def miner_of(word: str) -> Miner:
    """Return the miner of `key`."""
    hotkey, _, block = word.partition("@")
    return Miner(hotkey=hotkey, registered_block=int(block))


@dataclass(frozen=True, slots=True)
class Registered:
    """A metagraph, as far as rounds go by it."""

    block: int
    owner_coldkey: str
    entrants: tuple[Entrant, ...]

    def to_document(self) -> dict[str, Any]:
        """Return it as a step has it."""
        return {
            "block": self.block,
            "ownerColdkey": self.owner_coldkey,
            "entrants": [
                [each.uid, each.miner.hotkey, each.miner.registered_block, each.coldkey] for each in self.entrants
            ],
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Registered:
        """Read what `to_document` wrote."""
        return cls(
            block=int(document["block"]),
            owner_coldkey=str(document["ownerColdkey"]),
            entrants=tuple(
                Entrant(miner=Miner(hotkey=hotkey, registered_block=block), uid=uid, coldkey=coldkey)
                for uid, hotkey, block, coldkey in document["entrants"]
            ),
        )


@dataclass(frozen=True, slots=True)
class Attendance:
    """How one miner attended."""

    asked: int
    answered: int
    """Of those, so many answers came in time and were proven."""
    reachable: int
    """Of those, so many that somebody answered."""
    unproven: int
    """Answers whose receipt didn't prove them."""

    @property
    def share(self) -> float | None:
        """Return the answered share of what somebody answered; None where nobody answered anything."""
        return min(1.0, self.answered / self.reachable) if self.reachable else None


@dataclass(frozen=True, slots=True)
class Taken:
    """All steps of a round, read."""

    plan: Mapping[str, Any]
    attendance: Mapping[Miner, Attendance]
    registered: Registered
    speed: Mapping[Miner, int]
    """Thousandths of a percent, as the ones below."""
    metrics_fresh: bool
    metrics_message: str
    satisfaction: Mapping[Miner, int]
    participation: Mapping[Miner, int]
    others_weights: frozenset[Miner]
    """Whose answers came from other weights than they announced."""
    prior: Mapping[Miner, int]
    measures: Mapping[str, Any] = field(default_factory=dict)


def read_steps(steps: Mapping[str, RoundStep]) -> Taken:
    """Read a round's steps. Raises KeyError for one that isn't there."""

    def of(step: Step) -> Mapping[str, Any]:
        return steps[step.value].evidence

    speed = of(Step.SPEED)
    return Taken(
        plan=of(Step.PLAN),
        attendance={miner_of(word): Attendance(*counts) for word, counts in of(Step.ASKED)["miners"].items()},
        registered=Registered.of(of(Step.REGISTERED)),
        speed={miner_of(word): each[0] for word, each in speed["of"].items()},
        metrics_fresh=bool(speed["fresh"]),
        metrics_message=str(speed["message"]),
        satisfaction={miner_of(word): each[0] for word, each in of(Step.SATISFACTION)["of"].items()},
        participation={miner_of(word): each[0] for word, each in of(Step.PARTICIPATION)["of"].items()},
        others_weights=frozenset(
            miner_of(word) for word, each in of(Step.WEIGHTS_CHECK)["of"].items() if each[0] == "Others"
        ),
        prior={miner_of(word): int(value) for word, value in of(Step.PRIOR)["of"].items()},
        measures=of(Step.MEASURES),
    )


def by_key(found: Iterable[tuple[Miner, Sequence[Any]]]) -> dict[str, Any]:
    """Return a document's `of`, by miner."""
    return {key(miner): list(values) for miner, values in found}
